"""The training loop: AdamW with warm-up and a cosine, averaged weights, checkpoints that lose nothing.

A step is a function of the state before it and of (seed, step): a run that was killed and resumed ends in the same
bits as one that was not, on one machine with the same number of threads.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lcsearch.errors import EnvironmentProblem, InvalidValue, LcsearchError
from lcsearch.forecast.network.studies import Studies
from lcsearch.pretrain import checkpoint
from lcsearch.pretrain.batches import Source, feed
from lcsearch.pretrain.folder import LOG, held, move_aside, reopen
from lcsearch.pretrain.log import Log
from lcsearch.pretrain.randomness import generator_of, seed_of
from lcsearch.pretrain.recipe import Recipe, SizeSpec

Objective = Callable[[nn.Module, Studies, torch.Generator], tuple[Tensor, dict[str, float]]]
"""(network, studies on the network's device, a generator on it) -> (loss, figures for the log)."""

PATIENCE = 20
"""Steps with a non-finite loss in a row after which training is given up."""

SMOOTH = 0.98
"""Decay of the smoothed figures."""

_NOT_FAR = "a run of this recipe that had not come to a checkpoint"


class Diverged(LcsearchError):
    """The loss stayed non-finite: the recipe (learning rate, precision) or the objective is wrong."""


class View(Protocol):
    """Shows how training goes."""

    def begin(self, recipe: Recipe, step: int, parameters: int, device: str) -> None:
        """Training begins, or goes on after `step` steps."""
        ...

    def step(self, step: int, loss: float, smooth: Mapping[str, float]) -> None:
        """A step was done."""
        ...

    def tell(self, text: str) -> None:
        """Something a person should know."""
        ...

    def end(self) -> None:
        """Close."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What became of a piece of training.

    Attributes:
        step: steps done.
        done: all of them.
        interrupted: somebody asked to end (Ctrl-C, SIGTERM).
        weights: averaged weights, float32 on the CPU.
        scores: of the last evaluation.
        smooth: smoothed figures of the last step.
        skipped: steps whose loss was not finite.
        seconds: of all pieces together.
    """

    step: int
    done: bool
    interrupted: bool
    weights: dict[str, Tensor]
    scores: dict[str, float]
    smooth: dict[str, float]
    skipped: int
    seconds: float


@dataclass
class _State:
    """What changes from step to step; all of it stands in a checkpoint."""

    network: nn.Module
    average: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    step: int = 0
    smooth: dict[str, float] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    skipped: int = 0
    in_a_row: int = 0
    seconds: float = 0.0

    def save(self, folder: Path, recipe: Recipe) -> None:
        tensors = {f"model.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"average.{name}": tensor for name, tensor in self.average.items()}
        tensors |= checkpoint.adam_tensors(self.network, self.optimizer)
        record = {name: getattr(self, name) for name in _PLAIN}
        about = {"recipe": recipe.meaning(), "digest": recipe.digest, "torch": torch.__version__}
        checkpoint.save(folder, tensors, {**record, **about})

    def restore(self, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        self.network.load_state_dict(_below("model.", tensors))
        for name, tensor in _below("average.", tensors).items():
            self.average[name].copy_(tensor)
        checkpoint.restore_adam(self.network, self.optimizer, tensors)
        for name in _PLAIN:
            setattr(self, name, record[name])


_PLAIN = ("step", "smooth", "scores", "skipped", "in_a_row", "seconds")


def train(
    recipe: Recipe,
    folder: Path,
    *,
    make_network: Callable[[SizeSpec], nn.Module],
    objective: Objective,
    source: Source,
    view: View,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    start: Mapping[str, Tensor] | None = None,
    minutes: float | None = None,
    fresh: bool = False,
) -> Outcome:
    """Train, or go on with what lies in `folder`.

    Args:
        evaluate: figures of the network with the averaged weights, in evaluation mode; called on the device.
        start: weights of a network of this size to begin with; what they do not name stays random.
        minutes: end after that time, with a checkpoint.
        fresh: start over; what lies in the folder is kept aside.

    Raises:
        FileProblem: the folder belongs to another recipe, or its checkpoint cannot be read.
        EnvironmentProblem: no such device, a folder that cannot be written or is in use.
        Diverged: the loss was not finite for `PATIENCE` steps in a row.
    """
    device = device_of(recipe)
    if fresh and (kept := move_aside(folder)) is not None:
        view.tell(f"the earlier run was kept as {kept}")
    cuda = [device] if device.type == "cuda" else []
    with held(folder), _threads(recipe.threads), torch.random.fork_rng(cuda), _stoppable() as asked:
        torch.manual_seed(seed_of(recipe.seed, 0, "network"))
        network = make_network(recipe.size)
        found, logged = reopen(folder, recipe), (folder / LOG).exists()
        if start is not None and found is None:
            _take_over(network, start, view)
        state = _begin(recipe, network.to(device))
        if found is not None:
            state.restore(*found)
        else:
            state.save(folder, recipe)  # a kill before the next one leaves what tells which recipe this was
        if state.step == 0 and (found is not None or logged):
            what = "a log without a checkpoint" if found is None else _NOT_FAR
            view.tell(f"{folder}: found {what}; starting from step 0")
        view.begin(recipe, state.step, sum(p.numel() for p in state.network.parameters()), str(device))
        try:
            _run(recipe, folder, state, objective, source, view, evaluate, minutes, asked)
        finally:
            view.end()
        weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.average.items()}
        done = state.step >= recipe.steps
        return Outcome(
            state.step, done, asked.is_set(), weights, state.scores, state.smooth, state.skipped, state.seconds
        )


def _take_over(network: nn.Module, start: Mapping[str, Tensor], view: View) -> None:
    """Weights of a network of the same size; what has been built into it since begins at random, and that is told.

    Raises:
        InvalidValue: one that the network does not have, or has in another shape.
    """
    ours = network.state_dict()
    for name, tensor in start.items():
        if name not in ours or ours[name].shape != tensor.shape:
            shape = f"a weight of shape {tuple(ours[name].shape)}" if name in ours else f"one of {', '.join(ours)}"
            got = tuple(tensor.shape) if name in ours else name
            raise InvalidValue(shape, got, f"start: {name}", "train anew: the network has changed since")
    network.load_state_dict(dict(start), strict=False)
    if new := sorted(set(ours) - set(start)):
        view.tell(f"start: {len(new)} weights are not in it and begin at random ({', '.join(new[:4])})")


def _begin(recipe: Recipe, network: nn.Module) -> _State:
    trained = [p for p in network.parameters() if p.requires_grad]
    matrices, others = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}] if matrices else []
    groups += [{"params": others, "weight_decay": 0.0}] if others else []
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    average = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    return _State(network, average, optimizer)


