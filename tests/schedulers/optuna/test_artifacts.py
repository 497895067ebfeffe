"""Checkpoints in an artifact store are unpacked alike by every Python, and nothing outside of their folder."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from lcsearch.schedulers.optuna._artifacts import _unpack


def packed(*members: tuple[str, bytes | None]) -> tarfile.TarFile:
    """An archive as it is read from a store; None for a link to /etc."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc"
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content or b""))
    file.seek(0)
    return tarfile.open(fileobj=file, mode="r|")


pytestmark = pytest.mark.filterwarnings("ignore:Python 3.14 will, by default, filter:DeprecationWarning")


@pytest.fixture(params=["filter", "none"], autouse=True)
def _python(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With tarfile's filters, and as before Python 3.11.4, where every pausing study failed at its first resume."""
    if request.param == "none":
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    elif not hasattr(tarfile, "data_filter"):
        pytest.skip("this Python has no filters")


def test_a_folder_comes_back(tmp_path: Path) -> None:
    (tmp_path / "from/deep").mkdir(parents=True)
    (tmp_path / "from/deep/a").write_bytes(b"1")
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.add(tmp_path / "from", arcname=".")
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r|") as tar:
        _unpack(tar, tmp_path / "to")
    assert (tmp_path / "to/deep/a").read_bytes() == b"1"


@pytest.mark.parametrize(("name", "content"), [("../out", b"1"), ("in/../../out", b"1"), ("link", None)])
def test_what_leaves_the_folder_is_refused(tmp_path: Path, name: str, content: bytes | None) -> None:
    with packed(("a", b"1"), (name, content)) as tar, pytest.raises(tarfile.TarError):
        _unpack(tar, tmp_path / "to")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "to/link").exists()
