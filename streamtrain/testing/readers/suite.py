"""The checks as a test class for pytest. It works without importing pytest: tests are methods, and skips are from unittest."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from streamtrain.storage import open_reader
from streamtrain.storage.reader import Reader
from streamtrain.testing.readers import checks, sizes, written
from streamtrain.testing.readers.subject import ReaderWarning, Subject, Writer

__all__ = ["ReaderTests"]


class ReaderTests:
    """The test suite for a reader. Subclass it in a test module, define how data are written, and inherit the tests::

        class TestBoxes(ReaderTests):
            def make(self, folder, table):
                write_boxes(folder / "data.boxes", table.to_pydict())  # not with the reader under test
                return f"boxes://{folder}/data.boxes"

    Only ``make`` is required. You can also override

    - ``open(target)``, if `streamtrain.open_reader` does not open the target;
    - ``table(rows)``, if the format cannot store integers, floats and text. All rows should differ, and a longer table should
      begin with the rows of a shorter one;
    - ``damage(folder)``, to check damaged data: change the files that ``make`` wrote so that they cannot be read;
    - ``nulls = False``, if the format has no nulls;
    - ``large_rows``, the number of rows for measuring memory: a chunk should take 10 MB or more.

    Remove a test that does not apply with ``test_nulls = None``, and say why in a comment.
    """

    nulls: ClassVar[bool] = True
    large_rows: ClassVar[int] = 500_000

    def make(self, folder: Path, table: pa.Table) -> Any:
        """Write a table into an empty folder, and return the target for ``open``: a path, a URL, or a reader. If a path or
        URL contains the folder, a copy of the folder is checked as well."""
        raise NotImplementedError(
            f"{type(self).__name__} must define how data are written: def make(self, folder, table)"
        )

    def open(self, target: Any) -> Reader:
        """A new reader for the target that ``make`` returned."""
        return open_reader(target)

    def table(self, rows: int) -> pa.Table:
        """A table of so many rows that the format can store."""
        number = np.arange(rows)
        label = pa.array([f"row {i % 7}" for i in range(rows)], pa.string())
        return pa.table({"number": number, "size": number % 1000 / 8 - 50.5, "label": label})

    damage: Callable[[Path], None] | None = None

    @classmethod
    def setup_class(cls) -> None:
        self = cls()
        cls._folder = tempfile.TemporaryDirectory(prefix="streamtrain-")
        cls._writer = Writer(
            Path(cls._folder.name), self.make, self.open, self.table, cls.large_rows, self.damage, cls.nulls
        )
        cls._made = None

    @classmethod
    def teardown_class(cls) -> None:
        cls._made = None
        cls._folder.cleanup()

    _folder: ClassVar[tempfile.TemporaryDirectory[str]]
    _writer: ClassVar[Writer]
    _made: ClassVar[Subject | None]

    def _run(self, check: Callable[[Subject], str | None]) -> None:
        cls = type(self)
        if cls._made is None:
            cls._made = Subject.of(cls._writer)
        if warning := check(cls._made):
            warnings.warn(warning, ReaderWarning, stacklevel=2)

    def test_members(self) -> None:
        self._run(checks.members)

    def test_chunks(self) -> None:
        self._run(checks.chunks)

    def test_rows(self) -> None:
        self._run(checks.rows)

    def test_types(self) -> None:
        self._run(checks.types)

    def test_all_rows(self) -> None:
        self._run(written.all_rows)

    def test_one_row(self) -> None:
        self._run(written.one_row)

    def test_empty(self) -> None:
        self._run(written.empty)

    def test_nulls(self) -> None:
        self._run(written.nulls)

    def test_projection(self) -> None:
        self._run(checks.projection)

    def test_repeated(self) -> None:
        self._run(checks.repeated)

    def test_concurrent(self) -> None:
        self._run(checks.concurrent)

    def test_slices(self) -> None:
        self._run(checks.slices)

    def test_read_together(self) -> None:
        self._run(checks.read_together)

    def test_pickling(self) -> None:
        self._run(checks.pickling)

    def test_other_process(self) -> None:
        self._run(checks.other_process)

    def test_decoded_bytes(self) -> None:
        self._run(sizes.decoded_bytes)

    def test_read_peak(self) -> None:
        self._run(sizes.read_peak)

    def test_stream_peak(self) -> None:
        self._run(sizes.stream_peak)

    def test_fingerprint(self) -> None:
        self._run(checks.fingerprint)

    def test_fingerprint_of_copy(self) -> None:
        self._run(written.fingerprint_of_copy)

    def test_fingerprint_of_other(self) -> None:
        self._run(written.fingerprint_of_other)

    def test_unknown_column(self) -> None:
        self._run(checks.unknown_column)

    def test_after_failure(self) -> None:
        self._run(checks.after_failure)

    def test_damaged(self) -> None:
        self._run(written.damaged)
