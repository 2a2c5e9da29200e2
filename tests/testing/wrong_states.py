"""Learners with one defect each in what they say of their state and memory; the others are in `wrong_learners`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from wrong_learners import Good

from streamtrain.batch import Batch
from streamtrain.errors import DataError

# -- state ---------------------------------------------------------------------------------------------------------------


class ForgetsItsStats(Good):
    def state_dict(self) -> dict[str, Any]:
        return {name: value for name, value in super().state_dict().items() if name != "clock"}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict({**state, "clock": 0.0})


class ForgetsWhatItHadBefore(Good):
    """The velocity is written, but not read."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        before = self.velocity.copy()
        super().load_state_dict(state)
        self.velocity[...] = before


class AddsToWhatItHas(Good):
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        before = self.clock
        super().load_state_dict(state)
        self.clock = max(self.clock, before)


class StateInHalves(Good):
    """Precision is lost on the way."""

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"velocity": self.velocity.astype(np.float16)}


class StateItself(Good):
    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"table": self.table}


class KeepsTheStateItLoads(Good):
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.check(state)
        table = state["table"]
        self.table = table if table.flags.writeable else table.copy()
        self.velocity[...], self.clock = state["velocity"], float(state["clock"])


class StateOfText(Good):
    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"optimizer": np.array(["momentum"])}


class LoadsAnyShape(Good):
    def check(self, state: Mapping[str, Any]) -> None:
        if missing := self.state_dict().keys() - state.keys():
            raise DataError(f"the state lacks {missing}")
        np.broadcast_shapes(state["table"].shape, self.shape)
        np.broadcast_to(state["velocity"], self.shape)


class LoadsHalf(Good):
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if np.shape(state["table"]) == self.shape:
            self.table[...] = state["table"]
        super().load_state_dict(state)


class RefusesWithoutAWord(Good):
    def check(self, state: Mapping[str, Any]) -> None:
        try:
            super().check(state)
        except DataError:
            raise ValueError from None


# -- bytes ---------------------------------------------------------------------------------------------------------------


class KeepsANumberARow(Good):
    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []

    def learn(self, batch: Batch) -> None:
        self.losses += [float(y) for y in batch.targets]
        super().learn(batch)


class StateGrows(Good):
    def __init__(self) -> None:
        super().__init__()
        self.seen = np.zeros(0, np.float32)

    def learn(self, batch: Batch) -> None:
        self.seen = np.concatenate([self.seen, batch.targets])
        super().learn(batch)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"seen": self.seen.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seen = np.array(state["seen"])
        super().load_state_dict(state)


class DeclaresTooLittle(Good):
    @property
    def state_bytes(self) -> int:
        return self.table.nbytes


class DeclaresTooMuch(Good):
    @property
    def state_bytes(self) -> int:
        return 1_000_000_000


class DeclaresOnceItHasLearned(Good):
    @property
    def state_bytes(self) -> int:
        return 1000 if not self.clock else 10_000


class HoldsMore(Good):
    def __init__(self) -> None:
        super().__init__()
        self.room = np.zeros(100_000, np.float32)


class BytesAreAMethod(Good):
    def state_bytes(self) -> int:  # type: ignore[override]
        return 2 * self.table.nbytes + 8
