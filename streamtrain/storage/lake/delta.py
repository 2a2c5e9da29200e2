"""Delta tables, https://github.com/delta-io/delta/blob/master/PROTOCOL.md: the package ``deltalake`` reads the log."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable

from streamtrain.errors import DataError, NotFoundError
from streamtrain.storage.files.columns import PROBLEM, Declared
from streamtrain.storage.lake.delta_vectors import deletion_vectors
from streamtrain.storage.lake.moments import Moment, shown_time
from streamtrain.storage.lake.snapshot import LiveFile, Snapshot, local_path, name_below, renamed_inside, with_codes

__all__ = ["delta_snapshot"]

_LOG = "_delta_log"
_COMMIT = re.compile(r"([0-9]{20})\.json")
_READER_VERSIONS = range(1, 4)
_FEATURES = frozenset(
    ("columnMapping", "deletionVectors", "timestampNtz", "typeWidening", "typeWidening-preview", "v2Checkpoint",
     "vacuumProtocolCheck")
)  # fmt: skip
_VACUUMED = (
    "VACUUM removes what no recent version needs: read a later version, or restore the file (a longer "
    "delta.deletedFileRetentionDuration keeps such files)"
)
_PHYSICAL_NAME, _PHYSICAL_ID = "delta.columnMapping.physicalName", "delta.columnMapping.id"
_FIELD_ID = b"PARQUET:field_id"


def delta_snapshot(root: Path, moment: Moment) -> Snapshot:
    """The snapshot of a Delta table. Raises DataError for a table that cannot be read, or that has no version of the moment."""
    address = os.path.abspath(root)
    if unquote(address) != address:
        raise DataError(
            f"{root}: is a Delta table, and the package deltalake cannot read one below a folder with a % in its name: rename "
            "that folder"
        )
    table = _open(root, moment.version)
    table_id = str(table.metadata().id)
    if moment.version is None:
        pinned = moment.snapshots.get(table_id)
        wanted = (
            int(pinned.partition("/")[0])
            if pinned is not None
            else None
            if moment.time is None
            else _version_at(root, moment.time)
        )
        if wanted is not None and wanted != table.version():
            table = _open(root, wanted)
    return _snapshot(root, table, table_id)


def _open(root: Path, version: int | None) -> DeltaTable:
    """A version of a table, by default the current one. The errors of the package are of many kinds."""
    try:
        return DeltaTable(Path(os.path.abspath(root)).as_uri(), version=version)
    except MemoryError:
        raise
    except Exception as error:
        numbers = sorted(_commits(root))
        has = f"it has the versions {numbers[0]} to {numbers[-1]}" if numbers else "its log has no version"
        if version is not None and version not in numbers:
            raise NotFoundError(
                f"{root}: version {version} of this Delta table cannot be read: {has}; the log of older ones may have been "
                f"removed ({_first_line(error)})"
            ) from error
        raise DataError(f"{root}: is a Delta table, whose log cannot be read: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _snapshot(root: Path, table: DeltaTable, table_id: str) -> Snapshot:
    version = int(table.version())
    title = f"Delta table, version {version}"
    protocol, configuration = table.protocol(), table.metadata().configuration
    features = set(protocol.reader_features or ())
    if protocol.min_reader_version not in _READER_VERSIONS or not features <= _FEATURES:
        unknown = ", ".join(sorted(features - _FEATURES)) or f"reader version {protocol.min_reader_version}"
        raise DataError(
            f"{root}: the {title} needs {unknown}, which streamtrain cannot read: write a copy without it, or as Parquet files"
        )
    actions = pa.table(table.get_add_actions()).combine_chunks()
    paths = actions.column("path").to_pylist()
    names = [_name(root, path) for path in paths]
    order = sorted(range(len(names)), key=lambda i: names[i].split("/"))
    sizes = actions.column("size_bytes").to_pylist()
    mapping = configuration.get("delta.columnMapping.mode", "none")
    schema = pa.schema(table.schema().to_arrow())
    described = {each["name"]: each for each in json.loads(table.schema().to_json())["fields"]}
    keys = list(table.metadata().partition_columns)
    columns = [_declared(field, described[field.name], title, is_mapped=mapping != "none") for field in schema]
    deletes = []
    if "deletionVectors" in features:
        deletes = deletion_vectors(root, version, dict(zip(paths, names, strict=True)))
    return Snapshot(
        root, title, str(version), table_id, [LiveFile(names[i], sizes[i]) for i in order],
        Declared(pa.schema(columns), _Stored([described[name] for name in schema.names], mapping, keys)),
        {key: _values(actions, schema.field(key), described[key]).take(pa.array(order, pa.int64())) for key in keys},
        _VACUUMED, deletes=deletes,
    )  # fmt: skip


def _name(root: Path, path: str) -> str:
    """The name of a file from its path in the log, which is part of a URL."""
    location = local_path(path, str(root))
    return name_below(root, os.path.join(os.path.abspath(root), unquote(location)))


def _declared(field: pa.Field, described: Mapping[str, Any], title: str, *, is_mapped: bool) -> pa.Field:
    """A column of the data. A problem, where its inner fields have other names in the files."""
    declared = with_codes(pa.field(field.name, field.type, field.nullable))
    if is_mapped and _is_renamed(described["type"]):
        return declared.with_metadata({PROBLEM: renamed_inside(field.name, title).encode()})
    return declared


def _is_renamed(kind: Any) -> bool:
    """Whether fields inside of a type have other names in the files."""
    if not isinstance(kind, dict):
        return False
    inner = kind.get("fields", [])
    if any(each["metadata"].get(_PHYSICAL_NAME, each["name"]) != each["name"] for each in inner):
        return True
    return any(
        map(_is_renamed, [*(each["type"] for each in inner), *map(kind.get, ("elementType", "keyType", "valueType"))])
    )


class _Stored:
    """Finds the columns in a file: by the number of the field, by the name in the files, or by the name."""

    def __init__(self, described: list[dict[str, Any]], mapping: str, keys: list[str]) -> None:
        self._is_key = [each["name"] in keys for each in described]  # such a value stands in the log
        about = [each["metadata"] for each in described]
        self._ids = [str(each[_PHYSICAL_ID]).encode() for each in about] if mapping == "id" else []
        names = [each["name"] for each in described]
        self._names = (
            names if mapping == "none" else [a.get(_PHYSICAL_NAME, n) for a, n in zip(about, names, strict=True)]
        )

    def __call__(self, schema: pa.Schema) -> list[str | None]:
        by_id = {(field.metadata or {}).get(_FIELD_ID): field.name for field in schema}
        if self._ids and any(by_id):
            found = [by_id.get(number) for number in self._ids]
        else:
            found = [name if name in schema.names else None for name in self._names]
        return [None if is_key else name for name, is_key in zip(found, self._is_key, strict=True)]


def _values(actions: pa.Table, field: pa.Field, described: Mapping[str, Any]) -> pa.Array:
    """The values of a partition column in each file."""
    values = actions.column("partition").combine_chunks()
    values = values.chunk(0) if isinstance(values, pa.ChunkedArray) else values
    names = {each.name for each in values.type}
    name = field.name if field.name in names else described["metadata"].get(_PHYSICAL_NAME, field.name)
    return values.field(name).cast(field.type)


# -- versions and times ------------------------------------------------------------------------------------------------


def _commits(root: Path) -> dict[int, Path]:
    """The commits whose log is still there, by version."""
    found = {path: _COMMIT.fullmatch(path.name) for path in (root / _LOG).iterdir()}
    return {int(match[1]): path for path, match in found.items() if match}


def _version_at(root: Path, time: datetime) -> int:
    """The last version that was committed at this time. Raises NotFoundError if there is none."""
    commits = _commits(root)
    times = np.array([_commit_time(commits[version]) for version in sorted(commits)], np.float64)
    # a clock may have been set back: then a commit counts from the time of the one before it
    before = np.flatnonzero(np.maximum.accumulate(times) <= time.timestamp())
    if not len(before):
        first = f"{shown_time(datetime.fromtimestamp(times[0], UTC))}, version {min(commits)}" if len(times) else "none"
        raise NotFoundError(
            f"{root}: --as-of {shown_time(time)}: the log of this Delta table begins later: its first commit is of {first}"
        )
    return sorted(commits)[int(before[-1])]


def _commit_time(path: Path) -> float:
    """Seconds: as the commit says, if the table keeps times in commits; otherwise when the file was written."""
    with open(path, "rb") as file:
        first = file.readline()
    said = json.loads(first).get("commitInfo", {}).get("inCommitTimestamp") if b'"inCommitTimestamp"' in first else None
    return os.stat(path).st_mtime_ns / 1e9 if said is None else float(said) / 1000
