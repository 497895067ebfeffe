"""A sweep with one worker does the same twice, once beside busy processes: stops, records, steps and looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kit.load import busy
from sweep.kit import Remembering, write_toy

from lcsearch.session.decision_log import read_log
from lcsearch.sweep import run as launcher

TRAIN = """\
import math, time

def train(ctx):
    limit = 0.1 + abs(math.log10(ctx.params["lr"]) + 3) / 4
    for epoch in range(1, ctx.max_steps + 1):
        time.sleep(0.001)
        noise = 0.01 * math.sin(1e6 * ctx.params["lr"] * epoch)
        ctx.report(limit + (1 - limit) * epoch ** -0.8 + noise, epoch)
"""


def swept(folder: Path) -> tuple[list[Any], list[Any]]:
    """(trials with their records, looks without their times) of one launch."""
    folder.mkdir()
    path = write_toy(folder, TRAIN, max_steps=20, trials=14, pruner="curve")
    outcome = launcher.run(path, folder=folder / "run", view=Remembering())
    assert outcome.code == 0
    trials = [
        (t.number, t.state.name, t.params, t.intermediate_values, t.user_attrs.get("lcsearch:reason"))
        for t in outcome.study.get_trials(deepcopy=False)
    ]
    records = list(read_log(outcome.folder / "decisions"))
    return trials, [{name: r.get(name) for name in ("trial", "step", "verdict", "now", "before")} for r in records]


def test_the_same_stops_beside_busy_processes(tmp_path: Path) -> None:
    trials, looks = swept(tmp_path / "quiet")
    assert sum(state == "PRUNED" for _, state, *_ in trials) >= 4
    assert len(looks) > 10
    with busy():
        assert swept(tmp_path / "busy") == (trials, looks)
