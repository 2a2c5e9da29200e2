"""Which rows are held out: scored at the end of each epoch, never learned.

Three rules: a share of the rows, by a hash of their position in the data; a share of the values of a column, by a hash of the
value as text, so that all rows of a value are on one side; or the rows after a time. The last two need values, which are read
once, before training: one bit for each row is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.columns.texts import text_bytes
from streamtrain.errors import ColumnError, DataError
from streamtrain.kernels.hashing import hash_bytes
from streamtrain.plan.order import held_out
from streamtrain.storage.arrow import valid
from streamtrain.storage.kept import Bits, KeptTable
from streamtrain.storage.reader import ChunkTable
from streamtrain.storage.where.grammar import Compare, Literal
from streamtrain.storage.where.literals import compared_type
from streamtrain.storage.where.masks import Where, decoded, tested_type
from streamtrain.storage.where.opening import OpenData

__all__ = ["NONE", "HoldOut", "HoldOutRule", "value_texts"]

_SEED = 0x686F6C64  # of the hash of values: part of the order, never change it
_BLOCK_ROWS, _MOST_COUNTED = 1 << 20, 1 << 22


@dataclass(frozen=True, eq=False)
class HoldOut:
    """The rows of a chunk table that are held out. share: of all rows, by their position in the data. bits: those that a column
    decides, a bit for each row of the data; then the share is not used."""

    share: float = 0.0
    bits: Bits | None = None
    table: ChunkTable | None = None
    warnings: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether any row may be held out."""
        return self.share > 0 or self.bits is not None

    def mask(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these rows of the table are held out, same shape."""
        positions = rows if self.table is None else self.table.data_rows(rows)
        return held_out(positions, self.share) if self.bits is None else self.bits.of(positions)

    @property
    def count(self) -> int | None:
        """How many rows of the table are held out; None if it takes long to count them."""
        if self.bits is None:
            rows = 0 if self.table is None else self.table.total_rows
            return 0 if not self.share else int(self.mask(np.arange(rows)).sum()) if rows <= _MOST_COUNTED else None
        data = self.bits.data
        kept = self.table.kept.data if isinstance(self.table, KeptTable) else None
        blocks = range(0, len(data), _BLOCK_ROWS)
        parts = ((data[at : at + _BLOCK_ROWS], None if kept is None else kept[at : at + _BLOCK_ROWS]) for at in blocks)
        return sum(
            int(np.bitwise_count(some if other is None else some & other).sum(dtype=np.int64)) for some, other in parts
        )


NONE = HoldOut()


@dataclass(frozen=True)
class HoldOutRule:
    """A rule by the values of a column: either ``by``, with the share of its values that are held out, or ``after``, the column
    and the literal that held-out rows are greater than. Called with a schema it gives the test of the rows."""

    by: str | None = None
    share: float = 0.1
    after: tuple[str, str] | None = None

    def __call__(self, schema: pa.Schema) -> HashTest | AfterTest:
        if self.after is None:
            assert self.by is not None
            return HashTest(schema, self.by, self.share)
        name, text = self.after
        kind = tested_type(schema, name, f"--holdout-after {name}={text}")
        compared = compared_type(kind)
        literal = Literal("number" if compared in ("integer", "floating", "decimal") else "text", text)
        if compared in (None, "boolean"):
            raise ColumnError(
                f"--holdout-after {name}={text}: column {name!r} is {kind}, which has no order: name a column of times"
            )
        return AfterTest(Where(Compare(name, ">", literal), schema, f"--holdout-after {name}={text}"))

    def found(self, opened: OpenData) -> HoldOut:
        """The rows that the rule holds out, with warnings. opened: with the test of this rule. Raises DataError if it holds out
        no row, or all of them."""
        test, held = opened.test, HoldOut(0.0, opened.passed, opened.table)
        rows, given = opened.table.total_rows, f"--holdout-by {self.by} --holdout {self.share:g}"
        size = "larger" if not held.count else "smaller"
        helps = f"give a {size} --holdout, or a column with more values"
        if self.after is not None:
            given, helps = f"--holdout-after {'='.join(self.after)}", "give another time"
        if held.count in (0, rows):
            which = "none" if not held.count else "all"
            raise DataError(f"{given}: holds out {which} of the {rows:,} rows: {helps}")
        if not isinstance(test, AfterTest) or not test.nulls:
            return held
        without = f"{test.nulls:,} rows of the data have no {test.columns[0]!r}"
        return replace(held, warnings=(f"{given}: {without}: they are not held out, and so they are learned",))


class AfterTest:
    """Holds out the rows that match a comparison, and counts those that have nothing to compare."""

    def __init__(self, where: Where) -> None:
        self._where, self.nulls = where, 0
        self.columns: Sequence[str] = where.columns

    def matches(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        values = batch.column(batch.schema.get_field_index(self.columns[0]))
        self.nulls += decoded(values).is_null().true_count
        return self._where.matches(batch)


class HashTest:
    """Holds out a share of the values of a column, with all of their rows. Raises ColumnError for a column whose values are no
    single numbers, texts or times."""

    def __init__(self, schema: pa.Schema, column: str, share: float) -> None:
        kind = tested_type(schema, column, f"--holdout-by {column}")
        if compared_type(kind) is None and not pa.types.is_null(kind):
            raise ColumnError(
                f"--holdout-by {column}: column {column!r} is {kind}: name one with a number, a text or a time in each row"
            )
        self.columns: Sequence[str] = [column]
        self._most = int(share * 2**32)

    def matches(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        values = batch.column(batch.schema.get_field_index(self.columns[0]))
        return pa.array(self._hashes(values) < self._most)

    def _hashes(self, values: Any) -> NDArray[np.uint32]:
        """A hash of each value; that of null is one of the hashes too."""
        values = decoded(values)
        if isinstance(values, pa.DictionaryArray):
            if len(values.dictionary) > len(values):
                values = values.dictionary_decode()
            else:
                each, codes = self._hashes(values.dictionary), values.indices
                whole = np.append(each, self._hashes(pa.nulls(1)))
                numbers = codes.cast(pa.int64()).fill_null(len(each)).to_numpy(zero_copy_only=False)
                return np.asarray(whole[numbers])
        data, offsets, is_valid = text_bytes(value_texts(values))
        hashes = hash_bytes(data, np.ascontiguousarray(offsets), _SEED)
        null = hash_bytes(np.zeros(0, np.uint8), np.zeros(2, np.int64), _SEED ^ 1)[0]
        return np.where(is_valid, hashes, null)


def value_texts(values: Any) -> Any:
    """Each value as text, so that equal values of different types have the same: whole numbers as digits, also 7.0 and decimal
    7.00; other numbers with the fewest digits that tell them apart; times without trailing zeros, in UTC; NaN as null. Text and
    bytes as they are.

    >>> value_texts(pa.array([7.0, 0.1, None, float("nan")])).to_pylist(), value_texts(pa.array([7], pa.uint8())).to_pylist()
    (['7', '0.1', None, None], ['7'])
    """
    from pyarrow import compute  # imported on demand: it costs 20 MB

    t = pa.types
    kind = values.type
    if t.is_fixed_size_binary(kind):
        return values.cast(pa.binary())
    if t.is_null(kind) or compared_type(kind) == "text":
        return values
    if t.is_floating(kind):
        return _float_texts(values, compute)
    if t.is_decimal(kind):
        encoded = values.cast(pa.decimal256(kind.precision, kind.scale)).dictionary_encode()
        texts = pa.array([_decimal_text(each.as_py()) for each in encoded.dictionary], pa.string())
        return texts.take(encoded.indices)
    if t.is_timestamp(kind):
        values = values.cast(pa.timestamp(kind.unit))
    texts = values.cast(pa.string())
    if t.is_timestamp(kind) or t.is_time(kind):
        texts = compute.replace_substring_regex(texts, r"(\.\d*?)0+$", r"\1")
        texts = compute.replace_substring_regex(texts, r"\.$", "")
    return texts


def _float_texts(values: Any, compute: Any) -> Any:
    if pa.types.is_float16(values.type):
        values = values.cast(pa.float32())
    texts, is_valid = values.cast(pa.string()), valid(values)
    numbers = values.fill_null(0).to_numpy(zero_copy_only=False)
    is_whole = np.abs(numbers) < 2**53  # false for NaN too
    is_whole &= np.trunc(numbers) == numbers
    whole = pa.array(np.where(is_whole, numbers, 0).astype(np.int64)).cast(pa.string())
    known = pa.array(np.isnan(numbers) | ~is_valid)
    return compute.if_else(known, pa.scalar(None, pa.string()), compute.if_else(pa.array(is_whole), whole, texts))


def _decimal_text(number: Decimal | None) -> str | None:
    if number is None:
        return None
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
