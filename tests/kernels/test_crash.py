"""A library that ends the process: the command line prints one line with the signal and what was being read."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import zarr
from make import WAIT

from streamtrain.kernels import COMPILED

pytestmark = pytest.mark.skipif(not COMPILED, reason="the kernels were not compiled: the handler is part of them")

ROOT = Path(__file__).parents[2]

CRASHES = {"SIGABRT": "os.abort()", "SIGSEGV": "ctypes.string_at(0)"}

CHILD = """
import ctypes, os, sys, threading, time
import numpy as np, pyarrow as pa
import streamtrain
from streamtrain.cli import main

def overrun():  # qsort calls back, which sorts, and so on, until the stack of the thread is used up
    sort = ctypes.CDLL(None).qsort
    sys.setrecursionlimit(10**9)
    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    def again(a, b):
        sort(ctypes.create_string_buffer(8), 2, 4, again)
        return 0
    again(0, 0)

class Reader:
    schema = pa.schema([("x", pa.float32()), ("y", pa.int64())])

    def chunks(self):
        return [streamtrain.storage.Chunk(f"part-{i}", 1000, 12_000, 24_000) for i in range(5)]

    def read(self, chunk, columns):
        if "x" in columns and chunk.key == "part-3":  # not in the pass over the target
            assert threading.current_thread() is not threading.main_thread()
            CRASH
        numbers = np.arange(1000)
        return pa.record_batch({"x": numbers.astype("f4"), "y": numbers % 2}).select(columns)

    def fingerprint(self):
        return "x"

def opened(url):
    if "bad" in url:
        CRASH
    return Reader()

streamtrain.register_scheme("boxes", opened)
if __name__ == "__main__":
    PREPARE
    main(sys.argv[1:])
"""


def run(
    crash: str, *arguments: str, prepare: str = "pass", folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    child = CHILD.replace("CRASH", crash).replace("PREPARE", prepare)
    command = [sys.executable, "-c", child, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", CRASHES)
def test_a_read_that_ends_the_process(name: str, tmp_path: Path) -> None:
    found = run(CRASHES[name], "fit", "boxes://a", "--target", "y", "--json", "--out", "run", folder=tmp_path)
    expected = (
        f"error: the process was ended by {name} in __main__:Reader, reading part-3: code of your own, or a library that it "
        "uses, ends the process; it must raise an error instead\n"
    )
    assert (found.returncode, found.stdout, found.stderr) == (2, "", expected)
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")] == [
        "run",
        "run/.lock",
    ]  # no core, nothing of a run


@pytest.mark.parametrize("name", ["SIGBUS", "SIGFPE", "SIGILL"])
def test_other_signals(name: str) -> None:
    code = f"""
import signal
from streamtrain.kernels.crash import answer_crashes, reading
answer_crashes("nowhere")
with reading("a.parquet:3"):
    signal.raise_signal(signal.{name})
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert found.returncode == 2 and f"ended by {name} while reading a.parquet:3: the file" in found.stderr


ENCRYPTED = "../shared/corpora/parquet-testing/data/encrypt_columns_plaintext_footer.parquet.encrypted"


@pytest.mark.skipif(not (ROOT / ENCRYPTED).exists(), reason=f"{ENCRYPTED} is not there")
def test_a_file_that_pyarrow_aborts_at() -> None:
    touched = (
        f"import pyarrow.parquet as pq; pq.read_metadata({str(ROOT / ENCRYPTED)!r}).row_group(0).column(4).to_dict()"
    )
    found = run(touched, "fit", "boxes://a", "--target", "y")
    said = [line for line in found.stderr.splitlines() if line.startswith("error: ")]  # C++ prints something before it
    assert found.returncode == 2 and len(said) == 1 and "SIGABRT in __main__:Reader, reading part-3" in said[0]


def test_opening_that_ends_the_process() -> None:
    found = run("os.abort()", "inspect", "boxes://user:secret@bad/x?key=secret", "--json")
    assert found.returncode == 2 and found.stdout == "" and found.stderr.count("\n") == 1
    said = "ended by SIGABRT in the opener registered for boxes://, reading boxes://bad/x: code of your own"
    assert said in found.stderr


def test_a_stack_that_is_overrun() -> None:
    found = run("overrun()", "fit", "boxes://a", "--target", "y")
    assert found.returncode == 2 and "ended by SIGSEGV in __main__:Reader, reading part-3:" in found.stderr


def test_a_crash_while_nothing_is_read_is_a_bug() -> None:
    found = run(
        "pass",
        "inspect",
        "boxes://a",
        prepare="import streamtrain.tools.inspect as c; c.inspect = lambda *a, **k: os.abort()",
    )
    assert found.returncode == 1 and found.stdout == "" and found.stderr.count("\n") == 1
    assert "SIGABRT while nothing was being read: this is a bug in" in found.stderr and "https://" in found.stderr


