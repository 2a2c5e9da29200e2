"""Calls of code that a user wrote: an exception there is theirs to mend, and the message says where it came from."""

from __future__ import annotations

import operator
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from streamtrain.errors import LearnerError, StreamtrainError, UsageError

if TYPE_CHECKING:
    from streamtrain.kernels.crash import reading

__all__ = ["MEMBERS", "Calling", "is_own_code", "learner_title", "require_members", "state_bytes_of", "state_of"]

MEMBERS = ("learn", "predict", "state_dict", "load_state_dict", "state_bytes")
_MISSING = object()


def is_own_code(learner: Any) -> bool:
    """Whether a user wrote the class of a learner."""
    return type(learner).__module__.partition(".")[0] != __name__.partition(".")[0]


def learner_title(learner: Any) -> str:
    """The class of a learner, for messages."""
    return f"--learner {type(learner).__module__}:{type(learner).__qualname__}"


def _naming(learner: Any) -> reading:
    """A context in which a crash names the learner."""
    from streamtrain.kernels.crash import reading  # imports numpy, which the list of families must not

    return reading("", own=learner_title(learner))


class Calling:
    """A context in which a learner's own code runs: its exceptions become LearnerErrors. What streamtrain raises, and want of
    memory, stays as it is, and so does everything that a learner of streamtrain itself raises.

    did: what the learner did, for the message. then: what to do about it.
    """

    def __init__(self, learner: Any, did: str, then: str = "") -> None:
        self._learner, self._did, self._then, self._is_own = learner, did, then, is_own_code(learner)
        self._running = _naming(learner) if self._is_own else None

    def __enter__(self) -> None:
        if self._running is not None:
            self._running.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._running is not None:
            self._running.__exit__(None, None, None)
        if not self._is_own or error is None or isinstance(error, (KeyboardInterrupt, GeneratorExit)):
            return
        if isinstance(error, (StreamtrainError, MemoryError)):
            return
        text = f": {error}" if str(error) else ""
        raise LearnerError(
            f"{learner_title(self._learner)}: {self._did} {type(error).__name__}{text}{_place(trace)}{self._then}"
        ) from error


def _place(trace: TracebackType | None) -> str:
    """The innermost line of the learner's own file, as `` (file:line)``; nothing where no line of Python was run."""
    frames = traceback.extract_tb(trace)[1:]  # the first one is the call
    lines = [frame.lineno for frame in frames if frame.filename == frames[0].filename]
    return f" ({Path(frames[0].filename).name}:{lines[-1]})" if lines else ""


def require_members(learner: Any, title: str) -> None:
    """Raise UsageError unless this is a learner. title: begins the message."""
    if isinstance(learner, type):
        raise UsageError(f"{title}, which is a class: see docs/learners.md")
    for name in MEMBERS:
        with Calling(learner, f"{name} raised"):
            member = getattr(learner, name, _MISSING)
        if member is _MISSING:
            raise UsageError(f"{title}, which has no {name}: see docs/learners.md")
        if name != "state_bytes" and not callable(member):
            raise UsageError(f"{title}, whose {name} is {member!r}: it must be a method: see docs/learners.md")


def state_bytes_of(learner: Any) -> int:
    """The bytes that a learner says it takes. Raises UsageError where it says something else than a number of bytes."""
    with Calling(learner, "state_bytes raised"):
        size = learner.state_bytes
    if callable(size):
        raise UsageError(f"{learner_title(learner)}: state_bytes is a method: add @property")
    try:
        size = operator.index(size)
    except TypeError:
        raise UsageError(
            f"{learner_title(learner)}: state_bytes is {size!r}: it must be a whole number of bytes"
        ) from None
    if size < 0:
        raise UsageError(f"{learner_title(learner)}: state_bytes is {size}: it must be at least 0")
    return size


def state_of(learner: Any) -> Mapping[str, Any]:
    """The state of a learner. Raises LearnerError where its state_dict() fails or returns something else than a mapping."""
    with Calling(learner, "state_dict() raised"):
        state = learner.state_dict()
    if not isinstance(state, Mapping):
        raise LearnerError(
            f"{learner_title(learner)}: state_dict() returned a {type(state).__name__}: it must be a dict"
        )
    return state
