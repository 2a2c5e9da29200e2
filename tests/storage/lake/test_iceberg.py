"""Iceberg tables: the rows are those that the package pyiceberg reads itself."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lake_tables import iceberg_table, roaring, rows_of, stored_vector
from pyiceberg.avro.file import AvroOutputFile
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestWriterV2,
    data_file_with_partition,
    manifest_entry_schema_with_data_file,
    write_manifest_list,
)
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.table.update import AddSnapshotUpdate, SetSnapshotRefUpdate
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record
from pyiceberg.types import (
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    NestedField,
    StringType,
    StructType,
    TimestamptzType,
)

from streamtrain.errors import CorruptError, DataError, NotFoundError
from streamtrain.storage import open_reader


def by_package(table: Any, snapshot_id: int | None = None) -> list[dict[str, Any]]:
    return sorted(table.scan(snapshot_id=snapshot_id).to_arrow().to_pylist(), key=repr)


def root_of(table: Any) -> Path:
    return Path(table.location().removeprefix("file://"))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A table with a history: appended, deleted, columns renamed, swapped, dropped, added and made wider, overwritten."""
    schema = Schema(
        NestedField(1, "id", IntegerType()), NestedField(2, "k", StringType()), NestedField(3, "d", DateType()),
        NestedField(4, "f", FloatType()), NestedField(5, "m", DecimalType(5, 2)), NestedField(6, "t", TimestamptzType()),
    )  # fmt: skip
    spec = PartitionSpec(
        PartitionField(2, 1000, IdentityTransform(), "k"), PartitionField(3, 1001, IdentityTransform(), "d")
    )
    made = iceberg_table(tmp_path_factory.mktemp("iceberg") / "t", schema, spec)

    def rows(start: int, keys: list[str | None]) -> pa.Table:
        count = range(len(keys))
        return pa.table({
            "id": pa.array([start + i for i in count], pa.int32()), "k": keys, "d": [date(2024, 1, 1 + i % 2) for i in count],
            "f": pa.array([i + 0.5 for i in count], pa.float32()),
            "m": pa.array([Decimal("1.50")] * len(keys), pa.decimal128(5, 2)),
            "t": pa.array([datetime(2024, 1, 1, 2, 3, 4, 5, UTC)] * len(keys), pa.timestamp("us", "UTC")),
        })  # fmt: skip

    made.append(rows(0, ["a b%/ü", "c=d", None, "e", "e"]))
    made.append(rows(10, ["e", "f", None]))
    made.delete("id == 3")
    with made.update_schema() as change:
        change.rename_column("id", "k1")
        change.rename_column("m", "id")
        change.delete_column("t")
        change.add_column("new", LongType())
        change.update_column("f", DoubleType())
    with made.update_schema() as change:
        change.update_column("k1", LongType())
    made.append(made.scan().to_arrow().slice(0, 1))
    return made


def test_every_snapshot_has_the_rows_of_the_package(table: Any) -> None:
    root = root_of(table)
    assert len(table.metadata.snapshots) == 4
    for snapshot in table.metadata.snapshots:
        reader = open_reader(f"{root}@{snapshot.snapshot_id}")
        assert rows_of(reader) == by_package(table, snapshot.snapshot_id)
    reader = open_reader(root)
    assert rows_of(reader, streamed=1) == by_package(table)
    assert reader.schema.names == ["k1", "k", "d", "f", "id", "new"]
    files = reader.stored_files[1]
    assert files == sorted(files, key=lambda name: name.split("/"))


def test_a_table_that_was_copied(table: Any, tmp_path: Path) -> None:
    root = shutil.copytree(root_of(table), tmp_path / "elsewhere")
    expected, reader = rows_of(open_reader(root)), open_reader(root_of(table))
    assert expected == by_package(table) and open_reader(root).fingerprint() == reader.fingerprint()
    for path in root.rglob("*.parquet"):
        if path.relative_to(root).as_posix() not in reader.stored_files[1]:
            path.write_bytes(b"garbage")
    assert rows_of(open_reader(root)) == expected


