"""What other tools write and export, by their own writers where installed, else in the layout they document."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest

from lcsearch.data.readers import Read, read
from lcsearch.errors import FileProblem, InvalidValue, LcsearchError
from lcsearch.study import Status


def csv_file(folder: Path, text: str) -> Path:
    path = folder / "export.csv"
    path.write_text(text)
    return path


def curves(found: Read) -> dict[str, dict[float, float]]:
    return {run.uid: dict(zip(run.steps, run.values, strict=True)) for run in found.task.runs}


def said(error: type[LcsearchError], where: Path, **wish: Any) -> str:
    with pytest.raises(error) as caught:
        read(where, **{"direction": "minimize", **wish})
    return str(caught.value)


# Columns of any name


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_columns_are_named_by_the_user(tmp_path: Path, separator: str) -> None:
    rows = ["run,epoch,lr,val_loss,acc", "a,1,0.1,0.5,0.7", "a,2,0.1,0.4,0.8", "b,1,0.2,0.6,0.6"]
    path = csv_file(tmp_path, "\n".join(row.replace(",", separator) for row in rows))
    found = read(path, trial="run", step="epoch", metric="val_loss", direction="minimize")
    assert curves(found) == {"a": {1: 0.5, 2: 0.4}, "b": {1: 0.6}}
    assert found.task.goal.metric == "val_loss"


def test_beside_semicolons_a_comma_is_a_decimal_point(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "trial;step;value\na;1;0,5\na;2;1e-3\nb;1;-1,25\n")
    assert curves(read(path, direction="minimize")) == {"a": {1: 0.5, 2: 0.001}, "b": {1: -1.25}}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_text_as_spreadsheets_save_it(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "curves.txt"
    path.write_text("trial\tstep\tvalue\nä\t1\t0.5\nä\t2\t0.4\n", encoding=encoding)
    assert curves(read(path, direction="minimize")) == {"ä": {1: 0.5, 2: 0.4}}


def test_text_of_another_encoding_is_told(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    path.write_bytes("trial,step,value\nä,1,0.5\n".encode("latin-1"))
    got = "'utf-8' codec can't decode byte 0xe4 in position 17: invalid continuation byte"
    assert said(FileProblem, path) == f"{path}: expected text in UTF-8, got {got}. Save it as UTF-8."
    path.write_bytes("trial,step,value\na,1,0.5\n".encode("utf-16")[:-1])
    assert "expected text in UTF-8, got 'utf-16" in said(FileProblem, path)


def test_the_last_report_of_a_step_counts(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "trial,step,value,time\na,1,9,1\na,2,8,2\na,1,5,3\na,2,4,4\na,3,3,5\n")
    found = read(path, direction="minimize")
    assert curves(found) == {"a": {1: 5, 2: 4, 3: 3}}
    assert found.task.runs[0].clock.tolist() == [3, 4, 5]
    assert found.left_out[0] == "2 reports at a step that its trial reports again: the last one counts."


SHORTER = "1 trial began anew after an attempt that had got further: what only that one had reported is left out."


@pytest.mark.parametrize(
    ("steps", "kept", "shorter"),
    [
        ([1, 2, 3, 4, 1, 2], {1: 4, 2: 5}, True),
        ([1, 2, 3, 4, 3, 4, 5], {1: 0, 2: 1, 3: 4, 4: 5, 5: 6}, False),  # from a checkpoint
        ([1, 2, 3, 4, 5, 3, 4], {1: 0, 2: 1, 3: 5, 4: 6}, True),
        ([1, 2, 3, 1, 2, 1, 2, 3], {1: 5, 2: 6, 3: 7}, False),
        ([1, 2, 3, 4, 1, 2, 3, 1, 2], {1: 7, 2: 8}, True),
        ([1, 1, 2, 2, 3, 3], {1: 1, 2: 3, 3: 5}, False),
        ([1, 2, 3, 1], {1: 3, 2: 1, 3: 2}, False),  # a summary, more likely than an attempt
        ([3, 2, 1, 3], {1: 2, 2: 1, 3: 3}, False),  # no order
        ([2, 4, 6, 1, 3, 5, 2], {1: 3, 2: 6, 3: 4, 4: 1, 5: 5, 6: 2}, False),
    ],
)
def test_the_last_attempt_at_a_trial_counts_whole(
    tmp_path: Path, steps: list[int], kept: dict[int, int], shorter: bool
) -> None:
    """One that died and had got further left its end on the curve of the next one. Values are places."""
    rows = "".join(f"a,{step},{i}\n" for i, step in enumerate(steps))
    of_csv = read(csv_file(tmp_path, f"trial,step,value\n{rows}"), direction="minimize")
    mlflow_run(tmp_path, "a", {"loss": [f"{1000 + i} {i} {step}" for i, step in enumerate(steps)]})
    of_mlflow = read(tmp_path / "mlruns", metric="loss", direction="minimize")
    tune(tmp_path / "exp", "a", [{"epoch": step, "loss": float(i)} for i, step in enumerate(steps)])
    of_ray = read(tmp_path / "exp", step="epoch", metric="loss", direction="minimize")
    for found, told in ((of_csv, SHORTER), (of_mlflow, SHORTER.replace("trial", "run")), (of_ray, SHORTER)):
        assert curves(found) == {"a": kept}
        assert (told in found.left_out) is shorter


def test_steps_may_be_counted_in_place_of_times(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "trial,step,value,time\na,1,9,10\na,2,8,30\n")
    timed, counted = read(path, direction="min"), read(path, direction="min", steps=True)
    assert (timed.task.unit, timed.task.runs[0].clock.tolist()) == ("seconds", [10, 30])
    assert (counted.task.unit, counted.task.runs[0].clock.tolist()) == ("steps", [1, 2])


def test_what_is_judged_is_one_of_two(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "trial,step,value\na,1,9\na,2,8\n")
    assert read(path, direction="min", judged="final").task.goal.judged == "final"
    text = "read(judged=): expected 'best' or 'final', got 'last'."
    assert said(InvalidValue, path, judged="last") == text


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "run,epoch,loss\na,1,2\n")
    assert said(InvalidValue, path, trial="runs", step="epoch") == (
        f"{path}:1: --trial: expected a column, one of run, epoch, loss, got 'runs'. Perhaps 'run' is meant."
    )
    assert said(FileProblem, path, trial="run") == (
        f"{path}:1: expected a column 'step', got run, epoch, loss. Say which columns they are: --trial, --step, "
        "--value."
    )
    database = tmp_path / "study.db"
    optuna.create_study(storage=f"sqlite:///{database}")
    assert said(InvalidValue, database, trial="run") == (
        f"{database}: --trial: expected no column: this is no CSV file, got 'run'. Leave it out."
    )


# Tables without curves


@pytest.mark.parametrize("multi_index", [False, True])
def test_trials_dataframe_has_no_curves(tmp_path: Path, multi_index: bool) -> None:
    study = optuna.create_study()
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1) + trial.suggest_float("y", 0, 1), n_trials=3)
    path = tmp_path / "trials.csv"
    study.trials_dataframe(multi_index=multi_index).to_csv(path)
    text = said(FileProblem, path)
    assert text == (
        f"{path}:1: expected curves, got a table of Optuna's trials_dataframe(), which holds the final value of each "
        "trial. Name the study's storage itself (sqlite:///study.db, or the journal file), which holds what "
        "`trial.report` was given."
    )


def test_search_runs_has_no_curves(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "run_id,experiment_id,status,metrics.loss,params.lr\na,0,FINISHED,0.5,0.1\n")
    assert said(FileProblem, path) == (
        f"{path}:1: expected curves, got a table of MLflow's search_runs(), which holds the last value of each run. "
        "Name the folder mlruns itself, which holds every value."
    )


# Weights & Biases (the layout of its CSV export: wandb/wandb issues 5349 and 6474)

PANEL = (
    '"Step","warm - sun-3 - val_loss","warm - sun-3 - val_loss__MIN","warm - sun-3 - val_loss__MAX",'
    '"frost-4 - val_loss","frost-4 - val_loss__MIN","frost-4 - val_loss__MAX"\n'
    '"0","0.9","0.9","0.9","0.8","0.8","0.8"\n"1","0.7","0.7","0.7","","",""\n"2","0.6","0.6","0.6","NaN","",""\n'
)


def test_a_panel_of_weights_and_biases(tmp_path: Path) -> None:
    found = read(csv_file(tmp_path, PANEL), direction="minimize")
    assert found.task.goal.metric == "val_loss"
    known = curves(found)
    assert known["warm - sun-3"] == {0: 0.9, 1: 0.7, 2: 0.6}
    assert list(known["frost-4"]) == [0, 2]
    assert math.isnan(known["frost-4"][2])


def test_a_panel_of_several_metrics(tmp_path: Path) -> None:
    path = csv_file(tmp_path, '"Step","a - loss","a - acc","a - _step"\n0,1,0.1,0\n1,0.5,0.2,1\n')
    assert said(InvalidValue, path) == (
        f"{path}:1: metric: expected one of the metrics acc, loss, got None. Name the one to replay."
    )
    assert curves(read(path, metric="acc", direction="maximize")) == {"a": {0: 0.1, 1: 0.2}}


def test_run_histories_of_weights_and_biases(tmp_path: Path) -> None:
    text = "name,_step,_runtime,_timestamp,val_loss\na,0,5,1700000000,0.9\na,1,9,1700000004,0.8\nb,0,5,1700000000,0.7\n"
    found = read(csv_file(tmp_path, text), direction="minimize")
    assert curves(found) == {"a": {0: 0.9, 1: 0.8}, "b": {0: 0.7}}
    assert found.task.runs[0].clock.tolist() == [5, 9]
    path = csv_file(tmp_path, "_step,val_loss,which\n0,1,a\n1,2,a\n")
    assert said(InvalidValue, path) == (
        f"{path}:1: --trial: expected the column that tells runs apart, one of _step, val_loss, which, got None. "
        "This looks like a run history of Weights & Biases."
    )
    assert curves(read(path, trial="which", metric="val_loss", direction="min")) == {"a": {0: 1, 1: 2}}


# MLflow (the layout of its file store: mlflow/store/tracking/file_store.py)


def mlflow_run(
    root: Path, name: str, metrics: dict[str, list[str]], *, experiment: str = "digits", status: int = 3, **meta: str
) -> Path:
    home = root / "mlruns" / experiment
    run = home / f"id{name}"
    for key, lines in metrics.items():
        path = run / "metrics" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines))
    (run / "params").mkdir()
    (run / "params" / "lr").write_text("0.1")
    facts = {"run_name": name, "status": status, "start_time": 1000, "lifecycle_stage": "active", **meta}
    (run / "meta.yaml").write_text("".join(f"{key}: {value}\n" for key, value in facts.items()))
    (home / "meta.yaml").write_text(f"experiment_id: '1'\nname: {experiment}\n")
    return run


def test_runs_of_mlflow(tmp_path: Path) -> None:
    mlflow_run(tmp_path, "a", {"val/loss": ["2000 0.9 0", "4000 0.8 1", "9000 0.7 2"], "lr": ["2000 0.1 0"]})
    mlflow_run(tmp_path, "b", {"val/loss": ["2000 0.9 0", "3000 0.95 0", "4000 nan 1"]}, status=4)
    mlflow_run(tmp_path, "gone", {"val/loss": ["2000 0 0"]}, lifecycle_stage="deleted")
    (tmp_path / "mlruns" / ".trash").mkdir()
    for where in (tmp_path / "mlruns", tmp_path / "mlruns" / "digits"):
        found = read(where, metric="val/loss", direction="minimize")
        a, b = found.task.runs
        assert (a.uid, a.steps, a.values, a.status) == ("a", [0, 1, 2], [0.9, 0.8, 0.7], Status.COMPLETE)
        assert (a.clock.tolist(), dict(a.params), found.task.unit) == ([1, 3, 8], {"lr": 0.1}, "seconds")
        assert (b.uid, b.steps, b.values[0], b.status) == ("b", [0, 1], 0.95, Status.FAILED)
        assert found.left_out == ("1 value at a step that its run logs again: the last one counts.",)
    assert said(InvalidValue, tmp_path / "mlruns") == (
        f"{tmp_path / 'mlruns'}: metric: expected one of the metrics lr, val/loss, got None. Name the one to replay."
    )


def test_experiments_of_mlflow(tmp_path: Path) -> None:
    mlflow_run(tmp_path, "x", {"loss": ["1 1 0"]}, experiment="Default")
    mlflow_run(tmp_path, "a", {"loss": ["1 0.9", "2 0.8"]}, experiment="digits")
    root = tmp_path / "mlruns"
    assert said(InvalidValue, root) == (
        f"{root}: study: expected one of the experiments Default, digits, got None. Give study= (--study digits)."
    )
    found = read(root, study="digits", direction="minimize")
    assert curves(found) == {"a": {0: 0.9, 1: 0.8}}
    assert found.left_out == ("1 run without steps: values are counted instead.",)


def test_a_damaged_metric_of_mlflow(tmp_path: Path) -> None:
    run = mlflow_run(tmp_path, "a", {"loss": ["1 0.9 0", "2 zero 1"]})
    assert said(FileProblem, tmp_path / "mlruns") == (
        f"{run / 'metrics' / 'loss'}:2: expected a time, a value and a step, got '2 zero 1'."
    )


def test_metric_histories_of_mlflow(tmp_path: Path) -> None:
    rows = ["run_id,key,value,timestamp,step", "a,loss,0.9,1700000000000,0", "a,acc,0.1,1700000000000,0"]
    path = csv_file(tmp_path, "\n".join([*rows, "a,loss,0.8,1700000001000,1"]))
    assert curves(read(path, metric="loss", direction="minimize")) == {"a": {0: 0.9, 1: 0.8}}
    assert said(InvalidValue, path) == (
        f"{path}:1: metric: expected one of the metrics acc, loss, got None. Name the one to replay."
    )


# Ray Tune, by its own loggers


class Logged:
    """As much of a Tune trial as Ray's loggers look at."""

    def __init__(self, root: Path, name: str) -> None:
        self.trial_id, self.local_path, self.config = name, str(root / f"train_{name}_lr=0.1"), {"lr": 0.1}

    def init_local_path(self) -> None:
        Path(self.local_path).mkdir(parents=True, exist_ok=True)


