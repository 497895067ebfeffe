from __future__ import annotations

import json
import os
import pickle
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.builders import props

from lcsearch.session.decision_log import DecisionLog, lines_missing, read_log
from lcsearch.stopping.decision import Decision, Receipt
from lcsearch.stopping.verdict import Reason, Verdict


def receipt(trial: str = "3", time: float = 10.0, detail: str = "") -> Receipt:
    decision = Decision("s", trial, 4.0, Verdict.CONTINUE, Reason.ABOVE, detail)
    return Receipt(decision, time, 0.002, "box", 7, {"fake": "1"})


def test_a_line_a_receipt(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "deep" / "decisions")
    log.write(receipt())
    log.write(receipt("4", 11.0, detail="two\nlines, a ü and a \u2028"))
    (file,) = (tmp_path / "deep" / "decisions").iterdir()
    assert file.suffix == ".jsonl"
    assert f"-{os.getpid()}-" in file.name
    first, second = (json.loads(line) for line in file.read_text().splitlines())
    assert first == {
        "study": "s",
        "trial": "3",
        "step": 4.0,
        "verdict": "CONTINUE",
        "reason": "ABOVE",
        "time": 10.0,
        "latency": 0.002,
        "host": "box",
        "pid": 7,
        "models": {"fake": "1"},
        "errors": {},
        "line": 1,
    }
    assert second["detail"] == "two\nlines, a ü and a \u2028"
    assert list(read_log(log.folder)) == [first, second]


def test_missing_lines_are_known_by_the_number_of_a_later_one(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path)
    for trial in "12345":
        log.write(receipt(trial))
    (file,) = tmp_path.iterdir()
    lines = file.read_bytes().splitlines(keepends=True)
    assert [lines_missing(line, n) for n, line in enumerate(lines, start=1)] == [0] * 5
    assert [lines_missing(lines[i], n) for n, i in ((1, 1), (2, 4))] == [1, 3]
    for unknown in (b"", b"[3]", b'{"line": "x"}', b'{"line": -4}', b'{"trial": "3"}', b'{"line": 1e99}'):
        assert lines_missing(unknown, 3) == 0


def test_a_line_that_cannot_be_written_is_missing(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path)
    log.write(receipt("1"))
    (file,) = tmp_path.iterdir()
    file.rename(tmp_path / "aside")
    file.mkdir()
    with pytest.raises(OSError, match="directory"):
        log.write(receipt("2"))
    file.rmdir()
    (tmp_path / "aside").rename(file)
    log.write(receipt("3"))
    assert [record["line"] for record in read_log(tmp_path)] == [1, 3]


def test_writers_are_merged_in_time_order(tmp_path: Path) -> None:
    one, two = DecisionLog(tmp_path), DecisionLog(tmp_path)
    for time in (1.0, 4.0):
        one.write(receipt(time=time))
    for time in (2.0, 3.0):
        two.write(receipt(time=time))
    assert len(list(tmp_path.iterdir())) == 2
    assert [r["time"] for r in read_log(tmp_path)] == [1, 2, 3, 4]


@props
@given(st.integers(1, 120))
def test_a_torn_last_line_is_passed_over(length: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        log = DecisionLog(folder)
        log.write(receipt("1"))
        log.write(receipt("2"))
        (file,) = Path(folder).iterdir()
        file.write_bytes(file.read_bytes()[:-length])
        assert [r["trial"] for r in read_log(folder)] == (["1", "2"] if length == 1 else ["1"])


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        list(read_log(tmp_path / "none"))
    assert str(error.value) == f"expected a decision log folder, got {str(tmp_path / 'none')!r}, which is no folder"
    assert list(read_log(tmp_path)) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        DecisionLog(tmp_path / "file" / "log").write(receipt())


def test_a_pickled_log_writes_a_file_of_its_own(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path)
    log.write(receipt())
    twin = pickle.loads(pickle.dumps(log))
    twin.write(receipt())
    assert len(list(tmp_path.iterdir())) == 2


def test_threads_share_one_file_and_tear_no_line(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path)

    def work() -> None:
        for _ in range(20):
            log.write(receipt(detail="x" * 5000))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(tmp_path.iterdir())) == 1
    assert len(list(read_log(tmp_path))) == 80


@pytest.mark.parametrize(
    "damaged", [{"latency": -7}, {"now": {"step": 4, "p": -7}}, {"before": {"step": 3, "p": 0.1, "threshold": 7}}]
)
def test_numbers_that_nobody_can_have_measured_are_left_out(tmp_path: Path, damaged: dict[str, object]) -> None:
    log = DecisionLog(tmp_path)
    log.write(receipt())
    (file,) = tmp_path.iterdir()
    file.write_text(json.dumps({**json.loads(file.read_text()), **damaged}) + "\n")
    left_out: list[str] = []
    assert list(read_log(tmp_path, left_out)) == []
    assert left_out == [f"{file}:1"]