def test_a_time(table: Any) -> None:
    first, second = table.metadata.snapshots[:2]
    ms = second.timestamp_ms - 1 if second.timestamp_ms > first.timestamp_ms else first.timestamp_ms
    reader = open_reader(root_of(table), as_of=datetime.fromtimestamp(ms / 1000, UTC))
    assert reader.title == f"Iceberg table, snapshot {(second if ms == second.timestamp_ms else first).snapshot_id}"
    with pytest.raises(
        NotFoundError, match=r"--as-of 2020-01-01T00:00:00\+00:00: the log of this Iceberg table begins later"
    ):
        open_reader(root_of(table), as_of="2020-01-01")
    with pytest.raises(NotFoundError, match=r"no snapshot 7; it may have expired"):
        open_reader(root_of(table), table_version=7)


# -- which metadata counts ---------------------------------------------------------------------------------------------


def test_without_a_catalog(table: Any, tmp_path: Path) -> None:
    root = shutil.copytree(root_of(table), tmp_path / "t")
    folder, current = root / "metadata", by_package(table)
    files = sorted(folder.glob("*.metadata.json"))
    assert any("without version-hint.text: its metadata" in warning for warning in open_reader(root).warnings([]))
    assert rows_of(open_reader(files[-1])) == current and not open_reader(files[-1]).warnings([])
    assert rows_of(open_reader(files[2])) == by_package(table, table.metadata.snapshots[1].snapshot_id)

    (folder / "version-hint.text").write_text(files[1].name)
    assert rows_of(open_reader(root)) == by_package(table, table.metadata.snapshots[0].snapshot_id)
    for number in (6, 7):
        shutil.copy(files[-1], folder / f"v{number}.metadata.json")
    (folder / "version-hint.text").write_text("4\n")
    with pytest.raises(CorruptError, match=r"names the metadata '4', of which there is no file"):
        open_reader(root)
    (folder / "version-hint.text").write_text("6")
    reader = open_reader(root)
    assert rows_of(reader) == current and not reader.warnings([])

    (folder / "version-hint.text").unlink()
    shutil.copy(files[0], folder / "00007-other.metadata.json")
    with pytest.raises(
        DataError, match=r"which of '00007-other.metadata.json', 'v7.metadata.json' in .* give the path"
    ):
        open_reader(root)


def test_files_that_are_gone(table: Any, tmp_path: Path) -> None:
    root = shutil.copytree(root_of(table), tmp_path / "t")
    (root / open_reader(root).stored_files[1][0]).unlink()
    with pytest.raises(NotFoundError, match=r"Iceberg table, snapshot [0-9]+ needs the file data/.*expired snapshots"):
        open_reader(root)
    for path in (root / "metadata").glob("*.avro"):
        path.unlink()
    with pytest.raises(NotFoundError, match=r"Iceberg table, snapshot [0-9]+ needs the file .*\.avro"):
        open_reader(root)


def test_without_the_package(table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyiceberg", None)
    with pytest.raises(DataError, match=r"pip install 'streamtrain\[iceberg\]'"):
        open_reader(root_of(table))


# -- files of other writers --------------------------------------------------------------------------------------------


def test_files_without_numbers(tmp_path: Path) -> None:
    """Files of a Hive table that became an Iceberg table: names count, and the partition stands only in the folders."""
    outside = tmp_path / "hive/k=x/a.parquet"
    outside.parent.mkdir(parents=True)
    pq.write_table(pa.table({"x": pa.array([1, 2], pa.int64()), "other": [1, 1]}), outside)
    schema = Schema(NestedField(1, "x", LongType()), NestedField(2, "k", StringType()))
    spec = PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "k"))
    table = iceberg_table(tmp_path / "t", schema, spec)
    table.append(pa.table({"x": [7], "k": ["y"]}))
    mapping = json.dumps([{"field-id": 1, "names": ["z", "x"]}, {"field-id": 2, "names": ["k"]}])
    entry = data_file(outside, partition=Record("x"), rows=2)
    change_by_hand(table, [entry])
    with pytest.raises(
        DataError, match=r"columns have no numbers \('x', 'other'\), and no schema.name-mapping.default"
    ):
        open_reader(tmp_path / "t")
    with table.transaction() as change:
        change.set_properties({"schema.name-mapping.default": mapping})
    reader = open_reader(tmp_path / "t")
    assert rows_of(reader) == [{"x": 1, "k": "x"}, {"x": 2, "k": "x"}, {"x": 7, "k": "y"}]
    assert reader.stored_files[1][0] == "../hive/k=x/a.parquet"


