"""Whether a resumed run is the same as before: its settings and data; and the differences in words.

A resumed fit must have the order, the preparation and the learner that it began with. What only determines who reads and
when may change: the budget, the threads, a cluster. More epochs only add to what was learned. Each setting declares its own
rule (`resume` in `streamtrain.options`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streamtrain.errors import DataError, RunError, StreamtrainError, UsageError
from streamtrain.load import Source
from streamtrain.options import flag, options_of, plain, switches_off
from streamtrain.storage.files.store import file_sizes
from streamtrain.storage.reader import Reader, snapshots_of
from streamtrain.storage.where.opening import where_fingerprint
from streamtrain.train.settings import Settings

__all__ = [
    "Resumed",
    "describe_data",
    "few",
    "is_same",
    "only_contents_differ",
    "other_contents",
    "require_same_data",
    "resolved_names",
    "resumed_settings",
    "shown",
]  # fmt: skip

_MOST_FILES = 4096  # files whose names are kept, so that a message can name the changed ones
_SHOWN = 3
_CONTENTS = "the names and sizes are the same, the contents are not"


# -- settings ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resumed:
    """Settings of a resumed run. changes: recorded changes, each with ``setting``, ``was`` and ``is``."""

    settings: Settings
    changes: list[dict[str, Any]]


def resumed_settings(header: Mapping[str, Any], given: Mapping[str, Any]) -> Resumed:
    """The settings of a resumed run: the given ones, and otherwise those of the run.

    header: of its checkpoint. Raises RunError if a setting differs that must be the same.
    """
    recorded, resolved = Settings("y").as_dict() | header["settings"], header["resolved"]  # some have come later
    rules = {name: option for name, (_, option) in options_of(Settings).items()}
    settings, different, changes = dict(header["settings"]), [], []
    for name, value in given.items():
        if name not in rules:
            settings[name] = value  # which is refused below
            continue
        option, now = rules[name], resolved.get(name, recorded[name])
        if option.read is not None:
            value = option.read(plain(value))
        same = any(is_same(value, has) for has in (recorded[name], now))
        if option.resume == "free":
            settings[name] = value
        elif option.resume == "recorded" and not same:
            settings[name] = value
            changes.append({"setting": name, "was": now, "is": plain(value)})
        elif not same:
            value, now = (not value, not now) if switches_off(name, option) else (value, now)
            different.append(f"{flag(name, option)} is {shown(value)}, the run has {shown(now)}")
    if different:
        raise RunError(
            f"--resume: the run was started with other settings: {'; '.join(different)}: leave out what should stay as it is, "
            "or start a new run in another folder"
        )
    return Resumed(Settings.of(settings), changes)


def resolved_names() -> list[str]:
    """Settings that a resumed run keeps as they were resolved, unless they are given."""
    return [name for name, (_, option) in options_of(Settings).items() if option.resume == "resolved"]


def is_same(one: Any, other: Any) -> bool:
    """Whether two settings mean the same: a list of one name is that name, and a cross may be given by its parts.

    >>> is_same(("a",), "a"), is_same([("a", "b")], ["a:b"]), is_same(["a", "b"], ["b", "a"])
    (True, True, False)
    """
    return bool(_folded(plain(one)) == _folded(plain(other)))


def _folded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _folded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        joined = [":".join(map(str, inner)) if isinstance(inner, list) else inner for inner in value]
        return joined[0] if len(joined) == 1 and isinstance(joined[0], str) else joined
    return value


def shown(value: Any) -> str:
    """A setting for a message."""
    if value is None or value == [] or value == {}:
        return "none"
    if isinstance(value, Mapping):
        return ",".join(f"{key}={inner}" for key, inner in value.items())
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


# -- data --------------------------------------------------------------------------------------------------------------


def describe_data(source: Source) -> dict[str, Any]:
    """A description of the data. The fingerprint decides whether they are the same; the rest says what changed."""
    reader = source.reader
    sizes = file_sizes(reader)
    files = sizes if sizes is not None and len(sizes) <= _MOST_FILES else None
    return {
        "fingerprint": where_fingerprint(_fingerprint(reader), source.table),
        "rows": source.table.total_rows,
        "chunks": len(source.table),
        "schema": {field.name: str(field.type) for field in reader.schema},
        "files": files,
        **({"snapshots": snapshots} if (snapshots := snapshots_of(reader)) else {}),
    }


def _fingerprint(reader: Reader) -> str | None:
    """The fingerprint of the data. Raises DataError if the reader's method fails or does not return a string."""
    try:
        fingerprint = reader.fingerprint()
    except (StreamtrainError, MemoryError):
        raise
    except Exception as error:
        raise DataError(f"the reader's fingerprint() raised {type(error).__name__}: {error}") from error
    if not isinstance(fingerprint, str | None):
        raise DataError(f"the reader's fingerprint() is a {type(fingerprint).__name__}: it must be a string, or None")
    return fingerprint


