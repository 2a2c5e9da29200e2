"""The target, known before training: classes of every type, what is bad in it and where, how clustered it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import examples

from streamtrain.columns.target import Target
from streamtrain.errors import BadValueError, ColumnError, DataError, UsageError
from streamtrain.load.source import Source
from streamtrain.load.survey import survey
from streamtrain.storage.reader import Chunk, ChunkTable


class OneColumn:
    """A reader of one column in chunks named after files."""

    def __init__(self, *chunks: pa.Array) -> None:
        self._chunks = chunks
        self.schema = pa.schema([("y", chunks[0].type)])
        self.reads = 0

    def chunks(self) -> list[Chunk]:
        return [Chunk(f"{i}.parquet:0", len(c), 8 * len(c), 16 * len(c)) for i, c in enumerate(self._chunks)]

    def read(self, chunk: Chunk, columns: Any) -> pa.RecordBatch:
        self.reads += 1
        return pa.record_batch({"y": self._chunks[int(chunk.key.split(".")[0])]})

    def fingerprint(self) -> str:
        return "one"


def surveyed(*chunks: Any, **asked: Any) -> Target:
    reader = OneColumn(*(c if isinstance(c, pa.Array) else pa.array(c) for c in chunks))
    return survey(reader, ChunkTable.of(reader.chunks()), "y", **asked)


INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]


@pytest.mark.parametrize("kind", INTEGERS)
def test_integers_of_every_width_are_classes(kind: type[np.generic]) -> None:
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    target = surveyed(np.array([3, high, low], kind), np.array([high, 3, 3], kind))
    assert (target.task, target.classes, target.counts) == ("classify", (low, 3, high), (1, 3, 2))
    assert all(type(c) is int for c in target.classes) and target.rows == 6
    codes = target.encode(pa.array(np.array([high, low, 3], kind)), "here")
    assert codes.tolist() == [2, 0, 1] and codes.dtype == np.int32
    near = kind(high - 1)  # type: ignore[call-arg]
    with pytest.raises(BadValueError, match=rf"is {high - 1} in here"):
        target.encode(pa.array(np.array([high, near], kind)), "here")


STRINGS = [
    pa.string(),
    pa.large_string(),
    pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.int32(), pa.large_string()),
]


@pytest.mark.parametrize("kind", STRINGS, ids=str)
def test_strings_are_classes(kind: pa.DataType) -> None:
    target = surveyed(pa.array(["dog", "cat", "dog"]).cast(kind), pa.array(["é", "cat", "é"]).cast(kind))
    assert (target.task, target.classes, target.counts) == ("classify", ("cat", "dog", "é"), (2, 2, 2))
    assert target.encode(pa.array(["é", "cat", "dog", "é"]).cast(kind), "here").tolist() == [2, 0, 1, 2]
    with pytest.raises(BadValueError, match=r"'cow' in 7\.parquet:0, which is not one of the 3") as caught:
        target.encode(pa.array(["dog", "cow", "dog"]).cast(kind), "7.parquet:0")
    assert caught.value.row == 1 and "'cat', 'dog', 'é'" in str(caught.value) and "--classes" in str(caught.value)


def test_a_dictionary_may_hold_values_that_no_row_has() -> None:
    values = pa.DictionaryArray.from_arrays(pa.array([0, 2, 2], pa.int8()), pa.array(["a", "unused", "c"]))
    target = surveyed(values)
    assert target.classes == ("a", "c")
    assert target.encode(values, "here").tolist() == [0, 1, 1]


def test_slices_of_arrays_count_their_own_rows() -> None:
    values = pa.array(["a", "b", "c", "b", "a"]).dictionary_encode()
    assert surveyed(values.slice(1, 3)).counts == (2, 1)
    assert surveyed(pa.array([1, 2, 3, 2, 9]).slice(1, 3)).classes == (2, 3)


def test_booleans_are_classes() -> None:
    target = surveyed([True, False, True])
    assert (target.task, target.classes, target.counts) == ("classify", (False, True), (1, 2))
    assert target.encode(pa.array([False, True, True]), "here").tolist() == [0, 1, 1]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_are_regression_and_classes_only_on_demand(kind: type[np.floating[Any]]) -> None:
    values = np.array([0.1, 2.5, 0.1, -1], kind)
    target = surveyed(values)
    assert (target.task, target.classes, target.counts, target.rows) == ("regress", (), (), 4)
    assert target.encode(pa.array(values), "here").tolist() == values.astype(np.float32).tolist()
    classes = surveyed(values, task="classify")
    assert (classes.task, classes.classes) == ("classify", (-1.0, float(kind(0.1)), 2.5))
    assert classes.encode(pa.array(values), "here").tolist() == [1, 2, 1, 0]


@pytest.mark.parametrize(
    "values", [np.arange(2_000), np.arange(2_000) % 2 == 0, pa.array(np.arange(50)).cast(pa.decimal128(23, 2))]
)
def test_regression_on_demand(values: Any) -> None:
    target = surveyed(values, task="regress")
    assert target.task == "regress" and target.dtype is np.float32
    values = values if isinstance(values, pa.Array) else pa.array(values)
    assert target.encode(values, "here").tolist() == [float(v) for v in values.to_pylist()]


NULLS = [
    pa.array([1, None, 2, None]),
    pa.array(["a", None, "b", None]),
    pa.array(["a", None, "b", None]).dictionary_encode(),
    pa.array([True, None, False, None]),
    pa.array([0.5, None, 1.5, None]),
]


@pytest.mark.parametrize("values", NULLS, ids=lambda v: str(v.type))
def test_nulls_are_counted_and_placed(values: pa.Array) -> None:
    good = values.drop_null() if not isinstance(values, pa.DictionaryArray) else values.take(pa.array([0, 2]))
    with pytest.raises(BadValueError, match=r"'y' has 4 null.* in 1.parquet:0 \(2\), 3.parquet:0 \(2\)") as caught:
        surveyed(good, values, good, values)
    assert "remove these rows" in str(caught.value) and "0.parquet" not in str(caught.value)
    with pytest.raises(BadValueError, match=r"'y' has 2 nulls in there"):
        surveyed(good).encode(values, "there")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("task", ["regress", "classify"])
def test_what_is_not_finite_is_counted_and_placed(task: str, bad: float) -> None:
    good = np.array([0.5, 1.5, 2.5])
    spoilt = np.array([0.5, bad, bad, 1.5])
    with pytest.raises(BadValueError, match=r"has 6 null, NaN or infinite.*\(2\), .*\(2\), .*\(2\)$|has 6 .*remove"):
        surveyed(good, spoilt, spoilt, good, spoilt, task=task)
    with pytest.raises(BadValueError, match=r"has 10 .* and 2 more"):
        surveyed(*[spoilt] * 5, task=task)
    target = surveyed(good, task=task)
    with pytest.raises(BadValueError, match=r"'y' (has 2 values|is nan|is -?inf).* in there"):
        target.encode(pa.array(spoilt), "there")


@pytest.mark.parametrize(("values", "only"), [([7, 7], "7"), (["a", "a"], "'a'"), ([True], "True")])
def test_one_class_is_refused(values: list[Any], only: str) -> None:
    with pytest.raises(DataError, match=rf"'y' has one class \(only {only}\)"):
        surveyed(values, values)


@pytest.mark.parametrize("encode", [False, True])
def test_integers_of_many_values_are_refused_until_the_task_is_given(encode: bool) -> None:
    def column(n: int) -> pa.Array:
        values = pa.array(np.arange(n))
        return values.dictionary_encode() if encode else values

    assert len(surveyed(column(1_000)).classes) == 1_000
    with pytest.raises(DataError, match=r"more than 1,000 distinct values.*--task classify or --task regress"):
        surveyed(column(900), column(1_001))
    assert len(surveyed(column(1_001), task="classify").classes) == 1_001
    assert surveyed(column(1_001), task="regress").task == "regress"
    assert len(surveyed([str(i) for i in range(1_500)]).classes) == 1_500  # text can be nothing else


@pytest.mark.parametrize(
    ("values", "classes", "expected"),
    [
        ([1, 2], ["10", "2", "2"], (2, 10)),
        ([True], ["true", "False"], (False, True)),
        (["a"], ["b", "a"], ("a", "b")),
        ([0.5], ["0.5", "1"], None),
        (pa.array(["a"]).dictionary_encode(), ["b", "a"], ("a", "b")),
    ],
)
def test_classes_that_are_named_are_not_looked_for(values: Any, classes: list[str], expected: Any) -> None:
    values = values if isinstance(values, pa.Array) else pa.array(values)
    reader = OneColumn(values)
    table = ChunkTable.of(reader.chunks())
    if expected is None:
        with pytest.raises(UsageError, match="--classes: is for classification"):
            survey(reader, table, "y", classes=classes)
        target = survey(reader, table, "y", classes=classes, task="classify")
        expected = (0.5, 1.0)
    else:
        target = survey(reader, table, "y", classes=classes)
    assert target.classes == expected and target.counts == () and target.clustering is None
    assert reader.reads == 0
    assert target.as_dict() == {
        "name": "y", "task": "classify", "classes": list(expected), "counts": None, "clustering": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "classes", "message"),
    [([1], ["1", "x"], "--classes '1', 'x': 'y' is int64"), ([True], ["yes", "no"], "--classes 'yes', 'no': 'y' is bool"),
     ([1], ["1", "1"], "1 class given"), (["a"], [], "0 class")],
)  # fmt: skip
def test_classes_that_cannot_be(values: Any, classes: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        surveyed(values, classes=classes)


@pytest.mark.parametrize(
    ("values", "task", "error", "message"),
    [
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())), None, ColumnError, "a target is one number, boolean"),
        (pa.array([b"x"]), None, ColumnError, "'y' is binary"),
        (pa.array([0], pa.timestamp("s")), None, ColumnError, "timestamp"),
        (pa.array(["a"]), "regress", ColumnError, "'y' is text: --task regress needs numbers"),
        (pa.array([1]), "cluster", UsageError, "--task cluster: must be 'classify' or 'regress'"),
    ],
)
def test_columns_and_tasks_that_cannot_be(values: pa.Array, task: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        surveyed(values, task=task)


def test_a_target_that_is_not_there() -> None:
    reader = OneColumn(pa.array([1]))
    with pytest.raises(ColumnError, match="no column 'Y' for the target: did you mean 'y'"):
        survey(reader, ChunkTable.of(reader.chunks()), "Y")


def test_clustering_is_0_for_mixed_and_1_for_sorted_targets() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 8_192 * 10)
    for mixed in (labels, np.array(list("abcde"))[labels].astype(object), rng.normal(1e6, 1, len(labels))):
        assert (surveyed(mixed).clustering or 0) < 0.002
    blocks = np.repeat(np.arange(5), 2 * 8_192)
    assert surveyed(blocks).clustering == 1
    assert surveyed(*np.split(blocks, 20)).clustering == 1
    assert surveyed(blocks.astype(float)).clustering == 1
    assert surveyed(np.sort(rng.normal(0, 1, 8_192 * 20))).clustering > 0.95
    half = np.where(np.arange(len(labels)) % 2 == 0, np.sort(labels), labels)
    assert 0.1 < surveyed(half).clustering < 0.6
    assert surveyed(np.zeros(100) + 0.5).clustering == 0


@examples(60)
@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", "dd"]), max_size=30), min_size=1, max_size=6))
def test_counts_are_counts_however_the_rows_are_chunked(chunks: list[list[str]]) -> None:
    rows = [value for chunk in chunks for value in chunk]
    if len(set(rows)) < 2:
        with pytest.raises(DataError, match="one class"):
            surveyed(*[pa.array(chunk, pa.string()) for chunk in chunks])
        return
    target = surveyed(*[pa.array(chunk, pa.string()) for chunk in chunks])
    assert target.classes == tuple(sorted(set(rows)))
    assert target.counts == tuple(rows.count(value) for value in target.classes)
    assert [target.classes[c] for c in target.encode(pa.array(rows), "here")] == rows


@examples(60)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=20, unique=True))
def test_large_integers_are_told_apart(values: list[int]) -> None:
    target = surveyed(np.array(values))
    assert [target.classes[c] for c in target.encode(pa.array(values), "here")] == values


# -- classes that an older run knows ---------------------------------------------------------------------------------------


def older(*classes: Any, task: str = "classify", **more: Any) -> Target:
    return Target("y", task, tuple(classes), **more)


@pytest.mark.parametrize(
    ("values", "known", "classes", "counts"),
    [
        (["b", "d", "b"], older("a", "b", "c"), ("a", "b", "c", "d"), (0, 2, 0, 1)),
        (["b", "b"], older("a", "b"), ("a", "b"), (0, 2)),
        (["c"], older("a", "b"), ("a", "b", "c"), (0, 0, 1)),
        ([5, 3], older(3, 9), (3, 5, 9), (1, 1, 0)),
        ([0.5, 1.0], older(1, 2), (0.5, 1, 2), (1, 1, 0)),
        ([2, 1], older(False, True), (0, 1, 2), (0, 1, 1)),
        ([True], older(0, 1, 2), (0, 1, 2), (0, 1, 0)),
    ],
)
def test_known_classes_are_added_to_those_found(values: Any, known: Target, classes: Any, counts: Any) -> None:
    target = surveyed(values, earlier=known)
    assert (target.task, target.classes, target.counts, target.rows) == ("classify", classes, counts, len(values))
    assert target.clustering is not None and 0 <= target.clustering <= 1
    assert [target.classes[c] for c in target.encode(pa.array(values), "here")] == values
    assert len({isinstance(c, bool) for c in target.classes}) == 1 and len(target.labels) == len(classes)


def test_classes_that_do_not_occur_change_no_clustering() -> None:
    blocks = np.repeat(np.arange(5), 2 * 8_192)
    mixed = np.random.default_rng(0).integers(0, 5, 8_192 * 10)
    for values in (blocks, mixed):
        assert surveyed(values, earlier=older(2, 7, 9)).clustering == surveyed(values).clustering
    assert surveyed(np.zeros(9_000, np.int64), earlier=older(0, 1)).clustering == 0


def test_named_and_known_classes() -> None:
    assert surveyed(["a"], earlier=older("a", "b"), classes=["z"]).classes == ("a", "b", "z")
    assert surveyed([1], earlier=older("0", "1"), classes=["7"]).classes == ("0", "1", "7")
    with pytest.raises(UsageError, match="--classes 'b': 'y' is"):
        surveyed(["1"], earlier=older(0, 1), classes=["b"])


@pytest.mark.parametrize(
    ("values", "known", "classes", "counts"),
    [
        ([1, 0, 2, 1], older("0", "1"), ("0", "1", "2"), (1, 2, 1)),
        (np.array([1.0, 0.0]), older("0", "1"), ("0", "1"), (1, 1)),
        (["1", "0", "2"], older(0, 1), (0, 1, 2), (1, 1, 1)),
        (pa.array(["1", "0"]).dictionary_encode(), older(0, 1), (0, 1), (1, 1)),
        (pa.array([1, 0], pa.decimal128(20, 0)), older("0", "1"), ("0", "1"), (1, 1)),
    ],
)
def test_labels_are_read_as_the_type_of_the_known_classes(
    values: Any, known: Target, classes: Any, counts: Any
) -> None:
    target = surveyed(values, earlier=known, task="classify")
    assert (target.classes, target.counts) == (classes, counts)


@pytest.mark.parametrize(
    ("values", "known", "task", "message"),
    [
        (
            np.array([1.0, 2.5]),
            older("a", "b"),
            None,
            r"'y' is 2.5, but the classes of the old run are text \('a', 'b'\)",
        ),
        ([True], older("a", "b"), None, "'y' is True, but the classes of the old run are text"),
        (["1", "a"], older(1, 2), None, r"'y' is 'a', but the classes of the old run are numbers \(1, 2\)"),
        (["07"], older(1, 7), None, "'y' is '07', but"),
        ([3, 4], older("a", "b"), None, "'y' is '3', but the classes of the old run are text"),
        (["a"], older("a", "b"), "regress", "--task regress: the old run has task classify for 'y'"),
    ],
)
def test_classes_of_another_kind(values: Any, known: Target, task: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        surveyed(values, earlier=known, task=task)


def test_a_regression_goes_on_from_its_origin() -> None:
    far = np.array([5e9, 5e9 + 1])
    assert surveyed(far).offset == 5e9
    assert surveyed(far, earlier=older(task="regress", offset=4e9)).offset == 4e9
    assert surveyed(far, earlier=older(task="regress")).offset == 0
    assert surveyed([1, 2], earlier=older(task="regress")).task == "regress"
    with pytest.raises(ColumnError, match="needs numbers"):
        surveyed(["a"], earlier=older(task="regress"))


def test_many_integers_are_classes_where_an_older_run_has_as_many() -> None:
    values = np.arange(1_500)
    with pytest.raises(DataError, match="more than 1,000 distinct values"):
        surveyed(values, earlier=older(1, 2))
    assert len(surveyed(values, earlier=older(*range(1_200))).classes) == 1_500


def test_several_targets_that_are_known() -> None:
    data = {"x": np.arange(4.0), "y": [0, 1, 1, 0], "z": ["a"] * 4}
    known = Target.of([older(0, 1), Target("z", "classify", ("a", "b"))])
    source = Source.open(data, target=["y", "z"])
    found = source.surveyed(earlier=known).layout.target
    assert found is not None and [part.classes for part in found.several] == [(0, 1), ("a", "b")]
    with pytest.raises(UsageError, match="--target z,y: the old run has target y,z"):
        Source.open(data, target=["z", "y"]).surveyed(earlier=known)
    with pytest.raises(DataError, match="'z' has one class"):
        source.surveyed()
