"""`lcsearch forecast` as people run it: on studies of Optuna and on runs, which stay as they are."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
from kit.doubles import Dead, Scripted, Silent
from kit.studies import written
from optuna.trial import TrialState, create_trial
from sweep.kit import write_toy
from typer.testing import CliRunner

from lcsearch.cli import app
from lcsearch.forecast.contract import Query
from lcsearch.goal import Direction
from lcsearch.outlook.command import show
from lcsearch.outlook.standing import read_standing
from lcsearch.schedulers.optuna._storage import begin, pause
from lcsearch.study import Status
from lcsearch.sweep.run import run as launch


def study_in(folder: Path, direction: Direction = "minimize", *, complete: int = 4) -> Path:
    """A study of one parameter: complete trials, a stopped, a failed, a paused and a running one, and one enqueued."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = folder / "optuna.db"
    storage = optuna.storages.RDBStorage("sqlite://")
    study = optuna.create_study(storage=storage, study_name="plain", direction=direction)
    sign = 1.0 if direction == "minimize" else -1.0
    lr = optuna.distributions.FloatDistribution(0.0, 1.0)

    def curve(rate: float, n: int) -> dict[int, float]:
        return {step: sign * (1.0 - rate) ** step for step in range(n)}

    def end(state: TrialState, rate: float, n: int) -> None:
        values = curve(rate, n)
        told = values[n - 1] if state is TrialState.COMPLETE else None
        study.add_trial(
            create_trial(
                state=state, value=told, params={"lr": rate}, distributions={"lr": lr}, intermediate_values=values
            )
        )

    for i in range(complete):
        end(TrialState.COMPLETE, 0.1 + 0.1 * i, 20)
    end(TrialState.PRUNED, 0.02, 6)
    end(TrialState.FAIL, 0.03, 3)
    for rate, waits in ((0.6, True), (0.3, False)):
        trial = begin(study)
        trial.suggest_float("lr", rate, rate)
        for step, value in curve(rate, 7).items():
            trial.report(value, step)
        if waits:
            pause(study, trial)
    study.enqueue_trial({"lr": 0.5})
    return written(storage, path)


def invoke(*words: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["forecast", *map(str, words)])
    return done.exit_code, done.stdout, done.stderr


def lines_of(*words: str | Path) -> list[str]:
    code, out, err = invoke(*words)
    assert (code, err) == (0, ""), err
    return out.splitlines()


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_study_of_optuna_is_told_trial_by_trial_and_left_as_it_was(tmp_path: Path, direction: Direction) -> None:
    path = study_in(tmp_path, direction)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    lines = lines_of(path, "--forecasters", "parametric")  # quiet where nobody watches
    side, sign = ("below", "") if direction == "minimize" else ("above", "-")
    assert lines[0] == f"read Optuna study 'plain' in {path}"
    start = f"incumbent: trial 3, value {sign}6.0936e-05 at step 19; P(beat) is that of {side} {sign}"
    assert lines[1].startswith(start)
    assert lines[2].startswith("forecasts by parametric (")
    assert lines[2].endswith("): median and 80 % interval of the best value by step 19")
    assert lines[4].split() == ["trial", "state", "step", "last", "best", "forecast", "(80", "%)", "P(beat)"]
    rows = [line.split() for line in lines[5:]]
    assert [(row[0], row[2] if row[1] == "*" else row[1]) for row in rows] == [
        ("6", "paused"),
        ("7", "running"),
        ("4", "stopped"),
        ("3", "complete"),
        ("2", "complete"),
        ("1", "complete"),
        ("0", "complete"),
        ("5", "failed"),
    ]
    assert rows[3][-2:] == ["the", "incumbent"]
    assert lines[-1].endswith("none: it failed")
    assert rows[0][-1] == "%"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert [child.name for child in tmp_path.iterdir()] == ["optuna.db"]


