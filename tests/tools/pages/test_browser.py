"""The page in a real browser: it answers to pointer and keyboard, runs nothing that it was fed, and fetches nothing.

Debian's ``chromium``, headless, driven by playwright (whose own browsers are not used: nothing is downloaded). Skipped
where there is no browser; with STREAMTRAIN_BROWSER, the path of one, it must be there.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from streamtrain.memory.sizes import format_bytes
from streamtrain.tools.pages.memory import LIMITS, SERIES
from streamtrain.tools.pages.page import page as make_page

MakeProfile = Callable[..., dict[str, Any]]

NAMES = ("chromium", "chromium-browser", "google-chrome")
MOST_MS = 20_000
KEYS = [line.key for line in SERIES]
WIDE, NARROW = {"width": 1100, "height": 900}, {"width": 320, "height": 700}

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = os.environ.get("STREAMTRAIN_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no browser: apt-get install chromium, or name one in STREAMTRAIN_BROWSER")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, timeout=60_000)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Opens a page from a file. At the end: nothing was said on the console, nothing failed, and nothing was fetched (what
    the page's policy stopped is no request; attacks are not quiet)."""
    contexts: list[BrowserContext] = []
    said: list[str] = []
    fetched: list[str] = []
    stopped: list[str] = []
    path = tmp_path / "page.html"

    def open_(html: str, *, quiet: bool = True, **options: Any) -> Page:
        path.write_text(html, encoding="utf-8")
        context = browser.new_context(viewport=options.pop("viewport", WIDE), offline=True, **options)
        contexts.append(context)
        context.set_default_timeout(MOST_MS)
        page = context.new_page()
        if quiet:
            page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: fetched.append(request.url))
        page.on("requestfailed", lambda request: stopped.append(request.url) if request.failure == "csp" else None)
        page.goto(path.as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert said == []
    assert contexts and set(fetched) - set(stopped) - {"data:,"} == {path.as_uri()}


def values(page: Page) -> dict[str, str]:
    """What the legend reads, by line."""
    return {key: page.locator(f"[data-value={key}]").inner_text() for key in KEYS}


def expected(moment: dict[str, Any]) -> dict[str, str]:
    return {key: "not measured" if moment[key] is None else format_bytes(moment[key]) for key in KEYS}


def point_at(page: Page, seconds: float, span: float, dy: float = 0.5) -> None:
    box = page.locator(".frame").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * seconds / span, box["y"] + box["height"] * dy)


def box(page: Page, selector: str) -> dict[str, float]:
    """Where something is drawn, in pixels of the window."""
    found: dict[str, float] = page.locator(selector).first.evaluate("e => e.getBoundingClientRect().toJSON()")
    return found


def height_of(page: Page, size: float, top: float) -> float:
    """Where a size is on an axis that ends at top, in pixels of the window."""
    frame = box(page, ".frame")
    return frame["bottom"] - frame["height"] * size / top


def test_it_starts_at_the_peak(profile: MakeProfile, open_page: Open) -> None:
    made = profile()
    peak = max(made["timeline"], key=lambda moment: moment["resident_bytes"])
    page = open_page(make_page(made))
    assert (
        page.locator(".moment").inner_text()
        == f"{peak['seconds']:.3g} s: train, {peak['rows']:,} rows learned (the peak)"
    )
    assert values(page) == expected(peak)
    assert page.title() == "Memory profile of clicks/*.parquet"


@pytest.mark.parametrize("i", [0, 60, *(pytest.param(i, marks=pytest.mark.slow) for i in (3, 20, 100))])
def test_the_pointer_reads_the_nearest_moment(profile: MakeProfile, open_page: Open, i: int) -> None:
    made = profile()
    moment = made["timeline"][i]
    page = open_page(make_page(made))
    point_at(page, min(10, max(0, moment["seconds"] + 0.03)), 10)  # nearer to this one than to the next
    assert (
        page.locator(".moment")
        .inner_text()
        .startswith(f"{moment['seconds']:.3g} s: {moment['stage']}, {moment['rows']:,} rows")
    )
    assert values(page) == expected(moment)


