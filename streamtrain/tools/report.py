"""``report``: one page about a run, finished or not: scores, memory, time, columns, settings, warnings, lineage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamtrain.errors import RunError, StreamtrainError, printable
from streamtrain.memory.monitor import within
from streamtrain.memory.timeline import Timeline
from streamtrain.metrics.scores import SCORE_KINDS
from streamtrain.model.files import array_bytes_beside
from streamtrain.model.room import Room, parsed_bytes
from streamtrain.model.stored import StoredFields, parse_json, read_bounded, read_json, shown_error
from streamtrain.model.tensors import load_some
from streamtrain.runs.folder import CHECKPOINTS, SCORES, read_report
from streamtrain.runs.listing import list_runs, newest_header
from streamtrain.tools.pages.output_file import PAGE_ENDINGS, require_file, written
from streamtrain.tools.pages.page import page
from streamtrain.tools.pages.parts import Verdict
from streamtrain.tools.pages.text import format_score, format_seconds

__all__ = ["report"]

_ROOM = Room(unasked_bytes=40_000_000)  # a page takes as much again
_TIMELINE = "timeline."  # begins the names of its arrays in a checkpoint


def report(run: str | Path, out: str | Path) -> dict[str, Any]:
    """Write one self-contained HTML page about a run.

    The run may be finished, stopped, failed or still running: the page shows what its folder contains at this moment.

    Parameters
    ----------
    run
        The folder that `fit` wrote.
    out
        The file to write; it must end in ``.html`` or ``.htm``. A file that exists is replaced.

    Returns
    -------
    dict
        ``run``, ``state`` (as `streamtrain runs` shows it) and ``out``.

    Raises
    ------
    UsageError
        ``out`` cannot be written.
    RunError
        ``run`` is not the folder of a run, or its files are damaged.

    Examples
    --------
    >>> import streamtrain, tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> x = [i / 1000 for i in range(1000)]
    >>> result = streamtrain.fit({"x": x, "y": [2 * v for v in x]}, target="y", out=folder / "run")
    >>> report(folder / "run", folder / "run.html")["state"]
    'finished'
    """
    file = require_file(out, PAGE_ENDINGS)
    with within(is_setting=False):
        facts, text = _page(Path(run))
    with written(file) as beside:
        beside.write_text(text, encoding="utf-8")
    return {"run": str(run), "state": facts["state"], "out": str(out)}


def _page(folder: Path) -> tuple[dict[str, Any], str]:
    """What the files of a run say, and the page that shows it. They may come from anywhere, and each of their fields may be
    missing or of another kind."""
    from jinja2 import UndefinedError  # takes 20 ms, which only pages need

    try:
        facts = _describe(folder)
        return facts, page(facts, "Run", [Verdict(*_verdict(facts))])
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, UndefinedError) as error:
        if isinstance(error, StreamtrainError):
            raise
        raise RunError(
            f"{folder}: its report cannot be shown ({type(error).__name__}: {error}): its files were written by another "
            "version of streamtrain, or changed"
        ) from error


def _describe(folder: Path) -> dict[str, Any]:
    """The facts that a page shows about a run: its report if it is finished, otherwise its newest checkpoint and its scores."""
    found = list_runs(folder)
    if [Path(run["run"]) for run in found] != [folder]:
        names = ", ".join(printable(run["run"]) for run in found[:3])
        raise RunError(f"{folder}: is not a run folder but contains runs: name one of them, as in {names}")
    facts = found[0]
    if facts["problem"]:
        raise RunError(
            facts["problem"] if facts["problem"].startswith(str(folder)) else f"{folder}: {facts['problem']}"
        )
    header = newest_header(folder / CHECKPOINTS) or {}
    told: dict[str, Any] = read_report(folder, _ROOM).content if facts["state"] == "finished" else _of_header(header)
    model = StoredFields(folder / CHECKPOINTS, header["model"]) if header else _model(folder)
    return facts | told | {
        "target": ", ".join(facts["targets"] or ()) or None,
        "columns": _columns(model),
        "lines": max(header.get("history", {}).get("lines", []), _lines(folder), key=len),  # one may be behind
        "versions": told.get("versions") or header.get("environment"),
        "changes": facts["changes"],
        "changed": None if told.get("finished") else facts["changed"],
    } | ({} if told.get("timeline") else {"timeline": _timeline(folder / CHECKPOINTS)})  # fmt: skip


def _of_header(header: Mapping[str, Any]) -> dict[str, Any]:
    """The facts in a checkpoint, under the names of a report."""
    if not header:
        return {}
    seconds, history = dict(header["seconds"]), header["history"]
    ledgers = [(header.get(name) or {"entries": {}})["entries"] for name in ("ledger", "validation_ledger")]
    entries = [entries[number] for entries in ledgers for number in sorted(entries, key=int)]
    loop = seconds.pop("loop")
    beside = seconds.get("read", 0.0)
    return {
        "rows": history["rows"] or None,
        "batches": history["batches"],
        "learner": header["settings"]["learner"],
        "rows_per_second": header["cursor"]["rows_seen"] / loop if loop else 0.0,
        "time": seconds | {"other": loop - sum(seconds.values()) + beside},
        "warnings": header["warnings"],
        "skipped": [entry | {"error": "; ".join(entry["why"])} for entry in entries if entry["rows"]],
        "settings": header["settings"],
        "started": header.get("started"),
        "plan": {name: header["resolved"][name] for name in ("batch_size", "window_rows")},
    }


def _model(folder: Path) -> StoredFields:
    """The description of the model of a finished run; empty if there is no such file."""
    path = folder / "model.json"
    try:
        return StoredFields(path, read_json(path, Room(), array_bytes_beside(folder)))
    except FileNotFoundError:
        return StoredFields(path, {})
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error}") from error


def _timeline(checkpoints: Path) -> list[dict[str, Any]]:
    """Memory over time, from the newest checkpoint; its other arrays are not read."""
    for path in sorted(checkpoints.glob("checkpoint-*.safetensors"), reverse=True):
        try:
            state = load_some(path, _TIMELINE, room=Room())
            timeline = Timeline()
            if state:
                timeline.load_state_dict(state)
            return timeline.moments()
        except FileNotFoundError:
            continue  # the run has replaced it meanwhile
        except (ValueError, LookupError, OSError) as error:
            if isinstance(error, RunError):
                raise
            raise RunError(f"{path}: cannot be read: {error}") from error
    return []


def _columns(model: StoredFields) -> list[dict[str, Any]]:
    targets = [
        {"name": target.get("name", str), "type": None, "role": "target", "why": _classes(target)}
        for target in model.objects("targets")
    ]
    names = ("name", "type", "role", "why")
    return [*targets, *({name: feature.get(name, str) for name in names} for feature in model.objects("features"))]


def _classes(target: StoredFields) -> str:
    classes, task = target.get("classes", list, optional=True), target.get("task", str)
    return f"{task}, {len(classes):,} classes" if classes else str(task)


def _lines(folder: Path) -> list[dict[str, Any]]:
    """The scores on the way. The last line may be half written."""
    found, path = [], folder / SCORES
    try:
        content = read_bounded(path, _ROOM)
    except FileNotFoundError:
        return []
    _ROOM.require_text(path, parsed_bytes(content))
    texts = content.decode(errors="replace").splitlines()
    for number, text in enumerate(texts, start=1):
        try:
            line = parse_json(text)
            found.append({name: line[name] for name in ("epoch", "rows_seen", "seconds", *SCORE_KINDS)})
            found[-1] |= {name: line[name] for name in ("changed",) if name in line}
        except (ValueError, LookupError, TypeError) as error:
            if number < len(texts):
                raise RunError(f"{path}: line {number} cannot be read: {shown_error(error)}") from error
    return found


def _verdict(facts: Mapping[str, Any]) -> tuple[str, str]:
    """The state of the run, in one sentence."""
    epochs, asked, rows = facts["epochs"], facts["epochs_asked"], f"{facts['rows_seen']:,} rows learned"
    if facts["state"] == "finished":
        kind = next((kind for kind in reversed(SCORE_KINDS) if (facts["metrics"] or {}).get(kind)), None)
        loss = facts["metrics"][kind].get("loss") if kind else None
        score = "" if loss is None else f"; {kind} loss {format_score(loss)}"
        took = format_seconds(facts["seconds"])
        return "good", f"Finished: {epochs} epoch{'' if epochs == 1 else 's'}, {rows} in {took}{score}."
    of = f" of {asked}" if asked else ""
    if facts["state"] == "running":
        return "doubt", f"Running: {epochs}{of} epochs are over, {rows}. This page shows its newest checkpoint."
    if facts["state"] == "stopped":
        return "doubt", f"Stopped: {epochs}{of} epochs are over, {rows}. Continue it with streamtrain fit --resume."
    return "bad", f"Failed before its first checkpoint: {rows}. Start it again in the same folder."
