"""Adapters to other people's search frameworks: `lcsearch.schedulers.optuna`, `lcsearch.schedulers.ray_tune`.

They translate and nothing else: make a snapshot, apply a verdict, state what the framework can do, keep state.
Import them as `lcsearch.schedulers...`, never from the repository's root.
"""
