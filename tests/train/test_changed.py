"""Data that change in place: what is read again is compared, and what cannot be compared is refused."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from streamtrain import Source, fit, reader_from
from streamtrain.errors import ChangedError, RunError, UsageError
from streamtrain.load.digests import ChunkDigest
from streamtrain.model import tensors
from streamtrain.runs.checkpoint import Checkpoints
from streamtrain.storage.checked import open_stream
from streamtrain.train.history import Scores

ROWS, CHUNK = 400, 20
ASKED: dict[str, Any] = {"target": "y", "window_rows": 100, "seed": 3, "epochs": 2}


@pytest.fixture(autouse=True)
def _small_fingerprints(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fingerprint that sees sizes and metadata alone, as that of large data nearly does; and small chunks of a Zarr store."""
    monkeypatch.setattr("streamtrain.storage.files.sample._PIECES", 0)
    monkeypatch.setattr("streamtrain.storage.zarr.grid.RUN_ROWS", CHUNK)


def table() -> pa.Table:
    rng = np.random.default_rng(0)
    x = rng.normal(size=ROWS)
    return pa.table(
        {"x": x, "z": rng.normal(size=ROWS), "k": [f"k{i % 7}" for i in range(ROWS)], "y": (x > 0).astype(int)}
    )


def parquet(path: Path) -> Path:
    pq.write_table(table(), path, row_group_size=CHUNK, compression="none", use_dictionary=["k"])
    return path


def store(path: Path) -> Path:
    group = zarr.create_group(path)
    for name in ("x", "z", "y"):
        group.create_array(name, data=table()[name].to_numpy(), chunks=(CHUNK,), compressors=None, filters=None)
    return path


def rows_of(data: Path, chunk: int) -> tuple[Path, int]:
    """Where the bytes of column x of a chunk are: a file, and an offset in it."""
    if data.is_dir():
        return data / f"x/c/{chunk}", 40
    column = pq.read_metadata(data).row_group(chunk).column(0)
    return data, column.data_page_offset + column.total_compressed_size - 80


def change(data: Path, chunk: int, *, times: bool = True) -> None:
    """Change some bytes of a chunk in place. times: whether the file tells it."""
    path, at = rows_of(data, chunk)
    was = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        file.write(np.random.default_rng(1).normal(size=3).tobytes())
    if not times:
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))


def stopped(data: Any, out: Path, after: int, **more: Any) -> None:
    """A run that is stopped after so many steps."""
    steps, on_the_way = [0], Scores.on_the_way

    def counted(*found: Any) -> Any:
        steps[0] += 1
        if steps[0] == after:
            signal.raise_signal(signal.SIGINT)
        return on_the_way(*found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scores, "on_the_way", counted)
        with pytest.raises(KeyboardInterrupt):
            fit(data, out=out, **ASKED | more)


def read_before(out: Path) -> set[int]:
    arrays = Checkpoints(out / "checkpoints")
    assert arrays.newest() is not None
    return set(np.flatnonzero(arrays.arrays()["digests.all"]).tolist())


def again(data: Any, out: Path, **more: Any) -> Any:
    return fit(data, out=out, resume=True, **more)


