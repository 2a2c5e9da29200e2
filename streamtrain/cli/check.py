"""``streamtrain check-reader``: the checks of a reader, a line each."""

from __future__ import annotations

from contextlib import closing

from rich.console import Console
from rich.text import Text

from streamtrain.cli.stdout import result_on_stdout
from streamtrain.errors import printable
from streamtrain.state import to_json
from streamtrain.storage.schemes import is_registered
from streamtrain.testing import check_reader as run
from streamtrain.testing.readers.apart import check_apart

__all__ = ["check_reader"]


def check_reader(target: str, chunks: int, all: bool, json: bool) -> int:
    """Run the checks and show each as it is done; the exit code."""
    results = []
    console = Console(highlight=False, soft_wrap=True)
    own = is_registered(target.partition("://")[0])  # in this process, by a program that calls the command line
    checks = (run if own else check_apart)(target, most_chunks=chunks, all=all)
    with closing(iter(checks)) as found_one_by_one:  # at once, if Ctrl-C ends it
        for result in found_one_by_one:
            results.append(result)
            if not json:
                detail = f"  {printable(result.detail)}" if result.detail else ""
                console.print(Text(f"{result.outcome:<8} {result.check:<21}{detail}".rstrip()))
    failed = sum(result.outcome == "FAILED" for result in results)
    if json:
        shown = [{"check": r.check, "outcome": r.outcome, "detail": r.detail or None} for r in results]
        found = {"target": target, "passes": not failed, "failed": failed}
        counts = {"chunks": checks.chunks, "chunks_checked": checks.chunks_checked}
        with result_on_stdout():
            print(to_json(found | counts | {"checks": shown}))
        return 2 if failed else 0
    skipped = sum(result.outcome == "skipped" for result in results)
    looked = ""
    if checks.chunks is not None:
        more = "" if checks.chunks_checked == checks.chunks else ": --all looks at all"
        looked = f"; {checks.chunks_checked:,} of {checks.chunks:,} chunks were looked at{more}"
    console.print(Text(f"\n{len(results) - failed - skipped} passed, {failed} failed, {skipped} skipped{looked}"))
    return 2 if failed else 0
