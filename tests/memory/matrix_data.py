"""The data of the memory matrix: large to read, small on disk, quick to make.

One file (or one chunk of each Zarr array) is written, and the others are hard links to it: to a reader they are files
like any others. The numbers are random, so that what is stored is about as large as what is decoded, but for the
dictionaries of `group-4M` and `strings`, where a low entropy is what is meant.

    python tests/memory/matrix_data.py LAYOUT FOLDER BYTES
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["LAYOUTS", "Layout", "make"]

COLUMNS = 40
Block = dict[str, Any]  # column name -> values


def numbers(rows: int, columns: int, *, distinct: int = 0) -> Block:
    """Float32 columns x0, x1, ...: random, or with so many distinct values."""
    rng = np.random.default_rng(0)
    if distinct:
        values = rng.normal(size=distinct).astype(np.float32)
        return {f"x{i}": values[rng.integers(0, distinct, rows, dtype=np.int16)] for i in range(columns)}
    return {f"x{i}": rng.standard_normal(rows, np.float32) for i in range(columns)}


def targets(rows: int) -> Block:
    """A target for each learner: two classes, a hundred, and numbers."""
    rng = np.random.default_rng(1)
    two, hundred = rng.integers(0, 2, rows, np.int8), (np.arange(rows) % 100).astype(np.int16)
    return {"two": two, "hundred": hundred, "number": rng.standard_normal(rows, np.float32)}


def texts(rows: int) -> Block:
    """Labels as text, some of them long, and a column of text that nobody reads."""
    rng = np.random.default_rng(2)
    names = np.array([f"category {i:03d} " + "of many " * (i % 5) for i in range(100)])
    return {
        "two": np.array(["absent", "present"])[rng.integers(0, 2, rows)],
        "hundred": names[np.arange(rows) % 100],
        "remark": np.char.add("remark number ", rng.integers(0, 50_000, rows).astype(str)),
    }


def _names(prefix: str, count: int) -> Any:
    """So many values of a category, eight or nine characters each."""
    import pyarrow as pa

    return pa.array([f"{prefix}{i * 2654435761 % 2**32:08x}" for i in range(count)])


def categories(folder: Path, least_bytes: int) -> None:
    """13 numbers and 26 columns of text with 10 to 1,000,000 values, in row groups of 50,000 rows. A file has 1,000,000 rows,
    and in six of its columns no value occurs twice."""
    rng, rows, group = np.random.default_rng(0), 1_000_000, 50_000
    counts = [int(10 ** (1 + 5 * i / 20)) for i in range(20)] + [rows] * 6
    names = _names("", rows)
    chosen = [rng.permutation(rows) if n == rows else rng.integers(0, n, rows) for n in counts]

    def block(start: int) -> Block:
        some = {f"xc{j}": names.take(codes[start : start + group]) for j, codes in enumerate(chosen)}
        return numbers(group, 13) | some | targets(group)

    first = write(folder / "part-00000.parquet", map(block, range(0, rows, group)), compression="zstd")
    copy(first, 3)


def _prose(rng: np.random.Generator, texts: int, words: int) -> list[str]:
    """So many texts of about so many words, a few of which are frequent, 6 bytes each on average."""
    lengths = rng.integers(2, 8, 20_000)
    letters = rng.integers(97, 123, (20_000, 8), np.uint8)
    known = [bytes(letters[i, :n]).decode() for i, n in enumerate(lengths)]
    found = []
    for count in rng.integers(words // 2, words * 3 // 2, texts):
        found.append(" ".join([known[min(i, 19_999)] for i in rng.zipf(1.15, count).tolist()]))
    return found


def texts_of(words: int, *, rows: int, group: int, files: int) -> Callable[[Path, int], None]:
    """Two numbers and a column of texts that all differ."""

    def make_them(folder: Path, least_bytes: int) -> None:
        rng = np.random.default_rng(3)
        blocks = ({"xt": _prose(rng, group, words)} | numbers(group, 2) | targets(group) for _ in range(rows // group))
        copy(write(folder / "part-00000.parquet", blocks, compression="zstd"), files)

    return make_them


def with_some(values: Block, *, missing: float) -> Block:
    """The same numbers, some of them missing."""
    import pyarrow as pa

    rng = np.random.default_rng(4)
    absent = {name: rng.random(len(column), np.float32) < missing for name, column in values.items()}
    return {name: pa.array(column, mask=absent[name]) for name, column in values.items()}


def missing_of(columns: int, *, groups: int, rows: int, files: int = 0) -> Callable[[Path, int], None]:
    """Numbers of which a fifth is missing."""

    def make_them(folder: Path, least_bytes: int) -> None:
        block = with_some(numbers(rows, columns), missing=0.2) | targets(rows)
        first = write(folder / "part-00000.parquet", [block] * groups, compression="none", **PLAIN)
        copy(first, files or -(-least_bytes // (groups * rows * columns * 4)))

    return make_them


def several_targets(rows: int) -> Block:
    rng = np.random.default_rng(5)
    return {f"number{i}": rng.standard_normal(rows, np.float32) for i in range(5)}


def few_categories(columns: int, counts: tuple[int, ...]) -> Callable[[Path, int], None]:
    """Numbers, categories with so many values, and all targets, five more among them."""

    def make_them(folder: Path, least_bytes: int) -> None:
        rng, rows = np.random.default_rng(6), 100_000
        some = {f"xc{j}": _names("v", n).take(rng.integers(0, n, rows)) for j, n in enumerate(counts)}
        block = numbers(rows, columns) | some | targets(rows) | several_targets(rows)
        first = write(folder / "part-00000.parquet", [block] * 10, compression="zstd", use_dictionary=list(some))
        copy(first, 3)

    return make_them


def copy(first: Path, copies: int) -> None:
    """``copies`` files in all that hold what the first does: part-00000.parquet is the first. No links, which are read once."""
    for i in range(1, copies):
        shutil.copyfile(first, first.with_name(f"part-{i:05d}.parquet"))


def write(path: Path, blocks: Iterator[Block] | list[Block], **options: Any) -> Path:
    """A Parquet file of a row group a block."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = None
    for block in blocks:
        table = pa.table(block)
        writer = writer or pq.ParquetWriter(path, table.schema, **options)
        writer.write_table(table, row_group_size=table.num_rows)
    assert writer is not None
    writer.close()
    return path


