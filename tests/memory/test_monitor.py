"""The process is stopped where it goes over its budget, whoever takes the memory: each case in a process of its own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import pytest
from make import WAIT, wait_for

from streamtrain.errors import BudgetExceeded, BudgetRefused
from streamtrain.memory import limits
from streamtrain.memory.gate import ByteGate
from streamtrain.memory.monitor import Monitor, within

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured and limited on Linux")
MB = 10**6
TERMS = {"windows": 5 * MB, "baseline": 90 * MB}

PRELUDE = """
import json, resource, sys
import numpy as np, pyarrow as pa, streamtrain
from streamtrain.memory.process import peak_bytes
from streamtrain.storage import Chunk, ChunkTable

class Learner:
    state_bytes, batches = 1000, 0
    def __init__(self, at): self.at, self.held = at, []
    def learn(self, batch):
        self.batches += 1
        self.at(self)
    def predict(self, X): return np.full(len(X), 0.5, np.float32)
    def state_dict(self): return {}
    def load_state_dict(self, state): pass

class Reader:
    schema = pa.schema([("x", pa.float32()), ("y", pa.int8())])
    def __init__(self, at=lambda chunk: None): self.at = at
    def chunks(self): return [Chunk(f"part {i}", 10_000, 50_000, 50_000) for i in range(200)]
    def read(self, chunk, columns):
        self.at(chunk)
        rng = np.random.default_rng(int(chunk.key.split()[1]))
        x = rng.normal(size=chunk.rows).astype("f4")
        return pa.record_batch({"x": x, "y": (x > 0).astype("i1")}).select(columns)
    def fingerprint(self): return "r"

def run(budget, learner="linear", reader=None, **options):
    before = resource.getrlimit(resource.RLIMIT_DATA)
    found = {"error": None, "warnings": [], "message": ""}
    try:
        done = streamtrain.fit(reader or Reader(), target="y", memory=budget, learner=learner, **options)
        found["warnings"] = done.report.warnings
    except Exception as error:
        found |= {"error": type(error).__name__, "message": str(error)}
    found |= {"peak": peak_bytes(), "restored": resource.getrlimit(resource.RLIMIT_DATA) == before}
    print(json.dumps(found))
