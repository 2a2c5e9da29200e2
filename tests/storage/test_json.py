"""JSON that is one array of objects, or objects over several lines."""

from __future__ import annotations

import gzip
import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import examples, write_file

from streamtrain.errors import DataError
from streamtrain.storage import open_reader
from streamtrain.storage.text import json_form, records
from streamtrain.storage.text import reader as text_reader

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(st.sampled_from(list('a"\\\\{}[],:\n é😀')), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab}", max_size=2), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.lists(st.fixed_dictionaries({"i": st.integers(0, 9), "v": VALUES}), min_size=1, max_size=6)


def written(objects: list[Any], form: str, indent: int | None, end: str, ascii: bool) -> bytes:
    if form == "array":
        text = json.dumps(objects, indent=indent, ensure_ascii=ascii, separators=(",", ": ") if indent else None)
    else:
        text = "\n".join(json.dumps(one, indent=indent, ensure_ascii=ascii) for one in objects)
    return text.replace("\n", end).encode()


@examples(80)
@given(
    objects=OBJECTS, form=st.sampled_from(["array", "objects"]), indent=st.sampled_from([None, 0, 2]),
    end=st.sampled_from(["\n", "\r\n", "\n\n"]), ascii=st.booleans(), nbytes=st.integers(1, 40), at_once=st.integers(1, 60),
)  # fmt: skip
def test_it_becomes_lines_of_the_same_length_that_can_be_entered_anywhere(
    objects: list[Any], form: Any, indent: int | None, end: str, ascii: bool, nbytes: int, at_once: int
) -> None:
    raw = written(objects, form, indent, end, ascii)

    def lines(raw: bytes, is_begun: bool, to_end: bool) -> bytes:
        source = json_form.AsLines(BytesIO(raw), form, is_begun=is_begun, to_end=to_end)
        return b"".join(iter(lambda: source.read(nbytes), b""))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_form, "_AT_ONCE", at_once)
        made = lines(raw, False, True)
        assert len(made) == len(raw) and [json.loads(line) for line in made.split(b"\n")] == objects
        starts = [match.end() for match in re.finditer(b"\n", made)]
        for k, start in enumerate(starts):
            assert [json.loads(line) for line in lines(raw[start:], True, False).split(b"\n")] == objects[k + 1 :]
            assert json.loads(lines(raw[:start], False, False).split(b"\n")[k]) == objects[k]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "CHUNK_ROWS", 7)
    monkeypatch.setattr(text_reader, "BLOCK_BYTES", 64)
    monkeypatch.setattr(text_reader, "_SCAN_BYTES", 50)


def read(target: Any, **settings: Any) -> pa.Table:
    reader = open_reader(target, **settings)
    return pa.concat_tables([pa.table(reader.read(c, reader.schema.names)) for c in reader.chunks()])


ROWS = [{"x": i / 2, "s": "}],{ " + str(i % 3), "k": {"a": [i]}} for i in range(60)]


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a.jsonl", "a.data"])
@pytest.mark.parametrize("form", ["array", "pretty", "lines", "objects", "bom"])
def test_any_form_is_read_in_chunks(tmp_path: Path, small_chunks: None, name: str, form: str) -> None:
    raw = {
        "array": json.dumps(ROWS),
        "pretty": json.dumps(ROWS, indent=2),
        "lines": "\n".join(map(json.dumps, ROWS)),
        "objects": "\n".join(json.dumps(row, indent=1) for row in ROWS),
        "bom": "\ufeff" + json.dumps(ROWS, indent=1) + "\n\n",
    }[form].encode()
    path = write_file(tmp_path / name, gzip.compress(raw) if name.endswith(".gz") else raw)
    if form == "objects" and name == "a.jsonl":
        with pytest.raises(DataError, match="line 2: expected an object in braces"):
            open_reader(path)
        return
    reader = open_reader(path)
    assert len(reader.chunks()) == (1 if name.endswith(".gz") else 9) and read(path).to_pylist() == ROWS
    slices = [batch for chunk in reader.chunks() for batch in reader.stream(chunk, ["x"], 2)]  # type: ignore[attr-defined]
    assert [x for batch in slices for x in batch.column(0).to_pylist()] == [row["x"] for row in ROWS]
    utf16 = write_file(tmp_path / "b.json", raw.decode().encode("utf-16-le"))
    assert read(utf16, encoding="utf-16-le").to_pylist() == ROWS


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[{"x": 1}, {"x": 2}', "object 2: the array does not end"),
        ('[{"x": 1}, {"x": 2, "y": [', "object 2: the object that begins here does not end"),
        ('[{"x": 1}, {"x": "2}]', "object 2: the object that begins here does not end"),
        ('{"x":\n1}\n{"x":\n', "object 2: the object that begins here does not end"),
        ('{"x":\n1}{"x":\n2}', "object 1: the next object follows directly"),
        ('[{"x": 1},\n{"x": 2},\n{"x": true}]', r"object 3: column 'x' contains true, but is int64"),
        ('[{"x": 1},\n{"x": 2},\n5]', "object 2: is not one JSON object"),
        ("[]", "have no rows"),
        ("[1, 2]", "expected an object in braces"),
    ],
)
def test_what_is_wrong_is_said_with_the_number_of_the_object(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=rf"a\.json.*{says}"):
        read(write_file(tmp_path / "a.json", text))
