"""Durations as people write them: ``"7d"``, ``"1h30m"``, or a ``timedelta``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

__all__ = [
    "Duration",
    "PositiveDuration",
    "format_duration",
    "format_in_one_unit",
    "microseconds",
    "parse_duration",
    "setting_seconds",
]

_UNITS = {
    "w": 604_800_000_000,
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
}
_PART = re.compile(r"(\d+)(us|ms|[wdhms])")


def parse_duration(value: object) -> timedelta:
    """Return the timedelta that `value` spells.

    Units are w, d (always 24 hours), h, m, s, ms and us; parts add up.

    Raises
    ------
    ValueError
        The value is no duration, or is negative.

    Examples
    --------
    >>> parse_duration("1h30m")
    datetime.timedelta(seconds=5400)
    """
    if isinstance(value, timedelta):
        if value < timedelta(0):
            raise ValueError(f"a duration cannot be negative: {value}")
        return value
    if isinstance(value, str):
        text = value.replace(" ", "")
        parts = _PART.findall(text)
        if parts and "".join(number + unit for number, unit in parts) == text:
            try:
                return timedelta(
                    microseconds=sum(int(number) * _UNITS[unit] for number, unit in parts)
                )
            except OverflowError:
                raise ValueError(f"{value!r} is longer than a timedelta can be") from None
    raise ValueError(
        f"{value!r} is not a duration; write for example '7d', '1h30m', '90s' or a timedelta"
    )


def setting_seconds(text: str) -> float:
    """Return the seconds of a setting, whose minutes are written as PostgreSQL writes them.

    >>> setting_seconds("5min"), setting_seconds("200ms")
    (300.0, 0.2)
    """
    return parse_duration(text.replace("min", "m")).total_seconds()


def microseconds(value: timedelta) -> int:
    """Return a duration in whole microseconds."""
    return value // timedelta(microseconds=1)


def format_duration(value: timedelta) -> str:
    """Spell a duration so that :func:`parse_duration` reads the same one back.

    Examples
    --------
    >>> format_duration(timedelta(hours=36)), format_duration(timedelta(days=7))
    ('1d12h', '7d')
    """
    rest = microseconds(value)
    text = ""
    for unit in ("d", "h", "m", "s", "ms", "us"):
        count, rest = divmod(rest, _UNITS[unit])
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def format_in_one_unit(value: timedelta) -> str:
    """Spell a duration in the largest unit that divides it.

    Examples
    --------
    >>> format_in_one_unit(timedelta(hours=24)), format_in_one_unit(timedelta(hours=36))
    ('1d', '36h')
    """
    micros = microseconds(value)
    unit = next(unit for unit in ("d", "h", "m", "s", "ms", "us") if micros % _UNITS[unit] == 0)
    return f"{micros // _UNITS[unit]}{unit}"


def _positive(value: object) -> timedelta:
    duration = parse_duration(value)
    if not duration:
        raise ValueError("this duration must be longer than zero")
    return duration


_text = PlainSerializer(format_duration, return_type=str)
Duration = Annotated[timedelta, BeforeValidator(parse_duration), _text]
PositiveDuration = Annotated[timedelta, BeforeValidator(_positive), _text]
