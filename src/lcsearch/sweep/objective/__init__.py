"""What is trained: the contract of an objective, programs, checkpoints."""