def test_the_same_by_url_by_name_and_by_a_journal(tmp_path: Path) -> None:
    path = study_in(tmp_path)
    wanted = lines_of(path, "--forecasters", "parametric")
    assert lines_of(f"sqlite:///{path}", "--study", "plain", "--forecasters", "parametric") == wanted
    journal = tmp_path / "journal.log"
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    optuna.copy_study(
        from_study_name="plain",
        from_storage=f"sqlite:///{path}",
        to_storage=optuna.storages.JournalStorage(backend),
    )
    told = lines_of(journal, "--forecasters", "parametric")
    assert told[0] == f"read Optuna study 'plain' in {journal}"
    finished = [line for line in told if any(word in line for word in ("complete", "stopped", "failed"))]
    assert [line.split()[0] for line in finished] == ["4", "3", "2", "1", "0", "5"]


@dataclass
class ByRate(Scripted):
    """P(beat) is the learning rate, of configurations too."""

    def probability(self, query: Query) -> float:
        return float(query.trial.params.get("lr", 0.0))


def test_configurations_of_a_table_and_of_a_space_are_told_below(tmp_path: Path) -> None:
    path = study_in(tmp_path)
    (tmp_path / "c.csv").write_text("lr\n0.25\n0.75\n")
    (tmp_path / "s.yaml").write_text("space: {lr: {uniform: [0, 1]}, k: 3}\n")
    told = "".join(show(str(path), forecasters=ByRate(), candidates=tmp_path / "c.csv")).splitlines()
    at = next(i for i, line in enumerate(told) if "not begun" in line)
    assert told[at].split() == ["not", "begun", "forecast", "(80", "%)", "P(beat)", "configuration"]
    assert [(line.split()[1], line.split()[-1]) for line in told[at + 1 :]] == [("3", "lr=0.75"), ("2", "lr=0.25")]
    *_, drawn = show(str(path), forecasters=ByRate(), space=tmp_path / "s.yaml", n=10, seed=3, top=4)
    assert drawn.splitlines()[-1] == "and 6 more (--top 10 shows all)"
    assert len(drawn.strip().splitlines()) == 1 + 4 + 1


def test_configurations_that_nobody_forecasts_are_told_by_reason(tmp_path: Path) -> None:
    path = study_in(tmp_path)
    (tmp_path / "c.csv").write_text("lr\n0.25\n0.75\n")
    told = lines_of(path, "--forecasters", "parametric", "--candidates", tmp_path / "c.csv")
    assert told[-1].startswith("not begun: no forecast of 2 configurations: nothing is forecast from a configuration")
    *_, silent = show(str(path), forecasters=Silent(), candidates=tmp_path / "c.csv")
    end = "unlike anything that the forecaster knows"
    assert silent == f"\nnot begun: no forecast of 2 configurations: {end}"


def test_a_forecaster_that_fails_is_told_once_above_and_at_each_trial(tmp_path: Path) -> None:
    first, table = show(str(study_in(tmp_path)), forecasters=Dead())
    assert sum("CUDA error: device lost" in line for line in first.splitlines()) == 1
    assert sum("none: the forecaster failed: RuntimeError: CUDA error" in line for line in table.splitlines()) == 3


def test_of_several_forecasters_it_is_said_whose_word_stands(tmp_path: Path) -> None:
    names = ("--forecasters", "parametric", "--forecasters", "rank-gap")
    assert lines_of(study_in(tmp_path), *names)[2].endswith(
        "; of several the one most in the trial's favour, as in a look"
    )


