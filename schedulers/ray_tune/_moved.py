"""Runs of earlier versions: where the classes that their pickles name are now.

Tune pickles a scheduler and its callbacks when a `Tuner` is made, and `Tuner.restore` unpickles them by the names that
their modules had then. Names of modules that are no more lead to those that took their place; a pickle comes to them
by way of this package, which holds the scheduler's own class.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED = {
    "lcsearch.decide": "lcsearch.stopping",
    "lcsearch.decide.decision": "lcsearch.stopping.decision",
    "lcsearch.decide.risk": "lcsearch.stopping.risk",
    "lcsearch.decide.rules": "lcsearch.stopping.rules",
    "lcsearch.decide.verdict": "lcsearch.stopping.verdict",
    "lcsearch.decision_log": "lcsearch.session.decision_log",
    "lcsearch.engine": "lcsearch.stopping",
    "lcsearch.engine.ask": "lcsearch.stopping.gates",
    "lcsearch.engine.judge": "lcsearch.stopping.judge",
    "lcsearch.engine.policy": "lcsearch.stopping.policy",
    "lcsearch.host.pretrained": "lcsearch.host.in_process",
}
"""Module that was -> module that is."""

RENAMED = {"Hold": "GateHold", "Mark": "StopRecord", "Standing": "Rank"}
"""Class that was -> class that is."""


class Moved(MetaPathFinder, Loader):
    """Finds a module that was; asked after all others, so that it hides none."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module that was; None for any other."""
        if fullname not in MOVED:
            return None
        return ModuleSpec(fullname, self, is_package=any(name.startswith(f"{fullname}.") for name in MOVED))

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """A plain one."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Its names are those of the module that is."""
        now = MOVED[module.__name__]

        def attribute(name: str) -> Any:
            return getattr(import_module(now), RENAMED.get(name, name))

        module.__dict__["__getattr__"] = attribute


if not any(isinstance(finder, Moved) for finder in sys.meta_path):
    sys.meta_path.append(Moved())
