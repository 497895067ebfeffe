"""Table and plot of results.json."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pieces import REFERENCES
from questions import CUTS, GROUP, KINDS
from scipy.stats import rankdata
from scores import CAP, WINDOW, paired

COMMAND = "LCSEARCH_DATA=.../data python experiments/e1_forecast/run.py"
HEAD = f"""\
`{COMMAND}`. What the figures mean: `run.py`, `scores.py`; of every row its command and commit:
`results.json`. Figures are of the answers given, the share of absent ones stands beside. Bounds: one-sided
95 %, the larger of a bootstrap over tasks and Clopper-Pearson's. Value: in the task's range (see `Unit`),
clipped to {CAP:g} ranges on either side; density over a window of {WINDOW:g} ranges. ms: CPU time of one
forecast, asked {GROUP} at once. `-recal`: P(beat) by logistic regression fitted on half a of the other source
(`calibration.py`); of values such a row has nothing of its own to say. lc-pfn-recipe: LC-PFN's prior and tokens at a
small size (d 128, 4 layers, 192 000 curves, 10 CPU-minutes; the published one: d 512, 12 layers, 10 M curves). wide:
the same network on 119 000 single curves of our prior, 5 CPU-minutes. network@synthetic: `cpu_synthetic.yaml`, then
3600 steps of `cpu_synthetic_on.yaml`; no real curve was seen. mcmc is slow: it and others beside it are asked about
fewer curves, in sections of their own.
"""


def show(x: float | None, digits: int = 3) -> str:
    """A number, or a dash."""
    return "-" if x is None or not math.isfinite(x) else f"{x:.{digits}f}"


def table(results: dict[str, Any]) -> str:
    """Markdown: five tables a section and source."""
    lines = HEAD.splitlines()
    for section, content in results["sections"].items():
        for source, found in content["sources"].items():
            if found["forecasters"]:
                lines += _source_tables(section, source, found)
    return "\n".join(lines) + "\n"


def _source_tables(section: str, source: str, found: dict[str, Any]) -> Iterator[str]:
    rows, cuts = found["forecasters"], [f"{cut:.0%}" for cut in CUTS]
    heads = [cut.replace("%", " %") for cut in cuts]
    yield from ("", f"## {section}: {source} ({len(found['tasks'])} tasks)", "")
    yield f"P(beats the best of ten): log-loss / ECE / AUC / Brier ({found_beaten(rows)})"
    for kind in KINDS:
        yield from ("", f"| {kind} | {' | '.join(heads)} | absent | ms |", "|---" * (len(cuts) + 3) + "|")
        for label, row in rows.items():
            cells = []
            for cut in cuts:
                x = row["kinds"][kind][cut]
                cells.append("/".join(show(x[name]) for name in ("log_loss", "ece", "auc", "brier")))
            absent = row["kinds"][kind]["all"]["absent"]
            yield f"| {label} | {' | '.join(cells)} | {show(absent)} | {row['ms_a_forecast']:.2f} |"
    yield from ("", "Observed beat rate among low P (bound), share of the questions that are so")
    for level in next(iter(rows.values()))["kinds"]["value"]["all"]["low"]:
        for kind in KINDS:
            yield from ("", f"| {kind}, P < {level} | {' | '.join(heads)} | all |", "|---" * (len(cuts) + 2) + "|")
            for label, row in rows.items():
                cells = [_low(row["kinds"][kind][cut], level) for cut in (*cuts, "all")]
                yield f"| {label} | {' | '.join(cells)} |"
    yield from ("", "Final value, at each cut: CRPS; mean and median log-likelihood; MSE of the median; coverage")
    columns = [
        *(f"CRPS {head}" for head in heads),
        *(f"LL {head}" for head in heads),
        *(f"MSE {head}" for head in heads),
        *(f"50/80/95 % at {head}" for head in heads),
        "rank",
    ]
    yield from ("", f"| value | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|")
    valued = [label for label, row in rows.items() if row["kinds"]["value"][cuts[0]]["value"]["crps"] is not None]
    ranks = average_ranks({label: rows[label] for label in valued}, cuts)
    for label in valued:
        at = [rows[label]["kinds"]["value"][cut]["value"] for cut in cuts]
        cells = [show(x["crps"], 4) for x in at]
        cells += [f"{show(x['ll_mean'], 2)} / {show(x['ll_median'], 2)}" for x in at]
        cells += [show(x["mse"], 4) for x in at]
        cells += ["/".join(show(share, 2) for share in x["coverage"].values()) for x in at]
        yield f"| {label} | {' | '.join(cells)} | {show(ranks[label], 2)} |"
    yield from ("", "rank: by mean log-likelihood, averaged over (task, cut-off); 1 is best.")
    yield from (
        "",
        "Paired differences over tasks, +- standard error: log-loss of P(beat), an absent answer being 1/11",
    )
    yield from ("", f"| first - second | {' | '.join(f'{k} {h}' for k in KINDS for h in heads)} |")
    yield "|---" * (len(KINDS) * len(heads) + 1) + "|"
    for first, second in pairs(list(rows)):
        a, b = rows[first]["kinds"], rows[second]["kinds"]
        yield _gaps(first, second, [[x[k][cut]["by_task"]["log_loss"] for x in (a, b)] for k in KINDS for cut in cuts])
    yield from ("", "The same of the final value: CRPS (below 0, the first is better), mean log-likelihood (above 0)")
    yield from ("", f"| first - second | {' | '.join(f'{name} {h}' for name in ('CRPS', 'LL') for h in heads)} |")
    yield "|---" * (2 * len(heads) + 1) + "|"
    for first, second in pairs(valued):
        value = [[rows[x]["kinds"]["value"][cut]["value"]["by_task"] for x in (first, second)] for cut in cuts]
        yield _gaps(first, second, [[x[name] for x in both] for name in ("crps", "ll_mean") for both in value])


def _gaps(first: str, second: str, columns: Sequence[Sequence[Sequence[float | None]]]) -> str:
    gaps = [paired(a, b) for a, b in columns]
    return f"| {first} - {second} | {' | '.join(f'{show(m)} +- {show(e)}' if n else '-' for m, e, n in gaps)} |"


def found_beaten(rows: dict[str, Any]) -> str:
    """How many questions, and how often the answer is yes."""
    one = next(iter(rows.values()))["kinds"]
    shares = ", ".join(f"{kind} {show(one[kind][f'{CUTS[0]:.0%}']['beaten'])}" for kind in KINDS)
    return f"{one['value'][f'{CUTS[0]:.0%}']['n']} curves, beaten: {shares}"


def _low(x: dict[str, Any], level: str) -> str:
    low = x["low"][level]
    return f"{show(low['rate'], 4)} ({show(low['upper'], 4)}), {low['n'] / x['n']:.2f}"


def pairs(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Every forecaster against the references, and against the first network."""
    against = [*(name for name in REFERENCES if name in labels), *[x for x in labels if x.startswith("network")][:1]]
    found = [(label, other) for other in against for label in labels if label != other]
    return [pair for i, pair in enumerate(found) if pair[::-1] not in found[:i]]


