"""The memory of this process: now, at its peak, and what is available; and allocators that give memory back.

The measured peak is ``VmHWM`` of ``/proc/self/status``, reset when a run starts; ``getrusage`` would report the peak of the
parent process. Only Linux has these files: elsewhere the functions return None.
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

__all__ = [
    "available_bytes",
    "mapped_data_bytes",
    "objects_at_rest",
    "peak_bytes",
    "release_freed_memory",
    "reset_peak",
    "resident_bytes",
    "resident_now",
    "steady_allocators",
    "use_blas",
    "use_one_arena",
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
    """Return the resident memory of this process now."""
    return _status("VmRSS")


def resident_now() -> tuple[int, int] | None:
    """Return the resident memory of this process, and the part of it that no file backs; at a third of the cost of
    `resident_bytes`."""
    try:
        with open("/proc/self/statm", "rb") as file:
            _, resident, shared = file.read().split()[:3]
    except (OSError, ValueError):
        return None
    return int(resident) * _PAGE_BYTES, (int(resident) - int(shared)) * _PAGE_BYTES


def mapped_data_bytes() -> int | None:
    """Return the private writable memory that is mapped, resident or not. It is what ``RLIMIT_DATA`` limits."""
    return _status("VmData")


def peak_bytes() -> int | None:
    """Return the most resident memory of this process since `reset_peak`, or since its start."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Let `peak_bytes` start again from what is resident now; does nothing on other systems than Linux.

    Garbage is collected first, so that what an earlier run left in cycles does not count.
    """
    gc.collect()
    release_freed_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def available_bytes(root: str | Path = "/") -> int | None:
    """Return the memory that this process could still take: what the machine has, or what a cgroup (v1 or v2) allows.

    root: the folder of ``proc`` and ``sys``.
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
            for limit in (
                "memory.max",
                "memory.high",
            ):  # above the second the kernel takes memory back, and everything crawls
                free += _cgroup_room(groups_at, path, limit, "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
            free += _cgroup_room(groups_at / "memory", path, *names)
    return max(0, min(free))


def _cgroup_room(root: Path, path: str, limit: str, usage: str, cache: str) -> list[int]:
    """Return the bytes left under the limits of a cgroup and of the groups above it.

    The kernel counts cached pages of files as used, but gives them up on demand, so they count as free here: otherwise one pass
    over large data would leave nothing free.
    """
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
    """Make allocators keep no more than is in use, for the block.

    Arrow allocates through malloc, because its own pools keep twice a row group. (Its page buffers do so anyway:
    ``streamtrain`` sets ARROW_DEFAULT_MEMORY_POOL before Arrow is imported.) All threads share one malloc arena, because each
    of several arenas would keep its freed memory while other threads allocate. Freed memory is kept for the next read, because
    fresh pages from the system cost as much as decoding into them; it is given back at the end.
    """
    import pyarrow as pa

    with _steady_lock:
        _steady.append(pa.default_memory_pool())
        use_one_arena()
        _malloc_options({_MMAP_THRESHOLD: 1 << 20, _TRIM_THRESHOLD: 128 << 20})
        pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        with _steady_lock:
            before = _steady.pop()
            if not _steady:  # this was the last block that is open
                pa.set_memory_pool(before)
                _malloc_options({_MMAP_THRESHOLD: 128 << 10, _TRIM_THRESHOLD: 128 << 10})
        release_freed_memory()


@contextmanager
def objects_at_rest() -> Iterator[None]:
    """Keep the objects that there are out of garbage collections, for the block: libraries alone have hundreds of thousands,
    and none of them becomes garbage. Does nothing where the program has frozen objects itself."""
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


_steady: list[Any] = []  # Arrow's memory pool before each open block
_steady_lock = threading.Lock()


def release_freed_memory() -> None:
    """Give freed memory back to the system."""
    if arrow := sys.modules.get("pyarrow"):  # where it was not imported, it holds nothing
        arrow.default_memory_pool().release_unused()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)


def use_one_arena() -> None:
    """Let all threads share one malloc arena, because each of several would keep its freed memory. Malloc makes another one
    even for a single thread, where an allocation failed."""
    _malloc_options({_ARENA_MAX: 1})


def use_blas() -> None:
    """Let BLAS map its buffer, which it does at its first use: where that fails, it ends the process."""
    if (np := sys.modules.get("numpy")) is not None:
        np.zeros((256, 256), np.float32) @ np.zeros((256, 256), np.float32)


def _malloc_options(options: Mapping[int, int]) -> None:
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            for option, value in options.items():
                mallopt(option, value)
