"""A copy appears whole, or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import PROMPT, WAIT, rows_of, wait_for, write_parquet

import streamtrain
from streamtrain import rechunk
from streamtrain.errors import CorruptError, NotFoundError, RunError, SchemaError
from streamtrain.storage.reader import Chunk


@pytest.mark.parametrize("format", ["parquet", "zarr"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, OSError(28, "No space left on device")])
def test_nothing_half_written_remains(tmp_path: Path, format: str, error: Any) -> None:
    def stop(done: int, rows: int) -> None:
        assert rows == 200_000 and [p for p in tmp_path.iterdir() if p.name.startswith(".writing-")]
        if done > 100_000:
            raise error

    data = {"x": np.arange(200_000)}
    expected = RunError if isinstance(error, OSError) else error
    with pytest.raises(expected):
        rechunk(data, out=tmp_path / "out", chunk_rows=1000, format=format, progress=stop)
    assert not list(tmp_path.iterdir())


class Numbers:
    """Ten chunks of ten rows. lies: what each chunk gives instead, by its number."""

    schema = pa.schema([pa.field("x", pa.int64(), nullable=False)])

    def __init__(self, lies: dict[int, Any]) -> None:
        self.lies = lies

    def chunks(self) -> list[Chunk]:
        return [Chunk(f"ten#{i}", 10, 80, 160) for i in range(10)]

    def read(self, chunk: Chunk, columns: Any) -> Any:
        number = int(chunk.key[4:])
        lie = self.lies.get(number, np.arange(10) + 10 * number)
        if isinstance(lie, Exception):
            raise lie
        return pa.record_batch({"x": lie}) if isinstance(lie, (np.ndarray, pa.Array)) else lie

    def fingerprint(self) -> str:
        return ""


class Streamed(Numbers):
    def chunks(self) -> list[Chunk]:
        return [Chunk(f"ten#{i}", 10, 80, 10**9) for i in range(10)]

    def stream(self, chunk: Chunk, columns: Any, rows: int) -> Any:
        yield self.read(chunk, columns).slice(0, 3)
        yield self.read(chunk, columns).slice(3)

    def stream_peak_bytes(self, chunk: Chunk, rows: int) -> int:
        return 1000


@pytest.mark.parametrize("kind", [Numbers, Streamed])
@pytest.mark.parametrize(
    ("lie", "error", "says"),
    [
        (np.arange(9), CorruptError, "ten#4: 9 rows were read, but 10 were declared"),
        (np.arange(11), CorruptError, "ten#4: 11 rows were read, but 10 were declared"),
        (np.arange(10.0), SchemaError, "ten#4: column 'x': expected int64, got double"),
        (pa.array([1] * 9 + [None], pa.int64()), SchemaError, "ten#4: column 'x': contains a null, which the schema"),
        (RuntimeError("gone"), CorruptError, "ten#4: cannot be read: RuntimeError: gone"),
        (pa.record_batch({"y": np.arange(10)}), SchemaError, r"ten#4: the reader returned columns \['y'\]"),
    ],
    ids=["fewer", "more", "type", "null", "raises", "names"],
)
def test_a_reader_that_gives_something_else(tmp_path: Path, kind: Any, lie: Any, error: Any, says: str) -> None:
    assert rechunk(kind({}), out=tmp_path / "good", chunk_rows=7)["chunks"] == 15
    assert rows_of(tmp_path / "good") == {"x": list(range(100))}
    with pytest.raises(error, match=says):
        rechunk(kind({4: lie}), out=tmp_path / "out", chunk_rows=7)
    assert [p.name for p in tmp_path.iterdir()] == ["good"]


def test_a_damaged_file_is_noticed_half_way(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "in.parquet", pa.table({"x": np.random.default_rng(0).random(5000)}), row_group_size=1000,
                 compression="none", use_dictionary=False, write_page_checksum=True)  # fmt: skip
    raw = bytearray(path.read_bytes())
    raw[pq.read_metadata(path).row_group(3).column(0).data_page_offset + 500] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CorruptError, match="row group 3 cannot be read"):
        rechunk(path, out=tmp_path / "out", chunk_rows=100)
    assert [p.name for p in tmp_path.iterdir()] == ["in.parquet"]


@pytest.mark.parametrize("format", ["parquet", "zarr"])
@pytest.mark.parametrize("compression", ["zstd", "gzip", "lz4", "none"])
def test_a_flipped_bit_in_the_copy_is_noticed(tmp_path: Path, format: str, compression: str) -> None:
    data = {"x": np.random.default_rng(0).random(3000)}
    rechunk(data, out=tmp_path / "out", chunk_rows=1000, format=format, compression=compression)
    path = tmp_path / "out" / ("part-00000.parquet" if format == "parquet" else "x/c/1")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CorruptError):
        rows_of(tmp_path / "out")


@pytest.mark.parametrize("format", ["parquet", "zarr"])
def test_a_copy_that_lacks_rows_is_not_kept(tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if format == "parquet":
        from streamtrain.storage.parquet.writer import ParquetTableWriter as Writer

        write_chunk = Writer.write_chunk
        monkeypatch.setattr(
            Writer, "write_chunk", lambda self, rows: write_chunk(self, rows.slice(0, rows.num_rows - 1))
        )
    else:
        from streamtrain.storage.zarr.writer import ZarrWriter

        close = ZarrWriter.close

        def forget(self: Any) -> None:
            close(self)
            next(tmp_path.glob(".writing-*/out/x/c/2")).unlink()

        monkeypatch.setattr(ZarrWriter, "close", forget)
    with pytest.raises(CorruptError, match="nothing was kept"):
        rechunk({"x": np.arange(100)}, out=tmp_path / "out", chunk_rows=10, format=format)
    assert not list(tmp_path.iterdir())


SLOWLY = """
import sys, time
import numpy as np
import streamtrain
def wait(done, rows):
    if done > 100_000:
        print("half-way", flush=True)
        time.sleep(600)
