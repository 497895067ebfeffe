from __future__ import annotations

import ast
import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from lcsearch import files

SOURCE = Path(files.__file__).parent


def test_what_is_read_is_all_there_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a\r\nb\rc\xc3\xbc\n")
    assert files.read(path, 9) == b"a\r\nb\rc\xc3\xbc\n"
    assert files.read_text(path, 9) == "a\nb\ncü\n"
    with pytest.raises(OSError, match="more than 8 bytes"):
        files.read(path, 8)


def socket_at(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


ODD: list[tuple[Callable[[Path], object], str]] = [
    (Path.mkdir, "a folder"),
    (os.mkfifo, "no regular file"),
    (socket_at, "no regular file"),
    (lambda path: path.symlink_to("/dev/zero"), "no regular file"),
    (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    (lambda path: None, "No such file or directory"),
]


@pytest.mark.parametrize(("make", "said"), ODD)
def test_what_is_no_file_is_told_at_once(tmp_path: Path, make: Callable[[Path], object], said: str) -> None:
    make(path := tmp_path / "odd")
    for read in (lambda: files.read(path, 10), lambda: list(files.lines(path))):
        with pytest.raises(OSError, match=said) as caught:
            read()
        assert caught.value.filename == str(path)


@pytest.mark.parametrize("write", [files.append, files.lock_file])
@pytest.mark.parametrize("odd", range(4))
def test_only_regular_files_are_written(tmp_path: Path, write: Callable[[Path], object], odd: int) -> None:
    ODD[odd][0](path := tmp_path / "odd")
    with pytest.raises(OSError, match=r"folder|directory|regular|link"):
        write(path)


@pytest.mark.parametrize("write", [files.append, files.lock_file])
@pytest.mark.parametrize("there", [True, False])
def test_no_link_is_written_through(tmp_path: Path, write: Callable[[Path], object], there: bool) -> None:
    victim, path = tmp_path / "victim", tmp_path / "link"
    if there:
        victim.write_text("mine")
    path.symlink_to(victim)
    with pytest.raises(OSError, match="a symbolic link, and no link is written through") as caught:
        write(path)
    assert caught.value.errno == errno.ELOOP
    assert victim.exists() == there
    assert not there or victim.read_text() == "mine"


def test_a_new_file_takes_a_link_s_place(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    with files.create(tmp_path / "link", private=True) as file:
        file.write(b"new")
    assert (tmp_path / "victim").read_text() == "mine"
    assert (tmp_path / "link").read_text() == "new"
    assert (tmp_path / "link").lstat().st_mode & 0o777 == 0o600


def test_lines_go_on_where_they_were_left(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with files.append(path) as log:
        log.write(b"one\ntwo\nthr")
    assert list(files.lines(path)) == [(4, b"one\n"), (8, b"two\n"), (11, b"thr")]
    with files.append(path) as log:
        log.write(b"ee\n")
    assert list(files.lines(path, 8)) == [(14, b"three\n")]


@pytest.mark.parametrize("length", [7, 8, 9, 10, 11, 16, 17, 23])
def test_a_line_beyond_all_measure_is_cut_and_counts_once(tmp_path: Path, length: int) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a\n" + b"x" * length + b"\nb\n")
    (_, first), (end, long), (last, b) = files.lines(path, longest=8)
    assert (first, b, end, last) == (b"a\n", b"b\n", length + 3, length + 5)
    assert long == (b"x" * length + b"\n" if length < 8 else b"x" * 7 + b"\n")
    path.write_bytes(b"x" * length)
    assert [end for end, _ in files.lines(path, longest=8)] == [length]


def test_json_of_any_depth_is_a_value_error() -> None:
    assert files.loads(b'{"a": [1]}') == {"a": [1]}
    for text in ("[" * 100_000, b'{"a":' * 100_000, "[" * 3000 + "]" * 3000):
        with pytest.raises(ValueError, match=r"^JSON that is nested too deep$"):
            files.loads(text)
    for text in ("", "{", b"\xff\x00", "9" * 5000):
        with pytest.raises(ValueError, match=r"^no JSON \("):
            files.loads(text)


def test_json_is_read_here_alone() -> None:
    """Or with an eye on its depth: Python's own reader ends in a RecursionError."""
    careless = []
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        calls = [
            node
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.loads", "json.load")
        ]
        if calls and path.name != "files.py" and "RecursionError" not in text:
            careless.append(str(path.relative_to(SOURCE)))
    assert careless == []


def test_a_file_written_atomically_is_on_disk_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two writers of this kind one once left the folder's own entry to chance."""
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda d: synced.append(stat.S_ISDIR(os.fstat(d).st_mode)))
    path = tmp_path / "file"
    files.write_atomically(path, b"old")
    files.write_atomically(path, b"new", private=True)
    assert synced == [False, True] * 2
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o600)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
