"""Small convolutional networks on scikit-learn's digits: the images and the augmentation of digits.py beside this file.

An epoch sees every image once, newly augmented, at about a tenth of a second on one core.
"""

from __future__ import annotations

import torch
from digits import augment, data
from torch import nn
from torch.nn import functional as F

from lcsearch.sweep import Context

SAVE_EVERY = 5  # epochs between checkpoints


def network(channels: int, blocks: int, norm: str, dropout: float) -> nn.Sequential:
    """`blocks` times convolution, normalization if asked for, ReLU, pooling; then one linear layer."""
    layers: list[nn.Module] = []
    size, side = 1, 8
    for block in range(blocks):
        width = channels * 2**block
        layers.append(nn.Conv2d(size, width, 3, padding=1))
        if norm == "batch":
            layers.append(nn.BatchNorm2d(width))
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        size, side = width, side // 2
    layers += [nn.Flatten(), nn.Dropout(dropout), nn.Linear(size * side**2, 10)]
    return nn.Sequential(*layers)


def train(ctx: Context) -> None:
    """Train one configuration; reports the held-out cross-entropy after every epoch, 1 to `max_steps`."""
    p, schedule = ctx.params, ctx.schedule
    assert schedule is not None  # digits_cnn.yaml plans one
    x, y, x_held, y_held = (part.to(ctx.device) for part in data())
    torch.manual_seed(ctx.seed)
    model = network(p["channels"], p["blocks"], p["norm"], p["dropout"]).to(ctx.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=p["momentum"], weight_decay=p["weight_decay"])
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
        order = torch.randperm(len(x), generator=rng, device=ctx.device)
        images, labels = augment(x[order], rng), y[order]
        for start in range(0, len(order), batch):
            # the schedule counts epochs; inside an epoch it is followed in fractions
            rate = schedule(epoch - 1 + min(1.0, (start + batch) / len(order)))
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = F.cross_entropy(model(images[start : start + batch]), labels[start : start + batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
        model.eval()
        with torch.no_grad():
            held = F.cross_entropy(model(x_held), y_held).item()
        ctx.report(held, epoch)
        if ctx.checkpoint_due or epoch % SAVE_EVERY == 0:
            ctx.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, epoch)
