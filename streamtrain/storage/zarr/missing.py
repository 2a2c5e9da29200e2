"""Chunk files that are not there, and chunk files that do not decode: which array, which file, what to do."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from streamtrain.errors import CorruptError
from streamtrain.storage.zarr.files import Files
from streamtrain.storage.zarr.grid import Column
from streamtrain.storage.zarr.shards import ShardIndexes

__all__ = ["broken", "check_blosc", "check_files"]


def check_files(
    files: Files, array: Any, column: Column, shards: ShardIndexes | None, start: int, stop: int, *, fill: bool
) -> None:
    """Raises CorruptError for what zarr would read without a word: a chunk file that is absent (as the fill value,
    which is right if ``fill``), an inner chunk that is absent from a shard (likewise), an empty shard (likewise), a
    truncated Blosc buffer (as whatever lies behind it). shards: the indexes of the shards, where there are shards.
    """
    absent = []
    for key, box in _chunk_files(array, column, start, stop):
        size = files.size(key)
        if size is None:
            absent.append(f"chunk file {key}")
        elif size == 0:
            raise _corrupt(files, column, f"chunk file {key}", "it is empty")
        elif column.blosc:
            check_blosc(files, column, key, size)
        elif shards is not None and not fill:
            at = tuple(part.start // size for part, size in zip(box, column.file, strict=True))
            place = shards.absent(key, size, at, start, stop)
            if place is not None:
                absent.append(f"inner chunk at {list(place)} in shard {key}")
    if absent and not fill:
        value = np.asarray(array.fill_value).tolist()
        more = f" and {len(absent) - 1} more of rows {start} to {stop}" if len(absent) > 1 else ""
        raise CorruptError(
            f"{files.root}: array {column.name!r} has no {absent[0]}{more}: it was lost, or never written "
            f"because all of it is the fill value {value!r}; restore it, or pass --missing-chunks fill "
            f"(Python: missing_chunks='fill') to read absent chunks as the fill value"
        )


def check_blosc(files: Files, column: Column, key: str, size: int) -> None:
    """Blosc's decoder is_settled the length in the header (bytes 12 to 16) and reads beyond the end of a shorter buffer."""
    wanted = int.from_bytes(files.part(key, 12, 16), "little")
    if size < max(16, wanted):
        raise _corrupt(files, column, f"chunk file {key}", f"it has {size} bytes of {max(16, wanted)}")


def broken(files: Files, array: Any, column: Column, start: int, stop: int, error: Exception) -> CorruptError:
    """The error for rows that do not decode. The chunks are tried one by one to find the one at fault."""
    for key, box in _chunk_files(array, column, start, stop):
        try:
            array.get_basic_selection(box)
        except Exception as again:
            return _corrupt(files, column, f"chunk file {key}", _reason(again))
    return _corrupt(files, column, f"rows {start} to {stop}", _reason(error))


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error) or 'no more is known').splitlines()[0][:200]}"


def _corrupt(files: Files, column: Column, where: str, reason: str) -> CorruptError:
    return CorruptError(
        f"{files.root}: array {column.name!r}, {where} does not decode ({reason}); restore it from a copy"
    )


def _chunk_files(array: Any, column: Column, start: int, stop: int) -> Iterator[tuple[str, tuple[slice, ...]]]:
    """Key and box of every chunk file (a shard, where there are shards) that holds one of the rows."""
    prefix = f"{column.path}/" if column.path else ""
    size, shape = column.file, column.shape
    rows = range(start // size[0], -(-stop // size[0]))
    for at in itertools.product(rows, *(range(-(-n // s)) for n, s in zip(shape[1:], size[1:], strict=True))):
        box = tuple(slice(i * s, min((i + 1) * s, n)) for i, s, n in zip(at, size, shape, strict=True))
        yield prefix + array.metadata.encode_chunk_key(at), box
