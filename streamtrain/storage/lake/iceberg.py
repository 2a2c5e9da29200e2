"""Iceberg tables, https://iceberg.apache.org/spec: the package ``pyiceberg`` parses metadata and manifests.

Its module ``pyiceberg.io.pyarrow`` is not used: it imports ``pyarrow.dataset`` and more, 140 MB.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.serializers import FromInputFile

from streamtrain.errors import DataError, SchemaError, StreamtrainError, listed
from streamtrain.storage.files.columns import PROBLEM, Declared
from streamtrain.storage.lake.iceberg_files import TableFiles
from streamtrain.storage.lake.iceberg_manifests import live_files
from streamtrain.storage.lake.iceberg_metadata import find_metadata, schema_and_snapshot
from streamtrain.storage.lake.iceberg_types import arrow_type
from streamtrain.storage.lake.moments import Moment
from streamtrain.storage.lake.snapshot import Snapshot, renamed_inside, with_codes

__all__ = ["iceberg_snapshot"]

_FIELD_ID = b"PARQUET:field_id"
_EXPIRED = "expired snapshots lose their files: read a later snapshot, or restore the file"
_NAME_MAPPING = "schema.name-mapping.default"


def iceberg_snapshot(target: Path, moment: Moment) -> Snapshot:
    """The snapshot of an Iceberg table. target: its folder, or one of its metadata files. Raises DataError for a table that
    cannot be read, or a moment that it has no snapshot of."""
    found = find_metadata(target)
    with _reading(target, found.file):
        metadata = FromInputFile.table_metadata(TableFiles(found.root, "", "Iceberg table").new_input(str(found.file)))
    schema, chosen = schema_and_snapshot(str(target), metadata, moment)
    title = f"Iceberg table, snapshot {chosen.snapshot_id}"
    files = TableFiles(found.root, metadata.location, title)
    with _reading(target, chosen.manifest_list):
        live = live_files(files, chosen, metadata, found.root)
    order = sorted(range(len(live.files)), key=lambda i: live.files[i].name.split("/"))
    fields = {field.field_id: field for field in schema.fields}
    keys = {number: values for number, values in live.partitions.items() if number in fields}
    return Snapshot(
        found.root, title, f"{chosen.snapshot_id}/{schema.schema_id}", str(metadata.table_uuid),
        [live.files[i] for i in order], _declared(metadata, schema, title, set(keys)),
        {fields[n].name: _values([values[i] for i in order], fields[n].field_type) for n, values in keys.items()},
        _EXPIRED, [fields[number].name for number in live.partial if number in fields], live.deletes,
        [found.warning] if found.warning else [],
    )  # fmt: skip


@contextmanager
def _reading(shown: Path, file: Any) -> Iterator[None]:
    """Turn errors of the package, whose kinds are many, into a DataError."""
    try:
        yield
    except (StreamtrainError, MemoryError):
        raise
    except Exception as error:
        line = " ".join(str(error).split())[:300]
        raise DataError(
            f"{shown}: is an Iceberg table, but {file} cannot be read: {type(error).__name__}: {line}"
        ) from error


def _declared(metadata: Any, schema: Any, title: str, keys: set[int]) -> Declared:
    renamed = _renamed_inside(metadata)
    columns, defaults = [], {}
    for each in schema.fields:
        kind, problem = arrow_type(each.field_type), None
        if kind is None:
            problem = f"{each.field_type} is a type of Iceberg that streamtrain does not read"
        elif each.field_id in renamed:
            problem = renamed_inside(each.name, title)
        field = with_codes(pa.field(each.name, kind or pa.null(), not each.required))
        columns.append(field.with_metadata({PROBLEM: problem.encode()}) if problem else field)
        if each.initial_default is not None and kind is not None:
            defaults[each.name] = _default(each.initial_default, kind)
    names = metadata.properties.get(_NAME_MAPPING)
    readable = [each.field_id not in keys and bool(arrow_type(each.field_type)) for each in schema.fields]
    return Declared(pa.schema(columns), _Stored([f.field_id for f in schema.fields], readable, names, title), defaults)


def _renamed_inside(metadata: Any) -> set[int]:
    """The columns whose inner fields have had other names, or numbers, in some version of the table."""
    names: dict[tuple[int, int], str] = {}
    numbers: dict[tuple[int, str], int] = {}
    renamed: set[int] = set()
    for schema in metadata.schemas:
        for column in schema.fields:
            for number, path in _inside(column.field_type, ""):
                same = names.setdefault((column.field_id, number), path) == path
                if not same or numbers.setdefault((column.field_id, path), number) != number:
                    renamed.add(column.field_id)
    return renamed


def _inside(kind: Any, before: str) -> Iterator[tuple[int, str]]:
    """The numbers and paths of the fields inside of a type."""
    for field in getattr(kind, "fields", ()):
        yield field.field_id, f"{before}.{field.name}"
        yield from _inside(field.field_type, f"{before}.{field.name}")


def _default(value: Any, kind: pa.DataType) -> pa.Scalar:
    """The value of a column in files that are older than the column, as JSON has it."""
    t = pa.types
    if t.is_binary(kind) or t.is_fixed_size_binary(kind):
        return pa.scalar(value if isinstance(value, bytes) else bytes.fromhex(value), kind)
    if isinstance(value, str) and not t.is_string(kind):
        text = pa.scalar(value)
        return text.cast(pa.timestamp(kind.unit, kind.tz)) if t.is_timestamp(kind) else text.cast(kind)
    return pa.scalar(value, kind)


def _values(values: Sequence[Any], kind: Any) -> pa.Array:
    """The values of a partition, one for each file: dates and times are stored as integers."""
    arrow = arrow_type(kind)
    assert arrow is not None
    if pa.types.is_date32(arrow):
        return pa.array(values, pa.int32()).cast(arrow)
    if pa.types.is_temporal(arrow):
        return pa.array(values, pa.int64()).cast(arrow)
    if isinstance(arrow, pa.UuidType):
        return pa.array([None if value is None else value.bytes for value in values], pa.binary(16)).cast(arrow)
    return pa.array(values, arrow)


class _Stored:
    """Finds the columns in a file by their numbers; in a file without any by the names that the table gives to such files."""

    def __init__(self, numbers: Sequence[int], readable: Sequence[bool], names: str | None, title: str) -> None:
        self._numbers, self._readable, self._title = numbers, readable, title
        mapped = [] if names is None else json.loads(names)
        self._names = {each.get("field-id"): each["names"] for each in mapped}
        self._is_mapped = names is not None

    def __call__(self, schema: pa.Schema) -> list[str | None]:
        by_number = {(field.metadata or {}).get(_FIELD_ID): field.name for field in schema}
        if any(by_number):
            found = [by_number.get(str(number).encode()) for number in self._numbers]
        elif self._is_mapped:
            present = set(schema.names)
            found = [next(filter(present.__contains__, self._names.get(n, ())), None) for n in self._numbers]
        else:
            raise SchemaError(
                f"the {self._title} has a file whose columns have no numbers ({listed(schema.names)}), and no "
                f"{_NAME_MAPPING}: set that property of the table"
            )
        return [name if is_readable else None for name, is_readable in zip(found, self._readable, strict=True)]
