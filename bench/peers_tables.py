"""Wide tables with a known truth, like the logs of advertisers: block by block, to Parquet.

`Clicks` has the shape of Criteo's: a label that is 1 in a quarter of the rows, 13 whole numbers of skewed scale with values
missing, 26 categories of 10 to 1,000,000 values as strings of 8 hexadecimal digits. The truth is logistic, with a weight
for each value of each category, for each number's logarithm, and for a number that is missing.

A block is a pure function of (seed, block number): the first rows of a longer table are those of a shorter one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

BLOCK_ROWS = 50_000  # rows of a row group too
FILE_ROWS = 1_000_000
ROLL_CALL = 4  # in one row of so many a category takes its next value that was not called yet: all are reached
CRITEO: tuple[int, ...] = (
    1460,
    583,
    1_000_000,
    1_000_000,
    305,
    24,
    12_517,
    633,
    10,
    93_145,
    5683,
    1_000_000,
    3194,
    27,
    14_992,
)
CRITEO += (1_000_000, 11, 5652, 2173, 12, 1_000_000, 18, 15, 286_181, 105, 142_572)
HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), "S2")


class Clicks:
    """The table: ``numbers`` n1, n2, ... and one category c1, c2, ... for each entry of ``values``.

    ``skew`` is the exponent of the Zipf law of the categories; 0 draws all values alike.
    """

    def __init__(
        self, numbers: int = 13, values: Sequence[int] = CRITEO, skew: float = 1.1, rate: float = 0.25, seed: int = 0
    ) -> None:
        rng = np.random.default_rng([seed, 0])
        self.seed, self.values = seed, tuple(values)
        self.location, self.spread = rng.uniform(0, 8, numbers), rng.uniform(0.3, 2.0, numbers)
        self.absent = rng.uniform(-0.2, 0.5, numbers).clip(0)  # the share of missing values
        self.slopes, self.absent_weight = rng.normal(0, 0.25, (2, numbers))
        scales = rng.lognormal(-1.7, 0.5, len(values))
        self.weights = [
            rng.normal(0, scale, count).astype(np.float32) for scale, count in zip(scales, values, strict=True)
        ]
        self.salts = rng.integers(0, 2**32, len(values), dtype=np.uint32)
        self.shares = [np.cumsum(np.arange(1, count + 1) ** -skew) for count in values]
        self.bias = _bias(self._draw(0)[1], rate)
        self.loss_sum = 0.0  # of the true model on the rows of the blocks so far

    def block(self, number: int) -> pa.Table:
        """``BLOCK_ROWS`` rows from row ``number * BLOCK_ROWS`` on."""
        columns, score, luck = self._draw(number)
        score += self.bias
        labels = luck < 1 / (1 + np.exp(-score))
        self.loss_sum += float(np.logaddexp(0, np.where(labels, -score, score)).sum())
        return pa.table({"label": labels.astype(np.int8)} | columns)

    def _draw(self, number: int) -> tuple[dict[str, Any], NDArray[np.float64], NDArray[np.float64]]:
        """The columns, the score without the bias, and a uniform number a row that decides its label."""
        rng = np.random.default_rng([self.seed, 1, number])
        columns: dict[str, Any] = {}
        score = np.zeros(BLOCK_ROWS)
        for index, place in enumerate(self.location):
            normal, absent = rng.normal(size=BLOCK_ROWS), rng.random(BLOCK_ROWS) < self.absent[index]
            score += np.where(absent, self.absent_weight[index], self.slopes[index] * normal)
            counts = np.expm1(place + self.spread[index] * normal).astype(np.int64)
            columns[f"n{index + 1}"] = pa.array(counts, mask=absent)
        rows = np.arange(number * BLOCK_ROWS, (number + 1) * BLOCK_ROWS)
        for index, (count, shares) in enumerate(zip(self.values, self.shares, strict=True)):
            drawn = np.searchsorted(shares, rng.random(BLOCK_ROWS) * shares[-1]).clip(max=count - 1)
            called = (rows % ROLL_CALL == index % ROLL_CALL) & (rows // ROLL_CALL < count)
            drawn[called] = rows[called] // ROLL_CALL
            score += self.weights[index][drawn]
            columns[f"c{index + 1}"] = _names(drawn, self.salts[index])
        return columns, score, rng.random(BLOCK_ROWS)


def write(table: Clicks, folder: Path, rows: int, compression: str) -> float:
    """Files of a million rows, of at least ``rows`` rows together; returns the mean log-loss of the true model."""
    folder.mkdir(parents=True)
    table.loss_sum = 0.0
    blocks = -(-rows // BLOCK_ROWS)
    a_file = FILE_ROWS // BLOCK_ROWS
    for first in range(0, blocks, a_file):
        path = folder / f"part-{first // a_file:03d}.parquet"
        for number in range(first, min(first + a_file, blocks)):
            block = table.block(number)
            if number == first:
                writer = pq.ParquetWriter(path, block.schema, compression=compression)
            writer.write_table(block)
        writer.close()
    return table.loss_sum / (blocks * BLOCK_ROWS)


def _bias(scores: NDArray[np.float64], rate: float) -> float:
    """What must be added to the scores so that the mean probability is ``rate``."""
    low, high = -20.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 / (1 + np.exp(-scores - middle))).mean() < rate else (low, middle)
    return low


def _names(values: NDArray[Any], salt: np.uint32) -> pa.Array:
    """The name of each value: 8 hexadecimal digits, no two values of a column alike (each step can be undone)."""
    mixed = values.astype(np.uint32) ^ salt
    for factor in (0x7FEB352D, 0x846CA68B):
        mixed = (mixed ^ (mixed >> np.uint32(16))) * np.uint32(factor)
    digits = HEX[mixed.view(np.uint8)]
    offsets = np.arange(0, 8 * len(values) + 1, 8, dtype=np.int32)
    return pa.StringArray.from_buffers(len(values), pa.py_buffer(offsets), pa.py_buffer(digits))
