"""Settings of the reading: what the files and stores do not say about themselves. Every command that reads data takes them."""

from __future__ import annotations

from dataclasses import dataclass

from streamtrain.options import check, option
from streamtrain.storage.where.grammar import read_where

__all__ = ["ReadSettings"]


@dataclass(frozen=True)
class ReadSettings:
    """How data are read. Raises UsageError for an invalid setting."""

    missing_chunks: str = option(
        "error",
        "An absent Zarr chunk: an error, or filled with its fill value.",
        group="data",
        choices=("error", "fill"),
    )
    where: str | None = option(
        None, "Only the rows for which this is true: \"age >= 18 and city in ('Rome', 'Oslo')\".", group="data",
        metavar="EXPR", read=read_where, wanted="must be an expression, as text",
        python_help="Only the rows for which this is true: ``age >= 18 and city in ('Rome', 'Oslo')``.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        check(self)
