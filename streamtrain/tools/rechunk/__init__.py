"""Copy a data set into better chunks, as a stream: the same rows, in the same order, with the same types."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa

from streamtrain.columns.role import has_conflict, problem_of
from streamtrain.errors import ColumnError, data_name
from streamtrain.load.demand import stream_bytes
from streamtrain.memory.monitor import budget_of, opening, within
from streamtrain.memory.process import peak_bytes, release_freed_memory, resident_bytes
from streamtrain.runs.report import memory_dict
from streamtrain.storage import open_data
from streamtrain.storage.files.apart import require_apart
from streamtrain.storage.reader import ChunkTable, Reader, Streams
from streamtrain.storage.settings import ReadSettings
from streamtrain.storage.where.opening import rows_of
from streamtrain.tools.rechunk.copying import Output, copy_rows
from streamtrain.tools.rechunk.gather import is_loose
from streamtrain.tools.rechunk.plan import CopyPlan, Demand, solve
from streamtrain.tools.rechunk.settings import Settings, staged

__all__ = ["rechunk"]

_ASSUMED_BASELINE_BYTES = 120 * 10**6  # if the process cannot be measured


def rechunk(
    data: Any, *, out: str | Path, chunk_rows: int, format: str | None = None, memory: float | str | None = None,
    compression: str = "zstd",
    # settings: ReadSettings
    missing_chunks: str = "error", sample_dim: str | None = None, input_format: str | None = None,
    delimiter: str | None = None, header: bool = True, na: Sequence[str] | None = None, decimal: str = ".",
    encoding: str | None = None, where: str | None = None, table_version: int | None = None, as_of: str | None = None,
    # end of settings
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Copy data to a new folder in chunks of ``chunk_rows`` rows, in constant memory.

    Values, types, nulls and the order of rows stay the same. So do, for Parquet, the order and metadata of columns and, for
    Zarr, attributes and dimension names. Folders named ``key=value`` become ordinary columns. Everything is written with
    checksums, to a hidden folder that gets the name ``out`` at the end: an error or Ctrl-C leaves nothing behind.

    Parameters
    ----------
    data
        A path, glob, directory, Zarr store, URL or reader, arrays and tables in memory, or a list of these.
    out
        The folder to write: new or empty, and not among the data.
    chunk_rows
        Rows in a chunk; the last chunk holds the rest.
    format
        ``"parquet"`` (files ``part-00000.parquet``, ...) or ``"zarr"`` (a v3 group); by default that of the data.
    memory
        The budget for the whole process: bytes, or a size such as ``"512MB"``. By default half of what is available.
    compression
        ``"zstd"``, ``"gzip"``, ``"lz4"`` or ``"none"``; for Parquet also ``"snappy"`` and ``"brotli"``.
    missing_chunks
        An absent Zarr chunk: an error, or filled with its fill value. One of error, fill. Default: error.
    sample_dim
        The dimension of a Zarr store along which the rows are. Default: that of the target.
    input_format
        The format of the files. One of parquet, csv, jsonl, arrow, npy, zarr. Default: by their names, or their first
        bytes.
    delimiter
        CSV: the character between fields, or tab. Default: a tab in .tsv and .tab, otherwise a comma.
    header
        CSV: whether the first line names the columns; otherwise they are f0, f1, ... Default: True.
    na
        CSV: what means missing, in all columns: a,b. Blanks do in columns of numbers. Default: NA, NaN, null, None, ?,
        -, . and the like, in columns of numbers.
    decimal
        CSV: the decimal point. One of ., ,. Default: ..
    encoding
        CSV and JSON: the encoding of the text, such as latin-1. Default: utf-8.
    where
        Only the rows for which this is true: ``age >= 18 and city in ('Rome', 'Oslo')``.
    table_version
        Of a Delta table the version, of an Iceberg table the snapshot; also DATA@N. Default: the current one.
    as_of
        A table as it was at this time, 2026-01-15T12:00:00+01:00; in UTC without a zone.
    progress
        Called with the rows done and the rows there are.

    Returns
    -------
    dict
        ``rows``, ``columns``, ``chunks``, ``chunk_rows``, ``format``, ``path``, ``stored_bytes`` and ``memory``.

    Raises
    ------
    UsageError
        A setting is wrong, or ``out`` is in use.
    DataError
        The data cannot be read, or the format cannot hold one of their columns (`docs/storage.md` lists which).
    BudgetRefused
        The plan does not fit the budget. Nothing was read.
    BudgetExceeded
        Text is longer than the plan assumed, or the process went over its budget.
    RunError
        ``out`` cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> copy = rechunk({"x": np.arange(10)}, out=tempfile.mkdtemp(), chunk_rows=4)
    >>> copy["rows"], copy["chunks"], copy["format"]
    (10, 3, 'parquet')
    """
    reading = ReadSettings(
        # passed: ReadSettings
        missing_chunks=missing_chunks, sample_dim=sample_dim, input_format=input_format, delimiter=delimiter,
        header=header, na=na, decimal=decimal, encoding=encoding, where=where, table_version=table_version, as_of=as_of,
        # end of passed
    )  # fmt: skip
    settings = Settings(out=out, chunk_rows=chunk_rows, format=format, memory=memory, compression=compression)
    require_apart(f"--out {out}", out, data)
    with within(settings.memory):
        with opening(data_name(data)):
            reader, declared = _open(data, reading)
            table = rows_of(
                reader, reading, name=data_name(data) if isinstance(data, (str, Path)) else "the data"
            ).table
        written_as = format or _format_of(reader)
        settings.require_compression(written_as)
        output = _output(data, reader, declared, settings, written_as)
        plan = _plan(reader, table, output, settings)
        plan.require_fits()
        rows = table.total_rows
        with staged(settings.path) as folder:
            sink = output.open(folder, rows, chunk_rows, plan.require_chunk)
            chunks = copy_rows(reader, table, plan, sink, lambda n: progress(n, rows) if progress else None)
            stored = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        measured = {"baseline": plan.baseline_bytes, "chunk": sink.most_held_bytes}
        return {
            "rows": rows,
            "columns": len(reader.schema),
            "chunks": chunks,
            "chunk_rows": chunk_rows,
            "format": written_as,
            "path": str(out),
            "stored_bytes": stored,
            "memory": memory_dict(plan, measured, peak_bytes()),
        }


