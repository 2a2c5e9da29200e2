"""What text files do not say about themselves: missing values, codes, delimiters, headers, encodings, formats."""

from __future__ import annotations

import csv
import gzip
import io
import json
import pickle
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from make import CommandLine, write_file

import streamtrain
from streamtrain.errors import CorruptError, DataError, SchemaError, UsageError
from streamtrain.storage import open_reader
from streamtrain.storage.csv import CsvReader
from streamtrain.storage.reader import Warns
from streamtrain.storage.text import reader as text_reader
from streamtrain.storage.text import records

TEXT = pa.dictionary(pa.int32(), pa.string())


def read(target: Any, **settings: Any) -> pa.Table:
    reader = open_reader(target, **settings)
    return pa.concat_tables([pa.table(reader.read(c, reader.schema.names)) for c in reader.chunks()])


def frame(target: Any, **settings: Any) -> pd.DataFrame:
    return read(target, **settings).to_pandas(types_mapper=None)


def warned(target: Any, **settings: Any) -> list[str]:
    reader = open_reader(target, **settings)
    assert isinstance(reader, Warns)
    return reader.warnings(reader.schema.names)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "CHUNK_ROWS", 7)
    monkeypatch.setattr(text_reader, "BLOCK_BYTES", 128)
    monkeypatch.setattr(text_reader, "_SCAN_BYTES", 100)


@pytest.mark.parametrize(
    "word", ["NA", "N/A", "NaN", "null", "?", "-", ".", "\\N", "None", "", " ", "  ? ", "   - ", '"?"', '" NA"']
)  # fmt: skip
def test_a_word_is_a_missing_number_time_and_boolean(tmp_path: Path, small_blocks: None, word: str) -> None:
    first = 3 if word in ("NA", "?", "   - ", "") else 90  # among the records that tell the types, or later

    def lines(word: str) -> str:
        return "".join(
            f"{word},{word},{word},t{i}\n"
            if i >= first and i % 3 == 0
            else f"{i / 4},2024-01-{i % 28 + 1:02},{str(i % 2 == 0).lower()},t{i}\n"
            for i in range(100)
        )

    path = write_file(tmp_path / "a.csv", "x,t,b,s\n" + lines(word))
    expected = pd.read_csv(io.StringIO("x,t,b,s\n" + lines("")), parse_dates=["t"])
    found = read(path)
    assert found.schema.types == [pa.float64(), pa.date32(), pa.bool_(), TEXT] and not warned(path)
    assert found["x"].to_pylist() == expected["x"].astype(object).where(expected["x"].notna(), None).tolist()
    assert {found[name].null_count for name in "xtb"} == {len(range(first, 100, 3))}
    assert [v for v in found["b"].to_pylist() if v is not None] == expected["b"].dropna().tolist()
    assert [v for v in found["t"].to_pylist() if v] == [t.date() for t in expected["t"].dropna()]


def test_words_are_text_in_text_and_na_replaces_them_everywhere(tmp_path: Path, small_blocks: None) -> None:
    path = write_file(tmp_path / "a.csv", "x,s\n" + "1,NA\n-999,?\n,\n3,gone\n" * 20)
    assert read(path)[:4].to_pydict() == {"x": [1, -999, None, 3], "s": ["NA", "?", "", "gone"]}
    found = read(path, na=["-999", "gone"])
    assert (
        found[:4].to_pydict() == {"x": [1, None, None, 3], "s": ["NA", "?", "", None]} and found["x"].null_count == 40
    )
    assert open_reader(path).fingerprint() != open_reader(path, na="-999").fingerprint()
    write_file(tmp_path / "b.csv", "x\n1\nNA\n")
    assert read(tmp_path / "b.csv", na="-999").schema.types == [TEXT]


