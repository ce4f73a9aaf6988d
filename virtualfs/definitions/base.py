"""What all definitions share: frozen, closed to unknown fields, and clear about mistakes."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from virtualfs.errors import DefinitionError, did_you_mean

__all__ = ["Definition", "FeatureName", "Model", "Name", "fingerprint", "readable"]


def _name(value: str) -> str:
    if not re.fullmatch(r"\w[\w.\-]*", value):
        raise ValueError(
            f"{value!r} cannot be a name; use letters, digits, '_', '-' and '.', "
            "starting with a letter, a digit or '_'"
        )
    return value


def _feature_name(value: str) -> str:
    if not value.strip() or re.search(r"[:@\x00-\x1f]", value):
        raise ValueError(
            f"{value!r} cannot be a feature's name; it must not be empty or hold ':', '@' "
            "or control characters"
        )
    return value


Name = Annotated[str, AfterValidator(_name)]
FeatureName = Annotated[str, AfterValidator(_feature_name)]


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
            name = fields.get("name", "")
            what = f"{type(self).__name__}({name!r})" if name else type(self).__name__
            raise DefinitionError(
                f"{what}:\n  {readable(error, dict(type(self).model_fields))}"
            ) from None


class Definition(Model):
    """The parts of every named definition that carry no meaning for its values."""

    name: Name
    description: str = ""
    owner: str = ""
    tags: dict[str, str] = {}


def fingerprint(meaning: Any) -> str:
    """Return the SHA-256 of `meaning` as canonical JSON: equal meaning, equal fingerprint.

    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    text = json.dumps(meaning, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
