"""What a family of learners is, and what its learners are made for. Imports no numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamtrain.learn.learner import Learner
    from streamtrain.state import Form

__all__ = ["ChecksSettings", "Family", "KnowsForms", "LearnerShape", "NewClasses"]


@dataclass(frozen=True)
class LearnerShape:
    """What a learner is made for. features: columns of the dense part. slots: columns of the sparse part (categories, text,
    missing numbers). classes: how many classes are learned; 0 for regression and for several binary targets. targets: how
    many targets are learned at once.

    >>> LearnerShape(features=3, classes=2)
    LearnerShape(features=3, slots=0, classes=2, targets=1)
    """

    features: int
    slots: int = 0
    classes: int = 0
    targets: int = 1


@runtime_checkable
class Family(Protocol):
    """A kind of learner, with its own settings."""

    @property
    def name(self) -> str:
        """The name that ``--learner`` takes."""

    @property
    def description(self) -> str:
        """One line for people who choose."""

    @property
    def Settings(self) -> type[Any]:  # noqa: N802 (a class)
        """A frozen dataclass of the family's settings. All of its fields have defaults, and JSON can hold them."""

    def make(self, shape: LearnerShape, settings: Any) -> Learner:
        """A new learner. Raises UsageError for an invalid setting."""


@runtime_checkable
class ChecksSettings(Protocol):
    """What a family can add: it refuses settings before a learner is made, in the words of the user. Without these methods
    `Family.make` refuses them."""

    def check(self, settings: Any) -> None:
        """Raise UsageError for settings that do not go together, before any data are opened."""

    def require_fits(self, settings: Any, target: str, task: str, classes: int) -> None:
        """Raise UsageError for settings that do not fit a target. target: its name. task: ``classify`` or ``regress``.
        classes: how many; 0 for regression, 2 where they are not known yet."""


@runtime_checkable
class KnowsForms(Protocol):
    """What a family can add: what the arrays of a state are, before there is a learner. Then a stored state is compared with it
    before an array is loaded; without it `Learner.load_state_dict` has to refuse a state of another shape."""

    def forms(self, shape: LearnerShape, settings: Any) -> Mapping[str, Form]:
        """The form of each array and number of a state, by name."""


@runtime_checkable
class NewClasses(Protocol):
    """What a family may offer: its learners can continue an older one with other settings or with more classes. Without these
    methods settings and classes must be the same."""

    def differences(
        self, new: tuple[Any, Any], old: tuple[Any, Any], *, more_classes: bool
    ) -> Mapping[str, tuple[Any, Any]]:
        """The values that must be the same in two learners, each given as (learner, settings): by flag, that of the new
        learner and that of the old one. A difference is refused."""

    def require_new_classes(self, old: Learner, settings: Any, classes: Sequence[Any]) -> None:
        """Raise UsageError unless the old learner can continue with these classes, which are more than it knows, and these
        settings."""

    def for_new_classes(
        self, state: dict[str, Any], old: Learner, new: Learner, positions: Sequence[int]
    ) -> dict[str, Any]:
        """The state of the new learner, made from that of the old one, which may be modified. positions: of the old classes
        among the new ones."""
