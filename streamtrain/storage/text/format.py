"""What a format of text defines. `TextReader` does the rest."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa

from streamtrain.storage.text.records import Block, Scanner
from streamtrain.storage.text.types import InferredTypes

__all__ = ["TextFormat"]


class TextFormat:
    """Finds the records of text files and decodes them.

    suffixes: of the files, without a compression's. types: how the types of several files become one. scratch: bytes of memory
    that decoding takes for each byte of a block.
    """

    suffixes: tuple[str, ...]
    types: InferredTypes
    scratch: float

    def read_little(self) -> None:
        """Use the library of the format once."""
        raise NotImplementedError

    def scanner(self, file: int) -> Scanner:
        """What finds the records of a file, or of a part that begins with one."""
        raise NotImplementedError

    def without_header(self, file: int, block: Block) -> Block:
        """The first block of a file, without its header."""
        return block

    def infer_bytes(self, block: Block, file: int) -> tuple[int, int]:
        """The number of columns of these records, and if it is large the memory to infer and decode them; otherwise 0."""
        raise NotImplementedError

    def infer(self, data: bytes, file: int) -> pa.Schema:
        """The names and types of the columns. Given types are kept."""
        raise NotImplementedError

    def look(self, data: bytes, file: int, schema: pa.Schema) -> pa.Schema:
        """Called with all records, as they are stored, while the files are opened; an error in them belongs to the read.
        schema: of the file, as it was inferred so far. Returns it with the types of columns that had nothing but nulls."""
        return schema

    def texts(self) -> Collection[str]:
        """The columns that must be text in all files, as their records have shown."""
        return ()

    def untyped(self, file: int) -> pa.Schema:
        """The columns of a file whose types are not known."""
        raise NotImplementedError

    def options(self) -> tuple[object, ...]:
        """What else decides what the values are; for the fingerprint."""
        return ()

    def decode(self, data: bytes, schema: pa.Schema, columns: Sequence[str], file: int) -> pa.Table:
        """Decode at least one column of records, with the types of the schema."""
        raise NotImplementedError

    def decode_one(self, record: bytes, field: pa.Field, file: int) -> None:
        """Decode one column of one record, and ignore the others."""
        self.decode(record, pa.schema([field]), [field.name], file)

    def complaint(self, record: bytes, schema: pa.Schema, columns: Sequence[str], file: int) -> str:
        """What is wrong with the form of a record that cannot be decoded; "" if its form is right and a value is wrong."""
        raise NotImplementedError

    def value(self, record: bytes, column: str, file: int) -> str:
        """A value as it is written in a record, for messages."""
        raise NotImplementedError

    def way_on(self, record: bytes, column: str, file: int) -> str:
        """What to do about a value that does not fit its column, besides giving the type; "" or words that end with a blank."""
        return ""