def tune(root: Path, name: str, results: Sequence[dict[str, Any]], *, json_too: bool = True) -> Path:
    from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback

    trial: Any = Logged(root, name)
    made: list[Any] = [CSVLoggerCallback, JsonLoggerCallback]
    for logger in (make() for make in made[: 1 + json_too]):
        logger._restore_from_remote = lambda *_: None  # there is no remote storage  # noqa: SLF001
        for i, result in enumerate(results, 1):
            base = {"training_iteration": i, "time_total_s": 2.0 * i, "trial_id": name, "config": trial.config}
            logger.log_trial_result(i, trial, {**result, **base, "pid": 1, "done": False, "timestamp": 17})
        logger.log_trial_end(trial)
    return Path(trial.local_path)


def test_results_of_ray_tune(tmp_path: Path) -> None:
    """The loss is reported from the second result on: progress.csv has no column of it."""
    root = tmp_path / "exp"
    for name, top in (("a", 1.0), ("b", 2.0)):
        folder = tune(root, name, [{"lr": 0.1}, *({"lr": 0.1, "eval": {"loss": top / i}} for i in (1, 2, 3))])
    assert "eval/loss" not in (folder / "progress.csv").read_text()
    found = read(root, metric="eval/loss", direction="minimize")
    assert curves(found) == {"a": {2: 1, 3: 0.5, 4: 1 / 3}, "b": {2: 2, 3: 1, 4: 2 / 3}}
    assert found.task.runs[0].clock.tolist() == [4, 6, 8]
    assert dict(found.task.runs[0].params) == {"lr": 0.1}
    assert read(tmp_path, metric="eval/loss", direction="min").task.runs[0].uid == "a"
    with (folder / "result.json").open("a") as file:
        file.write('{"training_iteration": 9')  # torn
    assert curves(read(root, metric="eval/loss", direction="min")) == curves(found)
    assert said(InvalidValue, root) == (
        f"{root}: metric: expected one of eval/loss, lr, got None. Name the one to replay."
    )


