"""One writer for a folder: a lock that dies with the process that holds it."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from types import ModuleType

from streamtrain.errors import RunError

__all__ = ["LOCK", "FolderLock", "is_locked"]

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # not Unix
    fcntl = None

LOCK = ".lock"  # the file
_TRIES = 100
_LOOKS_SECONDS = (0.001, 0.01, 0.05)  # between tries: whoever only looks has it for an instant
_held: set[FolderLock] = set()  # a process that is forked must not hold a lock for longer than its parent


class FolderLock:
    """The lock of a folder, which is made where there is none; `release` removes it again if nothing was put there.

    works: False where the file system has no locks.

    Raises RunError where another process, or another run of this one, has it; OSError where it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.works = folder, True
        self._made = [path for path in (folder, *folder.parents) if not path.exists()]
        try:
            self._handle = self._locked()
        except BaseException:
            self._remove_made()
            raise
        _held.add(self)

    def _locked(self) -> int:
        for tries_left in reversed(range(_TRIES)):
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except (
                FileNotFoundError,
                FileExistsError,
            ) as error:  # whoever had the lock has just removed a folder above
                if not tries_left or (isinstance(error, FileExistsError) and self.folder.exists()):
                    raise
                continue
            try:
                handle = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            except FileNotFoundError:  # likewise, the folder
                continue
            try:
                self.works = _lock(handle)
                if _is_file(handle, self.folder / LOCK):
                    self._sign(handle)
                    return handle
            except BlockingIOError:
                who = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
                os.close(handle)
                raise RunError(
                    f"{self.folder}: {who} is writing this run: wait for it, or name another folder"
                ) from None
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)  # it was removed between the two calls
        raise RunError(f"{self.folder}: cannot be locked: it is made and removed all the time")

    def _sign(self, handle: int) -> None:
        try:
            os.truncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        except OSError:  # the disk is full
            (self.folder / LOCK).unlink(missing_ok=True)
            raise

    @property
    def is_held(self) -> bool:
        """Whether the folder is still where it was, and nobody else can have locked what is there."""
        return not self.works or _is_file(self._handle, self.folder / LOCK)

    def release(self) -> None:
        """Give the lock back; once."""
        if self not in _held:
            return
        try:
            if self.is_held:
                (self.folder / LOCK).unlink(missing_ok=True)  # while it is held, so that nobody else's is removed
        finally:
            _held.discard(self)
            os.close(self._handle)
        self._remove_made()

    def _remove_made(self) -> None:
        for path in self._made:
            try:
                path.rmdir()
            except OSError:  # it is not empty, or not there
                continue


def is_locked(folder: Path) -> bool:
    """Whether a process is writing there.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> lock = FolderLock(folder)
    >>> held = is_locked(folder)
    >>> lock.release()
    >>> held, is_locked(folder)
    (True, False)
    """
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def _lock(handle: int) -> bool:
    """Whether there are locks here. Raises BlockingIOError where somebody else has it, for longer than a look at it takes."""
    if fcntl is None:
        return False
    for wait in (*_LOOKS_SECONDS, None):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if wait is None:
                raise
            time.sleep(wait)
        except OSError:
            break
    return False


def _is_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _forget() -> None:
    for lock in _held:
        os.close(lock._handle)  # the parent's stays
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
