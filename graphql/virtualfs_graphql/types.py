# ruff: noqa: D102 - the fields' descriptions are what docstrings would be
"""The types of the static schema: what the catalog holds, page by page, and features by name.

Annotations are read at run time by Strawberry, so this module does not postpone them.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar, cast

import strawberry

from virtualfs.compiler.plan import ResolvedFeature, ResolvedOnDemand, ResolvedView
from virtualfs.compiler.training_set import SavedTrainingSet
from virtualfs.definitions.duration import format_duration
from virtualfs.registry.state import StoredObject
from virtualfs.serving.on_demand import FeatureStatus
from virtualfs.serving.request import plan_online
from virtualfs_graphql.request import Snapshot, charge, charge_catalog
from virtualfs_graphql.scalars import JSON

__all__ = [
    "Entity", "Feature", "FeatureConnection", "FeatureEdge", "FeatureService",
    "FeatureServiceMeta", "FeatureView", "FeatureViewConnection", "FeatureViewEdge",
    "FeatureViewMeta", "JoinKey", "LateData", "LineageDirection", "LineageEdge", "LineageGraph",
    "LineageNode", "OnDemandFeatureView", "OnlineFeatures", "PageInfo", "Project", "RequestInput",
    "SearchHit", "Source", "Status", "TrainingSet", "Version", "described", "features_of",
]  # fmt: skip

_F = TypeVar("_F", bound=Callable[..., Any])


_DEPRECATED = "Why it should no longer be used, and what to use instead; null while it may be"


def described(description: str, graphql_type: Any = None) -> Callable[[_F], _F]:
    """Make a resolver a field with a description; typed, as Strawberry's own is not."""
    made = strawberry.field(description=description, graphql_type=graphql_type)
    return cast("Callable[[_F], _F]", made)


Status = strawberry.enum(
    FeatureStatus,
    name="FeatureStatus",
    description="How a value came to be what it is; all but PRESENT and STALE come with null.",
)


@strawberry.enum(description="Whether rows count that were written after the instant.")
class LateData(Enum):
    """Whether rows count that were written after the instant."""

    INCLUDE = strawberry.enum_value("include", description="By event time alone.")
    EXCLUDE = strawberry.enum_value("exclude", description="Only what was known at the instant.")


@strawberry.enum(description="Which way lineage is followed.")
class LineageDirection(Enum):
    """Which way lineage is followed."""

    UPSTREAM = strawberry.enum_value("upstream", description="What it is made of.")
    DOWNSTREAM = strawberry.enum_value("downstream", description="What is made of it.")
    BOTH = strawberry.enum_value("both", description="Both.")


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


@strawberry.type
class _Stored:
    """What the objects of the catalog share: the snapshot, and how a definition is described."""

    def __init__(self, snapshot: Snapshot, stored: StoredObject) -> None:
        charge_catalog()
        self._snapshot = snapshot
        self._stored = stored

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
        return cast("JSON", dict(self._stored.definition.get("tags") or {}))

    def _text(self, name: str) -> str:
        return str(self._stored.definition.get(name) or "")


@strawberry.type(description="One version that an object has had.")
class Version:
    """One version that an object has had."""

    version: int
    revision: int = strawberry.field(description="The apply that made it")
    created_at: datetime
    created_by: str
    impact: str = strawberry.field(description="What it did: metadata, compatible or breaking")
    changes: list[str] = strawberry.field(description="What changed, line by line")


@strawberry.type
class _Versioned(_Stored):
    """What the objects that have versions share."""

    # Said here, for Strawberry would generate one.
    __init__ = _Stored.__init__

    @strawberry.field
    def version(self) -> int:
        return self._stored.version

    @described("Its versions, the newest first; all stay answerable")
    async def versions(self) -> list[Version]:
        charge(100)
        rows = await asyncio.to_thread(self._snapshot.store.registry.revisions, self._stored.name)
        found: dict[int, Version] = {}
        for row, records in reversed(rows):
            for record in records:
                if record.kind == self._stored.kind and record.action != "remove":
                    made = Version(
                        version=record.version,
                        revision=row.number,
                        created_at=row.created_at,
                        created_by=row.created_by,
                        impact=record.impact,
                        changes=list(record.details),
                    )
                    found.setdefault(record.version, made)
        return sorted(found.values(), key=lambda item: -item.version)

    @described(_DEPRECATED)
    def deprecated(self) -> str | None:
        return self._snapshot.state.deprecation(self._stored) or None


