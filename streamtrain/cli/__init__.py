"""``streamtrain ...``: the command line. `commands` has the commands, `outcome` their exit codes, `show` their output,
`progress` the progress bar, `log` the messages of the library.

This module imports next to nothing: Ctrl-C is answered from its `main` on, while the libraries are still being imported.
"""

import os
import sys

try:
    import signal
except KeyboardInterrupt:  # there is no handler yet: this is the first thing that takes a while
    os._exit(130)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType
    from typing import Any, NoReturn

__all__ = ["main"]

_AGAIN_SECONDS = 0.02  # before an interrupt that cannot be raised now is tried again

_received: "list[int]" = []  # signals
_raised: "list[KeyboardInterrupt]" = []  # for them
_over: "list[int]" = []  # the exit code, once it is known


def main(arguments: "Sequence[str] | None" = None) -> "NoReturn":
    """Run a command and exit with its code."""
    for earlier in (_received, _raised, _over):  # of another command in this process
        earlier.clear()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup, and scripts in the background, want it
            signal.signal(number, _interrupt)
    try:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported: its threads would only wait
        from streamtrain.cli.outcome import outcome, say_how_to_go_on

        arguments = sys.argv[1:] if arguments is None else arguments
        code = outcome(arguments, _received)
        if code == 130:
            say_how_to_go_on(arguments, _raised)
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        if not _received:
            raise
        code = 130  # an interrupt of an import arrives as another error
    _over.append(code)
    if _received and hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)  # an interrupt that could not be raised is answered here
    if code == 130 or _received:
        os._exit(128 + _received[-1] if _received else code)  # without waiting for reads that are under way
    sys.exit(code)


def _interrupt(number: int, frame: "FrameType | None") -> None:
    """Acknowledge Ctrl-C at once. A second one ends the process without waiting."""
    if _over:
        return
    _received.append(number)
    signal.signal(number, signal.SIG_DFL)
    print("\ninterrupted", file=sys.stderr, flush=True)
    sys.unraisablehook = _not_raised
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, _stop)
    _stop(number, frame)


def _stop(number: int, frame: "FrameType | None") -> None:
    """Raise the interrupt, but not in the midst of an import, where it would arrive as another error or not at all."""
    caller = frame if hasattr(signal, "setitimer") else None
    while caller is not None:
        if caller.f_code.co_filename.startswith("<frozen importlib"):
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
            return
        caller = caller.f_back
    _raised.append(KeyboardInterrupt())
    raise _raised[-1]


def _not_raised(problem: "Any") -> None:
    """Try again where an interrupt arrived in code that cannot raise: when an object was deleted, in a callback."""
    if isinstance(problem.exc_value, KeyboardInterrupt) and not _over and hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
