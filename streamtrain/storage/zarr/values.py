"""Read the values of the arrays of a store, and check that their files are there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from streamtrain.errors import StreamtrainError
from streamtrain.storage.remote.address import Address
from streamtrain.storage.zarr.columns import StoredArray
from streamtrain.storage.zarr.decode import LastBlock, read_rows
from streamtrain.storage.zarr.files import Files
from streamtrain.storage.zarr.missing import broken, check_files
from streamtrain.storage.zarr.shards import ShardIndexes

__all__ = ["Values"]


@dataclass(frozen=True)
class Values:
    """Reads rows of arrays. fills: whether missing chunks are read as the fill value. arrays: of zarr, by path; last: the last
    block of those that keep it; shards: the indexes of those that have any."""

    files: Files
    fills: bool
    arrays: dict[str, Any] = field(default_factory=dict)
    last: dict[str, LastBlock] = field(default_factory=dict)
    shards: dict[str, ShardIndexes] = field(default_factory=dict)

    def __call__(self, stored: StoredArray, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop`` of an array. Raises CorruptError for missing and damaged chunks."""
        array, last, shards = self.arrays[stored.path], self.last.get(stored.path), self.shards.get(stored.path)
        is_remote = isinstance(self.files.root, Address)
        if not is_remote:  # the files of a server are checked when they arrive
            check_files(self.files, array, stored, shards, start, stop, fill=self.fills)
        try:
            values = (
                last.read(array, stored, start, stop) if last is not None else read_rows(array, stored, start, stop)
            )
        except (StreamtrainError, MemoryError):
            raise
        except Exception as error:  # whatever a codec raises
            raise broken(self.files, array, stored, start, stop, error) from None
        # Check again: a file that exists now also existed while it was read.
        if is_remote or not self.fills:
            check_files(self.files, array, stored, shards, start, stop, fill=self.fills)
        return values
