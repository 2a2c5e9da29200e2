"""The checks of learners, and of the pieces of preparation, as classes for pytest. They import no pytest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from streamtrain.batch import Batch
from streamtrain.learn.family import LearnerShape
from streamtrain.testing.learners import checks, fused, sizes, state, world
from streamtrain.testing.learners.generated import generated_batch
from streamtrain.testing.learners.subject import LearnerSubject, Task

__all__ = ["LEARNER_CHECKS", "LearnerTests", "PreparerTests"]

#: every check, in the order in which they are run
LEARNER_CHECKS: tuple[Callable[[LearnerSubject], None], ...] = (
    checks.members, checks.outputs, checks.learns, checks.empty_batch,
    checks.one_row, checks.rows_alone, checks.inputs, checks.read_only,
    checks.keeps_nothing, checks.outputs_are_yours, checks.deterministic,
    checks.predicting, world.global_random, world.clock, world.surroundings,
    world.open_files, world.another_process, state.state_values, state.resumes,
    state.state_copies, state.other_state, sizes.bounded_growth, sizes.declared_bytes,
    checks.weights, checks.sparse, fused.fused_run,
)  # fmt: skip


class LearnerTests:
    """The conformance suite of a learner. Subclass it in a test module, say how to make one, and inherit the tests::

        class TestMine(LearnerTests):
            classes = 2

            def make(self):
                return Mine(self.shape)

    For regression ``make`` is all that is needed. What the learner claims is declared by

    - ``classes``, 0 for regression, and ``targets``, where more than one is learned at once;
    - ``slots``: columns of the sparse part; 0, where it has none;
    - ``weights = True``, where the weights of rows count.

    Override also

    - ``features``, the columns of X; many of them make the check of declared bytes sharper;
    - ``batch(rows, seed)``, where it needs other data: the same rows for the same arguments, which differ from seed to
      seed;
    - ``sizes``, rows of the batches that are learned, ten by default; its state is tried after each;
    - ``learn(subject, batch)`` and ``output(subject, batch)``, where other methods do that, and ``members``, their names;
    - ``growth_batches``, between which counts of batches of 32 rows memory must not grow;
    - ``most_declared``, how many times the bytes of its state it may declare;
    - ``free_shapes``, names of its state whose first axis depends on what was learned, as that of a dictionary.

    A test that does not apply is removed with ``test_one_row = None`` and a reason beside it.
    """

    members: ClassVar[Sequence[str]] = ("learn", "predict", "state_dict", "load_state_dict", "state_bytes")
    features: ClassVar[int] = 8
    classes: ClassVar[int] = 0
    targets: ClassVar[int] = 1
    slots: ClassVar[int] = 0
    weights: ClassVar[bool] = False
    sizes: ClassVar[Sequence[int]] = (32, 1, 7, 32, 64, 32, 3, 32, 32, 16)
    growth_batches: ClassVar[tuple[int, int]] = (50, 500)
    most_declared: ClassVar[float] = 8
    free_shapes: ClassVar[Sequence[str]] = ()

    _predicts: ClassVar[bool] = True

    @property
    def shape(self) -> LearnerShape:
        """What the learner is made for, as `fit` tells a class or function that makes one."""
        return LearnerShape(self.features, self.slots, self.classes, self.targets)

    def make(self) -> Any:
        """A new learner; the same at every call."""
        raise NotImplementedError(f"{type(self).__name__} must say how one is made: def make(self)")

    def batch(self, rows: int, seed: int) -> Batch:
        """Rows to learn from."""
        return generated_batch(
            rows, seed, features=self.features, classes=self.classes, targets=self.targets, slots=self.slots,
            weights=self.weights,
        )  # fmt: skip

    def learn(self, subject: Any, batch: Batch) -> None:
        """Let it learn from a batch."""
        subject.learn(batch)

    def output(self, subject: Any, batch: Batch) -> Any:
        """What it predicts for a batch: arrays, alone or in a list, mapping or dataclass."""
        if batch.sparse is None:
            return subject.predict(batch.features)
        return subject.predict(batch.features, batch.sparse)

    def _run(self, check: Callable[[LearnerSubject], None]) -> None:
        check(self.as_subject())

    def as_subject(self) -> LearnerSubject:
        """The subject of the checks."""
        return LearnerSubject(
            self.make, self.learn, self.output, self.batch, self.sizes, self.members,
            Task(self.classes, self.targets) if self._predicts else None, self.slots, self.weights,
            self.growth_batches, self.most_declared, self.free_shapes,
        )  # fmt: skip

    def test_members(self) -> None:
        self._run(checks.members)

    def test_outputs(self) -> None:
        self._run(checks.outputs)

    def test_learns(self) -> None:
        self._run(checks.learns)

    def test_empty_batch(self) -> None:
        self._run(checks.empty_batch)

    def test_one_row(self) -> None:
        self._run(checks.one_row)

    def test_rows_alone(self) -> None:
        self._run(checks.rows_alone)

    def test_inputs(self) -> None:
        self._run(checks.inputs)

    def test_read_only(self) -> None:
        self._run(checks.read_only)

    def test_keeps_nothing(self) -> None:
        self._run(checks.keeps_nothing)

    def test_outputs_are_yours(self) -> None:
        self._run(checks.outputs_are_yours)

    def test_deterministic(self) -> None:
        self._run(checks.deterministic)

    def test_predicting(self) -> None:
        self._run(checks.predicting)

    def test_global_random(self) -> None:
        self._run(world.global_random)

    def test_clock(self) -> None:
        self._run(world.clock)

    def test_surroundings(self) -> None:
        self._run(world.surroundings)

    def test_open_files(self) -> None:
        self._run(world.open_files)

    def test_another_process(self) -> None:
        self._run(world.another_process)

    def test_state_values(self) -> None:
        self._run(state.state_values)

    def test_resumes(self) -> None:
        self._run(state.resumes)

    def test_state_copies(self) -> None:
        self._run(state.state_copies)

    def test_other_state(self) -> None:
        self._run(state.other_state)

    def test_bounded_growth(self) -> None:
        self._run(sizes.bounded_growth)

    def test_declared_bytes(self) -> None:
        self._run(sizes.declared_bytes)

    def test_weights(self) -> None:
        self._run(checks.weights)

    def test_sparse(self) -> None:
        self._run(checks.sparse)

    def test_fused_run(self) -> None:
        self._run(fused.fused_run)


class PreparerTests(LearnerTests):
    """The same for what prepares rows: it has ``observe``, ``transform`` and a state::

        class TestMine(PreparerTests):
            def make(self):
                return Mine(self.features)

    By default it observes the features of a batch and transforms a copy of them; ``learn`` and ``output`` say otherwise.
    """

    members: ClassVar[Sequence[str]] = ("observe", "transform", "state_dict", "load_state_dict", "state_bytes")
    _predicts: ClassVar[bool] = False

    def learn(self, subject: Any, batch: Batch) -> None:
        """Let it observe the features of a batch."""
        subject.observe(batch.features)

    def output(self, subject: Any, batch: Batch) -> Any:
        """What it makes of a copy of the features, as it may change what it is given to transform."""
        return subject.transform(batch.features.copy())
