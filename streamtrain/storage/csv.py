"""CSV files, plain or compressed with gzip or zstd."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc

from streamtrain.errors import CorruptError, SchemaError, near_names
from streamtrain.storage.common_type import CODES
from streamtrain.storage.files.locate import Target
from streamtrain.storage.formats import suffixes_of
from streamtrain.storage.parquet.footer import READ_ERRORS, is_text
from streamtrain.storage.text.encoding import not_in_encoding
from streamtrain.storage.text.fields import (
    MISSING,
    has_codes,
    is_code,
    is_number,
    may_be_codes,
    meant_delimiter,
    spelled,
    told_by_code,
    told_by_header,
    told_by_names,
    told_by_values,
    values_of,
    without_words,
)
from streamtrain.storage.text.reader import FEW_COLUMNS, TextReader
from streamtrain.storage.text.records import Block
from streamtrain.storage.text.scanners import CsvScanner
from streamtrain.storage.text.types import CsvTypes
from streamtrain.storage.text.wide import with_wide_integers

__all__ = ["CsvReader"]

_COLUMNS_AT_ONCE, _WRITTEN_AT_ONCE = 2048, 256  # that are decoded; as they are written
_DECODED_COLUMN_BYTES, _NAMED_COLUMN_BYTES = 10_000, 4_000  # of a column while it is decoded; and afterwards
_BYTES = pa.dictionary(pa.int32(), pa.binary())
_INTEGER = re.compile(r"\s*[+-]?[0-9]+\s*")


class CsvReader(TextReader):
    """Reads CSV files.

    target: a file, glob or directory, or several; its ``key=value`` folders become columns.
    schema: types of some or all columns, by name. The other types are inferred from the first MiB of the first file.
    delimiter: the character between fields; by default a tab for ``.tsv`` and ``.tab``, otherwise a comma.
    header: whether the first line that is not blank names the columns; otherwise they are f0, f1, ..., as pyarrow names them.
    na: the words that mean a missing value, in every column; by default those in `MISSING`, in columns that are no text.
    decimal: the decimal point. encoding: of the text.

    A blank field is null in a column that is no text. In a column of text it is empty text. A column of integers of which one,
    in any file, has a leading zero is text. Opening reads all files once to find where records begin (measured on a busy
    machine: 290 MB/s, 160 MB/s if all text is quoted).
    Raises SchemaError for names or types that do not fit, CorruptError for invalid CSV. Messages give file and line.
    """

    suffixes = suffixes_of("csv")
    types = CsvTypes()
    scratch = 5.5

    def __init__(
        self, target: Target, schema: pa.Schema | None = None, *, delimiter: str | None = None, header: bool = True,
        na: Sequence[str] | None = None, decimal: str = ".", encoding: str | None = None,
    ) -> None:  # fmt: skip
        self._delimiter, self._decimal, self._has_header = delimiter, decimal, header
        self._words = frozenset(MISSING if na is None else na)
        self._text_has_words = na is not None
        self._nulls = spelled(self._words)
        self._names: dict[int, list[str]] = {}
        self._codes: dict[str, str] = {}  # an integer with a leading zero of each column that has one
        self._told: dict[str | None, str | None] = {}  # warnings by column
        super().__init__(target, schema, encoding)

    def options(self) -> tuple[object, ...]:
        words = sorted(self._words) if self._text_has_words else None
        decimal = None if self._decimal == "." else self._decimal
        return self._delimiter, decimal, None if self._has_header else False, words

    def warnings(self, columns: Sequence[str]) -> list[str]:
        told = [text for name, text in self._told.items() if text and (name is None or name in columns)]
        codes = [told_by_code(name, code) for name, code in self._codes.items() if name in columns]
        return [*super().warnings(columns), *told, *codes]

    def read_little(self) -> None:
        pc.read_csv(pa.BufferReader(b"x\n1\n"), pc.ReadOptions(use_threads=False))

    def _between(self, file: int) -> str:
        tabs = any(suffix.lower() in (".tsv", ".tab") for suffix in PurePath(self._files[file]).suffixes)
        return self._delimiter or ("\t" if tabs else ",")

    def scanner(self, file: int) -> CsvScanner:
        return CsvScanner(self._between(file))

    def without_header(self, file: int, block: Block) -> Block:
        n = int(block.lines.is_row.argmax())
        try:
            text = io.StringIO(str(self.utf8(block.data[: block.lines.ends[n]]), "utf-8"), newline="")
            first = next(
                filter(None, csv.reader(text, delimiter=self._between(file)))
            )  # pyarrow takes 8 kB a column for it
        except UnicodeDecodeError as error:
            what = not_in_encoding(block.data, self.encoding, error)
            raise CorruptError(f"{self.shown(file)}: line {block.line}: {what}") from None
        except (ValueError, csv.Error) as error:
            raise SchemaError(f"{self.shown(file)}: line {block.line}: the header cannot be read: {error}") from None
        if not self._names:
            self._told[None] = told_by_names(self.shown(file), first)
        names = first if self._has_header else [f"f{i}" for i in range(len(first))]
        if not self._has_header and len(names) != len(next(iter(self._names.values()), names)):
            raise SchemaError(
                f"{self.shown(file)}: has {len(names)} fields, but {self.shown(0)} has {len(self._names[0])}: without a header "
                "all files must have the same columns"
            )
        self._require_names(file, names)
        self._names[file] = self._names[file - 1] if self._names.get(file - 1) == names else names
        return block.after(n + 1) if self._has_header else block

    def _require_names(self, file: int, names: list[str]) -> None:
        unique = set(names)
        if len(unique) < len(names):
            twice = next(name for name, count in Counter(names).items() if count > 1)
            raise SchemaError(
                f"{self.shown(file)}: more than one column is named {twice!r}: rename all but one, or pass --no-header if the "
                "first line has no names"
            )
        for name in self._given.names:
            if name not in unique:
                raise SchemaError(
                    f"{self.shown(file)}: column {name!r} of the given schema is missing: {near_names(name, names)}"
                )

    def infer_bytes(self, block: Block, file: int) -> tuple[int, int]:
        more = max(0, len(self._names[file]) - FEW_COLUMNS)
        return len(self._names[file]), _DECODED_COLUMN_BYTES * min(more, _COLUMNS_AT_ONCE) + _NAMED_COLUMN_BYTES * more

    def infer(self, data: bytes, file: int) -> pa.Schema:
        given = {f.name: CODES if is_text(f.type) else f.type for f in self._given}
        schema = self._types(data, file, self._names[file], given)
        self._look_for_codes(data, file, schema)
        for name in self._codes.keys() & set(schema.names):
            schema = schema.set(schema.get_field_index(name), pa.field(name, CODES))
        if not self._inferred:
            self._tell(data, file, schema)
        return schema

    def _types(
        self, data: bytes, file: int, names: Sequence[str], given: Mapping[str, pa.DataType], invalid: object = None
    ) -> pa.Schema:
        first = self._read(data, file, names, given, invalid)
        if self._learn_spellings(data, file, [f.name for f in first.schema if is_text(f.type)], invalid):
            first = self._read(data, file, names, given, invalid)
        schema = pa.schema([pa.field(f.name, CODES if is_text(f.type) else f.type) for f in first.schema])

        def written(name: str) -> list[int | None]:
            texts = self._read(data, file, [name], {name: pa.string()}, invalid).column(0).to_pylist()
            pairs = zip(texts, first.column(name).to_pylist(), strict=True)
            return [int(text) if _INTEGER.fullmatch(text) else None for text, number in pairs if number is not None]

        return with_wide_integers(first, schema, given, written)

    def look(self, data: bytes, file: int, schema: pa.Schema) -> pa.Schema:
        self._look_for_codes(data, file, schema)
        blank = [f.name for f in schema if pa.types.is_null(f.type) and f.name not in self._given.names]
        if blank:
            try:
                found = self._types(self.utf8(data), file, blank, {}, lambda row: "skip")
            except (UnicodeDecodeError, *READ_ERRORS):  # as above
                return schema
            for each in found:
                schema = schema.set(schema.get_field_index(each.name), each)
        return schema

    def _look_for_codes(self, data: bytes, file: int, schema: pa.Schema) -> None:
        """Note the columns of integers of which one has a leading zero in these records."""
        known = {*self._given.names, *self._codes}
        names = [f.name for f in schema if may_be_codes(f.type) and f.name not in known]
        if not names or not has_codes(data, self._between(file)):
            return
        # as bytes, and without records that are invalid: an error belongs to the read, not to the opening
        for name, column in self._written(data, file, names, _BYTES, lambda row: "skip"):
            code = next((text for text, _ in values_of(column) if is_code(text)), None)
            if code is not None:
                self._codes[name] = code.decode().strip()

    def texts(self) -> Collection[str]:
        return self._codes.keys()

    def _tell(self, data: bytes, file: int, schema: pa.Schema) -> None:
        texts = [f.name for f in schema if f.type == CODES and f.name not in self._given.names]
        columns = dict(self._written(data, file, texts))
        if self._told.get(None):
            return  # fields that are several mean nothing
        told = {name: told_by_values(name, values_of(column), self._words, ()) for name, column in columns.items()}
        numbers = [name for name in schema.names if name not in texts]
        if any(told.values()):  # words that must be named with others, because --na replaces them
            found = (text.strip() for _, column in self._written(data, file, numbers) for text, _ in values_of(column))
            usual = sorted(set(found) & self._words)
            told = {n: told_by_values(n, values_of(columns[n]), self._words, usual) for n, text in told.items() if text}
        if self._has_header:
            self._told[None] = told_by_header(self._names[file], numbers, columns)
        self._told.update(told)

    def untyped(self, file: int) -> pa.Schema:
        return pa.schema([(name, pa.null()) for name in self._names.get(file, [])])

    def decode(self, data: bytes, schema: pa.Schema, columns: Sequence[str], file: int) -> pa.Table:
        types = {name: schema.field(name).type for name in columns}
        try:
            table = self._read(data, file, columns, types)
        except READ_ERRORS:
            if not self._learn_spellings(data, file, [name for name in columns if types[name] != CODES]):
                raise
            table = self._read(data, file, columns, types)
        if self._text_has_words:
            for i, name in enumerate(columns):
                if types[name] == CODES:
                    table = table.set_column(i, name, without_words(table.column(i), self._words))
        return table

    def _written(
        self, data: bytes, file: int, columns: Sequence[str], kind: pa.DataType = CODES, invalid: object = None
    ) -> Iterator[tuple[str, Any]]:
        """Columns as they are written, some at a time."""
        for start in range(0, len(columns), _WRITTEN_AT_ONCE):
            some = columns[start : start + _WRITTEN_AT_ONCE]
            table = self._read(data, file, some, dict.fromkeys(some, kind), invalid)
            yield from zip(some, table.columns, strict=True)

    def _learn_spellings(self, data: bytes, file: int, columns: Sequence[str], invalid: object = None) -> bool:
        """Note how the words that mean missing are written in these columns: with several blanks, for example. Returns whether
        there are new ones."""
        known = set(self._nulls)
        new = {
            text
            for _, column in self._written(data, file, columns, invalid=invalid)
            for text, _ in values_of(column)
            if text not in known and (text.strip() in self._words or not text.strip())
        }
        self._nulls = (*self._nulls, *sorted(new))
        return bool(new)

    def complaint(self, record: bytes, schema: pa.Schema, columns: Sequence[str], file: int) -> str:
        counts: list[int] = []

        def skip(row: pc.InvalidRow) -> str:
            counts.append(row.actual_columns)
            return "skip"

        self._read(record, file, self._names[file][:1], {self._names[file][0]: pa.string()}, skip)
        if not counts:
            return ""
        names = self._names[file]
        first = (
            f"the header has {len(names)} name{'s' * (len(names) > 1)}"
            if self._has_header
            else f"the first has {len(names)}"
        )
        meant = meant_delimiter(names, record, self._between(file))
        return f"has {counts[0]} field{'s' * (counts[0] > 1)}, but {first}{meant}"

    def way_on(self, record: bytes, column: str, file: int) -> str:
        [(text, _)] = values_of(next(self._written(record, file, [column]))[1])
        missing = "" if is_number(text) else "if it means missing, name it in --na, with the other words that do; or "
        return f"{missing}leave the column out (--exclude {column}); or "

    def value(self, record: bytes, column: str, file: int) -> str:
        return repr(self._read(record, file, [column], {column: pa.string()}).column(0)[0].as_py())[:100]

    def _read(
        self, data: bytes, file: int, columns: Sequence[str], types: Mapping[str, pa.DataType], invalid: object = None
    ) -> pa.Table:
        """Some columns of records, a few thousand columns at a time: pyarrow takes 10 kB for each, and keeps 2."""
        reading = pc.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=self._names[file])
        form = pc.ParseOptions(delimiter=self._between(file), newlines_in_values=True, invalid_row_handler=invalid)
        tables = []
        for start in range(0, len(columns), _COLUMNS_AT_ONCE):
            some = list(columns[start : start + _COLUMNS_AT_ONCE])
            chosen = {name: types[name] for name in some if name in types}
            convert = pc.ConvertOptions(
                column_types=chosen, include_columns=some, check_utf8=False, null_values=self._nulls,
                decimal_point=self._decimal,
            )  # fmt: skip
            tables.append(pc.read_csv(pa.BufferReader(data), reading, form, convert))
        if len(tables) == 1:
            return tables[0]
        arrays = [column for table in tables for column in table.columns]
        return pa.table(arrays, list(columns))
