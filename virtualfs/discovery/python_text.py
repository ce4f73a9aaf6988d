"""Definitions as the text of a Python module that a person would have written."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from virtualfs.definitions.aggregate import Aggregate
from virtualfs.definitions.base import Definition
from virtualfs.definitions.duration import format_duration
from virtualfs.definitions.entity import Entity
from virtualfs.definitions.expression import Expression
from virtualfs.definitions.feature_service import FeatureService
from virtualfs.definitions.feature_view import FeatureSelection, FeatureView
from virtualfs.discovery import names

__all__ = ["WIDTH", "call", "commented", "definitions_text", "mapping", "text"]

WIDTH = 100


def call(function: str, parts: list[str], indent: int = 0) -> str:
    """Return a call on one line if it fits, else with an argument to a line."""
    line = f"{function}({', '.join(parts)})"
    # A name and a comma or bracket stand around it.
    if len(line) + indent + 24 <= WIDTH and "\n" not in line:
        return line
    margin = " " * (indent + 4)
    return f"{function}(\n" + "".join(f"{margin}{part},\n" for part in parts) + " " * indent + ")"


def text(value: str) -> str:
    """Return a string as Python writes it."""
    if '"' in value and "'" not in value and "\\" not in value and value.isprintable():
        return f"'{value}'"
    return json.dumps(value, ensure_ascii=False)


def mapping(value: Mapping[str, str]) -> str:
    """Return a mapping of strings as Python writes it."""
    return "{" + ", ".join(f"{text(key)}: {text(item)}" for key, item in value.items()) + "}"


def commented(lines: Iterable[str]) -> list[str]:
    """Return lines as comments of at most :data:`WIDTH` characters."""
    found = []
    for line in lines:
        flat = " ".join("".join(c if c.isprintable() else " " for c in line).split())
        found += textwrap.wrap(
            flat, WIDTH, initial_indent="# ", subsequent_indent="#   ",
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
    return found


def definitions_text(definitions: Iterable[Definition]) -> str:
    """Return assignments, one for each definition; what they name must come before them."""
    written = _Written()
    return "\n\n".join(written.assignment(item) for item in definitions) + "\n"


class _Written:
    """Writes definitions, and remembers by which variables."""

    def __init__(self) -> None:
        self._variables: dict[tuple[type, str], str] = {}
        self._taken = {"vfs"}

    def assignment(self, item: Definition) -> str:
        variable = names.variable(item.name, self._taken)
        self._taken.add(variable)
        self._variables[type(item), item.name] = variable
        return f"{variable} = {self._value(item)}"

    def _known(self, item: Any) -> str:
        if isinstance(item, str):
            return text(item)
        return self._variables.get((type(item), item.name)) or self._value(item, 4)

    def _value(self, item: Any, indent: int = 0) -> str:
        parts = [] if isinstance(item, Aggregate) else [text(item.name)]
        parts += [part for field in type(item).model_fields for part in self._field(item, field)]
        return call(f"vfs.{type(item).__name__}", parts, indent)

    def _field(self, item: Any, field: str) -> Iterator[str]:
        value = getattr(item, field)
        if isinstance(item, Aggregate) and field in ("column", "function", "window"):
            yield "None" if value is None else self._plain(value)
            return
        is_said = isinstance(item, Aggregate) or field != "name"
        if not is_said or value == type(item).model_fields[field].default:
            return
        if isinstance(item, Entity) and field == "join_keys":
            yield f"join_keys={mapping(value)}"
        elif field == "source":
            yield f"source={self._known(value)}"
        elif field == "entities":
            yield f"entities=[{', '.join(map(self._known, value))}]"
        elif field == "inputs" or (field == "features" and isinstance(item, FeatureService)):
            listed = ", ".join(map(self._selection, value))
            yield f"[{listed}]" if field == "features" else f"{field}=[{listed}]"
        elif field == "features":
            lines = (self._value(feature, 8) for feature in value)
            if isinstance(item, FeatureView) and all(_is_bare(feature) for feature in value):
                lines = (text(feature.name) for feature in value)
            yield "features=[\n" + "".join(f"        {line},\n" for line in lines) + "    ]"
        else:
            yield f"{field}={self._plain(value)}"

    def _selection(self, item: FeatureSelection) -> str:
        found = self._known(item.view)
        if item.features is not None:
            found += f"[[{', '.join(map(text, item.features))}]]"
        if item.name:
            found += f".with_name({text(item.name)})"
        if item.join_keys:
            found += f".with_join_keys({mapping(item.join_keys)})"
        return found

    def _plain(self, value: Any) -> str:
        if isinstance(value, Expression):
            return text(value.text)
        if isinstance(value, timedelta):
            return text(format_duration(value))
        if isinstance(value, Mapping):
            return mapping(value)
        return text(value) if isinstance(value, str) else repr(value)


def _is_bare(feature: Any) -> bool:
    return set(feature.model_dump(exclude_defaults=True)) == {"name"}
