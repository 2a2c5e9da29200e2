"""What is read: a reader, and the columns and target chosen from it; and the plan that follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from streamtrain.batch import Batch
from streamtrain.columns.choose import choose_features
from streamtrain.columns.layout import Layout
from streamtrain.columns.role import Unknown
from streamtrain.columns.settings import ColumnSettings
from streamtrain.columns.target import Target, resolve_task
from streamtrain.errors import BadValueError, DataError, UsageError, data_name
from streamtrain.load.demand import data_warnings, demand_of, longest_layout, read_so_far
from streamtrain.load.digests import Digests
from streamtrain.load.first_rows import told_by_first_rows
from streamtrain.load.holdout import NONE, HoldOut, HoldOutRule
from streamtrain.load.ledger import Ledger
from streamtrain.load.survey import survey, survey_known
from streamtrain.memory.monitor import budget_of, opening
from streamtrain.memory.process import release_freed_memory
from streamtrain.notebook import count, html_table, one_line
from streamtrain.options import checked, given
from streamtrain.plan.plan import Plan, solve
from streamtrain.plan.term import Term
from streamtrain.storage.arrow import pick
from streamtrain.storage.nested import columns_of
from streamtrain.storage.reader import ChunkTable, Reader, columns_among
from streamtrain.storage.settings import Asked, ReadSettings
from streamtrain.storage.where.opening import OpenData, open_rows

__all__ = ["Source"]


@dataclass(frozen=True, repr=False)
class Source:
    """A reader, and the columns that are read from it.

    `open` reads metadata only, `surveyed` the target, `with_roles` and `with_offsets` the first rows of some features.

    Parameters
    ----------
    reader, table
        The data, and the table of their chunks.
    layout
        The columns, and the position of each in a row of a window.
    is_surveyed
        Whether the values of the target were read.
    digests
        What was read from this source, to compare with what is read again. None if nothing is read twice.
    least_baseline_bytes
        The least that a plan assumes for the process: what the plan before the pass over the target assumed.
    held, unread
        The rows that are held out, where a column decides; and the errors of chunks that were not read then, by number.

    Examples
    --------
    >>> source = Source.open({"x": np.arange(100.0), "y": np.arange(100) % 2}, target="y")
    >>> source.layout.features, source.surveyed().layout.target.classes
    (('x',), (0, 1))
    """

    reader: Reader
    table: ChunkTable
    layout: Layout
    is_surveyed: bool = False
    digests: Digests | None = None
    least_baseline_bytes: int = 0
    held: HoldOut | None = None
    unread: Mapping[int, DataError] = field(default_factory=dict)

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
        reading: ReadSettings | None = None, hold_out: HoldOutRule | None = None, skips: bool = False,
    ) -> Source:  # fmt: skip
        """Open data and choose the columns. Reads metadata, and the columns that choose rows; the classes are not known yet.

        Parameters
        ----------
        data
            Paths, globs, a folder, a URL, a table, arrays by name, or a reader: see `open_reader`.
        target
            The name of the target's column, or of several.
        features, exclude
            The names of the feature columns, or of the columns to leave out. By default every column but target and weight.
        weight
            The column with the weight of each row.
        task
            ``"classify"`` or ``"regress"``; by default what fits the type of the target.
        roles
            The role of some columns, by name: ``{"postcode": "category"}``.
        crosses
            Columns to learn from together: ``"city:day"``.
        reading
            How the data are read.
        hold_out, skips
            Which rows are held out, if a column decides; and whether the caller skips the chunks that are ``unread``.

        Raises
        ------
        DataError
            Of every kind: nothing there, no rows, damaged metadata.
        ColumnError
            For a column that is missing, or cannot be what it should be.
        UsageError
            For an unknown role or task, and a wrong cross.
        """
        chosen = given(target=target, features=features, weight=weight, task=task, roles=roles)
        settings = checked(ColumnSettings, chosen | {"exclude": exclude, "crosses": crosses})
        target, crosses, task = settings.get("target"), settings.pop("crosses"), settings.pop("task", None)
        names = [target] if isinstance(target, str) else list(target or ())
        asking = Asked.of(names, weight, settings)
        with opening(data_name(data)):
            opened = open_rows(data, replace(reading or ReadSettings(), asked=asking), hold_out, skips=skips)
            schema = columns_of(opened.reader.schema)
        chosen_target = None
        if names:
            fields = [pick(schema, name, "target") for name in names]
            chosen_target = Target.of([Target(f.name, resolve_task(f, task)) for f in fields])
        columns = choose_features(schema, **settings | {"exclude": columns_among(opened.reader, settings["exclude"])})
        return cls.of_rows(opened, Layout.of(schema, columns, chosen_target, weight, crosses), hold_out).with_digests()

    @classmethod
    def of_rows(cls, opened: OpenData, layout: Layout, hold_out: HoldOutRule | None = None) -> Source:
        """The source of open data. Raises DataError if the rule holds out no row, or all."""
        held = None if hold_out is None else hold_out.found(opened)
        return cls(opened.reader, opened.table, layout, held=held, unread=opened.unread)

    @classmethod
    def of(cls, reader: Reader, table: ChunkTable, features: Sequence[str], roles: Mapping[str, str]) -> Source:
        """A source of the named columns of an open reader, without a target. roles: by column, where not the default. Raises
        ColumnError and UsageError as `open` does."""
        schema = columns_of(reader.schema)
        columns = choose_features(schema, features=features, roles=roles)
        return cls(reader, table, Layout.of(schema, columns, None, None))

    def surveyed(
        self, *, classes: Sequence[str] | None = None, task: str | None = None, ledger: Ledger | None = None,
        earlier: Target | None = None,
    ) -> Source:  # fmt: skip
        """The same source with the classes of its target known. Reads only the column of the target.

        Parameters
        ----------
        classes
            The classes of the target; then the column is not read.
        task
            ``"classify"`` or ``"regress"``; by default what fits the type of the target.
        ledger
            Chunks that cannot be read and rows without a usable target are entered here; without it they are errors.
        earlier
            The target of an earlier run; its task, offset and classes are kept, and new classes are added.

        Returns
        -------
        Source

        Raises
        ------
        UsageError
            For classes of several targets, another target than the earlier one, and classes of another type.
        DataError
            For a target that cannot be learned: nulls, NaN, a single class, too many distinct values.
        """
        target = self.layout.target
        if target is not None:
            if target.parts and classes is not None:
                raise UsageError("--classes: is for one target, but there are several: leave it out")
            if earlier is not None and earlier.names != target.names:
                raise UsageError(f"--target {target.name}: the old run has target {earlier.name}: give the same")
            options: dict[str, Any] = {"task": task, "classes": classes, "ledger": ledger, "weight": self.layout.weight}
            parts = {name: None if earlier is None else earlier.part(name) for name in target.names}
            options["digests"] = found = np.zeros(len(self.table), np.uint64)
            target = Target.of(
                [survey(self.reader, self.table, n, earlier=part, **options) for n, part in parts.items()]
            )
            if self.digests is not None:
                self.digests.check_targets(found)
        release_freed_memory()
        return replace(self, layout=replace(self.layout, target=target), is_surveyed=True)

    def checked_target(self, ledger: Ledger | None = None) -> None:
        """Read the target, whose classes are known: what cannot be used is found now. For the rest see `surveyed`."""
        found, target = np.zeros(len(self.table), np.uint64), self.layout.target
        assert target is not None
        survey_known(self.reader, self.table, target, self.layout.weight, ledger, found)
        if self.digests is not None:
            self.digests.check_targets(found)
        release_freed_memory()

    def with_layout(self, layout: Layout) -> Source:
        """The same source with another layout."""
        source, same = replace(self, layout=layout), self.digests is None or layout.read == self.layout.read
        return source if same else source.with_digests()

    def with_digests(self) -> Source:
        """The same source, of which nothing was read so far, and whose digests are noted."""
        return replace(self, digests=Digests(self.table))

    def with_roles(self, ledger: Ledger | None = None) -> Source:
        """The same source with the roles that depend on values: strings that read like sentences become text. Reads the
        first rows of such columns. ledger: chunks that cannot be read are entered here, and the next chunk is read; without
        it they are errors. Raises CorruptError if no chunk can be read."""
        return self._with_first_rows("role", ledger)

    def with_offsets(self, ledger: Ledger | None = None) -> Source:
        """The same source with the offsets of wide numbers and of times, from the first rows of these columns. ledger and
        errors: as in `with_roles`."""
        return self._with_first_rows("offset", ledger)

    def _with_first_rows(self, unknown: Unknown, ledger: Ledger | None) -> Source:
        columns = {column.name: column for column in self.layout.columns if column.becomes.unknown(column) == unknown}
        if not columns:
            return self
        told = told_by_first_rows(self.reader, self.table, columns, self.layout, ledger)
        release_freed_memory()
        return self.with_layout(self.layout.with_columns([told.get(c.name, c) for c in self.layout.columns]))

    @property
    def longest_layout(self) -> Layout:
        """The layout for planning: with texts as long as in the chunk where they are longest."""
        return longest_layout(self.reader, self.table, self.layout)

    def plan(
        self, *, memory: float | str | None = None, batch_size: int | None = None, window_rows: int | None = None,
        threads: int | None = None, shuffle: bool = True, window_bytes: int | None = None, terms: Sequence[Term] = (),
        scratch_bytes: Callable[[int], int] | None = None,
    ) -> Plan:  # fmt: skip
        """The plan for this process as it is now.

        Parameters
        ----------
        memory
            The budget of the process: bytes, or text such as ``"512MB"``. Default: half of the available memory.
        batch_size, window_rows, threads, shuffle
            As in `fit`. Default: by the number and size of the rows.
        terms
            Terms of what else the process holds while rows are loaded.
        window_bytes
            The largest default window, in decoded bytes.
        scratch_bytes
            (rows of a batch) -> bytes that these take while they are learned.

        Returns
        -------
        Plan
            It may not fit the budget: see `Plan.require_fits`.

        Raises
        ------
        UsageError
            For a size below 1; SizeError for a memory that does not parse.
        """
        terms = terms if self.digests is None else [*terms, self.digests.term]
        demand = demand_of(
            self.reader, self.table, self.layout, is_surveyed=self.is_surveyed, terms=terms, scratch_bytes=scratch_bytes,
            least_baseline_bytes=self.least_baseline_bytes, held=self.held,
        )  # fmt: skip
        plan = solve(
            demand, budget_bytes=budget_of(memory), budget_given=memory is not None, batch_size=batch_size,
            window_rows=window_rows, threads=threads or 2, shuffle=shuffle, window_bytes=window_bytes,
            read_so_far=read_so_far(self.table, self.held, is_surveyed=self.is_surveyed),
        )  # fmt: skip
        held, own = self.held or NONE, data_warnings(self.reader, self.layout, is_surveyed=self.is_surveyed)
        warnings = [*plan.warnings, *own, *held.warnings]
        return replace(plan, all_rows=self.table.unfiltered.total_rows, held_rows=held.count, warnings=warnings)

    def located(self, error: BadValueError, batch: Batch) -> BadValueError:
        """The error with the chunk and the number of its row, and the name of its column. batch: where the error was raised."""
        if error.row is None:
            return error
        chunk, row = self.table.located(int(batch.rows[error.row]))
        where = f"row {row:,} of {self.table[chunk].key}"
        if error.column is None:
            return BadValueError(f"{where}: {error}")
        return BadValueError(
            f"feature {self.layout.number_names[error.column]!r} is infinite, or too large for float32, in {where}: give the "
            "fit --infinities clip or --infinities missing, or skip such rows with --on-error skip"
        )
