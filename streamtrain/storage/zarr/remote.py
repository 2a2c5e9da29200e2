"""A Zarr store on a server: its documents and sizes for the reader, and its bytes for zarr. Both use one client, which retries,
so that a temporary failure is never taken for a missing chunk."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest

from streamtrain.errors import CorruptError, NotFoundError
from streamtrain.storage.files.store import ahead
from streamtrain.storage.remote.address import Address
from streamtrain.storage.remote.client import Client
from streamtrain.storage.remote.listing import walk
from streamtrain.storage.remote.transport import Part

__all__ = ["RemoteFiles", "RemoteStore"]

_DOCUMENTS = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
_HEAD_BYTES, _TAIL_BYTES = 16, 1 << 14  # the header of Blosc, and the index of most shards
_SEEN = 64


class _Seen(NamedTuple):
    """A chunk file that was read: its size, and pieces of its content by offset."""

    nbytes: int
    pieces: dict[int, bytes]


class RemoteFiles:
    """The `streamtrain.storage.zarr.files.Files` of a server. Documents are requested once. The sizes of the most recent chunk
    files are remembered, so checking them takes no request."""

    def __init__(self, address: Address) -> None:
        self.root, self.client = address.at(address.path.rstrip("/")), Client(address)
        self._documents: dict[str, bytes | None] = {}
        self._seen: OrderedDict[str, _Seen | None] = OrderedDict()
        self._lock = threading.Lock()
        #: checks a whole chunk file, by its key, before it is decoded; may raise an exception
        self.check: Callable[[str], None] = lambda key: None

    def read(self, key: str) -> bytes | None:
        if key not in self._documents:
            part = self.fetch(key)
            self._documents[key] = None if part is None else part.data.to_pybytes()
        return self._documents[key]

    def part(self, key: str, start: int, stop: int) -> bytes:
        seen = self._seen.get(key)
        for at, piece in (seen.pieces if seen else {}).items():
            if at <= start and stop <= at + len(piece):
                return piece[start - at : stop - at]
        part = self.fetch(key, start, stop)
        return b"" if part is None else part.data.to_pybytes()

    def size(self, key: str) -> int | None:
        if key.rpartition("/")[2] in _DOCUMENTS:
            document = self.read(key)
            return None if document is None else len(document)
        with self._lock:
            if key in self._seen:
                seen = self._seen[key]
                return None if seen is None else seen.nbytes
        try:
            return self.client.stat(self._path(key)).nbytes
        except NotFoundError:
            return None

    def stamp(self, key: str) -> str:
        """Nothing: it would take a request for each chunk file."""
        return ""

    def children(self, prefix: str) -> list[str]:
        entries = self.client.entries(self._path(prefix), deep=False)
        if entries is not None:
            names = [entry.path.rpartition("/")[2] for entry in entries if entry.is_folder]
        else:
            names = [
                path[len(prefix) :].strip("/").split("/")[0] for path in self._consolidated() if path.startswith(prefix)
            ]
        return sorted({name for name in names if name and not name.startswith(".")})

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Nothing for a web server that does not list folders."""
        files = walk(self.client, self._path(prefix)) or {}
        cut = len(f"{self.root.path}/".lstrip("/"))
        keys = sorted(
            key for key in (path[cut:] for path in files) if not any(p.startswith(".") for p in key.split("/"))
        )
        if self.root.is_web:  # its pages do not tell sizes
            yield from zip(keys, ahead(lambda key: self.client.stat(self._path(key)).nbytes, keys), strict=True)
        else:
            yield from ((key, files[self._path(key)]) for key in keys)

    def fetch(self, key: str, start: int | None = None, stop: int | None = None, *, tail: int = 0) -> Part | None:
        """A file, a range of its bytes, or its last ``tail`` bytes; None if there is no such file."""
        path = self._path(key)
        try:
            if tail:
                return self.client.tail(path, tail)
            return self.client.whole(path) if start is None or stop is None else self.client.part(path, start, stop)
        except NotFoundError:
            return None

    def note(self, key: str, part: Part | None, at: int) -> None:
        """Remember the size, the beginning and the end of a chunk file that was read from offset ``at`` on."""
        seen = None
        if part is not None:
            data = memoryview(part.data)
            end = max(0, len(data) - _TAIL_BYTES)
            seen = _Seen(part.stat.nbytes, {at: bytes(data[:_HEAD_BYTES]), at + end: bytes(data[end:])})
        with self._lock:
            self._seen[key] = seen
            self._seen.move_to_end(key)
            if len(self._seen) > _SEEN:
                self._seen.popitem(last=False)

    def _path(self, key: str) -> str:
        return "/".join(part for part in (self.root.path, key) if part)

    def _consolidated(self) -> Sequence[str]:
        """The paths of all arrays and groups, from the consolidated metadata."""
        for key, names in (("zarr.json", _names_of_v3), (".zmetadata", _names_of_v2)):
            document = self.read(key)
            if document is not None:
                try:
                    return names(json.loads(document))
                except (ValueError, KeyError, TypeError, AttributeError):
                    continue
        raise CorruptError(
            f"{self.root}: the arrays of this group cannot be found, because the server does not list folders and the group "
            "has no consolidated metadata: write it (zarr.consolidate_metadata), give the URL of one array, or let the server "
            "list folders"
        )


def _names_of_v3(document: Any) -> list[str]:
    return list(document["consolidated_metadata"]["metadata"])


def _names_of_v2(document: Any) -> list[str]:
    return [key.rpartition("/")[0] for key in document["metadata"]]


class RemoteStore(Store):
    """The same files as a read-only store of zarr."""

    supports_writes = supports_deletes = supports_listing = False

    def __init__(self, files: RemoteFiles) -> None:
        super().__init__(read_only=True)
        self._files = files

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        part = await asyncio.to_thread(self._get, key, byte_range)
        return None if part is None else prototype.buffer.from_bytes(part)

    def _get(self, key: str, byte_range: ByteRequest | None) -> Any:
        files = self._files
        if key.rpartition("/")[2] in _DOCUMENTS:
            return files.read(key)
        if isinstance(byte_range, RangeByteRequest):
            part = files.fetch(key, byte_range.start, byte_range.end)
            return None if part is None else part.data
        if isinstance(byte_range, SuffixByteRequest):
            part = files.fetch(key, tail=byte_range.suffix)
        elif isinstance(byte_range, OffsetByteRequest):
            part = files.fetch(key, byte_range.offset, 1 << 62)
        else:
            part = files.fetch(key)
        files.note(key, part, 0 if part is None else part.stat.nbytes - part.data.size)
        if part is not None and byte_range is None:
            files.check(key)
        return None if part is None else part.data

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return list(await asyncio.gather(*(self.get(key, prototype, byte_range) for key, byte_range in key_ranges)))

    async def exists(self, key: str) -> bool:
        return await asyncio.to_thread(self._files.size, key) is not None

    async def set(self, key: str, value: Buffer) -> None:
        raise NotImplementedError("read only")

    async def delete(self, key: str) -> None:
        raise NotImplementedError("read only")

    def list(self) -> AsyncIterator[str]:
        raise NotImplementedError("listing is done by RemoteFiles")

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        return self.list()

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        return self.list()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteStore) and other._files.root == self._files.root

    __hash__ = None  # type: ignore[assignment]
