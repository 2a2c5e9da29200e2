"""The page as a file: what it shows, and that no text can break out of its place. `test_browser` has it answer."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from streamtrain.errors import printable
from streamtrain.tools.pages.page import page

MakeProfile = Callable[..., dict[str, Any]]

VOID = {"meta", "link", "input"}


class Parsed(HTMLParser):
    """A page, taken apart: elements with their attributes, text by the element that it stands in; all must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.comments: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, *tags: str) -> str:
        """The text of these elements, or of all that people see."""
        unseen = {"script", "style", "title"}
        return "\n".join(text for tag, text in self.texts if (tag in tags if tags else tag not in unseen)).strip()

    def data(self, chart: int = 0) -> Any:
        """What the script reads of a chart."""
        return json.loads([text for tag, text in self.texts if tag == "script"][chart])


def test_the_headline_says_what_was_planned_measured_and_allowed(profile: MakeProfile) -> None:
    text = Parsed(page(profile())).text()
    assert "The budget holds: the process took 231 MB at most, 57.8 % of the 400 MB that it may take." in text
    assert "clicks/*.parquet" in text and "1.18 times the measured peak" in text


def test_a_broken_budget_is_said(profile: MakeProfile) -> None:
    text = Parsed(page(profile(budget_bytes=200_000_000))).text()
    assert "does not hold: the process took 231 MB at most, 31 MB more than the 200 MB" in text


def test_every_section_is_there(profile: MakeProfile) -> None:
    parsed = Parsed(page(profile()))
    headings = parsed.text("h2").splitlines()
    assert headings == [
        "measured peak", "planned peak", "budget", "What to change", "Warnings", "Memory over time", "Memory by stage",
        "Where the time went", "Scores", "The run", "Details",
    ]  # fmt: skip
    text = parsed.text()
    for shown in (
        "a budget of 250MB would do",
        "few chunks are mixed",
        "0.7500",
        "12 s",
        "81.3 %",
        "10,000",
        "runs/one",
    ):
        assert shown in text


def test_the_stages_have_planned_measured_and_share(profile: MakeProfile) -> None:
    rows = re.findall(r"<tr>.*?</tr>", page(profile()))
    (windows,) = [Parsed(row).text() for row in rows if "rows held to be shuffled" in row and "<input" not in row]
    assert windows.split("\n")[:4] == ["windows", "100 MB", "90 MB", "39 %"]


def test_the_timeline_is_a_table_too_and_has_the_peak(profile: MakeProfile) -> None:
    made = profile(2000)
    parsed = Parsed(page(made))
    peak = max(made["timeline"], key=lambda moment: moment["resident_bytes"])
    assert f"{peak['rows']:,}" in parsed.text("td").split("\n")
    assert len(parsed.all("tr")) < 200  # not all of them
    assert len(page(made)) < 600_000


def test_the_data_of_the_script_are_those_of_the_profile(profile: MakeProfile) -> None:
    made = profile()
    data = Parsed(page(made)).data()
    assert data["x"] == pytest.approx([moment["seconds"] / 10 for moment in made["timeline"]])
    assert data["curves"]["window_bytes"] == [moment["window_bytes"] for moment in made["timeline"]]
    assert data["most"]["budget"] == 400_000_000 and data["tops"]["budget"] >= 400_000_000


@pytest.mark.parametrize(("moments", "measured"), [(0, True), (1, True), (2, False), (2000, True), (2000, False)])
def test_any_number_of_moments_measured_or_not(profile: MakeProfile, moments: int, measured: bool) -> None:
    text = page(profile(moments, measured=measured))
    parsed = Parsed(text)
    assert "nan" not in text.replace("nance", "").lower() and "None" not in parsed.text()
    assert ("not measured" in parsed.text()) == (not measured)
    assert len([path for path in parsed.all("path") if path["d"]]) == (5 if measured and moments else 0)


def test_a_missing_value_breaks_the_line_and_what_stands_alone_is_a_dot(profile: MakeProfile) -> None:
    made = profile(5)
    for i in (1, 3):
        made["timeline"][i]["resident_bytes"] = None
    first = Parsed(page(made)).all("path")[0]["d"]
    assert first is not None and first.count("M") == 3 and first.count("h0") == 3


def test_a_report_of_a_fit_without_a_timeline_is_a_page_too(profile: MakeProfile) -> None:
    made = profile()
    for key in ("timeline", "stages", "advice", "data", "target"):
        del made[key]
    parsed = Parsed(page(made))
    assert "No timeline was recorded." in parsed.text() and "The budget holds" in parsed.text()


def test_nothing_is_fetched(profile: MakeProfile) -> None:
    parsed = Parsed(page(profile()))
    links = [value for _, attributes in parsed.elements for key, value in attributes.items() if key in ("src", "href")]
    assert links == ["data:,"]
    style = "".join(text for tag, text in parsed.texts if tag == "style")
    assert "url(" not in style and "@import" not in style


def policy(parsed: Parsed) -> str:
    (found,) = [str(m["content"]) for m in parsed.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    return found


def test_the_policy_allows_the_style_and_the_script_of_the_page_and_nothing_else(profile: MakeProfile) -> None:
    parsed = Parsed(page(profile()))
    rules = dict(rule.strip().split(" ", 1) for rule in policy(parsed).split(";"))
    assert rules["default-src"] == "'none'" and "unsafe" not in policy(parsed)
    for tag in ("style", "script"):
        text = [text for name, text in parsed.texts if name == tag][-1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    assert not [
        key for _, attributes in parsed.elements for key in attributes if key == "style" or key.startswith("on")
    ]


def test_no_text_breaks_out_of_its_place(hostile: dict[str, Any], harmless: dict[str, Any]) -> None:
    parsed, usual = Parsed(page(hostile)), Parsed(page(harmless))
    shapes = [
        [
            (tag, list(attributes))
            for tag, attributes in found.elements
            if tag not in ("tr", "th", "td", "dt", "dd", "div")
        ]
        for found in (parsed, usual)
    ]
    assert shapes[0] == shapes[1]
    assert (
        parsed.comments == []
        and len(parsed.all("script")) == len(usual.all("script"))
        and len(parsed.all("style")) == 1
    )
    assert policy(parsed).split("script-src")[1] == policy(usual).split("script-src")[1]  # the script is the same
    assert parsed.data(2)["moments"][60].split(": ", 1)[1].startswith(printable(hostile["timeline"][60]["stage"])[:10])


def test_hostile_texts_are_shown_as_they_are(hostile: dict[str, Any]) -> None:
    shown = Parsed(page(hostile)).text().split("\n")
    for text in hostile["warnings"]:
        assert printable(text) in shown


def test_the_page_is_written_as_utf8_whatever_it_names(hostile: dict[str, Any]) -> None:
    text = page(hostile)
    assert text.encode("utf-8").decode("utf-8") == text
    assert not re.search("[\x00-\x09\x0b-\x1f\u2028\u2029\u202e\ufeff]", text)


def test_data_between_script_tags_hold_no_sign_that_could_end_them(hostile: dict[str, Any]) -> None:
    for part in page(hostile).split('"application/json">')[1:]:
        between = part.split("</script>")[0]
        assert not set("<>&\u2028\u2029") & set(between)
        json.loads(between)
