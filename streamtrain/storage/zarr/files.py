"""The files of a Zarr store in a directory or zip file: its arrays, its chunk files, and their sizes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import zipfile
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from streamtrain.errors import CorruptError, NotFoundError, StreamtrainError
from streamtrain.storage.files.sample import sampled
from streamtrain.storage.files.stamps import local_stamp
from streamtrain.storage.formats import ZARR_MARKS
from streamtrain.storage.remote.address import Address

__all__ = [
    "Directory", "Files", "Node", "Zip", "around", "fingerprint", "joined", "node_at", "open_files", "parsed_json",
    "require_no_chunks", "zip_above",
]  # fmt: skip

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
    """A store in a local zip file, or in a folder of one. archive: the zip file. inner: the folder."""

    def __init__(self, archive: Path, inner: str = "") -> None:
        self.archive, self.inner = archive, inner
        self.root = archive / inner if inner else archive
        below = f"{inner}/" if inner else ""
        with self._opened("its directory") as opened:
            sizes = {info.filename: info.file_size for info in opened.infolist() if _is_key(info.filename)}
        self._sizes = {name[len(below) :]: size for name, size in sizes.items() if name.startswith(below)}

    def read(self, key: str) -> bytes | None:
        return None if key not in self._sizes else self.part(key, 0, self._sizes[key])

    def part(self, key: str, start: int, stop: int) -> bytes:
        with self._opened(key) as archive, archive.open(joined(self.inner, key)) as file:
            file.seek(start)
            return file.read(stop - start)

    @contextmanager
    def _opened(self, what: str) -> Iterator[zipfile.ZipFile]:
        """The open zip file. Raises CorruptError, which names what was read, for any error of reading it."""
        try:
            with zipfile.ZipFile(self.archive) as archive:
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
        return local_stamp(self.archive)

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
    files = _files_at(path)
    if any(files.size(name) is not None for name in ZARR_MARKS):
        return files
    inside = [name for name in files.children("")[:100] if node_at(files, name).kind != "none"]
    remedy = f"give {path}/{inside[0]}" if inside else "give the folder with one of them"
    raise NotFoundError(f"{path}: not a Zarr store, because it has none of {', '.join(ZARR_MARKS)}: {remedy}")


def _files_at(path: Path | Address) -> Files:
    if isinstance(path, Address):
        from streamtrain.storage.zarr.remote import RemoteFiles

        return RemoteFiles(path)
    if path.is_dir():
        return Directory(path)
    archive = zip_above(path)
    if archive is not None:
        return Zip(archive, path.relative_to(archive).as_posix().removeprefix("."))
    if not path.exists():
        raise NotFoundError(f"{path}: there is no such Zarr store")
    raise NotFoundError(f"{path}: not a Zarr store, because it is neither a directory nor a zip file")


def zip_above(path: Path) -> Path | None:
    """The zip file that a path is, or leads into; None if there is none."""
    file = next((above for above in (path, *path.parents) if above.exists()), None)
    return file if file is not None and file.is_file() and zipfile.is_zipfile(file) else None


def around(path: Path | Address) -> tuple[Files, str] | None:
    """The files of the group that an array is in, and its name there; None if it is in none: then its name is not its own,
    because a copy may have another one."""
    if isinstance(path, Address):
        from streamtrain.storage.zarr.remote import RemoteFiles

        folder, _, name = path.path.rstrip("/").rpartition("/")
        files: Files = RemoteFiles(path.at(folder))
        return (files, name) if folder and _is_group(files) else None
    path = path.absolute()
    archive = zip_above(path)
    if path.is_dir() or archive is None:
        files = Directory(path.parent)
    elif archive == path:
        return None
    else:
        files = Zip(archive, path.parent.relative_to(archive).as_posix().removeprefix("."))
    return (files, path.name) if _is_group(files) else None


def _is_group(files: Files) -> bool:
    return any(files.size(mark) is not None for mark in ("zarr.json", ".zgroup"))


class Node(NamedTuple):
    """What is at a path of a store: an array, a group, or nothing that Zarr knows. attributes: of a group."""

    kind: Literal["array", "group", "none"]
    version: Literal[2, 3]
    attributes: dict[str, Any]


def node_at(files: Files, path: str) -> Node:
    """The array or group at a path. Reads its own document, because consolidated metadata may be outdated."""
    key = joined(path, "zarr.json")
    document = files.read(key)
    if document is not None:
        parsed = parsed_json(files, key, document)
        kind = parsed.get("node_type")
        if kind not in ("array", "group"):
            raise CorruptError(f"{files.root}: {key} has node_type {kind!r}, not array or group: restore it")
        attributes = parsed.get("attributes")
        return Node(kind, 3, attributes if isinstance(attributes, dict) else {})
    if files.size(joined(path, ".zarray")) is not None:
        return Node("array", 2, {})
    if files.size(joined(path, ".zgroup")) is None:
        return Node("none", 2, {})
    document = files.read(joined(path, ".zattrs"))
    return Node("group", 2, {} if document is None else parsed_json(files, joined(path, ".zattrs"), document))


def require_no_chunks(files: Files, path: str) -> None:
    """Raise CorruptError if a folder without metadata has chunk files: the array that they belong to is damaged."""
    if any(_CHUNK_NAME.fullmatch(key[len(path) + 1 :].split("/")[0]) for key, _ in files.sizes(path)):
        raise CorruptError(
            f"{files.root}: {path!r} contains chunk files but no metadata (zarr.json or .zarray): restore them, or remove "
            f"the folder"
        )


def joined(prefix: str, name: str) -> str:
    """The path of what is called ``name`` in a group."""
    return f"{prefix}/{name}" if prefix else name


def parsed_json(files: Files, key: str, document: bytes) -> dict[str, Any]:
    """A metadata document. Raises CorruptError if it is no JSON object."""
    try:
        parsed = json.loads(document)
    except ValueError as error:
        raise CorruptError(f"{files.root}: {key} is not valid JSON ({error}): restore it from a copy") from None
    if not isinstance(parsed, dict):
        raise CorruptError(
            f"{files.root}: {key} is a JSON {type(parsed).__name__}, but must be an object: restore it from a copy"
        )
    return parsed


def fingerprint(files: Files, arrays: list[str], documents: Iterable[str] = ()) -> str:
    """A hash of the metadata document of every array, other documents, the names and sizes of the chunk files, and a sample of
    their bytes (see `sampled`). The files of a folder are listed twice rather than kept: there may be millions of them."""
    digest, sizes, kept = hashlib.sha256(), array("q"), dict[str, list[tuple[str, int]]]()
    for key in documents:
        document = files.read(key) or b""
        digest.update(f"{key}\0{len(document)}\0".encode(errors="surrogateescape"))
        digest.update(document)
    for path in arrays:
        document = files.read(joined(path, "zarr.json")) or files.read(joined(path, ".zarray")) or b""
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
