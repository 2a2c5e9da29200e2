"""Thrift's compact protocol, as far as Parquet footers and page headers need it: a cursor over bytes that trusts nothing."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["INTEGERS", "STRUCT", "Thrift", "ThriftError"]

STRUCT, INTEGERS = 12, (4, 5, 6)  # kinds of values
_BYTE, _DEEPEST = 3, 32
_FIXED = {1: 0, 2: 0, _BYTE: 1, 7: 8}  # bytes of values of these kinds: true, false, byte, double


class ThriftError(ValueError):
    """Bytes that are not what they should be, or that end too early."""


class Thrift:
    """A cursor over a struct in the compact protocol. ``at`` is the position of the next byte.

    Iterate over `fields`, and read or `skip` the value of each before the next one.

    >>> data = Thrift(bytes([0x15, 6, 0x18, 2, 97, 98, 0]))
    >>> [(number, data.number() if kind == 5 else data.text()) for number, kind in data.fields()]
    [(1, 3), (2, 'ab')]
    """

    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def _byte(self) -> int:
        try:
            byte = self._data[self.at]
        except IndexError:
            raise ThriftError(f"ends at byte {self.at:,}") from None
        self.at += 1
        return byte

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value, shift = value | (byte & 127) << shift, shift + 7
            if shift > 63:
                raise ThriftError(f"a number of too many bytes at byte {self.at:,}")
        return value | byte << shift

    def number(self) -> int:
        """An integer."""
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def text(self) -> str:
        """A string."""
        size = self._varint()
        start = self.at
        self._advance(size)
        return self._data[start : self.at].decode(errors="replace")

    def _advance(self, size: int) -> None:
        self.at += size
        if self.at > len(self._data):
            raise ThriftError(f"a value ends at byte {self.at:,}, beyond the end")

    def fields(self, kind: int = STRUCT) -> Iterator[tuple[int, int]]:
        """The number and kind of each field of a struct. kind: of the struct itself, which must be one."""
        if kind != STRUCT:
            raise ThriftError(f"expected a struct at byte {self.at:,}")
        number = 0
        while byte := self._byte():
            number = number + (byte >> 4) if byte >> 4 else self.number()
            yield number, byte & 15

    def length(self) -> tuple[int, int]:
        """The kind of the items of a list, and how many there are."""
        head = self._byte()
        return head & 15, self._varint() if head >> 4 == 15 else head >> 4

    def items(self) -> Iterator[int]:
        """The kind of each item of a list; read or `skip` the item before the next one."""
        kind, size = self.length()
        for _ in range(size):
            yield kind

    def skip(self, kind: int, depth: int = 0) -> None:
        """Skip a value of this kind. Booleans have no bytes of their own in a struct. Maps do not occur."""
        if depth > _DEEPEST:
            raise ThriftError("structs are nested too deeply")
        if kind in _FIXED:
            self._advance(_FIXED[kind])
        elif kind in INTEGERS:
            self._varint()
        elif kind == 8:
            self._advance(self._varint())
        elif kind in (9, 10):
            for item in self.items():
                self.skip(_BYTE if item in (1, 2) else item, depth + 1)
        else:
            for _, each in self.fields(kind):
                self.skip(each, depth + 1)
