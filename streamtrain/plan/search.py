"""The search for a plan that fits a budget: the window, then the knobs, best first; and what would be enough if none fits.

Whatever is advised was tried: each number comes from a plan with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product, zip_longest

from streamtrain.memory.sizes import readable_above
from streamtrain.plan.memory_model import (
    READ_BYTES,
    REMOTE_READ_BYTES,
    SLICE_ROWS,
    Demand,
    Knobs,
    Windows,
    planned_terms,
)
from streamtrain.plan.term import Term, fitted

__all__ = ["Search", "total_bytes"]

_LARGE_BATCH_SHARE = 0.1  # of the budget


@dataclass(frozen=True)
class Search:
    """The plans to choose from. threads: the most reads at a time. given: whether the user set the budget. The rest is as in
    `solve`."""

    demand: Demand
    batch: int
    shuffle: bool
    threads: int
    window_rows: int | None
    window_bytes: int | None

    @cached_property
    def windows(self) -> Windows:
        return Windows(self.demand, self.batch, self.shuffle, self.window_rows, self.window_bytes)

    def best(self, budget_bytes: int, *, given: bool) -> tuple[int, Knobs, tuple[tuple[Term, ...], float]]:
        """The window for a budget, the best knobs that fit it, or else the smallest ones, and their terms."""
        window = self.windows.within(budget_bytes) if given else self.windows.rows[0]
        reads = [(REMOTE_READ_BYTES, SLICE_ROWS[0])] if self.demand.is_remote else []
        reads += zip_longest(READ_BYTES, self.demand.slices[: len(READ_BYTES)], fillvalue=SLICE_ROWS[-1])
        reads += [(READ_BYTES[-1], rows) for rows in self.demand.slices[len(READ_BYTES) :]]
        for in_flight, readers, (read_bytes, slice_rows) in product((2, 1), _halved(self.threads), reads):
            knobs = Knobs(self.batch, window, self.shuffle, in_flight, readers, read_bytes, slice_rows)
            terms = planned_terms(self.demand, knobs)
            if total_bytes(fitted(terms[0], budget_bytes)) <= budget_bytes:
                break
        return window, knobs, terms

    def least_bytes(self, window: int) -> int:
        """The least that a window of this many rows takes."""
        knobs = Knobs(self.batch, window, self.shuffle, 1, 1, READ_BYTES[-1], self.demand.slices[-1])
        return total_bytes(planned_terms(self.demand, knobs)[0])

    def enough_bytes(self, budget_bytes: int) -> int:
        """The first budget from this one on that fits. It may be above the peak of the plan that does not fit, because a larger
        budget may mean a larger window."""
        while (peak := self.least_bytes(self.windows.within(budget_bytes))) > budget_bytes:
            budget_bytes = readable_above(peak)
        return budget_bytes

    def smaller(
        self, window: int, budget_bytes: int, batch_bytes: int, *, given: bool
    ) -> tuple[int | None, int | None]:
        """A smaller window, and a smaller batch, that fit the budget; None where there is none. batch_bytes: of a batch now."""
        windows = (n for n in self.windows.smaller(window) if self.least_bytes(n) <= budget_bytes)
        sizes = [self.batch >> power for power in range(1, self.batch.bit_length())]
        if batch_bytes < _LARGE_BATCH_SHARE * budget_bytes:  # smaller batches would hardly help
            sizes = []
        batches = (
            n
            for n in sizes
            if total_bytes(replace(self, batch=n).best(budget_bytes, given=given)[2][0]) <= budget_bytes
        )
        return next(windows, None), next(batches, None)


def total_bytes(terms: Iterable[Term]) -> int:
    return sum(term.bytes for term in terms)


def _halved(threads: int) -> Iterator[int]:
    while threads > 1:
        yield threads
        threads //= 2
    yield 1
