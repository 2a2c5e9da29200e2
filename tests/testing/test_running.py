"""The checks without pytest: the function and the command."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from make import Done, run_streamtrain
from typer.testing import CliRunner

import streamtrain
from streamtrain.cli.commands import app
from streamtrain.errors import DataError, NotFoundError, UsageError
from streamtrain.testing import CorruptReader, check_reader
from streamtrain.testing.readers.process import Findings
from streamtrain.testing.readers.running import CHECKS

DIGITS = Path(__file__).resolve().parents[2] / "data/digits.parquet"
WRITTEN = {"all_rows", "one_row", "empty", "nulls", "fingerprint_of_copy", "fingerprint_of_other", "damaged"}
MODULE = """
import numpy as np
import streamtrain
from streamtrain.testing import CorruptReader

class Fine:
    def __new__(cls):
        return streamtrain.open_reader({"x": np.arange(100_000)})

def wrong():
    return CorruptReader(Fine(), "fewer rows")

def refuses():
    raise streamtrain.DataError("out of order today")

def needs(it): ...

thing = 3
"""


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares the half second that a fresh process takes."""
    nothing = lambda reader, chunks, small: Findings(None, digests=[], expected=[])  # noqa: E731
    monkeypatch.setattr("streamtrain.testing.readers.subject.in_fresh_process", nothing)


def outcomes(target: Any, **options: Any) -> dict[str, str]:
    return {result.check: result.outcome for result in check_reader(target, **options)}


def test_every_check_has_a_result() -> None:
    found = outcomes(str(DIGITS))
    assert list(found) == [check.__name__ for check in CHECKS]
    peaks = {"read_peak", "stream_peak"}  # too few data
    assert {check for check, outcome in found.items() if outcome == "skipped"} == WRITTEN | peaks
    assert {outcome for check, outcome in found.items() if check not in WRITTEN | peaks} == {"ok"}


@pytest.mark.usefixtures("no_process")
def test_few_of_many_chunks_are_read() -> None:
    reader = streamtrain.testing.CountingReader(streamtrain.open_reader({"x": np.arange(2_000_000)}))
    outcomes(reader, most_chunks=3)
    assert list(reader.reads) == ["rows[0:]", "rows[983040:]", "rows[1966080:]"]
    with pytest.raises(UsageError, match="--chunks 0: must be at least 1"):
        check_reader(reader, most_chunks=0)


@pytest.mark.usefixtures("no_process")
def test_it_says_how_many_of_the_chunks_were_looked_at() -> None:
    reader = streamtrain.testing.CountingReader(streamtrain.open_reader({"x": np.arange(2_000_000)}))
    few, every = check_reader(reader, most_chunks=3), check_reader(reader, most_chunks=3, all=True)
    assert (few.chunks_checked, few.chunks) == (3, len(reader.chunks()))
    assert every.chunks_checked == every.chunks == few.chunks
    assert {result.outcome for result in every} <= {"ok", "warning", "skipped"}
    assert len(reader.reads) == every.chunks


