"""Find the reader for a target. The module of a format is imported when it is first used."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from streamtrain.errors import NotFoundError, UsageError, data_name, without_secrets
from streamtrain.kernels.crash import reading
from streamtrain.storage.files.file_urls import local_path
from streamtrain.storage.files.gathered import partition_keys
from streamtrain.storage.files.listing import once_each
from streamtrain.storage.files.table_roots import kind_of_table, split_version
from streamtrain.storage.formats import ZARR_MARKS, file_reader, format_of_target
from streamtrain.storage.lake.moments import Moment
from streamtrain.storage.reader import Reader, is_reader
from streamtrain.storage.schemes import is_registered, open_url
from streamtrain.storage.settings import ReadSettings
from streamtrain.storage.several import SeveralReader

__all__ = ["are_sources", "open_data", "open_reader"]

_REMOTE = ("s3", "gs", "az", "http", "https", "memory")


def open_reader(
    target: Any,
    *,
    # settings: ReadSettings
    missing_chunks: str = "error", sample_dim: str | None = None, input_format: str | None = None,
    delimiter: str | None = None, header: bool = True, na: Sequence[str] | None = None, decimal: str = ".",
    encoding: str | None = None, where: str | None = None, table_version: int | None = None, as_of: str | None = None,
    # end of settings
) -> Reader:  # fmt: skip
    """Open data and return a reader for it.

    Parameters
    ----------
    target : Any
        A path, glob, directory, Zarr store or URL; a dict of numpy arrays, an array, a pair ``(X, y)``, an Arrow table or
        a data frame; a reader, which is returned unchanged; or a list of these, which are read one after the other.
    missing_chunks : str
        An absent Zarr chunk: an error, or filled with its fill value. One of error, fill. Default: error.
    sample_dim : str | None
        The dimension of a Zarr store along which the rows are. Default: that of the target.
    input_format : str | None
        The format of the files. One of parquet, csv, jsonl, arrow, npy, zarr. Default: by their names, or their first
        bytes.
    delimiter : str | None
        CSV: the character between fields, or tab. Default: a tab in .tsv and .tab, otherwise a comma.
    header : bool
        CSV: whether the first line names the columns; otherwise they are f0, f1, ... Default: True.
    na : Sequence[str] | None
        CSV: what means missing, in all columns: a,b. Blanks do in columns of numbers. Default: NA, NaN, null, None, ?,
        -, . and the like, in columns of numbers.
    decimal : str
        CSV: the decimal point. One of ., ,. Default: ..
    encoding : str | None
        CSV and JSON: the encoding of the text, such as latin-1. Default: utf-8.
    where : str | None
        Only the rows for which this is true: ``age >= 18 and city in ('Rome', 'Oslo')``.
    table_version : int | None
        Of a Delta table the version, of an Iceberg table the snapshot; also DATA@N. Default: the current one.
    as_of : str | None
        A table as it was at this time, 2026-01-15T12:00:00+01:00; in UTC without a zone.

    Returns
    -------
    Reader
        An object with ``schema``, ``chunks()``, ``read(chunk, columns)`` and ``fingerprint()``.

    Raises
    ------
    NotFoundError
        If there are no data at the target, or no reader for the scheme of a URL.
    CorruptError, SchemaError, ColumnError
        If the data are damaged, their files differ in columns, or no column can be read.
    UsageError
        If the target or a setting has no meaning.

    Examples
    --------
    >>> open_reader({"x": [[1.0, 2.0]]}).schema.names
    ['x']
    """
    read_settings = ReadSettings(
        # passed: ReadSettings
        missing_chunks=missing_chunks, sample_dim=sample_dim, input_format=input_format, delimiter=delimiter,
        header=header, na=na, decimal=decimal, encoding=encoding, where=where, table_version=table_version, as_of=as_of,
        # end of passed
    )  # fmt: skip
    reader = open_data(target, read_settings)
    if read_settings.where is None:
        return reader
    from streamtrain.storage.where.opening import filtered_reader

    return filtered_reader(reader, read_settings, data_name(target))


def open_data(target: Any, settings: ReadSettings) -> Reader:
    """The reader of all rows of the data, whatever ``where`` says: see `streamtrain.storage.where.opening`."""
    if isinstance(target, (str, Path)):
        with reading(without_secrets(str(target))):
            return _open_path(local_path(str(target)), settings)
    if are_sources(target):
        return _open_each(target, settings)
    settings.require_effect("this", "data in memory or a reader")
    settings.require_no_version(data_name(target))
    if is_reader(target):
        reader: Reader = target
        return reader
    from streamtrain.storage.objects import open_object

    return open_object(target, settings)


def _open_path(target: str, settings: ReadSettings) -> Reader:
    if not target:
        raise NotFoundError("the path of the data is empty: give a file, glob, directory or URL")
    target, settings = _with_version(target, settings)
    scheme, colon, _ = target.partition("://")
    if not colon and (kind := kind_of_table(target)) is not None:
        from streamtrain.storage.lake.opening import open_table

        if settings.input_format not in (None, "parquet") and not settings.are_of_others:
            raise UsageError(f"--input-format {settings.input_format}: {target} is a {kind} table: leave it out")
        settings.require_effect(target, "parquet")
        return open_table(kind, target, _moment(settings))
    settings.require_no_version(without_secrets(target))
    if colon and scheme in _REMOTE and not is_registered(scheme):
        from streamtrain.storage.remote.opening import open_remote

        return open_remote(target, settings)
    if colon:
        settings.require_effect(without_secrets(target), f"{scheme}://")
        return open_url(scheme, target)
    by_name = settings.input_format is None or settings.are_of_others
    if _is_zarr(target) if by_name else settings.input_format == "zarr":
        settings.require_effect(target, "zarr")
        from streamtrain.storage.zarr import ZarrReader

        return ZarrReader(
            target, missing_chunks=settings.missing_chunks, sample_dim=settings.sample_dim, asked=settings.asked
        )
    return file_reader(target, settings)


def are_sources(target: Any) -> bool:
    """Whether data are several sources: a list, or a tuple of paths and readers. A pair of arrays is ``(X, y)``.

    >>> are_sources(["a.csv"]), are_sources(("a.csv", "b.csv")), are_sources(([[1.0]], [0]))
    (True, True, False)
    """
    if isinstance(target, list):
        return True
    return (
        isinstance(target, tuple)
        and bool(target)
        and all(isinstance(each, (str, Path)) or is_reader(each) for each in target)
    )


def _open_each(targets: Sequence[Any], settings: ReadSettings) -> Reader:
    """The reader of several sources. Neighbouring files on this machine that have one format are read as one."""
    if not targets:
        raise NotFoundError("the list of data is empty: give at least one path")
    wrong = next((each for each in targets if isinstance(each, (list, tuple, np.ndarray, int, float, bool))), None)
    if wrong is not None:
        raise UsageError(
            f"a list of data has a {type(wrong).__name__} in it: a list holds paths, tables and readers, which are read one "
            "after the other; arrays of one table are a pair (X, y), as a tuple, or a dict"
        )
    paths = [local_path(str(each)) if isinstance(each, (str, Path)) else each for each in targets]
    stores, twice = once_each(paths, lambda each: each if _is_zarr(each) else "")
    names, readers = list[str](), list[Reader]()
    groups = [(key, list(each)) for key, each in groupby(stores, key=lambda path: _group_of(path, settings))]
    kinds = {"zarr" if key is None else key[0] for key, some in groups if key is not None or _is_zarr(some[0])}
    settings = settings.for_several(kinds)
    for group, some in groups:
        if group is None or len(some) == 1:
            readers += [open_data(one, settings) for one in some]
            names += map(data_name, some)
        else:
            with reading(data_name(some)):
                readers.append(file_reader(some, settings, group[0]))
            names.append(data_name(some))
    return readers[0] if len(readers) == 1 and not twice else SeveralReader(readers, names, list(map(str, twice)))


def _group_of(path: Any, settings: ReadSettings) -> tuple[str, tuple[str, ...]] | None:
    """What files must have in common to be read as one: their format, and the keys of folders. None for what is no file."""
    if not isinstance(path, str) or not path or "://" in path or _is_zarr(path) or settings.input_format == "zarr":
        return None
    if split_version(path)[1] is not None or kind_of_table(path) is not None:
        return None
    return format_of_target(path, settings), partition_keys(path)


def _with_version(target: str, settings: ReadSettings) -> tuple[str, ReadSettings]:
    """The path, and the settings with the version that stands behind it."""
    path, version = split_version(target)
    if version is None:
        return path, settings
    if settings.table_version not in (None, version) or settings.as_of is not None:
        given = (
            f"--as-of {settings.as_of}" if settings.as_of is not None else f"--table-version {settings.table_version}"
        )
        raise UsageError(f"{target}: names a version itself: leave out {given}")
    return path, replace(settings, table_version=version)


def _moment(settings: ReadSettings) -> Moment:
    time = None if settings.as_of is None else datetime.fromisoformat(settings.as_of)
    return Moment(settings.table_version, time, settings.snapshots)


def _is_zarr(target: Any) -> bool:
    if not isinstance(target, (str, Path)):
        return False
    target = str(target)
    if glob.has_magic(target) and not os.path.exists(target):
        return False
    path = Path(target)
    marked = path.is_dir() and any((path / mark).exists() for mark in (*ZARR_MARKS, ".zattrs"))
    return marked or path.suffix == ".zarr" or target.endswith(".zarr.zip") or ".zarr.zip/" in target
