"""The generated part of the schema: typed fields for each entity and view of the catalog."""

from __future__ import annotations

import inspect
import logging
import math
import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import strawberry
from strawberry.extensions import SchemaExtension
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext

from graphql import GraphQLError, Undefined
from virtualfs.compiler.plan import ResolvedView
from virtualfs.errors import VirtualFSError
from virtualfs_graphql.request import Context, Snapshot, ViewAnswer, checked_keys
from virtualfs_graphql.scalars import SCALARS, type_of
from virtualfs_graphql.schema import RequestInfo, StaticQuery
from virtualfs_graphql.types import FeatureViewMeta

__all__ = ["build_schema", "field_name", "type_name"]

_log = logging.getLogger("virtualfs.graphql")


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
    field = field_name(name)
    return field[:1].upper() + field[1:]


@dataclass(frozen=True)
class EntityKeys:
    """One entity that a request names, and the instant it asks about."""

    values: Mapping[str, Any]
    as_of: datetime | None


def build_schema(snapshot: Snapshot) -> strawberry.Schema:
    """Return the schema of a snapshot: the static part, and the fields of its catalog."""
    return _Builder(snapshot).schema()


class _Builder:
    """Makes the types of one snapshot; names that are taken are left out, and logged."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        static = _schema(StaticQuery)
        self._types = {*static._schema.type_map, "Int", "Float", "ID", "Mutation", "Subscription"}
        self._roots = {*static._schema.type_map["Query"].fields}  # type: ignore[attr-defined]
        self._views = {name: view for name, view in snapshot.views.items() if view.online}
        self._objects: dict[str, Any] = {}

    def schema(self) -> strawberry.Schema:
        """Return the whole schema."""
        fields: list[tuple[Any, Any]] = []
        for name, stored in self._snapshot.state.of_kind("entity").items():
            fields += self._entity(name, stored.definition)
        for name, view in self._views.items():
            if not view.entities and self._is_free(self._roots, field_name(name), f"view {name!r}"):
                fields += self._view_field(view, {}, field_name(name), root=True)
        query = _make_type("Query", fields, bases=(StaticQuery,)) if fields else StaticQuery
        return _schema(query)

    def _is_free(self, taken: set[str], name: str, what: str) -> bool:
        if name in taken:
            _log.warning("%s has no field %s: the name is taken", what, name)
            return False
        taken.add(name)
        return True

    def _type_name(self, name: str, suffix: str) -> str:
        """Return a free type name: the name's own, or with a suffix where that is taken."""
        wanted = type_name(name)
        while wanted in self._types:
            wanted += suffix
        self._types.add(wanted)
        return wanted

    def _entity(self, name: str, definition: Mapping[str, Any]) -> list[tuple[Any, Any]]:
        singular = field_name(name)
        what = f"entity {name!r}"
        has_one = self._is_free(self._roots, singular, what)
        has_many = self._is_free(self._roots, singular + "s", what)
        if not (has_one or has_many):
            return []
        keys: dict[str, str] = dict(definition["join_keys"])
        description = definition.get("description") or None
        taken: set[str] = set()
        fields: list[tuple[Any, Any]] = []
        named: list[tuple[str, str, Any]] = []
        for key, dtype in keys.items():
            shown = _unique(field_name(key), taken)
            named.append((key, shown, type_of(dtype)))
            fields.append((_field(_key_of(key), shown, type_of(dtype)), type_of(dtype)))
        for view in self._views.values():
            shown = field_name(view.name)
            if name in view.entities and self._is_free(taken, shown, f"view {view.name!r}"):
                fields += self._view_field(view, keys, shown)
        kind = _make_type(self._type_name(name, "Entity"), fields, description=description)
        found: list[tuple[Any, Any]] = []
        if has_one:
            parameters: list[tuple[str, str, Any, Any]] = [
                (f"key_{n}", shown, held, ...) for n, (_, shown, held) in enumerate(named)
            ]
            one = _with_parameters(
                _one_entity([key for key, _, _ in named]),
                [*parameters, ("as_of", "asOf", datetime | None, None)],
            )
            found.append((_field(one, singular, kind | None, description), kind | None))
        if has_many:
            plural = f"{kind.__name__}Key"
            while plural in self._types:
                plural += "Input"
            self._types.add(plural)
            # list[...] of a variable is no type to mypy, hence __class_getitem__ by name.
            key_fields = [(strawberry.field(name=shown), held) for _, shown, held in named]
            key_type = _make_type(plural, key_fields, is_input=True)
            many = _with_parameters(
                _many_entities([key for key, _, _ in named]),
                [
                    ("keys", "keys", list.__class_getitem__(key_type), ...),
                    ("as_of", "asOf", datetime | None, None),
                ],
            )
            several: Any = list.__class_getitem__(kind | None)
            found.append((_field(many, singular + "s", several, description), several))
        return found

    def _view_type(self, view: ResolvedView) -> Any:
        if view.name not in self._objects:
            taken = {"_meta"}
            fields: list[tuple[Any, Any]] = []
            for position, feature in enumerate(view.features):
                shown = field_name(feature.name)
                if self._is_free(taken, shown, f"feature {view.name}:{feature.name}"):
                    kind = type_of(feature.dtype) | None
                    resolver = _feature_of(position, is_float=feature.dtype.startswith("float"))
                    field = _field(resolver, shown, kind, feature.description, feature.deprecated)
                    fields.append((field, kind))
            about = "Where the values come from"
            fields.append((_field(_meta, "_meta", FeatureViewMeta, about), FeatureViewMeta))
            self._objects[view.name] = _make_type(
                self._type_name(view.name, "View"), fields, description=view.description
            )
        return self._objects[view.name]

    def _view_field(
        self, view: ResolvedView, given: Mapping[str, str], name: str, *, root: bool = False
    ) -> list[tuple[Any, Any]]:
        """Return the field of a view; the keys that its parent does not give are arguments."""
        kind = self._view_type(view) | None
        others = {key: dtype for key, dtype in view.join_keys.items() if key not in given}
        taken: set[str] = {"asOf"} if root else set()
        parameters: list[tuple[str, str, Any, Any]] = [
            (f"key_{n}", _unique(field_name(key), taken), type_of(dtype), ...)
            for n, (key, dtype) in enumerate(others.items())
        ]
        if root:
            parameters.append(("as_of", "asOf", datetime | None, None))
        resolver = _with_parameters(_view_of(view, list(others)), parameters)
        return [(_field(resolver, name, kind, view.description, view.deprecated), kind)]


