"""Seeds that follow from the sweep's own."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *parts: object) -> int:
    """31 bits from (seed, parts), the same on every machine and in every process."""
    text = "\x1f".join(map(repr, (seed, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
