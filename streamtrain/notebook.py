"""How objects are shown: one short line in a console (``repr``), a small table in a notebook (``_repr_html_``)."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from streamtrain.errors import printable

__all__ = ["count", "html_table", "one_line"]

_LONGEST = 60  # characters of a name on the line
_MOST_ROWS = 100  # of a table: a data set may have a million columns


def one_line(kind: object, *facts: str | None) -> str:
    """The ``repr`` of an object: its class and a few facts, without those that are None.

    >>> one_line([], "3 rows", None, "batches of 16")
    '<list: 3 rows, batches of 16>'
    """
    return f"<{type(kind).__name__}: {', '.join(_short(fact) for fact in facts if fact is not None)}>"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """A number of things, for people.

    >>> count(1, "row"), count(20_000, "row"), count(3, "class", "classes")
    ('1 row', '20,000 rows', '3 classes')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def html_table(caption: str, head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A table as HTML. Every text is escaped: names of columns and classes may hold anything. At most 100 rows are shown.

    >>> html_table("<two>", ["name"], [["a & b"]])
    '<table><caption>&lt;two&gt;</caption><tr><th>name</th></tr><tr><td>a &amp; b</td></tr></table>'
    """
    shown = [list(row) for row in rows]
    more = len(shown) - _MOST_ROWS
    lines = [_row("th", head), *(_row("td", row) for row in shown[:_MOST_ROWS])]
    if more > 0:
        lines.append(_row("td", [f"and {count(more, 'row')} more"]))
    return f"<table><caption>{_cell(caption)}</caption>{''.join(lines)}</table>"


def _row(tag: str, cells: Iterable[object]) -> str:
    return f"<tr>{''.join(f'<{tag}>{_cell(cell)}</{tag}>' for cell in cells)}</tr>"


def _cell(value: object) -> str:
    return escape("" if value is None else printable(str(value)))


def _short(text: str) -> str:
    text = printable(text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
