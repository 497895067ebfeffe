"""Replay: any policy on curves known already, by the code that decides in production, under a virtual clock."""