def test_programs_are_told_one_object_a_trial(tmp_path: Path) -> None:
    path = study_in(tmp_path)
    (tmp_path / "c.csv").write_text("lr\n0.25\n")
    told = [json.loads(line) for line in show(str(path), forecasters=ByRate(), as_json=True, top=4)]
    assert [(one["trial"], one["state"], one["step"]) for one in told] == [
        ("6", "paused", 6.0),
        ("7", "running", 6.0),
        ("4", "stopped", 5.0),
        ("3", "complete", 19.0),
    ]
    first, last = told[0], told[-1]
    assert first["p_beat"] == pytest.approx(0.6, abs=0.02)
    assert first["low"] < first["median"] < first["high"]
    assert (first["by"], first["value"], first["forecaster"], first["absent"]) == (19.0, None, "scripted", {})
    assert first["incumbent"] == {"trial": "3", "value": pytest.approx(0.6**19), "step": 19.0}
    assert (last["value"], last["p_beat"]) == (pytest.approx(0.6**19), None)
    out = lines_of(path, "--forecasters", "parametric", "--candidates", tmp_path / "c.csv", "--json")
    *_, unseen = map(json.loads, out)
    assert (unseen["trial"], unseen["candidate"], unseen["params"]) == (None, "line 2", {"lr": 0.25})
    assert (unseen["p_beat"], list(unseen["absent"])) == (None, ["parametric"])
    assert len(out) == 9