streamtrain.rechunk({"x": np.arange(200_000)}, out=sys.argv[1], chunk_rows=1000, format=sys.argv[2], progress=wait)
"""


@pytest.mark.parametrize("format", ["parquet", "zarr"])
def test_a_killed_copy_does_not_look_finished(tmp_path: Path, format: str) -> None:
    command = [sys.executable, "-c", SLOWLY, tmp_path / "out", format]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "half-way\n"
        process.send_signal(signal.SIGKILL)
    left = [p.name for p in tmp_path.iterdir()]
    assert len(left) == 1 and left[0].startswith(".writing-")
    with pytest.raises(NotFoundError):  # nor is it data for who reads the folder around it
        streamtrain.open_reader(tmp_path)
    rechunk({"x": np.arange(10)}, out=tmp_path / "out", chunk_rows=4, format=format)
    assert rows_of(tmp_path / "out") == {"x": list(range(10))}


def test_ctrl_c(tmp_path: Path) -> None:
    """Acknowledged within a second, code 130, nothing left."""
    write_parquet(
        tmp_path / "in.parquet", pa.table({f"x{i}": np.arange(400_000) for i in range(20)}), row_group_size=1000
    )
    command = [sys.executable, "-m", "streamtrain", "rechunk", "in.parquet", "--out", "out", "--chunk-rows", "100"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        wait_for(lambda: list(tmp_path.glob(".writing-*/out/*")) or process.poll() is not None, "the first rows")
        process.send_signal(signal.SIGINT)
        started, said = time.perf_counter(), ""
        assert process.stderr is not None
        while "interrupted" not in said:  # lines of progress may come before it
            line = process.stderr.readline()
            assert line, said
            said += line
        assert time.perf_counter() - started < PROMPT
        assert process.wait(timeout=WAIT) == 130
    assert [p.name for p in tmp_path.iterdir()] == ["in.parquet"]


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: Any) -> str:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(RunError, match="cannot be written: Read-only file system"):
        rechunk({"x": np.arange(10)}, out=tmp_path / "out", chunk_rows=4)
