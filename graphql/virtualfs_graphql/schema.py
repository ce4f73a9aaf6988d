# ruff: noqa: D102 - the fields' descriptions are what docstrings would be
"""The static part of the schema: the catalog, and features by name, the same for every project.

Annotations are read at run time by Strawberry, so this module does not postpone them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypeVar, cast

import strawberry
from strawberry.types.info import Info

from virtualfs.compiler.plan import FeaturePlan, ResolvedFeature, ResolvedOnDemand, ResolvedView
from virtualfs.definitions.duration import format_duration
from virtualfs.definitions.project import VIEW_KINDS
from virtualfs.errors import NotFoundError
from virtualfs.registry.repository import StoredObject
from virtualfs.serving.on_demand import FeatureStatus
from virtualfs.serving.online import answer, lookups, plan_online, request_rows
from virtualfs_graphql.historical import historical_rows
from virtualfs_graphql.paging import is_tagged, matches, page_of
from virtualfs_graphql.request import (
    Context,
    Snapshot,
    asked_for,
    checked_keys,
    typed_request,
)
from virtualfs_graphql.scalars import JSON, to_json

__all__ = ["FeatureViewMeta", "RequestInfo", "StaticQuery"]

RequestInfo = Info[Context, None]

_F = TypeVar("_F", bound=Callable[..., Any])


def _field(description: str, graphql_type: Any = None) -> Callable[[_F], _F]:
    """Make a resolver a field with a description; typed, as Strawberry's own is not."""
    made = strawberry.field(description=description, graphql_type=graphql_type)
    return cast("Callable[[_F], _F]", made)


Status = strawberry.enum(
    FeatureStatus,
    name="FeatureStatus",
    description="How a value came to be what it is; all but PRESENT and STALE come with null.",
)


@strawberry.type(description="The project, as its registry holds it.")
class Project:
    """The project, as its registry holds it."""

    name: str
    revision: int = strawberry.field(description="Number of the last apply")


@strawberry.type(description="One column that names an entity.")
class JoinKey:
    """One column that names an entity."""

    name: str
    dtype: str


@strawberry.type(description="Where a view's rows come from.")
class Source:
    """Where a view's rows come from."""

    name: str
    description: str
    owner: str
    tags: JSON
    warehouse: str
    event_timestamp: str | None
    created_timestamp: str | None


class _Stored:
    """What catalog objects share: the snapshot and the stored object."""

    def __init__(self, snapshot: Snapshot, stored: StoredObject) -> None:
        self._snapshot = snapshot
        self._stored = stored

    def _text(self, name: str) -> str:
        return str(self._stored.definition.get(name) or "")

    def _tags(self) -> JSON:
        return cast("JSON", dict(self._stored.definition.get("tags") or {}))


@strawberry.type(description="A thing that features describe, and the keys that name it.")
class Entity(_Stored):
    """A thing that features describe."""

    # Said here, for Strawberry would generate one.
    __init__ = _Stored.__init__

    @strawberry.field
    def name(self) -> str:
        return self._stored.name

    @strawberry.field
    def description(self) -> str:
        return self._text("description")

    @strawberry.field
    def owner(self) -> str:
        return self._text("owner")

    @strawberry.field
    def tags(self) -> JSON:
        return self._tags()

    @strawberry.field
    def join_keys(self) -> list[JoinKey]:
        keys = self._stored.definition["join_keys"]
        return [JoinKey(name=name, dtype=dtype) for name, dtype in keys.items()]

    @strawberry.field
    def feature_views(self) -> list["FeatureView"]:
        return [
            FeatureView(self._snapshot, stored)
            for name, stored in self._snapshot.state.of_kind("feature_view").items()
            if self._stored.name in self._snapshot.views[name].entities
        ]


