"""Values on the wire: which GraphQL type a data type has, and how values become JSON and back.

JSON numbers are doubles in many clients, so what a double cannot hold travels as text: integers
beyond 2^53, decimals. NaN and infinities, which JSON lacks, are null.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any, NewType
from uuid import UUID

import strawberry
from strawberry.types.scalar import ScalarDefinition

from graphql import GraphQLList, GraphQLNamedType
from virtualfs.dtypes import integer_bounds, type_name
from virtualfs.errors import SpineError

__all__ = [
    "JSON",
    "SCALARS",
    "BigInt",
    "element_of",
    "finite",
    "from_json",
    "graphql_type",
    "parse_instant",
    "rfc3339",
    "scalar_of",
    "to_json",
    "wire_of",
]

JSON = NewType("JSON", object)
BigInt = NewType("BigInt", int)

EXACT = 2**53
"""Every integer up to here is exact as a double."""


def rfc3339(instant: datetime) -> str:
    """Return an instant as RFC 3339 in UTC; naive means UTC.

    >>> rfc3339(datetime(2013, 12, 30, 18))
    '2013-12-30T18:00:00Z'
    """
    aware = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    return aware.isoformat().replace("+00:00", "Z")


def parse_instant(value: Any) -> datetime:
    """Return the instant that an RFC 3339 text names, in UTC; without an offset it means UTC.

    Raises
    ------
    ValueError
        It is no such text.

    Examples
    --------
    >>> parse_instant("2013-12-30T13:00:00-05:00")
    datetime.datetime(2013, 12, 30, 18, 0, tzinfo=datetime.timezone.utc)
    """
    if isinstance(value, datetime):
        instant = value
    elif isinstance(value, str):
        try:
            instant = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(_not_an_instant(value)) from None
    else:
        raise ValueError(_not_an_instant(value))
    try:
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except OverflowError:
        raise ValueError(_not_an_instant(value)) from None


def _not_an_instant(value: Any) -> str:
    return f"{value!r} is not an RFC 3339 time; write for example '2013-12-30T18:00:00Z'"


def to_json(value: Any) -> Any:
    """Return any feature value as plain JSON.

    >>> to_json([2**60, float("nan"), Decimal("1.50"), b"ab", datetime(2013, 1, 1)])
    ['1152921504606846976', None, '1.50', 'YWI=', '2013-01-01T00:00:00Z']
    """
    if value is None or (isinstance(value, bool | str) and not isinstance(value, Enum)):
        return value
    if isinstance(value, int):
        return value if -EXACT <= value <= EXACT else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(name): to_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Enum):
        return value.value
    return str(value)


def from_json(value: Any, dtype: str, where: str) -> Any:
    """Return a join key that came as JSON in its data type's Python form.

    What needs no change is returned as it is; whether it fits the type is the core's to check.

    Raises
    ------
    SpineError
        A text is not what its type needs; the message says `where`.
    """
    if value is None:
        return None
    if isinstance(value, list | dict) and "<" in dtype:
        import ibis

        return _nested(value, ibis.dtype(dtype), where)
    family = dtype.split("(")[0]
    try:
        if family == "timestamp" and isinstance(value, str | datetime):
            instant = parse_instant(value)
            # A key without zone is compared, and cached, as naive UTC, however it was written.
            return instant if _has_zone(dtype) else instant.replace(tzinfo=None)
        if family == "decimal" and isinstance(value, float):
            return Decimal(repr(value))
        if not isinstance(value, str):
            return value
        if integer_bounds(family) is not None:
            return _integer(value)
        if family in _FROM_TEXT:
            return _FROM_TEXT[family](value)
    except (ValueError, InvalidOperation, binascii.Error):
        raise SpineError(f"{where}: expected {dtype}, not {value!r}") from None
    return value


def _integer(text: str) -> int:
    """Return an integer as JSON writes it; Python would take ``1_000`` and other digits too."""
    if re.fullmatch(r"-?[0-9]{1,20}", text) is None:
        raise ValueError
    return int(text)


def _decimal(text: str) -> Decimal:
    if not text.isascii() or "_" in text:
        raise ValueError
    return Decimal(text)


def _nested(value: Any, kind: Any, where: str) -> Any:
    """Return a list, struct or map that came as JSON, all within in its data type's form."""
    if isinstance(value, list) and kind.is_array():
        return [_nested(item, kind.value_type, where) for item in value]
    if kind.is_map() and isinstance(value, dict):
        value = [*map(list, value.items())]
    if kind.is_map() and isinstance(value, list):
        return [
            [_nested(pair[0], kind.key_type, where), _nested(pair[1], kind.value_type, where)]
            if isinstance(pair, list) and len(pair) == 2
            else pair
            for pair in value
        ]
    if kind.is_struct() and isinstance(value, dict):
        types = dict(kind.items())
        return {
            name: _nested(item, types[name], where) if name in types else item
            for name, item in value.items()
        }
    return from_json(value, type_name(kind) or str(kind), where)


