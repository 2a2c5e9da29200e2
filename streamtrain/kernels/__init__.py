"""The loops that touch every number of every row: compiled where a C compiler was found at installation, numpy otherwise.

``COMPILED`` tells which. Moves, `sums` and `affine` give the same bits either way; `linear.LinearStep` adds up in another order
than numpy's BLAS does, so it differs in the last bits, as it would between two versions of BLAS.
Arrays must be C-contiguous; nothing is checked here, callers own their arrays.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "COMPILED",
    "address",
    "affine",
    "binary_scores",
    "few_sums",
    "library",
    "permuted",
    "scatter_columns",
    "scatter_rows",
    "sums",
    "unpermuted",
    "zeros",
]

Floats = NDArray[np.float32]

_BYTE = ctypes.c_char  # its from_buffer is the cheapest way to an address
_BLOCK_ROWS = 2048  # numpy turns this many rows at a time: the block stays in the cache
_HUGE_PAGE_BYTES = 1 << 21
_SUM_ROWS = 4096  # float32 sums no more rows than this


def _load() -> ctypes.CDLL | None:
    folder = Path(__file__).parent
    try:
        library = ctypes.CDLL(str(folder / "_kernels.so"))
        if library.st_has_avx2() and (folder / "_kernels_avx2.so").exists():
            library = ctypes.CDLL(str(folder / "_kernels_avx2.so"))
    except OSError:  # there was no compiler, or the file is of another kind of machine
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.st_places.argtypes = [number] * 5 + [pointer, number, pointer]
    library.st_scatter_columns.argtypes = [pointer, pointer, number, number, pointer, number, pointer]
    library.st_scatter_rows.argtypes = [pointer, number, number, pointer, number, number, pointer]
    library.st_sums.argtypes = [pointer, number, number, pointer, pointer]
    library.st_affine.argtypes = [pointer, number, number, pointer, pointer]
    library.st_linear_step.argtypes = [pointer, number, number, *[pointer] * 7, number, *[pointer] * 5]
    numbers = [ctypes.c_double] * 3
    library.st_linear_run.argtypes = (
        [pointer]
        + [number] * 3
        + [pointer] * 7
        + [number]
        + numbers
        + [pointer] * 6
        + [pointer] * 5
        + [number, ctypes.c_double, ctypes.c_double, pointer]
    )
    library.st_linear_run.restype = number
    library.st_binary_scores.argtypes = [pointer, pointer, number, ctypes.c_float, number, number, number, pointer]
    library.st_binary_scores.restype = ctypes.c_double
    library.st_hash_bytes.argtypes = [pointer, pointer, number, ctypes.c_uint32, pointer]
    library.st_entries.argtypes = [
        pointer,
        number,
        number,
        *[pointer] * 3,
        number,
        number,
        pointer,
        number,
        *[pointer] * 4,
    ]
    library.st_entries.restype = number
    library.st_slots.argtypes = [pointer, number, pointer, *[number] * 4, pointer, pointer]
    library.st_floats.argtypes = [pointer, number, pointer, number, number, pointer]
    library.st_take.argtypes = [*[pointer] * 3, number, number, ctypes.c_uint32, pointer]
    for name in ("st_hash_bytes", "st_slots", "st_take", "st_floats"):
        getattr(library, name).restype = None
    for name in ("st_places", "st_scatter_columns", "st_scatter_rows", "st_sums", "st_affine", "st_linear_step"):
        getattr(library, name).restype = None
    return library


_library = _load()
COMPILED = _library is not None


def library() -> ctypes.CDLL | None:
    """The compiled functions; None where there are none."""
    return _library


def _address(array: NDArray[Any]) -> int:
    if array.flags.writeable and array.size:
        return ctypes.addressof(_BYTE.from_buffer(array))  # type: ignore[arg-type]  # an array is a buffer
    return array.ctypes.data


address = _address


def zeros(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """An array of zeros for reads at random: a large one begins where a huge page of memory does, so that the processor finds
    all of it by few entries of its table of pages (looking up slots was measured to take half the time). What is not touched
    takes no memory.

    >>> zeros((1 << 20, 2), np.uint32).ctypes.data % (1 << 21)
    0
    """
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    if nbytes < 2 * _HUGE_PAGE_BYTES:
        return np.zeros(shape, dtype)
    space = np.zeros(nbytes + _HUGE_PAGE_BYTES, np.uint8)
    start = -space.ctypes.data % _HUGE_PAGE_BYTES
    found: NDArray[Any] = space[start : start + nbytes].view(dtype).reshape(shape)
    return found


def permuted(first: int, last: int, rows: int, keys: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Where the numbers from ``first`` to ``last`` go in a permutation of 0 to ``rows - 1`` that ``keys`` choose; shape
    (last - first,). Nothing is stored: any part of it can be had at any time.

    keys: shape (rounds,), an even number of them. The numbers are cells of a grid, about square, of at least ``rows``
    cells; in each round row or column moves by a hash of the other and a key: a Feistel network (Black & Rogaway 2002,
    "Ciphers with arbitrary finite domains"). What lands beyond ``rows`` goes through again. The hash is lowbias32
    (Wellons 2018).

    >>> keys = np.arange(8, dtype=np.uint32)
    >>> sorted(permuted(0, 10, 10, keys).tolist()), permuted(3, 5, 10, keys).tolist() == permuted(0, 10, 10, keys)[3:5].tolist()
    ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], True)
    """
    high = math.isqrt(max(0, rows - 1)) + 1  # high * wide is at least rows
    wide = max(1, -(-rows // high))
    if _library is not None:
        found = np.empty(last - first, np.int64)
        _library.st_places(first, last - first, rows, high, wide, _address(keys), len(keys), _address(found))
        return found
    found = np.arange(first, last)
    away = np.ones(len(found), bool)
    while away.any():
        found[away] = _feistel(found[away], high, wide, keys)
        away = found >= rows
    return found


def _feistel(numbers: NDArray[np.int64], high: int, wide: int, keys: NDArray[np.uint32]) -> NDArray[np.int64]:
    halves, sizes = list(np.divmod(numbers, wide)), (high, wide)
    for k, key in enumerate(keys.tolist()):
        moved = (_hashed(halves[1 - k % 2] + key) * sizes[k % 2]) >> 32
        halves[k % 2] = (halves[k % 2] + moved) % sizes[k % 2]
    return np.asarray(halves[0] * wide + halves[1])


def unpermuted(numbers: NDArray[np.int64], rows: int, keys: NDArray[np.uint32]) -> NDArray[np.int64]:
    """The inverse of `permuted`: which numbers go to these; same shape. numpy computes it, for the few rows of a batch.

    >>> keys = np.arange(8, dtype=np.uint32)
    >>> unpermuted(permuted(3, 6, 10, keys), 10, keys).tolist()
    [3, 4, 5]
    """
    high = math.isqrt(max(0, rows - 1)) + 1
    wide = max(1, -(-rows // high))
    found = np.array(numbers, np.int64)
    away = np.ones(len(found), bool)
    while away.any():
        found[away] = _feistel_back(found[away], high, wide, keys)
        away = found >= rows
    return found


def _feistel_back(numbers: NDArray[np.int64], high: int, wide: int, keys: NDArray[np.uint32]) -> NDArray[np.int64]:
    halves, sizes = list(np.divmod(numbers, wide)), (high, wide)
    for k, key in reversed(list(enumerate(keys.tolist()))):
        moved = (_hashed(halves[1 - k % 2] + key) * sizes[k % 2]) >> 32
        halves[k % 2] = (halves[k % 2] - moved) % sizes[k % 2]
    return np.asarray(halves[0] * wide + halves[1])


def _hashed(x: NDArray[np.int64]) -> NDArray[np.int64]:
    """lowbias32 of the lower 32 bits."""
    h = x.astype(np.uint32)
    h ^= h >> 16
    h *= np.uint32(0x7FEB352D)
    h ^= h >> 15
    h *= np.uint32(0x846CA68B)
    return (h ^ h >> 16).astype(np.int64)


def scatter_columns(
    columns: Sequence[Floats], slots: NDArray[np.int64], window: Floats, places: NDArray[np.int64]
) -> None:
    """Columns to rows: ``window[places[r], slots[j]] = columns[j][r]``.

    columns: each of shape (rows,), float32. slots: ascending, shape (columns,). window: shape (window rows, width).
    places: shape (rows,), int64, all different.

    >>> window = np.zeros((2, 2), np.float32)
    >>> scatter_columns([np.array([1, 2], np.float32)], np.array([1]), window, np.array([1, 0]))
    >>> window.tolist()
    [[0.0, 2.0], [0.0, 1.0]]
    """
    if not columns:
        return
    if _library is not None:
        pointers = (ctypes.c_void_p * len(columns))(*[_address(column) for column in columns])
        _library.st_scatter_columns(
            pointers, _address(slots), len(columns), len(places), _address(window), window.shape[1], _address(places)
        )
        return
    block = np.empty((min(_BLOCK_ROWS, len(places)), len(columns)), np.float32)
    for start in range(0, len(places), _BLOCK_ROWS):
        part = places[start : start + _BLOCK_ROWS]
        for j, column in enumerate(columns):
            block[: len(part), j] = column[start : start + len(part)]
        window[part[:, None], slots] = block[: len(part)]


def scatter_rows(source: NDArray[Any], window: NDArray[Any], slot: int, places: NDArray[np.int64]) -> None:
    """Rows to rows: ``window[places[r], slot : slot + entries] = source[r]``; both of one dtype.

    source: shape (rows, entries). window: shape (window rows, width).

    >>> window = np.zeros((2, 3), np.float32)
    >>> scatter_rows(np.array([[1, 2], [3, 4]], np.float32), window, 1, np.array([1, 0]))
    >>> window.tolist()
    [[0.0, 3.0, 4.0], [0.0, 1.0, 2.0]]
    """
    if _library is None:
        window[places, slot : slot + source.shape[1]] = source
        return
    item = source.itemsize
    _library.st_scatter_rows(
        _address(source), source.shape[1] * item, len(places), _address(window), window.shape[1] * item, slot * item,
        _address(places),
    )  # fmt: skip


def sums(rows: Floats, centre: Floats) -> NDArray[np.float64]:
    """Sums, and sums of squares, of each column about its centre; shape (2, width).

    rows: shape (rows, width). Up to 4,096 rows are summed in float32, one after the other; these sums in float64.

    >>> sums(np.array([[1, 5], [3, 5]], np.float32), np.array([2, 5], np.float32)).tolist()
    [[0.0, 0.0], [2.0, 0.0]]
    """
    total = np.zeros((2, rows.shape[1]))
    for start in range(0, len(rows), _SUM_ROWS):
        total += few_sums(rows[start : start + _SUM_ROWS], centre)
    return total


def few_sums(rows: Floats, centre: Floats) -> Floats:
    """`sums` of up to 4,096 rows, in float32."""
    found = np.empty((2, rows.shape[1]), np.float32)
    if _library is not None:
        _library.st_sums(_address(rows), *rows.shape, _address(centre), _address(found))
        return found
    with np.errstate(over="ignore", invalid="ignore"):
        about = rows - centre
        found[0] = _one_by_one(about)
        np.multiply(about, about, out=about)
        found[1] = _one_by_one(about)
    return found


def _one_by_one(rows: Floats) -> Floats:
    """The sum of the rows, added one after the other; numpy would add a single column up in pairs."""
    total: Floats = np.add.accumulate(rows)[-1] if rows.shape[1] == 1 else np.add.reduce(rows)
    return total


def affine(rows: Floats, shift: Floats, scale: Floats) -> None:
    """``rows = (rows - shift) * scale``, in place; rows of shape (rows, width), shift and scale of shape (width,).

    >>> rows = np.array([[1, 5], [3, 5]], np.float32)
    >>> affine(rows, np.array([1, 5], np.float32), np.array([2, 1], np.float32))
    >>> rows.tolist()
    [[0.0, 0.0], [4.0, 0.0]]
    """
    if _library is not None:
        _library.st_affine(_address(rows), *rows.shape, _address(shift), _address(scale))
        return
    np.subtract(rows, shift, out=rows)
    np.multiply(rows, scale, out=rows)


def binary_scores(
    targets: Floats, scores: Floats, counts: NDArray[np.int64], *, least: float, shift: int, first_bin: int
) -> float:
    """Scores of two classes: the log-likelihood, and each row counted by its class and the bin of its odds.

    targets: 0 or 1; scores: probabilities of the second class, taken to be between ``least`` and ``1 - least``; both of
    shape (rows,), float32. counts: shape (2, bins), int64, changed in place: the bits of the odds, shifted by ``shift``,
    less ``first_bin``.

    >>> counts = np.zeros((2, 4), np.int64)
    >>> targets, scores = np.array([0, 1], np.float32), np.array([0.5, 0.75], np.float32)
    >>> round(binary_scores(targets, scores, counts, least=1e-6, shift=23, first_bin=125), 4)
    -0.9808
    >>> counts.tolist()
    [[0, 0, 1, 0], [0, 0, 0, 1]]
    """
    bins = counts.shape[1]
    if _library is not None:
        found: float = _library.st_binary_scores(
            _address(targets), _address(scores), len(scores), least, shift, first_bin, bins, _address(counts)
        )
        return found
    score = np.clip(scores, np.float32(least), np.float32(1 - least))
    other = 1 - score
    likelihood = float(np.add.reduce(np.log(np.where(targets > 0, score, other)), dtype=np.float64))
    # The bits of a positive float are in the order of the floats, and the upper ones tell its logarithm.
    places = (np.divide(score, other, out=other).view(np.int32) >> shift) - first_bin
    places = np.clip(places, 0, bins - 1) + (targets > 0) * bins
    counts += np.bincount(places, minlength=2 * bins).reshape(2, bins)
    return likelihood
