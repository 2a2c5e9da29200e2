"""Data with a known truth, streamed to disk: as many rows as the disk holds, in the memory of about one chunk.

`make` writes a problem whose best possible loss is known, so that a learner can be measured against it:

==============  ======================================================================================================
``clicks``      two classes; columns of wildly different scale (1e-6 to 1e6) and offset (to 300 standard deviations)
``clusters``    ten classes; Gaussian clusters that overlap
``regression``  a linear function with noise
==============  ======================================================================================================

A row is a pure function of (name, seed, columns, position of the row). Chunks, files, format and compression only say
how rows are stored, and ``sorted=True`` gives the same rows in another order.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
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
    Beside them ``_truth.json`` (an underscore: not data): weights, bias, scales, offsets and loss of the true model.

    columns: features, 40 unless said. chunk_rows: see `default_chunk_rows`. files: see `default_files`.
    sorted: rows grouped by target, ascending: the stable sort of the same rows. While it runs it takes the decoded size
    once more on disk (`streamtrain.tools.make.order` says why).
    progress: called with the number of rows done so far; the last call says ``rows``.

    Returns ``{"rows", "columns", "path", "target", "task", "best_loss"}``; best_loss is the mean loss of the true model
    over exactly these rows: log-loss (natural log) or squared error.

    Everything is written to a hidden folder beside ``out``, which gets its name at the end: after an error or Ctrl-C
    there is nothing. Raises `UsageError`, before any I/O, for a setting that cannot be or an ``out`` in use.

    >>> import tempfile
    >>> made = make("clicks", rows=1000, columns=5, out=tempfile.mkdtemp())
    >>> made["rows"], made["columns"], made["target"], made["task"], round(made["best_loss"], 1)
    (1000, 5, 'y', 'classify', 0.5)
    """
    settings = Settings(name, rows, Path(out), format, columns, files, chunk_rows, compression, seed)
    problem = PROBLEMS[name](settings.features, seed)
    meter = Meter(progress, passes=2 if sorted else 1)
    out_path = settings.out.absolute()
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
