"""Open Parquet files and their footers: lent to one read at a time, shared, kept for the next, and let go in time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from streamtrain.errors import CorruptError, DataError
from streamtrain.storage.files.store import FileStore, Stat
from streamtrain.storage.parquet.footer import READ_ERRORS, first_line, is_text

__all__ = ["KEPT_FOOTERS_BYTES", "Footer", "Handles", "Mode", "footer_bytes"]

_IDLE_HANDLES = 16
KEPT_FOOTERS_BYTES = 2 << 20  # of files that are not being read: few, so that many files take what some do
_ENTRY_BYTES, _COLUMN_BYTES = 950, 1_800  # a footer in memory: for each column of each row group, and for each column


class Mode(NamedTuple):
    """How a file is open: with a buffer, or without for 0; and whether text comes as codes into a dictionary."""

    buffer_size: int
    text_as_codes: bool = True


class Footer(NamedTuple):
    """What a file says of itself. The schema is asked of the open file: the footer's own would keep it in a cycle, so in
    memory until Python looks for those."""

    metadata: Any
    schema: pa.Schema

    @property
    def nbytes(self) -> int:
        return footer_bytes(self.metadata.num_row_groups, self.metadata.num_columns)


class Handles:
    """Open files, each lent to one read at a time, and their footers, which the handles of a file share. The last few are
    kept: handles by their number, footers by their bytes (but as many as there were reads at a time, which the plan has
    memory for), and no handle longer than its footer."""

    def __init__(self, store: FileStore, stats: Mapping[str, Stat]) -> None:
        self._store, self._stats = store, stats
        self._lock = threading.RLock()  # a stream that the garbage collector closes may end a loan while it is held
        self._idle: OrderedDict[int, tuple[str, Mode, Any]] = OrderedDict()
        self._footers: OrderedDict[str, Footer] = OrderedDict()
        self._footers_bytes = self._largest_bytes = self._coming = 0
        self._lent: list[str] = []  # files, once for each handle that is with a read
        self._most_lent = 0

    def footer(self, name: str) -> Footer:
        with self._lock:
            if name in self._footers:
                self._footers.move_to_end(name)
                return self._footers[name]
            self._coming += 1
            dropped = self._forget()  # before there is one more
        for file in dropped:
            file.close(force=True)
        footer = None
        try:
            footer = self._read_footer(name)
        finally:
            with self._lock:
                self._coming -= 1
                if footer is not None and name not in self._footers:
                    self._footers[name] = footer
                    self._footers_bytes += footer.nbytes
                    self._largest_bytes = max(self._largest_bytes, footer.nbytes)
        return footer

    def _read_footer(self, name: str) -> Footer:
        path = self._store.shown(name)
        try:
            with self._store.open(name, self._stats[name]) as source:
                file = pq.ParquetFile(source, pre_buffer=False)
                try:
                    return Footer(file.metadata, file.schema_arrow.remove_metadata())
                except READ_ERRORS as error:
                    raise CorruptError(f"{path}: its schema cannot be read: {first_line(error)}") from error
        except DataError:
            raise
        except READ_ERRORS as error:
            self._store.verify(name, self._stats[name])
            raise CorruptError(f"{path}: not a Parquet file, or damaged: {first_line(error)}") from error

    def _forget(self) -> list[Any]:
        """Drop the footers that were not used for longest, if with those that are coming there would be too many, and return
        the handles that hold them."""
        forgotten = set()
        most, coming_bytes = max(1, self._most_lent), self._coming * self._largest_bytes
        for name in [name for name in self._footers if name not in self._lent]:  # of others nothing would be given back
            enough = self._footers_bytes + coming_bytes <= KEPT_FOOTERS_BYTES
            if enough or len(self._footers) + self._coming <= most:
                break
            self._footers_bytes -= self._footers.pop(name).nbytes
            forgotten.add(name)
        gone = [key for key, (name, *_) in self._idle.items() if name in forgotten]
        return [self._idle.pop(key)[2] for key in gone]

    @contextmanager
    def lend(self, name: str, mode: Mode) -> Iterator[Any]:
        file = self._take(name, mode)
        try:
            if file is None:
                file = self._open(name, mode)
            yield file
        except BaseException:
            with self._lock:
                self._lent.remove(name)
            if file is not None:
                file.close(force=True)
            raise
        self._keep(name, mode, file)

    def _open(self, name: str, mode: Mode) -> Any:
        footer, schema = self.footer(name)
        # Checksums are verified where there are any.
        return pq.ParquetFile(
            self._store.open(name, self._stats[name]),
            metadata=footer,
            read_dictionary=[f.name for f in schema if is_text(f.type)] if mode.text_as_codes else None,
            buffer_size=mode.buffer_size,
            # The columns of a row group in one request; but on threads of pyarrow's, for which the main thread would wait
            # without a look at Ctrl-C.
            pre_buffer=self._store.is_remote and not mode.buffer_size and not _in_main_thread(),
            page_checksum_verification=True,
        )

    def _take(self, name: str, mode: Mode) -> Any:
        with self._lock:
            self._lent.append(name)
            self._most_lent = max(self._most_lent, len(self._lent))
            for key, (*held, file) in self._idle.items():
                if held == [name, mode]:
                    del self._idle[key]
                    return file
        return None

    def _keep(self, name: str, mode: Mode, file: Any) -> None:
        with self._lock:
            self._lent.remove(name)
            dropped = [file]
            # Otherwise it would be all that holds its footer; what it read ahead stays with it.
            if name in self._footers and not self._store.is_remote:
                self._idle[id(file)] = name, mode, file
                dropped = [self._idle.popitem(last=False)[1][2]] if len(self._idle) > _IDLE_HANDLES else []
        for old in dropped:
            old.close(force=True)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def footer_bytes(groups: int, columns: int) -> int:
    return columns * (groups * _ENTRY_BYTES + _COLUMN_BYTES)
