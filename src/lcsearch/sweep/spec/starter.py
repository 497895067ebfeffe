"""`lcsearch init`: a sweep file whose comments are the documentation, and an objective that runs as it is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from lcsearch.errors import EnvironmentProblem, FileProblem

_SWEEP = """\
# A sweep:  lcsearch run {file}      (check it first: lcsearch validate {file})
version: 1
name: "{name}"
objective: {{python: "{module}:train"}}   # function `train` of {module}.py, beside this file
# objective: {{command: "python train.py --lr={{lr}}"}}   # or a program that prints lines like: epoch=3 loss=0.52
#   # of its own kind: {{command: ..., pattern: 'it (?P<step>\\d+) err (?P<value>\\S+)'}}
metric: loss
goal: minimize              # or maximize
judged: best                # a trial is worth its best value; `final`: its last one
step: epoch                 # what one report counts
max_steps: 30               # a trial's full length

space:                      # what is searched; one key names the distribution
  lr: {{loguniform: [1e-4, 1.0]}}
  momentum: {{uniform: [0.0, 0.95]}}
  features: {{logint: [8, 64]}}
  shape: {{choice: [constant, cosine]}}
  nesterov: {{choice: [true, false], when: {{shape: cosine}}}}   # only trials where that holds have it
  batch_size: 64            # a single value is a constant
  # layers: {{int: [1, 4]}}
  # dropout: {{uniform: [0, 0.5], step: 0.1}}

schedule: {{shape: {{param: shape}}, peak: {{param: lr}}}}   # the planned learning rate: `ctx.schedule(epoch)`

backend:
  kind: optuna              # worker processes of this machine; `ray`: a Ray cluster
  workers: {{n: 2, threads: 1, devices: [cpu]}}   # devices are dealt out in turn: [cuda:0, cuda:1]
  # storage: postgresql://user@host/db   # a database; without it a file in the run folder

sampler: {{kind: tpe}}        # or random, or curve: what is forecast to gain most
pruner:
  kind: curve               # or none, median, hyperband
  threshold: 0.05           # stops a trial when P(it beats the best so far) stays below
  # risk: 0.1               # and no more once the chance that some stop lost the winner would pass this
budget: {{trials: 20}}        # also: steps, seconds, money_per_hour, money, stop_when
retries: 2                  # a trial may lose its worker this often
seed: 0
"""

_OBJECTIVE = '''\
"""What {name} trains: a small network on handwritten digits. Put your own training here."""

import torch
from sklearn.datasets import load_digits


def train(ctx):
    torch.manual_seed(ctx.seed)
    p = ctx.params
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    model = torch.nn.Sequential(torch.nn.Linear(64, p["features"]), torch.nn.Tanh(), torch.nn.Linear(p["features"], 10))
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=p["lr"],
        momentum=p["momentum"],
        nesterov=p.get("nesterov", False) and p["momentum"] > 0,  # a trial has it only where its `when` holds
    )
    start, saved = 1, ctx.load()  # what an earlier process of this trial saved, if one did
    if saved is not None:
        model.load_state_dict(saved.state["model"])
        optimizer.load_state_dict(saved.state["optimizer"])
        start = saved.step + 1
    for epoch in range(start, ctx.max_steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = max(ctx.schedule(epoch), 1e-8)
        for batch in torch.randperm(1400).split(p["batch_size"]):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            loss = torch.nn.functional.cross_entropy(model(x[1400:]), y[1400:]).item()
        ctx.report(loss, epoch)  # a trial without a chance ends here
        ctx.save({{"model": model.state_dict(), "optimizer": optimizer.state_dict()}}, epoch)
'''


def write(file: Path) -> list[Path]:
    """Write a sweep file at `file` and its objective beside it; returns both paths.

    Raises:
        FileProblem: one of them is there already, or the name is none for a sweep.
        EnvironmentProblem: the folder cannot be written.
    """
    if file.suffix not in (".yaml", ".yml"):
        raise FileProblem(f"{file}: expected a name that ends in .yaml, got {file.name!r}.")
    if not str(file).isprintable():
        raise FileProblem(f"{str(file)!r}: expected a name that can be printed on one line.")
    module = re.sub(r"^(?=\d)", "_", re.sub(r"[^A-Za-z0-9_]", "_", file.stem)) + "_objective"
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", file.stem).lstrip("._-") or "sweep"
    objective = file.with_name(f"{module}.py")
    for path in (file, objective):
        if path.exists():
            raise FileProblem(f"{path}: expected no such file, got one. Choose another name: lcsearch init NAME.yaml")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        objective.write_text(_OBJECTIVE.format(name=name), encoding="utf-8")
        file.write_text(_SWEEP.format(file=shlex.quote(str(file)), name=name, module=module), encoding="utf-8")
    except OSError as error:
        raise EnvironmentProblem(f"{file}: expected a folder that can be written, got {error}.") from error
    return [file, objective]
