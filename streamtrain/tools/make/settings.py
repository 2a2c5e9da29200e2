"""The settings of `make`: their defaults and their checks."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from streamtrain.errors import UsageError
from streamtrain.storage.formats import COMPRESSIONS, MAX_CHUNK_ROWS
from streamtrain.tools.make.problems import PROBLEMS

__all__ = ["Settings", "default_chunk_rows", "default_files"]

CHUNK_BYTES = 10 * 2**20


def default_chunk_rows(columns: int) -> int:
    """The default number of rows in a chunk: the power of two at or below 10 MiB of float32 features, 1,024 to 1,048,576.

    >>> default_chunk_rows(40), default_chunk_rows(100_000), default_chunk_rows(1)
    (65536, 1024, 1048576)
    """
    fitting = max(1, CHUNK_BYTES // (4 * columns))
    return min(max(1 << fitting.bit_length() - 1, 1024), 1 << 20)


def default_files(rows: int, chunk_rows: int, columns: int) -> int:
    """The default number of files: one for every 20,000 column chunks (columns x row groups).

    The footer of a file stays in memory until the file is finished, about 1.5 kB for each column chunk.

    >>> default_files(20_000_000, 65_536, 40), default_files(1_000_000_000, 65_536, 40)
    (1, 32)
    """
    groups = -(-rows // chunk_rows)
    return min(groups, -(-groups * (columns + 1) // 20_000))


@dataclass(frozen=True)
class Settings:
    """The arguments of `make`. Raises UsageError for a wrong one, before anything is written."""

    name: str
    rows: int
    out: Path
    format: str
    columns: int | None
    files: int | None
    chunk_rows: int | None
    compression: str
    seed: int

    def __post_init__(self) -> None:
        _require_choice("NAME", self.name, PROBLEMS)
        _require_choice("--format", self.format, COMPRESSIONS)
        _require_choice("--compression", self.compression, COMPRESSIONS[self.format])
        for setting in ("rows", "columns", "files", "chunk_rows"):
            _require_least(1, setting, getattr(self, setting))
        _require_least(0, "seed", self.seed)
        if self.chunk > MAX_CHUNK_ROWS:
            raise UsageError(f"--chunk-rows {self.chunk_rows}: must be at most {MAX_CHUNK_ROWS:,}")
        if self.format == "zarr" and self.parts > 1:
            raise UsageError(f"--files {self.files}: must be 1 for zarr, which is one group; or give --format parquet")
        if self.parts > self.rows:
            raise UsageError(f"--files {self.files}: must be at most --rows {self.rows}: every file needs a row")
        if self.out.exists() and not (self.out.is_dir() and not os.listdir(self.out)):
            raise UsageError(f"--out {self.out}: exists and is not an empty folder: remove it, or name another")

    @property
    def features(self) -> int:
        return 40 if self.columns is None else self.columns

    @property
    def chunk(self) -> int:
        """Rows in a chunk."""
        return default_chunk_rows(self.features) if self.chunk_rows is None else self.chunk_rows

    @property
    def parts(self) -> int:
        """The number of files."""
        if self.files is None:
            return 1 if self.format == "zarr" else default_files(self.rows, self.chunk, self.features)
        return self.files


def _require_choice(flag: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        from difflib import get_close_matches

        near = get_close_matches(value, choices, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"{flag} {value}: must be one of {', '.join(choices)}{hint}")


def _require_least(least: int, setting: str, value: int | None) -> None:
    if value is not None and value < least:
        raise UsageError(f"--{setting.replace('_', '-')} {value}: must be at least {least}")
