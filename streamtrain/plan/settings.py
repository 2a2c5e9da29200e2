"""Settings of the plan: the order of rows, the sizes, and the budget."""

from __future__ import annotations

from dataclasses import dataclass

from streamtrain.memory.sizes import parse_budget
from streamtrain.options import option

__all__ = ["PlanSettings", "read_memory"]


def read_memory(size: float | str | None) -> float | str | None:
    """The budget, unchanged. Raises SizeError for an invalid one."""
    if size is not None:
        parse_budget(size)
    return size


@dataclass(frozen=True)
class PlanSettings:
    """The order of rows, the sizes, and the budget."""

    batch_size: int | None = option(
        None,
        "Rows a step.",
        group="learning",
        least=1,
        otherwise="by the number of rows, 16 to 1024",
        resume="resolved",
    )
    window_rows: int | None = option(
        None, "Rows shuffled together.", group="learning", least=1, otherwise="by the data and --memory",
        resume="resolved",
    )  # fmt: skip
    shuffle: bool = option(
        True, "Shuffle the rows, window by window.", group="learning", flag="--no-shuffle",
        flag_help="Keep the order of the data.",
    )  # fmt: skip
    seed: int = option(0, "Seed of the order.", group="learning", least=0)
    memory: float | str | None = option(
        None, "Budget for the whole process: 512MB, 2GiB.", group="memory and speed", metavar="SIZE",
        otherwise="half of what is available", read=read_memory, resume="free",
    )  # fmt: skip
    threads: int | None = option(
        None, "Reads at the same time.", group="memory and speed", least=1, otherwise="2", resume="free"
    )
