"""Join keys in one form: those that a warehouse calls equal have one place in the cache."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Context, Decimal
from typing import Any

__all__ = ["canonical_key"]

_FLOAT32 = struct.Struct("f")
Change = Callable[[Any], Any]


def canonical_key(
    types: Mapping[str, str], forms: Mapping[str, str], *, stored: bool = False
) -> Callable[[tuple[Any, ...]], tuple[Any, ...]] | None:
    """Return the function that brings a key into its form; None where keys are in it already.

    Parameters
    ----------
    types
        Join keys with their data types.
    forms
        How the warehouse compares the strings of some keys (:mod:`virtualfs.compiler.key_forms`).
    stored
        Whether keys come from the warehouse's columns, and not from a caller.
    """
    changes = [
        _change(dtype, forms.get(name, ""), stored=stored) for name, dtype in types.items()
    ]
    if not any(changes):
        return None

    def canonical(key: tuple[Any, ...]) -> tuple[Any, ...]:
        pairs = zip(key, changes, strict=True)
        return tuple([v if v is None or change is None else change(v) for v, change in pairs])

    return canonical


def _change(dtype: str, form: str, *, stored: bool) -> Change | None:
    if dtype == "string":
        return _form(form, stored=stored)
    if dtype.startswith("decimal"):
        return _decimal
    if dtype == "float64":
        return lambda value: value + 0.0  # as -0.0 is equal to it
    if dtype == "float32":
        return lambda value: _FLOAT32.unpack(_FLOAT32.pack(value))[0] + 0.0
    return _instant if dtype.startswith("timestamp") else None


def _decimal(value: Decimal) -> Decimal:
    return Decimal(format(value.normalize(_WIDE), "f")) if value.is_finite() else value


_WIDE = Context(prec=100)
"""The usual context would round what is longer than 28 digits."""


def _instant(value: datetime) -> datetime:
    """Return an instant of pandas as Python's own where that loses nothing."""
    plain: Any = getattr(value, "to_pydatetime", None)
    if plain is None or getattr(value, "nanosecond", None):
        return value
    found: datetime = plain()
    return found


def _padded(value: str) -> str:
    return value.rstrip(" ")


def _folded(value: str) -> str:
    """Return text in lower case, character by character, as engines do it."""
    if value.isascii():
        return value.lower()
    lower = (_LOWER.get(character, character.lower()) for character in value)
    return "".join(
        [low if len(low) == 1 else own for low, own in zip(lower, value, strict=True)]
    )


_LOWER = {"\u0130": "i"}
_ASCII_LOWER = {number: number + 32 for number in range(ord("A"), ord("Z") + 1)}


def _folded_ascii(value: str) -> str:
    return value.translate(_ASCII_LOWER)


def _form(form: str, *, stored: bool) -> Change | None:
    """Return the function that brings a string into a form, which is named by words."""
    words = form.split()
    steps = [step for word, step in _STEPS.items() if word in words]
    if stored and "stored-padded" in words:
        steps.append(_padded)
    if not steps:
        return None

    def change(value: str) -> str:
        for step in steps:
            value = step(value)
        return value

    return change


_STEPS: dict[str, Change] = {
    "padded": _padded, "nocase": _folded, "ascii-nocase": _folded_ascii
}  # fmt: skip
