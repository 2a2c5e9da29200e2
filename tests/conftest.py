"""For all tests."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import make
import numpy  # noqa: F401 -- its BLAS is there to be limited
import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits

settings.register_profile("any machine", deadline=None, max_examples=make.EXAMPLES)  # some are slow, or busy
settings.register_profile("long", deadline=None, max_examples=20 * make.EXAMPLES)  # for scripts/measure
settings.load_profile("any machine")

# A product of matrices on several threads leaves them spinning for some 25 ms. Each fit makes three, and with as many test
# processes as cores that was half of the time of all tests. Processes that tests start have the threads that users have.
threadpool_limits(1, "blas")

# Containers set it. Then each of the 200 processes that tests start would compile the package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # shells start what runs in the background so
    signal.signal(signal.SIGINT, signal.default_int_handler)


def set_aside() -> None:
    """What is there now, modules for the most part, is not looked through again. Every run collects garbage before it measures
    its peak: with the libraries of all tests in one process that was half of the time of tests that fit or copy."""
    gc.collect()
    gc.freeze()


def pytest_collection_finish() -> None:
    set_aside()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    yield
    if nextitem is not None and nextitem.path != item.path:
        set_aside()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each process gets a half that hangs together, so that what the tests of a module share is made in one of them; in the
    end it takes tests from the other. Unless ``--dist`` says otherwise."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getoption("dist") == "load" else None


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> make.CommandLine:
    """Calls the command line in this process: exit code, stdout, stderr."""
    return make.command_line(capsys)
