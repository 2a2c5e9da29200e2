"""Values that cannot be used: found before training, skipped, or mended while the run waits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamtrain import evaluate, fit, predict
from streamtrain.errors import BadValueError, RunError
from streamtrain.tools.inspect import inspect
from streamtrain.tools.report import report as page
from streamtrain.train import identity, validation

ROWS = 4_000
ASKED: dict[str, Any] = {"target": "y", "batch_size": 16, "window_rows": 1_000, "shuffle": False, "memory": "3GB"}


def table(bad: dict[int, Any] | None = None, labels: dict[int, Any] | None = None) -> pa.Table:
    """A table whose x is other at some rows, and whose label is."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=ROWS)
    y = np.where(x > 0, "b", "a").tolist()
    for row, value in (bad or {}).items():
        x[row] = value
    for row, value in (labels or {}).items():
        y[row] = value
    return pa.table({"x": x, "z": rng.normal(size=ROWS), "y": y})


def write(folder: Path, whole: pa.Table) -> Path:
    folder.mkdir(exist_ok=True)
    for i in range(4):
        pq.write_table(whole.slice(1_000 * i, 1_000), folder / f"{i}.parquet", row_group_size=500)
    return folder


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("label", "says"), [(None, "has 1 null in"), ("c", "has 1 value that is not one of the 2 known classes")]
)
def test_the_target_of_validation_data_is_looked_at_before_training(tmp_path: Path, label: Any, says: str) -> None:
    other = table(labels={7: label})
    with pytest.raises(BadValueError, match=says):
        fit(table(), validate=other, out=tmp_path / "r", **ASKED)
    assert not (tmp_path / "r").exists()
    result = fit(table(), validate=other, on_error="skip", epochs=2, **ASKED)
    (entry,) = result.report.skipped
    assert entry["rows"] == 2 and "target 'y' is" in entry["error"]  # in two epochs
    kept = other.filter(np.arange(ROWS) != 7)
    assert result.report.metrics["validation"] == pytest.approx(evaluate(result.model, kept)["metrics"])
    assert evaluate(result.model, other, on_error="skip")["skipped"][0]["rows"] == 1
    with pytest.raises(BadValueError):
        evaluate(result.model, other)


def test_inspect_says_what_a_null_is_and_looks_past_it() -> None:
    with pytest.raises(BadValueError, match=r"target 'y' has 2 nulls in .*--on-error skip"):
        inspect(table(labels={7: None, 8: None}), target="y")
    found = inspect(table(labels={7: None, 8: None}), target="y", on_error="skip")["target"]
    assert sum(found["counts"]) == ROWS - 2
    assert inspect({"y": np.arange(2_000)}, target="y", task="regress")["target"]["task"] == "regress"


def test_predictions_of_skipped_rows_are_null(tmp_path: Path) -> None:
    model = fit(table(), **ASKED).model
    with pytest.raises(BadValueError, match=r"row 11 of .*--on-error skip"):
        predict(model, table({11: np.inf, 12: 1e300}), out=tmp_path / "p.parquet")
    done = predict(model, table({11: np.inf, 12: 1e300}), out=tmp_path / "p.parquet", on_error="skip")
    predict(model, table({11: 0.0, 12: 0.0}), out=tmp_path / "q.parquet")
    found, whole = (pq.read_table(tmp_path / name).to_pylist() for name in ("p.parquet", "q.parquet"))
    assert [i for i, row in enumerate(found) if None in row.values()] == [11, 12] and done["skipped"][0]["rows"] == 2
    assert set(found[11].values()) == {None}
    assert all(one == other for i, (one, other) in enumerate(zip(found, whole, strict=True)) if i not in (11, 12))


def test_odd_lists_and_infinite_entries_are_skipped_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=ROWS)
    lists: list[Any] = rng.normal(size=(ROWS, 2)).tolist()
    maps: list[Any] = [[("a", 1.0), ("b", value)] for value in rng.normal(size=ROWS).tolist()]
    lists[1_300], lists[2_000], maps[3_000], maps[3_001] = [1.0], [], [("a", np.inf)], [("b", 1e300), ("a", 1.0)]
    odd = [1_300, 2_000, 3_000, 3_001]

    def made(lists: list[Any], maps: list[Any], **more: Any) -> pa.Table:
        kinds = {"v": pa.list_(pa.float64()), "m": pa.map_(pa.string(), pa.float64())}
        return pa.table(
            {"x": x, "v": pa.array(lists, kinds["v"]), "m": pa.array(maps, kinds["m"]), "y": (x > 0).astype(int)} | more
        )

    data = write(tmp_path / "data", made(lists, maps))
    with pytest.raises(BadValueError, match=r"has a list of length 1.*--on-error skip"):
        fit(data, exclude=["m"], **ASKED)
    with pytest.raises(BadValueError, match=r"'m' has an entry inf.*--on-error skip"):
        fit(data, exclude=["v"], **ASKED)
    skipping = fit(data, on_error="skip", out=tmp_path / "skipping", **ASKED)
    assert sum(entry["rows"] for entry in skipping.report.skipped) == len(odd)
    for row in odd:
        lists[row], maps[row] = None, []
    weighed = made(lists, maps, w=np.where(np.isin(np.arange(ROWS), odd), 0.0, 1.0))
    fit(write(tmp_path / "weighed", weighed), weight="w", out=tmp_path / "w", **ASKED)
    assert weights(tmp_path / "skipping") == weights(tmp_path / "w")
    predict(skipping.model, data, out=tmp_path / "p.parquet", on_error="skip")
    predictions = pq.read_table(tmp_path / "p.parquet")["prediction"].to_pylist()
    assert [row for row, prediction in enumerate(predictions) if prediction is None] == odd


