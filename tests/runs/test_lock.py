"""One writer: a lock that others see, and that dies with its process. What filelock promises is tested there."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import CommandLine

from streamtrain import fit
from streamtrain.errors import RunError
from streamtrain.runs.folder import RunFolder
from streamtrain.runs.lock import LOCK, FolderLock, is_locked

TIMEOUT_S = 60
Helper = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def helper() -> Iterator[Helper]:
    """Python code in a process of its own, which is killed at the end of the test."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.communicate(timeout=TIMEOUT_S)


def said(child: subprocess.Popen[str]) -> str:
    """The next line of a process."""
    assert child.stdout is not None
    assert select.select([child.stdout], [], [], TIMEOUT_S)[0], "it says nothing"
    return child.stdout.readline().strip()


def data(path: Path, rows: int = 400) -> Path:
    rng = np.random.default_rng(0)
    x = rng.normal(size=rows)
    pq.write_table(pa.table({"x": x, "y": (x > 0).astype(int)}), path)
    return path


HOLD = """
import sys, time
from pathlib import Path
from streamtrain.runs.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
lock.release()
"""


def test_another_process_is_refused_while_the_first_lives(tmp_path: Path, helper: Helper) -> None:
    folder = tmp_path / "r"
    child = helper(HOLD, folder)
    assert said(child) == "held" and is_locked(folder)
    with pytest.raises(
        RunError, match=re.escape(f"{folder}: process {child.pid} on ") + ".* is writing this run: wait for"
    ):
        FolderLock(folder)
    for resume in (False, True):
        with pytest.raises(RunError, match=f"process {child.pid} on "):
            RunFolder(folder, resume=resume)
    assert is_locked(folder) and os.listdir(folder) == [LOCK]
    child.communicate("\n", timeout=TIMEOUT_S)
    assert child.returncode == 0 and not folder.exists() and not is_locked(folder)
    FolderLock(folder).release()


def test_kill_takes_the_lock_with_it(tmp_path: Path, helper: Helper) -> None:
    child = helper(HOLD, tmp_path / "a/b")
    assert said(child) == "held"
    child.kill()
    child.wait(timeout=TIMEOUT_S)
    assert (tmp_path / "a/b" / LOCK).exists() and not is_locked(tmp_path / "a/b")
    taken = FolderLock(tmp_path / "a/b")
    assert is_locked(tmp_path / "a/b") and f"process {os.getpid()} on" in (tmp_path / "a/b" / LOCK).read_text()
    taken.release()
    assert os.listdir(tmp_path / "a/b") == []  # it was there before


FORKS = """
import os, sys, time
from pathlib import Path
from streamtrain.runs.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
child = os.fork()
if not child:
    lock.release()  # as at the end of a with: not the child's
    print(os.getpid(), flush=True)
    time.sleep(60)
    os._exit(0)
time.sleep(60)
"""


def test_a_fork_neither_keeps_nor_drops_it(tmp_path: Path, helper: Helper) -> None:
    folder = tmp_path / "r"
    parent = helper(FORKS, folder)
    child = int(said(parent))
    try:
        with pytest.raises(RunError, match=f"process {parent.pid} on"):  # the child's release was none
            FolderLock(folder)
        parent.kill()
        parent.wait(timeout=TIMEOUT_S)
        os.kill(child, 0)  # it lives
        assert not is_locked(folder)
        FolderLock(folder).release()
    finally:
        os.kill(child, signal.SIGKILL)


def test_within_a_process_too(tmp_path: Path) -> None:
    first = FolderLock(tmp_path)
    with pytest.raises(RunError, match=f"process {os.getpid()} on .* is writing this run"):
        FolderLock(tmp_path)
    other = FolderLock(tmp_path / "other")  # another folder is another lock
    first.release()
    again = FolderLock(tmp_path)
    first.release()  # a second time: not of the one that has it now
    assert is_locked(tmp_path)
    again.release()
    other.release()
    assert os.listdir(tmp_path) == []


def test_two_fits_in_a_process(tmp_path: Path) -> None:
    """The second starts while the first is under way, with and without resume."""
    path, errors = data(tmp_path / "d.parquet"), []

    def second(_: Any) -> None:
        for resume in (False, True):
            with pytest.raises(RunError, match="is writing this run: wait for it, or name another folder") as caught:
                fit(path, target="y", out=tmp_path / "r", resume=resume)
            errors.append(caught.value)

    fit(path, target="y", out=tmp_path / "r", progress=second)
    assert errors and sorted(os.listdir(tmp_path / "r")) == [
        "checkpoints", "metrics.jsonl", "model.json", "model.safetensors", "report.json",
    ]  # fmt: skip


