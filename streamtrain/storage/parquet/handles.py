"""A pool of open Parquet files and their footers. A file is lent to one read at a time; footers are shared."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from streamtrain.errors import CorruptError, DataError
from streamtrain.memory.monitor import require_room
from streamtrain.memory.sizes import format_bytes
from streamtrain.storage.files.store import FileStore, Stat
from streamtrain.storage.parquet.footer import INT96_UNIT, READ_ERRORS, cause, is_text
from streamtrain.storage.parquet.tail import TAIL_BYTES, demand_of, footer_length, parsed_bytes

__all__ = ["KEPT_FOOTERS_BYTES", "Footer", "Handles", "Mode"]

_IDLE_HANDLES = 16
_FRAME_BYTES = 12  # of a file, beside rows and footer
KEPT_FOOTERS_BYTES = (
    2 << 20
)  # for files that are not being read; small, so that many files take no more memory than a few
_LOOKED_AT_BYTES = 16 << 20  # in larger files on a server the length of the footer is looked at, which is a request


class Mode(NamedTuple):
    """How a file is opened.

    buffer_size: bytes read ahead for each column; 0 for none. plain: the columns whose text is not read as dictionaries.
    """

    buffer_size: int
    plain: frozenset[str] = frozenset()


class Footer(NamedTuple):
    """The metadata and schema of a file. The schema must come from the open file: the schema of the metadata refers back to
    them, and such a cycle stays in memory until the next garbage collection."""

    metadata: Any
    schema: pa.Schema

    @property
    def nbytes(self) -> int:
        """The memory that the footer takes."""
        metadata = self.metadata
        return int(parsed_bytes(metadata.num_row_groups, metadata.num_columns, metadata.serialized_size))


class Handles:
    """Open files, each lent to one read at a time, and their footers, shared by all handles of a file.

    The most recent ones are kept open: at most 16 handles, and 2 MiB of footers, but at least as many footers as there were
    reads at the same time, for which the plan has memory. A handle is closed when its footer is dropped.
    """

    def __init__(self, store: FileStore, stats: Mapping[str, Stat]) -> None:
        self._store, self._stats = store, stats
        self._lock = (
            threading.RLock()
        )  # reentrant: the garbage collector may close a stream, and so return a file, in the thread that holds it
        self._idle: OrderedDict[int, tuple[str, Mode, Any]] = OrderedDict()
        self._footers: OrderedDict[str, Footer] = OrderedDict()
        self._footers_bytes = self._largest_bytes = self._coming = 0
        self._lent: list[str] = []  # names of files, once for each handle that is lent
        self._most_lent = 0

    def footer(self, name: str) -> Footer:
        """The footer of a file, read if it is not kept. Raises CorruptError, ChangedError."""
        with self._lock:
            if name in self._footers:
                self._footers.move_to_end(name)
                return self._footers[name]
            self._coming += 1
            dropped = self._forget()  # to make room before it is read
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
                self._look_at(name, source)
                file = pq.ParquetFile(source, pre_buffer=False, coerce_int96_timestamp_unit=INT96_UNIT)
                if file.metadata.num_rows and file.metadata.serialized_size + _FRAME_BYTES >= source.size():
                    raise CorruptError(
                        f"{path}: a summary of other files, without their rows: read those, or their folder"
                    )
                try:
                    return Footer(file.metadata, file.schema_arrow.remove_metadata())
                except READ_ERRORS as error:
                    raise CorruptError(f"{path}: the schema cannot be read: {cause(error)}") from error
        except DataError:
            raise
        except UnicodeDecodeError as error:
            raise CorruptError(f"{path}: {cause(error)}: rename it") from error
        except READ_ERRORS as error:
            self._store.verify(name, self._stats[name])
            raise CorruptError(f"{path}: not a Parquet file, or a damaged one: {cause(error)}") from error

    def _look_at(self, name: str, source: pa.NativeFile) -> None:
        """Raise an error for a footer that needs more memory than the budget leaves, or that is encrypted."""
        size = source.size()
        if self._store.is_remote and size <= _LOOKED_AT_BYTES:
            return
        end, shown = size - TAIL_BYTES, self._store.shown(name)
        length = footer_length(source.read_at(TAIL_BYTES, max(0, end)), size, shown)
        what = f"{shown}: its footer of {format_bytes(length)}"
        require_room(2 * length, what)  # before it is looked at
        demand = demand_of(lambda stop: source.read_at(stop, end - length), length)
        require_room(demand.parsing_bytes, what, demand.later_bytes)

    def _forget(self) -> list[Any]:
        """Drop the least recently used footers if they would exceed the limit together with those being read. Returns the
        handles that use them, to be closed."""
        forgotten = set()
        most, coming_bytes = max(1, self._most_lent), self._coming * self._largest_bytes
        for name in list(self._footers):
            enough = self._footers_bytes + coming_bytes <= KEPT_FOOTERS_BYTES
            if enough or len(self._footers) + self._coming <= most:
                break
            if name in self._lent:  # dropping the footer of a lent file frees no memory
                continue
            self._footers_bytes -= self._footers.pop(name).nbytes
            forgotten.add(name)
        gone = [key for key, (name, *_) in self._idle.items() if name in forgotten]
        return [self._idle.pop(key)[2] for key in gone]

    @contextmanager
    def lend(self, name: str, mode: Mode) -> Iterator[Any]:
        """An open file for one read. It is kept for the next read, unless the read fails."""
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
        # Checksums are verified if the file has them.
        return pq.ParquetFile(
            self._store.open(name, self._stats[name]),
            metadata=footer,
            read_dictionary=[f.name for f in schema if is_text(f.type) and f.name not in mode.plain],
            buffer_size=mode.buffer_size,
            # Reads all columns of a row group in one request. But it uses threads of pyarrow, and the main thread could not
            # be interrupted with Ctrl-C while it waits for them.
            pre_buffer=self._store.is_remote and not mode.buffer_size and not _in_main_thread(),
            page_checksum_verification=True,
            coerce_int96_timestamp_unit=INT96_UNIT,
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
            # Without a kept footer, the handle alone would hold it. A remote handle keeps the bytes that it read ahead.
            if name in self._footers and not self._store.is_remote:
                self._idle[id(file)] = name, mode, file
                dropped = [self._idle.popitem(last=False)[1][2]] if len(self._idle) > _IDLE_HANDLES else []
        for old in dropped:
            old.close(force=True)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