def test_nothing_of_a_row_of_weight_0_is_felt(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=ROWS)
    masked = rng.random(ROWS) < 0.3
    found = []
    for run, (feature, target) in enumerate([(np.inf, np.nan), (1e6, -1e6), (np.nan, None), (0.0, 0.0)]):
        y = pa.array([target if m else v for m, v in zip(masked, (2 * x).tolist(), strict=True)], pa.float64())
        data = pa.table({"x": np.where(masked, feature, x), "y": y, "w": (~masked).astype("f8")})
        result = fit(data, weight="w", holdout=0.2, out=tmp_path / f"{run}", **ASKED)
        found.append((weights(tmp_path / f"{run}"), json.dumps(result.report.metrics), result.report.skipped))
    assert found == found[:1] * 4


def test_rows_whose_weight_cannot_be_used_are_counted() -> None:
    wrong = [np.nan, -1.0, np.inf, None]
    data = table().append_column("w", pa.array([*wrong, 0.0, *np.ones(ROWS - 5)], pa.float64()))
    report = fit(data, weight="w", on_error="skip", epochs=2, **ASKED).report
    (entry,) = report.skipped
    assert (entry["rows"], report.rows_seen) == (2 * len(wrong), 2 * (ROWS - len(wrong)))
    assert entry["error"] == "weight 'w' is null, NaN, infinite or negative"