def average_ranks(rows: dict[str, Any], cuts: Sequence[str]) -> dict[str, float]:
    """By mean log-likelihood of the final value, over (task, cut-off); no answer is the last."""
    each = [
        [x for cut in cuts for x in row["kinds"]["value"][cut]["value"]["by_task"]["ll_mean"]] for row in rows.values()
    ]
    scores = np.array([[-math.inf if x is None else x for x in row] for row in each])
    return dict(zip(rows, rankdata(-scores, axis=0).mean(1).tolist(), strict=True))


def draw(results: dict[str, Any], path: Path) -> None:
    """Of the first section: reliability of P(beat) for both kinds, all cuts together, and log-loss per cut-off."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    section, content = next(iter(results["sections"].items()))
    sources = {name: found["forecasters"] for name, found in content["sources"].items() if found["forecasters"]}
    figure, axes = plt.subplots(max(len(sources), 1), 4, figsize=(17, 4 * max(len(sources), 1)), squeeze=False)
    for line, (source, rows) in enumerate(sources.items()):
        for column, kind in enumerate(KINDS):
            ax, loss = axes[line][column], axes[line][column + 2]
            ax.plot([0, 1], [0, 1], color="0.7", lw=1)
            for shade, (label, row) in enumerate(rows.items()):
                how = {"ms": 3, "lw": 1, "color": f"C{shade}" if shade < 10 else plt.get_cmap("Dark2")(shade - 10)}
                count, p, won = np.array(row["kinds"][kind]["all"]["bins"]).T
                there = count >= 10  # a handful says nothing
                ax.plot(p[there] / count[there], won[there] / count[there], "-o", label=label, **how)
                at = [row["kinds"][kind][f"{cut:.0%}"]["log_loss"] for cut in CUTS]
                loss.plot([100 * cut for cut in CUTS], [math.nan if x is None else x for x in at], "-o", **how)
            ax.set(xlabel="P(beat)", ylabel="observed", title=f"{source}, {kind}")
            loss.set(xlabel="cut-off, % of the run", ylabel="log-loss", title=f"{source}, {kind}", yscale="log")
        axes[line][0].legend(fontsize=7)
    figure.suptitle(section)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)
    thin(path)


def thin(path: Path) -> None:
    """Write a plot's file anew, with a palette: of lines on white it shows the same in a third of the bytes."""
    from PIL import Image

    with Image.open(path) as drawn:
        few = drawn.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
