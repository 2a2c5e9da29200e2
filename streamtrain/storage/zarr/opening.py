"""Open a store: from its metadata documents to its columns."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import zarr
import zarr.storage

from streamtrain.errors import ColumnError, CorruptError, DataError, NotFoundError, StreamtrainError
from streamtrain.storage.remote.address import Address
from streamtrain.storage.settings import Asked
from streamtrain.storage.zarr.codecs import package_of
from streamtrain.storage.zarr.columns import Column, StoredArray
from streamtrain.storage.zarr.decode import LastBlock
from streamtrain.storage.zarr.describe import column_of, dimensions, dimensions_of
from streamtrain.storage.zarr.elements import Element, list_elements
from streamtrain.storage.zarr.files import Files, Zip, around, joined, node_at, open_files, parsed_json
from streamtrain.storage.zarr.grid import Grid, make_grid
from streamtrain.storage.zarr.missing import check_blosc
from streamtrain.storage.zarr.remote import RemoteFiles, RemoteStore
from streamtrain.storage.zarr.sampling import Candidate, choose_columns
from streamtrain.storage.zarr.shards import ShardIndexes
from streamtrain.storage.zarr.values import Values

__all__ = ["Opened", "open_store"]


@dataclass(frozen=True, slots=True)
class Opened:
    """An open store. columns: all, by name; the grid has those whose memory counts. documents: the keys of what says how values
    are decoded, besides the documents of arrays."""

    files: Files
    grid: Grid
    values: Values
    columns: dict[str, Column]
    documents: tuple[str, ...]

    @property
    def arrays(self) -> Iterator[StoredArray]:
        """The arrays of the columns in the grid."""
        return (array for column in self.grid.columns for array in column.stored)


class _NoCodecError(DataError):
    """An array needs a codec that is not installed."""


def open_store(path: Path | Address, *, fills: bool, sample_dim: str | None, asked: Asked) -> Opened:
    """Open a store. Raises NotFoundError, SchemaError, CorruptError or ColumnError; see `ZarrReader`."""
    files, elements = _find(path, asked)
    if not elements:
        raise NotFoundError(f"{path}: the Zarr group has no arrays: give one that has some")
    values, place = Values(files, fills), _store_of(files)
    candidates = [_candidate(path, element, values, place, asked) for element in elements]
    chosen = choose_columns(str(path), [c for c, _ in candidates], sample_dim, asked)
    joins = _joined_dimensions([c for c, _ in candidates], values)
    wanted = _wanted(elements, asked)
    columns = {}
    for element, (candidate, problem) in zip(elements, candidates, strict=True):
        if element.name in chosen:
            if (
                element.problem
                and asked.others == "features"
                and not element.left_out
                and element.name not in asked.without
            ):
                raise ColumnError(f"{path}: {element.problem}, or leave it out (--exclude {element.name})")
            own, last = replace(element, problem=element.problem or problem), (candidate.dimensions or (None,))[-1]
            columns[element.name] = column_of(own, values, joins=last in joins, is_wanted=element.name in wanted)
    grid = _grid(path, list(columns.values()), wanted)
    _watch(files, values, columns.values(), grid.run_rows)
    return Opened(files, grid, values, columns, tuple(_documents(elements, grid)))


def _documents(elements: Iterable[Element], grid: Grid) -> Iterator[str]:
    """The keys of documents that say how values are decoded: attributes of version 2, and of groups."""
    counted = {column.name: column for column in grid.columns}
    for element in elements:
        column = counted.get(element.name)
        if column is None or (column.decoder is None and column.csr is None):
            continue
        at = element.arrays.get("", element.name)
        if element.version == 2:
            yield joined(at, ".zattrs")
        elif element.kind != "array":
            yield joined(at, "zarr.json")


def _wanted(elements: Iterable[Element], asked: Asked) -> set[str]:
    """The names of what will be read, as far as anybody knows: what its memory is counted for. What is left out unless it is
    named does not count before; everything else always does, so that the rows are cut in the same way for every purpose."""
    everything = asked.others in ("all", "shown")
    return {e.name for e in elements if everything or not e.left_out or e.name in asked.columns}


def _watch(files: Files, values: Values, columns: Iterable[Column], run_rows: int) -> None:
    """Keep the last blocks of arrays whose chunks are longer than a run, and the indexes of shards; check what a server
    sends."""
    readable = [(column, array) for column in columns if not column.problem for array in column.stored]
    for column, array in readable:
        if array.keeps(column.run_of(array, run_rows)):
            values.last[array.path] = LastBlock()
        if array.sharded:
            values.shards[array.path] = ShardIndexes(files, values.arrays[array.path], array)
    if isinstance(files, RemoteFiles):
        files.check = _Check(files, [array for _, array in readable if array.blosc])


def _find(path: Path | Address, asked: Asked) -> tuple[Files, list[Element]]:
    """The files of a store, and what can be columns of it. Beside an array stand those of its group that are asked for."""
    files = open_files(path)
    if node_at(files, "").kind != "array":
        return files, list(list_elements(files))
    group = around(path)
    if group is None:
        return files, [replace(element, name="X") for element in list_elements(files)]
    folder, name = group
    siblings = [other for other in asked.columns if other != name and node_at(folder, other).kind != "none"]
    if not siblings:
        return files, [replace(element, name=name) for element in list_elements(files)]
    return folder, [element for at in sorted({name, *siblings}) for element in list_elements(folder, at)]


def _candidate(
    path: Path | Address, element: Element, values: Values, place: tuple[Any, str], asked: Asked
) -> tuple[Candidate, str]:
    """What may be a column, whose arrays are opened; and why it cannot be read, or ""."""
    try:
        for at in element.arrays.values():
            values.arrays[at] = _open_array(path, place, at, element.version)
    except _NoCodecError as error:
        if asked.others in ("all", "features") or element.name in asked.columns:
            raise
        return _of_document(element, values.files), str(error)
    shape = tuple(element.attributes.get("shape") or ())
    if element.arrays:
        array = values.arrays[next(iter(element.arrays.values()))]
        shape = (array.shape[0] - 1, *shape[1:]) if element.kind == "csr" else tuple(array.shape)
        return Candidate(element.name, shape, dimensions(array) if element.kind == "array" else None), ""
    return Candidate(element.name, shape), element.problem


def _of_document(element: Element, files: Files) -> Candidate:
    """The candidate of an array that zarr cannot open, from its document."""
    at = next(iter(element.arrays.values()))
    key = joined(at, "zarr.json" if element.version == 3 else ".zarray")
    document = parsed_json(files, key, files.read(key) or b"")
    attributes = document.get("attributes")
    if element.version == 2:
        attributes = parsed_json(files, joined(at, ".zattrs"), files.read(joined(at, ".zattrs")) or b"{}")
    shape = tuple(document.get("shape", ()))
    named = dimensions_of(attributes or {}, document.get("dimension_names"), len(shape))
    return Candidate(element.name, shape, named)


def _joined_dimensions(candidates: Sequence[Candidate], values: Values) -> set[str]:
    """The dimensions along which the characters of texts are stored: last dimensions of such arrays only, without a
    coordinate."""
    own: set[str] = set()
    others = {c.name.rpartition("/")[2] for c in candidates}
    for c in candidates:
        array = values.arrays.get(c.name)
        is_text = array is not None and array.dtype.kind == "S"
        for i, name in enumerate(c.dimensions or ()):
            if name is None:
                continue
            last = i == len(c.dimensions or ()) - 1
            if is_text and last and i > 0 and array is not None and array.dtype.itemsize == 1:
                own.add(name)
            elif not (is_text and last):
                others.add(name)
    return own - others


def _store_of(files: Files) -> tuple[Any, str]:
    """The same files as a store of zarr, and the path of theirs in it."""
    if isinstance(files, RemoteFiles):
        return RemoteStore(files), ""
    if isinstance(files, Zip):
        return zarr.storage.ZipStore(files.archive, mode="r"), files.inner
    return zarr.storage.LocalStore(str(files.root), read_only=True), ""


@dataclass(frozen=True, slots=True)
class _Check:
    """The check of a chunk file from a server before it is decoded."""

    files: Files
    arrays: list[StoredArray]

    def __call__(self, key: str) -> None:
        for array in self.arrays:
            if key.startswith(f"{array.path}/" if array.path else ""):
                check_blosc(self.files, array, key, self.files.size(key) or 0)
                return


def _open_array(path: Path | Address, place: tuple[Any, str], at: str, version: Any) -> Any:
    store, inner = place
    try:
        with warnings.catch_warnings():  # warnings about types that are not in the specification yet
            warnings.simplefilter("ignore")
            return zarr.open_array(store, path=joined(inner, at) if at else inner, mode="r", zarr_format=version)
    except (StreamtrainError, MemoryError):
        raise
    except Exception as error:  # zarr raises a dozen exception types for invalid documents
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        if isinstance(error, ImportError) or type(error).__name__ == "UnknownCodecError":  # of zarr or of numcodecs
            codec = next(iter(re.findall(r"[\w.:/-]+", reason.rpartition(":")[2])), "")
            package = package_of(codec)
            remedy = f"install it (pip install '{package}')" if package else "install the package that has it"
            raise _NoCodecError(
                f"{path}: array {at or '/'!r} needs a codec that is not installed here ({reason}): {remedy}"
            ) from None
        document = joined(at, "zarr.json" if version == 3 else ".zarray")
        raise CorruptError(
            f"{path}: {document} cannot be read ({type(error).__name__}: {reason}): restore it, or install the "
            f"zarr version that it needs"
        ) from None


def _grid(path: Path | Address, columns: Sequence[Column], wanted: set[str]) -> Grid:
    """How the rows are cut, and whose memory counts."""
    readable = [c for c in columns if not c.problem]
    if not readable:
        raise ColumnError(f"{path}: no array can be read: {columns[0].problem}")
    if readable[0].rows == 0:
        raise NotFoundError(f"{path}: the arrays have 0 rows: give a store with rows")
    counted = [c for c in columns if c.name in wanted]
    deciding = [c for c in readable if not c.left_out] or readable
    return make_grid(counted if any(not c.problem for c in counted) else columns, deciding)
