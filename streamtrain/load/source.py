"""What is read: a reader, the columns chosen from it, the target; and the plan that follows from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from streamtrain.batch import Batch
from streamtrain.columns.choose import choose_features
from streamtrain.columns.layout import Layout, has_width
from streamtrain.columns.role import Column, Unknown
from streamtrain.columns.target import Target, resolve_task
from streamtrain.errors import (
    BadValueError,
    ChangedError,
    CorruptError,
    NotFoundError,
    SchemaError,
    UsageError,
    without_secrets,
)
from streamtrain.load.ledger import Ledger
from streamtrain.load.survey import survey
from streamtrain.memory.process import available_bytes, release_freed_memory, resident_bytes
from streamtrain.memory.sizes import parse_bytes
from streamtrain.notebook import count, html_table, one_line
from streamtrain.plan.memory_model import Demand
from streamtrain.plan.plan import Plan, solve
from streamtrain.plan.scratch import Scratch
from streamtrain.plan.term import Term
from streamtrain.storage import open_reader
from streamtrain.storage.arrow import bytes_per_row, pick
from streamtrain.storage.checked import first_rows
from streamtrain.storage.files.place import is_far
from streamtrain.storage.reader import Chunk, ChunkTable, Reader, Streams

__all__ = ["Source"]

_ASSUMED_BASELINE_BYTES = 120 * 10**6  # where the process cannot be measured
_ASSUMED_AVAILABLE_BYTES = 4 * 10**9
_TEXT_COPIES = 3  # of what a read takes, text has more than numbers have: dictionaries are made of it
_SAMPLE_ROWS, _SAMPLE_BYTES = 1024, 16 * 10**6
_SURVEY_BYTES = 6 * 10**6  # what the pass over the target leaves behind: libraries, pieces of freed memory


@dataclass(frozen=True, repr=False)
class Source:
    """A reader and what is taken from it. `Source.open` reads metadata only, `surveyed` the target, `with_offsets` the first
    rows of some features."""

    reader: Reader
    table: ChunkTable
    layout: Layout
    is_surveyed: bool = False

    def __repr__(self) -> str:
        target = self.layout.target
        return one_line(
            self,
            f"{count(self.table.total_rows, 'row')} in {count(len(self.table), 'chunk')}",
            count(len(self.layout.columns), "column"),
            None if target is None else f"target {target.name!r}",
        )

    def _repr_html_(self) -> str:
        rows = [(column.name, column.type, column.role) for column in self.layout.columns]
        return html_table(repr(self)[1:-1], ("column", "type", "becomes"), rows)

    @classmethod
    def open(
        cls, data: Any, *, target: str | Sequence[str] | None = None, features: Sequence[str] | None = None,
        exclude: Sequence[str] = (), weight: str | None = None, task: str | None = None,
        roles: Mapping[str, str] | None = None, crosses: Sequence[str | Sequence[str]] = (),
        missing_chunks: str = "error",
    ) -> Source:  # fmt: skip
        """Choose the columns and what each becomes. roles: asked for, by column. The target's classes are not known yet.
        Raises DataError of every kind."""
        reader = open_reader(data, missing_chunks=missing_chunks)
        table = ChunkTable.of(reader.chunks())
        if table.total_rows == 0:
            raise NotFoundError(f"{without_secrets(data) if isinstance(data, str) else 'the data'}: has no rows")
        found = None
        if target is not None:
            names = [target] if isinstance(target, str) else list(target)
            fields = [pick(reader.schema, name, "target") for name in names]
            found = Target.of([Target(f.name, resolve_task(f, task)) for f in fields])
        chosen = choose_features(
            reader.schema, target=target, weight=weight, features=features, exclude=exclude, roles=roles
        )
        return cls(reader, table, Layout.of(reader.schema, chosen, found, weight, crosses))

    @classmethod
    def of(cls, reader: Reader, table: ChunkTable, features: Sequence[str], roles: Mapping[str, str]) -> Source:
        """Some columns of a reader that is open, without a target."""
        chosen = choose_features(reader.schema, features=features, roles=roles)
        return cls(reader, table, Layout.of(reader.schema, chosen, None, None))

    def surveyed(
        self, *, classes: Sequence[str] | None = None, task: str | None = None, ledger: Ledger | None = None,
        known: Target | None = None,
    ) -> Source:  # fmt: skip
        """With the target's classes known (see `survey`): its column alone is read. known: the target of an older run."""
        target = self.layout.target
        if target is not None:
            if target.parts and classes is not None:
                raise UsageError("--classes: names those of one target; there are several")
            if known is not None and known.names != target.names:
                raise UsageError(f"--target {target.name}: the old run learned {known.name}: give the same")
            asked: dict[str, Any] = {"task": task, "classes": classes, "ledger": ledger}
            before = {name: None if known is None else known.part(name) for name in target.names}
            target = Target.of([survey(self.reader, self.table, n, known=k, **asked) for n, k in before.items()])
        release_freed_memory()
        return replace(self, layout=replace(self.layout, target=target), is_surveyed=True)

    def with_layout(self, layout: Layout) -> Source:
        return replace(self, layout=layout)

    def with_roles(self, ledger: Ledger | None = None) -> Source:
        """The source with the roles that only values tell: strings that read like sentences become text. Reads the first rows
        of such columns. ledger: where chunks that cannot be read are entered, and the next chunk is taken; without it they are
        errors."""
        return self._with_first_rows("role", ledger)

    def with_offsets(self, ledger: Ledger | None = None) -> Source:
        """The source with the offsets of wide numbers and of times, from the first rows of these columns. ledger: as in
        `with_roles`."""
        return self._with_first_rows("offset", ledger)

    def _with_first_rows(self, unknown: Unknown, ledger: Ledger | None) -> Source:
        columns = {column.name: column for column in self.layout.columns if column.becomes.unknown(column) == unknown}
        if not columns:
            return self
        for number, chunk in enumerate(self.table):
            if not chunk.rows or (ledger is not None and ledger.is_lost(number)):
                continue
            try:
                told = self._told_by(chunk, columns)
            except (CorruptError, SchemaError) as error:
                if ledger is None or isinstance(error, ChangedError):
                    raise
                ledger.skip_chunk(number, chunk.key, chunk.rows, error)
            else:
                return self.with_layout(self.layout.with_columns([told.get(c.name, c) for c in self.layout.columns]))
        raise CorruptError("no chunk of the data can be read: restore the data, or read another copy of them")

    def _told_by(self, chunk: Chunk, columns: Mapping[str, Column]) -> dict[str, Column]:
        """The columns with what the first rows of a chunk tell, by name."""
        names, told = list(columns), {}
        at_once = len(names) if chunk.decoded_bytes <= _SAMPLE_BYTES else 1
        for start in range(0, len(names), at_once):
            rows = first_rows(self.reader, chunk, names[start : start + at_once], _SAMPLE_ROWS)
            for name, values in zip(rows.schema.names, rows.columns, strict=True):
                told[name] = columns[name].becomes.first_rows(columns[name], values)
        return told

    @cached_property
    def _shares(self) -> tuple[float, float, float]:
        """Bytes a row of the columns read; their share of what a read of all columns takes; the share of those that are read
        together at least: the widest, or all that have no width."""
        schema, read = self.reader.schema, self.layout.read
        sizes = {f.name: bytes_per_row(f.type) for f in schema}
        row_bytes = sum(sizes[n] for n in read)
        if getattr(self.reader, "row_oriented", False):  # some columns cost as much as all
            return row_bytes, 1.0, 1.0
        # Nobody says how long text is. What chunks decode to beyond the columns with a width may be all in those that are read.
        loose = {column.name for column in self.layout.columns if not has_width(column.type)}
        decoded = float(self.table.decoded_bytes.sum()) / max(1, self.table.total_rows)
        text = _TEXT_COPIES * max(0.0, decoded - sum(sizes.values())) if loose else 0.0
        everything = max(sum(sizes.values()) + text, 1e-9)
        together = sum(sizes[name] for name in loose) + text
        return row_bytes, (row_bytes + text) / everything, max(together, *(sizes[n] for n in read)) / everything

    @property
    def _copied_row_bytes(self) -> float:
        """See `Demand`."""
        schema = self.reader.schema
        numbers = sum(column.numbers for column in self.layout.columns if schema.field(column.name).nullable)
        return 4.0 * (numbers + len(self.layout.hashes))

    @property
    def row_bytes(self) -> float:
        """One row of the columns that are read, decoded."""
        return self._shares[0]

    def plan(
        self, *, memory: int | str | None = None, batch_size: int | None = None, window_rows: int | None = None,
        threads: int | None = None, shuffle: bool = True, window_bytes: int | None = None, terms: Sequence[Term] = (),
        scratch_bytes: Callable[[int], int] | None = None,
    ) -> Plan:  # fmt: skip
        """The plan for this process as it is now. It may not fit: see `Plan.require_fits`. terms: what is held beside the
        loader. scratch_bytes: what so many rows take for a moment; by default as they are learned."""
        available = available_bytes()
        half = (_ASSUMED_AVAILABLE_BYTES if available is None else available) // 2
        budget = half if memory is None else parse_bytes(memory)
        row_bytes, share, widest = self._shares
        reader, table = self.reader, self.table
        streams = reader if isinstance(reader, Streams) else None
        demand = Demand(
            table=table,
            decoded_row_bytes=row_bytes,
            window_row_bytes=self.layout.row_bytes,
            batch_row_bytes=self.layout.row_bytes + self.layout.width * (4 - self.layout.dtype.itemsize),
            scratch_bytes=scratch_bytes or (lambda rows: Scratch.of(self.layout).learning(rows, 0)),
            baseline_bytes=(resident_bytes() or _ASSUMED_BASELINE_BYTES) + (0 if self.is_surveyed else _SURVEY_BYTES),
            column_share=share,
            largest_column_share=widest,
            copied_row_bytes=self._copied_row_bytes,
            terms=tuple(terms),
            open_bytes=getattr(reader, "open_bytes", 0),
            far=is_far(reader),
            stream_bytes=None if streams is None else lambda i, rows: streams.stream_peak_bytes(table[i], rows),
        )
        return solve(
            demand, budget_bytes=budget, budget_given=memory is not None, batch_size=batch_size,
            window_rows=window_rows, threads=threads or 2, shuffle=shuffle, window_bytes=window_bytes,
            read_so_far="Only the target was read." if self.is_surveyed else "Nothing was read.",
        )  # fmt: skip

    def located(self, error: BadValueError, batch: Batch) -> BadValueError:
        """The same error with the place of the row and the name of the column."""
        if error.row is None:
            return error
        position = int(batch.rows[error.row])
        chunk = int(np.searchsorted(self.table.starts, position, side="right")) - 1
        where = f"row {position - int(self.table.starts[chunk]):,} of {self.table[chunk].key}"
        if error.column is None:
            return BadValueError(f"{where}: {error}")
        slot = self.layout.slots[error.column]
        return BadValueError(
            f"feature {slot!r} is infinite, or too large for float32, in {where}: say what to do with it "
            "when the model is fitted, --infinities clip or --infinities missing"
        )
