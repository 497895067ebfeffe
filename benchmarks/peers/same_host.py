"""What LitServe and Ray Serve are put around: the network, and the finished trials that it has been told of."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from lcsearch.host import wire
from lcsearch.host.in_process import Pretrained
from lcsearch.host.service import KeptTrials

LOOKS, WAIT_S = 128, 0.001
"""Of one batch, and how long it waits for more."""


class Same:
    """What every server does with a batch of bodies."""

    def __init__(self) -> None:
        self.model, self.kept = Pretrained(), KeptTrials()
        self.model.prepare()

    def answer(self, batch: Sequence[bytes]) -> list[bytes]:
        """One pass of the network."""
        requests = [wire.unpack(body) for body in batch]
        banks = [self.kept.find(request) for request in requests]
        asks = [(request.snapshot(bank), request.queries) for request, bank in zip(requests, banks, strict=True)]
        found = self.model.forecast_many(asks)
        return [
            wire.pack_answer(answer, self.model.version, request.bank)
            for request, answer in zip(requests, found, strict=True)
        ]


def free_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
