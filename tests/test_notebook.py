"""What people see of an object: one short line in a console, a table in a notebook."""

from __future__ import annotations

import html.parser
from typing import Any

import numpy as np
import pytest

import streamtrain
from streamtrain.notebook import html_table, one_line

NASTY = '<script>alert("x")</script>\n\x1b[2J'


class Tags(html.parser.HTMLParser):
    """Whether every tag of a page is closed in its turn; which there are, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def objects() -> dict[str, Any]:
    x = np.random.default_rng(0).normal(size=2000)
    data = {"x": x, NASTY: x, "y": (x > 0).astype(int)}
    source = streamtrain.Source.open(data, target="y").surveyed()
    plan = streamtrain.make_plan(data, target="y")
    fitted = streamtrain.fit(data, target="y", epochs=2)
    loader = streamtrain.Loader(source, plan)
    found = {"Plan": plan, "Source": source, "Loader": loader, "FitResult": fitted, "Model": fitted.model}
    return found | {"Report": fitted.report, "Profile": streamtrain.profile(data, target="y")}


LINES = {
    "Plan": "<Plan: 2,000 rows in 1 chunk, 1 window of at most 2,000 rows, batches of 16, ",
    "Source": "<Source: 2,000 rows in 1 chunk, 2 columns, target 'y'>",
    "Loader": "<Loader: 2,000 rows in batches of 16, 1 window, epoch 1, 0 rows seen>",
    "FitResult": "<FitResult: linear with logistic loss, 2,000 rows in 2 epochs, loss 0.",
    "Model": "<Model: Linear, 2 columns, target 'y', 2 classes>",
    "Profile": "<Profile: 2,000 rows learned in ",
    "Report": "<Report: 2,000 rows in 2 epochs, ",
}


@pytest.mark.parametrize("name", LINES)
def test_one_short_line(objects: dict[str, Any], name: str) -> None:
    line = repr(objects[name])
    assert line.startswith(LINES[name]) and line.endswith(">") and "\n" not in line and len(line) < 150, line


@pytest.mark.parametrize("name", sorted(set(LINES) - {"Report"}))
def test_a_table_in_a_notebook(objects: dict[str, Any], name: str) -> None:
    page = Tags(objects[name]._repr_html_())
    assert page.seen == {"table", "caption", "tr", "th", "td"}  # and no script
    assert page.text[0] == repr(objects[name])[1:-1] and len(page.text) > 5
    if name in ("Source", "Model"):
        assert '<script>alert("x")</script>\\n\\x1b[2J' in page.text  # as text, which drives nothing


def test_names_of_any_length_and_any_number() -> None:
    line = one_line([], "a" * 1000, None, "two\nlines")
    assert len(line) < 100 and line.endswith("…, two\\nlines>")
    page = html_table("many", ["n"], ([n] for n in range(10_000)))
    assert page.count("<tr>") == 102 and "and 9,900 rows more" in page


def test_a_report_that_was_stored(tmp_path: Any) -> None:
    data = {"x": np.arange(100.0), "y": np.arange(100) % 2}
    before = streamtrain.fit(data, target="y", out=tmp_path / "r")
    again = streamtrain.fit(data, out=tmp_path / "r", resume=True)
    assert repr(again) == repr(before) and again._repr_html_().startswith("<table><caption>FitResult")
    assert repr(again.report).startswith("<StoredReport: ") and "\n" not in repr(again.report)
