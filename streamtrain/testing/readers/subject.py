"""The subject of the checks: a reader that can be opened many times, and a way to write data for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np
import pyarrow as pa

from streamtrain.storage.reader import Chunk, Reader
from streamtrain.testing.readers.process import Findings, in_fresh_process

__all__ = ["CheckFailed", "ReaderWarning", "Skipped", "Subject", "Writer", "require"]

_SHORT_ROWS = 1000


class CheckFailed(AssertionError):
    """A reader breaks the contract; the message says how."""


def require(holds: bool, message: str) -> None:
    """Raise CheckFailed with the message unless the condition holds."""
    if not holds:
        raise CheckFailed(message)


class ReaderWarning(UserWarning):
    """A reader keeps the contract, but could do better."""


class Skipped(SkipTest):
    """A check does not apply to the reader, or cannot be made here; the message says why. (pytest accepts the exception of
    unittest.)"""


@dataclass
class Writer:
    """Writes data without the reader under test, so that a wrong read cannot hide behind a wrong write.

    root: a folder to write in. make: writes a table into an empty folder, and returns the target for `open`. table: makes a
    table of so many rows that the format can store. large_rows: the number of rows for measuring memory. damage: makes the
    files in a folder unreadable, at least in part; None if undefined. nulls: whether the format has nulls.
    """

    root: Path
    make: Callable[[Path, pa.Table], Any]
    open: Callable[[Any], Reader]
    table: Callable[[int], pa.Table]
    large_rows: int
    damage: Callable[[Path], None] | None = None
    nulls: bool = True
    _made: int = 0

    def folder(self) -> Path:
        """Make a new empty folder."""
        self._made += 1
        path = self.root / str(self._made)
        path.mkdir()
        return path

    def write(self, table: pa.Table) -> Any:
        """Write a table, and return its target."""
        return self.make(self.folder(), table)

    def reader(self, table: pa.Table) -> Reader:
        """Write a table, and open a reader for it."""
        return self.open(self.write(table))


@dataclass
class Subject:
    """A reader under test.

    open: makes a new reader of the same data with every call. writer: None if data cannot be written, as for a URL.
    most_chunks: the most chunks that a check reads, spread evenly over the data.
    """

    open: Callable[[], Reader]
    writer: Writer | None = None
    most_chunks: int = 16

    @classmethod
    def of(cls, writer: Writer) -> Subject:
        """A subject with a few rows from a writer."""
        target = writer.write(writer.table(_SHORT_ROWS))
        return cls(lambda: writer.open(target), writer)

    def writes(self) -> Writer:
        """The writer. Raises Skipped if there is none."""
        if self.writer is None:
            raise Skipped("this check must write data: use streamtrain.testing.ReaderTests")
        return self.writer

    def sample(self, reader: Reader) -> list[Chunk]:
        """Chunks that are not empty, spread evenly from the first to the last. Raises Skipped if there are none."""
        chunks = reader.chunks()
        numbers = np.unique(np.linspace(0, max(0, len(chunks) - 1), min(len(chunks), self.most_chunks)).astype(int))
        sample = [chunk for chunk in (chunks[int(i)] for i in numbers) if chunk.rows]
        if not sample:
            raise Skipped("the data have no rows")
        return sample

    @cached_property
    def findings(self) -> Findings:
        """The findings of a new process, with larger data if they can be written. Raises CheckFailed, Skipped."""
        reader, small = self.open(), None
        if self.writer is not None:
            reader, small = self.writer.reader(self.writer.table(self.writer.large_rows)), reader
        return in_fresh_process(reader, self.sample(reader), small)
