"""CSV files with a header, plain or compressed with gzip or zstd."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc

from streamtrain.errors import SchemaError, near_names
from streamtrain.storage.common_type import CODES
from streamtrain.storage.formats import suffixes_of
from streamtrain.storage.parquet.footer import is_text
from streamtrain.storage.text.reader import FEW_COLUMNS, TextReader
from streamtrain.storage.text.records import Block
from streamtrain.storage.text.scanners import CsvScanner
from streamtrain.storage.text.types import CsvTypes
from streamtrain.storage.text.wide import with_wide_integers

__all__ = ["CsvReader"]

_COLUMNS_AT_ONCE = 2048  # that are decoded
_DECODED_COLUMN_BYTES, _NAMED_COLUMN_BYTES = 10_000, 4_000  # of a column while it is decoded; and afterwards
_INTEGER = re.compile(r"\s*[+-]?[0-9]+\s*")


class CsvReader(TextReader):
    """Reads CSV files. The first line that is not blank names the columns.

    target: a file, glob or directory; its ``key=value`` folders become columns.
    schema: types of some or all columns, by name. The other types are inferred from the first MiB of the first file.
    delimiter: the character between fields; by default a tab for ``.tsv``, otherwise a comma.

    An empty field is null in a column of numbers, as are NA, NaN, null and the other spellings that pyarrow accepts. In a
    column of text it is empty text. Opening reads all files once to find where records begin (measured on a busy machine: 290
    MB/s, 160 MB/s if all text is quoted).
    Raises SchemaError for names or types that do not fit, CorruptError for invalid CSV. Messages give file and line.
    """

    suffixes = suffixes_of("csv")
    types = CsvTypes()
    scratch = 5.5

    def __init__(self, target: str | Path, schema: pa.Schema | None = None, *, delimiter: str | None = None) -> None:
        tabs = any(suffix.lower() == ".tsv" for suffix in Path(target).suffixes)
        self._delimiter = delimiter or ("\t" if tabs else ",")
        self._names: dict[int, list[str]] = {}
        super().__init__(target, schema)

    def read_little(self) -> None:
        pc.read_csv(pa.BufferReader(b"x\n1\n"), pc.ReadOptions(use_threads=False))

    def scanner(self) -> CsvScanner:
        return CsvScanner(self._delimiter)

    def without_header(self, file: int, block: Block) -> Block:
        n = int(block.lines.is_row.argmax())
        data = block.data[: block.lines.ends[n]]
        try:
            text = io.StringIO(str(data, "utf-8"), newline="")
            names = next(
                filter(None, csv.reader(text, delimiter=self._delimiter))
            )  # pyarrow takes 8 kB a column for it
        except (ValueError, csv.Error) as error:
            raise SchemaError(f"{self.shown(file)}: line {block.line}: the header cannot be read: {error}") from None
        self._require_names(file, names)
        self._names[file] = self._names[file - 1] if self._names.get(file - 1) == names else names
        return block.after(n + 1)

    def _require_names(self, file: int, names: list[str]) -> None:
        unique = set(names)
        if len(unique) < len(names):
            twice = next(name for name, count in Counter(names).items() if count > 1)
            raise SchemaError(f"{self.shown(file)}: more than one column is named {twice!r}: rename all but one")
        for name in self._given.names:
            if name not in unique:
                raise SchemaError(
                    f"{self.shown(file)}: column {name!r} of the given schema is missing: {near_names(name, names)}"
                )

    def infer_bytes(self, block: Block, file: int) -> tuple[int, int]:
        more = max(0, len(self._names[file]) - FEW_COLUMNS)
        return len(self._names[file]), _DECODED_COLUMN_BYTES * min(more, _COLUMNS_AT_ONCE) + _NAMED_COLUMN_BYTES * more

    def infer(self, data: bytes, file: int) -> pa.Schema:
        given = {f.name: f.type for f in self._given if not is_text(f.type)} | {
            f.name: CODES for f in self._given if is_text(f.type)
        }
        first = self._read(data, file, self._names[file], given)
        schema = pa.schema([pa.field(f.name, CODES if is_text(f.type) else f.type) for f in first.schema])

        def written(name: str) -> list[int | None]:
            texts = self._read(data, file, [name], {name: pa.string()}).column(0).to_pylist()
            numbers = first.column(name).to_pylist()
            given = [text for text, number in zip(texts, numbers, strict=True) if number is not None]
            return [int(text) if _INTEGER.fullmatch(text) else None for text in given]

        return with_wide_integers(first, schema, given, written)

    def untyped(self, file: int) -> pa.Schema:
        return pa.schema([(name, pa.null()) for name in self._names.get(file, [])])

    def decode(self, data: bytes, schema: pa.Schema, columns: Sequence[str], file: int) -> pa.Table:
        types = {name: schema.field(name).type for name in columns}
        return self._read(data, file, columns, types)

    def complaint(self, record: bytes, schema: pa.Schema, columns: Sequence[str], file: int) -> str:
        counts: list[int] = []

        def skip(row: pc.InvalidRow) -> str:
            counts.append(row.actual_columns)
            return "skip"

        self._read(record, file, self._names[file][:1], {self._names[file][0]: pa.string()}, skip)
        n = len(self._names[file])
        return f"has {counts[0]} field{'s' * (counts[0] > 1)}, but the header has {n} names" if counts else ""

    def value(self, record: bytes, column: str, file: int) -> str:
        return repr(self._read(record, file, [column], {column: pa.string()}).column(0)[0].as_py())[:100]

    def _read(
        self, data: bytes, file: int, columns: Sequence[str], types: Mapping[str, pa.DataType], invalid: object = None
    ) -> pa.Table:
        """Some columns of records, a few thousand columns at a time: pyarrow takes 10 kB for each, and keeps 2."""
        reading = pc.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=self._names[file])
        form = pc.ParseOptions(delimiter=self._delimiter, newlines_in_values=True, invalid_row_handler=invalid)
        tables = []
        for start in range(0, len(columns), _COLUMNS_AT_ONCE):
            some = list(columns[start : start + _COLUMNS_AT_ONCE])
            chosen = {name: types[name] for name in some if name in types}
            convert = pc.ConvertOptions(column_types=chosen, include_columns=some, check_utf8=False)
            tables.append(pc.read_csv(pa.BufferReader(data), reading, form, convert))
        if len(tables) == 1:
            return tables[0]
        arrays = [column for table in tables for column in table.columns]
        return pa.table(arrays, list(columns))
