"""Collect dictionary columns: the codes in one buffer, and the dictionaries that arrive with them merged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.storage.arrow import valid
from streamtrain.tools.rechunk.buffers import Validity

__all__ = ["Codes", "codes_named", "integers", "occurring"]

_DICTIONARY_BYTES = 1 << 20  # above this size pyarrow does not use dictionaries either


class Codes:
    """Codes into the dictionaries that arrived, as if they were concatenated. When the new dictionaries take more than the
    merged one, all are merged, so that each value occurs once. So at most twice that and 1 MiB are held.

    keep_small: a dictionary of at most 1 MiB keeps values that do not occur, unless there are more than the codes of the data
    can number.
    """

    def __init__(self, kind: pa.DictionaryType, rows: int, *, keep_small: bool) -> None:
        self._ordered, self._kind = kind.ordered, kind.value_type
        self._keep_bytes = _DICTIONARY_BYTES if keep_small else 0
        self._named = codes_named(kind.index_type)
        self._codes = np.zeros(rows, np.int32)
        self._validity = Validity(rows)
        self._clear()

    def _clear(self) -> None:
        self._dictionaries: list[Any] = []
        self._values, self._merged_bytes, self._new_bytes = 0, 0, 0

    @property
    def held_bytes(self) -> int:
        return self._codes.nbytes + self._validity.held_bytes + self._merged_bytes + self._new_bytes

    def put(self, at: int, values: Any) -> None:
        if at == 0:
            self._clear()
        self._validity.put(at, values)
        there, dictionary = valid(values), values.dictionary
        codes = np.where(there, integers(values.indices), 0).astype(np.int32)
        if not self._ordered and dictionary.nbytes > self._keep_bytes:
            codes, dictionary = occurring(codes, there, dictionary)
        if not self._dictionaries or not dictionary.equals(self._dictionaries[-1]):
            self._dictionaries.append(dictionary)
            self._values += len(dictionary)
            self._new_bytes += dictionary.nbytes
        first = self._values - len(self._dictionaries[-1])
        np.add(codes, np.int32(first), out=self._codes[at : at + len(values)])
        if self._new_bytes > max(_DICTIONARY_BYTES, self._merged_bytes):
            self._merge(at + len(values))

    def _merge(self, rows: int) -> None:
        if len(self._dictionaries) > 1:
            merged = pa.concat_arrays([_identity(dictionary) for dictionary in self._dictionaries])
            codes = np.append(integers(merged.indices), 0)  # the code of a null may be one too large
            self._codes[:rows] = codes[self._codes[:rows]]
            self._dictionaries, self._values = [merged.dictionary], len(merged.dictionary)
        self._merged_bytes = sum(dictionary.nbytes for dictionary in self._dictionaries)
        self._new_bytes = 0

    def take(self, rows: int) -> Any:
        self._merge(rows)
        dictionary = self._dictionaries[0] if self._dictionaries else pa.array([], self._kind)
        if len(dictionary) > self._named and not self._ordered:
            held = self._codes[:rows]
            held[:], dictionary = occurring(held, np.ones(rows, np.bool_), dictionary)
        self._clear()
        codes = pa.Array.from_buffers(pa.int32(), rows, [self._validity.take(), pa.py_buffer(self._codes)])
        return pa.DictionaryArray.from_arrays(codes, dictionary, ordered=self._ordered)


def codes_named(index: pa.DataType) -> int:
    """Return how many values the codes of a type can number.

    >>> codes_named(pa.int8()), codes_named(pa.uint8())
    (128, 256)
    """
    return 1 << (int(index.bit_width) - int(pa.types.is_signed_integer(index)))


def _identity(dictionary: Any) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array(np.arange(len(dictionary), dtype=np.int32)), dictionary)


def integers(indices: Any) -> NDArray[Any]:
    """Return the codes without a copy. The codes of nulls are arbitrary."""
    kind = indices.type.to_pandas_dtype()
    return np.frombuffer(indices.buffers()[1] or b"", kind)[indices.offset : indices.offset + len(indices)]


def occurring(codes: NDArray[Any], there: NDArray[np.bool_], dictionary: Any) -> tuple[NDArray[Any], Any]:
    """Return codes and a dictionary of the values that occur, in the same order."""
    occurs = np.zeros(len(dictionary), np.bool_)
    occurs[codes[there]] = True
    if occurs.all():
        return codes, dictionary
    kept = np.flatnonzero(occurs)
    renumbered = np.zeros(len(dictionary) + 1, np.int32)
    renumbered[kept] = np.arange(len(kept), dtype=np.int32)
    return renumbered[codes], dictionary.take(pa.array(kept))
