"""What is skipped, and that the rest is learned as it would be without it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from make import WAIT, CommandLine, examples

import streamtrain
from streamtrain.errors import ChangedError, CorruptError, DataError
from streamtrain.load import Loader, Source
from streamtrain.load.ledger import Ledger
from streamtrain.storage import Chunk, ChunkTable

ROWS = 40


class Damaged:
    """Chunks of 40 rows: x is the position, y a class. bad: chunks that fail, by the row at which they do. nulls: positions
    that cannot be used: without a target, with one that is not known, or with an infinite feature."""

    schema = pa.schema([("x", pa.float32()), ("z", pa.float32()), ("y", pa.int64())])

    def __init__(
        self, chunks: int, bad: dict[int, int], nulls: Sequence[int] = (), *, target_too: bool = False
    ) -> None:
        self.count, self.bad, self.nulls, self.target_too = chunks, bad, set(nulls), target_too

    def chunks(self) -> list[Chunk]:
        return [Chunk(f"part#{i}", ROWS, 16 * ROWS, 32 * ROWS) for i in range(self.count)]

    def batch(self, first: int, rows: int, columns: Sequence[str]) -> pa.RecordBatch:
        at = np.arange(first, first + rows)
        nulls = [int(p) in self.nulls for p in at]
        y = pa.array([[None, 7, int(p) % 2][p % 3] if null else int(p) % 2 for p, null in zip(at, nulls, strict=True)])
        x = np.where(nulls & (at % 3 == 2), np.inf, at)
        whole = pa.record_batch({"x": x.astype("f4"), "z": at.astype("f4"), "y": y.cast(pa.int64())})
        return whole.select(columns)

    def fails(self, chunk: int, columns: Sequence[str]) -> bool:
        return chunk in self.bad and (self.target_too or "z" in columns)

    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        i = int(chunk.key.split("#")[1])
        if self.fails(i, columns):
            raise OSError("the disk is on fire")
        return self.batch(i * ROWS, ROWS, columns)

    def fingerprint(self) -> str:
        return "damaged"


class Streamed(Damaged):
    """The same, in slices: a chunk fails at the row given."""

    def stream(self, chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Any]:
        i = int(chunk.key.split("#")[1])
        for first in range(0, ROWS, rows):
            if self.fails(i, columns) and first + rows > self.bad[i]:
                raise OSError("the disk is on fire")
            yield self.batch(i * ROWS + first, min(rows, ROWS - first), columns)

    def stream_peak_bytes(self, chunk: Chunk, rows: int) -> int:
        return 100 * rows


class Together(Damaged):
    """The same, which reads several chunks in one call."""

    def read_together(self, chunks: Sequence[Chunk], columns: Sequence[str]) -> Any:
        return pa.Table.from_batches([self.read(chunk, columns) for chunk in chunks])


def opened(reader: Any, most: float = 1.0, *, skips: bool = True) -> tuple[Source, Ledger | None]:
    source = Source.open(reader, target="y")
    ledger = Ledger("data", source.table, most) if skips else None
    return source.surveyed(classes=["0", "1"], ledger=ledger).with_offsets(ledger), ledger


def batches(
    reader: Any,
    *,
    window_rows: int,
    skips: bool = True,
    most: float = 1.0,
    holdout: float = 0.0,
    epochs: int = 2,
    threads: int = 2,
    cluster: Any = None,
) -> tuple[list[tuple[bool, list[int]]], set[int], Ledger | None]:
    """The positions of each batch's rows, and those of weight 0; the others must have their features and targets."""
    source, ledger = opened(reader, most, skips=skips)
    plan = source.plan(batch_size=16, window_rows=window_rows, threads=threads)
    found, skipped = [], set()
    options = {"seed": 3, "holdout": holdout, "epochs": epochs, "ledger": ledger, "cluster": cluster}
    with Loader(source, plan, **options) as loader:
        for _ in range(epochs):
            for batch in loader:
                weights = np.ones(len(batch)) if batch.weights is None else batch.weights
                expected = np.where(weights == 0, 0, batch.rows)
                assert batch.features[:, 0].tolist() == batch.features[:, 1].tolist() == expected.tolist()
                assert (batch.targets == expected % 2).all() and set(weights.tolist()) <= {0.0, 1.0}
                skipped |= set(batch.rows[weights == 0].tolist())
                found.append((batch.held_out, batch.rows.tolist()))
    return found, skipped, ledger


