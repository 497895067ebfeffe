"""Where the model is held and forecasts are made: in process, by `lcsearch serve`, in a Ray cluster. By name."""