def test_a_default_of_a_column_that_came_later(table: Any, tmp_path: Path) -> None:
    root = shutil.copytree(root_of(table), tmp_path / "t")
    newest = max((root / "metadata").glob("*.metadata.json"))
    metadata = json.loads(newest.read_text())
    metadata["format-version"], metadata["next-row-id"] = 3, 0
    current = next(s for s in metadata["schemas"] if s["schema-id"] == metadata["current-schema-id"])
    for number, (kind, value) in enumerate(
        (("date", "2024-02-03"), ("long", 5), ("string", "five"), ("decimal(4, 1)", "2.5"))
    ):
        current["fields"].append(
            {"id": 50 + number, "name": f"more {number}", "type": kind, "required": False, "initial-default": value}
        )
    newest.write_text(json.dumps(metadata))
    row = rows_of(open_reader(root))[0]
    assert [row[f"more {n}"] for n in range(4)] == [date(2024, 2, 3), 5, "five", Decimal("2.5")]


# -- deletes -----------------------------------------------------------------------------------------------------------

NO_PARTITION = Record()


def data_file(
    path: Path, *, partition: Record = NO_PARTITION, rows: int, content: int = 0, kind: str = "PARQUET", **more: Any
) -> DataFile:  # fmt: skip
    about = {
        "content": DataFileContent(content), "file_path": str(path), "file_format": FileFormat[kind], "partition": partition,
        "record_count": rows, "file_size_in_bytes": os.path.getsize(path), "column_sizes": {}, "value_counts": {},
        "null_value_counts": {}, "nan_value_counts": {}, "lower_bounds": {}, "upper_bounds": {}, "split_offsets": None,
        "key_metadata": None, "equality_ids": None, "sort_order_id": None, "spec_id": 0,
    }  # fmt: skip
    return DataFile.from_args(_table_format_version=3 if more else 2, **about | more)


class DeleteManifests(ManifestWriterV2):
    """Writes a manifest of deletes."""

    def content(self) -> ManifestContent:
        return ManifestContent.DELETES


class DeleteManifestsV3(DeleteManifests):
    """With the fields of version 3, which the package reads but does not write."""

    def __init__(self, spec: Any, schema: Any, file: Any, *more: Any) -> None:
        super().__init__(spec, schema, file, *more)
        self.file, self.about = (
            file,
            {"schema": schema.model_dump_json(), "partition-spec": "[]", "partition-spec-id": "0"},
        )

    def new_writer(self) -> Any:
        kind = data_file_with_partition(StructType(), 3)
        schema = manifest_entry_schema_with_data_file(3, kind)
        about = self.about | {"format-version": "3", "content": "deletes"}
        return AvroOutputFile(self.file, schema, "manifest_entry", schema, about)


def change_by_hand(
    table: Any, files: list[DataFile], writer: Callable[..., ManifestWriterV2] = ManifestWriterV2
) -> None:
    """Commit a snapshot with a manifest more."""
    io, folder, before = table.io, f"{table.location()}/metadata", table.current_snapshot()
    number = table.metadata.last_sequence_number + 1
    snapshot_id, place = 1_000 + number, f"{folder}/by-hand-{number}"
    with writer(table.spec(), table.schema(), io.new_output(f"{place}.avro"), snapshot_id, "null") as manifest:
        for file in files:
            manifest.add(
                ManifestEntry.from_args(status=ManifestEntryStatus.ADDED, snapshot_id=snapshot_id, data_file=file)
            )
    made = manifest.to_manifest_file()
    with write_manifest_list(
        2, io.new_output(f"{place}-list.avro"), snapshot_id, before.snapshot_id, number, "null"
    ) as manifests:
        manifests.add_manifests([made, *before.manifests(io)])
    snapshot = Snapshot(
        snapshot_id=snapshot_id, parent_snapshot_id=before.snapshot_id, sequence_number=number,
        manifest_list=f"{place}-list.avro", summary=Summary(Operation.OVERWRITE), schema_id=table.schema().schema_id,
    )  # fmt: skip
    newest = SetSnapshotRefUpdate(ref_name="main", type="branch", snapshot_id=snapshot_id)
    table.catalog.commit_table(table, (), (AddSnapshotUpdate(snapshot=snapshot), newest))
    table.refresh()


