"""A run whose model goes on to learn from other data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from streamtrain.columns.roles import ROLES
from streamtrain.errors import UsageError
from streamtrain.identity import flag, is_same
from streamtrain.model import Model, load_model
from streamtrain.run import read_report
from streamtrain.settings import Settings

__all__ = ["Parent"]

#: settings of the linear family that a run may change on its way: they shape no state
_FREE = ("step", "l1", "l2")


@dataclass(frozen=True)
class Parent:
    """The run that another one continues. model: with all that it has learned; lineage: of it and its own parents, the oldest
    first: ``run``, ``rows_seen``, ``fingerprint`` of its data."""

    run: str
    model: Model
    lineage: list[dict[str, Any]]

    @classmethod
    def load(cls, run: str | Path) -> Parent:
        """Raises RunError for a folder that holds no finished run."""
        model, report = load_model(run), read_report(Path(run))
        own = {"run": str(run), "rows_seen": report.get("rows_seen"), "fingerprint": report.get("fingerprint")}
        parents = report.get("lineage", [])
        return cls(str(run), model, [*(parents if isinstance(parents, list) else []), own])

    @property
    def _own(self) -> dict[str, Any]:
        """The settings that are the model's."""
        model, layout = self.model, self.model.layout
        assert model.settings is not None
        names = list(model.target.names)
        return asdict(model.settings) | {
            "target": names[0] if len(names) == 1 else names,
            "task": model.task,
            "features": [column.name for column in layout.columns],
            "roles": {column.name: column.role for column in layout.columns if column.role in ROLES},
            "crosses": [":".join(cross) for cross in layout.crosses],
            "weight": layout.weight,
            "hash_bits": model.preparation.slots.bits,
            "infinities": model.prepared.infinities,
        }

    def settings(self, target: str | Sequence[str] | None, given: Mapping[str, Any]) -> Settings:
        """Those of the model, and what is given beside them. Raises UsageError where something of the model's is given
        otherwise."""
        own, found = self._own, {name: value for name, value in given.items() if value is not None}
        if target is not None:
            found["target"] = target
        different = []
        for name, value in own.items():
            same = name not in found or is_same(found[name], value) or self._may_be(name, found[name])
            if not same and name not in _FREE:
                different.append(f"{flag(name)} is {found[name]}, the model has {value}")
        for name in ("l1", "l2"):
            if bool(found.get(name, own[name])) != bool(own[name]):  # what a penalty needs is part of the state
                different.append(f"{flag(name)} is {found[name]}, the model has {own[name]}")
        if found.get("exclude"):
            different.append("--exclude: the columns are the model's")
        if different:
            raise UsageError(
                f"--continue-from {self.run}: {'; '.join(different)}: leave these out, or start a run of its own without it"
            )
        merged = own | {name: value for name, value in found.items() if name in (*_FREE, "loss") or name not in own}
        return Settings.of(merged.pop("target"), merged)

    def _may_be(self, name: str, value: Any) -> bool:
        """Whether it is the loss that the model has by default, or the one that goes on where there are more classes."""
        loss = getattr(getattr(self.model.learner, "loss", None), "name", None)
        return name == "loss" and (value == loss or (loss, value) == ("logistic", "softmax"))