def _format_of(reader: Reader) -> str:
    return "zarr" if _is(reader, "zarr", "ZarrReader") else "parquet"


def _is(reader: Reader, module: str, name: str) -> bool:
    """Whether a reader is of this class of ``streamtrain.storage``. A format that was not imported has no readers."""
    home = sys.modules.get(f"streamtrain.storage.{module}")
    return home is not None and isinstance(reader, getattr(home, name))


def _open(data: Any, reading: ReadSettings) -> tuple[Reader, pa.Schema]:
    """Open the data. Returns the reader, and the columns as the files declare them: the reader may give text as codes."""
    reader = open_data(data, reading)
    for field in reader.schema:
        if (problem := problem_of(field)) is not None:
            advice = f"column {field.name!r} is {problem}: copy the files of each type by themselves, given as a glob"
            raise ColumnError(advice if has_conflict(field) else problem)
    if not _is(reader, "parquet.reader", "ParquetReader"):
        return reader, reader.schema
    from streamtrain.storage.parquet.reader import ParquetReader
    from streamtrain.storage.parquet.types import declared_schema

    assert isinstance(reader, ParquetReader)
    (place, names), closed = reader.stored_files, pickle.dumps(reader)
    del reader  # and its footers, which would be in memory twice
    again = pickle.loads(closed)
    return again, declared_schema(place, names, again.schema)


def _output(data: Any, reader: Reader, declared: pa.Schema, settings: Settings, format: str) -> Output:
    """Prepare the output. Raises ColumnError for a column that the format cannot hold."""
    if any(isinstance(kind, pa.DictionaryType) for kind in reader.schema.types):
        import_module("pyarrow.compute")  # used to find the values that occur; its 9 MB belong to the baseline
    if format == "parquet":
        from streamtrain.tools.rechunk.to_parquet import ParquetOutput

        return ParquetOutput(reader.schema, declared, settings.compression)
    from streamtrain.tools.rechunk.to_zarr import ZarrOutput

    if _is(reader, "zarr", "ZarrReader") and isinstance(data, (str, Path)) and "://" not in str(data):
        from streamtrain.storage.zarr import ZarrReader

        assert isinstance(reader, ZarrReader)
        return ZarrOutput.like(reader, settings.compression)
    return ZarrOutput.of(reader.schema, declared, settings.compression)


def _plan(reader: Reader, table: ChunkTable, output: Output, settings: Settings) -> CopyPlan:
    """Plan the copy for this process in its present state."""
    release_freed_memory()
    baseline, opened = resident_bytes() or _ASSUMED_BASELINE_BYTES, peak_bytes()
    demand = Demand(
        table=table,
        baseline_bytes=baseline,
        output=lambda rows: output.terms(table, rows),
        opened_bytes=0 if opened is None else max(0, opened - baseline),
        open_bytes=getattr(reader, "open_bytes", 0),
        stream_bytes=(lambda chunk, rows: stream_bytes(reader, chunk, rows)) if isinstance(reader, Streams) else None,
        loose=any(is_loose(kind) for kind in reader.schema.types),
    )
    given = settings.memory is not None
    return solve(demand, chunk_rows=settings.chunk_rows, budget_bytes=budget_of(settings.memory), budget_given=given)
