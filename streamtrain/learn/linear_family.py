"""Linear models as a family of learners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any, ClassVar, cast

from streamtrain.errors import UsageError, listed
from streamtrain.learn import new_classes
from streamtrain.learn.family import LearnerShape
from streamtrain.learn.fused import Linear
from streamtrain.learn.losses import LOSSES, Logistic, Softmax, get_loss
from streamtrain.learn.optimizers import Ftrl, get_optimizer
from streamtrain.learn.settings import LinearSettings
from streamtrain.state import Form

__all__ = ["LINEAR", "LinearFamily"]


class LinearFamily:
    """Linear models of any loss and optimizer. Also says how one of them continues another: see `new_classes`."""

    name: ClassVar[str] = "linear"
    description: ClassVar[str] = "a linear model: squared, logistic and other losses, any optimizer, L1 and L2"
    Settings: ClassVar[type[LinearSettings]] = LinearSettings

    def make(self, shape: LearnerShape, settings: LinearSettings) -> Linear:
        """A new model. Raises UsageError for an invalid setting."""
        return Linear(shape.features, shape.classes, slots=shape.slots, targets=shape.targets, **asdict(settings))

    def forms(self, shape: LearnerShape, settings: LinearSettings) -> dict[str, Form]:
        """See `KnowsForms`: those of a model of one column and one slot, with the axes of this shape."""
        forms = self.make(replace(shape, features=1, slots=min(1, shape.slots)), settings).forms()
        rows = {2: shape.features + 1, 1: shape.slots}
        return {
            name: form._replace(shape=(rows[1 if name == "sparse" else form.shape[0]], *form.shape[1:]))
            if form.shape
            else form
            for name, form in forms.items()
        }

    def check(self, settings: LinearSettings) -> None:
        """See `ChecksSettings`: the parameters are those of the loss, and the schedule is one of the optimizer."""
        get_optimizer(settings.optimizer, settings.learning_rate_schedule)
        parameters = {field.name for loss in LOSSES.values() for field in fields(cast(Any, loss))}
        given = {name: value for name, value in asdict(settings).items() if name in parameters and value is not None}
        get_loss(settings.loss or "squared", **given)  # those that a task has by default have no parameters

    def require_fits(self, settings: LinearSettings, target: str, task: str, classes: int) -> None:
        """See `ChecksSettings`: a loss is for one task, and some losses are for two classes."""
        if settings.loss is None:
            return
        loss = LOSSES[settings.loss]
        if loss.task != task:
            fitting = ", ".join(name for name in sorted(LOSSES) if LOSSES[name].task == task)
            what = "classes" if task == "classify" else "numbers"
            raise UsageError(
                f"--loss {settings.loss} is for {'regression' if loss.task == 'regress' else 'classes'}, but target "
                f"{target!r} is {what}: use one of {fitting}, or add --task {loss.task}"
            )
        if classes > 2 and not isinstance(loss, Softmax):
            raise UsageError(f"--loss {settings.loss} is for two classes, target {target!r} has {classes}: use softmax")

    def differences(
        self, new: tuple[Linear, LinearSettings], old: tuple[Linear, LinearSettings], *, more_classes: bool
    ) -> Mapping[str, tuple[Any, Any]]:
        """See `NewClasses`. Learning rate and penalties may change, but a penalty can neither appear nor disappear, because the
        state depends on it. FTRL computes its weights from sums, rate and penalties, so these must be the same."""
        (mine, settings), (its, old_settings) = new, old
        compared: dict[str, tuple[Any, Any]] = {
            "--optimizer": (mine.optimizer.name, its.optimizer.name),
            "--learning-rate-schedule": (settings.learning_rate_schedule, old_settings.learning_rate_schedule),
            "--average": (settings.average, old_settings.average),
            "--l1": (_size(mine.l1), _size(its.l1)),
            "--l2": (_size(mine.l2), _size(its.l2)),
        }
        if not more_classes:
            compared["--loss"] = (str(mine.loss), str(its.loss))
        if isinstance(mine.optimizer, Ftrl) and mine.loss == its.loss:
            compared["--learning-rate"] = (mine.learning_rate, its.learning_rate)
            compared |= {"--l1": (mine.l1, its.l1), "--l2": (mine.l2, its.l2)}
        return compared

    def require_new_classes(self, old: Linear, settings: LinearSettings, classes: Sequence[Any]) -> None:
        """See `NewClasses`: more classes are learned by softmax, which continues logistic loss too."""
        count, named = len(classes), listed(classes)
        if not isinstance(old.loss, Logistic | Softmax):
            raise UsageError(
                f"the old run's loss is {old.loss.name!r}, which is for two classes; now there are {count} ({named}): leave "
                "the rows of new classes out, or fit a new run with --loss softmax"
            )
        if settings.loss not in (None, "softmax"):
            raise UsageError(
                f"--loss {settings.loss}: is for two classes; now there are {count} ({named}): give --loss softmax, which "
                "continues logistic, or leave the rows of new classes out"
            )

    def for_new_classes(
        self, state: dict[str, Any], old: Linear, new: Linear, positions: Sequence[int]
    ) -> dict[str, Any]:
        """See `NewClasses`: `new_classes` widens the state."""
        return new_classes.widened(state, old, new, positions)


def _size(penalty: float) -> str:
    return "above 0" if penalty else "0"


LINEAR = LinearFamily()
