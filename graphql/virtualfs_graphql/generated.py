"""The generated part of the schema: typed fields for the entities, views and services of a catalog.

What a field means stands in its ``extensions``, once: resolvers run it field by field, and
:mod:`virtualfs_graphql.compiled` runs whole documents of such fields in one go. The types are
graphql-core's own, as making thousands of them by way of annotations takes seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphql.utilities import coerce_input_value

from graphql import (
    DirectiveLocation,
    GraphQLArgument,
    GraphQLBoolean,
    GraphQLDirective,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLString,
    GraphQLUnionType,
    Undefined,
)
from virtualfs.compiler.plan import FeaturePlan, ResolvedView
from virtualfs.definitions.api_names import EntityNames, field_name
from virtualfs.errors import NotFoundError, PermissionDeniedError, SpineError
from virtualfs.serving.on_demand import FeatureStatus
from virtualfs_graphql.inputs import checked_keys, plan_inputs
from virtualfs_graphql.memory import Breath
from virtualfs_graphql.request import NOW, Context, PlanAnswer, Snapshot, ViewAnswer, When
from virtualfs_graphql.scalars import finite, graphql_type
from virtualfs_graphql.types import FeatureServiceMeta, FeatureViewMeta

__all__ = [
    "MEANING",
    "EntityField",
    "EntityKeys",
    "FeatureField",
    "KeyField",
    "MetaField",
    "PlanField",
    "ViewField",
    "extended",
]

Info = GraphQLResolveInfo[Context]
_log = logging.getLogger("virtualfs.graphql")

MEANING = "virtualfs"
"""Where in a field's extensions its meaning stands."""
_WORST = (FeatureStatus.STALE, FeatureStatus.NOT_FOUND, FeatureStatus.OUTSIDE_MAX_AGE)


@dataclass(frozen=True)
class EntityKeys:
    """One entity that a request names, and the instant it asks about."""

    type_name: str
    values: Mapping[str, Any]
    when: When = NOW


@dataclass(frozen=True)
class EntityField:
    """One entity by its join keys, or many."""

    type_name: str
    keys: Mapping[str, str]
    """Join keys with the names that arguments and key inputs have for them."""
    is_many: bool

    def __call__(self, _root: Any, info: Info, **given: Any) -> Any:
        """Resolve the field."""
        when = When.of(given.pop("asOf", None), given.pop("lateData", None))
        context: Context = info.context
        if self.is_many:
            context.check_list(len(given["keys"]), "keys")
            context.charge(len(given["keys"]))
            return [self.named(one, when) for one in given["keys"]]
        context.charge(1)
        return self.named(given, when)

    def named(self, given: Mapping[str, Any], when: When = NOW) -> EntityKeys:
        """Return the entity that some arguments name."""
        values = {key: given[shown] for key, shown in self.keys.items()}
        return EntityKeys(self.type_name, values, when)


@dataclass(frozen=True)
class KeyField:
    """A join key of an entity."""

    key: str

    def __call__(self, root: EntityKeys, _info: Info) -> Any:
        """Resolve the field."""
        return root.values[self.key]


@dataclass(frozen=True)
class ViewField:
    """A view of latest values or aggregates, as a field of an entity or of the query."""

    view: ResolvedView
    arguments: Mapping[str, str]
    """Join keys that the parent does not give, with their arguments."""

    def __call__(self, root: EntityKeys | None, info: Info, **given: Any) -> Awaitable[ViewAnswer]:
        """Resolve the field."""
        # Not async: the row must be asked for before anything is awaited, to join the one read.
        context: Context = info.context
        keys, when = _keys_and_instant(root, self.arguments, given)
        (checked,) = checked_keys(self.view, [keys])
        key = tuple(checked[name] for name in self.view.join_keys)
        return context.view(self.view, key, context.row(self.view, key, when), when)