@pytest.mark.parametrize(
    ("code", "at", "end"), [("00501", 0, "\n"), (" 007", 80, "\r\n"), ('"01"', 81, "\r"), ("00", 99, "\n")]
)
def test_a_leading_zero_makes_codes_wherever_it_is(
    tmp_path: Path, small_blocks: None, code: str, at: int, end: str
) -> None:
    lines = [f"{i},{i + 10001},0.{i},0{i % 9}:30:00,{i}" for i in range(100)]
    lines[at] = f"{at},{code},0.5,08:30:00,1"
    path = write_file(tmp_path / "a.csv", end.join(["i,zip,x,t,j", *lines, ""]))
    found = read(path)
    assert found.schema.types == [pa.int64(), TEXT, pa.float64(), pa.time32("s"), pa.int64()]
    raw = pd.read_csv(path, dtype=str)
    assert found["zip"].to_pylist() == raw["zip"].tolist()
    [warning] = warned(path)
    plain = code.strip(' "')
    assert f"'zip' has integers with leading zeros, such as '{plain}'" in warning
    assert read(CsvReader(path, pa.schema([("zip", pa.int64())])))["zip"][at].as_py() == int(plain)


def test_codes_in_any_file_are_codes_in_all(tmp_path: Path, small_blocks: None) -> None:
    for name, late in (("a", "10001"), ("b", "00501")):
        for k, zip_code in enumerate(("10002", late, "")):
            write_file(tmp_path / name / f"{k}.csv", "zip,i\n" + "10003,1\n" * 30 * (k < 2) + f"{zip_code},0\n")
    assert read(tmp_path / "a").schema.types == [pa.int64(), pa.int64()]
    found = read(tmp_path / "b")
    assert found.schema.types == [TEXT, pa.int64()] and found["zip"].to_pylist()[-33::31] == ["10002", "00501"]


def test_a_late_word_is_an_error_whose_ways_on_work(tmp_path: Path, small_blocks: None) -> None:
    path = write_file(tmp_path / "a.csv", "x,z,y\n" + "1,2,0\nNA,3,1\n" * 40 + "gone,4,1\n")
    with pytest.raises(SchemaError, match=r"'gone', but is int64 .*--na.*--exclude x"):
        streamtrain.fit(path, target="y")
    assert streamtrain.fit(path, target="y", exclude="x").report.rows == 81
    assert streamtrain.fit(path, target="y", na="NA,gone").report.rows == 81


def test_a_bad_line_is_an_error_of_the_read_although_codes_are_looked_for(tmp_path: Path, small_blocks: None) -> None:
    lines = [f"{i},{i + 10001}" for i in range(100)]
    lines[60:63] = ["60,00501", "61", "\xff,1"]
    reader = open_reader(write_file(tmp_path / "a.csv", "\n".join(["i,zip", *lines, ""]).encode("latin-1")))
    assert reader.schema.types == [pa.int64(), TEXT] and len(list(reader.chunks())) == 15
    with pytest.raises(CorruptError, match="line 63: has 1 field, but the header has 2 names"):
        reader.read(reader.chunks()[8], ["zip"])


@pytest.mark.parametrize(
    ("text", "settings", "says"),
    [
        ("x;y\n1;2\n", {}, "pass --delimiter ';'"),
        ("x\ty\n1\t2\n", {}, "pass --delimiter tab"),
        ("x|y\n1|2\n", {}, "pass --delimiter '|'"),
        ("x,y\n1,2\n", {"delimiter": ";"}, "pass --delimiter ','"),
        ("0.5,1.5\n1,2\n", {}, "pass --no-header"),
        ("2019,2020\n1,2\n", {}, "pass --no-header"),
        ("39,State-gov,<=50K\n" + "50,Private,<=50K\n38,State-gov,>50K\n" * 9, {}, "pass --no-header"),
        ("Rome,a\n" + "Rome,b\nOslo,a\n" * 9, {}, "pass --no-header"),
        ("x,y\n" + "1,a\n2,b\n" * 9 + "broken,c\n", {}, "if they mean missing, pass --na broken"),
        ("x,z\n" + "1,NA\n2,3\n" * 9 + "n.d.,4\n", {}, "pass --na n.d.,NA"),
        ("x;y\n" + "1,5;2\n2,25;3\n" * 9, {"delimiter": ";"}, "decimal commas, such as '1,5': pass --decimal ,"),
        ("x;y\n" + "1,500;2\n2,250;3\n" * 9, {"delimiter": ";"}, "if these are decimal points, pass --decimal ,"),
    ],
)  # fmt: skip
def test_what_is_probably_meant_is_said_with_a_flag_that_mends_it(
    tmp_path: Path, text: str, settings: dict[str, Any], says: str
) -> None:
    path = write_file(tmp_path / "a.csv", text)
    [warning] = warned(path, **settings)
    assert says in warning
    flags = warning[warning.index("pass --") :].split()[1:]
    given = {"--no-header": {"header": False}}.get(flags[0]) or {flags[0][2:]: flags[1].rstrip(";").strip("'")}
    assert warned(path, **{**settings, **given}) == []
    if flags[0] == "--na":
        assert pa.types.is_integer(read(path, **given).schema.field("x").type)


