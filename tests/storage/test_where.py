"""--where: its grammar, its literals, and the rows that match, compared with pandas."""

from __future__ import annotations

import datetime
import operator
import pickle
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import examples

from streamtrain import open_reader
from streamtrain.errors import ColumnError, DataError, UsageError
from streamtrain.storage.kept import Bits, KeptTable
from streamtrain.storage.reader import ChunkTable
from streamtrain.storage.where.grammar import columns_of, parse
from streamtrain.storage.where.masks import Where
from streamtrain.storage.where.opening import where_fingerprint

SIGNS = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
DAYS = [datetime.date(2026, 1, 1) + datetime.timedelta(days) for days in range(4)]
#: the type of each column, and the values that rows and literals are drawn from
KINDS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "i": (pa.int64(), [-(2**63), -1, 0, 1, 2**53 + 1, 2**63 - 1]),
    "u": (pa.uint64(), [0, 1, 2**63, 2**64 - 1]),
    "f": (pa.float64(), [-1.5, -0.0, 0.0, 0.1, 1e300]),
    "g": (pa.float32(), [-1.5, 0.1, 2.0]),
    "s": (pa.string(), ["", "a", "it's", "ü"]),
    "c": (pa.dictionary(pa.int8(), pa.string()), ["", "a", "b"]),
    "b": (pa.bool_(), [True, False]),
    "d": (pa.date32(), DAYS),
    "t": (pa.timestamp("us"), [datetime.datetime(2026, 1, 1, 10, 30), datetime.datetime(2026, 1, 2)]),
    "p": (pa.decimal128(6, 2), [Decimal("-1.50"), Decimal("0.10"), Decimal("1000.25")]),
}
MORE: dict[str, list[Any]] = {"f": [np.nan, np.inf, -np.inf], "g": [np.nan]}  # in rows, never in literals
Expression = tuple[str, Any]  # a text; and a function of a frame, to a nullable boolean series


def literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, datetime.date)):
        return "'" + str(value).replace("'", "''") + "'"
    return repr(value) if isinstance(value, float) else str(value)


def compared(frame: pd.DataFrame, name: str, sign: str, value: Any) -> pd.Series:
    """A comparison as pandas makes it, and null where the value is."""
    values = frame[name]
    value = np.float32(value) if name == "g" else value
    found = [None if v is None else bool(SIGNS[sign](v, value)) for v in values]
    return pd.Series(found, dtype="boolean")


@st.composite
def comparisons(draw: st.DrawFn) -> Expression:
    name = draw(st.sampled_from(list(KINDS)))
    values = st.sampled_from(KINDS[name][1])
    kind = draw(st.sampled_from(["compare", "turned", "in", "null", "alone"]))
    if kind == "null":
        return f"{name} is null", lambda frame: pd.Series([v is None for v in frame[name]], dtype="boolean")
    if kind == "alone" and name == "b":
        return "b", lambda frame: compared(frame, "b", "=", True)
    if kind == "in":
        chosen = draw(st.lists(values, min_size=1, max_size=3))

        def among(frame: pd.DataFrame) -> pd.Series:
            found = compared(frame, name, "=", chosen[0])
            for value in chosen[1:]:
                found = found | compared(frame, name, "=", value)
            return found

        return f"{name} in ({', '.join(map(literal, chosen))})", among
    sign, value = draw(st.sampled_from(list(SIGNS))), draw(values)
    if kind == "turned":
        other = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(sign, sign)
        return f"{literal(value)}{other} `{name}`", lambda frame: compared(frame, name, sign, value)
    return f'"{name}"{sign}{literal(value)}', lambda frame: compared(frame, name, sign, value)


