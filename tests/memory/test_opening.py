"""The budget holds from before the first file is opened, in every command; and running short of memory is recognised in
whatever error a library makes of it."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make import WAIT
from test_monitor import PRELUDE

from streamtrain.errors import BudgetExceeded, BudgetRefused, CorruptError
from streamtrain.memory import limits
from streamtrain.memory.limits import is_shortage
from streamtrain.memory.monitor import Monitor, budget_of, opening, require_room, within
from streamtrain.memory.process import resident_bytes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured and limited on Linux")
MB = 10**6


def child(code: str) -> Any:
    command = [sys.executable, "-c", PRELUDE + textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT, check=True)
    return json.loads(done.stdout)


def test_every_command_refuses_what_takes_the_memory_while_it_is_opened() -> None:
    """By the name of the reader, whether its schema takes it or its chunks; nothing of the limit is left."""
    found = child("""
        import tempfile
        from streamtrain.tools.profile import profile
        class Hungry(Reader):
            def chunks(self):
                np.ones(125_000_000)
                return super().chunks()
        class Wide(Reader):
            @property
            def schema(self):
                return pa.schema([(f"{'x' * 2000}{i}", pa.float32()) for i in range(200_000)])
        model = streamtrain.fit(Reader(), target="y", window_rows=10_000).model
        before, out = resource.getrlimit(resource.RLIMIT_DATA), tempfile.mkdtemp()
        calls = {
            "fit": lambda data: streamtrain.fit(data, target="y", memory="250MB"),
            "validate": lambda data: streamtrain.fit(Reader(), target="y", memory="250MB", validate=data),
            "plan": lambda data: streamtrain.make_plan(data, target="y", memory="250MB"),
            "profile": lambda data: profile(data, target="y", memory="250MB"),
            "evaluate": lambda data: streamtrain.evaluate(model, data, memory="250MB"),
            "predict": lambda data: streamtrain.predict(model, data, memory="250MB", out=out + "/p.parquet"),
            "rechunk": lambda data: streamtrain.rechunk(data, chunk_rows=100, memory="250MB", out=out + "/copy"),
        }
        said = []
        for name, kind in [("plan", Wide), *((name, Hungry) for name in calls)]:
            try:
                calls[name](kind())
                said.append([name, kind.__name__, "no error", ""])
            except streamtrain.StreamtrainError as error:
                said.append([name, kind.__name__, type(error).__name__, str(error)])
        print(json.dumps({"said": said, "peak": peak_bytes(), "same": resource.getrlimit(resource.RLIMIT_DATA) == before}))
    """)
    assert found["same"] and found["peak"] <= 250 * MB
    assert len(found["said"]) == 8
    for command, reader, kind, message in found["said"]:
        assert kind == "BudgetRefused", (command, reader, kind, message)
        assert f"memory ran short while {reader} was opened" in message and "Nothing was trained" in message
        assert "--memory" in message


GUISES = """
    import ctypes, mmap, threading, zlib
    def thread():
        threading.stack_size(2 * 10**9)
        threading.Thread(target=int).start()
    def wrapped(error):
        try:
            raise error
        except Exception as cause:
            raise KeyError("a library's own") from cause
    ways = {
        "numpy": lambda: np.ones(125_000_000),
        "arrow": lambda: pa.allocate_buffer(10**9),
        "mmap": lambda: mmap.mmap(-1, 10**9, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS),
        "thread": thread,
        "cause": lambda: wrapped(MemoryError()),
        "null": lambda: wrapped(SystemError("<built-in function f> returned NULL without setting an exception")),
        "c++": lambda: wrapped(RuntimeError("Couldn't deserialize thrift: std::bad_alloc")),
    }
