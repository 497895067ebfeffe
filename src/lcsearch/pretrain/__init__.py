"""How the network comes by its weights: recipes, the training loop, weight files and their cards."""
