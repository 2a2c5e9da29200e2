"""Readers with one defect each: the check that is meant for it finds it, and no other does where that is possible."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import wrong_readers
from wrong_readers import Good

from streamtrain.testing import ReaderTests
from streamtrain.testing.readers.process import Findings
from streamtrain.testing.readers.running import CHECKS, run_checks
from streamtrain.testing.readers.subject import Subject, Writer

CHUNK_ROWS = 300


def table(rows: int) -> pa.Table:
    number = np.arange(rows)
    return pa.table({"number": number, "size": number / 8, "third": number % 3, "fourth": -number})


def make(folder: Path, data: pa.Table) -> str:
    files = {}
    rows = CHUNK_ROWS if data.num_rows < 10_000 else data.num_rows
    for i, start in enumerate(range(0, data.num_rows, rows)):
        part = data.slice(start, rows).combine_chunks()
        files[f"{i}.part"] = part.num_rows
        with pa.ipc.new_stream(folder / f"{i}.part", part.schema) as writer:
            writer.write_table(part)
    schema = data.schema.serialize().to_pybytes().hex()
    (folder / "index.json").write_text(json.dumps({"files": files, "schema": schema}))
    wrong_readers.OnlyHere.here[str(folder)] = True
    return str(folder)


def damage(folder: Path) -> None:
    path = folder / "0.part"
    path.write_bytes(path.read_bytes()[:-3000])


def outcomes(tmp_path: Path, kind: Any, *, process: bool) -> dict[str, str]:
    """What each check finds. process: whether a fresh process is started; otherwise it is taken to find nothing."""
    subject = Subject.of(Writer(tmp_path, make, kind, table, 400_000, damage))
    if not process:
        subject.__dict__["findings"] = Findings(None, read=[1, 1], stream=[1, 1])
    return {result.check: result.outcome for result in run_checks(subject)}


WRONG = {
    "OverlappingChunks": {"all_rows"},
    "WrongRowCount": {"rows"},
    "SchemaOrder": {"projection"},
    "SharedPosition": {"concurrent"},
    # whatever reads a chunk twice to compare finds it too
    "Undecided": {"repeated", "projection", "concurrent", "read_together", "pickling", "after_failure"},
    "Unpicklable": {"pickling"},
    "DeclaresTooLittle": {"read_peak"},
    "StreamDeclaresTooLittle": {"stream_peak"},
    "DecodesToMore": {"decoded_bytes"},
    "DropsTheLastSlice": {"slices"},
    "SlicesTooLarge": {"slices"},
    "ReadsInAnotherOrder": {"read_together"},
    "ConstantFingerprint": {"fingerprint_of_other"},
    "RandomFingerprint": {"fingerprint", "fingerprint_of_copy"},
    "FingerprintOfPath": {"fingerprint_of_copy"},
    "FingerprintOfTime": {"fingerprint_of_copy"},
    "DuplicateKeys": {"chunks"},
    "OtherChunksEachTime": {"chunks", "pickling"},
    "NullsBecomeZeros": {"nulls"},
    "NamesNoChunk": {"damaged"},
    "FillsWhatIsDamaged": {"damaged"},
    "BrokenAfterAFailure": {"after_failure"},
    "AbsentColumnsAreNull": {"unknown_column", "after_failure"},
    "OtherTypes": {"types"},
    "FailsOnNoRows": {"empty"},
    "FailsOnOneRow": {"one_row"},
    "FingerprintIsANumber": {"members"},
    "OnlyHere": {"other_process"},
}
MEASURED = ("Unpicklable", "DeclaresTooLittle", "StreamDeclaresTooLittle", "OnlyHere")


@pytest.mark.parametrize("name", WRONG)
def test_a_defect_is_found_by_the_check_meant_for_it(tmp_path: Path, name: str) -> None:
    found = outcomes(tmp_path, getattr(wrong_readers, name), process=name in MEASURED)
    assert {check for check, outcome in found.items() if outcome == "FAILED"} == WRONG[name]


def test_every_defect_is_in_the_list() -> None:
    kinds = [k for k in vars(wrong_readers).values() if isinstance(k, type) and issubclass(k, Good)]
    assert {kind.__name__ for kind in kinds if kind is not Good} == set(WRONG)


def test_a_reader_without_a_defect_fails_nothing(tmp_path: Path) -> None:
    assert set(outcomes(tmp_path, Good, process=True).values()) == {"ok"}


def test_every_check_finds_something() -> None:
    assert set().union(*WRONG.values()) == {check.__name__ for check in CHECKS}


def test_the_class_has_every_check() -> None:
    names = {name for name in vars(ReaderTests) if name.startswith("test_")}
    assert names == {f"test_{check.__name__}" for check in CHECKS}
