"""The lock of a run folder: one writer at a time. A killed process leaves no lock behind."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from types import ModuleType

from streamtrain.errors import RunError

__all__ = ["LOCK", "FolderLock", "is_locked"]

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # not Unix
    fcntl = None

LOCK = ".lock"  # the name of the file
_WAIT_SECONDS, _POLL_SECONDS = 0.1, 0.01  # `is_locked` takes the lock for an instant
_TRIES = 100
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}  # errors of a file system without locks


class FolderLock:
    """The lock of a folder, which is created if it does not exist. `release` removes it again if it is empty.

    ``works`` is False if the file system has no locks: then other writers are not kept out.

    Raises RunError if another process, or another run of this process, holds the lock; OSError if the folder cannot be
    written.
    """

    def __init__(self, folder: Path) -> None:
        from filelock import FileLock  # takes 30 ms, which only a run with a folder needs

        self.folder, self.works = folder, True
        self._process = os.getpid()
        self._file: os.stat_result | None = None
        self._made = [path for path in (folder, *folder.parents) if not path.exists()]
        self._lock = FileLock(
            folder / LOCK, _WAIT_SECONDS, thread_local=False, poll_interval=_POLL_SECONDS, on_acquired=self._sign
        )
        try:
            self._acquire()
        except BaseException:
            self._remove_made()
            raise
        self._is_released = False

    def _acquire(self) -> None:
        from filelock import Timeout

        is_made = False
        for _ in range(_TRIES):
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                is_made = True
                self._lock.acquire()
                return
            except Timeout:
                holder = _read_holder(self.folder) or "another process"
                raise RunError(
                    f"{self.folder}: {holder} is writing this run: wait for it, or name another folder"
                ) from None
            except (FileNotFoundError, FileExistsError) as error:  # the holder of the lock has just removed the folder
                if isinstance(error, FileExistsError) and self.folder.exists():
                    raise
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                self.works = False
                return
        if not is_made:
            there = next(parent for parent in self.folder.absolute().parents if parent.exists())
            raise RunError(f"--out {self.folder}: {there} cannot be written: no folder can be made in it")
        raise RunError(f"{self.folder}: cannot be locked: it is made and removed all the time")

    def _sign(self, handle: int) -> None:
        """Write into the file who holds the lock."""
        try:
            os.truncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        except OSError:  # the disk is full
            (self.folder / LOCK).unlink(missing_ok=True)
            raise
        self._file = os.fstat(handle)

    @property
    def is_held(self) -> bool:
        """Whether the folder is still at its path, so that no other process can have locked another one there."""
        if self._file is None:
            return not self.works
        try:
            return os.path.samestat(self._file, (self.folder / LOCK).stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give the lock back. Only the first call in the process that took it does anything."""
        if self._is_released or self._process != os.getpid():
            return
        self._is_released = True
        try:
            if self.is_held:
                (self.folder / LOCK).unlink(missing_ok=True)  # while it is held, so that nobody else's is removed
        finally:
            self._lock.release()
        self._remove_made()

    def _remove_made(self) -> None:
        for path in self._made:
            try:
                path.rmdir()
            except OSError:  # it is not empty, or not there
                continue


def is_locked(folder: Path) -> bool:
    """Whether a process is writing to a folder. Permission to read it is enough.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> lock = FolderLock(folder)
    >>> while_held = is_locked(folder)
    >>> lock.release()
    >>> while_held, is_locked(folder)
    (True, False)
    """
    if fcntl is None:
        return False
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # what filelock takes is exclusive
    except BlockingIOError:
        return True
    except OSError:  # no locks here
        return False
    finally:
        os.close(handle)
    return False


def _read_holder(folder: Path) -> str:
    """What the holder of the lock wrote about itself; empty if it has not written yet, or has finished."""
    try:
        return (folder / LOCK).read_bytes()[:200].decode(errors="replace").strip()
    except OSError:
        return ""
