"""What this process takes: its resident memory and its peak, what it could still take, and allocators that keep to it.

Measured means ``VmHWM`` of ``/proc/self/status``, reset when a run starts: ``getrusage`` would report the peak of
whoever started the process. Elsewhere than on Linux nothing can be measured this way, and the functions return None.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

__all__ = [
    "available_bytes",
    "mapped_data_bytes",
    "peak_bytes",
    "release_freed_memory",
    "reset_peak",
    "resident_bytes",
    "resident_now",
    "steady_allocators",
]

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of mallopt, <malloc.h>
_PAGE_BYTES = mmap.PAGESIZE


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
