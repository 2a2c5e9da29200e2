"""The checks of what a learner shares with the process: random numbers, clocks, numpy's settings, files; as in `checks`."""

from __future__ import annotations

import locale
import os
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from streamtrain.testing.learners.process import elsewhere, traces
from streamtrain.testing.learners.subject import LearnerSubject
from streamtrain.testing.readers.subject import CheckFailed, Skipped, require

__all__: list[str] = []

_CLOCKS = ("time", "monotonic", "perf_counter", "process_time", "thread_time")
_LATER_SECONDS = 100 * 24 * 3600.0
_OPEN_FILES = Path("/proc/self/fd")


def global_random(subject: LearnerSubject) -> None:
    """The global random numbers, of numpy and of Python, are neither used nor changed."""
    kept, kept_python = np.random.get_state(), random.getstate()  # noqa: NPY002
    things = []
    try:
        for seed in (1, 2):
            np.random.seed(seed)  # noqa: NPY002
            random.seed(seed)
            before, before_python = _words(), random.getstate()
            things.append(_run(subject))
            for what, same in (
                ("np.random's global state", _words() == before),
                ("the global state of Python's random", random.getstate() == before_python),
            ):
                require(same, f"learning or predicting changed {what}: use a generator of your own, made from a seed")
    finally:
        np.random.set_state(kept)  # noqa: NPY002
        random.setstate(kept_python)
    subject.same(things[0], things[1], [subject.probe], "with another seed of the global random numbers")


def _words() -> tuple[bytes, int]:
    state: Any = np.random.get_state()  # noqa: NPY002
    return state[1].tobytes(), int(state[2])


def _run(subject: LearnerSubject) -> Any:
    """A learner that has learned, and predicted after each batch."""
    thing, probe = subject.make(), subject.probe
    for batch in subject.stream():
        subject.gives(subject.feed(thing, batch), probe)
    return thing


def clock(subject: LearnerSubject) -> None:
    """The result depends neither on the time of day nor on how long anything took."""
    now = _run(subject)
    with _hours_pass():
        later = _run(subject)
    subject.same(later, now, [subject.probe], "while hours passed between one call of a clock and the next; the only "
                 "clock of a learner is its rows")  # fmt: skip


@contextmanager
def _hours_pass() -> Iterator[None]:
    """Clocks of module `time` are months ahead, and hours pass at each look."""
    passed = 0

    def ahead(clock: Callable[[], Any], unit: int | float) -> Callable[[], Any]:
        def look() -> Any:
            nonlocal passed
            passed += 1
            return clock() + type(unit)(_LATER_SECONDS + 3600 * passed) * unit

        return look

    clocks: dict[str, Any] = {name: ahead(getattr(time, name), 1.0) for name in _CLOCKS}
    clocks |= {f"{name}_ns": ahead(getattr(time, f"{name}_ns"), 10**9) for name in _CLOCKS}
    with mock.patch.multiple(time, **clocks):
        yield


def surroundings(subject: LearnerSubject) -> None:
    """Settings of the process are not changed, and numpy's settings for errors make no difference."""
    before = _settings()
    with np.errstate(all="ignore"):
        lenient = _kept(_run, subject)
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        try:
            strict = _kept(_run, subject)
        except FloatingPointError as error:
            raise CheckFailed(f"FloatingPointError: {error}, where the user has asked numpy to raise: avoid it, or "
                              "compute it inside of `with np.errstate(...)`") from error  # fmt: skip
    subject.same(strict, lenient, [subject.probe], "with numpy raising errors (np.seterr) and without")
    _require_kept(before)


def _kept(work: Callable[[LearnerSubject], Any], subject: LearnerSubject) -> Any:
    before = _settings()
    found = work(subject)
    _require_kept(before)
    return found


def _settings() -> dict[str, Any]:
    return {
        "np.geterr()": np.geterr(),
        "np.get_printoptions()": np.get_printoptions(),
        "warnings.filters": list(warnings.filters),
        "os.environ": dict(os.environ),
        "os.getcwd()": os.getcwd(),
        "locale.setlocale(locale.LC_ALL)": locale.setlocale(locale.LC_ALL),
        "sys.path": list(sys.path),
    }


def _require_kept(before: dict[str, Any]) -> None:
    for name, value in _settings().items():
        require(
            value == before[name],
            f"learning or predicting changed {name}, which the whole process shares: restore it, or do not change it",
        )


def open_files(subject: LearnerSubject) -> None:
    """No file is kept open: what was learned belongs in the state, and a process can open only so many files."""
    if not _OPEN_FILES.is_dir():
        raise Skipped("open files can be listed on Linux only")
    before = _files()
    thing = _run(subject)
    more = sorted(_files() - before)
    del thing
    is_are = "file is open that was" if len(more) == 1 else "files are open that were"
    require(not more, f"after learning, {len(more)} {is_are} not before: {', '.join(more[:3])}")


def _files() -> set[str]:
    """The paths of open files on a disk, each with its number."""
    found = set()
    for entry in os.listdir(_OPEN_FILES):
        try:
            place = os.readlink(_OPEN_FILES / entry)
        except OSError:  # the listing's own
            continue
        if place.startswith("/") and not place.startswith(("/dev/", "/proc/", "/sys/")):
            found.add(f"{place} (file {entry})")
    return found


def another_process(subject: LearnerSubject) -> None:
    """Another process, in which strings have other hashes, comes to the same bits, so that a run can be resumed."""
    there = elsewhere(subject)
    for count, (found, wanted) in enumerate(zip(there, traces(subject), strict=True)):
        for name in wanted:
            require(found.get(name) == wanted[name],
                    f"after batch {count} {name} has other bits in another process: does it depend on hash(), on the order "
                    "of a set, on id(), or on what the process did before?")  # fmt: skip
