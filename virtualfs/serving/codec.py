"""Cached rows and keys as bytes, exact for every feature type, and which of two rows stays.

A cache key is ``PREFIX:PROJECT:VIEW:OWNER:KEY``. ``OWNER`` is a digest of the deployment, the
environment, the warehouse and the view's version; ``KEY`` is the join keys as a MessagePack array.

A value is a head of fixed width, which an online store compares without knowing features, and a
tail. All numbers are big-endian; an instant is microseconds since 1970 in UTC, plus 2^63, so that
later is greater; 0 is none::

    chosen    8 bytes    when the warehouse was asked; 0 if never, of a pushed row
    check     4          CRC-32 of the keys' prefix and `chosen`
    check     4          CRC-32 of the keys' prefix and all that follows
    format    1
    flags     1          1: there was a row; 2: it was pushed; 4: it was invalidated, no features
    event     8          the row's event timestamp
    created   8          its created timestamp
    pushed    8          of a pushed row alone: the instant of the push
    identity             ``OWNER:KEY`` of its cache key
    features             a MessagePack array

`chosen` has a check of its own because a store carries it over from one value to another. A value
is read under its own identity alone, so that no other key's or deployment's is taken for it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated, Any, TypedDict
from uuid import UUID
from zlib import crc32

import msgspec

from virtualfs.compiler.plan import ResolvedView
from virtualfs.definitions.duration import microseconds
from virtualfs.dtypes import integer_bounds
from virtualfs.lookups import canonical_value
from virtualfs.serving.keys import canonical_key

__all__ = ["Row", "RowCodec", "from_micros", "merged", "merged_bytes", "to_micros"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORMAT = 2
_FOUND, _PUSHED, _INVALIDATED = 1, 2, 4
_BIAS = 2**63
_HEAD = struct.Struct(">QIIBBQQ")
_BODY = struct.Struct(">BBQQ")
_WORD = struct.Struct(">Q")
_CHECKS = struct.Struct(">II")
_CHOSEN = slice(0, 12)  # with its check
_FLAGS = 17
_AGE = slice(18, 34)  # event and created
_PUSHED_AT = slice(34, 42)


def _unusual(value: Any) -> Any:
    """Return what stands for a value of pandas, which is finer than Python's own."""
    kind = type(value).__name__
    if kind == "Timestamp":
        return [value.value, value.tzinfo is not None]
    if kind == "Timedelta":
        return value.value
    raise TypeError(f"a value of type {type(value).__name__} cannot be cached")


_pack = msgspec.msgpack.Encoder(enc_hook=_unusual).encode


class Row(msgspec.Struct, frozen=True, gc=False):
    """One view's answer for one key: the row chosen at an instant, or that there was none."""

    chosen_at: int | None
    """When the warehouse was asked; None of a pushed row of which it never was."""
    event: int | None
    found: bool
    values: tuple[Any, ...]
    created: int | None = None
    pushed_at: int | None = None
    cached: bool = False
    stale: bool = False
    """Whether it is older than its view's freshness, and the warehouse could not be asked."""
    unreadable: bool = False
    """Whether it has a value that Python cannot hold; such a row is not cached."""


def to_micros(instant: datetime) -> int:
    """Return an instant in microseconds since 1970 in UTC; naive means UTC."""
    aware = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant
    return (aware - _EPOCH) // timedelta(microseconds=1)


def from_micros(micros: int) -> datetime:
    """Return the instant `micros` microseconds after 1970, in UTC; the nearest that Python has."""
    try:
        return _EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        return (datetime.min if micros < 0 else datetime.max).replace(tzinfo=UTC)


def _biased(instant: int | None) -> int:
    return 0 if instant is None else instant + _BIAS


def _unbiased(number: int) -> int | None:
    return None if number == 0 else number - _BIAS


def _held_by(view: ResolvedView) -> int | None:
    """Return the microseconds for which a view's rows answer; None is until they are replaced."""
    if view.key_forms and not view.is_cacheable:
        return 0
    return None if view.freshness is None else microseconds(view.freshness)


