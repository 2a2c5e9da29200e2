"""Chunks that are read and written to the arrays of a window, or to their own; and the rows of them that cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.columns.buffers import WindowArrays
from streamtrain.columns.layout import Layout
from streamtrain.columns.lists import OddListError
from streamtrain.columns.weights import Skips
from streamtrain.errors import BadValueError, ChangedError, CorruptError, DataError, SchemaError
from streamtrain.load.digests import ChunkDigest, Pair, RunDigest
from streamtrain.storage.checked import read_columns, read_together
from streamtrain.storage.reader import Chunk, Reader, ReadsTogether

__all__ = ["Skip", "load_chunks", "refuse", "write_chunks", "write_rows"]

#: takes the positions of rows that cannot be used, shape (rows,), and why
Skip = Callable[[NDArray[np.int64], str], None]


def load_chunks(
    reader: Reader, layout: Layout, chunks: Sequence[Chunk], groups: Sequence[Sequence[str]], skips: Skips | None = None
) -> tuple[WindowArrays, list[tuple[int, NDArray[np.int64], str]], dict[int, Pair], dict[int, DataError]]:
    """Whole chunks in their own arrays, one after the other, as a worker of a cluster returns them; the rows that cannot be
    used, each with the number of its chunk in ``chunks``, and why; and by that number the digests of the chunks, and the errors
    of those that cannot be read. Without ``skips`` the first error is raised."""
    rows = np.concatenate([[0], np.cumsum([chunk.rows for chunk in chunks])])
    arrays, positions = layout.buffers(int(rows[-1])), np.arange(rows[-1])
    unusable: list[tuple[int, NDArray[np.int64], str]] = []
    if len(chunks) > 1 and isinstance(reader, ReadsTogether):
        try:
            digest = RunDigest(layout.targets, [chunk.rows for chunk in chunks])
            write_chunks(reader, layout, chunks, groups, arrays, positions, digest, skips, refuse)
            return arrays, unusable, dict(enumerate(digest.values())), {}
        except DataError:
            pass  # chunk by chunk, so that the error names one
    digests: dict[int, Pair] = {}
    errors: dict[int, DataError] = {}
    for i, chunk in enumerate(chunks):
        try:
            digest = RunDigest(layout.targets, [chunk.rows])
            some = positions[rows[i] : rows[i + 1]]
            skip = partial(_add_unusable, unusable, i)
            write_chunks(reader, layout, [chunk], groups, arrays, some, digest, skips, skip)
            (digests[i],) = digest.values()
        except (CorruptError, SchemaError) as error:
            if skips is None or isinstance(error, ChangedError):
                raise
            errors[i] = error
    return arrays, unusable, digests, errors


def _add_unusable(
    to: list[tuple[int, NDArray[np.int64], str]], chunk: int, positions: NDArray[np.int64], why: str
) -> None:
    to.append((chunk, positions, why))


def refuse(positions: NDArray[np.int64], why: str) -> None:
    """For several chunks that are read in one call: read one by one, it is known which of them has the rows."""
    raise BadValueError(why)


def write_chunks(
    reader: Reader, layout: Layout, chunks: Sequence[Chunk], groups: Sequence[Sequence[str]], into: WindowArrays,
    positions: NDArray[np.int64], digest: RunDigest | None, skips: Skips | None, skip: Skip,
    check: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Read whole chunks, group of columns by group, and write each row to its position. An error in several chunks may name any
    of them.

    positions: of all rows, those of the first chunk first; shape (rows,). digest: takes the values. skips: which rows are given
    to ``skip``; None: a row that cannot be used is an error. check: called before each group.
    """
    for columns in groups:
        check()
        row = 0
        if len(chunks) == 1:
            batches = read_columns(reader, chunks[0], columns)
        else:
            batches = read_together(cast("ReadsTogether", reader), chunks, columns)
        for batch in batches:
            write_rows(layout, batch, into, positions[row : row + batch.num_rows], chunks[0], digest, skips, skip, row)
            row += batch.num_rows


def write_rows(
    layout: Layout,
    batch: pa.RecordBatch,
    into: WindowArrays,
    positions: NDArray[np.int64],
    chunk: Chunk,
    digest: ChunkDigest | RunDigest | None,
    skips: Skips | None,
    skip: Skip,
    row: int,
) -> None:
    """row: how many rows of the chunk come before these."""
    seen = None if digest is None else digest.add
    try:
        unusable = layout.write(batch, into, positions, chunk.key, skips=skips, seen=seen)
    except OddListError as error:
        raise BadValueError(f"row {row + (error.row or 0):,} of {chunk.key}: {error}") from None
    for rows, why in unusable:
        skip(positions[rows], why)
