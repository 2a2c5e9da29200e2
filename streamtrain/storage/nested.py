"""The fields of structs as columns, and extension types as what they store.

A reader hands on what is stored: a column ``user``, a struct of ``age`` and ``city``. To those who choose columns the data have
columns ``user.age`` and ``user.city``; a column that is stored under such a name comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from streamtrain.storage.arrow import bytes_per_row
from streamtrain.storage.sparse import SparseRows

__all__ = ["columns_of", "plain_type", "plain_values", "read_plain", "read_units", "stored_columns", "struct_of"]

_STRUCT = b"struct"  # metadata of a field of a struct: the name of the stored column
_KEPT = (pa.FixedShapeTensorType, SparseRows)  # extension types that roles know

Batches = Iterator[pa.RecordBatch]


class _Leaf(NamedTuple):
    """A field of a struct, or of a struct in it. path: the number of the field in each of the structs."""

    name: str
    field: pa.Field
    path: tuple[int, ...]


def columns_of(schema: pa.Schema) -> pa.Schema:
    """The columns that data of this schema have, each of a type that is no struct and no extension type.

    >>> columns_of(pa.schema([("user", pa.struct([("age", pa.int8()), ("at", pa.struct([("city", pa.string())]))]))])).names
    ['user.age', 'user.at.city']
    """
    if not any(_is_nested(kind) for kind in schema.types):
        return schema
    columns: dict[str, pa.Field] = {}
    stored = set(schema.names)
    for field in schema:
        for name, leaf, path in _leaves(field):
            if not path or name not in stored:
                columns.setdefault(name, leaf)
    return pa.schema(list(columns.values()))


def struct_of(field: pa.Field) -> str | None:
    """The stored column of which a column is a field; None if it is stored itself."""
    name = (field.metadata or {}).get(_STRUCT)
    return None if name is None else name.decode()


def stored_columns(schema: pa.Schema, columns: Sequence[str]) -> list[str]:
    """The stored columns that hold these columns, each once."""
    places = _places(schema, columns)
    return list(dict.fromkeys(places[name].stored if name in places else name for name in columns))


def read_units(schema: pa.Schema, columns: Sequence[str]) -> dict[str, tuple[str, float]]:
    """For each of these columns what is decoded to read it: the name of a stored column, and the bytes of a row of it."""
    places = _places(schema, columns)
    names = {name: places[name].stored if name in places else name for name in columns}
    return {name: (stored, bytes_per_row(plain_type(schema.field(stored).type))) for name, stored in names.items()}


def read_plain(schema: pa.Schema, columns: Sequence[str], read: Callable[[Sequence[str]], Batches]) -> Batches:
    """The batches of these columns. read: returns those of stored columns."""
    places = _places(schema, columns)
    for batch in read(stored_columns(schema, columns) if places else columns):
        if not places and not any(isinstance(kind, pa.BaseExtensionType) for kind in batch.schema.types):
            yield batch
            continue
        stored = dict(zip(batch.schema.names, batch.columns, strict=True))
        arrays = [
            _values(stored[places[n].stored], places[n].path) if n in places else _values(stored[n]) for n in columns
        ]
        yield pa.RecordBatch.from_arrays(arrays, names=list(columns))


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of what an extension type stores; any other type as it is.

    >>> plain_type(pa.uuid()), plain_type(pa.int8())
    (FixedSizeBinaryType(fixed_size_binary[16]), DataType(int8))
    """
    while isinstance(kind, pa.BaseExtensionType) and not isinstance(kind, _KEPT):
        kind = kind.storage_type
    return kind


def plain_values(values: Any) -> Any:
    """What values of an extension type store."""
    while isinstance(values.type, pa.BaseExtensionType) and not isinstance(values.type, _KEPT):
        values = values.storage
    return values


class _Place(NamedTuple):
    stored: str
    path: tuple[int, ...]


def _places(schema: pa.Schema, columns: Sequence[str]) -> Mapping[str, _Place]:
    """Where those of these columns are that are fields of structs."""
    dotted = {name for name in columns if "." in name and schema.get_field_index(name) < 0}
    places: dict[str, _Place] = {}
    for field in schema if dotted else ():
        if not isinstance(plain_type(field.type), pa.StructType) or not any(
            n.startswith(f"{field.name}.") for n in dotted
        ):
            continue
        for name, _, path in _leaves(field):
            if name in dotted:
                places.setdefault(name, _Place(field.name, path))
    return places


def _is_nested(kind: pa.DataType) -> bool:
    return plain_type(kind) != kind or isinstance(kind, pa.StructType)


def _leaves(field: pa.Field, stored: str = "", path: tuple[int, ...] = ()) -> Iterator[_Leaf]:
    """The fields of a struct; any other field itself."""
    kind = plain_type(field.type)
    if isinstance(kind, pa.StructType) and kind.num_fields:
        for i, inner in enumerate(kind):
            nullable, metadata = (
                field.nullable or inner.nullable,
                (field.metadata or {}) | {_STRUCT: (stored or field.name)},
            )
            named = pa.field(f"{field.name}.{inner.name}", inner.type, nullable, metadata)
            yield from _leaves(named, stored or field.name, (*path, i))
    else:
        yield _Leaf(field.name, field.with_type(kind), path)


def _values(values: Any, path: tuple[int, ...] = ()) -> Any:
    """The values of a field, null where one of the structs around it is."""
    for i in path:
        values = plain_values(values)
        values = values.flatten()[i] if values.null_count else values.field(i)
    return plain_values(values)
