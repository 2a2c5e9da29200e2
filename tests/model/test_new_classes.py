"""A new model that goes on from an older one: to the same bits, or with more classes."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import examples, state
from numpy.typing import NDArray

from streamtrain.batch import Batch
from streamtrain.columns.layout import Layout
from streamtrain.columns.role import Column
from streamtrain.columns.target import Target
from streamtrain.errors import UsageError
from streamtrain.learn import OPTIMIZERS, Linear, StreamStats
from streamtrain.learn.family import recipe
from streamtrain.learn.penalties import Penalty
from streamtrain.load import Loader
from streamtrain.load.source import Source
from streamtrain.model import Model
from streamtrain.model.new_classes import require_target, start_from
from streamtrain.prepare.settings import PreparationSettings

NUMBERS = tuple(Column(f"x{i}", pa.float32(), "number", "") for i in range(4))
CITY = Column("city", pa.string(), "category", "")
CENTRES = np.random.default_rng(5).normal(size=(6, 4)) * 3
BITS = PreparationSettings(hash_bits=8)


def model(target: Target | str, *, columns: Any = (*NUMBERS, CITY), bits: int = 8, **asked: Any) -> Model:
    """target: or a letter for each class."""
    target = Target("y", "classify", tuple(target)) if isinstance(target, str) else target
    return Model(Layout(columns, target), recipe("linear", **asked), PreparationSettings(hash_bits=bits))


def rows(classes: str, of: str, count: int, seed: int = 0, missing: float = 0.0) -> Batch:
    """Rows of some classes, by the places that these have among ``of``; the numbers of each lie about a point, and it has
    cities of its own."""
    rng = np.random.default_rng(seed)
    drawn = rng.choice([ord(c) - ord("a") for c in classes], count)
    X = (CENTRES[drawn] + rng.normal(size=(count, 4))).astype(np.float32)
    X[rng.random(X.shape) < missing] = np.nan
    codes = (1 + drawn * 3 + rng.integers(0, 8, count)).astype(np.uint32)[:, None]
    places = np.array([of.find(chr(ord("a") + d)) for d in drawn], np.int32)
    return Batch(X, places, None, np.arange(count), hashes=codes)


def learn(model: Model, batch: Batch, size: int = 32) -> None:
    if len(batch):
        model.train(replace(batch, features=batch.features.copy()), size)


def predict(model: Model, batch: Batch) -> NDArray[np.float64]:
    """Probabilities, shape (rows, classes)."""
    found = model.predict(replace(batch, features=batch.features.copy())).astype(np.float64)
    return np.stack([1 - found, found], axis=1) if found.ndim == 1 else found


TARGETS = {
    "logistic": Target("y", "classify", ("a", "b")),
    "softmax": Target("y", "classify", ("a", "b", "c")),
    "squared": Target("y", "regress", offset=7.0),
    "several": Target.of([Target("y", "classify", (0, 1)), Target("z", "classify", (0, 1))]),
}


def batches_for(target: Target, seed: int) -> Batch:
    found: Any = rows("abc"[: target.kinds or 3], "abc", 600, seed, missing=0.02)
    if target.task == "regress":
        return replace(found, targets=(found.targets * 100 + found.hashes[:, 0]).astype(np.float32))
    return replace(found, targets=np.stack([found.targets, 1 - found.targets], axis=1)) if target.parts else found


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", TARGETS)
def test_with_the_same_classes_it_goes_on_to_the_same_bits(kind: str, optimizer: str) -> None:
    asked = {"optimizer": optimizer, "l1": 1e-5, "l2": 1e-5} if optimizer != "normalized" else {}
    old, new = (model(TARGETS[kind], **asked) for _ in range(2))
    data = [batches_for(TARGETS[kind], seed) for seed in range(2)]
    learn(old, data[0])
    start_from(new, old)
    assert state(new) == state(old) != state(model(TARGETS[kind], **asked))
    for m in (old, new):
        learn(m, data[1])
    assert state(new) == state(old)


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, str, dict[str, Any], int, int]:
    everything = "".join(sorted(draw(st.sets(st.sampled_from("abcdef"), min_size=3))))
    known = "".join(sorted(draw(st.sets(st.sampled_from(everything), min_size=2, max_size=len(everything) - 1))))
    asked = {
        "optimizer": draw(st.sampled_from(sorted(OPTIMIZERS))), "average": draw(st.booleans()),
        "l1": draw(st.sampled_from([0.0, 1e-4])), "l2": draw(st.sampled_from([0.0, 1e-4])),
    }  # fmt: skip
    return known, everything, asked, draw(st.sampled_from([0, 40, 700, 1500])), draw(st.integers(0, 99))


@examples(60)
@given(cases())
def test_known_classes_keep_their_proportions_and_a_new_one_is_unlikely(case: Any) -> None:
    known, everything, asked, count, seed = case
    old, new = model(known, **asked), model(everything, **asked)
    learn(old, rows(known, known, count, seed, missing=0.02))
    start_from(new, old)
    probe = rows(everything, everything, 200, seed + 1, missing=0.02)
    before, after = predict(old, probe), predict(new, probe)
    places = [everything.index(c) for c in known]
    kept = after[:, places]
    np.testing.assert_allclose(kept / kept.sum(axis=1, keepdims=True), before, rtol=0, atol=1e-5)
    added = np.setdiff1d(np.arange(len(everything)), places)
    assert after[:, added].max() <= (1 + 1e-3) / (min(count, 1000) + len(known)) and after[:, added].min() > 0
    assert {name: np.shape(v) for name, v in new.preparation.state_dict().items()} == {
        name: np.shape(v) for name, v in old.preparation.state_dict().items()
    }
    learn(new, rows(everything, everything, 100, seed))
    new.require_finite()


@pytest.mark.parametrize("known", ["ac", "abd"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_new_class_is_learned_and_the_others_are_not_forgotten(optimizer: str, known: str) -> None:
    old, new = model(known, optimizer=optimizer), model("abcd", optimizer=optimizer)
    learn(old, rows(known, known, 10_000))
    start_from(new, old)
    test = rows("abcd", "abcd", 2000, 9)
    is_old = np.isin(test.targets, [("abcd").index(c) for c in known])
    first = (predict(new, test).argmax(axis=1) == test.targets)[is_old].mean()
    assert first > 0.95
    slow = optimizer in ("sgd", "momentum", "adam")  # no rate of its own for a class; margins took 10,000 rows to grow
    learn(new, rows("abcd", "abcd", 6000 if slow else 1000, 3))
    right = predict(new, test).argmax(axis=1) == test.targets
    assert right[is_old].mean() > first - 0.05 and right[~is_old].mean() > 0.9


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_class_that_does_not_come_stays_unlikely(optimizer: str) -> None:
    """What would go wrong if a first gradient of next to nothing moved a weight a whole step."""
    old, new = model("abd", optimizer=optimizer), model("abcd", optimizer=optimizer)
    learn(old, rows("abd", "abd", 6000))
    start_from(new, old)
    learn(new, rows("abd", "abcd", 320, 1))
    test = rows("abd", "abcd", 2000, 9)
    after = predict(new, test)
    assert after[:, 2].mean() < 1e-3 and after[:, 2].max() < 1e-2
    before = predict(old, replace(test, targets=test.targets)).argmax(axis=1)
    assert (np.array([0, 1, 3])[before] == after.argmax(axis=1)).mean() > 0.98


def test_two_classes_by_logistic_loss_have_the_same_slopes_by_softmax() -> None:
    """Sums of squares, velocities and debts mean the same: a third class that says nothing aside."""
    kept = {"sgd": "weights", "momentum": "velocity", "adam": "mean", "normalized": "squares"}
    for optimizer, field in kept.items():
        old, new = model("ab", optimizer=optimizer), model("abc", optimizer=optimizer)
        learn(old, rows("ab", "ab", 2000))
        start_from(new, old)
        was, now = old.learner.state_dict()[field], new.learner.state_dict()[field]
        if optimizer in ("sgd", "momentum"):
            np.testing.assert_allclose(now[:, 1] - now[:, 0], was, rtol=1e-6)
        else:
            factor = (1 - 0.9**4) / (1 - 0.9**63) if optimizer == "adam" else 1  # Adam counts on from 4 steps
            np.testing.assert_allclose(now[:, 1], was * factor, rtol=1e-5)
        np.testing.assert_array_equal(now[:, 0], now[:, 1] if field == "squares" else -now[:, 1])


@pytest.mark.parametrize("penalties", [{}, {"l1": 1e-3, "l2": 1e-3}])
@pytest.mark.parametrize("known", ["ac", "abd"])
def test_the_sums_of_ftrl_make_its_weights(known: str, penalties: dict[str, float]) -> None:
    old, new = model(known, optimizer="ftrl", **penalties), model("abcd", optimizer="ftrl", **penalties)
    learn(old, rows(known, known, 3000))
    start_from(new, old)
    learner, own = new.learner, new.learner.state_dict()
    assert isinstance(learner, Linear)
    on = np.ones((5, 1), np.float32)
    on[-1] = 0
    clock = StreamStats(own["rows"], own["batches"], own["measured"], own["power"], own["noise"])
    weights = own["weights"].copy()
    learner.optimizer.update(
        np.zeros_like(weights), weights, own, learner.learning_rate, clock, Penalty(**penalties, on=on)
    )
    np.testing.assert_allclose(weights, own["weights"], rtol=1e-3, atol=1e-5)
    assert np.abs(weights).max() > 0.1


def test_what_counts_of_the_past() -> None:
    old, new = model("abd", optimizer="normalized", l1=1e-4), model("abcd", optimizer="normalized", l1=1e-4)
    learn(old, rows("abd", "abd", 3200))
    start_from(new, old)
    was, now = old.learner.state_dict(), new.learner.state_dict()
    places = [0, 1, 3]
    for name in ("weights", "average", "squares", "l1_total", "l1_applied"):
        np.testing.assert_array_equal(now[name][:, places], was[name], name)
    np.testing.assert_allclose(now["squares"][:, 2], was["squares"].mean(axis=1) * 4 / 100, rtol=1e-5)
    assert (now["l1_total"][:, 2] == 0).all() and (now["l1_applied"][:, 2] == 0).all() and was["l1_total"].max() > 0
    assert (was["steps"], now["steps"]) == (100, 4) and now["sparse"].shape == (*was["sparse"].shape[:2], 4)
    assert {n: now[n] for n in ("rows", "batches", "measured", "power", "noise")} == {
        n: was[n] for n in ("rows", "batches", "measured", "power", "noise")
    }


def test_in_passing_it_takes_the_old_state_and_the_new_one_once() -> None:
    old, new = (model(c, bits=18, columns=(CITY,)) for c in ("abd", "abcd"))
    codes = np.arange(1, 150_001, dtype=np.uint32)[:, None]
    empty = np.zeros((len(codes), 0), np.float32)
    old.train(Batch(empty, np.zeros(len(codes), np.int32), None, np.arange(len(codes)), hashes=codes), 50_000)
    whole = sum(np.asarray(v).nbytes for v in old.state_dict().values())
    tracemalloc.start()
    start_from(new, old)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert whole > 7e6 and peak < 1.2 * (whole + whole * 4 / 3)
    was, now = (m.learner.state_dict()["sparse"][:, [0, 2]] for m in (old, new))  # weights and squares
    np.testing.assert_array_equal(now[..., [0, 1, 3]], was)
    np.testing.assert_allclose(now[..., 2], was.mean(axis=2), atol=1e-7)


def digits() -> dict[str, NDArray[Any]]:
    table = pq.read_table("data/digits.parquet")
    order = np.random.default_rng(0).permutation(table.num_rows)
    X = np.stack([column.to_numpy() for column in table.columns[:64]], axis=1).astype(np.float32)[order]
    return {"X": X, "digit": table["digit"].to_numpy()[order]}


def fitted(source: Source, model: Model, epochs: int) -> None:
    with Loader(source, source.plan(batch_size=32), epochs=epochs) as loader:
        for _ in range(epochs):
            for batch in loader:
                model.train(batch)


def accuracy(model: Model, data: dict[str, NDArray[Any]]) -> float:
    X = data["X"].copy()
    found = model.predict(Batch(X, np.zeros(len(X), np.int32), None, np.arange(len(X))))
    return float((np.array(model.classes)[found.argmax(axis=1)] == data["digit"]).mean())


def test_digits_of_which_two_come_later() -> None:
    everything = digits()

    def some(keep: Any) -> dict[str, NDArray[Any]]:
        return {name: values[keep] for name, values in everything.items()}

    few, late = everything["digit"] < 8, np.arange(len(everything["digit"]))
    first = Source.open(some(few & (late < 900)), target="digit").surveyed()
    old = Model(first.layout, recipe())
    fitted(first, old, 4)
    second = Source.open(some((late >= 900) & (late < 1350)), target="digit").surveyed(earlier=old.target)
    layout = replace(old.layout_for(second.reader.schema, with_target=False), target=second.layout.target)
    new, scratch = Model(layout, recipe()), Model(layout, recipe())
    start_from(new, old)
    test, old_test = some(late >= 1350), some(few & (late >= 1350))
    assert accuracy(new, old_test) == accuracy(old, old_test) > 0.95
    for m in (new, scratch):
        fitted(second.with_layout(layout), m, 1)
    assert accuracy(new, test) > max(accuracy(scratch, test), 0.9)
    assert accuracy(new, old_test) > accuracy(old, old_test) - 0.05


def test_only_one_of_the_known_classes_occurs() -> None:
    data = digits()
    first = Source.open(data, target="digit").surveyed()
    old = Model(first.layout, recipe())
    fitted(first, old, 1)
    seven = {name: values[data["digit"] == 7] for name, values in data.items()}
    source = Source.open(seven, target="digit").surveyed(earlier=old.target)
    new = Model(source.layout, recipe())
    start_from(new, old)
    fitted(source, new, 1)
    assert accuracy(new, seven) > 0.99 and new.classes == tuple(range(10))


# -- what cannot be --------------------------------------------------------------------------------------------------------


def of(task: str = "classify", classes: Any = ("a", "b"), name: str = "y", offset: float = 0.0) -> Target:
    return Target(name, task, classes, offset=offset)


THREE = of(classes=("a", "b", "c"))
WRONG: dict[str, tuple[Any, Any, str]] = {
    "another target": ({}, {"target": of(name="z")}, "the old run has target 'y' .classify.; this fit has 'z' .classify."),
    "another task": ({}, {"target": of("regress", ())}, "'y' .classify.; this fit has 'y' .regress.*--task"),
    "several": ({}, {"target": TARGETS["several"]}, "this fit has 'y', 'z' .classify."),
    "several in another order": (
        {"target": TARGETS["several"]}, {"target": Target.of(TARGETS["several"].parts[::-1])},
        "'y', 'z' .classify.; .* 'z', 'y'",
    ),
    "fewer classes": ({"target": THREE}, {}, r"has class 'c', which is not among the classes here \('a', 'b'\)"),
    "the same classes in another order": ({}, {"target": of(classes=("b", "a"))}, "in another order than in the old run"),
    "other classes": ({}, {"target": of(classes=("a", "c", "d"))}, "has class 'b', which is not"),
    "another offset": (
        {"target": of("regress", (), offset=5e9)}, {"target": of("regress", ())}, "offset 5000000000.0 in the old run, 0.0",
    ),
    "hinge": ({"loss": "hinge"}, {"target": THREE}, "loss is 'hinge', which is for two .*are 3.*fit a new run"),
    "another loss": ({"loss": "hinge"}, {}, r"has --loss Hinge\(\); this fit has Logistic\(\)"),
    "another level": (
        {"target": of("regress", ()), "loss": "quantile"}, {"target": of("regress", ()), "loss": "quantile", "quantile": 0.9},
        "quantile=0.5.*quantile=0.9",
    ),
    "another optimizer": ({}, {"optimizer": "adam"}, "has --optimizer normalized; this fit has adam"),
    "another schedule": (
        {"optimizer": "sgd"}, {"optimizer": "sgd", "learning_rate_schedule": "constant"},
        "--learning-rate-schedule sqrt; this fit has constant",
    ),
    "no average": ({}, {"average": False}, "has --average True; this fit has False"),
    "l1 on top": ({}, {"l1": 1e-3}, "has --l1 0; this fit has above 0"),
    "l2 gone": ({"l2": 1e-3}, {}, "has --l2 above 0; this fit has 0"),
    "ftrl by another step": (
        {"optimizer": "ftrl"}, {"optimizer": "ftrl", "learning_rate": 0.5},
        r"has --learning-rate 0\.2333.*; this fit has 0\.5",
    ),
    "ftrl by another l1": (
        {"optimizer": "ftrl", "l1": 1e-3}, {"optimizer": "ftrl", "l1": 1e-4}, "--l1 0.001; this fit has 0.0001",
    ),
    "other bits": ({}, {"bits": 9}, "has --hash-bits 8; this fit has 9"),
    "more columns": ({"columns": NUMBERS}, {}, r"features x0 \(number\), .*x3 \(number\); this fit has .* city \(category\)"),
    "another order": ({"columns": NUMBERS}, {"columns": NUMBERS[::-1]}, r"features x0 .*; this fit has x3 .*same order"),
    "another role": (
        {"columns": (*NUMBERS, Column("city", pa.string(), "text", ""))}, {}, r"city \(text\); .*city \(category\)",
    ),
    "another start of a number": (
        {"columns": (replace(NUMBERS[0], offset=1e9),)}, {"columns": NUMBERS[:1]}, "'x0' has offset 1000000000.0 in the old",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_go_on(case: str) -> None:
    old_asked, new_asked, message = WRONG[case]
    old, new = (model(**{"target": of(), **asked}) for asked in (old_asked, new_asked))
    before = state(new)
    with pytest.raises(UsageError, match=message) as caught:
        start_from(new, old)
    assert state(new) == before and "\n" not in str(caught.value)


def test_crosses_must_be_the_same() -> None:
    street = Column("street", pa.string(), "category", "")
    layouts = [Layout((CITY, street), of(), crosses=c) for c in ((("city", "street"),), ())]
    old, new = (Model(layout, recipe(), BITS) for layout in layouts)
    with pytest.raises(
        UsageError, match=r"city \(category\), street \(category\), city:street; this fit has .*--cross"
    ):
        start_from(new, old)


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
def test_a_loss_that_was_asked_for_and_is_for_two_classes(loss: str) -> None:
    """There cannot be such a model: so it can be asked before one is made."""
    with pytest.raises(UsageError, match=rf"--loss {loss}: is for two classes; now there are 3 \('a', 'b', 'c'\)"):
        require_target(THREE, model(of()), recipe(loss=loss))
    require_target(THREE, model(of(), loss="logistic"), recipe(loss="softmax"))
    require_target(of(), model(of(), loss=loss), recipe(loss=loss))


def test_a_learner_of_somebody_else_s() -> None:
    layout = Layout(NUMBERS, of())
    own, others = Model(layout, recipe(), BITS), Model(layout, Linear(4, 2, slots=257), BITS)
    for new, old in ((own, others), (others, own)):
        with pytest.raises(UsageError, match="load its state yourself"):
            start_from(new, old)


def test_an_entry_that_nobody_knows_how_to_widen(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = model(of()), model(THREE)
    whole = Linear.state_dict
    monkeypatch.setattr(Linear, "state_dict", lambda self: whole(self) | {"habits": np.zeros(5)})
    with pytest.raises(
        UsageError, match="'normalized' remembers 'habits', and nothing says what that is for a new class"
    ):
        start_from(new, old)
