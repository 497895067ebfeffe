"""`lcsearch prior`: the table, the plot, and what it says of tables it cannot use."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from lcsearch.cli import app
from lcsearch.pretrain import prior_command


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_BATCHES", 2), ("_STUDIES", 6), ("_TRIALS", 12), ("PANELS", 6)):
        monkeypatch.setattr(prior_command, name, value)


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["prior", *map(str, arguments)])


def real(folder: Path, runs: int = 10) -> Path:
    """A table of so many runs that learn at rates of their own."""
    folder.mkdir(parents=True)
    losses = np.exp(-np.outer(np.linspace(0.1, 1.0, runs), np.arange(12.0)))
    np.savez(folder / "curves.npz", Y__loss=losses.astype(np.float32), step=np.arange(1.0, 13.0))
    for name, rows in (
        ("runs", [{"row": i, "task": "a", "config_id": i, "seed": 0} for i in range(runs)]),
        ("configs", [{"config_id": i, "lr": 0.1} for i in range(runs)]),
    ):
        with gzip.open(folder / f"{name}.csv.gz", "wt", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    meta = {"name": folder.name, "primary": "loss", "metrics": {"loss": {"direction": "min"}}, "nan_means": "padding"}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def test_the_prior_alone() -> None:
    done, again, other = invoke("--seed", "1"), invoke("--seed", "1"), invoke("--seed", "2")
    assert done.exit_code == 0, done.output
    assert done.stdout == again.stdout != other.stdout
    assert "prior (12)" in done.stdout
    assert "Spearman of 10 % with the end" in done.stdout
    assert "wrote" not in done.stdout


def test_beside_real_curves(tmp_path: Path) -> None:
    real(tmp_path / "data" / "one")
    real(tmp_path / "data" / "two", runs=5)
    plot = tmp_path / "plots" / "prior.png"
    done = invoke("--data", tmp_path / "data", "--plot", plot)
    assert done.exit_code == 0, done.output
    assert "left out two: no task has 8 runs that report at the same 4 steps or more\n" in done.stdout
    assert "one (1)" in done.stdout
    assert done.stdout.endswith(f"wrote {plot}\n")
    assert plot.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    caveats = tmp_path / "caveats.json"
    caveats.write_text('{"one": {"until": 3}}')  # of four reports at least
    done = invoke("--data", tmp_path / "data", "--caveats", caveats)
    assert "left out one: no task has 8 runs that report at the same 4 steps or more\n" in done.stdout


FALL = np.exp(-np.outer(np.linspace(0.1, 1.0, 10), np.arange(12.0))) + 1.0


def test_the_plot_says_what_is_what() -> None:
    one = ("batch 0, study 3", np.arange(12.0), FALL)
    figure = prior_command.draw_panels([one] * 7, [("lcbench: adult", np.arange(12.0), FALL)] * 2)
    drawn, real = figure.subfigs
    assert [part.get_suptitle().partition(":")[0] for part in figure.subfigs] == [
        "Drawn from the prior, 7 made-up studies",
        "Real curves, 2 tasks",
    ]
    for part in figure.subfigs:
        assert "dark ends best, bright ends worst" in part.get_suptitle()
        assert part.get_supxlabel() == "step, in the study's own units"
        assert part.get_supylabel() == "loss, lower is better"
    assert "to be maximized" in real.get_suptitle()
    assert "to be maximized" not in drawn.get_suptitle()
    assert [axes.get_title() for axes in real.axes if axes.lines] == ["lcbench: adult"] * 2
    assert [len(part.axes) for part in figure.subfigs] == [12, 6]
    (alone,) = prior_command.draw_panels([one], []).subfigs
    assert alone.get_suptitle().startswith("Drawn from the prior, 1 made-up study:")


@pytest.mark.parametrize("blow_up", [10.0 ** np.arange(12), np.full(12, 1e29), np.full(12, np.inf)])
def test_blow_ups_leave_the_panel(blow_up: np.ndarray) -> None:
    figure = prior_command.draw_panels([("a", np.arange(12.0), np.vstack([FALL, blow_up, blow_up]))], [])
    low, high = figure.subfigs[0].axes[0].get_ylim()
    assert 0.7 < low < 1.0
    assert 1.5 < high < 5.0


def test_a_panel_over_decades_is_logarithmic() -> None:
    decades = np.exp(-np.outer(np.linspace(0.8, 1.0, 10), np.arange(12.0)))
    figure = prior_command.draw_panels([("a", np.arange(12.0), decades), ("b", np.arange(12.0), FALL)], [])
    assert [axes.get_yscale() for axes in figure.subfigs[0].axes[:2]] == ["log", "linear"]


def test_one_table_is_named_itself(tmp_path: Path) -> None:
    done = invoke("--data", real(tmp_path / "one"))
    assert done.exit_code == 0, done.output
    assert "one (1)" in done.stdout


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, code, text in (
        (("--data", tmp_path / "no"), 3, "expected a folder of curve tables"),
        (("--data", tmp_path / "empty"), 2, "expected a table of curves, or a folder of tables"),
        (("--plot", tmp_path / "prior.pdf"), 2, "ends in .png"),
    ):
        done = invoke(*arguments)
        assert done.exit_code == code
        assert text in done.output
        assert "Traceback" not in done.output
