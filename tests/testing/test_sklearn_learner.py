"""An estimator of scikit-learn, written as a learner in a few lines, passes the suite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import SGDClassifier

from streamtrain.batch import Batch
from streamtrain.testing import LearnerTests

LEARNED = ("coef_", "intercept_", "t_")


class OfScikitLearn:
    def __init__(self, features: int, classes: int) -> None:
        self.model, self.classes = SGDClassifier(loss="log_loss", random_state=0), np.arange(classes)
        self.model.partial_fit(np.zeros((1, features), np.float32), [0], self.classes)  # makes the arrays
        self.load_state_dict({name: np.zeros_like(value) for name, value in self.state_dict().items()} | {"t_": 1.0})

    def learn(self, batch: Batch) -> None:
        if len(batch):
            self.model.partial_fit(batch.features, batch.targets, sample_weight=batch.weights)

    def predict(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        if not len(X):
            return np.zeros((0, len(self.classes))[: 1 + (len(self.classes) > 2)], np.float32)
        found = self.model.predict_proba(X).astype(np.float32)
        return found if len(self.classes) > 2 else np.ascontiguousarray(found[:, 1])

    def state_dict(self) -> dict[str, Any]:
        return {name: np.array(getattr(self.model, name)) for name in LEARNED}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, own in self.state_dict().items():
            if np.shape(state[name]) != own.shape:
                raise ValueError(f"{name} has shape {np.shape(state[name])}, not {own.shape}")
        for name in LEARNED:
            setattr(self.model, name, np.array(state[name]) if name != "t_" else float(state[name]))

    @property
    def state_bytes(self) -> int:
        return sum(value.nbytes for value in self.state_dict().values())


class TestOfScikitLearn(LearnerTests):
    classes, growth_batches = 2, (10, 60)

    def make(self) -> OfScikitLearn:
        return OfScikitLearn(self.features, self.classes)


class TestOfScikitLearnOfFourClasses(TestOfScikitLearn):
    classes = 4
    test_another_process: Any = None  # it takes a second
