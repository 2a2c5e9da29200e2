"""Text in another encoding than UTF-8, as UTF-8.

Of an encoding with one byte for each character, whose first 128 are those of ASCII, records are found in the bytes as they are
stored, and become UTF-8 when they are decoded. Text in any other becomes UTF-8 while it is read, from its beginning: like that
of a compressed file, it is one chunk.
"""

from __future__ import annotations

import codecs
from typing import Any

from streamtrain.storage.first_bytes import Foreign, format_of_bytes
from streamtrain.storage.text.source import Wrapped

__all__ = ["AsUtf8", "Encoding", "not_in_encoding"]

_ASCII = bytes(range(128))
_UTF16 = (b"\xff\xfe", b"\xfe\xff")  # how a file begins


class Encoding:
    """An encoding by its name; None is UTF-8.

    >>> Encoding("cp1252").utf8(b"caf\\xe9") == "café".encode(), Encoding("cp1252").is_streamed, Encoding("utf-16").is_streamed
    (True, False, True)
    """

    def __init__(self, name: str | None) -> None:
        self.name = name or "utf-8"
        self.is_utf8 = self.name == "utf-8"
        self.is_streamed = not self.is_utf8 and not self._has_single_bytes()

    def _has_single_bytes(self) -> bool:
        text = bytes(range(256)).decode(self.name, "replace")
        return len(text) == 256 and text[:128].encode("utf-8", "replace") == _ASCII

    def utf8(self, data: bytes) -> bytes:
        """Stored bytes as UTF-8. Raises UnicodeDecodeError where they are not text in this encoding."""
        if data.isascii() or self.is_streamed:
            return data
        text = str(data, self.name)
        return data if self.is_utf8 else text.encode()


def not_in_encoding(data: bytes, encoding: str, error: UnicodeDecodeError) -> str:
    """What is wrong with a record that is not in an encoding, and what to do."""
    kind = format_of_bytes(data)
    if isinstance(kind, Foreign):
        return f"no text: this is {kind.what}: {kind.remedy}"
    if kind in ("parquet", "arrow", "npy"):
        return f"no text: this is {kind}: pass --input-format {kind}"
    meant = "utf-16" if data[:2] in _UTF16 or b"\0" in data[:4] else "latin-1"
    return (
        f"not {encoding.upper()}: byte {data[error.start]:#04x} at position {error.start} of the record: correct it, or pass "
        f"the encoding of the file, such as --encoding {meant}"
    )


class AsUtf8(Wrapped):
    """A source of bytes in an encoding as a source of UTF-8."""

    def __init__(self, source: Any, encoding: str) -> None:
        self._source, self._decoder = source, codecs.getincrementaldecoder(encoding)()
        self._ended, self._rest = False, b""

    def read(self, nbytes: int) -> bytes:
        """About so many bytes; none at the end."""
        text, self._rest = self._rest, b""
        while not text and not self._ended:
            stored = self._source.read(nbytes)
            self._ended = not stored
            text = self._decoder.decode(stored, self._ended).encode()
        return text

    def skip(self, nbytes: int) -> None:
        """Go on after so many bytes of UTF-8."""
        while nbytes and (text := self.read(min(nbytes, 1 << 20))):
            nbytes, self._rest = max(0, nbytes - len(text)), text[nbytes:]
