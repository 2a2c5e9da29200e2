"""The types of columns that are inferred file by file: how those of several files become one."""

from __future__ import annotations

from typing import Protocol

import pyarrow as pa

from streamtrain.storage.common_type import CODES, common_type, is_readable_as_text
from streamtrain.storage.files.columns import CONFLICT

__all__ = ["CsvTypes", "InferredTypes", "JsonTypes"]


class InferredTypes(Protocol):
    """What a text format says of types that were inferred."""

    def join(self, one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
        """The common type of a column in the files so far and in the next one, None if there is none."""

    def is_text(self, kind: pa.DataType) -> bool:
        """Whether values that were inferred to be of this type can be read as text."""

    def decoded(self, stored: pa.DataType | None, field: pa.Field) -> pa.DataType | None:
        """As what a column is decoded: one that was inferred to be ``stored`` in a file, or that its first records do not have,
        and is ``field`` in the data. None if the file does not have it."""


class CsvTypes:
    """CSV files: everything is written as text, so every column can be decoded as any type.

    >>> CsvTypes().join(CODES, pa.int64()) == CODES, CsvTypes().join(pa.int64(), CODES)
    (True, None)
    """

    def join(self, one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
        """Text stays text: that of the next file may look like numbers."""
        return CODES if one == CODES else _joined(one, other)

    def is_text(self, kind: pa.DataType) -> bool:
        return True

    def decoded(self, stored: pa.DataType | None, field: pa.Field) -> pa.DataType | None:
        return None if stored is None else field.type


class JsonTypes:
    """JSON: numbers and text are told apart, times are text. Any record may have any key."""

    def join(self, one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
        """Text stays text: that of the next file may look like times."""
        return CODES if one == CODES and pa.types.is_timestamp(other) else _joined(one, other)

    def is_text(self, kind: pa.DataType) -> bool:
        return is_readable_as_text(kind) or bool(pa.types.is_timestamp(kind))

    def decoded(self, stored: pa.DataType | None, field: pa.Field) -> pa.DataType | None:
        """As the type of the data, but numbers are not decoded as text."""
        is_common = CONFLICT not in (field.metadata or {})
        return field.type if is_common or stored is None or pa.types.is_timestamp(stored) else stored


def _joined(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The common type, but ``true`` is not written like a number."""
    return None if pa.bool_() in (one, other) and pa.null() not in (one, other) else common_type(one, other)