def test_a_module_that_is_on_no_path_is_found_by_the_fresh_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lonely.py").write_text(MODULE + "class Lonely(CorruptReader): ...")
    spec = importlib.util.spec_from_file_location("some.where.lonely", tmp_path / "lonely.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    for name in ("some", "some.where"):  # as pytest does for a test module
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    reader = module.Lonely(streamtrain.open_reader({"x": [1.0]}), "other values")
    assert outcomes(reader)["other_process"] == "ok"


@pytest.mark.usefixtures("no_process")
def test_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_readers.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert "FAILED" not in outcomes("shop_readers:Fine").values()
    assert outcomes("shop_readers:wrong")["rows"] == "FAILED"
    import shop_readers  # type: ignore[import-not-found]

    assert outcomes(shop_readers.wrong)["rows"] == "FAILED"
    for target, error, says in [
        ("shop_readers:refuses", DataError, "out of order today"),
        ("shop_readers:needs", DataError, "shop_readers:needs: calling it without arguments raised TypeError"),
        ("shop_readers:thing", UsageError, "shop_readers:thing: is of type int"),
        ("shop_readers:absent", DataError, "AttributeError"),
        ("no_such_module:Fine", DataError, "cannot be imported: ModuleNotFoundError"),
        ("no/such/file.parquet", NotFoundError, "no such file"),
    ]:
        with pytest.raises(error, match=says):
            check_reader(target)


def test_a_reader_that_fails_everywhere_ends_no_check() -> None:
    class Raises:
        schema = property(lambda self: 1 / 0)

        def chunks(self) -> Any:
            raise KeyError("nothing")

        read = fingerprint = chunks

    results = list(check_reader(Raises))
    assert {result.outcome for result in results} == {"FAILED", "skipped"}
    assert results[0].detail == "ZeroDivisionError: division by zero"


def command(folder: Path, *arguments: str) -> Done:
    return run_streamtrain("check-reader", *arguments, cwd=folder)


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "shop_readers.py").write_text(MODULE)
    code, out, err = command(tmp_path, "shop_readers:wrong")
    assert (code, err) == (2, "")
    assert "FAILED   rows                   rows[0:]: 65,535 rows were read, but 65,536 were declared\n" in out
    assert "ok       other_process" in out and "1 failed" in out.splitlines()[-1], out
    code, out, err = command(tmp_path, "shop_readers:needs", "--json")
    assert (code, out) == (2, "") and err.startswith("error: shop_readers:needs: ") and err.count("\n") == 1


@pytest.mark.usefixtures("no_process")
def test_the_command_in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamtrain.cli.check.check_apart", check_reader)
    done = CliRunner().invoke(app, ["check-reader", str(DIGITS), "--json"], standalone_mode=False)
    found = json.loads(done.output)
    assert done.return_value == 0 and found["passes"] is True and found["failed"] == 0
    assert len(found["checks"]) == len(CHECKS)


@pytest.mark.usefixtures("no_process")
def test_a_lie_about_columns_is_a_failure_and_no_crash() -> None:
    reader = CorruptReader(streamtrain.open_reader(str(DIGITS)), "other columns")
    assert {"types", "projection"} <= {check for check, outcome in outcomes(reader).items() if outcome == "FAILED"}


ENDS = """
import os, threading
import numpy as np, pyarrow as pa, streamtrain

class Reader:
    schema = pa.schema([("x", pa.float32()), ("y", pa.int64())])

    def chunks(self):
        return [streamtrain.Chunk(f"part-{i}", 100, 1_200, 2_400) for i in range(3)]

    def read(self, chunk, columns):
        if not {"x", "y"}.issuperset(columns):
            os.abort()
        if threading.current_thread() is not threading.main_thread():
            raise SystemExit(3)
        if columns == ["y"]:
            raise KeyboardInterrupt
        return pa.record_batch({"x": np.arange(100, dtype="f4"), "y": np.arange(100)}).select(columns)

    def fingerprint(self):
        return "x"

def at_once():
    os._exit(0)
"""


def test_a_reader_that_ends_the_process_fails_the_check_and_the_others_are_made(tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text(ENDS)
    code, out, err = command(tmp_path, "ends:Reader", "--json")
    found = {each["check"]: (each["outcome"], each["detail"]) for each in json.loads(out)["checks"]}
    assert (code, err) == (2, "")
    mend = "the reader, or a library that it uses, must raise an error instead"
    assert found["unknown_column"] == ("FAILED", f"the process was ended by SIGABRT: {mend}")
    assert found["projection"] == ("FAILED", "KeyboardInterrupt: ")
    assert found["concurrent"] == ("FAILED", "SystemExit: 3")
    assert found["rows"][0] == found["fingerprint"][0] == "ok" and len(found) == len(CHECKS)
    code, out, err = command(tmp_path, "ends:at_once")
    assert (code, out) == (2, "")
    assert err == f"error: ends:at_once: the process that opened it ended with exit code 0: {mend}\n"
