"""Signals: between two steps only; with a checkpoint behind the last whole one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import PROMPT, WAIT, wait_for

from streamtrain import Model, fit, reader_from
from streamtrain.model import tensors
from streamtrain.runs.checkpoint import Checkpoints
from streamtrain.train.history import Scores
from streamtrain.train.interrupts import Interrupts
from streamtrain.train.trainer import Trainer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# -- alone -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_step_comes_behind_it(number: int) -> None:
    calls: list[int] = []

    def handler(number: int, _: Any) -> None:
        calls.append(number)
        raise KeyboardInterrupt

    signal.signal(number, handler)
    done: list[str] = []
    with Interrupts() as interrupts:
        for _ in range(2):  # it works more than once
            with suppress(KeyboardInterrupt):
                with interrupts.whole():
                    signal.raise_signal(number)
                    done.append("rest of the step")
                    assert len(calls) < len(done)
                pytest.fail("it came to nothing")
        assert calls == [number] * 2 and len(done) == 2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)  # between two steps, at once
    assert calls == [number] * 3 and signal.getsignal(number) == handler


def test_a_handler_that_does_not_raise_interrupts_nothing() -> None:
    calls: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: calls.append(number))
    with Interrupts() as interrupts:
        with interrupts.whole():
            signal.raise_signal(signal.SIGTERM)
            assert calls == []
        assert calls == [signal.SIGTERM]
        signal.raise_signal(signal.SIGTERM)
    assert len(calls) == 2


def test_an_error_in_a_step_is_not_lost() -> None:
    with Interrupts() as interrupts:
        with pytest.raises(ZeroDivisionError), interrupts.whole():
            raise ZeroDivisionError
        with pytest.raises(KeyboardInterrupt):  # nor does it leave the step under way
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ignored_signals_stay_so(number: int) -> None:
    signal.signal(number, signal.SIG_IGN)
    with Interrupts() as interrupts, interrupts.whole():
        assert signal.getsignal(number) is signal.SIG_IGN
        signal.raise_signal(number)
    assert signal.getsignal(number) is signal.SIG_IGN


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interrupts():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    with suppress(ZeroDivisionError), Interrupts():
        raise ZeroDivisionError
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    with Interrupts():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # somebody's, meanwhile
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_one_in_the_other() -> None:
    with Interrupts() as outer, suppress(KeyboardInterrupt):
        with outer.whole():
            with Interrupts() as inner, inner.whole():
                signal.raise_signal(signal.SIGINT)
                reached = "the inner step's end"
            reached += ", the outer's"
        reached += ", and on"
    assert reached == "the inner step's end, the outer's"


def test_in_a_thread_it_does_nothing() -> None:
    found: list[Any] = []

    def work() -> None:
        with Interrupts() as interrupts, interrupts.whole():
            found.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(WAIT)
    assert found == [before]


# -- in a fit, in Python --------------------------------------------------------------------------------------------------


def table(rows: int = 400, seed: int = 0) -> pa.Table:
    x = np.random.default_rng(seed).normal(size=(rows, 2))
    return pa.table({"a": x[:, 0], "b": x[:, 1], "y": (x[:, 0] > 0).astype(int)})


ASKED: dict[str, Any] = {"target": "y", "window_rows": 100, "epochs": 2, "seed": 1}


def outcome(run: Path) -> tuple[Any, ...]:
    report = json.loads((run / "report.json").read_text())
    lines = [json.loads(line) | {"seconds": 0} for line in (run / "metrics.jsonl").read_text().splitlines()]
    return (run / "model.safetensors").read_bytes(), report["metrics"], report["rows_seen"], report["batches"], lines


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """What comes out where nothing interrupts."""
    run = tmp_path_factory.mktemp("whole") / "r"
    fit(table(), out=run, validate=table(seed=1), **ASKED)
    return outcome(run)


def cursor(run: Path) -> dict[str, Any]:
    """Of the newest checkpoint, which is whole."""
    checkpoints = Checkpoints(run / "checkpoints")
    known = checkpoints.newest()
    assert known is not None and checkpoints.damaged == []
    return dict(known["cursor"])


def once(number: int, at: int = 1) -> Callable[..., None]:
    """What raises a signal when it is called for the ``at``-th time."""
    left = [at]

    def call(*_: Any) -> None:
        left[0] -= 1
        if not left[0]:
            signal.raise_signal(number)

    return call


def terminated(*_: Any) -> None:
    raise KeyboardInterrupt


def before(call: Callable[..., None], function: Callable[..., Any]) -> Callable[..., Any]:
    def both(*found: Any, **named: Any) -> Any:
        call()
        return function(*found, **named)

    return both


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "place",
    ["streamtrain.model.Model.train", "streamtrain.train.history.Scores.on_the_way",
     "streamtrain.train.history.Scores.learned",
     "streamtrain.train.history.Scores.end_epoch", "streamtrain.train.validation.Scorer.score",
     "streamtrain.runs.folder.RunFolder.record",
     "streamtrain.train.trainer.Trainer._tick"],
)  # fmt: skip
def test_anywhere_in_a_fit(
    place: str, number: int, tmp_path: Path, whole: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a step, at an epoch's end, while validation is scored, while scores are written: then what was not done is."""
    if number == signal.SIGTERM:
        signal.signal(number, terminated)
    monkeypatch.setattr(Trainer, "_batches_at_once", lambda _: 2)
    owner, name = place.rsplit(".", 1)
    found = getattr({"Model": Model, "Scores": Scores}.get(owner.rsplit(".", 1)[1]) or _of(owner), name)
    with monkeypatch.context() as patch:
        patch.setattr(place, before(once(number), found))
        with pytest.raises(KeyboardInterrupt):
            fit(table(), out=tmp_path / "r", validate=table(seed=1), **ASKED)
    stood = cursor(tmp_path / "r")
    if place.endswith(("train", "on_the_way", "learned")):
        assert 0 < stood["rows_seen"] <= 100  # the step in which it came is whole
    else:
        assert stood["rows_seen"] in (400, stood["rows_seen"])
    assert not list((tmp_path / "r").rglob(".*"))
    report = fit(table(), out=tmp_path / "r", resume=True, validate=table(seed=1)).report
    assert outcome(tmp_path / "r") == whole and report.resumes == 1


