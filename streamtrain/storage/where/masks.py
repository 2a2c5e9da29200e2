"""Which rows of a batch match a condition, in the three-valued logic of SQL: true, false, or null.

A comparison with null is null, and a row matches only where the condition is true. So neither ``x > 1`` nor ``not (x > 1)``
matches a null; ``x is null`` does. NaN is a number as IEEE 754 has it: it is not null, ``!=`` with it is true, and every other
comparison is false.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import pyarrow as pa

from streamtrain.errors import ColumnError
from streamtrain.storage.arrow import pick
from streamtrain.storage.files.common_field import PROBLEM
from streamtrain.storage.where.grammar import (
    AllOf,
    AnyOf,
    Column,
    Compare,
    Condition,
    In,
    IsNull,
    Literal,
    Not,
    columns_of,
)
from streamtrain.storage.where.literals import value_in

__all__ = ["Where", "decoded", "tested_type"]

_FUNCTIONS = {"=": "equal", "!=": "not_equal", "<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal"}
_DICTIONARY_SHARE = 2  # a dictionary that is so many times as long as the rows is not compared as a whole


class Where:
    """A condition on the columns of a schema. flag: the setting that it comes from, for messages.

    Raises ColumnError for a column that is missing, and for a literal that is no value of its column.

    >>> from streamtrain.storage.where.grammar import parse
    >>> batch = pa.record_batch({"x": [1, None, 3], "y": ["a", "a", None]})
    >>> Where(parse("not (x > 1)"), batch.schema).matches(batch).to_pylist()
    [True, False, False]
    """

    def __init__(self, condition: Condition, schema: pa.Schema, flag: str = "--where") -> None:
        self._condition, self._flag = condition, flag
        self.columns = columns_of(condition)
        self._kinds = {name: tested_type(schema, name, flag) for name in self.columns}
        self._values: dict[int, Any] = {}  # of each comparison, by the id of its node, which this holds
        self._bind(condition)

    def _bind(self, condition: Condition) -> None:
        """Turn the literals into values, so that what is wrong is said before anything is read."""
        if isinstance(condition, Not):
            self._bind(condition.inner)
        elif isinstance(condition, (AllOf, AnyOf)):
            for part in condition.parts:
                self._bind(part)
        elif not isinstance(condition, IsNull):
            name, kind = condition.column, self._kinds[condition.column]
            if isinstance(condition, Column) and not (pa.types.is_boolean(kind) or pa.types.is_null(kind)):
                raise ColumnError(
                    f"{self._flag}: column {name!r} is {kind}, which is neither true nor false: compare it with a "
                    f"literal, as in {name} = ..."
                )
            if not pa.types.is_null(kind):  # it has no value that a literal could equal
                self._values[id(condition)] = [value_in(name, kind, each, self._flag) for each in _literals(condition)]

    def matches(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Whether each row of a batch matches; without nulls."""
        compute = _compute()
        return compute.fill_null(
            self._of(self._condition, dict(zip(batch.schema.names, batch.columns, strict=True))), False
        )

    def _of(self, condition: Condition, columns: Mapping[str, Any]) -> Any:
        compute = _compute()
        if isinstance(condition, Not):
            return compute.invert(self._of(condition.inner, columns))
        if isinstance(condition, (AllOf, AnyOf)):
            joined = compute.and_kleene if isinstance(condition, AllOf) else compute.or_kleene
            return reduce(joined, (self._of(part, columns) for part in condition.parts))
        values = columns[condition.column]
        if isinstance(condition, IsNull):
            return decoded(values).is_null()  # of a dictionary also where a code stands for null
        return self._compared(values, condition)

    def _compared(self, values: Any, condition: Column | Compare | In) -> Any:
        compute, values = _compute(), decoded(values)
        if isinstance(values, pa.DictionaryArray):
            if len(values.dictionary) > _DICTIONARY_SHARE * len(values):
                values = values.dictionary_decode()
            else:
                return compute.take(self._compared(values.dictionary, condition), values.indices)
        if pa.types.is_null(values.type):
            return pa.nulls(len(values), pa.bool_())
        if pa.types.is_float16(values.type):
            values = values.cast(pa.float32())
        if pa.types.is_fixed_size_binary(values.type):
            values = values.cast(pa.binary())
        sign = condition.sign if isinstance(condition, Compare) else "="
        function, literals = getattr(compute, _FUNCTIONS[sign]), self._values[id(condition)]
        if len(literals) > 1 and (among := _among(values, literals)) is not None:
            return among
        return reduce(compute.or_kleene, (function(values, literal) for literal in literals))


def tested_type(schema: pa.Schema, name: str, flag: str) -> pa.DataType:
    """The type of the values of a column that chooses rows. Raises ColumnError if it is missing, or cannot be read."""
    field = pick(schema, name, f"rows of {flag}")
    if (problem := (field.metadata or {}).get(PROBLEM)) is not None:
        raise ColumnError(f"{flag}: column {name!r} cannot be used: {problem.decode()}")
    return _plain_type(field.type)


def _compute() -> Any:
    from pyarrow import compute  # imported on demand: it costs 20 MB

    return compute


def _literals(condition: Column | Compare | In) -> Sequence[Literal]:
    if isinstance(condition, In):
        return condition.literals
    return [condition.literal if isinstance(condition, Compare) else Literal("boolean", "true")]


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values that are compared."""
    while True:
        if isinstance(kind, (pa.DictionaryType, pa.RunEndEncodedType)):
            kind = kind.value_type
        elif isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        else:
            return kind


def decoded(values: Any) -> Any:
    """The values without extension type and run-end encoding; a dictionary stays."""
    if isinstance(values, pa.ExtensionArray):
        return decoded(values.storage)
    if isinstance(values, pa.RunEndEncodedArray):
        return decoded(_compute().run_end_decode(values))
    return values


def _among(values: Any, literals: Sequence[Any]) -> Any:
    """Whether values are among many literals, with one look-up for each; None for types that Arrow has no look-up for."""
    compute, floating = _compute(), pa.types.is_floating(values.type)
    if floating and any(literal.as_py() == 0 for literal in literals):  # the look-up tells 0.0 and -0.0 apart
        literals = [*literals, pa.scalar(0.0, literals[0].type), pa.scalar(-0.0, literals[0].type)]
    try:
        found = compute.is_in(values, value_set=pa.array(literals, literals[0].type).cast(values.type))
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return None
    return compute.if_else(values.is_valid(), found, pa.scalar(None, pa.bool_())) if values.null_count else found
