"""The pass over the target before training starts: only its column is read, slice by slice."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.columns.decimals import as_classes
from streamtrain.columns.differences import Shift
from streamtrain.columns.numbers import as_numbers, first_number, less
from streamtrain.columns.target import (
    Target,
    bad_message,
    is_named,
    named_values,
    not_finite,
    plain_values,
    resolve_task,
    runs,
    single_targets,
    target_type,
)
from streamtrain.errors import BadValueError, ChangedError, CorruptError, DataError, SchemaError, UsageError
from streamtrain.load.digests import ChunkDigest, RunDigest
from streamtrain.load.ledger import Ledger
from streamtrain.plan.together import together
from streamtrain.storage.arrow import is_number, pick
from streamtrain.storage.checked import open_stream, read_columns, read_together
from streamtrain.storage.nested import columns_of
from streamtrain.storage.reader import Chunk, ChunkTable, Reader, ReadsTogether

__all__ = ["survey"]

_MOST_CLASSES = 1000  # distinct integers that count as classes without --task classify
_MOST_COUNTED = 10_000  # distinct values of any type: their counts are in memory
_BLOCK_ROWS = 8192
_BAD_VALUES = "null, NaN or infinite values (or too large for float32)"
_NAMED, _MOST_KEPT = 3, 100  # chunks with bad values: in the message, and counted
_SLICE_ROWS = 8 * _BLOCK_ROWS  # longer chunks are read in slices, so that the pass takes less memory than training


def survey(
    reader: Reader, table: ChunkTable, name: str, *, task: str | None = None, classes: Sequence[str] | None = None,
    ledger: Ledger | None = None, earlier: Target | None = None, digests: NDArray[np.uint64] | None = None,
) -> Target:  # fmt: skip
    """The target with its classes, or its offset and moments; only its column is read.

    digests: to which the digest of the target in each chunk is added, shape (chunks,).
    ledger: chunks that cannot be read, nulls and NaN are entered there and skipped. With ``classes`` and without a ledger
    nothing is read. earlier: the target of an earlier run; its task, offset and classes are kept, and new classes are added.

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
    many = earlier is not None and len(earlier.classes) > _MOST_CLASSES  # --task classify was given then
    tally = _Tally(field, own_task, refuse_many=task is None and not many, earlier=earlier)
    rule = Target(name, own_task)
    for run in _runs(reader, table):
        digest = RunDigest([name], table.rows[run].tolist())
        if run.stop - run.start == 1 or not _add_together(tally, reader, table[run], digest, rule):
            digest = RunDigest([name], table.rows[run].tolist())
            _add_each(tally, reader, table, run, digest, rule, ledger)
        if digests is not None:
            digests[run] += np.array([target for _, target in digest.values()], np.uint64)
    if ledger is not None and ledger.rows == table.total_rows:
        raise CorruptError(f"no row is left: all are skipped, the first because of: {ledger.entries()[0]['error']}")
    return tally.target() if named is None else Target(name, own_task, named, rows=table.total_rows)


def _runs(reader: Reader, table: ChunkTable) -> Iterator[slice]:
    """Runs of neighbouring chunks that are read in one call: several small ones, or one."""
    if isinstance(reader, ReadsTogether):
        return together(table.rows, table.read_peak_bytes)
    return (slice(i, i + 1) for i in range(len(table)))


def _add_each(
    tally: _Tally, reader: Reader, table: ChunkTable, run: slice, digest: RunDigest, rule: Target, ledger: Ledger | None
) -> None:
    """Add the values of chunks one by one; enter what cannot be used in the ledger, if there is one."""
    name = rule.name
    for number in range(run.start, run.stop):
        chunk, bad = table[number], 0
        try:
            bad = _add_chunk(tally, reader, chunk, digest.chunks[number - run.start], rule, skips=ledger is not None)
        except (CorruptError, SchemaError) as error:
            if ledger is None or isinstance(error, ChangedError):
                raise
            ledger.skip_chunk(number, chunk.key, chunk.rows, error)
        if ledger is not None and bad:
            ledger.skip_rows(number, chunk.key, bad, bad_message(name, bad, _BAD_VALUES, chunk.key))