@pytest.mark.parametrize(
    "text",
    [
        "country,2019,2020\n" + "de,1,2\nfr,3,4\n" * 9,
        "0,1,2\n5,6,7\n",
        "x\n1\n",
        "s\na\nb\n",
        "x,s\n1,1;2\n",
        "s\n1\nb\n",
    ],
)
def test_what_is_right_is_not_warned_about(tmp_path: Path, text: str) -> None:
    assert warned(write_file(tmp_path / "a.csv", text)) == []


def test_points_between_thousands_are_said(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.csv", "x;y\n1.234,5;1\n234,5;2\n")
    for settings in ({}, {"decimal": ","}):
        [warning] = warned(path, delimiter=";", **settings)
        assert "points between thousands, such as '1.234,5': remove them" in warning


def test_a_wrong_delimiter_is_said_where_the_rows_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(CorruptError, match=r"has 3 fields, but the header has 1 name; .* pass --delimiter ';'"):
        open_reader(write_file(tmp_path / "a.csv", "x;y\n1,5;2,5\n"))
    assert read(tmp_path / "a.csv", delimiter=";", decimal=",").to_pydict() == {"x": [1.5], "y": [2.5]}
    with pytest.raises(SchemaError, match=r"named '1'.*--no-header"):
        open_reader(write_file(tmp_path / "b.csv", "1,1\n2,3\n"))
    assert read(tmp_path / "b.csv", header=False).to_pydict() == {"f0": [1, 2], "f1": [1, 3]}


def test_a_folder_of_tsv_files_has_tabs_and_needs_no_header(tmp_path: Path, small_blocks: None) -> None:
    (tmp_path / "d").mkdir()
    for k in range(3):
        write_file(tmp_path / f"d/{k}.tsv", "".join(f"{i}\t{k},\n" for i in range(30)))
    found = read(tmp_path / "d", header=False)
    assert found.to_pydict() == {"f0": [*range(30)] * 3, "f1": [f"{k}," for k in range(3) for _ in range(30)]}
    write_file(tmp_path / "d/4.tsv", "1\t2\t3\n")
    with pytest.raises(SchemaError, match=r"has 3 fields, but .*0\.tsv has 2"):
        open_reader(tmp_path / "d", header=False)


# -- encodings ---------------------------------------------------------------------------------------------------------

WORDS = ["café", 'a,"b"\nß', "plain", "Ωμέγα", "名前", "😀x"]


@pytest.mark.parametrize(
    ("encoding", "words"),
    [("latin-1", 3), ("cp1252", 3), ("iso8859-7", 0), ("utf-16", 6), ("utf-16-le", 6), ("utf-32", 6), ("gbk", 0), ("utf-8", 6)],
)  # fmt: skip
def test_an_encoding_is_read_as_pandas_reads_it(tmp_path: Path, small_blocks: None, encoding: str, words: int) -> None:
    packed = encoding in ("latin-1", "utf-32")
    some = WORDS[:words] or (["Ωμέγα", "x,"] if encoding == "iso8859-7" else ["名前", "|中"])
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("名" * 9 if encoding.startswith("utf") else "name" if words == 0 else "ñame", "i")])
    csv.writer(text).writerows([(some[i % len(some)], i) for i in range(60)])
    raw = text.getvalue().encode(encoding)
    path = write_file(tmp_path / ("a.csv.gz" if packed else "a.csv"), gzip.compress(raw) if packed else raw)
    expected = pd.read_csv(io.BytesIO(raw), encoding=encoding)
    reader = pickle.loads(pickle.dumps(open_reader(path, encoding=encoding)))
    assert reader.schema.names == list(expected)
    assert read(path, encoding=encoding).to_pydict() == expected.to_dict("list")
    assert len(list(reader.chunks())) == (
        1 if packed or ("utf-" in encoding[:6] and encoding != "utf-8") or encoding == "gbk" else 9
    )


