"""How a model takes a step. There are two ways.

`Fused.run` prepares, predicts and learns several batches in one call, for as long as the preparation stays the same. All
other batches, also those with weights, are prepared, predicted by `Learner.predict` and learned by `Learner.learn`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from streamtrain.batch import Batch
from streamtrain.columns.layout import Layout
from streamtrain.errors import BadValueError, DataError, DivergedError, LearnerError
from streamtrain.learn.learner import Fused, Learner, takes_sparse
from streamtrain.learn.own_code import Calling, is_own_code, learner_title
from streamtrain.prepare import Preparation, TargetScale

__all__ = ["Steps", "diverged"]

Floats = NDArray[np.float32]
_PROBABILITY_ERROR = 1e-3  # what rounding may do to the probabilities of a user's learner


class Steps:
    """The steps of a model: its preparation, its learner and the scale of its target, together. fused: the learner, if it
    learns several batches in one call; otherwise None. class_weights: one for each class, or none."""

    def __init__(
        self, layout: Layout, preparation: Preparation, learner: Learner, scale: TargetScale | None,
        class_weights: Sequence[float],
    ) -> None:  # fmt: skip
        assert layout.target is not None
        self.preparation, self.learner, self.scale = preparation, learner, scale
        self.fused = learner if isinstance(learner, Fused) and learner.can_run else None
        self._learning, self._predicting = Calling(learner, "learn() raised"), Calling(learner, "predict() raised")
        self._takes_sparse, self._outputs = takes_sparse(learner), layout.outputs
        self._is_binary = layout.target.kinds == 2 and not layout.target.parts
        self._is_own, self._is_classifying = is_own_code(learner), layout.target.task == "classify"
        self._class_weights = np.array(class_weights, np.float32)
        self._identity = np.repeat(np.array([0, 0, 1], np.float32), layout.width).reshape(3, -1)
        self._unused_sums = np.zeros((2, layout.width))

    def train(self, batch: Batch, size: int) -> Floats:
        """See `Model.train`."""
        predictions: list[Floats] = []
        start = 0
        batch = self._weighted(batch)
        while start < len(batch):
            stop = min(len(batch), start + size * self._batches_at_once(batch, start, size))
            rows = batch if stop - start == len(batch) else batch.part(start, stop)
            try:
                predictions.append(self._train_run(rows, size) if stop - start > size else self._train_weighted(rows))
            except BadValueError as error:
                raise error.further(start) from None
            start += len(predictions[-1])
        return predictions[0] if len(predictions) == 1 else np.concatenate(predictions)

    def predict(self, prepared: Batch) -> Floats:
        """Predict prepared rows. Raises DataError if the learner's predictions have a wrong shape."""
        with self._predicting:
            if self._takes_sparse:
                predictions = self.learner.predict(prepared.features, prepared.sparse)
            else:
                predictions = self.learner.predict(prepared.features)
            if self._is_own:
                predictions = np.asarray(predictions)
        rows, outputs = len(prepared.features), self._outputs
        if self._is_binary and np.shape(predictions) == (rows, 2):
            predictions = np.ascontiguousarray(predictions[:, 1])
        expected = (rows, outputs) if outputs > 1 else (rows,)
        if np.shape(predictions) != expected:
            raise DataError(f"the learner predicted an array of shape {np.shape(predictions)}; expected {expected}")
        if self._is_own and len(predictions):
            self._check_predictions(predictions)
        return predictions if self.scale is None else self.scale.inverse(predictions)

    def _check_predictions(self, predictions: Floats) -> None:
        """Raise LearnerError for predictions of a user's learner that are no numbers, or are to be probabilities and are none.
        NaN passes: see `diverged`."""
        title = learner_title(self.learner)
        if predictions.dtype.kind not in "fiub":
            raise LearnerError(f"{title}: predict() returned values of type {predictions.dtype}: they must be float32")
        least, most = predictions.min(), predictions.max()
        if self._is_classifying and (least < -_PROBABILITY_ERROR or most > 1 + _PROBABILITY_ERROR):
            raise LearnerError(
                f"{title}: predict() returned {least if least < 0 else most} for a probability: it must be from 0 to 1"
            )

    def _weighted(self, batch: Batch) -> Batch:
        """The batch; the weight of each row is multiplied by that of its class."""
        if not len(self._class_weights):
            return batch
        weights: Floats = self._class_weights[batch.targets]
        return replace(batch, weights=weights if batch.weights is None else weights * batch.weights)

    def _batches_at_once(self, batch: Batch, start: int, size: int) -> int:
        """How many batches can be learned in one call: those for which the preparation stays the same."""
        numbers = self.preparation.numbers
        if self.fused is None or self.scale is not None or batch.weights is not None or numbers.maps is None:
            return 1
        if self.preparation.scales is not None:  # batches that were prepared in vain would count twice
            return 1
        most = max(1, -(-numbers.rows_to_renewal // size))
        return 1 if numbers.has_new_columns(batch.features[start : start + most * size]) else most

    def _train_weighted(self, batch: Batch) -> Floats:
        """Learn the rows with a weight above 0. The others are ignored, and their predictions are 0."""
        if batch.weights is None or (batch.weights == 1).all():  # weights of 1 are the same as no weights
            return self._train_one(batch if batch.weights is None else replace(batch, weights=None))
        if batch.weights.all():
            return self._train_one(batch)
        rows, outputs = np.flatnonzero(batch.weights), self._outputs
        predictions = np.zeros((len(batch), outputs)[: 1 + (outputs > 1)], np.float32)
        try:
            predictions[rows] = self._train_one(batch.take(rows)) if len(rows) else 0
        except BadValueError as error:
            raise error if error.row is None else error.further(int(rows[error.row]) - error.row) from None
        return predictions

    def _train_one(self, batch: Batch) -> Floats:
        """Learn one batch."""
        scale, fused = self.scale, self.fused if batch.weights is None else None
        settled = self.preparation.is_settled(batch.features)
        if fused is not None and settled:
            scaled = batch if scale is None else replace(batch, targets=scale.transform(batch.targets))
            predictions = self._train_run(scaled, len(batch))
            if scale is not None and len(predictions):
                predictions = scale.inverse(predictions)
                scale.observe(batch.targets)
            return predictions
        prepared = self.preparation.learn(batch)
        if scale is not None:
            if not settled:
                scale.observe(batch.targets)
            prepared = replace(prepared, targets=scale.transform(prepared.targets))
        if fused is not None:
            done, predictions, _ = fused.run(prepared, len(prepared), self._identity, self._unused_sums)
            if not done:
                raise diverged("the gradient", self.learner)
            return predictions if scale is None else scale.inverse(predictions)
        predictions = self.predict(prepared)
        with self._learning:
            self.learner.learn(prepared if self._takes_sparse else replace(prepared, sparse=None))
        if scale is not None and settled:
            scale.observe(batch.targets)
        return predictions

    def _train_run(self, batch: Batch, size: int) -> Floats:
        """Learn several batches in one call; fewer if one of them has numbers that are not finite."""
        fused, numbers = self.fused, self.preparation.numbers
        assert fused is not None and numbers.maps is not None
        filled, missing = self.preparation.fill_missing(batch, learn=True)
        done, predictions, sums = fused.run(filled, size, numbers.maps, numbers.block)
        learned = min(len(batch), done * size)
        numbers.added(learned, None if missing is None else missing[:learned])
        if sums is None:
            return predictions
        odd = slice(learned, len(predictions))
        if missing is not None:  # restore the missing numbers: the following rows are passed again
            batch.features[odd.stop :][missing[odd.stop :]] = np.nan
        if not self.preparation.checks_finite and self.preparation.check_finite(batch.features[odd]):
            return predictions[:learned]  # numbers are missing in this batch, and nothing was learned from it
        try:
            numbers.update_from_sums(sums, batch.features[odd], None if missing is None else missing[odd])
        except BadValueError as error:
            raise error.further(learned) from None
        if fused.diverged:
            raise diverged("the gradient", self.learner)
        return predictions


def diverged(what: str, learner: Learner) -> DivergedError:
    """The error for numbers that are no longer finite."""
    remedy = "give a smaller --learning-rate"
    if getattr(getattr(learner, "optimizer", None), "name", None) != "normalized":
        remedy += ", or use --optimizer normalized"
    if is_own_code(learner):
        remedy = f"{learner_title(learner)} learns or predicts numbers that are not finite: its code must avoid them"
    return DivergedError(f"the model diverged: {what} is no longer finite: {remedy}")
