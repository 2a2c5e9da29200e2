"""Files of arrays: as the format's library writes and reads them; damaged and hostile ones refused; nothing in memory twice."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from make import examples

from streamtrain.model.tensors import TensorFileError, load, look, save, verify

MB = 1_000_000
FLOATS = ["float16", "float32", "float64"]
DTYPES = [f"{sign}int{bits}" for bits in (8, 16, 32, 64) for sign in ("", "u")] + FLOATS + ["bool"]
SHAPES = arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=6).filter(lambda name: name != "__metadata__")
ARRAYS = st.dictionaries(NAMES, arrays_of.arrays(st.sampled_from(DTYPES), SHAPES), max_size=8)
in_one_folder = examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def same(one: Any, other: Any) -> bool:
    """Bit for bit, of the same type and shape."""
    one, other = np.asarray(one), np.asarray(other)
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def all_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)


# -- against the library ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"scalar": np.zeros(()), "none": np.zeros((0, 3), "f4"), "all": np.ones(3, bool), "nothing": np.zeros((2, 0))},
        {
            "": np.zeros(1),
            'q"\\/\n\x01\x7f\u2028': np.zeros(2, "i1"),
            "дом": np.zeros(3, "f2"),
            "😀": np.zeros(1, "f2"),
        },
        {name: np.ones(3, name) for name in DTYPES},
        {f"{name}{i}": np.ones(i, name) for name in DTYPES for i in (2, 10, 0)},
    ],
    ids=["empty", "shapes", "names", "types", "many"],
)
@pytest.mark.parametrize("metadata", [None, {}, {"a": 'b "é"\n'}], ids=str)
def test_odd_names_and_shapes_come_back(tmp_path: Path, arrays: dict[str, Any], metadata: Any) -> None:
    digest = save(tmp_path / "a", arrays, metadata=metadata)
    written = (tmp_path / "a").read_bytes()
    assert digest == hashlib.sha256(written).hexdigest()
    contents = load(tmp_path / "a")
    assert all_same(contents.arrays, {name: np.asarray(array) for name, array in arrays.items()})
    assert look(tmp_path / "a")[0] == contents.metadata == (metadata or {}) and contents.sha256 == digest


@in_one_folder
@given(arrays=ARRAYS, sealed=st.booleans(), metadata=st.dictionaries(NAMES, NAMES, max_size=1))
def test_reading_what_the_other_wrote(tmp_path: Path, arrays: dict[str, Any], sealed: bool, metadata: Any) -> None:
    arrays = {name: array for name, array in arrays.items() if name != "sha256"}
    digest = save(tmp_path / "ours", arrays, metadata=metadata, sealed=sealed)
    written = (tmp_path / "ours").read_bytes()
    theirs = safetensors.numpy.load(written)
    if sealed:
        seal = theirs.pop("sha256").tobytes()
        assert written.count(seal) == 1 and hashlib.sha256(written.replace(seal, bytes(32))).digest() == seal
        assert seal.hex() == digest
    assert all_same(theirs, arrays)
    with safetensors.safe_open(tmp_path / "ours", "np") as file:
        assert (file.metadata() or {}) == metadata
    contents = load(tmp_path / "ours", sealed=sealed)
    assert all_same(contents.arrays, arrays) and (contents.metadata, contents.sha256) == (metadata, digest)

    (tmp_path / "theirs").write_bytes(safetensors.numpy.save(arrays, metadata=metadata or None))
    assert all_same(load(tmp_path / "theirs").arrays, arrays) and look(tmp_path / "theirs")[0] == metadata


def test_every_bit_comes_back(tmp_path: Path) -> None:
    """Also those of NaNs and of -0.0; arrays are owned and writable."""
    arrays: dict[str, Any] = {
        name: np.frombuffer(random.Random(name).randbytes(8 * 300), name) for name in DTYPES if name != "bool"
    }
    arrays["nan"] = np.array([0x7FF0000000000001, 0xFFF8DEADBEEF0001, 1 << 63], np.uint64).view(np.float64)
    arrays["nans"] = np.array([0x7F800001, 0xFFC12345, 1 << 31], np.uint32).view(np.float32)
    save(tmp_path / "a", arrays, sealed=True)
    found = load(tmp_path / "a", sealed=True).arrays
    assert all_same(found, arrays)
    for array in found.values():
        assert array.flags.owndata and array.flags.writeable and array.flags.aligned


def test_numbers_and_arrays_of_other_layouts(tmp_path: Path) -> None:
    square = np.arange(12, dtype=np.float32).reshape(3, 4)
    other = {"t": square.T, "step": square[::2, ::-1], "big": square.astype(">f4"), "both": square.astype(">f4").T}
    numbers = {"i": 3, "f": -0.0, "b": True, "n": np.float16(2), "large": 2**64 - 1}
    save(tmp_path / "a", other | numbers)
    found = load(tmp_path / "a").arrays
    plain = {name: np.array(array, "<f4", order="C") for name, array in other.items()}
    assert all_same(found, plain | {name: np.asarray(value) for name, value in numbers.items()})
    assert [found[name].dtype for name in "ifb"] == [np.int64, np.float64, np.bool_] and found["i"].shape == ()


def test_same_bytes_whatever_the_order(tmp_path: Path) -> None:
    arrays, metadata = {name: np.ones(3, name) for name in DTYPES}, {"by": "x"}
    one = save(tmp_path / "a", arrays, metadata=metadata, sealed=True)
    (tmp_path / "b").write_bytes(bytes(9999))  # replaced
    assert save(tmp_path / "b", dict(reversed(arrays.items())), metadata=metadata, sealed=True) == one
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_whole_file_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: sizes.append(os.fstat(handle).st_size))
    save(tmp_path / "a", {"w": np.ones(3)}, sealed=True)
    assert sizes == [(tmp_path / "a").stat().st_size]


# -- what cannot be written ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"w": np.zeros(2, complex)}, "array 'w' is of type complex128"),
        ({"w": np.zeros(2, np.longdouble)}, "is of type float128|is of type longdouble"),
        ({"w": np.array(["a"])}, "is of type <U1"),
        ({"w": np.array(["ab"])}, "is of type <U2"),  # 8 bytes of kind U, but no uint64
        ({"w": np.array([None])}, "is of type object"),
        ({"w": 2**64}, "is of type object"),
        ({"w": np.zeros(2, "M8[s]")}, r"is of type datetime64\[s\]"),
        ({"w": np.zeros(2, "i4,f4")}, "array 'w' is of type"),
        ({"w\n": np.zeros(2, "S3")}, r"array 'w\\n' is of type \|S3"),
        ({"sha256": np.zeros(32, "u1")}, "cannot be called 'sha256'"),
        ({"__metadata__": np.zeros(32, "u1")}, "cannot be called '__metadata__'"),
        ({"\ud800": np.zeros(1)}, "surrogates not allowed"),
    ],
)
def test_what_cannot_be_written_touches_no_file(tmp_path: Path, arrays: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        save(tmp_path / "a", {"good": np.ones(3)} | arrays, sealed=True)
    assert not list(tmp_path.iterdir())


def test_metadata_that_cannot_be_written(tmp_path: Path) -> None:
    """Too much; and of several names, whose order in the file would be anything."""
    with pytest.raises(ValueError, match="metadata 'one', 'two': give at most one"):
        save(tmp_path / "a", {}, metadata={"one": "1", "two": "2"})
    with pytest.raises(ValueError, match=r"take 100,000,\d\d\d bytes; the format allows 100,000,000"):
        save(tmp_path / "a", {}, metadata={"long": "x" * 100 * MB})
    assert not list(tmp_path.iterdir())


def test_only_a_seal_keeps_its_name(tmp_path: Path) -> None:
    save(tmp_path / "a", {"sha256": np.zeros(32, "u1")})
    assert load(tmp_path / "a").arrays["sha256"].tolist() == [0] * 32
    with pytest.raises(TensorFileError, match="checksum differs"):
        load(tmp_path / "a", sealed=True)


@pytest.mark.parametrize("n", [1 * MB, 5 * MB])
def test_a_file_that_the_system_cannot_hold(tmp_path: Path, n: int) -> None:
    """An OSError with its number, whoever wrote: a full disk is told from any other failure."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MB // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            save(tmp_path / "a", {"w": np.ones(n, np.uint8)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(tmp_path / "a"))


