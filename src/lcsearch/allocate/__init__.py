"""The bandit curriculum: policies that say which arm gets the next unit of compute."""
