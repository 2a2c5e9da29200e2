"""Errors for missing and damaged chunk files. They name the array and the file, and say what to do."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from streamtrain.errors import CorruptError
from streamtrain.storage.zarr.columns import StoredArray
from streamtrain.storage.zarr.files import Files
from streamtrain.storage.zarr.shards import ShardIndexes

__all__ = ["broken", "check_blosc", "check_files", "chunk_files"]


def check_files(
    files: Files, array: Any, stored: StoredArray, shards: ShardIndexes | None, start: int, stop: int, *, fill: bool
) -> None:
    """Raise CorruptError for damage that zarr does not report. It reads a missing chunk file, a missing inner chunk of a shard
    and an empty shard as the fill value, and beyond the end of a truncated Blosc buffer.

    shards: the indexes of the shards, if the array has any. fill: whether missing chunks are allowed.
    """
    first, count = "", 0
    for key, box in chunk_files(array, stored, start, stop):
        size = files.size(key)
        if size is None:
            first, count = first or f"chunk file {key}", count + 1
        elif size == 0:
            raise _corrupt(files, stored, f"chunk file {key}", "it is empty")
        elif stored.blosc:
            check_blosc(files, stored, key, size)
        elif shards is not None and not fill:
            at = tuple(part.start // size for part, size in zip(box, stored.file, strict=True))
            position = shards.absent(key, size, at, start, stop)
            if position is not None:
                first, count = first or f"inner chunk at {list(position)} in shard {key}", count + 1
    if count and not fill:
        value = np.asarray(array.fill_value).tolist()
        more = f" and {count - 1} more of rows {start} to {stop}" if count > 1 else ""
        raise CorruptError(
            f"{files.root}: array {stored.name!r} has no {first}{more}: it was lost, or never written "
            f"because all its values are the fill value {value!r}: restore it, or pass --missing-chunks fill "
            f"(Python: missing_chunks='fill') to read missing chunks as the fill value"
        )


def check_blosc(files: Files, stored: StoredArray, key: str, size: int) -> None:
    """Raise CorruptError for a truncated Blosc buffer. Blosc trusts the length in the header (bytes 12 to 16), and would read
    beyond the end of the buffer."""
    expected = int.from_bytes(files.part(key, 12, 16), "little")
    if size < max(16, expected):
        raise _corrupt(
            files, stored, f"chunk file {key}", f"it has {size} bytes, but its header declares {max(16, expected)}"
        )


def broken(files: Files, array: Any, stored: StoredArray, start: int, stop: int, error: Exception) -> CorruptError:
    """The error for rows that cannot be decoded. Decodes their chunks one by one, to name the damaged one."""
    for key, box in chunk_files(array, stored, start, stop):
        try:
            array.get_basic_selection(box)
        except Exception as again:
            return _corrupt(files, stored, f"chunk file {key}", _reason(again))
    return _corrupt(files, stored, f"rows {start} to {stop}", _reason(error))


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error) or 'no details').splitlines()[0][:200]}"


def _corrupt(files: Files, stored: StoredArray, where: str, reason: str) -> CorruptError:
    return CorruptError(
        f"{files.root}: array {stored.name!r}, {where} cannot be decoded ({reason}): restore it from a copy"
    )


def chunk_files(array: Any, stored: StoredArray, start: int, stop: int) -> Iterator[tuple[str, tuple[slice, ...]]]:
    """The key and the index ranges of every chunk file (or shard) with any of the rows."""
    prefix = f"{stored.path}/" if stored.path else ""
    size, shape = stored.file, stored.shape
    rows = range(start // size[0], -(-stop // size[0]))
    for at in itertools.product(rows, *(range(-(-n // s)) for n, s in zip(shape[1:], size[1:], strict=True))):
        box = tuple(slice(i * s, min((i + 1) * s, n)) for i, s, n in zip(at, size, shape, strict=True))
        yield prefix + array.metadata.encode_chunk_key(at), box
