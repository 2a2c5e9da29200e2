"""``streamtrain runs``: the runs in folders, a line each."""

from __future__ import annotations

from typing import Annotated

import typer

from streamtrain.cli import show
from streamtrain.runs.listing import list_runs
from streamtrain.state import to_json

__all__ = ["runs"]


def runs(
    folders: Annotated[list[str], typer.Argument(metavar="DIR", help="A run's folder, or one that holds runs.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """The runs in folders: how far each is, its scores, and whose model it began with."""
    found = list_runs(*folders)
    if json:
        print(to_json({"runs": found}))
    else:
        show.runs(found)