def joined(parts: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    def both(pair: tuple[Expression, Expression, str]) -> Expression:
        (one, first), (other, second), word = pair
        join = operator.and_ if word == "and" else operator.or_
        return f"({one}) {word.upper()} ({other})", lambda frame: join(first(frame), second(frame))

    def negated(part: Expression) -> Expression:
        return f"not ({part[0]})", lambda frame: ~part[1](frame)

    return st.tuples(parts, parts, st.sampled_from(["and", "or"])).map(both) | parts.map(negated)


expressions = st.recursive(comparisons(), joined, max_leaves=5)


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(1, 9))
    columns = {
        name: pa.array(
            draw(st.lists(st.sampled_from([None, *values, *MORE.get(name, [])]), min_size=rows, max_size=rows)),
            kind.value_type if name == "c" else kind,
            from_pandas=False,
        )
        for name, (kind, values) in KINDS.items()
    }
    columns["c"] = columns["c"].dictionary_encode().cast(KINDS["c"][0])
    return pa.table({"row": np.arange(rows), **columns})


def rows_of(reader: Any) -> list[int]:
    return [row for chunk in reader.chunks() for row in pa.table(reader.read(chunk, ["row"]))["row"].to_pylist()]


@given(table=tables(), expression=expressions)
@examples(40)
def test_the_same_rows_as_pandas(
    table: pa.Table, expression: Expression, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text, says = expression
    frame = pd.DataFrame({name: pd.Series(table[name].to_pylist(), dtype=object) for name in table.column_names})
    expected = np.flatnonzero(says(frame).fillna(False).to_numpy(bool)).tolist()
    mask = Where(parse(text), table.schema).matches(table.combine_chunks().to_batches()[0])
    assert np.flatnonzero(mask.to_numpy(zero_copy_only=False)).tolist() == expected, text
    path = tmp_path_factory.getbasetemp() / "where.parquet"
    pq.write_table(table, path, row_group_size=2)
    for data in (table, str(path)):
        if expected:
            assert rows_of(open_reader(data, where=text)) == expected, text
        else:
            with pytest.raises(DataError, match=f"none of the {len(table)} rows matches"):
                open_reader(data, where=text)


def test_text_files(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"row": range(50), "x": [None if i % 7 == 0 else i % 5 for i in range(50)], "city": ["Rome", "Oslo"] * 25}
    )
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    expected = frame[~(frame.x.isna() | (frame.x > 2)) & (frame.city == "Oslo")].row.tolist()
    for name in ("a.csv", "a.jsonl"):
        assert rows_of(open_reader(tmp_path / name, where="not (x > 2) and city = 'Oslo'")) == expected


def test_statistics_are_not_looked_at(tmp_path: Path) -> None:
    """Bounds of text are cut off, and a file may lie about others."""
    table = pa.table(
        {"row": np.arange(6), "x": [5, 1, 9, 2, 2, 7], "s": ["z" * 100, "a", None, "b" * 99, "q", "z" * 101]}
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=3, use_dictionary=False)
    content = (tmp_path / "a.parquet").read_bytes()
    lies = content.replace((9).to_bytes(8, "little"), (1).to_bytes(8, "little"))
    at = len(content) - int.from_bytes(content[-8:-4], "little") - 8
    (tmp_path / "b.parquet").write_bytes(content[:at] + lies[at:])  # in the footer only
    assert pq.read_metadata(tmp_path / "b.parquet").row_group(0).column(1).statistics.max == 1
    for name in ("a.parquet", "b.parquet"):
        assert rows_of(open_reader(tmp_path / name, where="x > 6")) == [2, 5]
    assert rows_of(open_reader(tmp_path / "a.parquet", where=f"s > '{'z' * 100}'")) == [5]


