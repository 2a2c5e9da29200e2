"""The pass over the target before training starts: only its column is read, slice by slice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.columns.decimals import as_classes
from streamtrain.columns.target import Target, resolve_task
from streamtrain.columns.target_values import Unusable, bad_message, only, target_type
from streamtrain.columns.weights import rows_in_use, single_weights
from streamtrain.errors import BadValueError, ChangedError, CorruptError, DataError, SchemaError, UsageError
from streamtrain.load.digests import ChunkDigest, RunDigest
from streamtrain.load.ledger import Ledger
from streamtrain.load.tally import MOST_CLASSES, Tally, with_earlier
from streamtrain.plan.together import together
from streamtrain.storage.arrow import is_number, pick
from streamtrain.storage.checked import open_stream, read_columns, read_together
from streamtrain.storage.nested import columns_of
from streamtrain.storage.reader import Chunk, ChunkTable, Reader, ReadsTogether

__all__ = ["survey", "survey_known"]

_BLOCK_ROWS = 8192
_NAMED = 3  # chunks with values that cannot be used, in the message
_SLICE_ROWS = 8 * _BLOCK_ROWS  # longer chunks are read in slices, so that the pass takes less memory than training


def survey(
    reader: Reader, table: ChunkTable, name: str, *, task: str | None = None, classes: Sequence[str] | None = None,
    ledger: Ledger | None = None, earlier: Target | None = None, digests: NDArray[np.uint64] | None = None,
    weight: str | None = None,
) -> Target:  # fmt: skip
    """The target with its classes, or its offset and moments; only its column is read, and that of the weights: rows of
    weight 0 are not looked at.

    digests: to which the digest of the target in each chunk is added, shape (chunks,).
    ledger: chunks that cannot be read are entered there and skipped; rows that cannot be used are skipped. With ``classes`` and
    without a ledger nothing is read. earlier: the target of an earlier run; its task, offset and classes are kept, and new
    classes are added. weight: the column of the weights.

    Raises ColumnError for a column that cannot be a target; BadValueError for nulls and NaN (how many, in which files);
    DataError for a single class, and for more than 1,000 distinct integers without ``task``; UsageError for classes of
    another type than those of the earlier target.
    """
    field = pick(columns_of(reader.schema), name, "target")
    if earlier is not None and task not in (None, earlier.task):
        raise UsageError(f"--task {task}: the old run has task {earlier.task} for {name!r}: leave --task out")
    own_task = resolve_task(field, task if earlier is None else earlier.task)
    named = None if classes is None else _named_classes(field, own_task, classes, earlier)
    if named is not None and ledger is None:
        return Target(name, own_task, named, rows=table.total_rows)
    many = earlier is not None and len(earlier.classes) > MOST_CLASSES  # --task classify was given then
    tally = Tally(field, own_task, refuse_many=task is None and not many, earlier=earlier)
    reading = _Pass(reader, table, Target(name, own_task, named or ()), weight, ledger)
    reading.run(None if named is not None else tally, digests)
    return tally.target() if named is None else Target(name, own_task, named, rows=table.total_rows)


def survey_known(
    reader: Reader, table: ChunkTable, target: Target, weight: str | None, ledger: Ledger | None,
    digests: NDArray[np.uint64],
) -> None:  # fmt: skip
    """Read the target of other data, whose classes are known: what cannot be used is found now. As `survey`."""
    for part in target.several:
        _Pass(reader, table, part, weight, ledger).run(None, digests)


class _Pass:
    """One pass over the column of a target. rule: says which values can be used. For the rest see `survey`."""

    def __init__(
        self, reader: Reader, table: ChunkTable, rule: Target, weight: str | None, ledger: Ledger | None
    ) -> None:
        self._reader, self._table, self._rule, self._ledger = reader, table, rule, ledger
        self._weight = weight
        self._columns = [rule.name, *([weight] if weight else [])]
        self._bad = np.zeros(len(table), np.int64)  # values of each chunk that cannot be used
        self._kinds: dict[str, None] = {}  # what these are

    def run(self, tally: Tally | None, digests: NDArray[np.uint64] | None) -> None:
        """Read all chunks. tally: gets the values that can be used."""
        table, ledger, name = self._table, self._ledger, self._rule.name
        for run in _runs(self._reader, table):
            digest = RunDigest([name], table.rows[run].tolist())
            if run.stop - run.start == 1 or not self._add_together(tally, run, digest):
                digest = RunDigest([name], table.rows[run].tolist())
                self._add_each(tally, run, digest)
            if digests is not None:
                digests[run] += np.array([target for _, target in digest.values()], np.uint64)
        skipped = int(self._bad.sum())
        if skipped and ledger is None:
            raise BadValueError(self._refusal(skipped))
        if skipped and ledger is not None:
            if skipped == table.total_rows:
                raise CorruptError(
                    f"no row is left: all are skipped, the first because of: {self._entries()[0]['error']}"
                )
            ledger.require_few(skipped, table.total_rows, self._entries)

    def _refusal(self, rows: int) -> str:
        worst = np.argsort(-self._bad, kind="stable")[:_NAMED].tolist()
        chunks = ", ".join(f"{self._table[n].key} ({int(self._bad[n]):,})" for n in worst if self._bad[n])
        others = int(np.count_nonzero(self._bad)) - _NAMED
        more = f" and {others:,} more" if others > 0 else ""
        return bad_message(self._rule.name, rows, list(self._kinds), chunks + more)

    def _entries(self) -> list[dict[str, Any]]:
        assert self._ledger is not None
        return [self._ledger.entry(number, int(self._bad[number])) for number in np.flatnonzero(self._bad).tolist()]

    def _add_each(self, tally: Tally | None, run: slice, digest: RunDigest) -> None:
        """Add the values of chunks one by one; enter what cannot be used in the ledger, if there is one."""
        ledger = self._ledger
        for number in range(run.start, run.stop):
            chunk = self._table[number]
            try:
                self._add_chunk(tally, number, chunk, digest.chunks[number - run.start])
            except (CorruptError, SchemaError) as error:
                if ledger is None or isinstance(error, ChangedError):
                    raise
                ledger.skip_chunk(number, error)
                self._bad[number] = chunk.rows

    def _add_together(self, tally: Tally | None, run: slice, digest: RunDigest) -> bool:
        """Add the values of several small chunks. False, and nothing is added, if a chunk cannot be read or has values that
        cannot be used: these chunks are added one by one, so that messages name one."""
        chunks, reader = self._table[run], cast("ReadsTogether", self._reader)
        try:
            found = list(read_together(reader, chunks, self._columns))
            if any(self._unusable(batch) for batch in found):
                return False
        except DataError:
            return False
        for batch in found:
            if tally is not None:
                tally.add(only(batch.column(self._rule.name), self._used(batch)))
            digest.add(self._rule.name, batch.column(self._rule.name))
        return True

    def _add_chunk(self, tally: Tally | None, number: int, chunk: Chunk, digest: ChunkDigest) -> None:
        for batch in _slices(self._reader, chunk, self._columns):
            digest.add(self._rule.name, batch.column(self._rule.name))
            good = np.ones(batch.num_rows, np.bool_)
            for rows, kind in self._unusable(batch):
                good &= ~rows
                self._bad[number] += int(np.count_nonzero(rows))
                self._kinds[kind] = None
                if self._ledger is not None:
                    self._ledger.note(number, f"target {self._rule.name!r} is {kind}")
            if tally is not None:
                tally.add(only(batch.column(self._rule.name), good & self._used(batch)))

    def _used(self, batch: pa.RecordBatch) -> NDArray[np.bool_]:
        """The rows whose weight is not 0."""
        if self._weight is None:
            return np.ones(batch.num_rows, np.bool_)
        used = rows_in_use(single_weights(self._weight, batch.column(self._weight), "the data"))
        return np.ones(batch.num_rows, np.bool_) if used is None else used

    def _unusable(self, batch: pa.RecordBatch) -> list[Unusable]:
        used = self._used(batch)
        found = self._rule.unusable(batch.column(self._rule.name))
        return [(rows & used, kind) for rows, kind in found if (rows & used).any()]


def _runs(reader: Reader, table: ChunkTable) -> Iterator[slice]:
    """Runs of neighbouring chunks that are read in one call: several small ones, or one."""
    if isinstance(reader, ReadsTogether):
        return together(table.rows, table.read_peak_bytes)
    return (slice(i, i + 1) for i in range(len(table)))


def _named_classes(field: pa.Field, task: str, classes: Sequence[str], earlier: Target | None) -> tuple[Any, ...]:
    if task != "classify":
        raise UsageError("--classes: is for classification; leave it out, or give --task classify")
    kind = target_type(field.type)
    if earlier is not None:
        kind = earlier.converts(kind) or kind
    try:
        if pa.types.is_boolean(kind):
            values: Iterable[Any] = {{"true": True, "false": False}[str(c).lower()] for c in classes}
        elif pa.types.is_decimal(kind):
            before = () if earlier is None else earlier.classes
            values = as_classes({Decimal(str(c)) for c in classes}, kind.scale, before).values()
        elif is_number(kind):
            values = {int(c) if pa.types.is_integer(kind) else float(c) for c in classes}
        else:
            values = {str(c) for c in classes}
    except (ValueError, KeyError, TypeError, OverflowError, InvalidOperation):
        given = ", ".join(map(repr, classes))
        raise UsageError(f"--classes {given}: {field.name!r} is {field.type}; give values of that type") from None
    all_classes = with_earlier(values, earlier)
    if len(all_classes) < 2:
        raise UsageError(f"--classes: {len(all_classes)} class given: give at least two")
    return all_classes


def _slices(reader: Reader, chunk: Chunk, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Some columns of a chunk, in blocks of at most 8,192 rows."""
    long = chunk.rows > _SLICE_ROWS
    batches = open_stream(reader, chunk, columns, _SLICE_ROWS) if long else read_columns(reader, chunk, columns)
    for batch in batches:
        for start in range(0, batch.num_rows, _BLOCK_ROWS):
            yield batch.slice(start, _BLOCK_ROWS)
