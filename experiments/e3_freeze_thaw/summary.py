"""Figures of the searches that are kept: results.json, results.md and the plot."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import provenance
from searches import PARTS, ROUNDED, RUNS, WORLDS, Piece, keep, tables

BUDGETS = (1, 2, 5, 10, 15, 20)
GRID = tuple(np.round(np.geomspace(0.2, RUNS, 25), 3).tolist())
BASE = "asha"
OURS = "asha, proposals"
"""What `pause: true` with `sampler: {kind: curve}` is."""
FLOOR = 1e-3
"""Regrets below this share of the way from the table's best run to its median one count as that much: a ratio of two
lucky searches is no figure."""
WORST = 0.95
"""The table's far end is this quantile of its runs: the worst may be anything (TaskSet's best value of one is 1e34)."""
DRAWS = 1000
CURRICULA = ("sec", "dump", "alp-gmm", "uncertain", "top-two", "mfpi", "pandora", "robust")
LEASHED = ("pandora", "robust")
"""The curriculum that `robust` follows, and itself: with the oracle's forecasts, proposals and wrong forecasts, too."""
SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of the trials whose forecast is wrong."""
FLIPPED = tuple(f"{name}, flipped {share:g}" for share in SHARES for name in (OURS, *LEASHED))
OWN = (
    *("asha", "going-rate", "going-rate, alone", "asha, proposals", "going-rate, proposals", "random, proposals"),
    *("going-rate, oracle", "going-rate, oracle, proposals", "run-to-end", "uniform", "one-epoch"),
    *("hyperband", "halving", "greedy"),
    *CURRICULA,
    *(f"{name}, {more}" for more in ("oracle", "proposals") for name in LEASHED),
    *FLIPPED,
)
PEERS = (
    *("Syne Tune ASHA, promotion", "Syne Tune ASHA, stopping", "Syne Tune PASHA", "Syne Tune SyncHyperband"),
    *("Syne Tune BOHB", "Syne Tune HyperTune", "Syne Tune MOBSTER", "Syne Tune DyHPO"),
    *("NePS ASHA", "NePS Hyperband", "NePS PriorBand"),
)
WHOSE = {
    "sec": "SEC, by rung",
    "dump": "DUMP, by rung",
    "alp-gmm": "ALP-GMM",
    "uncertain": "fund the uncertain",
    "top-two": "top-two Thompson",
    "mfpi": "MFPI-random",
    "pandora": "Pandora's index",
    "robust": "Pandora's index on a leash",
}
NAMES = {
    **{name: f"{text}, network" for name, text in WHOSE.items()},
    **{f"{name}, oracle": f"{WHOSE[name]}, oracle forecast" for name in LEASHED},
    **{f"{name}, proposals": f"{WHOSE[name]}, proposals by the network" for name in LEASHED},
    **{f"{n}, flipped {share:g}": f"{WHOSE[n]}, {share:.0%} of forecasts wrong" for n in LEASHED for share in SHARES},
    **{f"{OURS}, flipped {share:g}": f"ASHA promotion, proposals, {share:.0%} of forecasts wrong" for share in SHARES},
    "asha": "ASHA promotion",
    "going-rate": "going rate, network",
    "going-rate, alone": "going rate, network without begun trials as context (before e5b2ac7)",
    "asha, proposals": "ASHA promotion, proposals by the network",
    "going-rate, proposals": "going rate, proposals by the network",
    "random, proposals": "proposals by the network, run to end",
    "going-rate, oracle": "going rate, oracle forecast",
    "going-rate, oracle, proposals": "going rate, oracle forecast of begun trials, proposals by the network",
    "run-to-end": "random search, run to end",
    "uniform": "uniform, 40 configurations",
    "one-epoch": "one epoch, then the top K",
    "greedy": "greedy gain, network",
    "halving": "successive halving",
    "hyperband": "Hyperband, asynchronous",
    "Syne Tune DyHPO": "Syne Tune DyHPO (its scheduling, MOBSTER's GP)",
}

Rows = Sequence[Mapping[str, Any]]


def facts_of(root: Path) -> dict[str, dict[str, list[float]]]:
    """Source -> task -> [best, median, far end] of the table's runs, each by its best finite loss."""
    found: dict[str, dict[str, list[float]]] = {}
    for table in tables(root / "tables"):
        runs = np.min(np.where(np.isfinite(table.losses), table.losses, math.inf), axis=1)
        runs = runs[np.isfinite(runs)]
        three = [float(x) for x in (runs.min(), *np.quantile(runs, [0.5, WORST]))]
        found.setdefault(table.source, {})[table.name] = three
    return found


