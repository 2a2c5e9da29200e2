"""Write the samples beside this file: scikit-learn's bundled digits as Parquet and as Zarr.

Needs scikit-learn; run it as ``python data/make_digits.py``. The rows, their order and the values are those of
``sklearn.datasets.load_digits``.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
from sklearn.datasets import load_digits

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # works from a checkout, installed or not

from streamtrain.storage.parquet.writer import ParquetTableWriter  # noqa: E402
from streamtrain.storage.zarr import ZarrWriter  # noqa: E402

CHUNK_ROWS = 300  # small, so that a few thousand rows have chunks to shuffle


def main() -> None:
    """Write ``digits.parquet`` and ``digits.zarr``."""
    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.int8)
    rows = len(labels)

    pixels = [pa.field(f"p{i}_{j}", pa.uint8(), nullable=False) for i in range(8) for j in range(8)]
    schema = pa.schema([*pixels, pa.field("digit", pa.int8(), nullable=False)])
    with ParquetTableWriter(HERE / "digits.parquet", schema, chunk_rows=CHUNK_ROWS) as parquet:
        parquet.write(dict(zip(schema.names, [*np.ascontiguousarray(images.reshape(rows, 64).T), labels], strict=True)))

    shutil.rmtree(HERE / "digits.zarr", ignore_errors=True)
    columns = {"X": ((8, 8), "uint8"), "digit": ((), "int8")}
    with ZarrWriter(HERE / "digits.zarr", columns, rows=rows, chunk_rows=CHUNK_ROWS) as zarr:
        zarr.write({"X": images, "digit": labels})


if __name__ == "__main__":
    main()
