from __future__ import annotations

import json
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from lcsearch.curves import Curve
from lcsearch.errors import EnvironmentProblem
from lcsearch.forecast.contract import Forecaster, Forecasts, Query
from lcsearch.forecast.network.model import CurveNetwork
from lcsearch.forecast.network.size import Size
from lcsearch.goal import Goal
from lcsearch.host import in_process, registry
from lcsearch.host.in_process import Pretrained
from lcsearch.session import Session
from lcsearch.stopping.policy import Policy
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial
from lcsearch.weights import shipped
from lcsearch.weights import store as weights

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
    return Snapshot("s", goal, FinishedTrials(goal).extend(done))


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


def test_weights_of_ones_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (own,) = registry.resolve_forecasters("network=network.safetensors")
    shipped_here = Pretrained(where=folder)
    assert (own.name, own.version) == ("network=network", shipped_here.version)
    want = shipped_here.forecast(snapshot(), [query()])
    there = pickle.dumps(own)
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(pickle.loads(there).forecast(snapshot(), [query()]).knots, want.knots)
    with pytest.raises(EnvironmentProblem, match=r"none\.safetensors: expected a file of weights, got No such file"):
        registry.resolve_forecasters("network=none.safetensors")


def test_what_is_no_weight_file_of_the_network_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"hello")
    with pytest.raises(EnvironmentProblem, match=r"mine\.safetensors: expected a file of weights, got one that cannot"):
        registry.resolve_forecasters(f"network={path}")
    weights.save(path, {"a": torch.zeros(2)}, size={"width": 3}, recipe="other", seed=0, step=1)
    with pytest.raises(EnvironmentProblem, match=r"expected weights of lcsearch's network, with curve_.*'width'"):
        registry.resolve_forecasters(f"network={path}")


def test_weights_of_another_network_say_so(folder: Path) -> None:
    held = weights.load(folder / "network.safetensors")
    del held.tensors["plan.2.weight"]
    path = folder.parent / "old.safetensors"
    weights.save(path, held.tensors, size=held.size, recipe="old", seed=0, step=1)
    with pytest.raises(
        EnvironmentProblem, match=r"old\.safetensors: expected weights of this lcsearch's network.*plan"
    ):
        (own := Pretrained(file=path)).prepare()
    path.unlink()
    with pytest.raises(EnvironmentProblem, match="expected weights of this lcsearch's network"):  # not tried again
        own.prepare()


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
    code = "import sys; from pathlib import Path; from lcsearch.host.in_process import Pretrained; "
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
        assert [f.name for f in registry.resolve_forecasters(None)] == ["parametric", "rank-gap"]
        assert [f.name for f in registry.resolve_forecasters(None)] == ["parametric", "rank-gap"]
    (record,) = caplog.records
    text = record.getMessage()
    assert text.startswith("lcsearch: forecasts are made by parametric and rank-gap, without the network: ")
    assert text.endswith("Install lcsearch again, or name a file of your own.")
    with pytest.raises(EnvironmentProblem):
        registry.resolve_forecasters("network")  # who asks for it by name is told


@pytest.mark.parametrize("index", ["3", "null", "[1]", '{"network": 3}'])
def test_an_index_of_another_shape_is_a_damaged_one(folder: Path, index: str) -> None:
    (folder / "weights.json").write_text(index)
    with pytest.raises(EnvironmentProblem, match="expected the names and hashes of the weights, got"):
        Pretrained(where=folder)


def test_what_the_user_told_torch_changes_no_answer(folder: Path) -> None:
    held, asked = Pretrained(where=folder), [query()]
    plain = held.forecast(snapshot(), asked)
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(Pretrained(where=folder).forecast(snapshot(), asked).levels, plain.levels)
    torch.set_default_dtype(torch.float64)
    try:
        np.testing.assert_array_equal(Pretrained(where=folder).forecast(snapshot(), asked).levels, plain.levels)
    finally:
        torch.set_default_dtype(torch.float32)