def regret_at(trace: Sequence[Sequence[float]], budgets: Sequence[float], facts: Sequence[float]) -> Any:
    """(B,) regrets, over the distance from the table's best run to its far end; 1 before the first value."""
    best, median, worst = facts
    costs, losses = np.array([cost for cost, _ in trace]), np.array([worst, *(loss for _, loss in trace)])
    at = losses[np.searchsorted(costs, np.array(budgets) * ROUNDED, side="right")]
    return np.clip((at - best) / (worst - best), FLOOR * (median - best) / (worst - best), 1.0)


def regrets(rows: Rows, budgets: Sequence[float], facts: Sequence[float]) -> dict[int, Any]:
    """Seed -> (B,) regrets."""
    return {row["seed"]: regret_at(row["trace"], budgets, facts) for row in rows}


class Pair(NamedTuple):
    """Regrets of a policy and of the base on one task, (seeds, B) each; paired: row by row in the same order."""

    mine: Any
    base: Any
    paired: bool


def pair_of(mine: dict[int, Any], base: dict[int, Any], paired: bool) -> Pair | None:
    """Of the seeds that both have, where a seed is the same order for both; else of all."""
    seeds = sorted(set(mine) & set(base))
    if not (seeds if paired else mine and base):
        return None
    a, b = (seeds, seeds) if paired else (sorted(mine), sorted(base))
    return Pair(np.array([mine[s] for s in a]), np.array([base[s] for s in b]), paired)


def log_ratios(pairs: Sequence[Pair]) -> Any:
    """(tasks, B) log of the ratio of mean regrets; seeds are averaged first."""
    return np.array([np.log(pair.mine.mean(0)) - np.log(pair.base.mean(0)) for pair in pairs])


def interval(pairs: Sequence[Pair]) -> list[float]:
    """95 % of the geometric mean over tasks and budgets: tasks are drawn first, then their seeds."""
    rng, found = np.random.default_rng(0), []
    for _ in range(DRAWS):
        drawn = []
        for i in rng.integers(len(pairs), size=len(pairs)):
            a, b, paired = pairs[i]
            seeds = rng.integers(len(a), size=len(a))
            drawn.append(Pair(a[seeds], b[seeds if paired else rng.integers(len(b), size=len(b))], paired))
        found.append(math.exp(float(log_ratios(drawn).mean())))
    return [float(q) for q in np.quantile(found, [0.025, 0.975])]


def against(ours: Piece, theirs: Piece, facts: Mapping[str, Sequence[float]]) -> dict[str, Any] | None:
    """Our regret over a peer's on the tasks of a source, and which share of the budget takes ours to where the peer
    ends; None for it where ours does not get there. Seeds are different orders. None where a task lacks.
    """
    if not all(piece.tasks.get(task) for piece in (ours, theirs) for task in facts):
        return None
    a, b = ([regrets(piece.tasks[task], BUDGETS, about) for task, about in facts.items()] for piece in (ours, theirs))
    pairs = [Pair(np.array(list(x.values())), np.array(list(y.values())), False) for x, y in zip(a, b, strict=True)]
    mine, end = level(ours, facts), level(theirs, facts)[-1]
    reached = np.flatnonzero(mine <= ROUNDED * end)
    return {
        "ratio": float(f"{math.exp(float(log_ratios(pairs).mean())):.4g}"),
        "interval": [float(f"{x:.4g}") for x in interval(pairs)],
        "seeds": [[min(map(len, some)), max(map(len, some))] for some in (a, b)],
        "reached": float(GRID[reached[0]] / RUNS) if reached.size else None,
    }


def level(piece: Piece, facts: Mapping[str, Sequence[float]]) -> Any:
    """(G,) geometric means over tasks of the regret on the grid, seeds averaged first."""
    of = [np.mean(list(regrets(piece.tasks[task], GRID, about).values()), axis=0) for task, about in facts.items()]
    return np.exp(np.mean(np.log(of), axis=0))


