"""Delta tables: the rows are those that the package deltalake reads itself."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from lake_tables import adds, commit, delete_by_vectors, deletion_vector, inline_vector, protocol, rows_of

from streamtrain.errors import CorruptError, DataError, NotFoundError, UsageError
from streamtrain.storage import open_reader


def by_package(root: Path, version: int | None = None) -> list[dict[str, Any]]:
    """The rows, as the package reads them with its own engine."""
    return sorted(pa.table(DeltaTable(root, version=version).scan()).to_pylist(), key=repr)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six versions: appended, deleted, updated, a column added, merged, compacted."""
    root = tmp_path_factory.mktemp("delta") / "t"
    write_deltalake(
        root, pa.table({"id": range(10), "k": ["a"] * 5 + ["b"] * 5, "x": np.arange(10.0)}), partition_by=["k"]
    )
    write_deltalake(root, pa.table({"id": range(10, 14), "k": ["b", "c", "a", None], "x": np.zeros(4)}), mode="append")
    DeltaTable(root).delete("id % 3 = 1")
    DeltaTable(root).update(predicate="id = 6", updates={"x": "60.5"})
    more = pa.table({"id": [20], "k": ["b"], "x": [2.0], "new": ["later"]})
    write_deltalake(root, more, mode="append", schema_mode="merge")
    DeltaTable(root).optimize.compact()
    return root


def test_every_version_has_the_rows_of_the_package(history: Path) -> None:
    for version in range(DeltaTable(history).version() + 1):
        expected = by_package(history, version)
        assert rows_of(open_reader(history, table_version=version)) == expected
        assert rows_of(open_reader(f"{history}@{version}"), streamed=2) == expected
    assert rows_of(open_reader(history)) == by_package(history)
    assert open_reader(history).schema.names == [field.name for field in DeltaTable(history).schema().fields]
    assert len(list(history.rglob("*.parquet"))) > len(open_reader(history).stored_files[1])


def test_one_partition_of_columns_only(history: Path) -> None:
    reader = open_reader(history)
    assert rows_of(reader, ["k"]) == sorted(({"k": row["k"]} for row in by_package(history)), key=repr)
    assert rows_of(pickle.loads(pickle.dumps(reader))) == by_package(history)


def test_order_and_fingerprint_do_not_depend_on_the_log(history: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(history, tmp_path / "elsewhere")
    before = open_reader(history)
    files = before.stored_files[1]
    assert files == sorted(files, key=lambda name: name.split("/"))
    DeltaTable(copy).create_checkpoint()
    (copy / "_delta_log" / f"{0:020}.json").unlink()
    assert open_reader(copy).stored_files[1] == files
    assert (
        open_reader(copy).fingerprint() == before.fingerprint() != open_reader(history, table_version=3).fingerprint()
    )


def test_types_of_partitions(tmp_path: Path) -> None:
    rows = {
        "s": ["a b%/ü", "c=d", None], "i": [7, 8, None], "d": [date(2024, 1, 1), None, date(2024, 1, 3)],
        "t": [datetime(2024, 1, 1, 2, 3, 4, 5, UTC)] * 3, "b": [True, False, None], "m": [Decimal("1.50")] * 3, "x": [1, 2, 3],
    }  # fmt: skip
    write_deltalake(tmp_path / "t", pa.table(rows), partition_by=list("sidtbm"))
    assert rows_of(open_reader(tmp_path / "t")) == by_package(tmp_path / "t")


def test_a_time(history: Path, tmp_path: Path) -> None:
    root, start = shutil.copytree(history, tmp_path / "t"), datetime(2024, 1, 1, tzinfo=UTC)
    for path in (root / "_delta_log").glob("*.json"):
        seconds = (start + timedelta(days=int(path.stem))).timestamp()
        os.utime(path, (seconds, seconds))
    for time, version in (
        ("2024-01-01", 0),
        ("2024-01-02T23:00:00Z", 1),
        ("2024-01-03T00:00:00+02:00", 1),
        ("2030-01-01", 5),
    ):
        assert open_reader(root, as_of=time).title == f"Delta table, version {version}"
        package = DeltaTable(root)
        package.load_as_version(
            datetime.fromisoformat(time).astimezone(UTC) if "T" in time else datetime.fromisoformat(time + "T00:00Z")
        )
        assert package.version() == version
    with pytest.raises(
        NotFoundError, match=r"begins later: its first commit is of 2024-01-01T00:00:00\+00:00, version 0"
    ):
        open_reader(root, as_of="2023-12-31")  # the package gives version 0
    with pytest.raises(UsageError, match=r"--as-of soon: must be a time"):
        open_reader(root, as_of="soon")


def test_versions_that_are_not_there(history: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"version 99 .* it has the versions 0 to 5"):
        open_reader(history, table_version=99)
    with pytest.raises(UsageError, match="names a version itself: leave out --table-version 1"):
        open_reader(f"{history}@2", table_version=1)
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "b@2")
    assert len(open_reader(tmp_path / "b@2").chunks()) == 1
    for target, flags in (
        (f"{tmp_path}/a.parquet@1", {}),
        (tmp_path, {"as_of": "2024-01-01"}),
        ({"x": [1]}, {"table_version": 1}),
    ):
        with pytest.raises(UsageError, match=r"is no folder of a Delta or Iceberg table"):
            open_reader(target, **flags)


