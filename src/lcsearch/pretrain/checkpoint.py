"""Checkpoints of a pretraining run: one safetensors file, replaced atomically; no pickle.

Tensors: `model.*`, `average.*` (the averaged weights) and `adam.<field>.*`. Everything else stands as JSON in the
file's metadata, so that a kill leaves the old checkpoint or the new one, never half of each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lcsearch.errors import FileProblem
from lcsearch.files import loads, write_atomically

FILE = "checkpoint.safetensors"
FORMAT = 1


_NUMBER: tuple[str, tuple[type, ...]] = ("a whole number", (int,))
_TABLE: tuple[str, tuple[type, ...]] = ("a mapping", (dict,))
_KEYS = {"digest": ("text", (str,)), "recipe": _TABLE, "step": _NUMBER, "smooth": _TABLE, "scores": _TABLE} | {
    **{"skipped": _NUMBER, "in_a_row": _NUMBER, "seconds": ("a number", (int, float))}
}
"""What the header of a checkpoint must hold."""


def save(folder: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Keep `tensors` and `record` (plain values) as the checkpoint of `folder`."""
    from safetensors.torch import save as to_bytes

    # Copies: safetensors takes no two tensors that share their memory, as tied weights do.
    cpu = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    metadata = {"lcsearch": json.dumps({"format": FORMAT, **record})}
    for left in folder.glob(f".{FILE}.*.tmp"):  # by a run that was killed over it; this one holds the folder
        left.unlink(missing_ok=True)
    write_atomically(folder / FILE, to_bytes(cpu, metadata))


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """(tensors, record) of the checkpoint of `folder`; None when there is none yet.

    Raises:
        FileProblem: there is a file, but it is none of ours, or it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    path = folder / FILE
    if not path.exists():
        return None
    content = path.read_bytes()
    try:
        length = int.from_bytes(content[:8], "little")
        record = loads(loads(content[8 : 8 + length])["__metadata__"]["lcsearch"])
        tensors = from_bytes(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        text = f"{path}: expected a checkpoint, got a file that cannot be read ({_first_line(error)})."
        raise FileProblem(f"{text} Start over with --fresh.") from error
    if not isinstance(record, dict):
        raise FileProblem(f"{path}: expected a checkpoint's header, got {record!r:.40}. Start over with --fresh.")
    if record.get("format") != FORMAT:
        text = f"{path}: expected a checkpoint of format {FORMAT}, got format {record.get('format')}."
        raise FileProblem(f"{text} Go on with the lcsearch that wrote it, or start over with --fresh.")
    for key, (kind, types) in _KEYS.items():
        if not isinstance(record.get(key), types) or isinstance(record[key], bool):
            got = f"{record[key]!r:.40}" if key in record else "none"
            raise FileProblem(f"{path}: expected {kind} as the header's {key}, got {got}. Start over with --fresh.")
    return tensors, record


def adam_tensors(network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as `adam.<field>.<parameter>`."""
    found = {}
    for name, parameter in network.named_parameters():
        for field, value in optimizer.state.get(parameter, {}).items():
            found[f"adam.{field}.{name}"] = torch.as_tensor(value)
    return found


def restore_adam(network: torch.nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put what :func:`adam_tensors` found back."""
    parameters = dict(network.named_parameters())
    for key, tensor in tensors.items():
        if key.startswith("adam."):
            _, field, name = key.split(".", 2)
            parameter = parameters[name]
            # AdamW keeps its count of steps on the CPU, the moments beside the parameter.
            kept = tensor.clone() if field == "step" else tensor.to(parameter.device)
            optimizer.state[parameter][field] = kept


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0].rstrip(".")
