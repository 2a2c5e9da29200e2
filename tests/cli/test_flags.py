"""Every command takes every flag that its ``--help`` offers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer.main
import zarr
from deltalake import write_deltalake
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
    "--columns-out": "x,row",
    "--where": "x>2",
    "--holdout-by": "day",
    "--holdout-after": "x=3",
    "--sample-dim": "rows",
    "--data-changed": "accept --resume --out {here}/resumed",
    "--table-version": "0",
    "--as-of": "2100-01-01",
}
ELSEWHERE = {"--cluster", "--no-header"}  # tests/load/test_loader.py, tests/storage/test_text_settings.py
TEXT = {"--delimiter": ";", "--na": "nothing", "--decimal": ".", "--encoding": "latin-1"}  # of d.csv, in one call
TOGETHER = {"profile", "check-reader"}  # slow ones: flags that do not need others are given in one call
ALONE = {
    "--target",
    "--features",
    "--exclude",
    "--class-weight",
    "--max-rows",
    "--holdout-after",
    "--sample-dim",
    *(TABLE := ("--table-version", "--as-of")),
}  # but for these, which do not go with all others


def _calls(name: str, command: Any) -> list[tuple[str, ...]]:
    """The flags of a command; in each call, those that are given together."""
    flags = [option.opts[0] for option in command.params if option.opts[0].startswith("--")]
    text = tuple(flag for flag in flags if flag in TEXT)
    flags = [flag for flag in flags if flag not in ELSEWHERE and flag not in TEXT]
    is_plain = {flag: "--" not in VALUES.get(flag, "") and flag not in ALONE for flag in flags}
    together = tuple(flag for flag in flags if is_plain[flag] and name in TOGETHER)
    return [*((flag,) for flag in flags if flag not in together), *(some for some in (together, text) if some)]


FLAGS = [(name, flags) for name, command in COMMANDS.items() for flags in _calls(name, command)]


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
    rows = "\n".join(";".join(map(str, row)) for row in zip(*columns.values(), strict=True))
    (folder / "d.csv").write_text(";".join(columns) + "\n" + rows + "\n")
    write_deltalake(folder / "t", pa.table(columns))
    group = zarr.create_group(folder / "d.zarr")
    for name in ("x", "w", "y", "z"):
        group.create_array(name, data=columns[name], chunks=(100,), dimension_names=["rows"])
    fit(folder / "d.parquet", target="y", out=folder / "run")
    fit(folder / "d.zarr", target="y", out=folder / "zarr-run")
    return folder


def _value(option: Any) -> str:
    """Text for a flag by its kind; none for a switch."""
    if getattr(option, "is_flag", False):
        return ""
    choices = (option.metavar or "").strip("[]").split("|")
    return choices[0] if len(choices) > 1 else {"N": "2", "X": "0.5"}[option.metavar]


def test_each_command_is_called() -> None:
    assert set(CALLS) == set(COMMANDS)


@pytest.mark.parametrize(
    ("name", "flags"),
    FLAGS,
    ids=lambda value: value if isinstance(value, str) else value[0] + " and others" * (len(value) > 1),
)
def test_takes_the_flag(
    name: str,
    flags: tuple[str, ...],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cli: CommandLine,
) -> None:
    monkeypatch.chdir(folder)
    data = "d.csv" if set(flags) & set(TEXT) else "t" if set(flags) & set(TABLE) else "d.parquet"
    data = "d.zarr" if "--sample-dim" in flags else data
    words = CALLS[name].replace("d.parquet", data).split()
    words = ["zarr-run" if word == "run" and data == "d.zarr" else word for word in words]
    for flag in flags:
        option = next(option for option in COMMANDS[name].params if flag in option.opts)
        if flag in words:
            del words[words.index(flag) : words.index(flag) + 2]
        words += [flag, *({**VALUES, **TEXT}.get(flag) or _value(option)).split()]
    if "--continue-from" in flags:  # the target is the run's
        words = [word for word in words if word not in ("--target", "y")]
    done = cli(*(word.format(here=tmp_path) for word in (name, *words)))
    assert not done.code, done.err
