"""What the last bytes of a Parquet file tell before its footer is parsed: how much memory parsing takes.

A footer is parsed as a whole. It takes 2 to 25 times its length, by what is in it: so its beginning is looked at, which
declares the columns and the number of row groups. tests/storage/test_parquet_tail.py measures it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from streamtrain.errors import CorruptError
from streamtrain.storage.parquet.thrift import Thrift, ThriftError

__all__ = ["TAIL_BYTES", "Demand", "demand_of", "footer_length", "parsed_bytes"]

TAIL_BYTES = 8  # the length of the footer, and four letters
_ENCRYPTED = b"PARE"
_SMALL_BYTES = 1 << 20  # footers up to this size are not looked at: parsing takes less than 25 MB
_ENTRY_BYTES, _COLUMN_BYTES = 950, 1_800  # memory of a column of a row group, and of a column or group of columns
_STORED_ENTRY_BYTES, _STORED_COLUMN_BYTES = 130, 100  # the bytes of these in a footer; what is beyond them is text
_LATER_BYTES, _LATER_GROUP_BYTES, _LATER_COLUMN_BYTES = 20 * 10**6, 300, 5_000
_MOST_TIMES = 40  # parsed bytes for each byte of a footer; a damaged one may declare anything
_MOST_ELEMENTS = 100_000  # of a schema that is looked at
_SCHEMA, _ROW_GROUPS, _CHILDREN = 2, 4, 5  # fields of a footer, and of an element of its schema


def footer_length(tail: bytes, size: int, shown: str) -> int:
    """The length of a footer. tail: the last 8 bytes of the file, which has ``size`` bytes. 0 where these bytes are none of a
    Parquet file. Raises CorruptError for an encrypted footer."""
    if tail[4:] == _ENCRYPTED:
        raise CorruptError(f"{shown}: its footer is encrypted: read a copy that was written without encryption")
    length = int.from_bytes(tail[:4], "little")
    return length if tail[4:] == b"PAR1" and length <= size - TAIL_BYTES else 0


def parsed_bytes(groups: Any, columns: int, length: Any = 0) -> Any:
    """The memory of a parsed footer: its columns and row groups, and the text in it, such as the largest and smallest strings.

    groups, length: the row groups, and the bytes of the footer in the file; numbers, or arrays of them.
    """
    entries = groups * columns
    text = length - (_STORED_ENTRY_BYTES * entries + _STORED_COLUMN_BYTES * columns)
    return _ENTRY_BYTES * entries + _COLUMN_BYTES * columns + text * (text > 0)


class Demand(NamedTuple):
    """What a footer takes. parsing_bytes: at the peak of parsing it, at least. later_bytes: what planning and training with so
    many row groups and columns takes in addition, roughly: for advice."""

    parsing_bytes: int
    later_bytes: int


def demand_of(read: Callable[[int], bytes], length: int) -> Demand:
    """What a footer takes. read: returns the bytes of the footer up to an offset.

    >>> demand_of(lambda stop: b"no footer" * stop, 1000), demand_of(lambda stop: b"no footer" * stop, 10**8).parsing_bytes
    (Demand(parsing_bytes=2000, later_bytes=0), 200000000)
    """
    if length <= _SMALL_BYTES:
        return Demand(2 * length, 0)
    elements = columns = groups = 0
    with suppress(ThriftError):  # it is damaged, which parsing will tell
        elements, columns, groups = _declared(read(length))
    parsed = int(parsed_bytes(groups, columns, length)) + _COLUMN_BYTES * (elements - columns)
    parsing = length + min(max(length, parsed), _MOST_TIMES * length)
    later = _LATER_BYTES + _LATER_GROUP_BYTES * groups + _LATER_COLUMN_BYTES * columns + parsing // 20
    return Demand(parsing, later)


def _declared(data: bytes) -> tuple[int, int, int]:
    """The elements of the schema, the columns among them, and the row groups that a footer declares. Raises ThriftError for
    what is no footer."""
    footer, elements, columns = Thrift(data), 0, 0
    for number, kind in footer.fields():
        if number == _SCHEMA:
            elements = columns = footer.length()[1]
            if elements > _MOST_ELEMENTS:
                return elements, columns, 1
            columns -= sum(_has_children(footer) for _ in range(elements))
        elif number == _ROW_GROUPS:
            return elements, columns, footer.length()[1]
        else:
            footer.skip(kind)
    return elements, columns, 0


def _has_children(element: Thrift) -> bool:
    """Whether an element of a schema is a group of columns."""
    children = 0
    for number, kind in element.fields():
        if number == _CHILDREN:
            children = element.number()
        else:
            element.skip(kind)
    return children > 0