def test_validation_rows_of_which_nobody_knows_whether_they_match_are_not_scored(tmp_path: Path) -> None:
    """The chunk can be read, but for the column of the filter."""
    matches = (np.arange(ROWS) % 3 == 0).astype(int)
    asked = {**ASKED, "features": ["x"], "where": "m = 1", "on_error": "skip"}
    data, path = table().append_column("m", pa.array(matches)), tmp_path / "a.parquet"
    pq.write_table(data, path, row_group_size=1_000, write_page_checksum=True, use_dictionary=False, compression="none")
    column = pq.read_metadata(path).row_group(1).column(3)
    hurt = bytearray(path.read_bytes())
    hurt[column.data_page_offset + column.total_compressed_size // 2] ^= 255
    path.write_bytes(hurt)
    result = fit(data, validate=path, **asked)
    kept = data.filter((np.arange(ROWS) // 1_000 != 1) & (matches == 1))
    assert result.report.metrics["validation"] == pytest.approx(evaluate(result.model, kept)["metrics"])
    assert [(entry["chunk"], entry["rows"]) for entry in result.report.skipped] == [("a.parquet:1", 1_000)]


def test_skipped_rows_stay_in_the_report_once_they_are_errors(tmp_path: Path) -> None:
    """Of the data, and of validation data, of which one score was interrupted."""
    data = write(tmp_path / "data", table({100: np.inf, 3_900: np.inf}))
    asked = {**ASKED, "validate": data, "on_error": "skip", "epochs": 2}
    whole = fit(data, out=tmp_path / "whole", **asked).report.as_dict()["skipped"]
    assert [entry["rows"] for entry in whole] == [2] * 4
    stopped_in(1, data, tmp_path / "r", **asked)
    assert fit(data, out=tmp_path / "r", resume=True).report.as_dict()["skipped"] == whole
    stopped_in(2, data, tmp_path / "q", **asked)
    page(tmp_path / "q", tmp_path / "page.html")
    assert "6 rows were skipped" in (tmp_path / "page.html").read_text()
    report = fit(data, out=tmp_path / "q", resume=True, on_error="raise", infinities="clip").report.as_dict()
    assert [entry["rows"] for entry in report["skipped"]] == [2, 2, 1, 1] and report["rows_seen"] == 2 * ROWS - 4


def stopped_in(times: int, data: Any, out: Path, **asked: Any) -> None:
    """Stop a run before so many scores of the validation data count."""
    score, done = validation.score, list[Any]()

    def interrupted(*given: Any) -> Any:
        done.append(score(*given))
        if len(done) == times:
            raise KeyboardInterrupt
        return done[-1]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(validation, "score", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(data, out=out, **asked)


def test_a_run_that_failed_late_goes_on(tmp_path: Path) -> None:
    """Each change is recorded with the rows seen, and what was learned before stays."""
    data = write(tmp_path / "data", table({3_900: np.inf}))
    changes: list[tuple[dict[str, Any], str]] = [
        ({"infinities": "clip"}, "infinities"), ({"on_error": "skip", "max_skipped": 0.5}, "on_error"),
        ({"validate": table(), "infinities": "missing"}, "infinities"),
    ]  # fmt: skip
    for i, (change, name) in enumerate(changes):
        run = tmp_path / f"{i}"
        stopped(data, run)
        with pytest.raises(BadValueError, match="--infinities clip"):
            fit(data, out=run, resume=True)
        report = fit(data, out=run, resume=True, **change).report.as_dict()
        assert {each["setting"] for each in report["changes"]} == set(change)
        assert all(0 <= each["rows_seen"] <= 3_900 for each in report["changes"])
        assert report["settings"][name] == change[name]
        assert [entry["rows"] for entry in report["skipped"]] == ([1] if "on_error" in change else [])


def stopped(data: Any, out: Path, **asked: Any) -> None:
    def stop(now: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(data, out=out, progress=stop, **ASKED | asked)


def test_other_values_of_the_same_chunks_are_accepted_if_asked(tmp_path: Path) -> None:
    data, run = write(tmp_path / "data", table()), tmp_path / "r"
    stopped(data, run, epochs=2)
    changed = table({3_900: 5.0}).slice(3_000)
    pq.write_table(changed, data / "3.parquet", row_group_size=500)
    with pytest.raises(RunError, match=r"--data-changed accept.*--continue-from"):
        fit(data, out=run, resume=True)
    report = fit(data, out=run, resume=True, data_changed="accept").report.as_dict()
    (change,) = report["changes"]
    assert change["setting"] == "data" and change["was"] == "3.parquet" and change["rows_seen"] <= 2 * ROWS
    assert any("learned as they are now: 3.parquet" in warning for warning in report["warnings"])


def test_what_the_fingerprint_does_not_show_is_accepted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of large data it is a sample. All chunks were read before, so nothing but the change of the file shows it."""
    data, run = write(tmp_path / "data", table()), tmp_path / "r"
    monkeypatch.setattr(identity, "_fingerprint", lambda reader: "the same")
    fit(data, out=run, **ASKED)
    pq.write_table(table({3_900: 5.0}).slice(3_000), data / "3.parquet", row_group_size=500)
    report = fit(data, out=run, resume=True, epochs=2, data_changed="accept").report.as_dict()
    assert [(change["setting"], change["was"]) for change in report["changes"]] == [("data", "3.parquet")]
    again = fit(data, out=run, resume=True, epochs=3, data_changed="accept").report.as_dict()
    assert again["changes"] == report["changes"]  # nothing was written since


def test_a_chunk_that_was_mended_is_learned_again(tmp_path: Path) -> None:
    data, run = write(tmp_path / "data", table()), tmp_path / "r"
    path = data / "3.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + bytes(40) + whole[44:])  # the first page of the first row group
    first = fit(data, out=run, on_error="skip", max_skipped=1.0, **ASKED).report
    assert [(entry["chunk"], entry["rows"]) for entry in first.skipped] == [("3.parquet:0", 500)]
    path.write_bytes(whole)
    second = fit(data, out=run, resume=True, epochs=2, data_changed="accept").report
    assert second.skipped == first.skipped and second.rows_seen == 2 * ROWS - 500


def test_rows_that_are_others_are_not_accepted(tmp_path: Path) -> None:
    data, run = write(tmp_path / "data", table()), tmp_path / "r"
    stopped(data, run, epochs=2)
    pq.write_table(table().slice(3_000), data / "3.parquet", row_group_size=250)
    with pytest.raises(RunError, match="--continue-from"):
        fit(data, out=run, resume=True, data_changed="accept")


def test_other_validation_data_judge_anew(tmp_path: Path) -> None:
    run = tmp_path / "r"
    stopped(table(), run, epochs=3, validate=table(), patience=5)
    other = table(labels=dict.fromkeys(range(50), "a"))
    report = fit(table(), out=run, resume=True, validate=other).report.as_dict()
    assert [change["setting"] for change in report["changes"]] == ["validate"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (mark,) = [i for i, line in enumerate(lines) if line.get("changed") == "validate"]
    assert lines[mark]["progressive"] is None and lines[-1]["validation"]["loss"] > 0 and mark < len(lines) - 1