def test_one_thread_computes_and_the_user_has_his_own_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    held = Pretrained(where=folder)
    held.prepare()
    inner = held._network  # noqa: SLF001
    assert inner is not None
    answer = inner.forecast

    def counted(*asked: Any) -> Forecasts:
        seen.append(torch.get_num_threads())
        return answer(*asked)

    monkeypatch.setattr(inner, "forecast", counted)
    torch.set_num_threads(2)
    try:
        held.forecast(snapshot(), [query()])
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


def test_loading_imports_no_compiler(folder: Path) -> None:
    code = "import sys; from pathlib import Path; from lcsearch.host.in_process import Pretrained; "
    code += f"Pretrained(where=Path({str(folder)!r})).prepare(); print('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


FORKED = """
import multiprocessing, sys, threading
from pathlib import Path
sys.path.insert(0, {tests!r})
from host.test_in_process import query, snapshot
from lcsearch.host.in_process import Pretrained

held = Pretrained(where=Path({folder!r}))
first = held.forecast(snapshot(), [query()]).p_beat(0.05)[0]

def child(_):
    return held.forecast(snapshot(), [query()]).p_beat(0.05)[0]

busy = threading.Event()
def hold():
    with held._lock:
        busy.set()
        threading.Event().wait(1.0)
if {held}:
    threading.Thread(target=hold, daemon=True).start()
    busy.wait()
with multiprocessing.get_context("fork").Pool(1) as pool:
    (again,) = pool.map_async(child, [0]).get(timeout=300)
    print(abs(again - first) < 1e-5)
"""


@pytest.mark.parametrize("held", [False, True])
def test_a_forked_child_forecasts_too(folder: Path, held: bool) -> None:
    code = FORKED.format(tests=str(Path(__file__).parents[1]), folder=str(folder), held=held)
    env = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=env)
    assert done.stdout == "True\n", done.stderr


class Broken(Pretrained):
    def _load(self) -> NoReturn:
        raise OSError("libtorch.so: cannot open shared object file")


