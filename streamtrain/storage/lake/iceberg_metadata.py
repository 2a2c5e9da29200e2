"""Which metadata file of an Iceberg table counts, without a catalog; and the snapshot at a moment."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from streamtrain.errors import CorruptError, DataError, NotFoundError, listed
from streamtrain.storage.lake.moments import Moment, shown_time

__all__ = ["Found", "find_metadata", "schema_and_snapshot"]

_HINT = "version-hint.text"
_METADATA = re.compile(r"v?([0-9]+)(?:-[^/]*)?(?:\.gz)?\.metadata\.json(?:\.gz)?")


class Found(NamedTuple):
    """The metadata file of a table. root: the folder of the table. warning: why another one may be meant, or ""."""

    root: Path
    file: Path
    warning: str = ""


def find_metadata(target: Path) -> Found:
    """The metadata file of a table's folder: the one that its version hint names, or the one with the highest number; or the
    one that is the target. Raises DataError if several have the highest number."""
    if target.is_file():
        return Found(target.absolute().parent.parent, target)
    folder = target / "metadata"
    hint = folder / _HINT
    if hint.is_file():
        return Found(target, _hinted(folder, hint.read_text(encoding="utf-8").strip()))
    by_number: dict[int, list[str]] = {}
    for name in sorted(os.listdir(folder)):
        if match := _METADATA.fullmatch(name):
            by_number.setdefault(int(match[1]), []).append(name)
    if not by_number:
        raise DataError(
            f"{target}: is an Iceberg table, but nothing in {folder} is named as a metadata file: give its path"
        )
    highest = by_number[max(by_number)]
    if len(highest) > 1:
        raise DataError(
            f"{target}: is an Iceberg table, and without a catalog nothing says which of {listed(highest)} in {folder} is the "
            "current one: give the path of that file"
        )
    return Found(
        target,
        folder / highest[0],
        f"{target}: is an Iceberg table without {_HINT}: its metadata file with the highest number, {highest[0]}, was read; if "
        "its catalog has another, give the path of that file",
    )


def _hinted(folder: Path, hint: str) -> Path:
    if not hint.isdecimal():
        name = hint if hint.endswith(".metadata.json") else f"{hint}.metadata.json"
        named = [name] if "/" not in name else []
    else:
        number = int(hint)
        while _of_version(
            folder, number + 1
        ):  # the hint is written after the file, and may be missing for the last one
            number += 1
        named = _of_version(folder, number)
    found = next((folder / name for name in named if (folder / name).is_file()), None)
    if found is None:
        raise CorruptError(f"{folder / _HINT}: names the metadata {hint[:80]!r}, of which there is no file: restore it")
    return found


def _of_version(folder: Path, number: int) -> list[str]:
    names = (f"v{number}.metadata.json", f"v{number}.gz.metadata.json", f"v{number}.metadata.json.gz")
    return [name for name in names if (folder / name).is_file()]


def schema_and_snapshot(shown: str, metadata: Any, moment: Moment) -> tuple[Any, Any]:
    """The schema and the snapshot at a moment. Raises NotFoundError if the table has none, or no more."""
    table_id = str(metadata.table_uuid)
    pinned = moment.snapshots.get(table_id) if moment.version is None else None
    if pinned is not None:
        snapshot_id, _, schema_id = pinned.partition("/")
        return _schema(shown, metadata, int(schema_id or 0)), _snapshot(shown, metadata, int(snapshot_id))
    if moment.version is not None:
        snapshot = _snapshot(shown, metadata, moment.version)
    elif moment.time is not None:
        snapshot = _snapshot(shown, metadata, _id_at(shown, metadata, moment.time))
    elif metadata.current_snapshot_id is None:
        raise NotFoundError(f"{shown}: is an Iceberg table without a snapshot: it has no rows")
    else:
        current = _snapshot(shown, metadata, metadata.current_snapshot_id)
        return _schema(shown, metadata, metadata.current_schema_id), current
    schema_id = metadata.current_schema_id if snapshot.schema_id is None else snapshot.schema_id
    return _schema(shown, metadata, schema_id), snapshot


def _schema(shown: str, metadata: Any, schema_id: int) -> Any:
    for schema in metadata.schemas:
        if schema.schema_id == schema_id:
            return schema
    raise CorruptError(f"{shown}: the metadata of this Iceberg table have no schema {schema_id}: restore them")


def _snapshot(shown: str, metadata: Any, snapshot_id: int) -> Any:
    for snapshot in metadata.snapshots:
        if snapshot.snapshot_id == snapshot_id:
            return snapshot
    has = listed(each.snapshot_id for each in metadata.snapshots[-10:])
    raise NotFoundError(
        f"{shown}: this Iceberg table has no snapshot {snapshot_id}; it may have expired. The newest that it has: {has}"
    )


def _id_at(shown: str, metadata: Any, time: datetime) -> int:
    """The snapshot that was the current one at a time."""
    log = sorted((entry.timestamp_ms, entry.snapshot_id) for entry in metadata.snapshot_log)
    before = [snapshot_id for ms, snapshot_id in log if ms <= time.timestamp() * 1000]
    if not before:
        first = shown_time(datetime.fromtimestamp(log[0][0] / 1000, UTC)) if log else "none"
        raise NotFoundError(
            f"{shown}: --as-of {shown_time(time)}: the log of this Iceberg table begins later: its first snapshot is of {first}"
        )
    return int(before[-1])
