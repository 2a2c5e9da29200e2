"""Parquet: the reader and the writer, and what a file says of itself before it is read."""