def test_where_torch_does_not_import_the_stand_ins_carry_on(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    stand_ins = [registry.forecaster(name) for name in registry.FALLBACK]
    session = Session(Policy(), [Broken(where=folder, stand_ins=stand_ins)])
    with caplog.at_level(logging.WARNING, logger="lcsearch"):
        for _ in range(2):
            session.panel.load()
            assert [f.name for f in session.panel.forecasters] == ["parametric", "rank-gap"]
    (record,) = caplog.records
    assert record.getMessage() == (
        "lcsearch: forecasts are made by parametric and rank-gap, without 'network': EnvironmentProblem: "
        f"{folder / 'network.safetensors'}: expected weights that load on cpu, got OSError: libtorch.so: cannot open "
        "shared object file. See that torch works there."
    )
    alone = Session(Policy(), [Broken(where=folder)])
    alone.panel.load()
    assert [f.name for f in alone.panel.forecasters] == ["network"]  # asked all the same: FAILED, and the trial goes on


LOOKS = """
import sys, time
from pathlib import Path
from lcsearch.stopping.gates import Event
from lcsearch.stopping.policy import Policy
from lcsearch.host.in_process import Pretrained
from lcsearch.session import Session
sys.path.append({tests!r})
from kit.builders import goal, snapshot, trial
from lcsearch.study import Status

seen = snapshot(goal(horizon=40), [trial(str(i), [1.0 + i] * 40) for i in range(12)])
sessions = [Session(Policy(n_startup_trials=2, look_growth=1), [Pretrained(where=Path({folder!r}))]) for _ in range(3)]
for session in sessions:
    for n in range(20, 30):
        own = trial("99", [50.0] * n, Status.RUNNING)
        print(session.check(seen, Event(own, n - 1)).decision.reason.name)
"""


def test_a_torch_that_does_not_import_is_tried_once_a_process(folder: Path, tmp_path: Path) -> None:
    """It may take seconds to fail: named alone, the network was looked for twice at every look."""
    fake = tmp_path / "site" / "torch"
    fake.mkdir(parents=True)
    code = f"open({str(tmp_path / 'tries')!r}, 'a').write('x')\nraise ImportError('libcudart.so: no such file')\n"
    (fake / "__init__.py").write_text(code)
    looks = LOOKS.format(tests=str(Path(__file__).parents[1]), folder=str(folder))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(fake.parent), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", looks], capture_output=True, text=True, timeout=300, env=env)
    assert done.stdout.splitlines() == ["ABSENT"] * 30, done.stderr
    assert (tmp_path / "tries").read_text() == "x"
    (said,) = {line for line in done.stderr.splitlines() if "network" in line}
    assert said.endswith(
        "expected torch, which the network computes with, got one that does not import (ImportError: libcudart.so: no "
        "such file). Install it again: pip install --force-reinstall torch"
    )


@pytest.mark.parametrize("named", [True, False])
def test_a_torch_that_hangs_is_given_up_once_a_process(folder: Path, tmp_path: Path, named: bool) -> None:
    """Each first look waited two minutes for it, every session anew. What has been given up is not used later."""
    fake = tmp_path / "site" / "torch"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("import threading\nthreading.Event().wait()\n")
    looks = LOOKS.format(tests=str(Path(__file__).parents[1]), folder=str(folder))
    if not named:
        looks = looks.replace("Path({str(folder)!r}))", "")
        looks = looks.replace("))])", "), stand_ins=registry.default()[0].stand_ins)])")
        looks = "from lcsearch.host import registry\n" + looks
    looks = "from lcsearch.host import in_process\nin_process.STILL_S = 1\n" + looks
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(fake.parent), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", looks], capture_output=True, text=True, timeout=600, env=env)
    assert done.stdout.splitlines() == (["ABSENT"] if named else ["BELOW"]) * 30, done.stderr
    (said,) = {line for line in done.stderr.splitlines() if "network" in line}
    assert said.startswith(
        "lcsearch: forecaster 'network' gave no forecast" if named else "lcsearch: forecasts are made by"
    )
    assert said.endswith(
        "expected torch, which the network computes with, got one whose import was given up (nothing has moved for "
        "1 s). If it is but slow, import it first; else install it again: pip install --force-reinstall torch"
    )


def test_an_import_that_is_under_way_is_none_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever found the name in sys.modules waited for the import itself, for as long as that took."""
    assert in_process._is_imported("torch")  # noqa: SLF001
    assert not in_process._is_imported("no_such_module")  # noqa: SLF001
    monkeypatch.setattr(torch.__spec__, "_initializing", True, raising=False)
    assert not in_process._is_imported("torch")  # noqa: SLF001


def test_weights_that_are_no_file_are_refused(folder: Path, tmp_path: Path) -> None:
    """A pipe would be waited for, a device read for ever."""
    os.mkfifo(tmp_path / "pipe")
    for path, what in ((tmp_path / "pipe", "no regular file"), (Path("/dev/zero"), "no regular file")):
        with pytest.raises(EnvironmentProblem) as caught:
            Pretrained(file=path)
        assert str(caught.value) == f"{path}: expected a file of weights, got {what}. {shipped.ANOTHER}"


def test_a_header_or_an_index_of_any_depth_is_a_damaged_one(folder: Path, tmp_path: Path) -> None:
    deep = b"[" * 100_000
    path = tmp_path / "deep.safetensors"
    for header in (deep, json.dumps({"__metadata__": {"lcsearch": deep.decode()}}).encode()):
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        for load in (lambda: Pretrained(file=path), lambda: weights.load(path)):
            with pytest.raises(EnvironmentProblem, match=r"cannot be read \(JSON that is nested too deep\)"):
                load()
    (folder / "weights.json").write_bytes(deep)
    with pytest.raises(EnvironmentProblem, match=r"weights\.json: .* got JSON that is nested too deep\. Install"):
        Pretrained(where=folder)


def test_the_network_is_the_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "package", lambda: folder)
    (network,) = registry.resolve_forecasters(None)
    assert isinstance(network, Pretrained)
    assert [f.name for f in network.stand_ins] == list(registry.FALLBACK)