def test_progress_of_ray_tune(tmp_path: Path) -> None:
    folder = tune(tmp_path, "a", [{"loss": 0.9}, {"loss": 0.8}], json_too=False)
    for where in (tmp_path, folder, folder / "progress.csv"):
        found = read(where, direction="minimize")
        assert curves(found) == {"a": {1: 0.9, 2: 0.8}}
        assert (found.task.goal.metric, found.task.runs[0].clock.tolist()) == ("loss", [2, 4])


def test_steps_of_ray_tune_may_be_another_key_and_come_again(tmp_path: Path) -> None:
    results = [{"epoch": e, "loss": v} for e, v in ((0, 9.0), (1, 8.0), (1, 7.0), (2, 6.0))]
    tune(tmp_path, "a", results)
    found = read(tmp_path, step="epoch", metric="loss", direction="minimize", steps=True)
    assert curves(found) == {"a": {0: 9, 1: 7, 2: 6}}
    assert found.task.unit == "steps"
    assert found.left_out[0] == "1 result at a step that its trial reports again: the last one counts."


def test_a_damaged_result_of_ray_tune(tmp_path: Path) -> None:
    folder = tune(tmp_path, "a", [{"loss": 0.9}])
    (folder / "result.json").write_text(json.dumps({"loss": 1}) + "\n[1]\n")
    text = f"{folder / 'result.json'}:2: expected a result of Ray Tune, got b'[1]\\n'."
    assert said(FileProblem, tmp_path) == text
