"""Which columns are features, and the role of each: as requested, or by its type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from streamtrain.columns.conversion import converted_type
from streamtrain.columns.role import Column, has_conflict, is_readable, left_out, problem_of, type_or_problem
from streamtrain.columns.roles import ROLES, role_named
from streamtrain.columns.types import is_text
from streamtrain.errors import ColumnError, UsageError, one_of
from streamtrain.storage.arrow import pick, value_type
from streamtrain.storage.nested import struct_of
from streamtrain.storage.pandas_index import is_index

__all__ = ["choose_features", "choose_role", "choose_roles", "no_common_type", "no_role"]


def choose_features(
    schema: pa.Schema,
    *,
    target: str | Sequence[str] | None = None,
    weight: str | None = None,
    features: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    roles: Mapping[str, str] | None = None,
) -> tuple[Column, ...]:
    """The feature columns with their roles: those named in ``features``, or all except target, weight and excluded columns.
    Ignored columns are left out. roles: requested roles, by column. Raises ColumnError."""
    roles = {name: role for each, role in (roles or {}).items() for name in _fields(schema, [each])}
    features, exclude = None if features is None else _fields(schema, features), _fields(schema, exclude)
    for name in (*(features or ()), *exclude, *roles):
        pick(schema, name, "features")
    targets = {target} if isinstance(target, str) else set(target or ())
    taken = {*targets, weight, *exclude}
    others = [field.name for field in schema if field.name in roles or not (is_index(field) or left_out(field))]
    names = list(features) if features is not None else [name for name in others if name not in taken]
    broken = [] if features is None else [schema.field(name) for name in features if roles.get(name) != "ignore"]
    if problem := next((text for field in broken if (text := problem_of(field)) and not is_readable(field)), None):
        raise ColumnError(problem)
    both = [name for name in names if name in targets]
    if both:
        raise ColumnError(f"{both[0]!r} is both the target and a feature: leave it out of --features")
    if features is not None and (both := [name for name in names if name in exclude]):
        raise UsageError(f"--exclude {both[0]}: is in --features too: leave it out of one of them")
    if len(set(names)) < len(names):
        raise ColumnError("--features names a column twice: name it once")
    unused = [name for name in roles if name not in names]
    if unused:
        raise ColumnError(f"--as {unused[0]}={roles[unused[0]]}: {unused[0]!r} is not a feature")
    columns = tuple(column for column in choose_roles(schema, names, roles) if column.becomes.is_read)
    if not columns:
        raise ColumnError("no feature is left: every column is the target, the weight, excluded or ignored")
    return columns


def _fields(schema: pa.Schema, names: Sequence[str]) -> list[str]:
    """The names, with those of its fields for the name of a struct."""
    found: list[str] = []
    for name in names:
        fields = [] if name in schema.names else [f.name for f in schema if _is_field(f, name)]
        found += fields or [name]
    return found


def _is_field(field: pa.Field, name: str) -> bool:
    """Whether a column is a field of the struct of this name, which may itself be a field."""
    return field.name.startswith(f"{name}.") and struct_of(field) is not None


def choose_role(field: pa.Field, requested: str | None = None) -> Column:
    """A column with its role: the requested one, or by its type.

    Raises UsageError for an unknown role; ColumnError if the column cannot have it, or fits no role.

    >>> column = choose_role(pa.field("city", pa.string()))
    >>> column.role, column.numbers, column.why
    ('category', 0, 'strings')
    """
    kind = field.type
    if requested is not None:
        if requested not in ROLES:
            raise UsageError(f"--as {field.name}={requested}: {one_of(requested, list(ROLES))}")
        role = role_named(requested)
        if role.is_read and is_text(value_type(kind)) and is_readable(field) and not role.accepts(kind):
            into = converted_type(
                kind, requested, pa.timestamp("us") if requested in ("time", "clock") else pa.float64()
            )
            if into is not None and role.accepts(into):
                return Column(field.name, into, requested, "named by --as", is_requested=True, cast_from=kind)
        if requested == "category" and role_named("bag").accepts(kind):  # of categories
            role = role_named("bag")
        if not role.accepts(kind) or (role.is_read and not is_readable(field)):
            raise ColumnError(
                f"--as {field.name}={requested}: the column is {type_or_problem(field)}: leave it out with =ignore"
            )
        return Column(field.name, kind, role.name, "named by --as", is_requested=True)
    if has_conflict(field):
        raise ColumnError(no_common_type(field))
    for name in ROLES:
        role = role_named(name)
        why = role.why(kind)
        if why is not None and problem_of(field) is None:
            return Column(field.name, kind, name, why)
    raise ColumnError(f"{field.name!r} ({type_or_problem(field)})")


def no_common_type(field: pa.Field) -> str:
    """Why a column whose values have no common type is no feature by itself, and what to do."""
    as_text = f"--as {field.name}=category, which takes all of its values as text, or " if is_readable(field) else ""
    return f"column {field.name!r} is {problem_of(field)}: give {as_text}--exclude {_as_list([field.name])}"


def choose_roles(schema: pa.Schema, names: Sequence[str], requested: Mapping[str, str]) -> tuple[Column, ...]:
    """The named columns with their roles. Raises one ColumnError that lists all columns that fit no role."""
    columns, refused = [], []
    for name in names:
        try:
            columns.append(choose_role(schema.field(name), requested.get(name)))
        except ColumnError as error:
            if name in requested or has_conflict(schema.field(name)):
                raise
            refused.append((name, str(error)))
    if refused:
        shown = ", ".join(message for _, message in refused[:5])
        more = f" and {len(refused) - 5} more" if len(refused) > 5 else ""
        raise ColumnError(f"{shown}{more}: {no_role([name for name, _ in refused])}")
    return tuple(columns)


def no_role(names: Sequence[str]) -> str:
    """Why columns cannot be features, and what to do.

    >>> print(no_role(["a"]))
    neither a number, a time, a category nor text: give --exclude a, or split it into columns first
    """
    listed, each = _as_list(names), "it" if len(names) == 1 else "each"
    return f"neither a number, a time, a category nor text: give --exclude {listed}, or split {each} into columns first"


def _as_list(names: Sequence[str]) -> str:
    """Names as --exclude takes them: a name with a comma is quoted."""
    return ",".join(f'"{name}"' if "," in name else name for name in names)
