"""The header of a safetensors file. It is not trusted: it may be damaged, or made to do harm.

A file is 8 bytes with the length of its header (little-endian), the header (JSON, padded with spaces to whole 8 bytes) and
the bytes of the arrays, little-endian and without gaps: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import math
import os
import stat
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from streamtrain.model.room import Room, parsed_bytes, stored_bytes
from streamtrain.model.stored import parse_json, shown_error, shown_value

__all__ = ["DTYPES", "MAX_HEADER_BYTES", "METADATA", "Entry", "TensorFileError", "read_header", "shown"]

DTYPES = {
    "U64": "<u8", "I64": "<i8", "F64": "<f8", "F32": "<f4", "U32": "<u4", "I32": "<i4", "F16": "<f2", "U16": "<u2",
    "I16": "<i2", "I8": "<i1", "U8": "<u1", "BOOL": "<b1",
}  # fmt: skip
"""The types of the format that are written and read here, and numpy's names of them."""
METADATA = "__metadata__"
MAX_HEADER_BYTES = 100_000_000  # the format's limit
_TEXT_COPIES = 3  # of a header that are in memory at the same time, whatever it says
_MAX_ARRAYS, _LEAST_BYTES = 10_000, 8  # so many arrays of any size, and one more for each so many bytes
_MAX_AXES, _MAX_SIZE = 64, 1 << 63  # numpy's limits


class TensorFileError(ValueError):
    """A file that is damaged or not of this format. The caller adds the file name."""


class Entry(NamedTuple):
    """An array as the header describes it. start, stop: its bytes, counted from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_header(
    file: BufferedReader | BufferedRandom, room: Room | None = None
) -> tuple[bytes, dict[str, str], list[Entry]]:
    """Read a file up to its arrays: these bytes, the metadata, and the arrays in the order of the file.

    room: bounds the header before it is read, and again before it is parsed; None for a file that was just written.
    The arrays cover the rest of the file exactly. Raises TensorFileError for everything else; RunError and BudgetRefused as
    `Room` does; OSError as the file system does.
    """
    status, path = os.fstat(file.fileno()), Path(file.name)
    if not stat.S_ISREG(status.st_mode):
        raise TensorFileError("is not a file")
    file_bytes = status.st_size
    length = int.from_bytes(head := file.read(8), "little")
    if len(head) < 8 or length > min(file_bytes - 8, MAX_HEADER_BYTES):
        raise TensorFileError(
            f"is cut off or no safetensors file: it claims a header of {length:,} bytes and has {file_bytes:,} in all"
        )
    array_bytes = file_bytes - 8 - length
    beside_bytes = stored_bytes(status, array_bytes)
    if room is not None:
        room.require_text(path, _TEXT_COPIES * length, beside_bytes)
    head += file.read(length)
    if room is not None:
        room.require_text(path, parsed_bytes(head), beside_bytes)
        if (count := head.count(b'"data_offsets"')) > _MAX_ARRAYS + beside_bytes // _LEAST_BYTES:
            raise TensorFileError(f"claims {count:,} arrays in {beside_bytes:,} bytes")
    try:
        metadata, entries = _parse(head[8:])
    except ValueError as error:
        raise TensorFileError(f"its header is damaged or wrong: {shown_error(error)}") from error
    declared = entries[-1].stop if entries else 0
    if array_bytes < declared:
        raise TensorFileError(f"is cut off: {array_bytes:,} bytes of arrays, its header declares {declared:,}")
    if array_bytes > declared:
        raise TensorFileError(f"has {array_bytes - declared:,} bytes at its end that belong to no array")
    return head, metadata, entries


def shown(name: str) -> str:
    """A name as messages show it: quoted, printable and not long."""
    return shown_value(name)


def _parse(text: bytes) -> tuple[dict[str, str], list[Entry]]:
    """Metadata, and arrays in the order of the file. Raises ValueError for anything not of the format."""
    if not text.startswith(b"{"):
        raise ValueError("it does not begin with a {")
    header = parse_json(text.decode())
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are not all text")
    for string in (*header, *metadata, *metadata.values()):
        string.encode()  # JSON can escape half a character, which cannot be written again
    entries = sorted((_entry(name, value) for name, value in header.items()), key=lambda entry: entry[3:])
    for entry, end in zip(entries, [0, *(entry.stop for entry in entries)], strict=False):
        if entry.start != end:
            raise ValueError(f"array {shown(entry.name)} begins at byte {entry.start:,} instead of {end:,}")
    return metadata, entries


def _entry(name: str, value: Any) -> Entry:
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"array {shown(name)} must have dtype, shape and data_offsets, and nothing else")
    kind, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(kind, str) or kind not in DTYPES:
        raise ValueError(f"array {shown(name)} is of type {shown(str(kind))}, which is not supported")
    if not (isinstance(shape, list) and isinstance(offsets, list) and len(shape) <= _MAX_AXES and len(offsets) == 2):
        raise ValueError(f"array {shown(name)} has an impossible shape or data_offsets")
    if not all(type(n) is int and 0 <= n < _MAX_SIZE for n in shape + offsets):  # True is no size
        raise ValueError(f"array {shown(name)} has a shape or data_offsets that are not sizes")
    extent = math.prod(n or 1 for n in shape) * np.dtype(DTYPES[kind]).itemsize  # numpy limits it, of empty arrays too
    if extent >= _MAX_SIZE or offsets[1] - offsets[0] != (0 if 0 in shape else extent):
        raise ValueError(f"array {shown(name)} does not have as many bytes as its shape needs")
    return Entry(name, DTYPES[kind], tuple(shape), offsets[0], offsets[1])
