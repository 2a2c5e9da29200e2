"""Tests for people who write readers, preparers or learners, and readers that misbehave on purpose.

`ReaderTests`, `LearnerTests` and `PreparerTests` are for pytest: subclass one, say how to make the subject (and, for a
reader, how to write data), and inherit the tests. `check_reader` needs neither pytest nor a way to write data; it is what
``streamtrain check-reader`` runs. The wrappers are for your own tests: they make a reader fail, slow down or return wrong
data, and count its reads.

`assert_resumes_exactly` tests anything that has a state, including a training loop of your own.
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
