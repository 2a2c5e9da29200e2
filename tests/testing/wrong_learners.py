"""A learner that keeps the contract, and learners with one defect each; those of state and memory are in `wrong_states`."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.batch import Batch, Sparse
from streamtrain.errors import DataError

FEATURES, SLOTS = 6, 20


class Good:
    """Nothing is wrong with it: gradient descent with momentum, at a rate that falls with the weight of the rows."""

    classes = 0

    def __init__(self) -> None:
        self.shape = (FEATURES + SLOTS + 1, self.classes if self.classes > 2 else 1)
        self.table = np.zeros(self.shape, np.float32)
        self.velocity = np.zeros(self.shape, np.float32)
        self.clock = 0.0

    def design(self, X: NDArray[np.float32], sparse: Sparse | None) -> NDArray[np.float32]:
        wide = np.zeros((len(X), self.shape[0]), np.float32)
        wide[:, :FEATURES], wide[:, -1] = X, 1
        if sparse is not None:
            row = np.repeat(np.arange(len(X)), np.diff(sparse.indptr))
            np.add.at(wide, (row, FEATURES + sparse.indices), 1 if sparse.values is None else sparse.values)
        return wide

    def link(self, margin: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.classes > 2:
            found = np.exp(margin - margin.max(axis=1, keepdims=True))
            return found / found.sum(axis=1, keepdims=True)
        return 1 / (1 + np.exp(-margin[:, 0])) if self.classes else margin[:, 0].copy()

    def predict(self, X: NDArray[np.float32], sparse: Sparse | None = None) -> NDArray[np.float32]:
        return self.link(self.design(X, sparse) @ self.table)

    def learn(self, batch: Batch) -> None:
        weigh = np.ones(len(batch), np.float32) if batch.weights is None else batch.weights
        total = float(weigh.sum())
        if total:
            self.clock += total
            self.step(batch, weigh / np.float32(total))

    def step(self, batch: Batch, weigh: NDArray[np.float32]) -> None:
        wide = self.design(batch.features, batch.sparse)
        targets = np.eye(self.classes, dtype=np.float32)[batch.targets] if self.classes > 2 else batch.targets
        error = (self.link(wide @ self.table) - targets).astype(np.float32).reshape(len(batch), -1)
        self.velocity *= np.float32(0.5)
        self.velocity -= wide.T @ (error * weigh[:, None]) * np.float32(0.05 / (1 + self.clock / 100) ** 0.5)
        self.table += self.velocity

    def state_dict(self) -> dict[str, Any]:
        return {"table": self.table.copy(), "velocity": self.velocity.copy(), "clock": self.clock}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.check(state)
        self.table[...], self.velocity[...] = state["table"], state["velocity"]
        self.clock = float(state["clock"])

    def check(self, state: Mapping[str, Any]) -> None:
        for name, value in self.state_dict().items():
            if name not in state or np.shape(state[name]) != np.shape(value):
                raise DataError(f"the state has no {name} of shape {np.shape(value)}")

    @property
    def state_bytes(self) -> int:
        return 2 * self.table.nbytes + 8


# -- batches -------------------------------------------------------------------------------------------------------------


class ChangesTheFeatures(Good):
    def learn(self, batch: Batch) -> None:
        batch.features[:] = np.clip(batch.features, -1, 1)
        super().learn(batch)


class ChangesTheWeights(Good):
    def learn(self, batch: Batch) -> None:
        if batch.weights is not None and batch.weights.any():
            np.divide(batch.weights, batch.weights.sum(), out=batch.weights)
        super().learn(batch)


class ChangesX(Good):
    def predict(self, X: NDArray[np.float32], sparse: Sparse | None = None) -> NDArray[np.float32]:
        np.clip(X, -1, 1, out=X)
        return super().predict(X, sparse)


class NeedsToWrite(Good):
    """It hands the rows to C as memory that may be written."""

    def learn(self, batch: Batch) -> None:
        if len(batch):
            ctypes.c_char.from_buffer(batch.features)
        super().learn(batch)


class KeepsTheFirstRow(Good):
    """As the centre of the columns; but it is the loader's."""

    def __init__(self) -> None:
        super().__init__()
        self.centre = np.zeros(FEATURES, np.float32)

    def learn(self, batch: Batch) -> None:
        if not self.clock and len(batch):
            self.centre = batch.features[0]
        super().learn(batch)

    def design(self, X: NDArray[np.float32], sparse: Sparse | None) -> NDArray[np.float32]:
        return super().design(X - self.centre, sparse)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"centre": self.centre.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.centre = np.array(state["centre"])

    @property
    def state_bytes(self) -> int:
        return super().state_bytes + 4 * FEATURES


class FailsOnNoRows(Good):
    def learn(self, batch: Batch) -> None:
        float(batch.features[0, 0])
        super().learn(batch)


class CountsBatchesWithoutRows(Good):
    def learn(self, batch: Batch) -> None:
        self.clock += not len(batch)
        super().learn(batch)


# -- outputs -------------------------------------------------------------------------------------------------------------


class LearnsNothing(Good):
    def step(self, batch: Batch, weigh: NDArray[np.float32]) -> None: ...


class DropsTheAxisOfOneRow(Good):
    def link(self, margin: NDArray[np.float32]) -> NDArray[np.float32]:
        return super().link(margin).squeeze()


class PredictsAColumn(Good):
    def predict(self, X: NDArray[np.float32], sparse: Sparse | None = None) -> NDArray[np.float32]:
        return super().predict(X, sparse)[:, None]


class PredictsDoubles(Good):
    def predict(self, X: NDArray[np.float32], sparse: Sparse | None = None) -> NDArray[Any]:
        return super().predict(X, sparse).astype(np.float64)


