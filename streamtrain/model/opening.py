"""Open other data for a model, and find the model's columns in them."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

from streamtrain.columns.target import resolve_task
from streamtrain.errors import data_name
from streamtrain.load import Source
from streamtrain.load.holdout import HoldOutRule
from streamtrain.memory.monitor import opening
from streamtrain.model.model import Model
from streamtrain.storage.kept import KeptTable
from streamtrain.storage.nested import columns_of
from streamtrain.storage.settings import Asked, ReadSettings
from streamtrain.storage.where.opening import open_rows

__all__ = ["open_for"]


def open_for(
    model: Model, data: Any, *, with_target: bool, reading: ReadSettings | None = None, hold_out: HoldOutRule | None = None,
    skips: bool = False, kept: KeptTable | None = None,
) -> Source:  # fmt: skip
    """A source of the model's columns in other data. Reads metadata, and the columns of ``--where`` and of the hold-out. Raises
    DataError where the data cannot be used, and ColumnError where a column is missing or of another type. kept: the rows that
    match, if the same data were opened before."""
    targets, weight = (model.target.names, model.layout.weight) if with_target else ((), None)
    columns = (*targets, *([] if weight is None else [weight]), *(column.name for column in model.layout.columns))
    reading = replace(reading or ReadSettings(), asked=Asked(columns, "none"))
    with opening(data_name(data)):
        opened = open_rows(data, reading, hold_out, skips=skips, kept=kept)
        schema = columns_of(opened.reader.schema)
    layout = model.layout_for(schema, with_target=with_target)
    if with_target:
        for name in model.target.names:
            resolve_task(schema.field(name), model.target.task)
            if model.target.part(name).converts(schema.field(name).type) is not None:
                import_module("pyarrow.compute")  # which casts: its memory is taken before there is a plan
    return Source.of_rows(opened, layout, hold_out)
