"""The rows and sizes of the batches of an Arrow IPC file, from the metadata of its messages alone.

pyarrow tells the rows of a batch only after it has read at least one column of it and every dictionary: 5 % of a file of 20
float32 columns and all of a file with one column, where this module reads 0.1 %. pyarrow never tells the size of a batch, nor
whether it is compressed, so the memory of a read could only be guessed. The metadata are flatbuffers, described by Arrow's
Message.fbs and File.fbs. Every offset is checked, because Arrow IPC has no checksums.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from streamtrain.storage.files.store import FileStore, Stat, ahead

__all__ = ["DICTIONARY", "MAGIC", "RECORDS", "BadMessage", "BatchInfo", "file_messages", "is_stream", "stream_messages"]

MAGIC, _CONTINUED = b"ARROW1", b"\xff\xff\xff\xff"
SCHEMA, DICTIONARY, RECORDS = 1, 2, 3
_BLOCK_BYTES = 24  # offset (8), bytes of metadata (4), padding (4), bytes of the body (8)
_PREFIX_BYTES, _OLD_PREFIX_BYTES = 8, 4
_MAX_OLD_SCHEMA_BYTES = 1 << 24
_MAX_METADATA_BYTES, _MAX_ROWS = 1 << 28, 1 << 40


class BadMessage(ValueError):
    """The bytes are not a valid Arrow message."""


class BatchInfo(NamedTuple):
    """A message. kind: `SCHEMA`, `DICTIONARY` or `RECORDS`. buffers: the offset in the file and the stored bytes of each."""

    kind: int
    rows: int
    body_bytes: int
    is_compressed: bool
    buffers: list[tuple[int, int]]
    metadata: bytes


def is_stream(store: FileStore, name: str) -> bool:
    """Whether a file is an IPC stream and not an IPC file with a footer. Raises BadMessage if it is neither.

    Before version 0.15 of the format a message began with its size, without the four bytes that mark its beginning.
    """
    head = store.read(name, 0, _PREFIX_BYTES)
    if head.startswith(b"FEA1"):
        raise BadMessage(
            "Feather version 1 is not supported: write the data again as version 2 (with pyarrow, pandas or R)"
        )
    if not head.startswith((MAGIC, _CONTINUED)) and not _begins_old_stream(store, name, head):
        raise BadMessage(f"not an Arrow file: it begins with {head!r}")
    return not head.startswith(MAGIC)


def _begins_old_stream(store: FileStore, name: str, head: bytes) -> bool:
    size = int.from_bytes(head[:_OLD_PREFIX_BYTES], "little")
    if len(head) < _PREFIX_BYTES or not 0 < size <= _MAX_OLD_SCHEMA_BYTES or head[4:] == b"\0" * 4:
        return False
    try:
        data = store.read(name, _OLD_PREFIX_BYTES, _OLD_PREFIX_BYTES + size)
        return len(data) == size and _message(data, 0, 0).kind == SCHEMA
    except BadMessage:
        return False


def file_messages(store: FileStore, name: str, stat: Stat) -> Iterator[BatchInfo]:
    """The dictionaries of a file, then its batches, as listed in its footer."""
    tail = store.read(name, max(0, stat.nbytes - len(MAGIC) - 4), stat.nbytes)
    size = int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or size > stat.nbytes - len(MAGIC) - 4:
        raise BadMessage("the end of an Arrow file is missing: it was cut off, or its writer did not close it")
    footer = store.read(name, stat.nbytes - len(tail) - size, stat.nbytes - len(tail))
    root = _Table(footer, _number(footer, 0, "<I"))
    spans = []
    for field in (2, 3):
        at, n = root.vector(field, _BLOCK_BYTES)
        for i in range(n):
            offset, metadata, body = _numbers(footer, at + _BLOCK_BYTES * i, "<qi4xq")
            if min(offset, metadata, body) < 0 or offset + metadata + body > stat.nbytes:
                raise BadMessage(f"its footer lists a batch at byte {offset:,} that extends beyond the end of the file")
            spans.append((offset, offset + metadata))

    def message(span: tuple[int, int]) -> BatchInfo:
        data = store.read(name, *span)
        prefix = _PREFIX_BYTES if data.startswith(_CONTINUED) else 4
        return _message(data[prefix:], span[1], stat.nbytes)

    yield from ahead(message, spans) if store.is_remote else map(message, spans)


def stream_messages(store: FileStore, name: str, stat: Stat) -> Iterator[BatchInfo]:
    """The messages of a stream, in order; the schema first."""
    at = before = 0
    while at < stat.nbytes:
        prefix = store.read(name, at, at + _PREFIX_BYTES)
        if at == 0:
            before = _PREFIX_BYTES if prefix.startswith(_CONTINUED) else _OLD_PREFIX_BYTES
        if before == _PREFIX_BYTES and not prefix.startswith(_CONTINUED):
            raise BadMessage(f"there is no message at byte {at:,}: the file is damaged")
        size = _number(prefix, before - 4, "<I")
        if not size:
            return
        start = at + before + size
        if start > stat.nbytes or size > _MAX_METADATA_BYTES:
            raise BadMessage(f"the file is cut off in the message at byte {at:,}")
        info = _message(store.read(name, at + before, start), start, stat.nbytes)
        yield info
        at = start + info.body_bytes


def _message(data: bytes, body: int, file_bytes: int) -> BatchInfo:
    """Parse the metadata of a message. body: the offset of its body in the file."""
    message = _Table(data, _number(data, 0, "<I"))
    kind, nbytes = message.number(1, "<B"), message.number(3, "<q")
    if nbytes < 0 or body + nbytes > file_bytes:
        raise BadMessage(
            f"the batch of {nbytes:,} bytes at byte {body:,} extends beyond the end: the file is cut off or damaged"
        )
    batch = message.table(2)
    if kind == DICTIONARY:
        batch = batch.table(1)
    elif kind != RECORDS:
        return BatchInfo(kind, 0, nbytes, False, [], data)
    rows = batch.number(0, "<q")
    at, n = batch.vector(2, 16)
    buffers = [(_number(data, at + 16 * i, "<q"), _number(data, at + 16 * i + 8, "<q")) for i in range(n)]
    if not 0 <= rows < _MAX_ROWS or any(min(buffer) < 0 or sum(buffer) > nbytes for buffer in buffers):
        raise BadMessage(f"the batch at byte {body:,} has impossible rows or buffers: the file is damaged")
    return BatchInfo(kind, rows, nbytes, batch.has(3), [(body + first, size) for first, size in buffers], data)


class _Table:
    """A table of a flatbuffer, whose fields are numbered."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - int(_number(data, at, "<i"))
        self._size = _number(data, self._fields, "<H")

    def _position(self, field: int) -> int | None:
        entry = 4 + 2 * field
        offset = _number(self._data, self._fields + entry, "<H") if entry < self._size else 0
        return self._at + offset if offset else None

    def has(self, field: int) -> bool:
        return self._position(field) is not None

    def number(self, field: int, kind: str) -> int:
        at = self._position(field)
        return 0 if at is None else _number(self._data, at, kind)

    def table(self, field: int) -> _Table:
        at = self._position(field)
        if at is None:
            raise BadMessage("a message has no header: the file is damaged")
        return _Table(self._data, at + _number(self._data, at, "<I"))

    def vector(self, field: int, item_bytes: int) -> tuple[int, int]:
        """The position of the first item of a vector, and the number of items."""
        at = self._position(field)
        if at is None:
            return 0, 0
        at += _number(self._data, at, "<I")
        n = _number(self._data, at, "<I")
        if at + 4 + n * item_bytes > len(self._data):
            raise BadMessage("a message declares more items than it contains: the file is damaged")
        return at + 4, n


def _number(data: bytes, at: int, kind: str) -> int:
    return int(_numbers(data, at, kind)[0])


def _numbers(data: bytes, at: int, kind: str) -> tuple[int, ...]:
    try:
        return struct.unpack_from(kind, data, at) if at >= 0 else _beyond()
    except struct.error:
        return _beyond()


def _beyond() -> tuple[int, ...]:
    raise BadMessage("a message ends too early: the file is damaged")