def test_vacuum(history: Path, tmp_path: Path) -> None:
    root = shutil.copytree(history, tmp_path / "t")
    DeltaTable(root).vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert rows_of(open_reader(root)) == by_package(root)
    with pytest.raises(NotFoundError, match=r"Delta table, version 1 needs the file k=.*VACUUM removes"):
        open_reader(root, table_version=1)


# -- deletion vectors --------------------------------------------------------------------------------------------------


def with_vectors(root: Path) -> Path:
    """A table with two files, of three row groups and of one; rows of the first are deleted, twice in a row."""
    write_deltalake(root, pa.table({"x": range(1_500), "k": ["a"] * 1_500}), partition_by=["k"])
    write_deltalake(root, pa.table({"x": range(5), "k": ["b"] * 5}), mode="append")
    (large,), (small,) = adds(root, 0), adds(root, 1)
    pq.write_table(pq.read_table(root / large["path"], partitioning=None), root / large["path"], row_group_size=600)
    large["size"] = os.path.getsize(root / large["path"])
    lines = [json.loads(line) for line in (root / f"_delta_log/{0:020}.json").read_text().splitlines()]
    commit(root, 0, [{"add": large} if "add" in line else line for line in lines])
    first = deletion_vector(root, [0, 700, 1_499])
    delete_by_vectors(root, 2, [(large, first)])
    gone = [*range(0, 1_500, 2), *range(600, 1_200)]
    second = deletion_vector(root, sorted(set(gone)), prefix="ab", before=b"\1 something else", runs=True)
    delete_by_vectors(root, 3, [(large | {"deletionVector": first}, second), (small, inline_vector([1, 3]))])
    return root


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_vectors(tmp_path_factory.mktemp("vectors") / "t")


def test_deletion_vectors(vectors: Path) -> None:
    for version in (1, 2, 3):
        reader = open_reader(vectors, table_version=version)
        assert rows_of(reader) == by_package(vectors, version)
    kept = [chunk.rows for chunk in reader.chunks()]
    assert kept == [300, 0, 150, 3]
    assert rows_of(reader, streamed=70) == by_package(vectors)
    assert rows_of(reader, ["k"]) == [{"k": "a"}] * 450 + [{"k": "b"}] * 3
    together = reader.read_together([reader.chunks()[i] for i in (0, 2, 3)], ["x"])
    expected = [*range(1, 600, 2), *range(1_201, 1_500, 2), 0, 2, 4]
    assert together.column("x").to_pylist() == expected
    assert rows_of(pickle.loads(pickle.dumps(reader))) == by_package(vectors)


def test_deletion_vectors_behind_a_checkpoint(vectors: Path, tmp_path: Path) -> None:
    root = shutil.copytree(vectors, tmp_path / "t")
    table = DeltaTable(root)
    table.create_checkpoint()
    for version in range(4):
        (root / "_delta_log" / f"{version:020}.json").unlink()
    commit(root, 4, [{"commitInfo": {"timestamp": 0}}])
    assert rows_of(open_reader(root)) == by_package(root) == by_package(vectors)
    assert open_reader(root).fingerprint() != open_reader(vectors).fingerprint()  # another version


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (lambda v, root: v | {"cardinality": 4}, r"the log says that 4 of its rows are deleted, but 3 are"),
        (lambda v, root: v | {"offset": 2}, r"the deletion vector at byte 2 is damaged: restore the file"),
        (lambda v, root: v | {"storageType": "x"}, r"deletion vectors of the kind 'x' are not known"),
        (lambda v, root: deletion_vector(root, [0, 1_500]), r"row 1,500 is deleted, but the file has 1,500 rows"),
        (lambda v, root: deletion_vector(root, [0, 1 << 33]), r"row 8,589,934,592 is deleted, but the file has 1,500 rows"),
        (lambda v, root: inline_vector([1]) | {"sizeInBytes": 20}, r"the list of its deleted rows is damaged"),
        (lambda v, root: {**v, "storageType": "p", "pathOrInlineDv": f"file://{root}/none.bin"}, r"none.bin, cannot be read"),
    ],
)  # fmt: skip
def test_damaged_deletion_vectors(vectors: Path, tmp_path: Path, vector: Any, message: str) -> None:
    root = shutil.copytree(vectors, tmp_path / "t")
    (large,) = list(adds(root, 2))
    delete_by_vectors(root, 4, [(adds(root, 3)[0], vector(large["deletionVector"], root))])
    with pytest.raises(DataError, match=message):
        open_reader(root)


