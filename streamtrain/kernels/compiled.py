"""The compiled library: its functions, the structs that it shares with Python (`kernels.h`), and a message for when it is
missing."""

from __future__ import annotations

import ctypes
import functools
import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

__all__ = [
    "BUCKET", "COMPILED", "FOLDER", "HASH_STEP", "IN_WORD", "LANES", "PAD", "PRODUCT_ROWS", "BatchRows", "LinearModel",
    "SparseRows", "StreamNumbers", "WeightUpdate", "address", "library", "number", "open_library", "using",
    "warn_unless_compiled",
]  # fmt: skip

# Constants that the numpy versions of the kernels need too; a library with other values is not used.
BUCKET = 8  # cells of a vocabulary that are searched together
HASH_STEP = 0x9E3779B9  # added between the words of a hash
IN_WORD = 1  # added to the symbol of a code point that is part of a word
LANES = 8  # numbers in a vector, and so the longest n-gram
PAD = 2 * ord(" ")  # the symbol before and after a run of characters
PRODUCT_ROWS = 32  # probabilities that are multiplied before a logarithm is taken

FOLDER = Path(__file__).parent
_REMEDY = "install a C compiler (or `pip install ziglang`), then run: python -m streamtrain.kernels.build"
_BYTE = ctypes.c_char  # its from_buffer is the cheapest way to an address

_pointer, _integer, _real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
_KINDS: dict[str, Any] = {
    "p": _pointer, "i": _integer, "d": _real, "f": ctypes.c_float, "u": ctypes.c_uint32, "n": ctypes.c_int,
    "s": ctypes.c_char_p, "": None,
}  # fmt: skip

# The functions of kernels.h: kinds of arguments, kind of the result. p: pointer; i: int64; d: double; f: float; u: uint32;
# n: int; s: bytes that end with 0.
_FUNCTIONS = {
    "st_has_avx2": ("", "n"),
    "st_permuted": ("iiiiipip", ""),
    "st_permute": ("piiiipi", ""),
    "st_scatter_columns": ("ppiipip", ""),
    "st_scatter_rows": ("piipiip", ""),
    "st_sums": ("piipp", ""),
    "st_affine": ("piipp", ""),
    "st_binary_scores": ("ppifiiipp", ""),
    "st_move": ("ppppiifffff", ""),
    "st_linear_run": ("ppippp", "i"),
    "st_function": ("ipip", ""),
    "st_sigmoid": ("pi", ""),
    "st_softmax": ("piip", "i"),
    "st_margins": ("piipip", ""),
    "st_gradients": ("piipip", ""),
    "st_reach": ("piipp", ""),
    "st_squares": ("pi", "d"),
    "st_hash_bytes": ("ppiup", ""),
    "st_floats": ("pipiip", ""),
    "st_take": ("pppiiup", ""),
    "st_entries": ("piipppiipipppp", "i"),
    "st_find_slots": ("pipiiiipp", ""),
    "st_scale_entries": ("ppippi", ""),
    "st_ngrams": ("pppiipppppppip", "i"),
    "st_enter_read": ("sin", "n"),
    "st_leave_read": ("n", ""),
    "st_answer_crashes": ("ss", ""),
}


class LinearModel(ctypes.Structure):
    """``struct linear``: a linear model with one output, and the buffers of its steps."""

    _fields_ = [
        ("width", _integer), ("logistic", _integer), ("centre", _pointer), ("shift", _pointer), ("scale", _pointer),
        ("scoring", _pointer), ("learning", _pointer), ("scratch", _pointer), ("gradient", _pointer), ("sums", _pointer),
        ("squared", _real),
    ]  # fmt: skip


class BatchRows(ctypes.Structure):
    """``struct batch``: rows to learn from."""

    _fields_ = [
        ("features", _pointer), ("targets", _pointer), ("scores", _pointer), ("count", _integer),
    ]  # fmt: skip


class SparseRows(ctypes.Structure):
    """``struct sparse``: the sparse part of rows, and the weights of each of its columns."""

    _fields_ = [
        ("indptr", _pointer), ("indices", _pointer), ("values", _pointer), ("table", _pointer), ("room", _pointer),
        ("entries", _integer),
    ]  # fmt: skip


class WeightUpdate(ctypes.Structure):
    """``struct update``: how weights move."""

    _fields_ = [
        ("learning_rate", _real), ("l2", _real), ("forget", _real), ("prior", _real), ("sparse_prior", _real),
        ("squares", _pointer), ("totals", _pointer),
    ]  # fmt: skip


