"""A disk that is full, and folders that cannot be written: one line, exit code 2, and the last good checkpoint stays."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import CommandLine

from streamtrain import fit, load_model
from streamtrain.runs.checkpoint import Checkpoints, CheckpointSchedule
from streamtrain.runs.folder import RunFolder

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root can mount a small disk and become somebody else"
)

DISK_BYTES, TIMEOUT_S, NOBODY = 4 << 20, 60, 65534
SETTINGS: dict[str, Any] = {"target": "y", "epochs": 2, "batch_size": 64}
ARGUMENTS = ["--target", "y", "--epochs", "2", "--batch-size", "64"]


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """Data, and a run of them to its end, where everybody may read them."""
    folder, rng = Path(tempfile.mkdtemp()), np.random.default_rng(0)
    try:
        folder.chmod(0o755)
        x = rng.normal(size=(3000, 2))
        columns = {"a": x[:, 0], "b": x[:, 1], "y": (x @ [1.0, -2.0] > 0).astype(int)}
        pq.write_table(pa.table(columns), folder / "d.parquet", row_group_size=500)
        fit(folder / "d.parquet", out=folder / "whole", **SETTINGS)
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, timeout=TIMEOUT_S)


def fill(disk: Path, free_bytes: int = 0) -> None:
    """Leave so many bytes, in whole pages."""
    with open(disk / "filler", "ab", buffering=0) as file:
        left = os.statvfs(disk)
        file.write(bytes(max(0, left.f_bavail * left.f_bsize - free_bytes)))
    left = os.statvfs(disk)
    assert left.f_bavail * left.f_bsize == free_bytes // left.f_bsize * left.f_bsize


def before(name: str, number: int, what: Callable[[], None], owner: type, patch: pytest.MonkeyPatch) -> None:
    """Do something before the call of this number of a method."""
    method, calls = getattr(owner, name), iter(range(1, 10_000))

    def called(*arguments: Any) -> Any:
        if next(calls) == number:
            what()
        return method(*arguments)

    patch.setattr(owner, name, called)


def same(run: Path, whole: Path) -> bool:
    """Whether a run ended as the one that nothing disturbed."""

    def scores(folder: Path) -> list[Any]:
        return [json.loads(line) | {"seconds": 0} for line in (folder / "metrics.jsonl").read_text().splitlines()]

    one, other = ((folder / "model.safetensors").read_bytes() for folder in (run, whole))
    return one == other and scores(run) == scores(whole) and load_model(run).target.name == "y"


def saved(folder: Path) -> dict[str, bytes]:
    """The checkpoints; all of them are whole, and nothing else is there."""
    found = {path.name: path.read_bytes() for path in sorted((folder / "checkpoints").iterdir())}
    assert all(name.startswith("checkpoint-") and name.endswith(".safetensors") for name in found)
    checkpoints = Checkpoints(folder / "checkpoints")
    assert checkpoints.newest() is not None and not checkpoints.damaged and checkpoints.arrays()
    return found


def refused(answer: tuple[int, str, str], *what: str) -> None:
    code, out, err = answer
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1, err
    assert "Traceback" not in err and all(part in err for part in what), err


# -- a full disk -------------------------------------------------------------------------------------------------------------


def test_before_anything_is_there(disk: Path, made: Path, cli: CommandLine) -> None:
    fill(disk)
    refused(cli("fit", made / "d.parquet", *ARGUMENTS, "--out", disk / "r"), f"--out {disk / 'r'}", "No space left")
    assert os.listdir(disk) == ["filler"]


def test_at_the_first_score(disk: Path, made: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        before("record", 1, lambda: fill(disk), RunFolder, patch)
        answer = cli("fit", made / "d.parquet", *ARGUMENTS, "--out", disk / "r")
    refused(answer, f"--out {disk / 'r'}", "No space left")
    assert not (disk / "r/checkpoints").exists() and ".lock" not in os.listdir(disk / "r")
    (disk / "filler").unlink()
    code, _, err = cli("fit", made / "d.parquet", *ARGUMENTS, "--out", disk / "r", "--resume")
    assert code == 0, err
    assert same(disk / "r", made / "whole")


@pytest.mark.parametrize("free_bytes", [0, 20_000])
def test_at_a_checkpoint(
    free_bytes: int, disk: Path, made: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is there, with two good ones: they stay. free_bytes: for less than it takes."""
    kept: dict[str, bytes] = {}

    def full() -> None:
        kept.update(saved(disk / "r"))
        assert len(kept) == 2 and min(map(len, kept.values())) > free_bytes
        fill(disk, free_bytes)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointSchedule, "due", lambda *_, **__: True)
        before("save", 4, full, Checkpoints, patch)
        answer = cli("fit", made / "d.parquet", *ARGUMENTS, "--out", disk / "r")
    refused(answer, f"--out {disk / 'r'}", "No space left")
    assert kept and saved(disk / "r") == kept
    assert sorted(os.listdir(disk / "r")) == ["checkpoints", "metrics.jsonl"]
    answer = cli("fit", made / "d.parquet", "--out", disk / "r", "--resume")  # still full
    assert answer[0] == 2 and "No space left" in answer[2] and "Traceback" not in answer[2]
    assert saved(disk / "r") == kept
    (disk / "filler").unlink()
    code, _, err = cli("fit", made / "d.parquet", "--out", disk / "r", "--resume")
    assert code == 0 and err.startswith("resuming in epoch"), err
    assert same(disk / "r", made / "whole")


