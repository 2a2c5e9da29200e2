"""Checkpoints: numbers, the last two, the newest that is whole; and files in their folder that are no checkpoints."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import CommandLine, Done
from safetensors.numpy import save_file

from streamtrain import fit
from streamtrain.errors import RunError
from streamtrain.model import tensors
from streamtrain.runs.checkpoint import Checkpoints, CheckpointSchedule

BENCH = Path(__file__).parents[2] / "bench"
SETTINGS: dict[str, Any] = {"target": "y", "epochs": 3, "batch_size": 64, "holdout": 0.1, "patience": 2}
TIMEOUT_S = 120
SAVES = 4  # after which the run is stopped


class _Stopped(BaseException):
    """As if the process were killed."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a run of them to its end (``whole``), and one that was stopped after some checkpoints (``stopped``)."""
    folder, rng = tmp_path_factory.mktemp("runs"), np.random.default_rng(0)
    x, kinds = rng.normal(size=(3000, 2)), rng.integers(0, 9, 3000)
    y = x @ [1.0, -2.0] + 0.3 * kinds > 1
    columns = {"a": x[:, 0], "b": x[:, 1], "k": [f"kind {k}" for k in kinds], "y": y.astype(int)}
    pq.write_table(pa.table(columns), folder / "d.parquet", row_group_size=500)
    fit(folder / "d.parquet", out=folder / "whole", **SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(SAVES, patch)
        with pytest.raises(_Stopped):
            fit(folder / "d.parquet", out=folder / "stopped", **SETTINGS)
    return folder


def stop_after(saves: int, patch: pytest.MonkeyPatch) -> None:
    """A checkpoint after each look at the clock, and the end after so many."""
    save, count = Checkpoints.save, iter(range(1, saves + 1))

    def saved(self: Checkpoints, *what: Any) -> None:
        save(self, *what)
        if next(count) == saves:
            raise _Stopped

    patch.setattr(Checkpoints, "save", saved)
    patch.setattr(CheckpointSchedule, "due", lambda *_, **__: True)


@pytest.fixture
def stopped(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the stopped run, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.parquet").symlink_to(made / "d.parquet")
    return Path(shutil.copytree(made / "stopped", tmp_path / "r"))


@pytest.fixture
def run(cli: CommandLine) -> Iterator[CommandLine]:
    """The command line, which must answer."""
    before = signal.signal(signal.SIGALRM, _too_long)

    def call(*arguments: Any) -> Done:
        signal.alarm(TIMEOUT_S)  # who opens a pipe waits
        try:
            return cli(*arguments)
        finally:
            signal.alarm(0)

    yield call
    signal.signal(signal.SIGALRM, before)


def _too_long(*_: Any) -> None:
    raise AssertionError(f"no answer within {TIMEOUT_S} s")  # a TimeoutError would be an OSError


def header(metadata: Mapping[str, str]) -> dict[str, Any]:
    """All of it, as one."""
    known: dict[str, Any] = json.loads(metadata["streamtrain"])
    return known.pop("run") | known


KNOWN: dict[str, Any] = {
    "settings": {}, "resolved": {}, "validate": None, "validation": None, "versions": {}, "resumes": 0, "warnings": [],
    "started": "2026-01-31T12:00:00+00:00",
    "checkpoint_seconds": 30.0,
    "model": {}, "cursor": {},
    "data": {"fingerprint": None, "rows": 1, "chunks": 1, "schema": {}, "files": None}, "lineage": [], "changes": [],
    "ledger": None,
    "environment": {"streamtrain": "", "numpy": "", "blas": "", "kernels": "", "processor": ""},
    "history": {"rows": 0, "held": 0, "batches": 0, "next_record": 1, "lines": [], "ends": [], "is_over": False,
                "best_epoch": None, "judge": "progressive"},
    "seconds": {"loop": 0.0, "read": 0.0, "wait": 0.0, "learn": 0.0, "validation": 0.0, "checkpoint": 0.0},
}  # fmt: skip
"""The least that a header has."""


def names(run: Path) -> list[str]:
    return sorted(os.listdir(run / "checkpoints"))


def newest(run: Path) -> Path:
    return run / "checkpoints" / names(run)[-1]


def tree(folder: Path) -> dict[str, Any]:
    """All that is in a folder: the bytes of files, where links lead, and None for what is something else."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        plain = path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = os.readlink(path) if path.is_symlink() else plain
    return found


def same(run: Path, whole: Path) -> bool:
    """Whether a run ended as the one that nobody stopped."""

    def scores(folder: Path) -> list[Any]:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [line | {"seconds": 0} for line in lines]

    weights = [(folder / "model.safetensors").read_bytes() for folder in (run, whole)]
    return weights[0] == weights[1] and scores(run) == scores(whole)


def refused(run: CommandLine, *what: str) -> str:
    """The one line with which a resume is refused, which leaves the folder as it was."""
    before = tree(Path("r"))
    code, out, err = run("fit", "d.parquet", "--out", "r", "--resume")
    assert (code, out) == (2, ""), err
    assert err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err, err
    assert tree(Path("r")) == before
    assert all(part in err for part in what), err
    return err


# -- the folder ----------------------------------------------------------------------------------------------------------


def test_they_are_numbered_and_the_last_two_are_kept(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    checkpoints = Checkpoints(tmp_path / "r/checkpoints")
    assert checkpoints.newest() is None and not checkpoints.exist() and checkpoints.look() is None
    for number in range(1, 13):
        checkpoints.save(KNOWN | {"n": number}, {"x": np.full(3, number)})
        kept = [f"checkpoint-{n:08}.safetensors" for n in range(max(1, number - 1), number + 1)]
        assert names(tmp_path / "r") == kept
    other = Checkpoints(tmp_path / "r/checkpoints")
    assert other.exist() and other.look() == other.newest() == {"format": 1, **KNOWN, "n": 12}
    assert other.arrays()["x"].tolist() == [12, 12, 12] and list(other.arrays()) == ["x"]
    other.save(KNOWN | {"n": 13}, {})
    assert names(tmp_path / "r") == ["checkpoint-00000012.safetensors", "checkpoint-00000013.safetensors"]


def test_numbers_beyond_eight_digits_are_the_newest(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for number in (99_999_998, 99_999_999, 100_000_000):
        tensors.save(tmp_path / f"checkpoint-{number:08}.safetensors", {}, sealed=True)
    assert [number for number, _ in checkpoints._files()] == [99_999_998, 99_999_999, 100_000_000]
    checkpoints.save(KNOWN | {"n": 1}, {})
    assert checkpoints.newest() == {"format": 1, **KNOWN, "n": 1} and names_of(tmp_path) == [
        "checkpoint-100000001.safetensors"
    ]


def names_of(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_damaged_one_is_kept_until_a_newer_good_one_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    for number in range(3):
        checkpoints.save(KNOWN | {"n": number}, {"x": number})
    good, damaged = (tmp_path / name for name in names_of(tmp_path))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    checkpoints = Checkpoints(tmp_path)
    found = checkpoints.newest()
    assert found is not None and found["n"] == 1
    assert len(checkpoints.damaged) == 1 and str(damaged) in checkpoints.damaged[0]
    assert "is cut off" in checkpoints.damaged[0]
    assert names_of(tmp_path) == [good.name, damaged.name]
    with monkeypatch.context() as patch:
        patch.setattr(tensors, "save", _fails)
        with pytest.raises(OSError, match="no space"):
            checkpoints.save(KNOWN | {"n": 2}, {})
    assert names_of(tmp_path) == [good.name, damaged.name]
    checkpoints.save(KNOWN | {"n": 2}, {})
    assert names_of(tmp_path) == [good.name, "checkpoint-00000004.safetensors"]
    assert not Checkpoints(tmp_path).damaged


def _fails(path: Path, *_: Any, **__: Any) -> str:
    path.write_bytes(b"half of it")
    raise OSError("no space")


def test_what_is_saved_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fsync of the file, then the rename, then fsync of the folder, then the old ones go."""
    checkpoints, done = Checkpoints(tmp_path), []
    for _ in range(2):
        checkpoints.save({}, {})
    sync, replace, unlink = os.fsync, Path.replace, Path.unlink
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append(os.readlink(f"/proc/self/fd/{handle}")), sync(handle)))
    monkeypatch.setattr(Path, "replace", lambda a, b: (done.append(f"{a} -> {b}"), replace(a, b))[1])
    monkeypatch.setattr(Path, "unlink", lambda path, **how: (done.append(f"- {path}"), unlink(path, **how))[1])
    checkpoints.save({}, {})
    new, old = "checkpoint-00000003.safetensors", "checkpoint-00000001.safetensors"
    lines = [re.sub(r"\.writing-[^/]*", "HIDDEN", line.replace(f"{tmp_path}/", "")) for line in done]
    assert lines[0] == f"HIDDEN/{new}" and set(lines[:-3]) == {lines[0]}
    assert lines[-3:] == [f"HIDDEN/{new} -> {new}", str(tmp_path), f"- {old}"]


