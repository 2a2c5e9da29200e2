"""The harness of bench/accuracy.py and bench/criteo.py, on tables of a few rows."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))

import accuracy
import peers
import peers_page
import peers_tables
import peers_vw

LESS = accuracy.Set("less", "y", "loss", 0.5, 0.4)
MORE = accuracy.Set("more", "y", "accuracy", 0.8, 0.9, slack=0.03)


def test_lines_of_vowpal_wabbit_leave_out_what_is_missing_or_zero() -> None:
    table = pa.table({"n": [1.5, 0.0, None], "c": ["a b", "x:y", None], "y": ["no", "yes", "no"]})
    assert peers_vw.lines(table, "y", ["no", "yes"]).to_pylist() == ["-1 | n:1.5 c_a_b", "1 | c_x_y", "-1 |"]
    assert peers_vw.lines(table, "y", ["maybe", "no", "yes"])[0].as_py().startswith("2 |")
    assert peers_vw.lines(table.select(["c", "n"]), "n")[0].as_py() == "1.5 | c_a_b"


def test_predictions_of_vowpal_wabbit(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("0.25\n1:0.5 2:0.5\n")
    assert peers_vw.predictions(tmp_path / "p") == [[0.25], [0.5, 0.5]]


def test_matrices_are_standardised_one_hot_and_missing_at_the_mean() -> None:
    pytest.importorskip("scipy", reason="scikit-learn and scipy are not installed")
    train = pa.table({"n": [0.0, 2.0, None], "k": [1, 1, 1], "c": ["a", "b", None], "y": [0, 1, 0]})
    test = pa.table({"n": [4.0, None], "k": [1, 3], "c": ["b", "new"], "y": [1, 0]})
    first, second = peers.matrices(peers.Rows(train, test, "y", "classify"))
    assert first.toarray().tolist() == [[-1, 0, 1, 0], [1, 0, 0, 1], [0, 0, 0, 0]]
    assert second.toarray().tolist() == [[3, 0, 0, 1], [0, 2, 0, 0]]
    rows = peers.Rows(train.select(["n", "y"]).slice(0, 2), test.select(["n", "y"]), "y", "classify")
    assert peers.matrices(rows)[0].tolist() == [[-1], [1]]


def test_scores() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    likely = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    found = peers.score("classify", np.array([0, 1, 1]), likely)
    assert found == pytest.approx({"loss": -np.log([0.9, 0.4, 0.8]).mean(), "accuracy": 2 / 3, "auc": 1.0})
    assert peers.score("regress", np.array([0.0, 2.0]), np.array([0.0, 1.0])) == pytest.approx(
        {"rmse": 0.5**0.5, "r2": 0.5}
    )


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [2, 3])
def test_both_peers_learn_a_generated_table(tmp_path: Path, kinds: int) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    pytest.importorskip("vowpalwabbit", reason="vowpalwabbit is not installed")
    rng = np.random.default_rng(0)
    classes = 3 - rng.integers(1, kinds + 1, 1500)
    columns = {"n": rng.normal(size=1500) + 3 * (classes == 2), "c": np.where(classes == 1, "one", "other")}
    noisy = np.where(rng.random(1500) < 0.1, 2, classes)
    table = pa.table(columns | {"y": noisy})
    rows = peers.Rows(table.slice(0, 1000), table.slice(1000), "y", "classify")
    found = peers.scikit_learn(rows, 500) | peers.vowpal_wabbit(rows, tmp_path)
    assert ("scikit-learn, full batch of 500 rows" in found) == (kinds == 3)
    assert found["Vowpal Wabbit, 5 passes"]["loss"] < 0.5
    assert len(found) == 5 and all(scores["accuracy"] > 0.8 for scores in found.values()), found


def scores(one: float, one_shuffled: float, five: float, metric: str) -> dict[str, peers.Scores]:
    return {
        accuracy.label(1, "original order"): {metric: one},
        accuracy.label(1, "shuffled"): {metric: one_shuffled},
        accuracy.label(5, "original order"): {metric: five},
    }


@pytest.mark.parametrize(
    ("case", "found", "met"),
    [
        (LESS, scores(0.5, 0.5, 0.404, "loss"), [True, True, True, False]),
        (LESS, scores(0.501, 0.49, 0.405, "loss"), [False, False, False, False]),
        (MORE, scores(0.8, 0.807, 0.874, "accuracy"), [True, True, True, False]),
        (MORE, scores(0.79, 0.8, 0.87, "accuracy"), [False, False, False, False]),
        (LESS, {}, [False] * 4),
    ],
)
def test_what_is_wanted(case: accuracy.Set, found: dict[str, peers.Scores], met: list[bool]) -> None:
    assert [check.met for check in accuracy.checks(case, found)] == met  # five passes on shuffled rows are missing


def test_the_shuffled_copy_has_the_same_rows_in_files_of_the_same_size(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for name, start in (("a", 0), ("b", 100)):
        pq.write_table(
            pa.table({"x": range(start, start + 100)}), tmp_path / "train" / f"{name}.parquet", row_group_size=40
        )
    table = peers.shuffled(peers.read(tmp_path / "train"))
    copy = accuracy.shuffled_copy(table, tmp_path / "train", tmp_path)
    values = peers.read(copy)["x"].to_pylist()
    assert sorted(values) == list(range(200)) and values != list(range(200))
    assert pq.read_metadata(copy / "b.parquet").num_row_groups == 3


def test_the_shuffled_copy_of_a_zarr_group(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "train.zarr")
    images = np.arange(60, dtype=np.uint8).reshape(10, 2, 3)
    group.create_array("X", data=images, chunks=(5, 2, 3))
    group.create_array("y", data=np.arange(10, dtype=np.uint8), chunks=(5,))
    table = peers.shuffled(peers.read(tmp_path / "train.zarr"))
    copy = zarr.open_group(accuracy.shuffled_copy(table, tmp_path / "train.zarr", tmp_path), mode="r")
    order = np.asarray(copy["y"][:])
    assert copy["X"].chunks == (5, 2, 3)
    assert not np.array_equal(order, range(10)) and np.array_equal(copy["X"][:], images[order])


def test_the_page_shows_every_model_and_what_failed() -> None:
    result = accuracy.Result(LESS, 10, {accuracy.label(1, "original order"): {"loss": 0.6, "seconds": 1.0}})
    result.checks = list(accuracy.checks(LESS, result.scores))
    result.failed = {accuracy.label(5, "shuffled"): "error: no room"}
    page = peers_page.page([result])
    assert "| ours, 1 pass, original order | 0.6000 | 1.0     |" in page and "shuffled: error: no room" in page
    assert "| less | 1 pass                  | loss 0.6000 | ≤ 0.5000   | NO  |" in page


@pytest.mark.slow
def test_a_command_that_fails_is_told_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(accuracy.RunFailed, match=r"error: .*nothing"):
        accuracy.fit(LESS, tmp_path / "nothing", tmp_path / "test", 1, tmp_path)


def test_clicks_are_the_same_rows_whatever_the_length(tmp_path: Path) -> None:
    made = peers_tables.Clicks(numbers=2, values=(10, 1000))
    loss = peers_tables.write(made, tmp_path / "short", 1, "zstd")
    peers_tables.write(peers_tables.Clicks(numbers=2, values=(10, 1000)), tmp_path / "long", 60_000, "snappy")
    short, long = (peers.read(tmp_path / name) for name in ("short", "long"))
    assert (short.num_rows, long.num_rows) == (50_000, 100_000) and long.slice(0, 50_000).equals(short)
    assert not long["n1"].slice(50_000).equals(short["n1"])
    assert [len(short[name].unique()) for name in ("c1", "c2")] == [10, 1000]  # every value is reached
    assert abs(np.mean(short["label"]) - 0.25) < 0.01 and 0.3 < loss < 0.6
    other = peers_tables.Clicks(numbers=2, values=(10, 1000), seed=1).block(0)
    assert not set(other["c2"].to_pylist()) & set(short["c2"].to_pylist())
