"""Checks of the declared bytes. See `checks`."""

from __future__ import annotations

import pyarrow as pa

from streamtrain.memory.sizes import format_bytes
from streamtrain.testing.readers.checks import streaming
from streamtrain.testing.readers.compare import read_raw
from streamtrain.testing.readers.subject import Skipped, Subject, require

__all__ = ["FLOOR_BYTES", "decoded_bytes", "read_peak", "stream_peak"]

FLOOR_BYTES = 4_000_000  # smaller amounts cannot be told from noise of the process
_GENEROUS = 4  # a declaration above this multiple of the measured bytes is a warning
_SLACK = 1.25  # for padding, and the bits that mark nulls


def decoded_bytes(subject: Subject) -> str | None:
    """``decoded_bytes`` are the bytes of all columns in Arrow; an estimate if there is text."""
    reader = subject.open()
    text = [f.name for f in reader.schema if not _has_fixed_width(f.type)]
    for chunk in subject.sample(reader):
        size = read_raw(reader, chunk).nbytes
        message = f"{chunk.key}: has {format_bytes(size)} decoded, but declares {format_bytes(chunk.decoded_bytes)}"
        if size > _SLACK * chunk.decoded_bytes + 1024 * len(reader.schema):
            require(bool(text), message)
            return f"{message} (text in {text[0]!r}: an estimate)"
    return None


def _has_fixed_width(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.FixedShapeTensorType):
        return True
    if isinstance(kind, pa.DictionaryType):
        return False
    try:
        return bool(kind.bit_width)
    except ValueError:
        return False


def read_peak(subject: Subject) -> str | None:
    """``read_peak_bytes``, compared with the memory of a read in a new process."""
    return _peak(subject, "read", "a read of the largest chunk", "read_peak_bytes")


def stream_peak(subject: Subject) -> str | None:
    """``stream_peak_bytes``, compared with the memory of an open stream in a new process."""
    streaming(subject.open())
    return _peak(subject, "stream", "a stream of the largest chunk", "stream_peak_bytes")


def _peak(subject: Subject, which: str, what: str, member: str) -> str | None:
    if subject.findings.problem is not None:
        raise Skipped(subject.findings.problem)
    sizes: list[int] | None = getattr(subject.findings, which)
    if sizes is None:
        raise Skipped("memory can only be measured on Linux")
    declared, measured = sizes
    took = f"{what} took {format_bytes(max(0, measured))}, and {member} declares {format_bytes(declared)}"
    require(measured <= declared + FLOOR_BYTES, took)
    if max(declared, measured) < FLOOR_BYTES:
        raise Skipped(f"{took}: less than {format_bytes(FLOOR_BYTES)} cannot be measured reliably")
    generous = declared > _GENEROUS * max(measured, FLOOR_BYTES)
    return f"{took}: because of that, fewer reads run at once than could" if generous else None
