"""How the network comes by its weights: recipes, the training loop, real curves, model cards."""
