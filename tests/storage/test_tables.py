from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from streamtrain.errors import ColumnError, DataError, NotFoundError, SchemaError, UsageError
from streamtrain.storage.reader import Reader
from streamtrain.storage.tables import MemoryReader

ROWS = 70_000
X = np.arange(ROWS * 2, dtype=np.float32).reshape(ROWS, 2)
Y = np.arange(ROWS)


class Stream:
    """Speaks the stream interface and nothing else; counts how often it is asked."""

    def __init__(self, table: pa.Table) -> None:
        self.table, self.asked = table, 0

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        self.asked += 1
        return self.table.__arrow_c_stream__(requested_schema)


class Batch:
    """Speaks the array interface and nothing else."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = batch

    def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
        return self.batch.__arrow_c_array__(requested_schema)


def whole(reader: MemoryReader) -> pa.Table:
    return pa.Table.from_batches([reader.read(chunk, reader.schema.names) for chunk in reader.chunks()])


def address(column: Any) -> int:
    return column.storage.values.buffers()[1].address + column.offset * 8


@pytest.mark.parametrize("data", [{"X": X, "y": Y}, (X, Y)], ids=["dict", "pair"])
def test_arrays_are_sliced_without_a_copy(data: Any) -> None:
    reader = MemoryReader(data)
    assert isinstance(reader, Reader)
    assert reader.schema.field("X").type == pa.fixed_shape_tensor(pa.float32(), [2])
    chunks = reader.chunks()
    assert [c.rows for c in chunks] == [65_536, 4464] and [c.key for c in chunks] == ["rows[0:]", "rows[65536:]"]
    assert [c.decoded_bytes for c in chunks] == [65_536 * 16, 4464 * 16]
    assert max(c.read_peak_bytes for c in chunks) < 100_000
    batch = reader.read(chunks[1], ["y", "X"])
    assert batch.schema.names == ["y", "X"]
    assert address(batch.column(1)) == X.ctypes.data + 65_536 * 8
    np.testing.assert_array_equal(batch.column(1).to_numpy_ndarray(), X[65_536:])
    np.testing.assert_array_equal(batch.column(0).to_numpy(), Y[65_536:])


def test_tables_batches_and_the_c_interface_are_the_same_data() -> None:
    table = pa.table({"a": Y, "s": pa.array([str(i % 3) for i in range(ROWS)]).dictionary_encode()})
    batch = table.combine_chunks().to_batches()[0]
    stream = Stream(table)
    readers = [MemoryReader(data) for data in (table, batch, Batch(batch), stream)]
    assert stream.asked == 1
    for reader in readers:
        assert whole(reader).equals(table)
    assert stream.asked == 1
    assert len({reader.fingerprint() for reader in readers}) == 1


def test_tables_in_pieces_are_gathered_and_declared() -> None:
    table = pa.concat_tables([pa.table({"X": MemoryReader(X[a:b])._table["X"]}) for a, b in ((0, 10), (10, ROWS))])
    reader = MemoryReader(table)
    np.testing.assert_array_equal(reader.read(reader.chunks()[0], ["X"]).column(0).to_numpy_ndarray(), X[:65_536])
    assert reader.chunks()[0].read_peak_bytes > 65_536 * 8
    assert reader.chunks()[1].read_peak_bytes < 100_000


def test_numbers_strings_times_and_fields() -> None:
    records = np.array([(1, 2.5), (3, 4.5)], [("a", ">i4"), ("b", "f8")])
    assert whole(MemoryReader(records)).to_pydict() == {"a": [1, 3], "b": [2.5, 4.5]}
    data = {
        "o": np.array(["x", None], object),
        "u": np.array(["x", "y"]),
        "t": np.array(["x", "y"], np.dtypes.StringDType()),
        "b": np.array([True, False]),
        "m": np.array([[True], [False]]),
        "d": np.array(["2020-01-01", "NaT"], "M8[D]"),
        "list": [1, 2],
        "arrow": pa.array([1, None]),
        "strided": np.arange(4)[::2],
        "fortran": np.asfortranarray([[1, 2], [3, 4]]),
    }
    reader = MemoryReader(data)
    got = whole(reader)
    assert reader.schema == got.schema and got["m"].type.value_type == pa.uint8()
    assert got["o"].to_pylist() == ["x", None] and got["t"].to_pylist() == ["x", "y"]
    assert got["d"].null_count == 1 and got["strided"].to_pylist() == [0, 2]
    assert got["fortran"].combine_chunks().to_numpy_ndarray().tolist() == [[1, 2], [3, 4]]
    assert whole(MemoryReader(X)).column_names == ["X"]


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        ({"a": np.zeros(3), "b": np.zeros(4)}, SchemaError, "'a' and 'b' have 3 and 4 rows"),
        ({"a": np.array(5)}, ColumnError, "'a' has no dimension"),
        (np.array(5), ColumnError, "'X' has no dimension"),
        ({"a": np.array([1, "x"], object)}, ColumnError, "'a' is an object array with a int"),
        ({"a": np.array([["x"]], object)}, ColumnError, "2 dimensions"),
        ({"a": np.zeros(2, complex)}, ColumnError, "'a' has type complex128"),
        ({"a": np.array([b"\xff"])}, ColumnError, "not UTF-8"),
        ({"a": np.ma.masked_array([1, 2], [True, False])}, ColumnError, "masked"),
        ({"a": np.zeros(0)}, NotFoundError, "0 rows"),
        ({}, NotFoundError, "0 columns"),
        (pa.table({"a": pa.array([], pa.int64())}), NotFoundError, "0 rows"),
        (pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), SchemaError, "2 columns are named 'a'"),
        (pa.array([1, 2]), DataError, "cannot be read as an Arrow table"),
        ([1, 2], UsageError, "data of type list cannot be read"),
        ((X, Y, Y), UsageError, "data of type tuple cannot be read"),
    ],
)
def test_refusals(data: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        MemoryReader(data)
    assert "\n" not in str(caught.value)


def test_reads_of_the_wrong_thing() -> None:
    reader, other = MemoryReader((X, Y)), MemoryReader(X[:10])
    with pytest.raises(ColumnError, match="no column 'z'"):
        reader.read(reader.chunks()[0], ["z"])
    with pytest.raises(UsageError, match="does not belong to this reader"):
        reader.read(other.chunks()[0], ["X"])


def test_fingerprint_is_of_content() -> None:
    first = MemoryReader((X, Y)).fingerprint()
    assert MemoryReader((X.copy(), Y.copy())).fingerprint() == first
    assert pickle.loads(pickle.dumps(MemoryReader((X, Y)))).fingerprint() == first
    changed = X.copy()
    changed[-1, -1] += 1
    assert MemoryReader((changed, Y)).fingerprint() != first
    assert MemoryReader({"X": X, "z": Y}).fingerprint() != first
    # how a table is cut into pieces is no part of its content
    table = pa.table({"y": Y})
    pieces = pa.concat_tables([table.slice(0, 5), table.slice(5)])
    assert MemoryReader(pieces).fingerprint() == MemoryReader(table).fingerprint()
