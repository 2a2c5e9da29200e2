from __future__ import annotations

import datetime
import decimal
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from make import examples, in_forks

from streamtrain.errors import ColumnError, CorruptError, DataError, NotFoundError, SchemaError
from streamtrain.storage import open_reader
from streamtrain.storage.arrow import as_batches
from streamtrain.storage.parquet.reader import ParquetReader
from streamtrain.storage.reader import Reader, Streams
from streamtrain.train.job import Job, Settings

CORPORA = Path(__file__).parents[2] / ".." / "shared" / "corpora"
FILES = sorted(p for p in CORPORA.rglob("*") if ".parquet" in p.name and p.suffix != ".json" and p.is_file())


def table(rows: int = 1000, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table({"x": rng.normal(size=rows), "z": rng.normal(size=rows).astype("f4"), "y": np.arange(rows) % 3})


def write(path: Path, data: pa.Table | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table() if data is None else data, path, **options)
    return path


def read(reader: ParquetReader, columns: list[str] | None = None) -> pa.Table:
    names = columns or reader.schema.names
    return pa.Table.from_batches([b for c in reader.chunks() for b in as_batches(reader.read(c, names))])


def rows(reader: ParquetReader, columns: list[str] | None = None) -> list[dict[str, Any]]:
    return list(read(reader, columns).to_pylist())


def test_a_row_group_is_a_chunk(tmp_path: Path) -> None:
    data = table(1000)
    reader = ParquetReader(write(tmp_path / "a b#é:1.parquet", data, row_group_size=300))
    assert isinstance(reader, Reader) and isinstance(reader, Streams)
    chunks = reader.chunks()
    assert [c.rows for c in chunks] == [300, 300, 300, 100]
    assert [c.key for c in chunks] == [f"a b#é:1.parquet:{g}" for g in range(4)]
    assert [c.decoded_bytes for c in chunks] == [6000, 6000, 6000, 2000]
    assert read(reader).equals(data)
    batch = reader.read(chunks[3], ["y", "x"])
    assert batch.schema.names == ["y", "x"] and batch.num_rows == 100


def test_hundreds_of_files(tmp_path: Path) -> None:
    for i in range(300):
        write(tmp_path / f"d{i % 7}" / f"{i:03d}.parquet", pa.table({"i": [i, i]}))
    reader = ParquetReader(tmp_path)
    assert len(reader.chunks()) == len(reader.stored_files[1]) == 300
    assert sorted(read(reader)["i"].to_pylist()) == sorted([*range(300), *range(300)])


def test_only_the_columns_asked_for_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", compression="none", use_dictionary=False, write_page_checksum=True)
    column = pq.read_metadata(path).row_group(0).column(1)
    assert column.path_in_schema == "z"
    raw = bytearray(path.read_bytes())
    start = column.data_page_offset
    raw[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(raw)
    reader = ParquetReader(path)
    assert read(reader, ["x", "y"]).equals(table().select(["x", "y"]))
    with pytest.raises(CorruptError, match=r"a\.parquet: row group 0 cannot be read"):
        read(reader, ["z"])


def test_a_flipped_bit_in_a_page_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", compression="none", use_dictionary=False, write_page_checksum=True)
    raw = bytearray(path.read_bytes())
    raw[pq.read_metadata(path).row_group(0).column(0).data_page_offset + 500] ^= 1
    path.write_bytes(raw)
    for ask in (read, lambda r: list(r.stream(r.chunks()[0], ["x"], 10))):
        with pytest.raises(CorruptError, match="CRC"):
            ask(ParquetReader(path))


def test_partitions_become_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for year in (2024, 2025):
        for kind in ("a%20b", "__HIVE_DEFAULT_PARTITION__"):
            write(tmp_path / f"year={year}" / f"kind={kind}" / "f.parquet", pa.table({"x": [float(year), 0.5]}))
    reader = ParquetReader(tmp_path)
    assert reader.schema.names == ["x", "year", "kind"] and reader.schema.field("year").type == pa.int64()
    found = rows(reader)
    assert [r["kind"] for r in found] == [None, None, "a b", "a b"] * 2
    assert [r["year"] for r in found] == [2024] * 4 + [2025] * 4
    # alone they cost no file, and a stream cuts them as it cuts others
    chunk = reader.chunks()[2]
    monkeypatch.setattr(reader._handles, "lend", lambda *_: pytest.fail("a file was opened"))
    assert reader.read(chunk, ["kind", "year"]).to_pydict() == {"kind": [None] * 2, "year": [2025] * 2}
    assert [b.to_pydict() for b in reader.stream(chunk, ["year"], 1)] == [{"year": [2025]}] * 2


def test_a_partition_that_the_file_holds_too_has_the_folder_s_type(tmp_path: Path) -> None:
    write(tmp_path / "k=1" / "f.parquet", pa.table({"k": pa.array([1, 1], pa.int8()), "x": [7, 8]}))
    write(tmp_path / "k=2" / "f.parquet", pa.table({"k": ["2"], "x": [9]}))
    reader = ParquetReader(tmp_path)
    assert reader.schema.field("k").type == pa.int64()
    assert rows(reader) == [{"k": 1, "x": 7}, {"k": 1, "x": 8}, {"k": 2, "x": 9}]
    write(tmp_path / "k=3" / "f.parquet", pa.table({"k": [3, 7], "x": [1, 1]}))
    reader = ParquetReader(tmp_path)
    assert len(reader.read(reader.chunks()[2], ["x"])) == 2  # who does not ask for k need not know
    with pytest.raises(SchemaError, match=r"k=3/f.parquet: column 'k' has the value 7, but the folder .* says k=3"):
        reader.read(reader.chunks()[2], ["k"])


def test_partitions_as_target_and_as_feature(tmp_path: Path) -> None:
    from streamtrain import fit

    rng = np.random.default_rng(0)
    for label in ("no", "yes"):
        for level in (1, 5):
            x = rng.normal(size=200) + 4 * (label == "yes")
            write(tmp_path / f"label={label}" / f"level={level}" / "f.parquet", pa.table({"x": x}))
    result = fit(tmp_path, target="label")
    assert result.model.classes == ("no", "yes") and result.model.layout.features == ("x", "level")
    assert result.report.metrics["progressive"]["accuracy"] > 0.8
    assert fit(tmp_path, target="level", exclude=["label"]).model.classes == (1, 5)


SCALARS = {
    **{
        str(kind): pa.array([1, 2, 3], pa.int64()).cast(kind)
        for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
    },
    "half": pa.array(np.array([1, 2, 3], np.float16)),
    "float": pa.array([1.5, 2, 3], pa.float32()),
    "double": pa.array([1.5, 2, 3]),
    "bool": pa.array([True, False, True]),
    "decimal": pa.array([decimal.Decimal("1.25"), decimal.Decimal("2"), decimal.Decimal("3")]),
    "decimal256": pa.array([decimal.Decimal("1.25")] * 3, pa.decimal256(40, 2)),
    "category": pa.array([1, 2, 3]).dictionary_encode(),
    "string": pa.array(["a", "b", "a"]),
    "large": pa.array(["a", "b", "a"], pa.large_string()),
    "labels": pa.array(["a", "b", "a"]).dictionary_encode(),
    "binary": pa.array([b"a", b"b", b"c"]),
    "fixed": pa.array([b"ab"] * 3, pa.binary(2)),
    "date": pa.array([datetime.date(2020, 1, 1)] * 3),
    "time": pa.array([datetime.time(1, 2)] * 3),
    "timestamp": pa.array([datetime.datetime(2020, 1, 1)] * 3),
    "zoned": pa.array([datetime.datetime(2020, 1, 1)] * 3, pa.timestamp("us", "UTC")),
    "duration": pa.array([datetime.timedelta(1)] * 3),
    "null": pa.nulls(3),
}
ROLES = dict.fromkeys(SCALARS, "number") | {
    **dict.fromkeys(("string", "large", "labels", "binary", "fixed"), "category"),
    **dict.fromkeys(("date", "time", "timestamp", "zoned"), "time"),
    "null": "ignore",
}
NESTED = {
    "lists": pa.array([[[1, 2]]] * 3),
    "structs": pa.array([[{"a": 1}]] * 3),
    "map": pa.array([[("a", [1])]] * 3, pa.map_(pa.string(), pa.list_(pa.int64()))),
}


def test_all_scalar_types_are_listed_and_read(tmp_path: Path) -> None:
    data = pa.table(SCALARS | {"a.b": [1, 2, 3], "a": [4, 5, 6]})
    reader = ParquetReader(write(tmp_path / "a.parquet", data, row_group_size=2))
    assert reader.schema.names == data.column_names
    for name in data.column_names:
        found = read(reader, [name])
        assert found.column_names == [name] and found.schema.field(name).type == reader.schema.field(name).type
        assert found[name].to_pylist() == data[name].to_pylist()
    assert read(reader).to_pylist() == data.to_pylist()


@pytest.mark.parametrize("name", [name for name in SCALARS if name != "null"])
def test_every_type_of_one_value_is_a_feature(tmp_path: Path, name: str) -> None:
    many = pa.concat_tables([pa.table({"v": SCALARS[name], "y": [0, 1, 0]})] * 20)
    job = Job.open(write(tmp_path / "a.parquet", many), Settings("y"))
    assert job.model.layout.features == ("v",) and job.plan.rows == 60
    assert job.model.layout.columns[0].role == ROLES[name]
    from streamtrain import evaluate, fit

    assert fit(tmp_path / "a.parquet", target="y", out=tmp_path / "r").report.rows == 60
    assert evaluate(tmp_path / "r", tmp_path / "a.parquet")["rows"] == 60


def test_tensors_are_features_of_many_numbers(tmp_path: Path) -> None:
    kind = pa.fixed_shape_tensor(pa.float32(), [2, 2])
    flat = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(4000, dtype=np.float32)), 4)
    data = pa.table({"t": pa.ExtensionArray.from_storage(kind, flat), "y": np.arange(1000) % 2})
    job = Job.open(write(tmp_path / "a.parquet", data), Settings("y"))
    assert job.model.layout.number_names == ["t[0,0]", "t[0,1]", "t[1,0]", "t[1,1]"]


