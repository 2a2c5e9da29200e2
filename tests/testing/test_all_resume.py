"""Everything of ours that has a state goes on from it exactly; on loaders see `tests/load/test_resuming.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from streamtrain.batch import Batch, Texts
from streamtrain.learn import LOSSES, OPTIMIZERS, Linear
from streamtrain.learn.family import recipe
from streamtrain.load import Loader, Source
from streamtrain.metrics import Patience, make_metrics
from streamtrain.model import Model
from streamtrain.prepare import Preparation, Shape, Standardize, TargetScale, Vocabulary
from streamtrain.prepare.settings import FeatureSettings, PreparationSettings
from streamtrain.testing import assert_resumes_exactly
from streamtrain.testing.learners.generated import generated_batch
from streamtrain.testing.learners.values import copied

WORDS = np.array(["red", "blue", "green", "ümlaut", "a", "of", "the sea"])

# -- learners --------------------------------------------------------------------------------------------------------------


def learn(learner: Linear, batch: Batch) -> Any:
    found = learner.predict(batch.features, batch.sparse)
    learner.learn(batch)
    return found


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_with_each_optimizer(loss: str, optimizer: str) -> None:
    """Each state is loaded into a learner that has learned something else."""
    classes = {"regress": 0, "classify": 4 if loss == "softmax" else 2}[LOSSES[loss].task]
    several = 1 if loss == "softmax" else 3
    kinds: list[dict[str, Any]] = [
        {"slots": 30, "l1": 1e-3, "l2": 1e-3}, {"average": False}, {"slots": 30, "targets": several, "l1": 1e-3},
    ]  # fmt: skip
    for asked in kinds:
        shape = {"features": 4, "classes": classes, "slots": asked.get("slots", 0), "targets": asked.get("targets", 1)}
        first, *batches = [
            generated_batch(rows, i, weights=i != 2, **shape) for i, rows in enumerate((16, 16, 1, 7, 16, 16))
        ]

        def make(asked: dict[str, Any] = asked) -> Linear:
            return Linear(4, classes, loss=loss, optimizer=optimizer, **asked)

        def used(make: Callable[[], Linear] = make, first: Batch = first) -> Linear:
            learner = make()
            learner.learn(first)
            return learner

        assert_resumes_exactly(make, batches, step=learn, into=used)


# -- preparation -----------------------------------------------------------------------------------------------------------


def rows_of(count: int, seed: int) -> Batch:
    """Five numbers, one in ten missing; two codes; a text."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((count, 5), np.float32)
    X[:, 0] = X[:, 0] > 0
    X[rng.random(X.shape) < 0.1] = np.nan
    words = [word.encode() for word in WORDS]
    which = rng.integers(0, len(words), (count, 1))
    starts, sizes = np.cumsum([0, *map(len, words)])[which], np.array([*map(len, words)], np.int32)[which]
    codes = rng.integers(1, 50, (count, 2)).astype(np.uint32)
    texts = Texts(np.frombuffer(b"".join(words), np.uint8), starts, sizes)
    return Batch(X, np.exp(X[:, 1:2]).ravel(), None, np.arange(count), hashes=codes, texts=texts)


STREAM = [rows_of(count, seed) for seed, count in enumerate((40, 1, 700, 700, 700, 40, 300))]  # 2048 rows settle it


@pytest.mark.parametrize(("infinities", "bits"), [("error", 5), ("clip", 9), ("missing", 5)])
def test_preparation(infinities: str, bits: int) -> None:
    shape = Shape(tuple("abcde"), ("city", "day"), 2, ((0, 1),), ("text",))
    assert_resumes_exactly(
        lambda: Preparation(shape, FeatureSettings(bits, infinities)), STREAM, step=Preparation.learn
    )


def test_preparation_of_numbers() -> None:
    """Of which some are missing once there have been many."""
    whole = [np.where(np.isnan(batch.features), 0, batch.features) for batch in STREAM]
    batches = [Batch(X, np.zeros(len(X)), None, np.arange(len(X))) for X in (*whole, STREAM[0].features, *whole[:2])]
    assert_resumes_exactly(lambda: Preparation(Shape(tuple("abcde"))), batches, step=Preparation.learn)


def test_standardize() -> None:
    def observe(columns: Standardize, X: NDArray[np.float32]) -> Any:
        columns.observe(X, np.isnan(X))
        return columns.transform(X)

    batches = [np.where(np.isnan(batch.features), 0, batch.features) for batch in STREAM]
    assert_resumes_exactly(lambda: Standardize(5), batches, step=observe)


@pytest.mark.parametrize("bits", [4, 9])
def test_slots(bits: int) -> None:
    def observe(slots: Vocabulary, codes: NDArray[np.uint32]) -> Any:
        return slots.transform(codes), slots.observe(codes)

    batches = [batch.hashes.ravel() for batch in STREAM if batch.hashes is not None]
    assert_resumes_exactly(lambda: Vocabulary(bits), batches, step=observe)


@pytest.mark.parametrize("unit", ["deviation", "mean"])
@pytest.mark.parametrize("targets", [1, 3])
def test_target_scale(unit: str, targets: int) -> None:
    def observe(scale: TargetScale, y: NDArray[np.float32]) -> Any:
        before = scale.transform(y)
        scale.observe(y)
        return before, scale.inverse(before)

    rng = np.random.default_rng(0)
    batches = rng.exponential(size=(6, 16, targets)[: 2 + (targets > 1)]).astype(np.float32)
    assert_resumes_exactly(lambda: TargetScale(targets, unit), batches, step=observe)


