"""Loading with --where, --holdout-by and --holdout-after: the rows, their positions, and resuming at every batch."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamtrain import fit
from streamtrain.errors import BadValueError, ColumnError, CorruptError, DataError
from streamtrain.load import Loader, Source
from streamtrain.load.chunks import load_chunks
from streamtrain.load.demand import demand_of
from streamtrain.load.holdout import HashTest, HoldOutRule, value_texts
from streamtrain.load.ledger import Ledger
from streamtrain.plan.memory_model import sliced
from streamtrain.plan.order import held_out
from streamtrain.storage import Chunk
from streamtrain.storage.checked import read_columns
from streamtrain.storage.settings import ReadSettings
from streamtrain.testing import assert_resumes_exactly

ROWS = 600
WHERE = "x > 30 and not u = 3"


def table() -> pa.Table:
    at = np.arange(ROWS)
    return pa.table({
        "row": at.astype("f4"), "x": pa.array(at % 100, mask=at % 13 == 0), "u": at % 17, "city": [f"c{i % 5}" for i in at],
        "t": pa.array(at * 3600, pa.timestamp("s")), "y": at % 2,
    })  # fmt: skip


CHOSEN = np.array([r for r in range(ROWS) if r % 13 and r % 100 > 30 and r % 17 != 3])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Row groups of 25 rows, of which one has no row that matches, and one of 300, which is streamed."""
    path = tmp_path_factory.mktemp("chosen")
    pq.write_table(table().slice(0, 300), path / "a.parquet", row_group_size=25)
    pq.write_table(table().slice(300), path / "b.parquet")
    return path


def opened(data: Any, where: str | None = WHERE, rule: HoldOutRule | None = None, **options: Any) -> Source:
    reading = ReadSettings(where=where)
    return Source.open(data, target="y", features=["row", "city"], reading=reading, hold_out=rule, **options).surveyed()


def rows_of(source: Source, **asked: Any) -> tuple[list[int], list[int]]:
    """The rows that are learned, and those that are held out: by what is read, and by their positions."""
    holdout, learned, held = asked.pop("holdout", 0.0), list[int](), list[int]()
    plan = source.plan(batch_size=40, memory=10**9, **asked)
    with Loader(source, plan, seed=1, holdout=holdout, epochs=1) as loader:
        for batch in loader:
            assert batch.features[:, 0].tolist() == batch.rows.tolist()
            (held if batch.held_out else learned).extend(batch.rows.tolist())
    return learned, held


@pytest.mark.parametrize("asked", [{"window_rows": 100}, {"window_rows": 100, "shuffle": False}, {}])
def test_rows_and_positions(folder: Path, asked: dict[str, Any]) -> None:
    for data in (str(folder), table()):
        source = opened(data)
        assert source.table.total_rows == len(CHOSEN) and source.table.unfiltered.total_rows == ROWS
        learned, held = rows_of(source, **asked)
        assert sorted(learned) == CHOSEN.tolist() and not held
        learned, held = rows_of(source, holdout=0.2, **asked)
        out = held_out(CHOSEN, 0.2)  # by the position among all rows
        assert (sorted(learned), sorted(held)) == (CHOSEN[~out].tolist(), CHOSEN[out].tolist())


@pytest.mark.parametrize("rule", [None, HoldOutRule("u", 0.3), HoldOutRule(after=("t", "1970-01-15"))])
@pytest.mark.parametrize("where", [None, WHERE])
def test_goes_on_exactly(folder: Path, where: str | None, rule: HoldOutRule | None) -> None:
    asked = {"batch_size": 40, "window_rows": 90, "memory": 10**9}
    first, again = (opened(str(folder), where, rule) for _ in range(2))
    assert first.plan(**asked).streamed_chunks  # type: ignore[arg-type]

    def loader(source: Source, threads: int) -> Loader:
        plan = source.plan(threads=threads, **asked)  # type: ignore[arg-type]
        return Loader(source, plan, seed=3, holdout=0.2 if rule is None else 0.0, epochs=2)

    assert_resumes_exactly(lambda: loader(first, 1), epochs=2, into=lambda: loader(again, 3), most=3)
    with loader(first, 1) as one, loader(opened(str(folder), "x > 31 and not u = 3", rule), 1) as other:
        assert one.state_dict()["order"] != other.state_dict()["order"]


