"""Tables that are folders of Parquet files with a log, Delta and Iceberg. The log says what of them is alive."""
