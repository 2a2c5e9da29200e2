"""Arrays in a file of the safetensors format: written by the format's library, read by our own loader.

The library's loader copies what it reads, or leaves pages of the file in memory. Ours reads each array straight into its
final memory, compares every size with the file's before it uses it, and computes the hash on the way.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.model.room import Room, open_at_once
from streamtrain.model.tensor_header import (
    DTYPES,
    MAX_HEADER_BYTES,
    METADATA,
    Entry,
    TensorFileError,
    read_header,
    shown,
)

__all__ = [
    "Contents",
    "Entry",
    "TensorFileError",
    "bytes_of",
    "can_hold",
    "load",
    "load_some",
    "look",
    "save",
    "verify",
]

_SEAL = "sha256"
_SEAL_FORM = ("<u1", (32,))
_BLOCK_BYTES = 1 << 20  # small enough to stay in the processor's cache until it is hashed


@dataclass(frozen=True, eq=False)
class Contents:
    """What a file holds: ``arrays`` (owned and writable, in the order of the file), ``metadata``, and the ``sha256`` of the
    file in hexadecimal digits (see `save`)."""

    arrays: dict[str, NDArray[Any]]
    metadata: dict[str, str]
    sha256: str


def save(
    path: str | Path,
    arrays: Mapping[str, NDArray[Any] | np.generic | float],
    *,
    metadata: Mapping[str, str] | None = None,
    sealed: bool = False,
) -> str:
    """Write arrays to a file and flush it to the disk. Return its SHA-256 in hexadecimal digits.

    Parameters
    ----------
    path
        A file there is replaced. An interrupted call may leave a hidden file ``.tmp*`` in the folder: write into a folder
        that is removed then (`streamtrain.state.write_beside`).
    arrays
        Arrays of any shape: booleans, integers of 8 to 64 bits, floats of 16 to 64; plain numbers become int64, float64 or
        bool. Only arrays that are not contiguous or not little-endian are copied.
    metadata
        Text for the header under at most one name: the library writes several in no fixed order, and the same arrays are to
        make the same bytes.
    sealed
        Add an array ``sha256``, uint8, shape (32,): the SHA-256 of the file as it is while these 32 bytes are zero.
        That is also what is returned then.

    Raises
    ------
    ValueError
        Before the file is touched: for a type that the format lacks, a name that it reserves, text that is not Unicode,
        several names of metadata, or a header above 100 MB.
    OSError
        As the file system does.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.safetensors")
    >>> digest = save(path, {"w": np.zeros((2, 3), np.float32), "step": 7}, metadata={"by": "me"}, sealed=True)
    >>> look(path)[0]
    {'by': 'me'}
    """
    if taken := arrays.keys() & ({METADATA, _SEAL} if sealed else {METADATA}):
        raise ValueError(f"an array cannot be called {min(taken)!r}: the name is reserved")
    _check_text(arrays, metadata or {})
    contiguous = {name: _contiguous(name, np.asarray(value)) for name, value in arrays.items()}
    if sealed:
        contiguous[_SEAL] = np.zeros(32, np.uint8)
    _write(Path(path), contiguous, metadata)
    with open(path, "r+b") as file:
        header, _, entries = read_header(file)
        hasher = hashlib.sha256(header)
        for entry in entries:
            for block in _blocks(contiguous[entry.name]):
                hasher.update(block)
        if sealed:
            file.seek(len(header) + _seal_of(entries).start)
            file.write(hasher.digest())
            file.flush()
        os.fsync(file.fileno())
    return hasher.hexdigest()


def load(path: str | Path, *, sealed: bool = False, room: Room | None = None, prefix: str = "") -> Contents:
    """Read all arrays of a file and its metadata, array by array. Plain numbers come back as arrays of shape ().

    Only the arrays and the header are in memory. sealed: the file contains its own SHA-256 (see `save`), which is compared
    and left out, so that a single changed bit is noticed. room: bounds what is loaded; None for one's own files. prefix: only
    arrays whose names begin so are kept; the checksum is still that of all.
    Raises TensorFileError for a file that is not of the format, cut off, damaged, or not sealed though it should be; RunError
    and BudgetRefused as `Room` does; OSError as the file system does.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.safetensors")
    >>> digest = save(path, {"w": np.arange(3.0), "step": 7}, sealed=True)
    >>> contents = load(path, sealed=True)
    >>> contents.arrays["w"], int(contents.arrays["step"]), contents.sha256 == digest
    (array([0., 1., 2.]), 7, True)
    >>> _ = path.write_bytes(path.read_bytes().replace(b'"w"', b'"v"'))
    >>> load(path, sealed=True)
    Traceback (most recent call last):
    streamtrain.model.tensor_header.TensorFileError: its checksum differs: the file is not what was written
    """
    arrays: dict[str, NDArray[Any]] = {}
    scratch = memoryview(bytearray(_BLOCK_BYTES))

    def blocks(entry: Entry) -> Iterator[memoryview]:
        if not entry.name.startswith(prefix):
            return _passed(entry, scratch)
        arrays[entry.name] = np.empty(entry.shape, entry.dtype)
        return _blocks(arrays[entry.name])

    with open_at_once(path) as file:
        header, metadata, entries = read_header(file, room)
        if room is not None:
            room.require_arrays(Path(path), bytes_of(entries, prefix))
        digest = _read(file, header, entries, blocks, sealed=sealed)
    for name, array in arrays.items():
        if array.dtype == np.bool_ and array.size and array.view(np.uint8).max() > 1:
            raise TensorFileError(f"array {shown(name)} has a byte that is neither true nor false")
    return Contents(arrays, metadata, digest)


def verify(path: str | Path, sha256: str | None = None, *, room: Room | None = None) -> None:
    """Raise TensorFileError unless no bit of a file has changed. No array is held in memory. sha256: of the file; None for one
    that is sealed. Raises RunError and OSError as `load` does.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.safetensors")
    >>> digest = save(path, {"w": np.arange(3.0)}, sealed=True)
    >>> verify(path)
    """
    scratch = memoryview(bytearray(_BLOCK_BYTES))

    with open_at_once(path) as file:
        header, _, entries = read_header(file, room)
        found = _read(file, header, entries, lambda entry: _passed(entry, scratch), sealed=sha256 is None)
    if sha256 is not None and found != sha256:
        raise TensorFileError("was changed or damaged since it was written: its checksum differs")


def look(path: str | Path, *, room: Room | None = None) -> tuple[dict[str, str], list[Entry]]:
    """Return the metadata of a file and what arrays it has, without the seal. No array is read, and no checksum compared.

    Raises TensorFileError for a header that is wrong or does not fit the length of the file; otherwise as `load`.
    """
    with open_at_once(path) as file:
        _, metadata, entries = read_header(file, room)
    return metadata, [entry for entry in entries if entry[:3] != (_SEAL, *_SEAL_FORM)]


def bytes_of(entries: Iterable[Entry], prefix: str = "") -> int:
    """The bytes of those arrays whose names begin so."""
    return sum(entry.stop - entry.start for entry in entries if entry.name.startswith(prefix))


def load_some(path: str | Path, prefix: str, *, room: Room) -> dict[str, NDArray[Any]]:
    """Read those arrays whose names begin so, and return them without the beginning. They may take 1 MB in all. No checksum is
    compared. Raises as `load` does, and TensorFileError for more than that."""
    with open_at_once(path) as file:
        header, _, entries = read_header(file, room)
        some = [entry for entry in entries if entry.name.startswith(prefix)]
        if (size := bytes_of(some)) > _BLOCK_BYTES:
            raise TensorFileError(f"its arrays {shown(prefix)}... take {size:,} bytes: more than {_BLOCK_BYTES:,}")
        arrays = {}
        for entry in some:
            file.seek(len(header) + entry.start)
            arrays[entry.name.removeprefix(prefix)] = array = np.empty(entry.shape, entry.dtype)
            for block in _blocks(array):
                if file.readinto(block) != len(block):
                    raise TensorFileError("is cut off: it became shorter while it was read")
    return arrays


# -- writing -----------------------------------------------------------------------------------------------------------


def _check_text(names: Iterable[str], metadata: Mapping[str, str]) -> None:
    if len(metadata) > 1:
        raise ValueError(f"metadata {', '.join(map(repr, metadata))}: give at most one")
    size = len("".join((*names, *metadata, *metadata.values())).encode())
    if size > MAX_HEADER_BYTES:
        raise ValueError(f"names and metadata take {size:,} bytes; the format allows {MAX_HEADER_BYTES:,}")


def can_hold(dtype: np.dtype[Any]) -> bool:
    """Whether the format has a type for arrays of that type.

    >>> can_hold(np.dtype(np.float32)), can_hold(np.dtype("U5"))
    (True, False)
    """
    return _stored(dtype) in DTYPES.values()


def _stored(dtype: np.dtype[Any]) -> str:
    return f"<{dtype.kind}{dtype.itemsize}"


def _contiguous(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """The array itself where the library can write it as it is."""
    dtype = _stored(array.dtype)
    if not can_hold(array.dtype):
        raise ValueError(f"array {shown(name)} is of type {array.dtype}, which safetensors files lack")
    return np.asarray(array, dtype, order="C")


def _write(path: Path, arrays: dict[str, NDArray[Any]], metadata: Mapping[str, str] | None) -> None:
    """Write a file by the library, with the mode that the process gives new files and errors of the file system as OSError."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    with open(path, "wb") as file:  # the library makes another file, for its owner alone, and renames it
        mode = os.fstat(file.fileno()).st_mode
    try:
        save_file(arrays, path, dict(metadata) if metadata else None)
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    path.chmod(mode & 0o7777)


