"""``inspect``: schema, rows, chunks and sizes of data, and what each column would become; for a target, its classes and how
clustered they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from streamtrain.columns.choose import choose_role, no_common_type, no_role
from streamtrain.columns.role import has_conflict, left_out, problem_of
from streamtrain.columns.settings import ColumnSettings
from streamtrain.columns.target import Target
from streamtrain.errors import ColumnError, StreamtrainError, data_name
from streamtrain.load import Source
from streamtrain.load.ledger import Ledger
from streamtrain.load.settings import SkipSettings
from streamtrain.load.survey import survey
from streamtrain.memory.monitor import opening, within
from streamtrain.options import checked, given
from streamtrain.storage.arrow import pick, value_type, width
from streamtrain.storage.files.partitions import named_by_folders
from streamtrain.storage.nested import columns_of
from streamtrain.storage.pandas_index import is_index
from streamtrain.storage.reader import ChunkTable, Reader, Warns
from streamtrain.storage.settings import Asked, ReadSettings
from streamtrain.storage.where.opening import open_rows

__all__ = ["inspect"]

Described = dict[str, dict[str, Any]]  # what is shown of a column, by name


def inspect(
    data: Any,
    *,
    target: str | Sequence[str] | None = None,
    roles: Mapping[str, str] | Sequence[str] | None = None,
    task: str | None = None,
    # settings: ReadSettings SkipSettings
    missing_chunks: str = "error", sample_dim: str | None = None, input_format: str | None = None,
    delimiter: str | None = None, header: bool = True, na: Sequence[str] | None = None, decimal: str = ".",
    encoding: str | None = None, where: str | None = None, table_version: int | None = None, as_of: str | None = None,
    on_error: str = "raise", max_skipped: float = 0.01,
    # end of settings
) -> dict[str, Any]:  # fmt: skip
    """Describe data. Reads metadata, the first rows of text columns, and the whole target if one is named.

    Parameters
    ----------
    data
        A path, glob, directory, Zarr store, URL or reader, arrays and tables in memory, or a list of these.
    target
        The column to predict, or several.
    roles
        What columns become, by name, if not the default.
    task
        ``"classify"`` or ``"regress"``, if not by the type of the target.
    missing_chunks
        An absent Zarr chunk: an error, or filled with its fill value. One of error, fill. Default: error.
    sample_dim
        The dimension of a Zarr store along which the rows are. Default: that of the target.
    input_format
        The format of the files. One of parquet, csv, jsonl, arrow, npy, zarr. Default: by their names, or their first
        bytes.
    delimiter
        CSV: the character between fields, or tab. Default: a tab in .tsv and .tab, otherwise a comma.
    header
        CSV: whether the first line names the columns; otherwise they are f0, f1, ... Default: True.
    na
        CSV: what means missing, in all columns: a,b. Blanks do in columns of numbers. Default: NA, NaN, null, None, ?,
        -, . and the like, in columns of numbers.
    decimal
        CSV: the decimal point. One of ., ,. Default: ..
    encoding
        CSV and JSON: the encoding of the text, such as latin-1. Default: utf-8.
    where
        Only the rows for which this is true: ``age >= 18 and city in ('Rome', 'Oslo')``.
    table_version
        Of a Delta table the version, of an Iceberg table the snapshot; also DATA@N. Default: the current one.
    as_of
        A table as it was at this time, 2026-01-15T12:00:00+01:00; in UTC without a zone.

    Returns
    -------
    dict
        ``rows``, ``all_rows`` (without ``where``), ``chunks``, ``table`` (format and version of a Delta or Iceberg table,
        otherwise None), ``stored_bytes``, ``decoded_bytes``, ``target``, ``warnings`` and ``columns``. Each column has
        ``name``, ``type``, ``becomes`` (its role, or None if it cannot be a feature), ``why``, and ``numbers``, how many
        numbers a row of it becomes.

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
    settings = checked(ColumnSettings, given(target=target, roles=roles, task=task))
    target, requested = settings.get("target", ()), dict(settings.get("roles", ()))
    targets = [target] if isinstance(target, str) else list(target)
    reading = ReadSettings(
        # passed: ReadSettings
        missing_chunks=missing_chunks, sample_dim=sample_dim, input_format=input_format, delimiter=delimiter,
        header=header, na=na, decimal=decimal, encoding=encoding, where=where, table_version=table_version, as_of=as_of,
        # end of passed
    )  # fmt: skip
    skipping = SkipSettings(
        # passed: SkipSettings
        on_error=on_error, max_skipped=max_skipped,
        # end of passed
    )  # fmt: skip
    with within(is_setting=False):
        return _described(data, targets, requested, reading, skipping, task)


def _described(
    data: Any, targets: Sequence[str], requested: Mapping[str, str], reading: ReadSettings, skipping: SkipSettings,
    task: str | None,
) -> dict[str, Any]:  # fmt: skip
    with opening(data_name(data)):
        asked = replace(reading, asked=Asked((*targets, *requested), "shown"))
        opened = open_rows(data, asked, skips=skipping.on_error == "skip")
        reader, table = opened.reader, opened.table
    for name in requested:
        pick(columns_of(reader.schema), name, "features")
    sampled = _sampled(reader, table, requested)
    columns = [
        {"name": f.name, "type": str(value_type(f.type)), "numbers": width(f.type)}
        | _becomes(f, targets, requested, sampled)
        for f in columns_of(reader.schema)
    ]
    ledger = Ledger.of(skipping, data_name(data), table, "error", opened.unread)
    surveyed = [survey(reader, table, name, task=task, ledger=ledger) for name in targets]
    return {
        "rows": table.total_rows,
        "all_rows": table.unfiltered.total_rows,
        "chunks": len(table),
        "table": getattr(reader, "title", None),
        "columns": columns,
        "stored_bytes": getattr(reader, "stored_bytes", None),
        "decoded_bytes": int(table.decoded_bytes.sum()),
        "target": Target.of(surveyed).as_dict() if targets else None,
        "warnings": [
            *(reader.warnings(reader.schema.names) if isinstance(reader, Warns) else ()),
            *named_by_folders(reader.schema, reader.schema.names),
            *(Target.of(surveyed).warnings if targets else ()),
        ],
    }


def _becomes(
    field: pa.Field, targets: Sequence[str], requested: Mapping[str, str], sampled: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    if field.name in targets:
        return {"becomes": "target", "why": "named by --target"}
    if (reason := left_out(field)) and field.name not in requested:
        return {"becomes": None, "why": reason, "numbers": 0}
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
        why = no_common_type(field) if has_conflict(field) else problem_of(field) or no_role([field.name])
        return {"becomes": None, "why": why, "numbers": 0}


def _sampled(reader: Reader, table: ChunkTable, requested: Mapping[str, str]) -> Described:
    """The columns whose role depends on their first rows, described with that role."""
    names = []
    for field in columns_of(reader.schema):
        try:
            column = choose_role(field, requested.get(field.name))
        except StreamtrainError:
            continue  # reported with all other columns
        is_certain = pa.types.is_map(field.type) or column.becomes.unknown(column) != "role"
        if not is_certain and (field.name in requested or not (is_index(field) or left_out(field))):
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