def figures(mine: Mapping[str, Piece], base: Mapping[str, Piece], facts: Any, paired: bool) -> dict[str, Any] | None:
    """One policy in one world: ratios to ASHA promotion's regret, and what it cost. None without a pair."""
    pairs: dict[str, list[Pair]] = {}
    count, curves, tasks, rows = {}, {}, {}, list[Mapping[str, Any]]()
    for source, piece in mine.items():
        of: dict[str, list[float]] = {}
        for task, searches in piece.tasks.items():
            about = facts[source].get(task)
            if about is None or source not in base:
                continue
            known = regrets(base[source].tasks.get(task, ()), BUDGETS, about)
            if (pair := pair_of(regrets(searches, BUDGETS, about), known, paired)) is not None:
                pairs.setdefault(source, []).append(pair)
                rows += searches
                of[task] = [
                    float(f"{x:.6g}") for x in np.mean(list(regrets(searches, BUDGETS, about).values()), axis=0)
                ]
        if of:
            n = [len(pair.mine) for pair in pairs[source]]
            count[source] = {"tasks": len(n), "of": len(facts[source]), "seeds": [min(n), max(n)]}
            if len(of) == len(facts[source]):
                tasks[source] = of
                curves[source] = [float(f"{x:.4g}") for x in level(piece, facts[source])]
    if not pairs:
        return None
    every = [pair for members in pairs.values() for pair in members]
    reports = sum(row["reports"] for row in rows)
    return {
        "count": count,
        "ratio": [float(f"{x:.4g}") for x in np.exp(log_ratios(every).mean(0))],
        "all": float(f"{math.exp(float(log_ratios(every).mean())):.4g}"),
        "interval": [float(f"{x:.4g}") for x in interval(every)],
        "sources": {s: float(f"{math.exp(float(log_ratios(p).mean())):.4g}") for s, p in pairs.items()},
        "begun": round(float(np.mean([row["begun"] for row in rows])), 1),
        "seconds": round(float(np.mean([row["seconds"] for row in rows])), 3),
        "ms_a_report": round(1e3 * sum(row["seconds"] for row in rows) / max(reports, 1), 3),
        **({"decision": decision} if (decision := decisions(rows)) else {}),
        "by": sorted({row["by"] for row in rows}),
        "curves": curves,
        "tasks": tasks,
    }


def decisions(rows: Rows) -> list[float]:
    """[p50, p99] of a decision's milliseconds, in the mean over the searches where they were taken; [] without any."""
    taken = [row["decision"] for row in rows if "decision" in row]
    return [float(f"{x:.3g}") for x in np.mean(taken, axis=0)] if taken else []


def n_searches(row: Mapping[str, Any]) -> dict[str, int]:
    """Source -> how many searches a row stands on, at most."""
    return {source: count["tasks"] * count["seeds"][1] for source, count in row["count"].items()}


def stays(old: Mapping[str, Any], new: Mapping[str, Any] | None) -> bool:
    """Does an earlier row, whose searches may be gone, tell of more than those that there are?"""
    have = {} if new is None else n_searches(new)
    return any(have.get(source, 0) < n for source, n in n_searches(old).items())


