"""What can be asked of the writers. Here, because importing a writer imports its format's library."""

from __future__ import annotations

__all__ = ["COMPRESSIONS", "MAX_CHUNK_ROWS"]

COMPRESSIONS = {
    "parquet": ("zstd", "snappy", "lz4", "gzip", "brotli", "none"),
    "zarr": ("zstd", "gzip", "lz4", "none"),
}
MAX_CHUNK_ROWS = 1 << 26  # pyarrow silently cuts row groups that are larger
