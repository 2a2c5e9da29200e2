"""What a checkpoint says, checked before anything of it is used. It may come from anybody, with a right checksum."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streamtrain.errors import LearnerError, RunError, StreamtrainError, UsageError, WrongFile
from streamtrain.load.cursor import START
from streamtrain.load.digests import Digests
from streamtrain.memory.timeline import MOST_MOMENTS, Timeline
from streamtrain.metrics import Patience
from streamtrain.metrics.scores import SCORE_KINDS, metrics_forms
from streamtrain.model.files import require_forms
from streamtrain.model.loading import Described
from streamtrain.model.room import Room
from streamtrain.model.stored import StoredFields, shown_error
from streamtrain.model.tensors import Entry
from streamtrain.runs.folder import RunFolder
from streamtrain.runs.stored import lineage_of
from streamtrain.state import Form, forms_of, prefixed
from streamtrain.train import environment, identity
from streamtrain.train.settings import Settings
from streamtrain.train.validation import DIGESTS

_SNAPSHOT = re.compile(r"[0-9]{1,19}(?:/[0-9]{1,9})?", re.ASCII)

__all__ = ["checked_checkpoint", "loading", "reading"]


@contextmanager
def reading(folder: RunFolder) -> Iterator[None]:
    """Turn errors of a checkpoint with a valid checksum into a RunError: it was written by another program, or this is a
    bug."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, StreamtrainError):
            raise
        raise RunError(
            f"{folder.checkpoints.folder}: the newest checkpoint is not one of a run ({type(error).__name__}: {error}): "
            "start over in another folder"
        ) from error


@contextmanager
def loading(folder: RunFolder) -> Iterator[None]:
    """Turn errors about a state of a checkpoint into a RunError that names it."""
    try:
        yield
    except (LookupError, ValueError) as error:
        if isinstance(error, (RunError, LearnerError)):
            raise
        raise RunError(
            f"{folder.checkpoints.folder}: the newest checkpoint cannot be continued: {shown_error(error)}: the run had "
            "diverged when it was written, or it was changed since: start over in another folder"
        ) from error


def checked_checkpoint(
    path: Path, header: dict[str, Any], entries: Sequence[Entry], learner: Any, room: Room
) -> Described:
    """Check the header of a checkpoint, and what arrays the file has; return the model that is described. Loads no array.

    learner: the learner that the user named, or None. Raises WrongFile, which names the field, for what no run writes; RunError
    for a learner that is not to be imported unasked; BudgetRefused for arrays that do not fit.
    """
    fields = StoredFields(path, header)
    _require_past(fields)
    environment.require_same_versions(header)
    described = Described.of(fields.inner("model"), learner)
    settings = _settings(fields, described)
    _require_data(fields)
    _require_history(fields)
    _require_cursor(fields)
    _require_ledger(fields)
    model, free = described.forms()
    forms = prefixed("model.", model) | _own_forms(fields, settings, described, model)
    for prefix, data in DIGESTS.items():
        if any(entry.name.startswith(prefix) for entry in entries):  # earlier versions had none
            forms |= prefixed(prefix, Digests.forms(fields.get(f"{data}.chunks", int)))
    require_forms(path, entries, forms, [f"{before}{name}" for before in ("model.", "best.model.") for name in free])
    room.require_arrays(path, sum(entry.stop - entry.start for entry in entries))
    return described


def _settings(fields: StoredFields, described: Described) -> Settings:
    """The settings. Those that name code are compared with the model's, so that none is imported that the user did not name."""
    given, name = dict(fields.get("settings", dict)), described.recipe.name
    if given.get("learner", "linear") != name:
        raise fields.wrong("settings.learner", given.get("learner"), f"the model's learner is {name}")
    resolved, chosen = fields.inner("resolved"), {}
    for each in identity.resolved_names():
        chosen[each] = resolved.get(each, int)
    resolved.get("task", str, choices=(described.layout.target.task,) if described.layout.target else ())
    resolved.get("loss", str, optional=True)
    try:
        settings = Settings.of(given)
        Settings.of(given | chosen)
    except (UsageError, TypeError) as error:  # without a target
        raise WrongFile(f"{fields.path}: its settings are wrong: {shown_error(error)}") from error
    if chosen["hash_bits"] != described.prepared.hash_bits:
        raise fields.wrong("resolved.hash_bits", chosen["hash_bits"], f"the model has {described.prepared.hash_bits}")
    return settings


def _require_data(fields: StoredFields) -> None:
    if isinstance(fields.content.get("validate"), list):
        fields.values("validate", str)
    for name in ("data", "validation"):
        if fields.get(name, dict, optional=name == "validation") is None:
            continue
        data = fields.inner(name)
        data.get("fingerprint", str, optional=True)
        data.get("rows", int, least=1)
        data.get("chunks", int, least=1)
        for inner, kind, optional in (("schema", str, False), ("files", int, True), ("snapshots", str, True)):
            if (values := data.get(inner, dict, optional=optional)) is not None:
                StoredFields(fields.path, {inner: list(values.values())}, data.at).values(inner, kind)
        for snapshot in (data.get("snapshots", dict, optional=True) or {}).values():
            if not _SNAPSHOT.fullmatch(snapshot):
                raise data.wrong("snapshots", snapshot, "it must be the number of a snapshot")


