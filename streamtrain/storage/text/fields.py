"""What the fields of CSV mean: which words mean that a value is missing, and which integers are codes. And what the first line
and the first records tell about a delimiter, a header or a decimal point that is another one."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = [
    "MISSING", "has_codes", "is_code", "is_number", "may_be_codes", "meant_delimiter", "other_delimiter", "spelled",
    "told_by_code", "told_by_header", "told_by_names", "told_by_values", "values_of", "without_words",
]  # fmt: skip

#: words that mean that a value is missing in a column of numbers; blanks do, too
MISSING = (
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "N/A", "NA", "NULL", "NaN", "n/a",
    "nan", "null", "?", "-", ".", "\\N", "None", "none", "<NA>",
)  # fmt: skip
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
#: what text may be a number, the first that fits
_KINDS = {
    "number": _NUMBER,
    "points": re.compile(r"[+-]?[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+"),  # 1.234,5
    "thousands": re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?"),  # 1,234.5
    "decimal": re.compile(r"[+-]?[0-9]+,[0-9]+"),  # 1,5
}
#: what such numbers have, and what to do; the first that occurs tells most
_MARKS = {
    "points": ("points between thousands", "remove them from the file, and pass --decimal ,"),
    "decimal": ("decimal commas", "pass --decimal ,"),
    "thousands": (
        "commas",
        "if these are decimal points, pass --decimal ,; if they separate thousands, remove them from the file",
    ),
}
_CODE = re.compile(rb"0[0-9]+")
_NEARLY_ALL, _SHOWN, _VALUES_AT_ONCE = 0.9, 5, 1000
_ZERO = ord("0")
_SCANNED_BYTES = 1 << 17


def spelled(words: Iterable[str]) -> tuple[str, ...]:
    """Words as they commonly stand between delimiters: with a blank before or after them. A blank field is among them."""
    return tuple(dict.fromkeys(("", " ", *(form for word in words for form in (word, f" {word}", f"{word} ")))))


def is_code(text: bytes) -> bool:
    """Whether it is an integer with a leading zero, which a number would lose.

    >>> is_code(b"00501"), is_code(b"0"), is_code(b"0.5")
    (True, False, False)
    """
    return _CODE.fullmatch(text.strip()) is not None


def may_be_codes(kind: pa.DataType) -> bool:
    """Whether a column that was inferred to be of this type may have integers with leading zeros."""
    return bool(pa.types.is_integer(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind))


def is_number(text: str) -> bool:
    """Whether a field is a number.

    >>> is_number(" -2.5e3"), is_number("2 m")
    (True, False)
    """
    return _NUMBER.fullmatch(text.strip()) is not None


def has_codes(data: bytes, delimiter: str) -> bool:
    r"""Whether an integer with a leading zero may be a field.

    >>> has_codes(b"a,00501\n", ","), has_codes(b"0,0.5,08:30,a05,100\n", ",")
    (True, False)
    """
    records = b"\n" + data + b"\n"
    borders = [delimiter.encode(), b"\n", b"\r", b'"', b" "]
    before = [byte for byte in borders if byte in records]
    text = np.frombuffer(records, np.uint8)
    for start in range(0, len(text), _SCANNED_BYTES):  # in the cache of the processor
        part = text[start : start + _SCANNED_BYTES + 2]
        starts = part[1:-1] == _ZERO
        starts &= part[2:] - np.uint8(_ZERO) < 10
        starts &= _is_one_of(part[:-2], before)
        at = np.flatnonzero(starts) + start + 2
        while len(at):
            is_digit = text[at] - np.uint8(_ZERO) < 10
            if _is_one_of(text[at[~is_digit]], borders).any():
                return True
            at = at[is_digit] + 1
    return False


def _is_one_of(text: NDArray[np.uint8], some: Sequence[bytes]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = text == some[0][0]
    for byte in some[1:]:
        found |= text == byte[0]
    return found


def values_of(column: Any) -> Iterator[tuple[Any, int]]:
    """The values of a column of text in a dictionary, and how often each occurs, a few at a time: a Python string is large."""
    for chunk in column.chunks:
        counts = np.bincount(chunk.indices.to_numpy(), minlength=len(chunk.dictionary))
        for start in range(0, len(counts), _VALUES_AT_ONCE):
            some = slice(start, start + _VALUES_AT_ONCE)
            yield from zip(chunk.dictionary[some].to_pylist(), counts[some].tolist(), strict=True)


def without_words(column: Any, words: Collection[str]) -> Any:
    """A column of text in a dictionary, in which these words are null."""
    chunks = []
    for chunk in column.chunks:
        missing = np.zeros(len(chunk.dictionary), bool)
        for start in range(0, len(missing), _VALUES_AT_ONCE):
            some = slice(start, start + _VALUES_AT_ONCE)
            missing[some] = [text.strip() in words for text in chunk.dictionary[some].to_pylist()]
        if missing.any():
            codes = chunk.indices.to_numpy()
            indices = pa.array(codes, chunk.type.index_type, mask=missing[codes])
            chunk = pa.DictionaryArray.from_arrays(indices, chunk.dictionary)
        chunks.append(chunk)
    return pa.chunked_array(chunks, column.type)


# -- what is probably meant --------------------------------------------------------------------------------------------


def other_delimiter(names: Sequence[str]) -> str | None:
    """The delimiter that a line with a single field plainly has, as ``--delimiter`` takes it.

    >>> other_delimiter(["x;y"]), other_delimiter(["x\\ty"]), other_delimiter(["x", "y;z"])
    ("';'", 'tab', None)
    """
    found = [mark for mark in (";", "\t", "|", ",") if len(names) == 1 and mark in names[0]]
    return None if not found else "tab" if found[0] == "\t" else repr(found[0])


def told_by_names(shown: str, names: Sequence[str]) -> str | None:
    """A warning if a single column seems to be several. shown: the file."""
    mark = other_delimiter(names)
    if mark is None:
        return None
    return f"{shown} has a single column, whose name is {names[0][:100]!r}: if it is several, pass --delimiter {mark}"


def meant_delimiter(names: Sequence[str], record: bytes, between: str) -> str:
    """What to say of a record with another number of fields: the delimiter that it seems to have, or nothing.

    >>> meant_delimiter(["x", "y"], b"1;2", ",")
    "; it contains ';': if that is between the fields, pass --delimiter ';'"
    """
    mark = other_delimiter(names)
    if mark is not None:
        return f"; a name is {names[0][:100]!r}: if it is several, pass --delimiter {mark}"
    found = [mark for mark in (";", "\t", "|") if mark.encode() in record and mark != between]
    if not found:
        return ""
    shown = "tab" if found[0] == "\t" else repr(found[0])
    return f"; it contains {shown}: if that is between the fields, pass --delimiter {shown}"


def told_by_code(name: str, code: str) -> str:
    """The warning that a column has an integer with a leading zero."""
    return (
        f"column {name!r} has integers with leading zeros, such as {code!r}: it is read as text, so that they differ from "
        f"those without; --as {name}=ignore leaves it out"
    )


def told_by_header(names: Sequence[str], numbers: Collection[str], texts: Mapping[str, Any]) -> str | None:
    """A warning if the line of names looks like a record. numbers: the columns of numbers. texts: the columns of text."""
    if list(names) == [str(i) for i in range(len(names))]:  # as pandas names columns that have no names
        return None
    if not all(_NUMBER.fullmatch(name.strip()) for name in numbers) or not (numbers or texts):
        return None
    fractions = any("." in name or name.lstrip().startswith("-") for name in numbers)
    if not fractions and not all(any(name == text for text, _ in values_of(c)) for name, c in texts.items()):
        return None  # years, perhaps, beside what they are of
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"the first line ({shown}) names the columns, but looks like a record: if it is one, pass --no-header"


def told_by_values(
    name: str, values: Iterable[tuple[str, int]], words: Collection[str], usual: Sequence[str]
) -> str | None:
    """A warning if a column of text has nearly only numbers. values: its values and how often each occurs. words: those that
    mean missing. usual: those of them that occur in columns of numbers."""
    counts, shown, others = Counter[str](), dict[str, str](), list[str]()
    for value, n in values:
        text = value.strip()
        if text and text not in words:
            kind = next((kind for kind, pattern in _KINDS.items() if pattern.fullmatch(text)), "other")
            counts[kind] += n
            shown.setdefault(kind, text)
            if kind == "other" and len(others) <= _SHOWN and text not in others:
                others.append(text)
    least = _NEARLY_ALL * counts.total()
    with_marks = [kind for kind in _MARKS if counts[kind]]
    if with_marks and counts.total() - counts["other"] >= least:
        what, remedy = _MARKS[with_marks[0]]
        return f"column {name!r} is text because its numbers have {what}, such as {shown[with_marks[0]]!r}: {remedy}"
    if not others or counts["number"] < least:
        return None
    share = f"column {name!r} is text, although {counts['number'] / counts.total():.1%} of its first values are numbers"
    if len(others) > _SHOWN:
        return f"{share}: others are not, such as {others[0]!r} and {others[1]!r}"
    quoted = ",".join(f'"{word}"' if "," in word else word for word in [*others, *usual])
    return (
        f"{share}; the others are {', '.join(map(repr, others))}: if they mean missing, pass --na {shlex.quote(quoted)}"
    )
