"""What can be columns of a store: its arrays, and the groups in which AnnData keeps a column in several arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from streamtrain.errors import CorruptError
from streamtrain.storage.zarr.files import Files, Node, joined, node_at, require_no_chunks

__all__ = ["Element", "list_elements"]

_MOST_LEVELS = 100
#: the arrays of a group that is one column, by its ``encoding-type``
#: https://anndata.readthedocs.io/en/latest/fileformat-prose.html
_ENCODINGS = {
    "categorical": ("codes", "categories"),
    "nullable-integer": ("values", "mask"),
    "nullable-boolean": ("values", "mask"),
    "nullable-string-array": ("values", "mask"),
    "csr_matrix": ("indptr", "indices", "data"),
}
_UNREADABLE = {
    "csc_matrix": "stored by columns (csc_matrix), so a row cannot be read without all of them: write it by rows "
    "(adata.X = adata.X.tocsr())",
    "awkward-array": "an awkward array: convert it",
    "rec-array": "a structured array: convert it",
}
#: the parts of an AnnData store whose rows are its observations, and why they are no features unless they are named
_ROWS = {
    "X": "",
    "layers": "a layer of AnnData: name it in --features",
    "obsm": "a matrix of AnnData's obsm: name it in --features",
    "obs": "an annotation of AnnData's obs, which may tell the target: name it in --features",
}
_INDEX = "the index of a data frame"
_LEGACY_CATEGORIES = "__categories"  # of AnnData before 0.8, a group beside the columns


@dataclass(frozen=True)
class Element:
    """What can be one column. arrays: the paths of its arrays, by what they are; ``""`` for an array that is the column.
    attributes: of its group. left_out: why it is no feature unless it is named. problem: why it cannot be read."""

    name: str
    kind: Literal["array", "categorical", "masked", "csr", "none"]
    version: Literal[2, 3]
    arrays: dict[str, str]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    left_out: str = ""
    problem: str = ""


def list_elements(files: Files, path: str = "", *, is_part: bool = False) -> Iterator[Element]:
    """Everything at or below a path that can be a column, sorted. is_part: whether this is a part of an AnnData store."""
    if path.count("/") >= _MOST_LEVELS:
        raise CorruptError(f"{files.root}: has more than {_MOST_LEVELS} levels of groups: give one of the inner ones")
    node = node_at(files, path)
    if node.kind == "array":
        yield Element(path, "array", node.version, {"": path})
    elif node.kind == "none":
        require_no_chunks(files, path)
    elif (encoding := str(node.attributes.get("encoding-type"))) in _ENCODINGS:
        arrays = {name: joined(path, name) for name in _ENCODINGS[encoding]}
        kind: Any = {"categorical": "categorical", "csr_matrix": "csr"}.get(encoding, "masked")
        yield Element(path, kind, node.version, arrays, node.attributes)
    elif encoding in _UNREADABLE:
        yield Element(path, "none", node.version, {}, node.attributes, problem=f"{path!r} is {_UNREADABLE[encoding]}")
    elif not is_part and _is_anndata(files, path, encoding):
        for part in filter(_ROWS.__contains__, files.children(path)):
            for element in list_elements(files, joined(path, part), is_part=True):
                yield replace(element, left_out=element.left_out or _ROWS[part])
    else:
        yield from _members(files, path, node if encoding == "dataframe" else None, is_part)


def _members(files: Files, path: str, frame: Node | None, is_part: bool) -> Iterator[Element]:
    """The elements in a group. frame: the group, if it is a data frame."""
    children = files.children(path)
    legacy = joined(path, _LEGACY_CATEGORIES) if frame is not None and _LEGACY_CATEGORIES in children else None
    coded = [] if legacy is None else files.children(legacy)
    index = None if frame is None else frame.attributes.get("_index")
    for name in children:
        at = joined(path, name)
        if legacy is not None and name in coded:
            version: Any = 2 if frame is None else frame.version
            yield Element(at, "categorical", version, {"codes": at, "categories": joined(legacy, name)})
        elif at != legacy:
            for element in list_elements(files, at, is_part=is_part):
                yield replace(element, left_out=_INDEX) if name == index else element


def _is_anndata(files: Files, path: str, encoding: str) -> bool:
    """Whether a group is an AnnData store; by its parts where its encoding does not tell."""
    parts = ("obs", "var")
    return encoding == "anndata" or (
        {"X", *parts} <= set(files.children(path))
        and all(node_at(files, joined(path, part)).kind == "group" for part in parts)
    )