class StreamNumbers(ctypes.Structure):
    """``struct stream``: the statistics of the stream that the learning rate needs; five float64, in this order."""

    _fields_ = [("rows", _real), ("batches", _real), ("measured", _real), ("power", _real), ("noise", _real)]


class _Number(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("value", _integer)]


_STRUCTS = {
    "linear": LinearModel, "batch": BatchRows, "sparse": SparseRows, "update": WeightUpdate, "stream": StreamNumbers,
}  # fmt: skip
_SHARED = {
    "BUCKET": BUCKET, "HASH_STEP": HASH_STEP, "IN_WORD": IN_WORD, "LANES": LANES, "PAD": PAD, "PRODUCT_ROWS": PRODUCT_ROWS,
    **{f"sizeof {name}": ctypes.sizeof(struct) for name, struct in _STRUCTS.items()},
    **{f"{name}.{f[0]}": getattr(struct, f[0]).offset for name, struct in _STRUCTS.items() for f in struct._fields_},
}  # fmt: skip


def open_library(path: Path, *, keep_gil: bool = False) -> tuple[ctypes.CDLL, dict[str, int]]:
    """A compiled library with its functions declared, and its constants by name. keep_gil: for functions that are
    faster than releasing the GIL.

    Raises OSError if the file is missing or for another kind of machine, ValueError if it was compiled from sources that do
    not fit this module.
    """
    library = (ctypes.PyDLL if keep_gil else ctypes.CDLL)(str(path))
    numbers = _numbers_in(library)
    different = {name for name in _SHARED if numbers.get(name) != _SHARED[name]}
    if different or not all(hasattr(library, name) for name in _FUNCTIONS):
        raise ValueError(f"{path.name} was compiled from other sources")
    for name, (arguments, result) in _FUNCTIONS.items():
        getattr(library, name).argtypes = [_KINDS[kind] for kind in arguments]
        getattr(library, name).restype = _KINDS[result]
    return library, numbers


def _numbers_in(library: ctypes.CDLL) -> dict[str, int]:
    """The constants of a library by name; none if the library is older than the constants."""
    try:
        first = _Number.in_dll(library, "st_numbers")
    except ValueError:
        return {}
    at = ctypes.cast(ctypes.addressof(first), ctypes.POINTER(_Number))
    return {at[k].name.decode(): at[k].value for k in itertools.takewhile(lambda k: at[k].name, itertools.count())}


def _load() -> tuple[ctypes.CDLL | None, dict[str, int], str]:
    """The library and its constants, or the reason why there is none."""
    try:
        library, numbers = open_library(FOLDER / "_kernels.so")
        if library.st_has_avx2() and (FOLDER / "_kernels_avx2.so").exists():
            library, numbers = open_library(FOLDER / "_kernels_avx2.so")
    except (OSError, ValueError) as error:
        reason = str(error) if (FOLDER / "_kernels.so").exists() else "there was no C compiler at installation"
        return None, {}, reason
    return library, numbers, ""


_library, _numbers, _missing = _load()
COMPILED = _library is not None


def library() -> ctypes.CDLL | None:
    """The compiled functions; None where numpy does their work."""
    return _library


def number(name: str) -> int:
    """A constant of kernels.h, by its name. Only where there is a library."""
    return _numbers[name]


@contextmanager
def using(other: ctypes.CDLL | None) -> Iterator[None]:
    """Use another library, or None for numpy, within a context: for tests and measurements."""
    global _library
    before, _library = _library, other
    try:
        yield
    finally:
        _library = before


@functools.cache
def warn_unless_compiled() -> None:
    """Log once in this process that numpy replaces the kernels, what that costs, and what to do."""
    if _library is None:
        logging.getLogger(__name__).warning(
            "the compiled kernels are missing (%s), so numpy replaces them: training takes up to 3 times as long, and "
            "n-grams of texts 100 times; to have the kernels, %s",
            _missing, _REMEDY,
        )  # fmt: skip


def address(array: NDArray[Any]) -> int:
    """Where the numbers of an array are in memory."""
    if array.flags.writeable and array.size:
        return ctypes.addressof(_BYTE.from_buffer(array))  # type: ignore[arg-type]  # an array is a buffer
    return array.ctypes.data