def test_what_is_nested_is_refused_by_name(tmp_path: Path) -> None:
    data = pa.table(SCALARS | NESTED | {"y": [0, 1, 0]})
    path = write(tmp_path / "a.parquet", data)
    assert set(NESTED) <= set(open_reader(path).schema.names)
    for name in NESTED:
        with pytest.raises(ColumnError, match=f"'{name}' .*--exclude {name}, or split it"):
            Job.open(path, Settings("y", features=["double", name]))
    with pytest.raises(ColumnError, match="--exclude ") as caught:
        Job.open(path, Settings("y"))
    left_out = str(caught.value).rpartition("--exclude ")[2].partition(", or split")[0].split(",")
    assert left_out == list(NESTED)
    columns = Job.open(path, Settings("y", exclude=left_out)).model.layout.columns
    assert {column.name: column.role for column in columns} | {"null": "ignore"} == ROLES
    for name in NESTED:
        with pytest.raises(DataError, match=f"target '{name}' (is|has a list of 2)"):
            Job.open(path, Settings(name, features=["double"]))


def _footer(path: Path, change: Callable[[bytes], bytes]) -> None:
    raw = path.read_bytes()
    size = int.from_bytes(raw[-8:-4], "little")
    footer = change(raw[-8 - size : -8])
    path.write_bytes(raw[: -8 - size] + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def _varint(n: int) -> bytes:
    out = bytearray()
    n <<= 1  # zigzag
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


def test_counts_in_footers(tmp_path: Path) -> None:
    data = pa.table({"x": np.arange(5000), "y": np.arange(5000) % 2})
    path = write(tmp_path / "a.parquet", data, row_group_size=3000, store_schema=False, write_statistics=False)
    whole = b"\x16" + _varint(5000)  # thrift: field + 1, i64

    def total(n: int) -> Callable[[bytes], bytes]:
        def change(footer: bytes) -> bytes:
            assert footer.count(whole) == 1
            return footer.replace(whole, b"\x16" + _varint(n))

        return change

    original = path.read_bytes()
    _footer(path, total(0))  # some writers leave it
    assert pq.read_metadata(path).num_rows == 0
    assert read(ParquetReader(path)).num_rows == 5000
    path.write_bytes(original)
    _footer(path, total(4999))
    with pytest.raises(
        CorruptError, match=r"a\.parquet: the footer declares 4,999 rows, but its row groups have 5,000"
    ):
        ParquetReader(path)
    # a row group that gives another number than it says: the sum agrees, what arrives does not
    path.write_bytes(original)
    groups = b"\x16" + _varint(3000), b"\x16" + _varint(2000)
    _footer(path, lambda f: b"".join([f.rpartition(groups[0])[0], groups[1], f.rpartition(groups[0])[2]]))
    try:
        reader = ParquetReader(path)
    except CorruptError:
        return  # noticed by the sum
    with pytest.raises(CorruptError, match=r"gave|cannot be read"):
        read(reader)


def test_a_row_group_that_gives_other_rows_than_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = ParquetReader(write(tmp_path / "a.parquet", row_group_size=400))
    chunk = reader.chunks()[2]
    wrong = type(chunk)(chunk.key, chunk.rows + 1, chunk.decoded_bytes, chunk.read_peak_bytes)
    with pytest.raises(CorruptError, match=r"a\.parquet: row group 2 has 200 rows, but the footer declares 201"):
        reader.read(wrong, ["x"])
    with pytest.raises(CorruptError, match="has 200 rows"):
        list(reader.stream(wrong, ["x"], 64))


def test_empty_row_groups_and_files(tmp_path: Path) -> None:
    with pq.ParquetWriter(tmp_path / "a.parquet", table().schema) as writer:
        writer.write_table(table(10))
        writer.write_table(table(0))
        writer.write_table(table(5))
    write(tmp_path / "b.parquet", table(0))
    reader = ParquetReader(tmp_path)
    assert reader.chunks().total_rows == 15
    assert sum(b.num_rows for c in reader.chunks() for b in as_batches(reader.read(c, ["y", "x"]))) == 15
    assert sum(b.num_rows for c in reader.chunks() for b in reader.stream(c, ["y", "x"], 4)) == 15
    with pytest.raises(NotFoundError, match=r"b\.parquet: has no rows"):
        Job.open(str(tmp_path / "b.parquet"), Settings("y"))


def test_another_order_of_columns_and_nullability_is_the_same_schema(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    fields = [pa.field(f.name, f.type, nullable=False) for f in reversed(table().schema)]
    write(tmp_path / "b.parquet", table().select(["y", "z", "x"]).cast(pa.schema(fields)))
    assert read(ParquetReader(tmp_path)).to_pydict() == pa.concat_tables([table(), table()]).to_pydict()


def test_names_that_are_not_unique(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]))
    with pytest.raises(SchemaError, match="more than one column is named 'a'"):
        ParquetReader(path)