def _one_entity(keys: Sequence[str]) -> Callable[..., EntityKeys]:
    def resolve(as_of: datetime | None = None, **values: Any) -> EntityKeys:
        found = {key: values[f"key_{number}"] for number, key in enumerate(keys)}
        return EntityKeys(found, as_of)

    return resolve


def _many_entities(names: Sequence[str]) -> Callable[..., list[EntityKeys]]:
    def resolve(keys: Sequence[Any], as_of: datetime | None = None) -> list[EntityKeys]:
        return [
            EntityKeys({name: getattr(key, f"field_{n}") for n, name in enumerate(names)}, as_of)
            for key in keys
        ]

    return resolve


def _key_of(key: str) -> Callable[..., Any]:
    def resolve(root: EntityKeys) -> Any:
        return root.values[key]

    return resolve


def _view_of(view: ResolvedView, others: Sequence[str]) -> Callable[..., Any]:
    def resolve(
        root: EntityKeys | None, info: RequestInfo, as_of: datetime | None = None, **values: Any
    ) -> Any:
        # Not async: the row must be asked for before anything is awaited, to join the one read.
        context: Context = info.context
        given = dict(root.values) if root is not None else {}
        instant = root.as_of if root is not None else as_of
        given.update((key, values[f"key_{number}"]) for number, key in enumerate(others))
        (keys,) = checked_keys(view, [given])
        row = context.row(view, tuple(keys[key] for key in view.join_keys), instant)
        return context.view(view, row, instant)

    return resolve


