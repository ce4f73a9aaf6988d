"""How the catalog is called in GraphQL: one rule for the plan, which warns, and for the schema."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

__all__ = ["STATIC_FIELDS", "ApiNames", "EntityNames", "Problem", "field_name", "type_name"]

Key = tuple[str, str]
Definitions = Mapping[Key, Mapping[str, Any]]
"""Definitions as plain fields, by kind and name."""

STATIC_FIELDS = frozenset({
    "_entities", "_service", "entities", "entity", "feature", "featureService", "featureServices",
    "featureView", "featureViews", "features", "historicalFeatures", "lineage",
    "onDemandFeatureView", "onDemandFeatureViews", "onlineFeatures", "project", "search",
    "trainingSet", "trainingSets",
})  # fmt: skip
"""The root fields that every project has; no object of a catalog is called so."""


@lru_cache(maxsize=65_536)
def field_name(name: str) -> str:
    """Return a name as GraphQL fields are called: camelCased, other characters become ``_``.

    >>> field_name("dep_delay_mean_7d"), field_name("wind-speed"), field_name("2nd_best")
    ('depDelayMean7d', 'wind_speed', '_2ndBest')
    """
    # NUL stands in for other characters, so that only the name's own underscores join words.
    words = re.sub(r"[^0-9A-Za-z_]", "\0", name)
    lead = "_" if re.match(r"[_\0]*$|[_\0]|[0-9]", words) else ""
    camel = re.sub(r"_+([0-9A-Za-z])", lambda match: match[1].upper(), words.strip("_\0"))
    # One leading underscore at most: names that start with two belong to GraphQL itself.
    return lead + camel.replace("_", "").replace("\0", "_")


def type_name(name: str) -> str:
    """Return a name as GraphQL types are called.

    >>> type_name("airport_weather")
    'AirportWeather'
    """
    shown = field_name(name)
    return shown[:1].upper() + shown[1:]


@dataclass(frozen=True)
class Problem:
    """A field that is left out, as its name is taken."""

    key: Key
    text: str


@dataclass(frozen=True)
class EntityNames:
    """How one entity is called; None where the name is taken."""

    one: str | None
    many: str | None
    keys: Mapping[str, str]
    """Join keys with the fields that show them."""
    views: Mapping[str, str]
    """Views of both kinds that are fields of it, with their names."""


@dataclass
class ApiNames:
    """The fields that a catalog's objects are in GraphQL.

    Parameters
    ----------
    definitions
        All definitions of a project, as plain fields.
    """

    definitions: Definitions
    entities: dict[str, EntityNames] = field(default_factory=dict)
    roots: dict[str, str] = field(default_factory=dict)
    """Views of both kinds that belong to no entity, with their root fields."""
    services: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._taken = dict.fromkeys(STATIC_FIELDS, "every project has")
        views = {
            name: [*self._views(kind, name)]
            for kind in ("feature_view", "on_demand_feature_view")
            for name in self._names(kind)
            if self._is_offered(kind, name)
        }
        for entity in self._names("entity"):
            self._entity(entity, [name for name, some in views.items() if entity in some])
        for name, entities in views.items():
            if not entities:
                self._root(self._view_kind(name), name, self.roots)
        for name in self._names("feature_service"):
            self._root("feature_service", name, self.services)

    def features(self, kind: str, view: str) -> dict[str, str]:
        """Return the features of a view with their fields; those whose name is taken are not."""
        return self.shown(
            {item["name"]: item.get("graphql_name", "") for item in self._features(kind, view)},
            (kind, view),
        )

    def shown(self, given: Mapping[str, str], key: Key) -> dict[str, str]:
        """Return names with the fields that they are, but for those that are taken.

        Parameters
        ----------
        given
            Each name with how it is to be called, or with nothing.
        key
            Of the object whose features they are.
        """
        taken = {"_meta": "every view has"}
        found: dict[str, str] = {}
        for name, wanted in given.items():
            shown = wanted or field_name(name)
            what = f"feature {name!r} of {_said(key)}"
            if self._is_free(taken, shown, key, what, "graphql_name"):
                found[name] = shown
        return found

    def all_problems(self) -> Iterator[Problem]:
        """Yield every field that is left out, those of features too."""
        known = len(self.problems)
        for kind, name in self.definitions:
            if kind in ("feature_view", "on_demand_feature_view"):
                self.features(kind, name)
        yield from self.problems
        del self.problems[known:]

    def called(self, kind: str, name: str) -> str:
        """Return how an object is to be called."""
        wanted: str = self.definitions[kind, name].get("graphql_name") or ""
        return wanted or field_name(name)

    def key_columns(self, kind: str, name: str) -> dict[str, str]:
        """Return the columns that name one row of a view, with their data types."""
        definition = self.definitions[kind, name]
        if kind == "feature_view":
            held = [self.definitions["entity", one]["join_keys"] for one in definition["entities"]]
            return {key: dtype for keys in held for key, dtype in keys.items()}
        found: dict[str, str] = {}
        for item in definition["inputs"]:
            renamed = item.get("join_keys") or {}
            for key, dtype in self.key_columns("feature_view", item["view"]).items():
                found.setdefault(renamed.get(key, key), dtype)
        return found

    def _names(self, kind: str) -> list[str]:
        return sorted(name for held, name in self.definitions if held == kind)

    def _view_kind(self, name: str) -> str:
        found = ("feature_view", name) in self.definitions
        return "feature_view" if found else "on_demand_feature_view"

    def _is_offered(self, kind: str, name: str) -> bool:
        definition = self.definitions[kind, name]
        inputs = definition.get("inputs") or ()
        return bool(definition.get("online", True)) and all(
            self.definitions["feature_view", item["view"]].get("online", True) for item in inputs
        )

    def _views(self, kind: str, name: str) -> Iterator[str]:
        """Yield the entities that a view is a field of."""
        definition = self.definitions[kind, name]
        if kind == "feature_view":
            yield from definition["entities"]
            return
        keys = self.key_columns(kind, name)
        read = [self.definitions["feature_view", item["view"]] for item in definition["inputs"]]
        for entity in dict.fromkeys(one for view in read for one in view["entities"]):
            if keys.items() >= self.definitions["entity", entity]["join_keys"].items():
                yield entity

    def _features(self, kind: str, view: str) -> Sequence[Mapping[str, Any]]:
        features: Sequence[Mapping[str, Any]] = self.definitions[kind, view]["features"]
        return features

    def _entity(self, name: str, views: Sequence[str]) -> None:
        key = "entity", name
        definition = self.definitions[key]
        one = self.called(*key)
        many = definition.get("graphql_plural") or one + "s"
        what = f"entity {name!r}"
        taken: dict[str, str] = {}
        keys = {}
        for column in definition["join_keys"]:
            shown = field_name(column)
            while shown in taken:
                shown += "_"
            taken[shown] = f"the join key {column!r} has"
            keys[column] = shown
        shown_views = {}
        for view in views:
            place = self._view_kind(view), view
            wanted = self.called(*place)
            if self._is_free(taken, wanted, place, f"{_said(place)} of {what}", "graphql_name"):
                shown_views[view] = wanted
        self.entities[name] = EntityNames(
            one if self._is_free(self._taken, one, key, what, "graphql_name") else None,
            many if self._is_free(self._taken, many, key, f"all of {what}", "graphql_plural")
            else None,
            keys,
            shown_views,
        )  # fmt: skip

    def _root(self, kind: str, name: str, found: dict[str, str]) -> None:
        shown = self.called(kind, name)
        if self._is_free(self._taken, shown, (kind, name), _said((kind, name)), "graphql_name"):
            found[name] = shown

    def _is_free(
        self, taken: dict[str, str], name: str, key: Key, what: str, override: str
    ) -> bool:
        if name in taken:
            self.problems.append(
                Problem(
                    key,
                    f"{what} is left out of GraphQL: {taken[name]} the field {name!r}; give it "
                    f"another name by {override}=",
                )
            )
            return False
        taken[name] = f"{what} has"
        return True


def _said(key: Key) -> str:
    kind, name = key
    return f"{kind.replace('on_demand', 'on-demand').replace('_', ' ')} {name!r}"
