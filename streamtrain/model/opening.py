"""Open other data for a model, and find the model's columns in them."""

from __future__ import annotations

from typing import Any

from streamtrain.columns.target import resolve_task
from streamtrain.errors import NotFoundError, data_name
from streamtrain.load import Source
from streamtrain.memory.monitor import opening
from streamtrain.model.model import Model
from streamtrain.storage import ChunkTable, open_data
from streamtrain.storage.settings import ReadSettings

__all__ = ["open_for"]


def open_for(model: Model, data: Any, *, with_target: bool, reading: ReadSettings | None = None) -> Source:
    """A source of the model's columns in other data. Reads metadata only. Raises DataError where the data cannot be used, and
    ColumnError where a column is missing or of another type."""
    with opening(data_name(data)):
        reader = open_data(data, reading or ReadSettings())
        table, schema = ChunkTable.of(reader.chunks()), reader.schema
    if not table.total_rows:
        raise NotFoundError(f"{data_name(data) if isinstance(data, str) else 'the data'}: has no rows")
    layout = model.layout_for(schema, with_target=with_target)
    if with_target:
        for name in model.target.names:
            resolve_task(schema.field(name), model.target.task)
    return Source(reader, table, layout)