@dataclass(frozen=True)
class PlanField:
    """A service or an on-demand view, as a field of an entity or of the query."""

    plan: FeaturePlan
    version: int
    arguments: Mapping[str, str]
    """Join keys that the parent does not give, with their arguments."""
    request: Mapping[str, str]
    """Request inputs with their arguments."""

    def __call__(self, root: EntityKeys | None, info: Info, **given: Any) -> Awaitable[PlanAnswer]:
        """Resolve the field."""
        context: Context = info.context
        inputs = {name: given.pop(shown) for name, shown in self.request.items() if shown in given}
        keys, when = _keys_and_instant(root, self.arguments, given)
        return context.answer(self.plan, *plan_inputs(self.plan, [keys], [inputs]), when)


@dataclass(frozen=True)
class FeatureField:
    """A feature, by its place in a view or in a plan's output."""

    place: int
    dtype: str

    def __call__(self, root: ViewAnswer | PlanAnswer, _info: Info) -> Any:
        """Resolve the field."""
        if isinstance(root, ViewAnswer):
            return finite(root.value(self.place))
        return finite(root.response.values[0][self.place])


@dataclass(frozen=True)
class MetaField:
    """Where the values of a view, or of a plan, come from."""

    version: int
    of_service: bool = False

    def __call__(self, root: ViewAnswer | PlanAnswer, _info: Info) -> Any:
        """Resolve the field."""
        return self.of(root)

    def of(self, answer: ViewAnswer | PlanAnswer) -> FeatureViewMeta | FeatureServiceMeta:
        """Return what is known of an answer."""
        if isinstance(answer, ViewAnswer):
            return FeatureViewMeta(
                event_timestamp=answer.event_timestamp,
                status=answer.status,
                version=self.version,
                cache_hit=answer.is_cached,
            )
        found = answer.response
        statuses = [found.statuses[name][0] for name in found.names]
        events = [found.event_timestamps[name][0] for name in found.names]
        if self.of_service:
            return FeatureServiceMeta(
                names=list(found.names),
                statuses=statuses,
                event_timestamps=events,
                version=self.version,
                cache_hit=answer.is_cached,
            )
        return FeatureViewMeta(
            event_timestamp=next(iter(events), None),
            status=next((item for item in _WORST if item in statuses), FeatureStatus.PRESENT),
            version=self.version,
            cache_hit=answer.is_cached,
        )


def _keys_and_instant(
    root: EntityKeys | None, arguments: Mapping[str, str], given: Mapping[str, Any]
) -> tuple[dict[str, Any], When]:
    own = {key: given[shown] for key, shown in arguments.items()}
    if root is None:
        return own, When.of(given.get("asOf"), given.get("lateData"))
    return {**root.values, **own}, root.when


def extended(snapshot: Snapshot, static: GraphQLSchema) -> GraphQLSchema:
    """Return a schema with the fields of a snapshot's catalog.

    Meant to be run in a thread: it lets go of the interpreter every few milliseconds, so that
    requests are answered meanwhile.
    """
    return _Builder(snapshot, static).schema()


