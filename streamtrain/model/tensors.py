"""Arrays in a file of the safetensors format, written and read one at a time.

The format's library makes bytes of all arrays before it writes. Here they go from where they are into the file, and from the
file to where they stay, in blocks that SHA-256 sees on their way: nothing is in memory twice. A file is 8 bytes with the length
of its header (little-endian), the header (JSON, padded with spaces to whole 8 bytes) and the bytes of the arrays, little-endian
and without gaps: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamtrain.errors import printable

__all__ = ["Contents", "TensorFileError", "load", "load_metadata", "save", "verify"]

_DTYPES = {
    "U64": "<u8", "I64": "<i8", "F64": "<f8", "F32": "<f4", "U32": "<u4", "I32": "<i4", "F16": "<f2", "U16": "<u2",
    "I16": "<i2", "I8": "<i1", "U8": "<u1", "BOOL": "<b1",
}  # fmt: skip
"""The format's types and numpy's, in the order in which arrays stand in a file: large ones first, so that all are aligned."""
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_METADATA, _SEAL = "__metadata__", "sha256"
_SEAL_FORM = ("<u1", (32,))
_MOST_HEADER_BYTES = 100_000_000  # the format's limit
_MOST_AXES, _MOST_SIZE = 64, 1 << 63  # numpy's limits
_SHORTER = "is cut off: it became shorter while it was read"
_BLOCK_BYTES = 1 << 20  # what was just hashed is still in the processor's cache when it is written


class TensorFileError(ValueError):
    """A file that is not of this format, or is damaged. The message has no path: who asked for the file knows it."""


@dataclass(frozen=True, eq=False)
class Contents:
    """What a file holds: ``arrays`` (owned and writable, in the order of the file), ``metadata``, and the ``sha256`` of the
    whole file in hexadecimal digits."""

    arrays: dict[str, NDArray[Any]]
    metadata: dict[str, str]
    sha256: str


class _Entry(NamedTuple):
    """An array as the header tells of it: type as in numpy, and its bytes, counted from the header's end."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def save(
    path: str | Path,
    arrays: Mapping[str, NDArray[Any] | np.generic | float],
    *,
    metadata: Mapping[str, str] | None = None,
    sealed: bool = False,
) -> str:
    """Write arrays to a new file, also to the disk (fsync), and return the SHA-256 of the file in hexadecimal digits.

    arrays: of any shape, booleans, integers of 8 to 64 bits and floats of 16 to 64; plain numbers are int64, float64 and bool.
    Only arrays that are not contiguous or not little-endian are copied, one at a time. metadata: text for the header.
    sealed: the last array is ``sha256``, uint8, shape (32,): the SHA-256 of all bytes before it.
    The same arrays and metadata make the same bytes, whatever their order; without a seal, those of the format's library.
    A file that is there is overwritten, and one that could not be finished is left: safe replacement is the caller's.
    Raises ValueError, before it touches the file, for a type that the format lacks, a name that it keeps for itself, text that
    is not Unicode and a header above 100 MB; OSError as the file system does.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.safetensors")
    >>> digest = save(path, {"w": np.zeros((2, 3), np.float32), "step": 7}, metadata={"by": "me"}, sealed=True)
    >>> load_metadata(path)
    {'by': 'me'}
    """
    if taken := arrays.keys() & ({_METADATA, _SEAL} if sealed else {_METADATA}):
        raise ValueError(f"an array cannot be called {min(taken)!r}: the file has its own")
    held = {name: np.asarray(value) for name, value in arrays.items()}
    entries = _entries_of(held)
    end = entries[-1].stop if entries else 0
    seal = [_Entry(_SEAL, *_SEAL_FORM, end, end + 32)] if sealed else []
    header = _header_of(entries + seal, metadata)
    hasher = hashlib.sha256(header)
    with open(path, "wb") as file:
        file.write(header)
        for entry in entries:
            _write(file, np.asarray(held[entry.name], entry.dtype, order="C"), hasher)
        if sealed:
            file.write(digest := hasher.digest())
            hasher.update(digest)
        file.flush()
        os.fsync(file.fileno())
    return hasher.hexdigest()


