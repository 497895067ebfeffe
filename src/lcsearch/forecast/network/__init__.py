"""The pretrained curve network: studies -> forecasts."""
