"""The file store of a server (see `streamtrain.storage.files.store.FileStore`)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from streamtrain.storage.files.partitions import folders_above
from streamtrain.storage.files.store import Stat, require_unchanged
from streamtrain.storage.remote.address import Address
from streamtrain.storage.remote.client import Client, Traffic
from streamtrain.storage.remote.file import RangeFile
from streamtrain.storage.remote.listing import find_files

__all__ = ["RemoteFileStore", "locate_remote"]


class RemoteFileStore:
    """A folder on a server. Every answer is compared with the first version of its file. A changed file is an error in every
    process that reads it."""

    is_remote = True
    again: Sequence[str] = ()

    def __init__(self, client: Client, root: str, stats: dict[str, Stat]) -> None:
        self._client, self._root, self._stats = client, root, dict(stats)
        self._lock = threading.Lock()

    @property
    def traffic(self) -> Traffic:
        """The counts of requests so far."""
        return self._client.traffic

    @property
    def folders(self) -> list[str]:
        return folders_above(self._root)

    def shown(self, name: str) -> str:
        return self._client.address.at(self._path(name)).shown

    def stat(self, name: str) -> Stat:
        if name not in self._stats:
            self._stats[name] = self._client.stat(self._path(name))
        return self._stats[name]

    def stamp(self, name: str) -> str:
        """The size and the version, which the server gives a file when it is written."""
        return " ".join(map(str, self.stat(name)))

    def open(self, name: str, stat: Stat) -> pa.NativeFile:
        return pa.PythonFile(RangeFile(stat.nbytes, lambda start, stop: self._fetch(name, start, stop)), mode="r")

    def verify(self, name: str, stat: Stat) -> None:
        """Do nothing: every read has checked the version."""

    def read(self, name: str, start: int, stop: int) -> bytes:
        data: bytes = self._fetch(name, start, min(stop, self.stat(name).nbytes)).to_pybytes()
        return data

    def _fetch(self, name: str, start: int, stop: int) -> pa.Buffer:
        if stop <= start:
            return pa.py_buffer(b"")
        part = self._client.part(self._path(name), start, stop)
        self._compare(name, part.stat)
        return part.data

    def _compare(self, name: str, now: Stat) -> None:
        """Raise ChangedError if the file has changed. A file from a listing has no version until its first answer."""
        with self._lock:
            before = self._stats[name]
            if not before.version and before.nbytes == now.nbytes:
                before = self._stats[name] = now
        require_unchanged(self.shown(name), before, now)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}".lstrip("/")

    def __getstate__(self) -> dict[str, Any]:
        return {"client": self._client, "root": self._root, "stats": self._stats}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def locate_remote(target: str, suffixes: tuple[str, ...]) -> tuple[RemoteFileStore, list[str]]:
    """The file store of a URL, and the names of the data files in it, sorted."""
    client = Client(Address.parse(target))
    root, stats = find_files(client, suffixes)
    return RemoteFileStore(client, root, stats), list(stats)