def parquet(
    folder: Path, least_bytes: int, *, groups: int, rows: int, columns: int = COLUMNS, distinct: int = 0, text: bool = False,
    files: int = 0, **options: Any,
) -> None:  # fmt: skip
    """Files of so many row groups of so many rows: as many files as decode to ``least_bytes``, or ``files``."""
    if files:
        rows = -(-least_bytes // (files * 4 * columns))
    block = numbers(rows, columns, distinct=distinct) | targets(rows) | (texts(rows) if text else {})
    first = write(folder / "part-00000.parquet", [block] * groups, **options)
    copy(first, files or -(-least_bytes // (groups * rows * columns * 4)))


def one_file(folder: Path, least_bytes: int) -> None:
    rows = 122_880
    block = numbers(rows, COLUMNS) | targets(rows)
    groups = -(-least_bytes // (rows * COLUMNS * 4))
    write(folder / "part-00000.parquet", (block for _ in range(groups)), compression="none", use_dictionary=False)


def zarr(folder: Path, *, chunks: int, rows: int, columns: int, inner: int = 0) -> None:
    """A group of X, shape (chunks * rows, columns), and the targets: one chunk (or shard, of chunks of ``inner`` rows)
    is written as `ZarrWriter` does, the shape is raised, the other chunks are links."""
    rng = np.random.default_rng(0)
    block: Block = {"X": rng.standard_normal((rows, columns), np.float32)} | targets(rows)
    (write_shards if inner else write_chunks)(folder, block, inner or rows)
    for name, values in block.items():
        document = folder / name / "zarr.json"
        described = json.loads(document.read_text())
        described["shape"][0] = chunks * rows
        document.write_text(json.dumps(described))
        at = folder / name / "c"
        for i in range(1, chunks):
            if values.ndim == 1:
                os.link(at / "0", at / str(i))
            else:
                (at / str(i)).mkdir()
                os.link(at / "0" / "0", at / str(i) / "0")


def write_chunks(folder: Path, block: Block, chunk_rows: int) -> None:
    from streamtrain.storage.zarr import ZarrWriter

    rows = len(block["X"])
    columns = {name: (values.shape[1:], values.dtype) for name, values in block.items()}
    with ZarrWriter(folder, columns, rows=rows, chunk_rows=chunk_rows) as writer:
        writer.write(block)


def write_shards(folder: Path, block: Block, chunk_rows: int) -> None:
    import zarr as library

    codecs = [library.codecs.ZstdCodec(), library.codecs.Crc32cCodec()]
    group = library.create_group(library.storage.LocalStore(folder), zarr_format=3)
    for name, values in block.items():
        group.create_array(
            name, shape=values.shape, dtype=values.dtype, chunks=(chunk_rows, *values.shape[1:]), shards=values.shape,
            compressors=codecs, config={"write_empty_chunks": True},
        )[...] = values  # fmt: skip


def zarr_chunks(rows: int, columns: int = COLUMNS, inner: int = 0) -> Callable[[Path, int], None]:
    def make_them(folder: Path, least_bytes: int) -> None:
        zarr(folder, chunks=-(-least_bytes // (rows * columns * 4)), rows=rows, columns=columns, inner=inner)

    return make_them


def deleted(folder: Path, least_bytes: int) -> None:
    """A Delta table of six files; every second row of each is deleted by a deletion vector."""
    sys.path.append(str(Path(__file__).parents[1] / "storage/lake"))
    import pyarrow as pa
    from deltalake import write_deltalake
    from lake_tables import adds, delete_by_vectors, deletion_vector

    rows, files = 200_000, 6
    table = pa.table(numbers(rows, COLUMNS) | targets(rows))
    for _ in range(files):
        write_deltalake(folder, table, mode="append")
    added = [add for version in range(files) for add in adds(folder, version)]
    vectors = [deletion_vector(folder, range(0, rows, 2)) for _ in added]
    delete_by_vectors(folder, files, zip(added, vectors, strict=True))


def tiny_chunks(folder: Path, least_bytes: int) -> None:
    zarr(folder, chunks=50_000, rows=100, columns=COLUMNS)


def giant_group(folder: Path, least_bytes: int) -> None:
    rows = 2_000_000
    block = numbers(rows, 50) | targets(rows)
    write(folder / "part-00000.parquet", [block], compression="snappy", use_dictionary=False)


def described(folder: Path, least_bytes: int) -> None:
    """Nothing but a number of rows: the reader makes them (see `matrix_child.TileReader`)."""
    folder.mkdir(parents=True)
    (folder / "rows").write_text(str(-(-least_bytes // (4 * COLUMNS))))


def files_of(**options: Any) -> Callable[[Path, int], None]:
    return lambda folder, least_bytes: parquet(folder, least_bytes, **options)


@dataclass(frozen=True)
class Layout:
    """make: (folder, decoded bytes at least). columns: features, of 4 bytes each. any_size: one set does for all budgets. few:
    it may hold less than five times the budget."""

    make: Callable[[Path, int], None]
    columns: int = COLUMNS
    any_size: bool = False
    few: bool = False
    scheme: str = ""


PLAIN = {"use_dictionary": False, "write_page_checksum": True}
LAYOUTS = {
    "groups-1k": Layout(files_of(groups=20, rows=1_000, compression="snappy", **PLAIN)),
    "groups-100k": Layout(files_of(groups=10, rows=100_000, compression="zstd", **PLAIN)),
    "group-4M": Layout(files_of(groups=1, rows=4_000_000, columns=20, distinct=1000, compression="snappy"), 20),
    "columns-5000": Layout(files_of(groups=2, rows=2_000, columns=5000, compression="none", **PLAIN), 5000),
    "one-file": Layout(one_file),
    "files-2000": Layout(files_of(groups=1, rows=0, files=2000, compression="snappy", **PLAIN)),
    "strings": Layout(files_of(groups=10, rows=100_000, columns=20, distinct=200, text=True, compression="zstd"), 20),
    "zarr-100": Layout(tiny_chunks, any_size=True, few=True),
    "zarr-500k": Layout(zarr_chunks(500_000, 20), 20),
    "zarr-sharded": Layout(zarr_chunks(100_000, inner=5_000)),
    "custom": Layout(described, scheme="tiles://"),
    # not in the covering array
    "categories": Layout(categories, 39, any_size=True, few=True),
    "sentences": Layout(texts_of(33, rows=100_000, group=50_000, files=2), 3, any_size=True, few=True),
    "kdd": Layout(few_categories(38, (3, 70, 11)), 41, any_size=True, few=True),
    "missing-40": Layout(missing_of(40, groups=10, rows=100_000)),
    "targets": Layout(few_categories(40, (10, 100, 1_000, 10_000, 100_000)), 45, any_size=True, few=True),
    "deleted": Layout(deleted, any_size=True, few=True),
    "group-2M": Layout(giant_group, 50, any_size=True, few=True),
    "small-groups": Layout(files_of(groups=10, rows=50_000, compression="none", **PLAIN)),
}


def make(layout: str, folder: Path, least_bytes: int) -> None:
    """Write the data of a layout to a new folder; nothing is left of it where that fails."""
    try:
        LAYOUTS[layout].make(folder, least_bytes)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


if __name__ == "__main__":
    make(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
