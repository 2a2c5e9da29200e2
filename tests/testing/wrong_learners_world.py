"""Learners with one defect each in what they share with the process, or take from it; the others are in `wrong_learners`."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wrong_learners import Good

from streamtrain.batch import Batch, Sparse


class FadesWithTheHours(Good):
    """Too little, from one batch to the next, to be seen by those who do not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.then = time.monotonic()

    def learn(self, batch: Batch) -> None:
        super().learn(batch)
        now = time.monotonic()
        self.table *= np.float32(0.99 ** ((now - self.then) / 3600 // 1))
        self.then = now


class SilencesNumpy(Good):
    def learn(self, batch: Batch) -> None:
        np.seterr(over="ignore" if np.geterr()["over"] != "ignore" else "call")
        super().learn(batch)


class OverflowsUnseen(Good):
    def link(self, margin: NDArray[np.float32]) -> NDArray[np.float32]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return super().link(margin) + 1 / (1 + np.exp(np.abs(margin[:, 0]) + np.float32(200)))


class GivesUpOnOverflow(Good):
    """Where numpy raises, the batch is left out."""

    def learn(self, batch: Batch) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                np.float32(1e30) * np.float32(1e30 * (1 + len(batch)))
            except FloatingPointError:
                return
        super().learn(batch)


class SetsTheEnvironment(Good):
    def learn(self, batch: Batch) -> None:
        os.environ["A_LEARNER_HAS_SEEN"] = str(int(os.environ.get("A_LEARNER_HAS_SEEN", "0")) + len(batch))
        super().learn(batch)


class KeepsAFileOpen(Good):
    def __init__(self) -> None:
        super().__init__()
        self.log = os.open(__file__, os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self.log)


class SignsByHash(Good):
    """Strings hash otherwise in each process."""

    def design(self, X: NDArray[np.float32], sparse: Sparse | None) -> NDArray[np.float32]:
        signs = [1 - 2 * (hash(f"column {i}") & 1) for i in range(self.shape[0])]
        return super().design(X, sparse) * np.array(signs, np.float32)


class ReadsTheStateInOrder(Good):
    """A file gives the entries in an order of its own."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.check(state)
        table, velocity, clock = state.values()
        super().load_state_dict({"table": table, "velocity": velocity, "clock": clock})


class KeepsWhatItPredictsWith(Good):
    """Until it learns; but also where a state is loaded."""

    ready: NDArray[np.float32] | None = None

    def learn(self, batch: Batch) -> None:
        super().learn(batch)
        if len(batch):
            self.ready = None

    def predict(self, X: NDArray[np.float32], sparse: Sparse | None = None) -> NDArray[np.float32]:
        if self.ready is None:
            self.ready = self.table + self.velocity / 2
        return self.link(self.design(X, sparse) @ self.ready)
