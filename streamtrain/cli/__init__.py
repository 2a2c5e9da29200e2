"""``streamtrain ...``: the command line. `commands` holds the commands, `show` what people see, `progress` the live line.

Exit codes: 0 done; 1 an internal error; 2 bad usage or bad input; 3 the budget cannot be met; 4 the budget was exceeded
while running; 130 interrupted. With ``--json`` a command prints one JSON object on stdout and nothing else there.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper
from types import FrameType
from typing import NoReturn

from streamtrain.errors import BudgetError, BudgetRefused, StreamtrainError
from streamtrain.text import printable

__all__ = ["main"]

_received: list[int] = []  # signals

_REPORT_AT = "https://github.com/streamtrain/streamtrain/issues"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its code."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names are whatever people wrote, terminals are not
    code = _run(arguments)
    if code == 130:
        code = 128 + _received[-1] if _received else code
        os._exit(code)  # a read that is under way would hold the process until it is done
    sys.exit(code)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Acknowledge at once; a second Ctrl-C does not wait for anything."""
    _received.append(number)
    signal.signal(number, signal.SIG_DFL)
    print("\ninterrupted", file=sys.stderr, flush=True)
    raise KeyboardInterrupt


def _run(arguments: Sequence[str] | None) -> int:
    from streamtrain.cli.commands import app

    try:
        code = app(args=arguments, standalone_mode=False)
        print(end="", flush=True)
        return code if isinstance(code, int) else 0
    except BudgetError as error:
        print("error:", "\n".join(map(printable, str(error).split("\n"))), file=sys.stderr)  # a line for every term
        return 3 if isinstance(error, BudgetRefused) else 4
    except (StreamtrainError, MemoryError) as error:
        _say(str(error) or "out of memory")
        return 4 if isinstance(error, MemoryError) else 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read stdout has seen enough
        return 0
    except OSError as error:
        _say(str(error))
        return 2
    except Exception as error:
        if hasattr(error, "format_message"):  # bad usage, as the command line's library found it
            _say(error.format_message())
            return 2
        if type(error).__name__ == "Abort":
            return 130
        traceback.print_exc()
        _say(f"this is a bug in streamtrain; please report it with the lines above: {_REPORT_AT}")
        return 1


def _say(text: str) -> None:
    print(f"error: {printable(text)}", file=sys.stderr)