def test_the_order_is_of_the_rows() -> None:
    """Also where the chunks have as many."""
    orders = set()
    for where, share in (("row < 300", 0.1), ("row >= 300", 0.1), ("row >= 300", 0.3)):
        source = opened(table(), where, HoldOutRule("u", share))
        with Loader(source, source.plan(batch_size=40, window_rows=300)) as loader:
            orders.add(loader.state_dict()["order"])
    assert len(orders) == 3


def test_the_same_rows_as_a_copy_without_the_others(tmp_path: Path) -> None:
    """A file that has only the rows that match, in chunks of the same rows, gives the same batches."""
    pq.write_table(table(), tmp_path / "a.parquet", row_group_size=25)
    pieces = [
        table().slice(start, 25).filter(np.isin(np.arange(start, start + 25), CHOSEN)) for start in range(0, ROWS, 25)
    ]
    with pq.ParquetWriter(tmp_path / "b.parquet", table().schema) as writer:
        for piece in pieces:
            writer.write_table(piece)

    def batches(source: Source) -> list[bytes]:
        with Loader(source, source.plan(batch_size=32, window_rows=100, memory=10**9), seed=5, epochs=1) as loader:
            return [batch.features.tobytes() + batch.targets.tobytes() for batch in loader]

    source, copy = opened(str(tmp_path / "a.parquet")), opened(str(tmp_path / "b.parquet"), None)
    assert 0 in source.table.rows and source.table.rows.tolist() == [len(piece) for piece in pieces]
    assert batches(source) == batches(copy)


def test_workers_of_a_cluster_get_what_they_need(folder: Path) -> None:
    source = opened(str(folder))
    chunks = pickle.loads(pickle.dumps([source.table[i] for i in range(len(source.table))]))
    for some in (chunks, chunks[-1:]):
        arrays, lost, digests, errors = load_chunks(source.reader, source.layout, some, [["row", "city", "y"]])
        rows = CHOSEN if some is chunks else CHOSEN[CHOSEN >= 300]
        assert arrays.features[:, 0].tolist() == rows.tolist() and not lost and not errors and len(digests) == len(some)


def test_all_rows_of_a_value_are_on_one_side(folder: Path) -> None:
    learned, held = rows_of(opened(str(folder), None, HoldOutRule("u", 0.3)), window_rows=100)
    assert sorted(learned + held) == list(range(ROWS)) and not {r % 17 for r in learned} & {r % 17 for r in held}
    _, among = rows_of(opened(str(folder), WHERE, HoldOutRule("u", 0.3)), window_rows=100)
    assert sorted(among) == sorted(set(held) & set(CHOSEN.tolist()))
    _, same = rows_of(
        opened(
            table().set_column(2, "u", table()["u"].cast(pa.string()).dictionary_encode()), None, HoldOutRule("u", 0.3)
        )
    )
    assert sorted(same) == sorted(held)


