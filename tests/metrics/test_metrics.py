"""Running metrics against scikit-learn, at any cut into batches."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import examples

from streamtrain.errors import UsageError
from streamtrain.metrics import Classification, Metrics, Regression, make_metrics
from streamtrain.metrics.scores import HIGHER_IS_BETTER

KINDS = {"binary": ("classify", 2), "many": ("classify", 5), "regress": ("regress", 0)}


def feed(metrics: Metrics, y: np.ndarray, p: np.ndarray, w: np.ndarray | None, cuts: list[int]) -> None:
    edges = [0, *sorted(cut % (len(y) + 1) for cut in cuts), len(y)]
    for start, stop in itertools.pairwise(edges):
        metrics.update(y[start:stop], p[start:stop], None if w is None else w[start:stop])


def draw(kind: str, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    if kind == "regress":
        y = (rng.standard_normal(rows) + 1e4).astype(np.float32)
        return y, (y + rng.standard_normal(rows) * 0.5).astype(np.float32)
    if kind == "binary":
        logit = rng.normal(-2, 2, rows)
        y = (logit + rng.logistic(size=rows) > 0).astype(np.int32)
        return y, (1 / (1 + np.exp(-logit))).astype(np.float32)
    p = rng.dirichlet(np.ones(5), rows).astype(np.float32)
    return rng.integers(0, 5, rows).astype(np.int32), p


def calibration(y: np.ndarray, p: np.ndarray, w: np.ndarray) -> float:
    """By hand, of rows that are hits (y) with a probability p."""
    p = p.astype(float)
    found = 0.0
    for k in range(15):
        group = (p * 15 >= k) & ((p * 15 < k + 1) | (k == 14))
        found += abs(w[group].sum() * (np.average(y[group], weights=w[group]) - np.average(p[group], weights=w[group]))
                     if w[group].sum() else 0)  # fmt: skip
    return float(found / w.sum())


@examples(40)
@given(
    kind=st.sampled_from(list(KINDS)),
    rows=st.sampled_from([5, 4096, 18000]),
    weighted=st.booleans(),
    cuts=st.lists(st.integers(0, 10**6), max_size=6),
    seed=st.integers(0, 5),
)
def test_against_scikit_learn(kind: str, rows: int, weighted: bool, cuts: list[int], seed: int) -> None:
    skm = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    y, p = draw(kind, rows, seed)
    w = np.random.default_rng(seed).random(rows).astype(np.float32) if weighted else None
    metrics = make_metrics(*KINDS[kind])
    feed(metrics, y, p, w, cuts)
    result = metrics.result()
    if kind == "regress":
        loss = skm.mean_squared_error(y.astype(float), p.astype(float), sample_weight=w)
        mae = skm.mean_absolute_error(y.astype(float), p.astype(float), sample_weight=w)
        r2 = skm.r2_score(y.astype(float), p.astype(float), sample_weight=w)
        assert result == pytest.approx({"loss": loss, "rmse": math.sqrt(loss), "mae": mae, "r2": r2}, rel=1e-6)
        return
    assert isinstance(metrics, Classification)
    labels = list(range(2 if kind == "binary" else 5))
    assert result["loss"] == pytest.approx(skm.log_loss(y, p, sample_weight=w, labels=labels), rel=1e-5)
    voted = (p >= 0.5).astype(int) if kind == "binary" else p.argmax(axis=1)
    assert result["accuracy"] == pytest.approx(skm.accuracy_score(y, voted, sample_weight=w), rel=1e-6)
    hits, top = (y, p) if kind == "binary" else (voted == y, p.max(axis=1))
    bound = metrics.calibration_error_bound()
    exact = calibration(hits, top, np.ones(rows) if w is None else w.astype(float))
    assert bound is not None and result["calibration_error"] is not None
    assert abs(result["calibration_error"] - exact) <= bound + 1e-9
    assert bound == 0 if kind == "many" else rows < 1000 or bound < 5e-3
    table = skm.precision_recall_fscore_support(y, voted, labels=labels, sample_weight=w, zero_division=np.nan)
    weight = np.ones(rows) if w is None else w.astype(float)
    for c, row in enumerate(metrics.per_class()):
        assert list(row) == ["rows", "predicted", "precision", "recall", "f1"]
        found = [np.nan if value is None else value for value in row.values()]
        expected = [weight[y == c].sum(), weight[voted == c].sum(), *(column[c] for column in table[:3])]
        assert found == pytest.approx(expected, rel=1e-6, nan_ok=True)


@examples(30)
@given(
    kind=st.sampled_from(list(KINDS)),
    weighted=st.sampled_from(["no", "yes", "ones", "in the middle"]),
    cuts=st.lists(st.integers(0, 40_000), max_size=4),
)
def test_neither_cuts_nor_questions_nor_a_resume_change_a_bit(kind: str, weighted: str, cuts: list[int]) -> None:
    rows = 40_000  # more than two blocks
    y, p = draw(kind, rows, 1)
    w = np.ones(rows, np.float32)
    if weighted == "yes":
        w = np.random.default_rng(1).random(rows).astype(np.float32)
    spans = {"no": (0, 0), "in the middle": (18_000, 19_000)}  # where weights are given at all
    start, stop = spans.get(weighted, (0, rows))
    w[18_000:18_500] = 2 if weighted == "in the middle" else w[18_000:18_500]
    whole, parts = make_metrics(*KINDS[kind]), make_metrics(*KINDS[kind])
    borders = sorted({0, start, stop, rows})
    for first, last in itertools.pairwise(borders):
        whole.update(y[first:last], p[first:last], w[first:last] if start <= first < stop else None)
    for first, last in itertools.pairwise(sorted([*borders, *cuts])):
        parts.update(y[first:last], p[first:last], w[first:last] if start <= first < stop else None)
        parts.result()
        for value in parts.state_dict().values():
            value[:] = np.nan  # copies
        state = parts.state_dict()
        parts = make_metrics(*KINDS[kind])
        parts.load_state_dict(state)
        for value in state.values():
            value[:] = np.nan
        assert parts.result()["loss"] is None or math.isfinite(parts.result()["loss"] or 0)
    assert whole.result() == parts.result() and whole.result()["loss"] == whole.loss()
    if isinstance(whole, Classification) and isinstance(parts, Classification):
        assert whole.per_class() == parts.per_class()
    for name, value in whole.state_dict().items():
        np.testing.assert_array_equal(value, parts.state_dict()[name])


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_counts_a_row_so_many_times(kind: str) -> None:
    y, p = draw(kind, 3000, 2)
    times = np.random.default_rng(2).integers(0, 4, 3000)
    weighted, repeated = make_metrics(*KINDS[kind]), make_metrics(*KINDS[kind])
    weighted.update(y, p, times.astype(np.float32))
    repeated.update(np.repeat(y, times), np.repeat(p, times, axis=0))
    assert weighted.result() == pytest.approx(repeated.result(), rel=1e-6)
    if isinstance(weighted, Classification) and isinstance(repeated, Classification):
        assert weighted.per_class() == repeated.per_class()


@pytest.mark.parametrize("kind", KINDS)
def test_each_score_says_whether_higher_is_better(kind: str) -> None:
    assert set(make_metrics(*KINDS[kind]).result()) <= set(HIGHER_IS_BETTER)


def test_perfect_and_hopeless_scores() -> None:
    y = np.array([0, 1] * 50, np.int32)
    for p, auc, accuracy, calibration_error in ((y, 1, 1, 0), (1 - y, 0, 0, 1), (y * 0.0 + 0.5, 0.5, 0.5, 0)):
        metrics = Classification(2)
        metrics.update(y, p.astype(np.float32))
        result = metrics.result()
        assert result["auc"] == auc and result["accuracy"] == accuracy and math.isfinite(result["loss"] or 0)
        assert result["average_precision"] == (1 if auc == 1 else 0.5)
        assert result["calibration_error"] == pytest.approx(calibration_error, abs=1e-3)


def test_r2_is_sound_at_a_big_offset() -> None:
    rng = np.random.default_rng(0)
    y = (np.round(rng.standard_normal(20_000) * 64) + 1e7).astype(np.float32)
    p = (y + np.float32(16)).astype(np.float32)
    metrics = Regression()
    metrics.update(y, p)
    assert metrics.result()["r2"] == pytest.approx(1 - 256 / np.var(y.astype(np.float64)), rel=1e-9)


@pytest.mark.parametrize("weights", [None, np.zeros(3, np.float32)])
def test_undefined_is_none(weights: np.ndarray | None) -> None:
    two, three, number = Classification(2), Classification(3), Regression()
    if weights is not None:  # rows that weigh nothing are no rows
        two.update(np.array([0, 1, 1]), np.full(3, 0.25, np.float32), weights)
        three.update(np.array([0, 1, 2]), np.full((3, 3), 0.25, np.float32), weights)
        number.update(np.arange(3.0), np.zeros(3, np.float32), weights)
    binary = ("loss", "accuracy", "auc", "average_precision", "calibration_error")
    assert list(two.result().items()) == [(name, None) for name in binary]
    assert list(three.result().items()) == [(name, None) for name in ("loss", "accuracy", "calibration_error")]
    assert number.result() == {"loss": None, "rmse": None, "mae": None, "r2": None}
    nothing = {"rows": 0, "predicted": 0, "precision": None, "recall": None, "f1": None}
    assert two.per_class() == [nothing] * 2 and three.per_class() == [nothing] * 3
    assert two.auc_error() is None and two.average_precision_error() is None
    assert two.calibration_error_bound() is None and three.calibration_error_bound() is None


def test_one_class_only() -> None:
    for only, precision in ((0, None), (1, 1)):
        one = Classification(2)
        one.update(np.full(3, only), np.full(3, 0.25, np.float32))
        result = one.result()
        assert result["auc"] is None and one.auc_error() is None and result["accuracy"] == 1 - only
        assert result["average_precision"] == precision
        assert result["calibration_error"] == pytest.approx(abs(only - 0.25), abs=1e-3)
    same = Regression()
    same.update(np.ones(3, np.float32), np.zeros(3, np.float32))
    assert same.result()["r2"] is None and same.result()["loss"] == 1


@pytest.mark.filterwarnings("error")
def test_scores_that_are_no_probabilities_are_scored_all_the_same() -> None:
    """Of a loss that gives margins, and of a model that diverged: its loss is then not a number, and said elsewhere."""
    y = np.array([0, 1, 2, 1])
    for worst in (-3, np.nan):
        metrics = Classification(3)
        metrics.update(y, np.array([[2, -1, 0], [worst, worst, worst], [0, 0, 1], [0, 1, 0]], np.float32))
        assert 0 <= (metrics.result()["calibration_error"] or 0) <= 1
    margins = Classification(2)
    margins.update(y > 0, np.array([-2, 0.3, 5, np.inf], np.float32))
    assert margins.result()["accuracy"] == 0.75 and margins.result()["auc"] == 1


def test_ten_thousand_classes_are_bounded() -> None:
    metrics = Classification(10_000)
    before = metrics.nbytes
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10_000, 300)
    metrics.update(y, rng.random((300, 10_000), np.float32))
    assert len(metrics.per_class()) == 10_000 and sum(row["rows"] or 0 for row in metrics.per_class()) == 300
    held = sum(value.nbytes for value in vars(metrics).values() if isinstance(value, np.ndarray))
    assert metrics.nbytes == before == held < 10**6


def test_what_cannot_be() -> None:
    with pytest.raises(UsageError, match="task is 'rank'"):
        make_metrics("rank")
    with pytest.raises(UsageError, match="classes is 1"):
        make_metrics("classify", 1)
    with pytest.raises(UsageError, match="two classes; there are 3"):
        Classification(3).auc_error()