def _require_history(fields: StoredFields) -> None:
    history = fields.inner("history")
    rows, epochs = fields.get("data.rows", int), len(ends := history.values("ends", int))
    for name in ("held", "batches"):
        history.get(name, int)
    history.get("rows", int, most=rows)
    history.get("next_record", int, least=1)
    history.get("is_over", bool)
    history.get("judge", str, choices=SCORE_KINDS)
    lines = history.objects("lines")
    for line in lines:
        line.get("epoch", int)
        line.get("rows_seen", int)
        line.get("seconds", float, least=0)
        _require_scores(line)
    if ends != sorted(set(ends)) or (ends and ends[-1] >= len(lines)):
        raise history.wrong("ends", ends, f"it must be ascending positions of the {len(lines):,} lines")
    if history.get("best_epoch", int, optional=True) is not None:
        history.get("best_epoch", int, most=epochs - 1)


def _require_scores(line: StoredFields) -> None:
    """Raise WrongFile for a score that is no number. It may be infinite, on data that are not learned from."""
    for kind in SCORE_KINDS:
        scores = dict(line.get(kind, dict, optional=True) or {})
        own = line.get(f"{kind}.targets", dict, optional=True) or {}  # of each of several targets
        scores.pop("targets", None)
        for each in (scores, *own.values()):
            for name, score in each.items() if isinstance(each, dict) else [("targets", each)]:
                if score is not None and type(score) not in (int, float):
                    raise line.wrong(f"{kind}.{name[:60]}", score, "it must be a number")


def _require_cursor(fields: StoredFields) -> None:
    """Raise WrongFile for a position that no run of so many rows and epochs has."""
    cursor, rows = fields.inner("cursor"), fields.get("data.rows", int)
    cursor.require_only((*START, "order"))
    epoch = len(fields.get("history.ends", list))
    cursor.get("epoch", int, least=epoch, most=epoch)
    for name in ("window", "held_window"):
        cursor.get(name, int, most=fields.get("data.rows", int))
    for name in ("row", "held_row"):
        cursor.get(name, int, most=rows)
    cursor.get("rows_seen", int, most=(epoch + 1) * rows)
    cursor.get("order", int)


def _require_ledger(fields: StoredFields) -> None:
    for name, data in (("ledger", "data"), ("validation_ledger", "validation")):
        if fields.content.get(name) is not None and fields.get(data, dict, optional=True) is not None:
            _require_one_ledger(fields, name, data)


def _require_one_ledger(fields: StoredFields, name: str, data: str) -> None:
    """Check a ledger; data: the name of the description of what it is of."""
    ledger, chunks = fields.inner(name), fields.get(f"{data}.chunks", int)
    ledger.require_only(("entries", "lost", "read"))
    entries = ledger.get("entries", dict)
    for number in entries:
        if not (number.isascii() and number.isdecimal() and len(number) < 19 and int(number) < chunks):
            raise ledger.wrong("entries", number, f"it must be the number of one of {chunks:,} chunks")
        entry = StoredFields(fields.path, entries[number], f"{name}.entries.{number}.")
        entry.require_only(("source", "chunk", "rows", "why"))
        entry.get("rows", int)
        entry.values("why", str)
        for each in ("source", "chunk"):
            entry.get(each, str)
    for number in ledger.values("lost", int):
        if str(number) not in entries:
            raise ledger.wrong("lost", number, "it must be the number of an entry")
    ledger.get("read", int)


def _require_past(fields: StoredFields) -> None:
    """What was before: of this run and of those that it continues."""
    lineage_of(fields)
    for change in fields.objects("changes"):
        change.get("setting", str)
        change.get("rows_seen", int)
    for name in fields.get("seconds", dict):
        fields.get(f"seconds.{name}", float, least=0)
    for name in environment.versions():
        fields.get(f"versions.{name}", int, optional=True)
    for name in fields.get("environment", dict):
        fields.get(f"environment.{name}", str)
    fields.values("warnings", str)
    fields.get("resumes", int)
    fields.get("checkpoint_seconds", float, least=0)


def _own_forms(
    fields: StoredFields, settings: Settings, described: Described, best: dict[str, Form]
) -> dict[str, Form]:
    """The forms of the scores, of the best model, and of the record of memory."""
    target = described.layout.target
    assert target is not None
    metrics, timeline = metrics_forms(target), forms_of(Timeline().state_dict())
    moments = timeline["moments"]
    timeline["moments"] = moments._replace(shape=(MOST_MOMENTS, *moments.shape[1:]), loose=0)
    forms = prefixed("timeline.", timeline) | prefixed("progressive.", metrics)
    if settings.holds_out:
        forms |= prefixed("holdout.", metrics)
    if fields.get("history.judge", str) != "progressive":
        forms |= prefixed("judged.", metrics)
    if fields.get("history.best_epoch", int, optional=True) is not None:
        forms |= prefixed("best.judged.", metrics) | prefixed("best.model.", best)
    return forms if settings.patience is None else forms | prefixed("patience.", Patience.forms())
