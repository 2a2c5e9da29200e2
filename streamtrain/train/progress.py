"""Progress of a fit, for display."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Progress"]


@dataclass(frozen=True)
class Progress:
    """Progress of a fit. `fit` calls its ``progress`` with one of these a few times a second.

    Attributes
    ----------
    rows_seen, rows_total
        Rows that were learned or scored so far, and the rows of all epochs.
    epoch, epochs
        Finished epochs, and all epochs of the run.
    seconds
        Since training began. A resumed run includes the seconds of its earlier processes.
    loss
        The progressive loss so far; None before the first batch.
    resident_bytes, budget_bytes
        Memory of this process now, and its budget. resident_bytes is None if it cannot be measured.
    stage
        ``"train"``, or ``"validate"`` while the validation data are scored.
    """

    rows_seen: int
    rows_total: int
    epoch: int
    epochs: int
    seconds: float
    loss: float | None
    resident_bytes: int | None
    budget_bytes: int
    stage: str = "train"