@strawberry.type(description="Features of one source that share keys, times and rules.")
class FeatureView(_Stored):
    """Features of one source that share keys, times and rules."""

    def __init__(self, snapshot: Snapshot, stored: StoredObject) -> None:
        super().__init__(snapshot, stored)
        self._view: ResolvedView = stored.view()

    @strawberry.field
    def name(self) -> str:
        return self._stored.name

    @strawberry.field
    def version(self) -> int:
        return self._stored.version

    @strawberry.field
    def description(self) -> str:
        return self._text("description")

    @strawberry.field
    def owner(self) -> str:
        return self._text("owner")

    @strawberry.field
    def tags(self) -> JSON:
        return self._tags()

    @strawberry.field
    def entities(self) -> list[Entity]:
        known = self._snapshot.state.of_kind("entity")
        return [Entity(self._snapshot, known[n]) for n in self._view.entities if n in known]

    @strawberry.field
    def join_keys(self) -> list[JoinKey]:
        return [JoinKey(name=name, dtype=dtype) for name, dtype in self._view.join_keys.items()]

    @strawberry.field
    def source(self) -> Source | None:
        stored = self._snapshot.state.objects.get(("source", str(self._text("source"))))
        if stored is None:
            return None
        fields = stored.definition
        return Source(
            name=stored.name,
            description=str(fields.get("description") or ""),
            owner=str(fields.get("owner") or ""),
            tags=cast("JSON", dict(fields.get("tags") or {})),
            warehouse=str(fields.get("warehouse") or "default"),
            event_timestamp=fields.get("event_timestamp"),
            created_timestamp=fields.get("created_timestamp"),
        )

    @strawberry.field
    def features(self) -> list["Feature"]:
        return _features(self._snapshot, self._stored)

    @_field("Age beyond which a value counts as missing")
    def ttl(self) -> str | None:
        return format_duration(self._view.ttl) if self._view.ttl else None

    @_field("How old a cached value may be; null: until replaced")
    def freshness(self) -> str | None:
        return None if self._view.freshness is None else format_duration(self._view.freshness)

    @strawberry.field
    def online(self) -> bool:
        return self._view.online

    @_field("The time rules in words")
    def rules(self) -> str:
        return self._view.rules()

    @strawberry.field
    def warehouse(self) -> str:
        return self._view.warehouse

    @_field("Equal meaning, equal fingerprint")
    def fingerprint(self) -> str:
        return self._stored.fingerprint

    @strawberry.field
    def feature_services(self) -> list["FeatureService"]:
        return [
            FeatureService(self._snapshot, stored)
            for stored in self._snapshot.state.of_kind("feature_service").values()
            if any(item["view"] == self._stored.name for item in stored.definition["features"])
        ]


@strawberry.type(description="One feature of one version of a view.")
class Feature:
    """One feature of one version of a view."""

    def __init__(self, snapshot: Snapshot, stored: StoredObject, feature: ResolvedFeature) -> None:
        self._snapshot = snapshot
        self._stored = stored
        self._feature = feature

    @property
    def ref_text(self) -> str:
        """The reference, for the server's own use."""
        return f"{self._stored.name}:{self._feature.name}"

    @_field("The reference to ask for it by, as view:feature")
    def ref(self) -> str:
        return self.ref_text

    @strawberry.field
    def name(self) -> str:
        return self._feature.name

    @strawberry.field
    def dtype(self) -> str:
        return self._feature.dtype

    @strawberry.field
    def description(self) -> str:
        return self._feature.description

    @strawberry.field
    def tags(self) -> JSON:
        return cast("JSON", dict(self._feature.tags))

    @_field("Its expression, over the columns of the source or the inputs of an on-demand view")
    def sql(self) -> str:
        return self._feature.sql

    @_field("The view that holds it; null for a feature that is computed on demand")
    def feature_view(self) -> FeatureView | None:
        if self._stored.kind != "feature_view":
            return None
        return FeatureView(self._snapshot, self._stored)

    @_field("The view that computes it on demand; null for all other features")
    def on_demand_feature_view(self) -> "OnDemandFeatureView | None":
        found: OnDemandFeatureView | None = None
        if self._stored.kind != "feature_view":
            found = OnDemandFeatureView(self._snapshot, self._stored)
        return found


@strawberry.type(description="One value that a request must bring.")
class RequestInput:
    """One value that a request must bring."""

    name: str
    dtype: str


