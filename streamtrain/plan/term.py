"""A term of the memory plan: bytes that one part of the program takes, as a value.

Each part states its own terms: the loader's are in `memory_model`, the others in `prepare`, `learn`, `metrics`, `runs` and
`tools`. Plans, refusals, reports, profiles and the plan for validation data are made from the terms alone, so that a new term
appears in all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from streamtrain.errors import BudgetRefused
from streamtrain.memory.sizes import format_bytes, predicted_peak, readable_above, sorted_terms

__all__ = [
    "STAGES",
    "MemoryPlan",
    "Stage",
    "Term",
    "baseline_term",
    "bytes_by_name",
    "fitted",
    "with_margin",
    "with_peak",
]

Stage = Literal[
    "baseline", "reading", "windows", "preparation", "batches", "learner", "scores", "checkpoint", "output", "other"
]
#: the stages of a profile, in the order in which data pass them, and what each is
STAGES: dict[Stage, str] = {
    "baseline": "Python and its libraries",
    "reading": "reads under way, and files that are open",
    "windows": "rows held to be shuffled",
    "preparation": "running statistics of the columns, and the values that have a slot",
    "batches": "rows that the learner sees at once",
    "learner": "the model that learns",
    "scores": "running metrics, and the validation data",
    "checkpoint": "a copy of the state while it is written",
    "output": "predictions and copied rows on their way to a file",
    "other": "what no stage accounts for",
}
_MARGIN_BYTES, _MARGIN_SHARE = 8 * 10**6, 0.04  # interpreter and allocator noise; a stated guess, measured in bench/
_BETWEEN_PROCESSES_BYTES = 2 * 10**6  # of the margin: two processes that do the same differ by less (0.4 MB measured)


@dataclass(frozen=True, slots=True)
class Term:
    """One line of the memory plan: memory that one part of the program holds at once for one purpose.

    name: the label in plans and reports, which show the sum of the terms with the same name. bytes: the most that it takes.
    stage: the heading of the profile that it is shown under, one of `STAGES`. for_validation: whether scoring validation data
    needs this memory a second time, while that of the training data is still held.
    """

    name: str
    bytes: int
    stage: Stage
    for_validation: bool = False


def baseline_term(size: int) -> Term:
    """The process before any data."""
    return Term("baseline", size, "baseline")


def bytes_by_name(terms: Iterable[Term]) -> dict[str, int]:
    """The bytes of each name, in the order in which the names come first.

    >>> bytes_by_name([Term("footers", 5, "reading"), Term("reads", 1, "reading"), Term("footers", 2, "output")])
    {'footers': 7, 'reads': 1}
    """
    sums: dict[str, int] = {}
    for term in terms:
        sums[term.name] = sums.get(term.name, 0) + term.bytes
    return sums


def with_margin(terms: Iterable[Term]) -> tuple[Term, ...]:
    """The terms, and 8 MB and 4 % of their sum for the interpreter and the allocators.

    >>> [term.bytes for term in with_margin([Term("baseline", 100_000_000, "baseline")])]
    [100000000, 12000000]
    """
    every = tuple(terms)
    return *every, Term("margin", int(_MARGIN_BYTES + _MARGIN_SHARE * sum(term.bytes for term in every)), "other")


def fitted(terms: tuple[Term, ...], budget_bytes: int) -> tuple[Term, ...]:
    """The terms of `with_margin`, with a margin that makes their sum a figure that `format_bytes` shows in full. If the budget
    is below that, their sum is the budget, as long as this takes no more than 2 MB of the margin. So the peak that one process
    plans is enough as the budget of another.

    >>> terms = with_margin([Term("baseline", 101_000_000, "baseline")])
    >>> [sum(term.bytes for term in fitted(terms, budget)) for budget in (10**9, 112_500_000, 110_000_000)]
    [114000000, 112500000, 114000000]
    """
    least = sum(term.bytes for term in terms)
    peak = readable_above(least)
    if least - _BETWEEN_PROCESSES_BYTES <= budget_bytes < peak:
        peak = budget_bytes
    return with_peak(terms, peak)


def with_peak(terms: tuple[Term, ...], peak_bytes: int) -> tuple[Term, ...]:
    """The terms of `with_margin`, with a margin that makes their sum ``peak_bytes``."""
    *others, margin = terms
    return *others, replace(margin, bytes=margin.bytes + peak_bytes - sum(term.bytes for term in terms))


@dataclass(frozen=True)
class MemoryPlan(ABC):
    """Terms, and the budget that they must fit.

    budget_given: whether the user set the budget; otherwise it is half of the memory that was available.
    """

    budget_bytes: int
    budget_given: bool
    terms: tuple[Term, ...]

    @property
    def term_bytes(self) -> dict[str, int]:
        """The bytes of every term, by name."""
        return bytes_by_name(self.terms)

    @property
    def peak_bytes(self) -> int:
        """The predicted peak of the whole process."""
        return predicted_peak(self.term_bytes)

    @property
    def stage_bytes(self) -> dict[Stage, int]:
        """The bytes of every stage that takes memory, in the order of `STAGES`."""
        sums = {stage: sum(term.bytes for term in self.terms if term.stage == stage) for stage in STAGES}
        return {stage: size for stage, size in sums.items() if size}

    @property
    def baseline_bytes(self) -> int:
        """The process before any data."""
        return self.stage_bytes.get("baseline", 0)

    @property
    def fits(self) -> bool:
        return self.peak_bytes <= self.budget_bytes

    def require_fits(self) -> None:
        """Raise BudgetRefused unless the plan fits. The message lists every term, largest first, and what would help."""
        if self.fits:
            return
        sizes = self.term_bytes
        width = max(map(len, sizes))
        source = "the budget of" if self.budget_given else "half of the memory that is available now,"
        excess = format_bytes(self.peak_bytes - self.budget_bytes)
        raise BudgetRefused(
            "\n".join(
                [
                    f"the plan needs {format_bytes(self.peak_bytes)}, {excess} more than {source} "
                    f"{format_bytes(self.budget_bytes)}:",
                    *(f"  {name:<{width}}  {format_bytes(size):>8}" for name, size in sorted_terms(sizes)),
                    f"What would help: {self.advice()}",
                ]
            )
        )

    @abstractmethod
    def advice(self) -> str:
        """What would make the plan fit, and what was read so far. The end of a refusal."""
