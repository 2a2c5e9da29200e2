"""What an Arrow IPC file says of its batches, without reading them: the messages' metadata, which are flatbuffers.

pyarrow tells no batch's rows before it has read the batch. Layout: Arrow's Message.fbs and File.fbs. Offsets are checked:
Arrow IPC has no checksums.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from streamtrain.storage.files.place import FileStore, Stat, ahead

__all__ = ["DICTIONARY", "MAGIC", "RECORDS", "BadMessage", "BatchInfo", "file_messages", "is_stream", "stream_messages"]

MAGIC, _CONTINUED = b"ARROW1", b"\xff\xff\xff\xff"
SCHEMA, DICTIONARY, RECORDS = 1, 2, 3
_BLOCK_BYTES = 24  # offset, bytes of metadata (and padding), bytes of the body
_PREFIX_BYTES = 8
_MAX_METADATA_BYTES, _MAX_ROWS = 1 << 28, 1 << 40


class BadMessage(ValueError):
    """Bytes that are no message of Arrow."""


class BatchInfo(NamedTuple):
    """A message. kind: `SCHEMA`, `DICTIONARY` or `RECORDS`. buffers: (first byte in the file, bytes as stored) of each."""

    kind: int
    rows: int
    body_bytes: int
    is_compressed: bool
    buffers: list[tuple[int, int]]
    metadata: bytes


def is_stream(place: FileStore, name: str) -> bool:
    """Whether a file is a stream of messages rather than a file with a footer. Raises BadMessage where it is neither."""
    head = place.read(name, 0, _PREFIX_BYTES)
    if head.startswith(b"FEA1"):
        raise BadMessage(
            "is Feather version 1, which Arrow has given up: write it again as version 2 (pyarrow, pandas, R do)"
        )
    if not head.startswith((MAGIC, _CONTINUED)):
        raise BadMessage(f"is no Arrow file: it begins with {head!r}")
    return head.startswith(_CONTINUED)


def file_messages(place: FileStore, name: str, stat: Stat) -> Iterator[BatchInfo]:
    """The dictionaries of a file, and then its batches, as its footer lists them."""
    tail = place.read(name, max(0, stat.nbytes - len(MAGIC) - 4), stat.nbytes)
    size = int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or size > stat.nbytes - len(MAGIC) - 4:
        raise BadMessage("does not end as an Arrow file does: it is cut off, or was never closed")
    footer = place.read(name, stat.nbytes - len(tail) - size, stat.nbytes - len(tail))
    root = _Table(footer, _number(footer, 0, "<I"))
    spans = []
    for field in (2, 3):
        at, n = root.vector(field, _BLOCK_BYTES)
        for i in range(n):
            offset, metadata, body = _numbers(footer, at + _BLOCK_BYTES * i, "<qi4xq")
            if min(offset, metadata, body) < 0 or offset + metadata + body > stat.nbytes:
                raise BadMessage(f"its footer lists a batch at {offset:,} that goes beyond the file")
            spans.append((offset, offset + metadata))

    def message(span: tuple[int, int]) -> BatchInfo:
        data = place.read(name, *span)
        prefix = _PREFIX_BYTES if data.startswith(_CONTINUED) else 4
        return _message(data[prefix:], span[1], stat.nbytes)

    yield from ahead(message, spans) if place.far else map(message, spans)


def stream_messages(place: FileStore, name: str, stat: Stat) -> Iterator[BatchInfo]:
    """The messages of a stream, in order; the schema first."""
    at = 0
    while at < stat.nbytes:
        prefix = place.read(name, at, at + _PREFIX_BYTES)
        size = _number(prefix, 4, "<I")
        if not prefix.startswith(_CONTINUED):
            raise BadMessage(f"has no message at byte {at:,}")
        if not size:
            return
        start = at + _PREFIX_BYTES + size
        if start > stat.nbytes or size > _MAX_METADATA_BYTES:
            raise BadMessage(f"is cut off in the message at byte {at:,}")
        info = _message(place.read(name, at + _PREFIX_BYTES, start), start, stat.nbytes)
        yield info
        at = start + info.body_bytes


def _message(data: bytes, body: int, file_bytes: int) -> BatchInfo:
    """A message from its metadata. body: where its body begins."""
    message = _Table(data, _number(data, 0, "<I"))
    kind, nbytes = message.number(1, "<B"), message.number(3, "<q")
    if nbytes < 0 or body + nbytes > file_bytes:
        raise BadMessage(
            f"has a batch of {nbytes:,} bytes at byte {body:,} that goes beyond its end: it is cut off or damaged"
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
        raise BadMessage(f"has a damaged batch at byte {body:,}: its rows or its buffers cannot be")
    return BatchInfo(kind, rows, nbytes, batch.has(3), [(body + first, size) for first, size in buffers], data)


class _Table:
    """A table of a flatbuffer: fields by number."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - int(_number(data, at, "<i"))
        self._size = _number(data, self._fields, "<H")

    def _place(self, field: int) -> int | None:
        entry = 4 + 2 * field
        offset = _number(self._data, self._fields + entry, "<H") if entry < self._size else 0
        return self._at + offset if offset else None

    def has(self, field: int) -> bool:
        return self._place(field) is not None

    def number(self, field: int, kind: str) -> int:
        at = self._place(field)
        return 0 if at is None else _number(self._data, at, kind)

    def table(self, field: int) -> _Table:
        at = self._place(field)
        if at is None:
            raise BadMessage("has a message without a header")
        return _Table(self._data, at + _number(self._data, at, "<I"))

    def vector(self, field: int, item_bytes: int) -> tuple[int, int]:
        """Where the items of a vector begin, and how many there are."""
        at = self._place(field)
        if at is None:
            return 0, 0
        at += _number(self._data, at, "<I")
        n = _number(self._data, at, "<I")
        if at + 4 + n * item_bytes > len(self._data):
            raise BadMessage("has a message that says more than it holds")
        return at + 4, n


def _number(data: bytes, at: int, kind: str) -> int:
    return int(_numbers(data, at, kind)[0])


def _numbers(data: bytes, at: int, kind: str) -> tuple[int, ...]:
    try:
        return struct.unpack_from(kind, data, at) if at >= 0 else _beyond()
    except struct.error:
        return _beyond()


def _beyond() -> tuple[int, ...]:
    raise BadMessage("has a message that ends too soon")
