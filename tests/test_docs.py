"""docs/command-line.md against the commands themselves: every flag as ``--help`` has it, every key of their JSON.

``scripts/write-settings`` writes the tables of flags anew, from the declarations of the settings.
"""

from __future__ import annotations

import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from make import CommandLine
from typer.testing import CliRunner

import streamtrain
from streamtrain.cli.commands import app
from streamtrain.columns.settings import ROLES
from streamtrain.learn import LOSSES, OPTIMIZERS, SCHEDULES
from streamtrain.prepare import INFINITIES, Preparation, Shape

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/command-line.md"
DIGITS = str(ROOT / "data/digits.parquet")
COMMANDS: dict[str, Any] = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
_TABLE = re.compile(r"^\| flag .*\n(?:\|.*\n)+", re.MULTILINE)
_JSON = re.compile(r"^```json\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def sections() -> dict[str, str]:
    """The text under each heading of the second level."""
    parts = re.split(r"^## (.*)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def shape(value: Any) -> Any:
    """The keys of an object and of the objects in it; of a list, those of its first entry; otherwise None."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return shape(value[0]) if isinstance(value, list) and value and isinstance(value[0], dict) else None


def test_the_path_of_the_data_names_every_module() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", readme.partition("## The path of the data")[2], re.MULTILINE)
    named = sorted(re.findall(r"`(\w+)`", " ".join(rows)))
    modules = [m.name for m in pkgutil.iter_modules(streamtrain.__path__) if not m.name.startswith("_")]
    assert named == sorted(modules)


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("linear.md", [*LOSSES, *OPTIMIZERS, *SCHEDULES]),
        ("preparation.md", [*ROLES, *INFINITIES, *Preparation(Shape(("x",))).as_dict()]),
    ],
)
def test_every_choice_is_explained(page: str, names: list[str]) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert [name for name in names if f"`{name}`" not in text and f" {name}`" not in text] == []


def test_every_command_has_its_section() -> None:
    assert [name for name in sections() if name in COMMANDS] == list(COMMANDS)


def test_what_is_written_from_the_settings_is_what_they_say(tmp_path: Path) -> None:
    """The parameters of `fit`, `make_plan` and `profile`, and the tables of flags."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/write-settings"), "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_table_of_flags(name: str) -> None:
    assert len(_TABLE.findall(sections()[name])) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_flag_that_is_documented(name: str) -> None:
    printed = CliRunner().invoke(app, [name, "--help"]).output
    flags = re.findall(r"`(--[a-z0-9-]+)`", "".join(_TABLE.findall(sections()[name])))
    assert flags
    assert [flag for flag in flags if flag not in printed] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("commands")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("inspect", [DIGITS, "--target", "digit"]),
        ("plan", [DIGITS, "--target", "digit"]),
        ("fit", [DIGITS, "--target", "digit", "--holdout", "0.2", "--validate", DIGITS, "--out", "run"]),
        ("profile", [DIGITS, "--target", "digit"]),
        ("evaluate", ["run", DIGITS]),
        ("predict", ["run", DIGITS, "--out", "p.parquet"]),
        ("make", ["clicks", "--rows", "1000", "--out", "clicks"]),
        ("rechunk", [DIGITS, "--out", "rechunked", "--chunk-rows", "500"]),
        ("check-reader", [DIGITS]),
        ("runs", ["run"]),
        ("report", ["run", "--out", "run.html"]),
    ],
)
def test_json_has_the_keys_that_are_documented(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, arguments: list[str]
) -> None:
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(app, [name, *arguments, "--json"])
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    (documented,) = _JSON.findall(sections()[name])
    if name == "profile":  # those of fit, and its own
        (of_fit,) = _JSON.findall(sections()["fit"])
        assert printed.keys() == (json.loads(of_fit) | json.loads(documented)).keys()
        printed = {key: printed[key] for key in json.loads(documented)}
    assert shape(printed) == shape(json.loads(documented))


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (0, ["plan", DIGITS, "--target", "digit"]),
        (2, ["plan", DIGITS, "--target", "no such column"]),
        (2, ["plan", DIGITS, "--no-such-flag"]),
        (3, ["plan", DIGITS, "--target", "digit", "--memory", "20MB"]),
    ],
)
def test_exit_codes_are_those_documented(code: int, arguments: list[str], cli: CommandLine) -> None:
    assert cli(*arguments).code == code
    assert f"| {code} |" in sections()["Exit codes"]
