"""Rows put together from batches of any size are the rows that came, in memory that does not grow with their number."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import examples

from streamtrain.errors import SchemaError
from streamtrain.tools.rechunk.gather import Gather, gathered_bits

ROWS = 40


def values() -> dict[str, Any]:
    """A column of each kind, 40 rows, a third of them null where there can be any."""
    rng = np.random.default_rng(0)

    def some(make: Any, kind: pa.DataType) -> Any:
        return pa.array([None if i % 3 == 1 and i > 5 else make(i) for i in range(ROWS)], kind)

    words = pa.array(["", "é", "much longer than the others", "x" * 40])
    codes = pa.array([None if i % 7 == 3 else i % 4 for i in range(ROWS)], pa.int8())
    tensor = pa.FixedSizeListArray.from_arrays(pa.array(rng.random(6 * ROWS, np.float32)), 6)
    return {
        "int8": some(lambda i: i - 20, pa.int8()),
        "uint64": some(lambda i: 2**64 - 1 - i, pa.uint64()),
        "half": pa.array(np.arange(ROWS, dtype=np.float16)),
        "double": some(lambda i: i / 3, pa.float64()),
        "bool": some(lambda i: i % 5 < 2, pa.bool_()),
        "decimal": some(lambda i: decimal.Decimal(i) / 4, pa.decimal128(20, 2)),
        "time": some(lambda i: datetime.datetime(2024, 1, 1) + i * datetime.timedelta(1), pa.timestamp("us")),
        "bytes of five": some(lambda i: bytes([i] * 5), pa.binary(5)),
        "tensor": pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), [2, 3]), tensor),
        "lists of two": some(lambda i: [i, None], pa.list_(pa.int16(), 2)),
        "lists of two words": some(lambda i: ["a" * i, None], pa.list_(pa.string(), 2)),
        "uuid": pa.ExtensionArray.from_storage(pa.uuid(), some(lambda i: bytes([i] * 16), pa.binary(16))),
        "words": some(lambda i: "w" * i, pa.string()),
        "bytes": some(lambda i: b"b" * i, pa.binary()),
        "lists": some(lambda i: list(range(i % 4)), pa.list_(pa.int32())),
        "struct": some(lambda i: {"a": i, "b": str(i)}, pa.struct([("a", pa.int8()), ("b", pa.string())])),
        "nothing": pa.nulls(ROWS),
        "codes": pa.DictionaryArray.from_arrays(codes, words),
        "text": pa.DictionaryArray.from_arrays(codes, words),
        "ordered": pa.DictionaryArray.from_arrays(codes, words, ordered=True),
        "codes of 64 bits": pa.DictionaryArray.from_arrays(codes.cast(pa.uint64()), words),
        "numbers by code": pa.DictionaryArray.from_arrays(codes, pa.array([5, 6, 7, 8])),
    }


VALUES = values()
BATCH = pa.record_batch(VALUES)


@examples(60)
@given(
    st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=6, unique=True),
    st.integers(1, ROWS),
    st.lists(st.integers(1, ROWS), min_size=1, max_size=8),
    st.booleans(),
)
def test_rows_are_those_that_came(names: list[str], rows: int, steps: list[int], early: bool) -> None:
    batch = BATCH.select(names)
    gather = Gather(batch.schema, rows, frozenset({"text"}))
    found: list[Any] = []
    at = turn = 0
    while at < ROWS:
        step = min(gather.room, ROWS - at, steps[turn % len(steps)])
        gather.add(batch.slice(at, step))
        at, turn = at + step, turn + 1
        if not gather.room or (early and turn % 3 == 0):
            taken = gather.take()
            taken.validate(full=True)
            assert taken.schema == gather.schema
            found += taken.to_pylist()  # the next rows go to the same buffers
    found += gather.take().to_pylist()
    assert found == batch.to_pylist()


@pytest.mark.parametrize("name", VALUES)
def test_types_stay(name: str) -> None:
    gather = Gather(BATCH.select([name]).schema, ROWS)
    gather.add(BATCH.select([name]))
    (found,) = gather.take().columns
    kind = VALUES[name].type
    if isinstance(kind, pa.DictionaryType):
        kind = pa.dictionary(pa.int32(), kind.value_type, kind.ordered)
    assert found.type == kind and found.null_count == VALUES[name].null_count


def test_buffers_are_allocated_once() -> None:
    names = [
        n for n in VALUES if gathered_bits(VALUES[n].type) > 1 and not isinstance(VALUES[n].type, pa.DictionaryType)
    ]
    batch = BATCH.select([n for n in names if n != "lists of two words"])
    gather = Gather(batch.schema, 1000)
    declared = 1000 * sum(gathered_bits(kind) for kind in batch.schema.types) / 8
    for _ in range(25):
        gather.add(batch)
        assert gather.held_bytes <= declared + 100
    assert declared <= 1.3 * gather.held_bytes
    assert gather.room == 0


def coded(texts: list[str], dictionary: list[str] | None = None) -> pa.RecordBatch:
    known = dictionary or sorted(set(texts))
    codes = pa.array([known.index(text) for text in texts], pa.int32())
    return pa.record_batch({"s": pa.DictionaryArray.from_arrays(codes, pa.array(known))})


def test_text_is_held_once_however_often_it_occurs() -> None:
    texts = [f"{i:04d}" * 200 for i in range(100)]
    gather = Gather(coded(texts).schema, 100_000, frozenset({"s"}))
    sizes = []
    for i in range(1000):
        gather.add(coded(texts, texts[i % 7 :] + texts[: i % 7]))  # each time in another order
        sizes.append(gather.held_bytes - 100_000 * 4)
    assert max(sizes) < 2.5e6  # its dictionaries alone would be 80 MB
    found = gather.take()["s"]
    assert len(found.dictionary) == 100 and found.to_pylist() == texts * 1000


@pytest.mark.parametrize("text", [True, False])
def test_values_that_do_not_occur_are_kept_of_small_dictionaries_only(text: bool) -> None:
    for size, kept in ((10, not text), (100_000, False)):
        known = [f"{i}" * size for i in range(20)]
        batch = coded([known[7], known[3]], known)
        gather = Gather(batch.schema, 10, frozenset({"s"} if text else ()))
        gather.add(batch)
        found = gather.take()["s"]
        assert found.to_pylist() == [known[7], known[3]]
        assert found.dictionary.to_pylist() == (known if kept else [known[3], known[7]])


def test_an_ordered_dictionary_keeps_all_its_values_in_their_order() -> None:
    known = [f"{i}" * 100_000 for i in (5, 1, 9, *range(10, 20))]
    batch = coded([known[2], known[0]], known)
    kind = pa.dictionary(pa.int32(), pa.string(), ordered=True)
    ordered = pa.record_batch(
        {"s": pa.DictionaryArray.from_arrays(batch["s"].indices, batch["s"].dictionary, ordered=True)}
    )
    gather = Gather(ordered.schema, 10)
    gather.add(ordered)
    gather.add(ordered)
    found = gather.take()["s"]
    assert found.type == kind and found.dictionary.to_pylist() == known


def test_pieces_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    gather = Gather(pa.schema([("s", pa.string())]), 1000)
    for i in range(1000):
        gather.add(pa.record_batch({"s": [str(i)]}))
    pieces = gather._columns[0]._levels  # type: ignore[attr-defined]
    assert sum(map(len, pieces)) < 8 * len(pieces) <= 40
    assert gather.take()["s"].to_pylist() == [str(i) for i in range(1000)]


def test_a_slice_does_not_keep_what_it_was_cut_from() -> None:
    whole = pa.record_batch({"s": ["x" * 1000] * 1000})
    gather = Gather(whole.schema, 10)
    gather.add(whole.slice(0, 1))
    assert gather.held_bytes < 3000
    piece = gather._columns[0]._levels[0][0]  # type: ignore[attr-defined]
    assert sum(buffer.size for buffer in piece.buffers() if buffer) < 3000


def test_what_does_not_fit_is_refused_by_name() -> None:
    gather = Gather(pa.schema([pa.field("x", pa.int8(), nullable=False)]), 2)
    with pytest.raises(SchemaError, match="'x': expected int8, got int64"):
        gather.add(pa.record_batch({"x": [1]}))
    with pytest.raises(SchemaError, match="'x': contains a null, which the schema does not allow"):
        gather.add(pa.record_batch({"x": pa.array([None], pa.int8())}))
    with pytest.raises(ValueError, match="3 rows do not fit"):
        gather.add(pa.record_batch({"x": pa.array([1, 2, 3], pa.int8())}))
