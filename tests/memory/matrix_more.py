"""What the memory promise says beside the matrix: many rows and many epochs take no more, and the gate is what holds it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matrix_cases import MB
from matrix_data import LAYOUTS, make
from matrix_run import TIMES, run_child, smallest_plan

__all__ = ["MEASUREMENTS", "Measured", "epochs", "gate", "rows"]

LAYOUT = "small-groups"


@dataclass(frozen=True)
class Measured:
    """Two peaks that belong together, the second as a share of the first, and what it must be (at most, or more than)."""

    what: str
    budget: int
    first: int
    second: int
    most: float = float("inf")
    least: float = 0.0

    @property
    def share(self) -> float:
        return self.second / self.first

    @property
    def holds(self) -> bool:
        return self.least < self.share <= self.most


def _run(asked: dict[str, Any], **more: Any) -> dict[str, Any]:
    found = run_child(asked | more)
    assert found["outcome"] == "done" and found["rows_seen"] % found["rows"] == 0, found["outcome"]
    return found


def rows(folder: Path, *, budget: int = 180 * MB) -> Measured:
    """Twenty times the rows, in the same row groups, with the same window: within 2 % of the base's peak."""
    make(LAYOUT, folder, TIMES * budget)
    asked: dict[str, Any] = {"data": str(folder), "learner": "logistic", "threads": 2, "memory": budget}
    asked["settings"] = {"window_rows": 100_000}
    base = _run(asked)
    assert base["rows"] * LAYOUTS[LAYOUT].columns * 4 >= TIMES * budget
    large = _run(asked | {"data": f"repeated://{folder}?20"})
    assert large["rows"] == 20 * base["rows"] and large["peak"] <= budget
    shutil.rmtree(folder)
    return Measured("20 times the rows / base", budget, base["peak"], large["peak"], most=1.02)


def epochs(folder: Path, *, budget: int = 180 * MB) -> Measured:
    """Fifty epochs: growth after the second under 1 %."""
    make(LAYOUT, folder, 100 * MB)
    asked: dict[str, Any] = {"data": str(folder), "learner": "logistic", "threads": 2, "memory": budget}
    found = _run(asked, settings={"window_rows": 100_000, "epochs": 50})
    assert found["rows_seen"] == 50 * found["rows"] and found["windows"] > 5
    shutil.rmtree(folder)
    return Measured("50 epochs / 2 epochs", budget, found["epochs"]["2"], found["peak"], most=1.01)


def gate(folder: Path) -> Measured:
    """Sixty-four threads read at once (see `matrix_child`), from a store that takes its time. The gate lets as many of them
    in as were planned, one: the run stays in its budget. Without the gate it does not."""
    make("custom", folder, 400 * MB)
    settings = {"window_rows": 1_200_000}
    asked: dict[str, Any] = {
        "data": f"tiles://{folder}?slow",
        "learner": "logistic",
        "threads": 1,
        "settings": settings,
    }
    budget = int(1.05 * smallest_plan(asked))
    asked |= {"memory": budget, "settings": settings | {"on_overrun": "warn"}}
    held, free = (run_child(asked, hook=hook)["peak"] for hook in ("gate", "no-gate"))
    assert held <= budget, (held, budget)
    shutil.rmtree(folder)
    return Measured("64 threads, no gate / budget", budget, budget, free, least=1.0)


MEASUREMENTS = (rows, epochs, gate)
