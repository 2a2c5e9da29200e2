"""Sizes as people write them, the byte gate under threads, and what the system says about memory."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import WAIT

from streamtrain.errors import BudgetExceeded, SizeError
from streamtrain.memory.gate import ByteGate
from streamtrain.memory.process import available_bytes
from streamtrain.memory.sizes import format_bytes, parse_bytes, predicted_peak

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured on Linux only")


def test_sizes_and_measures_import_neither_numpy_nor_arrow() -> None:
    code = "import sys, streamtrain.memory.sizes, streamtrain.memory.process as p; p.reset_peak(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT, check=True)
    assert not {"numpy", "pyarrow", "dask"} & {*done.stdout.split()}


@given(st.integers(1, 999 * 10**15))
def test_a_formatted_size_parses_to_nearly_the_same(size: int) -> None:
    assert abs(parse_bytes(format_bytes(size)) - size) <= 0.005 * size


@given(st.integers(1, 2**70), st.sampled_from(["", "b", "B"]))
def test_bytes_are_exact(size: int, unit: str) -> None:
    assert parse_bytes(size) == parse_bytes(f"{size}{unit}") == parse_bytes(f" {size} {unit} ") == size
    for power, name in enumerate("kMGTP", start=1):
        assert parse_bytes(f"{size}{name}{unit}") == size * 1000**power
        assert parse_bytes(f"{size}{name.swapcase()}i{unit}") == size * 1024**power


@pytest.mark.parametrize(("text", "size"), [("1.5kB", 1_500), (".5 MiB", 524_288), ("2.GB", 2 * 10**9), ("1.1", 1)])
def test_fractions(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["", "MB", "-1MB", "1XB", "1 000", "1e9", "nan", "0", "0MB", "0.4", "5i", "5iB", "1MB2", True, None]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(SizeError, match="write a") as caught:
        parse_bytes(text)
    assert repr(text) in str(caught.value) and "MB" in str(caught.value)


def test_a_size_too_large_for_a_float() -> None:
    assert parse_bytes("9" * 400 + "PB") == int("9" * 400) * 10**15


def test_terms_are_summed() -> None:
    assert predicted_peak({}) == 0
    assert predicted_peak({"a": 1, "b": 2, "c": 0}) == 3


def test_the_gate_never_admits_more_than_its_limit_and_everyone_gets_through() -> None:
    gate, lock = ByteGate(100), threading.Lock()
    inside, most, through = [0], [0], []

    def work(seed: int) -> None:
        for i in range(60):
            size = 1 + (seed * 37 + i * 53) % 100
            with gate.hold(size):
                with lock:
                    inside[0] += size
                    most[0] = max(most[0], inside[0])
                with lock:
                    inside[0] -= size
        through.append(seed)

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert sorted(through) == list(range(8))
    assert most[0] <= 100 and gate.peak_bytes <= 100 and gate.held_bytes == 0
    assert gate.peak_bytes >= most[0]


def test_the_gate_makes_wait_until_there_is_room() -> None:
    gate, entered = ByteGate(100), threading.Event()

    def enter() -> None:
        with gate.hold(41):
            entered.set()

    thread = threading.Thread(target=enter, daemon=True)
    with gate.hold(60):
        thread.start()
        assert not entered.wait(0.05)
        assert gate.held_bytes == 60
    assert entered.wait(WAIT)
    thread.join(WAIT)
    assert gate.held_bytes == 0 and gate.peak_bytes == 60


def test_an_error_inside_gives_the_bytes_back() -> None:
    gate = ByteGate(10)
    with pytest.raises(KeyError), gate.hold(10):
        raise KeyError
    with gate.hold(10):
        pass


def test_what_can_never_fit_is_an_error() -> None:
    with pytest.raises(BudgetExceeded, match="a read needs 101 B, but the plan leaves 100 B"), ByteGate(100).hold(101):
        pass


def test_closing_lets_through_who_waits() -> None:
    gate, entered = ByteGate(10), threading.Event()

    def enter() -> None:
        with gate.hold(10):
            entered.set()

    threads = [threading.Thread(target=enter, daemon=True) for _ in range(3)]
    with gate.hold(10):
        for thread in threads:
            thread.start()
        assert not entered.wait(0.05)
        gate.close()
        for thread in threads:
            thread.join(WAIT)
        assert not any(thread.is_alive() for thread in threads)


def system(root: Path, groups: str, files: dict[str, str]) -> Path:
    """A fake /proc and /sys/fs/cgroup with 1,000 kB available on the machine."""
    files = {
        "proc/meminfo": "MemTotal: 4000 kB\nMemAvailable: 1000 kB\n",
        "proc/self/cgroup": groups,
        **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V1_NONE = "9223372036854771712\n"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {}, 1_024_000),
        ("0::/\n", {"memory.max": "max\n", "memory.current": "5\n"}, 1_024_000),
        ("0::/\n", {"memory.max": "9000\n", "memory.current": "5000\n"}, 4_000),
        ("0::/\n", {"memory.max": "9000\n", "memory.current": "9500\n"}, 0),
        ("0::/a/b\n", {"a/memory.max": "700\n", "a/memory.current": "50\n", "a/b/memory.max": "max\n"}, 650),
        ("0::/a/b\n", {"a/memory.max": "700\n", "a/memory.current": "50\n", "memory.max": "800", "memory.current": "750"}, 50),
        ("0::/\n", {"memory.max": "max\n", "memory.high": "7000\n", "memory.current": "5000\n"}, 2_000),
        ("0::/\n", {"memory.max": "9000\n", "memory.high": "7000\n", "memory.current": "5000\n"}, 2_000),
        ("0::/\n", {"memory.max": "6000\n", "memory.high": "max\n", "memory.current": "5000\n"}, 1_000),
        ("0::/a/b\n", {"a/b/memory.max": "9000", "a/b/memory.high": "8000", "a/b/memory.current": "10",
                       "a/memory.high": "700", "a/memory.current": "60"}, 640),
        ("0::/\n", {"memory.high": "9000", "memory.current": "8000", "memory.stat": "inactive_file 5000\n"}, 6_000),
        ("0::/not/visible\n", {"memory.max": "900\n", "memory.current": "1\n"}, 899),
        (
            "0::/\n",
            {"memory.max": "9000", "memory.current": "8000", "memory.stat": "anon 10\ninactive_file 5000\n"},
            6_000,
        ),
        (
            "5:cpu,memory:/x\n4:pids:/x\n",
            {"memory/x/memory.limit_in_bytes": "8000", "memory/x/memory.usage_in_bytes": "1000",
             "memory/x/memory.stat": "inactive_file 1\ntotal_inactive_file 500\n"},
            7_500,
        ),
        (
            "5:memory:/x\n0::/\n",
            {"memory/x/memory.limit_in_bytes": V1_NONE, "memory/x/memory.usage_in_bytes": "1000"},
            1_024_000,
        ),
        ("3:cpu:/x\n", {"memory/x/memory.limit_in_bytes": "8", "memory/x/memory.usage_in_bytes": "1"}, 1_024_000),
        ("0::/\n", {"memory.max": "garbage\n", "memory.current": "5\n"}, 1_024_000),
    ],
)  # fmt: skip
def test_available_memory_is_what_machine_and_cgroups_allow(
    tmp_path: Path, groups: str, files: dict[str, str], expected: int
) -> None:
    assert available_bytes(system(tmp_path, groups, files)) == expected


def test_available_memory_is_unknown_elsewhere(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) is None
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 5 kB\n")
    assert available_bytes(tmp_path) is None


@linux
def test_available_memory_of_this_machine() -> None:
    assert 0 <= (available_bytes() or 0) < 2**50


PEAK = """
import ctypes
from streamtrain.memory.process import peak_bytes, release_freed_memory, reset_peak, resident_bytes
start = resident_bytes()
big = bytearray(200_000_000)
assert peak_bytes() >= start + 190_000_000, (start, peak_bytes())
del big
release_freed_memory()
assert peak_bytes() >= start + 190_000_000  # a peak stays
reset_peak()
low = peak_bytes()
assert low < start + 50_000_000, (start, low)
big = bytearray(100_000_000)
assert low + 90_000_000 <= peak_bytes() < low + 150_000_000, (low, peak_bytes())
assert peak_bytes() >= resident_bytes() - 10_000_000
"""


@linux
def test_the_peak_is_reset() -> None:
    # in a process of its own, started by a larger one: what the parent took must not be seen
    ballast = bytearray(300_000_000)
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    del ballast


def test_threads_of_blas_and_old_objects_rest_while_a_fit_is_under_way() -> None:
    code = """
        import gc
        import numpy as np
        from threadpoolctl import threadpool_info
        import streamtrain
        before = [pool["num_threads"] for pool in threadpool_info()]
        seen = []
        def look(now):
            seen.append((gc.get_freeze_count() > 10_000, {pool["num_threads"] for pool in threadpool_info()}))
        streamtrain.fit({"x": np.arange(5000.0), "y": np.arange(5000) % 2}, target="y", progress=look)
        assert seen and all(rests and threads == {1} for rests, threads in seen), seen
        assert gc.get_freeze_count() == 0 and [pool["num_threads"] for pool in threadpool_info()] == before
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT, check=False)
    assert done.returncode == 0, done.stderr
