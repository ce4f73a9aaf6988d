# ruff: noqa: D102 - the fields' descriptions are what docstrings would be
"""The root fields of the static schema: the catalog, and features by name.

Annotations are read at run time by Strawberry, so this module does not postpone them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import strawberry
from strawberry.types.info import Info

from virtualfs.compiler.plan import FeaturePlan, ResolvedFeature
from virtualfs.definitions.project import VIEW_KINDS
from virtualfs.errors import NotFoundError
from virtualfs.registry.state import StoredObject
from virtualfs.serving.answer import answer
from virtualfs.serving.online import Reading
from virtualfs.serving.part import lookups
from virtualfs.serving.request import plan_online, request_rows
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
from virtualfs_graphql.types import (
    Entity,
    Feature,
    FeatureConnection,
    FeatureEdge,
    FeatureService,
    FeatureView,
    FeatureViewConnection,
    FeatureViewEdge,
    OnDemandFeatureView,
    OnlineFeatures,
    PageInfo,
    Project,
    described,
    features_of,
)

__all__ = ["RequestInfo", "StaticQuery"]

RequestInfo = Info[Context, None]


@strawberry.type(name="Query")
class StaticQuery:
    """The root fields that every project has."""

    @described("The project, as its registry holds it.")
    def project(self, info: RequestInfo) -> Project:
        snapshot = info.context.snapshot
        return Project(name=snapshot.store.config.project, revision=snapshot.state.revision)

    @described("All entities, by name.")
    def entities(self, info: RequestInfo) -> list[Entity]:
        snapshot = info.context.snapshot
        return [Entity(snapshot, item) for item in snapshot.state.of_kind("entity").values()]

    @described("One entity; null if there is none of that name.")
    def entity(self, info: RequestInfo, name: str) -> Entity | None:
        stored = info.context.snapshot.state.objects.get(("entity", name))
        return None if stored is None else Entity(info.context.snapshot, stored)

    @described(
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

    @described("One view, the current version unless one is named.")
    async def feature_view(
        self, info: RequestInfo, name: str, version: int | None = None
    ) -> FeatureView | None:
        stored = await _version(info.context.snapshot, name, version, ["feature_view"])
        return None if stored is None else FeatureView(info.context.snapshot, stored)

    @described("All on-demand feature views, by name.")
    def on_demand_feature_views(self, info: RequestInfo) -> list[OnDemandFeatureView]:
        snapshot = info.context.snapshot
        stored = snapshot.state.of_kind("on_demand_feature_view").values()
        return [OnDemandFeatureView(snapshot, item) for item in stored]

    @described("One on-demand feature view, the current version unless one is named.")
    async def on_demand_feature_view(
        self, info: RequestInfo, name: str, version: int | None = None
    ) -> OnDemandFeatureView | None:
        snapshot = info.context.snapshot
        stored = await _version(snapshot, name, version, ["on_demand_feature_view"])
        return None if stored is None else OnDemandFeatureView(snapshot, stored)

    @described("Features by view and name; search as in featureViews.")
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
            for item in sorted(features_of(snapshot, stored), key=lambda item: item._feature.name)
            if matches(search, [item.ref_text, item._feature.description, *_tags(item._feature)])
        }
        total, page, more = page_of(found, first, after)
        return FeatureConnection(
            total_count=total,
            nodes=[node for _, node in page],
            edges=[FeatureEdge(cursor=cursor, node=node) for cursor, node in page],
            page_info=PageInfo(has_next_page=more, end_cursor=page[-1][0] if page else None),
        )

    @described("One feature by reference: view:feature or view@2:feature.")
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
        features = features_of(info.context.snapshot, stored)
        return next((item for item in features if item._feature.name == name), None)

    @described("All feature services, by name.")
    def feature_services(self, info: RequestInfo) -> list[FeatureService]:
        snapshot = info.context.snapshot
        stored = snapshot.state.of_kind("feature_service").values()
        return [FeatureService(snapshot, item) for item in stored]

    @described("One feature service; null if there is none of that name.")
    def feature_service(self, info: RequestInfo, name: str) -> FeatureService | None:
        stored = info.context.snapshot.state.objects.get(("feature_service", name))
        return None if stored is None else FeatureService(info.context.snapshot, stored)

    @described(
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

    @described("The spine's rows with features as of each row's instant (RFC 3339).")
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
        judge = partial(answer, plan, keys, Reading(context.now, rows), given, functions)
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
