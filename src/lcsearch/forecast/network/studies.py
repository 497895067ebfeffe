"""What the network is trained on: batches of whole studies, drawn from the prior or from real curves."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Studies:
    """B studies of C trials each, over S reports.

    All values are losses (lower is better) in units of any size; reports of one study stand at the same steps.

    Attributes:
        steps: (B, S) steps > 0 of the reports, strictly increasing up to `length`; what follows repeats the last one.
        length: (B,) int64, reports of a trial that runs to the horizon, 2 <= length <= S.
        loss: (B, C, S) float32 reports; NaN is a report that was not finite (an event), to the end for a trial that
            diverged. What stands at or beyond `length` means nothing.
        latent: (B, C, S) the loss without noise; NaN where it is not known (real curves).
        reported: (B, C) int64, how many reports a trial had made when it ended as context of the others: `length` for a
            complete one, fewer for one that a scheduler stopped.
        present: (B, C) bool, False for padding.
        rate: (B, C, S) learning rate of the planned schedule as a share of its peak, in [0, 1]; NaN when not known.
        params: (B, C, D) configuration: a number scaled to [0, 1] over its range (after a logarithm where the range is
            logarithmic), or a category's index 0, 1, ...; NaN where the parameter does not exist (conditional).
        kinds: (B, D) int64, what a parameter is: 0 nothing (padding), 1 a number, 2 a category.
    """

    steps: Tensor
    length: Tensor
    loss: Tensor
    latent: Tensor
    reported: Tensor
    present: Tensor
    rate: Tensor
    params: Tensor
    kinds: Tensor

    def to(self, device: torch.device | str) -> Studies:
        """The same on another device."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def __len__(self) -> int:
        return self.steps.shape[0]