# -- fits on the command line ----------------------------------------------------------------------------------------------

FIT = """
import sys, time
from streamtrain import cli
from streamtrain.runs import checkpoint
from streamtrain.cli import commands
save = checkpoint.Checkpoints.save
def saved(*what):
    save(*what)
    print("saved", flush=True)
    sys.stdin.readline()
checkpoint.Checkpoints.save, checkpoint.CheckpointSchedule.due = saved, lambda *_, **__: True
cli.main(sys.argv[1:])
"""


def test_two_fits_then_kill_then_resume_at_once(tmp_path: Path, helper: Helper, cli: CommandLine) -> None:
    arguments = [
        "fit",
        str(data(tmp_path / "d.parquet")),
        "--target",
        "y",
        "--out",
        str(tmp_path / "r"),
        "--epochs",
        "2",
    ]
    first = helper(FIT, *arguments)
    assert said(first) == "saved"
    before = {path: path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file()}
    for more in ([], ["--resume"]):
        code, out, err = cli(*arguments, *more)
        assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1
        assert f"process {first.pid} on " in err
    assert before == {path: path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file()}
    first.kill()
    first.wait(timeout=TIMEOUT_S)
    assert LOCK in os.listdir(tmp_path / "r")
    code, out, err = cli(*arguments, "--resume", "--json")
    assert code == 0 and json.loads(out)["resumes"] == 1, err
    assert LOCK not in os.listdir(tmp_path / "r")


# -- what is left ----------------------------------------------------------------------------------------------------------


def test_folders_that_were_made_for_nothing_go(tmp_path: Path) -> None:
    path, out = data(tmp_path / "d.parquet"), tmp_path / "a/b/c"
    with pytest.raises(ValueError, match="no column 'nothing'"):
        fit(path, target="nothing", out=out)
    assert os.listdir(tmp_path) == ["d.parquet"]
    out.parent.mkdir(parents=True)
    with pytest.raises(ValueError, match="no column 'nothing'"):
        fit(path, target="nothing", out=out)
    assert out.parent.is_dir() and not out.exists()  # it was there before
    held = FolderLock(out)
    (out / "x").write_text("x")
    held.release()
    assert os.listdir(out) == ["x"]


def test_a_lock_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            FolderLock(tmp_path / "a/b")
        with pytest.raises(RunError, match=r"--out .*: .* cannot be written \(No space left on device\)"):
            RunFolder(tmp_path / "a/b")
    assert os.listdir(tmp_path) == []
    FolderLock(tmp_path / "a/b").release()


@pytest.mark.parametrize("what", ["link", "folder"])
def test_a_lock_that_is_no_file(what: str, tmp_path: Path) -> None:
    """A link is not followed."""
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "r").mkdir()
    if what == "link":
        (tmp_path / "r" / LOCK).symlink_to(tmp_path / "mine")
    else:
        (tmp_path / "r" / LOCK).mkdir()
    with pytest.raises(RunError, match="cannot be written"):
        RunFolder(tmp_path / "r")
    assert (tmp_path / "mine").read_text() == "mine" and not is_locked(tmp_path / "r")


# -- races -------------------------------------------------------------------------------------------------------------------

RACE = """
import os, sys
import filelock
from pathlib import Path
from streamtrain.errors import RunError
from streamtrain.runs.lock import FolderLock
RACERS, ROUNDS, root, held = int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[1]), sys.argv[4] == "held"
def race(folder, start, done, results):
    os.read(start, 1)  # returns in all at once, when the last writer has gone
    for _ in range(1 if held else 20):
        try:
            lock = FolderLock(folder)
            if not held:  # nobody else is between these two
                os.close(os.open(folder / "alone", os.O_CREAT | os.O_EXCL))
                os.unlink(folder / "alone")
            os.write(results, b"1")
            if held:
                os.read(done, 1)  # until all have tried
            lock.release()
        except RunError as error:
            os.write(results, b"w" if "is writing this run" in str(error) else str(error).encode())
        except BaseException as error:
            os.write(results, f"({type(error).__name__}: {error})".encode())
for number in range(ROUNDS):
    start, go = os.pipe()
    done, let = os.pipe()
    results, tell = os.pipe()
    folder = root / (f"{number}/a/b" if held else "a/b")
    children = []
    for _ in range(RACERS):
        child = os.fork()
        if not child:
            os.close(go), os.close(let), os.close(results)
            try:
                race(folder, start, done, tell)
            finally:
                os._exit(0)
        children.append(child)
    os.close(tell), os.close(go)
    found = b""
    while held and len(found) < RACERS:
        found += os.read(results, 1000)
    os.close(let)
    while more := os.read(results, 1000):
        found += more
    for child in children:
        os.waitpid(child, 0)
    for handle in (start, done, results):
        os.close(handle)
    print(found.decode(), flush=True)
"""


