"""Every error that streamtrain raises on purpose.

The tree::

    StreamtrainError
    ├── UsageError (ValueError)          an invalid setting: unknown optimizer, batch size 0
    │   └── SizeError                    a size in bytes that does not parse
    ├── DataError (ValueError)           unusable data
    │   ├── NotFoundError (FileNotFoundError)   no such path, nothing in it
    │   ├── ColumnError (KeyError)       a column that is missing, or of an unusable type
    │   ├── SchemaError                  files or arrays that do not fit together
    │   ├── CorruptError (OSError)       bytes that do not decode, counts that do not agree
    │   │   └── ChangedError             a file that changed after it was opened
    │   └── BadValueError                a null, a NaN or an unknown label in the rows
    ├── RunError (ValueError)            a run folder that cannot be used
    │   └── WrongFile                a file of it that is damaged, was changed, or is none of a run
    ├── LearnerError (RuntimeError)      a user's own learner raised an error, or returned what it may not
    ├── DivergedError (ArithmeticError)  the model's numbers ran out of bounds while learning
    └── BudgetError (MemoryError)        memory
        ├── BudgetRefused                the plan does not fit; nothing was read
        └── BudgetExceeded               the process went over its budget while running

Each is also the fitting builtin, so ``except FileNotFoundError`` works. A message says what was given (with the value),
which limit it broke (with the value) and what to do next.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "BadValueError",
    "BudgetError",
    "BudgetExceeded",
    "BudgetRefused",
    "ChangedError",
    "ColumnError",
    "CorruptError",
    "DataError",
    "DivergedError",
    "LearnerError",
    "NotFoundError",
    "RunError",
    "SchemaError",
    "SizeError",
    "StreamtrainError",
    "UsageError",
    "WrongFile",
    "data_name",
    "listed",
    "near_names",
    "one_of",
    "printable",
    "without_secrets",
]


class StreamtrainError(Exception):
    """The base class of all errors of streamtrain."""

    def __str__(self) -> str:  # KeyError would print the repr of its argument
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:  # without it dask cannot send an error that is also an OSError
        return type(self), self.args


class UsageError(StreamtrainError, ValueError):
    """An invalid setting."""


class SizeError(UsageError):
    """A size in bytes that does not parse."""


class DataError(StreamtrainError, ValueError):
    """Unusable data."""


class NotFoundError(DataError, FileNotFoundError):
    """No such path, or nothing in it."""


class ColumnError(DataError, KeyError):
    """A column that is missing, or of an unusable type."""


class SchemaError(DataError):
    """Files or arrays that do not fit together."""


class CorruptError(DataError, OSError):
    """Bytes that do not decode, or counts that do not agree."""


class ChangedError(CorruptError):
    """A file that changed after it was opened: what was read before does not belong to it."""


class BadValueError(DataError):
    """A value in the rows that cannot be learned from.

    ``row`` and ``column`` are positions in the array that was checked, for a caller who can name them.
    """

    def __init__(self, message: str, *, row: int | None = None, column: int | None = None) -> None:
        super().__init__(message)
        self.row, self.column = row, column

    def further(self, rows: int) -> BadValueError:
        """The same error with its row number increased by ``rows``."""
        row = None if self.row is None else self.row + rows
        return BadValueError(str(self), row=row, column=self.column)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_bad_value, (self.args[0], self.row, self.column))


def _bad_value(message: str, row: int | None, column: int | None) -> BadValueError:
    return BadValueError(message, row=row, column=column)


class RunError(StreamtrainError, ValueError):
    """A run folder that cannot be used."""


class WrongFile(RunError):
    """A file of a run that is damaged, was changed, or was never written by streamtrain."""


class LearnerError(StreamtrainError, RuntimeError):
    """A learner that a user wrote raised an error, or returned something that it may not."""


class DivergedError(StreamtrainError, ArithmeticError):
    """The model's numbers ran out of bounds while learning."""


class BudgetError(StreamtrainError, MemoryError):
    """Memory: what was planned or measured does not fit the budget."""


class BudgetRefused(BudgetError):
    """The plan does not fit the budget; nothing was read."""


class BudgetExceeded(BudgetError):
    """The process went over its budget while running."""


# -- names in messages, which may contain anything -----------------------------------------------------------------------


def printable(text: str) -> str:
    """The text as one line of UTF-8. Control characters of terminals, marks that change the writing direction, and half
    characters (as in file names that are not UTF-8) are escaped.

    >>> print(printable("two\\nlines \\udcff"))
    two\\nlines \\udcff
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def without_secrets(target: str) -> str:
    """The name of data for messages and reports: a URL without its password and its query, which may be a signature. In the
    names of buckets a ``?`` is part of a glob.

    >>> without_secrets("https://user:word@host/a.csv?signature=x"), without_secrets("s3://bucket/part-?.csv")
    ('https://host/a.csv', 's3://bucket/part-?.csv')
    >>> without_secrets("https://user:wo/rd@host/a.csv")
    'https://***'
    """
    scheme, mark, rest = target.partition("://")
    if not mark:
        return target
    host, slash, path = rest.partition("/")
    _, colon, port = re.split(r"[?#]", host)[0].rpartition("@")[2].rpartition(":")
    if colon and "@" in path + host and not (port.isdigit() or port.endswith("]")):
        return f"{scheme}://***"  # the beginning of a password that has a / ? or # in it
    shown = f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
    return shown if scheme in ("s3", "gs", "az", "memory") else shown.partition("?")[0]


def data_name(data: Any) -> str:
    """The name of data for messages and reports: their path or URL, or the type of a reader or of data in memory; of several
    the first of them.

    >>> data_name("a.csv"), data_name({"x": [1.0]}), data_name(["a", "b", "c", "d"])
    ('a.csv', 'dict', 'a, b and 2 more')
    """
    if isinstance(data, list) and data:
        more = f" and {len(data) - 2:,} more" if len(data) > 3 else ""
        return ", ".join(map(data_name, data[: 2 if more else 3])) + more
    return without_secrets(str(data)) if isinstance(data, (str, Path)) else type(data).__name__


def near_names(name: str, names: Sequence[str]) -> str:
    """The names to choose from, for a message about an unknown one."""
    import difflib

    by_lower = {known.lower(): known for known in reversed(names)}
    close = [by_lower[low] for low in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)]
    if close:
        return f"did you mean {', '.join(map(repr, close))}?"
    return f"must be one of {', '.join(map(repr, names[:10]))}{' and more' if len(names) > 10 else ''}"


def one_of(name: str, names: Sequence[str]) -> str:
    """The choices, for a message, with the nearest name.

    >>> one_of("skp", ["raise", "skip"])
    'must be one of raise, skip; did you mean skip?'
    """
    import difflib

    by_lower = {known.lower(): known for known in reversed(names)}
    close = [by_lower[low] for low in difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)]
    return f"must be one of {', '.join(names)}" + (f"; did you mean {close[0]}?" if close else "")


def listed(values: Iterable[Any]) -> str:
    """Values for a message, the first 10 of them.

    >>> listed(range(12))
    '0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more'
    """
    values = list(values)
    more = f" and {len(values) - 10:,} more" if len(values) > 10 else ""
    return ", ".join(map(repr, values[:10])) + more
