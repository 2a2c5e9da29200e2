"""What runs there are: how far each is, its scores, and whose model it began with.

Nothing is opened but reports, scores and the headers of checkpoints. They may be damaged, of somebody else, or being replaced
at this moment: a run that cannot be read is listed as such, and hides no other.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from streamtrain.errors import RunError
from streamtrain.memory.sizes import format_bytes
from streamtrain.metrics.scores import SCORE_KINDS
from streamtrain.runs.checkpoint import Checkpoints
from streamtrain.runs.folder import CHECKPOINTS, REPORT, SCORES, read_report
from streamtrain.runs.lock import LOCK, is_locked

__all__ = ["list_runs", "newest_header"]

_MOST_REPORT_BYTES = 64_000_000
_TAIL_BYTES = 1_000_000  # of the scores
_TRIES = 10
_MOST = 1 << 63

Facts = dict[str, Any]


def list_runs(*folders: str | Path) -> list[dict[str, Any]]:
    """The runs in folders, each once: a folder is a run, or holds runs, which then come in the order of their names.

    Each has the keys that docs/command-line.md explains. Its ``state`` is running (a process writes it), finished, stopped
    (``fit --resume`` goes on with it), failed (it left no more than scores) or damaged (``problem`` says what cannot be
    read).

    Raises RunError for a folder that is not there, cannot be read, or holds no run.

    >>> import streamtrain, tempfile
    >>> x = [i / 1000 for i in range(1000)]
    >>> folder = Path(tempfile.mkdtemp())
    >>> result = streamtrain.fit({"x": x, "y": [2 * v for v in x]}, target="y", out=folder / "first")
    >>> [(Path(run["run"]).name, run["state"], run["epochs"], run["rows_seen"]) for run in list_runs(folder)]
    [('first', 'finished', 1, 1000)]
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for path in _runs_in(Path(folder)):
            found.setdefault(os.path.realpath(path), path)
    return [_describe(path) for path in found.values()]


# -- which there are ---------------------------------------------------------------------------------------------------


def _runs_in(folder: Path) -> list[Path]:
    try:
        found = [folder] if _is_run(folder) else [p for p in sorted(folder.iterdir()) if p.is_dir() and _may_be_run(p)]
    except FileNotFoundError:
        raise RunError(f"{folder}: no such folder") from None
    except NotADirectoryError:
        raise RunError(f"{folder}: is a file: name a run's folder, or one that holds runs") from None
    except OSError as error:
        raise RunError(f"{folder}: cannot be read: {error.strerror}") from error
    if not found:
        raise RunError(
            f"{folder}: is no run and holds none: name a folder that `streamtrain fit --out` wrote, or its parent"
        )
    return found


def _is_run(folder: Path) -> bool:
    names = {entry.name for entry in folder.iterdir()}
    written = {REPORT, SCORES} & names or (CHECKPOINTS in names and Checkpoints(folder / CHECKPOINTS).exist())
    return bool(written) or _is_running(folder)


def _may_be_run(folder: Path) -> bool:
    try:
        return _is_run(folder)
    except OSError as error:
        return not isinstance(error, FileNotFoundError)  # it is listed, and its problem with it


def _is_running(folder: Path) -> bool:
    return (folder / LOCK).is_file() and is_locked(folder)


# -- what is known of one ----------------------------------------------------------------------------------------------


def _unknown(folder: Path) -> Facts:
    """All keys."""
    return {
        "run": str(folder), "state": "damaged", "problem": None, "task": None, "targets": None, "loss": None, "epochs": 0,
        "epochs_asked": None, "rows_seen": 0, "metrics": dict.fromkeys(SCORE_KINDS), "best_epoch": None, "seconds": None,
        "resumes": 0, "lineage": [], "checkpoint": None, "bytes": None, "changed": None,
    }  # fmt: skip


def _describe(folder: Path) -> Facts:
    problems: list[str] = []

    def tried(read: Callable[[Path], Facts]) -> Facts:
        try:
            return read(folder)
        except RunError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{error.filename or folder}: cannot be read: {error.strerror}")
        return {}

    found = _unknown(folder) | tried(_of_files)
    if not problems:  # otherwise nobody knows what opening them would do
        running, report, checkpoint = _is_running(folder), tried(_of_report), tried(_of_checkpoint)
        is_done = checkpoint.pop("is_done", False)
        state = "running" if running else "damaged" if problems else _state(report, checkpoint, is_done)
        found |= {"state": state} | (checkpoint | report if state == "finished" else report | checkpoint)
        if state not in ("finished", "stopped"):
            found |= _further(found, tried(_of_scores))
    return found | {"problem": "; ".join(problems) or None}


def _state(report: Facts, checkpoint: Facts, is_done: bool) -> str:
    if not report and not checkpoint:
        return "failed"
    same = all(report.get(name) == checkpoint.get(name) for name in ("epochs", "rows_seen"))
    return "finished" if report and (not checkpoint or (is_done and same)) else "stopped"


def _further(found: Facts, scores: Facts) -> Facts:
    """What the scores tell beyond what was known before."""
    if not scores or scores["rows_seen"] < found["rows_seen"]:
        return {}
    epochs, seconds = max(found["epochs"], scores["epochs"]), max(found["seconds"] or 0.0, scores["seconds"])
    latest = {name: scores["metrics"][name] or found["metrics"][name] for name in SCORE_KINDS}
    return scores | {"epochs": epochs, "seconds": seconds, "metrics": latest}