@examples(40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keep=st.floats(0, 0.999))
def test_truncated_anywhere(tmp_path: Path, keep: float) -> None:
    path = write(tmp_path / "a.parquet", row_group_size=100)
    raw = path.read_bytes()
    path.write_bytes(raw[: max(1, int(keep * len(raw)))])
    with pytest.raises(CorruptError, match=r"a\.parquet: not a Parquet file, or a damaged one") as caught:
        ParquetReader(path)
    assert "\n" not in str(caught.value)


def test_not_parquet(tmp_path: Path) -> None:
    for content in (b"", b"x", b"a,b\n1,2\n" * 100, b"PAR1" * 4, os.urandom(5000)):
        (tmp_path / "a.csv").write_bytes(content)
        with pytest.raises(CorruptError, match=r"a\.csv: not a Parquet file, or a damaged one"):
            ParquetReader(tmp_path / "a.csv")


@pytest.mark.parametrize("plain_footer", [False, True])
def test_encrypted(tmp_path: Path, plain_footer: bool) -> None:
    class Kms(pe.KmsClient):  # type: ignore[misc]
        def wrap_key(self, key: bytes, name: str) -> bytes:
            return key.hex().encode()

        def unwrap_key(self, key: bytes, name: str) -> bytes:
            return bytes.fromhex(key.decode())

    config = pe.EncryptionConfiguration("k", column_keys={"k": ["x"]}, plaintext_footer=plain_footer)
    keys = pe.CryptoFactory(lambda _: Kms()).file_encryption_properties(pe.KmsConnectionConfig(), config)
    path = write(tmp_path / "a.parquet", encryption_properties=keys)
    if plain_footer:  # what is not encrypted can be read; what is names the file, and does not abort the process
        reader = ParquetReader(path)
        with pytest.raises(CorruptError, match=r"a\.parquet: row group 0 cannot be read: it is encrypted"):
            read(reader, ["x"])
    else:
        with pytest.raises(CorruptError, match=r"a\.parquet: its footer is encrypted: read a copy"):
            ParquetReader(path)


