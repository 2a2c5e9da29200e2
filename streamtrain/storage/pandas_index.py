"""The columns that pandas and dask store for the index of a frame. They are no features unless somebody asks for them."""

from __future__ import annotations

import json
import re
from typing import Any

import pyarrow as pa

__all__ = ["as_index", "index_columns", "is_index", "is_index_name", "with_index"]

_INDEX = b"index"  # metadata of such a column
_NAME = re.compile(r"__index_level_[0-9]+__|__null_dask_index__")  # of an index without a name


def is_index(field: pa.Field) -> bool:
    """Whether a column is the index of a frame."""
    return _INDEX in (field.metadata or {})


def as_index(field: pa.Field) -> pa.Field:
    """The column, marked as the index of a frame."""
    return field.with_metadata({**(field.metadata or {}), _INDEX: b"pandas"})


def is_index_name(name: str) -> bool:
    """Whether this is how pandas or dask call an index without a name.

    >>> is_index_name("__index_level_0__"), is_index_name("index")
    (True, False)
    """
    return _NAME.fullmatch(name) is not None


def with_index(schema: pa.Schema) -> pa.Schema:
    """The schema of a frame, with its index marked."""
    named = index_columns((schema.metadata or {}).get(b"pandas"))
    for i, field in enumerate(schema):
        if field.name in named or is_index_name(field.name):
            schema = schema.set(i, as_index(field))
    return schema


def index_columns(pandas: Any) -> list[str]:
    """The stored columns that the ``pandas`` metadata of a file name as its index.

    >>> index_columns(b'{"index_columns": ["k", {"kind": "range"}]}')
    ['k']
    """
    try:
        named = json.loads(pandas or b"{}").get("index_columns", [])
    except (ValueError, AttributeError):  # metadata of somebody else
        return []
    return [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