@strawberry.type(description="Features computed from others and from what a request brings.")
class OnDemandFeatureView(_Stored):
    """Features computed from others and from what a request brings."""

    # Said here, for Strawberry would generate one.
    __init__ = _Stored.__init__

    @strawberry.field
    def name(self) -> str:
        return self._stored.name

    @strawberry.field
    def version(self) -> int:
        return self._stored.version

    @strawberry.field
    def description(self) -> str:
        return self._text("description")

    @strawberry.field
    def owner(self) -> str:
        return self._text("owner")

    @strawberry.field
    def tags(self) -> JSON:
        return self._tags()

    @strawberry.field
    def request(self) -> list[RequestInput]:
        given = self._stored.on_demand().request
        return [RequestInput(name=name, dtype=dtype) for name, dtype in given.items()]

    @_field("References of the features that it reads, pinned")
    def inputs(self) -> list[str]:
        pins = self._stored.pins
        return [
            f"{item.view}@{pins[item.view]}:{feature}"
            for item in self._stored.on_demand().inputs
            for feature in item.features
        ]

    @_field("Import path of the Python function that computes them, if one does")
    def function(self) -> str | None:
        return self._stored.on_demand().function

    @strawberry.field
    def features(self) -> list["Feature"]:
        return _features(self._snapshot, self._stored)


@strawberry.type(description="The features that one model uses, in order.")
class FeatureService(_Stored):
    """The features that one model uses, in order."""

    # Said here, for Strawberry would generate one.
    __init__ = _Stored.__init__

    @strawberry.field
    def name(self) -> str:
        return self._stored.name

    @strawberry.field
    def version(self) -> int:
        return self._stored.version

    @strawberry.field
    def description(self) -> str:
        return self._text("description")

    @strawberry.field
    def owner(self) -> str:
        return self._text("owner")

    @strawberry.field
    def tags(self) -> JSON:
        return self._tags()

    @_field("References of its features, pinned, in training order")
    def references(self) -> list[str]:
        return [
            f"{selection.view.name}@{selection.view.version}:{feature}"
            for selection in self._snapshot.selections(self._stored.name)
            for feature in selection.features
        ]

    @_field("Names of its columns, in training order")
    def names(self) -> list[str]:
        selections = self._snapshot.selections(self._stored.name)
        return list(plan_online(selections, at_hand=False).columns)


@strawberry.type(description="Where a page ends.")
class PageInfo:
    """Where a page ends."""

    has_next_page: bool
    end_cursor: str | None


@strawberry.type
class FeatureViewEdge:
    """A view and its place."""

    cursor: str
    node: FeatureView


@strawberry.type(description="One page of views, by name.")
class FeatureViewConnection:
    """One page of views, by name."""

    total_count: int
    nodes: list[FeatureView]
    edges: list[FeatureViewEdge]
    page_info: PageInfo


@strawberry.type
class FeatureEdge:
    """A feature and its place."""

    cursor: str
    node: Feature


@strawberry.type(description="One page of features, by view and name.")
class FeatureConnection:
    """One page of features, by view and name."""

    total_count: int
    nodes: list[Feature]
    edges: list[FeatureEdge]
    page_info: PageInfo


@strawberry.type(description="What is known of the row behind a view's values.")
class FeatureViewMeta:
    """What is known of the row behind a view's values."""

    event_timestamp: datetime | None
    status: Status  # type: ignore[valid-type]  # made by a call, as enums of others must be
    version: int
    cache_hit: bool


@strawberry.type(
    description="Feature values per entity: one inner list per entity in the order asked, each in "
    "the order of names."
)
class OnlineFeatures:
    """Feature values per entity."""

    names: list[str]
    rows: list[JSON] = strawberry.field(description="Join keys and features, one object each")
    values: list[list[JSON | None]]
    statuses: list[list[Status]]  # type: ignore[valid-type]  # as above
    event_timestamps: list[list[datetime | None]]


