"""The compiled loops against numpy's: the same bits where that is promised, the same numbers elsewhere."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamtrain import kernels
from streamtrain.kernels import functions, hashing, products
from streamtrain.kernels.fused_linear import LinearStep

pytestmark = pytest.mark.skipif(not kernels.COMPILED, reason="the kernels were not compiled: there was no C compiler")

shapes = st.tuples(st.integers(1, 300), st.integers(1, 45), st.integers(0, 2**32 - 1))


def in_numpy(function: Any, *arguments: Any, **options: Any) -> Any:
    """The same call without the compiled library."""
    with kernels.using(None):
        return function(*arguments, **options)


def rows_of(shape: tuple[int, int, int]) -> tuple[np.random.Generator, Any]:
    rng = np.random.default_rng(shape[2])
    return rng, rng.normal(3, 10, shape[:2]).astype(np.float32)


@given(st.integers(1, 5_000), st.integers(0, 2**32 - 1), st.data())
@example(1, 0, None)
@example(2**33 + 1, 5, None)
def test_a_permutation_is_one_and_any_part_of_it_can_be_had(rows: int, seed: int, data: st.DataObject | None) -> None:
    keys = np.random.default_rng(seed).integers(0, 2**32, 8, np.uint32)
    if rows < 10_000:
        everything = kernels.permuted(0, rows, rows, keys)
        np.testing.assert_array_equal(np.sort(everything), np.arange(rows))
    first, last = sorted(data.draw(st.integers(0, rows)) for _ in range(2)) if data else (rows - min(rows, 300), rows)
    part = kernels.permuted(first, last, rows, keys)
    np.testing.assert_array_equal(part, in_numpy(kernels.permuted, first, last, rows, keys))
    if rows < 10_000:
        np.testing.assert_array_equal(part, everything[first:last])
    numbers, images = np.arange(first, last)[::-2].copy(), part[::-2]
    kernels.permute(numbers, rows, keys)
    np.testing.assert_array_equal(numbers, images)
    assert part.size == 0 or 0 <= part.min() <= part.max() < rows


@given(shapes)
def test_sums_and_affine_give_the_same_bits(shape: tuple[int, int, int]) -> None:
    rng, rows = rows_of(shape)
    centre, scale = rng.normal(size=(2, shape[1])).astype(np.float32)
    np.testing.assert_array_equal(kernels.sums(rows, centre), in_numpy(kernels.sums, rows, centre))
    compiled, plain = rows.copy(), rows.copy()
    kernels.affine(compiled, centre, scale)
    in_numpy(kernels.affine, plain, centre, scale)
    np.testing.assert_array_equal(compiled, plain)


@given(shapes, st.booleans())
def test_columns_land_where_they_belong(shape: tuple[int, int, int], gaps: bool) -> None:
    rng, rows = rows_of(shape)
    count, width, _ = shape
    slots = np.sort(rng.permutation(2 * width)[:width]) if gaps else np.arange(width) + 1
    places = rng.permutation(count + 5)[:count]
    windows = [np.zeros((count + 5, 2 * width + 1), np.float32) for _ in range(3)]
    columns = [np.ascontiguousarray(rows[:, j]) for j in range(width)]
    kernels.scatter_columns(columns, slots, windows[0], places)
    in_numpy(kernels.scatter_columns, columns, slots, windows[1], places)
    windows[2][places[:, None], slots] = rows
    np.testing.assert_array_equal(windows[0], windows[2])
    np.testing.assert_array_equal(windows[1], windows[2])


@given(shapes, st.sampled_from(["u1", "f4", "i4"]))
def test_rows_land_where_they_belong(shape: tuple[int, int, int], kind: str) -> None:
    rng, rows = rows_of(shape)
    source = np.abs(rows).astype(kind)
    places = rng.permutation(len(rows))
    windows = [np.zeros((len(rows), shape[1] + 3), kind) for _ in range(2)]
    kernels.scatter_rows(source, windows[0], 2, places)
    windows[1][places, 2:-1] = source
    np.testing.assert_array_equal(windows[0], windows[1])


@given(shapes, st.sampled_from([1, 2, 3, 7, 8, 10, 23]), st.sampled_from([0, 1024]))
@example((0, 3, 0), 3, 0)
def test_products_have_the_order_of_a_single_output(shape: tuple[int, int, int], outputs: int, wider: int) -> None:
    count, width = shape[0] // 2, shape[1] - 1 + wider
    rng, rows = rows_of((count, width, shape[2]))
    weights = rng.normal(size=(width + 1, outputs)).astype(np.float32)
    slopes = np.where(rng.random((count, outputs)) < 0.2, np.float32(-0.0), rng.normal(size=(count, outputs)))
    slopes = slopes.astype(np.float32)
    gradients = [np.empty_like(weights) for _ in range(2)]
    found = products.margins(rows, weights)
    products.gradients(rows, slopes, gradients[0])
    np.testing.assert_array_equal(found, in_numpy(products.margins, rows, weights))
    in_numpy(products.gradients, rows, slopes, gradients[1])
    np.testing.assert_array_equal(gradients[0].view(np.int32), gradients[1].view(np.int32), "zeros are positive too")
    scale = np.abs(rows.astype(np.float64)) @ np.abs(weights[:-1]) + 1
    assert (np.abs(found - (rows.astype(np.float64) @ weights[:-1] + weights[-1])) < 1e-5 * scale).all()
    for k in range(outputs):
        one = np.empty(width + 1, np.float32)
        np.testing.assert_array_equal(found[:, k], products.margins(rows, weights[:, k].copy()))
        products.gradients(rows, slopes[:, k].copy(), one)
        np.testing.assert_array_equal(gradients[0][:, k], one)


@given(shapes)
def test_sums_of_squares_give_the_same_bits(shape: tuple[int, int, int]) -> None:
    rng, rows = rows_of(shape)
    assert products.squares(rows) == in_numpy(products.squares, rows)
    assert products.squares(rows) == pytest.approx(float((rows.astype(np.float64) ** 2).sum()), rel=1e-12)
    for rates in (None, rng.random(shape[1] + 1).astype(np.float32)):
        np.testing.assert_array_equal(products.reach(rows, rates), in_numpy(products.reach, rows, rates))


@pytest.mark.parametrize(("count", "width"), [(64, 10), (37, 41), (1, 784)])
def test_a_fused_step_adds_in_the_same_order(count: int, width: int) -> None:
    rng, raw = rows_of((count, width, 0))
    maps = np.repeat(np.array([0, 0, 1], np.float32), width).reshape(3, -1)
    weights, targets = rng.normal(size=(2, width + 1)).astype(np.float32), np.zeros(count, np.float32)
    scores, gradient, _ = one_batch(maps, weights, raw, targets, logistic=False)
    np.testing.assert_array_equal(scores, products.margins(raw, weights[0]))
    wanted = np.empty(width + 1, np.float32)
    products.gradients(raw, products.margins(raw, weights[1]), wanted)
    np.testing.assert_array_equal(gradient, wanted)


EDGES = [
    0.0,
    -0.0,
    np.inf,
    -np.inf,
    np.nan,
    5e-324,
    -5e-324,
    1.7e308,
    -1.7e308,
    710,
    709.7,
    -745.2,
    -746,
    -1,
    -0.5,
    64,
    -64,
]


@pytest.mark.parametrize("name", ["exp", "expm1", "log", "log1p"])
def test_functions_are_exact_to_two_units_and_the_same_in_numpy(name: str) -> None:
    rng, function = np.random.default_rng(0), getattr(functions, name)
    parts = [
        rng.normal(size=500),
        rng.normal(size=500) * 1e-8,
        rng.uniform(-745, 709, 500),
        10 ** rng.uniform(-320, 308, 500),
    ]
    x = np.concatenate([*parts, 1 + rng.normal(size=500) * 1e-3, np.array(EDGES)])
    found = function(x)
    np.testing.assert_array_equal(found, in_numpy(function, x))
    with np.errstate(all="ignore"):
        wanted = getattr(np, name)(x.astype(np.longdouble)).astype(np.float64)
        far = np.abs(found - wanted) > 2 * np.spacing(np.abs(wanted))
    assert not far[np.isfinite(wanted)].any()
    np.testing.assert_array_equal(found[~np.isfinite(wanted)], wanted[~np.isfinite(wanted)])


def test_the_circle_the_sigmoid_and_softmax_are_the_same_in_numpy() -> None:
    rng = np.random.default_rng(0)
    turns = np.concatenate([rng.random(500), np.arange(9) / 8])
    for found, same, exact in zip(
        functions.circle(turns), in_numpy(functions.circle, turns), (np.sin, np.cos), strict=True
    ):
        np.testing.assert_array_equal(found, same)
        np.testing.assert_allclose(
            found, exact(turns.astype(np.longdouble) * 8 * np.arctan(np.longdouble(1))), atol=2e-16
        )
    for shape in ((3, 1), (7, 3), (500, 10), (2, 5000)):
        margins = (rng.normal(size=shape) * 30).astype(np.float32)
        margins.flat[:2] = -1e9, np.nan
        targets = rng.integers(0, shape[1], shape[0], np.int32)
        for function, more in ((functions.sigmoid, ()), (functions.softmax, ()), (functions.softmax, (targets,))):
            compiled, plain = margins.copy(), margins.copy()
            function(compiled, *more)
            in_numpy(function, plain, *more)
            np.testing.assert_array_equal(compiled, plain)
    for wrong in (-1, 3):
        for softmax in (functions.softmax, lambda *given: in_numpy(functions.softmax, *given)):
            with pytest.raises(IndexError, match=f"the target is {wrong}: there are 3 classes"):
                softmax(np.zeros((2, 3), np.float32), np.array([0, wrong], np.int32))


def one_batch(maps: Any, weights: Any, rows: Any, targets: Any, *, logistic: bool) -> tuple[Any, Any, Any]:
    """The scores, the gradient and the sums of one batch, whose step has length 0."""
    step = LinearStep(maps, weights[0].copy(), weights[1], logistic=logistic)
    block, squares = np.zeros((2, rows.shape[1])), np.zeros(rows.shape[1] + 1, np.float32)
    options = {"learning_rate": 0.0, "l2": 0.0, "forget": 4.0}
    _, scores, gradient, sums = step.run(rows, len(rows), targets, squares, np.zeros(5), block, **options)
    np.testing.assert_array_equal(block, np.where(np.isfinite(gradient).all() & np.isfinite(sums).all(), sums, 0))
    return scores, gradient, sums


@given(shapes.filter(lambda shape: shape[0] > 0), st.booleans())
@example((3, 1025, 0), True)
def test_a_linear_step_is_what_numpy_makes_of_it(shape: tuple[int, int, int], logistic: bool) -> None:
    rng, raw = rows_of(shape)
    count, width, _ = shape
    maps = np.stack([np.full(width, 3), np.full(width, 3), np.full(width, 0.1)]).astype(np.float32)
    targets = rng.integers(0, 2, count).astype(np.float32)
    scoring, learning = weights = rng.normal(size=(2, width + 1)).astype(np.float32)
    rows, prepared = raw.copy(), (raw - maps[1]) * maps[2]
    found = one_batch(maps, weights, rows, targets, logistic=logistic)
    assert np.allclose(rows, prepared, rtol=1e-5) if width > 1024 else np.array_equal(rows, raw)  # wide rows: in place
    margins = [prepared.astype(np.float64) @ one[:-1] + one[-1] for one in (scoring, learning)]
    scores, slope = [1 / (1 + np.exp(-margin)) if logistic else margin for margin in margins]
    slope = slope - targets
    about = raw.astype(np.float64) - maps[0]
    wanted = scores, np.append(prepared.T @ slope, slope.sum()), np.stack([about.sum(axis=0), (about**2).sum(axis=0)])
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(
            one, other, rtol=5e-5, atol=5e-5 * count * max(1.0, float(np.abs(other).max()) / count)
        )


def test_a_copy_of_a_step_has_arrays_of_its_own() -> None:
    arrays = [np.ones(shape, np.float32) for shape in ((3, 2), 3, 3)]
    step = LinearStep(*arrays, logistic=False)
    copy = pickle.loads(pickle.dumps(step))
    state = np.zeros(3, np.float32), np.array([0.0, 0.0, 0.0, 1.0, 0.0]), np.zeros((2, 2))
    copy.run(np.ones((5, 2), np.float32), 5, np.zeros(5, np.float32), *state, learning_rate=0.5, l2=0.0, forget=4.0)
    assert (step.learning == 1).all() and (copy.learning != 1).any()


def test_the_sigmoid_holds_everywhere() -> None:
    margins = np.concatenate([np.linspace(-120, 120, 4001), [-np.inf, np.inf, np.nan]]).astype(np.float32)
    maps, one = np.array([[0], [0], [1]], np.float32), np.array([[1, 0], [1, 0]], np.float32)
    scores, _, _ = one_batch(maps, one, margins[:, None].copy(), np.zeros(len(margins), np.float32), logistic=True)
    with np.errstate(over="ignore"):
        wanted = 1 / (1 + np.exp(-margins.astype(np.float64)))
    np.testing.assert_allclose(scores, wanted, rtol=2e-6, atol=1e-34)


@given(st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_binary_scores_are_what_numpy_makes_of_them(rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 2, rows).astype(np.float32)
    scores = rng.choice([0.0, 1.0, 0.5, 1e-9, 0.3, 0.999999], rows).astype(np.float32)
    found = [np.zeros((2, 64), np.int64) for _ in range(2)]
    options = {"least": 1.2e-7, "shift": 23, "first_bin": 95}
    compiled = kernels.binary_scores(targets, scores, found[0], **options)
    plain = in_numpy(kernels.binary_scores, targets, scores, found[1], **options)
    np.testing.assert_array_equal(*found)
    assert compiled == plain


@given(st.integers(0, 400), st.integers(1, 9), st.booleans(), st.integers(0, 400), st.integers(0, 2**32 - 1))
def test_values_are_scaled_by_those_before_however_many_are_passed(
    count: int, slots: int, some: bool, cut: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    at = rng.integers(0, slots, count, np.int32)
    given = np.where(rng.random(count) < 0.1, 0, rng.normal(0, 10 ** rng.uniform(-38, 38, count))).astype(np.float32)
    scaled = rng.random(count) < 0.7 if some else None
    given = np.clip(given, -3e38, 3e38)
    table, values, other, others = np.zeros((slots, 2)), given.copy(), np.zeros((slots, 2)), given.copy()
    hashing.scale_entries(at, values, table, scaled, learn=True)
    for part in (slice(0, cut), slice(cut, None)):
        flags = None if scaled is None else scaled[part]
        in_numpy(hashing.scale_entries, at[part], others[part], other, flags, learn=True)
    np.testing.assert_array_equal(values, others)
    np.testing.assert_array_equal(table, other)
    for i in range(count):
        if scaled is None or scaled[i]:
            before = given[: i + 1][
                (at[: i + 1] == at[i]) & (given[: i + 1] != 0) & (scaled is None or scaled[: i + 1])
            ]
            root = np.sqrt(np.mean(before.astype(np.float64) ** 2)) if len(before) else 1.0
            assert values[i] == pytest.approx(given[i] / root, rel=1e-6)
        else:
            assert values[i] == given[i]
    unchanged = table.copy()
    for function in (hashing.scale_entries, lambda *a, **k: in_numpy(hashing.scale_entries, *a, **k)):
        later = given.copy()
        function(at, later, table, None, learn=False)
        np.testing.assert_array_equal(table, unchanged)
        assert np.isfinite(later).all()
