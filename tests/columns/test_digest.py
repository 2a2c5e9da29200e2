"""The digest of a column: the same for the same values, in whatever slices, at whatever offset, in whatever dictionary."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from streamtrain.columns import digest
from streamtrain.columns.digest import ColumnDigest, by_value

ROWS = 60
_RNG = np.random.default_rng(0)
_WORDS = [f"v{i % 7}" * (i % 3) for i in range(ROWS)]
_DECIMALS = [Decimal(i) / 100 for i in range(ROWS)]
_TEXT = (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view())
_WHOLE = [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()]
_NUMBERS = [*_WHOLE, pa.float16(), pa.float32(), pa.float64()]
_TIMES = [
    pa.date32(), pa.date64(), pa.time32("s"), pa.time64("us"), pa.timestamp("us", "UTC"), pa.duration("s"),
]  # fmt: skip


def column(kind: pa.DataType, *, nulls: bool) -> pa.Array:
    """A column of a type; about every fifth value is null if asked for."""
    if kind in _NUMBERS:
        values: list[Any] = [kind.to_pandas_dtype()(i % 50) for i in range(ROWS)]
    elif pa.types.is_decimal(kind):
        values = list(_DECIMALS)
    elif kind in _TEXT:
        values = list(_WORDS)
    elif kind in _TIMES:
        ticks = pa.array(np.arange(ROWS) * (86_400_000 if kind == pa.date64() else 1))
        values = ticks.cast(pa.int32() if kind.bit_width == 32 else pa.int64()).cast(kind).to_pylist()
    elif pa.types.is_boolean(kind):
        values = [i % 3 == 0 for i in range(ROWS)]
    elif pa.types.is_fixed_size_binary(kind):
        values = [b"%03d" % i for i in range(ROWS)]
    elif isinstance(kind, pa.DictionaryType):
        return column(kind.value_type, nulls=nulls).dictionary_encode()
    elif isinstance(kind, pa.RunEndEncodedType):
        return pc.run_end_encode(column(kind.value_type, nulls=nulls))
    elif isinstance(kind, pa.FixedShapeTensorType):
        return pa.ExtensionArray.from_storage(kind, column(pa.list_(kind.value_type, 6), nulls=nulls))
    else:
        values = lists(kind, nulls=nulls)
    return pa.array([None if nulls and i % 5 == 1 else value for i, value in enumerate(values)], kind)


def lists(kind: Any, *, nulls: bool) -> list[Any]:
    if pa.types.is_map(kind):
        return [{f"k{k}": (i + k) % 9 for k in range(i % 3)} for i in range(ROWS)]
    if pa.types.is_struct(kind.value_type):
        return [[{"a": i + k, "b": k / 4} for k in range(i % 3)] for i in range(ROWS)]
    if pa.types.is_fixed_size_list(kind):
        fixed = (column(kind.value_type, nulls=nulls)[i : i + kind.list_size].to_pylist() for i in range(ROWS))
        return [(value * kind.list_size)[: kind.list_size] for value in fixed]
    entries = column(kind.value_type, nulls=nulls).to_pylist()
    return [entries[i : i + i % 4] for i in range(ROWS)]


KINDS = [
    *_NUMBERS, *_TIMES, *_TEXT, pa.bool_(), pa.binary(3), pa.decimal128(20, 3),
    pa.decimal256(50, 2), pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.int32(), pa.binary()),
    pa.dictionary(pa.int32(), pa.int64()), pa.dictionary(pa.int32(), pa.decimal128(20, 3)),
    pa.run_end_encoded(pa.int32(), pa.int64()), pa.run_end_encoded(pa.int32(), pa.string()), pa.list_(pa.float32(), 3),
    pa.list_(pa.int64()), pa.large_list(pa.string()), pa.list_(pa.dictionary(pa.int32(), pa.string())),
    pa.map_(pa.string(), pa.int16()), pa.list_(pa.struct([("a", pa.int32()), ("b", pa.float32())])),
    pa.list_(pa.list_(pa.uint8(), 2), 3), pa.fixed_shape_tensor(pa.float64(), [2, 3]),
]  # fmt: skip


def digested(pieces: list[pa.Array]) -> int:
    found = ColumnDigest()
    for piece in pieces:
        found.update(piece)
    return found.value("x")


@pytest.mark.parametrize("nulls", [False, True], ids=["full", "nulls"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_slices_and_values(kind: pa.DataType, nulls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    values = column(kind, nulls=nulls)
    whole = digested([values])
    for block_rows, cuts in ((65_536, [0, 1, 8, 8, 33, ROWS]), (7, [0, 20, ROWS]), (1, [0, ROWS])):
        monkeypatch.setattr(digest, "_BLOCK_ROWS", block_rows)
        assert digested([values.slice(a, b - a) for a, b in pairwise(cuts)]) == whole
    assert digested([by_value(values)]) == whole
    seen = {whole}
    for i in (0, ROWS // 2, ROWS - 1):  # another value there
        other = next(k for k in range(ROWS) if values[k] != values[i])
        if not isinstance(kind, pa.RunEndEncodedType):
            seen.add(digested([values[:i], values[other : other + 1], values[i + 1 :]]))
    seen.add(digested([values.slice(1)]))
    assert len(seen) == (2 if isinstance(kind, pa.RunEndEncodedType) else 5)


def test_dictionaries_are_digested_by_value() -> None:
    values = column(pa.string(), nulls=True)
    coded = values.dictionary_encode()
    words = [*coded.dictionary.to_pylist(), "never"][::-1]
    codes = pa.array([None if v is None else words.index(v) for v in values.to_pylist()], pa.int8())
    other = pa.DictionaryArray.from_arrays(codes, pa.array(words))
    with_null = pa.DictionaryArray.from_arrays(codes.fill_null(len(words)), pa.array([*words, None]))
    assert (
        digested([coded]) == digested([other]) == digested([coded.slice(0, 9), other.slice(9)]) == digested([with_null])
    )


def test_what_a_file_holds_at_a_null_does_not_count() -> None:
    bits = pa.py_buffer(b"\x05")
    for kind, one, two in (
        (pa.float64(), [np.array([1.0, 2, 3])], [np.array([1.0, 9, 3])]),
        (pa.bool_(), [np.array([7], np.uint8)], [np.array([5], np.uint8)]),
        (
            pa.string(),
            [np.array([0, 1, 2, 3], np.int32), np.frombuffer(b"abc", np.uint8)],
            [np.array([0, 1, 1, 2], np.int32), np.frombuffer(b"ac", np.uint8)],
        ),
    ):
        arrays = [pa.Array.from_buffers(kind, 3, [bits, *map(pa.py_buffer, data)]) for data in (one, two)]
        assert digested([arrays[0]]) == digested([arrays[1]])


def test_bits_that_are_equal_numbers_differ() -> None:
    quiet, other = (np.array([bits], np.uint64).view(np.float64) for bits in (0x7FF8000000000000, 0x7FF8000000000001))
    assert digested([pa.array([0.0])]) != digested([pa.array([-0.0])])
    assert digested([pa.array(quiet)]) != digested([pa.array(other)])


def test_where_nulls_and_borders_of_text_are() -> None:
    assert digested([pa.array([1, None, 3])]) != digested([pa.array([1, 3, None])])
    assert digested([pa.array(["ab", "c"])]) != digested([pa.array(["a", "bc"])])
    assert digested([pa.array(["a", None])]) != digested([pa.array(["a", ""])])
    assert digested([pa.nulls(3)]) != digested([pa.nulls(4)])
    assert digested([]) != digested([pa.nulls(1)])


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        (pa.list_(pa.string()), [["a", "b"]], [["a", "c"]]),
        (pa.list_(pa.int64()), [[1], [2, 3]], [[1, 2], [3]]),
        (pa.map_(pa.string(), pa.int8()), [{"a": 1}], [{"a": 2}]),
        (pa.struct([("a", pa.int8()), ("b", pa.int8())]), [{"a": 1, "b": 2}], [{"a": 2, "b": 1}]),
        (pa.list_(pa.string()), [["a"], None], [["a"], []]),
    ],
    ids=str,
)
def test_nested_values_that_differ(kind: Any, one: Any, other: Any) -> None:
    assert digested([pa.array(one, kind)]) != digested([pa.array(other, kind)])
