"""Learners that a user wrote, on the command line."""

from __future__ import annotations

import os
import sys

__all__ = ["importable_here"]


def importable_here(learner: str | None) -> str | None:
    """Let the modules of the current folder be imported where ``--learner module:name`` asks for one, and return that.

    The folder comes last: it hides no installed module. Where no such learner is named nothing in it can be imported, as
    data may lie in a folder with code of somebody else.
    """
    if learner is not None and ":" in learner and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    return learner
