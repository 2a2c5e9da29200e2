"""Which snapshot of a table is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

__all__ = ["Moment", "shown_time"]


@dataclass(frozen=True)
class Moment:
    """version: the snapshot with this number. time: the newest at this time. snapshots: those that a run has read, by the id of
    their table: they are meant where no version is. By default the current one."""

    version: int | None = None
    time: datetime | None = None
    snapshots: Mapping[str, str] = field(default_factory=dict)


def shown_time(time: datetime) -> str:
    """A time for messages.

    >>> shown_time(datetime(2026, 1, 15, tzinfo=UTC))
    '2026-01-15T00:00:00+00:00'
    """
    return time.astimezone(UTC).isoformat(timespec="seconds" if not time.microsecond else "milliseconds")
