from __future__ import annotations

import io
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from make import in_forks

from streamtrain import fit
from streamtrain.errors import ColumnError, CorruptError, DataError
from streamtrain.storage import open_reader
from streamtrain.storage.files.store import LocalFileStore
from streamtrain.storage.ipc import IpcReader
from streamtrain.storage.reader import Reader, Streams

TEXT = pa.dictionary(pa.int32(), pa.string())
MEASURE = (Path(__file__).parent / "test_csv.py").read_text().partition('MEASURE = """')[2].partition('"""')[0]


def table(rows: int = 1000) -> pa.Table:
    x = np.arange(rows)
    return pa.table({
        "x": x / 3, "s": [f"s{i % 7}" for i in range(rows)], "n": pa.array([None, 1] * (rows // 2), pa.int8()),
        "c": pa.array([f"c{i % 3}" for i in range(rows)]).dictionary_encode(), "b": x % 2 == 0,
    })  # fmt: skip


def write(path: Path, data: pa.Table, batch: int = 100, codec: str | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = pa.ipc.new_stream if path.suffix == ".arrows" else pa.ipc.new_file
    with new(path, data.schema, options=pa.ipc.IpcWriteOptions(compression=codec, **options)) as out:
        out.write_table(data, batch)
    return path


def rows(reader: Any, columns: list[str] | None = None) -> list[dict[str, Any]]:
    tables = [reader.read(c, columns or reader.schema.names) for c in reader.chunks()]
    assert [t.num_rows for t in tables] == [c.rows for c in reader.chunks()]
    return [r for t in tables for r in t.to_pylist()]


@pytest.mark.parametrize("codec", [None, "lz4", "zstd"])
@pytest.mark.parametrize("name", ["a.arrow", "a.feather", "a.arrows"])
def test_what_is_written_is_read(tmp_path: Path, name: str, codec: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamtrain.storage.ipc.CHUNK_ROWS", 300)
    reader = open_reader(write(tmp_path / name, table(), codec=codec))
    assert isinstance(reader, IpcReader) and isinstance(reader, Reader) and isinstance(reader, Streams)
    assert reader.schema.field("s").type == TEXT
    assert [c.rows for c in reader.chunks()] == ([1000] if name == "a.arrows" else [300, 300, 300, 100])
    assert rows(reader) == table().to_pylist()
    assert rows(reader, ["c", "x"]) == table().select(["c", "x"]).to_pylist()
    for chunk in reader.chunks():
        slices = list(reader.stream(chunk, ["s", "b"], 64))
        assert max(b.num_rows for b in slices) <= 64
        whole = reader.read(chunk, ["s", "b"]).to_pylist()
        assert [r for b in slices for r in b.to_pylist()] == whole
    with pytest.raises(ColumnError):
        reader.read(reader.chunks()[0], ["q"])


def test_only_the_columns_asked_for_are_read(tmp_path: Path) -> None:
    data = pa.table({"x": np.zeros(100_000), "y": np.arange(100_000)})
    path = write(tmp_path / "a.arrow", data, batch=100_000)
    reader, chunk = IpcReader(path), IpcReader(path).chunks()[0]
    raw = bytearray(path.read_bytes())
    at = raw.index(np.arange(100_000).tobytes()[:800])
    raw[at - 400_000 : at - 100_000] = bytes(300_000)  # of the other column: what is not read is not missed
    sizes: list[int] = []

    class Counted(io.BytesIO):
        def readinto(self, into: Any) -> int:
            sizes.append(len(into))
            return super().readinto(into)

        def read(self, n: int | None = -1) -> bytes:
            sizes.append(n or 0)
            return super().read(n)

    reader._store = type("P", (), {"open": lambda *_: pa.PythonFile(Counted(raw), "r"), "verify": lambda *_: None})()
    assert reader.read(chunk, ["y"]).column(0).to_pylist() == list(range(100_000))
    assert sum(sizes) < 900_000


def test_opening_reads_metadata_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.arrow", pa.table({"x": np.arange(200_000.0)}), batch=20_000)
    sizes: list[int] = []
    read = LocalFileStore.read

    def counted(store: LocalFileStore, name: str, start: int, stop: int) -> bytes:
        data = read(store, name, start, stop)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(LocalFileStore, "read", counted)
    assert IpcReader(path).chunks().total_rows == 200_000
    assert 0 < sum(sizes) < path.stat().st_size / 500


def test_dictionaries_that_grow_and_change(tmp_path: Path) -> None:
    batches = [
        pa.record_batch({"c": pa.DictionaryArray.from_arrays([0, 1, 1], words)})
        for words in (["a", "b"], ["a", "b", "c"], ["z", "y"])
    ]
    for name, count, delta in (("d.arrow", 2, True), ("r.arrows", 3, False), ("d.arrows", 2, True)):
        new = pa.ipc.new_stream if name.endswith("s") else pa.ipc.new_file
        with new(
            tmp_path / name, batches[0].schema, options=pa.ipc.IpcWriteOptions(emit_dictionary_deltas=delta)
        ) as out:
            for batch in batches[:count]:
                out.write_batch(batch)
        expected = [r for b in batches[:count] for r in b.to_pylist()]
        assert rows(open_reader(tmp_path / name)) == expected


def test_text_views_tensors_and_empty_batches(tmp_path: Path) -> None:
    kind = pa.fixed_shape_tensor(pa.float32(), [2])
    tensor = pa.ExtensionArray.from_storage(
        kind, pa.FixedSizeListArray.from_arrays(pa.array(np.arange(4, dtype="f4")), 2)
    )
    data = pa.table({"v": pa.array(["long text that is no short one", None], pa.string_view()), "t": tensor})
    with pa.ipc.new_file(tmp_path / "a.arrow", data.schema) as out:
        for part in (data.slice(0, 0), data, data.slice(0, 0)):
            for batch in part.to_batches() or [pa.RecordBatch.from_pylist([], data.schema)]:
                out.write_batch(batch)
    reader = open_reader(tmp_path / "a.arrow")
    assert reader.schema.types == [TEXT, kind]
    assert [r["v"] for r in rows(reader)] == ["long text that is no short one", None]


def test_several_files(tmp_path: Path) -> None:
    write(tmp_path / "k=1" / "a.arrow", table())
    write(tmp_path / "k=2" / "b.arrow", table().select(["b", "c", "n", "s", "x"]), codec="zstd")
    reader = open_reader(tmp_path)
    found = rows(reader)
    assert [r.pop("k") for r in found] == [1] * 1000 + [2] * 1000
    assert found == table().to_pylist() * 2
    write(tmp_path / "k=2" / "c.arrow", table().drop_columns(["x"]))
    assert [r["x"] for r in rows(open_reader(tmp_path))] == table()["x"].to_pylist() * 2 + [None] * 1000


def test_pickling_threads_fingerprint_and_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamtrain.storage.ipc.CHUNK_ROWS", 100)
    path = write(tmp_path / "a.arrow", table())
    reader = pickle.loads(pickle.dumps(IpcReader(path)))
    chunks = list(reader.chunks()) * 10
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda c: reader.read(c, ["x", "s"]).to_pylist(), chunks, timeout=60))
    assert [r for part in parts[:10] for r in part] == table().select(["x", "s"]).to_pylist() and parts[
        :10
    ] * 10 == parts
    copy = write(tmp_path / "b" / "a.arrow", table())
    assert IpcReader(copy).fingerprint() == reader.fingerprint()
    write(copy, table().set_column(0, "x", pa.array(np.arange(1000) / 4)))
    assert IpcReader(copy).fingerprint() != reader.fingerprint()
    write(path, table(500))
    with pytest.raises(CorruptError, match="changed"):
        rows(reader)


def test_what_is_no_arrow_file(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.arrow", table()).read_bytes()
    stream = write(tmp_path / "a.arrows", table()).read_bytes()
    for raw, says in [
        (b"FEA1" + bytes(100), "Feather version 1"), (b"PAR1" + bytes(100), "not an Arrow file"),
        (whole[:-3], "cut off|cannot be read"), (whole[:2000], "cut off|cannot be read"),
        (stream[:5000], "cut off"), (whole[:-6] + b"\xff" * 6, "cut off|cannot be read"),
    ]:  # fmt: skip
        (tmp_path / "x.arrow").write_bytes(raw)
        with pytest.raises(CorruptError, match=rf"x\.arrow: .*({says})"):
            open_reader(tmp_path / "x.arrow")


_DAMAGE = """
import random, sys, pyarrow as pa
from pathlib import Path
from streamtrain.errors import DataError
from streamtrain.storage.ipc import IpcReader
path, whole = Path(sys.argv[1]), Path(sys.argv[1]).read_bytes()
pick, errors = random.Random(7), 0
for i in range(400):
    raw = bytearray(whole)
    for _ in range(pick.choice([1, 1, 8])):
        raw[pick.randrange(len(raw))] ^= 1 << pick.randrange(8)
    path.write_bytes(raw)
    try:
        reader = IpcReader(path)
        for chunk in reader.chunks():
            assert reader.read(chunk, reader.schema.names).num_rows == chunk.rows
            reader.read(chunk, reader.schema.names).to_pylist()
    except (DataError, MemoryError):
        errors += 1
print(errors)
"""


def test_damage_is_an_error_or_another_value(tmp_path: Path) -> None:
    cases = [("a.arrow", None), ("b.arrow", "zstd"), ("a.arrows", "lz4")]
    errors = in_forks(_DAMAGE, [(write(tmp_path / name, table(40), 20, codec),) for name, codec in cases])
    assert min(errors) > 40, errors


def test_fit(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=3000)
    write(tmp_path / "a.feather", pa.table({"x": x, "y": np.where(x > 0, "p", "n")}), codec="lz4")
    result = fit(tmp_path / "a.feather", target="y")
    assert result.model.classes == ("n", "p") and result.report.metrics["progressive"]["accuracy"] > 0.9


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(0)
    numbers = pa.table({f"x{i}": rng.normal(size=200_000).astype("f4") for i in range(20)})
    words = pa.table({"w": [f"{'word' * 5} {i}" for i in range(200_000)], "x": np.arange(200_000)})
    for name, data in (("numbers", numbers), ("words", words)):
        write(root / f"{name}.arrow", data, 200_000)
        write(root / f"{name}-lz4.arrow", data, 200_000, "lz4")
        write(root / f"{name}.arrows", data, 20_000)
    return root


@pytest.mark.skipif(sys.platform != "linux", reason="measured through /proc")
@pytest.mark.parametrize("size", [0, pytest.param(8192, marks=pytest.mark.slow)])
def test_peaks_are_as_declared(shapes: Path, size: int) -> None:
    names = [f"{kind}{end}" for kind in ("numbers", "words") for end in (".arrow", "-lz4.arrow", ".arrows")]
    cases = [(shapes / name, size) for name in names]
    for case, (declared, peak) in zip(cases, in_forks(MEASURE, cases), strict=True):
        assert peak <= max(declared, 4_000_000), f"{case}: declared {declared:,}, measured {peak:,}"
        assert declared <= 2 * peak + 4_000_000, f"{case}: declared {declared:,}, measured {peak:,}"


def test_other_formats_beside(tmp_path: Path) -> None:
    write(tmp_path / "a.arrow", table(10))
    (tmp_path / "a.csv").write_text("x\n1\n")
    with pytest.raises(DataError, match="several formats"):
        open_reader(tmp_path)
