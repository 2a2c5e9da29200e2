"""Estimate the memory for reading a row group, without column metadata: from its rows, types, encoded bytes, and the size of
the first page of a file.

The constants were measured (tests/storage/test_parquet.py measures them again). A read holds:

- the raw column chunks and the decoded values,
- two bytes of definition level for each value of a column that may have nulls,
- the stored form of numbers whose Arrow form differs (Parquet stores an int8 in four bytes),
- for each column a page and perhaps a dictionary, raw and decoded.

A stream holds a buffer instead of the raw column chunk, and several slices: the one being filled (its buffers grow by
doubling), the one before it, and memory that the allocator keeps. The buffers are small and of one size, so that the allocator
can reuse their memory for chunks of all sizes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.storage.arrow import bytes_per_row, value_type
from streamtrain.storage.parquet.text_pages import NO_PAGES, ColumnPages

__all__ = ["STREAM_BUFFER_BYTES", "Page", "Sizes", "remote_buffer_bytes"]

STREAM_BUFFER_BYTES = 1 << 18  # per column
_REMOTE_BUFFERS_BYTES, _REMOTE_BUFFER_BYTES = (
    16 << 20,
    2 << 20,
)  # remote files: for all columns together, and at most for one
_PAGE_BYTES = 1 << 20  # the usual page size of writers, unless the first page is larger
_SMALL_PAGE_BYTES = (
    1 << 18
)  # pages up to this size are held three times: raw, decompressed, and rounding of the allocator
_COLUMN_BYTES = 2_000  # the objects of a column
_DICTIONARY_BYTES = 1 << 20  # writers give up on a larger dictionary
_LEVEL_BYTES = 2
_SLACK = 1.25  # overhead of the allocator
_STREAM_SLACK = 2.2  # the same for streams, where memory gets fragmented over time
_STREAM_TEXT_SLACK, _STREAM_TEXT_MOST = 2.0, 1.25  # the same for dictionaries, and for a whole read at most
_SLICES_HELD = 6
_TEXT_COPIES = 2  # of text that is encoded as a dictionary: the text, and the growing dictionary
_TEXT_COPIES_STREAMED = 4  # also the dictionary of the previous slice
_LONG_TEXT_COPIES = 3.5  # of a slice: the text, and the dictionary, which grows by doubling
_LONG_TEXT_BYTES, _INDEX_BYTES = 4 << 20, 3  # less text than this is read as a dictionary; an index of a row
_VALUE_BYTES, _VALUE_COPIES = (
    65,
    8,
)  # per dictionary value for hash table and offsets; at most this multiple of the text


@dataclass(frozen=True)
class Page:
    """The largest first data page of all files: its values and its decompressed bytes; zeros if unknown. The pages of other
    columns follow from it, because writers end a page after a number of rows or of bytes."""

    values: int = 0
    nbytes: int = 0

    def bytes_of(self, width: NDArray[Any]) -> NDArray[Any]:
        """The bytes of a page in columns whose values take ``width`` bytes.

        >>> widths = np.array([4.0, 8.0])
        >>> [page.bytes_of(widths).tolist() for page in (Page(20_000, 80_000), Page(10**6, 4 * 10**6), Page())]
        [[80000.0, 160000.0], [4000000.0, 4000000.0], [1048576.0, 1048576.0]]
        """
        if not self.values:
            return np.full(len(width), float(_PAGE_BYTES))
        nbytes: NDArray[Any] = np.maximum(self.nbytes, np.minimum(self.values * width, _PAGE_BYTES)).astype(np.float64)
        return nbytes

    def larger(self, other: Page) -> Page:
        """The larger number of values, and the larger number of bytes, of two pages."""
        return Page(max(self.values, other.values), max(self.nbytes, other.nbytes))


@dataclass(frozen=True)
class Sizes:
    """The sizes of row groups. The arrays have one entry for each row group, shape (groups,).

    row_bytes: decoded bytes of a row. stored_row_bytes: bytes of a row in Parquet, without dictionaries. scratch_row_bytes:
    bytes of a row in the columns whose Arrow form differs from the stored form. level_columns: the number of columns that
    may have nulls. text_columns: the number of columns whose values have no fixed width. buffer_bytes: bytes that a stream
    reads of a column at once. text_pages: of all columns of long text together, where a row group has any.
    """

    rows: NDArray[np.int64]
    encoded_bytes: NDArray[np.int64]
    stored_columns: int
    row_bytes: float
    stored_row_bytes: float
    scratch_row_bytes: float
    level_columns: int
    text_columns: int
    page: Page
    buffer_bytes: int = STREAM_BUFFER_BYTES
    text_pages: ColumnPages = NO_PAGES

    @classmethod
    def of(
        cls, schema: pa.Schema, rows: Any, encoded_bytes: Any, stored_columns: int, page: Page,
        buffer_bytes: int = STREAM_BUFFER_BYTES, cast_row_bytes: float = 0.0,
    ) -> Sizes:  # fmt: skip
        """The sizes of row groups with these rows and encoded bytes. cast_row_bytes: of the columns that are cast."""
        kinds = [value_type(field.type) for field in schema]
        return cls(
            rows=np.asarray(rows, np.int64),
            encoded_bytes=np.asarray(encoded_bytes, np.int64),
            stored_columns=stored_columns,
            row_bytes=sum(bytes_per_row(field.type) for field in schema),
            stored_row_bytes=sum(_stored_width(field.type) for field in schema),
            scratch_row_bytes=sum(map(_scratch_width, kinds)) + cast_row_bytes,
            level_columns=stored_columns - sum(not f.nullable and not pa.types.is_nested(f.type) for f in schema),
            text_columns=sum(map(_has_no_width, kinds)),
            page=page,
            buffer_bytes=buffer_bytes,
        )

    def of_groups(self, some: slice) -> Sizes:
        """The sizes of some of the row groups."""
        return replace(self, rows=self.rows[some], encoded_bytes=self.encoded_bytes[some])

    def decoded_bytes(self) -> NDArray[np.int64]:
        """The decoded bytes of each row group; at least the encoded bytes if there is text."""
        plain = np.ceil(self.rows * self.row_bytes).astype(np.int64)
        decoded: NDArray[np.int64] = np.maximum(plain, self.encoded_bytes) if self.text_columns else plain
        return decoded

    def read_peak_bytes(self) -> NDArray[np.int64]:
        """The most memory that a read of each row group takes."""
        values = self.rows * (_LEVEL_BYTES * self.level_columns + self.scratch_row_bytes)
        small = 3 * self.stored_columns * np.minimum(self._page(), _SMALL_PAGE_BYTES)
        held = self.decoded_bytes() + self.encoded_bytes + values + small + self._pages()
        held = held + np.where(self.is_long, self._long_text(self.rows), self._text(_TEXT_COPIES))
        peak: NDArray[np.int64] = (_SLACK * held).astype(np.int64)
        return peak

    def stream_peak_bytes(self, i: int, rows: int) -> int:
        """The most memory that a stream of row group ``i`` takes, in slices of ``rows`` rows."""
        one = self.of_groups(slice(i, i + 1))
        buffers = np.minimum(one.encoded_bytes, self.stored_columns * self.buffer_bytes)
        row_bytes = self.row_bytes + _LEVEL_BYTES * self.level_columns
        slices = min(_SLICES_HELD * rows, int(one.rows[0])) * row_bytes + rows * self.scratch_row_bytes
        small = buffers + 2 * self.stored_columns * np.minimum(one._page(), _SMALL_PAGE_BYTES)
        held = _STREAM_SLACK * small + _SLACK * one._pages() + slices
        text = _STREAM_TEXT_SLACK * one._text(_TEXT_COPIES_STREAMED)
        held = held + np.where(one.is_long, _SLACK * one._long_text(np.minimum(rows, one.rows)), text)
        most = (_STREAM_TEXT_MOST if self.text_columns else 1) * one.read_peak_bytes()
        return int(min(held[0], most[0]))

    def _page(self) -> NDArray[Any]:
        """The bytes of a page of the average column, of values or dictionary indices; at most the bytes of the column."""
        column = self.encoded_bytes / max(1, self.stored_columns)
        width = np.minimum(self.stored_row_bytes / max(1, self.stored_columns), column / np.maximum(1, self.rows))
        page: NDArray[Any] = np.minimum(self.page.bytes_of(width), column)
        return page

    def _pages(self) -> NDArray[Any]:
        """The memory of columns beside a small page each: the rest of large pages, and dictionaries twice. If the encoded bytes
        equal the plain bytes, there are no dictionaries. If they are more, dictionaries grew full and were given up. If they
        are less, the values are indices of so many bits, which bounds the size of the dictionary."""
        columns, encoded = max(1, self.stored_columns), self.encoded_bytes
        plain = np.maximum(1, self.rows * self.stored_row_bytes)
        code_bits = np.minimum(30, np.ceil(8 * encoded / np.maximum(1, self.rows * columns)))
        named = 8 * 2.0 ** (code_bits + 2)
        dictionary = np.where(encoded < plain, np.minimum(named, _DICTIONARY_BYTES), _DICTIONARY_BYTES)
        dictionary = np.where(np.abs(encoded - plain) <= 0.02 * plain, 0, np.minimum(dictionary, plain / columns))
        large = np.maximum(0, self._page() - _SMALL_PAGE_BYTES)
        pages: NDArray[Any] = columns * (large + 2 * dictionary + _COLUMN_BYTES)
        return pages

    @property
    def text_bytes(self) -> NDArray[np.float64]:
        """The encoded bytes of the text of each row group: at most what numbers leave."""
        text = self.encoded_bytes - self.rows * self.row_bytes
        return np.maximum(0.0, text) if self.text_columns else np.zeros(len(self.rows))

    @property
    def is_long(self) -> NDArray[np.bool_]:
        """Whether the text of each row group is more than small dictionaries and their indices."""
        indices = self.text_columns * (_INDEX_BYTES * self.rows + _DICTIONARY_BYTES)
        return np.asarray(self.text_bytes > np.maximum(_LONG_TEXT_BYTES, indices))

    def _long_text(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """The memory of long text while slices of this many rows are read: a page and the dictionary of each column, and the
        text of a slice, as it is decoded and encoded again. The longest texts of a page may be in one slice, or be one
        text: then buffers that grow by doubling take more."""
        page, dictionary, value = self.text_pages
        text = rows * value + page
        if not dictionary:
            text = np.minimum(text, self.text_bytes)
        held: NDArray[Any] = 2 * page + dictionary + _LONG_TEXT_COPIES * text + _VALUE_BYTES * rows * self.text_columns
        return held

    def _text(self, copies: int) -> NDArray[Any]:
        """The memory of text beside its indices. All its values may be distinct; short values are many, and each takes more
        than its bytes."""
        text = self.text_bytes
        values = np.minimum(_VALUE_BYTES * self.rows * self.text_columns, _VALUE_COPIES * text)
        taken: NDArray[Any] = copies * text + values
        return taken


def remote_buffer_bytes(columns: int) -> int:
    """The bytes that a stream reads of a column at once from a server, where every read is a request.

    >>> remote_buffer_bytes(1), remote_buffer_bytes(40), remote_buffer_bytes(1000)
    (2097152, 419430, 262144)
    """
    return max(STREAM_BUFFER_BYTES, min(_REMOTE_BUFFER_BYTES, _REMOTE_BUFFERS_BYTES // max(1, columns)))


def _is_narrow(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) and kind.bit_width < 32)


def _stored_width(kind: pa.DataType) -> float:
    """Bytes of a value in a plain page; for text, of its dictionary index."""
    return 4.0 if _is_narrow(value_type(kind)) else bytes_per_row(kind)


def _scratch_width(kind: pa.DataType) -> float:
    """Bytes of a value as the decoder writes it, if its Arrow form differs; otherwise 0."""
    if _is_narrow(kind) or pa.types.is_date64(kind):
        return 4.0
    if pa.types.is_boolean(kind):
        return 1.0
    if _has_no_width(kind):
        return 2.0  # the indices of text are collected in a buffer that grows by doubling
    return float(kind.byte_width) if pa.types.is_decimal(kind) or pa.types.is_float16(kind) else 0.0


def _has_no_width(kind: pa.DataType) -> bool:
    try:
        return bool(kind.bit_width < 0)
    except ValueError:
        return True
