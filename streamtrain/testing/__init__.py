"""For people who write a reader: whether it keeps the contract, and readers that misbehave on purpose.

`ReaderTests` is for pytest: subclass it, say how data are written, inherit the tests. `check_reader` needs no pytest and no
way to write; it is what ``streamtrain check-reader`` runs. Both run the functions of `checks`, `sizes` and `written`. The
wrappers are for tests of one's own: how does what I have built bear storage that fails, is slow, lies, and how often does
it read.

`assert_resumes_exactly` is the test of everything with a state, a loop of one's own included.
"""

from __future__ import annotations

from streamtrain.testing.learners.resuming import assert_resumes_exactly
from streamtrain.testing.learners.suite import LearnerTests, PreparerTests
from streamtrain.testing.readers.running import Result, check_reader
from streamtrain.testing.readers.subject import CheckFailed, ReaderWarning
from streamtrain.testing.readers.suite import ReaderTests
from streamtrain.testing.readers.wrappers import CorruptReader, CountingReader, FlakyReader, SlowReader

__all__ = [
    "CheckFailed",
    "CorruptReader",
    "CountingReader",
    "FlakyReader",
    "LearnerTests",
    "PreparerTests",
    "ReaderTests",
    "ReaderWarning",
    "Result",
    "SlowReader",
    "assert_resumes_exactly",
    "check_reader",
]
