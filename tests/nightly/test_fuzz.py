"""10^5 requests that no client would send: none answered by a traceback, memory within its bounds, the host well."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from host.test_fuzz import assert_well
from kit.endpoints import command, weight_file
from kit.fuzz import fuzz

from lcsearch.host.in_process import Pretrained

pytestmark = pytest.mark.skipif("LCSEARCH_NIGHTLY" not in os.environ, reason="a quarter of an hour: LCSEARCH_NIGHTLY=1")
N, PARTS = 100_000, 20


def test_a_hundred_thousand_requests(tmp_path: Path) -> None:
    small = weight_file(tmp_path)
    version = Pretrained(file=small).version
    with command(tmp_path / "served", "--weights", str(small), "--device", "cpu") as served:
        rss = []
        for part in range(PARTS):
            counts = fuzz(served, N // PARTS, 100 + part, version)
            rss.append(served.rss() / 2**20)
            print(f"{(part + 1) * N // PARTS}: {dict(sorted(counts.items()))}, {rss[-1]:.0f} MB")
            assert_well(served, small)
            assert rss[-1] < 1024  # 250 to begin with; 256 of finished trials, counted roughly; what the network keeps
