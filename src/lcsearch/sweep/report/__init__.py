"""The report of a run: what it says, its figures, its page."""
