"""What the first rows of some columns decide: the role of a column, and the offset of its numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from streamtrain.columns.layout import Layout, is_unknown_list
from streamtrain.columns.role import Column
from streamtrain.columns.target_values import only
from streamtrain.columns.weights import rows_in_use, single_weights
from streamtrain.errors import ChangedError, ColumnError, CorruptError, SchemaError
from streamtrain.load.ledger import Ledger
from streamtrain.storage.checked import first_rows
from streamtrain.storage.reader import Chunk, ChunkTable, Reader

__all__ = ["told_by_first_rows"]

_ROWS, _BYTES = 1024, 16 * 10**6
_CHUNKS = 8  # the most whose first rows are read, evenly spaced, where those before had no value of a column


def told_by_first_rows(
    reader: Reader, table: ChunkTable, columns: Mapping[str, Column], layout: Layout, ledger: Ledger | None
) -> dict[str, Column]:
    """The columns by name, completed from the first rows of the first chunk that can be read; where all of these are missing,
    from those of later chunks. A column without any value stays as it is and is left out. Raises ColumnError for one of lists
    of numbers: how many these have is unknown.

    layout: its weight and target say which rows are left out: those of weight 0, and those that are skipped. ledger: chunks
    that cannot be read are entered here; without it they are errors. Raises CorruptError if no chunk can be read.
    """
    told, number, read = dict[str, Column](), 0, 0
    while number < len(table) and len(told) < len(columns) and read < _CHUNKS:
        left = {name: column for name, column in columns.items() if name not in told}
        more = _told_by(reader, table, number, left, layout, ledger)
        if more is None:
            number += 1
            continue
        told, read = told | more, read + 1
        number += max(1, (len(table) - 1 - number) // max(1, _CHUNKS - read))
    if not read:
        raise CorruptError("no chunk of the data can be read: restore the data, or read another copy of them")
    for name, column in columns.items():
        if is_unknown_list(told.get(name, column)):
            raise ColumnError(
                f"{name!r} has no list in the first rows of the chunks that were looked at, so that it is unknown how many "
                f"numbers a row has: give --exclude {name}"
            )
    return told


def _told_by(
    reader: Reader, table: ChunkTable, number: int, columns: Mapping[str, Column], layout: Layout, ledger: Ledger | None
) -> dict[str, Column] | None:
    """The columns by name, completed from the first rows of a chunk. None if it has no rows or cannot be read."""
    chunk = table[number]
    if not chunk.rows or (ledger is not None and ledger.is_lost(number)):
        return None
    names, told = list(columns), dict[str, Column]()
    together = chunk.decoded_bytes <= _BYTES or getattr(reader, "row_oriented", False)
    at_once = len(names) if together else 1
    try:
        used = _used(reader, chunk, layout, skips=ledger is not None)
        for start in range(0, len(names), at_once):
            some = names[start : start + at_once]
            rows = first_rows(reader, chunk, some, _ROWS, _BYTES)
            for name, values in zip(rows.schema.names, (column.chunk(0) for column in rows.columns), strict=True):
                if used is not None:
                    values = only(values, used[: len(values)])
                if values.null_count < len(values):
                    known = columns[name].as_known(values, chunk.key)
                    told[name] = columns[name].becomes.first_rows(columns[name], known)
    except (CorruptError, SchemaError) as error:
        if ledger is None or isinstance(error, ChangedError):
            raise
        ledger.skip_chunk(number, error)
        return None
    return told


def _used(reader: Reader, chunk: Chunk, layout: Layout, *, skips: bool) -> NDArray[np.bool_] | None:
    """The rows among the first ones whose weight is not 0, and that are not skipped; None if all are."""
    names = [*([layout.weight] if layout.weight else []), *(layout.targets if skips else [])]
    if not names:
        return None
    rows = first_rows(reader, chunk, names, _ROWS, _BYTES)
    used = np.ones(rows.num_rows, np.bool_)
    for name, values in zip(names, (rows.column(name).chunk(0) for name in names), strict=True):
        if name == layout.weight:
            weighted = rows_in_use(single_weights(name, values, chunk.key))
            used &= True if weighted is None else weighted
        elif layout.target is not None:
            for mask, _ in layout.target.part(name).unusable(values):
                used &= ~mask
    return None if used.all() else used
