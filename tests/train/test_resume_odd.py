"""Runs that go on where something happened to them, or was asked in an odd way."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamtrain import fit
from streamtrain.errors import DataError, RunError, UsageError
from streamtrain.runs.folder import RunFolder
from streamtrain.train.history import Scores

ASKED: dict[str, Any] = {"target": "y", "batch_size": 16, "seed": 3}
ROWS = 60_000


def table(rows: int = ROWS) -> pa.Table:
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=rows), rng.normal(size=rows)
    return pa.table({"x": x, "z": z, "y": (x + 0.3 * z > 0).astype(np.int32)})


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def stopped(data: Any, out: Path, steps: int, monkeypatch: pytest.MonkeyPatch, **asked: Any) -> None:
    """Begin, and stop behind so many steps."""
    left, on_the_way = [steps], Scores.on_the_way

    def counted(*found: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            signal.raise_signal(signal.SIGINT)
        return on_the_way(*found)

    with monkeypatch.context() as patch:
        patch.setattr(Scores, "on_the_way", counted)
        patch.setattr("streamtrain.runs.checkpoint._COST_MULTIPLE", 0)
        with pytest.raises(KeyboardInterrupt):
            fit(data, out=out, checkpoint_seconds=0, **ASKED | asked)


@pytest.mark.parametrize("how", ["breaks", "heals"])
def test_a_window_that_has_other_rows_than_when_it_was_left(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows would be learned twice, or never."""
    path, settings = tmp_path / "d.parquet", {"on_error": "skip", "max_skipped": 1.0}
    pq.write_table(
        table(), path, row_group_size=10_000, write_page_checksum=True, compression="none", use_dictionary=False
    )
    whole = path.read_bytes()
    place = pq.read_metadata(path).row_group(4).column(0).data_page_offset + 1000
    damaged = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
    monkeypatch.setattr("streamtrain.train.identity._fingerprint", lambda _: "")  # it sees all of so small a file
    monkeypatch.setattr("streamtrain.train.unchanged.Recheck.require_known", lambda _: None)
    path.write_bytes(whole if how == "breaks" else damaged)
    stopped(path, tmp_path / "r", 2, monkeypatch, **settings)
    path.write_bytes(damaged if how == "breaks" else whole)
    fit(path, out=tmp_path / "r", resume=True)
    if how == "heals":  # what was skipped is skipped again
        path.write_bytes(damaged)
        fit(path, out=tmp_path / "w", **ASKED, **settings)
        assert weights(tmp_path / "r") == weights(tmp_path / "w")
    else:  # what is left of the chunk is skipped from now on: no row is learned twice, and none moves
        skipped = json.loads((tmp_path / "r/report.json").read_text())["skipped"]
        assert [(entry["chunk"], entry["rows"] > 0) for entry in skipped] == [("d.parquet:4", True)]


@pytest.mark.parametrize("gone", ["moved", "removed"])
def test_a_folder_that_goes_while_its_run_is_under_way(gone: str, tmp_path: Path) -> None:
    """Nothing is written where another run may begin; what was moved goes on where it is."""
    there = tmp_path / "r"

    def now(_: Any) -> None:
        if there.exists() and gone == "moved":
            there.rename(tmp_path / "moved")
        shutil.rmtree(there, ignore_errors=True)

    with pytest.raises(
        RunError,
        match=r"moved or removed during the run: if it was moved, --resume continues .* if it was removed, start",
    ):
        fit(table(), out=there, epochs=3, checkpoint_seconds=0, progress=now, **ASKED)
    assert not there.exists()
    if gone == "moved":
        fit(table(), out=tmp_path / "moved", resume=True, epochs=3, **ASKED)
        fit(table(), out=tmp_path / "w", epochs=3, **ASKED)
        assert weights(tmp_path / "moved") == weights(tmp_path / "w")


@pytest.mark.parametrize("name", ["model.json", "model.safetensors", "report.json"])
@pytest.mark.parametrize("how", ["gone", "cut off"])
def test_a_finished_run_whose_files_are_lost_writes_them_again(name: str, how: str, tmp_path: Path) -> None:
    fit(table(2000), out=tmp_path / "r", **ASKED)
    before = {path.name: path.read_bytes() for path in (tmp_path / "r").glob("m*.*")}
    if how == "gone":
        (tmp_path / "r" / name).unlink()
    else:
        (tmp_path / "r" / name).write_bytes((tmp_path / "r" / name).read_bytes()[:30])
    result = fit(table(2000), out=tmp_path / "r", resume=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "r").glob("m*.*")} == before
    assert json.loads((tmp_path / "r/report.json").read_text())["metrics"] == result.as_dict()["metrics"]


