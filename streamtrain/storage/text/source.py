"""The decompressed bytes of a text file, and the bytes that identify a file without metadata."""

from __future__ import annotations

from typing import Any, Self

import pyarrow as pa

from streamtrain.storage.files.store import FileStore, Stat

__all__ = ["COMPRESSIONS", "LOOK_BACK_BYTES", "STORED_BYTES", "Ahead", "codec_of", "edges", "text_source"]

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
LOOK_BACK_BYTES = {"gzip": 1 << 16, "zstd": 8 << 20}
STORED_BYTES = 1 << 20  # of a compressed file, read at once
_EDGE_BYTES = 1 << 16


def codec_of(name: str) -> str | None:
    """The compression of a file, by its name.

    >>> codec_of("a.csv.GZ"), codec_of("a.csv")
    ('gzip', None)
    """
    return next((codec for end, codec in COMPRESSIONS.items() if name.lower().endswith(end)), None)


def text_source(store: FileStore, name: str, stat: Stat, start: int = 0, stop: int | None = None) -> Any:
    """Open a file for reading from byte ``start`` of its decompressed content. A range of a plain file is read at once."""
    codec = codec_of(name)
    if codec is None and stop is not None:
        return pa.BufferReader(store.read(name, start, stop))
    source = store.open(name, stat)
    if codec is None:
        return source
    unpacked = pa.CompressedInputStream(pa.BufferedInputStream(source, STORED_BYTES), codec)
    unpacked.read(start)
    return unpacked


def edges(store: FileStore, name: str, stat: Stat) -> bytes:
    """Bytes that identify a file: its name, its size, its first and its last 64 kB."""
    last = store.read(name, max(_EDGE_BYTES, stat.nbytes - _EDGE_BYTES), stat.nbytes)
    header = f"{name}\0{stat.nbytes}\0".encode(errors="surrogateescape")
    return header + store.read(name, 0, min(_EDGE_BYTES, stat.nbytes)) + last


class Wrapped:
    """A source of bytes that reads another one, and closes it."""

    _source: Any

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Ahead(Wrapped):
    """A source of which the first bytes were read already."""

    def __init__(self, head: bytes, source: Any) -> None:
        self._head, self._source = head, source

    def read(self, nbytes: int) -> bytes:
        """At most so many bytes, or the first; none at the end."""
        head, self._head = self._head, b""
        return head or bytes(self._source.read(nbytes))
