"""What the model thinks of every begun trial of a study, and of configurations not begun: facts, then views."""