"""


def test_a_shortage_in_any_guise_is_one_of_the_budget_in_readers_and_in_learners() -> None:
    """No chunk is skipped for it, and it is no bug of ours or of a learner."""
    found = child(
        textwrap.dedent(GUISES)
        + textwrap.dedent("""
        said = []
        for name, way in ways.items():
            stack = threading.stack_size()
            for where, options in (
                ("reader", {"data": Reader(lambda chunk, way=way: chunk.key == "part 7" and way()), "on_error": "skip"}),
                ("learner", {"data": Reader(), "learner": Learner(lambda self, way=way: self.batches == 9 and way())}),
            ):
                try:
                    streamtrain.fit(options.pop("data"), target="y", memory="250MB", classes=(0, 1), max_skipped=0.5, **options)
                    said.append([name, where, "no error"])
                except Exception as error:
                    said.append([name, where, type(error).__name__])
                threading.stack_size(stack)
        print(json.dumps({"said": said, "peak": peak_bytes()}))
    """)
    )
    assert [each for each in found["said"] if each[2] != "BudgetExceeded"] == []
    assert len(found["said"]) == 14 and found["peak"] <= 250 * MB


def raised(error: Exception, cause: Exception) -> Exception:
    try:
        try:
            raise cause
        except Exception:
            raise error  # noqa: B904
    except Exception as found:
        return found


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (OSError(12, "Cannot allocate memory"), True),
        (OSError(2, "out of memory.csv"), False),
        (OSError("ZSTD decompression failed: Allocation error : not enough memory"), True),
        (zlib.error("Error -4 while decompressing data"), True),
        (zlib.error("Error -3 while decompressing data: incorrect header check"), False),
        (ImportError("libx.so: failed to map segment from shared object"), True),
        (ImportError("libx.so: cannot allocate memory in static TLS block"), False),
        (CorruptError("out of memory.csv: cannot be read"), False),
        (raised(CorruptError("a.csv: cannot be read"), MemoryError()), True),
        (ExceptionGroup("tasks", [ValueError(), MemoryError()]), True),
        (SystemError("returned NULL without setting an exception"), False),  # there is no limit here
        (RuntimeError("can't start new thread"), False),
        (RecursionError("maximum recursion depth exceeded"), False),
    ],
)
def test_what_is_a_shortage(error: Exception, expected: bool) -> None:
    assert is_shortage(error) is expected


def test_a_vague_error_is_a_shortage_where_little_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_SCARCE_BYTES", 10**8)
    vague = SystemError("error return without exception set")
    with within((resident_bytes() or 0) + 50 * MB):
        assert is_shortage(vague)
    with Monitor(10**12, {}):
        assert not is_shortage(vague)


def limit() -> int:
    return resource.getrlimit(resource.RLIMIT_DATA)[0]


def test_a_plan_takes_the_place_of_opening_until_it_is_left() -> None:
    before = limit()
    now = resident_bytes() or 0
    with within(now + 100 * MB) as outer:
        opened = limit()
        with Monitor(now + 1000 * MB, {"baseline": now}):
            assert limit() > opened + 800 * MB  # the plan's budget is the one that counts
        assert abs(limit() - opened) < 20 * MB
        outer.budget(now + 500 * MB, stops=True)
        assert limit() > opened + 300 * MB
        outer.budget(now + 500 * MB, stops=False)
        assert limit() == before
    assert limit() == before


def test_opening_that_took_more_than_the_budget_is_refused_before_training() -> None:
    with pytest.raises(BudgetRefused, match="while the data were opened"), within(MB), Monitor(MB, {"baseline": MB}):
        raise AssertionError


def test_what_is_too_large_to_open_is_refused_with_a_budget_that_is_enough() -> None:
    require_room(10**15, "a.csv")  # nobody has set a budget
    now = resident_bytes() or 0
    with within(now + 200 * MB):
        require_room(100 * MB, "a.csv")
        with pytest.raises(
            BudgetRefused, match=r"a.csv takes 300 MB beside .* What would help: --memory \d+MB or more"
        ):
            require_room(300 * MB, "a.csv")
    with within(is_setting=False), pytest.raises(BudgetRefused, match="a machine with more free memory"):
        require_room(10**15, "a.csv")
    with within(now + 200 * MB, stops=False):
        require_room(300 * MB, "a.csv")
    with Monitor(now + 200 * MB, {"baseline": now}), pytest.raises(BudgetExceeded, match="csv takes"):
        require_room(300 * MB, "a.csv")


def test_errors_that_are_no_shortage_stay_as_they_are() -> None:
    with pytest.raises(KeyError), within(), opening("a.csv"):
        raise KeyError("x")
    with pytest.raises(MemoryError) as found, opening("a.csv"):  # no budget
        raise MemoryError
    assert type(found.value) is MemoryError
    with pytest.raises(BudgetRefused, match="while table was opened"), within(), opening("table"):
        raise MemoryError
    with pytest.raises(BudgetRefused, match="while the data was opened"), within():
        np.ones(10**14)


def test_the_budget_is_as_given_or_half_of_what_is_available() -> None:
    assert budget_of("250MB") == 250 * MB
    assert 0 < budget_of(None) < 2**50


@pytest.mark.parametrize(
    ("name", "text"), [("a.csv", "x,y\n1,2\n3,4\n"), ("a.jsonl", '{"x":1,"y":2}\n{"x":3,"y":4}\n')]
)
def test_text_is_opened_within_a_small_budget(name: str, text: str, tmp_path: Path) -> None:
    """Arrow starts a thread for it, and ends the process where the limit leaves no room for the stack."""
    (tmp_path / name).write_text(text)
    found = child(f"""
        import streamtrain.train.entry, streamtrain.storage.csv, streamtrain.storage.jsonl
        from streamtrain.memory.monitor import within
        from streamtrain.memory.process import resident_bytes
        with within(resident_bytes() + 1_000_000):
            print(json.dumps(streamtrain.open_reader({str(tmp_path / name)!r}).schema.names))
    """)
    assert found == ["x", "y"]


def test_a_thread_that_cannot_be_started_is_a_shortage_while_the_limit_is_held() -> None:
    with pytest.raises(BudgetRefused, match="memory ran short"), within((resident_bytes() or 0) + 50 * MB):
        raise RuntimeError("Failed to launch worker thread: Resource temporarily unavailable")