def test_files_that_are_gone_or_replaced(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", row_group_size=300)
    reader = pickle.loads(pickle.dumps(ParquetReader(path)))
    path.unlink()
    with pytest.raises(CorruptError, match=r"a\.parquet: .*cannot be found any more"):
        read(reader)


def test_pickling(tmp_path: Path) -> None:
    reader = ParquetReader(write(tmp_path / "k=1" / "a.parquet").parents[1])
    expected = read(reader)  # now it holds open files
    copy = pickle.loads(pickle.dumps(reader))
    assert copy.schema == reader.schema and copy.fingerprint() == reader.fingerprint()
    assert list(copy.chunks()) == list(reader.chunks()) and read(copy).equals(expected)
    assert len(pickle.dumps(reader)) < 20_000


def test_eight_threads(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.parquet", table(4000, seed=i), row_group_size=500)
    reader = ParquetReader(tmp_path)
    chunks = list(reader.chunks())
    expected = [pa.Table.from_batches(as_batches(reader.read(c, ["y", "x"]))) for c in chunks]

    def one(i: int) -> bool:
        k = (7 * i) % len(chunks)
        parts = as_batches(reader.read(chunks[k], ["y", "x"])) if i % 2 else reader.stream(chunks[k], ["y", "x"], 77)
        return bool(pa.Table.from_batches(parts).equals(expected[k]))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(400), timeout=60))
    assert len(reader._handles._idle) <= 16


