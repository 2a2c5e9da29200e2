"""Data with a known truth, written as a stream: as many rows as the disk holds, in about the memory of one chunk.

`make` writes a problem whose lowest possible loss is known, so that a learner can be compared with it:

==============  ======================================================================================================
``clicks``      two classes; the columns differ in scale (1e-6 to 1e6) and offset (up to 300 standard deviations)
``clusters``    ten classes; Gaussian clusters that overlap
``regression``  a linear function with noise
==============  ======================================================================================================

A row is a pure function of (name, seed, columns, position of the row). Chunks, files, format and compression only determine how
rows are stored, and ``sorted=True`` gives the same rows in another order.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from streamtrain.state import staging, write_beside
from streamtrain.tools.make.order import sorted_pieces
from streamtrain.tools.make.problems import PROBLEMS
from streamtrain.tools.make.settings import Settings, default_chunk_rows, default_files
from streamtrain.tools.make.write import Meter, write_parquet, write_zarr

__all__ = ["default_chunk_rows", "default_files", "make"]


def make(
    name: str,
    *,
    rows: int,
    out: str | os.PathLike[str],
    format: str = "parquet",
    columns: int | None = None,
    sorted: bool = False,
    files: int | None = None,
    chunk_rows: int | None = None,
    compression: str = "zstd",
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """Write ``rows`` rows of a problem into the new folder ``out``.

    Parquet: ``part-000.parquet``, ... with the float32 columns ``x0``, ``x1``, ... and the target ``y``, the rows split
    evenly over ``files``. Zarr: one group with ``X``, shape (rows, columns), float32, and ``y``, shape (rows,).
    ``_truth.json`` beside them (readers skip names with an underscore) holds the weights, bias, scales, offsets and loss of the
    true model.

    Everything is written to a hidden folder that gets the name ``out`` at the end: an error or Ctrl-C leaves nothing behind.

    Parameters
    ----------
    name
        ``"clicks"``, ``"clusters"`` or ``"regression"``.
    rows
        Rows to write.
    out
        The folder to write: new or empty.
    format
        ``"parquet"`` or ``"zarr"``.
    columns
        Features; 40 by default.
    sorted
        Whether to sort the rows by target, ascending; the sort is stable. It takes the decoded size once more on disk while it
        runs (see `streamtrain.tools.make.order`).
    files
        Parquet files (see `default_files`).
    chunk_rows
        Rows in a chunk (see `default_chunk_rows`).
    compression
        A compression of the format: ``"zstd"``, ``"none"``, ...
    seed
        Seed of the data, at least 0.
    progress
        Called with the number of rows done so far; in the last call this is ``rows``.

    Returns
    -------
    dict
        ``rows``, ``columns``, ``path``, ``target``, ``task`` and ``best_loss``: the mean loss of the true model over exactly
        these rows, log-loss (natural log) or squared error.

    Raises
    ------
    UsageError
        A setting is wrong, or ``out`` is in use. Nothing was written.

    Examples
    --------

    >>> import tempfile
    >>> made = make("clicks", rows=1000, columns=5, out=tempfile.mkdtemp())
    >>> made["rows"], made["columns"], made["target"], made["task"], round(made["best_loss"], 1)
    (1000, 5, 'y', 'classify', 0.5)
    """
    settings = Settings(
        name=name, rows=rows, out=os.fspath(out), format=format, columns=columns, sorted=sorted, files=files,
        chunk_rows=chunk_rows, compression=compression, seed=seed,
    )  # fmt: skip
    problem = PROBLEMS[name](settings.features, seed)
    meter = Meter(progress, passes=2 if sorted else 1)
    out_path = settings.path.absolute()
    out_path.parent.mkdir(parents=True, exist_ok=True)
    with write_beside(out_path) as folder, staging(folder.parent) as spill:
        pieces = problem.pieces(rows)
        if sorted:
            pieces = sorted_pieces(meter.count(pieces), problem, rows, spill)
        (write_zarr if format == "zarr" else write_parquet)(pieces, settings, problem, folder, meter)
        result = {"target": "y", "task": problem.task, "best_loss": problem.loss_sum / rows}
        truth = problem.truth() | {"rows": rows} | result
        (folder / "_truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    return {"rows": rows, "columns": settings.features, "path": str(out)} | result
