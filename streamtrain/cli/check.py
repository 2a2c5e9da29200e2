"""``streamtrain check-reader``: the checks of a reader, a line each."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from streamtrain.errors import printable
from streamtrain.state import to_json
from streamtrain.testing import check_reader as run

__all__ = ["check_reader"]


def check_reader(target: str, chunks: int, json: bool) -> int:
    """Run the checks and show each as it is done; the exit code."""
    results = []
    console = Console(highlight=False, soft_wrap=True)
    for result in run(target, most_chunks=chunks):
        results.append(result)
        if not json:
            detail = f"  {printable(result.detail)}" if result.detail else ""
            console.print(Text(f"{result.outcome:<8} {result.check:<21}{detail}".rstrip()))
    failed = sum(result.outcome == "FAILED" for result in results)
    if json:
        shown = [{"check": r.check, "outcome": r.outcome, "detail": r.detail or None} for r in results]
        print(to_json({"target": target, "passes": not failed, "failed": failed, "checks": shown}))
    else:
        skipped = sum(result.outcome == "skipped" for result in results)
        console.print(Text(f"\n{len(results) - failed - skipped} passed, {failed} failed, {skipped} skipped"))
    return 2 if failed else 0
