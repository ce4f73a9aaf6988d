"""Cached rows and keys as bytes, exact for every feature type.

A value is MessagePack: the instant at which the row was chosen, the row's event timestamp, whether
there was a row, and the features in the view's order. Times are microseconds since 1970 in UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec

from virtualfs.compiler.plan import ResolvedView

__all__ = ["Row", "decode_row", "encode_key", "encode_row", "from_micros", "to_micros"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Row:
    """One view's answer for one key: the row chosen at `chosen_at`, or that there was none."""

    chosen_at: int
    event: int | None
    found: bool
    values: tuple[Any, ...]
    cached: bool = False
    stale: bool = False
    """Whether it is older than its view's freshness, and the warehouse could not be asked."""


def to_micros(instant: datetime) -> int:
    """Return an instant in microseconds since 1970 in UTC; naive means UTC."""
    aware = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant
    return (aware - _EPOCH) // timedelta(microseconds=1)


def from_micros(micros: int) -> datetime:
    """Return the instant that lies `micros` microseconds after 1970, in UTC."""
    return _EPOCH + timedelta(microseconds=micros)


def encode_key(project: str, view: ResolvedView, key: Sequence[Any]) -> bytes:
    """Return the cache key of one entity in one version of a view.

    The view's fingerprint is part of it, so a new version never reads the old one's bytes; the
    key is a MessagePack array, so composite keys cannot run into each other.
    """
    head = f"virtualfs:{project}:{view.name}:{view.fingerprint[:32]}:".encode()
    return head + msgspec.msgpack.encode(list(key))


def encode_row(row: Row) -> bytes:
    """Return a row as bytes."""
    return msgspec.msgpack.encode((row.chosen_at, row.event, row.found, row.values))


def decode_row(view: ResolvedView, data: bytes) -> Row | None:
    """Return the row that `data` holds; None when it cannot be read, which is a cache miss."""
    try:
        chosen_at, event, found, values = _decoder(
            tuple(feature.dtype for feature in view.features)
        ).decode(data)
    except (msgspec.DecodeError, ValueError):
        return None
    return Row(chosen_at, event, found, values, cached=True)


@lru_cache(maxsize=1024)
def _decoder(dtypes: tuple[str, ...]) -> Any:
    import ibis

    kinds = tuple(_python_type(ibis.dtype(dtype)) | None for dtype in dtypes)
    row = tuple[int, int | None, bool, tuple[kinds]]  # type: ignore[valid-type]
    return msgspec.msgpack.Decoder(row)


def _python_type(dtype: Any) -> Any:
    simple = (
        (dtype.is_boolean, bool),
        (dtype.is_integer, int),
        (dtype.is_floating, float),
        (dtype.is_decimal, Decimal),
        (dtype.is_string, str),
        (dtype.is_binary, bytes),
        (dtype.is_timestamp, datetime),
        (dtype.is_date, date),
        (dtype.is_time, time),
        (dtype.is_uuid, UUID),
        (dtype.is_interval, timedelta),
    )
    for test, kind in simple:
        if test():
            return kind
    if dtype.is_array():
        return list[_python_type(dtype.value_type) | None]  # type: ignore[misc]
    if dtype.is_struct():
        return dict[str, Any]
    return Any
