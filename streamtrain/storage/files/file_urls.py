"""URLs of files on this machine: ``file:///data/a.csv`` is ``/data/a.csv``."""

from __future__ import annotations

from urllib.parse import unquote

from streamtrain.errors import UsageError, printable

__all__ = ["local_path"]

_SCHEME = "file://"


def local_path(target: str) -> str:
    """The path that a ``file://`` URL means; other text unchanged. Raises UsageError for a file of another machine, and for a
    URL without a path.

    >>> local_path("file:///data/two%20words.csv"), local_path("file://localhost/a"), local_path("a.csv")
    ('/data/two words.csv', '/a', 'a.csv')
    """
    if target[: len(_SCHEME)].lower() != _SCHEME:
        return target
    host, slash, path = target[len(_SCHEME) :].partition("/")
    if host.lower() not in ("", "localhost"):
        raise UsageError(
            f"{printable(target)}: names a file of the machine {printable(host)!r}: give the path of a file of this machine, "
            f"file:///{printable(host + slash + path)}, or where it is mounted here"
        )
    path = unquote(slash + path, errors="surrogateescape")
    if path in ("", "/") or "\0" in path:
        raise UsageError(f"{printable(target)}: names no file: give file:// and an absolute path, file:///data/a.csv")
    return path
