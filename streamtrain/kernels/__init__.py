"""The loops that touch every number of every row: compiled at installation, in numpy where there was no C compiler.

`COMPILED` tells which. All have the same bits either way, but for the many steps at once of `fused_linear.LinearStep`, which
numpy does not have: step by step, their results differ in the last bits. Nothing calls BLAS, the mathematical library or
those of numpy's functions whose last bits depend on the processor. Arrays must be C-contiguous. Nothing is checked here:
callers own their arrays.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.kernels.compiled import COMPILED, PRODUCT_ROWS, address, library, using, warn_unless_compiled
from streamtrain.kernels.functions import log
from streamtrain.kernels.products import one_by_one

__all__ = [
    "COMPILED",
    "affine",
    "binary_scores",
    "few_sums",
    "permute",
    "permuted",
    "scatter_columns",
    "scatter_rows",
    "sums",
    "unpermuted",
    "using",
    "warn_unless_compiled",
    "zeros",
]

Floats = NDArray[np.float32]

_BLOCK_ROWS = 2048  # numpy transposes this many rows at a time, so that the block stays in the cache
_HUGE_PAGE_BYTES = 1 << 21
_SUM_ROWS = 4096  # at most this many rows are summed in float32


def zeros(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """An array of zeros for random access. A large one starts at a huge page of memory, so that a few entries of the
    processor's page table cover it: this was measured to halve the time of looking up slots. Pages that are not touched
    take no memory.

    >>> zeros((1 << 20, 2), np.uint32).ctypes.data % (1 << 21)
    0
    """
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    if nbytes < 2 * _HUGE_PAGE_BYTES:
        return np.zeros(shape, dtype)
    space = np.zeros(nbytes + _HUGE_PAGE_BYTES, np.uint8)
    start = -space.ctypes.data % _HUGE_PAGE_BYTES
    array: NDArray[Any] = space[start : start + nbytes].view(dtype).reshape(shape)
    return array


def permuted(first: int, last: int, rows: int, keys: NDArray[np.uint32]) -> NDArray[np.int64]:
    """The images of the numbers ``first`` to ``last - 1`` in a permutation of 0 to ``rows - 1`` that ``keys`` choose; shape
    (last - first,). Nothing is stored: any part of the permutation can be computed at any time.

    keys: shape (rounds,), an even number. The numbers are cells of a grid, about square, of at least ``rows`` cells. In
    each round the row or the column of a cell moves by a hash of the other and a key: a Feistel network (Black & Rogaway
    2002, "Ciphers with arbitrary finite domains"). A number that lands beyond ``rows`` goes through the network again. The
    hash is lowbias32 (Wellons 2018).

    >>> keys = np.arange(8, dtype=np.uint32)
    >>> sorted(permuted(0, 10, 10, keys).tolist()), permuted(3, 5, 10, keys).tolist() == permuted(0, 10, 10, keys)[3:5].tolist()
    ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], True)
    """
    high, wide = _grid(rows)
    if (compiled := library()) is not None:
        positions = np.empty(last - first, np.int64)
        compiled.st_permuted(first, last - first, rows, high, wide, address(keys), len(keys), address(positions))
        return positions
    positions = np.arange(first, last)
    permute(positions, rows, keys)
    return positions


def permute(numbers: NDArray[np.int64], rows: int, keys: NDArray[np.uint32]) -> None:
    """Replace each number by its image in the permutation of `permuted`.

    >>> keys, numbers = np.arange(8, dtype=np.uint32), np.array([7, 2])
    >>> permute(numbers, 10, keys)
    >>> numbers.tolist() == permuted(0, 10, 10, keys)[[7, 2]].tolist()
    True
    """
    high, wide = _grid(rows)
    if (compiled := library()) is not None:
        compiled.st_permute(address(numbers), len(numbers), rows, high, wide, address(keys), len(keys))
        return
    beyond = np.ones(len(numbers), bool)
    while beyond.any():
        numbers[beyond] = _feistel(numbers[beyond], high, wide, keys)
        beyond = numbers >= rows


def _grid(rows: int) -> tuple[int, int]:
    """The cells of a grid along its two axes, about as many: at least ``rows`` together."""
    high = math.isqrt(max(0, rows - 1)) + 1
    return high, max(1, -(-rows // high))


def _feistel(numbers: NDArray[np.int64], high: int, wide: int, keys: NDArray[np.uint32]) -> NDArray[np.int64]:
    halves, sizes = list(np.divmod(numbers, wide)), (high, wide)
    for k, key in enumerate(keys.tolist()):
        moved = (_mixed(halves[1 - k % 2] + key) * sizes[k % 2]) >> 32
        halves[k % 2] = (halves[k % 2] + moved) % sizes[k % 2]
    return np.asarray(halves[0] * wide + halves[1])


def unpermuted(positions: NDArray[np.int64], rows: int, keys: NDArray[np.uint32]) -> NDArray[np.int64]:
    """The inverse of `permuted`: the numbers whose images are the given positions; same shape. It is computed by numpy,
    because it is needed only for the few rows of a batch.

    >>> keys = np.arange(8, dtype=np.uint32)
    >>> unpermuted(permuted(3, 6, 10, keys), 10, keys).tolist()
    [3, 4, 5]
    """
    high, wide = _grid(rows)
    numbers = np.array(positions, np.int64)
    beyond = np.ones(len(numbers), bool)
    while beyond.any():
        numbers[beyond] = _feistel_back(numbers[beyond], high, wide, keys)
        beyond = numbers >= rows
    return numbers


def _feistel_back(numbers: NDArray[np.int64], high: int, wide: int, keys: NDArray[np.uint32]) -> NDArray[np.int64]:
    halves, sizes = list(np.divmod(numbers, wide)), (high, wide)
    for k, key in reversed(list(enumerate(keys.tolist()))):
        moved = (_mixed(halves[1 - k % 2] + key) * sizes[k % 2]) >> 32
        halves[k % 2] = (halves[k % 2] - moved) % sizes[k % 2]
    return np.asarray(halves[0] * wide + halves[1])


def _mixed(x: NDArray[np.int64]) -> NDArray[np.int64]:
    """lowbias32 of the lower 32 bits."""
    h = x.astype(np.uint32)
    h ^= h >> 16
    h *= np.uint32(0x7FEB352D)
    h ^= h >> 15
    h *= np.uint32(0x846CA68B)
    return (h ^ h >> 16).astype(np.int64)


def scatter_columns(
    columns: Sequence[Floats], offsets: NDArray[np.int64], window: Floats, positions: NDArray[np.int64]
) -> None:
    """Columns to rows: ``window[positions[r], offsets[j]] = columns[j][r]``.

    columns: each of shape (rows,), float32. offsets: shape (columns,), ascending. window: shape (window rows, width).
    positions: shape (rows,), int64, all different.

    >>> window = np.zeros((2, 2), np.float32)
    >>> scatter_columns([np.array([1, 2], np.float32)], np.array([1]), window, np.array([1, 0]))
    >>> window.tolist()
    [[0.0, 2.0], [0.0, 1.0]]
    """
    if not columns:
        return
    if (compiled := library()) is not None:
        pointers = (ctypes.c_void_p * len(columns))(*[address(column) for column in columns])
        compiled.st_scatter_columns(
            pointers,
            address(offsets),
            len(columns),
            len(positions),
            address(window),
            window.shape[1],
            address(positions),
        )
        return
    block = np.empty((min(_BLOCK_ROWS, len(positions)), len(columns)), np.float32)
    for start in range(0, len(positions), _BLOCK_ROWS):
        part = positions[start : start + _BLOCK_ROWS]
        for j, column in enumerate(columns):
            block[: len(part), j] = column[start : start + len(part)]
        window[part[:, None], offsets] = block[: len(part)]


def scatter_rows(source: NDArray[Any], window: NDArray[Any], offset: int, positions: NDArray[np.int64]) -> None:
    """Rows to rows: ``window[positions[r], offset : offset + entries] = source[r]``; both of the same dtype.

    source: shape (rows, entries). window: shape (window rows, width).

    >>> window = np.zeros((2, 3), np.float32)
    >>> scatter_rows(np.array([[1, 2], [3, 4]], np.float32), window, 1, np.array([1, 0]))
    >>> window.tolist()
    [[0.0, 3.0, 4.0], [0.0, 1.0, 2.0]]
    """
    if (compiled := library()) is None:
        window[positions, offset : offset + source.shape[1]] = source
        return
    item = source.itemsize
    compiled.st_scatter_rows(
        address(source), source.shape[1] * item, len(positions), address(window), window.shape[1] * item, offset * item,
        address(positions),
    )  # fmt: skip


def sums(rows: Floats, centre: Floats) -> NDArray[np.float64]:
    """The sum and the sum of squares of each column about its centre; shape (2, width), float64.

    rows: shape (rows, width). Up to 4,096 rows are summed in float32, one after the other, and these sums in float64.

    >>> sums(np.array([[1, 5], [3, 5]], np.float32), np.array([2, 5], np.float32)).tolist()
    [[0.0, 0.0], [2.0, 0.0]]
    """
    total = np.zeros((2, rows.shape[1]))
    for start in range(0, len(rows), _SUM_ROWS):
        total += few_sums(rows[start : start + _SUM_ROWS], centre)
    return total


def few_sums(rows: Floats, centre: Floats) -> Floats:
    """`sums` of up to 4,096 rows, in float32."""
    total = np.empty((2, rows.shape[1]), np.float32)
    if (compiled := library()) is not None:
        compiled.st_sums(address(rows), *rows.shape, address(centre), address(total))
        return total
    with np.errstate(over="ignore", invalid="ignore"):
        about = rows - centre
        total[0] = one_by_one(about)
        np.multiply(about, about, out=about)
        total[1] = one_by_one(about)
    return total


def affine(rows: Floats, shift: Floats, scale: Floats) -> None:
    """``rows = (rows - shift) * scale``, in place. rows: shape (rows, width). shift, scale: shape (width,).

    >>> rows = np.array([[1, 5], [3, 5]], np.float32)
    >>> affine(rows, np.array([1, 5], np.float32), np.array([2, 1], np.float32))
    >>> rows.tolist()
    [[0.0, 0.0], [4.0, 0.0]]
    """
    if (compiled := library()) is not None:
        compiled.st_affine(address(rows), *rows.shape, address(shift), address(scale))
        return
    np.subtract(rows, shift, out=rows)
    np.multiply(rows, scale, out=rows)


def binary_scores(
    targets: Floats, scores: Floats, counts: NDArray[np.int64], *, least: float, shift: int, first_bin: int
) -> float:
    """Scores of two classes: returns the log-likelihood, and counts each row by its class and the bin of its odds.

    targets: 0 or 1, shape (rows,), float32. scores: probabilities of the second class, shape (rows,), float32; they are
    clipped to ``least`` and ``1 - least``. counts: shape (2, bins), int64, changed in place. The bin is the bits of the
    odds, shifted right by ``shift``, less ``first_bin``.

    >>> counts = np.zeros((2, 4), np.int64)
    >>> targets, scores = np.array([0, 1], np.float32), np.array([0.5, 0.75], np.float32)
    >>> round(binary_scores(targets, scores, counts, least=1e-6, shift=23, first_bin=125), 4)
    -0.9808
    >>> counts.tolist()
    [[0, 0, 1, 0], [0, 0, 0, 1]]
    """
    bins = counts.shape[1]
    if (compiled := library()) is not None:
        products = np.empty(len(scores) // PRODUCT_ROWS + 1)
        compiled.st_binary_scores(
            address(targets), address(scores), len(scores), least, shift, first_bin, bins, address(counts),
            address(products),
        )  # fmt: skip
        return _one_by_one(log(products))
    score = np.clip(scores, np.float32(least), np.float32(1 - least))
    other = 1 - score
    likelihood = _one_by_one(log(_products(np.where(targets > 0, score, other).astype(np.float64))))
    # The bits of positive floats are in the order of the floats, and the upper bits tell the logarithm.
    cells = (np.divide(score, other, out=other).view(np.int32) >> shift) - first_bin
    cells = np.clip(cells, 0, bins - 1) + (targets > 0) * bins
    counts += np.bincount(cells, minlength=2 * bins).reshape(2, bins)
    return likelihood


def _products(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """The products of 32 numbers each, and of the rest, 1 if there is none."""
    blocks = np.ones((len(numbers) // PRODUCT_ROWS + 1, PRODUCT_ROWS))
    blocks.ravel()[: len(numbers)] = numbers
    product: NDArray[np.float64] = np.multiply.accumulate(blocks, axis=1)[:, -1]
    return product


def _one_by_one(numbers: NDArray[np.float64]) -> float:
    """The sum of the numbers, added one after the other."""
    return float(np.add.accumulate(numbers)[-1])