def load(path: str | Path, *, sealed: bool = False) -> Contents:
    """All arrays of a file and its metadata; plain numbers come back as arrays of shape ().

    Nothing is in memory but the arrays and the header. sealed: the file ends with its own SHA-256 (see save), which is verified
    and left out: no bit of the file has changed.
    Raises TensorFileError for a file that is not of the format, cut off, damaged or not sealed though it should be; OSError as
    the file system does.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.safetensors")
    >>> digest = save(path, {"w": np.arange(3.0), "step": 7}, sealed=True)
    >>> contents = load(path, sealed=True)
    >>> contents.arrays["w"], int(contents.arrays["step"]), contents.sha256 == digest
    (array([0., 1., 2.]), 7, True)
    >>> _ = path.write_bytes(path.read_bytes().replace(b'"w"', b'"v"'))
    >>> load(path, sealed=True)
    Traceback (most recent call last):
    streamtrain.model.tensors.TensorFileError: its checksum differs: the file is not what was written
    """
    arrays: dict[str, NDArray[Any]] = {}
    with open(path, "rb") as file:
        header, metadata, entries = _read_header(file)
        if sealed:
            _require_seal(entries)
        hasher = hashlib.sha256(header)
        for entry in entries:
            before = hasher.digest()
            arrays[entry.name] = np.empty(entry.shape, entry.dtype)
            for block in _blocks(arrays[entry.name]):
                if file.readinto(block) != len(block):
                    raise TensorFileError(_SHORTER)
                hasher.update(block)
    if sealed:
        _require_same(arrays.pop(_SEAL).tobytes(), before)
    return Contents(arrays, metadata, hasher.hexdigest())


def verify(path: str | Path) -> None:
    """Raise TensorFileError unless a file is sealed and no bit of it has changed; none of its arrays is held in memory.
    OSError as the file system does.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.safetensors")
    >>> digest = save(path, {"w": np.arange(3.0)}, sealed=True)
    >>> verify(path)
    """
    block = memoryview(bytearray(_BLOCK_BYTES))
    with open(path, "rb") as file:
        header, _, entries = _read_header(file)
        _require_seal(entries)
        hasher, left = hashlib.sha256(header), entries[-1].start
        while left:
            part = block[: min(left, _BLOCK_BYTES)]
            if file.readinto(part) != len(part):
                raise TensorFileError(_SHORTER)
            hasher.update(part)
            left -= len(part)
        _require_same(file.read(), hasher.digest())


def load_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of a file. Raises TensorFileError for a header that is wrong or does not fit the file's length; no array
    is read and no seal verified. OSError as the file system does."""
    with open(path, "rb") as file:
        return _read_header(file)[1]


def _require_seal(entries: Sequence[_Entry]) -> None:
    if not entries or entries[-1][:3] != (_SEAL, *_SEAL_FORM):
        raise TensorFileError("has no checksum at its end: it was written without one, or is damaged")


def _require_same(told: bytes, found: bytes) -> None:
    if told != found:
        raise TensorFileError("its checksum differs: the file is not what was written")


def _blocks(array: NDArray[Any]) -> Iterator[memoryview]:
    """The memory of a contiguous array of any shape, also () and (0, 3), piece by piece."""
    memory = array.reshape(-1).view(np.uint8).data
    for start in range(0, len(memory), _BLOCK_BYTES):
        yield memory[start : start + _BLOCK_BYTES]


def _entries_of(arrays: Mapping[str, NDArray[Any]]) -> list[_Entry]:
    """Where each array will be."""
    dtypes = {name: f"<{array.dtype.kind}{array.dtype.itemsize}" for name, array in arrays.items()}
    for name, dtype in dtypes.items():
        if dtype not in _NAMES:
            raise ValueError(f"array {_shown(name)} is of type {arrays[name].dtype}, which safetensors files lack")
    entries, stop, order = [], 0, list(_NAMES)
    for name in sorted(dtypes, key=lambda name: (order.index(dtypes[name]), name)):
        start, stop = stop, stop + arrays[name].nbytes
        entries.append(_Entry(name, dtypes[name], arrays[name].shape, start, stop))
    return entries


def _write(file: BufferedWriter, array: NDArray[Any], hasher: Any) -> None:
    for block in _blocks(array):
        hasher.update(block)
        file.write(block)


def _header_of(entries: Sequence[_Entry], metadata: Mapping[str, str] | None) -> bytes:
    """The file's first bytes, until its arrays."""
    header: dict[str, Any] = {} if metadata is None else {_METADATA: dict(sorted(metadata.items()))}
    for name, dtype, shape, start, stop in entries:
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": (start, stop)}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _MOST_HEADER_BYTES:
        raise ValueError(f"names and metadata take {len(text):,} bytes, the format's limit is {_MOST_HEADER_BYTES:,}")
    return len(text).to_bytes(8, "little") + text