def _run(
    recipe: Recipe,
    folder: Path,
    state: _State,
    objective: Objective,
    source: Source,
    view: View,
    evaluate: Callable[[nn.Module], dict[str, float]] | None,
    minutes: float | None,
    asked: threading.Event,
) -> None:
    log, before, begun = Log(folder / LOG), state.seconds, time.monotonic()
    saved, saved_step, device = begun, state.step, next(state.network.parameters()).device
    batches = feed(
        source, seed=recipe.seed, n=recipe.batch, first=state.step + 1, last=recipe.steps, workers=recipe.workers
    )
    with batches as studies:
        while state.step < recipe.steps and not asked.is_set():
            loss = _step(recipe, state, objective, next(studies).to(device))
            now = time.monotonic()
            state.seconds = before + now - begun
            if state.step % recipe.log_every == 0 or not math.isfinite(loss):
                figures = {"loss": loss, "lr": rate_at(recipe, state.step), **_prefixed("smooth.", state.smooth)}
                log.write("step", state.step, figures)
            if state.in_a_row:
                view.tell(f"step {state.step}: loss {loss}: skipped ({state.skipped} so far)")
            view.step(state.step, loss, state.smooth)
            last = state.step == recipe.steps
            if evaluate is not None and (last or state.step % (recipe.evaluate_every or recipe.steps) == 0):
                state.scores = _evaluated(state, evaluate)
                log.write("scores", state.step, state.scores)
                view.tell(f"step {state.step}: {shown(state.scores)}")
            if state.in_a_row >= PATIENCE:
                text = f"{recipe.name}: expected a finite loss, got {PATIENCE} steps in a row without one (the last"
                advice = "Lower learning_rate, or start from an earlier state with --fresh"
                raise Diverged(f"{text} is step {state.step}). {advice}.")
            if now - saved >= recipe.checkpoint_seconds:
                state.save(folder, recipe)
                saved, saved_step = time.monotonic(), state.step
            if minutes is not None and now - begun >= 60 * minutes:
                break
    if state.step != saved_step:
        state.save(folder, recipe)