@pytest.mark.slow
def test_the_marks_are_where_the_values_are(profile: MakeProfile, open_page: Open) -> None:
    made = profile()
    page = open_page(make_page(made))
    point_at(page, 5, 10)
    moment, frame = made["timeline"][50], box(page, ".frame")
    top = 400_000_000 * 1.06
    for key in KEYS:
        mark = box(page, f"circle[data-line={key}]")
        assert (mark["left"] + mark["right"]) / 2 == pytest.approx(frame["left"] + frame["width"] / 2, abs=2)
        assert (mark["top"] + mark["bottom"]) / 2 == pytest.approx(height_of(page, moment[key], top), abs=1.5)
        # and the curve reaches as high as its most
        most = max(moment[key] for moment in made["timeline"])
        assert box(page, f"[data-curve={key}]")["top"] == pytest.approx(height_of(page, most, top), abs=3)


@pytest.mark.slow
def test_the_keyboard_reads_every_moment(profile: MakeProfile, open_page: Open) -> None:
    made = profile()
    page = open_page(make_page(made))
    page.keyboard.press("Tab")
    frame = page.locator(".frame")
    assert frame.evaluate("frame => frame === document.activeElement")
    assert (frame.get_attribute("role"), frame.get_attribute("aria-valuemax")) == ("slider", "100")

    def press(key: str) -> int:
        page.keyboard.press(key)
        chosen = int(frame.get_attribute("aria-valuenow") or -1)
        assert values(page) == expected(made["timeline"][chosen])
        spoken = frame.get_attribute("aria-valuetext") or ""
        assert spoken.startswith(page.locator(".moment").inner_text())
        assert f"windows {format_bytes(made['timeline'][chosen]['window_bytes'])}" in spoken
        return chosen

    peak = int(frame.get_attribute("aria-valuenow") or -1)
    assert [press(key) for key in ("Home", "ArrowLeft", "ArrowRight", "ArrowUp", "PageUp", "ArrowDown", "PageDown")] == [
        0, 0, 1, 2, 12, 11, 1,
    ]  # fmt: skip
    assert [press(key) for key in ("End", "ArrowRight", "Escape")] == [100, 100, peak]
    page.keyboard.press("Control+ArrowRight")
    assert int(frame.get_attribute("aria-valuenow") or -1) == peak


def axis(page: Page) -> str:
    """Which line's axis is shown: it must be one."""
    shown = page.locator("[data-axis]:not([display=none])").evaluate_all("all => all.map(axis => axis.dataset.axis)")
    (found,) = shown
    return str(found)


@pytest.mark.slow
def test_the_legend_switches_lines_and_the_axis_follows(profile: MakeProfile, open_page: Open) -> None:
    made = profile()
    page = open_page(make_page(made))
    assert axis(page) == "budget"
    for key in ("budget", "planned", "resident_bytes", "anonymous_bytes"):
        page.locator(f"[data-toggles={key}]").uncheck()
    assert axis(page) == "window_bytes"
    for key in (*KEYS, "planned", "budget"):
        shown = page.locator(f".plot :is([data-curve={key}], [data-limit={key}])").evaluate(
            "e => e.getClientRects().length > 0"
        )
        assert shown == (key in ("arrow_bytes", "window_bytes", "reading_bytes"))
    most = max(moment["window_bytes"] for moment in made["timeline"])
    curve = box(page, "[data-curve=window_bytes]")
    assert curve["top"] == pytest.approx(height_of(page, most, 1.06 * most), abs=3)
    assert curve["bottom"] == pytest.approx(box(page, ".frame")["bottom"], abs=3)
    assert page.locator("[data-axis=window_bytes] text").all_text_contents()[-1] == "80 MB"
    assert "resident" not in (page.locator(".frame").get_attribute("aria-valuetext") or "")


def test_the_legend_answers_to_the_keyboard(profile: MakeProfile, open_page: Open) -> None:
    page = open_page(make_page(profile()))
    toggle = page.locator("[data-toggles=budget]")
    toggle.focus()
    page.keyboard.press("Space")
    assert not toggle.is_checked() and axis(page) == "planned"
    assert not page.locator("[data-limit=budget]").is_visible()
    page.keyboard.press("Space")
    assert toggle.is_checked() and axis(page) == "budget"
    page.get_by_label("windows", exact=True).click()
    assert not page.locator("[data-curve=window_bytes]").is_visible()


