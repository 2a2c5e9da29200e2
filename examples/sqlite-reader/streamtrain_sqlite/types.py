"""The Arrow type of a column, from the type that it was declared with."""

from __future__ import annotations

import pyarrow as pa

__all__ = ["arrow_type"]

# What https://www.sqlite.org/datatype3.html#determination_of_column_affinity looks for, in its order.
_AFFINITIES = (
    (("INT",), pa.int64()),
    (("CHAR", "CLOB", "TEXT"), pa.string()),
    (("BLOB",), pa.binary()),
    (("REAL", "FLOA", "DOUB"), pa.float64()),
    # not affinities of SQLite's, which keeps these as it gets them
    (("BOOL",), pa.int64()),
    (("DATE", "TIME"), pa.string()),
)


def arrow_type(declared: str) -> pa.DataType:
    """SQLite does not enforce what is declared; values of other types are refused when they are read.

    >>> arrow_type("VARCHAR(20)"), arrow_type("bigint"), arrow_type("NUMERIC")
    (DataType(string), DataType(int64), DataType(double))
    """
    for words, kind in _AFFINITIES:
        if any(word in declared.upper() for word in words):
            return kind
    return pa.float64()
