"""One case of the memory matrix, in a process of its own: `streamtrain.fit`, then one line of JSON on stdout, then a wait
for the end of stdin, so that whoever started it can read ``VmHWM`` from outside.

    python tests/memory/matrix_child.py '{"data": "...", "learner": "logistic", "memory": 200000000, "threads": 2}'

With ``MATRIX_HOOK=gate`` in the environment as many threads read as there are pieces, and only the byte gate holds them;
with ``MATRIX_HOOK=no-gate`` not even that does. Nothing in the product knows of either.

``"command": "predict"`` predicts with the model in the folder ``"run"``, and a fit with ``"out"`` leaves one there.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

SLEEP_SECONDS, SLOW_BATCHES = 0.05, 200
TARGETS: dict[str, str | list[str]] = {
    "logistic": "two",
    "softmax": "hundred",
    "squared": "number",
    "several": [f"number{i}" for i in range(5)],
}
HOOK_THREADS = 64


def status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


class Stopped(Exception):
    """The slow learner has seen its batches; or the plan, for which alone was asked, is made."""


def slow(learner: Any) -> Any:
    """The learner, but every batch takes 50 ms more, and after 200 of them it stops the run."""

    class Slow:
        batches = 0

        def learn(self, batch: Any) -> None:
            learner.learn(batch)
            time.sleep(SLEEP_SECONDS)
            self.batches += 1
            if self.batches == SLOW_BATCHES:
                raise Stopped

        def __getattr__(self, name: str) -> Any:
            return getattr(learner, name)

        predict, state_dict, load_state_dict = learner.predict, learner.state_dict, learner.load_state_dict
        state_bytes = property(lambda self: learner.state_bytes)

    return Slow()


class TileReader:
    """A reader of somebody's own: chunks of 60,000 rows of 40 columns and the targets, made of a small tile.

    ``tiles://FOLDER`` has the number of rows in the file ``rows``; with ``?slow`` a read takes 50 ms longer, as over a
    network.
    """

    ROWS, TILE = 60_000, 6_000

    def __init__(self, url: str) -> None:
        import numpy as np
        import pyarrow as pa
        from matrix_data import COLUMNS, numbers, targets

        path, _, self.slow = url.removeprefix("tiles://").partition("?")
        self.rows = int((Path(path) / "rows").read_text())
        self.tile = {name: np.asarray(v) for name, v in (numbers(self.TILE, COLUMNS) | targets(self.TILE)).items()}
        self.schema = pa.schema([(name, pa.from_numpy_dtype(v.dtype)) for name, v in self.tile.items()])

    def chunks(self) -> Any:
        from streamtrain import Chunk

        bytes_of = {n: n * sum(v.itemsize for v in self.tile.values()) for n in (self.ROWS, self.rows % self.ROWS)}
        sizes = [(start, min(self.ROWS, self.rows - start)) for start in range(0, self.rows, self.ROWS)]
        return [Chunk(str(start), n, bytes_of[n], bytes_of[n] + 500_000) for start, n in sizes]

    def read(self, chunk: Any, columns: Any) -> Any:
        import numpy as np
        import pyarrow as pa

        arrays = []
        for name in columns:
            values = np.empty(chunk.rows, self.tile[name].dtype)
            for start in range(0, chunk.rows, self.TILE):
                values[start : start + self.TILE] = self.tile[name][: chunk.rows - start]
            arrays.append(pa.array(values))
        time.sleep(SLEEP_SECONDS if self.slow else 0)
        return pa.record_batch(arrays, schema=pa.schema([self.schema.field(name) for name in columns]))

    def fingerprint(self) -> str:
        return f"tiles-{self.rows}"


class RepeatedReader:
    """``repeated://FOLDER?20`` has the rows of a folder twenty times: links to its files would be read once."""

    def __init__(self, url: str) -> None:
        from streamtrain import ChunkTable, open_reader

        path, _, times = url.removeprefix("repeated://").partition("?")
        self.reader, self.times = open_reader(path), int(times)
        self.schema, self.once = self.reader.schema, ChunkTable.of(self.reader.chunks())

    def chunks(self) -> Any:
        import numpy as np

        from streamtrain import ChunkTable

        sizes = (self.once.rows, self.once.decoded_bytes, self.once.read_peak_bytes)
        n = len(self.once)
        return ChunkTable(lambda i: f"{i // n}/{self.once[i % n].key}", *(np.tile(size, self.times) for size in sizes))

    @staticmethod
    def _inner(chunk: Any) -> Any:
        return replace(chunk, key=chunk.key.partition("/")[2])

    def read(self, chunk: Any, columns: Any) -> Any:
        return self.reader.read(self._inner(chunk), columns)

    def stream(self, chunk: Any, columns: Any, rows: int) -> Any:
        return self.reader.stream(self._inner(chunk), columns, rows)  # type: ignore[attr-defined]

    def stream_peak_bytes(self, chunk: Any, rows: int) -> int:
        return int(self.reader.stream_peak_bytes(self._inner(chunk), rows))  # type: ignore[attr-defined]

    def fingerprint(self) -> str:
        return f"{self.times} x {self.reader.fingerprint()}"