@pytest.mark.slow
def test_with_every_line_switched_off_the_page_still_answers(profile: MakeProfile, open_page: Open) -> None:
    page = open_page(make_page(profile()))
    for toggle in page.locator("[data-toggles]").all():
        toggle.uncheck()
    point_at(page, 0, 10)
    assert page.locator(".moment").inner_text().startswith("0 s: open")
    page.locator("[data-toggles=reading_bytes]").check()
    assert axis(page) == "reading_bytes"


def test_a_budget_far_above_is_named_and_can_be_shown(profile: MakeProfile, open_page: Open) -> None:
    page = open_page(make_page(profile(budget_bytes=12_000_000_000)))
    far = page.get_by_text("↑ budget 12 GB")
    assert far.is_visible() and axis(page) == "planned" and not page.locator("[data-limit=budget]").is_visible()
    page.locator("[data-toggles=budget]").check()
    assert not far.is_visible() and axis(page) == "budget" and page.locator("[data-limit=budget]").is_visible()
    assert box(page, "[data-limit=budget] line")["top"] == pytest.approx(height_of(page, 1, 1.06), abs=2)


@pytest.mark.parametrize("moments", [0, 2000, *(pytest.param(moments, marks=pytest.mark.slow) for moments in (1, 2))])
@pytest.mark.parametrize("measured", [True, False])
def test_any_number_of_moments_measured_or_not(
    profile: MakeProfile, open_page: Open, moments: int, measured: bool
) -> None:
    made = profile(moments, measured=measured)
    page = open_page(make_page(made))
    if moments:
        for share in (0, 0.4, 1):
            point_at(page, share, 1)
        page.locator(".frame").press("End")
        assert values(page) == expected(made["timeline"][-1])
        assert page.locator("circle:not([display=none])").count() == (5 if measured else 0)
    assert page.locator(".verdict").is_visible()


def test_a_moment_without_values_has_no_marks(profile: MakeProfile, open_page: Open) -> None:
    made = profile()
    made["timeline"][7] = made["timeline"][7] | {"resident_bytes": None, "arrow_bytes": None, "rows": None}
    page = open_page(make_page(made))
    point_at(page, 0.7, 10)
    assert values(page) == expected(made["timeline"][7])
    assert page.locator(".moment").inner_text() == "0.7 s: target"
    assert page.locator("circle:not([display=none])").count() == 3


def test_hostile_names_run_nothing_and_are_shown(hostile: dict[str, Any], open_page: Open) -> None:
    page = open_page(make_page(hostile))
    memory = page.locator(".chart", has_text="resident")
    for share in (0.2, 0.9):
        point_at(page, share, 1)
    memory.locator(".frame").press("End")
    assert memory.locator(".moment").inner_text().startswith("10 s: <script>window.broken = 1</script>")
    assert page.evaluate("window.broken") is None
    counts = page.evaluate(
        "[document.scripts.length, document.images.length, document.querySelectorAll('[onload]').length]"
    )
    assert counts == [4, 0, 0]
    shown = page.locator(".warnings li").all_inner_texts()
    assert shown[0] == "<script>window.broken = 1</script>" and len(shown) == len(hostile["warnings"])
    assert page.locator("main > section").count() == 11


@pytest.mark.parametrize("place", ["</main>", "</head>", "</script>"])
def test_the_policy_stops_a_script_that_came_in(profile: MakeProfile, open_page: Open, place: str) -> None:
    attack = (
        "<script>window.broken = 1</script><img src=x onerror='window.broken = 1'>"
        "<svg onload='window.broken = 1'></svg><img src='https://example.invalid/x.png'>"
        "<style>.verdict { display: none }</style>"
    )
    page = open_page(make_page(profile()).replace(place, place + attack, 1), quiet=False)
    assert page.evaluate("window.broken") is None
    assert page.locator(".verdict").is_visible()
    assert page.locator("img").count() == 2  # they are there, and did nothing


