"""What the writers of others make, and what is left of it after an accident: it is read, or there is one true error."""

from __future__ import annotations

import json
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
import zarr.storage

import streamtrain
from streamtrain.errors import CorruptError, DataError
from streamtrain.storage.parquet.footer import missing_codec
from streamtrain.storage.reader import ChunkTable

TABLE = pa.table({"x": np.arange(60.0), "s": [f"a{i % 3}" for i in range(60)], "y": np.arange(60) % 2})


def rows_of(path: Path) -> pa.Table:
    reader = streamtrain.open_reader(path)
    names = reader.schema.names
    batches = [
        batch for chunk in ChunkTable.of(reader.chunks()) for batch in pa.table(reader.read(chunk, names)).to_batches()
    ]
    return pa.Table.from_batches(batches)


def patched(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data and len(old) == len(new)
    path.write_bytes(data.replace(old, new))


def test_a_writer_that_is_not_named_in_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(TABLE, path)
    patched(path, b"parquet-cpp", b"\xff\xfe\x80quet-cpp")
    assert rows_of(path)["x"].to_pylist() == TABLE["x"].to_pylist()


def test_names_of_columns_that_are_not_utf8(tmp_path: Path) -> None:
    table = TABLE.rename_columns(["xname", "s", "y"])
    pq.write_table(table, tmp_path / "a.parquet", store_schema=False)
    for name, writer in (("a.arrow", pa.ipc.new_file), ("a.arrows", pa.ipc.new_stream)):
        with writer(str(tmp_path / name), table.schema) as file:
            file.write_table(table)
    for name in ("a.parquet", "a.arrow", "a.arrows"):
        patched(tmp_path / name, b"xname", b"x\xffame")
        with pytest.raises(CorruptError, match=rf"{name}: .*the name of a column is not UTF-8"):
            streamtrain.open_reader(tmp_path / name)


@pytest.mark.parametrize("version", ["V4", "V5"])
def test_streams_of_the_format_before_0_15(tmp_path: Path, version: str) -> None:
    kind = pa.ipc.IpcWriteOptions(use_legacy_format=True, metadata_version=pa.ipc.MetadataVersion[version])
    table = TABLE.set_column(1, "s", TABLE["s"].dictionary_encode().combine_chunks())
    path = tmp_path / "a.arrows"
    with pa.ipc.new_stream(path, table.schema, options=kind) as writer:
        writer.write_table(table, max_chunksize=25)
    data = path.read_bytes()
    assert not data.startswith(b"\xff\xff\xff\xff")
    assert rows_of(path).to_pydict() == table.to_pydict()
    path.write_bytes(data[:-4])  # without the mark of its end
    assert rows_of(path).num_rows == 60
    path.write_bytes(data[:-400])
    with pytest.raises(CorruptError, match="cut off"):
        streamtrain.open_reader(path)
    for other in (b"x,y\n1,2\n" * 30, struct.pack("<II", 300, 16) + bytes(range(256)) * 2, b""):
        path.write_bytes(other)
        with pytest.raises(CorruptError, match="not an Arrow file"):
            streamtrain.open_reader(path)


def test_an_error_of_a_column_names_it(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    text = pa.table({"x": np.arange(60.0), "s": ["é" * 20] * 60, "y": np.arange(60) % 2})
    with pa.ipc.new_file(path, text.schema) as writer:
        writer.write_table(text)
    patched(path, "é".encode() * 20, b"\xff\xfe" * 20)
    with pytest.raises(CorruptError, match=r"a\.arrow: column 's': cannot be read: .*UTF8"):
        rows_of(path)
    with pa.ipc.new_file(path, text.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(text)
    data, magic = path.read_bytes(), b"\x28\xb5\x2f\xfd"
    at = data.index(magic)  # of the first column
    path.write_bytes(data[:at] + b"\0" * 4 + data[at + 4 :])
    with pytest.raises(CorruptError, match=r"a\.arrow: column 'x': cannot be read"):
        rows_of(path)


def test_a_codec_that_is_not_there_is_missing_and_nothing_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(TABLE.select(["x", "y"]), path, compression="snappy", use_dictionary=False, store_schema=False)
    for name in (b"x", b"y"):
        patched(path, b"\x19\x18\x01" + name + b"\x15\x02", b"\x19\x18\x01" + name + b"\x15\x06")  # LZO
    with pytest.raises(
        DataError, match="row group 0: is stored with the codec 'lzo', which this build of pyarrow lacks"
    ) as caught:
        rows_of(path)
    assert not isinstance(caught.value, CorruptError)
    assert missing_codec(OSError("ZSTD decompression failed")) is None
    for version, document in ((2, ".zarray"), (3, "zarr.json")):
        store = tmp_path / f"{version}.zarr"
        save(zarr.storage.LocalStore(store), version)
        known = json.loads((store / "x" / document).read_text())
        known |= {"compressor": {"id": "odd"}} if version == 2 else {"codecs": [*known["codecs"][:-1], {"name": "odd"}]}
        (store / "x" / document).write_text(json.dumps(known))
        with pytest.raises(DataError, match=r"array 'x' needs a codec that is not installed here .*'odd'") as caught:
            streamtrain.open_reader(store)
        assert not isinstance(caught.value, CorruptError)


def save(store: zarr.storage.LocalStore | zarr.storage.ZipStore, version: int = 2) -> None:
    group = zarr.open_group(store, mode="w", zarr_format=version)  # type: ignore[arg-type]
    for name in ("x", "y"):
        group.create_array(name, shape=(60,), chunks=(20,), dtype="f8")[:] = np.arange(60.0)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("packed") / "a.zarr.zip"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it writes a name twice
        store = zarr.storage.ZipStore(path, mode="w")
        save(store)
        store.close()
    return path.read_bytes()


def test_zip_files_with_a_broken_directory(tmp_path: Path, packed: bytes) -> None:
    first, last = packed.index(b"PK\x01\x02"), packed.rindex(b"PK\x05\x06")
    entry = packed.rindex(b"PK\x01\x02", 0, packed.rindex(b"x/1"))
    path = tmp_path / "a.zarr.zip"
    for at, new in (
        (first, b"XXXX"), (first + 28, b"\xff\xff"), (last + 16, b"\xf0\xff\xff\xff"),
        (entry + 42, b"\xff\xff\xff\x7f"), (entry + 10, b"\x63\0"), (entry + 8, b"\x01\0"),
    ):  # fmt: skip
        path.write_bytes(packed[:at] + new + packed[at + len(new) :])
        with pytest.raises(DataError, match=r"a\.zarr\.zip: "):
            rows_of(path)
    for data in (packed[: len(packed) // 2], packed[:-22], b"", b"PK\x05\x06" + b"\0" * 18):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"a\.zarr\.zip: "):
            rows_of(path)


@pytest.mark.parametrize(
    "more",
    [
        lambda name, data: [("", b"")], lambda name, data: [("", data)], lambda name, data: [(f"/{name}", data)],
        lambda name, data: [(f"../{name}", data)], lambda name, data: [(name, data)], lambda name, data: [(f"a//{name}", data)],
        lambda name, data: [(f"{name}/../{name}", data)],
    ],
    ids=["empty", "empty with data", "absolute", "above", "twice", "empty part", "above inside"],
)  # fmt: skip
def test_zip_files_with_odd_names(
    tmp_path: Path, packed: bytes, more: Callable[[str, bytes], Iterable[tuple[str, bytes]]]
) -> None:
    (tmp_path / "plain.zip").write_bytes(packed)
    path = tmp_path / "a.zarr.zip"
    with zipfile.ZipFile(tmp_path / "plain.zip") as plain, zipfile.ZipFile(path, "w") as odd, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for info in plain.infolist():
            for name, data in [(info.filename, plain.read(info)), *more(info.filename, plain.read(info))]:
                odd.writestr(zipfile.ZipInfo(name), data)
    assert rows_of(path).to_pydict() == {"x": list(range(60)), "y": list(range(60))}


def test_groups_without_end(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr.zip"
    with zipfile.ZipFile(path, "w") as file:
        for level in range(1500):
            file.writestr("g/" * level + ".zgroup", '{"zarr_format": 2}')
    with pytest.raises(CorruptError, match="more than 100 levels of groups"):
        streamtrain.open_reader(path)


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (2**64 - 3, pa.uint64()), (10**25, pa.decimal128(38, 0)), (-(2**64), pa.decimal128(38, 0)), (2**53, pa.int64()),
        ("1.5e19", pa.float64()), ("1e20", pa.float64()), (10**40, pa.float64()),
    ],
    ids=str,
)  # fmt: skip
def test_integers_that_64_bits_do_not_hold_keep_their_digits(
    tmp_path: Path, first: int | str, kind: pa.DataType
) -> None:
    ids = [first + i for i in range(3)] if isinstance(first, int) else [first] * 3
    (tmp_path / "a.csv").write_text("id,y\n" + "".join(f"{value},1\n" for value in ids) + ",0\n")
    (tmp_path / "a.jsonl").write_text("".join(f'{{"id": {value}, "y": 1}}\n' for value in ids) + '{"y": 0}\n')
    for name in ("a.csv", "a.jsonl"):
        table = rows_of(tmp_path / name)
        assert table.schema.field("id").type == kind
        if kind != pa.float64():
            assert table["id"].to_pylist() == [*ids, None]
