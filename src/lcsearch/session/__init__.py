"""The imperative shell: asks forecasters, judges, writes the decision log, and explains what came of it."""

from __future__ import annotations

from lcsearch.session.session import Session, make_session

__all__ = ["Session", "make_session"]