@strawberry.type(name="Query")
class StaticQuery:
    """The root fields that every project has."""

    @_field("The project, as its registry holds it.")
    def project(self, info: RequestInfo) -> Project:
        snapshot = info.context.snapshot
        return Project(name=snapshot.store.config.project, revision=snapshot.state.revision)

    @_field("All entities, by name.")
    def entities(self, info: RequestInfo) -> list[Entity]:
        snapshot = info.context.snapshot
        return [Entity(snapshot, item) for item in snapshot.state.of_kind("entity").values()]

    @_field("One entity; null if there is none of that name.")
    def entity(self, info: RequestInfo, name: str) -> Entity | None:
        stored = info.context.snapshot.state.objects.get(("entity", name))
        return None if stored is None else Entity(info.context.snapshot, stored)

    @_field(
        "Feature views by name. search: words that name, description, owner, tags or "
        "features must hold; tag: 'key' or 'key:value'."
    )
    def feature_views(
        self,
        info: RequestInfo,
        search: str | None = None,
        tag: str | None = None,
        owner: str | None = None,
        first: int | None = 50,
        after: str | None = None,
    ) -> FeatureViewConnection:
        snapshot = info.context.snapshot
        found: dict[tuple[str, ...], FeatureView] = {
            (name,): FeatureView(snapshot, stored)
            for name, stored in snapshot.state.of_kind("feature_view").items()
            if matches(search, _words(stored))
            and is_tagged(tag, stored.definition.get("tags") or {})
            and (owner is None or stored.definition.get("owner") == owner)
        }
        total, page, more = page_of(found, first, after)
        return FeatureViewConnection(
            total_count=total,
            nodes=[node for _, node in page],
            edges=[FeatureViewEdge(cursor=cursor, node=node) for cursor, node in page],
            page_info=PageInfo(has_next_page=more, end_cursor=page[-1][0] if page else None),
        )

    @_field("One view, the current version unless one is named.")
    async def feature_view(
        self, info: RequestInfo, name: str, version: int | None = None
    ) -> FeatureView | None:
        stored = await _version(info.context.snapshot, name, version, ["feature_view"])
        return None if stored is None else FeatureView(info.context.snapshot, stored)

    @_field("All on-demand feature views, by name.")
    def on_demand_feature_views(self, info: RequestInfo) -> list[OnDemandFeatureView]:
        snapshot = info.context.snapshot
        stored = snapshot.state.of_kind("on_demand_feature_view").values()
        return [OnDemandFeatureView(snapshot, item) for item in stored]

    @_field("One on-demand feature view, the current version unless one is named.")
    async def on_demand_feature_view(
        self, info: RequestInfo, name: str, version: int | None = None
    ) -> OnDemandFeatureView | None:
        snapshot = info.context.snapshot
        stored = await _version(snapshot, name, version, ["on_demand_feature_view"])
        return None if stored is None else OnDemandFeatureView(snapshot, stored)

    @_field("Features by view and name; search as in featureViews.")
    def features(
        self,
        info: RequestInfo,
        search: str | None = None,
        first: int | None = 50,
        after: str | None = None,
    ) -> FeatureConnection:
        snapshot = info.context.snapshot
        found: dict[tuple[str, ...], Feature] = {
            (stored.name, item._feature.name): item
            for stored in _all_views(snapshot)
            for item in sorted(_features(snapshot, stored), key=lambda item: item._feature.name)
            if matches(search, [item.ref_text, item._feature.description, *_tags(item._feature)])
        }
        total, page, more = page_of(found, first, after)
        return FeatureConnection(
            total_count=total,
            nodes=[node for _, node in page],
            edges=[FeatureEdge(cursor=cursor, node=node) for cursor, node in page],
            page_info=PageInfo(has_next_page=more, end_cursor=page[-1][0] if page else None),
        )

    @_field("One feature by reference: view:feature or view@2:feature.")
    async def feature(self, info: RequestInfo, ref: str) -> Feature | None:
        place, _, name = ref.partition(":")
        view, _, number = place.partition("@")
        if not name or (number and not number.isdigit()):
            raise NotFoundError(
                f"{ref!r} is not a reference; write 'view:feature', or 'view@2:feature'"
            )
        stored = await _version(info.context.snapshot, view, int(number) if number else None)
        if stored is None:
            return None
        features = _features(info.context.snapshot, stored)
        return next((item for item in features if item._feature.name == name), None)

    @_field("All feature services, by name.")
    def feature_services(self, info: RequestInfo) -> list[FeatureService]:
        snapshot = info.context.snapshot
        stored = snapshot.state.of_kind("feature_service").values()
        return [FeatureService(snapshot, item) for item in stored]

    @_field("One feature service; null if there is none of that name.")
    def feature_service(self, info: RequestInfo, name: str) -> FeatureService | None:
        stored = info.context.snapshot.state.objects.get(("feature_service", name))
        return None if stored is None else FeatureService(info.context.snapshot, stored)

    @_field(
        "Features of some entities now, by service ('name' or 'name@2') or references. request: "
        "what on-demand features take from it, one object for all entities or one for each.",
        OnlineFeatures,
    )
    def online_features(
        self,
        info: RequestInfo,
        entities: list[JSON],
        service: str | None = None,
        features: list[str] | None = None,
        request: list[JSON] | None = None,
    ) -> Any:
        asked = asked_for(service, features)
        context = info.context
        if context.snapshot.is_at_hand(asked):
            # Asked for before anything is awaited, the rows join the request's one read.
            return _online(context, _plan(context.snapshot, asked), entities, request)()

        async def later() -> OnlineFeatures:
            plan = await asyncio.to_thread(_plan, context.snapshot, asked)
            return await _online(context, plan, entities, request)()

        return later()

    @_field("The spine's rows with features as of each row's instant (RFC 3339).")
    async def historical_features(
        self,
        info: RequestInfo,
        spine: list[JSON],
        service: str | None = None,
        features: list[str] | None = None,
        timestamp: str | None = "event_timestamp",
    ) -> list[JSON]:
        asked = asked_for(service, features)
        rows = await asyncio.to_thread(
            historical_rows, info.context.snapshot, asked, spine, timestamp or "event_timestamp"
        )
        return cast("list[JSON]", rows)


