"""Workers started by a test find lcsearch where the test found it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import lcsearch.errors


@pytest.fixture(autouse=True)
def _same_lcsearch(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(lcsearch.errors.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("LCSEARCH_HOST", "local")  # more than two workers begin a host, which takes seconds
