"""The synthetic prior of the network: whole studies of learning curves, drawn in torch from one generator.

`draw` makes a batch; `bases`, `departures`, `annealing`, `warps` and `noise` hold the formulas, `rates` how often what
happens, `losses` puts a trial's curve together, `configurations` couples it to hyperparameters, and `contexts.censor`
leaves of every trial what a scheduler would have let it report.
"""

from lcsearch.forecast.prior.contexts import censor
from lcsearch.forecast.prior.draw import draw

__all__ = ["censor", "draw"]