def test_a_new_file_has_the_mode_that_the_process_gives(tmp_path: Path) -> None:
    (tmp_path / "as usual").touch()
    save(tmp_path / "a", {"w": np.ones(3)})
    (tmp_path / "b").touch(0o640)
    save(tmp_path / "b", {"w": np.ones(3)})
    modes = {path.name: path.stat().st_mode for path in tmp_path.iterdir()}
    assert modes["a"] == modes["as usual"] and modes["b"] & 0o777 == 0o640


def test_errors_of_the_file_system(tmp_path: Path) -> None:
    for call in (load, look):
        with pytest.raises(FileNotFoundError):
            call(tmp_path / "none")
        with pytest.raises(IsADirectoryError):
            call(tmp_path)
    with pytest.raises(FileNotFoundError):
        save(tmp_path / "none" / "a", {})


# -- damage ----------------------------------------------------------------------------------------------------------------


def a_small_file(path: Path) -> bytes:
    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "step": 7, "none": np.zeros((0, 2)), "on": True}
    save(path, arrays, metadata={"streamtrain": '{"epoch": 1}'}, sealed=True)
    return path.read_bytes()


def refused(path: Path, damaged: bytes, *, sealed: bool = True) -> str:
    """Why a file of these bytes is not read: one line."""
    path.write_bytes(damaged)
    with pytest.raises(TensorFileError) as error:
        load(path, sealed=sealed)
    assert "\n" not in str(error.value) and str(error.value).isprintable() and len(str(error.value)) < 400
    return str(error.value)


