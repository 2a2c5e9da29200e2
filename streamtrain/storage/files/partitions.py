"""The columns that ``key=value`` folders (Hive partitions) add to those in the files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.errors import SchemaError
from streamtrain.storage.common_type import CODES

__all__ = ["Partitions", "folders_above", "named_by_folders"]

_FOLDER = b"folder"  # metadata of a column that is a folder above all files: key=value
_NULL = "__HIVE_DEFAULT_PARTITION__"
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")  # no leading zeros, no 1_000, no digits of other scripts: those are text
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?)?")


class Partitions:
    """``key=value`` folders as columns. Whole numbers without leading zeros become int64, dates and times become those, other
    values text. ``__HIVE_DEFAULT_PARTITION__`` is null.

    files: the names of the files. folders: the ``key=value`` folders above all of them.

    >>> parts = Partitions(["k=1/a.csv", "k=2/a.csv"])
    >>> parts.type_of("k"), parts.constant("k", 2, file=1).to_pylist()
    (DataType(int64), [2, 2])
    """

    def __init__(self, files: Sequence[str], folders: Sequence[str] = ()) -> None:
        self._codes: dict[str, NDArray[np.int32]] = {}  # by key, of each file
        self._texts: dict[str, list[str | None]] = {}  # the different values as they are written
        self._values: dict[str, pa.Array] = {}  # likewise, typed
        self._above = {unquote(folder.partition("=")[0]): folder for folder in folders}
        for key, texts in _texts_by_key(files, folders).items():
            distinct = {text: i for i, text in enumerate(dict.fromkeys(texts))}
            self._codes[key] = np.fromiter((distinct[text] for text in texts), np.int32, len(texts))
            self._texts[key] = [None if text == _NULL else text for text in distinct]
            self._values[key] = _typed(self._texts[key])

    @classmethod
    def given(cls, values: dict[str, pa.Array]) -> Partitions:
        """The values of each file by key, as a table's own metadata give them: typed, text as strings."""
        parts = cls([])
        for key, array in values.items():
            coded = array.dictionary_encode(null_encoding="encode")
            parts._codes[key], parts._values[key] = coded.indices.to_numpy(), coded.dictionary
            parts._texts[key] = [None if value is None else str(value) for value in parts._values[key].to_pylist()]
        return parts

    @property
    def keys(self) -> Any:
        """The names of the columns, in order."""
        return self._codes.keys()

    def type_of(self, key: str) -> pa.DataType:
        """The type of a column."""
        kind = self._values[key].type
        return CODES if pa.types.is_string(kind) else kind

    def field(self, key: str) -> pa.Field:
        """A column."""
        metadata = {_FOLDER: self._above[key].encode(errors="replace")} if key in self._above else None
        return pa.field(key, self.type_of(key), metadata=metadata)

    def constant(self, key: str, rows: int, file: int) -> pa.Array:
        """A column with the value of a file in all rows."""
        values, code = self._values[key], int(self._codes[key][file])
        if not values[code].is_valid:
            return pa.nulls(rows, self.type_of(key))
        if pa.types.is_string(values.type):
            return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), values.slice(code, 1))
        return values.take(pa.array(np.full(rows, code, np.int32)))

    def require_equal(self, key: str, values: pa.Array, file: int, name: str) -> None:
        """Raise SchemaError if a column of this name in the file has another value than its folder."""
        text = self._texts[key][int(self._codes[key][file])]
        for value in values.unique().to_pylist():
            if not _is_equal(value, text):
                raise SchemaError(
                    f"{name}: column {key!r} has the value {value!r}, but the folder above the file says "
                    f"{key}={_NULL if text is None else text}: rename the column or the folder, or give --exclude {key}"
                )


def _is_equal(value: Any, text: str | None) -> bool:
    """Whether a stored value is that of a folder."""
    if value is None or text is None:
        return value is None and text is None
    if isinstance(value, (str, bool)):
        return str(value) == text or (isinstance(value, bool) and str(value).lower() == text)
    if isinstance(value, (int, float, Decimal)):
        try:
            return bool(Decimal(text) == Decimal(value))
        except InvalidOperation:
            return False
    if isinstance(value, date) and (moment := _moment(text)) is not None:
        return moment == (value if isinstance(value, datetime) else datetime(value.year, value.month, value.day))
    return value.decode(errors="replace") == text if isinstance(value, bytes) else str(value) == text


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def named_by_folders(schema: pa.Schema, columns: Sequence[str]) -> list[str]:
    """What to say of those of these columns that are folders above all data: who learns from one folder may not mean them."""
    fields = [field for field in schema if field.name in columns]
    folders = {f.name: f.metadata[_FOLDER].decode() for f in fields if f.metadata and _FOLDER in f.metadata}
    return [
        f"column {name!r} is the folder {folder} above the data, so it has one value: give --exclude {name} if it is no feature"
        for name, folder in folders.items()
    ]


def folders_above(path: str) -> list[str]:
    """The ``key=value`` folders at the end of the path of a folder.

    >>> folders_above("/data/year=2024/code=01001"), folders_above("/data/year=2024/run")
    (['year=2024', 'code=01001'], [])
    """
    above: list[str] = []
    for part in reversed(path.rstrip("/").split("/")):
        if part.find("=") < 1:
            break
        above.insert(0, part)
    return above


def _texts_by_key(names: Sequence[str], folders: Sequence[str]) -> dict[str, list[str]]:
    """The values of the folders of each file, by key."""
    above = _pairs(folders)
    pairs = [[*above, *_pairs(name.split("/")[:-1])] for name in names]
    keys = [key for key, _ in pairs[0]] if pairs else []
    if len(set(keys)) < len(keys):
        raise SchemaError(
            f"{names[0]}: two of the folders above this file have the same partition key: rename one of them"
        )
    for name, own in zip(names, pairs, strict=True):
        if [key for key, _ in own] != keys:
            raise SchemaError(
                f"{name}: has partition keys {[k for k, _ in own]}, but {names[0]} has {keys}: "
                "all files must have the same key=value folders in their paths"
            )
    return {key: [own[i][1] for own in pairs] for i, key in enumerate(keys)}


def _pairs(folders: Iterable[str]) -> list[tuple[str, str]]:
    parts = (part.partition("=") for part in folders if "=" in part)
    return [(unquote(key), unquote(value)) for key, _, value in parts]


def _typed(texts: list[str | None]) -> pa.Array:
    """The values as integers, dates or times if all of them are written as such, otherwise as text."""
    given = [text for text in texts if text is not None]
    if all(map(_INTEGER.fullmatch, given)):
        return pa.array([None if text is None else int(text) for text in texts], pa.int64())
    if all(map(_TIME.fullmatch, given)) and None not in map(_moment, given):
        moments = [None if text is None else _moment(text) for text in texts]
        if all(map(_DATE.fullmatch, given)):
            return pa.array([moment and moment.date() for moment in moments], pa.date32())
        return pa.array(moments, pa.timestamp("us"))
    return pa.array(texts, pa.string())