@pytest.fixture(params=[parquet, store], ids=["parquet", "zarr"])
def half(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """Data, and a run that has read some of them."""
    data = request.param(tmp_path / "data")
    stopped(data, tmp_path / "r", 1)
    known = read_before(tmp_path / "r")
    assert 0 < len(known) < ROWS // CHUNK, known
    return data, tmp_path / "r"


def test_unchanged_data_go_on_to_the_same_bits(half: tuple[Path, Path]) -> None:
    data, out = half
    again(data, out)
    fit(data, out=out.parent / "whole", **ASKED)
    assert (out / "model.safetensors").read_bytes() == (out.parent / "whole/model.safetensors").read_bytes()


def test_a_chunk_that_was_read(half: tuple[Path, Path]) -> None:
    """It is an error when it is read again, or at once with --verify full, whatever the times say."""
    data, out = half
    change(data, min(read_before(out)), times=False)
    with pytest.raises(ChangedError, match=r"1 of .* chunks of the data that were read before are not the same now"):
        again(data, out, verify="full")
    if data.is_file():  # its change time cannot be put back, and other chunks of it were not read
        with pytest.raises(RunError, match=r"add --verify full"):
            again(data, out)
        rewrite(out, lambda arrays: arrays.update({"digests.stamps": np.zeros(0, np.uint64)}))
    with pytest.raises(ChangedError, match=r"the values differ from those that were read before: either the data were"):
        again(data, out, on_error="raise")


def test_the_first_rows_of_a_streamed_chunk(tmp_path: Path) -> None:
    """The run had read them before it was stopped. The run that goes on reads more at once, and passes the last of them."""
    data, out, size = tmp_path / "d.parquet", tmp_path / "r", ROWS // 2
    pq.write_table(table(), data, row_group_size=size, compression="none", use_dictionary=["k"])
    stopped(data, out, 1, window_rows=50, batch_size=10)
    checkpoints = Checkpoints(out / "checkpoints")
    assert checkpoints.newest() is not None
    number = int(checkpoints.arrays()["digests.begun"][0, 0])
    source, digest = Source.open(data, target="y"), ChunkDigest(["y"])
    digest.add_batch(next(open_stream(source.reader, source.table[number], source.layout.read, 7)))
    few = {"digests.begun": np.array([[number, 7, digest.value()[0]]], np.uint64)}
    rewrite(out, lambda arrays: arrays.update(few | {"digests.stamps": np.zeros(0, np.uint64)}))
    shutil.copytree(out, tmp_path / "same")
    assert again(data, tmp_path / "same", verify="full").report.resumes == 1
    column = pq.read_metadata(data).row_group(number).column(0)
    with data.open("r+b") as file:
        file.seek(column.data_page_offset + column.total_compressed_size - 8 * (size - 6))
        file.write(np.random.default_rng(1).normal(size=1).tobytes())
    for more in ({}, {"verify": "full"}):
        with pytest.raises(ChangedError, match=r"the values of the first 7 rows differ"):
            again(data, out, **more)


def test_a_chunk_that_was_not_read(half: tuple[Path, Path]) -> None:
    """It is refused while the times tell it; --verify full goes on, and says what it cannot know."""
    data, out = half
    number = min(set(range(ROWS // CHUNK)) - read_before(out))
    change(data, number)
    key = f"rows[{number * CHUNK}:" if data.is_dir() else f"data:{number}"
    with pytest.raises(RunError, match=r"written, replaced or copied since .* add --verify full") as caught:
        again(data, out)
    assert key in str(caught.value)
    told = [text for text in again(data, out, verify="full").report.warnings if "nobody can vouch for" in text]
    assert len(told) == 1 and key in told[0]


def rewrite(out: Path, how: Callable[[dict[str, Any]], object]) -> None:
    for path in (out / "checkpoints").glob("*.safetensors"):
        found = tensors.load(path, sealed=True)
        arrays = {name: array for name, array in found.arrays.items() if name != "sha256"}
        how(arrays)
        tensors.save(path, arrays, metadata=found.metadata, sealed=True)


@pytest.fixture
def _times_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose time is put back shows its new time for a moment, and a reading thread may look just then."""
    monkeypatch.setattr("streamtrain.storage.files.store.require_unchanged", lambda *_: None)


@pytest.mark.usefixtures("_times_tell_nothing")
def test_a_later_epoch(tmp_path: Path) -> None:
    """In one process: the file tells nothing."""
    data = parquet(tmp_path / "d.parquet")

    def spoil(now: Any) -> None:
        if now.rows_seen >= ROWS:
            change(data, 7, times=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streamtrain.train.trainer._TICK_SECONDS", 0.0)
        with pytest.raises(ChangedError, match=r"^d\.parquet:7: the values differ"):
            fit(data, progress=spoil, **ASKED | {"epochs": 20, "on_error": "skip", "max_skipped": 1.0})


def test_all_was_read(tmp_path: Path) -> None:
    """A file with other times goes on if every chunk is compared when it is read again."""
    data = parquet(tmp_path / "d.parquet")
    stopped(data, tmp_path / "r", 6)
    assert len(read_before(tmp_path / "r")) == ROWS // CHUNK
    os.utime(data)
    assert again(data, tmp_path / "r").report.resumes == 1


def test_a_copy(half: tuple[Path, Path], tmp_path: Path) -> None:
    data, out = half
    (shutil.copytree if data.is_dir() else shutil.copy)(data, tmp_path / "copies")  # type: ignore[operator]
    copy = tmp_path / "copies"
    data.rename(tmp_path / "away")
    copy.rename(data)
    with pytest.raises(RunError, match="--verify full"):
        again(data, out)
    assert any("nobody can vouch" in text for text in again(data, out, verify="full").report.warnings)


def test_the_target_between_the_passes(tmp_path: Path) -> None:
    parts = {str(i): table().slice(i * 100, 100).to_batches()[0] for i in range(4)}
    reads: list[int] = []

    def read(key: str, columns: list[str]) -> Any:
        reads.append(1)
        batch = parts[key].select(columns)
        if len(columns) > 1 and key == "2":  # not in the pass over the target
            values = 1 - batch["y"].to_numpy()
            batch = batch.set_column(batch.schema.get_field_index("y"), "y", pa.array(values))
        return batch

    reader = reader_from(list(parts), read, schema=table().schema, rows=[100] * 4, fingerprint="one")
    with pytest.raises(
        ChangedError, match=r"2: the values of the target differ .* or the reader does not return the same"
    ):
        fit(reader, **ASKED)


@pytest.mark.usefixtures("_times_tell_nothing")
def test_validation_data(tmp_path: Path) -> None:
    data, other = parquet(tmp_path / "d.parquet"), parquet(tmp_path / "v.parquet")

    def spoil(now: Any) -> None:
        if now.epoch == 1:
            change(other, 3, times=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streamtrain.train.trainer._TICK_SECONDS", 0.0)
        with pytest.raises(ChangedError, match=r"v\.parquet:3: the values differ"):
            fit(data, validate=other, progress=spoil, **ASKED | {"epochs": 9})


def test_what_helps_with_validation_data_that_were_not_read(tmp_path: Path) -> None:
    """--data-changed accept is for the data that are learned: it is not named where it does not help."""
    data, other = parquet(tmp_path / "a.parquet"), parquet(tmp_path / "v.parquet")
    stopped(data, tmp_path / "run", 1, validate=other)
    change(other, 15)
    with pytest.raises(RunError, match=r"the validation data have files .*name others with --validate") as raised:
        again(data, tmp_path / "run")
    assert "--data-changed" not in str(raised.value)
    change(data, min(set(range(ROWS // CHUNK)) - read_before(tmp_path / "run")))
    with pytest.raises(RunError, match=r"the data have files .*--data-changed accept"):
        again(data, tmp_path / "run")


def test_a_checkpoint_of_before(half: tuple[Path, Path]) -> None:
    data, out = half
    rewrite(out, lambda arrays: [arrays.pop(name) for name in list(arrays) if "digests." in name])
    with pytest.raises(RunError, match="leave --verify out"):
        again(data, out, verify="full")
    assert any("kept no digests" in text for text in again(data, out).report.warnings)


def test_broken_digests(half: tuple[Path, Path]) -> None:
    data, out = half
    rewrite(out, lambda arrays: arrays.update({"digests.all": np.zeros(3, np.uint64)}))
    with pytest.raises(RunError, match=r"array 'digests\.all' is <u8 of shape \(3,\)"):
        again(data, out)
    rewrite(out, lambda arrays: arrays.pop("digests.begun"))
    with pytest.raises(RunError, match=r"digests\."):
        again(data, out)


def test_verify_without_resume(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--verify full needs --resume"):
        fit(table(), target="y", out=tmp_path / "r", verify="full")
    with pytest.raises(UsageError, match="--verify half: must be one of times, full"):
        fit(table(), target="y", out=tmp_path / "r", resume=True, verify="half")


def test_digests_do_not_depend_on_who_reads(tmp_path: Path) -> None:
    """Nor on the budget: threads, groups of columns and slices."""
    data = parquet(tmp_path / "d.parquet")
    found = []
    for name, more in {"a": {}, "b": {"threads": 1}, "c": {"memory": "2GB", "threads": 4}}.items():
        fit(data, out=tmp_path / name, **ASKED | more)
        checkpoints = Checkpoints(tmp_path / name / "checkpoints")
        assert checkpoints.newest() is not None
        found.append(checkpoints.arrays())
    for other in found[1:]:
        assert (other["digests.all"] == found[0]["digests.all"]).all() and found[0]["digests.all"].all()
        assert (other["digests.targets"] == found[0]["digests.targets"]).all()