"""


def run(code: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["restored"]
    return found


def test_a_learner_that_leaks_is_stopped_before_the_process_is_10_percent_over() -> None:
    found = run("run('250MB', Learner(lambda self: self.held.append(np.ones(125_000))), batch_size=64)")
    assert found["error"] == "BudgetExceeded"
    assert 240 * MB < found["peak"] <= 275 * MB
    assert "the budget of 250 MB" in found["message"] and "windows" in found["message"]
    assert "What would help" in found["message"]


@pytest.mark.parametrize(
    "one",
    [
        "np.ones(125_000_000)",
        *(
            pytest.param(one, marks=pytest.mark.slow)
            for one in ("pa.allocate_buffer(10**9)", "[0] * 125_000_000", "bytearray(10**9)")
        ),
    ],
)
def test_a_learner_that_takes_much_at_once_is_stopped_before_it_has_it(one: str) -> None:
    found = run(f"run('250MB', Learner(lambda self: self.held.append({one}) if self.batches == 50 else None))")
    assert found["error"] == "BudgetExceeded"
    assert found["peak"] <= 250 * MB
    assert "an allocation failed" in found["message"] and "planned" in found["message"]


def test_a_reader_that_takes_much_at_once_is_stopped_before_it_has_it() -> None:
    found = run("run('250MB', reader=Reader(lambda chunk: np.ones(125_000_000) if chunk.key == 'part 7' else None))")
    assert found["error"] == "BudgetExceeded" and "an allocation failed" in found["message"]
    assert found["peak"] <= 250 * MB


def test_the_pass_over_the_target_is_held_to_the_budget_too() -> None:
    found = run("run('250MB', reader=Reader(lambda chunk: np.ones(125_000_000)))")
    assert found["error"] == "BudgetExceeded" and found["peak"] <= 250 * MB


def test_on_request_going_over_the_budget_is_a_warning() -> None:
    found = run("run('200MB', Learner(lambda self: self.held.append(np.ones(25_000))), on_overrun='warn')")
    assert found["error"] is None and found["peak"] > 200 * MB
    assert len(found["warnings"]) == 1 and "more than the budget of 200 MB" in found["warnings"][0]


def test_what_fits_is_left_alone() -> None:
    found = run("run('250MB', Learner(lambda self: self.held.append(np.ones(100))))")
    assert found == {"error": None, "warnings": [], "message": "", "peak": found["peak"], "restored": True}


def limit() -> int:
    return resource.getrlimit(resource.RLIMIT_DATA)[0]


def test_the_limit_of_several_at_once_is_the_lowest_and_goes_when_the_last_has_left() -> None:
    before = limit()
    large, small = Monitor(10**12, TERMS), Monitor(10**10, TERMS)
    large.__enter__()
    wide = limit()
    small.__enter__()
    assert limit() < wide
    large.__exit__(None, None, None)
    assert limit() < wide
    small.__exit__(None, None, None)
    assert limit() == before


def test_a_memory_error_becomes_one_of_the_budget_once() -> None:
    with pytest.raises(BudgetExceeded, match=r"failed \(no more\).*\n.*baseline +planned +90 MB +measured +80 MB"):  # noqa: SIM117
        with Monitor(10**12, TERMS, measured=lambda: {"baseline": 80 * MB}):
            raise MemoryError("no more")
    own = BudgetExceeded("as it was")
    with pytest.raises(BudgetExceeded) as found, Monitor(10**12, TERMS):
        raise own
    assert found.value is own
    with pytest.raises(KeyError), Monitor(10**12, TERMS):
        raise KeyError("left alone")


def test_the_limit_goes_first_where_there_is_not_even_memory_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    before, measured = resource.getrlimit(resource.RLIMIT_DATA), limits.resident_now

    def resident() -> Any:
        if resource.getrlimit(resource.RLIMIT_DATA) != before:
            raise MemoryError
        return measured()

    def runs_short() -> None:
        monkeypatch.setattr(limits, "resident_now", resident)
        raise MemoryError

    with pytest.raises(BudgetRefused, match="memory ran short while the data was opened"), within("10GB"):
        runs_short()
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_a_process_over_its_budget_is_near_it_and_over_it() -> None:
    with Monitor(10**6, TERMS, stops=False) as monitor:
        wait_for(lambda: monitor.near() and monitor.over(), "a sample of the monitor")
        monitor.check()
        monitor.check()
        assert len(monitor.warnings) == 1
    with pytest.raises(BudgetExceeded, match="more than the budget of 1 MB"), Monitor(10**6, TERMS) as monitor:
        monitor.check()


def test_near_the_budget_the_gate_admits_one_at_a_time() -> None:
    near = threading.Event()
    gate = ByteGate(100, near.is_set)
    most, inside, lock = [0], [0], threading.Lock()

    def work() -> None:
        for _ in range(20):
            with gate.hold(10):
                with lock:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                time.sleep(0.001)
                with lock:
                    inside[0] -= 1

    for is_near, allowed in ((True, {1}), (False, {2, 3, 4})):
        (near.set if is_near else near.clear)()
        most[0] = 0
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
            assert not thread.is_alive()
        assert most[0] in allowed


def test_a_read_that_waits_goes_on_when_the_process_is_near_no_more() -> None:
    near = threading.Event()
    near.set()
    gate, entered = ByteGate(100, near.is_set), threading.Event()

    def second() -> None:
        with gate.hold(10):
            entered.set()

    with gate.hold(10):
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(0.2)
        near.clear()
        assert entered.wait(WAIT)
    thread.join(WAIT)


def test_blas_works_under_the_limit_however_little_is_left() -> None:
    """It ends the process where it cannot have its buffer."""
    code = """
        from threading import Thread
        from threadpoolctl import threadpool_limits
        from streamtrain.memory.process import mapped_data_bytes, resident_bytes
        from streamtrain.memory import monitor
        def work():
            for _ in range(20): np.ones((300, 300)) @ np.ones((300, 300))
        # only just enough for the stacks of the threads
        monitor._STACKS_BYTES = 5 * monitor.STACK_BYTES
        now = resident_bytes()
        with threadpool_limits(1, "blas"), monitor.Monitor(now, {"baseline": now}) as under:
            threads = [Thread(target=work) for _ in range(2)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
        print(json.dumps({"restored": True}))
    """
    run(code)


def test_many_classes_are_in_the_plan() -> None:
    code = """
        rng = np.random.default_rng(0)
        data = {"x": rng.normal(size=50_000).astype("f4"), "y": rng.integers(0, 1000, 50_000)}
        done = streamtrain.fit(data, target="y", memory="250MB", batch_size=512)
        print(json.dumps(done.as_dict()["memory"] | {"restored": True}))
    """
    memory = run(code)
    assert memory["measured_peak_bytes"] <= memory["planned_peak_bytes"]


def test_what_an_earlier_run_left_in_cycles_does_not_count() -> None:
    code = """
    def leaky(self): self.held.append(np.ones(1_000_000))
    try:
        streamtrain.fit(Reader(), target="y", memory="250MB", learner=Learner(leaky))
    except streamtrain.BudgetExceeded as error:
        error.again = error
    run("200MB")
    """
    found = run(code)
    assert found["error"] is None and found["peak"] <= 200 * MB


@pytest.mark.parametrize("stops", [True, False])
def test_a_sample_that_fails_is_a_run_over_its_budget_and_sampling_goes_on(
    monkeypatch: pytest.MonkeyPatch, stops: bool
) -> None:
    samples: list[int] = []

    def sample(self: Monitor) -> None:
        samples.append(1)
        if len(samples) == 2:
            raise MemoryError

    monkeypatch.setattr(Monitor, "_sample", sample)
    with Monitor(10**12, TERMS, stops=stops) as monitor:
        wait_for(lambda: len(samples) > 3, "samples after the failed one")
        assert monitor.over()
        if stops:
            with pytest.raises(BudgetExceeded, match=r"an allocation failed \(MemoryError\)"):
                monitor.check()
        else:
            monitor.check()
            assert "an allocation failed (MemoryError)" in monitor.warnings[0]
