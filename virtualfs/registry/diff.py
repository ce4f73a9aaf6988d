"""Plans: what would change in the registry, readable as a diff, and what to write to change it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from virtualfs.compiler.plan import ResolvedOnDemand, ResolvedView
from virtualfs.definitions.base import fingerprint
from virtualfs.definitions.project import KINDS, VIEW_KINDS, Project, kind_in_words
from virtualfs.display import Block, Code, Note, Shown
from virtualfs.errors import DefinitionError
from virtualfs.registry.repository import Key, Registry, State, StoredObject, Write

__all__ = ["Change", "Plan", "Revision", "make_plan"]

Action = Literal["add", "change", "remove"]
_SIGNS = {"add": "+", "change": "~", "remove": "-"}
_NO_MEANING = frozenset({"description", "owner", "tags", "online", "freshness"})


@dataclass(frozen=True)
class Change:
    """One object that the plan adds, changes or removes."""

    action: Action
    kind: str
    name: str
    version: int
    old_version: int | None = None
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        version = f"v{self.version}"
        if self.action == "change" and self.old_version != self.version:
            version = f"v{self.old_version} -> v{self.version}"
        elif self.action == "change":
            version += ", metadata only"
        head = f"{_SIGNS[self.action]} {kind_in_words(self.kind)} {self.name} ({version})"
        return "\n".join([head, *(f"    {line}" for line in self.details)])


@dataclass(frozen=True)
class Plan(Shown):
    """What an apply would do, made against one revision of the registry."""

    project: str
    base: int
    changes: tuple[Change, ...]
    warnings: tuple[str, ...] = ()
    writes: tuple[Write, ...] = field(default=(), repr=False)

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __str__(self) -> str:
        lines = [f"Plan for project {self.project}, against revision {self.base}", ""]
        lines += [str(change) for change in self.changes]
        lines += [f"! {warning}" for warning in self.warnings]
        lines += [*([""] if len(lines) > 2 else []), self.summary]
        return "\n".join(lines)

    def _blocks(self) -> list[Block]:
        return [Code(str(self))]

    @property
    def summary(self) -> str:
        """The plan in one line."""
        if not self.changes:
            return "Nothing to change."
        counts = [sum(c.action == action for c in self.changes) for action in _SIGNS]
        return "{} to add, {} to change, {} to remove.".format(*counts)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return {
            "project": self.project,
            "base_revision": self.base,
            "changes": [
                {
                    "action": change.action,
                    "kind": change.kind,
                    "name": change.name,
                    "version": change.version,
                    "old_version": change.old_version,
                    "details": list(change.details),
                }
                for change in self.changes
            ],
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class Revision(Shown):
    """A state of the registry: its number, and the plan that led to it."""

    number: int
    plan: Plan = field(repr=False)
    doubts: tuple[str, ...] = ()
    """What was guessed of a table that was registered, for a person to settle."""

    def _blocks(self) -> list[Block]:
        doubts = [Note(f"DOUBT: {doubt}.") for doubt in self.doubts]
        return [Note(f"Revision {self.number}", strong=True), *self.plan._blocks(), *doubts]


def make_plan(
    registry: Registry,
    state: State,
    wanted: Project,
    views: Mapping[str, ResolvedView],
    on_demand: Mapping[str, ResolvedOnDemand],
    *,
    touched: set[Key],
    origin: str,
    prune: bool,
) -> Plan:
    """Compare the wanted definitions with a state.

    Parameters
    ----------
    wanted
        The whole project as it should be.
    views, on_demand
        Every wanted view, resolved.
    touched
        Kind and name of the objects that were handed in; the others are kept as they are.
    origin
        ``"files"`` for the project's definition files, ``"api"`` or ``"registered"``.
    prune
        Whether to remove objects that came from files and are no longer defined.

    Raises
    ------
    DefinitionError
        A name is defined in files and was also registered.
    """
    changes: list[Change] = []
    writes: list[Write] = []
    versions: dict[Key, int] = {}
    for kind, definitions in wanted.by_kind().items():
        for name, definition in sorted(definitions.items()):
            old = state.objects.get((kind, name))
            if old and (kind, name) in touched and {old.origin, origin} == {"files", "registered"}:
                raise DefinitionError(
                    f"{kind_in_words(kind)} {name!r} is claimed twice: it came from "
                    f"{_ORIGINS[old.origin]} and now comes from {_ORIGINS[origin]}; rename one"
                )
            fields = definition.model_dump(mode="json")
            view: ResolvedView | ResolvedOnDemand | None = None
            if kind == "feature_view":
                view = views.get(name)
            elif kind == "on_demand_feature_view":
                view = on_demand[name]
            meaning = view.fingerprint if view else _meaning(kind, fields, versions)
            if old is None:
                version = registry.newest_version(kind, name) + 1
            elif old.fingerprint == meaning:
                version = old.version
            else:
                version = registry.newest_version(kind, name) + 1
            versions[kind, name] = version
            if old and old.fingerprint == meaning and old.definition == fields:
                continue
            item = StoredObject(
                kind=kind,
                name=name,
                version=version,
                fingerprint=meaning,
                origin=origin if old is None or (kind, name) in touched else old.origin,
                definition=fields,
                resolved=view.model_dump(mode="json", exclude={"version"}) if view else None,
            )
            if kind in _READS:
                pins = dict(_pins(kind, fields, versions))
                item = StoredObject(
                    **{**vars(item), "resolved": {**(item.resolved or {}), "pins": pins}}
                )
            details = _details(item, old)
            action: Action = "add" if old is None else "change"
            changes.append(
                Change(action, kind, name, version, old.version if old else None, details)
            )
            writes.append(Write((kind, name), item))
    if prune:
        for key in _unused(state, touched):
            old = state.objects[key]
            changes.append(Change("remove", *key, old.version, old.version))
            writes.append(Write(key, None))
    warnings = tuple(
        f"feature view {view.name} is static: its source has no event timestamp, so it carries no "
        "point-in-time guarantee"
        for name, view in sorted(views.items())
        if view.event_timestamp is None and ("feature_view", name) in touched
    )
    return Plan(registry.project, state.revision, tuple(changes), warnings, tuple(writes))


_ORIGINS = {"files": "the definition files", "registered": "register_table", "api": "Python"}


def _unused(state: State, touched: set[Key]) -> list[Key]:
    order = list(KINDS)
    gone = [
        key for key, item in state.objects.items() if item.origin == "files" and key not in touched
    ]
    return sorted(gone, key=lambda key: (-order.index(key[0]), key[1]))


def _meaning(kind: str, fields: Mapping[str, Any], versions: Mapping[Key, int]) -> str:
    kept = {name: value for name, value in fields.items() if name not in _NO_MEANING}
    if kind == "feature_service":
        # A service means the versions that it pins: when a view moves, so does the service.
        kept["pins"] = [version for _, version in _pins(kind, fields, versions)]
    return fingerprint(kept)


_READS = {"feature_service": "features", "on_demand_feature_view": "inputs"}
"""Kinds that stand on views, and the field that names them."""


def _pins(
    kind: str, fields: Mapping[str, Any], versions: Mapping[Key, int]
) -> list[tuple[str, int]]:
    """Return the views that a definition stands on, with the versions that they now have."""
    names = [item["view"] for item in fields[_READS[kind]]]
    return [
        (name, next(versions[view, name] for view in VIEW_KINDS if (view, name) in versions))
        for name in names
    ]


def _details(new: StoredObject, old: StoredObject | None) -> tuple[str, ...]:
    lines = []
    if new.kind in VIEW_KINDS and new.resolved:
        before = {f["name"]: f for f in (old.resolved or {}).get("features", ())} if old else {}
        after = {f["name"]: f for f in new.resolved["features"]}
        lines += [f"- {name}" for name in before if name not in after]
        for name, feature in after.items():
            shown = f"{name} {feature['dtype']}"
            if feature["sql"].strip('"') != name:
                shown += f" = {feature['sql']}"
            if name not in before:
                lines.append(f"+ {shown}")
            elif (before[name]["dtype"], before[name]["sql"]) != (feature["dtype"], feature["sql"]):
                lines.append(f"~ {shown} (was {before[name]['dtype']} {before[name]['sql']})")
    if old and new.kind == "on_demand_feature_view":
        before_hash, after_hash = ((item.resolved or {}).get("source_hash") for item in (old, new))
        if before_hash and after_hash and before_hash != after_hash:
            lines.append(f"~ the source of {new.definition['function']} has changed")
    if new.kind in _READS:
        pins = old.pins if old else {}
        for name, version in new.pins.items():
            if name not in pins:
                lines.append(f"+ {name}@{version}")
            elif pins[name] != version:
                lines.append(f"~ {name}@{pins[name]} -> {name}@{version}")
        lines += [f"- {name}@{version}" for name, version in pins.items() if name not in new.pins]
    skipped = {"name", "features", "inputs"}
    for name, value in new.definition.items():
        before_value = old.definition.get(name) if old else None
        if name in skipped or value == before_value or (old is None and value in _PLAIN):
            continue
        lines.append(
            f"{name}: {_show(value)}"
            if old is None
            else f"{name}: {_show(before_value)} -> {_show(value)}"
        )
    return tuple(lines)


_PLAIN: tuple[Any, ...] = (None, "", [], {}, "default", "UTC", True, "1m", "pandas")


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "none"
    text = "none" if value in (None, "") else " ".join(str(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."