def _plan(snapshot: Snapshot, asked: str | tuple[str, ...]) -> FeaturePlan:
    return plan_online(snapshot.selections(asked))


def _online(
    context: Context, plan: FeaturePlan, entities: Sequence[Any], request: Sequence[Any] | None
) -> Callable[[], Awaitable[OnlineFeatures]]:
    """Ask for the rows of a plan at once; return what waits for them."""
    keys = checked_keys(plan, entities)
    typed = typed_request(plan, request)
    # One request stands for all entities, as in Python.
    given = request_rows(plan, typed[0] if typed is not None and len(typed) == 1 else typed, keys)
    wanted = [[context.row(look.view, key) for key in look.keys] for look in lookups(plan, keys)]

    async def finish() -> OnlineFeatures:
        rows = [list(await asyncio.gather(*part)) for part in wanted]
        functions = context.snapshot.store.functions
        judge = partial(answer, plan, keys, rows, context.now, given, functions)
        # A Python function may take its time.
        is_quick = all(part.view.function is None for part in plan.on_demand)
        found = judge() if is_quick else await asyncio.to_thread(judge)
        names = found.names
        return OnlineFeatures(
            names=list(names),
            rows=[cast("JSON", to_json(row)) for row in found.to_list()],
            values=[[cast("JSON", to_json(value)) for value in row] for row in found.values],
            statuses=_by_entity(found.statuses, names, len(keys)),
            event_timestamps=_by_entity(found.event_timestamps, names, len(keys)),
        )

    return finish


def _by_entity(
    columns: Mapping[str, list[Any]], names: Sequence[str], rows: int
) -> list[list[Any]]:
    return [[columns[name][row] for name in names] for row in range(rows)]


async def _version(
    snapshot: Snapshot, name: str, version: int | None, kinds: Sequence[str] = VIEW_KINDS
) -> StoredObject | None:
    found = [snapshot.state.objects.get((kind, name)) for kind in kinds]
    stored = next((item for item in found if item is not None), None)
    if version is None or (stored is not None and stored.version == version):
        return stored
    for kind in kinds:
        old = await asyncio.to_thread(snapshot.store.registry.version, kind, name, version)
        if old is not None:
            return old
    return None


def _all_views(snapshot: Snapshot) -> list[StoredObject]:
    """Return the views of both kinds, by name."""
    found = [item for kind in VIEW_KINDS for item in snapshot.state.of_kind(kind).values()]
    return sorted(found, key=lambda item: item.name)


def _features(snapshot: Snapshot, stored: StoredObject) -> list[Feature]:
    is_current = snapshot.state.objects.get((stored.kind, stored.name)) is stored
    view: ResolvedView | ResolvedOnDemand
    if stored.kind == "feature_view":
        view = snapshot.views[stored.name] if is_current else stored.view()
    else:
        view = snapshot.on_demand[stored.name] if is_current else stored.on_demand()
    return [Feature(snapshot, stored, feature) for feature in view.features]


def _tags(feature: ResolvedFeature) -> list[str]:
    return [text for pair in feature.tags.items() for text in pair]


def _words(stored: StoredObject) -> list[str]:
    fields = stored.definition
    tags = [str(text) for pair in (fields.get("tags") or {}).items() for text in pair]
    features = [
        str(text) for item in fields["features"] for text in (item["name"], item["description"])
    ]
    said = [str(fields.get("description") or ""), str(fields.get("owner") or "")]
    return [stored.name, *said, *tags, *features]
