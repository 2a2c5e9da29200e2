"""What reading a row group takes, from what a footer says without naming columns: rows, types, encoded bytes.

The constants were measured (tests/storage/test_parquet.py measures again). A read holds the raw column chunks, what it
decoded, two bytes of definition level a value, and for each column a page and perhaps a dictionary, raw and decoded.
A stream holds a buffer instead of the raw column chunk, and its slices several times over: the one that is filled (whose
buffers grow by doubling), the one before it, and what the allocators keep.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.storage.arrow import bytes_per_row, value_type

__all__ = ["STREAM_BUFFER_BYTES", "Sizes"]

STREAM_BUFFER_BYTES = 1 << 20
_PAGE_BYTES = 400_000
_DICTIONARY_BYTES = 1 << 20  # where writers give up on a dictionary
_LEVEL_BYTES = 2
_READ_SLACK, _STREAM_SLACK = 1.3, 1.1  # allocators
_SLICES_HELD = 7
_TEXT_COPIES = 4  # text that is made into a dictionary: itself, a hash table, and both again as they grow
_TEXT_COPIES_STREAMED = 6  # and what the slice before names


@dataclass(frozen=True)
class Sizes:
    """Sums over row groups: every array has one entry for each."""

    rows: NDArray[np.int64]
    encoded_bytes: NDArray[np.int64]
    stored_columns: int
    row_bytes: float
    has_text: bool

    @classmethod
    def of(cls, schema: pa.Schema, rows: Any, encoded_bytes: Any, stored_columns: int) -> Sizes:
        row_bytes = sum(bytes_per_row(field.type) for field in schema)
        text = any(_has_no_width(value_type(field.type)) for field in schema)
        return cls(np.asarray(rows, np.int64), np.asarray(encoded_bytes, np.int64), stored_columns, row_bytes, text)

    def decoded_bytes(self) -> NDArray[np.int64]:
        plain = np.ceil(self.rows * self.row_bytes).astype(np.int64)
        decoded: NDArray[np.int64] = np.maximum(plain, self.encoded_bytes) if self.has_text else plain
        return decoded

    def read_peak_bytes(self) -> NDArray[np.int64]:
        levels = self.rows * (_LEVEL_BYTES * self.stored_columns)
        held = self.decoded_bytes() + self.encoded_bytes + levels + self._pages() + _TEXT_COPIES * self._text()
        peak: NDArray[np.int64] = (_READ_SLACK * held).astype(np.int64)
        return peak

    def stream_peak_bytes(self, i: int, rows: int) -> int:
        one = replace(self, rows=self.rows[i : i + 1], encoded_bytes=self.encoded_bytes[i : i + 1])
        buffers = np.minimum(one.encoded_bytes, self.stored_columns * STREAM_BUFFER_BYTES)
        slices = _SLICES_HELD * rows * (self.row_bytes + _LEVEL_BYTES * self.stored_columns)
        held = _STREAM_SLACK * (buffers + one._pages() + _TEXT_COPIES_STREAMED * one._text()) + slices
        return int(min(held[0], one.read_peak_bytes()[0]))

    def _pages(self) -> NDArray[Any]:
        """A page of each column, and twice its dictionary. Plain columns take what their types take; more means that
        dictionaries were given up when they were full; less, that codes of so many bits name the values."""
        columns, encoded = max(1, self.stored_columns), self.encoded_bytes
        plain = np.maximum(1, self.rows * self.row_bytes)
        code_bits = np.minimum(30, np.ceil(8 * encoded / np.maximum(1, self.rows * columns)))
        named = 8 * 2.0 ** (code_bits + 2)
        dictionary = np.where(encoded < plain, np.minimum(named, _DICTIONARY_BYTES), _DICTIONARY_BYTES)
        dictionary = np.where(np.abs(encoded - plain) <= 0.02 * plain, 0, np.minimum(dictionary, plain / columns))
        pages: NDArray[Any] = np.minimum(encoded, columns * _PAGE_BYTES) + 2 * columns * dictionary
        return pages

    def _text(self) -> NDArray[Any]:
        """What text takes beside its codes: at most what numbers leave of the encoded bytes."""
        if not self.has_text:
            return np.zeros(len(self.rows))
        return np.maximum(0.0, self.encoded_bytes - self.rows * self.row_bytes)


def _has_no_width(kind: pa.DataType) -> bool:
    try:
        return bool(kind.bit_width < 0)
    except ValueError:
        return True
