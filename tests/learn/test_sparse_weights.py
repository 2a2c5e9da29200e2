"""The sparse part: the same weights as from dense columns, for all optimizers; slots at rest; penalties missed; state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import examples

from streamtrain.batch import Batch, Sparse
from streamtrain.errors import DataError
from streamtrain.kernels import COMPILED
from streamtrain.learn import OPTIMIZERS, Linear, get_optimizer
from streamtrain.learn.optimizers import Adagrad

CLASSES = {"logistic": 2, "hinge": 2, "softmax": 3}


def sparse_of(columns: np.ndarray, ones: bool = False) -> Sparse:
    """Compressed rows of a dense array."""
    rows, indices = np.nonzero(columns)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(columns)))]).astype(np.int64)
    values = None if ones else columns[rows, indices].astype(np.float32)
    return Sparse(indptr, indices.astype(np.int32), values, columns.shape[1])


def problem(
    loss: str = "squared", outputs: int = 1, rows: int = 640, width: int = 6, share: float = 0.5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three dense columns, columns of zeros and ones, and targets."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, 3)).astype(np.float32)
    columns = (rng.random((rows, width)) < share).astype(np.float32)
    margin = np.concatenate([X, columns], axis=1) @ rng.standard_normal((3 + width, outputs))
    margin += rng.standard_normal(margin.shape) * 0.3
    if loss == "softmax":
        return X, columns, margin.argmax(axis=1).astype(np.int32)
    margin = margin[:, 0] if outputs == 1 else margin
    if loss == "poisson":
        return X, columns, np.round(np.exp(np.minimum(margin, 2))).astype(np.float32)
    return X, columns, (margin > 0).astype(np.int32) if loss in CLASSES else margin.astype(np.float32)


def batches(X: np.ndarray, y: np.ndarray, columns: np.ndarray, size: int = 32, **kind: Any) -> list[Batch]:
    return [
        Batch(X[i : i + size], y[i : i + size], None, np.arange(size), sparse=sparse_of(columns[i : i + size], **kind))
        for i in range(0, len(X), size)
    ]


def fit(model: Linear, stream: list[Batch]) -> Linear:
    for batch in stream:
        model.learn(batch)
    return model


def all_weights(model: Linear) -> np.ndarray:
    return np.concatenate([model.weights, model.sparse_weights, model.intercept[None]])


def alike(name: str) -> Any:
    """The optimizer of that name, with which a slot is learned as a dense column is: it does not count as touched before."""
    optimizer = get_optimizer(name)
    return replace(optimizer, slots=0, prior=0) if isinstance(optimizer, Adagrad) else optimizer


def both(outputs: int = 1, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Weights of all columns: learned as dense features, and with some of them sparse."""
    loss = "softmax" if outputs == 3 and options.pop("classes", False) else "squared"
    X, columns, y = problem(loss, outputs)
    ones = bool(options.get("average"))
    columns *= 1 if ones else 1.5
    settings = {"classes": 3} if loss == "softmax" else {"targets": outputs}
    dense = Linear(9, **settings, **options)  # type: ignore[arg-type]
    together = np.concatenate([X, columns], axis=1)
    for i in range(0, len(X), 32):
        dense.learn(Batch(together[i : i + 32], y[i : i + 32], None, np.arange(32)))
    sparse = fit(Linear(3, slots=6, **settings, **options), batches(X, y, columns, ones=ones))  # type: ignore[arg-type]
    np.testing.assert_allclose(dense.predict(together), sparse.predict(X, sparse_of(columns)), atol=1e-4)
    return all_weights(dense), all_weights(sparse)


@pytest.mark.parametrize("penalties", [{}, {"l1": 0.01}, {"l2": 0.1}])
@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize(("outputs", "classes"), [(1, False), (3, False), (3, True)])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_sparse_columns_get_the_weights_of_dense_ones(
    optimizer: str, outputs: int, classes: bool, average: bool, penalties: dict[str, float]
) -> None:
    dense, sparse = both(outputs=outputs, classes=classes, optimizer=alike(optimizer), average=average, **penalties)
    np.testing.assert_allclose(sparse, dense, atol=1e-4)
    assert np.abs(dense).max() > 0.1