class _Builder:
    """Makes the types of one snapshot."""

    def __init__(self, snapshot: Snapshot, static: GraphQLSchema) -> None:
        self._snapshot = snapshot
        self._static = static
        self._names = snapshot.names
        self._scalars = static.type_map
        self._taken = {*static.type_map, "Int", "Float", "ID", "Mutation", "Subscription"}
        self._taken |= {"_Any", "_Entity", "_FieldSet", "_Service"}
        self._objects: dict[str, GraphQLObjectType] = {}
        self._entities: dict[str, tuple[EntityField, GraphQLObjectType]] = {}
        self._breathe = Breath()
        instant: Any = static.type_map["DateTime"]
        late: Any = static.type_map["LateData"]
        self._when = {
            "asOf": GraphQLArgument(instant),
            "lateData": GraphQLArgument(late, default_value="include"),
        }

    def schema(self) -> GraphQLSchema:
        """Return the whole schema."""
        for problem in self._names.all_problems():
            _log.warning("%s", problem.text)
        query: Any = self._static.query_type
        fields: dict[str, GraphQLField] = dict(query.fields)
        for name, names in self._names.entities.items():
            fields.update(self._entity(name, names))
        for name, shown in self._names.roots.items():
            fields.update(self._view_fields({name: shown}, {}))
        for name, shown in self._names.services.items():
            fields.update(self._service(name, shown))
        fields.update(self._federation())
        arguments = self._static.to_kwargs()
        arguments["query"] = GraphQLObjectType(
            "Query",
            fields,
            description=query.description,
            extensions=query.extensions,
        )
        arguments["directives"] = (*arguments["directives"], KEY)
        arguments["types"] = tuple(item for item in arguments["types"] or () if item is not query)
        return GraphQLSchema(**arguments)

    # -- entities, views, services

    def _entity(self, name: str, names: EntityNames) -> Iterator[tuple[str, GraphQLField]]:
        definition = self._snapshot.state.objects["entity", name].definition
        dtypes: dict[str, str] = definition["join_keys"]
        about = definition.get("description") or None
        shown_type = self._type_name(self._names.called("entity", name), "Entity")
        fields = {
            shown: _field(GraphQLNonNull(self._type(dtypes[key])), KeyField(key), {})
            for key, shown in names.keys.items()
        }
        fields |= dict(self._view_fields(names.views, dtypes))
        kind = GraphQLObjectType(shown_type, fields, description=about)
        one = EntityField(shown_type, names.keys, is_many=False)
        self._entities[shown_type] = one, kind
        if names.one:
            given = _arguments(self._types(names.keys, dtypes))
            yield names.one, _field(kind, one, {**given, **self._when}, about)
        if names.many:
            key_type = GraphQLInputObjectType(
                self._type_name(f"{shown_type}Key", "Input"),
                {
                    shown: GraphQLInputField(GraphQLNonNull(item))
                    for shown, item in self._types(names.keys, dtypes).items()
                },
            )
            keys = GraphQLArgument(GraphQLNonNull(GraphQLList(GraphQLNonNull(key_type))))
            many = EntityField(shown_type, names.keys, is_many=True)
            several = GraphQLNonNull(GraphQLList(kind))
            yield names.many, _field(several, many, {"keys": keys, **self._when}, about)

    def _view_fields(
        self, views: Mapping[str, str], given: Mapping[str, str]
    ) -> Iterator[tuple[str, GraphQLField]]:
        """Yield the fields of views; the keys that their parent does not give are arguments."""
        for name, shown in views.items():
            view = self._snapshot.views.get(name)
            if view is not None:
                arguments = _unique(key for key in view.join_keys if key not in given)
                types = self._types(arguments, view.join_keys)
                yield (
                    shown,
                    _field(
                        self._view_type(view),
                        ViewField(view, arguments),
                        {**_arguments(types), **({} if given else self._when)},
                        view.description,
                        view.deprecated,
                    ),
                )
            elif (made := self._on_demand(name, given)) is not None:
                yield shown, made

    def _on_demand(self, name: str, given: Mapping[str, str]) -> GraphQLField | None:
        view = self._snapshot.on_demand[name]
        plan = self._plan((name,), f"on-demand feature view {name!r}")
        if plan is None:
            return None
        meaning, arguments = self._plan_field(plan, view.version or 0, given)
        if name not in self._objects:
            key = "on_demand_feature_view", name
            self._objects[name] = self._plan_type(
                self._type_name(self._names.called(*key), "View"),
                plan,
                self._names.features(*key),
                MetaField(meaning.version),
                view.description,
            )
        return _field(
            self._objects[name],
            meaning,
            {**arguments, **({} if given else self._when)},
            view.description,
            view.deprecated,
        )

    def _service(self, name: str, shown: str) -> Iterator[tuple[str, GraphQLField]]:
        plan = self._plan(name, f"feature service {name!r}")
        if plan is None:
            return
        stored = self._snapshot.state.objects["feature_service", name]
        description = str(stored.definition.get("description") or "")
        meaning, arguments = self._plan_field(plan, stored.version, {})
        names = self._names.shown(dict.fromkeys(plan.columns, ""), ("feature_service", name))
        kind = self._plan_type(
            self._type_name(shown, "Service"), plan, names,
            MetaField(stored.version, of_service=True), description,
        )  # fmt: skip
        deprecated = self._snapshot.state.deprecation(stored)
        yield shown, _field(kind, meaning, {**arguments, **self._when}, description, deprecated)

    def _plan(self, asked: str | tuple[str, ...], what: str) -> FeaturePlan | None:
        try:
            return self._snapshot.plan(asked)
        except NotFoundError as error:
            _log.warning("%s is left out of GraphQL: %s", what, error)
            return None

    def _plan_field(
        self, plan: FeaturePlan, version: int, given: Mapping[str, str]
    ) -> tuple[PlanField, dict[str, GraphQLArgument]]:
        keys = [key for key in plan.key_columns if key not in given]
        names = _unique([*keys, *plan.request_columns])
        dtypes = {**plan.key_columns, **plan.request_columns}
        arguments = _arguments(self._types({key: names[key] for key in keys}, dtypes))
        inputs = {name: names[name] for name in plan.request_columns}
        # An input may be NULL, which the caller must say: one that is left out is an error.
        asked = self._types(inputs, dtypes)
        arguments |= {shown: GraphQLArgument(item) for shown, item in asked.items()}
        own = {key: names[key] for key in keys}
        return PlanField(plan, version, own, inputs), arguments

    def _plan_type(
        self,
        name: str,
        plan: FeaturePlan,
        names: Mapping[str, str],
        meta: MetaField,
        description: str,
    ) -> GraphQLObjectType:
        dtypes = plan.dtypes()
        about = {
            output: next(item for item in part.view.features if item.name == feature)
            for part in plan.uses
            for feature, output in part.outputs
        }
        places = {output: place for place, output in enumerate(plan.columns)}
        fields = {
            shown: self._feature(
                FeatureField(places[output], dtypes[output]),
                about[output].description,
                about[output].deprecated,
            )
            for output, shown in names.items()
        }
        fields["_meta"] = self._meta(meta)
        return GraphQLObjectType(name, fields, description=description or None)

    def _view_type(self, view: ResolvedView) -> GraphQLObjectType:
        if view.name not in self._objects:
            key = "feature_view", view.name
            names = self._names.features(*key)
            fields = {
                names[feature.name]: self._feature(
                    FeatureField(place, feature.dtype), feature.description, feature.deprecated
                )
                for place, feature in enumerate(view.features)
                if feature.name in names
            }
            fields["_meta"] = self._meta(MetaField(view.version or 0))
            self._objects[view.name] = GraphQLObjectType(
                self._type_name(self._names.called(*key), "View"),
                fields,
                description=view.description or None,
            )
            self._breathe()
        return self._objects[view.name]

    def _feature(self, meaning: FeatureField, description: str, deprecated: str) -> GraphQLField:
        return _field(self._type(meaning.dtype), meaning, {}, description, deprecated)

    def _meta(self, meaning: MetaField) -> GraphQLField:
        kind = self._scalars["FeatureServiceMeta" if meaning.of_service else "FeatureViewMeta"]
        return _field(GraphQLNonNull(kind), meaning, {}, "Where the values come from")

    def _type(self, dtype: str) -> Any:
        return graphql_type(dtype, self._scalars)

    def _types(self, names: Mapping[str, str], dtypes: Mapping[str, str]) -> dict[str, Any]:
        return {shown: self._type(dtypes[name]) for name, shown in names.items()}

    def _type_name(self, name: str, suffix: str) -> str:
        """Return a free type name: that of a field, or with a suffix where that is taken."""
        wanted = name[:1].upper() + name[1:]
        while wanted in self._taken:
            wanted += suffix
        self._taken.add(wanted)
        return wanted

    # -- Apollo Federation

    def _federation(self) -> Iterator[tuple[str, GraphQLField]]:
        service = GraphQLObjectType(
            "_Service", {"sdl": GraphQLField(GraphQLNonNull(GraphQLString))}
        )
        sdl: list[str] = []

        async def resolve_service(_root: Any, info: Info) -> dict[str, str]:
            from virtualfs_graphql.sdl import subgraph_sdl

            if not info.context.shows_schema:
                raise PermissionDeniedError(
                    "in production the schema is told to those who bring a token; a gateway may "
                    "also be composed of what `virtualfs schema` prints"
                )
            if not sdl:
                sdl.append(await asyncio.to_thread(subgraph_sdl, info.schema))
            return {"sdl": sdl[0]}

        yield "_service", GraphQLField(GraphQLNonNull(service), resolve=resolve_service)
        if not self._entities:
            return
        for field, kind in self._entities.values():
            kind.extensions[KEY.name] = " ".join(field.keys.values())
        union = GraphQLUnionType(
            "_Entity",
            [kind for _, kind in self._entities.values()],
            resolve_type=lambda value, *_: value.type_name,
        )
        known = self._entities

        def resolve_entities(_root: Any, info: Info, representations: Sequence[Any]) -> list[Any]:
            info.context.check_list(len(representations), "representations")
            info.context.charge(len(representations))
            return [_referred(item, known) for item in representations]

        yield (
            "_entities",
            GraphQLField(
                GraphQLNonNull(GraphQLList(union)),
                {
                    "representations": GraphQLArgument(
                        GraphQLNonNull(GraphQLList(GraphQLNonNull(_ANY)))
                    )
                },
                resolve_entities,
                description="Entities by their keys, for a gateway.",
            ),
        )


