"""The grammar of ``--where``: from text to a tree of conditions. Nothing is read, and no code of the text is ever run.

::

    condition  = all { "or" all }            all = one { "and" one }
    one        = "not" one | "(" condition ")" | column
               | column ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) literal
               | column [ "not" ] "in" "(" literal { "," literal } ")" | column "is" [ "not" ] "null"
    column     = name | '"' any text '"' | "`" any text "`"
    literal    = number | "'" text "'" | "true" | "false"

Keywords may be in capitals. ``==`` is ``=``, ``<>`` is ``!=``, and a literal may stand first (``5 < x``). A quote inside quotes
is doubled. A column alone must be boolean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from streamtrain.errors import UsageError, printable

__all__ = [
    "AllOf", "AnyOf", "Column", "Compare", "Condition", "In", "IsNull", "Literal", "Not", "columns_of", "parse", "read_where",
    "shortened", "without",
]  # fmt: skip

_MOST_CHARACTERS, _MOST_DEPTH, _SHOWN = 100_000, 100, 100
_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    |'(?P<text>(?:[^']|'')*)'
    |"(?P<double>(?:[^"]|"")*)"
    |`(?P<tick>(?:[^`]|``)*)`
    |(?P<name>[^\W\d][\w.]*)
    |(?P<sign><=|>=|!=|<>|==|=|<|>|\(|\)|,)""",
    re.VERBOSE,
)
_KEYWORDS = ("and", "or", "not", "in", "is", "null", "true", "false")
_SAME = {"==": "=", "<>": "!="}
_COMPARISONS = ("=", "!=", "<", "<=", ">", ">=")
_TURNED = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


class Literal(NamedTuple):
    """kind: ``number``, ``text`` or ``boolean``. value: as it was written, without quotes."""

    kind: str
    value: str

    def __str__(self) -> str:
        return "'" + self.value.replace("'", "''") + "'" if self.kind == "text" else self.value


@dataclass(frozen=True)
class Column:
    """A boolean column alone."""

    column: str


@dataclass(frozen=True)
class Compare:
    column: str
    sign: str
    literal: Literal


@dataclass(frozen=True)
class In:
    column: str
    literals: tuple[Literal, ...]


@dataclass(frozen=True)
class IsNull:
    column: str


@dataclass(frozen=True)
class Not:
    inner: Condition


@dataclass(frozen=True)
class AllOf:
    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class AnyOf:
    parts: tuple[Condition, ...]


Condition = Column | Compare | In | IsNull | Not | AllOf | AnyOf


def read_where(text: Any) -> Any:
    """The text of an expression, unchanged. Raises UsageError if it is not one."""
    if isinstance(text, str):
        parse(text)
    return text


def parse(text: str) -> Condition:
    """The condition that a text describes. Raises UsageError, with the position, for anything else.

    >>> parse("x >= 1 and not city in ('Rome', 'Oslo')").parts[1]
    Not(inner=In(column='city', literals=(Literal(kind='text', value='Rome'), Literal(kind='text', value='Oslo'))))
    >>> parse("x >= ")
    Traceback (most recent call last):
    streamtrain.errors.UsageError: --where x >= : expected a number, 'text', true or false after '>=', but the text ends there
    """
    if len(text) > _MOST_CHARACTERS:
        raise UsageError(f"--where: has {len(text):,} characters, and may have {_MOST_CHARACTERS:,}: make it shorter")
    parser = _Parser(text)
    condition = parser.condition(0)
    parser.require_end()
    return condition


def columns_of(condition: Condition) -> list[str]:
    """The names of its columns, each once, in the order of the text."""
    return list(dict.fromkeys(_columns(condition)))


def _columns(condition: Condition) -> Iterator[str]:
    if isinstance(condition, Not):
        yield from _columns(condition.inner)
    elif isinstance(condition, (AllOf, AnyOf)):
        for part in condition.parts:
            yield from _columns(part)
    else:
        yield condition.column


def shortened(text: str) -> str:
    """An expression for a message: one line of at most 100 characters."""
    text = printable(" ".join(text[: 4 * _SHOWN].split()) if len(text) > _SHOWN else text)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def without(name: str, text: str) -> str:
    """The expression that keeps the rows in which a column of text is another text.

    >>> print(without("y", ""), "and", without("unit of it", "it's"))
    y != '' and "unit of it" != 'it''s'
    """
    is_plain = re.fullmatch(r"[^\W\d][\w.]*", name) and name.lower() not in _KEYWORDS
    column = name if is_plain else '"' + name.replace('"', '""') + '"'
    return f"{column} != {Literal('text', text)}"