@examples(20)
@given(
    chunks=st.integers(2, 12),
    bad=st.dictionaries(st.integers(0, 11), st.integers(0, ROWS - 1), max_size=5),
    nulls=st.lists(st.integers(0, 12 * ROWS - 1), max_size=9),
    window_rows=st.sampled_from([30, 80, 200, 480]),
    holdout=st.sampled_from([0.0, 0.3]),
    kind=st.sampled_from([Damaged, Streamed, Together]),
    target_too=st.booleans(),
    threads=st.integers(1, 4),
)
def test_what_is_skipped_keeps_its_place_and_has_weight_0(
    chunks: int, bad: dict[int, int], nulls: list[int], window_rows: int, holdout: float, kind: Any, target_too: bool,
    threads: int,
) -> None:  # fmt: skip
    bad = {i: row for i, row in bad.items() if i < chunks}
    nulls = [p for p in nulls if p < chunks * ROWS]
    lost = {p for i in bad for p in range(i * ROWS, (i + 1) * ROWS)} | set(nulls)
    assume(len(lost) < chunks * ROWS)
    asked: dict[str, Any] = {"window_rows": window_rows, "holdout": holdout}
    found, skipped, ledger = batches(kind(chunks, bad, nulls, target_too=target_too), **asked, threads=threads)
    assert found == batches(Damaged(chunks, {}), **asked, skips=False)[0]
    assert ledger is not None and skipped == lost
    counted = {e["chunk"]: e["rows"] for e in ledger.entries()}
    partly = {i: sum(p // ROWS == i for p in set(nulls)) for i in range(chunks) if i not in bad}
    assert counted == {f"part#{i}": 2 * ROWS for i in bad} | {f"part#{i}": 2 * n for i, n in partly.items() if n}
    assert ledger.rows == 2 * len(lost) and ledger.read == 2 * ROWS * chunks  # in two epochs


@pytest.mark.parametrize("kind", [Damaged, Streamed])
def test_a_cursor_is_exact_where_rows_are_skipped(kind: Any) -> None:
    reader = kind(9, {2: 30, 5: 0}, [3, 4, 5, 300])

    def loader() -> tuple[Loader, Ledger]:
        source, ledger = opened(reader)
        assert ledger is not None
        plan = source.plan(batch_size=16, window_rows=100)
        return Loader(source, plan, holdout=0.2, epochs=1, ledger=ledger), ledger

    whole, ledger = loader()
    with whole:
        states, rows = [(whole.state_dict(), ledger.state_dict())], []
        for batch in whole:
            whole.note_skipped()
            rows.append(batch.rows.tolist())
            states.append((whole.state_dict(), json.loads(json.dumps(ledger.state_dict()))))
    for i, (state, noted) in enumerate(states):
        again, other = loader()
        with again:
            other.load_state_dict(noted)
            again.load_state_dict(state)
            assert [batch.rows.tolist() for batch in again] == rows[i:]
            assert other.entries() == ledger.entries() and other.read == ledger.read == 9 * ROWS


@pytest.mark.parametrize("kind", [Damaged, Streamed])
def test_the_workers_of_a_cluster_skip_the_same(kind: Any) -> None:
    pytest.importorskip("distributed")
    from distributed import Client, LocalCluster

    found, ledgers = [], []
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=False,
            protocol="tcp",
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster, timeout=WAIT, set_as_default=False) as client,
    ):
        for workers in (None, client):
            reader = kind(9, {2: 30, 5: 0}, [3, 4, 5, 300])
            *rows, ledger = batches(reader, window_rows=100, holdout=0.2, cluster=workers)
            found.append(rows)
            ledgers.append(ledger)
    assert found[0] == found[1]
    assert ledgers[0].entries() == ledgers[1].entries() and ledgers[0].rows == 2 * (2 * ROWS + 4)


def test_too_much_is_an_error_that_names_it() -> None:
    # 10 % of the rows: not judged before 10,000 rows were read, which is in the third of epochs of 4,000 rows
    bad = {20 * i: 0 for i in range(5)}
    _, _, ledger = batches(Damaged(100, bad), most=0.04, window_rows=400, epochs=2)
    assert ledger is not None and ledger.rows == 2 * 5 * ROWS
    with pytest.raises(
        CorruptError, match=r"of 10,\d\d\d rows read so far are skipped, more than --max-skip.* 0.04"
    ) as caught:
        batches(Damaged(100, bad), most=0.04, window_rows=400, epochs=3)
    assert "part#0, " in str(caught.value) and "the disk is on fire" in str(caught.value)
    batches(Damaged(100, bad), most=0.06, window_rows=400, epochs=3)