def _add_together(tally: _Tally, reader: Reader, chunks: Sequence[Chunk], digest: RunDigest, rule: Target) -> bool:
    """Add the values of several small chunks. False, and nothing is added, if a chunk cannot be read or has bad values: these
    chunks are added one by one, so that messages name one. rule: the target that says which values are bad."""
    try:
        found = [batch.column(0) for batch in read_together(cast("ReadsTogether", reader), chunks, [rule.name])]
        if any(rule.usable(values) is not None for values in found):
            return False
    except DataError:
        return False
    for values in found:
        tally.add(values, chunks[0].key)
        digest.add(rule.name, values)
    return True


def _add_chunk(tally: _Tally, reader: Reader, chunk: Chunk, digest: ChunkDigest, rule: Target, *, skips: bool) -> int:
    """Add the values of a chunk. skips: whether bad values are skipped; otherwise they are counted as bad. Returns how many
    values were skipped."""
    skipped = 0
    for values in _slices(reader, chunk, rule.name):
        digest.add(rule.name, values)
        good = rule.usable(values) if skips else None
        if good is None:
            tally.add(values, chunk.key)
        else:
            skipped += len(good) - int(np.count_nonzero(good))
            for first, last in runs(good):
                tally.add(values.slice(first, last - first), chunk.key)
    return skipped


def _named_classes(field: pa.Field, task: str, classes: Sequence[str], earlier: Target | None) -> tuple[Any, ...]:
    if task != "classify":
        raise UsageError("--classes: is for classification; leave it out, or give --task classify")
    kind = target_type(field.type)
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
    all_classes = _with_earlier(field.name, values, earlier)
    if len(all_classes) < 2:
        raise UsageError(f"--classes: {len(all_classes)} class given: give at least two")
    return all_classes


def _with_earlier(name: str, values: Iterable[Any], earlier: Target | None) -> tuple[Any, ...]:
    """The classes of these data and those of the earlier target, sorted."""
    before = earlier.classes if earlier is not None else ()
    classes = {*before, *values}
    if len({isinstance(c, str) for c in classes}) > 1:
        old, new = ("text", "numbers") if isinstance(before[0], str) else ("numbers", "text")
        raise UsageError(
            f"target {name!r} holds {new}; the old run's classes are {old} ({', '.join(map(repr, before[:10]))}): cast it first"
        )
    if len({isinstance(c, bool) for c in classes}) > 1:  # false and true are 0 and 1 among numbers
        classes = {int(c) if isinstance(c, bool) else c for c in classes}
    return tuple(sorted(classes))


def _slices(reader: Reader, chunk: Chunk, name: str) -> Iterator[pa.Array]:
    """The values of the target in a chunk, in blocks of at most 8,192 rows."""
    long = chunk.rows > _SLICE_ROWS
    batches = open_stream(reader, chunk, [name], _SLICE_ROWS) if long else read_columns(reader, chunk, [name])
    for batch in batches:
        for start in range(0, batch.num_rows, _BLOCK_ROWS):
            yield batch.column(0).slice(start, _BLOCK_ROWS)