def test_values_as_text() -> None:
    """Whatever its type, a value has one hash; nulls and NaN are one group."""
    values = [0, 7, -5, 12, None]
    texts = [None if v is None else str(v) for v in values]
    hashes = HashTest(pa.schema([("a", pa.int64())]), "a", 0.5)._hashes
    expected = hashes(pa.array(texts)).tolist()
    assert len({*expected, *hashes(pa.array([""])).tolist()}) == 6
    for kind in (pa.int8(), pa.int32(), pa.float32(), pa.float64()):
        assert hashes(pa.array(values, kind)).tolist() == expected, kind
    assert hashes(pa.array(values, pa.float32()).cast(pa.float16())).tolist() == expected
    numbers = [None if v is None else Decimal(v) for v in values]
    for kind in (pa.decimal128(9, 2), pa.decimal128(9, 0)):
        assert hashes(pa.array(numbers, kind)).tolist() == expected, kind
    for encoded in (
        pa.array(texts, pa.large_string()),
        pa.array(texts, pa.string_view()),
        pa.array(texts).dictionary_encode(),
    ):
        assert hashes(encoded).tolist() == expected
        assert hashes(encoded.slice(1)).tolist() == expected[1:]
    assert hashes(pa.array([float("nan")])).tolist() == expected[-1:] == hashes(pa.nulls(1)).tolist()
    assert value_texts(pa.array([0.1, -2.5, 2.0**52])).to_pylist() == ["0.1", "-2.5", "4503599627370496"]
    assert value_texts(pa.array([0.1], pa.float32())).to_pylist() == ["0.1"]
    times = pa.array([0, 1_500], pa.timestamp("ms", "Europe/Berlin"))
    assert value_texts(times).to_pylist() == value_texts(times.cast(pa.timestamp("us"))).to_pylist()
    assert value_texts(times).to_pylist() == ["1970-01-01 00:00:00", "1970-01-01 00:00:01.5"]


def test_rows_after_a_time(folder: Path) -> None:
    learned, held = rows_of(opened(str(folder), None, HoldOutRule(after=("t", "1970-01-15 12:00"))), window_rows=100)
    first = (14 * 24 + 12) + 1
    assert sorted(learned) == list(range(first)) and sorted(held) == list(range(first, ROWS))
    missing = table().set_column(4, "t", pa.array([None, None, *range(2, ROWS)], pa.timestamp("s")))
    source = opened(missing, None, HoldOutRule(after=("t", "1970-01-01 00:05")))
    assert source.plan().held_rows == ROWS - 301
    assert any("2 rows of the data have no 't'" in warning for warning in source.plan().warnings)


