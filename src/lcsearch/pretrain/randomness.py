"""Where a step's randomness comes from: the recipe's seed and the step's number, nothing else."""

from __future__ import annotations

import hashlib

import torch


def seed_of(seed: int, step: int, purpose: str) -> int:
    """A seed of 63 bits for one purpose at one step.

    >>> seed_of(0, 1, "data") == seed_of(0, 1, "data"), seed_of(0, 1, "data") == seed_of(0, 2, "data")
    (True, False)
    """
    digest = hashlib.sha256(f"lcsearch/{seed}/{step}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator_of(seed: int, step: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator on the device."""
    return torch.Generator(device).manual_seed(seed_of(seed, step, purpose))
