"""Table and plot of begun.json."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from begun_questions import BEGUN, CONTEXTS, FIXED, QUESTIONS
from report import show, thin
from scores import paired

COMMAND = "LCSEARCH_DATA=.../data python experiments/e1_forecast/begun.py"
HEAD = f"""\
`{COMMAND}`. What is asked, the rows and the figures: `begun.py`; of
every row its command and commit: `begun.json`. Figures stand for {" / ".join(map(str, BEGUN))} begun trials; a dash:
nothing is said, or it is not asked (too few configurations, too short runs). ms: CPU time of a round, up to 600
questions beside one context, everything that is learned from it included. Lower is better but for Spearman and top;
place by chance: 50; PIT: .5 is honest, above it forecasts are too optimistic.

Tried on half a, one order a task, and not kept. Unseen trials: the process on values, or on the mean of their scores
and those of forecasts; means of ranks with extra-trees on values (lost on LCBench what they gained elsewhere); one
kernel of all parameters at once (mean Spearman .39, as kept .41). On 14 of the tasks, 30 and 100 begun at 1 report,
at 3 and in rungs, LCBench / TaskSet / ARLBench / DeepOBS: as kept .645/.439/.407/.592; extra-trees on the forecasts
.613/.378/.350/-, mixed with it by their errors on trials left out .646/.436/.395/-; a process on values
.518/.449/.283/.606, mean of both processes .620/.471/.389/.609, mixed by errors on trials left out
.602/.457/.379/.625, or only where values are told better by .1 .639/.449/.404/.616. What is gained where early values
tell the end is lost where curves cross, and how well a configuration tells a value does not say which. Begun trials:
the mean, weighted by precision, of a trial's forecast and of what the process says of it by the others ranks better
where 100 are begun (.63; forecasts .58, values .58), worse where 10 are (.50; .52, .61); with the value in the mean
.60 over all, as values alone.
"""
COLUMNS = {
    "Spearman": ("spearman", 3),
    "top": ("top", 2),
    "place": ("place", 0),
    "log-loss": ("log_loss", 3),
    "CRPS": ("crps", 3),
    "PIT": ("pit", 2),
    "in 50 %": ("in_50", 2),
    "in 80 %": ("in_80", 2),
    "in 95 %": ("in_95", 2),
    "absent": ("absent", 2),
}


def table(results: dict[str, Any]) -> str:
    """Markdown: of every section an overview, then a table a source, question and context."""
    lines = HEAD.splitlines()
    for section, content in results["sections"].items():
        sources = {name: found for name, found in content["sources"].items() if found["rows"]}
        lines += _overview(section, sources)
        for source, found in sources.items():
            lines += ["", f"## {section}: {source} ({len(found['tasks'])} tasks)"]
            lines += ["", *_head(["CPU ms a round", *map(str, BEGUN)])]
            lines += [
                _line([name, *(show(row["about"]["ms"][str(n)], 0) for n in BEGUN)]) for name, row in _rows(found)
            ]
            for question in QUESTIONS:
                for context in CONTEXTS:
                    lines += _cells(found, question, context)
    return "\n".join(lines) + "\n"


def _rows(found: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return list(found["rows"].items())


def _head(columns: list[str]) -> list[str]:
    return [_line(columns), "|---" * len(columns) + "|"]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(found: dict[str, Any], question: str, context: str) -> Iterator[str]:
    """One table; nothing where that was not asked."""
    names = [f"{question}, {context}, {n} begun" for n in BEGUN]
    if not any(name in row for _, row in _rows(found) for name in names):
        return
    yield from ("", *_head([f"{question}, {context}", *COLUMNS]))
    for label, row in _rows(found):
        at = [row.get(name, {}) for name in names]
        yield _line([label, *("/".join(show(x.get(key), digits) for x in at) for key, digits in COLUMNS.values())])


def _overview(section: str, sources: dict[str, Any]) -> Iterator[str]:
    """Spearman of unseen and begun trials after three reports, by source, and the networks' lead over the forest."""
    yield from ("", f"# {section}")
    for question in QUESTIONS:
        yield from ("", *_head([f"Spearman, {question}, 3 reports", *sources]))
        names = [f"{question}, 3 reports, {n} begun" for n in BEGUN]
        for label in dict.fromkeys(label for found in sources.values() for label in found["rows"]):
            at = [[found["rows"].get(label, {}).get(name, {}) for name in names] for found in sources.values()]
            yield _line([label, *("/".join(show(x.get("spearman")) for x in each) for each in at)])
    yield from ("", "Paired differences of Spearman over tasks, +- standard error, at most begun trials of a source")
    pairs = [(a, b) for a in _networks(sources) for b in ("forest", "value", *_networks(sources)) if a != b]
    pairs = [pair for i, pair in enumerate(pairs) if pair[::-1] not in pairs[:i]]
    for question in QUESTIONS:
        yield from (
            "",
            *_head([f"{question}: first - second", *(f"{s}, {c}" for s in sources for c in _asked(question))]),
        )
        for first, second in pairs:
            cells = [
                _gap(found["rows"], first, second, question, c) for found in sources.values() for c in _asked(question)
            ]
            if any(cell != "-" for cell in cells):
                yield _line([f"{first} - {second}", *cells])