def test_without_javascript_picture_and_tables_stand(profile: MakeProfile, open_page: Open) -> None:
    page = open_page(make_page(profile()), java_script_enabled=False)
    for key in KEYS:
        assert box(page, f"[data-curve={key}]")["height"] > 10 or key == "reading_bytes"
    assert page.get_by_text("budget 400 MB", exact=True).is_visible()
    cells = page.locator(".legend tbody tr").first.inner_text().split("\t")
    assert [cell.strip() for cell in cells] == [
        "resident",
        "230 MB",
        "all memory of the process: what the budget bounds",
    ]
    assert page.locator(".then").bounding_box() is None and not page.locator(".cursor").is_visible()
    page.get_by_text("The picture as a table").click()
    assert page.get_by_role("row", name=re.compile(r"^5 s train 30,000 .* 83\.8 MB 40 MB$")).is_visible() is False
    page.locator("[data-toggles=windows_bytes], [data-toggles=window_bytes]").uncheck()
    assert not page.locator("[data-curve=window_bytes]").is_visible()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(profile: MakeProfile, open_page: Open, scheme: str) -> None:
    page = open_page(make_page(profile()), color_scheme=scheme)
    ground, text = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    bright = [sum(map(int, re.findall(r"\d+", colour)[:3])) > 384 for colour in (ground, text)]
    assert bright == ([True, False] if scheme == "light" else [False, True])
    for line in (*SERIES, *LIMITS):
        stroke = page.locator(f".plot [data-line={line.key}] :is(path, line)").first.evaluate(
            "e => getComputedStyle(e).stroke"
        )
        wanted = line.light if scheme == "light" else line.dark
        assert [int(part) for part in re.findall(r"\d+", stroke)] == [int(wanted[i : i + 2], 16) for i in (1, 3, 5)]


@pytest.mark.parametrize("hostile_names", [False, True])
def test_a_narrow_screen_shows_all_of_it(
    profile: MakeProfile, hostile: dict[str, Any], open_page: Open, hostile_names: bool
) -> None:
    page = open_page(make_page(hostile if hostile_names else profile()), viewport=NARROW)
    page.locator("details").evaluate_all("all => { for (const one of all) one.open = true }")
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    labels = page.locator(".plot .axis:not([display=none]) text, .plot .limit text")
    for left, right in labels.evaluate_all(
        "all => all.map(e => e.getBoundingClientRect()).map(b => [b.left, b.right])"
    ):
        assert left >= 0 and right <= NARROW["width"]


def test_labels_of_the_time_axis_do_not_overlap(profile: MakeProfile, open_page: Open) -> None:
    for viewport in (WIDE, NARROW):
        made = profile(8)
        made["timeline"] = [
            entry | {"seconds": i / 20} for i, entry in enumerate(made["timeline"])
        ]  # 0.05 s, 0.1 s, ...
        page = open_page(make_page(made), viewport=viewport)
        places = page.locator("text.tick").evaluate_all(
            "all => all.map(e => e.getBoundingClientRect()).filter(b => b.width).map(b => [b.left, b.right])"
        )
        assert len(places) >= 3
        assert all(a[1] + 4 < b[0] for a, b in pairwise(places))


def test_it_prints(profile: MakeProfile, open_page: Open) -> None:
    page = open_page(make_page(profile()), color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("[data-toggles=budget]").is_visible()
    assert page.pdf().startswith(b"%PDF")


def test_charts_answer_each_for_itself_also_one_that_was_folded(profile: MakeProfile, open_page: Open) -> None:
    scores = [{"loss": 0.6 - i / 50, "accuracy": 0.7 + i / 50} for i in range(5)]
    lines = [
        {"epoch": i // 3, "rows_seen": 1000 * 2**i, "seconds": i, "progressive": own} for i, own in enumerate(scores)
    ]
    page = open_page(make_page(profile() | {"lines": lines}))
    loss, accuracy = (page.locator(".chart", has_text=f"{name}, over the rows") for name in ("loss", "accuracy"))
    assert loss.locator(".moment").inner_text() == "16,000 rows learned: epoch 2, 4 s"
    page.get_by_text("accuracy", exact=True).last.click()
    accuracy.locator(".frame").press("Home")
    accuracy.locator(".frame").press("ArrowRight")
    box = accuracy.locator("[data-curve=progressive]").bounding_box()
    assert box is not None and box["height"] > 100
    assert accuracy.locator(".moment").inner_text() == "2,000 rows learned: epoch 1, 1 s"
    assert accuracy.locator("[data-value=progressive]").inner_text() == "0.7200"
    assert loss.locator("[data-value=progressive]").inner_text() == "0.5200"
    assert values(page) == expected(max(profile()["timeline"], key=lambda entry: entry["resident_bytes"]))