@strawberry.type(description="A thing that features describe, and the keys that name it.")
class Entity(_Stored):
    """A thing that features describe."""

    # Said here, for Strawberry would generate one.
    __init__ = _Stored.__init__

    @strawberry.field
    def join_keys(self) -> list[JoinKey]:
        keys = self._stored.definition["join_keys"]
        return [JoinKey(name=name, dtype=dtype) for name, dtype in keys.items()]

    @strawberry.field
    def feature_views(self) -> list["FeatureView"]:
        stored = self._snapshot.of_kind("feature_view")
        names = self._snapshot.views_of(self._stored.name)
        return [FeatureView(self._snapshot, stored[name]) for name in names]


@strawberry.type(description="Features of one source that share keys, times and rules.")
class FeatureView(_Versioned):
    """Features of one source that share keys, times and rules."""

    def __init__(self, snapshot: Snapshot, stored: StoredObject) -> None:
        super().__init__(snapshot, stored)
        is_current = snapshot.of_kind(stored.kind).get(stored.name) is stored
        self._view: ResolvedView = snapshot.views[stored.name] if is_current else stored.view()

    @strawberry.field
    def entities(self) -> list[Entity]:
        known = self._snapshot.of_kind("entity")
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
        return features_of(self._snapshot, self._stored)

    @described("Age beyond which a value counts as missing")
    def ttl(self) -> str | None:
        return format_duration(self._view.ttl) if self._view.ttl else None

    @described("How old a cached value may be; null: until replaced")
    def freshness(self) -> str | None:
        return None if self._view.freshness is None else format_duration(self._view.freshness)

    @strawberry.field
    def online(self) -> bool:
        return self._view.online

    @described("The time rules in words")
    def rules(self) -> str:
        return self._view.rules()

    @strawberry.field
    def warehouse(self) -> str:
        return self._view.warehouse

    @described("The SELECT of its rows, in the warehouse's dialect")
    def sql(self) -> str:
        return self._stored.view().rows_sql

    @described("Equal meaning, equal fingerprint")
    def fingerprint(self) -> str:
        return self._stored.fingerprint

    @strawberry.field
    def feature_services(self) -> list["FeatureService"]:
        return [
            FeatureService(self._snapshot, self._snapshot.of_kind("feature_service")[name])
            for name in self._snapshot.services_of(self._stored.name)
        ]


@strawberry.type(description="One feature of one version of a view.")
class Feature:
    """One feature of one version of a view."""

    def __init__(self, snapshot: Snapshot, stored: StoredObject, feature: ResolvedFeature) -> None:
        charge_catalog()
        self._snapshot = snapshot
        self._stored = stored
        self._feature = feature

    @property
    def ref_text(self) -> str:
        """The reference, for the server's own use."""
        return f"{self._stored.name}:{self._feature.name}"

    @described("The reference to ask for it by, as view:feature")
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

    @described(_DEPRECATED)
    def deprecated(self) -> str | None:
        return self._feature.deprecated or None

    @described("Its expression, over the columns of the source or the inputs of an on-demand view")
    def sql(self) -> str:
        return self._feature.sql

    @described("The view that holds it; null for a feature that is computed on demand")
    def feature_view(self) -> FeatureView | None:
        if self._stored.kind != "feature_view":
            return None
        return FeatureView(self._snapshot, self._stored)

    @described("The view that computes it on demand; null for all other features")
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
class OnDemandFeatureView(_Versioned):
    """Features computed from others and from what a request brings."""

    # Said here, for Strawberry would generate one.
    __init__ = _Stored.__init__

    @strawberry.field
    def request(self) -> list[RequestInput]:
        given = self._stored.on_demand().request
        return [RequestInput(name=name, dtype=dtype) for name, dtype in given.items()]

    @described("References of the features that it reads, pinned")
    def inputs(self) -> list[str]:
        pins = self._stored.pins
        return [
            f"{item.view}@{pins[item.view]}:{feature}"
            for item in self._stored.on_demand().inputs
            for feature in item.features
        ]

    @described("Import path of the Python function that computes them, if one does")
    def function(self) -> str | None:
        return self._stored.on_demand().function

    @strawberry.field
    def features(self) -> list["Feature"]:
        return features_of(self._snapshot, self._stored)


@strawberry.type(description="The features that one model uses, in order.")
class FeatureService(_Versioned):
    """The features that one model uses, in order."""

    # Said here, for Strawberry would generate one.
    __init__ = _Stored.__init__

    @described("References of its features, pinned, in training order")
    def references(self) -> list[str]:
        return [
            f"{selection.view.name}@{selection.view.version}:{feature}"
            for selection in self._snapshot.selections(self._stored.name)
            for feature in selection.features
        ]

    @described("Names of its columns, in training order")
    def names(self) -> list[str]:
        selections = self._snapshot.selections(self._stored.name)
        return list(plan_online(selections, at_hand=False).columns)


