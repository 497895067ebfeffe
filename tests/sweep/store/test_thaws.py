"""The checkpoint that a thawed trial goes on from."""

from __future__ import annotations

from pathlib import Path

import pytest

from lcsearch.schedulers.optuna._record import Thawed
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.thaws import bring_checkpoint


def test_what_is_forgotten_is_gone_before_the_copy_is_in_its_place(tmp_path: Path) -> None:
    """A launcher was killed between the two, and what was odd about the stopped trial stood for the thawed one."""
    folder = RunFolder(tmp_path)
    folder.checkpoints(3).mkdir(parents=True)
    (folder.checkpoints(3) / "notes").write_text("odd")

    def killed(copy: Path) -> None:
        raise KeyboardInterrupt

    thawed = Thawed(3, 5.0, 0.04, 0.02)
    with pytest.raises(KeyboardInterrupt):
        bring_checkpoint(folder, 7, thawed, killed)
    assert not folder.checkpoints(7).exists()
    bring_checkpoint(folder, 7, thawed, lambda copy: (copy / "notes").unlink())
    assert list(folder.checkpoints(7).iterdir()) == []
    bring_checkpoint(folder, 7, thawed, killed)  # it has its own by now
    assert (folder.checkpoints(3) / "notes").read_text() == "odd"
