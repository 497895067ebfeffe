"""What is seen of a sweep, without running one: progress, state, decisions, the record of a run."""
