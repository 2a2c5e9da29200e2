"""From a folder or metadata file to the reader of the table."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from streamtrain.errors import DataError
from streamtrain.memory.monitor import unlimited
from streamtrain.storage.files.table_roots import DELTA, HUDI, ICEBERG
from streamtrain.storage.lake.moments import Moment
from streamtrain.storage.lake.reader import LakeReader
from streamtrain.storage.lake.snapshot import Snapshot

__all__ = ["open_table"]

_PACKAGES = {DELTA: "deltalake", ICEBERG: "pyiceberg"}
#: nominal: what they take, loaded and with a log read
_PACKAGE_BYTES = {DELTA: 80 * 10**6, ICEBERG: 30 * 10**6}


def open_table(kind: str, target: str, moment: Moment) -> LakeReader:
    """The reader of the table in a folder. kind: its format. Raises DataError for a table that cannot be read, and where the
    package is missing that reads its log."""
    with unlimited():  # a package waits forever for a thread that the limit of the system does not let start
        snapshot = _snapshot(kind, Path(target), moment)
    return LakeReader(snapshot, _PACKAGE_BYTES[kind])


def _snapshot(kind: str, target: Path, moment: Moment) -> Snapshot:
    if kind == HUDI:
        raise DataError(
            f"{target}: is a Hudi table, which streamtrain does not read; its files alone may hold rows that are deleted: "
            "write a copy as Parquet files, or as a Delta or Iceberg table"
        )
    package = _PACKAGES[kind]
    try:
        import_module(package)
    except ImportError as error:
        raise DataError(
            f"{target}: is {'an' if kind == 'Iceberg' else 'a'} {kind} table, and the package that reads its log cannot be "
            f"imported ({error}): pip install 'streamtrain[{kind.lower()}]'"
        ) from error
    if kind == DELTA:
        from streamtrain.storage.lake.delta import delta_snapshot

        return delta_snapshot(target, moment)
    from streamtrain.storage.lake.iceberg import iceberg_snapshot

    return iceberg_snapshot(target, moment)
