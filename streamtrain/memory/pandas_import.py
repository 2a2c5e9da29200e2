"""When Arrow imports pandas. Where pandas is installed, Arrow imports it at its first conversion, for example when an array
becomes one of numpy: 40 MB, at a moment that nobody planned.

So it is settled before data are opened. In a program, which may use pandas itself, it is imported then, and belongs to the
baseline. The command line runs nothing that needs it, unless there is own code, and leaves it out.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.metadata import entry_points
from types import ModuleType

__all__ = ["leave_pandas_out", "settle_pandas"]

_GROUPS = ("streamtrain.readers", "streamtrain.learners")
_left_out: list[bool] = []  # not empty: Arrow does without pandas in this process


def leave_pandas_out() -> None:
    """Let `settle_pandas` leave pandas out: this process runs no code but ours. Packages that provide readers or learners may
    need it: where one is installed, nothing is changed."""
    if not any(entry_points(group=group) for group in _GROUPS):
        _left_out.append(True)


def settle_pandas() -> None:
    """Let Arrow look for pandas now, and find it or not."""
    import pyarrow as pa

    if not _left_out or "pandas" in sys.modules:
        pa.scalar(0)
        return
    finder = _WithoutPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.scalar(0)  # Arrow looks only once
    finally:
        sys.meta_path.remove(finder)


class _WithoutPandas(MetaPathFinder):
    """An import of pandas fails, as if it were not installed."""

    def find_spec(self, fullname: str, path: object, target: ModuleType | None = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname, name=fullname)