class NothingBeforeTheFirstRow(Good):
    def predict(self, X: NDArray[np.float32], sparse: Sparse | None = None) -> NDArray[np.float32]:
        found = super().predict(X, sparse)
        return found if self.clock else np.full_like(found, np.nan)


class PredictsMargins(Good):
    classes = 2

    def predict(self, X: NDArray[np.float32], sparse: Sparse | None = None) -> NDArray[np.float32]:
        return (self.design(X, sparse) @ self.table)[:, 0]


class OneAgainstTheRest(Good):
    classes = 4

    def predict(self, X: NDArray[np.float32], sparse: Sparse | None = None) -> NDArray[np.float32]:
        return 1 / (1 + np.exp(-self.design(X, sparse) @ self.table))


class CentresByTheBatch(Good):
    def predict(self, X: NDArray[np.float32], sparse: Sparse | None = None) -> NDArray[np.float32]:
        return super().predict(X - X.mean(axis=0) if len(X) else X, sparse)


class GivesItsRoom(Good):
    """Predictions stand in room that is used again."""

    def __init__(self) -> None:
        super().__init__()
        self.room = np.zeros(64, np.float32)

    def predict(self, X: NDArray[np.float32], sparse: Sparse | None = None) -> NDArray[np.float32]:
        self.room[: len(X)] = super().predict(X, sparse)
        return self.room[: len(X)]


class GivesItsCache(Good):
    """The same rows get the same array, until it learns."""

    def predict(self, X: NDArray[np.float32], sparse: Sparse | None = None) -> NDArray[np.float32]:
        if getattr(self, "asked", None) != (asked := (self.clock, X.tobytes(), sparse is None or sparse.nbytes)):
            self.asked, self.given = asked, super().predict(X, sparse)
        return self.given


# -- the same again ------------------------------------------------------------------------------------------------------


class GlobalNoise(Good):
    def learn(self, batch: Batch) -> None:
        super().learn(batch)
        self.table += np.random.standard_normal(self.shape).astype(np.float32)  # noqa: NPY002


class SeedsEverybody(Good):
    def learn(self, batch: Batch) -> None:
        np.random.seed(0)  # noqa: NPY002
        super().learn(batch)


class DrawsFromPython(Good):
    def predict(self, X: NDArray[np.float32], sparse: Sparse | None = None) -> NDArray[np.float32]:
        random.random()
        return super().predict(X, sparse)


class OneVelocityForAll(Good):
    velocities = np.zeros((FEATURES + SLOTS + 1, 1), np.float32)

    def __init__(self) -> None:
        super().__init__()
        self.velocity = self.velocities
        self.velocity[...] = 0


class PredictingTicks(Good):
    def predict(self, X: NDArray[np.float32], sparse: Sparse | None = None) -> NDArray[np.float32]:
        self.clock += 1
        return super().predict(X, sparse)


# -- many batches in one call --------------------------------------------------------------------------------------------


class GoodRun(Good):
    """Takes many batches in one call, without a defect."""

    can_run, diverged = True, False

    def run(
        self, batch: Batch, size: int, maps: NDArray[np.float32], block: NDArray[np.float64]
    ) -> tuple[int, NDArray[np.float32], NDArray[np.float32] | None]:
        predictions = []
        for done, start in enumerate(range(0, len(batch), size)):
            part = batch.part(start, min(start + size, len(batch)))
            about = part.features - maps[0]
            sums = np.stack([about.sum(axis=0), (about**2).sum(axis=0)])
            prepared = replace(part, features=self.prepare(part.features, maps))
            predictions.append(self.predict(prepared.features, prepared.sparse))
            self.diverged = not np.isfinite(sums).all()
            if self.diverged:
                return self.stop(done, prepared, block), np.concatenate(predictions), sums
            block += self.added(sums)
            self.learn(prepared)
        return done + 1, np.concatenate(predictions), None

    def prepare(self, X: NDArray[np.float32], maps: NDArray[np.float32]) -> NDArray[np.float32]:
        return (X - maps[1]) * maps[2]

    def stop(self, done: int, batch: Batch, block: NDArray[np.float64]) -> int:
        return done

    def added(self, sums: NDArray[np.float32]) -> NDArray[np.float32]:
        return sums


class RunsUnprepared(GoodRun):
    def prepare(self, X: NDArray[np.float32], maps: NDArray[np.float32]) -> NDArray[np.float32]:
        return X


class RunsWithoutSums(GoodRun):
    def added(self, sums: NDArray[np.float32]) -> NDArray[np.float32]:
        return 0 * sums


class RunsOnPastWhatIsNotFinite(GoodRun):
    def stop(self, done: int, batch: Batch, block: NDArray[np.float64]) -> int:
        return done + 1


class LearnsWhatIsNotFinite(GoodRun):
    def stop(self, done: int, batch: Batch, block: NDArray[np.float64]) -> int:
        self.learn(batch)
        return done


class SumsWhatIsNotFinite(GoodRun):
    def stop(self, done: int, batch: Batch, block: NDArray[np.float64]) -> int:
        block += np.nan
        return done


# -- what it claims ------------------------------------------------------------------------------------------------------


class CountsRowsOfNoWeight(Good):
    def learn(self, batch: Batch) -> None:
        super().learn(batch)
        self.clock += 0 if batch.weights is None else float((batch.weights == 0).sum())


class PredictsWithoutTheSparsePart(Good):
    def predict(self, X: NDArray[np.float32], sparse: Sparse | None = None) -> NDArray[np.float32]:
        return super().predict(X)