@pytest.mark.parametrize("penalties", [{}, {"l1": 0.01}, {"l2": 0.1}])
@pytest.mark.parametrize("optimizer", ["normalized", "sgd", "adagrad", "ftrl"])
def test_a_slot_that_is_seldom_touched_pays_as_often_as_a_dense_column(
    optimizer: str, penalties: dict[str, float]
) -> None:
    """Only penalties since the last touch may differ, so each slot is touched at the end."""
    X, columns, y = problem(share=0.01)
    columns[-1] = 1
    options: dict[str, Any] = {"optimizer": alike(optimizer), "average": False, **penalties}
    dense, sparse = Linear(9, **options), Linear(3, slots=6, **options)
    for batch, part in zip(batches(X, y, columns), columns.reshape(-1, 32, 6), strict=True):
        dense.learn(Batch(np.concatenate([batch.features, part], axis=1), batch.targets, None, np.arange(32)))
        sparse.learn(batch)
    # ftrl alone computes margins with the weights as they were
    atol = 1e-4 if not penalties else 0.03 if optimizer == "ftrl" else 0.01 if optimizer != "sgd" else 1e-3
    np.testing.assert_allclose(all_weights(sparse), all_weights(dense), atol=atol)
    if penalties:
        free = Linear(3, slots=6, optimizer=alike(optimizer), average=False)
        gap = np.abs(all_weights(fit(free, batches(X, y, columns))) - all_weights(dense))[3:9].max()
        assert gap > 3 * atol, "the penalties matter"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_slot_at_rest_is_never_changed(optimizer: str) -> None:
    X, columns, y = problem(rows=320)
    columns[:, 4] = 0
    columns[96:, 2] = 0
    model = Linear(3, slots=6, optimizer=optimizer, l1=1e-3, l2=1e-3)
    stream = batches(X, y, columns)
    fit(model, stream[:3])
    kept = model.state_dict()["sparse"]
    fit(model, stream[3:])
    found = model.state_dict()["sparse"]
    assert not found[4].any()
    assert found[2].tobytes() == kept[2].tobytes()
    moved = [i for i in range(len(kept)) if found[i].tobytes() != kept[i].tobytes()]
    assert moved == [0, 1, 3, 5]


@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(OPTIMIZERS)), st.sampled_from([1, 3]))
@examples(40)
def test_only_what_a_batch_touches_moves(seed: int, optimizer: str, outputs: int) -> None:
    rng = np.random.default_rng(seed)
    model, touched = Linear(0, slots=50, targets=outputs, optimizer=optimizer), set()
    for _ in range(4):
        counts = rng.integers(0, 4, 5)
        indices = rng.integers(0, 50, counts.sum()).astype(np.int32)
        sparse = Sparse(np.concatenate([[0], np.cumsum(counts)]), indices, None, 50)
        y = rng.standard_normal((5, outputs)[: 1 + (outputs > 1)]).astype(np.float32) + 9
        before = model.sparse_weights.copy()
        model.learn(Batch(np.zeros((5, 0), np.float32), y, None, np.arange(5), sparse=sparse))
        changed = np.flatnonzero((model.sparse_weights != before).reshape(50, -1).any(axis=1))
        touched |= set(indices.tolist())
        assert set(changed.tolist()) == set(indices.tolist())
        saved = model.state_dict()["sparse"]
        assert len(saved) == max(touched, default=-1) + 1
        assert set(np.flatnonzero(saved.any(axis=tuple(range(1, saved.ndim)))).tolist()) == touched


def test_an_entry_that_occurs_twice_counts_twice() -> None:
    y = np.ones(1, np.float32)
    models = [Linear(1, slots=2, optimizer="sgd", learning_rate_schedule="constant") for _ in range(2)]
    for indices, values in (([1, 1], [1.0, 2.0]), ([1], [3.0])):
        sparse = Sparse(np.array([0, len(indices)]), np.array(indices, np.int32), np.array(values, np.float32), 2)
        model = models.pop()
        margin = model.predict(np.zeros((1, 1), np.float32), sparse)
        model.learn(Batch(np.zeros((1, 1), np.float32), y, None, np.arange(1), sparse=sparse))
        power = 1 + sum(value**2 for value in values)
        assert margin.tolist() == [0]
        assert model.sparse_weights.tolist() == [0, pytest.approx(3 / power)]
        assert model.intercept == pytest.approx(1 / power)


