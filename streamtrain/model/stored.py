"""Files of JSON that may come from anybody: bounded before they are read, and each field checked before it is used."""

from __future__ import annotations

import json
import math
import os
import stat
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from streamtrain.errors import WrongFile, printable
from streamtrain.model.room import Room, open_at_once, parsed_bytes

__all__ = ["StoredFields", "is_kind", "parse_json", "read_bounded", "read_json", "shown_error", "shown_value"]

_MAX_NUMBER, _MAX_FLOAT = 1 << 63, sys.float_info.max
_MAX_DEPTH = 64
_TEXT_COPIES = 2  # of a text that are in memory at the same time, whatever it says
_SHOWN, _SHOWN_ERROR = 60, 300  # characters of a value, and of an error, in a message
_KINDS = {
    str: "text",
    int: "a whole number, 0 or more",
    float: "a finite number",
    bool: "true or false",
    list: "a list",
}


def read_bounded(path: Path, room: Room, array_bytes: int = 0) -> bytes:
    """The content of a file. array_bytes: see `Room.require_text`. Raises WrongFile for what is not a file, and as `Room` does;
    OSError as the file system does."""
    with open_at_once(path) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise WrongFile(f"{path}: is not a file")
        room.require_text(path, _TEXT_COPIES * status.st_size, array_bytes)
        return file.read(status.st_size + 1)


def read_json(path: Path, room: Room, array_bytes: int = 0) -> Any:
    """The value in a file of JSON. Raises as `read_bounded` does, and WrongFile for what is not JSON."""
    text = read_bounded(path, room, array_bytes)
    room.require_text(path, parsed_bytes(text), array_bytes)
    try:
        return parse_json(text.decode(), constants=False)
    except ValueError as error:
        raise WrongFile(f"{path}: cannot be read: {shown_error(error)}") from error


def parse_json(text: str, *, constants: bool = True) -> Any:
    """The value of a text of JSON. constants: whether NaN and Infinity are numbers. Raises ValueError for anything else, and
    for objects with the same name twice."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=None if constants else _no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _require_flat(value)
    return value


def _require_flat(value: Any) -> None:
    """Raise ValueError for lists and objects so deep in each other that what is recursive could not follow."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(_MAX_DEPTH):
        inner = (part for each in level for part in (each.values() if isinstance(each, dict) else each))
        level = [part for part in inner if isinstance(part, dict | list)]
        if not level:
            return
    raise ValueError("it is nested too deeply")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(names := dict(pairs)) < len(pairs):
        raise ValueError("it has the same name twice")
    return names


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def shown_error(error: BaseException) -> str:
    """What an error says, for a message: printable and not long."""
    text = str(error)
    return printable(text[:_SHOWN_ERROR]) + ("..." if len(text) > _SHOWN_ERROR else "")


def shown_value(value: Any) -> str:
    """A value of a file for a message: printable and not long.

    >>> shown_value("a" * 100), shown_value([1, {}]), shown_value(10**5000)
    ("'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...", '[1, {}]', 'a number of 16,610 bits')
    """
    if value is None:
        return "missing"
    if isinstance(value, int) and value.bit_length() > 200:
        return f"a number of {value.bit_length():,} bits"
    if isinstance(value, dict | list) and len(value) > 5:
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value):,}"
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a long number, or deeply nested
        return f"a {type(value).__name__}"
    text = printable(text[: _SHOWN + 1])
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


class StoredFields:
    """The fields of one JSON object in a file. Reading a field of another kind than expected raises WrongFile.

    path: of the file. at: names the object in messages, ``"settings."``.

    >>> fields = StoredFields(Path("report.json"), {"rows": 3, "settings": {"epochs": "two"}})
    >>> fields.get("rows", int)
    3
    >>> fields.get("settings.epochs", int)
    Traceback (most recent call last):
    streamtrain.errors.WrongFile: report.json: its settings.epochs is 'two': it must be a whole number, 0 or more
    """

    def __init__(self, path: Path, fields: Any, at: str = "") -> None:
        self.path, self.at, self.content = path, at, fields

    def get(
        self, name: str, kind: type, *, optional: bool = False, choices: Sequence[str] = (), least: float = -math.inf,
        most: float = math.inf,
    ) -> Any:  # fmt: skip
        """Return a field. name: nested names are joined by dots. kind: int for a count, float for any finite number.
        optional: null and absent fields are None. choices: of a text. least, most: of a number."""
        value: Any = self.content
        for step in name.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        if value is None and optional:
            return None
        if not is_kind(value, kind):
            raise self.wrong(name, value, f"it must be {_KINDS.get(kind, 'an object')}")
        if choices and value not in choices:
            raise self.wrong(name, value, f"it must be one of {', '.join(choices)}")
        if kind in (int, float) and not least <= value <= most:
            raise self.wrong(
                name,
                value,
                f"it must be from {least:g} to {most:g}" if most < math.inf else f"it must be at least {least:g}",
            )
        return value

    def has(self, name: str) -> bool:
        """Whether there is such a field, also null."""
        return isinstance(self.content, dict) and name in self.content

    def require_only(self, names: Iterable[str]) -> None:
        """Raise WrongFile for what is not an object, and for a field that is not among the names."""
        if not isinstance(self.content, dict):
            raise WrongFile(f"{self.path}: {self._title} is {shown_value(self.content)}: it must be an object")
        if more := sorted(self.content.keys() - set(names)):
            raise WrongFile(
                f"{self.path}: {self._title} has {shown_value(more[0])}, which streamtrain does not write there"
            )

    def inner(self, name: str) -> StoredFields:
        """Return an object."""
        return StoredFields(self.path, self.get(name, dict), f"{self.at}{name}.")

    def objects(self, name: str) -> list[StoredFields]:
        """Return a list of objects; empty if there is none."""
        values = self.get(name, list, optional=True) or []
        return [StoredFields(self.path, each, f"{self.at}{name}[{i}].") for i, each in enumerate(values)]

    def values(self, name: str, kind: type, *, least: float = -math.inf, most: float = math.inf) -> list[Any]:
        """Return a list of values of one kind; empty if there is none."""
        values = self.get(name, list, optional=True) or []
        for i, value in enumerate(values):
            if not is_kind(value, kind) or (kind in (int, float) and not least <= value <= most):
                raise self.wrong(f"{name}[{i}]", value, f"it must be {_KINDS.get(kind, 'an object')}")
        return values

    def wrong(self, name: str, value: Any, why: str) -> WrongFile:
        """The error for a field. why: what it must be."""
        return WrongFile(f"{self.path}: its {self.at}{name} is {shown_value(value)}: {why}")

    @property
    def _title(self) -> str:
        return f"its {self.at.rstrip('.')}" if self.at else "it"


def is_kind(value: Any, kind: type) -> bool:
    """Whether a value of JSON is of a kind: see `StoredFields.get`.

    >>> is_kind(3, int), is_kind(True, int), is_kind(float("nan"), float), is_kind("\\ud800", str)
    (True, False, False, False)
    """
    if kind is int:
        return type(value) is int and 0 <= value < _MAX_NUMBER
    if kind is float:
        return type(value) in (int, float) and abs(value) <= _MAX_FLOAT  # NaN is not
    return isinstance(value, kind) and (not isinstance(value, str) or _is_unicode(value))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a character, which JSON can escape
        return False
    return True