def test_ctrl_c_within_the_last_checkpoint_leaves_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, calls = RunFolder.save, []

    def first(*found: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        save(*found)

    monkeypatch.setattr(RunFolder, "save", first)
    with pytest.raises(KeyboardInterrupt):
        fit(table(2000), out=tmp_path / "r", **ASKED)
    assert len(calls) == 2 and fit(table(2000), out=tmp_path / "r", resume=True).report.resumes == 1


def test_not_fewer_epochs_than_are_over(tmp_path: Path) -> None:
    fit(table(2000), out=tmp_path / "r", epochs=3, **ASKED)
    (tmp_path / "r/report.json").unlink()
    with pytest.raises(RunError, match="--epochs 2: the run is already in epoch 3: give 3 or more"):
        fit(table(2000), out=tmp_path / "r", resume=True, epochs=2)
    assert fit(table(2000), out=tmp_path / "r", resume=True).report.epochs == 3


def test_settings_of_numpy_and_sets_are_settings(tmp_path: Path) -> None:
    odd: dict[str, Any] = {
        "exclude": {"z"}, "classes": np.array([0, 1]), "memory": np.int64(10**9), "holdout": np.float32(0.25),
        "seed": np.uint64(7), "average": np.bool_(True), "l1": np.float32(0.5), "epochs": np.int8(2),
    }  # fmt: skip
    fit(table(2000), target="y", out=tmp_path / "r", **odd)
    report = json.loads((tmp_path / "r/report.json").read_text())
    assert report["settings"]["exclude"] == ["z"] and report["settings"]["classes"] == [0, 1]
    assert fit(table(2000), target="y", out=tmp_path / "r", resume=True, **odd).as_dict() == report
    more = fit(table(2000), out=tmp_path / "r", resume=True, exclude=np.array(["z"]), epochs=3).report
    assert (more.epochs, more.resumes) == (3, 1)
    with pytest.raises(RunError, match="--exclude is x, the run has z"):
        fit(table(2000), out=tmp_path / "r", resume=True, exclude=np.array(["x"]))


class Rows:
    """A reader whose fingerprint is not what it should be."""

    schema = table(0).schema

    def __init__(self, found: Any) -> None:
        self.found = found

    def chunks(self) -> Any:
        from streamtrain import Chunk

        return [Chunk("all", 2000, 40_000, 100_000)]

    def read(self, chunk: Any, columns: Any) -> Any:
        return table(2000).select(list(columns)).combine_chunks().to_batches()[0]

    def fingerprint(self) -> Any:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (7, "is a int"), (float("nan"), "is a float"), (b"x", "is a bytes"), (["a"], "is a list"),
        (KeyError("k"), "raised KeyError"),
    ],
)  # fmt: skip
def test_a_fingerprint_that_is_none(found: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"the reader's fingerprint\(\) {says}"):
        fit(Rows(found), out=tmp_path / "r", **ASKED)
    assert not (tmp_path / "r").exists()
    assert fit(Rows("one"), out=tmp_path / "r", **ASKED).report.fingerprint == "one"


@pytest.mark.parametrize(
    "odd",
    [
        {"out": 5}, {"out": b"r"}, {"out": "a\0b"}, {"continue_from": 3}, {"continue_from": ["r"]}, {"resume": "no"},
        {"progress": "x"}, {"checkpoint_seconds": "often"}, {"checkpoint_seconds": -1}, {"checkpoint_seconds": float("nan")},
        {"roles": {1: "number"}}, {"out": "a" * 300},
    ],
    ids=str,
)  # fmt: skip
def test_odd_arguments_are_refused_in_a_line(odd: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises((UsageError, RunError)) as error:
        fit(table(100), **{"out": tmp_path / "r"} | ASKED | odd)
    assert "\n" not in str(error.value)
    assert fit(table(2000), checkpoint_seconds=np.float32(3), **ASKED).report.rows == 2000


def test_a_step_that_is_cut_in_two_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No signal does that; somebody's learner may."""
    learned, calls = Scores.learned, []

    def cut(*found: Any) -> None:
        learned(*found)
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Scores, "learned", cut)
    with pytest.raises(KeyboardInterrupt):
        fit(table(), out=tmp_path / "r", **ASKED)
    assert not (tmp_path / "r").exists() or not (tmp_path / "r/checkpoints").exists()
