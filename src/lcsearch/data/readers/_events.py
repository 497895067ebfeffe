"""TensorBoard's event files, decoded without TensorBoard.

A file is a row of records: length (uint64), masked CRC-32C of these eight bytes, payload, masked CRC-32C of the
payload, all little-endian (the TFRecord format). A payload is a protobuf Event; of it these fields are read:

    Event    1 wall_time (double)  2 step (int64)  5 summary      Summary      1 value (repeated)
    Value    1 tag  2 simple_value (float)  8 tensor              TensorProto  1 dtype  4 tensor_content
                                                                               5 float_val  6 double_val  13 half_val
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lcsearch.errors import EnvironmentProblem, FileProblem

LONGEST = 1 << 16  # bytes: a longer record holds a graph, an image or a histogram, and no scalar

_FLOAT, _DOUBLE, _HALF = 1, 2, 19
_CONTENT = {_FLOAT: "<f4", _DOUBLE: "<f8", _HALF: "<f2"}


class Scalar(NamedTuple):
    """One number of an event file.

    Attributes:
        wall: seconds since 1970.
        step: as the writer gave it.
        tag: name of the series.
        value: what was written.
    """

    wall: float
    step: int
    tag: str
    value: float


def scalars(path: Path) -> Iterator[Scalar]:
    """The scalars of one file, in the order they were written; first, with the tag "", when the file was begun.

    Raises:
        FileProblem: a damaged record.
        EnvironmentProblem: the file cannot be read.
    """
    begun = False
    for offset, payload in _records(path):
        try:
            found = list(_event(payload))
        except (IndexError, ValueError, struct.error) as error:
            raise FileProblem(f"{path}: expected a TensorBoard event at byte {offset}, got {error}.") from error
        if not begun and found:
            begun = True
            yield Scalar(found[0].wall, 0, "", np.nan)
        yield from (row for row in found if row.tag)


def _records(path: Path) -> Iterator[tuple[int, bytes]]:
    """(offset, payload) of every whole record that is not too long for a scalar."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EnvironmentProblem(f"{path}: expected to read it, got {error}.") from error
    at = 0
    while len(data) - at >= 12:
        (length,) = struct.unpack_from("<Q", data, at)
        if struct.unpack_from("<I", data, at + 8)[0] != masked_crc(data[at : at + 8]):
            raise FileProblem(f"{path}: expected an event record at byte {at}, got a wrong checksum of its length.")
        end = at + 12 + length
        if end + 4 > len(data):
            return
        if length <= LONGEST:
            payload = data[at + 12 : end]
            if struct.unpack_from("<I", data, end)[0] != masked_crc(payload):
                raise FileProblem(f"{path}: expected an event record at byte {at}, got a wrong checksum of its data.")
            yield at, payload
        at = end + 4


def _event(payload: bytes) -> Iterator[Scalar]:
    """The event's scalars; first one without a tag, for its time."""
    wall, step, summaries = 0.0, 0, []
    for number, kind, value in _fields(payload):
        if (number, kind) == (1, 1):
            wall = struct.unpack("<d", value)[0]
        elif (number, kind) == (2, 0):
            step = int.from_bytes(value, "little", signed=True)
        elif (number, kind) == (5, 2):
            summaries.append(value)
    yield Scalar(wall, step, "", np.nan)
    for summary in summaries:
        for number, kind, value in _fields(summary):
            if (number, kind) == (1, 2):
                tag, scalar = _value(value)
                if tag and scalar is not None:
                    yield Scalar(wall, step, tag, scalar)


def _value(message: bytes) -> tuple[str, float | None]:
    tag, found = "", None
    for number, kind, value in _fields(message):
        if (number, kind) == (1, 2):
            tag = value.decode()
        elif (number, kind) == (2, 5):
            found = float(struct.unpack("<f", value)[0])
        elif (number, kind) == (8, 2):
            found = _tensor(value)
    return tag, found


def _tensor(message: bytes) -> float | None:
    """The number in a tensor of one; None for any other."""
    dtype, held = 0, b""
    found: list[float] = []
    for number, kind, value in _fields(message):
        if (number, kind) == (1, 0):
            dtype = value[0]
        elif (number, kind) == (4, 2):
            held = value
        elif number == 5 and kind in (2, 5):
            found += np.frombuffer(value, "<f4").tolist()
        elif number == 6 and kind in (1, 2):
            found += np.frombuffer(value, "<f8").tolist()
        elif (number, kind) == (13, 2):  # packed varints, each the sixteen bits of a half
            found += [float(np.uint16(bits).view(np.float16)) for bits in _varints(value)]
    if held and dtype in _CONTENT:
        found = np.frombuffer(held, _CONTENT[dtype]).astype(np.float64).tolist()
    return float(found[0]) if len(found) == 1 else None


def _fields(message: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(field number, wire type, raw value) of a protobuf message; a varint as eight little-endian bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield number, kind, (value & (1 << 64) - 1).to_bytes(8, "little")
            continue
        if kind == 2:
            size, at = _varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(message):
            raise ValueError("a field that ends after its message")
        yield number, kind, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """(number, where it ends)."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than ten bytes")


def _varints(packed: bytes) -> Iterator[int]:
    at = 0
    while at < len(packed):
        value, at = _varint(packed, at)
        yield value & 0xFFFF


@cache
def _crc_table() -> tuple[int, ...]:
    """CRC-32C (Castagnoli), the reflected polynomial 0x82F63B78, byte by byte."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


def masked_crc(data: bytes) -> int:
    """CRC-32C, rotated right by 15 bits and moved by a constant, as TFRecord stores it."""
    table, crc = _crc_table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