def _of(owner: str) -> Any:
    import importlib

    module, name = owner.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("place", ["a checkpoint is written", "it is moved to its place", "the model is written"])
def test_while_something_is_written(
    place: str, tmp_path: Path, whole: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "r"
    monkeypatch.setattr("streamtrain.runs.checkpoint._COST_MULTIPLE", 0)
    with monkeypatch.context() as patch:
        if place == "a checkpoint is written":
            patch.setattr(os, "fsync", before(once(signal.SIGINT, 3), os.fsync))
        elif place == "it is moved to its place":
            patch.setattr(Path, "replace", before(once(signal.SIGINT, 2), Path.replace))
        else:
            patch.setattr(Model, "save", before(once(signal.SIGINT), Model.save))
        with pytest.raises(KeyboardInterrupt):
            fit(table(), out=run, validate=table(seed=1), checkpoint_seconds=0, **ASKED)
    assert cursor(run)["rows_seen"] > 0 and not list(run.rglob(".*"))
    assert not (run / "report.json").exists() and not list(run.glob(".writing-*"))
    fit(table(), out=run, validate=table(seed=1), resume=True)
    assert outcome(run) == whole


def test_from_the_progress(tmp_path: Path, whole: tuple[Any, ...]) -> None:
    """A fit in a notebook is stopped by what it calls, too."""

    def stop(_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        fit(table(), out=tmp_path / "r", validate=table(seed=1), progress=stop, **ASKED)
    assert caught.value.__notes__ == [f"the run is kept: fit(..., out='{tmp_path}/r', resume=True) goes on"]
    assert cursor(tmp_path / "r")["epoch"] >= 0
    fit(table(), out=tmp_path / "r", validate=table(seed=1), resume=True)
    assert outcome(tmp_path / "r") == whole


def test_without_a_folder_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Model, "train", before(once(signal.SIGINT), Model.train))
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(table(), **ASKED)
    assert os.listdir() == [] and not hasattr(caught.value, "__notes__")


def test_before_there_is_anything_to_keep(tmp_path: Path) -> None:
    """While the target is read, no run has begun."""

    def read(key: str, columns: list[str]) -> Any:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return table().select(columns).to_batches()[0]

    reader = reader_from(["all"], read, schema=table().schema, rows=[400], fingerprint="one")
    with pytest.raises(KeyboardInterrupt):
        fit(reader, out=tmp_path / "r", **ASKED)
    assert os.listdir(tmp_path) == []


def test_while_a_slow_reader_is_waited_for(tmp_path: Path) -> None:
    """It is noticed at once, and the last step is kept."""
    parts, ready, sent = {str(i): table(100, seed=i).to_batches()[0] for i in range(4)}, threading.Event(), []

    def read(key: str, columns: list[str]) -> Any:
        if len(columns) > 1:
            reads.append(key)
            if slow and len(reads) >= 3:  # two windows are read ahead
                if not sent:
                    time.sleep(0.2)  # the loop waits by now
                    sent.append(time.monotonic())
                    os.kill(os.getpid(), signal.SIGINT)
                assert ready.wait(WAIT)
        return parts[key].select(columns)

    reader = reader_from(list(parts), read, schema=table().schema, rows=[100] * 4, fingerprint="one")
    slow, reads = False, list[str]()
    fit(reader, out=tmp_path / "whole", **ASKED)
    slow, reads = True, []
    timer = threading.Timer(WAIT / 2, ready.set)  # what is waited for then takes this long
    timer.start()
    caught = 0.0
    try:
        fit(reader, out=tmp_path / "r", **ASKED)
    except KeyboardInterrupt:
        caught = time.monotonic()
    finally:
        timer.cancel()
        ready.set()
    assert sent and caught - sent[0] < PROMPT, caught - sent[0]
    assert 0 < cursor(tmp_path / "r")["rows_seen"] <= 200
    slow = False
    fit(reader, out=tmp_path / "r", resume=True)
    assert outcome(tmp_path / "r") == outcome(tmp_path / "whole")


# -- processes -------------------------------------------------------------------------------------------------------------

CHILD = """
import sys, numpy as np
from streamtrain import fit
x = np.random.default_rng(0).normal(size=2000)
said = []
def say(now):
    if not said and now.rows_seen:
        said.append(print("under way", flush=True))
try:
    fit({"x": x, "y": (x > 0).astype(int)}, target="y", epochs=10**6, out=sys.argv[1], progress=say)
finally:
    print("put away", flush=True)
"""


@pytest.mark.parametrize("how", ["python", "the command line"])
def test_sigterm(tmp_path: Path, how: str) -> None:
    """A process whose SIGTERM nobody handles ends by it, behind its checkpoint; the command line exits with 143."""
    run = tmp_path / "r"
    pq.write_table(table(2000), tmp_path / "d.parquet")
    command = ["-c", CHILD, run]
    if how != "python":
        command = ["-m", "streamtrain", "fit", tmp_path / "d.parquet", "--target", "y", "--epochs", 10**6, "--out", run]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, *map(str, command)], text=True, **pipes)  # type: ignore[call-overload]
    try:
        scores = run / "metrics.jsonl"  # there before its first line is
        wait_for(
            lambda: (scores.exists() and scores.stat().st_size > 0) or process.poll() is not None, "the first scores"
        )
        sent = time.monotonic()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=WAIT)
    finally:
        process.kill()
    assert time.monotonic() - sent < PROMPT
    if how == "python":
        assert process.returncode == -signal.SIGTERM and "Traceback" not in err, (out, err)
    else:
        assert process.returncode == 143 and out == "" and err.startswith("\ninterrupted\nthe run is kept; "), (
            out,
            err,
        )
    stood = cursor(run)
    ends = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert stood["rows_seen"] >= ends[-1]["rows_seen"] and stood["epoch"] >= 0
    assert tensors.look(sorted((run / "checkpoints").iterdir())[-1])
    assert set(os.listdir(run)) - {".lock"} == {"checkpoints", "metrics.jsonl"}


def test_twice_does_not_wait(tmp_path: Path) -> None:
    """A second SIGTERM ends a process that is busy with the first; what was being written is no checkpoint."""
    child = CHILD.replace("from streamtrain import fit", SLOW_WRITES)
    process = subprocess.Popen(
        [sys.executable, "-c", child, str(tmp_path / "r")], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "under way\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGTERM)
        process.wait(WAIT)
    finally:
        process.kill()
        process.communicate(timeout=WAIT)
    assert process.returncode == -signal.SIGTERM
    found = os.listdir(tmp_path / "r/checkpoints")
    assert len(found) == 1 and found[0].startswith(".writing-"), found
    report = fit(table(), out=tmp_path / "r", resume=True, **ASKED).report
    assert report.resumes == 0 and sorted(os.listdir(tmp_path / "r/checkpoints")) == ["checkpoint-00000001.safetensors"]


SLOW_WRITES = """
import os, stat, time
from streamtrain import fit
def slow(handle, sync=os.fsync):
    if stat.S_ISDIR(os.fstat(handle).st_mode):
        return sync(handle)
    print("writing", flush=True)
    time.sleep(600)
os.fsync = slow
"""
