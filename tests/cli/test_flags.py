"""Every command takes every flag that its ``--help`` offers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer.main
from make import CommandLine

from streamtrain import fit
from streamtrain.cli.commands import app

COMMANDS: dict[str, Any] = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]

# what a command is called with besides the flag; {here}: a folder of the test's own
CALLS = {
    "inspect": "d.parquet",
    "plan": "d.parquet --target y",
    "fit": "d.parquet --target y",
    "profile": "d.parquet --target y --max-rows 500",
    "evaluate": "run d.parquet",
    "predict": "run d.parquet --out {here}/p.parquet",
    "make": "regression --rows 100 --out {here}/made",
    "rechunk": "d.parquet --chunk-rows 100 --out {here}/copy",
    "check-reader": "d.parquet",
    "runs": "run",
    "report": "run --out {here}/page.html",
}
# the value of each flag where the first of its choices, 2 and 0.5 are not enough; with it, what it needs
VALUES = {
    "--target": "y,z",
    "--features": "x,city",
    "--exclude": "x",
    "--weight": "w",
    "--validate": "d.parquet",
    "--classes": "0,1",
    "--as": "x=category",
    "--cross": "city:day",
    "--learner": "linear",
    "--delta": "2 --loss huber --task regress",
    "--quantile": "0.5 --loss quantile --task regress",
    "--loss": "huber --task regress",
    "--learning-rate-schedule": "constant --optimizer sgd",
    "--class-weight": "balanced",
    "--patience": "1 --holdout 0.2",
    "--continue-from": "run",
    "--resume": " --out {here}/resumed",
    "--out": "{here}/out.html",
    "--memory": "4GB",
    "--window-rows": "100",
    "--hash-bits": "12",
    "--chunk-rows": "100",
    "--format": "zarr",
    "--compression": "none",
    "--plot": "{here}/p.svg",
    "--html": "{here}/p.html",
    "--sort": "loss",
}
ELSEWHERE = {"--cluster"}  # needs a scheduler: tests/load/test_loader.py
FLAGS = [
    (name, option.opts[0])
    for name, command in COMMANDS.items()
    for option in command.params
    if option.opts[0].startswith("--") and option.opts[0] not in ELSEWHERE
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table, and a run that learned from it."""
    folder = tmp_path_factory.mktemp("flags")
    random = np.random.default_rng(0)
    columns: dict[str, Any] = {
        "x": np.arange(200) % 7,
        "city": [f"c{i}" for i in random.integers(0, 5, 200)],
        "day": [f"d{i}" for i in random.integers(0, 7, 200)],
        "w": np.full(200, 0.5),
        "y": random.integers(0, 2, 200),
        "z": random.integers(0, 2, 200),
    }
    pq.write_table(pa.table(columns), folder / "d.parquet")
    fit(folder / "d.parquet", target="y", out=folder / "run")
    return folder


def _value(option: Any) -> str:
    """Text for a flag by its kind; none for a switch."""
    if getattr(option, "is_flag", False):
        return ""
    choices = (option.metavar or "").strip("[]").split("|")
    return choices[0] if len(choices) > 1 else {"N": "2", "X": "0.5"}[option.metavar]


def test_each_command_is_called() -> None:
    assert set(CALLS) == set(COMMANDS)


@pytest.mark.parametrize(("name", "flag"), FLAGS, ids=lambda value: value)
def test_takes_the_flag(
    name: str,
    flag: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cli: CommandLine,
) -> None:
    monkeypatch.chdir(folder)
    option = next(option for option in COMMANDS[name].params if flag in option.opts)
    words = CALLS[name].split()
    if flag in words:
        del words[words.index(flag) : words.index(flag) + 2]
    if flag == "--continue-from":  # the target is the run's
        words = [word for word in words if word not in ("--target", "y")]
    words += [flag, *(VALUES[flag] if flag in VALUES else _value(option)).split()]
    done = cli(*(word.format(here=tmp_path) for word in (name, *words)))
    assert not done.code, done.err