def test_a_handle_is_lent_to_one_read_at_a_time(tmp_path: Path) -> None:
    reader = ParquetReader(write(tmp_path / "a.parquet"))
    read(reader)
    mode = next(iter(reader._handles._idle.values()))[1]
    with reader._handles.lend("a.parquet", mode) as first, reader._handles.lend("a.parquet", mode) as second:
        assert first is not second
    with reader._handles.lend("a.parquet", mode) as third:
        assert third is first or third is second


def test_text_that_is_in_a_dictionary_first_and_delta_encoded_then(tmp_path: Path) -> None:
    texts = ["again"] * 3000 + [f"{i} and only once" for i in range(3000)]
    data = pa.table({"s": texts, "large": pa.array(texts, pa.large_string()), "x": range(6000)})
    path = write(tmp_path / "a.parquet", data, use_dictionary=False, store_schema=True,
                 column_encoding={"s": "DELTA_BYTE_ARRAY", "large": "DELTA_LENGTH_BYTE_ARRAY", "x": "PLAIN"})  # fmt: skip
    reader = ParquetReader(path)
    chunk = reader.chunks()[0]
    assert read(reader, ["x", "s", "large"]).to_pydict() == data.select(["x", "s", "large"]).to_pydict()
    slices = list(reader.stream(chunk, ["s", "large"], 1000))
    assert [b.num_rows for b in slices] == [1000] * 6
    assert [v for b in slices for v in b.column(0).to_pylist()] == texts
    assert read(reader).schema == reader.schema

    # a writer that changes its mind within a row group: what was handed out is not handed out again
    decoded = reader._decoded

    def late(name: str, group: str, columns: list[str], rows: int, mode: Any) -> Any:
        for i, batch in enumerate(decoded(name, group, columns, rows, mode._replace(plain=frozenset("s")))):
            if i == 2 and not mode.plain:
                raise OSError("Not yet implemented: DecodeArrow")
            yield batch

    reader._decoded = late  # type: ignore[method-assign, assignment]
    assert [v for b in reader.stream(chunk, ["s"], 700) for v in b.column(0).to_pylist()] == texts


