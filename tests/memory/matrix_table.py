"""The table of the memory matrix, as bench/MEMORY.md holds it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matrix_cases import MB
from matrix_more import Measured
from matrix_run import Row

__all__ = ["line", "measured_line", "write"]

PAGE = Path(__file__).parents[2] / "bench" / "MEMORY.md"
BEGIN, END = "<!-- the matrix: written by python tests/memory -->", "<!-- end of the matrix -->"
_NAMES = (
    "layout, learner, threads asked and used, pace, budget MB, planned MB, measured MB, planned / measured, windows, "
    "seconds, outcome"
)
HEAD = f"| {_NAMES.replace(', ', ' | ')} |\n|{' --- |' * len(_NAMES.split(', '))}"

MORE = """| beside the matrix | budget MB | first MB | second MB | second / first | wanted |
| --- | --- | --- | --- | --- | --- |"""


def line(row: Row) -> str:
    """A case as a line of the table."""
    case, found = row.case, row.found
    budget = f"{row.budget / MB:.0f}" + ("" if isinstance(case.budget, int) else " (smallest)")
    layout = case.layout if case.command == "fit" else f"{case.layout}, {case.command}"
    cells = [
        layout, case.learner, f"{case.threads}, {found['threads']}", case.pace, budget,
        f"{found['planned'] / MB:.0f}", f"{found['peak'] / MB:.0f}", f"{row.ratio:.2f}" + (" (!)" if row.dishonest() else ""),
        str(found["windows"]), f"{found['seconds']:.1f}", row.outcome,
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def measured_line(found: Measured) -> str:
    """The same of what is measured beside the matrix."""
    sizes = [f"{size / MB:.0f}" for size in (found.budget, found.first, found.second)]
    wanted = f"more than {found.least:g}" if found.least else f"at most {found.most:g}"
    return f"| {' | '.join([found.what, *sizes, f'{found.share:.3f}', wanted])} |"


def write(rows: Sequence[Row], more: Sequence[Measured]) -> None:
    """Put the table into the page, in place of the one that is there."""
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else f"# Memory, measured\n\n{BEGIN}\n{END}\n"
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    table = "\n".join([HEAD, *map(line, rows), "", MORE, *map(measured_line, more)])
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")
