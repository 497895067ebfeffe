"""Nested state <-> one safetensors file, without any pickle.

Tensors lie in it under running numbers, arrays (in NumPy's own format) and bytes beside them; the nesting and the plain
values stand as JSON in the file's metadata, together with what the caller says about them.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lcsearch.errors import FileProblem, InvalidValue
from lcsearch.files import loads

FORMAT = 2  # 1 knew tensors and plain values only

_TAKEN = "tensors, arrays, bytes, numbers, text, None, and dicts, lists and tuples of these"
_ADVICE = (
    "save what it can be made from again (its state_dict(), coefficients or raw bytes), "
    "or write it to a file: with saving(step) as folder"
)
_NAMED = 'put it into one, under a name of its own: {"state": ...}'


def to_bytes(state: Any, about: Mapping[str, Any]) -> bytes:
    """The file's content.

    Args:
        state: a mapping, which is packed.
        about: plain values that go with it.

    Raises:
        InvalidValue: something in `state` is not taken; says what and where.
    """
    if not isinstance(state, Mapping):
        what = 'a dict of what is to be kept, as in {"weights": weights}'
        raise InvalidValue(what, type(state).__name__, "save(state=)", _ADVICE if _refused(state) else _NAMED)
    tensors: dict[str, Any] = {}
    blobs: dict[str, bytes] = {}
    try:
        tree = _take_apart(state, tensors, blobs, "state")
        metadata = {"lcsearch": json.dumps({**about, "version": FORMAT, "tree": tree, "blobs": list(blobs)})}
    except RecursionError:
        raise InvalidValue(_TAKEN, "one nested too deep, perhaps in itself", "state", _ADVICE) from None
    if not tensors:  # torch stays out of programs that do without
        from safetensors.numpy import save as of_arrays

        return of_arrays({name: np.frombuffer(blob, np.uint8) for name, blob in blobs.items()}, metadata)
    import torch
    from safetensors.torch import save as of_tensors

    for name, blob in blobs.items():
        tensors[name] = torch.from_numpy(np.frombuffer(bytearray(blob), np.uint8))
    try:
        return of_tensors(tensors, metadata)
    except KeyError as error:  # the dtype
        raise InvalidValue(
            "tensors of a type that safetensors has", str(error.args[0]), "state", "convert it"
        ) from error


def from_file(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(state, about) of a file that is there.

    Raises:
        FileProblem: it is none of ours.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np") as file:
            about = _header(path, file.metadata())
            blobs = {name: file.get_tensor(name).tobytes() for name in about.get("blobs", ())}
            names = set(file.keys()) - set(blobs)
        return _put_together(about["tree"], _tensors(path, names), blobs), about
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise FileProblem(f"{path}: expected a checkpoint, got {error}. Delete it to start over.") from error


def _refused(value: Any) -> bool:
    """Would it not be taken within a dict, either?"""
    try:
        _take_apart(value, {}, {}, "state")
    except (InvalidValue, RecursionError):
        return True
    return False


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= sys.maxsize


_KEYS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "step": ("a whole number >= 0", _is_count),
    "tree": ("a dict's nesting", lambda tree: isinstance(tree, dict) and list(tree) == ["dict"]),
    "blobs": ("a list of names", lambda blobs: isinstance(blobs, list) and all(isinstance(b, str) for b in blobs)),
}
"""What a header must hold; `blobs` is missing in the first format."""


def _header(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """What the header says, every key that is read of the kind it must be."""
    about = loads((metadata or {}).get("lcsearch", "null"))
    if not isinstance(about, dict) or not _is_count(about.get("version")):
        raise FileProblem(f"{path}: expected a checkpoint that lcsearch wrote, got none. Delete it to start over.")
    if about["version"] > FORMAT:
        text = f"{path}: expected a checkpoint of format {FORMAT} or earlier, got {about['version']}."
        raise FileProblem(f"{text} Update lcsearch.")
    for key, (kind, fine) in _KEYS.items():
        if not fine(about.get(key, [] if key == "blobs" else None)):
            got = f"{about[key]!r:.40}" if key in about else "none"
            raise FileProblem(f"{path}: expected {kind} as the header's {key}, got {got}. Delete it to start over.")
    return about


def _take_apart(value: Any, tensors: dict[str, Any], blobs: dict[str, bytes], where: str) -> Any:
    if isinstance(value, Mapping):
        # pairs, not a JSON object: optimizers key their state by whole numbers
        for key in value:
            if not (key is None or isinstance(key, (bool, int, float, str))):
                raise InvalidValue("keys that are plain values", key, where, "turn them into text")
        return {"dict": [[k, _take_apart(v, tensors, blobs, f"{where}.{k}")] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_take_apart(v, tensors, blobs, f"{where}[{i}]") for i, v in enumerate(value)]}
    name = str(len(tensors) + len(blobs))
    if isinstance(value, (bytes, bytearray, memoryview)):
        blobs[name] = bytes(value)
        return {"bytearray" if isinstance(value, bytearray) else "bytes": name}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"plain": value}
    if isinstance(value, (np.ndarray, np.generic)):
        blobs[name] = _array_to_bytes(value, where)
        return {"array" if isinstance(value, np.ndarray) else "scalar": name}
    torch = sys.modules.get("torch")  # where it is not loaded, there are no tensors
    if torch is not None and isinstance(value, torch.Tensor):
        tensors[name] = _plain_tensor(value, where)
        return {"tensor": name}
    advice = "make it an array: np.asarray(...)" if hasattr(value, "__array__") else _ADVICE
    raise InvalidValue(_TAKEN, type(value).__name__, where, advice)


def _array_to_bytes(value: Any, where: str) -> bytes:
    array = np.asarray(value)
    if array.dtype.hasobject or isinstance(value, np.ma.MaskedArray):
        got = "a masked array" if isinstance(value, np.ma.MaskedArray) else "an array of Python objects"
        raise InvalidValue("arrays of numbers, text or bytes", got, where, _ADVICE)
    if not _is_described(array.dtype):
        advice = "convert it: array.astype(np.float32)"
        raise InvalidValue("arrays of a type that NumPy itself writes", str(array.dtype), where, advice)
    out = io.BytesIO()
    np.lib.format.write_array(out, array, allow_pickle=False)
    return out.getvalue()


def _is_described(dtype: Any) -> bool:
    """Does a type come back from NumPy's format as it was? JAX's bfloat16 would come back as mere bytes."""
    try:
        return bool(np.lib.format.descr_to_dtype(np.lib.format.dtype_to_descr(dtype)) == dtype)
    except (TypeError, ValueError):
        return False


def _plain_tensor(value: Any, where: str) -> Any:
    try:
        # a clone: safetensors refuses tensors that share memory, and views would drag their base along
        return value.detach().to("cpu").contiguous().clone()
    except (RuntimeError, NotImplementedError) as error:
        got = str(error).splitlines()[0]
        raise InvalidValue("dense tensors", got, where, "save what it consists of") from error


def _tensors(path: Path, names: set[str]) -> dict[str, Any]:
    if not names:
        return {}
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        return {name: file.get_tensor(name) for name in names}


def _put_together(node: Any, tensors: Mapping[str, Any], blobs: Mapping[str, bytes]) -> Any:
    ((kind, body),) = node.items()
    match kind:
        case "tensor":
            return tensors[body]
        case "dict":
            return {key: _put_together(value, tensors, blobs) for key, value in body}
        case "list":
            return [_put_together(value, tensors, blobs) for value in body]
        case "tuple":
            return tuple(_put_together(value, tensors, blobs) for value in body)
        case "bytes":
            return blobs[body]
        case "bytearray":
            return bytearray(blobs[body])
        case "array" | "scalar":
            array = np.lib.format.read_array(io.BytesIO(blobs[body]), allow_pickle=False)
            return array if kind == "array" else array[()]
        case _:
            return body