# -- damage, on the command line -------------------------------------------------------------------------------------------


def test_a_damaged_newest_falls_back_to_the_one_before_and_says_so(stopped: Path, made: Path, run: CommandLine) -> None:
    assert names(stopped) == ["checkpoint-00000003.safetensors", "checkpoint-00000004.safetensors"]
    good, damaged = (stopped / "checkpoints" / name for name in names(stopped))
    flipped = bytearray(damaged.read_bytes())
    flipped[len(flipped) // 2] ^= 4
    damaged.write_bytes(flipped)
    seen = json.loads(tensors.look(good)[0]["streamtrain"])["cursor"]["rows_seen"]
    code, out, err = run("fit", "d.parquet", "--out", "r", "--resume", "--json")
    assert code == 0, err
    said = f"{damaged}: its checksum differs: the file is not what was written: the checkpoint before it is used"
    assert f"after {seen:,} rows" in err and said in err
    assert said in json.loads(out)["warnings"] and said in json.loads((stopped / "report.json").read_text())["warnings"]
    assert same(stopped, made / "whole") and json.loads(out)["resumes"] == 1
    assert names(stopped) == [good.name, "checkpoint-00000005.safetensors"]


def test_a_whole_newest_is_where_it_goes_on(stopped: Path, made: Path, run: CommandLine) -> None:
    seen = json.loads(tensors.look(newest(stopped))[0]["streamtrain"])["cursor"]["rows_seen"]
    code, out, err = run("fit", "d.parquet", "--out", "r", "--resume", "--json")
    assert code == 0 and f"after {seen:,} rows" in err and json.loads(out)["warnings"] == []
    assert same(stopped, made / "whole")


def test_where_all_are_damaged_it_is_an_error_that_names_each(stopped: Path, run: CommandLine) -> None:
    paths = [stopped / "checkpoints" / name for name in names(stopped)]
    paths[0].write_bytes(paths[0].read_bytes()[:-7])
    paths[1].write_bytes(b"")
    refused(run, str(paths[0]), str(paths[1]), "is cut off", "restore one from a copy, or start over in another folder")


@pytest.mark.parametrize("count", [1, 3])
def test_what_a_killed_write_left_is_no_checkpoint(count: int, stopped: Path, made: Path, run: CommandLine) -> None:
    """Even where it is whole, and has a higher number; and with nothing else it is a new start."""
    for number in range(5, 5 + count):
        hidden = stopped / f"checkpoints/.writing-{number}"
        hidden.mkdir()
        shutil.copy(newest(stopped), hidden / f"checkpoint-{number:08}.safetensors")
    left = [name for name in names(stopped) if name.startswith(".")]
    assert len(left) == count and Checkpoints(stopped / "checkpoints").look() is not None
    code, _, err = run("fit", "d.parquet", "--out", "r", "--resume")
    assert code == 0, err
    assert same(stopped, made / "whole")
    assert names(stopped) == ["checkpoint-00000004.safetensors", "checkpoint-00000005.safetensors"]


def test_a_write_that_was_killed_before_the_first_is_a_new_start(run: CommandLine, stopped: Path, made: Path) -> None:
    for name in names(stopped):
        hidden = stopped / f"checkpoints/.writing-{name}"
        hidden.mkdir()
        (stopped / "checkpoints" / name).rename(hidden / name)
    (stopped / ".writing-abc").mkdir()
    (stopped / ".writing-abc/model.json").write_text("{")
    code, _, err = run("fit", "d.parquet", "--out", "r", "--resume")
    assert code == 2 and "--target: required, as there is no run to resume" in err
    code, out, err = run("fit", "d.parquet", "--out", "r", "--resume", "--target", "y", "--epochs", 3, "--batch-size",
                         64, "--holdout", 0.1, "--patience", 2, "--json")  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["resumes"] == 0 and same(stopped, made / "whole")
    assert names(stopped) == ["checkpoint-00000001.safetensors"]
    assert sorted(os.listdir(stopped)) == [
        "checkpoints",
        "metrics.jsonl",
        "model.json",
        "model.safetensors",
        "report.json",
    ]


FLIPS = """
import dataclasses, sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import flips
flips.KINDS = {"regression": flips.KINDS["regression"]}
with tempfile.TemporaryDirectory() as folder:
    work = Path(folder)
    flips.make(work)
    cases = [flips.choose(work, 0, number) for number in range(3)]
    for case in cases:
        print(flips.tried(case, work).outcome)
    forged = flips.tried(dataclasses.replace(cases[0], number=0), work, flips.forge)
    alone = flips.tried(dataclasses.replace(cases[0], number=1), work, flips.forge)
    print(forged.outcome)
    print(alone.outcome)
    print(flips.tried(cases[0], work, lambda path, case: None).outcome)
"""


@pytest.mark.slow
def test_bench_flips_sees_what_is_wrong() -> None:
    """Three of its cases; and a checkpoint with other weights and a checksum that is right, which leads to another end."""
    done = subprocess.run([sys.executable, "-c", FLIPS, BENCH], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    *outcomes, forged, alone, nothing = done.stdout.splitlines()
    assert outcomes == ["fell back", "error", "fell back"]
    assert forged.startswith("was not said; model.safetensors; model.json; report.json: metrics")
    assert alone.startswith("went on without a checkpoint: model.safetensors; ") and nothing == "nothing was damaged"


# -- files that are something else -----------------------------------------------------------------------------------------


def directory(path: Path) -> None:
    path.mkdir()


def full_directory(path: Path) -> None:
    path.mkdir()
    (path / "x").write_text("x")


def loop(path: Path) -> None:
    path.symlink_to(path)


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def somebody_elses(path: Path) -> None:
    save_file({"w": np.zeros(3)}, path)


def sealed_but_of_another(path: Path) -> None:
    tensors.save(path, {"w": np.zeros(3)}, metadata={"streamtrain": '{"weights": 3}'}, sealed=True)


def without_metadata(path: Path) -> None:
    tensors.save(path, {"w": np.zeros(3)}, sealed=True)


def list_for_a_header(path: Path) -> None:
    tensors.save(path, {}, metadata={"streamtrain": '["format"]'}, sealed=True)


def deep_header(path: Path) -> None:
    tensors.save(path, {}, metadata={"streamtrain": "[" * 100_000}, sealed=True)


HOSTILE = [directory, full_directory, loop, dangling, empty, pipe, somebody_elses, sealed_but_of_another, without_metadata,
           list_for_a_header, deep_header]  # fmt: skip


@pytest.mark.parametrize("make", HOSTILE)
def test_what_is_no_checkpoint_is_passed_over(
    make: Callable[[Path], None], stopped: Path, made: Path, run: CommandLine
) -> None:
    path = stopped / "checkpoints/checkpoint-00000009.safetensors"
    make(path)
    code, out, err = run("fit", "d.parquet", "--out", "r", "--resume", "--json")
    assert code == 0 and "Traceback" not in err, err
    assert f"{path}: " in err and "the checkpoint before it is used" in err
    assert any(str(path) in warning for warning in json.loads(out)["warnings"])
    assert same(stopped, made / "whole")
    left = [] if not path.is_dir() else [path.name]  # nobody's folder is removed
    assert names(stopped) == sorted(["checkpoint-00000004.safetensors", *left, "checkpoint-00000010.safetensors"])


@pytest.mark.parametrize("make", HOSTILE)
def test_with_nothing_else_it_is_an_error(make: Callable[[Path], None], stopped: Path, run: CommandLine) -> None:
    for name in names(stopped):
        (stopped / "checkpoints" / name).unlink()
    make(stopped / "checkpoints/checkpoint-00000009.safetensors")
    refused(run, "checkpoint-00000009.safetensors: ", "no checkpoint can be read")


LIKE = [
    "checkpoint-00000009.safetensors.bak", "checkpoint-9.safetensors", "Checkpoint-00000009.safetensors", "x",
    "checkpoint-0000000٩.safetensors", "checkpoint-00000009.safetensors\n", ".checkpoint-00000009.safetensors",
]  # fmt: skip


def test_what_only_looks_like_one_is_left_alone(stopped: Path, made: Path, run: CommandLine) -> None:
    for name in LIKE:
        (stopped / "checkpoints" / name).write_text("mine")
    code, out, err = run("fit", "d.parquet", "--out", "r", "--resume", "--json")
    assert code == 0 and json.loads(out)["warnings"] == [], err
    assert same(stopped, made / "whole")
    assert set(names(stopped)) == {*LIKE, "checkpoint-00000004.safetensors", "checkpoint-00000005.safetensors"}
    assert all((stopped / "checkpoints" / name).read_text() == "mine" for name in LIKE)


@pytest.mark.parametrize("resume", [True, False])
def test_checkpoints_that_is_no_folder(resume: bool, stopped: Path, run: CommandLine) -> None:
    shutil.rmtree(stopped / "checkpoints")
    (stopped / "checkpoints").write_text("mine")
    before = tree(stopped)
    code, out, err = run("fit", "d.parquet", "--target", "y", "--out", "r", *(["--resume"] if resume else []))
    assert (code, out) == (2, "") and "is not a run of streamtrain" in err and err.count("\n") == 1, err
    assert tree(stopped) == before


# -- sealed, but not by us -------------------------------------------------------------------------------------------------

GONE = object()
WRONG: list[tuple[str, Any]] = [
    ("format", "1"), ("format", None), ("format", 2), ("settings", GONE), ("settings", []), ("settings", {}),
    ("settings.epochs", "four"),
    ("settings.seed", [1]), ("settings.target", None), ("settings.target", 3), ("settings.roles", 5),
    ("settings.optimizer", 3), ("settings.strange", 1), ("settings.memory", []),
    ("resolved", GONE), ("resolved", 3), ("resolved.batch_size", "64"), ("resolved.batch_size", 0), ("resolved.hash_bits", {}),
    ("data", None), ("data", GONE), ("data.schema", 3), ("data.files", 5), ("data.rows", "x"),
    ("data.fingerprint", 7), ("data.fingerprint", GONE), ("validate", 3), ("validate", GONE),
    ("validation", 5), ("validation", GONE),
    ("versions", GONE), ("versions", []), ("versions", {}), ("environment", None), ("environment", {}), ("environment", GONE),
    ("lineage", 3), ("lineage", GONE), ("changes", GONE), ("changes", 1),
    ("resumes", "1"), ("resumes", GONE), ("warnings", None), ("checkpoint_seconds", "x"),
    ("model", {}), ("model", 5), ("model", GONE),
    ("model.targets", []), ("model.targets", 3), ("model.features.0.type", "nonsense"), ("model.features", {}),
    ("model.settings", None), ("model.preparation", []), ("cursor", GONE), ("cursor", []), ("cursor.row", "12"),
    ("cursor.row", -1), ("cursor.row", GONE), ("cursor.row", 1.5), ("cursor.window", 10**30), ("cursor.epoch", None),
    ("cursor.strange", 1), ("cursor.order", 3), ("history", GONE), ("history", []),
    ("history.lines", 7), ("history.lines", "abc"),
    ("history.lines", [1]), ("history.lines", GONE), ("history.ends", None), ("history.ends", "0"),
    ("history.judge", 3), ("history.judge", "nobody"), ("history.next_record", None),
    ("history.next_record", "9"), ("history.best_epoch", "2"), ("history.best_epoch", GONE), ("history.rows", "x"),
    ("history.rows", None), ("history.batches", []), ("history.held", GONE), ("history.is_over", "no"), ("ledger", "x"),
    ("ledger", GONE), ("seconds", {}), ("seconds", GONE), ("seconds.loop", "1"), ("seconds.read", None), ("seconds", [1]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("where", "value"), WRONG, ids=[f"{where}={'gone' if value is GONE else value}"[:40] for where, value in WRONG]
)
def test_a_header_of_wrong_types_is_an_error(where: str, value: Any, stopped: Path, run: CommandLine) -> None:
    """Sealed properly: only somebody who means it makes one, and then a traceback would be the least of it."""
    path = newest(stopped)
    found = tensors.load(path, sealed=True)
    known = header(found.metadata)
    *parents, last = where.split(".")
    inner: Any = known
    for name in parents:
        inner = inner[int(name) if name.isdigit() else name]
    if value is GONE:
        del inner[last]
    else:
        inner[last] = value
    for name in names(stopped):
        (path.parent / name).unlink()
    tensors.save(path, found.arrays, metadata={"streamtrain": json.dumps(known)}, sealed=True)
    if not seen_at_once(path):
        refused(run)


def seen_at_once(path: Path) -> bool:
    """Whether it is seen to be no checkpoint before anything of it is used. The command line says what a RunError says."""
    checkpoints = Checkpoints(path.parent)
    with contextlib.suppress(RunError):
        checkpoints.newest()
        return False
    return str(path) in "".join(checkpoints.damaged)


ARRAYS: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("none", lambda arrays: arrays.clear()),
    ("one is gone", lambda arrays: arrays.pop("model.learner.weights")),
    ("the scores are gone", lambda arrays: arrays.pop("progressive.totals")),
    ("held-out scores are gone", lambda arrays: arrays.pop("holdout.totals")),
    ("patience is gone", lambda arrays: [arrays.pop(name) for name in [*arrays] if name.startswith("patience.")]),
    ("another shape", lambda arrays: arrays.update({"model.learner.weights": np.zeros((3, 3, 3))})),
    ("no axis", lambda arrays: arrays.update({"progressive.pending": np.float32(1)})),
]


@pytest.mark.parametrize("change", [change for _, change in ARRAYS], ids=[name for name, _ in ARRAYS])
def test_arrays_of_another_model_are_an_error(
    change: Callable[[dict[str, Any]], Any], stopped: Path, run: CommandLine
) -> None:
    path = newest(stopped)
    found = tensors.load(path, sealed=True)
    change(found.arrays)
    for name in names(stopped):
        (path.parent / name).unlink()
    tensors.save(path, found.arrays, metadata=found.metadata, sealed=True)
    refused(run)


def test_a_later_format_is_told_of(stopped: Path, run: CommandLine) -> None:
    path = newest(stopped)
    found = tensors.load(path, sealed=True)
    known = header(found.metadata) | {"format": 2}
    tensors.save(path, found.arrays, metadata={"streamtrain": json.dumps(known)}, sealed=True)
    refused(run, f"{path}: checkpoint format 2; this version reads 1")
    with pytest.raises(RunError, match="checkpoint format 2"):
        Checkpoints(stopped / "checkpoints").newest()
