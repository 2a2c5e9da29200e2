"""Which format a file has whose name does not tell: by its first bytes. And what to do with the formats that are not read."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

__all__ = ["FIRST_BYTES", "Foreign", "foreign_name", "format_of_bytes", "looks_like"]

FIRST_BYTES = 1 << 16  # that are looked at


class Foreign(NamedTuple):
    """A format that is not read. remedy: how to make one of it that is."""

    what: str
    remedy: str


_HDF5 = Foreign("HDF5 or NetCDF", "write it as Zarr, in Python xarray.open_dataset(path).to_zarr('data.zarr')")
_ANNDATA = Foreign(
    "an AnnData file in HDF5", "write it as Zarr, in Python anndata.read_h5ad(path).write_zarr('data.zarr')"
)
_EXCEL = Foreign("an Excel sheet", "write it as Parquet, in Python pandas.read_excel(path).to_parquet('data.parquet')")
_ORC = Foreign("ORC", "write it as Parquet, in Python pandas.read_orc(path).to_parquet('data.parquet')")
_AVRO = Foreign("Avro", "write it as Parquet, in Python polars.read_avro(path).write_parquet('data.parquet')")
_SQLITE = Foreign(
    "an SQLite database", "write the table as Parquet, in Python pandas.read_sql(...).to_parquet('data.parquet')"
)
_DUCKDB = Foreign("a DuckDB database", "write the table as Parquet, COPY name TO 'data.parquet'")
_PICKLE = Foreign(
    "a pickle, which can run code", "write it as Parquet, in Python pandas.read_pickle(path).to_parquet('data.parquet')"
)
_NPZ = Foreign(
    "an archive of numpy arrays",
    "pass its arrays in Python, as dict(numpy.load(path)); or unzip it, and pass numpy.load(name, mmap_mode='r') of each",
)
_SVM = Foreign("LIBSVM text", "read it in Python with sklearn.datasets.load_svmlight_file, and pass the arrays")
_STATA = Foreign(
    "a file of Stata, SAS or SPSS", "write it as Parquet, in Python pandas.read_stata(path).to_parquet('data.parquet')"
)
_ZIP = Foreign("a zip archive", "unpack it")
_PACKED = Foreign(
    "compressed, although its name does not say so",
    "give it a name that ends in .csv.gz, .jsonl.gz or .zst, or unpack it",
)

_NAMES = {
    ".h5ad": _ANNDATA, ".h5": _HDF5, ".hdf5": _HDF5, ".hdf": _HDF5, ".nc": _HDF5, ".nc4": _HDF5, ".xlsx": _EXCEL,
    ".xls": _EXCEL, ".ods": _EXCEL, ".orc": _ORC, ".avro": _AVRO, ".sqlite": _SQLITE, ".sqlite3": _SQLITE, ".db": _SQLITE,
    ".duckdb": _DUCKDB, ".pkl": _PICKLE, ".pickle": _PICKLE, ".npz": _NPZ, ".svm": _SVM, ".libsvm": _SVM,
    ".svmlight": _SVM, ".dta": _STATA, ".sas7bdat": _STATA, ".sav": _STATA,
}  # fmt: skip
_MAGIC: tuple[tuple[bytes, str | Foreign], ...] = (
    (b"PAR1", "parquet"), (b"PARE", "parquet"), (b"ARROW1", "arrow"), (b"\xff\xff\xff\xff", "arrow"), (b"FEA1", "arrow"),
    (b"\x93NUMPY", "npy"), (b"\x89HDF\r\n\x1a\n", _HDF5), (b"CDF", _HDF5), (b"ORC", _ORC), (b"Obj\x01", _AVRO),
    (b"SQLite format 3\0", _SQLITE), (b"\xd0\xcf\x11\xe0", _EXCEL), (b"\x1f\x8b", _PACKED), (b"\x28\xb5\x2f\xfd", _PACKED),
    (b"BZh", _PACKED), (b"\xfd7zXZ", _PACKED),
)  # fmt: skip
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_SVM_LINE = re.compile(rb"[^\s:]+(\s+qid:\d+)?(\s+\d+:[-+.\deE]+)+\s*(#.*)?")


def foreign_name(name: str) -> Foreign | None:
    """The format that is not read, by the name of a file.

    >>> foreign_name("a/B.H5AD").what, foreign_name("a.csv")
    ('an AnnData file in HDF5', None)
    """
    return next((foreign for end, foreign in _NAMES.items() if name.lower().endswith(end)), None)


def format_of_bytes(head: bytes) -> str | Foreign | None:
    """The format of a file that begins with these bytes: the name of one, or one that is not read; None if they do not tell,
    which those of CSV do not.

    >>> format_of_bytes(b"PAR1..."), format_of_bytes(b' [{"a": 1}]'), format_of_bytes(b"a,b"), format_of_bytes(b"1 2:3.5").what
    ('parquet', 'jsonl', None, 'LIBSVM text')
    """
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head.startswith(b"PK\x03\x04"):
        first = head[30:4096]
        return _EXCEL if b"xl/" in first or b"[Content_Types]" in first else _NPZ if b".npy" in first else _ZIP
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return _PICKLE
    if head[8:12] == b"DUCK":
        return _DUCKDB
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
    if text.startswith(b"{") or (text.startswith(b"[") and text[1:].lstrip(b" \t\r\n")[:1] in (b"{", b"]")):
        return "jsonl"
    lines = [line for line in text.splitlines()[:6] if line.strip()]
    whole = lines[:-1] or lines  # the last may be cut off
    return _SVM if whole and all(_SVM_LINE.fullmatch(line) for line in whole) else None


def looks_like(head: bytes) -> str:
    """The flags for text whose format the bytes do not tell; "" if these are no text.

    >>> looks_like(b"a;b\\n1;2\\n"), looks_like(b"\\x00\\x01")
    ("--input-format csv --delimiter ';'", '')
    """
    if head.startswith(_UTF16):
        return "--input-format csv --encoding utf-16"
    if b"\0" in head:
        return ""
    counts = Counter(byte for byte in head.partition(b"\n")[0] if byte in b",;\t|")
    mark = chr(counts.most_common(1)[0][0]) if counts else ","
    more = "" if mark == "," else " --delimiter tab" if mark == "\t" else f" --delimiter '{mark}'"
    return f"--input-format csv{more}"
