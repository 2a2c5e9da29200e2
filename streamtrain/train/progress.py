"""How far a fit is, for whoever shows it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Progress"]


@dataclass(frozen=True)
class Progress:
    """How far a fit is. `fit` calls its ``progress`` with one of these a few times a second.

    Attributes
    ----------
    rows_seen, rows_total
        Rows that were learned or scored so far, and that there are in all epochs together.
    epoch, epochs
        Epochs that are over, and how many there are to be.
    seconds
        Since training began. A run that was resumed counts the seconds of the processes before, too.
    loss
        The progressive loss so far; None before the first batch.
    resident_bytes, budget_bytes
        Memory of this process now, and the most that it may take. Resident is None where it cannot be measured.
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
