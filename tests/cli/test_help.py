"""``--help``: quick, in groups, with every choice; and what a shell completes."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer.main
from make import CommandLine, run_python, run_streamtrain

from streamtrain.cli.commands import app
from streamtrain.options import GROUPS, options_of
from streamtrain.train.settings import RunSettings, Settings

COMMANDS: dict[str, Any] = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


HELPS = """
import sys
from streamtrain.cli import main
for name in sys.argv[1:]:
    try:
        main([*filter(None, [name]), "--help"])
    except SystemExit as leaving:
        assert not leaving.code, name
    heavy = {"numpy", "pyarrow", "dask", "zarr", "rich", "pydantic"} & {*sys.modules}
    assert not heavy, (name, heavy)
"""


def test_help_imports_nothing_that_it_does_not_need() -> None:
    """In one process for all commands, which stops at the first that imports something."""
    done = run_python("-c", HELPS, "", *COMMANDS)
    assert done.code == 0, done.err
    assert done.out.count("Usage: streamtrain") == 1 + len(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_h_is_help(name: str, cli: CommandLine) -> None:
    assert "-h, --help" in cli(name, "-h").out and cli(name, "-h").out == cli(name, "--help").out


def test_the_list_of_commands_is_whole_and_arguments_are_plain(cli: CommandLine) -> None:
    assert "..." not in cli("--help").out.partition("Commands:")[2]
    assert cli("runs", "--help").out.startswith("Usage: streamtrain runs [OPTIONS] DIR...\n")
    for name in COMMANDS:
        text = cli(name, "--help").out
        assert not re.search(r"<(str|list)|\{[A-Z]|\S \[default", text), text


def test_fit_shows_its_options_in_groups_and_an_example(cli: CommandLine) -> None:
    text = cli("fit", "--help").out
    headings = re.findall(r"^([A-Z].*):$", text, re.MULTILINE)
    assert headings == ["Arguments", *(f"{group[0].upper()}{group[1:]}" for group in GROUPS), "Options", "Output"]
    assert text.startswith("Usage: streamtrain fit ") and text.rstrip().endswith("--resume")
    assert "[raise|skip]" in text and "[normalized|sgd|" in text
    for name, (_, option) in (options_of(Settings) | options_of(RunSettings)).items():
        group = text.partition(f"{option.group[0].upper()}{option.group[1:]}:\n")[2].partition("\n\n")[0]
        assert (option.flag or f"--{name.replace('_', '-')}").partition("/")[0] in group, name


def test_a_shell_completes_commands_flags_and_choices() -> None:
    def completed(words: str) -> str:
        words = f"streamtrain {words}"
        asked = {"_STREAMTRAIN_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        return run_streamtrain(**asked).out.strip()

    assert completed("pre") == "predict"
    assert "--learning-rate-schedule" in completed("fit --learning")
    assert completed("fit --optimizer a").split() == ["adagrad", "adam"]


@pytest.mark.parametrize("name", ["fit", "plan", "profile"])
def test_the_command_line_has_a_flag_for_every_setting(name: str) -> None:
    flags = {opt for parameter in COMMANDS[name].params for opt in parameter.opts}
    kinds = (Settings, RunSettings) if name == "fit" else (Settings,)
    for kind in kinds:
        for setting, (_, option) in options_of(kind).items():
            assert (option.flag or f"--{setting.replace('_', '-')}").partition("/")[0] in flags
