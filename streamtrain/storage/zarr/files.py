"""The files of a Zarr store in a directory or zip file: its arrays, its chunk files, and their sizes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import zipfile
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Protocol

from streamtrain.errors import CorruptError, NotFoundError, StreamtrainError
from streamtrain.storage.files.sample import sampled
from streamtrain.storage.files.stamps import local_stamp
from streamtrain.storage.formats import ZARR_MARKS
from streamtrain.storage.remote.address import Address

__all__ = ["Directory", "Files", "Zip", "fingerprint", "list_arrays", "open_files"]

_MOST_LEVELS = 100
_CHUNK_NAME = re.compile(r"c|\d+([./]\d+)*")


class Files(Protocol):
    """The files of a store by key. Like in Zarr, a key is a relative path with ``/``."""

    @property
    def root(self) -> Path | Address:
        """Where the store is."""

    def read(self, key: str) -> bytes | None:
        """The content of a file; None if there is none."""

    def part(self, key: str, start: int, stop: int) -> bytes:
        """The bytes from ``start`` to ``stop`` of an existing file."""

    def size(self, key: str) -> int | None:
        """The size of a file in bytes; None if there is none."""

    def stamp(self, key: str) -> str:
        """What shows that a file was written, replaced or copied (see `streamtrain.storage.files.stamps`); "" if nothing does,
        or if there is no file."""

    def children(self, prefix: str) -> list[str]:
        """The names of the folders directly in ``prefix``, sorted."""

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """The key and size of every file below ``prefix`` except hidden ones, sorted."""


class Directory:
    """A store in a local directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, key: str) -> bytes | None:
        try:
            return (self.root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def part(self, key: str, start: int, stop: int) -> bytes:
        with open(os.path.join(self.root, key), "rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def size(self, key: str) -> int | None:
        try:
            status = os.stat(os.path.join(self.root, key))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def stamp(self, key: str) -> str:
        return local_stamp(os.path.join(self.root, key))

    def children(self, prefix: str) -> list[str]:
        with os.scandir(self.root / prefix) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        with os.scandir(self.root / prefix) as entries:
            # hidden files such as .DS_Store differ between copies; with its "/" a folder is sorted as the keys in it
            shown = (entry for entry in entries if not entry.name.startswith("."))
            names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in shown)
        for name in names:
            key = f"{prefix}/{name}" if prefix else name
            if name.endswith("/"):
                yield from self.sizes(key[:-1])
            else:
                yield key, os.stat(os.path.join(self.root, key)).st_size


class Zip:
    """A store in a local zip file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        with self._opened("its directory") as archive:
            self._sizes = {info.filename: info.file_size for info in archive.infolist() if _is_key(info.filename)}

    def read(self, key: str) -> bytes | None:
        return None if key not in self._sizes else self.part(key, 0, self._sizes[key])

    def part(self, key: str, start: int, stop: int) -> bytes:
        with self._opened(key) as archive, archive.open(key) as file:
            file.seek(start)
            return file.read(stop - start)

    @contextmanager
    def _opened(self, what: str) -> Iterator[zipfile.ZipFile]:
        """The open zip file. Raises CorruptError, which names what was read, for any error of reading it."""
        try:
            with zipfile.ZipFile(self.root) as archive:
                yield archive
        except (MemoryError, StreamtrainError):
            raise
        except Exception as error:  # zipfile raises a dozen types for damaged files
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise CorruptError(
                f"{self.root}: {what} cannot be read from the zip file ({reason}): restore it, or pack the store again"
            ) from None

    def size(self, key: str) -> int | None:
        return self._sizes.get(key)

    def stamp(self, key: str) -> str:
        return local_stamp(self.root)

    def children(self, prefix: str) -> list[str]:
        below = f"{prefix}/" if prefix else ""
        rest = (key[len(below) :] for key in self._sizes if key.startswith(below))
        return sorted({name.split("/", 1)[0] for name in rest if "/" in name and not name.startswith(".")})

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        below = f"{prefix}/" if prefix else ""
        for key, size in sorted(self._sizes.items()):
            if key.startswith(below) and not key.rsplit("/", 1)[-1].startswith("."):
                yield key, size


def _is_key(name: str) -> bool:
    """Whether a name in a zip file can be a key of a store. Folders are none, nor is what lies outside of it."""
    return all(part not in ("", ".", "..") for part in name.split("/"))


def open_files(path: Path | Address) -> Files:
    """The files of the Zarr store at a path or URL. Raises NotFoundError if there is none."""
    if isinstance(path, Address):
        from streamtrain.storage.zarr.remote import RemoteFiles

        files: Files = RemoteFiles(path)
    elif not path.exists():
        raise NotFoundError(f"{path}: there is no such Zarr store")
    elif path.is_dir():
        files = Directory(path)
    elif zipfile.is_zipfile(path):
        files = Zip(path)
    else:
        raise NotFoundError(f"{path}: not a Zarr store, because it is neither a directory nor a zip file")
    if not any(files.size(name) is not None for name in ZARR_MARKS):
        raise NotFoundError(
            f"{path}: not a Zarr store, because it has none of {', '.join(ZARR_MARKS)}: give the folder with one of them"
        )
    return files


def list_arrays(files: Files, prefix: str = "") -> Iterator[tuple[str, Literal[2, 3]]]:
    """The path and Zarr version of every array at or below ``prefix``, sorted.

    Reads the metadata document of each array, because consolidated metadata may be outdated.
    """
    if prefix.count("/") >= _MOST_LEVELS:
        raise CorruptError(f"{files.root}: has more than {_MOST_LEVELS} levels of groups: give one of the inner ones")
    kind, version = _node(files, prefix)
    if kind == "array":
        yield prefix, version
    elif kind == "group":
        for name in files.children(prefix):
            yield from list_arrays(files, _join(prefix, name))
    elif any(_CHUNK_NAME.fullmatch(key[len(prefix) + 1 :].split("/")[0]) for key, _ in files.sizes(prefix)):
        raise CorruptError(
            f"{files.root}: {prefix!r} contains chunk files but no metadata (zarr.json or .zarray): restore them, or remove "
            f"the folder"
        )


def _join(prefix: str, name: str) -> str:
    return f"{prefix}/{name}" if prefix else name


def _node(files: Files, prefix: str) -> tuple[str, Literal[2, 3]]:
    document = files.read(_join(prefix, "zarr.json"))
    if document is not None:
        kind = _parse(files, _join(prefix, "zarr.json"), document).get("node_type")
        if kind not in ("array", "group"):
            raise CorruptError(
                f"{files.root}: {_join(prefix, 'zarr.json')} has node_type {kind!r}, not array or group: restore it"
            )
        return str(kind), 3
    if files.size(_join(prefix, ".zarray")) is not None:
        return "array", 2
    return ("group" if files.size(_join(prefix, ".zgroup")) is not None else "none"), 2


def _parse(files: Files, key: str, document: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(document)
    except ValueError as error:
        raise CorruptError(f"{files.root}: {key} is not valid JSON ({error}): restore it from a copy") from None
    if not isinstance(parsed, dict):
        raise CorruptError(
            f"{files.root}: {key} is a JSON {type(parsed).__name__}, but must be an object: restore it from a copy"
        )
    return parsed


def fingerprint(files: Files, arrays: list[str]) -> str:
    """A hash of the metadata document of every array, the names and sizes of its chunk files, and a sample of their bytes
    (see `sampled`). The files of a folder are listed twice rather than kept: there may be millions of them."""
    digest, sizes, kept = hashlib.sha256(), array("q"), dict[str, list[tuple[str, int]]]()
    for path in arrays:
        document = files.read(_join(path, "zarr.json")) or files.read(_join(path, ".zarray")) or b""
        digest.update(f"{path}\0{len(document)}\0".encode(errors="surrogateescape"))
        digest.update(document)
        chunks = _chunk_files(files, [path])
        for key, size in chunks if isinstance(files, Directory) else kept.setdefault(path, list(chunks)):
            digest.update(f"{key}\0{size}\n".encode(errors="surrogateescape"))
            sizes.append(size)
    pieces = sampled(sizes)
    number, start, stop = next(pieces, (-1, 0, 0))
    again = _chunk_files(files, arrays) if isinstance(files, Directory) else chain.from_iterable(kept.values())
    for at, (key, _) in enumerate(again):
        while at == number:
            digest.update(files.part(key, start, stop))
            number, start, stop = next(pieces, (-1, 0, 0))
    return f"zarr-{digest.hexdigest()}"


def _chunk_files(files: Files, arrays: list[str]) -> Iterator[tuple[str, int]]:
    """The key and size of every chunk file of some arrays, sorted in each: the same order for a copy."""
    for path in arrays:
        yield from ((key, size) for key, size in files.sizes(path) if not key.endswith("zarr.json"))
