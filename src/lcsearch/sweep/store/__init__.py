"""Where a sweep is kept: run folder, study, who has which trial, budget."""
