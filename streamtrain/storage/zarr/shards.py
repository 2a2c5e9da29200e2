"""The index of a shard, which tells the inner chunks that it has (Zarr 3 specification of ``sharding_indexed``)."""

from __future__ import annotations

import math
from collections import OrderedDict
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.storage.zarr.columns import StoredArray
from streamtrain.storage.zarr.files import Files

__all__ = ["ShardIndexes"]

_ENTRY = np.dtype([("offset", "<u8"), ("nbytes", "<u8")])
_ABSENT = 2**64 - 1
_CRC_BYTES = 4
_KEPT = 256


class ShardIndexes:
    """The indexes of the shards of an array, to find missing inner chunks. The most recent indexes are kept.

    An index must be encoded as all known writers do: little-endian, with or without CRC32C. Other indexes and nested shards are
    not checked.
    """

    def __init__(self, files: Files, array: Any, stored: StoredArray) -> None:
        self._files, self._lock = files, Lock()
        self._inner = tuple(s // u for s, u in zip(stored.file, stored.unit, strict=True))
        self._unit, self._stored = stored.unit, stored
        self._kept: OrderedDict[str, NDArray[np.bool_]] = OrderedDict()
        self._crc_bytes, self._at_end = -1, True
        (first, *others) = array.metadata.to_dict()["codecs"]
        if stored.sharded and first["name"] == "sharding_indexed" and not others:
            settings = first["configuration"]
            names = [codec["name"] for codec in settings["index_codecs"]]
            little = settings["index_codecs"][0].get("configuration", {}).get("endian", "little") == "little"
            plain = all(codec["name"] != "sharding_indexed" for codec in settings["codecs"])
            if little and plain and names in (["bytes"], ["bytes", "crc32c"]):
                self._crc_bytes = _CRC_BYTES if "crc32c" in names else 0
                self._at_end = settings.get("index_location", "end") == "end"

    def absent(self, key: str, nbytes: int, at: tuple[int, ...], start: int, stop: int) -> tuple[int, ...] | None:
        """The position in the array of the first inner chunk that has any of the rows and is missing in a shard; None if there
        is no such chunk.

        key: of the shard, a file of ``nbytes`` bytes. at: the position of the shard in the grid of shards.
        """
        if self._crc_bytes < 0 or nbytes < self._index_bytes:
            return None  # the index is unknown, or the file is not a shard: then zarr raises an error when it reads it
        missing = self._index(key, nbytes)
        if not missing.any():
            return None
        for inner in np.argwhere(missing).tolist():
            begin = tuple(a * s + p * u for a, s, p, u in zip(at, self._stored.file, inner, self._unit, strict=True))
            inside = all(b < n for b, n in zip(begin, self._stored.shape, strict=True))
            if inside and begin[0] < stop and begin[0] + self._unit[0] > start:
                return begin
        return None

    @property
    def _index_bytes(self) -> int:
        return _ENTRY.itemsize * math.prod(self._inner) + max(0, self._crc_bytes)

    def _index(self, key: str, nbytes: int) -> NDArray[np.bool_]:
        """A mask of the missing inner chunks, in the shape of the grid of inner chunks."""
        with self._lock:
            if key in self._kept:
                return self._kept[key]
        first = nbytes - self._index_bytes if self._at_end else 0
        raw = self._files.part(key, first, first + _ENTRY.itemsize * math.prod(self._inner))
        entries = np.frombuffer(raw, _ENTRY)
        missing: NDArray[np.bool_] = ((entries["offset"] == _ABSENT) & (entries["nbytes"] == _ABSENT)).reshape(
            self._inner
        )
        with self._lock:
            self._kept[key] = missing
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return missing