def _of_files(folder: Path) -> Facts:
    """What they take, and when one was written last. Raises RunError where one is a pipe or a device, which must not be
    opened."""
    size, changed = 0, 0.0
    for part in (folder, folder / CHECKPOINTS):
        for path in part.iterdir() if part == folder or part.is_dir() else ():
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # it was just replaced
            if stat.S_ISREG(status.st_mode):
                size, changed = size + status.st_size, max(changed, status.st_mtime)
            elif not stat.S_ISDIR(status.st_mode):
                raise RunError(f"{path}: is not a file")
    try:
        return {"bytes": size, "changed": datetime.fromtimestamp(changed, UTC).isoformat(timespec="seconds")}
    except (OverflowError, ValueError):
        return {"bytes": size}


def _of_report(folder: Path) -> Facts:
    path = folder / REPORT
    try:
        if (size := path.stat().st_size) > _MOST_REPORT_BYTES:
            raise RunError(f"{path}: {format_bytes(size)}: no report is that large")
        told = _Told(path, read_report(folder))
    except FileNotFoundError:
        return {}
    except RecursionError:
        raise RunError(f"{path}: is not the report of a run") from None
    return {
        "task": told.get("task", str),
        "targets": [name for name in told.get("targets", list) if isinstance(name, str)],
        "loss": told.get("loss", str),
        "epochs": told.get("epochs", int),
        "epochs_asked": told.get("settings.epochs", int),
        "rows_seen": told.get("rows_seen", int),
        "metrics": _Told(path, told.get("metrics", dict)).scores(),
        "best_epoch": told.get("best_epoch", int, optional=True),
        "seconds": told.get("seconds", float),
        "resumes": told.get("resumes", int, optional=True) or 0,
        "lineage": told.lineage(),
    }


def _of_checkpoint(folder: Path) -> Facts:
    """What the newest one tells; ``is_done``: whether nothing is left to do."""
    if (known := newest_header(folder / CHECKPOINTS)) is None:
        return {}
    told = _Told(folder / CHECKPOINTS, known)
    targets = told.several("model.targets")
    epochs, asked = len(told.get("history.ends", list)), told.get("settings.epochs", int)
    rows_seen = told.get("cursor.rows_seen", int)
    return {
        "task": targets[0].get("task", str) if targets else None,
        "targets": [target.get("name", str) for target in targets],
        "loss": told.get("resolved.loss", str, optional=True),
        "epochs": epochs,
        "epochs_asked": asked,
        "rows_seen": rows_seen,
        "metrics": _latest(line.scores() for line in told.several("history.lines")),
        "best_epoch": told.get("history.best_epoch", int, optional=True),
        "seconds": round(told.get("seconds.loop", float), 4),
        "resumes": told.get("resumes", int),
        "lineage": told.lineage(),
        "checkpoint": {"epoch": told.get("cursor.epoch", int), "rows_seen": rows_seen},
        "is_done": told.get("history.is_over", bool) or epochs >= asked,
    }


def newest_header(folder: Path) -> Facts | None:
    """The header of the newest checkpoint in a folder, which a run may be replacing meanwhile; None where there are none."""
    for _ in range(_TRIES):
        try:
            return Checkpoints(folder).look()
        except RunError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
    raise RunError(f"{folder}: checkpoints are replaced faster than they can be read")


def _of_scores(folder: Path) -> Facts:
    """What the last lines tell; the very last one may be half written."""
    lines = []
    try:
        with open(folder / SCORES, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            for text in file.read(_TAIL_BYTES).splitlines():
                with suppress(ValueError, RecursionError):  # RunError is one
                    lines.append(_of_line(_Told(folder / SCORES, json.loads(text))))
    except FileNotFoundError:
        pass
    return lines[-1] | {"metrics": _latest(line["metrics"] for line in lines)} if lines else {}


def _of_line(told: _Told) -> Facts:
    counts = {"epochs": told.get("epoch", int), "rows_seen": told.get("rows_seen", int)}
    return counts | {"seconds": told.get("seconds", float), "metrics": told.scores()}


def _latest(lines: Iterable[Facts]) -> Facts:
    """The last scores of each kind: not every line has all."""
    found: Facts = dict.fromkeys(SCORE_KINDS)
    for line in lines:
        found |= {name: scores for name, scores in line.items() if scores is not None}
    return found


# -- what files say ----------------------------------------------------------------------------------------------------


class _Told:
    """What a file says; what is asked of it raises RunError where it is not what it has to be."""

    def __init__(self, path: Path, found: Facts) -> None:
        self.path, self._found = path, found

    def get(self, name: str, kind: type, *, optional: bool = False) -> Any:
        """name: with a dot for each step inwards. optional: null and absent are as good."""
        found: Any = self._found
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if _is(found, kind) or (optional and found is None):
            return found
        raise RunError(f"{self.path}: is not what a run writes: its {name} is wrong")

    def several(self, name: str) -> list[_Told]:
        """A list of objects, empty where there is none."""
        return [_Told(self.path, each) for each in self.get(name, list, optional=True) or []]

    def lineage(self) -> list[Facts]:
        parts = {"run": str, "rows_seen": int, "fingerprint": str}
        return [
            {name: p.get(name, kind, optional=name == "fingerprint") for name, kind in parts.items()}
            for p in self.several("lineage")
        ]

    def scores(self) -> Facts:
        """Of each kind; means alone, where there are several targets. None where there are none."""
        found = dict.fromkeys(SCORE_KINDS)
        for name in SCORE_KINDS:
            if (scores := self.get(name, dict, optional=True)) is not None:
                found[name] = {k: v for k, v in scores.items() if v is None or _is(v, float)}
        return found


def _is(value: Any, kind: type) -> bool:
    """int: a count. float: any number that is one."""
    if kind is int:
        return type(value) is int and 0 <= value < _MOST
    if kind is float:
        return type(value) in (int, float) and abs(value) < _MOST  # NaN is not
    return isinstance(value, kind)
