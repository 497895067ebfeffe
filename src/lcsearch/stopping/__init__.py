"""Where a stop is decided: gates, threshold, rank guard, divergence, risk ledger, decisions. Pure functions."""
