"""Data that are objects of other libraries: which are streamed, which are in memory, and which are refused before a byte is
read, because nothing public gives their files or chunks. No library is imported to find that out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from streamtrain.errors import DataError, UsageError
from streamtrain.storage.reader import Reader
from streamtrain.storage.settings import ReadSettings

__all__ = ["open_object"]

_PARQUET = "write it with {}, and give the path"
#: by the beginning of the module and the name of a class, "" for any: what it is, and the way on
_REFUSED = (
    ("polars", "LazyFrame", "a polars LazyFrame", _PARQUET.format("sink_parquet")),
    ("dask.array", "Array", "a dask array", "store it with dask.array.to_zarr, and give the path"),
    ("dask.dataframe", "", "a dask DataFrame", _PARQUET.format("to_parquet")),
    ("dask_expr", "", "a dask DataFrame", _PARQUET.format("to_parquet")),
    ("dask", "", "a dask collection", _PARQUET.format("to_parquet")),
    ("duckdb", "", "a relation of duckdb", _PARQUET.format("write_parquet")),
    ("_duckdb", "", "a relation of duckdb", _PARQUET.format("write_parquet")),
    ("pandas.io.parsers", "TextFileReader", "a pandas reader of chunks", "give the path of the CSV file"),
    ("torch.utils.data", "", "a torch Dataset or DataLoader", "give the arrays or files that it reads"),
    ("tensorflow", "Dataset", "a tf.data Dataset", "give the files that it reads"),
    ("datasets", "", "a Hugging Face dataset", _PARQUET.format("to_parquet")),
    ("pyspark", "", "a Spark DataFrame", _PARQUET.format("write.parquet")),
    ("pyarrow._dataset", "Scanner", "a scanner", "give the dataset, and --where for its filter"),
    ("pyarrow._dataset", "InMemoryDataset", "a dataset in memory", "give the table that it was made of"),
    ("pyarrow._dataset", "UnionDataset", "a union of datasets", "give a list of the datasets"),
)
_FORMATS = {"parquet": "parquet", "ipc": "arrow", "arrow": "arrow", "feather": "arrow", "csv": "csv", "json": "jsonl"}


def open_object(data: Any, settings: ReadSettings) -> Reader:
    """A reader of an object. Raises UsageError, before anything is read, for one that would have to be read as a whole."""
    _require_readable(data)
    if _is_of(data, "pyarrow._dataset", "FileSystemDataset"):
        return _dataset(data, settings)
    if _is_of(data, "zarr", "Group"):
        return _zarr_reader(data, settings)
    from streamtrain.storage.tables import MemoryReader, columns_of

    if _is_of(data, "xarray", "Dataset"):
        return _xarray(data)
    if hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__"):
        return MemoryReader(data)
    named = columns_of({"X": data} if _is_sliced(data) and not _is_record(data) else data)
    for values in named.values():
        _require_readable(values)
    if not any(map(_is_sliced, named.values())):
        return MemoryReader(data)
    from streamtrain.storage.arrays import ArraysReader

    return ArraysReader({str(name): _column(str(name), values, settings) for name, values in named.items()})


def _is_of(data: Any, module: str, name: str = "") -> bool:
    """Whether an object is of a class, or of one derived from it."""
    return any(
        (each.__module__ == module or each.__module__.startswith(f"{module}.")) and name in ("", each.__name__)
        for each in type(data).__mro__
    )


def _require_readable(data: Any) -> None:
    for module, name, what, remedy in _REFUSED:
        if _is_of(data, module, name):
            raise UsageError(f"{what} gives no public way to its files or chunks, so nothing of it was read: {remedy}")
    if isinstance(data, Iterator) and not hasattr(data, "__arrow_c_stream__"):
        raise UsageError(
            f"a {type(data).__name__} can be read only once, so nothing of it was read: give the files, a list of tables, or a "
            "reader (streamtrain.reader_from)"
        )


def _is_record(values: Any) -> bool:
    return isinstance(values, np.ndarray) and values.dtype.names is not None


def _is_sliced(values: Any) -> bool:
    """Whether an object is an array that is read in slices, because it is not in memory as a whole, or not dense."""
    from streamtrain.storage.mapped import is_mapped

    if isinstance(values, np.ndarray):
        return is_mapped(values)
    if _is_of(values, "scipy.sparse") or _is_of(values, "xarray", "DataArray"):
        return True
    has_slices = all(hasattr(values, name) for name in ("shape", "dtype", "__getitem__"))
    return has_slices and (hasattr(values, "chunks") or hasattr(values, "chunking"))


def _column(name: str, values: Any, settings: ReadSettings) -> Any:
    from streamtrain.storage import array_columns as kinds
    from streamtrain.storage.tables import array_of, to_column

    if not _is_sliced(values):
        return kinds.InMemory(name, to_column(name, array_of(name, values)))
    if isinstance(values, np.ndarray):
        from streamtrain.storage.mapped import Mapped

        return Mapped(name, values)
    if _is_of(values, "scipy.sparse"):
        return kinds.Sparse(name, values)
    if not values.shape:
        raise UsageError(f"column {name!r} has no dimension: give an array whose first axis is the rows")
    if _is_of(values, "xarray", "DataArray"):
        return kinds.Xarray(name, values, values.dims[0])
    if _is_of(values, "zarr", "Array") and _zarr_path(values) is not None:
        return kinds.ThroughReader(name, _zarr_reader(values, settings))
    return kinds.Chunked(name, values)


def _zarr_path(data: Any) -> Path | None:
    """The path of a zarr group or array in a folder of this machine."""
    root = getattr(data.store, "root", None)
    return Path(root) / data.path if _is_of(data.store, "zarr", "LocalStore") and root is not None else None


def _zarr_reader(data: Any, settings: ReadSettings) -> Reader:
    path = _zarr_path(data)
    if path is None:
        raise UsageError(
            f"a zarr Group in a {type(data.store).__name__} cannot be checked for missing chunks: give its path or URL, or a "
            "dict of its arrays"
        )
    from streamtrain.storage.zarr import ZarrReader

    return ZarrReader(path, missing_chunks=settings.missing_chunks)


def _xarray(data: Any) -> Reader:
    """The variables of a dataset that have its rows: those that begin with the first dimension of most of them."""
    from streamtrain.storage.array_columns import Xarray
    from streamtrain.storage.arrays import ArraysReader

    firsts = list(dict.fromkeys(values.dims[0] for values in data.data_vars.values() if values.dims))
    if len(firsts) != 1:
        raise UsageError(
            f"the variables of the xarray Dataset begin with the dimensions {', '.join(map(repr, firsts)) or 'none'}: choose "
            "those of one table, such as ds[['x', 'y']]"
        )
    rows = firsts[0]
    names = [name for name, values in data.variables.items() if rows in values.dims]
    return ArraysReader({str(name): Xarray(str(name), data[name], rows) for name in names})


def _dataset(data: Any, settings: ReadSettings) -> Reader:
    """The files of a dataset of pyarrow, read by our own readers."""
    from dataclasses import replace

    from streamtrain.storage.opening import open_data

    try:
        data.get_fragments()
    except ValueError:
        raise UsageError(
            "the dataset has a filter: give the dataset without it, and --where with the condition"
        ) from None
    if not _is_of(data.filesystem, "pyarrow._fs", "LocalFileSystem"):
        raise UsageError(f"the files of the dataset are in a {type(data.filesystem).__name__}: give their URLs")
    kind = _FORMATS.get(str(data.format.default_extname))
    if kind is None:
        raise DataError(f"the files of the dataset are {data.format.default_extname}, which is not read")
    if kind == "csv":
        raise UsageError("the dataset is of CSV files, which may be parsed in many ways: give their paths")
    reader = open_data(sorted(data.files), replace(settings, input_format=kind))
    wanted, found = set(data.schema.names), set(reader.schema.names)
    if wanted != found:
        raise UsageError(
            f"the dataset has other columns than its files and their key=value folders ({', '.join(sorted(wanted ^ found))}): "
            "give the paths, and say with --features or --exclude what is learned from"
        )
    return reader