def _feature_of(position: int, *, is_float: bool) -> Callable[..., Any]:
    def resolve(root: ViewAnswer) -> Any:
        value = root.value(position)
        return None if is_float and value is not None and not math.isfinite(value) else value

    return resolve


def _meta(root: ViewAnswer) -> FeatureViewMeta:
    return FeatureViewMeta(
        event_timestamp=root.event_timestamp,
        status=root.status,
        version=root.view.version or 0,
        cache_hit=root.row.cached,
    )


def _unique(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _field(
    resolver: Any, name: str, kind: Any, description: str | None = None, deprecated: str = ""
) -> Any:
    return strawberry.field(
        resolver=resolver if hasattr(resolver, "__signature__") else _with_parameters(resolver, ()),
        name=name,
        description=description or None,
        deprecation_reason=deprecated or None,
        graphql_type=kind,
    )


def _with_parameters(resolver: Any, parameters: Sequence[tuple[str, str, Any, Any]]) -> Any:
    """Give a resolver the signature that Strawberry reads.

    Parameters
    ----------
    parameters
        Python name, shown name, type and default (``...`` for none) of each argument.
    """
    own = inspect.signature(resolver).parameters
    reserved = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation)
        for name, annotation in (("root", Any), ("info", RequestInfo))
        if name in own
    ]
    arguments = [
        inspect.Parameter(
            python_name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=Annotated[kind, strawberry.argument(name=shown)],
            default=inspect.Parameter.empty if default is ... else default,
        )
        for python_name, shown, kind, default in parameters
    ]
    resolver.__signature__ = inspect.Signature([*reserved, *arguments])
    return resolver


def _make_type(
    name: str,
    fields: Sequence[tuple[Any, Any]],
    *,
    bases: tuple[type, ...] = (),
    description: str | None = None,
    is_input: bool = False,
) -> Any:
    """Make a Strawberry type; Python names are numbers, as the catalog's need not be Python's."""
    namespace: dict[str, Any] = {"__module__": __name__}
    annotations = {}
    for number, (field, kind) in enumerate(fields):
        namespace[f"field_{number}"] = field
        annotations[f"field_{number}"] = kind
    namespace["__annotations__"] = annotations
    made = types.new_class(name, bases, {}, lambda body: body.update(namespace))
    return strawberry.type(made, name=name, is_input=is_input, description=description or None)


class _Errors(SchemaExtension):
    """Our own errors with their message and code; all others masked, and logged."""

    execution_context: ExecutionContext

    def on_operation(self) -> Any:
        """Replace the errors of a finished operation."""
        yield
        result: Any = self.execution_context.result
        if result is not None and getattr(result, "errors", None):
            result.errors = [_presented(error) for error in result.errors]


def _presented(error: GraphQLError) -> GraphQLError:
    cause = error.original_error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    if error.path is None or cause is None or isinstance(cause, GraphQLError):
        # Syntax, validation and variables: the caller's own words, nothing of ours.
        return error
    if isinstance(cause, VirtualFSError):
        message, code = str(cause), type(cause).__name__
    else:
        _log.error("internal error at %s", error.path, exc_info=cause)
        message, code = "internal error", "InternalError"
    return GraphQLError(
        message,
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
        extensions={"code": code},
    )


class _Schema(strawberry.Schema):
    def process_errors(
        self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None
    ) -> None:
        """Log nothing here: `_Errors` logs what is not the caller's doing."""


def _schema(query: Any) -> strawberry.Schema:
    made = _Schema(query=query, extensions=[_Errors], config=StrawberryConfig(scalar_map=SCALARS))
    # Python's None default is no default of the API: `search: String`, not `search: String = null`.
    for field in made._schema.type_map["Query"].fields.values():  # type: ignore[attr-defined]
        for argument in field.args.values():
            if argument.default_value is None:
                argument.default_value = Undefined
    return made
