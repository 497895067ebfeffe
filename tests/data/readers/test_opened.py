"""An Optuna study opened as Optuna's own: by every name it has, and without a write."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import optuna
import pytest

from lcsearch.data.readers import optuna_study
from lcsearch.errors import FileProblem, InvalidValue, LcsearchError


def made(path: Path, *names: str) -> Path:
    """Studies with a trial that ended and one that runs."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for name in names:
        study = optuna.create_study(storage=f"sqlite:///{path}", study_name=name)
        study.tell(study.ask({"x": optuna.distributions.FloatDistribution(0, 1)}), 1.0)
        study.ask().report(2.0, 1)
    return path


def state_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_live_trials_and_attributes_are_there_whatever_the_path_is_called(tmp_path: Path) -> None:
    folder = tmp_path / "a b#%?&c"
    folder.mkdir()
    path = made(tmp_path / "study.db", "one").rename(folder / "study.db")
    before = state_of(folder)
    with optuna_study(path) as found:
        assert found is not None
        study, where = found
        assert (study.study_name, where) == ("one", str(path))
        assert [trial.state.name for trial in study.get_trials()] == ["COMPLETE", "RUNNING"]
        with pytest.raises(optuna.exceptions.StorageInternalError):
            study.set_user_attr("written", True)
    assert state_of(folder) == before


def test_a_study_with_a_write_ahead_log_is_read_from_a_copy(tmp_path: Path) -> None:
    path = made(tmp_path / "study.db", "one")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    before = state_of(tmp_path)
    with optuna_study(path) as found:
        assert found is not None
        assert len(found[0].get_trials()) == 2
    assert state_of(tmp_path) == before


def test_of_several_studies_one_is_named(tmp_path: Path) -> None:
    path = made(tmp_path / "study.db", "one", "two")
    with (
        pytest.raises(InvalidValue, match="expected the name of one of 2 studies: one, two, got None"),
        optuna_study(path),
    ):
        pass
    with optuna_study(f"sqlite:///{path}", "two") as found:
        assert found is not None
        assert found[0].study_name == "two"


def test_tables_of_something_else_or_of_another_version_are_told(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE things (a)")
    connection.commit()
    connection.close()
    old = made(tmp_path / "old.db", "one")
    connection = sqlite3.connect(old)
    connection.execute("UPDATE version_info SET schema_version = 3")
    connection.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    connection.commit()
    connection.close()
    for path in (other, old):
        said = r"expected the tables of this Optuna, got .* optuna storage upgrade"
        with pytest.raises(FileProblem, match=said), optuna_study(path):
            pass


def test_what_is_broken_missing_or_no_study_is_told_or_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_bytes(made(tmp_path / "study.db", "one").read_bytes()[:8192])
    with pytest.raises(FileProblem, match="expected a SQLite file of Optuna"), optuna_study(tmp_path / "broken.db"):
        pass
    with pytest.raises(FileProblem, match="got nothing of that name"), optuna_study(tmp_path / "none.db"):
        pass
    (tmp_path / "a.csv").write_text("trial,step,value\n")
    for path in (tmp_path, tmp_path / "a.csv"):
        with optuna_study(path) as found:
            assert found is None
    url = "mysql+nodriver://me:secret@nowhere/x"
    with pytest.raises(LcsearchError) as error, optuna_study(url):
        pass
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        "trial_intermediate_values SET intermediate_value = 'abc'",
        "trial_intermediate_values SET intermediate_value = NULL",
        "trial_values SET value = 'abc'",
        "trials SET state = 'GONE'",
    ],
)
def test_an_entry_that_is_none_of_optunas_is_told(tmp_path: Path, change: str) -> None:
    path = made(tmp_path / "study.db", "one")
    with contextlib.closing(sqlite3.connect(path)) as base:
        assert base.execute(f"UPDATE {change}").rowcount
        base.commit()
    told = f"^{path}: expected the tables of Optuna, got an entry that cannot be read"
    with pytest.raises(FileProblem, match=told), optuna_study(path):
        pass