def test_a_file_that_changes_is_not_skipped() -> None:
    class Changing(Damaged):
        def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
            if "z" in columns and chunk.key == "part#1":
                raise ChangedError("part#1: the file has changed")
            return super().read(chunk, columns)

    with pytest.raises(ChangedError):
        batches(Changing(4, {}), window_rows=160)


def test_without_it_all_of_this_is_an_error() -> None:
    with pytest.raises(CorruptError, match="part#1: cannot be read: OSError: the disk is on fire"):
        batches(Damaged(4, {1: 0}), skips=False, window_rows=160)
    with pytest.raises(DataError, match="1 null"):
        batches(Damaged(4, {}, [6]), skips=False, window_rows=160)
    with pytest.raises(DataError, match="not one of the 2 known classes"):
        batches(Damaged(4, {}, [7]), skips=False, window_rows=160)


def test_the_ledger_goes_on_from_its_state() -> None:
    table = ChunkTable("part#{}".format, [40] * 4, [1] * 4, [1] * 4)
    ledger, again = (Ledger("data", table, most=1) for _ in range(2))
    ledger.skip_chunk(3, CorruptError("gone"))
    ledger.note(1, "nulls")
    ledger.note(3, "of a chunk that is skipped whole")
    ledger.count(160, [1, 1, *[3] * 40])
    again.load_state_dict(json.loads(json.dumps(ledger.state_dict())))
    assert again.entries() == ledger.entries() and again.is_lost(3) and not again.is_lost(1)
    assert [(e["chunk"], e["error"]) for e in again.entries()] == [("part#1", "nulls"), ("part#3", "gone")]
    assert again.rows == 42 and again.read == 160


# -- on the command line ---------------------------------------------------------------------------------------------------


def parquet(folder: Path, *, damaged: Sequence[int]) -> Path:
    """Ten files of one row group each, with checksums; in those damaged a byte of the first column's page is another."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(10):
        x = rng.normal(size=(500, 3)).astype("f4")
        table = pa.table({f"x{k}": x[:, k] for k in range(3)} | {"y": (x.sum(axis=1) > 0).astype("i1")})
        path = folder / f"{i}.parquet"
        pq.write_table(table, path, write_page_checksum=True, use_dictionary=False, compression="none")
        if i in damaged:
            content = bytearray(path.read_bytes())
            content[900] ^= 1
            path.write_bytes(content)
    return folder


@pytest.mark.parametrize("victim", [0, 4, 9])
def test_a_damaged_file_is_skipped_on_every_repeat(tmp_path: Path, victim: int) -> None:
    data, shas, reports = parquet(tmp_path / "data", damaged=[victim]), set(), []
    for run, threads in (("a", 1), ("b", 3)):
        asked: dict[str, Any] = {"on_error": "skip", "max_skipped": 0.1, "window_rows": 1500, "threads": threads}
        report = streamtrain.fit(data, target="y", out=tmp_path / run, **asked).as_dict()
        (entry,) = report["skipped"]
        assert (entry["source"], entry["chunk"], entry["rows"]) == (str(data), f"{victim}.parquet:0", 500)
        assert "crc" in entry["error"].lower()
        assert report["rows"] == report["rows_seen"] == 4500
        reports.append(report["metrics"])
        shas.add(hashlib.sha256((tmp_path / run / "model.safetensors").read_bytes()).hexdigest())
    assert len(shas) == 1 and reports[0] == reports[1]


def test_what_is_skipped_is_shown(tmp_path: Path, cli: CommandLine) -> None:
    data = parquet(tmp_path / "data", damaged=[4])
    refused = cli("fit", data, "--target", "y", "--out", tmp_path / "no")
    assert refused.code == 2 and "4.parquet" in refused.err and not refused.out
    assert not (tmp_path / "no").exists()
    few = cli("fit", data, "--target", "y", "--on-error", "skip", "--epochs", "3")
    assert few.code == 2 and "more than --max-skipped 0.01" in few.err  # 10,000 rows were read
    shown = cli("fit", data, "--target", "y", "--on-error", "skip")
    assert "skipped      500 rows of 1 chunk" in shown.out and "4.parquet" in shown.out


def test_skipping_is_checked() -> None:
    for wrong in ({"on_error": "ignore"}, {"max_skipped": 2.0}, {"max_skipped": float("nan")}):
        with pytest.raises(streamtrain.UsageError, match=r"--on-error|--max-skipped"):
            streamtrain.fit({"x": np.arange(9.0), "y": np.arange(9) % 2}, target="y", **wrong)
