"""What the first rows of some columns decide: the role of a column, and the offset of its numbers."""

from __future__ import annotations

from collections.abc import Mapping

from streamtrain.columns.layout import is_unknown_list
from streamtrain.columns.role import Column
from streamtrain.errors import ChangedError, ColumnError, CorruptError, SchemaError
from streamtrain.load.ledger import Ledger
from streamtrain.storage.checked import first_rows
from streamtrain.storage.reader import ChunkTable, Reader

__all__ = ["told_by_first_rows"]

_ROWS, _BYTES = 1024, 16 * 10**6
_CHUNKS = 8  # the most whose first rows are read, evenly spaced, where those before had no value of a column


def told_by_first_rows(
    reader: Reader, table: ChunkTable, columns: Mapping[str, Column], ledger: Ledger | None
) -> dict[str, Column]:
    """The columns by name, completed from the first rows of the first chunk that can be read; where all of these are missing,
    from those of later chunks. A column without any value stays as it is and is left out. Raises ColumnError for one of lists
    of numbers: how many these have is unknown.

    ledger: chunks that cannot be read are entered here; without it they are errors. Raises CorruptError if no chunk can be
    read.
    """
    told, number, read = dict[str, Column](), 0, 0
    while number < len(table) and len(told) < len(columns) and read < _CHUNKS:
        left = {name: column for name, column in columns.items() if name not in told}
        more = _told_by(reader, table, number, left, ledger)
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
    reader: Reader, table: ChunkTable, number: int, columns: Mapping[str, Column], ledger: Ledger | None
) -> dict[str, Column] | None:
    """The columns by name, completed from the first rows of a chunk. None if it has no rows or cannot be read."""
    chunk = table[number]
    if not chunk.rows or (ledger is not None and ledger.is_lost(number)):
        return None
    names, told = list(columns), dict[str, Column]()
    together = chunk.decoded_bytes <= _BYTES or getattr(reader, "row_oriented", False)
    at_once = len(names) if together else 1
    try:
        for start in range(0, len(names), at_once):
            some = names[start : start + at_once]
            rows = first_rows(reader, chunk, some, _ROWS, _BYTES)
            for name, values in zip(rows.schema.names, (column.chunk(0) for column in rows.columns), strict=True):
                if values.null_count < len(values):
                    known = columns[name].as_known(values, chunk.key)
                    told[name] = columns[name].becomes.first_rows(columns[name], known)
    except (CorruptError, SchemaError) as error:
        if ledger is None or isinstance(error, ChangedError):
            raise
        ledger.skip_chunk(number, chunk.key, chunk.rows, error)
        return None
    return told