@pytest.fixture
def plain(tmp_path: Path) -> Any:
    """Two files of 1,000 and 10 rows, the first of four row groups."""
    table = iceberg_table(
        tmp_path / "t", Schema(NestedField(1, "x", LongType())), **{"write.parquet.row-group-limit": "250"}
    )
    table.append(pa.table({"x": range(1_000)}))
    table.append(pa.table({"x": range(1_000, 1_010)}))
    return table


def paths_of(table: Any) -> list[str]:
    files = table.inspect.files().to_pylist()
    return [each["file_path"] for each in sorted(files, key=lambda each: -each["record_count"])]


def positions(table: Any, name: str, rows: list[tuple[str, int]]) -> DataFile:
    """A file of position deletes."""
    path = root_of(table) / f"data/{name}.parquet"
    columns = [[file for file, _ in sorted(rows)], [row for _, row in sorted(rows)]]
    pq.write_table(pa.table(columns, names=["file_path", "pos"]), path)
    return data_file(path, rows=len(rows), content=1)


def values_of(table: Any, **how: Any) -> list[int]:
    return sorted(row["x"] for row in rows_of(open_reader(root_of(table)), **how))


def test_position_deletes(plain: Any) -> None:
    first, second = paths_of(plain)
    gone = [*range(100), 499, 500, 999]
    change_by_hand(
        plain,
        [positions(plain, "p1", [(first, row) for row in gone] + [(second, 3), ("file:///none", 1)])],
        DeleteManifests,
    )
    expected = sorted(row["x"] for row in by_package(plain))
    assert values_of(plain) == values_of(plain, streamed=7) == expected
    assert len(expected) == 1_010 - len(gone) - 1
    assert [chunk.rows for chunk in open_reader(root_of(plain)).chunks() if chunk.rows > 9] == [150, 249, 249, 249]
    plain.append(pa.table({"x": [0]}))  # older deletes do not matter to it
    assert values_of(plain) == sorted([0, *expected])


def test_deletion_vectors(plain: Any) -> None:
    first, second = paths_of(plain)
    change_by_hand(plain, [positions(plain, "p1", [(first, 1), (second, 2)])], DeleteManifests)
    gone, puffin = list(range(0, 1_000, 3)), root_of(plain) / "data/v.puffin"
    blob = stored_vector(roaring(gone, runs=True))
    puffin.write_bytes(b"PFA1" + blob + b"footer")
    vector = {
        "referenced_data_file": first,
        "content_offset": 4,
        "content_size_in_bytes": len(blob),
        "first_row_id": None,
    }
    change_by_hand(plain, [data_file(puffin, rows=len(gone), content=1, kind="PUFFIN", **vector)], DeleteManifestsV3)
    assert values_of(plain) == [*(set(range(1_000)) - set(gone)), *(row for row in range(1_000, 1_010) if row != 1_002)]
    puffin.write_bytes(b"PFA1" + blob[:-1] + b"\0footer")
    with pytest.raises(CorruptError, match=r"v.puffin: the deletion vector at byte 4 is damaged"):
        open_reader(root_of(plain))


def test_deletes_do_not_matter_to_newer_files(plain: Any) -> None:
    path = root_of(plain) / "data/again.parquet"
    kind = pa.field("x", pa.int64(), metadata={"PARQUET:field_id": "1"})
    pq.write_table(pa.table([pa.array([7, 8])], schema=pa.schema([kind])), path)
    change_by_hand(plain, [positions(plain, "p1", [(str(path), 0)])], DeleteManifests)
    change_by_hand(plain, [data_file(path, rows=2)])
    assert values_of(plain) == sorted([*range(1_010), 7, 8])


def test_equality_deletes_are_named(plain: Any) -> None:
    path = root_of(plain) / "data/e.parquet"
    pq.write_table(pa.table({"x": [1]}), path)
    change_by_hand(plain, [data_file(path, rows=1, content=2)], DeleteManifests)
    with pytest.raises(
        DataError, match=r"deleted by equal values \(an equality delete\), which streamtrain does not apply"
    ):
        open_reader(root_of(plain))


def test_other_formats_are_named(plain: Any) -> None:
    path = root_of(plain) / "data/o.orc"
    path.write_bytes(b"ORC")
    change_by_hand(plain, [data_file(path, rows=1, kind="ORC")])
    with pytest.raises(DataError, match=r"a file in the format ORC, o.orc: only Parquet files are read"):
        open_reader(root_of(plain))