class RowCodec:
    """Writes and reads the rows of one version of a view.

    Parameters
    ----------
    prefix
        What the keys of all views in the cache begin with.
    owner
        What tells deployments, environments and warehouses apart, in any words.
    """

    def __init__(self, prefix: str, project: str, view: ResolvedView, owner: str = "") -> None:
        start = f"{prefix}:{project}:{view.name}:"
        whole = "\0".join((owner, view.fingerprint, str(view.version)))
        digest = blake2b(whole.encode(), digest_size=8).hexdigest()
        self.prefix = f"{start}{digest}:".encode()
        """What the cache keys of this version begin with: no other version reads its bytes."""
        self._owner_at = len(start.encode())
        self._seed = crc32(self.prefix)
        self.held = _held_by(view)
        """Microseconds for which rows answer; None is until they are replaced."""
        dtypes = tuple(feature.dtype for feature in view.features)
        self._values = _decoder(dtypes)
        self._keys = _decoder(tuple(view.join_keys.values()))
        self._canonical = canonical_key(view.join_keys, view.key_forms)
        self._stored = canonical_key(view.join_keys, view.key_forms, stored=True)

    def canonical_keys(self, keys: Sequence[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
        """Return join keys in the one form of those that the warehouse calls equal."""
        canonical = self._canonical
        return keys if canonical is None else [canonical(key) for key in keys]

    def stored_keys(self, keys: Sequence[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
        """Return join keys that a warehouse's columns gave, in that form too."""
        stored = self._stored
        return keys if stored is None else [stored(key) for key in keys]

    def place(self, key: Sequence[Any]) -> bytes:
        """Return the cache key of one entity.

        Join keys are canonical. They are a MessagePack array, so that composite ones cannot run
        into each other.
        """
        return self.prefix + _pack(key)

    def places(self, keys: Iterable[Sequence[Any]]) -> list[bytes]:
        """Return the cache keys of entities."""
        prefix = self.prefix
        return [prefix + _pack(key) for key in keys]

    def key(self, encoded: bytes) -> tuple[Any, ...]:
        """Return the join keys that stand behind the prefix."""
        return self._keys(encoded)

    def encode(self, place: bytes, row: Row) -> bytes:
        """Return a row as bytes, to be kept under a cache key."""
        return _encode(self._seed, place[self._owner_at :], row)

    def encode_chosen(self, places: Iterable[bytes], rows: Iterable[Row]) -> list[bytes]:
        """Return rows that the warehouse gave at one instant, as bytes."""
        seed, pack, body_of, checks_of = self._seed, _pack, _BODY.pack, _CHECKS.pack
        owner_at = self._owner_at
        found: list[bytes] = []
        chosen, check = b"", 0
        for place, row in zip(places, rows, strict=True):
            if not chosen:
                chosen = _WORD.pack(_biased(row.chosen_at))
                check = crc32(chosen, seed)
            flags = _FOUND if row.found else 0
            event, created = row.event, row.created
            body = body_of(
                _FORMAT, flags,
                0 if event is None else event + _BIAS,
                0 if created is None else created + _BIAS,
            ) + place[owner_at:] + pack(row.values)  # fmt: skip
            found.append(chosen + checks_of(check, crc32(body, seed)) + body)
        return found

    def decode(self, place: bytes, data: bytes) -> Row | None:
        """Return the row that `data` holds; None when it cannot be relied on: a cache miss."""
        return self.decode_many([place], [data])[0]

    def decode_many(
        self, places: Iterable[bytes], values: Iterable[bytes | None]
    ) -> list[Row | None]:
        """Return the rows that values hold; None for those that are missing or not to be relied on.

        Beside what was damaged on its way, that is any value of another key, view, version,
        deployment or format.
        """
        seed, decode, unpack, owner_at = self._seed, self._values, _HEAD.unpack_from, self._owner_at
        known = known_check = -1
        found: list[Row | None] = []
        append = found.append
        for place, data in zip(places, values, strict=True):
            if data is None:
                append(None)
                continue
            try:
                chosen, check, whole, form, flags, event, created = unpack(data)
                if crc32(data[16:], seed) != whole or form != _FORMAT:
                    append(None)
                    continue
                if chosen != known or check != known_check:  # rows written together have one
                    if crc32(data[:8], seed) != check:
                        append(None)
                        continue
                    known, known_check = chosen, check
                identity = place[owner_at:]
                if flags == _FOUND:  # nearly all
                    if not data.startswith(identity, 34):
                        append(None)
                        continue
                    append(
                        Row(
                            chosen - _BIAS if chosen else None,
                            event - _BIAS if event else None,
                            True,
                            decode(data[34 + len(identity) :]),
                            created - _BIAS if created else None,
                            None,
                            True,
                        )
                    )
                    continue
                pushed_at, start = None, 34
                if flags & _PUSHED:
                    pushed_at, start = _unbiased(_WORD.unpack_from(data, 34)[0]), 42
                if not data.startswith(identity, start):
                    append(None)
                    continue
                append(
                    Row(
                        chosen - _BIAS if chosen else None,
                        event - _BIAS if event else None,
                        bool(flags & _FOUND),
                        () if flags & _INVALIDATED else decode(data[start + len(identity) :]),
                        created - _BIAS if created else None,
                        pushed_at,
                        True,
                    )
                )
            except (msgspec.DecodeError, ValueError, struct.error):
                append(None)
        return found


def _encode(seed: int, identity: bytes, row: Row) -> bytes:
    flags = (_FOUND if row.found else 0) | (_PUSHED if row.pushed_at is not None else 0)
    flags |= 0 if row.values else _INVALIDATED
    tail = identity + _pack(row.values)
    if row.pushed_at is not None:
        tail = _WORD.pack(_biased(row.pushed_at)) + tail
    chosen = _WORD.pack(_biased(row.chosen_at))
    body = _BODY.pack(_FORMAT, flags, _biased(row.event), _biased(row.created)) + tail
    return chosen + _CHECKS.pack(crc32(chosen, seed), crc32(body, seed)) + body


def merged(held: Row, given: Row) -> Row:
    """Return which of two rows of one key stays, whichever came first.

    Of two that the warehouse gave, the one that was asked for later; a slow writer changes
    nothing. Where one was pushed, the greater (event, created); of equal ones the warehouse's, and
    of two pushed ones the greater by its bytes. A pushed row keeps the later instant at which the
    warehouse was asked; that a key was invalidated is no such instant.
    """
    if held.pushed_at is None and given.pushed_at is None:
        return given if _biased(given.chosen_at) >= _biased(held.chosen_at) else held
    given_stays = merged_bytes(_encode(0, b"", held), _encode(0, b"", given))[1]
    won, lost = (given, held) if given_stays else (held, given)
    if (
        won.pushed_at is not None
        and lost.values
        and _biased(lost.chosen_at) > _biased(won.chosen_at)
    ):
        won = msgspec.structs.replace(won, chosen_at=lost.chosen_at)
    return won


def merged_bytes(held: bytes, given: bytes, now: int | None = None) -> tuple[bytes | None, bool]:
    """Return what `held` becomes (None: what it is), and whether `given` stays.

    The rule of :func:`merged`. Online stores that can run it beside their data do so.

    Parameters
    ----------
    now
        Microseconds since 1970. A value from after it was written by a clock that was ahead, and
        gives way.
    """
    if len(held) < _HEAD.size:
        return given, True
    if now is not None:
        latest = _WORD.pack(_biased(now))
        if held[:8] > latest or (held[_FLAGS] & _PUSHED and held[_PUSHED_AT] > latest):
            return given, True
    if not (held[_FLAGS] | given[_FLAGS]) & _PUSHED:
        return (given, True) if given[:8] >= held[:8] else (None, False)
    mine: tuple[Any, ...] = (given[_AGE], not given[_FLAGS] & _PUSHED, given[34:])
    stays = mine >= (held[_AGE], not held[_FLAGS] & _PUSHED, held[34:])
    won, lost = (given, held) if stays else (held, given)
    if won[_FLAGS] & _PUSHED and lost[:8] > won[:8] and not lost[_FLAGS] & _INVALIDATED:
        return lost[_CHOSEN] + won[12:], stays
    return (won if stays else None), stays


@lru_cache(maxsize=4096)
def _decoder(dtypes: tuple[str, ...]) -> Callable[[bytes], tuple[Any, ...]]:
    kinds = tuple(_kind_of(dtype) | None for dtype in dtypes)
    decode: Callable[[bytes], tuple[Any, ...]] = msgspec.msgpack.Decoder(
        tuple[kinds] if kinds else tuple[()],  # type: ignore[valid-type]
        dec_hook=_from_unusual,
    ).decode
    canonical = [canonical_value(dtype) if "interval" in dtype else None for dtype in dtypes]
    if not any(canonical):
        return decode

    def decode_canonical(data: bytes) -> tuple[Any, ...]:
        pairs = zip(canonical, decode(data), strict=True)
        return tuple(
            [value if change is None or value is None else change(value) for change, value in pairs]
        )

    return decode_canonical


_SIMPLE: dict[str, Any] = {
    "boolean": bool, "string": str, "binary": bytes, "date": date, "time": time, "uuid": UUID,
    "float32": float, "float64": float, "timestamp": datetime, "timestamp(6)": datetime,
}  # fmt: skip
"""The types that need no parsing, for which loading Ibis would take longer than a look-up."""


def _kind_of(dtype: str) -> Any:
    if dtype in _SIMPLE:
        return _SIMPLE[dtype]
    if integer_bounds(dtype) is not None:
        return _bounded(dtype)
    if dtype.startswith("decimal("):
        return Decimal
    import ibis

    return _python_type(ibis.dtype(dtype))


def _bounded(dtype: str) -> Any:
    """Return an integer type as msgspec decodes it: other values are not to be relied on."""
    least, greatest = integer_bounds(dtype) or (0, 0)
    if greatest >= 2**63:  # beyond what msgspec compares with
        return Annotated[int, msgspec.Meta(ge=least)]
    return Annotated[int, msgspec.Meta(ge=least, le=greatest)]


def _from_unusual(kind: type, value: Any) -> Any:
    """Return the value of pandas that :func:`_unusual` wrote."""
    if kind.__name__ == "Timestamp":
        nanoseconds, zoned = value
        return kind(nanoseconds, tz="UTC" if zoned else None)
    return kind(value)


def _python_type(dtype: Any) -> Any:
    simple = (
        (dtype.is_boolean, bool),
        (dtype.is_integer, _bounded(str(dtype).lstrip("!"))),
        (dtype.is_floating, float),
        (dtype.is_decimal, Decimal),
        (dtype.is_string, str),
        (dtype.is_binary, bytes),
        (lambda: _is_fine(dtype), _pandas_timestamp),
        (dtype.is_timestamp, datetime),
        (dtype.is_date, date),
        (dtype.is_time, time),
        (dtype.is_uuid, UUID),
        (dtype.is_interval, timedelta | tuple[int, int, int] | int),
    )
    for test, kind in simple:
        if test():
            return kind() if kind is _pandas_timestamp else kind
    if dtype.is_array():
        return list[_python_type(dtype.value_type) | None]  # type: ignore[misc]
    if dtype.is_struct():
        fields = {name: _python_type(kind) | None for name, kind in dtype.items()}
        return TypedDict("Fields", fields)  # type: ignore[operator]
    if dtype.is_map():  # as pairs, which Arrow gives
        return list[tuple[_python_type(dtype.key_type), _python_type(dtype.value_type) | None]]  # type: ignore[misc]
    return Any


def _is_fine(dtype: Any) -> bool:
    """Tell whether a type holds instants that are finer than Python's."""
    return bool(dtype.is_timestamp() and (dtype.scale or 0) > 6)


def _pandas_timestamp() -> type:
    import pandas as pd

    found: type = pd.Timestamp
    return found