def test_an_encoding_that_is_another_one_is_an_error_with_the_flag(tmp_path: Path) -> None:
    with pytest.raises(CorruptError, match=r"line 2: not UTF-8: byte 0xe9 .*--encoding latin-1"):
        open_reader(write_file(tmp_path / "a.csv", "x\né\n".encode("latin-1")))
    with pytest.raises((CorruptError, SchemaError), match="--encoding utf-16"):
        open_reader(write_file(tmp_path / "b.csv", "x\né\n".encode("utf-16")))
    with pytest.raises(CorruptError, match=r"line 2: not CP1252: byte 0x81"):
        open_reader(write_file(tmp_path / "c.csv", b"x\n\x81\n"), encoding="cp1252")
    with pytest.raises(CorruptError, match=r"d\.csv.*utf-16"):
        open_reader(write_file(tmp_path / "d.csv", "x\n1\n".encode("utf-16-le") + b"\x00"), encoding="utf-16-le")


# -- settings that have no effect, and formats -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"delimiter": "ab"}, "--delimiter 'ab': must be one ASCII character"),
        ({"delimiter": '"'}, "--delimiter"),
        ({"encoding": "base64"}, "--encoding 'base64'"),
        ({"encoding": "nonsense"}, "--encoding 'nonsense'"),
        ({"encoding": "idna"}, "--encoding 'idna'"),
        ({"decimal": ",", "delimiter": ","}, "--decimal ,"),
        ({"input_format": "xml"}, "--input-format xml"),
        ({"na": 5}, "na=5"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        open_reader("nowhere.csv", **settings)


@pytest.mark.parametrize(
    "setting", [{"delimiter": ";"}, {"header": False}, {"na": "x"}, {"decimal": ","}, {"encoding": "latin-1"}]
)
def test_a_setting_without_effect_is_refused(tmp_path: Path, setting: dict[str, Any]) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    write_file(tmp_path / "a.jsonl", '{"x": 1}\n')
    [name] = setting
    flag = "--no-header" if name == "header" else f"--{name}"
    for data in (tmp_path / "a.parquet", tmp_path / "a.jsonl", {"x": np.ones(2)}):
        if name == "encoding" and str(data).endswith(".jsonl"):
            continue
        with pytest.raises(UsageError, match=f"^{flag}: has an effect on csv"):
            open_reader(data, **setting)
    with pytest.raises(UsageError, match="--input-format csv: has no effect on data in memory"):
        open_reader({"x": np.ones(2)}, input_format="csv")


def test_validation_data_may_have_another_format(tmp_path: Path) -> None:
    x = np.arange(300.0)
    path = write_file(tmp_path / "a.data", "x;y\n" + "".join(f"{v};{v % 2:.0f}\n" for v in x))
    pq.write_table(pa.table({"x": x, "y": (x % 2).astype(int)}), tmp_path / "v.parquet")
    result = streamtrain.fit(
        path, target="y", input_format="csv", delimiter=";", na=["?"], validate=str(tmp_path / "v.parquet")
    )
    assert result.report.metrics["validation"]["loss"] > 0


def test_the_first_bytes_tell_where_names_do_not(tmp_path: Path) -> None:
    table = pa.table({"x": [1, 2, 3]})
    pq.write_table(table, tmp_path / "parquet.data")
    pyarrow.feather.write_feather(table, tmp_path / "arrow.data", compression="uncompressed")
    write_file(tmp_path / "lines", '\ufeff{"x": 1}\n{"x": 2}\n{"x": 3}\n'.encode())
    write_file(tmp_path / "lines.dat.gz", gzip.compress(b'{"x": 1}\n{"x": 2}\n{"x": 3}\n'))
    for name in ("parquet.data", "arrow.data", "lines", "lines.dat.gz"):
        assert read(tmp_path / name) == table, name
    for name in ("a.txt", "b", "c.dat"):
        write_file(tmp_path / name, "x;s\n1;a\n2;b\n")
        with pytest.raises(
            DataError, match=r"arrow, csv, jsonl, npy, parquet and zarr: .*--input-format csv --delimiter ';'"
        ):
            open_reader(tmp_path / name)
        assert read(tmp_path / name, input_format="csv", delimiter=";").to_pydict() == {"x": [1, 2], "s": ["a", "b"]}
    (tmp_path / "mixed").mkdir()
    write_file(tmp_path / "mixed/about.json", "{}\n")
    write_file(tmp_path / "mixed/a.csv", "x\n1\n")
    assert read(tmp_path / "mixed").to_pydict() == {"x": [1]}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.h5ad", b"\x89HDF\r\n\x1a\n", "write_zarr"),
        ("a", b"\x89HDF\r\n\x1a\n", "to_zarr"),
        ("a.xlsx", b"PK\x03\x04", "read_excel"),
        ("a.data", b"PK\x03\x04" + b"\0" * 26 + b"[Content_Types].xml", "read_excel"),
        ("a.npz", b"PK\x03\x04", "numpy.load"),
        ("a.orc", b"ORC", "read_orc"),
        ("a.bin", b"Obj\x01", "read_avro"),
        ("a.db", b"SQLite format 3\0", "read_sql"),
        ("a.pkl", b"\x80\x04", "read_pickle"),
        ("a.train", b"1 3:0.5 10:1\n-1 2:1 7:.25\n", "load_svmlight_file"),
        ("a.data", gzip.compress(b"x\n1\n", mtime=0), r"\.gz"),
        ("a.parquet.gz", gzip.compress(b"PAR1", mtime=0), "gunzip"),
        ("a.arrow.zst", b"\x28\xb5\x2f\xfd", "unzstd"),
        ("a.data", b"\x00\x01\x02", "may be damaged"),
        ("a.txt", "x\n1\n".encode("utf-16"), "--encoding utf-16"),
        ("a.csv", gzip.compress(b"x\n1\n", mtime=0), r"a\.csv: line 1: no text: this is compressed"),
        ("a.csv", b"PAR1\xff", r"a\.csv: line 1: no text: this is parquet: pass --input-format parquet"),
        ("a.txt.gz", b"no gzip", "cannot be read"),
        ("a.txt", b"", "the file is empty"),
    ],
)
def test_a_format_that_is_not_read_is_an_error_with_the_way_on(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    with pytest.raises(DataError, match=says) as error:
        open_reader(write_file(tmp_path / name, content))
    if error.type is DataError:
        assert "as a whole" in str(error.value) or "arrow, csv, jsonl, npy, parquet and zarr" in str(error.value)


def test_every_command_takes_them_and_says_the_warnings(tmp_path: Path, cli: CommandLine) -> None:
    rows = "".join(f"{i % 7 / 2};{i % 90:05};{i % 2}\n" for i in range(400)).replace(".", ",")
    path = write_file(tmp_path / "a.data", rows.encode("utf-16"))
    reading = ["--input-format", "csv", "--delimiter", ";", "--no-header", "--decimal", ",", "--encoding", "utf-16"]
    fitted = cli("fit", path, "--target", "f2", "--out", tmp_path / "run", *reading, "--json").json
    assert any("leading zeros" in warning for warning in fitted["warnings"])
    for command in ("inspect", "plan --target f2"):
        assert any("leading zeros" in w for w in cli(*command.split(), path, *reading, "--json").json["warnings"])
    assert cli("evaluate", tmp_path / "run", path, *reading, "--json").json["rows"] == 400
    assert (
        cli("predict", tmp_path / "run", path, "--out", tmp_path / "p.parquet", *reading, "--json").json["rows"] == 400
    )
    copied = cli("rechunk", path, "--out", tmp_path / "copy", "--chunk-rows", 100, *reading, "--json").json
    assert copied["rows"] == 400 and read(tmp_path / "copy") == read(
        path, input_format="csv", delimiter=";", header=False, decimal=",", encoding="utf-16"
    )
    assert streamtrain.fit(
        path, target="f2", input_format="csv", delimiter=";", header=False, decimal=",", encoding="utf-16"
    )
    again = cli(
        "fit", path, "--target", "f2", "--out", tmp_path / "run", "--resume", *reading[:-2], "--encoding", "latin-1"
    )
    assert again.code == 2 and "--encoding is iso8859-1, the run has utf-16" in again.err


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("value", [3, 2.5, "Rome", "2026-01-05 10:00:00"])
def test_a_column_without_a_value_in_the_first_records_has_the_type_of_later_ones(
    tmp_path: Path, small_blocks: None, kind: str, value: Any
) -> None:
    path = tmp_path / f"late.{kind}"
    rows = [{"x": None if i < 90 else value, "none": None, "y": i} for i in range(120)]
    if kind == "csv":
        pd.DataFrame(rows, dtype=object).to_csv(path, index=False)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = read(path)
    blank = "" if (kind, value) == ("csv", "Rome") else "None"
    assert list(map(str, table.column("x").to_pylist())) == [blank] * 90 + [str(value)] * 30
    assert table.schema.field("none").type == pa.null()


def test_a_leading_zero_in_a_column_without_a_value_in_the_first_records_is_kept(
    tmp_path: Path, small_blocks: None
) -> None:
    path = tmp_path / "late.csv"
    path.write_text("x,y\n" + ",1\n" * 90 + "12,1\n" * 30 + "007,1\n")
    assert read(path).column("x")[-1].as_py() == "007"


def test_the_types_of_later_records_and_of_other_files_become_one(tmp_path: Path, small_blocks: None) -> None:
    (tmp_path / "a.csv").write_text("x,y\n" + ",1\n" * 90 + "12,1\n")
    (tmp_path / "b.csv").write_text("x,y\n" + "2.5,1\n" * 9)
    column = read(tmp_path).column("x")
    assert column.type == pa.float64() and column.to_pylist() == [None] * 90 + [12.0] + [2.5] * 9


def test_a_late_key_of_a_struct_is_named(tmp_path: Path, small_blocks: None) -> None:
    path = tmp_path / "late.jsonl"
    path.write_text('{"u": {"a": 1}, "y": 1}\n' * 90 + '{"u": {"a": 1, "b": 2}, "y": 1}\n')
    with pytest.raises(DataError, match="line 91: has a key 'b' in u, which is missing in the first rows"):
        read(path)


@pytest.mark.parametrize("label", ["", "?", "NA"])
def test_a_class_that_may_be_a_missing_label_is_said_with_a_way_on(
    tmp_path: Path, cli: CommandLine, label: str
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("x,the y\n" + f"1,no\n2,yes\n0,{label}\n3,none\n" * 5)
    [told] = streamtrain.fit(str(path), target="the y").report.as_dict()["warnings"]
    assert told.startswith(
        f"target 'the y': {label!r} is learned as a class, in 5 rows: if it means that the label is missing"
    )
    [kept] = shlex.split(told.rsplit("--where ", 1)[1])
    assert told in cli("inspect", path, "--target", "the y", "--json").json["warnings"]
    found = streamtrain.fit(str(path), target="the y", where=kept).report.as_dict()
    assert (found["rows"], found["warnings"]) == (15, [])
