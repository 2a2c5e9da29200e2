"""Which cases the memory matrix runs: few enough to run, so many that every pair of levels meets in one of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["CASES", "FACTORS", "SHORT", "SMALLEST", "Case", "covering_array", "pairs"]

MB = 10**6
SMALLEST = "smallest plan"  # a budget of 1.05 times the smallest plan's

FACTORS: dict[str, tuple[object, ...]] = {
    "layout": (
        "groups-1k",
        "groups-100k",
        "group-4M",
        "columns-5000",
        "one-file",
        "files-2000",
        "strings",
        "zarr-100",
        "zarr-500k",
        "zarr-sharded",
        "custom",
    ),
    "learner": ("logistic", "softmax", "squared"),
    "threads": (1, 2, 8),
    "budget": (SMALLEST, 400 * MB, 1000 * MB),
    "pace": ("fast", "slow"),
}

Pair = tuple[tuple[str, object], tuple[str, object]]


@dataclass(frozen=True)
class Case:
    layout: str
    learner: str
    threads: int
    budget: object
    pace: str
    command: str = "fit"  # or predict, with a model that was learned from the same data

    @property
    def name(self) -> str:
        budget = self.budget if isinstance(self.budget, str) else f"{int(str(self.budget)) // MB} MB"
        command = "" if self.command == "fit" else f", {self.command}"
        return f"{self.layout}, {self.learner}, {self.threads} threads, {budget}, {self.pace}{command}"


def pairs(row: Mapping[str, object]) -> set[Pair]:
    """Every two levels of different factors that stand in a row.

    >>> sorted(pairs({"a": 1, "b": 2}))
    [(('a', 1), ('b', 2))]
    """
    return set(itertools.combinations(row.items(), 2))


def covering_array(factors: Mapping[str, Sequence[object]], *, seed: int, tries: int = 20) -> list[dict[str, object]]:
    """Rows of one level for each factor, such that any two levels of different factors stand together in one of them.

    Greedy, after Cohen et al. 1997 ("The AETG system"): each row is the best of several that are built around a pair
    that is still missing, factors in random order, each level the one that adds most.

    >>> len(covering_array({"a": [0, 1], "b": [0, 1], "c": [0, 1]}, seed=0))
    4
    """
    rng = np.random.default_rng(seed)
    names, rows = list(factors), []
    missing = {((f, a), (g, b)) for f, g in itertools.combinations(names, 2) for a in factors[f] for b in factors[g]}

    def gain(row: Mapping[str, object]) -> int:
        return len(pairs({n: row[n] for n in names if n in row}) & missing)

    def build() -> dict[str, object]:
        first = sorted(missing, key=repr)[rng.integers(len(missing))]
        row = dict(first)
        for name in rng.permutation([n for n in names if n not in row]).tolist():
            levels = [factors[name][i] for i in rng.permutation(len(factors[name]))]
            row[name] = max(levels, key=lambda level, name=name: gain(row | {name: level}))  # type: ignore[misc]
        return {name: row[name] for name in names}

    while missing:
        best = max((build() for _ in range(tries)), key=gain)
        missing -= pairs(best)
        rows.append(best)
    return sorted(rows, key=lambda row: [list(factors[n]).index(row[n]) for n in names])


#: the array that takes least time, of four hundred
_COVERING = [Case(**row) for row in covering_array(FACTORS, seed=348)]  # type: ignore[arg-type]
#: a plan without room to spare, run to its end, for layouts where the array has none
_TIGHT = [
    Case(str(layout), "logistic", 8, SMALLEST, "fast")
    for layout in FACTORS["layout"]
    if not any((c.layout, c.budget, c.pace) == (layout, SMALLEST, "fast") for c in _COVERING)
]
#: small budgets that must do
_SMALL = [
    Case("groups-100k", "logistic", 2, 220 * MB, "fast"),
    Case("group-2M", "logistic", 2, 300 * MB, "fast"),
    Case("deleted", "logistic", 2, 400 * MB, "fast"),
    Case("deleted", "logistic", 2, SMALLEST, "fast"),
]
#: what the preparation takes: categories, texts, missing numbers, many classes or targets; learned or predicted, without room
#: to spare
_PREPARED = [
    Case(layout, learner, 2, SMALLEST, "fast", command)
    for layout, learner, command in (
        ("categories", "logistic", "fit"),
        ("sentences", "logistic", "predict"),
        ("kdd", "softmax", "predict"),
        ("missing-40", "logistic", "fit"),
        ("targets", "several", "fit"),
        ("targets", "several", "predict"),
    )
]
_LAYOUTS = [*FACTORS["layout"], "group-2M", "deleted"]
CASES = [*sorted([*_COVERING, *_TIGHT, *_SMALL], key=lambda case: _LAYOUTS.index(case.layout)), *_PREPARED]

#: the short look that CI takes: rows in Parquet, text, and Zarr, each in the smallest budget that its plan fits
SHORT = [
    case
    for case in CASES
    if case.layout in ("groups-1k", "strings", "zarr-sharded")
    and (case.learner, case.budget, case.pace) == ("logistic", SMALLEST, "fast")
]
