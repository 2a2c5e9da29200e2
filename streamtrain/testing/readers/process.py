"""Run a reader in a new process: to check that it can be sent there, and to measure the memory of its reads alone.

The process is ``python -c``. It takes a pickle on stdin, and prints JSON on the last line
of stdout. It imports modules from where the calling process has imported them.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from streamtrain.memory.process import peak_bytes, release_freed_memory, reset_peak, resident_bytes, steady_allocators
from streamtrain.storage.arrow import as_batches
from streamtrain.storage.reader import Chunk, Reader, Streams

__all__ = ["CallerModules", "Findings", "digest", "how_it_ended", "in_fresh_process"]

_TIMEOUT_SECONDS = 300.0
_SHOWN_ROWS = 500  # at each end of a chunk
_SLICE_ROWS = 1024
_SMALL_BYTES = 2_000_000


class Findings(NamedTuple):
    """The findings of a new process.

    problem: why it found nothing, or None. digests, expected: a hash of each chunk, from the new process and from this one.
    read, stream: the declared and the measured bytes; None if they cannot be measured.
    """

    problem: str | None
    fingerprint: str | None = None
    digests: list[str] | None = None
    expected: list[str] | None = None
    read: list[int] | None = None
    stream: list[int] | None = None


def digest(reader: Reader, chunk: Chunk) -> str:
    """A hash of the number of rows, and of the first and last 500 rows."""
    parts = [batch for batch in as_batches(reader.read(chunk, reader.schema.names)) if batch.num_rows]
    rows = sum(part.num_rows for part in parts)
    ends = [part.slice(0, _SHOWN_ROWS).to_pylist() for part in parts[:1]]
    ends += [part.slice(max(0, part.num_rows - _SHOWN_ROWS)).to_pylist() for part in parts[-1:]]
    return hashlib.sha256(repr((rows, ends)).encode()).hexdigest()


def in_fresh_process(reader: Reader, chunks: Sequence[Chunk], small: Reader | None) -> Findings:
    """Read chunks in a new process. small: a reader of the same kind with few data, which is read first as a warm-up."""
    try:
        work = pickle.dumps((reader, list(chunks), small))
    except Exception as error:
        return Findings(f"the reader cannot be pickled: {type(error).__name__}: {error}")
    files = {name: module.__file__ for name, module in list(sys.modules.items()) if getattr(module, "__file__", None)}
    task = pickle.dumps({"path": sys.path, "files": files, "work": work})
    command = [sys.executable, "-c", "from streamtrain.testing.readers.process import main; main()"]
    try:
        done = subprocess.run(command, input=task, capture_output=True, check=False, timeout=_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        return Findings(f"a new process did not read {len(chunks)} chunks within {_TIMEOUT_SECONDS:.0f} s")
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        return Findings(f"a new process {how_it_ended(done.returncode)}: {lines[-1]}")
    try:
        findings = json.loads(done.stdout.decode().strip().splitlines()[-1])
    except (ValueError, IndexError):
        return Findings(f"a new process {how_it_ended(0)}, before it was done")
    return Findings(None, expected=[digest(reader, chunk) for chunk in chunks], **findings)


def how_it_ended(code: int) -> str:
    """How a process ended, after a verb.

    >>> how_it_ended(-6), how_it_ended(3)
    ('was ended by SIGABRT', 'ended with exit code 3')
    """
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal
        return f"was ended by signal {-code}"


class CallerModules(importlib.abc.MetaPathFinder):
    """Finds modules whose files only the calling process knows. Their parent packages are empty."""

    def __init__(self, files: dict[str, str]) -> None:
        self._files = files

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name in self._files:
            return importlib.util.spec_from_file_location(name, self._files[name])
        if any(module.startswith(f"{name}.") for module in self._files):
            return importlib.machinery.ModuleSpec(name, None, is_package=True)
        return None


def _measured(declared: int, work: Callable[[], object]) -> list[int] | None:
    release_freed_memory()
    before = resident_bytes()
    reset_peak()
    work()
    peak = peak_bytes()
    return None if peak is None or before is None else [declared, peak - before]


def _stream(reader: Any, chunk: Chunk, columns: Sequence[str]) -> None:
    for part in reader.stream(chunk, columns, _SLICE_ROWS):
        last = part  # hold a slice while the next is read
    del last


def _warm_up(reader: Reader, chunk: Chunk, columns: Sequence[str]) -> None:
    reader.read(chunk, columns)
    if isinstance(reader, Streams):
        _stream(reader, chunk, columns)


def _find(reader: Reader, chunks: list[Chunk], small: Reader | None) -> dict[str, Any]:
    names = reader.schema.names
    largest, smallest = (f(chunks, key=lambda c: c.read_peak_bytes) for f in (max, min))
    findings: dict[str, Any] = {}
    with steady_allocators():
        if small is not None:
            _warm_up(small, small.chunks()[0], names)
        else:
            is_small = smallest.decoded_bytes <= max(_SMALL_BYTES, largest.decoded_bytes / 4)
            _warm_up(reader, smallest, names if is_small else names[:1])
        findings["read"] = _measured(largest.read_peak_bytes, lambda: reader.read(largest, names))
        if isinstance(reader, Streams):
            declared = reader.stream_peak_bytes(largest, _SLICE_ROWS)
            findings["stream"] = _measured(declared, lambda: _stream(reader, largest, names))
    return findings | {"fingerprint": reader.fingerprint(), "digests": [digest(reader, chunk) for chunk in chunks]}


def main() -> None:
    """Carry out the task on stdin."""
    task = pickle.load(sys.stdin.buffer)
    sys.path[:] = task["path"]
    sys.meta_path.append(CallerModules(task["files"]))
    print("\n" + json.dumps(_find(*pickle.loads(task["work"]))))
