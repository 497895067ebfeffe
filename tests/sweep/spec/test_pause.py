"""`pause: true` and `allocator:` in a sweep file: what is read, what goes with what, and what older files are."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from sweep.spec.test_model import GOOD, changed, problems, write

from lcsearch.allocation.named import DEFAULT, KINDS
from lcsearch.sweep.spec.allocator import ALLOCATORS, AshaSpec
from lcsearch.sweep.spec.load import load
from lcsearch.sweep.store.studies import fingerprint
from lcsearch.sweep.store.turns import make_allocator


def test_pause_alone_means_the_default_allocator(tmp_path: Path) -> None:
    file = load(write(tmp_path, GOOD + "pause: true\n")).file
    assert (file.allocator, file.turns) == (None, AshaSpec())
    assert load(write(tmp_path, GOOD + "pause: true\nallocator: {eta: 2}\n")).file.turns == AshaSpec(eta=2.0)
    assert load(write(tmp_path)).file.turns is None


@pytest.mark.parametrize("kind", ALLOCATORS)
def test_the_knobs_and_their_defaults_are_the_allocators_own(tmp_path: Path, kind: str) -> None:
    spec = load(write(tmp_path, f"{GOOD}pause: true\nallocator: {{kind: {kind}}}\n")).file.turns
    assert spec is not None
    made = make_allocator(spec)
    assert made == KINDS[kind]()
    assert set(type(spec).model_fields) == {"kind", *(knob.name for knob in dataclasses.fields(KINDS[kind]))}
    assert ALLOCATORS[0] == DEFAULT


def test_what_does_not_go_together_is_said_with_what_to_do(tmp_path: Path) -> None:
    without = "Add `pause: true`, or take"
    assert problems(tmp_path, GOOD + "allocator: {kind: asha}\ncheckpoints: {keep: 3}\n") == [
        f"14:12: at $.allocator: expected none without pausing, got one. {without} `allocator` away.",
        f"15:14: at $.checkpoints: expected none without pausing, got one. {without} `checkpoints` away.",
    ]
    program = changed('{python: "toy:train"}', '{command: "python train.py"}') + "pause: true\n"
    assert problems(tmp_path, program) == [
        "14:8: at $.pause: expected no pausing of a program, got true: lcsearch cannot tell it yet when to save and "
        "end. Give `objective: {python: ...}`, or take `pause` away."
    ]
    assert problems(tmp_path, GOOD + "backend: {kind: ray}\npause: true\n") == [
        "15:8: at $.pause: expected no pausing with backend kind ray, got true: sweeps cannot do it there yet. "
        "Take `pause` away, or train with `kind: optuna`."
    ]


def test_groups_are_by_rung_or_by_a_parameter(tmp_path: Path) -> None:
    for fine in ("rung", "lr"):
        assert load(write(tmp_path, GOOD + f"pause: true\nallocator: {{kind: sec, groups: {fine}}}\n")).file.turns
    assert problems(tmp_path, GOOD + "pause: true\nallocator: {kind: sec, groups: lrr}\n") == [
        "15:32: at $.allocator.groups: expected 'rung' or a parameter of space (lr, width, opt, momentum), got 'lrr'. "
        "Did you mean 'lr'?"
    ]


def test_wrong_kinds_and_knobs(tmp_path: Path) -> None:
    assert problems(tmp_path, GOOD + "pause: yes\n") == ["14:8: at $.pause: expected true or false, got 'yes'."]
    assert problems(tmp_path, GOOD + "pause: true\nallocator: {kind: ashe}\n") == [
        "15:19: at $.allocator.kind: expected kind asha, going-rate, hyperband, halving, uniform, greedy, sec, "
        "dump, alp-gmm, uncertain, top-two, mfpi, pandora or robust, got 'ashe'. Did you mean 'asha'?"
    ]
    assert problems(tmp_path, GOOD + "pause: true\nallocator: {kind: asha, kappa: 1}\n") == [
        "15:25: at $.allocator.kappa: expected one of first, eta, kind, got 'kappa'."
    ]
    assert problems(tmp_path, GOOD + "pause: true\nallocator: {first: 0}\n") == [
        "15:20: at $.allocator.first: expected a number > 0, got 0."
    ]
    assert problems(tmp_path, GOOD + "pause: true\ncheckpoints: {keep: 0}\n") == [
        "15:21: at $.checkpoints.keep: expected a number >= 1, got 0."
    ]
    assert problems(tmp_path, GOOD + "pause: true\ncheckpoints: {save_cost: -1, resume_cost: .inf}\n") == [
        "15:26: at $.checkpoints.save_cost: expected a number >= 0, got -1.",
        "15:43: at $.checkpoints.resume_cost: expected a finite number, got inf.",
    ]


def test_studies_of_earlier_versions_can_be_joined(tmp_path: Path) -> None:
    file = load(write(tmp_path)).file
    assert not {"pause", "allocator", "checkpoints"} & set(fingerprint(file))


def test_the_default_allocator_named_is_the_same_sweep(tmp_path: Path) -> None:
    named = load(write(tmp_path, GOOD + "pause: true\nallocator: {kind: asha}\n")).file
    left_out = load(write(tmp_path, GOOD + "pause: true\ncheckpoints: {keep: 4}\n")).file
    assert fingerprint(named) == fingerprint(left_out) != fingerprint(load(write(tmp_path)).file)
