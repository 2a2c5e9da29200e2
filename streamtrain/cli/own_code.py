"""The user's own learners, on the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

__all__ = ["importable_here", "may_run_own_code"]


_BUILT_IN = ("s3", "gs", "az", "http", "https", "memory", "file")


def may_run_own_code(arguments: Sequence[str]) -> bool:
    """Whether a command may run code that is not ours: another learner, another reader.

    >>> may_run_own_code(["fit", "s3://b/x.parquet", "--learner", "linear"]), may_run_own_code(["fit", "rows://x"])
    (False, True)
    """
    schemes = {scheme for scheme, between, _ in (text.partition("://") for text in arguments) if between}
    learners = {
        text.partition("=")[2] or after
        for text, after in zip(arguments, [*arguments[1:], ""], strict=True)
        if text.partition("=")[0] == "--learner"
    }
    return "check-reader" in arguments or not schemes <= set(_BUILT_IN) or not learners <= {"linear"}


def importable_here(learner: str | None) -> str | None:
    """Return the learner. For ``module:name`` the current folder is added to the import path.

    The folder comes last, so it hides no installed module. Without such a learner it is not added, because data may be in a
    folder with code of somebody else.
    """
    if learner is not None and ":" in learner and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    return learner
