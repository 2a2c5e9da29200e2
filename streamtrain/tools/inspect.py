"""What data are: schema, rows, chunks and sizes, and what each column would become; with a target, its classes and how
clustered they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from streamtrain.columns.choose import choose_role
from streamtrain.columns.target import Target
from streamtrain.errors import ColumnError, StreamtrainError
from streamtrain.load import Source
from streamtrain.load.survey import survey
from streamtrain.storage import ChunkTable, open_reader
from streamtrain.storage.arrow import pick, value_type, width
from streamtrain.storage.reader import Reader

__all__ = ["inspect"]


def inspect(
    data: Any,
    *,
    target: str | Sequence[str] | None = None,
    roles: Mapping[str, str] | None = None,
    missing_chunks: str = "error",
) -> dict[str, Any]:
    """Describe data. Reads metadata, the first rows of columns of text, and the target's column if one is named.

    roles: asked for, by column. Of each column: ``becomes``, its role, or None where it cannot be a feature; ``why``; and
    ``numbers``, which a row of it becomes.

    >>> import numpy as np
    >>> found = inspect({"x": np.zeros((4, 3), np.float32), "y": np.array([0, 1, 0, 1])}, target="y")
    >>> found["rows"], [(c["name"], c["becomes"]) for c in found["columns"]], found["target"]["counts"]
    (4, [('x', 'number'), ('y', 'target')], [2, 2])
    """
    reader = open_reader(data, missing_chunks=missing_chunks)
    table = ChunkTable.of(reader.chunks())
    asked = dict(roles or {})
    for name in asked:
        pick(reader.schema, name, "features")
    targets = [target] if isinstance(target, str) else list(target or ())
    known = _sampled(reader, table, asked)
    columns = [
        {"name": f.name, "type": str(value_type(f.type)), "numbers": width(f.type)} | _becomes(f, targets, asked, known)
        for f in reader.schema
    ]
    return {
        "rows": table.total_rows,
        "chunks": len(table),
        "columns": columns,
        "stored_bytes": getattr(reader, "stored_bytes", None),
        "decoded_bytes": int(table.decoded_bytes.sum()),
        "target": Target.of([survey(reader, table, name) for name in targets]).as_dict() if targets else None,
    }


def _becomes(
    field: pa.Field, targets: Sequence[str], asked: Mapping[str, str], known: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    if field.name in targets:
        return {"becomes": "target", "why": "as asked"}
    if field.name in known:
        return known[field.name]
    try:
        return choose_role(field, asked.get(field.name)).as_dict()
    except ColumnError:
        if field.name in asked:
            raise
        why = f"neither a number, a time, a category nor text: --exclude {field.name}, or take it apart first"
        return {"becomes": None, "why": why, "numbers": 0}


def _sampled(reader: Reader, table: ChunkTable, asked: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The columns whose role their first rows tell, with that role."""
    names = []
    for field in reader.schema:
        try:
            column = choose_role(field, asked.get(field.name))
        except StreamtrainError:
            continue  # reported with all other columns
        if column.becomes.unknown(column) == "role":
            names.append(field.name)
    if not names or not table.total_rows:
        return {}
    source = Source.of(reader, table, names, {name: asked[name] for name in names if name in asked})
    return {column.name: column.as_dict() for column in source.with_roles().layout.columns}
