"""Fields of structs are columns, whatever holds them; extension types are what they store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import CommandLine, state, write_parquet

import streamtrain
from streamtrain.columns.groups import groups
from streamtrain.errors import ColumnError
from streamtrain.load import Source
from streamtrain.load.demand import column_shares
from streamtrain.storage.checked import open_stream, read_columns
from streamtrain.storage.nested import columns_of, read_units, stored_columns
from streamtrain.storage.opening import open_reader
from streamtrain.tools.inspect import inspect
from streamtrain.tools.rechunk import rechunk

ROWS = 600


def user(i: int) -> dict[str, Any] | None:
    if i % 10 == 3:
        return None
    return {"age": i * 7 % 80, "city": "ab"[i % 2], "at": {"lat": i / 9, "up.down": i % 5} if i % 7 else None}


@pytest.fixture(scope="module")
def structs() -> pa.Table:
    users = [user(i) for i in range(ROWS)]
    y = [0.0 if u is None or u["at"] is None else u["age"] / 9 + u["at"]["lat"] for u in users]
    return pa.table({"user": users, "y": y})


def flat(table: pa.Table) -> pa.Table:
    """The same rows without structs, made by another way."""

    def get(value: Any, *path: str) -> Any:
        return value if value is None or not path else get(value[path[0]], *path[1:])

    users = table["user"].to_pylist()
    paths = ("age",), ("city",), ("at", "lat"), ("at", "up.down")
    columns = {".".join(("user", *path)): [get(u, *path) for u in users] for path in paths}
    return pa.table({**columns, "y": table["y"]})


def fitted(data: Any, **settings: Any) -> Any:
    return streamtrain.fit(data, target=settings.pop("target", "y"), memory="2GB", **settings).model


def test_fields_of_structs_are_read_as_columns(structs: pa.Table, tmp_path: Path) -> None:
    write_parquet(tmp_path / "s.parquet", structs, row_group_size=200)
    with pa.ipc.new_file(tmp_path / "s.arrow", structs.schema) as file:
        file.write_table(structs, max_chunksize=200)
    lines = "\n".join(json.dumps(row) for row in structs.to_pylist())
    (tmp_path / "s.jsonl").write_text(lines)
    wanted = flat(structs)
    for data in (tmp_path / "s.parquet", tmp_path / "s.arrow", tmp_path / "s.jsonl", structs):
        reader = open_reader(data)
        names = columns_of(reader.schema).names
        assert names == wanted.column_names
        for read in (read_columns, lambda *a: open_stream(*a, 70)):
            batches = [batch for chunk in reader.chunks() for batch in read(reader, chunk, [*names[2:], *names[:1]])]
            found = {
                name: [v for batch in batches for v in batch.column(name).to_pylist()]
                for name in batches[0].schema.names
            }
            assert list(found) == [*names[2:], *names[:1]]
            assert found == wanted.select(list(found)).to_pydict()


def test_structs_train_resume_and_predict_as_flat_columns_do(structs: pa.Table, tmp_path: Path) -> None:
    nested = write_parquet(tmp_path / "s.parquet", structs, row_group_size=200)
    plain = write_parquet(tmp_path / "f.parquet", flat(structs), row_group_size=200)
    fitted(nested, out=tmp_path / "run", epochs=1)
    wanted = fitted(plain, epochs=2)
    assert state(fitted(nested, out=tmp_path / "run", epochs=2, resume=True)) == state(wanted)
    for name, data in (("s", nested), ("f", plain)):
        streamtrain.predict(tmp_path / "run", data, out=tmp_path / f"p-{name}.parquet")
    assert pq.read_table(tmp_path / "p-s.parquet") == pq.read_table(tmp_path / "p-f.parquet")
    where = "user.age > 40 and user.city = 'a'"
    assert state(fitted(nested, where=where)) == state(fitted(plain, where=where))


def test_a_struct_or_its_field_is_named(structs: pa.Table, cli: CommandLine, tmp_path: Path) -> None:
    def read(**settings: Any) -> list[str]:
        return list(Source.open(structs, target="y", **settings).layout.features)

    at = ["user.at.lat", "user.at.up.down"]
    assert read() == read(features=["user"]) == ["user.age", "user.city", *at]
    assert read(features=["user.at"]) == at
    assert read(exclude=["user.at"]) == ["user.age", "user.city"]
    assert read(exclude=["user.city", "user.at.lat"]) == ["user.age", "user.at.up.down"]
    layout = Source.open(structs, target="user.age", roles={"user.at": "category", "y": "ignore"}).layout
    assert [(c.name, c.role) for c in layout.columns] == [
        ("user.city", "category"),
        *((name, "category") for name in at),
    ]
    data = write_parquet(tmp_path / "s.parquet", structs)
    options = "--features", "user.age,user.city", "--as", "user.age=category", "--json"
    found = cli("fit", data, "--target", "y", *options).json
    assert found["rows"] == ROWS
    assert {c["name"]: c["becomes"] for c in inspect(data)["columns"]}["user.at.lat"] == "number"
    for wrong in ("user", "user.at"):
        with pytest.raises(ColumnError, match=rf"no column '{wrong}' for the target: did you mean 'user\."):
            Source.open(structs, target=wrong)
    with pytest.raises(ColumnError, match=r"no column 'user\.name'"):
        Source.open(structs, target="y", features=["user.name"])


def test_a_column_of_the_name_comes_first_and_names_stay_apart() -> None:
    table = pa.table({"a": [{"b": 1, "c": 2}], "a.b": [7], "a.x": [8], "e": pa.array([{}], pa.struct([]))})
    assert columns_of(table.schema).names == ["a.c", "a.b", "a.x", "e"]
    (chunk,), reader = open_reader(table).chunks(), open_reader(table)
    (batch,) = read_columns(reader, chunk, ["a.b", "a.c", "a.x"])
    assert batch.to_pylist() == [{"a.b": 7, "a.c": 2, "a.x": 8}]
    assert Source.open(pa.table({"a.b": [1], "a.c": [2], "y": [0.5]}), target="y", exclude=["a.b"]).layout.features == (
        "a.c",
    )
    with pytest.raises(ColumnError, match="no column 'a'"):  # there is no struct
        Source.open(pa.table({"a.b": [1], "a.c": [2], "y": [0.5]}), target="y", exclude=["a"])


def test_a_struct_is_planned_as_what_is_decoded(structs: pa.Table) -> None:
    wide = pa.table({"s": [{f"f{i}": float(i) for i in range(9)}] * 50, "x": [0.0] * 50, "y": [0.5] * 50})
    source = Source.open(wide, target="y", features=["x", "s.f0", "s.f5"])
    units = read_units(wide.schema, source.layout.read)
    assert units["s.f5"] == ("s", 72.0) and stored_columns(wide.schema, source.layout.read) == ["x", "s", "y"]
    assert column_shares(source.reader, source.table, source.layout) == (72 + 8 + 8, 1.0, 72 / 88)
    assert groups(source.layout, 0.1, units) == [["x"], ["s.f0", "s.f5"], ["y"]]


def test_extension_types_are_what_they_store(tmp_path: Path) -> None:
    class Own(pa.ExtensionType):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(pa.struct([("lat", pa.float64()), ("id", pa.uuid())]), "test.own")

        def __arrow_ext_serialize__(self) -> bytes:
            return b""

        @classmethod
        def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> Own:
            return cls()

    ids = pa.array([UUID(int=i % 3).bytes for i in range(ROWS)], pa.binary(16))
    stored = {
        "id": (pa.uuid(), ids), "doc": (pa.json_(), pa.array([f'{{"a": {i % 4}}}' for i in range(ROWS)])),
        "flag": (pa.bool8(), pa.array([i % 2 for i in range(ROWS)], pa.int8())),
    }  # fmt: skip
    table = pa.table({name: pa.ExtensionArray.from_storage(kind, values) for name, (kind, values) in stored.items()})
    inner = pa.StructArray.from_arrays([pa.array(np.arange(ROWS) / 7), table["id"].combine_chunks()], ["lat", "id"])
    table = table.append_column("own", pa.ExtensionArray.from_storage(Own(), inner))
    plain = {**{name: values for name, (_, values) in stored.items()}, "own.lat": inner.field(0), "own.id": ids}
    y = pa.array(np.arange(ROWS) % 2)
    wanted = fitted(pa.table({**plain, "y": y}))
    assert [c.role for c in wanted.layout.columns] == ["category", "category", "number", "number", "category"]
    assert state(fitted(table.append_column("y", y))) == state(wanted)
    assert state(fitted(table, target="flag")) == state(fitted(pa.table(plain), target="flag"))
    data = write_parquet(tmp_path / "e.parquet", table.select(["id", "doc", "flag"]).append_column("y", y))
    assert state(fitted(data)) == state(fitted(pa.table({**plain, "y": y}), features=["id", "doc", "flag"]))


def test_copies_keep_structs_and_extension_types(structs: pa.Table, tmp_path: Path) -> None:
    table = structs.append_column(
        "id", pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16] * ROWS, pa.binary(16)))
    )
    rechunk(write_parquet(tmp_path / "s.parquet", table), out=tmp_path / "copy", chunk_rows=250)
    assert pq.read_table(tmp_path / "copy").equals(table)
