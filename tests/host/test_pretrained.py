from __future__ import annotations

import json
import logging
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lcsearch.curves import Curve
from lcsearch.errors import EnvironmentProblem
from lcsearch.forecast.contract import Forecaster, Query
from lcsearch.forecast.network.model import CurveNetwork, Size
from lcsearch.goal import Goal
from lcsearch.host import registry
from lcsearch.host.pretrained import Pretrained
from lcsearch.pretrain import shipped, weights
from lcsearch.study import Bank, Snapshot, Status, Trial

SMALL = Size(16, 1, 2, 16, 1, 2, 8, 16)
STEPS = np.arange(1.0, 21.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = CurveNetwork(SMALL)
    path = tmp_path / "run" / "w.safetensors"
    weights.save(path, network.state_dict(), size=network.describe_size(), recipe="test", seed=0, step=1)
    weights.ship(path, "# card\n", "network", tmp_path / "weights")
    return tmp_path / "weights"


def snapshot() -> Snapshot:
    goal = Goal("loss", "minimize", 20.0)
    done = [Trial(f"d{i}", Curve.of(STEPS, 1 / STEPS + 0.1 * i), status=Status.COMPLETE) for i in range(4)]
    return Snapshot("s", goal, Bank(goal).extend(done))


def query() -> Query:
    return Query(Trial("q", Curve.of(STEPS[:8], 1.2 / STEPS[:8])), "best_by", 20.0)


def test_answers_with_the_weights_and_names_them(folder: Path) -> None:
    held = Pretrained(where=folder)
    assert isinstance(held, Forecaster)
    digest = json.loads((folder / "weights.json").read_text())["network"]
    assert held.version == f"network-{digest[:12]}"
    found = held.forecast(snapshot(), [query()])
    assert found.absent == (None,)
    assert 0 <= found.p_beat(0.05)[0] <= 1
    assert found.source == f"network/{held.version}"


def test_loading_draws_no_random_number_and_keeps_the_threads(folder: Path) -> None:
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    Pretrained(where=folder).forecast(snapshot(), [query()])
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == threads


def test_a_copy_in_another_process_says_the_same(folder: Path) -> None:
    held = Pretrained(where=folder)
    before = held.forecast(snapshot(), [query()])
    after = pickle.loads(pickle.dumps(held)).forecast(snapshot(), [query()])
    np.testing.assert_array_equal(before.levels, after.levels)


def test_making_one_imports_no_torch(folder: Path) -> None:
    code = "import sys; from pathlib import Path; from lcsearch.host.pretrained import Pretrained; "
    code += f"Pretrained(where=Path({str(folder)!r})); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_damaged_weights_are_noticed_when_it_is_made(folder: Path) -> None:
    path = folder / "network.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(EnvironmentProblem, match="the file is damaged"):
        Pretrained(where=folder)


@pytest.mark.parametrize("harm", ["missing", "damaged", "unlisted"])
def test_the_others_carry_on_with_one_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    if harm == "missing":
        (folder / "network.safetensors").unlink()
    elif harm == "damaged":
        (folder / "network.safetensors").write_bytes(b"no weights")
    else:
        (folder / "weights.json").write_text("{}")
    monkeypatch.setattr(shipped, "package", lambda: folder)
    monkeypatch.setattr(registry, "_told", set())
    with caplog.at_level(logging.WARNING, logger="lcsearch"):
        assert [f.name for f in registry.forecasters(None)] == ["parametric", "rank-gap"]
        assert [f.name for f in registry.forecasters(None)] == ["parametric", "rank-gap"]
    (record,) = caplog.records
    text = record.getMessage()
    assert text.startswith("lcsearch: forecasts are made by parametric and rank-gap, without the network: ")
    assert text.endswith("Install lcsearch again, or name a file of your own.")
    with pytest.raises(EnvironmentProblem):
        registry.forecasters("network")  # who asks for it by name is told


def test_the_network_is_the_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "package", lambda: folder)
    assert [f.name for f in registry.forecasters(None)] == ["network"]
