"""What the checks are run on: a reader that can be opened again and again, and a way to write data for it."""

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

__all__ = ["CheckFailed", "ReaderWarning", "Skipped", "Subject", "Writer"]

_SHORT_ROWS = 1000


class CheckFailed(AssertionError):
    """A reader does not keep the contract; the message says in what."""


class ReaderWarning(UserWarning):
    """A reader keeps the contract, but badly."""


class Skipped(SkipTest):
    """A check of something that the reader does not claim, or that cannot be checked here; the message says why. (pytest
    takes unittest's exception as its own.)"""


@dataclass
class Writer:
    """Writes data without the reader under test, so that a wrong read cannot hide behind a wrong write.

    root: a folder to write in. make: writes a table into an empty folder, gives what `open` opens. table: some rows of the
    kind that the format can hold. large_rows: of the data that memory is measured with. damage: makes what was written in
    a folder unreadable, at least in part; None where nobody said how. nulls: whether the format has them.
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
        """A new empty folder."""
        self._made += 1
        path = self.root / str(self._made)
        path.mkdir()
        return path

    def write(self, table: pa.Table) -> Any:
        """A target with these rows."""
        return self.make(self.folder(), table)

    def reader(self, table: pa.Table) -> Reader:
        return self.open(self.write(table))


@dataclass
class Subject:
    """A reader under test.

    open: a new reader of the same data, at every call. writer: None where data cannot be written (there is only a URL).
    most_chunks: so many chunks are read by a check, spread over the data, where there are more.
    """

    open: Callable[[], Reader]
    writer: Writer | None = None
    most_chunks: int = 16

    @classmethod
    def of(cls, writer: Writer) -> Subject:
        """What the writer writes, in a few rows."""
        target = writer.write(writer.table(_SHORT_ROWS))
        return cls(lambda: writer.open(target), writer)

    def writes(self) -> Writer:
        """The writer. Raises Skipped where there is none."""
        if self.writer is None:
            raise Skipped("needs data that it writes: see streamtrain.testing.ReaderTests")
        return self.writer

    def sample(self, reader: Reader) -> list[Chunk]:
        """Chunks with rows, spread over the data, the first and the last among them. Raises Skipped where there is none."""
        chunks = reader.chunks()
        places = np.unique(np.linspace(0, max(0, len(chunks) - 1), min(len(chunks), self.most_chunks)).astype(int))
        found = [chunk for chunk in (chunks[int(i)] for i in places) if chunk.rows]
        if not found:
            raise Skipped("there are no rows")
        return found

    @cached_property
    def findings(self) -> Findings:
        """What a fresh process finds, of larger data where they can be written. Raises CheckFailed, Skipped."""
        reader, small = self.open(), None
        if self.writer is not None:
            reader, small = self.writer.reader(self.writer.table(self.writer.large_rows)), reader
        return in_fresh_process(reader, self.sample(reader), small)
