"""Configurations that are not begun, from files: what they become, and one clear sentence for each mistake."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from kit.builders import goal, snapshot

from lcsearch.curves import Curve
from lcsearch.errors import FileProblem, InvalidValue, LcsearchError
from lcsearch.outlook.candidates import MOST, Known, from_csv, from_space
from lcsearch.schedule import Schedule
from lcsearch.study import Snapshot, Status, Trial

CONFIGS: tuple[dict[str, Any], ...] = (
    {"lr": 0.1, "width": 8, "act": "relu", "wide": True, "layers": "2"},
    {"lr": 0.01, "width": 16, "act": "tanh", "wide": False, "layers": "3", "momentum": 0.9},
)


def study(*configs: Mapping[str, Any]) -> Snapshot:
    trials = [Trial(str(i), Curve.of([1], [1.0]), dict(c), Status.COMPLETE) for i, c in enumerate(configs)]
    return snapshot(goal(), trials)


KNOWN = Known.of(study(*CONFIGS), "the study")
NAMES = "lr, width, act, wide, layers, momentum"


def read(tmp_path: Path, text: str) -> list[Trial]:
    path = tmp_path / "c.csv"
    path.write_text(text)
    return from_csv(path, KNOWN)


def test_rows_become_trials_without_a_report(tmp_path: Path) -> None:
    text = "lr,act,width,wide,layers,momentum\n1e-3,relu,32,true,4,\n\n0.2,gelu,4,False,2,0.5\n"
    one, other = read(tmp_path, text)
    assert (one.uid, other.uid) == ("line 2", "line 4")
    assert one.params == {
        "lr": 1e-3,
        "act": "relu",
        "width": 32,
        "wide": True,
        "layers": "4",
    }  # text, as trials have it
    assert other.params == {"lr": 0.2, "act": "gelu", "width": 4, "wide": False, "layers": "2", "momentum": 0.5}
    assert not one.curve.n_reports


def test_a_comma_is_a_point_between_semicolons(tmp_path: Path) -> None:
    (one,) = read(tmp_path, "lr;width;act;wide;layers\n0,5;8;relu;true;2\n")
    assert one.params["lr"] == 0.5


def test_the_plan_of_a_configuration_comes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("lr\n0.5\n")
    known = Known.of(study({"lr": 0.1}), "the study")
    (one,) = from_csv(path, known, lambda params: Schedule("constant", params["lr"], 10.0))
    assert one.schedule == Schedule("constant", 0.5, 10.0)


HEAD = "lr,width,act,wide,layers"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", f": expected a header of parameters ({NAMES}) and a row for every configuration; got an empty file."),
        (
            f"{HEAD}\n",
            f": expected a header of parameters ({NAMES}) and a row for every configuration; got the header alone.",
        ),
        (
            f"{HEAD},momentun\n0.1,8,relu,true,2,1\n",
            f":1: expected the study's parameters ({NAMES}), got the column 'momentun'. Perhaps 'momentum' is meant.",
        ),
        (f"{HEAD},x\n", f":1: expected the study's parameters ({NAMES}), got the column 'x'. Take it away."),
        (
            "lr,act,wide\n0.1,relu,true\n",
            ":1: expected every parameter that all trials have, got none called width, layers. Add them.",
        ),
        (
            f"{HEAD}\n0.1,8,relu,true,2\nfast,8,relu,true,2\n",
            ":3: lr: expected a finite number, as the trials have it, got 'fast'.",
        ),
        (f"{HEAD}\n0.1,nan,relu,true,2\n", ":2: width: expected a finite number, as the trials have it, got 'nan'."),
        (f"{HEAD}\n,8,relu,true,2\n", ":2: lr: expected a finite number, as the trials have it, got nothing."),
        (f"{HEAD}\n0.1,8,relu,2,2\n", ":2: wide: expected true or false, as the trials have it, got '2'."),
        (f"{HEAD}\n0.1,8,,true,2\n", ":2: act: expected a value, which all trials have, got nothing."),
        (f"{HEAD}\n0.1,8\n", ":2: expected 5 cells as in the header, got 2."),
        ("lr,lr\n1,1\n", ":1: expected every column once, got 'lr' 2 times."),
        (
            f"{HEAD}\n" + "0.1,8,relu,true,2\n" * (MOST + 1),
            f": expected at most {MOST} configurations, got {MOST + 1}. Split the file.",
        ),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(FileProblem) as error:
        read(tmp_path, text)
    assert str(error.value) == f"{tmp_path / 'c.csv'}{said}"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match="expected a CSV file of configurations, got no such file"):
        from_csv(tmp_path / "c.csv", KNOWN)
    with pytest.raises(LcsearchError, match=f"^{re.escape(str(tmp_path))}: expected a CSV file that can be read"):
        from_csv(tmp_path, KNOWN)


def test_a_study_without_parameters_has_no_candidates() -> None:
    with pytest.raises(FileProblem) as error:
        Known.of(study({}), "Optuna study 'x' in x.db")
    assert str(error.value) == (
        "Optuna study 'x' in x.db: expected trials with parameters, which configurations are compared with, got none. "
        "Leave --candidates and --space out."
    )


SPACE = """\
name: whatever  # what is beside the space may be wrong
space:
  lr: {loguniform: [1e-4, 1]}
  k: 3
  width: {choice: [8, 16]}