def _step(recipe: Recipe, state: _State, objective: Objective, studies: Studies) -> float:
    """One optimizer step, or none where the loss or its gradient is not finite. Returns the loss."""
    step = state.step + 1
    torch.manual_seed(seed_of(recipe.seed, step, "network"))  # dropout and the like
    network = state.network
    network.train()
    state.optimizer.zero_grad(set_to_none=True)
    with autocast(recipe, studies.loss.device):
        chance = generator_of(recipe.seed, step, "objective", studies.loss.device)
        loss, figures = objective(network, studies, chance)
    value = float(loss.detach())
    good = math.isfinite(value)
    if good:
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        good = bool(torch.isfinite(nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)))
    state.step = step
    if not good:
        state.skipped += 1
        state.in_a_row += 1
        return value if not math.isfinite(value) else math.nan  # a gradient beyond all numbers
    state.in_a_row = 0
    for group in state.optimizer.param_groups:
        group["lr"] = rate_at(recipe, step)
    state.optimizer.step()
    _average(state, recipe.ema)
    for name, figure in {"loss": value, **figures}.items():
        if math.isfinite(figure):
            state.smooth[name] = SMOOTH * state.smooth.get(name, figure) + (1 - SMOOTH) * figure
    return value


@torch.no_grad()
def _average(state: _State, decay: float) -> None:
    """Exponential average; at first over fewer steps, so that the random start is soon forgotten."""
    weight = 1 - min(decay, (1 + state.step) / (10 + state.step))
    for name, tensor in state.network.state_dict().items():
        if tensor.is_floating_point():
            state.average[name].lerp_(tensor, weight)
        else:
            state.average[name].copy_(tensor)


def rate_at(recipe: Recipe, step: int) -> float:
    """Learning rate of a step (from 1): up in a line, then down a cosine that would reach zero after the last."""
    warm = math.ceil(recipe.warmup * recipe.steps)
    if step <= warm:
        return recipe.learning_rate * step / warm
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - 1 - warm) / max(recipe.steps - warm, 1)))


def _evaluated(state: _State, evaluate: Callable[[nn.Module], dict[str, float]]) -> dict[str, float]:
    kept = {name: tensor.clone() for name, tensor in state.network.state_dict().items()}
    state.network.load_state_dict(state.average)
    state.network.eval()
    try:
        with torch.no_grad():
            return evaluate(state.network)
    finally:
        state.network.load_state_dict(kept)


def device_of(recipe: Recipe) -> torch.device:
    """Where the recipe trains on this machine.

    Raises:
        EnvironmentProblem: it asks for a GPU, and there is none.
    """
    there = torch.cuda.is_available()
    if recipe.device == "cuda" and not there:
        text = f"{recipe.name}: device: expected a CUDA device, got a machine without one that torch can use."
        raise EnvironmentProblem(f"{text} Set `device: auto`, or install a torch for the GPU.")
    return torch.device("cuda" if there and recipe.device != "cpu" else "cpu")


def autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 where recipe and device have it; a CPU without the instructions emulates it, at a loss."""
    has = torch.cuda.is_bf16_supported if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported  # noqa: SLF001
    if recipe.precision == "bfloat16" and has():
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def shown(figures: Mapping[str, float]) -> str:
    """ "loss 0.1234, auc 0.9"."""
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _prefixed(prefix: str, figures: Mapping[str, float]) -> dict[str, float]:
    return {prefix + name: value for name, value in figures.items()}


@contextmanager
def _threads(n: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """Set when somebody asks to end: the step under way is finished, and everything saved. Asked twice, it ends so."""
    asked, before = threading.Event(), {}

    def ask(number: int, _frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
