"""Memory in numbers: sizes as people write them, what the process takes, and the gate that admits reads.

The model of the peak is a pure sum of named terms (`predicted_peak`); the plan makes the terms, the report shows each
beside what was measured. Measured means ``VmHWM`` of ``/proc/self/status``, reset when a run starts:
``getrusage`` would report the peak of whoever started the process. Elsewhere than on Linux nothing can be measured
this way, and the functions return None.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa

from streamtrain.errors import BudgetExceeded, SizeError

__all__ = [
    "ByteGate",
    "available_bytes",
    "format_bytes",
    "mapped_data_bytes",
    "never",
    "parse_bytes",
    "peak_bytes",
    "predicted_peak",
    "release_freed_memory",
    "reset_peak",
    "resident_bytes",
    "resident_now",
    "sorted_terms",
    "steady_allocators",
]

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of mallopt, <malloc.h>
_NEAR_SECONDS = 0.05  # how often a read that waits looks whether the process is near its budget still
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_UNITS |= {f"{unit}i": 1024**power for power, unit in enumerate("kmgtp", start=1)}
_PAGE_BYTES = mmap.PAGESIZE
_SIZE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmgtp]?i?)b?\s*", re.IGNORECASE)


def parse_bytes(size: int | str) -> int:
    """A size in bytes: ``512MB`` is 512 * 10^6, ``2GiB`` is 2 * 2^30, a bare number is bytes.

    Raises SizeError for anything else, and for less than one byte.

    >>> parse_bytes("512MB"), parse_bytes("2GiB"), parse_bytes("1.5 kB"), parse_bytes(1000)
    (512000000, 2147483648, 1500, 1000)
    >>> parse_bytes("lots")
    Traceback (most recent call last):
    streamtrain.errors.SizeError: 'lots' is not a size: write a number with a unit, as in 512MB (10^6) or 2GiB (2^30)
    """
    match = None if isinstance(size, bool) else _SIZE.fullmatch(str(size))
    unit = match[2].lower() if match else "?"
    if match is None or unit not in _UNITS:
        raise SizeError(f"{size!r} is not a size: write a number with a unit, as in 512MB (10^6) or 2GiB (2^30)")
    number = int(Fraction(match[1]) * _UNITS[unit])  # exact: a float holds 53 bits
    if number < 1:
        raise SizeError(f"{size!r} is less than one byte: write a positive size, as in 512MB")
    return number


def format_bytes(size: int) -> str:
    """A size for people, in powers of ten.

    >>> format_bytes(512_000_000), format_bytes(999), format_bytes(1_500), format_bytes(3_284_000_000)
    ('512 MB', '999 B', '1.5 kB', '3.28 GB')
    """
    number, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if abs(number) < 999.5:
            break
        number, unit = number / 1000, larger
    return f"{number:.3g} {unit}"


def predicted_peak(terms: Mapping[str, int]) -> int:
    """The peak of the process: one process holds all stages at once, so terms are summed, not maximised.

    >>> predicted_peak({"baseline": 80, "windows": 20})
    100
    """
    return sum(terms.values())


def sorted_terms(terms: Mapping[str, int]) -> list[tuple[str, int]]:
    """Terms with their bytes, largest first."""
    return sorted(terms.items(), key=lambda item: -item[1])


def _status(field: str) -> int | None:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def resident_bytes() -> int | None:
    """Resident memory of this process now."""
    return _status("VmRSS")


def resident_now() -> tuple[int, int] | None:
    """Resident memory of this process, and how much of it belongs to no file: `resident_bytes` at a third of its cost."""
    try:
        with open("/proc/self/statm", "rb") as file:
            _, resident, shared = file.read().split()[:3]
    except (OSError, ValueError):
        return None
    return int(resident) * _PAGE_BYTES, (int(resident) - int(shared)) * _PAGE_BYTES


def mapped_data_bytes() -> int | None:
    """Private writable memory that is mapped, resident or not: what ``RLIMIT_DATA`` limits."""
    return _status("VmData")


def peak_bytes() -> int | None:
    """The most resident memory of this process since `reset_peak`, or since it started."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Let `peak_bytes` start again from what is resident now (Linux; elsewhere it does nothing). Garbage is collected first:
    what an earlier run left in cycles, an error with its frames, is not this one's."""
    gc.collect()
    release_freed_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def available_bytes(root: str | Path = "/") -> int | None:
    """Memory that this process could still take: the machine's, or less where a cgroup (v1 or v2) allows less.

    root: where ``proc`` and ``sys`` are.
    """
    proc, groups_at = Path(root) / "proc", Path(root) / "sys/fs/cgroup"
    try:
        fields = dict(line.split(":") for line in (proc / "meminfo").read_text().splitlines())
        free = [int(fields["MemAvailable"].split()[0]) * 1024]
        groups = (proc / "self/cgroup").read_text().splitlines()
    except (OSError, KeyError, ValueError):
        return None
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if controllers == "":
            free += _cgroup_room(groups_at, path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
            free += _cgroup_room(groups_at / "memory", path, *names)
    return max(0, min(free))


def _cgroup_room(root: Path, path: str, limit: str, usage: str, cache: str) -> list[int]:
    """What is left under the limit of a cgroup and of each group above it. Cached pages of files that nobody reads now
    count as used there, but are given up on demand: after one pass over large data they would be all that is left."""
    group, room = root / path.lstrip("/"), []
    while group.is_relative_to(root):
        try:
            most, used = (group / limit).read_text().strip(), (group / usage).read_text()
            if most != "max":
                room.append(int(most) - int(used) + _cached_bytes(group / "memory.stat", cache))
        except (OSError, ValueError):
            pass  # the root group has no limit, and inside a container the path may not be visible
        group = group.parent
    return room


def _cached_bytes(stat: Path, name: str) -> int:
    try:
        return int(dict(line.split() for line in stat.read_text().splitlines())[name])
    except (OSError, KeyError, ValueError):
        return 0


@contextmanager
def steady_allocators() -> Iterator[None]:
    """Allocators whose memory follows what is in use, for the block.

    Arrow allocates through malloc: its own pools keep twice a row group. (What Arrow allocates for itself, page buffers
    among it, goes the same way: ``streamtrain`` sets ARROW_DEFAULT_MEMORY_POOL before Arrow is imported.) All threads share
    one malloc arena: each of several would retain what was freed in it while others take their turn. What was freed is kept
    for the next read, because fresh pages from the system cost as much as decoding into them, and given back at the end.
    """
    with _steady_lock:
        _steady.append(pa.default_memory_pool())
        _malloc_options({_ARENA_MAX: 1, _MMAP_THRESHOLD: 1 << 20, _TRIM_THRESHOLD: 128 << 20})
        pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        with _steady_lock:
            before = _steady.pop()
            if not _steady:  # the last of several at the same time
                pa.set_memory_pool(before)
                _malloc_options({_MMAP_THRESHOLD: 128 << 10, _TRIM_THRESHOLD: 128 << 10})
        release_freed_memory()


_steady: list[Any] = []  # Arrow's pool before each of the blocks that are open
_steady_lock = threading.Lock()


def release_freed_memory() -> None:
    """Give freed memory back to the system, as after a phase that is over."""
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)