"""


def draw(tmp_path: Path, text: str, n: int = 6, seed: int = 0, begun: Any = ()) -> tuple[list[Trial], str]:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    known = Known.of(study({"lr": 0.1, "width": 8}), "the study")
    return from_space(path, known, begun, n, seed, lambda params: None)


def test_a_space_is_drawn_from_as_a_sweep_draws(tmp_path: Path) -> None:
    found, left = draw(tmp_path, SPACE)
    assert left == ""
    assert [one.uid for one in found] == [f"draw {i}" for i in range(6)]
    assert all(set(one.params) == {"lr", "width"} for one in found)  # trials have no constants, either
    assert all(1e-4 <= one.params["lr"] <= 1 and one.params["width"] in (8, 16) for one in found)
    again, _ = draw(tmp_path, SPACE)
    other, _ = draw(tmp_path, SPACE, seed=1)
    assert [one.params for one in again] == [one.params for one in found]
    assert [one.params for one in other] != [one.params for one in found]
    more, _ = draw(tmp_path, SPACE, n=9)
    assert [one.params for one in more[:6]] == [one.params for one in found]


def test_what_is_drawn_twice_or_begun_is_left_out(tmp_path: Path) -> None:
    few = "space:\n  lr: {choice: [0.1, 0.2]}\n  width: {choice: [8, 16]}\n"
    found, left = draw(tmp_path, few, n=64, begun=[{"lr": 0.1, "width": 8}])
    assert sorted((one.params["lr"], one.params["width"]) for one in found) == [(0.1, 16), (0.2, 8), (0.2, 16)]
    assert left == f"{tmp_path / 's.yaml'}: 3 of 64 configurations: 257 draws gave no others that no trial has."
    with pytest.raises(FileProblem, match=r"s.yaml: expected configurations that no trial has, got none in 5 draws"):
        draw(tmp_path, "space:\n  lr: {choice: [0.1]}\n  width: 8\n", n=1, begun=[{"lr": 0.1, "width": 8}])


def test_a_constant_that_trials_have_stays(tmp_path: Path) -> None:
    found, _ = draw(tmp_path, "space:\n  lr: {uniform: [0, 1]}\n  width: 32\n", n=1)
    assert found[0].params["width"] == 32


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr: 3\n", ":1:1: at $: expected a key 'space', got none."),
        ("space: {}\n", None),
        ("space:\n  lr: {uniform: [1, 0]}\n  width: 8\n", None),
        (
            "space:\n  lr: {uniform: [0, 1]}\n  width: 8\n  momentum: {int: [1, 2]}\n",
            ": expected the study's parameters (lr, width), got the parameter 'momentum'. Take it away.",
        ),
        (
            "space:\n  lr: {uniform: [0, 1]}\n",
            ": expected every parameter that all trials have, got none called width. Add it.",
        ),
    ],
)
def test_what_is_wrong_with_a_space_is_said_with_its_place(tmp_path: Path, text: str, said: str | None) -> None:
    with pytest.raises(FileProblem) as error:
        draw(tmp_path, text)
    assert str(error.value).startswith(f"{tmp_path / 's.yaml'}:")
    if said is not None:
        assert str(error.value) == f"{tmp_path / 's.yaml'}{said}"


def test_how_many_are_drawn_is_bounded(tmp_path: Path) -> None:
    for n in (0, MOST + 1):
        with pytest.raises(InvalidValue, match=f"^--n: expected 1 to {MOST}, got {n}."):
            draw(tmp_path, SPACE, n=n)