@pytest.mark.parametrize("free_bytes", [0, 4096])
def test_at_the_model_at_the_end(
    free_bytes: int, disk: Path, made: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """free_bytes: for the folder and some of its files."""
    with monkeypatch.context() as patch:
        before("write", 1, lambda: fill(disk, free_bytes), RunFolder, patch)
        answer = cli("fit", made / "d.parquet", *ARGUMENTS, "--out", disk / "r")
    refused(answer, f"--out {disk / 'r'}", "No space left")
    assert sorted(os.listdir(disk / "r")) == ["checkpoints", "metrics.jsonl"]
    assert len(saved(disk / "r")) == 1  # of the end
    code, _, err = cli("predict", disk / "r", made / "d.parquet", "--out", made / "p.parquet")
    assert code == 0 and "its checkpoint after " in err
    (disk / "filler").unlink()
    code, _, err = cli("fit", made / "d.parquet", "--out", disk / "r", "--resume")
    assert code == 0, err
    assert same(disk / "r", made / "whole") and (disk / "r/report.json").is_file()


def test_where_a_run_goes_on(disk: Path, made: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the scores that it had are written again: those that are there stay."""
    with monkeypatch.context() as patch:
        before("write", 1, lambda: fill(disk), RunFolder, patch)
        assert cli("fit", made / "d.parquet", *ARGUMENTS, "--out", disk / "r")[0] == 2
    (disk / "filler").unlink()
    kept, scores = saved(disk / "r"), (disk / "r/metrics.jsonl").read_bytes()
    with monkeypatch.context() as patch:
        before("begin", 1, lambda: fill(disk), RunFolder, patch)
        code, out, err = cli("fit", made / "d.parquet", "--out", disk / "r", "--resume")
    assert (code, out) == (2, "") and "No space left" in err and "Traceback" not in err, err
    assert saved(disk / "r") == kept and (disk / "r/metrics.jsonl").read_bytes() == scores
    (disk / "filler").unlink()
    code, _, err = cli("fit", made / "d.parquet", "--out", disk / "r", "--resume")
    assert code == 0, err
    assert same(disk / "r", made / "whole")
    assert sorted(os.listdir(disk / "r")) == [
        "checkpoints",
        "metrics.jsonl",
        "model.json",
        "model.safetensors",
        "report.json",
    ]


# -- folders that cannot be written ------------------------------------------------------------------------------------------

AS_NOBODY = """
import contextlib, io, json, os, sys
from pathlib import Path
from streamtrain.runs import checkpoint
from streamtrain.train import fit as fitting
from streamtrain.cli import main
who, (cases, locked, first) = int(sys.argv[1]), json.loads(sys.argv[2])
with contextlib.suppress(SystemExit):
    main(first)  # what is imported is imported by root, who may read it
import safetensors.numpy  # when the first array is written
os.setgroups([]), os.setgid(who), os.setuid(who)
opened, save = fitting.Job.open, checkpoint.Checkpoints.save
answers = {}
for name, arguments in cases.items():
    reads = []
    fitting.Job.open = lambda *a, **k: (reads.append(1), opened(*a, **k))[1]
    if name in locked:  # behind the second checkpoint its folder is not to be written any more
        checkpoint.CheckpointSchedule.due, left = lambda *_, **__: True, iter([0o755, 0o555])
        def saved(self, *what):
            save(self, *what)
            self.folder.chmod(next(left))
        checkpoint.Checkpoints.save = saved
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as end:
            answers[name] = end.code or 0, out.getvalue(), err.getvalue(), bool(reads)
print(json.dumps(answers))
"""


def test_folders_that_cannot_be_written(made: Path, cli: CommandLine) -> None:
    """Cases of one process, which has no rights."""
    data, cases = made / "d.parquet", {}

    def case(name: str, out: Path, *more: str) -> Path:
        cases[name] = ["fit", str(data), *ARGUMENTS, "--out", str(out), *more]
        return out

    def stopped(name: str) -> Path:
        """A run that was stopped, with a checkpoint; of root."""
        (made / name).mkdir()
        shutil.copytree(made / "whole/checkpoints", made / name / "checkpoints")
        shutil.copy(made / "whole/metrics.jsonl", made / name)
        return made / name

    below = case("below", made / "roots/r/s")
    below.parents[1].mkdir()
    existing = case("existing", made / "existing")
    existing.mkdir()
    resumed = case("resumed", stopped("resumed"), "--resume")
    hidden = case("hidden", stopped("hidden"), "--resume")
    hidden.chmod(0o700)
    inside = case("inside", stopped("inside"), "--resume")  # where only the checkpoints are root's
    shutil.chown(inside, NOBODY)
    later = case("later", made / "later")
    later.mkdir()
    shutil.chown(later, NOBODY)
    trees = {out: tree(out) for out in (below.parents[1], existing, resumed, hidden, inside)}

    first = ["fit", str(data), "--out", str(made / "whole"), "--resume"]
    command = [sys.executable, "-c", AS_NOBODY, str(NOBODY), json.dumps([cases, ["later"], first])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    for name, path in (("below", below), ("existing", existing), ("resumed", resumed), ("inside", inside)):
        code, out, err, was_read = answers[name]
        refused((code, out, err), f"--out {path}", "Permission denied", str(path.parent))
        assert not was_read, name
    code, out, err, was_read = answers["hidden"]
    refused((code, out, err), str(hidden), "Permission denied")
    assert not was_read
    assert trees == {path: tree(path) for path in trees}

    code, out, err, was_read = answers["later"]
    refused((code, out, err), f"--out {later}", "Permission denied")
    assert was_read and len(saved(later)) == 2
    (later / "checkpoints").chmod(0o755)
    code, _, err = cli("fit", data, "--out", later, "--resume")
    assert code == 0 and err.startswith("resuming in epoch"), err
    assert same(later, made / "whole")


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}
