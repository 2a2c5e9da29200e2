"""The names of row groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

__all__ = ["Keys"]


@dataclass(frozen=True, eq=False, slots=True)
class Keys:
    """The keys of the row groups of some files. Who keeps a table of chunks keeps these names, but not the reader and its
    footers.

    files: the names of the files. file_of: the file of each row group. first: the number of the first row group of each file.

    >>> import numpy as np
    >>> keys = Keys(["a", "b"], np.array([0, 0, 1]), np.array([0, 2]))
    >>> keys(1), keys(2)
    ('a:1', 'b:0')
    """

    files: list[str]
    file_of: NDArray[Any]
    first: NDArray[Any]

    def __call__(self, i: int) -> str:
        file = self.file_of[i]
        return f"{self.files[file]}:{i - self.first[file]}"