@examples(12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    group=st.integers(1, 700), slice_rows=st.integers(1, 900), compression=st.sampled_from(["none", "snappy", "zstd"]),
    dictionary=st.booleans(), version=st.sampled_from(["1.0", "2.0"]),
)  # fmt: skip
def test_a_stream_is_the_read_in_slices(
    tmp_path: Path, group: int, slice_rows: int, compression: str, dictionary: bool, version: str
) -> None:
    data = pa.table({"x": np.arange(700) % 90, "s": [str(i % 50) for i in range(700)], "b": np.arange(700) % 2 == 0})
    path = write(tmp_path / "a.parquet", data, row_group_size=group, compression=compression, use_dictionary=dictionary,
                 data_page_version=version, data_page_size=200)  # fmt: skip
    reader = ParquetReader(path)
    for chunk in reader.chunks():
        slices = list(reader.stream(chunk, ["s", "b", "x"], slice_rows))
        sizes = [s.num_rows for s in slices]
        assert sum(sizes) == chunk.rows and max(sizes) <= slice_rows
        whole = pa.Table.from_batches(as_batches(reader.read(chunk, ["s", "b", "x"])))
        assert pa.Table.from_batches(slices).to_pylist() == whole.to_pylist()
    assert read(reader).to_pylist() == data.to_pylist()


def test_streams_side_by_side_and_left_open(tmp_path: Path) -> None:
    reader = ParquetReader(write(tmp_path / "a.parquet", table(3000), row_group_size=1500))
    first, second = (reader.stream(c, ["x"], 100) for c in reader.chunks())
    a, b = next(first), next(second)
    del first  # given up half-way: its handle is not used again
    assert a.to_pydict() == {"x": table(3000)["x"].to_pylist()[:100]}
    assert sum(s.num_rows for s in second) == 1400 and b.num_rows == 100
    assert read(reader, ["x"]).equals(table(3000).select(["x"]))


def test_fingerprint(tmp_path: Path) -> None:
    write(tmp_path / "a" / "k=1" / "x.parquet")
    write(tmp_path / "a" / "k=2" / "x.parquet", table(seed=1))
    first = ParquetReader(tmp_path / "a").fingerprint()
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)
    os.utime(tmp_path / "b" / "k=1" / "x.parquet", (0, 0))
    (tmp_path / "b" / "_SUCCESS").touch()
    assert ParquetReader(tmp_path / "b").fingerprint() == first == ParquetReader(tmp_path / "a").fingerprint()
    write(tmp_path / "b" / "k=2" / "x.parquet", table(seed=2))
    assert ParquetReader(tmp_path / "b").fingerprint() != first
    (tmp_path / "a" / "k=2").rename(tmp_path / "a" / "k=3")
    assert ParquetReader(tmp_path / "a").fingerprint() != first


# -- declared against measured ------------------------------------------------------------------------------------------

_MEASURE = """
import json, sys
from streamtrain.memory.process import peak_bytes, release_freed_memory, reset_peak, resident_bytes, steady_allocators
from streamtrain.storage.parquet.reader import ParquetReader
path, small, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
with steady_allocators():
    first = ParquetReader(small)
    for _ in first.stream(first.chunks()[0], first.schema.names, 100): first.read(first.chunks()[0], first.schema.names)
    reader = ParquetReader(path)
    chunk, names = reader.chunks()[0], reader.schema.names
    declared = reader.stream_peak_bytes(chunk, rows) if rows else chunk.read_peak_bytes
    release_freed_memory()
    before = resident_bytes()
    reset_peak()
    if rows:
        for part in reader.stream(chunk, names, rows): pass
    else:
        part = reader.read(chunk, names)
    print(json.dumps([declared, peak_bytes() - before]))
"""


def _wide(rows: int, columns: int, distinct: int | None = None) -> pa.Table:
    rng = np.random.default_rng(0)
    make = (lambda: rng.normal(size=rows)) if distinct is None else (lambda: rng.integers(0, distinct, rows))
    return pa.table({f"x{i}": make().astype(np.float32) for i in range(columns)})


def _labels() -> pa.Table:
    labels = pa.array([f"label number {i % 300}" for i in range(300_000)])
    return pa.table({f"s{i}": labels for i in range(4)})


