"""The whole project as YAML that applies to an equal registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from virtualfs.definitions.expression import checksum
from virtualfs.definitions.project import YAML_SECTIONS, definition_from_fields
from virtualfs.registry.state import State, StoredObject

__all__ = ["to_yaml"]


def to_yaml(state: State) -> str:
    """Return the definitions of a state as the text of a ``features.yaml``.

    Ibis expressions are written with what was made of them, so that they need no Python: their SQL,
    or in on-demand views their tree.
    """
    import yaml

    sections = {
        section: [_fields(item) for item in state.of_kind(kind).values()]
        for section, kind in YAML_SECTIONS.items()
    }
    written = {section: items for section, items in sections.items() if items}
    return yaml.safe_dump(written, sort_keys=False, allow_unicode=True, width=100)


def _fields(item: StoredObject) -> dict[str, Any]:
    definition = definition_from_fields(item.kind, item.definition)
    fields: dict[str, Any] = definition.model_dump(mode="json", exclude_defaults=True)
    made = {feature["name"]: feature for feature in item.features}
    for told, full in zip(fields.get("features", ()), item.definition.get("features", ()),
                          strict=True):  # fmt: skip
        for field in ("expr", "where"):
            if isinstance(told.get(field), dict):
                held = _made(field, made[full["name"]])
                (value,) = held.values()
                told[field] |= {**held, "check": checksum(told[field]["ibis"], value)}
    return fields


def _made(field: str, feature: Mapping[str, Any]) -> dict[str, Any]:
    if field == "where":
        return {"sql": feature["aggregate"]["where"]}
    return {"tree": feature["tree"]} if feature.get("tree") else {"sql": feature["sql"]}
