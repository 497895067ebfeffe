"""Known curves: one task with its runs, tables of them, made ones, and readers of what people already have."""