def test_a_thread_of_a_library_s_own() -> None:
    """The thread that crashes is not the one that asked for the read: then all reads under way are named."""
    other = "t = threading.Thread(target=os.abort); t.start(); t.join()"
    found = run(other, "fit", "boxes://a", "--target", "y", "--threads", "1")
    assert found.returncode == 2 and re.search(
        r"SIGABRT in (__main__:Reader, reading part-\d, )*__main__:Reader, reading part-3", found.stderr
    )


def test_what_others_send_is_left_alone(tmp_path: Path) -> None:
    child = CHILD.replace("CRASH", "print('now', flush=True); time.sleep(600)").replace("PREPARE", "pass")
    command = [sys.executable, "-c", child, "fit", "boxes://a", "--target", "y"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGABRT)
        assert process.wait(60) == -signal.SIGABRT
        assert process.stderr is not None and process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate(timeout=60)


def test_the_package_itself_answers_nothing() -> None:
    code = "import streamtrain, os; streamtrain.open_reader({'x': [1.0]}); os.abort()"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert found.returncode == -signal.SIGABRT and "damaged" not in found.stderr


def test_names_of_any_kind_and_more_reads_than_slots() -> None:
    code = """
import os, sys
from streamtrain.kernels.crash import answer_crashes, reading
answer_crashes("nowhere")
reads = [reading(f"{i}\\n\\udcff" + 400 * "é" + "end") for i in range(100)]
for read in reads:
    read.__enter__()
for read in reversed(reads[10:]):
    read.__exit__(None, None, None)
os.abort()
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    text = found.stderr.decode()
    assert found.returncode == 2 and text.count("\n") == 1 and len(found.stderr) < 1000
    assert "while reading ...ééé" in text and "éend: the file is damaged" in text


def test_a_zarr_store_is_named(tmp_path: Path) -> None:
    """zarr decodes in threads of its own."""
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("x", data=np.arange(4000.0), chunks=(1000,))
    group.create_array("y", data=np.arange(4000) % 2, chunks=(1000,))
    prepare = "import numcodecs.zstd as n; n.Zstd.decode = lambda *a, **k: os.abort()"
    found = run("pass", "fit", "a.zarr", "--target", "y", prepare=prepare, folder=tmp_path)
    assert found.returncode == 2 and "ended by SIGABRT while reading " in found.stderr and "damaged" in found.stderr


def test_what_it_costs() -> None:
    """Two calls of a C function: 1.5 µs, measured; the bound is for slow machines."""
    code = """
import time
from streamtrain.kernels.crash import answer_crashes, reading
answer_crashes("nowhere")
started = time.process_time()
for _ in range(2000):
    with reading("data/part-00017.parquet:12"):
        pass
print((time.process_time() - started) / 2000)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert float(found.stdout) < 20e-6


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
def test_a_library_that_ends_the_process_for_want_of_memory_says_so() -> None:
    """pyarrow does that where it cannot allocate one of many small things; a table of a million columns is no damaged file."""
    code = """
        import sys
        import pyarrow as pa, pyarrow.csv as pc
        from streamtrain.kernels.crash import answer_crashes, expect_shortage, reading
        from streamtrain.memory.monitor import within
        from streamtrain.memory.process import resident_bytes
        answer_crashes("nowhere")
        expect_shortage(3)
        body = pa.BufferReader(b",".join([b"1"] * 60_000) + b"\\n")
        options = pc.ReadOptions(use_threads=False, column_names=[f"c{i}" for i in range(60_000)])
        with within(resident_bytes() + 40_000_000), reading("wide.csv"):
            pc.read_csv(body, options)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 3, done.stderr
    assert "error: memory ran short: an allocation failed while reading wide.csv" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
@pytest.mark.parametrize("room", [32, 500])
def test_an_abort_with_little_room_left_is_a_shortage(room: int) -> None:
    """Whatever the library says: that a thread could not be started, or nothing."""
    code = f"""
        import os
        from streamtrain.kernels.crash import answer_crashes, expect_shortage, reading
        from streamtrain.memory.monitor import within
        from streamtrain.memory.process import resident_bytes
        answer_crashes("nowhere")
        with within(resident_bytes() + {room}_000_000), reading("a.csv"):
            expect_shortage(3)
            os.abort()
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT)
    expected = (3, "memory ran short") if room == 32 else (2, "a.csv: the file is damaged")
    assert done.returncode == expected[0] and expected[1] in done.stderr, done.stderr


def test_a_learner_that_ends_the_process(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("""
import os

class Net:
    state_bytes = 8

    def learn(self, batch):
        os.abort()

    def predict(self, X):
        os.abort()

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass

def net(shape):
    return Net()
""")
    found = run("pass", "fit", "boxes://a", "--target", "y", "--learner", "own:net", folder=tmp_path)
    said = "error: the process was ended by SIGABRT in --learner own:Net: code of your own, or a library that it uses, ends"
    assert found.returncode == 2 and found.stderr.splitlines()[-1].startswith(said)