# -- metrics ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("task", "classes", "targets"),
    [("classify", 2, 1), ("classify", 5, 1), ("regress", 0, 1), ("regress", 0, 3), ("classify", 2, 2)],
)
def test_metrics(task: str, classes: int, targets: int, weighted: bool) -> None:
    rng, names = np.random.default_rng(0), [str(i) for i in range(targets)]

    def rows(count: int) -> Any:
        shape = (count, targets)[: 1 + (targets > 1)]
        predictions = rng.random((count, classes) if classes > 2 else shape, np.float32)
        y = rng.integers(0, classes, shape) if classes else rng.standard_normal(shape, np.float32)
        weights = rng.random(count, np.float32) if weighted and count != 7 else None
        return y, predictions / (predictions.sum(axis=1, keepdims=True) if classes > 2 else 1), weights

    def update(metrics: Any, given: Any) -> Any:
        metrics.update(*given)
        return metrics.result(), metrics.loss()

    steps = [rows(count) for count in (100, 7, 9000, 7000, 20_000, 384, 50)]  # over several blocks of 16,384 rows
    assert_resumes_exactly(partial(make_metrics, task, classes, names), steps, step=update)


@pytest.mark.parametrize("minimize", [True, False])
def test_patience(minimize: bool) -> None:
    values = [float("nan"), 0.5, 0.4, 0.6, 0.39999, 0.7, 0.3, 0.31, 0.32, 0.8, 0.2]

    def update(patience: Patience, value: float) -> Any:
        return patience.update(value), patience.epochs, patience.best

    assert_resumes_exactly(lambda: Patience(3, minimize=minimize), values, step=update)


# -- models ----------------------------------------------------------------------------------------------------------------

ROWS = 2500


def source_of(target: str | list[str], *, sparse: bool, weight: str | None = None, missing: bool = False) -> Source:
    rng, at = np.random.default_rng(0), np.arange(ROWS)
    x = rng.normal(size=(4, ROWS))
    columns: dict[str, Any] = {f"x{i}": pa.array(x[i], pa.float32(), mask=missing & (at % 9 == i)) for i in range(4)}
    columns |= {"a": 5 * x[0] + 100, "b": x[1] - x[2], "three": (x[0] > 0).astype(int) + (x[1] > 0), "two": x[0] > 0.1}
    columns |= {"w": rng.integers(0, 3, ROWS) / 2}
    if sparse:
        columns |= {"city": [f"city {i % 13}" for i in at]}
        columns |= {"text": [" ".join(rng.choice(WORDS, rng.integers(4, 12))) for _ in at]}
    left = {"a", "b", "three", "two", "w"} - {weight} - ({target} if isinstance(target, str) else {*target})
    found = Source.open(pa.table(columns), target=target, exclude=sorted(left), weight=weight)
    return found.surveyed().with_roles().with_offsets()


def loader_of(source: Source) -> Loader:
    return Loader(source, source.plan(memory=10**9, batch_size=100, window_rows=900), epochs=1, seed=3)


MODELS: list[dict[str, Any]] = [
    {"target": "a", "sparse": False},
    {"target": "a", "sparse": False, "missing": True},
    {"target": "a", "sparse": True, "weight": "w"},
    {"target": "a", "sparse": True, "loss": "quantile", "optimizer": "adagrad"},
    {"target": ["a", "b"], "sparse": False},
    {"target": ["a", "b"], "sparse": True, "missing": True},
    {"target": "two", "sparse": False},
    {"target": "two", "sparse": False, "missing": True, "optimizer": "adam"},
    {"target": "two", "sparse": True},
    {"target": "two", "sparse": True, "class_weights": (0.5, 2.0)},
    {"target": "three", "sparse": True, "weight": "w"},
    {"target": "three", "sparse": False, "average": False, "l1": 1e-4},
]


def model_of(asked: dict[str, Any]) -> tuple[Any, Source]:
    asked = dict(asked)
    data = {name: asked.pop(name) for name in ("target", "sparse", "weight", "missing") if name in asked}
    source = source_of(**data)
    prepared = PreparationSettings(10, class_weights=asked.pop("class_weights", ()))
    return lambda: Model(source.layout, recipe("linear", **asked), prepared), source


@pytest.mark.parametrize("asked", MODELS, ids=lambda asked: ", ".join(map(str, asked.values())))
@pytest.mark.parametrize("most", [1, 5])
def test_a_model_fed_from_a_loader(asked: dict[str, Any], most: int) -> None:
    make, source = model_of(asked)
    with loader_of(source) as loader:
        batches = [copied(replace(batch, positions=batch.rows)) for batch in loader.runs(most)]
    assert sum(map(len, batches)) == ROWS > 2048  # what learns many batches at once begins there
    states = 6 if asked["sparse"] else None
    assert_resumes_exactly(make, batches, step=lambda model, batch: model.train(batch, 100), most=states)


class Loop:
    """A loop of one's own: its state is that of the loader and of the model together."""

    def __init__(self, loader: Loader, model: Model) -> None:
        self.loader, self.model, self.close = loader, model, loader.close

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader.runs(4):
            yield batch.rows, self.model.train(batch, 100)

    def state_dict(self) -> dict[str, Any]:
        return self.model.state_dict() | {f"loader.{name}": n for name, n in self.loader.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        own = {name.removeprefix("loader."): n for name, n in state.items() if name.startswith("loader.")}
        self.loader.load_state_dict(own)
        self.model.load_state_dict({name: value for name, value in state.items() if not name.startswith("loader.")})


def test_a_loop_of_ones_own() -> None:
    make, source = model_of({"target": "two", "sparse": True})
    assert_resumes_exactly(lambda: Loop(loader_of(source), make()))
