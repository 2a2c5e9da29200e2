"""The digest of a column's values: 64 bits, the same whenever the same values are read again.

It is XXH3 (Collet 2019) of the values that are not null, of the positions of the nulls, and of the lengths of text. Each is a
stream of its own, so the digest depends neither on the slices in which values arrive nor on what a file holds at a null.
Numbers are the bytes that Arrow holds: 0.0 and -0.0 differ, and so do two NaN. Text in dictionaries is digested by value, by
the hash that categories have, because the dictionaries and codes of the same text may differ from read to read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from xxhash import xxh3_64, xxh3_64_intdigest

from streamtrain.columns.categories import hash_values
from streamtrain.columns.lists import unnested
from streamtrain.columns.numbers import unpacked
from streamtrain.columns.target_values import runs
from streamtrain.columns.texts import text_bytes
from streamtrain.columns.types import is_binary, is_list, is_text
from streamtrain.kernels.hashing import take
from streamtrain.storage.arrow import unpacked_bits, valid

__all__ = ["ColumnDigest", "by_value", "digest_of", "stored_bytes"]

_BLOCK_ROWS, _BLOCK_BYTES = 65_536, 1 << 20  # that are copied at a time, where values cannot be digested in place
_PARTS = struct.Struct("<5Q").pack
_SEED, _NULL = 0x9E3779B9, 1  # of the hashes of text in dictionaries, and the hash of a null

#: the names of the types of arrays whose values are next to each other, and the bytes of each; old versions of Arrow lack some
_NAMED = {
    1: ("Int8Array", "UInt8Array"),
    2: ("Int16Array", "UInt16Array", "HalfFloatArray"),
    4: ("Int32Array", "UInt32Array", "FloatArray", "Date32Array", "Time32Array", "Decimal32Array"),
    8: (
        "Int64Array", "UInt64Array", "DoubleArray", "Date64Array", "Time64Array", "TimestampArray", "DurationArray",
        "Decimal64Array",
    ),
    16: ("Decimal128Array",),
    32: ("Decimal256Array",),
}  # fmt: skip
_WIDTHS = {getattr(pa, name): width for width, names in _NAMED.items() for name in names if hasattr(pa, name)}


def stored_bytes(values: pa.Array) -> memoryview | None:
    """The bytes of values that are next to each other and not null; None for all others."""
    width = _WIDTHS.get(type(values))
    if width is None or values.null_count or not len(values):
        return None
    start = values.offset * width
    return memoryview(values.buffers()[1])[start : start + len(values) * width]


def digest_of(name: str, rows: int, stored: memoryview) -> int:
    """The digest of the values with these `stored_bytes`: that of a `ColumnDigest` to which nothing else is added."""
    return int(xxh3_64_intdigest(_PARTS(rows, xxh3_64_intdigest(stored), 0, 0, 0) + name.encode()))


def by_value(values: pa.Array) -> pa.Array:
    """The hashes of the values of text in a dictionary, uint32; any other array as it is. Its slices have the same digest as
    those of the array; if there are many, the dictionary is hashed once for all."""
    if not isinstance(values, pa.DictionaryArray) or not _has_bytes(values.dictionary.type):
        return values
    return pa.array(np.concatenate([np.empty(0, np.uint32), *_hashes(values)]))


def _hashes(values: pa.DictionaryArray) -> Iterator[NDArray[np.uint32]]:
    words = values.dictionary
    hashes = hash_values(words, _SEED)
    if words.null_count:
        hashes[~valid(words)] = _NULL
    for block in _blocks(values.indices):
        codes, given = unpacked(block)[0], None
        if block.null_count:
            given = np.frombuffer(block.buffers()[0], np.uint8), block.offset
        yield take(hashes, codes.astype(np.int32, copy=False), given, _NULL)


class ColumnDigest:
    """The digest of a column, which is fed in slices.

    >>> one, other = ColumnDigest(), ColumnDigest()
    >>> one.update(pa.array([1, None, 3]))
    >>> other.update(pa.array([1, None])), other.update(pa.array([0, 3])[1:])
    (None, None)
    >>> one.value("x") == other.value("x") != one.value("y")
    True
    """

    __slots__ = ("_entries", "_lengths", "_nulls", "_rows", "_values")

    def __init__(self) -> None:
        self._rows = 0
        self._values = xxh3_64()
        self._nulls: xxh3_64 | None = None  # most columns have neither
        self._lengths: xxh3_64 | None = None
        self._entries: tuple[ColumnDigest, ...] = ()  # of the values of lists, or of each field of structs

    @property
    def rows(self) -> int:
        """The number of values so far."""
        return self._rows

    def update(self, values: pa.Array) -> None:
        """Add the next values."""
        stored = stored_bytes(values)
        if stored is None:
            self._add(values)
        else:
            self._values.update(stored)
            self._rows += len(values)

    def value(self, name: str) -> int:
        """The digest of the values so far. name: of the column, which is part of it."""
        parts = _PARTS(
            self._rows,
            self._values.intdigest(),
            0 if self._nulls is None else self._nulls.intdigest(),
            0 if self._lengths is None else self._lengths.intdigest(),
            self._entries[0].value("") if self._entries else 0,
        )
        more = "".join(f"/{entries.value('')}" for entries in self._entries[1:])
        return int(xxh3_64_intdigest(parts + name.encode() + more.encode()))

    def _add(self, values: pa.Array) -> None:
        """Add values of any type, in blocks."""
        while isinstance(values, pa.ExtensionArray):
            values = values.storage
        if isinstance(values, pa.DictionaryArray) and _has_bytes(values.dictionary.type):
            for hashes in _hashes(values):
                self._values.update(hashes.data)
                self._rows += len(hashes)
            return
        for block in _blocks(values):
            if isinstance(block, pa.RunEndEncodedArray):
                from pyarrow import compute  # imported on demand: it costs 20 MB

                block = compute.run_end_decode(block)
            elif isinstance(block, pa.DictionaryArray):
                block = block.dictionary_decode()
            given = valid(block) if block.null_count else None
            self._add_nulls(given)
            if not pa.types.is_null(block.type):
                self._add_block(block, given)
            self._rows += len(block)

    def _add_nulls(self, given: NDArray[np.bool_] | None) -> None:
        if given is not None:
            self._nulls = self._nulls or xxh3_64()
            self._nulls.update((np.flatnonzero(~given) + self._rows).astype("<i8").data)

    def _add_block(self, values: pa.Array, given: NDArray[np.bool_] | None) -> None:
        """given: which values are not null, shape (rows,); None if all are."""
        kind = values.type
        if isinstance(values, pa.FixedSizeListArray):
            self._entries = self._entries or (ColumnDigest(),)
            self._entries[0].update(values.flatten())  # without those of lists that are null
        elif _has_bytes(kind) and not pa.types.is_fixed_size_binary(kind):
            self._add_bytes(values, given)
        elif pa.types.is_boolean(kind):
            bits = unpacked_bits(values.buffers()[1], values.offset, len(values))
            self._values.update((bits if given is None else bits[given]).data)
        elif is_list(kind) or pa.types.is_map(kind):
            child, offsets = unnested(values)
            lengths = np.diff(offsets)
            self._lengths = self._lengths or xxh3_64()
            self._lengths.update((lengths if given is None else lengths[given]).astype("<i8").data)
            self._entries = self._entries or (ColumnDigest(),)
            self._entries[0].update(child)
        elif isinstance(kind, pa.StructType):
            self._entries = self._entries or tuple(ColumnDigest() for _ in kind)
            for entries, i in zip(self._entries, range(len(kind)), strict=True):
                entries.update(values.field(i) if given is None else values.filter(pa.array(given)).field(i))
        elif pa.types.is_nested(kind):  # no role takes these
            self._values.update("\n".join(map(repr, values.to_pylist())).encode() + b"\n")
        elif kind.bit_width:
            width = kind.bit_width // 8
            stored = np.frombuffer(values.buffers()[1], f"V{width}", len(values), values.offset * width)
            self._values.update(np.ascontiguousarray(stored if given is None else stored[given]).view(np.uint8).data)

    def _add_bytes(self, values: pa.Array, given: NDArray[np.bool_] | None) -> None:
        data, offsets, _ = text_bytes(values)
        lengths = np.diff(offsets)
        self._lengths = self._lengths or xxh3_64()
        self._lengths.update((lengths if given is None else lengths[given]).astype("<i8").data)
        hides = given is not None and bool(lengths[~given].any())  # whether there are bytes at a null
        for first, last in runs(given) if given is not None and hides else [(0, len(values))]:
            self._values.update(data[offsets[first] : offsets[last]].data)


def _has_bytes(kind: pa.DataType) -> bool:
    return is_text(kind) or is_binary(kind)


def _blocks(values: pa.Array) -> Iterator[pa.Array]:
    rows = len(values)
    step = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES * rows // max(1, values.nbytes)))
    for start in range(0, rows, step):
        yield values.slice(start, step)
