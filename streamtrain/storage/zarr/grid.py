"""Which rows are read at once, and how much memory that takes. Pure arithmetic with the metadata of the arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from streamtrain.storage.zarr.columns import Column

__all__ = ["RUN_BYTES", "RUN_ROWS", "Grid", "make_grid"]

RUN_ROWS = 65_536
RUN_BYTES = 8_000_000
#: event loop, threads, state of decoders and Python objects of one read; measured: 3 to 5 MB
_FLOOR_BYTES = 4_500_000


@dataclass(frozen=True, slots=True)
class Grid:
    """How the rows are cut into chunks.

    rows: of the data. run_rows: of a chunk, except the last. unit_rows: rows that a stream decodes at least.
    """

    columns: tuple[Column, ...]
    rows: int
    run_rows: int
    unit_rows: int
    readable: tuple[Column, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "readable", tuple(c for c in self.columns if not c.problem))

    def __len__(self) -> int:
        return -(-self.rows // self.run_rows)

    @property
    def is_even(self) -> bool:
        """Whether chunks of equally many rows take equally much memory."""
        return all(c.csr is None for c in self.readable)

    def rows_of(self, i: int) -> int:
        """The rows of chunk ``i``."""
        return min(self.run_rows, self.rows - i * self.run_rows)

    def decoded_bytes(self, start: int, stop: int) -> int:
        """The bytes of rows ``start`` to ``stop`` of all columns in Arrow."""
        return sum(c.decoded_bytes(start, stop) for c in self.readable)

    def read_peak_bytes(self, start: int, stop: int) -> int:
        """The most memory of a read: all results, the kept blocks, and the scratch memory of the largest column, because
        columns are read one after the other."""
        kept = sum(c.kept_bytes(self.run_rows) for c in self.readable)
        scratch = max(c.scratch_bytes(start, stop, self.run_rows) for c in self.readable)
        return self.decoded_bytes(start, stop) + kept + scratch + _FLOOR_BYTES

    def block_rows(self, rows: int) -> int:
        """The rows that a stream with slices of ``rows`` rows decodes at once."""
        return min(self.run_rows, self.unit_rows * max(1, rows // self.unit_rows))

    def stream_peak_bytes(self, start: int, stop: int, rows: int) -> int:
        """The most memory of a stream: one block, and the previous one if there are several, because its last slice may still
        be in use."""
        block = min(stop - start, self.block_rows(rows))
        firsts = [start] if self.is_even else range(start, stop, block)
        ends = [min(stop, first + block) for first in firsts]
        most = max(self.read_peak_bytes(first, end) for first, end in zip(firsts, ends, strict=True))
        if block >= stop - start:
            return most
        return most + max(self.decoded_bytes(a, b) for a, b in zip(firsts, ends, strict=True)) + 2 * _FLOOR_BYTES


def make_grid(columns: Sequence[Column], cut_by: Sequence[Column] | None = None) -> Grid:
    """Cut the rows into runs of whole Zarr chunks of the widest readable column (most bytes a row). A run has 65,536 rows, or
    8 MB of all columns decoded, whichever is less, but at least one Zarr chunk.

    columns: whose memory counts. cut_by: the columns that decide where rows are cut; by default the same.
    """
    deciding = [c for c in cut_by or columns if not c.problem]
    widest = max(deciding, key=lambda c: c.row_bits)  # of several, the first by name
    rows, unit = widest.rows, min(widest.unit_rows, widest.rows)
    unit_bytes = max(1, int(sum(c.row_bits for c in deciding) * unit // 8))
    units = max(1, min(RUN_ROWS // unit, RUN_BYTES // unit_bytes))
    return Grid(tuple(columns), rows, min(rows, units * unit), unit)