# -- features ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["name", "id"])
def test_column_mapping(tmp_path: Path, mode: str) -> None:
    """Renamed, swapped and dropped columns: the files keep the old names."""
    root = tmp_path / "t"
    for name, start in (("a", 0), ("b", 10)):
        fields = [
            pa.field(n if mode == "name" else f"stored {n}", pa.int64(), metadata={"PARQUET:field_id": str(i)})
            for i, n in ((1, "p1"), (2, "p2"), (3, "gone"))
        ]
        values = [range(start, start + 3), range(start + 100, start + 103), [9] * 3]
        root.mkdir(exist_ok=True)
        pq.write_table(pa.table(list(map(pa.array, values)), schema=pa.schema(fields)), root / f"{name}.parquet")

    def column(name: str, number: int, physical: str, kind: str = "long") -> dict[str, Any]:
        about = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": physical}
        return {"name": name, "type": kind, "nullable": True, "metadata": about}

    def metadata(*fields: dict[str, Any]) -> dict[str, Any]:
        schema = json.dumps({"type": "struct", "fields": fields})
        return {"metaData": {
            "id": "9ef85a62", "format": {"provider": "parquet", "options": {}}, "schemaString": schema,
            "partitionColumns": ["p1"], "configuration": {"delta.columnMapping.mode": mode}, "createdTime": 0,
        }}  # fmt: skip

    def add(name: str, value: str) -> dict[str, Any]:
        path = root / f"{name}.parquet"
        about = {"path": path.name, "size": path.stat().st_size, "modificationTime": 0, "dataChange": True}
        return {"add": about | {"partitionValues": {"key-1": value}, "stats": '{"numRecords": 3}'}}

    fields = [
        column("p2", 1, "p1"),
        column("p1", 4, "key-1", "string"),
        column("p1 again", 2, "p2"),
        column("new", 5, "p5"),
    ]
    commit(root, 0, [protocol("columnMapping"), metadata(*fields), add("b", "1"), add("a", "x")])
    if mode == "name":  # by number the package finds only columns that have the name, too
        assert rows_of(open_reader(root)) == by_package(root)
    expected = [(start + i, key, start + i + 100) for start, key in ((0, "x"), (10, "1")) for i in range(3)]
    rows = [{"p2": a, "p1": k, "p1 again": b, "new": None} for a, k, b in expected]
    assert rows_of(open_reader(root)) == sorted(rows, key=repr)


def test_wider_types(tmp_path: Path) -> None:
    root = tmp_path / "t"
    write_deltalake(root, pa.table({"x": pa.array([1, 2], pa.int32()), "f": pa.array([0.5, 1.5], pa.float32())}))
    lines = [json.loads(line) for line in (root / f"_delta_log/{0:020}.json").read_text().splitlines()]
    about = next(line["metaData"] for line in lines if "metaData" in line)
    schema = about["schemaString"].replace('"integer"', '"long"').replace('"float"', '"double"')
    commit(root, 1, [protocol("typeWidening"), {"metaData": about | {"schemaString": schema}}])
    write_deltalake(tmp_path / "more", pa.table({"x": [1 << 40], "f": [0.1]}))
    (more,) = adds(tmp_path / "more", 0)
    shutil.copy(tmp_path / "more" / more["path"], root)
    commit(root, 2, [{"add": more}])
    reader = open_reader(root)
    assert [str(field.type) for field in reader.schema] == ["int64", "double"]
    assert rows_of(reader) == [{"x": x, "f": f} for x, f in ((1, 0.5), (1 << 40, 0.1), (2, 1.5))]  # the package refuses


def test_unknown_features_are_named(history: Path, tmp_path: Path) -> None:
    for feature in ("variantType", "somethingNew"):
        root = shutil.copytree(history, tmp_path / feature)
        commit(root, 6, [protocol(feature)])
        with pytest.raises(DataError, match=rf"Delta table.*{feature}"):
            open_reader(root)


def test_a_version_that_is_named_does_not_decide_for_another_source(history: Path) -> None:
    newest = open_reader(history).snapshots  # type: ignore[attr-defined]
    for sources in ([str(history), f"{history}@0"], [f"{history}@0", str(history)]):
        assert open_reader(sources).snapshots == newest  # type: ignore[attr-defined]


def test_a_file_that_is_not_in_the_table_is_not_opened(history: Path, tmp_path: Path) -> None:
    root = shutil.copytree(history, tmp_path / "t")
    (root / "k=a/left-over.parquet").write_bytes(b"half written")
    live = set(open_reader(root).stored_files[1])
    for path in root.rglob("*.parquet"):
        if path.relative_to(root).as_posix() not in live:
            path.write_bytes(b"garbage")
    assert rows_of(open_reader(root)) == by_package(history)
    (root / next(iter(live))).write_bytes(b"garbage")
    with pytest.raises(CorruptError, match=r"has 7 bytes, but [0-9,]+ in the log of the Delta table, version 5"):
        open_reader(root)


def test_without_the_package(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "deltalake", None)
    with pytest.raises(DataError, match=r"pip install 'streamtrain\[delta\]'"):
        open_reader(history)


def test_a_log_that_says_nothing(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    (tmp_path / "_delta_log").mkdir()
    with pytest.raises(DataError, match="is a Delta table, whose log cannot be read"):
        open_reader(tmp_path)