def test_the_table_is_as_stated() -> None:
    """What a kernel that works on it relies on."""
    for options, fields in (
        ({}, "weights average squares steps"),
        ({"average": False}, "weights squares steps"),
        ({"optimizer": "sgd", "l2": 0.1}, "weights average steps last"),
        ({"optimizer": "adam", "l1": 0.1}, "weights average mean squares steps l1_total l1_applied last"),
        ({"optimizer": "ftrl", "l1": 0.1}, "weights average sums squares steps"),
    ):
        model = Linear(3, slots=6, **options)  # type: ignore[arg-type]
        table = model._sparse_weights
        assert table is not None
        assert table.fields == tuple(fields.split())
        assert table.array.shape == (6, len(table.fields))
        X, columns, y = problem(rows=96)
        columns[32:64, 1] = 0
        fit(model, batches(X, y, columns))
        assert table.array[:, table.fields.index("steps")].tolist() == [3, 2, 3, 3, 3, 3]
        wide = Linear(3, slots=6, targets=4)
        assert wide._sparse_weights is not None and wide._sparse_weights.array.shape == (6, 4, 4)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_rare_useless_slots_are_exactly_zero_with_l1(optimizer: str) -> None:
    X, _, y = problem(rows=6400)
    columns = (np.random.default_rng(3).random((6400, 6)) < [0.5, 0.5, 0.5, 0.05, 0.05, 0.05]).astype(np.float32)
    y += columns[:, 0] * 3
    weights = fit(Linear(3, slots=6, optimizer=optimizer, l1=0.2), batches(X, y, columns)).sparse_weights
    assert (weights[3:] == 0).all()
    assert weights[0] > 0.3


def test_the_average_of_a_slot_counts_its_own_steps() -> None:
    X, columns, y = problem(rows=640, share=0.02)
    plain, averaged = Linear(3, slots=6, average=False), Linear(3, slots=6)
    expected, steps = np.zeros(6), np.zeros(6)
    for batch in batches(X, y, columns):
        plain.learn(batch)
        averaged.learn(batch)
        touched = np.unique(batch.sparse.indices)  # type: ignore[union-attr]
        steps[touched] += 1
        share = np.minimum(1, 4 / (steps[touched] + 3))
        expected[touched] += (plain.sparse_weights[touched] - expected[touched]) * share
    assert 4 < steps.min() <= steps.max() < 19
    np.testing.assert_allclose(averaged.sparse_weights, expected, rtol=1e-4)


def test_a_state_of_another_model_is_refused() -> None:
    for other, message in ((Linear(2, slots=6), "shape"), (Linear(3, slots=6, optimizer="sgd"), "squares")):
        with pytest.raises((DataError, KeyError), match=message):
            Linear(3, slots=6).load_state_dict(other.state_dict())
    X, columns, y = problem(rows=32)
    state = fit(Linear(3, slots=6), batches(X, y, columns)).state_dict()
    with pytest.raises(DataError, match=r"sparse weights have shape \(6, 4\); the model's have \(5, 4\)"):
        Linear(3, slots=5).load_state_dict(state)


def test_rows_without_entries_and_batches_without_a_sparse_part() -> None:
    X, columns, y = problem(rows=64)
    model = fit(Linear(3, slots=6), batches(X, y, columns))
    none = Sparse(np.zeros(65, np.int64), np.zeros(0, np.int32), None, 6)
    assert model.predict(X).tobytes() == model.predict(X, none).tobytes()
    models = [Linear(3, slots=6), Linear(3, slots=6), Linear(3)]
    for one, sparse in zip(models, (None, none, None), strict=True):
        one.learn(Batch(X, y, None, np.arange(64), sparse=sparse))
    assert models[0].predict(X).tobytes() == models[1].predict(X).tobytes() == models[2].predict(X).tobytes()
    assert models[2].sparse_weights.shape == (0,)


def test_parts_that_do_not_fit_are_refused() -> None:
    X, columns, y = problem(rows=64)
    for slots, message in (
        (0, "6 columns; the model was made for 0 slots"),
        (5, "6 columns; the model was made for 5"),
    ):
        with pytest.raises(DataError, match=message):
            Linear(3, slots=slots).predict(X, sparse_of(columns))
        model = Linear(3, slots=slots)
        with pytest.raises(DataError, match=message):
            model.learn(batches(X, y, columns)[0])
        assert model.state_dict()["rows"] == 0


