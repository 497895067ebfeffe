"""Where the model is held and forecasts are made: in process so far. Forecasters by name."""