class _Tally:
    """Counts of the classes, or moments of a regression target, and how they differ between blocks."""

    def __init__(self, field: pa.Field, task: str, *, refuse_many: bool, earlier: Target | None = None) -> None:
        kind = target_type(field.type)
        self._scale = kind.scale if pa.types.is_decimal(kind) else None
        self._name, self._task, self._refuse_many, self._earlier = field.name, task, refuse_many, earlier
        self._counts: Counter[Any] = Counter()
        # for each class, the sum over blocks of (rows of the class)^2 / rows
        self._squares: defaultdict[Any, float] = defaultdict(float)
        self._bad_rows = self._bad_chunks = 0
        self._worst: Counter[str] = Counter()  # bad values of the chunks that have most
        self._rows = 0
        self._moments = np.zeros(3)  # of values minus the first: sum, sum of squares, sum over blocks of (sum)^2 / rows
        self._offset: Shift | None = None

    def add(self, values: pa.Array, where: str) -> None:
        values = single_targets(values, self._name, where)
        if values.null_count:
            self._add_bad(values.null_count, where)
            return
        self._rows += len(values)
        if self._task == "regress":
            self._add_numbers(values, where)
        else:
            self._add_classes(values, where)

    def _add_bad(self, rows: int, where: str) -> None:
        """Count bad values of a chunk; only the chunks that have most are kept."""
        self._bad_rows += rows
        self._bad_chunks += where not in self._worst
        self._worst[where] += rows
        if len(self._worst) > _MOST_KEPT:
            self._worst = Counter(dict(self._worst.most_common(_NAMED)) | {where: self._worst[where]})

    def _add_numbers(self, values: pa.Array, where: str) -> None:
        numbers, _ = less(values, 0)
        bad = not_finite(numbers)
        if bad:
            self._add_bad(bad, where)
        elif numbers.size:
            self._offset = first_number(values) if self._offset is None else self._offset
            shifted, _ = less(values, self._offset, np.float64)
            total = shifted.sum()
            self._moments += total, (shifted * shifted).sum(), total * total / len(shifted)

    def _add_classes(self, values: pa.Array, where: str) -> None:
        plain = plain_values(values)
        if is_named(plain):
            named, codes = named_values(plain)
            pairs = [(v, n) for v, n in zip(named, np.bincount(codes, minlength=len(named)).tolist(), strict=True) if n]
        else:
            distinct, counted = np.unique(as_numbers(plain), return_counts=True)
            if distinct.dtype.kind == "f" and not np.isfinite(distinct).all():
                self._add_bad(int(counted[~np.isfinite(distinct)].sum()), where)
                return
            pairs = list(zip(distinct.tolist(), counted.tolist(), strict=True))
        for value, n in pairs:
            self._counts[value] += n
            self._squares[value] += n * n / len(values)
        if len(self._counts) > _MOST_COUNTED:
            raise DataError(
                f"target {self._name!r} has more than {_MOST_COUNTED:,} distinct values: too many classes; numbers can be "
                "learned with --task regress"
            )
        if self._refuse_many and len(self._counts) > _MOST_CLASSES and not isinstance(pairs[0][0], str):
            raise DataError(
                f"target {self._name!r} is an integer with more than {_MOST_CLASSES:,} distinct values: "
                "give --task classify or --task regress"
            )

    def target(self) -> Target:
        if self._bad_rows:
            chunks = [f"{key} ({n:,})" for key, n in self._worst.most_common(_NAMED)]
            more = f" and {self._bad_chunks - _NAMED:,} more" if self._bad_chunks > _NAMED else ""
            raise BadValueError(bad_message(self._name, self._bad_rows, _BAD_VALUES, ", ".join(chunks) + more))
        if self._task == "regress":
            total, squares, between = self._moments.tolist()
            variance = squares - total * total / max(1, self._rows)
            clustering = (between - total * total / max(1, self._rows)) / variance if variance > 0 else 0.0
            deviation, offset = float(np.sqrt(max(variance, 0) / max(1, self._rows))), self._offset or 0.0
            far = abs(float(offset)) > max(1e4 * deviation, 65_536)
            offset = self._earlier.offset if self._earlier is not None else offset if far else 0.0
            return Target(self._name, "regress", rows=self._rows, clustering=_unit(clustering), offset=offset)
        if self._scale is not None:
            forms = as_classes(self._counts, self._scale, () if self._earlier is None else self._earlier.classes)
            self._counts = Counter({forms[number]: n for number, n in self._counts.items()})
            self._squares = defaultdict(float, {forms[number]: n for number, n in self._squares.items()})
        classes = _with_earlier(self._name, self._counts, self._earlier)
        if len(classes) < 2 or not self._counts:
            only = f"only {next(iter(self._counts))!r}" if self._counts else "none"
            raise DataError(f"target {self._name!r} has one class ({only}): a classifier needs at least two classes")
        shares = np.array([self._counts[c] for c in classes]) / self._rows
        within = np.array([self._squares[c] for c in classes]) / self._rows
        variance = float((shares * (1 - shares)).sum())  # 0 if all rows have the same class
        clustering = float((within - shares**2).sum()) / variance if variance else 0.0
        counts = tuple(self._counts[c] for c in classes)
        return Target(self._name, "classify", classes, counts, self._rows, _unit(clustering))


def _unit(x: float) -> float:
    """A share: at least 0, at most 1, rounded to 6 digits."""
    return round(float(min(1.0, max(0.0, x))), 6)