_FROM_TEXT: dict[str, Any] = {
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "decimal": _decimal,
    "uuid": UUID,
    "binary": lambda text: base64.b64decode(text, validate=True),
}


def _has_zone(dtype: str) -> bool:
    return "'" in dtype


def graphql_type(dtype: str, types: Mapping[str, GraphQLNamedType]) -> Any:
    """Return the GraphQL type that holds values of a data type.

    Parameters
    ----------
    types
        The schema's types by name, scalars among them.
    """
    inner = element_of(dtype)
    if inner is not None:
        return GraphQLList(graphql_type(inner, types))
    return types[scalar_of(dtype)]


def scalar_of(dtype: str) -> str:
    """Return the name of the scalar that holds values of a data type that is no array.

    >>> scalar_of("int32"), scalar_of("decimal(12, 2)"), scalar_of("int64"), scalar_of("uuid")
    ('Int', 'Decimal', 'BigInt', 'JSON')
    """
    return _SCALARS.get(dtype.split("(")[0], "JSON")


def element_of(dtype: str) -> str | None:
    """Return the data type of an array's elements; None if it is no array.

    >>> element_of("array<array<int8>>"), element_of("int8")
    ('array<int8>', None)
    """
    kind = dtype.lstrip("!")
    return kind[6:-1] if kind.startswith("array<") else None


def wire_of(dtype: str) -> Callable[[Any], Any] | None:
    """Return what makes a value of a data type what the answer holds of it; None if it is that.

    NULL is never given to it. What is not finite stays: JSON has null for it.
    """
    inner = element_of(dtype)
    if inner is None:
        return _WIRE.get(scalar_of(dtype), to_json)
    convert = wire_of(inner)
    if convert is None:
        return None
    return lambda values: [None if item is None else convert(item) for item in values]


def finite(value: Any) -> Any:
    """Return floats that are finite, and None for others, in lists too."""
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


_SCALARS = {
    **dict.fromkeys(["int8", "int16", "int32", "uint8", "uint16"], "Int"),
    **dict.fromkeys(["int64", "uint32", "uint64"], "BigInt"),
    **dict.fromkeys(["float16", "float32", "float64"], "Float"),
    "decimal": "Decimal",
    "timestamp": "DateTime",
    "date": "Date",
    "boolean": "Boolean",
    "string": "String",
}


def _big(value: int) -> int | str:
    return value if -EXACT <= value <= EXACT else str(value)


def _parse_big(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        with suppress(ValueError):
            return _integer(value)
    raise ValueError(f"{value!r} is not an integer; write it as a number or as text")


def _parse_decimal(value: Any) -> Decimal:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            found = _decimal(str(value))
        except InvalidOperation:
            pass
        else:
            if found.is_finite():
                return found
    raise ValueError(f"{value!r} is not a decimal; write for example '12.50'")


SCALARS: dict[object, ScalarDefinition] = {
    JSON: strawberry.scalar(
        name="JSON",
        description="Any JSON value. Integers beyond 2^53, decimals, bytes (base64) and times "
        "(RFC 3339) are strings; NaN and infinities are null.",
        serialize=to_json,
        parse_value=lambda value: value,
    ),
    BigInt: strawberry.scalar(
        name="BigInt",
        description="An integer of up to 64 bits: a number up to 2^53, beyond it a string; both "
        "are accepted.",
        serialize=to_json,
        parse_value=_parse_big,
    ),
    Decimal: strawberry.scalar(
        name="Decimal",
        description="An exact decimal number, as a string.",
        serialize=str,
        parse_value=_parse_decimal,
    ),
    datetime: strawberry.scalar(
        name="DateTime",
        description="An instant as RFC 3339; without an offset it means UTC.",
        serialize=rfc3339,
        parse_value=parse_instant,
    ),
}
"""What the schema needs to know of the Python types above."""

_WIRE: dict[str, Callable[[Any], Any] | None] = {
    "Int": None,
    "Float": None,
    "Boolean": None,
    "String": None,
    "BigInt": _big,
    "Decimal": str,
    "DateTime": rfc3339,
    "Date": date.isoformat,
    "JSON": to_json,
}
