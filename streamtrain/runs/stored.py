"""Fields of files that may be damaged or come from other programs: each is checked before it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streamtrain.errors import RunError
from streamtrain.metrics.scores import SCORE_KINDS

__all__ = ["StoredFields"]

_MAX_NUMBER = 1 << 63


class StoredFields:
    """The fields of one JSON object in a file. Reading a field of another kind than expected raises RunError.

    >>> fields = StoredFields(Path("report.json"), {"rows": 3, "settings": {"epochs": "two"}})
    >>> fields.get("rows", int)
    3
    >>> fields.get("settings.epochs", int)
    Traceback (most recent call last):
    streamtrain.errors.RunError: report.json: its settings.epochs is wrong: the file was not written by a run, or was changed
    """

    def __init__(self, path: Path, fields: Any) -> None:
        self.path, self._fields = path, fields

    def get(self, name: str, kind: type, *, optional: bool = False) -> Any:
        """Return a field. name: nested names are joined by dots. kind: int for a count, float for any finite number.
        optional: null and absent fields are None."""
        value: Any = self._fields
        for step in name.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        if _is(value, kind) or (optional and value is None):
            return value
        raise RunError(f"{self.path}: its {name} is wrong: the file was not written by a run, or was changed")

    def objects(self, name: str) -> list[StoredFields]:
        """Return a list of objects; empty if there is none."""
        return [StoredFields(self.path, each) for each in self.get(name, list, optional=True) or []]

    def lineage(self) -> list[dict[str, Any]]:
        kinds = {"run": str, "rows_seen": int, "fingerprint": str}
        return [
            {name: run.get(name, kind, optional=name == "fingerprint") for name, kind in kinds.items()}
            for run in self.objects("lineage")
        ]

    def scores(self) -> dict[str, Any]:
        """Return the scores of each kind, None if there are none; for several targets only the means."""
        found: dict[str, Any] = dict.fromkeys(SCORE_KINDS)
        for kind in SCORE_KINDS:
            if (scores := self.get(kind, dict, optional=True)) is not None:
                found[kind] = {name: value for name, value in scores.items() if value is None or _is(value, float)}
        return found


def _is(value: Any, kind: type) -> bool:
    if kind is int:
        return type(value) is int and 0 <= value < _MAX_NUMBER
    if kind is float:
        return type(value) in (int, float) and abs(value) < _MAX_NUMBER  # NaN is not
    return isinstance(value, kind)
