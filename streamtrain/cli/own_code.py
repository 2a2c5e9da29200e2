"""The user's own learners, on the command line."""

from __future__ import annotations

import os
import sys

__all__ = ["importable_here"]


def importable_here(learner: str | None) -> str | None:
    """Return the learner. For ``module:name`` the current folder is added to the import path.

    The folder comes last, so it hides no installed module. Without such a learner it is not added, because data may be in a
    folder with code of somebody else.
    """
    if learner is not None and ":" in learner and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    return learner
