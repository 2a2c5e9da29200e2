"""Settings of the loading: which rows are learned, and what happens to rows that cannot be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from streamtrain.columns.settings import split_pair
from streamtrain.errors import UsageError
from streamtrain.options import option

__all__ = ["ON_ERROR", "LoadSettings", "SkipSettings"]

ON_ERROR = ("raise", "skip")
HELD_VALUES = 0.1  # the share of the values of --holdout-by that is held out


def read_after(text: Any) -> Any:
    """The column and the time of ``COL=TIME``, unchanged. Raises UsageError where there are none."""
    if isinstance(text, str):
        split_pair(text, "--holdout-after", "COL=TIME, as in time=2026-01-15")
    return text


@dataclass(frozen=True)
class SkipSettings:
    """What happens to chunks that cannot be read, and to rows that cannot be used."""

    on_error: str = option(
        "raise", "A chunk that cannot be read, a row that cannot be used: raise, or skip.", group="data", choices=ON_ERROR,
        resume="recorded",
    )  # fmt: skip
    max_skipped: float = option(
        0.01, "With --on-error skip: more than this share of the rows read so far stops the run.", group="data",
        least=0, most=1, resume="recorded",
    )  # fmt: skip


@dataclass(frozen=True)
class LoadSettings(SkipSettings):
    """Which rows are learned, and what happens to rows that cannot be read."""

    holdout: float = option(
        0.0,
        "Share of rows that are scored, never learned.",
        group="data",
        least=0,
        below=1,
    )
    holdout_by: str | None = option(
        None, "Hold out a share of the values of this column, each with all of its rows: .1, or --holdout.", group="data",
        metavar="COL",
    )  # fmt: skip
    holdout_after: str | None = option(
        None, "Hold out the rows after a time: time=2026-01-15.", group="data", metavar="COL=TIME", read=read_after,
    )  # fmt: skip

    @property
    def holds_out(self) -> bool:
        """Whether any row may be held out."""
        return self.holdout > 0 or self.holdout_by is not None or self.holdout_after is not None

    @property
    def held_share(self) -> float:
        """The share of rows, or of the values of a column, that is held out."""
        return HELD_VALUES if self.holdout_by is not None and not self.holdout else self.holdout

    def require_one_rule(self) -> None:
        """Raise UsageError for rules that exclude one another."""
        if self.holdout_after is None:
            return
        for name, value in (("--holdout-by", self.holdout_by), ("--holdout", self.holdout or None)):
            if value is not None:
                raise UsageError(
                    f"--holdout-after {self.holdout_after}: says which rows are held out, and so does {name} {value}: give one"
                )
