"""The parts of a page, besides charts. They are values; ``parts.html`` draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

__all__ = ["Bar", "Card", "Facts", "Folded", "Section", "Table", "Texts", "Verdict"]


@dataclass(frozen=True)
class Bar:
    """A bar of a share of its width, 0.0 to 1.0. planned: the share of an outline around it."""

    share: float
    look: str = "measured"
    planned: float | None = None


@dataclass(frozen=True)
class Card:
    """A number in large letters, what it is, and a note."""

    name: str
    figure: str
    note: str
    bar: Bar | None = None


@dataclass(frozen=True)
class Verdict:
    """A sentence at the top. look: good, bad or doubt."""

    look: str
    text: str


@dataclass(frozen=True)
class Texts:
    """Sentences in a list."""

    texts: Sequence[str]
    part: ClassVar[str] = "texts"


@dataclass(frozen=True)
class Table:
    """heads: the name of each column, and its class. rows, foot: cells, text or `Bar`; the first one names its row."""

    heads: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[Any]]
    foot: Sequence[Any] = ()
    hint: str = ""
    part: ClassVar[str] = "table"


@dataclass(frozen=True)
class Facts:
    """Short values by their names."""

    facts: Sequence[tuple[str, str]]
    part: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Folded:
    """A part that is closed until the reader opens it."""

    title: str
    content: Any
    part: ClassVar[str] = "folded"


@dataclass(frozen=True)
class Section:
    """Parts under a heading. parts: `Texts`, `Table`, `Facts`, `Folded` or a chart."""

    title: str
    parts: Sequence[Any]
    look: str = ""
