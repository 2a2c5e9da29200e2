"""SQLite tables as data of streamtrain: ``sqlite:///path/to/file.db?table=name``."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

from streamtrain import UsageError
from streamtrain_sqlite.reader import SqliteReader

__all__ = ["SqliteReader", "open_sqlite"]


def open_sqlite(url: str) -> SqliteReader:
    """The reader of ``sqlite:///absolute/path.db?table=name``, or ``sqlite://relative/path.db``. The table may be left out
    where the database has only one."""
    parts = urlsplit(url)
    asked = parse_qs(parts.query)
    if unknown := asked.keys() - {"table"}:
        raise UsageError(f"{url}: {sorted(unknown)[0]}= is unknown: there is ?table=name")
    return SqliteReader(unquote(parts.netloc + parts.path), asked.get("table", [None])[0])