def _read_header(file: BufferedReader) -> tuple[bytes, dict[str, str], list[_Entry]]:
    """The bytes until the arrays, the metadata, and the arrays in the order of the file, which they cover exactly."""
    file_bytes = os.fstat(file.fileno()).st_size
    length = int.from_bytes(head := file.read(8), "little")
    if len(head) < 8 or length > min(file_bytes - 8, _MOST_HEADER_BYTES):
        raise TensorFileError(f"is cut off or no safetensors file: a header of {length:,} bytes, in {file_bytes:,}")
    head += file.read(length)
    try:
        metadata, entries = _parsed(head[8:])
    except (ValueError, RecursionError) as error:
        raise TensorFileError(f"its header is damaged or wrong: {error}") from error
    there, told = file_bytes - 8 - length, entries[-1].stop if entries else 0
    if there < told:
        raise TensorFileError(f"is cut off: {there:,} bytes of arrays, its header tells of {told:,}")
    if there > told:
        raise TensorFileError(f"has {there - told:,} bytes at its end that belong to no array")
    return head, metadata, entries


def _parsed(text: bytes) -> tuple[dict[str, str], list[_Entry]]:
    """Metadata, and arrays in the order of the file. Raises ValueError and RecursionError for what is not of the format."""
    if not text.startswith(b"{"):
        raise ValueError("it does not begin with a {")
    header = json.loads(text.decode(), object_pairs_hook=_unique)
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are not all text")
    for string in (*header, *metadata, *metadata.values()):
        string.encode()  # JSON can escape half a character, which nobody could write again
    entries = sorted((_entry(name, told) for name, told in header.items()), key=lambda entry: entry[3:])
    for entry, end in zip(entries, [0, *(entry.stop for entry in entries)], strict=False):
        if entry.start != end:
            raise ValueError(f"array {_shown(entry.name)} begins at byte {entry.start:,} instead of {end:,}")
    return metadata, entries


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a name stands in it twice")
    return found


def _entry(name: str, told: Any) -> _Entry:
    if not isinstance(told, dict) or told.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"array {_shown(name)} needs a dtype, a shape, data_offsets, and no more")
    kind, shape, offsets = told["dtype"], told["shape"], told["data_offsets"]
    if not isinstance(kind, str) or kind not in _DTYPES:
        raise ValueError(f"array {_shown(name)} is of type {_shown(str(kind))}, which cannot be read here")
    if not (isinstance(shape, list) and isinstance(offsets, list) and len(shape) <= _MOST_AXES and len(offsets) == 2):
        raise ValueError(f"array {_shown(name)} has a shape or data_offsets that cannot be")
    if not all(type(n) is int and 0 <= n < _MOST_SIZE for n in shape + offsets):  # True is no size
        raise ValueError(f"array {_shown(name)} has a shape or data_offsets of something else than sizes")
    extent = math.prod(n or 1 for n in shape) * np.dtype(_DTYPES[kind]).itemsize  # numpy limits it, of empty arrays too
    if extent >= _MOST_SIZE or offsets[1] - offsets[0] != (0 if 0 in shape else extent):
        raise ValueError(f"array {_shown(name)} has not as many bytes as its shape needs")
    return _Entry(name, _DTYPES[kind], tuple(shape), offsets[0], offsets[1])


def _shown(name: str) -> str:
    return f"'{printable(name[:80])}'"
