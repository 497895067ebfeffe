"""Multilayer perceptrons on scikit-learn's bundled digits: 1797 images of 8 x 8 pixels, ten classes.

The data set is small enough to ship with a library and would be learned in a second; every epoch therefore sees
each image several times, shifted, turned and noised anew, which is real training (the loss keeps falling for all of
40 epochs) at about a fifth of a second an epoch on one core.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F

from lcsearch.sweep import Context

SPLIT_SEED = 0  # the split is part of the task, not of the luck of a trial
COPIES = 2  # augmented copies of every image in an epoch
SAVE_EVERY = 5  # epochs between checkpoints


@cache
def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images (1257, 1, 8, 8) and labels, held-out images (540, 1, 8, 8) and labels; pixels in [-1, 1]."""
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images, labels, test_size=0.3, stratify=labels, random_state=SPLIT_SEED)
    x, x_held, y, y_held = (torch.as_tensor(part) for part in parts)
    shape = (-1, 1, 8, 8)
    return (x.float() / 8 - 1).reshape(shape), y, (x_held.float() / 8 - 1).reshape(shape), y_held


def augment(images: Tensor, rng: torch.Generator) -> Tensor:
    """Each image turned by up to 20 degrees, scaled by up to 15 %, shifted by up to a pixel, and noised."""
    n, device = len(images), images.device
    most = torch.tensor(
        [math.radians(20), 0.15, 0.25, 0.25], device=device
    )  # the picture is two units wide: 0.25 is one pixel
    angle, zoom, right, down = most[:, None] * (2 * torch.rand(4, n, generator=rng, device=device) - 1)
    cos, sin = (1 + zoom) * angle.cos(), (1 + zoom) * angle.sin()
    turn = torch.stack([cos, -sin, right, sin, cos, down], 1).reshape(n, 2, 3)
    grid = F.affine_grid(turn, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return moved + 0.2 * torch.randn(images.shape, generator=rng, device=device)


def network(width: int, depth: int, dropout: float) -> nn.Sequential:
    """`depth` hidden layers of `width`; no normalization, so that a learning rate can really be too large."""
    layers: list[nn.Module] = [nn.Flatten()]
    size = 64
    for _ in range(depth):
        layers += [nn.Linear(size, width), nn.ReLU(), nn.Dropout(dropout)]
        size = width
    layers.append(nn.Linear(size, 10))
    for layer in layers:
        if isinstance(layer, nn.Linear):  # He's start: torch's own is too timid for four layers of plain SGD
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def train(ctx: Context) -> None:
    """Train one configuration; reports the held-out cross-entropy after every epoch, 1 to `max_steps`."""
    p, schedule = ctx.params, ctx.schedule
    assert schedule is not None  # digits.yaml plans one
    x, y, x_held, y_held = (part.to(ctx.device) for part in data())
    torch.manual_seed(ctx.seed)
    model = network(p["width"], p["depth"], p["dropout"]).to(ctx.device)
    momentum = p["momentum"]
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=0.0,
        momentum=momentum,
        weight_decay=p["weight_decay"],
        nesterov=momentum > 0,  # torch refuses Nesterov's without any
    )
    first = 1
    if (saved := ctx.load()) is not None:
        model.load_state_dict(saved.state["model"])
        optimizer.load_state_dict(saved.state["optimizer"])
        first = saved.step + 1
    batch = p["batch_size"]
    for epoch in range(first, ctx.max_steps + 1):
        # all randomness of an epoch follows from (seed, epoch): a resumed trial goes on along the same curve
        torch.manual_seed(ctx.seed + epoch)
        rng = torch.Generator(ctx.device).manual_seed(ctx.seed + epoch)
        model.train()
        order = torch.randperm(len(x) * COPIES, generator=rng, device=ctx.device) % len(x)
        images, labels = augment(x[order], rng), y[order]
        for start in range(0, len(order), batch):
            # the schedule counts epochs; inside an epoch it is followed in fractions
            rate = schedule(epoch - 1 + min(1.0, (start + batch) / len(order)))
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = F.cross_entropy(
                model(images[start : start + batch]),
                labels[start : start + batch],
                label_smoothing=p["label_smoothing"],
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
        model.eval()
        with torch.no_grad():
            held = F.cross_entropy(model(x_held), y_held).item()
        ctx.report(held, epoch)
        if ctx.checkpoint_due or epoch % SAVE_EVERY == 0:
            ctx.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, epoch)
