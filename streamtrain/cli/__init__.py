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
from types import FrameType
from typing import NoReturn

from streamtrain.errors import BudgetExceeded, BudgetRefused, StreamtrainError

__all__ = ["main"]

_REPORT_AT = "https://github.com/streamtrain/streamtrain/issues"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its code."""
    signal.signal(signal.SIGINT, _interrupt)
    code = _run(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    if code == 130:
        os._exit(code)  # a read that is under way would hold the process until it is done
    sys.exit(code)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Acknowledge at once; a second Ctrl-C does not wait for anything."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    print("\ninterrupted", file=sys.stderr, flush=True)
    raise KeyboardInterrupt


def _run(arguments: Sequence[str] | None) -> int:
    from streamtrain.cli.commands import app

    try:
        code = app(args=arguments, standalone_mode=False)
        return code if isinstance(code, int) else 0
    except StreamtrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3 if isinstance(error, BudgetRefused) else 4 if isinstance(error, BudgetExceeded) else 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read stdout has seen enough
        return 0
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        if hasattr(error, "format_message"):  # bad usage, as the command line's library found it
            print(f"error: {error.format_message()}", file=sys.stderr)
            return 2
        if type(error).__name__ == "Abort":
            return 130
        traceback.print_exc()
        print(
            f"error: this is a bug in streamtrain; please report it with the lines above: {_REPORT_AT}", file=sys.stderr
        )
        return 1
