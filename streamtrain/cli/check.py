"""``streamtrain check-reader``: the checks of a reader, a line each."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from streamtrain.errors import printable
from streamtrain.state import to_json

__all__ = ["check_reader"]


def check_reader(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="As DATA; or module:name of what makes a reader.")],
    chunks: Annotated[int, typer.Option(help="Chunks that a check reads, spread over the data.")] = 16,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> int:
    """Whether a reader keeps the contract, checked with the data that it reads. Exits 2 if it does not."""
    from streamtrain.testing import check_reader as run

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