def test_every_bit_of_a_small_file_is_guarded(tmp_path: Path) -> None:
    good = a_small_file(tmp_path / "a")
    assert len(good) < 600
    for bit in range(8 * len(good)):
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        refused(tmp_path / "a", bytes(damaged))


def test_a_part_of_a_file_is_loaded_and_all_of_it_guarded(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    rest, model = np.arange(300_000.0), np.arange(7.0)
    save(path, {"best.model.w": rest, "model.w": model, "model.n": 3, "other": rest}, sealed=True)
    arrays = load(path, sealed=True, prefix="model.").arrays
    assert sorted(arrays) == ["model.n", "model.w"] and np.array_equal(arrays["model.w"], model)
    whole = bytearray(path.read_bytes())
    place = whole.index(rest.tobytes()) + 2_000_000
    whole[place] ^= 1
    path.write_bytes(whole)
    with pytest.raises(TensorFileError, match="its checksum differs"):
        load(path, sealed=True, prefix="model.")


def test_random_bits_of_a_larger_file_are_guarded(tmp_path: Path) -> None:
    draw = random.Random(0)
    save(tmp_path / "a", {"w": np.frombuffer(draw.randbytes(MB), np.float32), "b": np.ones(7, bool)}, sealed=True)
    good = bytearray((tmp_path / "a").read_bytes())
    size = len(good)
    for bit in draw.sample(range(8 * size), 500):
        with open(tmp_path / "a", "r+b") as file:
            file.seek(bit // 8)
            file.write(bytes([good[bit // 8] ^ 1 << bit % 8]))
            file.flush()
            with pytest.raises(TensorFileError):
                load(tmp_path / "a", sealed=True)
            with pytest.raises(TensorFileError):
                verify(tmp_path / "a")
            file.seek(bit // 8)
            file.write(good[bit // 8 : bit // 8 + 1])
    load(tmp_path / "a", sealed=True)
    verify(tmp_path / "a")
    save(tmp_path / "a", {"w": np.ones(3)})
    with pytest.raises(TensorFileError, match="has no checksum"):
        verify(tmp_path / "a")


@pytest.mark.parametrize("sealed", [True, False])
def test_every_truncation_and_what_was_appended(tmp_path: Path, sealed: bool) -> None:
    good = a_small_file(tmp_path / "a")
    assert all("is cut off" in refused(tmp_path / "a", good[:n], sealed=sealed) for n in range(len(good)))
    for more in (b"\0", b"\n", good):
        assert f"has {len(more)} bytes at its end" in refused(tmp_path / "a", good + more, sealed=sealed)
    with pytest.raises(TensorFileError, match="at its end"):
        look(tmp_path / "a")


def test_a_file_without_a_seal_is_not_taken_for_one(tmp_path: Path) -> None:
    for arrays in ({}, {"w": np.ones(3)}, {"sha256": np.zeros(31, "u1")}, {"sha256": np.zeros(32, "i1")}):
        save(tmp_path / "a", arrays)  # type: ignore[arg-type]
        assert "has no checksum" in refused(tmp_path / "a", (tmp_path / "a").read_bytes())
    good = a_small_file(tmp_path / "a")
    assert "no checksum" in refused(tmp_path / "a", good.replace(b'"sha256"', b'"sha257"'))
    assert "its checksum differs" in refused(tmp_path / "a", good.replace(b": 1}", b": 2}"))


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a", {"w": np.zeros(3 * MB, np.uint8)})
    empty = np.empty
    monkeypatch.setattr(np, "empty", lambda *of: (os.truncate(tmp_path / "a", 2 * MB), empty(*of))[1])
    with pytest.raises(TensorFileError, match="is cut off: it became shorter"):
        load(tmp_path / "a")


# -- files made to do harm -------------------------------------------------------------------------------------------------

W = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
HOSTILE: dict[str, tuple[Any, str]] = {
    "overlap": ({"a": W, "b": W | {"data_offsets": [2, 6]}}, "array 'b' begins at byte 2 instead of 4"),
    "same place": ({"a": W, "b": W}, "begins at byte 0 instead of 4"),
    "gap": ({"a": W, "b": W | {"data_offsets": [5, 9]}}, "begins at byte 5 instead of 4"),
    "late": ({"a": W | {"data_offsets": [4, 8]}}, "begins at byte 4 instead of 0"),
    "backwards": ({"a": W | {"data_offsets": [4, 0]}}, "as many bytes"),
    "offset below 0": ({"a": W | {"data_offsets": [-4, 0]}}, "not sizes"),
    "offset of a float": ({"a": W | {"data_offsets": [0, 4.0]}}, "not sizes"),
    "offset of text": ({"a": W | {"data_offsets": ["0", "4"]}}, "not sizes"),
    "three offsets": ({"a": W | {"data_offsets": [0, 4, 4]}}, "impossible shape"),
    "offsets no list": ({"a": W | {"data_offsets": {"0": 4}}}, "impossible shape"),
    "larger than the file": ({"a": W | {"shape": [1 << 40], "data_offsets": [0, 1 << 40]}}, "is cut off"),
    "smaller than its shape": ({"a": W | {"shape": [5]}}, "as many bytes"),
    "shape below 0": ({"a": W | {"shape": [-4]}}, "not sizes"),
    "two below 0": ({"a": W | {"shape": [-2, -2]}}, "not sizes"),
    "shape of booleans": ({"a": W | {"shape": [True], "data_offsets": [0, 1]}}, "not sizes"),
    "shape of a float": ({"a": W | {"shape": [4.0]}}, "not sizes"),
    "shape null": ({"a": W | {"shape": None}}, "impossible shape"),
    "shape a number": ({"a": W | {"shape": 4}}, "impossible shape"),
    "axes": ({"a": W | {"shape": [1] * 65, "data_offsets": [0, 1]}}, "impossible shape"),
    "axes of nothing": ({"a": W | {"shape": [0] * 65, "data_offsets": [0, 0]}}, "impossible shape"),
    "huge and nothing": ({"a": W | {"shape": [0, 1 << 62, 4], "data_offsets": [0, 0]}}, "as many bytes"),
    "huge": ({"a": W | {"shape": [1 << 32, 1 << 32], "data_offsets": [0, 0]}}, "as many bytes"),
    "endless number": ('{"a":{"dtype":"U8","shape":[' + "9" * 5000 + '],"data_offsets":[0,0]}}', "header is damaged"),
    "many digits": ({"a": W | {"shape": [10**4000] * 60}}, "not sizes"),
    "type": ({"a": W | {"dtype": "BF16"}}, "array 'a' is of type 'BF16'"),
    "type in lower case": ({"a": W | {"dtype": "u8"}}, "of type 'u8'"),
    "type a list": ({"a": W | {"dtype": ["U8"]}}, "of type"),
    "type null": ({"a": W | {"dtype": None}}, "of type"),
    "type of escapes": ({"a": W | {"dtype": "\x1b[2J\n"}}, "of type"),
    "no type": ({"a": {"shape": [4], "data_offsets": [0, 4]}}, "must have dtype"),
    "more": ({"a": W | {"pickle": "..."}}, "must have dtype"),
    "no object": ({"a": [1]}, "array 'a' must have"),
    "long name": ({"\n" * MB: [1]}, "must have dtype"),
    "metadata a list": ({"__metadata__": ["a"]}, "metadata"),
    "metadata null": ({"__metadata__": None}, "metadata"),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, "metadata"),
    "twice": ('{"a":%s,"a":%s}' % ((json.dumps(W),) * 2), "the same name twice"),
    "metadata twice": ('{"__metadata__":{},"__metadata__":{}}', "the same name twice"),
    "metadata with one twice": ('{"__metadata__":{"a":"1","a":"2"}}', "the same name twice"),
    "shape twice": ('{"a":{"dtype":"U8","shape":[1],"shape":[4],"data_offsets":[0,4]}}', "the same name twice"),
    "deep lists": ("[" * 200_000, "header is damaged"),
    "deep objects": ('{"a":' * 200_000, "header is damaged"),
    "deep and whole": ('{"a":' + "[" * 900 + "]" * 900 + "}", "header is damaged"),
    "deep type": (
        '{"a":{"dtype":' + "[" * 900 + "]" * 900 + ',"shape":[4],"data_offsets":[0,4]}}',
        "header is damaged",
    ),
    "half a character": ({"\ud800": W}, "header is damaged"),
    "half in metadata": ({"__metadata__": {"a": "\udcff"}}, "header is damaged"),
    "no text": (b'{"\xff":1}', "header is damaged"),
    "UTF-16": ("{}".encode("utf-16-le"), "header is damaged"),
    "mark": ("\ufeff{}", "header is damaged"),
    "space before": (" {}", "does not begin with a {"),
    "list": ("[]", "does not begin with a {"),
    "number": ("7", "does not begin with a {"),
    "nothing": ("", "does not begin with a {"),
    "half": ('{"a":', "header is damaged"),
    "two": ("{}{}", "header is damaged"),
    "NaN": ('{"a":NaN}', "must have dtype"),
}


def file_of(header: Any, data: bytes = b"\1\2\3\4") -> bytes:
    text = header if isinstance(header, (str, bytes)) else json.dumps(header)
    text = text.encode() if isinstance(text, str) else text
    return len(text).to_bytes(8, "little") + text + data


@contextmanager
def little_memory() -> Iterator[None]:
    """No more than 300 MB beside what this process has."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as statm:
        now = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 300 * MB, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers(tmp_path: Path, name: str) -> None:
    header, why = HOSTILE[name]
    with little_memory():
        assert why in refused(tmp_path / "a", file_of(header), sealed=False)
        with pytest.raises(TensorFileError):
            look(tmp_path / "a")


@linux
@pytest.mark.parametrize("length", [5, 8, 1 << 20, 100 * MB, 100 * MB + 1, 1 << 31, 1 << 63, (1 << 64) - 1])
def test_hostile_lengths(tmp_path: Path, length: int) -> None:
    with little_memory():
        refused(tmp_path / "a", length.to_bytes(8, "little") + b"{}  ", sealed=False)
        with open(tmp_path / "a", "r+b") as file:
            file.truncate(1 << 40)  # a file of holes takes no place on the disk
        if length != 100 * MB:  # the longest that is read
            with pytest.raises(TensorFileError):
                load(tmp_path / "a")


def test_the_hostile_would_be_read_without_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(file_of({"b": W, "a": W | {"data_offsets": [4, 8], "shape": [2, 1, 2]}}, b"12345678"))
    found = load(tmp_path / "a").arrays
    assert list(found) == ["b", "a"] and found["a"].tobytes() == b"5678" and found["a"].shape == (2, 1, 2)
    nothing = W | {"shape": [0], "data_offsets": [0, 0]}  # in the same place, and later in the header
    (tmp_path / "a").write_bytes(file_of({"a": W, "nothing": nothing}))
    assert [array.size for array in load(tmp_path / "a").arrays.values()] == [0, 4]
    empty = {"a": W | {"shape": [0, 1 << 62], "data_offsets": [0, 0]}, "b": W | {"shape": [1] * 62 + [4, 1]}}
    (tmp_path / "a").write_bytes(file_of(empty))
    assert load(tmp_path / "a").arrays["a"].shape == (0, 1 << 62) and load(tmp_path / "a").arrays["b"].ndim == 64


NUMBERS = st.lists(st.integers(-1, 5), max_size=3)
HEADERS = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["U8", "F16", "x"]), "shape": NUMBERS, "data_offsets": NUMBERS}
)


@in_one_folder
@given(header=st.binary(max_size=40) | st.dictionaries(NAMES, HEADERS | st.none(), max_size=2))
def test_whatever_the_header_nothing_else_is_raised(tmp_path: Path, header: Any) -> None:
    """And what is read, the library reads the same."""
    (tmp_path / "a").write_bytes(file_of(header))
    with suppress(TensorFileError):
        assert all_same(load(tmp_path / "a").arrays, safetensors.numpy.load((tmp_path / "a").read_bytes()))


# -- memory ----------------------------------------------------------------------------------------------------------------

MEASURE = """
import sys
import numpy as np
from streamtrain.model.tensors import load, save, verify
def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
def growth(call):
    open("/proc/self/clear_refs", "w").write("5")
    before = status("VmRSS")
    found = call()
    return status("VmHWM") - before, found
path = sys.argv[1]
arrays = {"large": np.ones(45_000_000, np.uint8), "floats": np.ones((937_500, 2)), "step": 3}
save(path + ".small", {"w": np.ones(3)}, sealed=True)
saved, _ = growth(lambda: save(path, arrays, sealed=True))
del arrays
looked, _ = growth(lambda: verify(path))
loaded, contents = growth(lambda: load(path, sealed=True))
size = sum(array.nbytes for array in contents.arrays.values())
turned, _ = growth(lambda: save(path, {str(i): array.T for i, array in enumerate([np.ones((10, 250_000), ">f4")] * 3)}))
print(saved, loaded, size, turned, looked)
"""


@linux
def test_nothing_is_in_memory_twice(tmp_path: Path) -> None:
    """60 MB of arrays; and three of 10 MB that must be copied."""
    run = [sys.executable, "-c", MEASURE, str(tmp_path / "a")]
    done = subprocess.run(run, check=True, capture_output=True, text=True)
    saved, loaded, size, turned, looked = map(int, done.stdout.split())
    assert size == 60 * MB + 8 and max(saved, looked) < 8 * MB and size - 2 * MB < loaded < size + 8 * MB
    assert 38 * MB < turned < 48 * MB  # with the one that is turned, which is made within
