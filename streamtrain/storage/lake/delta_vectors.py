"""Deletion vectors of Delta tables. The package that reads the log gives them as lists with a value for each row; so their
places are looked up in the log here."""

from __future__ import annotations

import base64
import json
import os
import re
import uuid
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow.parquet as pq

from streamtrain.errors import CorruptError, DataError, NotFoundError
from streamtrain.storage.lake.snapshot import BitmapOf, StoredDeletes, local_path

__all__ = ["deletion_vectors"]

_LOG = "_delta_log"
_CHECKPOINT = re.compile(r"([0-9]{20})\.checkpoint(?:\.([0-9]{10})\.([0-9]{10})|\.[0-9a-f-]{36})?\.(parquet|json)")
_BATCH_ROWS = 10_000
_UUID_TEXT = 20  # letters of 16 bytes
# The alphabet of https://rfc.zeromq.org/spec/32/, in which the log writes bytes; Python knows another one with 85 letters.
_Z85 = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_B85 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
_TO_B85 = bytes.maketrans(_Z85, _B85)


def deletion_vectors(root: Path, version: int, live: Mapping[str, str]) -> list[StoredDeletes]:
    """The deletion vectors of a version. live: the name of each live file, by its path in the log."""
    left, found = dict(live), []
    for path, vector in _added(root, version):
        name = left.pop(path, None)  # the last time that the log adds a file counts
        if name is not None and vector:
            identity = json.dumps([name, *map(vector.get, _FIELDS)])
            found.append(StoredDeletes(identity, _Vector(root, name, vector)))
        if not left:
            break
    if left:
        raise CorruptError(
            f"{root / _LOG}: says no more what was deleted in {next(iter(left.values()))}: restore the log"
        )
    return sorted(found, key=lambda each: each.identity)


_FIELDS = ("storageType", "pathOrInlineDv", "offset", "sizeInBytes", "cardinality")


class _Vector:
    """Reads one deletion vector."""

    def __init__(self, root: Path, name: str, vector: Mapping[str, Any]) -> None:
        self._root, self._name, self._vector = root, name, dict(vector)

    def __call__(self, bitmap_of: BitmapOf) -> None:
        if (bitmap := bitmap_of(self._name)) is not None:
            bitmap.add_stored(self._bytes())
            bitmap.require_count(self._vector["cardinality"])

    def _bytes(self) -> bytes:
        kind, place, nbytes = (self._vector[name] for name in ("storageType", "pathOrInlineDv", "sizeInBytes"))
        if kind == "i":
            return self._decoded(place)[:nbytes]
        if kind == "u":
            prefix, text = place[:-_UUID_TEXT], place[-_UUID_TEXT:]
            path = self._root / prefix / f"deletion_vector_{uuid.UUID(bytes=self._decoded(text))}.bin"
        elif kind == "p":
            path = Path(unquote(local_path(place, str(self._root))))
        else:
            raise DataError(
                f"{self._root}: deletion vectors of the kind {kind!r} are not known: write a copy without them"
            )
        return _from_file(path, int(self._vector.get("offset") or 0), nbytes, self._root)

    def _decoded(self, text: str) -> bytes:
        try:
            return base64.b85decode(text.encode("ascii").translate(_TO_B85))
        except ValueError as error:
            raise CorruptError(
                f"{self._root / _LOG}: the deletion vector of {self._name} is damaged: restore the log"
            ) from error


def _from_file(path: Path, offset: int, nbytes: int, root: Path) -> bytes:
    """The bytes of a deletion vector, which stand between their number and their checksum."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            stored = file.read(nbytes + 8)
    except OSError as error:
        raise NotFoundError(
            f"{root}: the file with the deleted rows, {path.name}, cannot be read ({error.strerror}): restore it, or read a "
            "later version"
        ) from error
    data = stored[4:-4]
    checksum = int.from_bytes(stored[-4:], "big")
    if len(data) != nbytes or int.from_bytes(stored[:4], "big") != nbytes or zlib.crc32(data) != checksum:
        raise CorruptError(f"{path}: the deletion vector at byte {offset:,} is damaged: restore the file")
    return data


# -- the log -----------------------------------------------------------------------------------------------------------


def _added(root: Path, version: int) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """The path of each added file and its deletion vector, the newest first."""
    folder = root / _LOG
    first, checkpoint = _newest_checkpoint(folder, version)
    for number in range(version, first, -1):
        path = folder / f"{number:020}.json"
        try:
            yield from _of_json(path)
        except FileNotFoundError as error:
            raise CorruptError(f"{path}: is missing in the log of the table: restore it") from error
    for path in checkpoint:
        yield from _of_checkpoint(folder, path)


def _newest_checkpoint(folder: Path, version: int) -> tuple[int, list[Path]]:
    """The newest version with a whole checkpoint, and its files; -1 if there is none."""
    found: dict[tuple[int, int], list[Path]] = {}
    for name in sorted(os.listdir(folder)):
        match = _CHECKPOINT.fullmatch(name)
        if match and int(match[1]) <= version and os.path.getsize(folder / name):
            number, parts = int(match[1]), int(match[3] or 1)
            if parts > 1:
                found.setdefault((number, parts), []).append(folder / name)
            else:
                found[number, 1] = [folder / name]
    whole = {number: paths for (number, parts), paths in sorted(found.items()) if len(paths) == parts}
    newest = max(whole, default=-1)
    return newest, whole.get(newest, [])


def _of_json(path: Path) -> Iterator[tuple[str, dict[str, Any] | None]]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            if '"add"' in line and (add := json.loads(line).get("add")):
                yield add["path"], add.get("deletionVector")


def _of_checkpoint(folder: Path, path: Path) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """The added files of a checkpoint; those of one of the second version may be in files beside it."""
    if path.suffix == ".json":
        with open(path, encoding="utf-8") as file:
            beside = [action["sidecar"]["path"] for action in map(json.loads, file) if action.get("sidecar")]
        yield from _of_json(path)
    else:
        yield from _of_parquet(path)
        beside = [action["path"] for action in _actions(path, "sidecar", ["path"])]
    for each in beside:
        yield from _of_parquet(folder / "_sidecars" / unquote(each))


def _of_parquet(path: Path) -> Iterator[tuple[str, dict[str, Any] | None]]:
    for add in _actions(path, "add", ["path", "deletionVector"]):
        yield add["path"], add.get("deletionVector")


def _actions(path: Path, kind: str, wanted: list[str]) -> Iterator[dict[str, Any]]:
    """Actions of a kind in a Parquet file, with the fields that it has of those wanted."""
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        if kind not in schema.names:
            return
        inner = [f"{kind}.{name}" for name in wanted if schema.field(kind).type.get_field_index(name) >= 0]
        for batch in file.iter_batches(_BATCH_ROWS, columns=inner, use_threads=False):
            yield from filter(None, batch.column(0).to_pylist())
