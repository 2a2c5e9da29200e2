"""Rows sorted by target, out of core: write sorted runs to disk once, then merge them bucket by bucket.

A run is about 8 MB of rows in a stable sort by target. In a sorted run the rows of a bucket (one class, or one quantile of a
numeric target) are adjacent, so reading a bucket takes one short read from each run. The result is the stable sort of all rows
by target. It takes the memory of about two runs, and at most twice the disk space of the decoded rows until the last row is
written. (One pass over the blocks for each class would need no disk, but a numeric target would need a pass for every 8 MB.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import BufferedRandom
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

from streamtrain.tools.make.problems import Piece, Problem

__all__ = ["sorted_pieces"]

RUN_BYTES = 8 * 2**20
Records = NDArray[np.void]


def sorted_pieces(pieces: Iterable[Piece], problem: Problem, rows: int, spill: Path) -> Iterator[Piece]:
    """Yield the ``rows`` rows of the pieces in a stable sort by target. spill: a folder for temporary files."""
    kind = np.dtype([("x", np.float32, (problem.columns,)), ("y", problem.target_type)])
    edges = problem.edges(-(-rows * kind.itemsize // RUN_BYTES))
    with open(spill / "runs", "w+b") as runs, open(spill / "cuts", "w+b") as cuts:
        starts = _spill(pieces, edges, kind, runs, cuts)
        for bucket in range(len(edges) - 1):
            slices = _slices(bucket, starts, len(edges), cuts)
            if problem.task == "classify":  # all targets are equal: every slice is already sorted
                yield from (_columns(_read(runs, kind, [one])) for one in slices)
            else:
                yield _columns(_by_target(_read(runs, kind, list(slices))))


def _spill(
    pieces: Iterable[Piece], edges: NDArray[np.float64], kind: DTypeLike, runs: BufferedRandom, cuts: BufferedRandom
) -> list[int]:
    """Write the runs, and where the buckets of each begin. Returns the first record of every run."""
    starts, total = [], 0
    for run in _runs(pieces, np.dtype(kind)):
        run = _by_target(run)
        np.searchsorted(run["y"], edges).astype(np.int64).tofile(cuts)
        run.tofile(runs)
        starts.append(total)
        total += len(run)
    return starts


def _runs(pieces: Iterable[Piece], kind: np.dtype[np.void]) -> Iterator[Records]:
    """Yield the rows as records, about 8 MB at a time."""
    parts: list[Records] = []
    for x, y in pieces:
        part = np.empty(len(y), kind)
        part["x"], part["y"] = x.T, y
        parts.append(part)
        if sum(p.nbytes for p in parts) >= RUN_BYTES:
            yield np.concatenate(parts)
            parts = []
    if parts:
        yield np.concatenate(parts)


def _slices(bucket: int, starts: list[int], edges: int, cuts: BufferedRandom) -> Iterator[tuple[int, int]]:
    """Yield (first record, number of records) of a bucket in every run. The cuts stay on disk: there are runs x buckets."""
    for run, start in enumerate(starts):
        cuts.seek(8 * (run * edges + bucket))
        first, last = np.frombuffer(cuts.read(16), np.int64).tolist()
        if last > first:
            yield start + first, last - first


def _read(runs: BufferedRandom, kind: DTypeLike, slices: list[tuple[int, int]]) -> Records:
    """Read the records of the slices into one array, in order."""
    records = np.empty(sum(count for _, count in slices), kind)
    view, at = records.view(np.uint8).data, 0
    size = records.itemsize
    for first, count in slices:
        runs.seek(first * size)
        at += runs.readinto(view[at : at + count * size])
    if at != records.nbytes:
        raise OSError(f"the spill file {runs.name} is shorter than what was written to it")
    return records


def _by_target(records: Records) -> Records:
    return records[np.argsort(records["y"], kind="stable")]


def _columns(records: Records) -> Piece:
    return records["x"].T, records["y"]
