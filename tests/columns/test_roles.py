"""What each column becomes: by its type, as asked, or refused by name with the remedy."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from make import kept

from streamtrain.columns import roles
from streamtrain.columns.categories import hash_values, seed_of
from streamtrain.columns.choose import choose_role, choose_roles
from streamtrain.columns.crosses import parse_crosses
from streamtrain.columns.role import Column, Role
from streamtrain.columns.texts import looks_like_text
from streamtrain.errors import ColumnError, UsageError
from streamtrain.storage.sparse import SparseRows

ROLES: list[tuple[Any, str, int]] = [
    (pa.int8(), "number", 1), (pa.uint64(), "number", 1), (pa.float16(), "number", 1), (pa.bool_(), "number", 1),
    (pa.decimal128(9, 2), "number", 1), (pa.duration("us"), "number", 1),
    (pa.fixed_shape_tensor(pa.uint8(), [2, 3]), "number", 6), (pa.list_(pa.float64(), 4), "number", 4),
    (pa.timestamp("us", "UTC"), "time", 7), (pa.date32(), "time", 5), (pa.time64("us"), "time", 2),
    (pa.string(), "category", 0), (pa.large_string(), "category", 0), (pa.string_view(), "category", 0),
    (pa.binary(), "category", 0), (pa.binary(4), "category", 0), (pa.dictionary(pa.int8(), pa.string()), "category", 0),
    (pa.dictionary(pa.int8(), pa.int64()), "category", 0), (pa.null(), "ignore", 0), (pa.list_(pa.null()), "ignore", 0),
    (pa.list_(pa.string()), "bag", 0), (pa.list_(pa.int64()), "bag", 0), (pa.map_(pa.string(), pa.int8()), "bag", 0),
    (SparseRows(9), "bag", 0), (pa.list_(pa.float32()), "number", 1), (pa.list_(pa.string(), 2), "bag", 0),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "role", "numbers"), ROLES, ids=lambda x: str(x))
def test_the_role_of_each_type(kind: Any, role: str, numbers: int) -> None:
    column = choose_role(pa.field("x", kind))
    assert (column.role, column.numbers, len(column.parts)) == (role, numbers, numbers)
    assert column.why


@pytest.mark.parametrize("kind", [pa.list_(pa.list_(pa.int8())), pa.struct([("a", pa.int8())])])
def test_nested_types_are_refused_by_name_with_the_remedy(kind: Any) -> None:
    schema = pa.schema([("good", pa.int8()), ("bad one", kind)])
    with pytest.raises(ColumnError, match=r"'bad one' .*--exclude bad one"):
        choose_roles(schema, schema.names, {})
    assert choose_role(schema.field("bad one"), "ignore").role == "ignore"


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        (pa.binary(), "number"),
        (pa.int64(), "time"),
        (pa.int64(), "text"),
        (pa.list_(pa.float32(), 2), "category"),
        (pa.list_(pa.string()), "number"),
    ],
)
def test_what_a_column_cannot_be(kind: Any, asked: str) -> None:
    with pytest.raises(ColumnError, match=f"--as x={asked}"):
        choose_role(pa.field("x", kind), asked)


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        (pa.int64(), "category"),
        (pa.float32(), "category"),
        (pa.date32(), "time"),
        (pa.dictionary(pa.int8(), pa.date32()), "time"),
        (pa.date32(), "number"),
        (pa.bool_(), "category"),
        (pa.list_(pa.int8()), "number"),
        (pa.list_(pa.int8(), 3), "bag"),
    ],
)
def test_what_a_column_can_be_asked_to_be(kind: Any, asked: str) -> None:
    assert choose_role(pa.field("x", kind), asked).role == asked


ENCODED = [
    ([1, 2, None, 1], [pa.int8(), pa.int64(), pa.uint16(), pa.dictionary(pa.int8(), pa.int64())]),
    (["a", "", None, "long enough to need words"], [pa.string(), pa.large_string(), pa.string_view(), pa.binary()]),
    ([1.5, -0.0, None, 0.0], [pa.float32(), pa.float64(), pa.decimal128(9, 2)]),
    ([True, False, None, True], [pa.bool_()]),
]


@pytest.mark.parametrize(("values", "kinds"), ENCODED, ids=["whole", "text", "floats", "booleans"])
def test_a_value_has_one_signature_however_it_is_encoded(values: list[Any], kinds: list[Any]) -> None:
    found = []
    for kind in kinds:
        own = [Decimal(str(v)) if v is not None else None for v in values] if pa.types.is_decimal(kind) else values
        array = pa.array(own, kind)
        found.append(hash_values(array, 5).tolist())
        padded = pa.concat_arrays([array.slice(0, 1), array, array.slice(0, 1)]).slice(1, len(array))
        assert hash_values(padded, 5).tolist() == found[-1], "an offset changes nothing"
        if not pa.types.is_binary_view(kind) and not isinstance(kind, pa.DictionaryType) and kind != pa.string_view():
            assert hash_values(array.dictionary_encode(), 5).tolist() == found[-1]
    assert all(one == found[0] for one in found)
    distinct = len({repr(v + 0.0) if isinstance(v, float) else v for v in values})
    assert len(set(found[0])) == distinct and 0 not in found[0]
    assert hash_values(pa.array([None, None]), 5).tolist() == [found[0][2]] * 2, "a null is the same value in any type"


def test_columns_do_not_share_signatures() -> None:
    array = pa.array(["a", "b"])
    assert set(hash_values(array, seed_of("x")).tolist()).isdisjoint(hash_values(array, seed_of("y")).tolist())


@pytest.mark.parametrize("name", roles.ROLES)
def test_a_role_is_listed_by_its_name_and_kept_by_a_model(name: str) -> None:
    role = roles.role_named(name)
    assert role.name == name and issubclass(type(role), Role)
    kinds = [kind for kind in (pa.float64(), pa.date32(), pa.string(), pa.list_(pa.string())) if role.accepts(kind)]
    for kind in kinds:
        column = replace(choose_role(pa.field("x", kind), name), **dict.fromkeys(role.remembers, 7.0))
        assert not role.is_read or replace(kept(column), is_requested=True) == column
    assert kinds
    with pytest.raises(ValueError, match="'sound' is not a role: must be one of number"):
        roles.role_named("sound")


def test_crosses() -> None:
    schema = pa.schema(
        [
            ("a", pa.string()),
            ("b:c", pa.int64()),
            ("f", pa.float32()),
            ("day", pa.date32()),
            ("l", pa.list_(pa.string())),
        ]
    )
    columns = choose_roles(schema, schema.names, {})
    assert parse_crosses(["a:b:c", "a:day"], columns) == (("a", "b:c"), ("a", "day"))
    assert parse_crosses([("a", "b:c", "day")], columns) == (("a", "b:c", "day"),)
    for wrong, what in (
        ("a", "at least two"),
        ("a:a", "different"),
        ("a:x", "not a feature"),
        ("a:f", "--as f=category"),
        ("a:l", "'l' is list<item: string>: a row of it has many values"),
    ):
        with pytest.raises((UsageError, ColumnError), match=what):
            parse_crosses([wrong], columns)


def test_sentences_are_told_from_names() -> None:
    assert looks_like_text([f"this is sentence number {i}" for i in range(20)])
    assert not looks_like_text([f"item {i}" for i in range(20)])
    assert not looks_like_text(["the same four words"] * 20) and not looks_like_text(["one two three four"])


def test_a_column_of_other_data_is_the_same_or_named() -> None:
    def same_column(own: Column, field: pa.Field) -> Column:
        return own.becomes.same(own, field)

    when = replace(choose_role(pa.field("t", pa.timestamp("ms"))), offset=5000.0)
    assert same_column(when, pa.field("t", pa.timestamp("us"))).offset == 5_000_000
    number = choose_role(pa.field("x", pa.int8()))
    assert same_column(number, pa.field("x", pa.float64())).role == "number"
    city = choose_role(pa.field("c", pa.dictionary(pa.int8(), pa.string())))
    assert same_column(city, pa.field("c", pa.large_string())).role == "category"
    for own, other in (
        (city, pa.field("c", pa.bool_())),
        (city, pa.field("c", pa.timestamp("ms"))),
        (number, pa.field("x", pa.timestamp("ms"))),
        (when, pa.field("t", pa.timestamp("ms", "UTC"))),
        (when, pa.field("t", pa.int64())),
    ):
        with pytest.raises(ColumnError):
            same_column(own, other)
