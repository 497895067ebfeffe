"""Character-level transformers on the text of the installed Python's standard library.

Nothing is downloaded: the first characters of every public module train the model, or measure it. Another Python
version is another text, so losses compare within one installation.
"""

from __future__ import annotations

import sys
import sysconfig
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lcsearch.sweep import Context

CONTEXT = 64  # characters the model sees
FROM_EACH = 12_000  # bytes of a module: about 1.2 MB in all
HELD_EVERY = 12  # every so many modules, one is held out
CHARACTERS = 24_576  # of training between two evaluations
HELD_WINDOWS = 256  # evaluated, spread evenly over the held-out modules
VOCABULARY = 96  # printable ASCII, newline, and one for whatever else there is
SAVE_EVERY = 5  # evaluations between checkpoints


@cache
def text() -> tuple[Tensor, Tensor]:
    """Characters (as numbers below VOCABULARY) to train on, and held-out windows (HELD_WINDOWS, CONTEXT + 1)."""
    folder = Path(sysconfig.get_path("stdlib"))
    names = sorted(name for name in sys.stdlib_module_names if not name.startswith("_"))
    modules = [path.read_bytes()[:FROM_EACH] for name in names if (path := folder / f"{name}.py").is_file()]
    held = numbers(b"".join(modules[::HELD_EVERY]))
    train = numbers(b"".join(module for k, module in enumerate(modules) if k % HELD_EVERY))
    return train, windows(held, torch.linspace(0, len(held) - CONTEXT - 1, HELD_WINDOWS).long())


def numbers(characters: bytes) -> Tensor:
    """Printable ASCII as 0 to 94, everything else but the newline as a newline's 95."""
    values = torch.frombuffer(bytearray(characters), dtype=torch.uint8).long()
    return torch.where((values >= 32) & (values < 127), values - 32, 95)


def windows(characters: Tensor, starts: Tensor) -> Tensor:
    """CONTEXT + 1 characters from each start: what is seen, and what is to be foretold, one further on."""
    return characters[starts[:, None] + torch.arange(CONTEXT + 1, device=characters.device)]


class Block(nn.Module):
    """Causal attention and a two-layer perceptron, each normalized before and added to what came in."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, CONTEXT, width) to the same."""
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.mixed(self.before(x)).chunk(3, 2)
        )
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.drop(self.out(seen.transpose(1, 2).flatten(2)))
        more: Tensor = self.drop(self.perceptron(self.between(x)))
        return x + more


class Transformer(nn.Module):
    """Learned places, `layers` blocks, logits of the next character at every place."""

    def __init__(self, width: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.characters, self.places = nn.Embedding(VOCABULARY, width), nn.Embedding(CONTEXT, width)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(layers)))
        self.norm, self.logits = nn.LayerNorm(width), nn.Linear(width, VOCABULARY)

    def forward(self, seen: Tensor) -> Tensor:
        """(batch, CONTEXT) characters to (batch, CONTEXT, VOCABULARY)."""
        x = self.characters(seen) + self.places.weight
        logits: Tensor = self.logits(self.norm(self.blocks(x)))
        return logits


def loss_of(model: Transformer, batch: Tensor) -> Tensor:
    """Nats per character."""
    return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


def train(ctx: Context) -> None:
    """Train one configuration; reports the held-out loss after every CHARACTERS, 1 to `max_steps` times."""
    p, schedule = ctx.params, ctx.schedule
    assert schedule is not None  # char_lm.yaml plans one
    characters, held = (part.to(ctx.device) for part in text())
    torch.manual_seed(ctx.seed)
    model = Transformer(p["width"], p["layers"], p["heads"], p["dropout"]).to(ctx.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=p["weight_decay"])
    first = 1
    if (saved := ctx.load()) is not None:
        model.load_state_dict(saved.state["model"])
        optimizer.load_state_dict(saved.state["optimizer"])
        first = saved.step + 1
    updates = max(1, CHARACTERS // (CONTEXT * p["batch_size"]))
    for step in range(first, ctx.max_steps + 1):
        # all randomness up to the next evaluation follows from (seed, step): a resumed trial goes on along its curve
        torch.manual_seed(ctx.seed + step)
        rng = torch.Generator(ctx.device).manual_seed(ctx.seed + step)
        model.train()
        for update in range(updates):
            # the schedule counts evaluations; between two it is followed in fractions
            for group in optimizer.param_groups:
                group["lr"] = schedule(step - 1 + (update + 1) / updates)
            starts = torch.randint(len(characters) - CONTEXT, (p["batch_size"],), generator=rng, device=ctx.device)
            loss = loss_of(model, windows(characters, starts))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
        model.eval()
        with torch.no_grad():
            ctx.report(loss_of(model, held).item(), step)
        if ctx.checkpoint_due or step % SAVE_EVERY == 0:
            ctx.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, step)