def watch_plans(*, stop: bool = False) -> list[Any]:
    """Every plan that is checked from now on, accepted or refused. stop: raise Stopped then."""
    from streamtrain.plan import Plan

    plans: list[Any] = []
    check = Plan.require_fits

    def require_fits(plan: Any) -> None:
        plans.append(plan)
        if stop:
            raise Stopped
        check(plan)

    Plan.require_fits = require_fits  # type: ignore[method-assign]
    return plans


def hook(what: str) -> None:
    """See the head of this file."""
    import streamtrain.load.prefetch as fill
    from streamtrain.memory.gate import ByteGate

    make_scheduler = fill.make_scheduler
    fill.make_scheduler = lambda scheduler, threads: make_scheduler(scheduler, HOOK_THREADS)  # type: ignore[attr-defined]
    if what == "no-gate":

        @contextlib.contextmanager
        def hold(self: ByteGate, size_bytes: int) -> Iterator[None]:
            yield

        ByteGate.hold = hold  # type: ignore[assignment]


def arguments(asked: dict[str, Any]) -> dict[str, Any]:
    """Those of `streamtrain.fit`."""
    from streamtrain import open_reader, register_scheme

    register_scheme("tiles", TileReader)
    register_scheme("repeated", RepeatedReader)
    target = TARGETS[asked["learner"]]
    targets = [target] if isinstance(target, str) else target
    names = [name for name in open_reader(asked["data"]).schema.names if name not in ("X", *targets)]
    spare = [name for name in names if not name.startswith("x")]
    found: dict[str, Any] = {"target": target, "exclude": spare, "memory": asked["memory"], "threads": asked["threads"]}
    if asked.get("pace") == "slow":
        from streamtrain.learn import Linear

        classes = {"logistic": 2, "softmax": 100, "squared": 0}[asked["learner"]]
        found["learner"] = slow(Linear(asked["width"], classes))
    if asked.get("out"):
        found["out"] = asked["out"]
    return found | asked.get("settings", {})


def predict(asked: dict[str, Any]) -> dict[str, Any]:
    """Of the report of a fit what there is of a prediction."""
    import streamtrain

    found = streamtrain.predict(
        asked["run"], asked["data"], out=f"{asked['run']}-{os.getpid()}.parquet", memory=asked["memory"],
        threads=asked["threads"],
    )  # fmt: skip
    return {"rows_seen": found["rows"]}


def run(asked: dict[str, Any]) -> dict[str, Any]:
    import streamtrain
    from streamtrain.memory.pandas_import import leave_pandas_out

    leave_pandas_out()  # as on the command line: budgets are the same wherever pandas is installed

    if os.environ.get("MATRIX_HOOK"):
        hook(os.environ["MATRIX_HOOK"])
    predicts, plan_only = asked.get("command") == "predict", asked.get("mode") == "plan"
    plans, epochs = watch_plans(stop=predicts and plan_only), {}
    given = {} if predicts else arguments(asked)
    if plan_only and not predicts:
        plan = streamtrain.make_plan(asked["data"], **given)
        return {"fits": plan.fits, "planned": plan.peak_bytes, "enough": plan.enough_bytes}
    started, before = time.perf_counter(), status("VmHWM")
    outcome, report = "done", {}

    def look(progress: Any) -> None:
        epochs.setdefault(progress.epoch, status("VmHWM"))

    try:
        report = predict(asked) if predicts else streamtrain.fit(asked["data"], progress=look, **given).as_dict()
    except Stopped:
        outcome = "stopped"
    except streamtrain.BudgetRefused as error:
        outcome = f"refused: {error}"
    except streamtrain.BudgetExceeded as error:
        outcome = f"exceeded: {error}"
    plan = plans[-1]
    return {
        "outcome": outcome,
        "fits": plan.fits,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time(),
        "peak": max(before, status("VmHWM")),
        "planned": plan.peak_bytes,
        "enough": plan.enough_bytes,
        "terms": plan.term_bytes,
        "windows": plan.windows,
        "window_rows": plan.window_rows,
        "windows_in_flight": plan.windows_in_flight,
        "threads": plan.threads,
        "read_share": plan.read_share,
        "slice_rows": plan.slice_rows,
        "streamed": plan.streamed_chunks,
        "rows": plan.rows,
        "rows_seen": report.get("rows_seen"),
        "measured": {name: term["measured_bytes"] for name, term in report.get("memory", {}).get("terms", {}).items()},
        "epochs": epochs,
    }


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))), flush=True)
    sys.stdin.read()
