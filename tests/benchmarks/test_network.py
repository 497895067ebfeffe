"""The benchmark runs, measures what it says, and leaves figures that can be read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lcsearch.forecast.network.model import CurveNetwork
from lcsearch.forecast.network.size import Size
from lcsearch.weights import store as weights

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "network.py"


def run(folder: Path, *options: str) -> tuple[dict[str, Any], str]:
    """Its JSON and what it printed."""
    command = [sys.executable, str(SCRIPT), "--quick", "--threads", "1", "--json", str(folder / "speed.json"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "speed.json").read_text()), done.stdout


def test_a_quick_run(tmp_path: Path) -> None:
    found, printed = run(tmp_path)
    assert found["about"]["torch threads"] == 1
    rows = {(row["method"], row["case"]): row for row in found["rows"]}
    assert {method for method, _ in rows} == {"network", "parametric", "mcmc", "lc-pfn's size", "ft-pfn's size"}
    for row in rows.values():
        assert 0 < row["wall_ms"] <= row["wall_p90_ms"]
        assert row["cpu_ms"] > 0
        assert row["memory_mb"] > 0
        assert row["calls"] >= 1
        assert row["queries"] == {"1 trial": 1, "round, 30 begun + 64": 94}.get(row["case"], 2)
        assert f"{row['case']:32s}{row['method']}" in printed
    assert {row["finished"] for row in rows.values()} == {0, 10, 100, 300}
    assert {method for method, case in rows if case.startswith("round")} == {"network"}
    # as large as published: 26.8 and 14.69 million (whose embedding of 1001 curve numbers is not there)
    assert rows["lc-pfn's size", "1 trial"]["parameters"] == pytest.approx(26.8e6, rel=0.02)
    assert rows["ft-pfn's size", "1 trial"]["parameters"] == pytest.approx(14.69e6 - 1001 * 512, rel=0.02)
    assert {name.partition(",")[0] for name in found["ratios"]} == {"network", "parametric"}


def test_weights_of_a_file(tmp_path: Path) -> None:
    size = Size(curve_width=8, curve_layers=1, curve_heads=2, study_width=8, study_layers=1, study_heads=2, bins=10)
    network = CurveNetwork(size)
    path = tmp_path / "tiny.safetensors"
    digest = weights.save(path, network.state_dict(), size=network.describe_size(), recipe="tiny", seed=0, step=0)
    found, _ = run(tmp_path, "--only", "network", "--weights", str(path))
    assert found["about"]["weights"] == f"tiny {digest[:12]}"
    assert {row["parameters"] for row in found["rows"]} == {sum(p.numel() for p in network.parameters())}