@strawberry.type(description="Where a page ends.")
class PageInfo:
    """Where a page ends."""

    has_next_page: bool
    has_previous_page: bool
    start_cursor: str | None
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


@strawberry.type(description="What is known of a service's values, in training order.")
class FeatureServiceMeta:
    """What is known of a service's values, in training order."""

    names: list[str] = strawberry.field(description="Its columns, as a model was trained on them")
    statuses: list[Status]  # type: ignore[valid-type]  # as above
    event_timestamps: list[datetime | None]
    version: int
    cache_hit: bool


@strawberry.type(description="One thing in a lineage.")
class LineageNode:
    """One thing in a lineage."""

    id: strawberry.ID
    kind: str = strawberry.field(
        description="column, feature, on_demand_feature, request, feature_view, "
        "on_demand_feature_view, feature_service or training_set"
    )
    name: str = strawberry.field(description="As references name it: view@2:feature, table.column")
    detail: str = strawberry.field(description="The expression or aggregate of a feature")


@strawberry.type(description="One step of a lineage: the target is made of the source.")
class LineageEdge:
    """One step of a lineage."""

    source: strawberry.ID
    target: strawberry.ID
    role: str = strawberry.field(description="How: value, filter, key, time and the like")


@strawberry.type(description="What something is made of, and what is made of it.")
class LineageGraph:
    """What something is made of, and what is made of it."""

    roots: list[strawberry.ID]
    nodes: list[LineageNode]
    edges: list[LineageEdge]
    mermaid: str = strawberry.field(description="The same as a Mermaid flow chart")


@strawberry.type(description="One thing that a search found, the best match first.")
class SearchHit:
    """One thing that a search found."""

    kind: str
    name: str
    description: str
    score: float


@strawberry.type(description="A column of a saved training set that a model is fed.")
class TrainingSetFeature:
    """A column of a saved training set that a model is fed."""

    name: str
    ref: str | None = strawberry.field(description="The feature that it is; null if transformed")
    written: str | None = strawberry.field(description="The expression that transforms it")
    parameters: JSON = strawberry.field(description="What was fitted, by name")
    statistics: JSON = strawberry.field(description="nulls, min, max, mean, std, where it has them")


@strawberry.type(description="One version of a saved training set; it never changes.")
class TrainingSet:
    """One version of a saved training set."""

    name: str
    version: int
    description: str
    tags: JSON
    created_at: datetime
    created_by: str
    rows: int
    content_hash: str = strawberry.field(description="Of its rows, compared whenever it is read")
    place: str = strawberry.field(description="The file or table that holds it")
    service: str | None
    revision: int = strawberry.field(description="The catalog's revision that it was made at")
    features: list[TrainingSetFeature] = strawberry.field(description="In the model's order")
    metadata: JSON = strawberry.field(description="What it takes to make it again")

    @classmethod
    def of(cls, record: SavedTrainingSet) -> "TrainingSet":
        """Return a training set as the catalog shows it."""
        columns = {column.name: column for column in record.columns}
        fitted = {item.name: item for item in record.fitted}
        features = []
        for name in record.output_names:
            made, column = fitted.get(name), columns.get(name)
            ref = None
            if made is None and column is not None:
                ref = f"{record.uses[column.use].view.label}:{column.feature}"
            features.append(
                TrainingSetFeature(
                    name=name,
                    ref=ref,
                    written=made.written if made else None,
                    parameters=cast("JSON", made.parameters if made else {}),
                    statistics=cast("JSON", record.statistics.get(name, {})),
                )
            )
        return cls(
            name=record.name,
            version=record.version,
            description=record.description,
            tags=cast("JSON", record.tags),
            created_at=record.created_at,
            created_by=record.created_by,
            rows=record.rows,
            content_hash=record.content_hash,
            place=record.place,
            service=record.metadata.get("service"),
            revision=int(record.metadata.get("revision") or 0),
            features=features,
            metadata=cast("JSON", record.metadata),
        )


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


def features_of(snapshot: Snapshot, stored: StoredObject) -> list[Feature]:
    """Return the features of one version of a view, of either kind."""
    is_current = snapshot.of_kind(stored.kind).get(stored.name) is stored
    view: ResolvedView | ResolvedOnDemand
    if stored.kind == "feature_view":
        view = snapshot.views[stored.name] if is_current else stored.view()
    else:
        view = snapshot.on_demand[stored.name] if is_current else stored.on_demand()
    return [Feature(snapshot, stored, feature) for feature in view.features]
