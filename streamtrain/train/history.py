"""What a fit scores on its way: progressive and held-out rows, the end of each epoch, and the best model so far.

The trainer tells it of every batch; it tells the trainer when an epoch was the last that helps. All of it is state, so that
a fit that goes on from a checkpoint reports the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.batch import Batch
from streamtrain.columns.target import Target
from streamtrain.errors import DataError
from streamtrain.metrics import Metrics, Patience
from streamtrain.metrics.scores import SCORE_KINDS, metrics_for, per_class, scores
from streamtrain.state import part

__all__ = ["ScoreLine", "Scores"]

_FIRST_RECORD = 1024  # rows learned when scores are recorded first; then each time that they have doubled

ScoreLine = dict[str, Any]


class Scores:
    """Scores of a fit, of a target. holdout: whether rows are held out. patience: epochs, or None (see `Patience`).

    lines: what was recorded, a line each time that the rows learned have doubled, and one an epoch. rows: distinct training
    rows, known once an epoch is over. held: rows scored that are held out, over all epochs. batches: that were learned.
    best: epoch, the model's state behind it, and the metrics that it was judged by; None without patience.
    """

    def __init__(self, target: Target, *, holdout: bool, patience: int | None) -> None:
        self.target = target
        self.progressive, self.holdout = metrics_for(target), metrics_for(target)
        self.rows = self.held = self.batches = 0
        self.lines: list[ScoreLine] = []
        self.best: tuple[int, dict[str, Any], Metrics] | None = None
        self.is_over = False  # whether patience is at its end
        self._holds_out, self._patience = holdout, None if patience is None else Patience(patience)
        self._next_record = _FIRST_RECORD
        self._ends: list[int] = []  # which lines are the ends of epochs
        self._judge, self._judged = "progressive", self.progressive  # what tells best how good the model is

    # -- on the way ----------------------------------------------------------------------------------------------------

    def learned(self, batch: Batch, predictions: NDArray[np.float32], size: int) -> None:
        """Rows that were predicted, then learned, in batches of ``size``."""
        self.progressive.update(batch.targets, predictions, batch.weights)
        self.batches += -(-len(batch) // size)

    def scored(self, batch: Batch, predictions: NDArray[np.float32]) -> None:
        """Held-out rows that were predicted."""
        self.holdout.update(batch.targets, predictions, batch.weights)
        self.held += len(batch)

    def on_the_way(self, rows_seen: int, seconds: float) -> ScoreLine | None:
        """A line where as many rows have been learned as one is due for."""
        if rows_seen < self._next_record:
            return None
        while self._next_record <= rows_seen:
            self._next_record *= 2
        return self._line(self.epochs, rows_seen, seconds, {"progressive": scores(self.progressive)})

    # -- the end of an epoch -------------------------------------------------------------------------------------------

    @property
    def epochs(self) -> int:
        """How many are over."""
        return len(self._ends)

    def end_epoch(
        self, rows_seen: int, seconds: float, validation: Metrics | None, state: Callable[[], dict[str, Any]]
    ) -> ScoreLine:
        """The line of an epoch that is over. validation: of other data. state: the model's, taken where it is the best.

        Raises DataError where there was nothing to learn, or nothing to judge by.
        """
        epoch, found = self.epochs, {"progressive": scores(self.progressive)}
        if found["progressive"]["loss"] is None:
            raise DataError("nothing was learned: every row is held out, weighs nothing, or was skipped")
        self.rows = self.rows or rows_seen  # of the first epoch: each once
        self._judge, self._judged = "progressive", self.progressive
        if self._holds_out:
            self._judge, self._judged, self.holdout = "holdout", self.holdout, metrics_for(self.target)
            found["holdout"] = scores(self._judged)
        if validation is not None:
            self._judge, self._judged = "validation", validation
            found["validation"] = scores(validation)
        self._ends.append(len(self.lines))
        if self._patience is not None:
            self._judge_model(epoch, found[self._judge], state)
        return self._line(epoch, rows_seen, seconds, found)

    def _judge_model(self, epoch: int, judged: dict[str, Any], state: Callable[[], dict[str, Any]]) -> None:
        """Whether the loss on rows that were not learned has not become better for long enough; the best is kept."""
        assert self._patience is not None
        if judged["loss"] is None:
            raise DataError("--patience: no loss to judge by: no row was held out, or is in the validation data")
        self.is_over = self._patience.update(judged["loss"])
        if self._patience.best is not None and self._patience.best[1] == epoch:
            self.best = epoch, state(), self._judged

    def _line(self, epoch: int, rows_seen: int, seconds: float, found: dict[str, Any]) -> ScoreLine:
        line = {"epoch": epoch, "rows_seen": rows_seen, "seconds": round(seconds, 3)}
        self.lines.append(line | {name: found.get(name) for name in SCORE_KINDS})
        return self.lines[-1]

    # -- for the report ------------------------------------------------------------------------------------------------

    @property
    def best_epoch(self) -> int | None:
        """Whose model is kept, where training may stop before its end."""
        return None if self.best is None else self.best[0]

    @property
    def metrics(self) -> dict[str, Any]:
        """The scores of the model that is kept: progressive, holdout and validation, None where there are none."""
        line = self.lines[self._ends[-1 if self.best is None else self.best[0]]]
        return {name: line[name] for name in SCORE_KINDS}

    @property
    def per_class(self) -> list[dict[str, Any]] | None:
        """See `scores.per_class`; of the model that is kept."""
        return per_class(self._judged if self.best is None else self.best[2], self.target)

    # -- state ---------------------------------------------------------------------------------------------------------

    @property
    def nbytes(self) -> int:
        """Bytes of all metrics."""
        held = {
            id(m): m for m in (self.progressive, self.holdout, self._judged, *([self.best[2]] if self.best else []))
        }
        return sum(metrics.nbytes for metrics in held.values())

    def state_dict(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What is text or a number, for JSON; and arrays by name."""
        patience, own = self._patience, {"progressive.": self.progressive}
        if self._holds_out:
            own["holdout."] = self.holdout
        if self._judge != "progressive":
            own["judged."] = self._judged
        arrays = {f"{name}{k}": v for name, metrics in own.items() for k, v in metrics.state_dict().items()}
        if self.best is not None:
            arrays |= {f"best.model.{k}": v for k, v in self.best[1].items()}
            arrays |= {f"best.judged.{k}": v for k, v in self.best[2].state_dict().items()}
        if patience is not None:
            arrays |= {f"patience.{k}": v for k, v in patience.state_dict().items()}
        names = ("rows", "held", "batches", "lines", "is_over", "best_epoch")
        private = {"next_record": self._next_record, "ends": list(self._ends), "judge": self._judge}
        return {name: getattr(self, name) for name in names} | private, arrays

    def load_state_dict(self, known: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` returned. Raises ValueError or LookupError for what it did not."""
        ends, best = known["ends"], known["best_epoch"]
        if known["next_record"] < 1 or any(not 0 <= end < len(known["lines"]) for end in ends):
            raise ValueError("its scores are of another run")
        if known["judge"] not in SCORE_KINDS or not (best is None or 0 <= best < len(ends)):
            raise ValueError("what it was judged by is of another run")
        for name in ("rows", "held", "batches", "is_over"):
            setattr(self, name, known[name])
        self.lines, self._ends = [dict(line) for line in known["lines"]], list(known["ends"])
        self._next_record, self._judge = known["next_record"], known["judge"]
        self._load(self.progressive, arrays, "progressive.")
        if self._holds_out:
            self._load(self.holdout, arrays, "holdout.")
        self._judged = self.progressive
        if self._judge != "progressive":
            self._judged = self._load(metrics_for(self.target), arrays, "judged.")
        if known["best_epoch"] is not None:
            judged = self._load(metrics_for(self.target), arrays, "best.judged.")
            self.best = known["best_epoch"], part(arrays, "best.model."), judged
        if self._patience is not None:
            self._patience.load_state_dict(part(arrays, "patience."))

    @staticmethod
    def _load(metrics: Metrics, arrays: Mapping[str, Any], prefix: str) -> Metrics:
        metrics.load_state_dict(part(arrays, prefix))
        return metrics