def test_a_number_that_is_none_is_null_for_programs(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    study = optuna.create_study(storage=f"sqlite:///{path}", study_name="s")
    trial = study.ask()
    trial.suggest_categorical("clip", [float("inf")])
    trial.report(1.0, 1)
    trial.report(float("nan"), 2)
    (line,) = show(str(path), {"max_steps": 9}, forecasters=Silent(), as_json=True)
    told = json.loads(line, parse_constant=lambda word: pytest.fail(word))
    assert (told["last"], told["best"], told["params"]) == (None, 1.0, {"clip": None})


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_plot_shows_curves_fans_and_configurations(tmp_path: Path, direction: Direction) -> None:
    path, plot = study_in(tmp_path, direction), tmp_path / "new" / "outlook.png"
    (tmp_path / "c.csv").write_text("lr\n0.25\n0.75\n")
    told = list(show(str(path), forecasters=ByRate(), candidates=tmp_path / "c.csv", plot=plot))
    assert told[-1] == f"\nwrote {plot}"
    assert plot.read_bytes().startswith(b"\x89PNG")
    words = ("--forecasters", "parametric", "--plot", plot, "--json")
    assert all(line.startswith("{") for line in lines_of(path, *words))


def test_what_is_drawn(tmp_path: Path) -> None:
    from lcsearch.outlook import plots
    from lcsearch.outlook.facts import fan, look_ahead
    from lcsearch.session.panel import Panel
    from lcsearch.study import Trial

    standing = read_standing(str(study_in(tmp_path)))
    panel = Panel([ByRate()], 30.0, lambda key, text: None)
    found = look_ahead(standing.snapshot, panel, [Trial("line 2", params={"lr": 0.4})])
    fans = {one.trial.uid: made for one in found.trials if (made := fan(standing.snapshot, panel, one)) is not None}
    assert sorted(fans) == ["4", "6", "7"]
    left, right = plots.outlook(found, standing, found.trials[:3], fans).axes
    labels = [str(line.get_label()) for line in left.lines if not str(line.get_label()).startswith("_")]
    assert labels == ["trial 6, paused", "trial 7, running", "trial 4, stopped", "to beat"]
    assert len(left.collections) >= 3  # fans and bars
    assert right.get_title() == "1 not begun"
    alone = plots.outlook(look_ahead(standing.snapshot, panel), standing, [], {})
    assert len(alone.axes) == 1


def test_a_run_folder_speaks_in_the_words_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LCSEARCH_HOST", "local")
    file = write_toy(tmp_path, trials=4, max_steps=8)
    assert launch(file, folder=tmp_path / "runs" / "toy").code == 0
    words = ("--forecasters", "parametric", "--space", file, "--n", "5")
    told = lines_of("runs/toy", *words)
    assert told[0] == "read study 'toy' of the run in runs/toy"
    assert told[1].startswith("incumbent: trial ")
    assert ", loss " in told[1]
    assert " at epoch 8" in told[1]
    assert told[2].endswith(": median and 80 % interval of the best loss by epoch 8")
    assert sum(" complete" in line for line in told) == 4
    assert told[-1].startswith("not begun: no forecast of 5 configurations: ")
    assert lines_of("--folder", "runs/toy", *words) == told
    assert lines_of(*words)[1:] == told[1:]  # the latest run
    standing = read_standing("runs/toy")
    planned = standing.schedule({"a": 0.5, "lr": 0.01})
    assert planned is not None
    assert (planned.shape, planned.peak) == ("cosine", 0.01)
    final = lines_of("runs/toy", "--judged", "final", "--forecasters", "parametric")
    assert final[2].endswith("of the final loss by epoch 8")


def test_what_is_live_is_read_as_it_stands(tmp_path: Path) -> None:
    snapshot = read_standing(str(study_in(tmp_path))).snapshot
    assert {trial.uid: trial.status for trial in snapshot.live} == {"6": Status.PAUSED, "7": Status.RUNNING}
    assert snapshot.horizon == 19


TABLE = """\
trial,step,loss,state,param_x
a,1,1.0,complete,0.1
a,2,0.5,complete,0.1
a,3,0.4,complete,0.1
b,1,0.9,running,0.2
b,2,0.6,running,0.2
c,1,2.0,stopped,0.3
"""


def test_a_table_is_read_with_the_trials_that_are_under_way(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(TABLE)
    words = (path, "--value", "loss", "--direction", "minimize", "--forecasters", "parametric")
    told = lines_of(*words)
    assert told[:2] == [
        f"read CSV file {path}",
        "incumbent: trial a, loss 0.4 at step 3; P(beat) is that of below 0.4, the margin of a look included",
    ]
    assert [line.split()[:2] for line in told[5:]] == [["b", "running"], ["c", "stopped"], ["a", "*"]]
    (tmp_path / "c.csv").write_text("x\n0.4\n")
    *_, unseen = show(
        str(path), {"metric": "loss", "direction": "min"}, forecasters=Silent(), candidates=tmp_path / "c.csv"
    )
    assert "no forecast of 1 configuration:" in unseen
    path.write_text("\n".join(line for line in TABLE.splitlines() if not line.startswith(("a", "c"))))
    code, _, err = invoke(*words)
    assert (code, err) == (
        2,
        f"CSV file {path}: expected a finished trial beside those that are under way, got none (of 1 trial). "
        "Ask again when one has ended.\n",
    )


def empty_study(path: Path, *reports: float) -> str:
    """One complete trial with these reports."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(storage=f"sqlite:///{path}", study_name="s")
    trial = study.ask()
    for step, value in enumerate(reports, 1):
        trial.report(value, step)
    study.tell(trial, 1.0)
    return str(path)


NAMES = "network, parametric, rank-gap, network=PATH"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--judged", "worst"], 2, "--judged: expected best or final, got 'worst'."),
        (["--max-steps", "0"], 2, "--max-steps: expected a finite number > 0, got 0.0."),
        (["--top", "0"], 2, "--top: expected a number >= 1, got 0."),
        (["--plot", "a.pdf"], 2, "--plot: expected a file that ends in .png, got 'a.pdf'."),
        (["--study", "plane"], 2, "optuna.db: study: expected one of plain, got 'plane'. Perhaps 'plain' is meant."),
        (["--forecasters", "oracle"], 2, f"forecasters: expected one of {NAMES}, got 'oracle'."),
        (
            ["--host", "me"],
            2,
            "host: expected auto, local, ray, or the URL http://NAME:PORT of `lcsearch serve`, got 'me'.",
        ),
        (
            ["--candidates", "c.csv", "--space", "s.yaml"],
            2,
            "forecast: expected --candidates or --space, got 'both'. Leave one out.",
        ),
        (["--candidates", "c.csv"], 2, "c.csv: expected a CSV file of configurations, got no such file."),
        (["--space", "s.yaml"], 2, "s.yaml: expected a sweep file, or another with a `space:`, got no such file."),
        (
            ["--forecasters", "parametric", "--plot", "optuna.db/a.png"],
            3,
            "optuna.db/a.png: expected a file that can be written, got File exists. Choose another with --plot.",
        ),
    ],
)
def test_what_is_wrong_with_an_option_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, said: str
) -> None:
    study_in(tmp_path)
    monkeypatch.chdir(tmp_path)
    got, _, err = invoke("optuna.db", *words)
    assert (got, err) == (code, said + "\n")


def test_what_is_wrong_with_a_study_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("trial,step,value\n0,1,1\n")
    nan = float("nan")
    for where, said in (
        (
            "a.csv",
            "a.csv: direction: expected 'minimize' or 'maximize' (the file does not say which way is better), "
            "got None. Give direction= (--direction), and metric= (--metric) where there are several.",
        ),
        ("sqlite:///no.db", "sqlite:///no.db: expected a SQLite file, got none at no.db."),
        (
            empty_study(Path("none.db")),
            "Optuna study 's' in none.db: expected trials with a report, got none (of 1 trial). "
            "Report as they train: trial.report(value, step), in a sweep ctx.report(value, step).",
        ),
        (
            empty_study(Path("nan.db"), nan, nan),
            "Optuna study 's' in nan.db: expected reports of finite values, got 2 reports, all nan or inf. "
            "See what the trials report.",
        ),
    ):
        assert invoke(where) == (2, "", said + "\n")
    code, _, err = invoke("missing.db")
    assert code == 2
    assert err.startswith("missing.db: expected an Optuna storage")
    code, _, err = invoke("nan.db", "--direction", "minimize")
    text = "nan.db: --direction: expected none: the study says it itself, got 'minimize'. Leave it out.\n"
    assert (code, err) == (2, text)
    code, _, err = invoke()
    text = "runs: expected a run in this folder, got none. Name a study: lcsearch forecast STUDY.\n"
    assert (code, err) == (2, text)


def test_a_study_in_which_nothing_is_complete_needs_its_horizon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study_in(tmp_path, complete=0)
    code, _, err = invoke("optuna.db")
    assert (code, err) == (
        2,
        "Optuna study 'plain' in optuna.db: expected a complete trial to take the horizon from, got none. "
        "Say at which step trials are judged: --max-steps N.\n",
    )
    told = "".join(show("optuna.db", {"max_steps": 20}, forecasters=Scripted())).splitlines()
    end = f"P(beat) is that of below {0.4**6:.6g}, the best seen"
    assert told[1] == f"incumbent: none yet, for no trial is complete; {end}"
    rows = [line.split() for line in told if line.strip()[:1].isdigit()]
    assert sorted(row[1] for row in rows) == ["failed", "paused", "running", "stopped"]
    assert [row[-1] for row in rows] == ["%", "%", "%", "failed"]


def test_a_study_of_two_objectives_has_no_curves(tmp_path: Path) -> None:
    path = tmp_path / "two.db"
    optuna.create_study(storage=f"sqlite:///{path}", study_name="s", directions=["minimize", "minimize"])
    code, _, err = invoke(path)
    assert (code, err) == (
        2,
        f"{path}: expected a study of one objective, got 2. Optuna keeps no curves of several.\n",
    )


def test_the_network_as_it_ships_answers(tmp_path: Path) -> None:
    out: list[dict[str, Any]] = [json.loads(line) for line in lines_of(study_in(tmp_path), "--host", "local", "--json")]
    assert [one["forecaster"] for one in out[:3]] == ["network"] * 3
    assert all(0 <= one["p_beat"] <= 1 for one in out[:3])