#: what each file holds, and how it is written
SHAPES: dict[str, tuple[Callable[[], pa.Table], dict[str, Any]]] = {
    **{
        f"groups-{codec}": (lambda: _wide(65_536, 40), {"compression": codec, "use_dictionary": False})
        for codec in ("none", "snappy", "zstd")
    },
    "groups-given-up": (lambda: _wide(65_536, 40), {}),  # dictionaries that grew too large half-way
    "groups-dictionary": (lambda: _wide(65_536, 40, 500), {}),
    "million": (lambda: _wide(1_000_000, 20), {"row_group_size": 1_000_000, "use_dictionary": False}),
    "million-given-up": (lambda: _wide(1_000_000, 20), {"row_group_size": 1_000_000}),
    "million-dictionary": (lambda: _wide(1_000_000, 20, 1000), {"row_group_size": 1_000_000}),
    "labels": (_labels, {"row_group_size": 300_000}),
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The path of a shape, which is written when it is first asked for."""
    root = tmp_path_factory.mktemp("shapes")
    write(root / "small.parquet")

    def path(name: str) -> Path:
        found = root / f"{name}.parquet"
        if not found.exists() and name != "small":
            make, options = SHAPES[name]
            write(found, make(), **options)
        return found

    return path


FLOOR_BYTES = 4_000_000
QUICK = [("groups-none", 0), ("groups-none", 8192)]
LONG = [
    *((name, 0) for name in SHAPES if name != "groups-none"),
    *((name, rows) for name in SHAPES if name.startswith("million") for rows in (1024, 65_536)),
    ("labels", 16_384),
]


@pytest.mark.skipif(sys.platform != "linux", reason="measured through /proc")
@pytest.mark.parametrize("cases", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)], ids=["quick", "long"])
def test_peaks_are_as_declared(shapes: Callable[[str], Path], cases: list[tuple[str, int]]) -> None:
    found = in_forks(_MEASURE, [(shapes(name), shapes("small"), rows) for name, rows in cases])
    for case, (declared, measured) in zip(cases, found, strict=True):
        assert measured <= max(declared, FLOOR_BYTES), f"{case}: declared {declared:,}, measured {measured:,}"
        assert declared <= 2 * measured + FLOOR_BYTES, f"{case}: declared {declared:,}, measured {measured:,}"


# -- files by other writers ----------------------------------------------------------------------------------------------


def test_corpora_are_there() -> None:
    if not FILES:
        pytest.skip(f"{CORPORA} is not there: files by other writers are not tested")
    assert len(FILES) > 80


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_files_of_other_writers(path: Path) -> None:
    readable = True
    try:
        reader = ParquetReader(path)
        scalar = [f.name for f in reader.schema if not pa.types.is_nested(f.type)]
        for chunk in reader.chunks() if scalar else []:
            parts = [as_batches(reader.read(chunk, scalar)), reader.stream(chunk, scalar, 1000)]
            assert [sum(b.num_rows for b in part) for part in parts] == [chunk.rows] * 2
    except DataError as error:
        said, readable = str(error), False
    if not readable:
        assert path.name in said and "\n" not in said
        damaged = path.parent.name == "bad_data" or "corrupt" in path.name or "encrypted" in path.name
        assert damaged or path.name == "incorrect_map_schema.parquet", said


# -- files that change while they are read -------------------------------------------------------------------------------


def test_a_file_that_changes_is_an_error_that_says_so(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", pa.table({"x": np.arange(1000.0)}), row_group_size=500)
    reader = ParquetReader(tmp_path)
    chunks = reader.chunks()
    reader.read(chunks[0], ["x"])
    write(tmp_path / "a.parquet", pa.table({"x": np.arange(1, 1001.0)}), row_group_size=500)
    for chunk in chunks:
        with pytest.raises(CorruptError, match=r"a\.parquet: the file has changed since it was opened"):
            reader.read(chunk, ["x"])
        with pytest.raises(CorruptError, match="has changed"):
            list(reader.stream(chunk, ["x"], 100))
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(CorruptError, match="was listed, but cannot be found any more"):
        reader.read(chunks[0], ["x"])
