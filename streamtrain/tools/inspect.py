"""``inspect``: schema, rows, chunks and sizes of data, and what each column would become; for a target, its classes and how
clustered they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from streamtrain.columns.choose import choose_role, no_common_type, no_role
from streamtrain.columns.role import has_conflict
from streamtrain.columns.settings import ColumnSettings
from streamtrain.columns.target import Target
from streamtrain.errors import ColumnError, StreamtrainError, data_name
from streamtrain.load import Source
from streamtrain.load.survey import survey
from streamtrain.memory.monitor import opening, within
from streamtrain.options import checked, given
from streamtrain.storage import ChunkTable, open_data
from streamtrain.storage.arrow import pick, value_type, width
from streamtrain.storage.pandas_index import is_index
from streamtrain.storage.reader import Reader
from streamtrain.storage.settings import ReadSettings

__all__ = ["inspect"]

Described = dict[str, dict[str, Any]]  # what is shown of a column, by name


def inspect(
    data: Any,
    *,
    target: str | Sequence[str] | None = None,
    roles: Mapping[str, str] | Sequence[str] | None = None,
    # settings: ReadSettings
    missing_chunks: str = "error",
    # end of settings
) -> dict[str, Any]:  # fmt: skip
    """Describe data. Reads metadata, the first rows of text columns, and the whole target if one is named.

    Parameters
    ----------
    data
        A path, glob, directory, Zarr store, URL, reader, or arrays and tables in memory.
    target
        The column to predict, or several.
    roles
        What columns become, by name, if not the default.
    missing_chunks
        An absent Zarr chunk: an error, or filled with its fill value. One of error, fill. Default: error.

    Returns
    -------
    dict
        ``rows``, ``chunks``, ``stored_bytes``, ``decoded_bytes``, ``target`` and ``columns``. Each column has ``name``,
        ``type``, ``becomes`` (its role, or None if it cannot be a feature), ``why``, and ``numbers``, how many numbers a
        row of it becomes.

    Raises
    ------
    DataError
        The data cannot be read, or a named column cannot be what it should be.
    UsageError
        An invalid setting.

    Example
    -------
    >>> import numpy as np
    >>> described = inspect({"x": np.zeros((4, 3), np.float32), "y": np.array([0, 1, 0, 1])}, target="y")
    >>> described["rows"], [(c["name"], c["becomes"]) for c in described["columns"]], described["target"]["counts"]
    (4, [('x', 'number'), ('y', 'target')], [2, 2])
    """
    settings = checked(ColumnSettings, given(target=target, roles=roles))
    target, requested = settings.get("target", ()), dict(settings.get("roles", ()))
    targets = [target] if isinstance(target, str) else list(target)
    reading = ReadSettings(
        # passed: ReadSettings
        missing_chunks=missing_chunks,
        # end of passed
    )  # fmt: skip
    with within(is_setting=False):
        return _described(data, targets, requested, reading)


def _described(
    data: Any, targets: Sequence[str], requested: Mapping[str, str], reading: ReadSettings
) -> dict[str, Any]:
    with opening(data_name(data)):
        reader = open_data(data, reading)
        table = ChunkTable.of(reader.chunks())
    for name in requested:
        pick(reader.schema, name, "features")
    sampled = _sampled(reader, table, requested)
    columns = [
        {"name": f.name, "type": str(value_type(f.type)), "numbers": width(f.type)}
        | _becomes(f, targets, requested, sampled)
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
    field: pa.Field, targets: Sequence[str], requested: Mapping[str, str], sampled: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    if field.name in targets:
        return {"becomes": "target", "why": "named by --target"}
    if field.name in sampled:
        return sampled[field.name]
    if is_index(field) and field.name not in requested:
        return {
            "becomes": None,
            "why": "the index of a pandas frame: name it in --features to learn from it",
            "numbers": 0,
        }
    try:
        return choose_role(field, requested.get(field.name)).as_dict()
    except ColumnError:
        if field.name in requested:
            raise
        why = no_common_type(field) if has_conflict(field) else no_role([field.name])
        return {"becomes": None, "why": why, "numbers": 0}


def _sampled(reader: Reader, table: ChunkTable, requested: Mapping[str, str]) -> Described:
    """The columns whose role depends on their first rows, described with that role."""
    names = []
    for field in reader.schema:
        try:
            column = choose_role(field, requested.get(field.name))
        except StreamtrainError:
            continue  # reported with all other columns
        if column.becomes.unknown(column) == "role" and (field.name in requested or not is_index(field)):
            names.append(field.name)
    if not names or not table.total_rows:
        return {}

    def described(some: Sequence[str]) -> Described:
        source = Source.of(reader, table, some, {name: requested[name] for name in some if name in requested})
        return {column.name: column.as_dict() for column in source.with_roles().layout.columns}

    try:
        return described(names)
    except ColumnError:  # of lists of several lengths: which column it is, is found out one by one
        return {name: each for column in names for name, each in _described_alone(described, column).items()}


def _described_alone(described: Callable[[Sequence[str]], Described], name: str) -> Described:
    try:
        return described([name])
    except ColumnError as error:
        return {name: {"becomes": None, "why": str(error), "numbers": 0}}