_ANY = GraphQLScalarType("_Any", description="A representation of an entity, for a gateway.")
_FIELD_SET = GraphQLScalarType("_FieldSet", description="Fields that name an entity.")
KEY = GraphQLDirective(
    "key",
    [DirectiveLocation.OBJECT, DirectiveLocation.INTERFACE],
    {
        "fields": GraphQLArgument(GraphQLNonNull(_FIELD_SET)),
        "resolvable": GraphQLArgument(GraphQLBoolean, default_value=True),
    },
    is_repeatable=True,
    description="The fields by which a gateway names an entity (Apollo Federation).",
)


def _referred(
    representation: Any, known: Mapping[str, tuple[EntityField, GraphQLObjectType]]
) -> EntityKeys | Exception:
    """Return the entity that a gateway names, or what is wrong with its name."""
    named: Any = representation.get("__typename") if isinstance(representation, Mapping) else None
    if not isinstance(named, str) or named not in known:
        return SpineError(f"{named!r} is no type that this subgraph knows by a key")
    field, kind = known[named]
    given = {}
    for shown in field.keys.values():
        if shown not in representation:
            return SpineError(f"a representation of {named} lacks the key {shown!r}")
        try:
            given[shown] = coerce_input_value(representation[shown], kind.fields[shown].type)
        except Exception:  # noqa: BLE001 - a scalar's own refusal, of any kind
            given[shown] = Undefined
        if given[shown] is Undefined:
            return SpineError(
                f"a representation of {named}: {representation[shown]!r} is no "
                f"{kind.fields[shown].type} as {shown!r} is"
            )
    return field.named(given)


def _field(
    kind: Any,
    meaning: Callable[..., Any],
    arguments: dict[str, GraphQLArgument],
    description: str | None = None,
    deprecated: str = "",
) -> GraphQLField:
    return GraphQLField(
        kind,
        arguments,
        meaning,
        description=description or None,
        deprecation_reason=deprecated or None,
        extensions={MEANING: meaning},
    )


def _arguments(types: Mapping[str, Any]) -> dict[str, GraphQLArgument]:
    return {shown: GraphQLArgument(GraphQLNonNull(item)) for shown, item in types.items()}


def _unique(columns: Any) -> dict[str, str]:
    """Return columns with the arguments that they are, none of them called as another."""
    taken = {"asOf", "lateData"}
    found = {}
    for column in columns:
        shown = field_name(column)
        while shown in taken:
            shown += "_"
        taken.add(shown)
        found[column] = shown
    return found
