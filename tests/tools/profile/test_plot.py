"""The picture in a file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import matplotlib.image
import pytest

from streamtrain.errors import UsageError
from streamtrain.tools.pages.memory import LIMITS, SERIES
from streamtrain.tools.pages.output_file import written
from streamtrain.tools.profile.plot import plot, require_plot

MakeProfile = Callable[..., dict[str, Any]]
BEGINNINGS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.mark.parametrize("ending", ["png", "svg", "pdf", "PNG"])
def test_each_format(profile: MakeProfile, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"memory.{ending}"
    plot(profile(), path)
    assert path.read_bytes().startswith(BEGINNINGS[ending.lower()])


def where(image: Any, colour: str) -> Any:
    """The rows of pixels that hold a colour, in shares of the height, from the top."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    near = abs(image[..., :3] * 255 - wanted).max(axis=-1) < 3
    assert near.sum() > 50
    return near.any(axis=1).nonzero()[0] / len(image)


def test_an_image_shows_the_lines_in_their_colours_and_is_filled(profile: MakeProfile, tmp_path: Path) -> None:
    path = tmp_path / "memory.png"
    plot(profile(), str(path))
    image = matplotlib.image.imread(path)
    assert image.shape[1] >= 1000
    budget, windows = where(image, LIMITS[1].light), where(image, SERIES[3].light)
    assert budget.max() < 0.2 and 0.55 < windows.max() < 0.7 and windows.min() > 0.3
    assert where(image, SERIES[0].light).min() > budget.min()


def svg_comments(path: Path) -> list[str]:
    """What an SVG of matplotlib says in words: letters are drawn, and the text stands beside them as a comment."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    tree = ElementTree.parse(path, parser)
    return [str(node.text).strip() for node in tree.iter() if node.tag is ElementTree.Comment]


def test_what_the_picture_says(profile: MakeProfile, tmp_path: Path) -> None:
    path = tmp_path / "memory.svg"
    plot(profile(budget_bytes=40_000_000_000), path)
    said = svg_comments(path)
    for text in ("resident", "Arrow pool", "train", "planned peak 273 MB", "↑ budget 40 GB", "windows",
                 "90 MB measured, 100 MB planned", "200 MB", "4 s"):  # fmt: skip
        assert text in said


@pytest.mark.parametrize("moments", [0, 1, 2000])
@pytest.mark.parametrize("measured", [True, False])
def test_any_number_of_moments_measured_or_not(
    profile: MakeProfile, tmp_path: Path, moments: int, measured: bool
) -> None:
    path = tmp_path / "memory.svg"
    plot(profile(moments, measured=measured), path)
    said = svg_comments(path)
    assert ("resident" in said) == (measured and moments > 0)
    assert ("not measured, 100 MB planned" in said) == (not measured)


def test_a_value_that_stands_alone_does_not_move_the_picture(profile: MakeProfile, tmp_path: Path) -> None:
    made = profile(9)
    for entry in made["timeline"][::2]:
        entry["resident_bytes"] = None
    plot(made, tmp_path / "memory.png")
    assert (tmp_path / "memory.png").stat().st_size > 10_000


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_names_are_not_read_as_mathematics_or_markup(hostile: dict[str, Any], tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"memory.{ending}"
    plot(hostile, path)
    if ending == "svg":
        ElementTree.parse(path)
        assert not [node for node in ElementTree.parse(path).iter() if str(node.tag).endswith(("script", "image"))]


def test_dollars_are_shown(profile: MakeProfile, tmp_path: Path) -> None:
    plot(profile() | {"data": "$a$", "target": r"$\frac{1$"}, tmp_path / "memory.svg")
    said = svg_comments(tmp_path / "memory.svg")
    assert "Memory profile of $a$" in said and r"target $\frac{1$" in said


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("memory.bmp", r"memory\.bmp: must end in \.png, \.svg or \.pdf"),
        ("memory", r"memory: must end in"),
        ("nowhere/memory.png", r"nowhere/memory\.png: the folder .*nowhere does not exist: create it"),
        ("folder.png", r"folder\.png: exists and is not a file: name another"),
        ("file.txt/memory.png", r"does not exist"),
        ("a" * 300 + ".png", r"a\.png: cannot be written: File name too long"),
        ("", r"must end in \.png"),
        ("two\nlines.bmp", r"two\\nlines\.bmp: must end in"),
    ],
)
def test_a_place_where_no_picture_can_be(profile: MakeProfile, tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file.txt").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=message):
        plot(profile(), tmp_path / name)
    with pytest.raises(UsageError, match=message):
        require_plot(tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before


def test_without_matplotlib_it_says_what_to_install(
    profile: MakeProfile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r'pip install "streamtrain\[plot\]"'):
        plot(profile(), tmp_path / "memory.png")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_nothing_is_said(profile: MakeProfile, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    place = tmp_path / "full.png"
    place.write_text("of yesterday")

    def write() -> None:
        with written(place) as beside:
            beside.symlink_to("/dev/full")
            beside.write_text("of today")

    with pytest.raises(UsageError, match=r"full\.png: cannot be written: No space left"):
        write()
    assert place.read_text() == "of yesterday" and list(tmp_path.iterdir()) == [place]
    (tmp_path / "device.png").symlink_to("/dev/full")
    with pytest.raises(UsageError, match=r"device\.png: exists and is not a file"):
        plot(profile(), tmp_path / "device.png")


def test_nothing_is_written_among_the_data(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(UsageError, match=r"part\.png: is inside the data"):
        require_plot(tmp_path / "data/part.png", tmp_path / "data")
    require_plot(tmp_path / "part.png", tmp_path / "data")


def test_the_settings_of_matplotlib_are_left_alone_and_do_not_matter(profile: MakeProfile, tmp_path: Path) -> None:
    settings: Any = {f"{of}.facecolor": "black" for of in ("axes", "figure", "savefig")} | {"text.usetex": True}
    with matplotlib.rc_context(settings):
        before = dict(matplotlib.rcParams)
        plot(profile(), tmp_path / "memory.png")
        assert dict(matplotlib.rcParams) == before
    image = matplotlib.image.imread(tmp_path / "memory.png")
    assert (image[..., :3].min(axis=-1) > 0.9).mean() > 0.85


def test_matplotlib_is_imported_on_demand_and_pyplot_never(tmp_path: Path) -> None:
    code = """
import sys
from streamtrain.tools.pages.page import page
from streamtrain.tools.profile.plot import plot
memory = {"budget_bytes": 512, "planned_peak_bytes": 300, "measured_peak_bytes": 256, "terms": {}}
page({"memory": memory})
assert "matplotlib" not in sys.modules
plot({"memory": memory}, sys.argv[1])
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path / "memory.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
