"""From definitions, or another state, to a plan: what the registry would hold afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from virtualfs.cached import cached_property
from virtualfs.compiler.key_forms import UNKNOWN_FORM
from virtualfs.compiler.plan import ResolvedView
from virtualfs.config import Policy
from virtualfs.definitions.api_names import ApiNames
from virtualfs.definitions.base import Definition, fingerprint
from virtualfs.definitions.project import (
    KINDS,
    VIEW_KINDS,
    Project,
    collect,
    definition_from_fields,
    kind_in_words,
)
from virtualfs.definitions.source import Source
from virtualfs.errors import DefinitionError
from virtualfs.registry.difference import NO_MEANING, READS
from virtualfs.registry.drift import Drift, find_drift
from virtualfs.registry.plan import Plan, changes_between
from virtualfs.registry.policy import check_policy
from virtualfs.registry.records import Versions
from virtualfs.registry.repository import Registry, checked_name
from virtualfs.registry.resolver import Resolver
from virtualfs.registry.state import DEPRECATION, Key, State, StoredObject, Write

__all__ = ["Planner"]

_ORIGINS = {"files": "the definition files", "registered": "register_table", "api": "Python"}


class Planner:
    """Makes plans against the registry's environment."""

    def __init__(self, registry: Registry, resolver: Resolver, policy: Policy) -> None:
        self._registry = registry
        self._resolver = resolver
        self._policy = policy

    def plan(self, objects: Iterable[Any], *, prune: bool, origin: str) -> Plan:
        """Compare definitions with the environment; nothing is written.

        Parameters
        ----------
        prune
            Whether to remove objects that came from files and are not among `objects`.
        origin
            ``"files"`` for the project's definition files, ``"api"`` or ``"registered"``.

        Raises
        ------
        DefinitionError
            A definition is wrong, does not fit its warehouse or the policy, or claims a name that
            came from elsewhere.
        """
        closed = self._resolver.close_sources(objects)
        handed = collect(closed)
        check_policy(self._policy, handed)
        state = self._registry.state_to_change()
        state.objects.load()
        wanted = _Wanted(self._registry, self._resolver, state, handed, origin, prune=prune)
        objects = wanted.objects()
        return self._between(
            state,
            objects,
            {**state.objects, **objects},
            warnings=tuple(wanted.warnings()),
            drift=tuple(wanted.drift),
        )

    def restore(self, target: State, base: State, action: str) -> Plan:
        """Plan to make `base` what `target` is, with the objects as they were written."""
        keys = {
            key
            for key in {*target.objects, *base.objects}
            if target.objects.written(key) != base.objects.written(key)
        }
        for state in (target, base):
            state.objects.load()
        plan = self._between(base, target.objects, keys, action=action)
        if not action.startswith("rollback"):
            return plan
        changed = (target.objects.get(write.key) for write in plan.writes)
        drift = [
            f"drift: {one}"
            for item in changed
            if item is not None and item.kind == "feature_view"
            for one in self._resolver.drift(item.view(), target)
        ]
        return replace(plan, warnings=tuple(drift))

    def promotion(self, source: str, target: str) -> Plan:
        """Plan to let an environment point at the revision that another points at.

        Raises
        ------
        NotFoundError
            There is no environment `source`.
        """
        checked_name(target)
        wanted = self._registry.state(environment=source)
        known = {item.name: item.revision for item in self._registry.environments()}
        base = replace(self._registry.state(known.get(target, 0)), environment=target)
        plan = self.restore(wanted, base, f"promote {source}")
        return replace(plan, revision=wanted.revision)

    def mark(self, state: State, name: str, version: int, message: str) -> Plan:
        """Plan to mark a version as deprecated, or (an empty message) as not."""
        key = DEPRECATION, f"{name}@{version}"
        objects = dict(state.objects.items())
        objects.pop(key, None)
        if message:
            fields = {"name": key[1], "message": message}
            objects[key] = StoredObject(*key, version, fingerprint(fields), "api", fields)
        return self._between(state, objects, [key])

    def _between(
        self,
        base: State,
        objects: Mapping[Key, StoredObject],
        keys: Iterable[Key],
        **fields: Any,
    ) -> Plan:
        """Return the plan that makes a state hold other objects.

        Parameters
        ----------
        keys
            The objects that may differ.
        """
        changes, pinned = changes_between(base.objects, objects, keys)
        written = ((change.kind, change.name) for change in changes)
        return Plan(
            self._registry.project, base.revision, tuple(changes), pinned=pinned,
            environment=base.environment, **fields,
            writes=tuple(Write(key, objects.get(key)) for key in written),
        )  # fmt: skip