@pytest.mark.parametrize(("how", "rounds", "tries"), [("held", 5, 1), ("released", 3, 20)])
def test_of_ten_that_race_for_a_new_folder_one_wins(
    how: str, rounds: int, tries: int, tmp_path: Path, helper: Helper
) -> None:
    """held: until all have tried. released: at once, so that folders come and go while others make them."""
    child = helper(RACE, tmp_path, 10, rounds, how)
    out, err = child.communicate(timeout=TIMEOUT_S)
    assert child.returncode == 0 and len(out.splitlines()) == rounds, err
    for found in out.splitlines():
        assert sorted(found)[0] == "1" and set(found) <= {"1", "w"} and len(found) == 10 * tries, (found, err)
        assert found.count("1") == 1 or how == "released"
    assert not [*tmp_path.rglob("*.lock"), *tmp_path.rglob("alone")]


@pytest.mark.parametrize("always", [False, True])
def test_a_folder_that_goes_before_it_is_locked(always: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever had the lock removes the folder, just then."""
    opened, goes = os.open, iter([True])

    def gone(path: Any, *how: Any) -> int:
        if Path(path).name == LOCK and (always or next(goes, False)):
            Path(path).parent.rmdir()
        return opened(path, *how)

    monkeypatch.setattr(os, "open", gone)
    if always:
        with pytest.raises(RunError, match="cannot be locked: it is made and removed all the time"):
            FolderLock(tmp_path / "a/b")
    else:
        FolderLock(tmp_path / "a/b").release()
    assert os.listdir(tmp_path) == []


LOOKS = """
import sys
from pathlib import Path
from streamtrain.runs.lock import is_locked
print("looking", flush=True)
while True:
    is_locked(Path(sys.argv[1]))
"""


def test_who_looks_does_not_keep_others_out(tmp_path: Path, helper: Helper) -> None:
    """`streamtrain runs` in a loop, beside runs that begin and end."""
    (tmp_path / LOCK).touch()
    child = helper(LOOKS, tmp_path)
    assert said(child) == "looking"
    for _ in range(300):
        held = FolderLock(tmp_path)
        handle = held.folder / LOCK
        held.release()
        handle.touch()  # as a killed process leaves it


# -- is_locked, and no locks at all -----------------------------------------------------------------------------------------


def test_is_locked(tmp_path: Path) -> None:
    assert not is_locked(tmp_path) and not is_locked(tmp_path / "nowhere")
    (tmp_path / LOCK).write_text("process 1 on elsewhere\n")  # what a killed process leaves
    assert not is_locked(tmp_path)
    held = FolderLock(tmp_path)
    assert is_locked(tmp_path) and is_locked(tmp_path)
    with pytest.raises(RunError):
        FolderLock(tmp_path)
    held.release()
    assert not is_locked(tmp_path) and os.listdir(tmp_path) == []


@pytest.mark.parametrize("how", ["ENOTSUP", "ENOLCK", "ENOSYS"])
def test_where_there_are_no_locks_it_works_and_says_so(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: CommandLine
) -> None:
    path = data(tmp_path / "d.parquet")

    def none(handle: int | IO[Any], operation: int) -> None:
        raise OSError(getattr(errno, how), "not here")

    monkeypatch.setattr(fcntl, "flock", none)
    code, out, err = cli("fit", str(path), "--target", "y", "--out", str(tmp_path / "r"), "--json")
    assert code == 0, err
    warning = f"{tmp_path / 'r'} cannot be locked: make sure that no other run writes there"
    assert json.loads(out)["warnings"] == [warning] and warning in err
    assert json.loads((tmp_path / "r/report.json").read_text())["warnings"] == [warning]
    assert LOCK not in os.listdir(tmp_path / "r") and not is_locked(tmp_path / "r")
    code, _, err = cli("fit", str(path), "--out", str(tmp_path / "r"), "--resume", "--epochs", "2")
    assert code == 0, err
