"""The scores of a fit: of rows before they are learned, of held-out rows, at the end of each epoch; and the best model so far.

The trainer reports every batch here, and asks whether patience ends the training. All of it is state: a resumed fit reports the
same numbers.
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

_FIRST_RECORD = 1024  # rows learned when scores are first recorded, and then each time their number has doubled

ScoreLine = dict[str, Any]


class Scores:
    """The scores of a fit.

    target: what is predicted. holdout: whether rows are held out. patience: epochs, or None (see `Patience`).

    lines: the recorded scores: a line each time that the rows learned have doubled, and one at the end of each epoch. rows: the
    distinct training rows, known after the first epoch. held: held-out rows that were scored, over all epochs. batches: learned
    so far. best: the epoch, the state of the model after it, and the metrics that judged it; None without patience.
    """

    def __init__(self, target: Target, *, holdout: bool, patience: int | None) -> None:
        self.target = target
        self.progressive, self.holdout = metrics_for(target), metrics_for(target)
        self.rows = self.held = self.batches = 0
        self.lines: list[ScoreLine] = []
        self.best: tuple[int, dict[str, Any], Metrics] | None = None
        self.is_over = False  # whether patience has ended the training
        self._holds_out, self._patience = holdout, None if patience is None else Patience(patience)
        self._next_record = _FIRST_RECORD
        self._ends: list[int] = []  # positions of the lines that end epochs
        self._judge, self._judged = "progressive", self.progressive  # the kind of scores that judges the model best

    # -- on the way ----------------------------------------------------------------------------------------------------

    def learned(self, batch: Batch, predictions: NDArray[np.float32], size: int) -> None:
        """Add rows that were predicted and then learned, in batches of ``size``."""
        self.progressive.update(batch.targets, predictions, batch.weights)
        self.batches += -(-len(batch) // size)

    def scored(self, batch: Batch, predictions: NDArray[np.float32]) -> None:
        """Add held-out rows that were predicted."""
        self.holdout.update(batch.targets, predictions, batch.weights)
        self.held += len(batch)

    def on_the_way(self, rows_seen: int, seconds: float) -> ScoreLine | None:
        """A line of scores if the rows learned have doubled since the last one; otherwise None."""
        if rows_seen < self._next_record:
            return None
        while self._next_record <= rows_seen:
            self._next_record *= 2
        return self._line(self.epochs, rows_seen, seconds, {"progressive": scores(self.progressive)})

    # -- the end of an epoch -------------------------------------------------------------------------------------------

    @property
    def epochs(self) -> int:
        """How many epochs are over."""
        return len(self._ends)

    def end_epoch(
        self, rows_seen: int, seconds: float, validation: Metrics | None, state: Callable[[], dict[str, Any]]
    ) -> ScoreLine:
        """End an epoch. Returns its line of scores.

        validation: the metrics of the validation data. state: returns the state of the model; called if it is the best so
        far. Raises DataError if nothing was learned, or if patience has no loss.
        """
        epoch, line = self.epochs, {"progressive": scores(self.progressive)}
        if line["progressive"]["loss"] is None:
            raise DataError(
                "nothing was learned: every row is held out, has weight 0, or was skipped; check --holdout and --weight"
            )
        self.rows = self.rows or rows_seen  # of the first epoch: each once
        self._judge, self._judged = "progressive", self.progressive
        if self._holds_out:
            self._judge, self._judged, self.holdout = "holdout", self.holdout, metrics_for(self.target)
            line["holdout"] = scores(self._judged)
        if validation is not None:
            self._judge, self._judged = "validation", validation
            line["validation"] = scores(validation)
        self._ends.append(len(self.lines))
        if self._patience is not None:
            self._judge_model(epoch, line[self._judge], state)
        return self._line(epoch, rows_seen, seconds, line)

    def _judge_model(self, epoch: int, judged: dict[str, Any], state: Callable[[], dict[str, Any]]) -> None:
        """Keep the model if it is the best so far, and end the training if the loss has not improved for long enough."""
        assert self._patience is not None
        if judged["loss"] is None:
            raise DataError("--patience needs a loss: no row was held out, and the validation data have no loss")
        self.is_over = self._patience.update(judged["loss"])
        if self._patience.best is not None and self._patience.best[1] == self._patience.epochs - 1:  # just now
            self.best = epoch, state(), self._judged

    def _line(self, epoch: int, rows_seen: int, seconds: float, by_kind: dict[str, Any]) -> ScoreLine:
        line = {"epoch": epoch, "rows_seen": rows_seen, "seconds": round(seconds, 3)}
        self.lines.append(line | {name: by_kind.get(name) for name in SCORE_KINDS})
        return self.lines[-1]

    def judge_anew(self, seconds: float, rows_seen: int) -> None:
        """Judge by other validation data from now on: no model is the best so far. A line without scores marks it."""
        self.best, self.is_over = None, False
        self._judge, self._judged = "progressive", self.progressive
        if self._patience is not None:
            self._patience = Patience(self._patience.patience)
        self._line(self.epochs, rows_seen, seconds, {})
        self.lines[-1]["changed"] = "validate"

    # -- for the report ------------------------------------------------------------------------------------------------

    @property
    def best_epoch(self) -> int | None:
        """The epoch whose model is kept; None without patience."""
        return None if self.best is None else self.best[0]

    @property
    def metrics(self) -> dict[str, Any]:
        """The scores of the model that is kept, by kind: progressive, holdout, validation. None if there are none."""
        line = self.lines[self._ends[-1 if self.best is None else self.best[0]]]
        return {name: line[name] for name in SCORE_KINDS}

    @property
    def per_class(self) -> list[dict[str, Any]] | None:
        """The scores of each class, of the model that is kept (see `metrics.scores.per_class`)."""
        return per_class(self._judged if self.best is None else self.best[2], self.target)

    # -- state ---------------------------------------------------------------------------------------------------------

    @property
    def nbytes(self) -> int:
        """Bytes of all metrics."""
        distinct = {
            id(m): m for m in (self.progressive, self.holdout, self._judged, *([self.best[2]] if self.best else []))
        }
        return sum(metrics.nbytes for metrics in distinct.values())

    def state_dict(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The state: what JSON can hold, and arrays by name."""
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

    def load_state_dict(self, header: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        """Continue from what ``state_dict`` returned. Raises ValueError or LookupError for anything else."""
        ends, best = header["ends"], header["best_epoch"]
        if header["next_record"] < 1 or any(not 0 <= end < len(header["lines"]) for end in ends):
            raise ValueError("its scores belong to another run")
        if header["judge"] not in SCORE_KINDS or not (best is None or 0 <= best < len(ends)):
            raise ValueError("its kind of scores belongs to another run")
        for name in ("rows", "held", "batches", "is_over"):
            setattr(self, name, header[name])
        self.lines, self._ends = [dict(line) for line in header["lines"]], list(header["ends"])
        self._next_record, self._judge = header["next_record"], header["judge"]
        self._load(self.progressive, arrays, "progressive.")
        if self._holds_out:
            self._load(self.holdout, arrays, "holdout.")
        self._judged = self.progressive
        if self._judge != "progressive":
            self._judged = self._load(metrics_for(self.target), arrays, "judged.")
        if header["best_epoch"] is not None:
            judged = self._load(metrics_for(self.target), arrays, "best.judged.")
            self.best = header["best_epoch"], part(arrays, "best.model."), judged
        if self._patience is not None:
            self._patience.load_state_dict(part(arrays, "patience."))

    @staticmethod
    def _load(metrics: Metrics, arrays: Mapping[str, Any], prefix: str) -> Metrics:
        metrics.load_state_dict(part(arrays, prefix))
        return metrics