@pytest.mark.parametrize(
    ("rule", "error", "says"),
    [
        (
            HoldOutRule("y", 0.01),
            DataError,
            "--holdout-by y --holdout 0.01: holds out none of the 600 rows: give a larger",
        ),
        (HoldOutRule(after=("t", "1999-01-01")), DataError, "holds out none of the 600 rows: give another time"),
        (HoldOutRule(after=("t", "1960-01-01")), DataError, "holds out all of the 600 rows"),
        (HoldOutRule(after=("t", "soon")), ColumnError, "'soon' is no value of that type: give a date or time"),
        (HoldOutRule(after=("nobody", "1")), ColumnError, "no column 'nobody'"),
        (HoldOutRule("nobody"), ColumnError, "no column 'nobody'"),
    ],
)
def test_rules_that_cannot_be(rule: HoldOutRule, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        opened(table(), None, rule)


class Damaged:
    """Chunks of 40 rows; that with number 2 has no readable ``u``, and that with number 4 no readable ``row``."""

    schema = pa.schema([("row", pa.float32()), ("u", pa.int64()), ("y", pa.int64())])

    def chunks(self) -> list[Chunk]:
        return [Chunk(f"part#{i}", 40, 20 * 40, 40 * 40) for i in range(6)]

    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        number = int(chunk.key.split("#")[1])
        if (number == 2 and "u" in columns) or (number == 4 and "row" in columns):
            raise OSError("the disk is on fire")
        at = np.arange(40 * number, 40 * number + 40)
        whole = {"row": at.astype("f4"), "u": at % 17, "y": pa.array(at % 2, mask=at == 20)}
        return pa.record_batch({name: whole[name] for name in columns})

    def fingerprint(self) -> str:
        return "damaged"


def test_a_chunk_whose_rows_are_unknown_is_skipped() -> None:
    reading = ReadSettings(where="u < 9")
    with pytest.raises(CorruptError, match="part#2"):
        Source.open(Damaged(), target="y", features=["row"], reading=reading)

    def loader() -> Loader:
        source = Source.open(Damaged(), target="y", features=["row"], reading=reading, skips=True)
        ledger = Ledger("data", source.table, most=1)
        for number, error in source.unread.items():
            ledger.skip_chunk(number, error)
        source = source.surveyed(ledger=ledger)
        plan = source.plan(batch_size=16, window_rows=60, memory=10**9)
        return Loader(source, plan, epochs=2, holdout=0.2, ledger=ledger)

    report = fit(Damaged(), target="y", features=["row"], where="u < 9", on_error="skip", max_skipped=1).report
    kept = sum(r % 17 < 9 for r in range(160, 200))
    assert [(entry["chunk"], entry["rows"]) for entry in report.skipped] == [
        ("part#0", 1),
        ("part#2", 40),
        ("part#4", kept),
    ]
    with loader() as first:
        rows, weights = [], []
        for batch in first:
            rows += batch.rows.tolist()
            weights += [1.0] * len(batch) if batch.weights is None else batch.weights.tolist()
        assert sorted(r for r, w in zip(rows, weights, strict=True) if w == 0) == [
            r for r in range(240) if r // 40 == 2 or (r % 17 < 9 and (r // 40 == 4 or r == 20))
        ]
        rows = sorted(rows)
        assert rows == [r for r in range(240) if r % 17 < 9 or r // 40 == 2]
    assert_resumes_exactly(loader, epochs=2)


def test_a_long_chunk_with_few_rows_is_read_in_slices(tmp_path: Path) -> None:
    """A window holds its rows, but the memory of a read does not hold the chunk."""
    rows = np.arange(100_000)
    pq.write_table(pa.table({"row": rows.astype("f4"), "city": rows % 5, "y": rows % 2}), tmp_path / "a.parquet")
    few, every = opened(str(tmp_path / "a.parquet"), "row < 50"), opened(str(tmp_path / "a.parquet"), None)
    for source, expected in ((few, True), (every, False)):
        demand = demand_of(
            source.reader, source.table, source.layout, is_surveyed=True, terms=(), scratch_bytes=None, held=source.held
        )
        assert sliced(demand, 100_000, 100_000, shuffle=True).tolist() == [expected]
    assert sorted(rows_of(few)[0]) == list(range(50)) and few.plan().term_bytes["row choice"] > 100_000 / 8


def test_an_error_names_the_row_of_the_whole_chunk(folder: Path) -> None:
    source = opened(str(folder))
    with Loader(source, source.plan(batch_size=40), epochs=1) as loader:
        batch = next(loader)
        row = int(batch.rows[7])
        error = source.located(BadValueError("bad", row=7), batch)
        chunk = row // 25 if row < 300 else 12
        assert str(error) == f"row {row - 25 * chunk} of {source.table[chunk].key}: bad"


def test_what_a_reader_returns_otherwise_is_filtered_too() -> None:
    """Types that Arrow cannot filter by itself, and tensors."""
    columns = {
        "v": pa.array([f"v{i}" for i in range(50)], pa.string_view()),
        "r": pa.RunEndEncodedArray.from_arrays(np.arange(5, 51, 5, dtype="i4"), pa.array(np.arange(10))),
        "T": pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(100.0).reshape(50, 2)),
        "n": pa.array([[{"a": f"{i}"}] for i in range(50)]),
        "y": pa.array(np.arange(50) % 3),
    }
    whole = pa.table(columns)
    source = Source.open(whole, target="y", features=["T"], reading=ReadSettings(where="y = 1"))
    (batch,) = read_columns(source.reader, source.table[0], list(columns))
    assert batch.num_rows == source.table.total_rows == 17
    for name in columns:
        assert batch.column(name).to_pylist() == whole[name].to_pylist()[1::3]
        assert batch.column(name).type == whole[name].type
