"""Several sources as one: a list of paths, tables and readers."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import CommandLine

import streamtrain
from streamtrain import fit, open_reader, predict
from streamtrain.errors import ColumnError, NotFoundError, RunError, UsageError
from streamtrain.storage.parquet.reader import ParquetReader


def frame(start: int, stop: int) -> pd.DataFrame:
    numbers = np.arange(start, stop)
    return pd.DataFrame({"x": numbers / 2, "y": numbers % 2, "city": [f"c{n % 5}" for n in numbers]})


def read(data: Any) -> pd.DataFrame:
    """All rows that a reader gives, by three ways that must agree."""
    reader: Any = open_reader(data)
    names, chunks = reader.schema.names, list(reader.chunks())
    whole = [pa.table(reader.read(chunk, names)) for chunk in chunks]
    slices = [pa.Table.from_batches(list(reader.stream(chunk, names, 7)), reader.schema) for chunk in chunks]
    together = (
        pa.table(reader.read_together(chunks, names)) if hasattr(reader, "read_together") else pa.concat_tables(whole)
    )
    found = pa.concat_tables([table.cast(whole[0].schema) for table in whole]).to_pandas()
    assert found.astype(str).equals(pa.concat_tables(slices).to_pandas().astype(str))
    assert found.astype(str).equals(together.to_pandas().astype(str))
    return found


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("b").mkdir()
    frame(0, 100).to_parquet("a.parquet")
    frame(100, 150).to_parquet("b/1.parquet")
    frame(150, 180).to_parquet("b/2.parquet")
    frame(180, 200).to_csv("c.csv", index=False)
    return tmp_path


def same(found: pd.DataFrame, wanted: pd.DataFrame) -> bool:
    return bool(found.astype(str).reset_index(drop=True).equals(wanted.astype(str).reset_index(drop=True)))


def test_files_of_one_format_are_one_reader(sources: Path) -> None:
    reader = open_reader(["a.parquet", "b"])
    assert isinstance(reader, ParquetReader)
    assert [chunk.key for chunk in reader.chunks()] == ["a.parquet:0", "b/1.parquet:0", "b/2.parquet:0"]
    assert same(read(["a.parquet", Path("b")]), frame(0, 180))
    assert same(read(["b", "a.parquet"]), pd.concat([frame(100, 180), frame(0, 100)]))  # in the order given
    elsewhere = [os.path.abspath("a.parquet"), os.path.abspath("b")]
    assert open_reader(elsewhere).fingerprint() == reader.fingerprint() == open_reader("**/*.parquet").fingerprint()
    assert open_reader(["b", "a.parquet"]).fingerprint() != reader.fingerprint()


def test_sources_of_several_kinds(sources: Path) -> None:
    more = pa.table({"x": np.arange(5.0), "y": np.arange(5), "city": ["z"] * 5})
    found = read(["a.parquet", "c.csv", "b", more])
    assert same(found, pd.concat([frame(0, 100), frame(180, 200), frame(100, 180), more.to_pandas()]))
    reader = open_reader(["a.parquet", "c.csv", "b/*.parquet"])
    assert pickle.loads(pickle.dumps(reader)).fingerprint() == reader.fingerprint()
    keys = [chunk.key for chunk in reader.chunks()]
    assert keys[0] == "a.parquet:0 of source 1" and len(set(keys)) == len(keys)
    assert open_reader(["c.csv"]).fingerprint() == open_reader("c.csv").fingerprint()


def test_a_column_that_a_source_does_not_have_is_null_and_types_are_common(sources: Path) -> None:
    pq.write_table(pa.table({"x": pa.array([1, 2], pa.int32()), "z": [0.5, 1.5]}), "d.parquet")
    reader: Any = open_reader(["c.csv", "d.parquet"])
    found = read(["c.csv", "d.parquet"])
    assert found["x"].tolist() == [*frame(180, 200)["x"], 1.0, 2.0] and found["z"].isna().sum() == 20
    assert "'z' is missing in 1 of 2 files, the first of them source 1 (c.csv)" in reader.warnings(["z"])[0]
    assert reader.warnings(["x"]) == []


def test_a_file_that_is_reached_twice_is_read_once(sources: Path) -> None:
    os.link("b/1.parquet", "linked.parquet")
    Path("again").symlink_to("b")
    for twice in (["b", "b/1.parquet"], ["b/*", "again"], ["b", "linked.parquet"], ["b", "c.csv", "b"]):
        reader: Any = open_reader(twice)
        found = read(twice)
        assert sorted(found["x"]) == sorted(
            [*frame(100, 180)["x"], *(frame(180, 200)["x"] if "c.csv" in twice else ())]
        )
        assert any("read once" in warning for warning in reader.warnings(["x"])), twice


def test_what_is_no_list_of_data_is_refused(sources: Path) -> None:
    with pytest.raises(NotFoundError, match="the list of data is empty"):
        open_reader([])
    with pytest.raises(UsageError, match=r"has a ndarray in it.*a pair \(X, y\)"):
        open_reader([np.zeros((3, 2)), np.zeros(3)])
    with pytest.raises(NotFoundError, match="nowhere"):
        open_reader(["a.parquet", "nowhere.parquet"])
    pq.write_table(pa.table({"x": ["a"]}), "text.parquet")
    with pytest.raises(ColumnError, match=r"string in source 1 \(a.parquet, text.parquet\), but double in source 2"):
        streamtrain.fit(["a.parquet", "text.parquet", "c.csv"], target="y", features="x")


def test_commands_take_several(sources: Path, cli: CommandLine) -> None:
    """fit, resume, evaluate, predict and rechunk; the values are those of one file with the same rows."""
    frame(0, 200).to_parquet("all.parquet")
    shuffled = ("--target", "y", "--no-shuffle", "--features", "x", "--memory", "4GB")
    many = ("a.parquet", "b", "c.csv")

    def run(*arguments: str) -> Any:
        code, out, err = cli(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    run("fit", *many, *shuffled, "--validate", "c.csv", "--validate", "b", "--out", "run")
    run("fit", "all.parquet", *shuffled, "--out", "one")
    resumed = run("fit", *many, *shuffled, "--out", "run", "--resume", "--epochs", "2")
    assert resumed["metrics"]["validation"] is not None
    assert run("evaluate", "one", *many)["metrics"] == run("evaluate", "one", "all.parquet")["metrics"]
    run("predict", "one", *many, "--out", "p.parquet")
    run("predict", "one", "all.parquet", "--out", "q.parquet")
    assert pq.read_table("p.parquet").equals(pq.read_table("q.parquet"))
    assert run("inspect", *many)["rows"] == run("plan", *many, "--target", "y")["rows"] == 200
    run("rechunk", *many, "--out", "copy", "--chunk-rows", "90")
    assert same(read("copy"), frame(0, 200))
    with pytest.raises(RunError, match="not those that the run was started with"):
        streamtrain.fit(["b", "a.parquet", "c.csv"], target="y", out="run", resume=True, epochs=3)
    with pytest.raises(UsageError, match="is one of the data files"):
        streamtrain.predict("one", ["a.parquet", "c.csv"], out="c.csv")
    with pytest.raises(UsageError, match="is inside the data"):
        streamtrain.predict("one", ["c.csv", f"file://{sources}/b"], out="b/p.parquet")


def test_file_urls(sources: Path) -> None:
    Path("two words#1.csv").write_text(Path("c.csv").read_text())
    for url in (f"file://{sources}/two%20words%231.csv", f"FILE://localhost{sources}/two words%231.csv"):
        assert same(read(url), frame(180, 200))
    assert same(read([f"file://{sources}/b/*.parquet", "c.csv"]), frame(100, 200))
    for url, message in (
        (f"file://server{sources}/c.csv", "a file of the machine 'server'"),
        ("file://", "names no file"),
        ("file:///a%00b", "names no file"),
    ):
        with pytest.raises(UsageError, match=message):
            open_reader(url)


def test_predictions_say_from_which_file_each_row_is(tmp_path: Path) -> None:
    table = pa.table({"x": [0.0, 1.0, 2.0], "y": [0, 1, 1]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    (tmp_path / "b.csv").write_text("x,y\n5,1\n6,0\n")
    data = [tmp_path / "a.parquet", tmp_path / "b.csv"]
    model = fit(data, target="y").model
    predict(model, data, out=tmp_path / "p.parquet", columns_out=["file", "row", "x"])
    found = pq.read_table(tmp_path / "p.parquet").to_pydict()
    assert [Path(path).name for path in found["file"]] == ["a.parquet"] * 3 + ["b.csv"] * 2
    assert (found["row"], found["x"]) == ([0, 1, 2, 0, 1], [0, 1, 2, 5, 6])


def test_a_setting_of_text_is_for_the_text_files_among_the_sources(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,5;0\n2,5;1\n")
    pq.write_table(pa.table({"f0": [3.5], "f1": [1]}), tmp_path / "b.parquet")
    settings: dict[str, Any] = {"delimiter": ";", "decimal": ",", "header": False}
    reader = open_reader([tmp_path / "a.csv", tmp_path / "b.parquet"], **settings)
    values = [v for c in reader.chunks() for v in pa.table(reader.read(c, ["f0"])).column("f0").to_pylist()]
    assert values == [1.5, 2.5, 3.5]
    with pytest.raises(UsageError, match="--delimiter: has an effect on csv alone"):
        open_reader([tmp_path / "b.parquet", pa.table({"f0": [3.5], "f1": [1]})], **settings)
