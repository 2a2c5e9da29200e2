"""The list of runs: the progress of each, its scores, and the run that it continues.

Only reports, scores and the headers of checkpoints are opened. They may be damaged, belong to other programs, or be
replaced at this moment: a run that cannot be read is listed as damaged and hides no other.
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

from streamtrain.errors import RunError, UsageError
from streamtrain.metrics.scores import HIGHER_IS_BETTER, SCORE_KINDS
from streamtrain.model.stored import StoredFields
from streamtrain.runs.checkpoint import Checkpoints
from streamtrain.runs.folder import CHECKPOINTS, REPORT, SCORES, read_report
from streamtrain.runs.lock import LOCK, is_locked
from streamtrain.runs.stored import changes_of, lineage_of, scores_of

__all__ = ["judging_scores", "list_runs", "newest_header"]

_TAIL_BYTES = 1_000_000  # of the scores
_TRIES = 10

Facts = dict[str, Any]


def list_runs(*folders: str | Path, sort: str | None = None) -> list[dict[str, Any]]:
    """List the runs in folders, each once.

    Parameters
    ----------
    folders
        Each is a run, or contains runs, which are then listed in the order of their names.
    sort
        A score, the best run first: ``"loss"`` on validation data, or else on held-out rows, or else progressive;
        ``"holdout.loss"`` of one kind only. Runs without the score come last.

    Returns
    -------
    list of dict
        With the keys that docs/command-line.md explains. ``state`` is ``"running"`` (a process writes the run),
        ``"finished"``, ``"stopped"`` (``fit --resume`` continues it), ``"failed"`` (only scores are left) or ``"damaged"``
        (``problem`` says what cannot be read).

    Raises
    ------
    RunError
        A folder does not exist, cannot be read, or contains no run.
    UsageError
        No run has the score to sort by.

    Example
    -------
    >>> import streamtrain, tempfile
    >>> x = [i / 1000 for i in range(1000)]
    >>> folder = Path(tempfile.mkdtemp())
    >>> result = streamtrain.fit({"x": x, "y": [2 * v for v in x]}, target="y", out=folder / "first")
    >>> [(Path(run["run"]).name, run["state"], run["epochs"], run["rows_seen"]) for run in list_runs(folder, sort="r2")]
    [('first', 'finished', 1, 1000)]
    """
    paths: dict[str, Path] = {}
    for folder in folders:
        for path in _runs_in(Path(folder)):
            paths.setdefault(os.path.realpath(path), path)
    runs = [_describe(path) for path in paths.values()]
    return runs if sort is None else _sorted(runs, sort)


def judging_scores(run: Facts) -> tuple[str, Facts]:
    """Return the kind of scores that judges the model of a listed run best, and these scores; empty if there are none.

    >>> judging_scores({"metrics": {"progressive": {"loss": 0.5}, "holdout": {"loss": 0.6}, "validation": None}})
    ('holdout', {'loss': 0.6})
    """
    kind = next((kind for kind in reversed(SCORE_KINDS) if run["metrics"][kind]), "")
    return kind, run["metrics"][kind] if kind else {}


def _sorted(runs: list[Facts], sort: str) -> list[Facts]:
    kind, _, name = sort.rpartition(".")
    scores = [(run["metrics"].get(kind) or {}) if kind else judging_scores(run)[1] for run in runs]
    values = [each.get(name) for each in scores]
    if runs and all(value is None for value in values):
        known = sorted({name for run in runs for each in run["metrics"].values() for name in each or ()})
        kinds = ", ".join(f"{kind}." for kind in SCORE_KINDS)
        raise UsageError(
            f"sort by {sort!r}: no run here has this score: name one of {', '.join(known) or 'none'}, alone or after {kinds}"
        )
    sign = -1 if HIGHER_IS_BETTER.get(name) else 1
    order = sorted(range(len(runs)), key=lambda i: (values[i] is None, sign * (values[i] or 0.0)))
    return [runs[i] for i in order]


# -- finding runs ------------------------------------------------------------------------------------------------------


def _runs_in(folder: Path) -> list[Path]:
    try:
        runs = [folder] if _is_run(folder) else [p for p in sorted(folder.iterdir()) if p.is_dir() and _may_be_run(p)]
    except FileNotFoundError:
        raise RunError(f"{folder}: no such folder") from None
    except NotADirectoryError:
        raise RunError(f"{folder}: is a file: name the folder of a run, or one that contains runs") from None
    except OSError as error:
        raise RunError(f"{folder}: cannot be read: {error.strerror}") from error
    if not runs:
        raise RunError(
            f"{folder}: is not a run folder and contains none: name a folder that `streamtrain fit --out` wrote, or the "
            "folder around it"
        )
    return runs


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


# -- describing one ----------------------------------------------------------------------------------------------------


def _unknown(folder: Path) -> Facts:
    """All keys, without values."""
    return {
        "run": str(folder), "state": "damaged", "problem": None, "task": None, "targets": None, "loss": None, "epochs": 0,
        "epochs_asked": None, "rows_seen": 0, "metrics": dict.fromkeys(SCORE_KINDS), "best_epoch": None, "seconds": None,
        "resumes": 0, "changes": [], "lineage": [], "checkpoint": None, "bytes": None, "changed": None,
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

    facts = _unknown(folder) | tried(_of_files)
    if not problems:  # otherwise opening the files might do anything
        running, report, checkpoint = _is_running(folder), tried(_of_report), tried(_of_checkpoint)
        is_done = checkpoint.pop("is_done", False)
        state = "running" if running else "damaged" if problems else _state(report, checkpoint, is_done)
        facts |= {"state": state} | (checkpoint | report if state == "finished" else report | checkpoint)
        if state not in ("finished", "stopped"):
            facts |= _newer(facts, tried(_of_scores))
    return facts | {"problem": "; ".join(problems) or None}


def _state(report: Facts, checkpoint: Facts, is_done: bool) -> str:
    if not report and not checkpoint:
        return "failed"
    same = all(report.get(name) == checkpoint.get(name) for name in ("epochs", "rows_seen"))
    return "finished" if report and (not checkpoint or (is_done and same)) else "stopped"


def _newer(facts: Facts, scores: Facts) -> Facts:
    """The facts that the file of scores adds, if it is newer than report and checkpoint."""
    if not scores or scores["rows_seen"] < facts["rows_seen"]:
        return {}
    epochs, seconds = max(facts["epochs"], scores["epochs"]), max(facts["seconds"] or 0.0, scores["seconds"])
    latest = {name: scores["metrics"][name] or facts["metrics"][name] for name in SCORE_KINDS}
    return scores | {"epochs": epochs, "seconds": seconds, "metrics": latest}


def _of_files(folder: Path) -> Facts:
    """The bytes of all files and when one was last written. Raises RunError for a pipe or a device, which must not be
    opened."""
    size, changed = 0, 0.0
    for place in (folder, folder / CHECKPOINTS):
        for path in place.iterdir() if place == folder or place.is_dir() else ():
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
    if not (folder / REPORT).exists():
        return {}
    fields = read_report(folder)
    return {
        "task": fields.get("task", str),
        "targets": [name for name in fields.get("targets", list) if isinstance(name, str)],
        "loss": fields.get("loss", str),
        "epochs": fields.get("epochs", int),
        "epochs_asked": fields.get("settings.epochs", int),
        "rows_seen": fields.get("rows_seen", int),
        "metrics": scores_of(fields.inner("metrics")),
        "best_epoch": fields.get("best_epoch", int, optional=True),
        "seconds": fields.get("seconds", float),
        "resumes": fields.get("resumes", int, optional=True) or 0,
        "changes": changes_of(fields),
        "lineage": lineage_of(fields),
    }


def _of_checkpoint(folder: Path) -> Facts:
    """The facts in the newest checkpoint. ``is_done``: whether no epoch is left."""
    if (header := newest_header(folder / CHECKPOINTS)) is None:
        return {}
    fields = StoredFields(folder / CHECKPOINTS, header)
    targets = fields.objects("model.targets")
    epochs, asked = len(fields.get("history.ends", list)), fields.get("settings.epochs", int)
    rows_seen = fields.get("cursor.rows_seen", int)
    return {
        "task": targets[0].get("task", str) if targets else None,
        "targets": [target.get("name", str) for target in targets],
        "loss": fields.get("resolved.loss", str, optional=True),
        "epochs": epochs,
        "epochs_asked": asked,
        "rows_seen": rows_seen,
        "metrics": _latest(scores_of(line) for line in fields.objects("history.lines")),
        "best_epoch": fields.get("history.best_epoch", int, optional=True),
        "seconds": round(fields.get("seconds.loop", float), 4),
        "resumes": fields.get("resumes", int),
        "changes": changes_of(fields),
        "lineage": lineage_of(fields),
        "checkpoint": {"epoch": fields.get("cursor.epoch", int), "rows_seen": rows_seen},
        "is_done": fields.get("history.is_over", bool) or epochs >= asked,
    }


def newest_header(folder: Path) -> Facts | None:
    """Return the header of the newest checkpoint in a folder, which a run may be replacing; None if there is none."""
    for _ in range(_TRIES):
        try:
            return Checkpoints(folder).look()
        except RunError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
    raise RunError(f"{folder}: its checkpoints are replaced faster than they can be read")


def _of_scores(folder: Path) -> Facts:
    """The facts in the last lines. The very last line may be half written."""
    lines = []
    try:
        with open(folder / SCORES, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            for text in file.read(_TAIL_BYTES).splitlines():
                with suppress(ValueError, RecursionError):  # RunError is one
                    lines.append(_of_line(StoredFields(folder / SCORES, json.loads(text))))
    except FileNotFoundError:
        pass
    return lines[-1] | {"metrics": _latest(line["metrics"] for line in lines)} if lines else {}


def _of_line(fields: StoredFields) -> Facts:
    counts = {"epochs": fields.get("epoch", int), "rows_seen": fields.get("rows_seen", int)}
    return counts | {"seconds": fields.get("seconds", float), "metrics": scores_of(fields)}


def _latest(lines: Iterable[Facts]) -> Facts:
    """The last scores of each kind: not every line has all kinds."""
    latest: Facts = dict.fromkeys(SCORE_KINDS)
    for line in lines:
        latest |= {name: scores for name, scores in line.items() if scores is not None}
    return latest
