"""The loop as a whole: the same bits whoever computes, scores that are what they say, errors that are clear."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import streamtrain
from streamtrain.errors import BadValueError, BudgetRefused, ColumnError, DataError, DivergedError, UsageError
from streamtrain.tools.make import make
from streamtrain.train.trainer import Progress


@pytest.fixture(scope="module")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "clicks"
    make("clicks", rows=60_000, columns=12, out=path, files=3, chunk_rows=4_000)
    return path


def weights_of(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_weights_do_not_depend_on_who_computes_or_how_much_memory_there_is(clicks: Path, tmp_path: Path) -> None:
    settings: list[dict[str, Any]] = [{"threads": n, "memory": m} for n, m in ((1, None), (2, "1500MB"), (8, "4GB"))]
    runs = []
    for i, setting in enumerate(settings):
        streamtrain.fit(str(clicks), target="y", window_rows=20_000, out=tmp_path / str(i), **setting)
        runs.append(weights_of(tmp_path / str(i)))
    assert len(set(runs)) == 1
    streamtrain.fit(str(clicks), target="y", window_rows=20_000, seed=1, out=tmp_path / "other")
    assert weights_of(tmp_path / "other") not in runs


def test_one_pass_comes_near_the_truth(tmp_path: Path) -> None:
    for name, metric in (("clicks", "loss"), ("regression", "loss"), ("clusters", "loss")):
        made = make(name, rows=150_000, columns=10, out=tmp_path / name)
        report = streamtrain.fit(str(tmp_path / name), target="y").report
        assert report.metrics["progressive"][metric] < 1.12 * made["best_loss"], name


def test_held_out_rows_are_not_trained_and_scored_once(clicks: Path) -> None:
    report = streamtrain.fit(str(clicks), target="y", holdout=0.25, epochs=2).report
    assert report.rows_seen == 2 * report.rows
    assert 0.74 < report.rows / 60_000 < 0.76
    assert abs(report.metrics["holdout"]["loss"] - report.metrics["progressive"]["loss"]) < 0.05


def test_a_single_window_scores_held_out_rows_with_the_final_model(clicks: Path) -> None:
    """Where the set is one window, the held-out score is that of the model at the epoch's end."""
    result = streamtrain.fit(str(clicks), target="y", holdout=0.25)
    rest = streamtrain.evaluate(result.model, str(clicks))["metrics"]["loss"]
    assert result.report.plan.windows == 1
    assert abs(result.report.metrics["holdout"]["loss"] - rest) < 0.02


def test_validation_is_scored_after_each_epoch(clicks: Path) -> None:
    result = streamtrain.fit(str(clicks), target="y", validate=str(clicks))
    assert result.report.metrics["validation"] == streamtrain.evaluate(result.model, str(clicks))["metrics"]


def test_validation_without_a_feature_is_refused_before_training(clicks: Path) -> None:
    started: list[Progress] = []
    with pytest.raises(ColumnError, match="x0"):
        streamtrain.fit(
            str(clicks), target="y", validate={"y": np.array([0, 1]), "z": np.zeros(2)}, progress=started.append
        )
    assert not started


def test_rows_that_are_not_finite_are_named(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(20_000, 3)).astype(np.float32)
    x[17_123, 1] = -np.inf
    data = {"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": (x[:, 0] > 0).astype(int)}
    with pytest.raises(BadValueError, match=r"feature 'b' is infinite.* in row 17,123 of .*--infinities"):
        streamtrain.fit(data, target="y", out=tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["metrics.jsonl"]
    for infinities in ("clip", "missing"):
        found = streamtrain.fit(data, target="y", infinities=infinities, out=tmp_path / infinities).report
        assert found.metrics["progressive"]["accuracy"] > 0.95 and found.preparation["numbers"] == 3
        assert found.preparation["slots_used"] == (infinities == "missing")


@pytest.mark.parametrize("rows", [1_000, 60_000])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "normalized"])
def test_divergence_is_an_error(optimizer: str, rows: int) -> None:
    x = np.random.default_rng(0).normal(size=(rows, 3))
    with pytest.raises(DivergedError, match="--learning-rate"):
        streamtrain.fit({"x": x, "y": x[:, 0]}, target="y", optimizer=optimizer, learning_rate=1e38)


def test_wide_integers_keep_their_digits() -> None:
    """Identifiers around 1e18 differ by less than a float32 can tell: they are taken about their middle."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 1000, 20_000) + 10**18
    data = {"x": x, "y": (x % 10**6 > 500).astype(int)}
    assert streamtrain.fit(data, target="y", epochs=3).report.metrics["progressive"]["accuracy"] > 0.9


def test_settings_that_cannot_be_are_refused() -> None:
    data = {"x": np.zeros(10), "y": np.arange(10) % 2}
    with pytest.raises(TypeError, match="unexpected keyword argument 'batchsize'"):
        streamtrain.fit(data, target="y", batchsize=3)
    with pytest.raises(UsageError, match="--batch-size 0: must be at least 1"):
        streamtrain.fit(data, target="y", batch_size=0)
    with pytest.raises(BudgetRefused, match="Nothing was read"):
        streamtrain.fit(data, target="y", memory="20MB")
    with pytest.raises(DataError, match="one class"):
        streamtrain.fit({"x": np.zeros(10), "y": np.zeros(10, int)}, target="y")


def test_progress_is_reported_to_the_end(clicks: Path) -> None:
    seen: list[Progress] = []
    streamtrain.fit(str(clicks), target="y", progress=seen.append)
    assert seen[-1].rows_seen == seen[-1].rows_total == 60_000
