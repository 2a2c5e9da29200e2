"""HTML that cannot be broken into: plain text is escaped, always; only what was made here is markup.

The page allows the style and the script that it carries, by their hashes, and nothing else: a script that came in by
some other way would not run, and nothing is fetched.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from string import Template
from typing import Any

from streamtrain.errors import printable
from streamtrain.state import to_json

__all__ = ["Markup", "document", "element", "folded", "joined", "table"]

_VOID = {"input", "br", "meta", "link", "col"}
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(name: str, *inside: Any, **attributes: Any) -> Markup:
    """An element. What is inside, and the values of attributes, is escaped unless it is Markup; None is left out.

    Attributes: an underscore at the end is dropped, others become ``-``; True is an attribute without a value, None
    and False are none.

    >>> print(element("p", "a < b ", element("b", '"c"'), class_="x", data_key="<d>", hidden=True, title=None))
    <p class="x" data-key="&lt;d&gt;" hidden>a &lt; b <b>&quot;c&quot;</b></p>
    """
    start = "".join(_attribute(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{_named(name)}{start}>")
    return Markup(f"<{_named(name)}{start}>{joined(*inside)}</{name}>")


def joined(*parts: Any) -> Markup:
    """Parts side by side: each escaped unless it is Markup, None left out."""
    return Markup("".join(part if isinstance(part, Markup) else _escaped(part) for part in parts if part is not None))


def table(heads: Sequence[tuple[str, str]], rows: Iterable[Sequence[Any]], foot: Sequence[Any] = ()) -> Markup:
    """A table that scrolls sideways where it must.

    heads: the name of each column, and its class. rows, foot: cells; the first one names its row.
    """
    kinds = [kind or None for _, kind in heads]

    def row(cells: Sequence[Any]) -> Markup:
        rest = (element("td", cell, class_=kind) for cell, kind in zip(cells[1:], kinds[1:], strict=True))
        return element("tr", element("th", cells[0], scope="row", class_=kinds[0]), *rest)

    head = element("tr", *(element("th", name, scope="col", class_=kind or None) for name, kind in heads))
    parts = element("thead", head), element("tbody", *map(row, rows)), element("tfoot", row(foot)) if foot else None
    return element("div", element("table", *parts), class_="scroll")


def folded(title: str, content: Markup) -> Markup:
    """What is shown when somebody asks for it."""
    return element("details", element("summary", title), content)


def _attribute(name: str, value: Any) -> str:
    if value is None or value is False:
        return ""
    return f" {_named(name)}" if value is True else f' {_named(name)}="{_escaped(value)}"'


def _named(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of an element or attribute")
    return name


def _escaped(text: Any) -> str:
    return html.escape(printable(str(text)), quote=True)


def document(title: str, body: Markup, data: Any, style: str) -> str:
    """The page: one file with its style, its script and its data (JSON, as the script reads it) inside.

    style: optimizers of CSS that come before those of ``page.css``; never text of other people.
    """
    style, script = style + _resource("page.css"), _resource("page.js")
    return Template(_resource("page.html")).substitute(
        title=_escaped(title), style=style, style_hash=_hash(style), body=body, data=_json(data), script=script,
        script_hash=_hash(script),
    )  # fmt: skip


def _json(value: Any) -> str:
    """JSON that stands between script tags: no text in it can end them."""
    text = to_json(value)  # ASCII: what is not is escaped
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _resource(name: str) -> str:
    return resources.files(__name__.rpartition(".")[0]).joinpath(name).read_text(encoding="utf-8")
