"""What differs between two states of one object, and whom it breaks."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from virtualfs.definitions.project import VIEW_KINDS
from virtualfs.registry.state import DEPRECATION, Key, StoredObject

__all__ = ["NO_MEANING", "READS", "Difference", "Impact", "difference", "read_by"]

Impact = Literal["metadata", "compatible", "breaking"]
"""Whether only words changed, something came in addition, or values or names did."""
NO_MEANING = frozenset(
    {"description", "owner", "tags", "online", "freshness", "deprecated", "graphql_name",
     "graphql_plural"}
)  # fmt: skip
"""Fields that may change without a new version."""
READS = {"feature_service": "features", "on_demand_feature_view": "inputs"}
"""Kinds that stand on views, and the field that names them."""
_PLAIN: tuple[Any, ...] = (None, "", [], {}, "default", "UTC", True, "1m", "pandas")

Objects = Mapping[Key, StoredObject]


@dataclass(frozen=True)
class Difference:
    """How one object differs: the worst that it does, line by line, and in its SQL."""

    impact: Impact
    details: tuple[str, ...]
    sql: str = ""


def difference(
    old: StoredObject | None,
    new: StoredObject | None,
    before: Objects,
    after: Objects,
    impacts: Mapping[Key, Impact],
) -> Difference:
    """Compare two states of one object; one of them may be missing.

    Parameters
    ----------
    before, after
        All objects of both states.
    impacts
        Of the objects that this one stands on.
    """
    if DEPRECATION in {item.kind for item in (old, new) if item is not None}:
        # A mark breaks nothing, and nor does taking it away.
        said = (new or old).definition["message"]  # type: ignore[union-attr]
        return Difference("metadata", (f"message: {said}",))
    if new is None:
        return Difference("breaking", ())
    details = tuple(_details(new, old))
    if old is None:
        return Difference("compatible", details)
    if old.fingerprint == new.fingerprint and old.version == new.version:
        return Difference("metadata", details)
    rules = {
        "entity": _entity,
        "source": _source,
        "feature_view": _view,
        "on_demand_feature_view": _on_demand,
        "feature_service": _service,
    }
    breaks = rules[new.kind](old, new, before, after) or any(
        impacts.get(key) == "breaking" for key in read_by(new)
    )
    sql = _sql_diff(old, new) if new.kind == "feature_view" else ""
    return Difference("breaking" if breaks else "compatible", details, sql)


def read_by(item: StoredObject) -> Iterator[Key]:
    """Yield what an object stands on."""
    if item.kind == "feature_view":
        yield "source", item.definition["source"]
        yield from (("entity", name) for name in item.definition["entities"])
    for part in item.definition.get(READS.get(item.kind, ""), ()):
        for kind in VIEW_KINDS:
            yield kind, part["view"]


def _entity(old: StoredObject, new: StoredObject, before: Objects, after: Objects) -> bool:  # noqa: ARG001
    return list(old.definition["join_keys"].items()) != list(new.definition["join_keys"].items())


def _source(old: StoredObject, new: StoredObject, before: Objects, after: Objects) -> bool:  # noqa: ARG001
    added = new.definition["columns"].items() >= old.definition["columns"].items()
    return not (added and _same_place(old.definition, new.definition))


def _same_place(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Tell whether two sources read the same rows by the same times."""
    told = NO_MEANING | {"name", "columns"}
    return all(old[field] == new[field] for field in new if field not in told)


