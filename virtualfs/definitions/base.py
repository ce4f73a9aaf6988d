"""What all definitions share: frozen, closed to unknown fields, and clear about mistakes."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from virtualfs.definitions.duration import format_duration
from virtualfs.display import Block, Grid, Note, Shown, cell, shown_text
from virtualfs.errors import DefinitionError, did_you_mean

__all__ = [
    "ApiName",
    "Definition",
    "Deprecated",
    "FeatureName",
    "Model",
    "Name",
    "check_feature_name",
    "fingerprint",
    "readable",
]


def _name(value: str) -> str:
    if not re.fullmatch(r"\w[\w.\-]*", value):
        raise ValueError(
            f"{value!r} cannot be a name; use letters, digits, '_', '-' and '.', "
            "starting with a letter, a digit or '_'"
        )
    return value


def check_feature_name(value: str) -> str:
    """Return a feature's name, or raise ValueError."""
    if not value.strip() or re.search(r"[:@\x00-\x1f]", value):
        raise ValueError(
            f"{value!r} cannot be a feature's name; it must not be empty or hold ':', '@' "
            "or control characters"
        )
    return value


def _brief(value: Any) -> str:
    """Return a field's value in a few words, definitions by their names."""
    if isinstance(value, Definition):
        return value.name
    if isinstance(value, tuple):
        return ", ".join(_brief(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_brief(item)}" for key, item in value.items())
    return format_duration(value) if isinstance(value, timedelta) else cell(value)


def _grid(title: str, items: tuple[Any, ...]) -> Grid:
    """Return definitions as a table, without the columns that all of them leave empty."""
    fields = [
        name
        for name in type(items[0]).model_fields
        if any(getattr(item, name) not in (None, "", {}, ()) for item in items)
    ]
    rows = [[_brief(getattr(item, name)) for name in fields] for item in items]
    return Grid([name.replace("_", " ") for name in fields], rows, title)


Name = Annotated[str, AfterValidator(_name)]
FeatureName = Annotated[str, AfterValidator(check_feature_name)]
# Written only where it is said, so that definitions of before are as they were.
Deprecated = Annotated[str, Field(default="", exclude_if=lambda text: not text)]
"""Why something should no longer be used, and what to use instead; empty while it may be."""


def _api_name(value: str) -> str:
    if value and not re.fullmatch(r"(?!__)[A-Za-z_][0-9A-Za-z_]*", value):
        raise ValueError(
            f"{value!r} cannot be a name in GraphQL; use letters, digits and '_', starting with a "
            "letter or one '_'"
        )
    return value


ApiName = Annotated[
    str, Field(default="", exclude_if=lambda text: not text), AfterValidator(_api_name)
]
"""How something is called in GraphQL; empty for its name in camel case."""


def readable(error: ValidationError, fields: dict[str, Any]) -> str:
    """Return pydantic's findings as one line each, with near names for unknown fields."""
    lines = []
    for finding in error.errors():
        where = ".".join(str(part) for part in finding["loc"])
        if finding["type"] == "extra_forbidden":
            hint = did_you_mean(str(finding["loc"][-1]), fields)
            lines.append(f"{where}: unknown field. {hint}")
        else:
            message = finding["msg"].removeprefix("Value error, ")
            lines.append(f"{where}: {message}" if where else message)
    return "\n  ".join(lines)


class Model(BaseModel):
    """A frozen value whose construction errors are :class:`DefinitionError`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            name = fields.get("name") or fields.get("column", "")
            what = f"{type(self).__name__}({name!r})" if name else type(self).__name__
            raise DefinitionError(
                f"{what}:\n  {readable(error, dict(type(self).model_fields))}"
            ) from None


class Definition(Shown, Model):
    """The parts of every named definition that carry no meaning for its values."""

    name: Name
    description: str = ""
    owner: str = ""
    tags: dict[str, str] = {}

    def _blocks(self) -> list[Block]:
        """Show the fields that were given, lists of definitions as tables of their own."""
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(self).__name__).replace("On Dem", "On-dem")
        name = words.capitalize()
        head = Note(f"{name} {self.name}", strong=True)
        rows: list[tuple[str, str]] = []
        grids: list[Block] = []
        for field in type(self).model_fields:
            value = getattr(self, field)
            if field == "name" or value == type(self).model_fields[field].default:
                continue
            if value and isinstance(value, tuple) and all(isinstance(i, Model) for i in value):
                grids.append(_grid(field, value))
            else:
                rows.append((field.replace("_", " "), _brief(value)))
        return [head, *([Grid(("", ""), rows)] if rows else []), *grids]

    def __str__(self) -> str:
        return shown_text(self)


def fingerprint(meaning: Any) -> str:
    """Return the SHA-256 of `meaning` as canonical JSON: equal meaning, equal fingerprint.

    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    text = json.dumps(meaning, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
