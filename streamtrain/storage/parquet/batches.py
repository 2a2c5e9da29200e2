"""Record batches of Parquet files, as they are handed on."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from streamtrain.storage.parquet.footer import as_codes, is_text

__all__ = ["after", "coded", "empty"]


def after(rows: int, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches without their first ``rows`` rows."""
    for batch in batches:
        if batch.num_rows > rows:
            yield batch.slice(rows)
        rows = max(0, rows - batch.num_rows)


def empty(total: int, rows: int) -> Iterator[pa.RecordBatch]:
    """Batches without real columns, for a read of partition columns only."""
    for start in range(0, total, rows):
        yield pa.record_batch([pa.nulls(min(rows, total - start))], names=[""])


def coded(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with text as dictionaries."""
    if not any(map(is_text, batch.schema.types)):
        return batch
    return pa.RecordBatch.from_arrays([as_codes(values) for values in batch.columns], names=batch.schema.names)
