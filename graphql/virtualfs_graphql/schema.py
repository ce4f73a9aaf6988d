# ruff: noqa: D102 - the fields' descriptions are what docstrings would be
"""The root fields of the static schema: the catalog, and features by name.

Annotations are read at run time by Strawberry, so this module does not postpone them.
"""

import asyncio
import re
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import strawberry
from strawberry.types.info import Info

from virtualfs.definitions.project import VIEW_KINDS
from virtualfs.errors import NotFoundError
from virtualfs.registry.state import StoredObject
from virtualfs.serving.response import OnlineResponse
from virtualfs_graphql.historical import historical_rows
from virtualfs_graphql.inputs import asked_for, plan_inputs
from virtualfs_graphql.paging import Page, is_tagged, matches, page_of, page_size
from virtualfs_graphql.request import COLD, Context, PlanAnswer, Snapshot
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
    LateData,
    LineageDirection,
    LineageEdge,
    LineageGraph,
    LineageNode,
    OnDemandFeatureView,
    OnlineFeatures,
    PageInfo,
    Project,
    SearchHit,
    TrainingSet,
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
        return [Entity(snapshot, item) for item in snapshot.of_kind("entity").values()]

    @described("One entity; null if there is none of that name.")
    def entity(self, info: RequestInfo, name: str) -> Entity | None:
        stored = info.context.snapshot.of_kind("entity").get(name)
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
        entity: str | None = None,
    ) -> FeatureViewConnection:
        snapshot = info.context.snapshot
        info.context.check_text(search, "search")
        info.context.charge(len(snapshot.views))
        found: dict[tuple[str, ...], StoredObject] = {
            (name,): stored
            for name, stored in snapshot.of_kind("feature_view").items()
            if matches(search, partial(_words, stored))
            and is_tagged(tag, stored.definition.get("tags") or {})
            and (owner is None or stored.definition.get("owner") == owner)
            and (entity is None or entity in stored.definition["entities"])
        }
        page = page_of(found, first, after)
        nodes = [FeatureView(snapshot, stored) for stored in page.items]
        return FeatureViewConnection(
            total_count=len(found),
            nodes=nodes,
            edges=[
                FeatureViewEdge(cursor=cursor, node=node)
                for cursor, node in zip(page.cursors, nodes, strict=True)
            ],
            page_info=_page_info(page),
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
        stored = snapshot.of_kind("on_demand_feature_view").values()
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
        info.context.check_text(search, "search")
        found: dict[tuple[str, ...], Feature] = {
            (stored.name, item._feature.name): item
            for kind in VIEW_KINDS
            for stored in snapshot.of_kind(kind).values()
            for item in features_of(snapshot, stored)
            if matches(search, partial(_said, item))
        }
        page = page_of(found, first, after)
        return FeatureConnection(
            total_count=len(found),
            nodes=page.items,
            edges=[
                FeatureEdge(cursor=cursor, node=node)
                for cursor, node in zip(page.cursors, page.items, strict=True)
            ],
            page_info=_page_info(page),
        )

    @described("One feature by reference: view:feature or view@2:feature.")
    async def feature(self, info: RequestInfo, ref: str) -> Feature | None:
        place, _, name = ref.partition(":")
        view, _, number = place.partition("@")
        if not name or (number and not re.fullmatch(r"[0-9]{1,9}", number)):
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
        stored = snapshot.of_kind("feature_service").values()
        return [FeatureService(snapshot, item) for item in stored]

    @described("One feature service; null if there is none of that name.")
    def feature_service(self, info: RequestInfo, name: str) -> FeatureService | None:
        stored = info.context.snapshot.of_kind("feature_service").get(name)
        return None if stored is None else FeatureService(info.context.snapshot, stored)

    @described("Saved training sets, or the versions of one, the newest first.")
    async def training_sets(
        self, info: RequestInfo, name: str | None = None, first: int | None = 50
    ) -> list[TrainingSet]:
        registry = info.context.snapshot.store.registry
        info.context.charge(500)
        size = page_size(first, 50)
        found = await asyncio.to_thread(registry.training_sets.all, name, size)
        return [TrainingSet.of(record) for record in found]

    @described("One saved training set, its newest version unless one is named.")
    async def training_set(
        self, info: RequestInfo, name: str, version: int | None = None
    ) -> TrainingSet | None:
        registry = info.context.snapshot.store.registry
        info.context.charge(100)
        try:
            found = await asyncio.to_thread(registry.training_sets.get, name, version)
        except NotFoundError:
            return None
        return TrainingSet.of(found)

    @described("Features, views, services and entities by words, the best match first.")
    async def search(self, info: RequestInfo, text: str, first: int | None = 20) -> list[SearchHit]:
        store = info.context.snapshot.store
        info.context.check_text(text, "text")
        info.context.charge(500)
        size = page_size(first, 20)
        found = await asyncio.to_thread(store.search, text, size)
        return [
            SearchHit(
                kind=item.kind, name=item.name, description=item.description, score=item.score
            )
            for item in found.found
        ]

    @described(
        "What something is made of, to the column of a table, and what is made of it. ref: "
        "'view:feature', a view, a service, 'table.column', or 'training_set:name@1'."
    )
    async def lineage(
        self,
        info: RequestInfo,
        ref: str,
        direction: LineageDirection | None = LineageDirection.BOTH,
        depth: int | None = None,
    ) -> LineageGraph:
        store = info.context.snapshot.store
        info.context.check_text(ref, "ref")
        info.context.charge(1_000)
        way: Any = (direction or LineageDirection.BOTH).value
        found = await asyncio.to_thread(store.lineage, ref, way, depth)
        ids = {node: strawberry.ID(f"{node.kind}:{node.name}") for node in found.nodes}
        return LineageGraph(
            roots=[ids[node] for node in found.roots],
            nodes=[
                LineageNode(id=ids[node], kind=node.kind, name=node.name, detail=node.detail)
                for node in found.nodes
            ],
            edges=[
                LineageEdge(source=ids[link.source], target=ids[link.target], role=link.role)
                for link in found.links
            ],
            mermaid=found.to_mermaid(),
        )

    @described(
        "Features of some entities now, by service ('name' or 'name@2') or references. request: "
        "what on-demand features take from it, one object for all entities or one for each. "
        "trainingSet: 'name@2' gives what a model was trained on, transformed as it was then.",
        OnlineFeatures,
    )
    def online_features(
        self,
        info: RequestInfo,
        entities: list[JSON],
        service: str | None = None,
        features: list[str] | None = None,
        request: list[JSON] | None = None,
        training_set: str | None = None,
    ) -> Any:
        asked = asked_for(service, features, training_set)
        context = info.context
        context.check_list(len(entities), "entities")
        context.check_features(features)
        context.charge(len(entities))
        snapshot = context.snapshot
        if snapshot.is_at_hand(asked):
            # Asked for before anything is awaited, the rows join the request's one read.
            plan = snapshot.plan(asked)
            return _shown(context.answer(plan, *plan_inputs(plan, entities, request)))

        async def later() -> OnlineFeatures:
            plan = await asyncio.to_thread(snapshot.plan, asked)
            return await _shown(context.answer(plan, *plan_inputs(plan, entities, request)))

        return later()

    @described(
        "The spine's rows with features as of each row's instant (RFC 3339). A trainingSet goes by "
        "the lateness that it was saved with."
    )
    async def historical_features(
        self,
        info: RequestInfo,
        spine: list[JSON],
        service: str | None = None,
        features: list[str] | None = None,
        timestamp: str | None = "event_timestamp",
        late_data: LateData | None = LateData.INCLUDE,
        training_set: str | None = None,
    ) -> list[JSON]:
        asked = asked_for(service, features, training_set)
        late: Any = (late_data or LateData.INCLUDE).value
        if training_set is not None and late == "include":
            late = None  # as it was saved
        info.context.check_list(len(spine), "spine")
        info.context.check_features(features)
        info.context.charge(len(spine) * COLD)
        rows = await asyncio.to_thread(
            historical_rows,
            info.context.snapshot,
            asked,
            spine,
            timestamp or "event_timestamp",
            late,
        )
        return cast("list[JSON]", rows)


async def _shown(asked: Awaitable[PlanAnswer]) -> OnlineFeatures:
    found = _online_columns((await asked).response)
    return OnlineFeatures(**found)


def _online_columns(found: OnlineResponse) -> dict[str, Any]:
    """Return an answer by the names of the fields of OnlineFeatures, values as JSON."""
    rows = len(found.values)
    return {
        "names": list(found.names),
        "rows": [to_json(row) for row in found.to_list()],
        "values": [[to_json(value) for value in row] for row in found.values],
        "statuses": _by_entity(found.statuses, found.names, rows),
        "event_timestamps": _by_entity(found.event_timestamps, found.names, rows),
    }


def _by_entity(
    columns: Mapping[str, list[Any]], names: Sequence[str], rows: int
) -> list[list[Any]]:
    return [[columns[name][row] for name in names] for row in range(rows)]


def _page_info(page: Page[Any]) -> PageInfo:
    return PageInfo(
        has_next_page=page.has_next,
        has_previous_page=page.has_previous,
        start_cursor=next(iter(page.cursors), None),
        end_cursor=page.cursors[-1] if page.cursors else None,
    )


async def _version(
    snapshot: Snapshot, name: str, version: int | None, kinds: Sequence[str] = VIEW_KINDS
) -> StoredObject | None:
    found = [snapshot.of_kind(kind).get(name) for kind in kinds]
    stored = next((item for item in found if item is not None), None)
    if version is None or (stored is not None and stored.version == version):
        return stored
    for kind in kinds:
        old = await asyncio.to_thread(snapshot.store.registry.version, kind, name, version)
        if old is not None:
            return old
    return None


def _said(item: Feature) -> list[str]:
    tags = (text for pair in item._feature.tags.items() for text in pair)
    return [item.ref_text, item._feature.description, *tags]


def _words(stored: StoredObject) -> list[str]:
    fields = stored.definition
    tags = [str(text) for pair in (fields.get("tags") or {}).items() for text in pair]
    features = [
        str(text) for item in fields["features"] for text in (item["name"], item["description"])
    ]
    said = [str(fields.get("description") or ""), str(fields.get("owner") or "")]
    return [stored.name, *said, *tags, *features]