def test_inputs_are_left_alone() -> None:
    X, columns, y = problem(rows=64)
    sparse, weights = sparse_of(columns), np.linspace(0, 3, 64).astype(np.float32)
    assert sparse.values is not None
    arrays = (X, y, weights, sparse.indptr, sparse.indices, sparse.values)
    copies = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    model = Linear(3, slots=6)
    for part in (None, weights):
        model.learn(Batch(X, y, part, np.arange(64), sparse=sparse))
    model.predict(X, sparse)
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_a_large_table_takes_no_memory_before_it_is_touched() -> None:
    model = Linear(0, 2, slots=2**22)
    assert model.state_bytes >= 2**22 * 4 * 4
    before = _resident()
    sparse = Sparse(np.arange(3), np.array([2**22 - 1, 3], np.int32), None, 2**22)
    model.learn(Batch(np.zeros((2, 0), np.float32), np.array([0, 1], np.int32), None, np.arange(2), sparse=sparse))
    assert _resident() - before < 2**23, "a huge page for each of two slots"


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.parametrize("optimizer", ["normalized", "adagrad"])
def test_a_value_that_occurs_once_is_not_learned_by_heart(optimizer: str) -> None:
    """The first row that touches a slot moves it less far than it would one that counts as never touched."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(640, 3)).astype(np.float32), rng.normal(size=640).astype(np.float32)
    columns = np.zeros((640, 6), np.float32)
    columns[600, 2] = 1
    moved = [
        abs(float(fit(Linear(3, slots=6, optimizer=one, average=False), batches(X, y, columns)).sparse_weights[2]))
        for one in (optimizer, alike(optimizer))
    ]
    assert 0.01 * moved[1] < moved[0] < 0.8 * moved[1]


@pytest.mark.skipif(not COMPILED, reason="only compiled kernels take many batches at a time")
@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("ones", [True, False])
def test_the_kernel_does_to_a_table_what_learning_does(loss: str, ones: bool) -> None:
    X, columns, y = problem(loss, rows=645, share=0.1)
    columns[:320, 5] = 0
    if not ones:
        columns *= np.random.default_rng(1).uniform(0.5, 2, columns.shape).astype(np.float32)
    maps = np.array([[0] * 3, [0] * 3, [1] * 3], np.float32)
    one, other = (Linear(3, CLASSES.get(loss, 0), slots=6, loss=loss) for _ in range(2))
    assert one.can_run
    whole = Batch(X, y, None, np.arange(645), sparse=sparse_of(columns, ones=ones))
    found = []
    for part in (whole.part(0, 320), whole.part(320, 645)):
        done, scores, rest = one.run(part, 32, maps, np.zeros((2, 3)))
        assert done == -(-len(part) // 32) and rest is None
        found.append(scores)
        assert one.slots_used == (5 if len(found) == 1 else 6)
    wanted = []
    for start in range(0, 645, 32):
        batch = whole.part(start, min(start + 32, 645))
        wanted.append(other.predict(batch.features, batch.sparse))
        other.learn(batch)
    np.testing.assert_allclose(np.concatenate(found), np.concatenate(wanted), atol=1e-4)
    for name, value in one.state_dict().items():
        np.testing.assert_allclose(value, other.state_dict()[name], atol=1e-4, rtol=1e-4, err_msg=name)


def test_what_the_kernel_cannot_do_to_a_table() -> None:
    for options in (
        {"l2": 0.1},
        {"l1": 0.1},
        {"average": False},
        {"optimizer": "adagrad"},
        {"targets": 2},
        {"loss": "huber"},
    ):
        assert not Linear(3, slots=6, **options).can_run  # type: ignore[arg-type]
    assert Linear(3, l2=0.1).can_run == COMPILED


def test_the_owner_may_say_that_more_slots_are_used() -> None:
    model = Linear(3, slots=6)
    for asked, used in ((4, 4), (2, 4), (9, 6)):
        model.slots_used = asked
        assert model.slots_used == len(model.state_dict()["sparse"]) == used
    dense = Linear(3)
    dense.slots_used = 4
    assert dense.slots_used == 0
