"""Train the small networks of `peers.py`, then fit what recalibrates their P(beat) on half a of the real tasks.

    LCSEARCH_DATA=.../data python experiments/e1_forecast/train_peers.py       # what is not there yet, into peers/
    python experiments/e1_forecast/train_peers.py --only wide --steps 200      # a try

The same seed gives the same weights on the same machine: minutes each on one core.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks" / "peers"))  # for mcmc

import numpy as np
import torch
from calibration import FEATURES, Calibration, features, fit
from entrants import RECALIBRATED, WEIGHTS, PolicySpec, entrant
from peer_data import Batch, Source, lc_pfn, wide
from peers import SingleCurve, Size
from questions import KINDS, SOURCES, RealCurves, asked, curves_of
from torch.nn import functional as F

from lcsearch.curves import Floats
from lcsearch.forecast.contract import Kind
from lcsearch.pretrain.randomness import generator_of
from lcsearch.weights import store as weights

BORDERS = 64
"""Batches that the borders of the bins are drawn from."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: AdamW, 5 % of the steps to warm up, then a cosine."""

    source: Source
    size: Size
    steps: int
    batch: int
    rate: float = 1e-3
    decay: float = 0.01
    seed: int = 0


RECIPES = {
    "lc-pfn-recipe": Recipe(lc_pfn, Size(times=1, values=1, kinds=1, bins=1000), steps=3000, batch=64),
    "wide": Recipe(wide, Size(times=3, values=2, kinds=2, bins=128), steps=1400, batch=64),
}


def prepared(recipe: Recipe) -> SingleCurve:
    """An untrained network with its bins of equal mass; equal borders (atoms of the prior) become one."""
    drawn = [recipe.source(256, generator_of(recipe.seed, i, "borders")).target for i in range(BORDERS)]
    target = torch.cat([one.flatten() for one in drawn]).double()
    levels = torch.arange(1, recipe.size.bins, dtype=torch.float64) / recipe.size.bins
    ordered = target.sort().values
    borders = torch.from_numpy(np.unique(ordered[(levels * len(ordered)).long()].float().numpy()))
    torch.manual_seed(recipe.seed)
    network = SingleCurve(Size(**{**vars(recipe.size), "bins": len(borders) + 1}))
    network.borders.copy_(borders)
    first, last = borders[0].double(), borders[-1].double()
    network.tails.copy_(torch.stack([(first - target[target < first]).mean(), (target[target > last] - last).mean()]))
    return network


def objective(network: SingleCurve, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy of the bins."""
    logits = network(batch.times, batch.values, batch.seen, batch.asked, batch.kind)
    return F.cross_entropy(logits.float().flatten(0, 1), torch.bucketize(batch.target, network.borders).flatten())


def train(recipe: Recipe, say: Callable[[str], None]) -> tuple[SingleCurve, int]:
    """The network, and how many curves it saw."""
    network, curves = prepared(recipe), 0
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    smooth, begun = math.nan, time.monotonic()
    for step in range(recipe.steps):
        warm, share = 0.05 * recipe.steps, step / recipe.steps
        rate = recipe.rate * min((step + 1) / warm, 0.5 * (1.0 + math.cos(math.pi * share)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = recipe.source(recipe.batch, generator_of(recipe.seed, step, "data"))
        with torch.autocast("cpu", torch.bfloat16):
            loss = objective(network, batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        curves += len(batch.target)
        smooth = loss.item() if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss.item()
        if step % 20 == 0:
            left = (time.monotonic() - begun) / (step + 1) * (recipe.steps - step - 1)
            say(f"step {step}/{recipe.steps}, loss {smooth:.4f}, {left:.0f} s left")
    return network, curves


def rows_of(who: PolicySpec, kind: Kind, tasks: Sequence[RealCurves], curves: int) -> tuple[Floats, Floats]:
    """(N, 5) FEATURES of all questions that were answered, and what came of them (N,)."""
    x, won = [], []
    for task in tasks:
        for one in asked(task, kind, curves):
            said = who.method.forecast(one.snapshot, one.queries)
            p = who.p_beat(task.source, one.snapshot, one.queries, said, one.target)
            known = ~np.isnan(p)
            x.append(features(one.snapshot, one.queries, p)[known])
            won.append((one.answers < one.target)[known].astype(np.float64))
    return np.concatenate(x), np.concatenate(won)


def calibrate(data: Path, curves: int, out: Path, labels: Sequence[str]) -> None:
    """Fit these rows of RECALIBRATED on half a of each source: on the same protocol as half b is scored by."""
    tasks = {source: curves_of(source, data, "a")[0] for source in SOURCES}
    if not all(tasks.values()):
        raise SystemExit(f"expected {' and '.join(SOURCES)} in {data}")
    for method in dict.fromkeys(RECALIBRATED[label][0] for label in labels):
        who = entrant(method)
        rows = {s: {str(kind): rows_of(who, kind, tasks[s], curves) for kind in KINDS} for s in SOURCES}
        for label in labels:
            of, names = RECALIBRATED[label]
            if of == method:
                use = [FEATURES.index(name) for name in names]
                fitted = {s: {k: fit(x[:, use], won) for k, (x, won) in kinds.items()} for s, kinds in rows.items()}
                Calibration(names, fitted).write(out / f"{label}.json")
                print(f"{label}: {', '.join(names)}: {json.dumps(fitted)}", flush=True)


def main() -> None:
    """Train, then fit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LCSEARCH_DATA"))
    parser.add_argument("--only", nargs="+", default=[*RECIPES, *RECALIBRATED], help="networks and recalibrated rows")
    parser.add_argument("--steps", type=int, help="in place of the recipe's")
    parser.add_argument("--curves", type=int, default=300, help="curves a task to recalibrate on")
    args = parser.parse_args()
    WEIGHTS.mkdir(exist_ok=True)
    torch.set_num_threads(1)

    def progress(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    for name, recipe in RECIPES.items():
        path = WEIGHTS / f"{name}.safetensors"
        if name in args.only and (args.steps or not path.exists()):
            recipe = replace(recipe, steps=args.steps or recipe.steps)
            start = time.process_time()
            network, curves = train(recipe, progress)
            progress("")
            about = {"size": network.describe(), "recipe": name, "seed": recipe.seed, "step": recipe.steps}
            digest = weights.save(path, network.state_dict(), **about, storage="float32")  # type: ignore[arg-type]  # values of several types
            seconds = time.process_time() - start
            print(f"{name}: {recipe.steps} steps, {curves} curves, {seconds:.0f} CPU s, {digest[:12]}", flush=True)
    wanted = [label for label in RECALIBRATED if label in args.only]
    if wanted:
        calibrate(Path(args.data or ""), args.curves, WEIGHTS, wanted)


if __name__ == "__main__":
    main()
