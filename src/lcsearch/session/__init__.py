"""The imperative shell: asks forecasters, judges, writes the decision log, and explains what came of it."""

from __future__ import annotations

from lcsearch.session.session import Session, session_of

__all__ = ["Session", "session_of"]
