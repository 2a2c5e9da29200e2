"""The outcome of a command: what it says when it fails, and its exit code.

Exit codes: 0 done; 1 an internal error; 2 bad usage or bad input; 3 the budget cannot be met; 4 the budget was exceeded
while running; 130 interrupted. With ``--json`` a command prints one JSON object on stdout and nothing else there.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from io import TextIOWrapper

from streamtrain.cli.log import shown_on_stderr
from streamtrain.cli.own_code import may_run_own_code
from streamtrain.cli.stdout import result_on_stdout
from streamtrain.errors import BudgetError, BudgetRefused, StreamtrainError, printable
from streamtrain.memory.limits import DATA_LIMIT, is_shortage
from streamtrain.memory.pandas_import import leave_pandas_out

__all__ = ["outcome", "say_how_to_go_on"]

_REFUSED, _EXCEEDED = 3, 4
_MOST_SAID = 4_000  # characters of an error
_REPORT_AT = "https://github.com/streamtrain/streamtrain/issues"


def _only_shows_help(arguments: Sequence[str]) -> bool:
    """Whether only help, the version or a shell completion is wanted."""
    shows = {"-h", "--help", "-V", "--version", "--show-completion", "--install-completion"}
    return not arguments or bool(shows.intersection(arguments)) or "_STREAMTRAIN_COMPLETE" in os.environ


def outcome(arguments: Sequence[str], received: Sequence[int]) -> int:
    """Run a command; its exit code. received: the signals that came."""
    code = _run(arguments, received)
    if code:
        logging.getLogger("asyncio").disabled = True  # it reports reads of Zarr that were abandoned
    return code


def _run(arguments: Sequence[str], received: Sequence[int]) -> int:
    try:
        only_help = _only_shows_help(arguments)
        if not only_help:
            from streamtrain.kernels.crash import answer_crashes, expect_shortage  # with numpy

            answer_crashes(_REPORT_AT, terminal=sys.stderr is not None and sys.stderr.isatty())
            if not may_run_own_code(arguments):
                leave_pandas_out()
            DATA_LIMIT.tell = lambda is_opening: expect_shortage(_REFUSED if is_opening else _EXCEEDED)
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack characters that names have
        from streamtrain.cli.commands import run

        with shown_on_stderr(), result_on_stdout() if only_help else nullcontext():
            code = run(arguments)
        with result_on_stdout():  # flushed
            pass
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        return 130
    except SystemExit as leaving:  # the libraries that print leave with 1 where a pipe is closed
        if not isinstance(leaving.__context__, BrokenPipeError):
            raise
        return _let_go_of_stdout()
    except Exception as error:
        if received or type(error).__name__ == "Abort":  # an interrupt of an import arrives as another error
            return 130
        return _failed(error)


def say_how_to_go_on(arguments: Sequence[str], raised: Sequence[KeyboardInterrupt]) -> None:
    """Print the command that resumes the run, if there is a checkpoint: then `fit` has added a note to the interrupt."""
    if any(getattr(interrupt, "__notes__", ()) for interrupt in raised):
        words = list(arguments)
        if "--resume" not in words:
            words.insert(words.index("--") if "--" in words else len(words), "--resume")
        print(
            f"the run is kept; to go on: {printable(shlex.join(['streamtrain', *words]))}", file=sys.stderr, flush=True
        )


def _failed(error: Exception) -> int:
    """Print what went wrong. Returns the exit code."""
    if isinstance(error, BudgetError):
        print("error:", "\n".join(map(printable, str(error).split("\n"))), file=sys.stderr)  # a line for every term
        return _REFUSED if isinstance(error, BudgetRefused) else _EXCEEDED
    if is_shortage(error):
        _say(str(error) or "out of memory")
        return _EXCEEDED
    if isinstance(error, BrokenPipeError):
        return _let_go_of_stdout()
    if isinstance(error, (StreamtrainError, OSError)):
        _say(str(error))
        return 2
    if hasattr(error, "format_message"):  # bad usage, found by the command-line library
        _say(error.format_message())
        return 2
    traceback.print_exception(error)
    _say(f"this is a bug in streamtrain; please report it with the lines above: {_REPORT_AT}")
    return 1


def _let_go_of_stdout() -> int:
    """The reader of stdout has closed it, which is not an error. Returns the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ is not None else 1)
    return 0


def _say(text: str) -> None:
    if len(text) > _MOST_SAID:  # a name from a file may have millions of characters
        text = f"{text[:_MOST_SAID]}..."
    print(f"error: {printable(text)}", file=sys.stderr)