WRONG = [
    ("", "expected a column, 'not' or '(', but the text ends there"),
    ("x >", "expected a number, 'text', true or false after '>', but the text ends there"),
    ("x = 'a", "the quote ' at character 5 is not closed"),
    ("x = 1 y = 2", "expected 'and', 'or' or the end after '1' at character 7, not y"),
    ("x = null", "null at character 5 equals nothing: write 'is null' or 'is not null'"),
    ("x = Rome", "Rome at character 5 is a column: columns are compared with literals, not with one another; text needs single "
     "quotes, 'Rome'"),
    ("x in ()", "expected a number, 'text', true or false after '(' at character 7, not )"),
    ("2nd = 1", "'2nd' at character 1 is not a number: a column whose name begins so needs quotes, \"2nd\""),
    ("x = __import__('os')", "__import__ at character 5 is a column"),
    ("x; y", "';' at character 2 has no meaning here"),
    ("obs/b = 1", "'/' at character 4 has no meaning here: a name with such a character needs quotes"),
    ("(" * 100_000, "more than 100 parentheses and 'not' are inside one another"),
    ("not " * 101 + "x", "more than 100 parentheses and 'not' are inside one another"),
    ("x" * 100_001, "has 100,001 characters, and may have 100,000"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "says"), WRONG, ids=range(len(WRONG)))