def _asked(question: str) -> list[str]:
    """Contexts of a question that the overview shows."""
    return ["1 report", "3 reports", "rungs"] if question == "unseen" else ["1 report", "3 reports"]


def _networks(sources: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(x for found in sources.values() for x in found["rows"] if "network" in x))


def _gap(rows: dict[str, Any], first: str, second: str, question: str, context: str) -> str:
    for n in reversed(BEGUN):
        both = [rows.get(x, {}).get(f"{question}, {context}, {n} begun", {}) for x in (first, second)]
        each = [x.get("by_task", {}).get("spearman", []) for x in both]
        if all(each):
            gap, error, tasks = paired(*each)
            return f"{show(gap)} +- {show(error)}" if tasks else "-"
    return "-"


def draw(results: dict[str, Any], path: Path) -> None:
    """Of the first section, a column a source: Spearman of unseen trials by the number begun (3 reports) and by
    context, Spearman of begun trials by context, and mean PIT of unseen ones; by context at most begun trials."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    section, content = next(iter(results["sections"].items()))
    sources = {name: found for name, found in content["sources"].items() if found["rows"]}
    n_columns = max(len(sources), 1)
    figure, axes = plt.subplots(4, n_columns, figsize=(4.5 * n_columns, 14), squeeze=False, sharey="row")
    for column, (source, found) in enumerate(sources.items()):
        for shade, (label, row) in enumerate(_rows(found)):
            how: dict[str, Any] = {"ms": 4, "lw": 2.0 if label.startswith("network") else 1.0, "label": label}
            how["color"] = f"C{shade}" if shade < 10 else plt.get_cmap("Dark2")(shade - 10)
            most = max((n for n in BEGUN if f"unseen, 3 reports, {n} begun" in row), default=BEGUN[0])
            by_n = [_number(row, f"unseen, 3 reports, {n} begun", "spearman") for n in BEGUN]
            axes[0][column].plot(BEGUN, by_n, "-o", **how)
            for line, (question, metric) in enumerate(
                (("unseen", "spearman"), ("begun", "spearman"), ("unseen", "pit")), start=1
            ):
                each = [_number(row, f"{question}, {context}, {most} begun", metric) for context in CONTEXTS]
                axes[line][column].plot(CONTEXTS, each, "-o", **how)
                axes[line][column].set(ylabel=metric, title=f"{source}: {question}, {most} begun")
        axes[0][column].set(
            xscale="log", ylabel="spearman", title=f"{source}: unseen, {list(FIXED)[1]}", xlabel="begun"
        )
        axes[0][column].set_xticks(BEGUN, [str(n) for n in BEGUN])
        axes[3][column].axhline(0.5, color="0.7", lw=1)
    axes[0][0].legend(fontsize=7)
    figure.suptitle(section)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)
    thin(path)


def _number(row: dict[str, Any], cell: str, metric: str) -> float:
    found = row.get(cell, {}).get(metric)
    return math.nan if found is None else float(found)
