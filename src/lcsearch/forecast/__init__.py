"""What a trial's future looks like: queries, forecasts, and the forecasters that answer them.

`contract` holds the questions and answers; `parametric` extrapolates each curve (its `observed` -> `fit` over
`families` -> `mixture`); `rank_gap` extrapolates nothing and compares. Pure numpy and scipy.special: no I/O, no clock,
no global RNG, so that all of it may run inside a user's training process. `network` and its `prior` are torch, imported
only where they are asked for.
"""
