"""Schemes of packages that are installed, and of packages that are broken."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import streamtrain
from streamtrain.errors import DataError, NotFoundError, UsageError

GOOD = """
    import streamtrain

    def open_it(url):
        return streamtrain.open_reader({"x": [1.0, 2.0, 3.0], "y": [0, 1, 1], "where": [url] * 3})
"""


def install(root: Path, package: str, code: str, points: str | None = None) -> None:
    """A package with a module of its name, as pip leaves it in a folder of the path."""
    module = package.replace("-", "_")
    (root / f"{module}.py").write_text(textwrap.dedent(code))
    info = root / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    points = f"{package} = {module}:open_it\n" if points is None else points
    (info / "entry_points.txt").write_text(f"[streamtrain.readers]\n{points}")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def test_a_package_provides_a_scheme(site: Path) -> None:
    install(site, "shelf", GOOD)
    reader = streamtrain.open_reader("shelf://a/b?c=d")
    assert reader.read(reader.chunks()[0], ["where"]).column(0).to_pylist() == ["shelf://a/b?c=d"] * 3


def test_it_works_on_the_command_line(site: Path) -> None:
    install(site, "shelf", GOOD)
    arguments = ["fit", "shelf://x", "--target", "y", "--exclude", "where", "--json"]
    code = f"import sys; sys.path.insert(0, {str(site)!r}); from streamtrain.cli import main; main({arguments!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert '"rows_seen": 3' in done.stdout


BROKEN = {
    "import-error": "import no_such_module",
    "syntax-error": "def",
    "exits": "raise SystemExit(0)",
    "own-exit": "class Stop(BaseException): pass\nraise Stop('and not again')",
    "nothing-there": "x = 1",
    "no-function": "open_it = 3",
    "opener-raises": "def open_it(url): raise ZeroDivisionError('by nothing')",
    "opener-exits": "import sys\ndef open_it(url): sys.exit('goodbye')",
    "no-reader": "def open_it(url): return [1, 2]",
    "half-reader": "class open_it:\n    def __init__(self, url): pass\n    schema = read = chunks = None",
    "property-raises": "class open_it:\n    def __init__(self, url): pass\n    schema = property(lambda self: 1 / 0)",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_package_is_named_when_it_is_asked_for_and_only_then(site: Path, name: str) -> None:
    for each, code in BROKEN.items():
        install(site, each, code)
    install(site, "shelf", GOOD)
    assert len(streamtrain.open_reader("shelf://x").chunks()) == 1
    with pytest.raises(DataError) as caught:
        streamtrain.open_reader(f"{name}://somebody:secret@host/x")
    said = str(caught.value)
    assert f"{name} ({name.replace('-', '_')}:open_it)" in said and "\n" not in said and "secret" not in said


def test_what_is_installed_is_not_imported_with_streamtrain(site: Path) -> None:
    install(site, "shelf", "raise SystemExit(3)")
    code = f"import sys; sys.path.insert(0, {str(site)!r}); import streamtrain; streamtrain.open_reader"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ctrl_c_while_a_package_is_loaded_is_ctrl_c(site: Path) -> None:
    install(site, "shelf", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        streamtrain.open_reader("shelf://x")


def test_metadata_that_are_broken_concern_their_package_only(site: Path) -> None:
    install(site, "garbage", "", points="this is no entry point\n[[[\n= =\n")
    (site / "empty-1.0.dist-info").mkdir()
    install(site, "shelf", GOOD)
    assert len(streamtrain.open_reader("shelf://x").chunks()) == 1
    with pytest.raises(NotFoundError, match=r"no reader for garbage:// \(installed: .*shelf"):
        streamtrain.open_reader("garbage://x")


def test_two_packages_with_one_scheme_are_refused_by_name(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "shelf", GOOD)
    install(site, "rack", GOOD, points="shelf = rack:open_it\n")
    with pytest.raises(DataError, match=r"2 packages provide shelf://: .*shelf \(shelf:open_it\)") as caught:
        streamtrain.open_reader("shelf://x")
    assert "rack (rack:open_it)" in str(caught.value)
    # one package that is on the path twice is no conflict
    again = site / "again"
    again.mkdir()
    install(again, "tray", GOOD)
    install(site, "tray", GOOD)
    monkeypatch.syspath_prepend(again)
    assert len(streamtrain.open_reader("tray://x").chunks()) == 1


def test_a_scheme_of_this_process_goes_first() -> None:
    streamtrain.register_scheme("here", lambda url: streamtrain.open_reader({"x": [1.0]}))
    assert len(streamtrain.open_reader("here://x").chunks()) == 1
    streamtrain.register_scheme("here", lambda url: url)  # type: ignore[arg-type, return-value]
    with pytest.raises(
        DataError, match="registered for here:// returned a str, which is not a reader: it has no schema"
    ):
        streamtrain.open_reader("here://x")
    with pytest.raises(UsageError, match="is not a valid scheme"):
        streamtrain.register_scheme("here://", streamtrain.open_reader)
    with pytest.raises(UsageError, match="the opener is of type int"):
        streamtrain.register_scheme("here", 3)  # type: ignore[arg-type]
