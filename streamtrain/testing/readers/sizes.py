"""The checks of declared bytes; as in `checks`."""

from __future__ import annotations

import pyarrow as pa

from streamtrain.memory.sizes import format_bytes
from streamtrain.testing.readers.checks import require, streaming
from streamtrain.testing.readers.compare import read_raw
from streamtrain.testing.readers.subject import Skipped, Subject

__all__ = ["FLOOR_BYTES", "decoded_bytes", "read_peak", "stream_peak"]

FLOOR_BYTES = 4_000_000  # below it what is measured is the process itself
_GENEROUS = 4  # times what is measured
_SLACK = 1.25  # padding, and the bits that tell which values are null


def decoded_bytes(subject: Subject) -> str | None:
    """``decoded_bytes`` is what all columns take as Arrow; where there is text, an estimate."""
    reader = subject.open()
    text = [f.name for f in reader.schema if not _has_fixed_width(f.type)]
    for chunk in subject.sample(reader):
        found = read_raw(reader, chunk).nbytes
        message = f"{chunk.key}: takes {format_bytes(found)} decoded, but declares {format_bytes(chunk.decoded_bytes)}"
        if found > _SLACK * chunk.decoded_bytes + 1024 * len(reader.schema):
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
    """``read_peak_bytes`` against what a read takes in a fresh process."""
    return _peak(subject, "read", "a read of the largest chunk", "read_peak_bytes")


def stream_peak(subject: Subject) -> str | None:
    """``stream_peak_bytes`` against what an open stream takes in a fresh process."""
    streaming(subject.open())
    return _peak(subject, "stream", "a stream of the largest chunk", "stream_peak_bytes")


def _peak(subject: Subject, which: str, what: str, member: str) -> str | None:
    if subject.findings.problem is not None:
        raise Skipped(subject.findings.problem)
    sizes: list[int] | None = getattr(subject.findings, which)
    if sizes is None:
        raise Skipped("memory can be measured on Linux only")
    declared, measured = sizes
    took = f"{what} took {format_bytes(max(0, measured))}, {member} declares {format_bytes(declared)}"
    require(measured <= declared + FLOOR_BYTES, took)
    if max(declared, measured) < FLOOR_BYTES:
        raise Skipped(f"{took}: below {format_bytes(FLOOR_BYTES)} it cannot be told from the process itself")
    generous = declared > _GENEROUS * max(measured, FLOOR_BYTES)
    return f"{took}: fewer reads than could run side by side" if generous else None
