"""What can be asked of `rechunk`, and the folder that it writes."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamtrain.errors import NotFoundError, RunError, StreamtrainError, UsageError
from streamtrain.options import check
from streamtrain.plan.settings import read_memory
from streamtrain.storage.formats import COMPRESSIONS, MAX_CHUNK_ROWS
from streamtrain.tools.settings import RechunkSettings

__all__ = ["Settings", "staged"]


@dataclass(frozen=True, kw_only=True)
class Settings(RechunkSettings):
    """The arguments, checked: what can be said before the data are opened is said here.

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
        """Raise UsageError for a compression that the format has not."""
        if self.compression not in COMPRESSIONS[format]:
            known = ", ".join(COMPRESSIONS[format])
            raise UsageError(f"--compression {self.compression}: for {format} there are {known}")

    @property
    def path(self) -> Path:
        return Path(self.out).resolve()

    def _check_out(self) -> None:
        if not str(self.out):
            raise UsageError("--out: the name of the folder is empty")
        try:
            if self.path.exists() and not (self.path.is_dir() and not os.listdir(self.path)):
                raise UsageError(f"--out {self.out}: exists and is not an empty folder: remove it, or name another")
            if not self.path.parent.is_dir():
                raise UsageError(f"--out {self.out}: there is no folder {self.path.parent}: make it, or name another")
        except (OSError, ValueError) as error:  # a name too long, a null byte, a folder that is closed to us
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"--out {self.out!r}: cannot be a folder: {error}") from None

    def require_apart(self, data: Any) -> None:
        """The copy may not lie among the data, where the next one who reads them would find it."""
        if not isinstance(data, (str, Path)):
            return
        if not str(data):
            raise NotFoundError("the path of the data is empty")
        places = [self.path, *self.path.parents]
        pattern = os.path.abspath(data)
        deep = "**" in pattern and self.path.is_relative_to(pattern.partition("**")[0])
        if Path(data).resolve() in places or deep or any(place.match(pattern) for place in places[:-1]):
            raise UsageError(f"--out {self.out}: lies in the data that are read: name a folder elsewhere")


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A new folder in a hidden one beside ``out``, whose name it gets when the block is done. Whatever goes wrong before,
    nothing remains; of a process that is killed, the hidden folder ``.rechunk-*.part``.

    Raises RunError where nothing can be written.
    """
    try:
        hidden = Path(tempfile.mkdtemp(prefix=".rechunk-", suffix=".part", dir=out.parent))
    except OSError as error:
        raise RunError(f"--out {out}: {out.parent} cannot be written: {error.strerror}") from error
    try:
        (hidden / "data").mkdir()
        yield hidden / "data"
        os.replace(hidden / "data", out)  # an empty folder gives way; one that is not, no longer
    except BaseException as error:
        _remove(hidden)
        if isinstance(error, OSError) and not isinstance(error, StreamtrainError):
            raise RunError(f"--out {out}: cannot be written: {error}") from error
        raise
    shutil.rmtree(hidden, ignore_errors=True)


def _remove(folder: Path) -> None:
    """Remove the folder for good: zarr writes from threads of its own, one of which may make it again after an interrupt.
    It counts as gone once it stayed away for 0.2 seconds."""
    for _ in range(10):
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.2)
        if not folder.exists():
            return
