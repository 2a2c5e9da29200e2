"""Fill the templates. Every value is escaped, and control characters are spelled out.

The page's policy allows only its own style and script, by their hashes: an injected script would not run, and nothing is
fetched. jinja2 is imported when a page is written.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from streamtrain.errors import printable
from streamtrain.memory.sizes import format_bytes
from streamtrain.tools.pages.chart import Line

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["render"]


def render(title: str, lines: Sequence[Line], **content: Any) -> str:
    """Return a whole HTML document: one file with its style, script and data inside.

    lines: all lines that charts may draw; their colours are part of the style. content: the values of ``page.html``.
    """
    templates = _environment()
    style = templates.get_template("page.css").render(lines=lines)
    script = templates.get_template("page.js").render()
    return templates.get_template("page.html").render(
        title=title, style=_trusted(style), script=_trusted(script), hash=_hash, **content
    )


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    folder = resources.files(__package__).joinpath("templates")
    environment = Environment(
        loader=FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8")),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        cache_size=8,
    )
    environment.filters |= {"size": format_bytes, "percent": lambda share: f"{100 * share:.4g}%"}
    return environment


def _shown(value: Any) -> Any:
    """The text of a value. HTML that a template made stays as it is."""
    return value if hasattr(value, "__html__") else printable(str(value))


def _trusted(text: str) -> Any:
    """Mark our own style or script as safe to write unescaped."""
    from markupsafe import Markup

    return Markup(text)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(str(text).encode()).digest()).decode()