def require_same_data(was: Mapping[str, Any], now: Mapping[str, Any], what: str = "the data") -> None:
    """Raise RunError if the data have changed, UsageError if there is no fingerprint to compare."""
    if was["fingerprint"] is None or now["fingerprint"] is None:
        raise UsageError(f"--resume: cannot check that {what} are unchanged: the reader must return a fingerprint")
    if was["fingerprint"] != now["fingerprint"]:
        may_accept = what == "the data" and only_contents_differ(was, now, sizes=False)
        raise _other_data(what, _differences(was, now) or [_CONTENTS], may_accept=may_accept)


def other_contents(touched: Sequence[str]) -> RunError:
    """The error for data of which only the contents differ. touched: the files that may be the reason."""
    differences = [_CONTENTS + (f" (written since then: {few(touched)})" if touched else "")]
    return _other_data("the data", differences, may_accept=True)


def _other_data(what: str, differences: Sequence[str], *, may_accept: bool) -> RunError:
    accept = ", accept the values as they are now with --data-changed accept" if may_accept else ""
    is_data = what == "the data"
    other = "learn from new data with --continue-from, in another folder" if is_data else "name others with --validate"
    shown = f"{'; '.join(differences)}: give those{accept}, or {other}"
    return RunError(f"--resume: {what} are not those that the run was started with: {shown}")


def only_contents_differ(was: Mapping[str, Any], now: Mapping[str, Any], *, sizes: bool = True) -> bool:
    """Whether two descriptions of data differ in nothing but the fingerprint; without ``sizes``, and the sizes of files."""
    known = None not in (was["fingerprint"], now["fingerprint"])
    if not sizes and was["files"] and now["files"] and list(was["files"]) == list(now["files"]):
        was = {**was, "files": now["files"]}
    return known and was["fingerprint"] != now["fingerprint"] and not _differences(was, now)


def _differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    differences = [
        *_changes("column", was["schema"], now["schema"], lambda old, new: f"was {old}, is {new}"),
        *_changes("file", was["files"] or {}, now["files"] or {}, lambda old, new: f"was {old:,} bytes, is {new:,}"),
    ]
    differences += [
        f"{was[name]:,} {name} then, {now[name]:,} now" for name in ("rows", "chunks") if was[name] != now[name]
    ]
    return differences


def _changes(what: str, was: Mapping[str, Any], now: Mapping[str, Any], how: Any) -> list[str]:
    kinds = {
        "added": [name for name in now if name not in was],
        "removed": [name for name in was if name not in now],
        "changed": [f"{name} ({how(was[name], now[name])})" for name in was if name in now and was[name] != now[name]],
    }
    return [f"{what}s {kind}: {few(names)}" for kind, names in kinds.items() if names]


def few(names: Sequence[str], total: int | None = None) -> str:
    """The first names, for a message. total: how many there are; by default as many as are given.

    >>> few(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = (len(names) if total is None else total) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