class _Wanted:
    """The state that definitions ask for, built object by object in order of dependence."""

    def __init__(
        self,
        registry: Registry,
        resolver: Resolver,
        state: State,
        handed: Mapping[str, Mapping[str, Definition]],
        origin: str,
        *,
        prune: bool,
    ) -> None:
        self._registry = registry
        self._resolver = resolver
        self._state = state
        self._origin = origin
        self._handed = {(kind, name) for kind, items in handed.items() for name in items}
        kept = [
            item
            for item in state.objects.values()
            if item.kind in KINDS
            and item.key not in self._handed
            and not (prune and item.origin == "files")
        ]
        self._project = Project.of(
            [
                *(item for items in handed.values() for item in items.values()),
                *(definition_from_fields(item.kind, item.definition) for item in kept),
            ]
        )
        self._check_claims()
        self._objects: dict[Key, StoredObject] = {
            key: item for key, item in state.objects.items() if key[0] == DEPRECATION
        }
        self._views: dict[str, ResolvedView] = {}
        self.drift: list[Drift] = []
        self._found: dict[str, dict[str, str]] = {}

    def objects(self) -> dict[Key, StoredObject]:
        """Return the objects of the wanted state."""
        for name, entity in self._project.entities.items():
            self._plain("entity", name, entity)
        for name, source in self._project.sources.items():
            self._plain("source", name, source)
        for name in self._project.views:
            self._view(name)
        for name in self._project.on_demand:
            self._on_demand(name)
        for name, service in self._project.services.items():
            self._plain("feature_service", name, service)
        return self._objects

    def _check_claims(self) -> None:
        for kind, name in self._handed:
            old = self._state.objects.get((kind, name))
            if old and {old.origin, self._origin} == {"files", "registered"}:
                raise DefinitionError(
                    f"{kind_in_words(kind)} {name!r} is claimed twice: it came from "
                    f"{_ORIGINS[old.origin]} and now comes from {_ORIGINS[self._origin]}; rename "
                    "one"
                )

    def warnings(self) -> Iterable[str]:
        """Yield what is worth knowing of what was handed in."""
        for name in sorted(self._project.views):
            resolved = self._objects["feature_view", name].resolved or {}
            if ("feature_view", name) in self._handed and not resolved.get("event_timestamp"):
                yield (
                    f"feature view {name} is static: its source has no event timestamp, so it "
                    "carries no point-in-time guarantee"
                )
            if ("feature_view", name) in self._handed and resolved.get("key_forms"):
                unknown = [k for k, form in resolved["key_forms"].items() if form == UNKNOWN_FORM]
                if unknown:
                    yield (
                        f"feature view {name} goes past the cache: the warehouse compares its join "
                        f"key {', '.join(unknown)} by a collation that has no other form; online "
                        "reads ask the warehouse each time"
                    )
        definitions = {
            key: item.definition for key, item in self._objects.items() if key[0] in KINDS
        }
        for problem in ApiNames(definitions).all_problems():
            if problem.key in self._handed:
                yield problem.text

    # -- one kind after the other

    def _plain(self, kind: str, name: str, definition: Definition) -> None:
        """Settle what needs no warehouse."""
        if kind != "feature_service" and self._keep((kind, name)):
            return
        fields = definition.model_dump(mode="json")
        meaning = {name: value for name, value in fields.items() if name not in NO_MEANING}
        pins = self._pins(kind, fields)
        if kind == "feature_service":
            # A service means the versions that it pins: when a view moves, so does the service.
            meaning["pins"] = [pins[item["view"]] for item in fields["features"]]
        self._settle((kind, name), fields, fingerprint(meaning), {"pins": pins} if pins else None)

    def _view(self, name: str) -> None:
        key = "feature_view", name
        view = self._project.views[name]
        stood = [("source", view.source_name), *(("entity", one) for one in view.entity_names)]
        moved = [one for one in stood if self._meaning(one) != self._state_meaning(one)]
        if not moved and self._keep(key):
            return
        old = self._state.objects.get(key)
        fields = view.model_dump(mode="json")
        if old is not None and not moved and old.definition == fields and self._is_as_it_was(old):
            self._objects[key] = old
            return
        resolved = self._resolver.resolve(self._project, self._state, name)
        self._settle(
            key, fields, resolved.fingerprint, resolved.model_dump(mode="json", exclude={"version"})
        )

    def _is_as_it_was(self, old: StoredObject) -> bool:
        """Tell whether an unchanged view need not be resolved again, and note what drifted."""
        known = (old.resolved or {}).get("source_columns")
        if not known:
            return False
        source = self._project.sources[old.definition["source"]]
        drift = find_drift(old.name, source.name, known, lambda: self._columns(source))
        self.drift += drift
        # What is gone cannot be resolved; what has another type is another meaning.
        return not drift or any(item.breaks for item in drift)

    def _on_demand(self, name: str) -> None:
        key = "on_demand_feature_view", name
        view = self._project.on_demand[name]
        reads = [("feature_view", one) for one in view.input_names]
        if all(self._meaning(one) == self._state_meaning(one) for one in reads) and self._keep(key):
            return
        fields = view.model_dump(mode="json")
        views = {one: self._resolved(one) for one in view.input_names}
        resolved = self._resolver.resolve_on_demand(self._project, self._state, views, name)
        content = resolved.model_dump(mode="json", exclude={"version"})
        content["pins"] = self._pins(key[0], fields)
        self._settle(key, fields, resolved.fingerprint, content)

    def _columns(self, source: Source) -> dict[str, str]:
        """Return the columns of a source, which many views may read."""
        if source.name not in self._found:
            self._found[source.name] = self._resolver.source_columns(source)
        return self._found[source.name]

    # -- inside

    def _keep(self, key: Key) -> bool:
        """Keep an object that was not handed in."""
        if key in self._handed:
            return False
        self._objects[key] = self._state.objects[key]
        return True

    def _settle(
        self,
        key: Key,
        fields: Mapping[str, Any],
        meaning: str,
        resolved: Mapping[str, Any] | None,
    ) -> None:
        old = self._state.objects.get(key)
        if old is not None and old.fingerprint == meaning and old.definition == fields:
            # Another type of a column that changes no meaning is remembered all the same.
            columns = [
                (content or {}).get("source_columns") for content in (old.resolved, resolved)
            ]
            if not columns[0] or columns[0] == columns[1]:
                self._objects[key] = old
                return
        if old is not None and old.fingerprint == meaning:
            version = old.version
        else:
            self._must_keep_its_kind(key)
            known = self._versions.get(key, Versions({}))
            version = known.of(meaning, old.version if old else None)
        is_ours = old is None or key in self._handed
        self._objects[key] = StoredObject(
            *key, version, meaning, self._origin if is_ours or not old else old.origin, fields,
            resolved,
        )  # fmt: skip

    def _must_keep_its_kind(self, key: Key) -> None:
        """Refuse a view whose name was that of the other kind, as references could not tell."""
        kind, name = key
        for other in VIEW_KINDS:
            if kind in VIEW_KINDS and other != kind and (other, name) in self._versions:
                raise DefinitionError(
                    f"{kind_in_words(kind)} {name!r}: there are versions of a "
                    f"{kind_in_words(other)} of this name, which stay answerable; choose another"
                )

    @cached_property
    def _versions(self) -> dict[Key, Versions]:
        return self._registry.versions(self._state.revision)

    def _meaning(self, key: Key) -> tuple[int, str]:
        item = self._objects[key]
        return item.version, item.fingerprint

    def _state_meaning(self, key: Key) -> tuple[int, str] | None:
        item = self._state.objects.get(key)
        return None if item is None else (item.version, item.fingerprint)

    def _resolved(self, name: str) -> ResolvedView:
        if name not in self._views:
            self._views[name] = self._objects["feature_view", name].view()
        return self._views[name]

    def _pins(self, kind: str, fields: Mapping[str, Any]) -> dict[str, int]:
        """Return the views that a definition stands on, with the versions that they now have."""
        if kind not in READS:
            return {}
        return {
            item["view"]: next(
                self._objects[view, item["view"]].version
                for view in VIEW_KINDS
                if (view, item["view"]) in self._objects
            )
            for item in fields[READS[kind]]
        }
