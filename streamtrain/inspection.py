"""What data are: schema, rows, chunks and sizes; with a target, its classes and how clustered they are."""

from __future__ import annotations

from typing import Any

from streamtrain.storage import ChunkTable, open_reader
from streamtrain.storage.arrow import value_type, width
from streamtrain.survey import survey

__all__ = ["inspect"]


def inspect(data: Any, *, target: str | None = None, missing_chunks: str = "error") -> dict[str, Any]:
    """Describe data. Reads metadata, and the target's column if one is named.

    >>> import numpy as np
    >>> found = inspect({"x": np.zeros((4, 3), np.float32), "y": np.array([0, 1, 0, 1])}, target="y")
    >>> found["rows"], [c["name"] for c in found["columns"]], found["target"]["counts"]
    (4, ['x', 'y'], [2, 2])
    """
    reader = open_reader(data, missing_chunks=missing_chunks)
    table = ChunkTable.of(reader.chunks())
    columns = [{"name": f.name, "type": str(value_type(f.type)), "numbers": width(f.type)} for f in reader.schema]
    return {
        "rows": table.total_rows,
        "chunks": len(table),
        "columns": columns,
        "stored_bytes": getattr(reader, "stored_bytes", None),
        "decoded_bytes": int(table.decoded_bytes.sum()),
        "target": None if target is None else survey(reader, table, target).as_dict(),
    }
