"""Collect rows until there are enough for a chunk, in memory of a known size.

Batches of any size arrive. Their values are copied to buffers that are allocated once and reused for the next chunk. A buffer
takes ``rows x width`` bytes, and one bit a row for nulls. Dictionary columns are collected as codes, so each text is held once,
however often it occurs. Only types without a fixed width (binary, lists, plain strings) are held in pieces, which are joined
when there are many.
"""

from __future__ import annotations

import pyarrow as pa

from streamtrain.errors import SchemaError
from streamtrain.tools.rechunk.buffers import Column, Extension, Fixed, Lists, Pieces, has_width
from streamtrain.tools.rechunk.dictionaries import Codes

__all__ = ["Gather", "gathered_bits", "is_loose"]


class Gather:
    """A buffer for at most ``rows`` rows of a schema.

    Dictionary columns get codes of 32 bits. Values that do not occur are dropped from the dictionaries of the columns ``text``,
    and from others that are not ordered and take more than 1 MiB.

    >>> gather = Gather(pa.schema([("x", pa.int8())]), rows=3)
    >>> gather.add(pa.record_batch({"x": pa.array([1, None], pa.int8())}))
    >>> gather.room, gather.take()["x"].to_pylist(), gather.room
    (1, [1, None], 3)
    """

    def __init__(self, schema: pa.Schema, rows: int, text: frozenset[str] = frozenset()) -> None:
        self.rows, self._held = rows, 0
        self._incoming = schema
        self._columns = [_column(f.type, rows, text=f.name in text) for f in schema]
        #: the schema of what `take` returns
        self.schema = pa.schema([f.with_type(_gathered(f.type)) for f in schema])

    @property
    def room(self) -> int:
        """The number of rows that still fit."""
        return self.rows - self._held

    @property
    def held_bytes(self) -> int:
        """Bytes that are held now; a buffer counts whole."""
        return sum(column.held_bytes for column in self._columns)

    def add(self, batch: pa.RecordBatch) -> None:
        """Copy the rows of a batch. Raises SchemaError for another type or a null that the schema does not allow, ValueError
        for more rows than fit."""
        if batch.num_rows > self.room:
            raise ValueError(f"{batch.num_rows} rows do not fit into the {self.room} that are free")
        for field, column, values in zip(self._incoming, self._columns, batch.columns, strict=True):
            if values.type != field.type:
                raise SchemaError(f"column {field.name!r}: expected {field.type}, got {values.type}")
            if values.null_count and not field.nullable:
                raise SchemaError(f"column {field.name!r}: contains a null, which the schema does not allow")
            try:
                column.put(self._held, values)
            except pa.ArrowException as error:
                raise SchemaError(f"column {field.name!r}: {error}: give a smaller --chunk-rows") from error
        self._held += batch.num_rows

    def take(self) -> pa.RecordBatch:
        """Return all rows, as views of the buffers that are valid until rows are added again."""
        rows, self._held = self._held, 0
        return pa.RecordBatch.from_arrays([c.take(rows) for c in self._columns], schema=self.schema)


def gathered_bits(kind: pa.DataType) -> int:
    """Return the bits of a row in the buffers. A type without a fixed width counts 1, for nulls.

    >>> gathered_bits(pa.float32()), gathered_bits(pa.bool_()), gathered_bits(pa.fixed_shape_tensor(pa.uint8(), [8, 8]))
    (33, 2, 577)
    """
    if isinstance(kind, pa.DictionaryType):
        return 33
    if isinstance(kind, pa.BaseExtensionType):
        return gathered_bits(kind.storage_type)
    if isinstance(kind, pa.FixedSizeListType):
        return 1 + int(kind.list_size) * gathered_bits(kind.value_type)
    return 1 + (int(kind.bit_width) if has_width(kind) else 0)


def is_loose(kind: pa.DataType) -> bool:
    """Whether the bytes of values depend on the values themselves.

    >>> is_loose(pa.binary()), is_loose(pa.dictionary(pa.int8(), pa.string())), is_loose(pa.list_(pa.int8(), 3))
    (True, False, False)
    """
    if isinstance(kind, pa.BaseExtensionType):
        return is_loose(kind.storage_type)
    if isinstance(kind, pa.FixedSizeListType):
        return is_loose(kind.value_type)
    return not isinstance(kind, pa.DictionaryType) and not has_width(kind)


def _gathered(kind: pa.DataType) -> pa.DataType:
    return pa.dictionary(pa.int32(), kind.value_type, kind.ordered) if isinstance(kind, pa.DictionaryType) else kind


def _column(kind: pa.DataType, rows: int, *, text: bool = False) -> Column:
    if isinstance(kind, pa.DictionaryType):
        return Codes(kind, rows, keep_small=not text)
    if isinstance(kind, pa.BaseExtensionType):
        return Extension(kind, _column(kind.storage_type, rows))
    if isinstance(kind, pa.FixedSizeListType) and not isinstance(kind.value_type, pa.DictionaryType):
        return Lists(kind, rows, _column(kind.value_type, rows * kind.list_size))
    return Fixed(kind, rows) if has_width(kind) else Pieces(kind)