def _malloc_options(options: Mapping[int, int]) -> None:
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            for option, value in options.items():
                mallopt(option, value)


def never() -> bool:
    return False


class ByteGate:
    """Admits work while the bytes that it declares fit under a limit together; one at a time while ``near()`` is true.

    >>> gate = ByteGate(100)
    >>> with gate.hold(60):
    ...     gate.held_bytes
    60
    >>> gate.held_bytes, gate.peak_bytes
    (0, 60)
    """

    def __init__(self, limit_bytes: int, near: Callable[[], bool] = never) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self.peak_bytes = 0
        self._near = near
        self._changed = threading.Condition()
        self._closed = False

    @contextmanager
    def hold(self, size_bytes: int) -> Iterator[None]:
        """Wait until ``size_bytes`` fit, hold them for the block. More than the limit can never fit: BudgetExceeded."""
        if size_bytes > self.limit_bytes:
            raise BudgetExceeded(
                f"a read declares {format_bytes(size_bytes)} but the plan allows {format_bytes(self.limit_bytes)} "
                "for reads: give a larger --memory, or use smaller chunks"
            )
        with self._changed:
            while not self._admits(size_bytes):
                self._changed.wait(_NEAR_SECONDS)
            self.held_bytes += size_bytes
            self.peak_bytes = max(self.peak_bytes, self.held_bytes)
        try:
            yield
        finally:
            with self._changed:
                self.held_bytes -= size_bytes
                self._changed.notify_all()

    def _admits(self, size_bytes: int) -> bool:
        if self._closed or not self.held_bytes:  # one at a time goes on, or nothing would ever be read
            return True
        return self.held_bytes + size_bytes <= self.limit_bytes and not self._near()

    def close(self) -> None:
        """Let everyone through who still waits: the run is over."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