def collect(root: Path, before: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that is kept.

    Args:
        root: where pieces and tables lie.
        before: the results so far. Their rows stay where more searches were played for them than are kept singly.
    """
    facts, worlds, every = {**before.get("facts", {}), **facts_of(root)}, {}, {}
    for where in WORLDS:
        pieces = {name: {s: Piece(where, name, s, root) for s in facts} for name in (*OWN, *PEERS)}
        pieces = {name: {s: p for s, p in of.items() if p.tasks} for name, of in pieces.items()}
        every[where] = [piece for of in pieces.values() for piece in of.values()]
        made = {name: figures(of, pieces[BASE], facts, name in OWN) for name, of in pieces.items() if of}
        ours = pieces.get(OURS, {})
        for name in PEERS:
            found = {s: against(ours[s], p, facts[s]) for s, p in pieces.get(name, {}).items() if s in ours}
            if (row := made.get(name)) is not None and any(found.values()):
                row["ours"] = {source: one for source, one in found.items() if one is not None}
        for name, row in before.get("worlds", {}).get(str(where), {}).items():
            if stays(row, made.get(name)):
                made[name] = {"commit": before["commit"], **row}
        if rows := {name: row for name in (*OWN, *PEERS) if (row := made.get(name)) is not None}:
            worlds[str(where)] = rows
    keep(every, (*BUDGETS, *GRID))
    return {
        "command": "LCSEARCH_DATA=.../data python experiments/e3_freeze_thaw/run.py",
        "commit": provenance.commit("experiments/e3_freeze_thaw"),
        "budgets": BUDGETS,
        "grid": GRID,
        "facts": {s: {t: [float(f"{x:.6g}") for x in three] for t, three in of.items()} for s, of in facts.items()},
        "worlds": worlds,
    }


def world_title(name: str) -> str:
    workers, price = name.removeprefix("w").split("-p")
    paid = {"0": "checkpoints and resumes free", "1": "a checkpoint costs one report, a resume another"}[price]
    return f"{workers} {'worker' if workers == '1' else 'workers'}, {paid}"


def line(name: str, row: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """One row of a table."""
    seeds = {tuple(c["seeds"]) for c in row["count"].values()}
    low, high = min(a for a, _ in seeds), max(b for _, b in seeds)
    tasks = sum(c["tasks"] for c in row["count"].values())
    n_all = sum(len(of) for of in facts.values())
    searched = f"{tasks}{'' if tasks == n_all else f' of {n_all}'} x {low if low == high else f'{low}-{high}'}"
    ratio = " | ".join(f"{x:.2f}" for x in row["ratio"])
    sources = " | ".join(f"{row['sources'][s]:.2f}" if s in row["sources"] else "-" for s in facts)
    overall = f"**{row['all']:.2f}** [{row['interval'][0]:.2f}, {row['interval'][1]:.2f}]"
    cost = f"{row['begun']:.0f} | {row['seconds']:.2g} | {row['ms_a_report']:.2g} | "
    cost += " / ".join(f"{ms:.2g}" for ms in row["decision"]) if "decision" in row else "-"
    earlier = f", at {row['commit'][:8]}" if "commit" in row else ""
    return f"| {NAMES.get(name, name)}{earlier} | {searched} | {ratio} | {overall} | {sources} | {cost} |"


def by_task(rows: Mapping[str, Any], source: str, tasks: Sequence[str]) -> dict[str, Any]:
    """Policy -> (tasks, B) regrets, of those that were played on every task of a source and are told no lies or truths
    about how runs end.
    """
    found = {}
    for name, row in rows.items():
        of = row.get("tasks", {}).get(source, {})
        if set(of) == set(tasks) and name not in FLIPPED and "oracle" not in name:
            found[name] = np.array([of[task] for task in tasks])
    return found


def mean_ranks(of: Mapping[str, Any]) -> dict[str, Any]:
    """Policy -> (B,) its place among all, 1 is the best, equal ones share the middle; mean over tasks."""
    every = np.array(list(of.values()))  # (policies, tasks, B)
    below, equal = (every[None] < every[:, None]).sum(1), (every[None] == every[:, None]).sum(1)
    return dict(zip(of, (below + (equal + 1) / 2).mean(1), strict=True))


def rank_lines(rows: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """Markdown: mean ranks, and ours beside each peer."""
    told = [BUDGETS.index(b) for b in (2, 5, 10, 20)]
    fields = {source: by_task(rows, source, list(of)) for source, of in facts.items()}
    ranks = {source: mean_ranks(field) for source, field in fields.items() if field}
    if not ranks:
        return []
    lines = [
        "",
        f"Mean rank over tasks after {' / '.join(str(BUDGETS[i]) for i in told)} whole runs' worth, of so many:",
        "",
    ]
    lines += [
        "| policy | " + " | ".join(f"{s} ({len(of)})" for s, of in ranks.items()) + " |",
        "|---" * (len(ranks) + 1) + "|",
    ]
    for name in (*OWN, *PEERS):
        cells = [" / ".join(f"{of[name][i]:.1f}" for i in told) if name in of else "-" for of in ranks.values()]
        if set(cells) - {"-"}:
            lines.append(f"| {NAMES.get(name, name)} | {' | '.join(cells)} |")
    lines += [
        "",
        f"{NAMES[OURS]}: its regret over a peer's, all budgets, with a bootstrap interval, seeds of both (few",
        "tell little), and the share of the budget after which it stands where the peer ends:",
        "",
    ]
    lines += ["| peer | " + " | ".join(facts) + " |", "|---" * (len(facts) + 1) + "|"]
    for name in PEERS:
        if ours := rows.get(name, {}).get("ours", {}):
            lines.append(f"| {NAMES.get(name, name)} | {' | '.join(beside(ours.get(s)) for s in facts)} |")
    return lines


def beside(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    n = " and ".join(str(low) if low == high else f"{low}-{high}" for low, high in found["seeds"])
    reached = "not reached" if found["reached"] is None else f"{found['reached']:.2f}"
    return f"{found['ratio']:.2f} [{found['interval'][0]:.2f}, {found['interval'][1]:.2f}], {n}, {reached}"


def table(results: Mapping[str, Any]) -> str:
    """Markdown, a table for each world."""
    facts = results["facts"]
    lines = [f"`{results['command']}` at {results['commit'][:8]}. Read README.md first.", ""]
    lines += [
        f"Regret over that of {NAMES[BASE]}, geometric mean over tasks at each budget (in whole runs' worth), lower is",
        "better; then over all budgets, with a paired bootstrap interval (tasks first, then seeds), and by source.",
        "Searched: tasks x seeds; a row with a commit was played there, and its searches are not kept singly. Begun:",
        "configurations. Seconds: of processor time for a whole search, forecasts or surrogates and the walk through",
        "the table included; ms: the same for each report; p50 / p99: ms of an allocation, its forecasts included,",
        "where they were taken.",
    ]
    head = f"| policy | searched | {' | '.join(map(str, results['budgets']))} | all | {' | '.join(facts)} "
    head += "| begun | s | ms | p50 / p99 |"
    for where in map(str, WORLDS):
        rows = results["worlds"].get(where, {})
        lines += ["", f"## {world_title(where)}", ""]
        if rows:
            lines += [head, "|---" * head.count(" |") + "|"]
            lines += [line(name, row, facts) for name, row in rows.items()]
        if where == str(WORLDS[0]) and rows:
            lines += rank_lines(rows, facts)
        missing = [NAMES.get(name, name) for name in (*OWN, *PEERS) if name not in rows and name not in FLIPPED]
        if missing:
            lines += ["", f"Not run here: {'; '.join(missing)}."]
    return "\n".join(lines) + "\n"


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Regret over budget, one worker, free checkpoints: policies that were played on every task of a source."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows, facts = results["worlds"].get(str(WORLDS[0]), {}), results["facts"]
    figure, axes = plt.subplots(1, max(len(facts), 1), figsize=(15, 5), squeeze=False, layout="constrained")
    colors = [plt.get_cmap("tab20")(i) for i in range(20)]
    for ax, source in zip(axes[0], facts, strict=False):
        for i, name in enumerate((*OWN, *PEERS)):
            if source in rows.get(name, {}).get("curves", {}):
                wide = 2.4 if name in (BASE, OURS) else 1.0
                style = "--" if name in PEERS else "-"
                label = NAMES.get(name, name)
                color = colors[i % len(colors)]
                ax.plot(results["grid"], rows[name]["curves"][source], style, lw=wide, color=color, label=label)
        ax.set(xscale="log", yscale="log", title=source, xlabel="whole runs' worth spent", ylabel="normalised regret")
    if axes[0][0].get_legend_handles_labels()[0]:
        axes[0][0].legend(fontsize=7)
    figure.savefig(path, dpi=60)
    plt.close(figure)


def draw_profiles(results: Mapping[str, Any], path: Path) -> None:
    """Performance profiles (Dolan and More 2002), one worker, free checkpoints: the share of tasks and budgets at which
    a policy's regret is at most so many times that of the best one there.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows, facts = results["worlds"].get(str(WORLDS[0]), {}), results["facts"]
    figure, axes = plt.subplots(1, max(len(facts), 1), figsize=(15, 5), squeeze=False, layout="constrained")
    names, colors = [*OWN, *PEERS], plt.get_cmap("tab20")
    times = np.geomspace(1.0, 100.0, 60)
    for ax, source in zip(axes[0], facts, strict=False):
        of = by_task(rows, source, list(facts[source]))
        best = np.min(list(of.values()), axis=0) if of else 1.0
        for name, mine in of.items():
            share = (mine.ravel()[:, None] <= ROUNDED * times * np.ravel(best)[:, None]).mean(0)
            style, wide = "--" if name in PEERS else "-", 2.4 if name in (BASE, OURS) else 1.0
            color = colors(names.index(name) % 20)
            ax.plot(times, share, style, lw=wide, color=color, label=NAMES.get(name, name))
        ax.set(xscale="log", title=source, xlabel="times the best regret", ylabel="share of tasks and budgets")
        if of:
            ax.legend(fontsize=6)
    figure.savefig(path, dpi=60)
    plt.close(figure)


def write(root: Path = PARTS, out: Path = PARTS.parent) -> None:
    """Collect what is kept, or read the results that are there; write table and plot."""
    kept = out / "results.json"
    results = json.loads(kept.read_text()) if kept.exists() else {}
    if root.is_dir():
        results = json.loads(json.dumps(collect(root, results)))
        kept.write_text(json.dumps(results, separators=(",", ":")).replace('"w', '\n"w') + "\n")
    if not results:
        raise SystemExit("nothing was run and nothing is stored: set LCSEARCH_DATA or --data")
    (out / "results.md").write_text(table(results))
    draw(results, out / "regret.png")
    draw_profiles(results, out / "profiles.png")
