"""How the network comes by its weights: recipes, the training loop, real curves, model cards."""

from __future__ import annotations

from lcsearch.extras import need_sweep

need_sweep("lcsearch.pretrain")