# -- reading -----------------------------------------------------------------------------------------------------------


def _read(
    file: BufferedReader,
    header: bytes,
    entries: Sequence[Entry],
    blocks: Callable[[Entry], Iterable[memoryview]],
    *,
    sealed: bool,
) -> str:
    """Read every array into its blocks of memory; return the SHA-256 of the file. The seal is compared with it."""
    seal = _seal_of(entries) if sealed else None
    hasher, found = hashlib.sha256(header), bytearray(32)
    for entry in entries:
        for block in [memoryview(found)] if entry is seal else blocks(entry):
            if file.readinto(block) != len(block):
                raise TensorFileError("is cut off: it became shorter while it was read")
            hasher.update(bytes(32) if entry is seal else block)
    if seal is not None and found != hasher.digest():
        raise TensorFileError("its checksum differs: the file is not what was written")
    return hasher.hexdigest()


def _passed(entry: Entry, scratch: memoryview) -> Iterator[memoryview]:
    """Memory for an array that is not kept, piece by piece."""
    for start in range(entry.start, entry.stop, len(scratch)):
        yield scratch[: min(entry.stop - start, len(scratch))]


def _seal_of(entries: Iterable[Entry]) -> Entry:
    for entry in entries:
        if entry[:3] == (_SEAL, *_SEAL_FORM):
            return entry
    raise TensorFileError("has no checksum: it was written without one, or is damaged")


def _blocks(array: NDArray[Any]) -> Iterator[memoryview]:
    """The memory of a contiguous array of any shape, also () and (0, 3), piece by piece."""
    memory = array.reshape(-1).view(np.uint8).data
    for start in range(0, len(memory), _BLOCK_BYTES):
        yield memory[start : start + _BLOCK_BYTES]
