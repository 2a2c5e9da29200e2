"""The settings of `rechunk`, and the folder that it writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from streamtrain.errors import RunError, StreamtrainError, UsageError
from streamtrain.options import check
from streamtrain.plan.settings import read_memory
from streamtrain.state import write_beside
from streamtrain.storage.formats import COMPRESSIONS, MAX_CHUNK_ROWS
from streamtrain.tools.settings import RechunkSettings

__all__ = ["Settings", "staged"]


@dataclass(frozen=True, kw_only=True)
class Settings(RechunkSettings):
    """The arguments of `rechunk`. Raises UsageError for an invalid one, before the data are opened.

    >>> Settings(out="copy", chunk_rows=0)
    Traceback (most recent call last):
    streamtrain.errors.UsageError: --chunk-rows 0: must be from 1 to 67,108,864
    """

    memory: float | str | None = None

    def __post_init__(self) -> None:
        check(self)
        if not 1 <= self.chunk_rows <= MAX_CHUNK_ROWS:
            raise UsageError(f"--chunk-rows {self.chunk_rows}: must be from 1 to {MAX_CHUNK_ROWS:,}")
        if self.format is not None or all(self.compression not in known for known in COMPRESSIONS.values()):
            self.require_compression(self.format or "parquet")
        read_memory(self.memory)
        self._check_out()

    def require_compression(self, format: str) -> None:
        """Raise UsageError for a compression that the format does not have."""
        if self.compression not in COMPRESSIONS[format]:
            known = ", ".join(COMPRESSIONS[format])
            raise UsageError(f"--compression {self.compression}: must be one of {known} for {format}")

    @property
    def path(self) -> Path:
        return Path(self.out).resolve()

    def _check_out(self) -> None:
        try:
            if self.path.exists() and not (self.path.is_dir() and not os.listdir(self.path)):
                raise UsageError(f"--out {self.out}: exists and is not an empty folder: remove it, or name another")
            if not self.path.parent.is_dir():
                raise UsageError(
                    f"--out {self.out}: the folder {self.path.parent} does not exist: create it, or name another"
                )
        except (OSError, ValueError) as error:  # the name is too long, has a null byte, or its folder is not readable
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"--out {self.out!r}: cannot be created: {error}: name another folder") from None


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """Yield a new hidden folder that takes the name ``out`` when the block ends (see `write_beside`).

    Raises RunError where nothing can be written.
    """
    try:
        with write_beside(out) as folder:
            folder.mkdir()
            yield folder
    except OSError as error:
        if isinstance(error, StreamtrainError):
            raise
        raise RunError(f"--out {out}: cannot be written: {error.strerror or error}") from error
