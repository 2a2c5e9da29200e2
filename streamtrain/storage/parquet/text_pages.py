"""How long text is stored: the pages of its columns, from the footer and the page headers, without reading a value.

``row_group(i).column(j)`` of pyarrow aborts the process if a column cannot be decrypted, so the footer is parsed here. Only row
groups with much text are looked at, those with the most text first, and only so many of them: the others are assumed to be
like them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from streamtrain.storage.files.store import FileStore
from streamtrain.storage.parquet.thrift import Thrift, ThriftError

__all__ = ["NO_PAGES", "ColumnPages", "LongText", "look"]

_MOST_FILES, _MOST_FOOTERS_BYTES = 32, 8 << 20  # parsed: half a second for each MB
_MOST_PAGES, _MOST_REMOTE_PAGES = 4_096, 32
_HEADER_BYTES, _MOST_HEADER_BYTES = 256, 1 << 16
_DICTIONARY_PAGE = 2
_FEW_VALUES = 64  # of a dictionary: so few may be short but for one, which takes nearly all of its bytes
_LONG_SHARE = 0.05  # of the text of a row group: a column with less is read as a dictionary


class ColumnPages(NamedTuple):
    """The pages of a column of text: the bytes of its largest page, stored and decompressed together; of its dictionary, with
    the copy that Arrow makes of it; and of a value, in the page where values are longest on average."""

    page_bytes: float = 0.0
    dictionary_bytes: float = 0.0
    value_bytes: float = 0.0

    def larger(self, other: ColumnPages) -> ColumnPages:
        return ColumnPages(*map(max, self, other))


NO_PAGES = ColumnPages()


@dataclass(frozen=True)
class LongText:
    """The columns whose text is long, with their largest pages. Such columns are read as plain text, slice by slice: read as
    dictionaries, all values of a row group would be in memory."""

    columns: Mapping[str, ColumnPages]

    def most(self) -> ColumnPages:
        """The pages of all columns together: one of each is in memory at a time."""
        return ColumnPages(*map(sum, zip(*self.columns.values(), strict=True))) if self.columns else NO_PAGES


class _Stored(NamedTuple):
    """A column of a row group in a file: where its pages are, and its bytes, stored and decompressed."""

    name: str
    start: int
    stored_bytes: int
    nbytes: int


def look(store: FileStore, groups: Iterable[tuple[str, int, int]], columns: Sequence[str]) -> LongText:
    """Look at the pages of these columns in row groups with much text, those with the most text first.

    groups: the file of each, its number in the file, and the bytes of its text.
    """
    pages: dict[str, ColumnPages] = {}
    footers: dict[str, list[list[_Stored]]] = {}
    pages_left, bytes_left = _MOST_REMOTE_PAGES if store.is_remote else _MOST_PAGES, _MOST_FOOTERS_BYTES
    for name, group, text_bytes in groups:
        try:
            if name not in footers:
                start, stop = _footer_place(store, name)
                if pages and (len(footers) == _MOST_FILES or stop - start > bytes_left):
                    break
                bytes_left -= stop - start
                footers[name] = _stored_columns(store, name, start, stop) if bytes_left >= 0 else []
            for stored in footers[name][group]:
                if stored.name in columns and stored.nbytes >= _LONG_SHARE * text_bytes:
                    found, walked = _walk(store, name, stored, pages_left)
                    pages[stored.name] = pages.get(stored.name, NO_PAGES).larger(found)
                    pages_left -= walked
        except (
            ThriftError,
            OSError,
            IndexError,
            KeyError,
            ValueError,
        ):  # too large, encrypted or damaged: perhaps one page
            whole = ColumnPages(2.0 * text_bytes, 0.0, float(text_bytes))
            return LongText(dict.fromkeys(columns, whole) | pages)
        if pages_left <= 0:
            break
    return LongText(pages)


def _footer_place(store: FileStore, name: str) -> tuple[int, int]:
    """Where the footer of a file begins and ends."""
    size = store.stat(name).nbytes
    tail = store.read(name, max(0, size - 8), size)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or length > size - 8:
        raise ThriftError("not a footer that can be looked at")
    return size - 8 - length, size - 8


def _stored_columns(store: FileStore, name: str, start: int, stop: int) -> list[list[_Stored]]:
    """The columns of each row group of a file."""
    data, groups = Thrift(store.read(name, start, stop)), []
    for number, kind in data.fields():
        if number != 4:  # the row groups
            data.skip(kind)
            continue
        for group_kind in data.items():
            columns: list[_Stored] = []
            for field, field_kind in data.fields(group_kind):
                if field == 1:
                    columns += [_column(data, each) for each in data.items()]
                else:
                    data.skip(field_kind)
            groups.append(columns)
    return groups


def _column(data: Thrift, kind: int) -> _Stored:
    path, numbers = "", {}
    for number, field_kind in data.fields(kind):
        if number != 3:  # the metadata of the column
            data.skip(field_kind)
            continue
        for field, each in data.fields(field_kind):
            if field == 3:
                path = ".".join(data.text() for _ in data.items())
            elif each in (5, 6):
                numbers[field] = data.number()
            else:
                data.skip(each)
    start = min(numbers[field] for field in (9, 11) if numbers.get(field))
    return _Stored(path, start, numbers[7], numbers[6])


def _walk(store: FileStore, name: str, column: _Stored, most_pages: int) -> tuple[ColumnPages, int]:
    """The largest pages of a column of a row group, and how many were looked at."""
    pages, walked, at, end = NO_PAGES, 0, column.start, column.start + column.stored_bytes
    while at < end and walked < most_pages:
        header, length = _page_header(store, name, at)
        nbytes, stored = header[2], header[3]
        if nbytes < 0 or stored < 0:
            raise ThriftError("a page of negative size")
        values = max(1, header.get(-5) or header.get(-7) or header.get(-8) or 1)
        if header[1] == _DICTIONARY_PAGE:  # a row may have any of its values
            pages = pages.larger(ColumnPages(nbytes * min(1.0, _FEW_VALUES / values), 2 * nbytes, 2 * nbytes / values))
        else:
            pages = pages.larger(ColumnPages(nbytes + stored, 0.0, nbytes / values))
        at, walked = at + length + stored, walked + 1
    return pages, walked


def _page_header(store: FileStore, name: str, at: int) -> tuple[dict[int, int], int]:
    """The numbers of a page header by field, the number of values by the negative field of the header of its kind, and the
    bytes of the header."""
    for size in (_HEADER_BYTES, _MOST_HEADER_BYTES):
        data, header = Thrift(store.read(name, at, at + size)), {}
        try:
            for field, kind in data.fields():
                if kind == 5:
                    header[field] = data.number()
                elif field in (5, 7, 8):  # of a data page, a dictionary, or a data page of version 2
                    for inner, inner_kind in data.fields(kind):
                        if inner == 1:
                            header[-field] = data.number()
                        else:
                            data.skip(inner_kind)
                else:
                    data.skip(kind)
        except ThriftError:
            if size == _MOST_HEADER_BYTES:
                raise
            continue
        if not {1, 2, 3} <= header.keys():
            raise ThriftError("not a page header")
        return header, data.at
    raise AssertionError
