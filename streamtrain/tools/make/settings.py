"""Settings of `make`, and their defaults."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from streamtrain.errors import UsageError, one_of
from streamtrain.options import check
from streamtrain.storage.formats import COMPRESSIONS, MAX_CHUNK_ROWS
from streamtrain.tools.make.problems import PROBLEMS
from streamtrain.tools.settings import MakeSettings

__all__ = ["Settings", "default_chunk_rows", "default_files"]

CHUNK_BYTES = 10 * 2**20


def default_chunk_rows(columns: int) -> int:
    """Rows of a chunk by default: the power of two at or below 10 MiB of float32 features, 1,024 to 1,048,576.

    >>> default_chunk_rows(40), default_chunk_rows(100_000), default_chunk_rows(1)
    (65536, 1024, 1048576)
    """
    fitting = max(1, CHUNK_BYTES // (4 * columns))
    return min(max(1 << fitting.bit_length() - 1, 1024), 1 << 20)


def default_files(rows: int, chunk_rows: int, columns: int) -> int:
    """Files by default: one for each 20,000 column chunks (columns x row groups).

    The footer of a file is held in memory until the file is done, about 1.5 kB for each of them.

    >>> default_files(20_000_000, 65_536, 40), default_files(1_000_000_000, 65_536, 40)
    (1, 32)
    """
    groups = -(-rows // chunk_rows)
    return min(groups, -(-groups * (columns + 1) // 20_000))


@dataclass(frozen=True, kw_only=True)
class Settings(MakeSettings):
    """The arguments of `make`. Raises UsageError for a wrong one, before anything is written."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in PROBLEMS:
            raise UsageError(f"NAME {self.name}: {one_of(self.name, list(PROBLEMS))}")
        check(self)
        known = COMPRESSIONS[self.format]
        if self.compression not in known:
            raise UsageError(f"--compression {self.compression}: {one_of(self.compression, known)}")
        if self.chunk > MAX_CHUNK_ROWS:
            raise UsageError(f"--chunk-rows {self.chunk_rows}: must be at most {MAX_CHUNK_ROWS:,}")
        if self.format == "zarr" and self.parts > 1:
            raise UsageError(f"--files {self.files}: must be 1 for zarr, which is one group; or give --format parquet")
        if self.parts > self.rows:
            raise UsageError(f"--files {self.files}: must be at most --rows {self.rows}: every file needs a row")
        if self.path.exists() and not (self.path.is_dir() and not os.listdir(self.path)):
            raise UsageError(f"--out {self.out}: exists and is not an empty folder: remove it, or name another")

    @property
    def path(self) -> Path:
        """The folder to write."""
        return Path(self.out)

    @property
    def features(self) -> int:
        return 40 if self.columns is None else self.columns

    @property
    def chunk(self) -> int:
        """Rows of a chunk."""
        return default_chunk_rows(self.features) if self.chunk_rows is None else self.chunk_rows

    @property
    def parts(self) -> int:
        """Files, of a Parquet set."""
        if self.files is None:
            return 1 if self.format == "zarr" else default_files(self.rows, self.chunk, self.features)
        return self.files