def _same_names(view: StoredObject, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Tell whether the columns that a view reads are called the same by both sources."""
    if old["columns"] == new["columns"]:
        return True
    read = (view.resolved or {}).get("source_columns")
    if not read:
        return False
    names = {column: old["columns"].get(column, column) for column in read}
    others = {
        new["columns"].get(column, column) for column in new["columns"] if column not in names
    }
    return others.isdisjoint(names.values()) and all(
        new["columns"].get(column, column) == name for column, name in names.items()
    )


def _view(old: StoredObject, new: StoredObject, before: Objects, after: Objects) -> bool:
    was, now = old.resolved or {}, new.resolved or {}
    rules = ("warehouse", "event_timestamp", "created_timestamp", "valid_to", "timezone",
             "availability_delay", "ttl", "boundary")  # fmt: skip
    source, other = (
        objects.get(("source", item.definition["source"]))
        for item, objects in ((old, before), (new, after))
    )
    return (
        list(was["join_keys"].items()) != list(now["join_keys"].items())
        or any(was.get(rule) != now.get(rule) for rule in rules)
        or (source is not None and other is not None
            and not (_same_place(source.definition, other.definition)
                     and _same_names(old, source.definition, other.definition)))
        or _recomputed(old, new)
    )  # fmt: skip


def _on_demand(old: StoredObject, new: StoredObject, before: Objects, after: Objects) -> bool:  # noqa: ARG001
    was, now = old.resolved or {}, new.resolved or {}
    return (
        _recomputed(old, new)
        or not now["request"].items() <= was["request"].items()
        or any(was.get(name) != now.get(name) for name in ("function", "mode", "source_hash"))
        or any(place != _places(now).get(name, place) for name, place in _places(was).items())
    )


def _places(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Return where the inputs of an on-demand view come from, by their names in expressions."""
    inputs = resolved["inputs"]
    return {
        name: (inputs[number]["view"], feature, inputs[number]["join_keys"])
        for name, (number, feature) in resolved["columns"].items()
        if number is not None
    }


def _recomputed(old: StoredObject, new: StoredObject) -> bool:
    was, now = ({f["name"]: _computed(f) for f in item.features} for item in (old, new))
    return any(meaning != now.get(name) for name, meaning in was.items())


def _computed(feature: Mapping[str, Any]) -> tuple[Any, ...]:
    aggregate = dict(feature.get("aggregate") or {})
    aggregate.pop("input", None)  # a name of ours, by number
    return feature["dtype"], feature["sql"], aggregate


def _service(old: StoredObject, new: StoredObject, before: Objects, after: Objects) -> bool:
    was, now = list(_outputs(old, before)), list(_outputs(new, after))
    return now[: len(was)] != was


def _outputs(service: StoredObject, objects: Objects) -> Iterator[tuple[Any, ...]]:
    """Yield the features of a service in its order, by the names that a model sees."""
    found = []
    for part in service.definition["features"]:
        views = [objects.get((kind, part["view"])) for kind in VIEW_KINDS]
        held = {f["name"]: f["dtype"] for view in views if view for f in view.features}
        found += [(part, name, held.get(name)) for name in part["features"] or held]
    times = Counter(name for _, name, _ in found)
    for part, name, dtype in found:
        holder = part["name"] or part["view"]
        shown = name if times[name] == 1 else f"{holder}__{name}"
        yield shown, part["view"], name, dtype, sorted(part["join_keys"].items())


def _details(new: StoredObject, old: StoredObject | None) -> Iterator[str]:
    if new.kind in VIEW_KINDS and new.resolved:
        before = {f["name"]: f for f in old.features} if old else {}
        after = {f["name"]: f for f in new.features}
        yield from (f"- {name}" for name in before if name not in after)
        for name, feature in after.items():
            shown = f"{name} {feature['dtype']}"
            if feature["sql"].strip('"') != name:
                shown += f" = {feature['sql']}"
            if name not in before:
                yield f"+ {shown}"
            elif (before[name]["dtype"], before[name]["sql"]) != (feature["dtype"], feature["sql"]):
                yield f"~ {shown} (was {before[name]['dtype']} {before[name]['sql']})"
        if old:
            yield from _described(old, new)
        kept = [name for name in before if name in after]
        if kept != [name for name in after if name in before]:
            yield f"~ order of features: {', '.join(after)}"
    if old and new.kind == "feature_view":
        was, now = ((item.resolved or {}).get("source_columns") or {} for item in (old, new))
        yield from (
            f"~ column {name} of the source: {dtype} -> {now[name]}"
            for name, dtype in was.items()
            if now.get(name, dtype) != dtype
        )
    if old and new.kind == "on_demand_feature_view":
        hashes = [(item.resolved or {}).get("source_hash") for item in (old, new)]
        if all(hashes) and hashes[0] != hashes[1]:
            yield f"~ the source of {new.definition['function']} has changed"
    if new.kind in READS:
        pins = old.pins if old else {}
        for name, version in new.pins.items():
            if name not in pins:
                yield f"+ {name}@{version}"
            elif pins[name] != version:
                yield f"~ {name}@{pins[name]} -> {name}@{version}"
        yield from (f"- {name}@{version}" for name, version in pins.items() if name not in new.pins)
    if old and new.kind == "feature_service":
        yield from _selected(old, new)
    skipped = {"name", "features", "inputs"}
    for name, value in new.definition.items():
        was = old.definition.get(name) if old else None
        if name in skipped or value == was or (old is None and value in _PLAIN):
            continue
        yield (
            f"{name}: {_show(value)}" if old is None else f"{name}: {_show(was)} -> {_show(value)}"
        )


def _described(old: StoredObject, new: StoredObject) -> Iterator[str]:
    """Yield what is said about features in other words."""
    was, now = (
        {feature.get("name"): feature for feature in item.definition["features"]}
        for item in (old, new)
    )
    for name, feature in now.items():
        for field in ("description", "tags", "deprecated", "graphql_name"):
            before, after = was.get(name, feature).get(field), feature.get(field)
            if before != after:
                yield f"~ {name} {field}: {_show(before)} -> {_show(after)}"


def _selected(old: StoredObject, new: StoredObject) -> Iterator[str]:
    was, now = (
        {item["name"] or item["view"]: item for item in service.definition["features"]}
        for service in (old, new)
    )
    for name, item in now.items():
        if name in was and was[name] != item:
            yield f"~ {name}: {_show(was[name]['features'])} -> {_show(item['features'])}"
    if [*was] != [*now] and {*was} == {*now}:
        yield f"~ order of views: {', '.join(now)}"


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "none"
    text = "none" if value in (None, "") else " ".join(str(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


def _sql_diff(old: StoredObject, new: StoredObject) -> str:
    """Return how the SQL that reads the rows changed, as a unified diff."""
    was, now = (str((item.resolved or {}).get("rows_sql", "")).splitlines() for item in (old, new))
    names = [f"{item.name}@{item.version}" for item in (old, new)]
    return "\n".join(difflib.unified_diff(was, now, names[0], names[1], lineterm="", n=2))
