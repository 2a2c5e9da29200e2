"""What tests of several folders share: the command line, in this process and in one of its own; files, states, waiting."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import settings

from streamtrain import Model, open_reader
from streamtrain.cli import main
from streamtrain.columns.layout import Layout
from streamtrain.columns.role import Column
from streamtrain.columns.target import Target
from streamtrain.memory.process import resident_bytes
from streamtrain.model.describe import describe_layout, layout_of
from streamtrain.model.stored import StoredFields
from streamtrain.storage.arrow import as_batches
from streamtrain.storage.reader import Chunk

__all__ = [
    "EXAMPLES", "PROMPT", "WAIT", "CommandLine", "Done", "Unreadable", "budget_above", "command_line", "content", "examples",
    "in_forks", "kept", "rows_of", "run_python", "run_streamtrain", "state", "wait_for",
    "write_file", "write_parquet", "zarr_group",
]  # fmt: skip

WAIT = 300.0
"""Seconds that anything may take on a busy machine: a test that waits longer has failed."""

PROMPT = 15.0
"""Seconds for what takes less than one on an idle machine, where what must not be waited for takes minutes."""

EXAMPLES = 50
"""Examples of a property in a plain run, where a test does not say otherwise."""


def examples(count: int, **options: Any) -> settings:
    """Settings of a property whose examples cost more than others: so many in a plain run, and as many times more with a
    profile of more examples."""
    return settings(max_examples=count * settings().max_examples // EXAMPLES, **options)


def wait_for(condition: Callable[[], object], what: str, *, seconds: float = WAIT) -> None:
    """Wait until the condition is true, looked at a hundred times a second. Raises AssertionError after ``seconds``.

    what: what is waited for, for the message.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.01)


def budget_above(more_bytes: int) -> str:
    """A budget of so many bytes more than this process takes now: that of many tests takes more than one of its own."""
    return str((resident_bytes() or 0) + more_bytes)


class Done(NamedTuple):
    """What a command ended with."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """stdout, which must be one line of strict JSON."""
        assert self.out.endswith("}\n") and self.out.count("\n") == 1, self.out
        content = json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        assert isinstance(content, dict)
        return content


CommandLine = Callable[..., Done]
"""Takes the arguments of ``streamtrain``, of any type."""


def command_line(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Calls the command line in this process; the signal handlers are those of before. Tests take the fixture ``cli``."""

    def call(*arguments: Any) -> Done:
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        capsys.readouterr()
        try:
            with pytest.raises(SystemExit) as caught:
                main([str(argument) for argument in arguments])
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return Done(int(caught.value.code or 0), *capsys.readouterr())

    return call


def run_streamtrain(*arguments: Any, cwd: Path | None = None, **environment: str) -> Done:
    """Run the command line in a process of its own, where the process is what is tested."""
    return run_python("-m", "streamtrain", *arguments, cwd=cwd, **environment)


def run_python(*arguments: Any, cwd: Path | None = None, **environment: str) -> Done:
    """Run Python in a process of its own; with ``"-c", code`` a program."""
    command = [sys.executable, *map(str, arguments)]
    ended = subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=WAIT, check=False
    )
    return Done(ended.returncode, ended.stdout, ended.stderr)


_FORKS = """
import json, os, sys
import numpy, pyarrow.parquet, streamtrain.memory.process, streamtrain.storage.opening
from streamtrain.memory.pandas_import import leave_pandas_out, settle_pandas
leave_pandas_out()
settle_pandas()
program = compile(sys.argv[1], "program", "exec")
for case in json.loads(sys.argv[2]):
    child = os.fork()
    if child == 0:
        sys.argv[1:] = case
        exec(program, {"__name__": "__main__"})
        sys.stdout.flush()
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(f"failed with {case}")
"""


def in_forks(program: str, cases: Iterable[Sequence[Any]]) -> list[Any]:
    """What a program prints, a line of JSON, for each case: the texts in its ``sys.argv``. To measure memory: each case has
    a process of its own, that is forked from one that has imported the package and read nothing."""
    done = run_python("-c", _FORKS, program, json.dumps([list(map(str, case)) for case in cases]))
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


# -- files and states ------------------------------------------------------------------------------------------------------


def write_file(path: Path, text: str | bytes) -> Path:
    """Write a text as UTF-8, or bytes, and make the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def write_parquet(path: Path, table: pa.Table, **options: Any) -> Path:
    """Write a table, with options of ``pyarrow.parquet.write_table``, and make the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def zarr_group(path: Path, version: int = 3, attributes: dict[str, Any] | None = None, **arrays: Any) -> Path:
    """Make a Zarr group; an array is its values, or keywords of ``create_array``."""
    group = zarr.create_group(path, zarr_format=version, attributes=attributes)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, array in arrays.items():
            options = array if isinstance(array, dict) else {"data": array, "chunks": (4, *array.shape[1:])}
            group.create_array(name, config={"write_empty_chunks": True}, **options)
    return path


def rows_of(path: str | Path) -> dict[str, list[Any]]:
    """Every value by column, as our own reader reads it."""
    reader = open_reader(str(path))
    batches = [batch for c in reader.chunks() for batch in as_batches(reader.read(c, reader.schema.names))]
    return {name: [v for batch in batches for v in batch.column(name).to_pylist()] for name in reader.schema.names}


class Unreadable:
    """A reader that must not be asked for rows."""

    def __init__(self, schema: pa.Schema, rows: int = 10, peak: int = 1000) -> None:
        self.schema, self.rows, self.peak = schema, rows, peak

    def chunks(self) -> list[Chunk]:
        return [Chunk("all", self.rows, self.peak // 2, self.peak)]

    def read(self, chunk: Chunk, columns: Any) -> Any:
        pytest.fail("rows were read")

    def fingerprint(self) -> str:
        return ""


def content(folder: Path) -> dict[str, Any]:
    """Every file and folder below, with the bytes of each file."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def kept(column: Column) -> Column:
    """A column as a model's file gives it back."""
    content = json.loads(json.dumps(describe_layout(Layout((column,), Target("y", "regress")))))
    return layout_of(StoredFields(Path("model.json"), content)).columns[0]


def state(model: Model) -> dict[str, bytes]:
    """What a model has learned, to be compared bit by bit."""
    return {name: np.asarray(value).tobytes() for name, value in model.state_dict().items()}