def test_what_is_no_expression_is_refused_before_anything_is_opened(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_reader("no such file", where=text)
    assert says in str(caught.value) and len(str(caught.value)) < 400


def test_names_and_words() -> None:
    assert columns_of(parse('"a b" = 1 AND NOT user.age IN (1) Or `and` is not NULL or """q""" <> 2')) == [
        "a b", "user.age", "and", '"q"',
    ]  # fmt: skip
    assert parse("x == 1") == parse("1 = x")
    assert parse(" or ".join(["x = 1"] * 5_000)) == parse(f"({' or '.join(['x = 1'] * 5_000)})")


NO_VALUES = [
    ("i = 1.5", "column 'i' is int64, and 1.5 is no value of that type: give a whole number"),
    ("i = 'a'", "column 'i' is int64, and 'a' is no value of that type"),
    ("i = 9223372036854775808", "it must be from -9223372036854775808 to 9223372036854775807"),
    ("i = 1e999999999", "it is too large or too small"),
    ("u >= -1", "it must be from 0 to 18446744073709551615"),
    ("f = 9007199254740993", "the nearest one is 9007199254740992"),
    ("f = 1e400", "it is too large"),
    ("g = 1e39", "it is too large"),
    ("s = 3", "column 's' is string, and 3 is no value of that type: give text in single quotes"),
    ("c = 3", "give text in single quotes"),
    ("b = 1", "give true or false"),
    ("s", "column 's' is string, which is neither true nor false"),
    ("d = '2026-02-30'", "day"),
    ("d = '2026-01-01 10:00'", "give a date"),
    ("t = '2026-01-01Z'", "give a date or time"),
    ("t = '2026-01-01 10:00Z'", "the column has no time zone"),
    ("t = '2026-01-01 10:00:00.0000001'", "it is finer than the unit of the column, us"),
    ("p = 0.105", "more than 2 after the point"),
    ("p = 99999", "it has more than 6 digits"),
    ("l = 1", "can only be tested with 'is null'"),
    ("nobody = 1", "no column 'nobody'"),
]


@pytest.mark.parametrize(("text", "says"), NO_VALUES)
def test_a_literal_is_a_value_of_its_column_or_an_error(text: str, says: str) -> None:
    schema = pa.schema([*((name, kind) for name, (kind, _) in KINDS.items()), ("l", pa.list_(pa.int8()))])
    with pytest.raises(ColumnError) as caught:
        Where(parse(text), schema)
    assert says in str(caught.value)


def test_times_and_other_types() -> None:
    berlin = pa.array(
        [datetime.datetime(2026, 6, 30, 22, tzinfo=datetime.UTC), None], pa.timestamp("ms", "Europe/Berlin")
    )
    batch = pa.record_batch({
        "tz": berlin, "v": pa.array(["a", None], pa.string_view()), "h": pa.array([0.5, None], pa.float16()),
        "bin": pa.array([b"ab", None], pa.binary(2)), "clock": pa.array([datetime.time(10, 30), None], pa.time32("s")),
        "n": pa.nulls(2), "l": pa.array([[1], None]), "e": pa.array([b"0123456789abcdef", None], pa.uuid()),
        "r": pa.RunEndEncodedArray.from_arrays([1, 2], pa.array(["a", None])),
        "zero": [-0.0, 1.0], "k": pa.DictionaryArray.from_arrays(pa.array([1, 0], pa.int8()), pa.array([None, "a"])),
    })  # fmt: skip
    texts = [
        "tz = '2026-07-01'", "tz = '2026-06-30T22:00Z'", "tz = '2026-07-01 00:00:00.000+02:00'", "v = 'a'", "v in ('a', 'b')",
        "h = .5", "bin = 'ab'", "bin < 'abc'", "clock = '10:30'", "zero in (0, 2)", "zero = 0",
        "l is not null", "e is not null", "r = 'a'", "k = 'a'",
        "k is not null", "n is null and v = 'a'", "not (n = 'anything') or v = 'a'",
    ]  # fmt: skip
    for text in texts:
        assert Where(parse(text), batch.schema).matches(batch).to_pylist() == [True, False], text


def test_positions_of_rows() -> None:
    """Rows of the table of what is kept, and their positions in the data; over blocks and chunks, in any order."""
    random = np.random.default_rng(0)
    for share in (0.001, 0.5, 1.0):
        kept, rows = random.random(200_000) < share, random.integers(0, 900, 200)
        whole = ChunkTable(str, rows, rows, rows)
        kept = kept[: whole.total_rows]
        bits = Bits(len(kept))
        for start in range(0, len(kept), 777):
            bits.put(start, pa.array(kept[start : start + 777]))
        table, positions = KeptTable(whole, bits, "x"), np.flatnonzero(kept)
        assert table.total_rows == len(positions)
        assert table.rows.tolist() == [
            int(kept[a:b].sum()) for a, b in zip(whole.starts, whole.starts[1:], strict=False)
        ]
        asked = random.integers(0, len(positions), 500)
        assert table.data_rows(asked).tolist() == positions[asked].tolist()
        assert table.data_rows(np.arange(len(positions))).tolist() == positions.tolist()
        for number in range(0, 200, 17):
            start, stop = whole.starts[number : number + 2].tolist()
            chunk = pickle.loads(pickle.dumps(table[number]))
            if chunk.rows < whole[number].rows:
                assert chunk.mask(0, stop - start).to_pylist() == kept[start:stop].tolist()


def test_the_fingerprint_is_of_the_rows_that_are_kept() -> None:
    whole, found = ChunkTable(str, [8], [8], [8]), set()
    for kept in ([True] * 4 + [False] * 4, [False] * 4 + [True] * 4):
        bits = Bits(8)
        bits.put(0, pa.array(kept))
        found.add(where_fingerprint("a", KeptTable(whole, bits, "x")))
    assert len(found) == 2 and where_fingerprint("a", whole) == "a"


def test_a_reader_of_a_reader(tmp_path: Path) -> None:
    table = pa.table({"row": np.arange(1000), "x": np.arange(1000) % 10, "y": np.arange(1000) % 7})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=100)
    reader = open_reader(open_reader(tmp_path / "a.parquet", where="x < 5 or x > 8"), where="y = 1")
    assert rows_of(reader) == [r for r in range(1000) if (r % 10 < 5 or r % 10 > 8) and r % 7 == 1]
    assert reader.fingerprint() != open_reader(tmp_path / "a.parquet").fingerprint()
    slices = [batch["row"].to_pylist() for batch in reader.stream(reader.chunks()[0], ["row"], 10)]  # type: ignore[attr-defined]
    assert [row for rows in slices for row in rows] == [
        r for r in range(100) if (r % 10 < 5 or r % 10 > 8) and r % 7 == 1
    ]
    assert reader.stored_bytes == (tmp_path / "a.parquet").stat().st_size  # type: ignore[attr-defined]
