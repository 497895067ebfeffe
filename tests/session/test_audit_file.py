"""The file in which audits of many studies are kept: written whole, damage told and moved aside."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from lcsearch.session.audit_file import keep, load
from lcsearch.stopping.audit import Audit


def audit(number: int, study: str = "s", *, wrong: bool = False) -> Audit:
    return Audit(study, str(number), 0.01, 0.05, wrong)


def test_audits_are_added_once_in_the_order_in_which_they_became_known(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "audits.json"
    assert load(place) == ((), "")
    assert keep(place, [audit(2), audit(1, wrong=True)]) == ""
    assert keep(place, [audit(1, wrong=True), audit(3)]) == ""
    assert load(place) == ((audit(2), audit(1, wrong=True), audit(3)), "")
    assert sorted(path.name for path in place.parent.iterdir()) == ["audits.json", "audits.json.lock"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 0, "audits": []}', '{"version": 1, "audits": [{"study": "s"}]}', "\x00" * 9]
)
def test_a_damaged_file_is_told_and_moved_aside(tmp_path: Path, text: str) -> None:
    place = tmp_path / "audits.json"
    place.write_text(text)
    (tmp_path / "audits.json.damaged-1").write_text("an earlier one")
    found, wrong = load(place)
    assert found == ()
    assert wrong.startswith(f"{place}: expected the audits of earlier studies, got a damaged file (")
    told = keep(place, [audit(1)])
    assert told == f"{wrong}; it lies in {place}.damaged-2 now, and a new file is begun"
    assert (tmp_path / "audits.json.damaged-2").read_text() == text
    assert load(place) == ((audit(1),), "")


def test_a_file_of_a_later_lcsearch_is_told_and_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "audits.json"
    place.write_text(text := '{"version": 2, "audits": []}')
    assert "version 2 of a later lcsearch" in load(place)[1]
    with pytest.raises(OSError, match="version 2 of a later lcsearch"):
        keep(place, [audit(1)])
    assert place.read_text() == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audits.json", "audits.json.lock"]


def test_a_folder_in_its_place_is_told(tmp_path: Path) -> None:
    assert load(tmp_path)[1].startswith(f"{tmp_path}: expected the audits of earlier studies, got ")


def test_many_at_once_lose_nothing(tmp_path: Path) -> None:
    place = tmp_path / "audits.json"
    threads = [threading.Thread(target=keep, args=(place, [audit(i)])) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert {one.trial for one in load(place)[0]} == set(map(str, range(12)))