class _Token(NamedTuple):
    kind: str  # number, text, column, keyword, sign; end
    value: str
    shown: str
    at: int


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._split())
        self._next = 0

    def _split(self) -> Iterator[_Token]:
        at = 0
        while at < len(self._text):
            found = _TOKEN.match(self._text, at)
            if found is None:
                raise self._strange(at)
            kind, value, shown = str(found.lastgroup), found[str(found.lastgroup)], found[0]
            if kind in ("double", "tick"):
                yield _Token("column", value.replace(shown[0] * 2, shown[0]), shown, at)
            elif kind == "text":
                yield _Token("text", value.replace("''", "'"), shown, at)
            elif kind == "name":
                is_keyword = value.lower() in _KEYWORDS
                yield _Token("keyword" if is_keyword else "column", value.lower() if is_keyword else value, shown, at)
            elif kind != "space":
                yield _Token(kind, _SAME.get(value, value), shown, at)
            at = found.end()
        yield _Token("end", "", "", at)

    def _strange(self, at: int) -> UsageError:
        character = self._text[at]
        if character in "'\"`":
            return self._wrong(f"the quote {character} at character {at + 1} is not closed")
        if character.isdigit() or character in "+-.":
            word = re.match(r"[\w.+-]*", self._text[at:])
            return self._wrong(f"{word[0] if word else character!r} at character {at + 1} is not a number: "
                               "a column whose name begins so needs quotes, \"2nd\"")  # fmt: skip
        return self._wrong(f"{printable(character)!r} at character {at + 1} has no meaning here: "
                           "a name with such a character needs quotes, \"unit price\"")  # fmt: skip

    def _wrong(self, what: str) -> UsageError:
        return UsageError(f"--where {shortened(self._text)}: {what}")

    def _expected(self, what: str) -> UsageError:
        token, before = self._tokens[self._next], self._tokens[self._next - 1] if self._next else None
        after = f" after {printable(before.shown)!r}".replace("\"'", "'").replace("'\"", "'") if before else ""
        if token.kind == "end":
            return self._wrong(f"expected {what}{after}, but the text ends there")
        return self._wrong(f"expected {what}{after} at character {token.at + 1}, not {printable(token.shown)}")

    def _take(self, *kinds: str) -> _Token | None:
        """The next token, if it is of one of these kinds, or a keyword or sign with one of these values."""
        token = self._tokens[self._next]
        if token.kind in kinds or (token.kind in ("keyword", "sign") and token.value in kinds):
            self._next += 1
            return token
        return None

    def require_end(self) -> None:
        if self._tokens[self._next].kind != "end":
            raise self._expected("'and', 'or' or the end")

    def condition(self, depth: int) -> Condition:
        return self._joined("or", AnyOf, depth)

    def _joined(self, word: str, kind: type[AnyOf] | type[AllOf], depth: int) -> Condition:
        def one() -> Condition:
            return self._joined("and", AllOf, depth) if word == "or" else self._one(depth)

        parts = [one()]
        while self._take(word):
            parts.append(one())
        return parts[0] if len(parts) == 1 else kind(tuple(parts))

    def _one(self, depth: int) -> Condition:
        if depth > _MOST_DEPTH:
            raise self._wrong(f"more than {_MOST_DEPTH} parentheses and 'not' are inside one another: use fewer")
        if self._take("not"):
            return Not(self._one(depth + 1))
        if self._take("("):
            inner = self.condition(depth + 1)
            if not self._take(")"):
                raise self._expected("')'")
            return inner
        if column := self._take("column"):
            return self._of_column(column.value)
        if (literal := self._literal()) is not None:
            if (sign := self._take(*_COMPARISONS)) is None:
                raise self._expected("a comparison (= != < <= > >=)")
            if (column := self._take("column")) is None:
                raise self._expected("a column")
            return Compare(column.value, _TURNED[sign.value], literal)
        raise self._expected("a column, 'not' or '('")

    def _of_column(self, name: str) -> Condition:
        if sign := self._take(*_COMPARISONS):
            return Compare(name, sign.value, self._require_literal())
        if self._take("is"):
            is_not = self._take("not") is not None
            if not self._take("null"):
                raise self._expected("'null'")
            return Not(IsNull(name)) if is_not else IsNull(name)
        if self._take("not"):
            if not self._take("in"):
                raise self._expected("'in'")
            return Not(self._among(name))
        return self._among(name) if self._take("in") else Column(name)

    def _among(self, name: str) -> Condition:
        if not self._take("("):
            raise self._expected("'('")
        literals = [self._require_literal()]
        while self._take(","):
            literals.append(self._require_literal())
        if not self._take(")"):
            raise self._expected("',' or ')'")
        return In(name, tuple(literals))

    def _literal(self) -> Literal | None:
        if token := self._take("number", "text"):
            return Literal(token.kind, token.value)
        token = self._take("true", "false")
        return None if token is None else Literal("boolean", token.value)

    def _require_literal(self) -> Literal:
        if (literal := self._literal()) is not None:
            return literal
        token = self._tokens[self._next]
        if token.kind == "keyword" and token.value == "null":
            raise self._wrong(f"null at character {token.at + 1} equals nothing: write 'is null' or 'is not null'")
        if token.kind == "column":
            raise self._wrong(
                f"{printable(token.shown)} at character {token.at + 1} is a column: columns are compared with "
                f"literals, not with one another; text needs single quotes, {Literal('text', token.value)}"
            )
        raise self._expected("a number, 'text', true or false")
