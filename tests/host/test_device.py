"""A host waits for no device: whatever is wrong with one, the CPU answers, and one warning says so."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from kit.endpoints import weight_file
from kit.forecasters import ask, laws, study

from lcsearch.errors import EnvironmentProblem
from lcsearch.forecast.contract import Forecasts, Query
from lcsearch.host.device import OnDevice
from lcsearch.host.in_process import Pretrained
from lcsearch.study import Snapshot

SEEN = study(laws(5), [("live", laws(1, seed=1)[0, :9])])


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """One that a test may damage."""
    return weight_file(tmp_path)


class Device(Pretrained):
    """On `cuda` it computes on the CPU, after what `doing` does; `at_pass` it does later."""

    def __init__(self, file: Path, device: str, doing: Callable[[], object], at_pass: Callable[[], object]) -> None:
        super().__init__(file=file, device=device)
        self.doing, self.at_pass = doing, at_pass

    def _load(self) -> Any:
        if self.device != "cpu":
            self.doing()
        held, self._device = self._device, "cpu"
        try:
            return super()._load()
        finally:
            self._device = held

    def forecast_many(self, asks: Sequence[tuple[Snapshot, Sequence[Query]]]) -> list[Forecasts]:
        if self.device != "cpu":
            self.at_pass()
        return super().forecast_many(asks)


def nothing() -> None:
    pass


def out_of_memory() -> NoReturn:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def hang() -> None:
    threading.Event().wait(300)


def on(
    file: Path,
    doing: Callable[[], object] = nothing,
    at_pass: Callable[[], object] = nothing,
    device: str = "cuda",
    seconds: float = 60.0,
) -> OnDevice:
    return OnDevice(lambda where: Device(file, where, doing, at_pass), device, seconds)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_where_it_works_it_is_used(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = on(small)
    assert model.device == ""
    model.prepare()
    assert (model.device, model.name, model.version) == ("cuda", "network=small0", Pretrained(file=small).version)
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("doing", "why"),
    [
        (out_of_memory, r"expected weights that load on cuda, got OutOfMemoryError: CUDA out of memory.*"),
        (hang, "no answer within 0.5 s"),
    ],
)
def test_one_that_fails_or_hangs_is_left_with_one_warning(
    small: Path, caplog: pytest.LogCaptureFixture, doing: Callable[[], object], why: str
) -> None:
    model = on(small, doing, seconds=0.5 if doing is hang else 60.0)
    with caplog.at_level(logging.WARNING, logger="lcsearch"):
        for _ in range(2):
            model.prepare()
            (found,) = model.forecast_many([(SEEN, ask(SEEN))])
    assert model.device == "cpu"
    np.testing.assert_array_equal(found.knots, Pretrained(file=small).forecast(SEEN, ask(SEEN)).knots)
    (said,) = warnings(caplog)
    assert said.startswith("lcsearch: forecasts are made on the CPU and not on cuda: ")
    assert re.search(why, said)


def test_one_that_is_taken_away_later_is_left_too(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The trials of a sweep that begins may take all of its memory."""
    model = on(small, at_pass=out_of_memory)
    model.prepare()
    assert model.device == "cuda"
    with caplog.at_level(logging.WARNING, logger="lcsearch"):
        for _ in range(3):
            (found,) = model.forecast_many([(SEEN, ask(SEEN))])
            assert found.absent == (None,) * 3
    assert model.device == "cpu"
    (said,) = warnings(caplog)
    assert said.endswith(
        "on the CPU and not on cuda: OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
    )


def test_a_question_that_no_device_can_answer_changes_nothing(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = on(small)
    model.prepare()
    with pytest.raises(AttributeError):
        model.forecast_many([(None, [])])  # type: ignore[list-item]
    assert (model.device, warnings(caplog)) == ("cuda", [])


def test_auto_is_what_torch_sees(
    small: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for there, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        model = on(small, device="auto")
        model.prepare()
        assert model.device == device
    assert warnings(caplog) == []


def test_without_a_cpu_either_it_says_so(small: Path) -> None:
    model = on(small, device="cpu")
    small.unlink()
    with pytest.raises(EnvironmentProblem, match="expected a file of weights"):
        model.prepare()
