"""The roles of columns: what a column can become. One module of this package for each role.

| role | for | in a window |
| --- | --- | --- |
| number | numbers, booleans, decimals, durations (in seconds), tensors and lists of fixed size | float32, NaN if missing |
| time | timestamps, dates, times of day | float32: age in days; hour, weekday and month as points on a circle |
| clock | times, on request | float32: as for time, without the age |
| category | text, bytes, dictionaries; any single value on request | a 32-bit hash of the value |
| text | text of several words that rarely repeats | its bytes |
| bag | sparse rows; lists of text or whole numbers; maps | a 32-bit hash and a float32 of each entry |
| ignore | columns in which every value is missing; any column on request | nothing: it is not read |

To add a role, write a module with a `Role` named ``ROLE`` (see `streamtrain.columns.role`) and add its name here. Nothing heavy
is imported in this module: the command line needs the names before it needs numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamtrain.columns.role import Role

__all__ = ["ROLES", "role_named"]

ROLES = ("number", "time", "clock", "category", "text", "bag", "ignore")


def role_named(name: str) -> Role:
    """The role of this name. Raises ValueError for a name that is not in `ROLES`."""
    if name not in ROLES:
        raise ValueError(f"{name!r} is not a role: must be one of {', '.join(ROLES)}")
    role: Role = importlib.import_module(f"streamtrain.columns.roles.{name}").ROLE
    return role
