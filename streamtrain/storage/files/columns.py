"""What the columns of the data are in each file: a stored column, perhaps of another name and type; the value of a
``key=value`` folder; or nothing, where the file does not have it.

By default the data have the columns of all files, each with the common type of what is stored (see `common_type`). A column
that has none is recorded with its problem, and matters to those who ask for it only. A table's own metadata may declare the
columns instead. Equal schemas are kept once, so 100,000 files take 400 kB.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple

import pyarrow as pa

from streamtrain.errors import SchemaError, listed
from streamtrain.storage.arrow import bytes_per_row
from streamtrain.storage.casting import NotHeldError, cast_exactly, require_exact
from streamtrain.storage.common_type import CODES, common_type, is_readable_as_text
from streamtrain.storage.files.common_field import CONFLICT, PROBLEM, CommonField, shown_type
from streamtrain.storage.files.partitions import Partitions
from streamtrain.storage.pandas_index import as_index, index_columns, is_index_name

__all__ = ["CONFLICT", "PROBLEM", "Declared", "FileColumns"]

_COPIED_TEXT_BYTES = 64  # of a value that becomes text


@dataclass(frozen=True)
class Declared:
    """The columns of a table, as its own metadata declare them.

    schema: names and types, text as dictionaries; also of the columns whose values the metadata have. stored: for the schema of
    a file, the name of each column in it, None where it is missing. defaults: the value of a column in files that do not have
    it, by name, if it is not null.
    """

    schema: pa.Schema
    stored: Callable[[pa.Schema], Sequence[str | None]]
    defaults: Mapping[str, pa.Scalar] = field(default_factory=dict)


class _Variant(NamedTuple):
    """The columns of some files that have equal schemas. names: of stored columns, by the column of the data. whole: those that
    are written as integers, but decoded as floats."""

    schema: pa.Schema
    names: dict[str, str]
    file: str
    whole: frozenset[str] = frozenset()


class FileColumns:
    """The columns of the data, and what each is in every file.

    Call `add` with the schema of each file, in the order of the files, then `finish`.

    files: the names of the files. folders: the ``key=value`` folders above all of them. declared: the columns of a table;
    by default those of all files. partitions: the values of the folders, if not those in the names of the files. join: the
    common type of two types. as_text: whether columns of a type without a common one can be read as text.
    """

    schema: pa.Schema

    def __init__(
        self, files: Sequence[str], folders: Sequence[str] = (), *, declared: Declared | None = None,
        partitions: Partitions | None = None,
        join: Callable[[pa.DataType, pa.DataType], pa.DataType | None] = common_type,
        as_text: Callable[[pa.DataType], bool] = is_readable_as_text,
    ) -> None:  # fmt: skip
        self._files, self._declared, self._join, self._as_text = files, declared, join, as_text
        self.partitions = Partitions(files, folders) if partitions is None else partitions
        self._variant_of = array("i")  # of each file
        self._variants: list[_Variant] = []
        self._numbers: dict[bytes, int] = {}  # of variants, by schema
        self._common: dict[str, CommonField] = {}
        self._indexes: set[str] = set()
        self._filled: set[int] = set()  # variants that have rows
        self._texts: Collection[str] = ()

    # -- while files are opened ----------------------------------------------------------------------------------------

    def add(self, schema: pa.Schema, pandas: Callable[[], Any] = lambda: None, *, has_rows: bool = True) -> None:
        """The schema of the next file. pandas: gives its metadata of that name, which are looked at once for equal schemas.
        has_rows: what a file without rows says of types does not matter. Raises SchemaError for a name that is there twice."""
        number = self._number(schema)
        if number is None:
            number = self._add_variant(schema)
            self._indexes.update(index_columns(pandas()))
        if has_rows and number not in self._filled:
            self._filled.add(number)
            self._unify(schema, self._files[len(self._variant_of)])
        self._variant_of.append(number)

    def join(self, schema: pa.Schema, file: int) -> None:
        """Types that the later records of a file show of columns that are null in its schema, which say nothing of a type."""
        self._unify(schema, self._files[file])

    def _number(self, schema: pa.Schema) -> int | None:
        last = self._variant_of[-1] if self._variant_of else -1
        if last >= 0 and self._variants[last].schema.equals(schema, check_metadata=self._declared is not None):
            return last
        return self._numbers.get(_key(schema)) if self._numbers else None

    def _add_variant(self, schema: pa.Schema) -> int:
        file = self._files[len(self._variant_of)]
        if len(set(schema.names)) < len(schema):
            twice = next(name for name in schema.names if schema.names.count(name) > 1)
            raise SchemaError(f"{file}: more than one column is named {twice!r}: rename all but one")
        if self._declared is None:
            names = {name: name for name in schema.names}
        else:
            stored = self._declared.stored(schema)
            names = {f.name: at for f, at in zip(self._declared.schema, stored, strict=True) if at is not None}
        self._variants.append(_Variant(schema, names, file))
        self._numbers[_key(schema)] = len(self._variants) - 1
        return len(self._variants) - 1

    def _unify(self, schema: pa.Schema, file: str) -> None:
        for each in schema:
            if each.name in self._common:
                self._common[each.name].join(each, file, self._join)
            else:
                self._common[each.name] = CommonField(each, file)

    def finish(
        self, decoded: Callable[[pa.DataType | None, pa.Field], pa.DataType | None] | None = None,
        texts: Collection[str] = (),
    ) -> None:  # fmt: skip
        """All files were added. decoded: as what a column of a type, or one that a file does not seem to have, is read from a
        file whose types are not stored, for a column of the data; None if it is not there. texts: columns that
        are text, whatever their types seem to be."""
        self._texts = frozenset(texts)
        if not self._filled:
            self._filled = set(range(len(self._variants)))
            for variant in self._variants:
                self._unify(variant.schema, variant.file)
        as_meant = self._declared is not None  # a table knows which of its files are older than a column
        if decoded is not None and decoded(None, pa.field("", pa.null())):
            as_meant = True
        missing = {} if as_meant else self._missing_variants()
        if self._declared is None:
            fields = [self._field(name, common, name in missing) for name, common in self._common.items()]
        else:
            fields = list(self._declared.schema)
        names = {each.name for each in fields}
        fields += [self.partitions.field(key) for key in self.partitions.keys if key not in names]
        self.schema = pa.schema(fields)
        self._defaults = {} if self._declared is None else dict(self._declared.defaults)
        self._common, self._numbers = {}, {}
        del self._declared, self._join, self._as_text  # functions, which may not be picklable
        if decoded is not None:
            self._variants = [self._as_decoded(variant, decoded) for variant in self._variants]
        keys = set(self.partitions.keys)
        self._missing = {name: variants for name, variants in missing.items() if name not in keys}
        self._cast = {name for number in self._filled for name in self._cast_in(self._variants[number])}
        if self._cast:
            import_module("pyarrow.compute")  # casts; its memory belongs to the opening

    def _field(self, name: str, common: CommonField, is_missing: bool) -> pa.Field:
        if name in self.partitions.keys:
            return self.partitions.field(name)
        if name in self._texts:
            return pa.field(name, CODES)
        made = common.field(name, self._as_text, is_missing=is_missing)
        return as_index(made) if name in self._indexes or is_index_name(name) else made

    def _missing_variants(self) -> dict[str, list[int]]:
        """By column the variants that do not have it."""
        filled = [(i, variant.names) for i, variant in enumerate(self._variants) if i in self._filled]
        names = dict.fromkeys(name for _, stored in filled for name in stored) if len(filled) > 1 else {}
        missing = {name: [i for i, stored in filled if name not in stored] for name in names}
        return {name: variants for name, variants in missing.items() if variants}

    def _as_decoded(self, variant: _Variant, decoded: Callable[[Any, pa.Field], pa.DataType | None]) -> _Variant:
        """The variant with the types as which its columns are read."""
        fields, whole = [], set[str]()
        for each in self.schema:
            stored = variant.schema.field(each.name).type if each.name in variant.names else None
            kind = stored if each.name in self.partitions.keys else decoded(stored, each)
            if kind is not None:
                fields.append(pa.field(each.name, kind))
                if pa.types.is_floating(kind) and stored is not None and pa.types.is_integer(stored):
                    whole.add(each.name)
        return _Variant(pa.schema(fields), {each.name: each.name for each in fields}, variant.file, frozenset(whole))

    def _cast_in(self, variant: _Variant) -> list[str]:
        keys = self.partitions.keys
        pairs = [(name, variant.schema.field(at).type) for name, at in variant.names.items() if name not in keys]
        return [name for name, kind in pairs if self.schema.field(name).type not in (kind, pa.null())]

    # -- sizes, and what to say ----------------------------------------------------------------------------------------

    @property
    def cast_row_bytes(self) -> float:
        """The bytes of a row in the columns that are cast in some file: they are held twice for a moment."""
        fields = [self.schema.field(name) for name in self._cast]
        return sum(_COPIED_TEXT_BYTES if f.type == CODES else bytes_per_row(f.type) for f in fields)

    @property
    def variants(self) -> list[pa.Schema]:
        """The different schemas of the files."""
        return [variant.schema for variant in self._variants]

    def warnings(self, columns: Sequence[str]) -> list[str]:
        """What to say of these columns: those that some files do not have."""
        missing = [name for name in columns if name in self._missing]
        if not missing:
            return []
        without = {i for name in missing for i in self._missing[name]}
        files = [i for i, variant in enumerate(self._variant_of) if variant in without]
        of = f"{len(files):,} of {len(self._files):,} files, the first of them {self._files[files[0]]}"
        named = f"columns {listed(missing)} are" if len(missing) > 1 else f"column {missing[0]!r} is"
        return [f"{named} missing in {of}: its values are null there" if len(missing) == 1 else
                f"{named} missing in one or more of {of}: their values are null there"]  # fmt: skip

    # -- reading -------------------------------------------------------------------------------------------------------

    def stored(self, file: int, columns: Sequence[str]) -> list[str]:
        """The names of the stored columns to read from a file for these columns of the data. A key of a folder that is a
        column too is among them: its values must be those of the folder."""
        names = self._variants[self._variant_of[file]].names
        return [names[name] for name in columns if name in names]

    def file_schema(self, file: int) -> pa.Schema:
        """The schema of a file."""
        return self._variants[self._variant_of[file]].schema

    def assembled(self, batch: pa.RecordBatch | None, rows: int, columns: Sequence[str], file: int) -> pa.RecordBatch:
        """The columns of the data, in this order, for ``rows`` rows of a file. batch: the rows of its `stored` columns; None if
        it has none of them. Raises SchemaError for a value that the common type does not hold, and for one that differs from
        that of the folder."""
        requested = pa.schema([self.schema.field(name) for name in columns])
        variant = self._variants[self._variant_of[file]]
        as_it_is = self.partitions.keys.isdisjoint(columns) and variant.whole.isdisjoint(columns)
        if as_it_is and batch is not None and batch.schema.equals(requested):
            return batch
        stored = {} if batch is None else {at: batch.column(i) for i, at in enumerate(batch.schema.names)}
        arrays = [self._column(each, stored.get(variant.names.get(each.name, "\0")), rows, file) for each in requested]
        return pa.RecordBatch.from_arrays(arrays, schema=requested)

    def _column(self, wanted: pa.Field, values: pa.Array | None, rows: int, file: int) -> pa.Array:
        name = wanted.name
        if name in self.partitions.keys:
            if values is not None:
                self.partitions.require_equal(name, values, file, self._files[file])
            return self.partitions.constant(name, rows, file)
        if values is None:
            default = self._defaults.get(name)
            return pa.nulls(rows, wanted.type) if default is None else _repeated(default, rows, wanted.type)
        try:
            if name in self._variants[self._variant_of[file]].whole:
                require_exact(values)
            return cast_exactly(values, wanted.type)
        except NotHeldError as error:
            raise SchemaError(
                f"{self._files[file]}: column {name!r} is {shown_type(values.type)} here, but {shown_type(wanted.type)} for "
                f"all files together, which does not hold {error.value!r}: give --exclude {name}, or convert the files"
            ) from None


def _repeated(value: pa.Scalar, rows: int, kind: pa.DataType) -> pa.Array:
    one = cast_exactly(pa.array([value.as_py()], value.type), kind)
    return one.take(pa.array([0] * rows, pa.int32()))


def _key(schema: pa.Schema) -> bytes:
    return bytes(schema.serialize().to_pybytes())
