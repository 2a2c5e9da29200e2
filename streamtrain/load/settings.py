"""Settings of the loading: which rows are learned, and what happens to rows that cannot be read."""

from __future__ import annotations

from dataclasses import dataclass

from streamtrain.options import option

__all__ = ["ON_ERROR", "LoadSettings"]

ON_ERROR = ("raise", "skip")


@dataclass(frozen=True)
class LoadSettings:
    """Which rows are learned, and what happens to rows that cannot be read."""

    holdout: float = option(0.0, "Share of rows that are scored, never learned.", group="data", least=0, below=1)
    on_error: str = option(
        "raise", "A chunk that cannot be read, a row without a target: raise, or skip.", group="data", choices=ON_ERROR
    )
    max_skipped: float = option(
        0.01, "With --on-error skip: more than this share of the rows stops the run.", group="data", least=0, most=1,
        resume="free",
    )  # fmt: skip
