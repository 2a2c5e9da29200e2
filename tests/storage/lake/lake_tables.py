"""Delta and Iceberg tables for the tests: by their own packages, and by hand what these do not write."""

from __future__ import annotations

import json
import struct
import uuid
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyroaring import BitMap

__all__ = ["adds", "commit", "deletion_vector", "iceberg_table", "inline_vector", "roaring", "rows_of", "stored_vector"]

_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
MAGIC = 1681511377


def rows_of(reader: Any, columns: Sequence[str] | None = None, *, streamed: int = 0) -> list[dict[str, Any]]:
    """All rows of a reader, in the order of their text."""
    names = list(reader.schema.names if columns is None else columns)
    rows: list[dict[str, Any]] = []
    for chunk in reader.chunks():
        read = reader.read(chunk, names)
        batches = (
            list(reader.stream(chunk, names, streamed))
            if streamed
            else read.to_batches()
            if isinstance(read, pa.Table)
            else [read]
        )
        assert sum(batch.num_rows for batch in batches) == chunk.rows
        rows += [row for batch in batches for row in batch.to_pylist()]
    return sorted(rows, key=repr)


# -- Delta -------------------------------------------------------------------------------------------------------------


def commit(root: Path, version: int, actions: Iterable[dict[str, Any]]) -> None:
    """Write a version of the log."""
    path = root / "_delta_log" / f"{version:020}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, actions)), encoding="utf-8")


def adds(root: Path, version: int) -> list[dict[str, Any]]:
    """What a version of the log adds."""
    lines = (root / "_delta_log" / f"{version:020}.json").read_text(encoding="utf-8").splitlines()
    return [action["add"] for action in map(json.loads, lines) if "add" in action]


def protocol(*features: str) -> dict[str, Any]:
    return {
        "protocol": {
            "minReaderVersion": 3,
            "minWriterVersion": 7,
            "readerFeatures": features,
            "writerFeatures": features,
        }
    }


def z85(data: bytes) -> str:
    """As https://rfc.zeromq.org/spec/32/ writes bytes."""
    text = ""
    for at in range(0, len(data), 4):
        value, letters = int.from_bytes(data[at : at + 4], "big"), ""
        for _ in range(5):
            letters, value = _Z85[value % 85] + letters, value // 85
        text += letters
    return text


def roaring(rows: Iterable[int], *, runs: bool = False) -> bytes:
    """A bitmap of 64 bits behind the number that both formats begin with."""
    by_high: dict[int, list[int]] = {}
    for row in rows:
        by_high.setdefault(row >> 32, []).append(row & 0xFFFFFFFF)
    data = struct.pack("<IQ", MAGIC, len(by_high))
    for high, low in sorted(by_high.items()):
        bitmap = BitMap(low)
        if runs:
            bitmap.run_optimize()
        data += struct.pack("<I", high) + bitmap.serialize()
    return data


def stored_vector(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data + struct.pack(">I", zlib.crc32(data))


def inline_vector(rows: Sequence[int]) -> dict[str, Any]:
    data = roaring(rows)
    padded = data + b"\0" * (-len(data) % 4)
    return {"storageType": "i", "pathOrInlineDv": z85(padded), "sizeInBytes": len(data), "cardinality": len(rows)}


def deletion_vector(
    root: Path, rows: Sequence[int], *, prefix: str = "", before: bytes = b"\1", runs: bool = False
) -> dict[str, Any]:
    """Write a deletion vector to a file of the table. before: what stands in front of it."""
    data, name = roaring(rows, runs=runs), uuid.uuid4()
    path = root / prefix / f"deletion_vector_{name}.bin"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(before + stored_vector(data))
    return {
        "storageType": "u", "pathOrInlineDv": prefix + z85(name.bytes), "offset": len(before), "sizeInBytes": len(data),
        "cardinality": len(rows),
    }  # fmt: skip


def delete_by_vectors(root: Path, version: int, vectors: Iterable[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """Commit a version in which rows of files are deleted. vectors: the action that has added a file, and its vector."""
    actions = [protocol("deletionVectors")]
    for add, vector in vectors:
        gone = {name: add[name] for name in ("path", "partitionValues", "size")}
        old = {"deletionVector": add["deletionVector"]} if add.get("deletionVector") else {}
        actions.append(
            {"remove": gone | old | {"deletionTimestamp": 0, "dataChange": True, "extendedFileMetadata": True}}
        )
        actions.append({"add": add | {"deletionVector": vector}})
    commit(root, version, actions)


# -- Iceberg -----------------------------------------------------------------------------------------------------------


def iceberg_table(root: Path, schema: Any, spec: Any = None, **properties: str) -> Any:
    """An Iceberg table of the package, which commits to its folder without a catalog."""
    from pyiceberg.catalog.noop import NoopCatalog
    from pyiceberg.io.pyarrow import PyArrowFileIO
    from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
    from pyiceberg.serializers import ToOutputFile
    from pyiceberg.table import CommitTableResponse, Table
    from pyiceberg.table.metadata import new_table_metadata
    from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
    from pyiceberg.table.update import update_table_metadata

    io, location = PyArrowFileIO(), root.absolute().as_uri()

    def written(metadata: Any, number: int) -> str:
        place = f"{location}/metadata/{number:05}-{uuid.uuid4()}.metadata.json"
        ToOutputFile.table_metadata(metadata, io.new_output(place))
        return place

    class Folder(NoopCatalog):
        def commit_table(self, table: Any, requirements: Any, updates: Any) -> Any:
            for requirement in requirements:
                requirement.validate(table.metadata)
            changed = update_table_metadata(table.metadata, updates)
            number = int(table.metadata_location.rsplit("/", 1)[1].split("-")[0]) + 1
            place = written(changed, number)
            self.newest = Table(("t",), changed, place, io, self)
            return CommitTableResponse(metadata=changed, metadata_location=place)

        def load_table(self, identifier: Any) -> Any:
            return self.newest

    metadata = new_table_metadata(
        schema, UNPARTITIONED_PARTITION_SPEC if spec is None else spec, UNSORTED_SORT_ORDER, location, dict(properties)
    )
    return Table(("t",), metadata, written(metadata, 0), io, Folder("folder"))
