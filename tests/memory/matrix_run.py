"""Runs cases of the memory matrix, each in a process of its own, and says what is wrong with what it measured.

The peak is ``VmHWM`` of ``/proc/PID/status``, read from outside: every 50 ms while the process runs, because a run resets
it when it starts, and at its end. (A new process starts with a VmHWM of its own; ``ru_maxrss`` would be inherited.)
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matrix_cases import MB, SMALLEST, Case
from matrix_data import LAYOUTS

__all__ = ["Matrix", "Row", "run_child", "smallest_plan"]

HERE = Path(__file__).parent
SIZES = (160 * MB, 240 * MB, 400 * MB, 1000 * MB)  # budgets that data is made for: five times as much decoded
TIMES = 5
MOST_OVER_PLANNED = 1.5
NOTHING = {"planned": 0, "rows": 0, "rows_seen": 0, "windows": 0, "threads": 0, "seconds": 0.0, "enough": None}
_POLL_SECONDS = 0.05


def run_child(asked: Mapping[str, Any], *, hook: str = "", timeout: float = 300) -> dict[str, Any]:
    """What `matrix_child` says of one run, and the peak as seen from outside."""
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "MATRIX_HOOK": hook, "PYTHONPATH": path}
    child = subprocess.Popen(
        [sys.executable, str(HERE / "matrix_child.py"), json.dumps(asked)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    over, peaks = threading.Event(), [0]

    def watch() -> None:
        while not over.wait(_POLL_SECONDS):
            peaks.append(_peak_of(child.pid))

    watcher, killer = threading.Thread(target=watch), threading.Timer(timeout, child.kill)
    watcher.start()
    killer.start()
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        peaks.append(_peak_of(child.pid))
        _, errors = child.communicate()
    finally:
        over.set()
        killer.cancel()
        watcher.join()
    found: dict[str, Any] = json.loads(line) if line else dict(NOTHING)
    if not line:
        found["outcome"] = f"failed: exit code {child.returncode}: {errors[-3000:]}"
    return found | {"peak": max(found.get("peak", 0), *peaks)}


def _peak_of(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def smallest_plan(asked: Mapping[str, Any]) -> int:
    """The smallest budget that is accepted, by the advice of refusals: a second one may follow the pass over the target,
    when the classes are known. Each is asked of a process of its own, as the run will be one."""
    budget = MB
    for _ in range(5):
        found = run_child({**asked, "memory": budget, "mode": "plan"})
        if "fits" not in found:
            raise AssertionError(f"{dict(asked)}: {found['outcome']}")
        if found["fits"]:
            return budget
        budget = found["enough"]
    raise AssertionError(f"{dict(asked)}: the advised budget is refused again and again")


@dataclass
class Row:
    """What one case measured. enough: the budget that a refusal advised, and what a run within it took."""

    case: Case
    budget: int
    decoded: int
    found: dict[str, Any]
    advised: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        return float(self.found["planned"] / max(1, self.found["peak"]))

    @property
    def outcome(self) -> str:
        return str(self.found["outcome"]).split(":")[0]

    def breaches(self) -> list[str]:
        """What the promise says and the case does not keep; nothing where all is well."""
        found, wrong = self.found, []
        if found["peak"] > self.budget and self.outcome != "refused":
            wrong.append(f"took {found['peak']:,} of {self.budget:,} bytes")
        if self.outcome == "refused":
            return self._refusal_breaches()
        wanted = "done" if self.case.pace == "fast" else "stopped"
        if self.outcome != wanted:
            wrong.append(f"{found['outcome']}, not {wanted}")
        if wanted == self.outcome == "done" and found["rows_seen"] != found["rows"]:
            wrong.append(f"{found['rows_seen']:,} rows seen of {found['rows']:,}")
        if self.decoded < TIMES * self.budget and self.case.pace == "fast" and not LAYOUTS[self.case.layout].few:
            wrong.append(f"{self.decoded:,} bytes decoded are less than {TIMES} times the budget")
        return wrong

    def _refusal_breaches(self) -> list[str]:
        """A refusal counts where the smallest plan truly exceeds the budget. That plan is run, with the budget that the
        refusal advises: it must come to its end within that, and must not be padded beyond what any plan may be (1.5
        times what it took), so that it cannot have met a budget of two thirds of it."""
        found = self.advised
        if self.case.budget == SMALLEST:
            return ["the smallest plan was refused"]
        if not str(found["outcome"]).startswith(("done", "stopped")) or found["peak"] > self.found["enough"]:
            return [f"refused, and with the advised {self.found['enough']:,}: {found['outcome']}, {found['peak']:,}"]
        if found["peak"] * MOST_OVER_PLANNED <= self.budget:
            return [f"refused, though the smallest plan takes only {found['peak']:,}"]
        return []

    def dishonest(self) -> str:
        """How the plan misses 1.0 to 1.5 times the measured peak, or nothing."""
        if self.outcome == "refused" or 1.0 <= self.ratio <= MOST_OVER_PLANNED:
            return ""
        return f"planned {self.ratio:.2f} times what was measured"


class Matrix:
    """Runs cases, ``jobs`` at a time, over data that is made when it is first needed and removed when it no longer is."""

    def __init__(self, folder: Path, cases: Iterable[Case], *, jobs: int = 2) -> None:
        self._folder = folder
        self._pool = ThreadPoolExecutor(jobs)
        self._lock = threading.Lock()
        self._making: dict[Path, threading.Lock] = {}
        self.rows: dict[Case, Future[Row]] = {}
        self._left: dict[str, int] = {}
        cases = list(cases)
        for case in cases:
            self._left[case.layout] = self._left.get(case.layout, 0) + 1
        for case in cases:
            self.rows[case] = self._pool.submit(self._run, case)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        for layout in self._left:
            self._remove(layout)

    def _run(self, case: Case) -> Row:
        try:
            return run_case(case, self._data)
        finally:
            with self._lock:
                self._left[case.layout] -= 1
                unused = not self._left[case.layout]
            if unused:
                self._remove(case.layout)

    def _data(self, layout: str, budget: int) -> str:
        """Where data of at least five times the budget is."""
        made = LAYOUTS[layout]
        size = SIZES[-1] if made.any_size else next(size for size in SIZES if budget <= size)
        path = self._folder / f"{layout}-{size // MB}"
        with self._lock:
            making = self._making.setdefault(path, threading.Lock())
        with making:
            if not path.exists():
                script = [sys.executable, str(HERE / "matrix_data.py"), layout, str(path), str(TIMES * size)]
                subprocess.run(script, check=True, timeout=120)
        return f"{made.scheme}{path}"

    def _remove(self, layout: str) -> None:
        for path in self._folder.glob(f"{layout}-*"):
            shutil.rmtree(path, ignore_errors=True)


def run_case(case: Case, data: Callable[[str, int], str]) -> Row:
    """One case. data: (layout, budget) -> the path of data that is large enough for it."""
    asked = {"learner": case.learner, "threads": case.threads, "pace": case.pace, "width": LAYOUTS[case.layout].columns}
    if case.command == "predict":
        asked |= {"command": "predict", "run": _model(case, asked, data)}
    budget = case.budget if isinstance(case.budget, int) else _smallest_budget(case.layout, asked, data)
    asked["data"] = data(case.layout, budget)
    found = run_child(asked | {"memory": budget})
    row = Row(case, budget, found["rows"] * LAYOUTS[case.layout].columns * 4, found)
    if row.outcome == "refused":
        row.advised = run_child(asked | {"memory": found["enough"]})
    return row


def _model(case: Case, asked: Mapping[str, Any], data: Callable[[str, int], str]) -> str:
    """The folder of a model for a case that predicts."""
    path = data(case.layout, SIZES[0])
    folder = tempfile.mkdtemp(prefix=f"{case.layout}-run-", dir=Path(path).parent)
    fitted = run_child({**asked, "data": path, "memory": 2 * SIZES[-1], "out": f"{folder}/run"})
    assert fitted["outcome"] == "done", fitted["outcome"]
    return f"{folder}/run"


def _smallest_budget(layout: str, asked: Mapping[str, Any], data: Callable[[str, int], str]) -> int:
    """1.05 times the smallest plan's, for data that is large enough for that budget."""
    for size in SIZES:
        budget = int(1.05 * smallest_plan({**asked, "data": data(layout, size)}))
        if budget <= size:
            return budget
    raise AssertionError(f"{layout}: the smallest plan takes {budget:,} bytes")
