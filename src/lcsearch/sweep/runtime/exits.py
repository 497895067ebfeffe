"""How a worker process ends, and the words by which its launcher knows."""

from __future__ import annotations

OK, HOPELESS, FILE, ENVIRONMENT, ORPHANED = 0, 1, 2, 3, 75
NO_REPORT = "the objective returned without a report: call ctx.report(value, step)"
