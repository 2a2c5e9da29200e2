"""Settings of the tools that `fit` does not have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streamtrain.options import check, option, split_names

__all__ = ["FORMATS", "MakeSettings", "PredictSettings", "ProfileSettings", "RechunkSettings"]

FORMATS = ("parquet", "zarr")  # that can be written


@dataclass(frozen=True)
class ProfileSettings:
    """When `profile` stops. Raises UsageError for a limit that is not positive."""

    max_seconds: float | None = option(10.0, "Train for so long, or to the end.", above=0)
    max_rows: int | None = option(None, "Train for so many rows (or a bit more), if they come first.", least=1)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class MakeSettings:
    """The data that `make` writes."""

    rows: int = option(..., "Rows to make.", least=1)
    out: str | Path = option(..., "The folder to write.", metavar="DIR", kept=True, wanted="must be a path")
    format: str = option("parquet", "The format.", choices=FORMATS)
    columns: int | None = option(None, "Features.", least=1, otherwise="40")
    sorted: bool = option(False, "Group the rows by target.")
    files: int | None = option(None, "Parquet files.", least=1)
    chunk_rows: int | None = option(None, "Rows a chunk.", least=1, otherwise="about 10 MB")
    compression: str = option("zstd", "zstd, snappy, none, ...")
    seed: int = option(0, "Seed of the data.", least=0)


@dataclass(frozen=True, kw_only=True)
class RechunkSettings:
    """The copy that `rechunk` writes."""

    out: str | Path = option(..., "The folder to write.", metavar="DIR", kept=True, wanted="must be a path")
    chunk_rows: int = option(..., "Rows a chunk.")
    format: str | None = option(None, "The format.", choices=FORMATS, otherwise="that of the data")
    compression: str = option("zstd", "zstd, lz4, none, ...")


@dataclass(frozen=True, kw_only=True)
class PredictSettings:
    """What `predict` writes beside the predictions."""

    columns_out: Sequence[str] | None = option(
        None, "Columns of the data to copy: id,date. In data without columns of these names file,row say where a row is from.",
        metavar="COLS", read=split_names,
    )  # fmt: skip
