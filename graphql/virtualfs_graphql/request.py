"""What one request stands on: a snapshot of the catalog, one instant, and one read for all fields.

Fields say which rows they want while the document is being walked, before anything is awaited;
the loader then fetches them all together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from strawberry.dataloader import DataLoader

from virtualfs import FeatureStore
from virtualfs.compiler.plan import FeaturePlan, Part, ResolvedView
from virtualfs.errors import NotFoundError, SpineError, VirtualFSError
from virtualfs.registry.resolver import AnySelection
from virtualfs.serving.answer import status_of
from virtualfs.serving.codec import Row, from_micros, to_micros
from virtualfs.serving.on_demand import FeatureStatus
from virtualfs.serving.part import Lookup
from virtualfs.serving.request import entity_keys
from virtualfs_graphql.scalars import from_json

__all__ = [
    "Asked",
    "Context",
    "Snapshot",
    "ViewAnswer",
    "Wanted",
    "asked_for",
    "checked_keys",
    "typed_request",
]

Asked = str | tuple[str, ...]
"""A service's name, or references."""

_KEPT = 1024
"""Number of requested feature lists remembered per snapshot."""


class Snapshot:
    """The catalog at one revision, as all requests of one schema see it.

    Reads the registry when made, so it is made in a thread.
    """

    def __init__(self, store: FeatureStore) -> None:
        self.store = store
        self.state = store.state()
        self._resolver = store.resolver
        self.views = {
            name: self._resolver.view(name, self.state)
            for name in self.state.of_kind("feature_view")
        }
        self.on_demand = {
            name: stored.on_demand()
            for name, stored in self.state.of_kind("on_demand_feature_view").items()
        }
        self._resolved: dict[Asked, list[AnySelection]] = {}
        for service in self.state.of_kind("feature_service"):
            self.selections(service)

    def selections(self, asked: Asked) -> list[AnySelection]:
        """Return what a service or references mean; may read the registry for old versions."""
        if asked not in self._resolved:
            if len(self._resolved) >= _KEPT:
                self._resolved.clear()
            features = asked if isinstance(asked, str) else list(asked)
            self._resolved[asked] = self._resolver.selections(features, self.state)
        return self._resolved[asked]

    def is_at_hand(self, asked: Asked) -> bool:
        """Tell whether `selections` answers without reading the registry."""
        return asked in self._resolved or not any("@" in part for part in _parts(asked))


def _parts(asked: Asked) -> tuple[str, ...]:
    return (asked,) if isinstance(asked, str) else asked


@dataclass(frozen=True)
class Wanted:
    """One row that a field wants; `as_of` None is now, through the cache."""

    view: ResolvedView
    key: tuple[Any, ...]
    as_of: datetime | None


def _identity(wanted: Wanted) -> tuple[Any, ...]:
    view = wanted.view
    return (view.name, view.version, view.fingerprint, wanted.key, wanted.as_of)


@dataclass(frozen=True)
class ViewAnswer:
    """One view's row for one key, judged at the request's instant."""

    view: ResolvedView
    row: Row
    status: FeatureStatus

    def value(self, position: int) -> Any:
        """Return a feature by its position in the view; None unless the row counts."""
        return self.row.values[position] if self.status is FeatureStatus.PRESENT else None

    @property
    def event_timestamp(self) -> datetime | None:
        """The row's event timestamp."""
        return None if self.row.event is None else from_micros(self.row.event)


class Context:
    """The context of one request.

    Parameters
    ----------
    snapshot
        The catalog that the request's schema was made from.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._now: datetime | None = None
        self._rows: DataLoader[Wanted, Row] = DataLoader(load_fn=self._load, cache_key_fn=_identity)

    @property
    def now(self) -> datetime:
        """The instant that the request is about, set by the read of its rows if there is one."""
        if self._now is None:
            self._now = self.snapshot.store.now()
        return self._now

    def row(
        self, view: ResolvedView, key: tuple[Any, ...], as_of: datetime | None = None
    ) -> Awaitable[Row]:
        """Ask for one row. It joins the request's one read if asked before anything is awaited."""
        return self._rows.load(Wanted(view, key, as_of))

    async def view(
        self, view: ResolvedView, row: Awaitable[Row], as_of: datetime | None
    ) -> ViewAnswer:
        """Return a row that was asked for, judged at its instant."""
        found = await row
        return ViewAnswer(view, found, status_of(found, view, to_micros(as_of or self.now)))

    async def _load(self, wanted: list[Wanted]) -> Sequence[Row | BaseException]:
        by_instant: dict[datetime | None, list[Wanted]] = {}
        for item in wanted:
            by_instant.setdefault(item.as_of, []).append(item)
        reads = [self._read(as_of, group) for as_of, group in by_instant.items()]
        found: dict[tuple[Any, ...], Row | BaseException] = {}
        for answers in await asyncio.gather(*reads):
            found.update(answers)
        return [found[_identity(item)] for item in wanted]

    async def _read(
        self, as_of: datetime | None, group: Sequence[Wanted]
    ) -> dict[tuple[Any, ...], Row | BaseException]:
        by_view: dict[tuple[Any, ...], list[Wanted]] = {}
        for item in group:
            by_view.setdefault(_identity(item)[:3], []).append(item)
        parts = list(by_view.values())
        lookups = [Lookup(items[0].view, tuple(item.key for item in items)) for items in parts]
        reader = self.snapshot.store.online.reader

        async def read(some: Sequence[Lookup]) -> list[list[Row]]:
            if as_of is not None:
                return (await reader.read_async(some, as_of, cached=False)).rows
            found = await reader.read_async(some, self._now)
            self._now = self._now or found.at  # all reads of a request are about one instant
            return found.rows

        answers: list[list[Any]] = []
        try:
            answers = [*await read(lookups)]
        except VirtualFSError as error:
            if len(lookups) == 1:
                answers = [[error] * len(parts[0])]
            else:
                # One view's warehouse is out of reach or refuses: the others are still answered,
                # and the error stands at the fields of the view that has it.
                for lookup in lookups:
                    try:
                        answers += await read([lookup])
                    except VirtualFSError as single:
                        answers.append([single] * len(lookup.keys))
        return {
            _identity(item): row
            for items, rows in zip(parts, answers, strict=True)
            for item, row in zip(items, rows, strict=True)
        }


def checked_keys(plan: FeaturePlan | ResolvedView, entities: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the join keys of entities that came as JSON, checked and in canonical types.

    Raises
    ------
    SpineError
        A join key is missing or mistyped; the message says at which entity.
    """
    if isinstance(plan, ResolvedView):
        plan = FeaturePlan((Part(plan, tuple(plan.join_keys), ()),), ())
    typed = []
    for number, entity in enumerate(entities):
        if not isinstance(entity, Mapping):
            raise SpineError(f"entity {number} is not an object of join keys")
        keys = {
            name: from_json(entity[name], dtype, f"entity {number}, join key {name!r}")
            for name, dtype in plan.key_columns.items()
            if name in entity
        }
        typed.append({**entity, **keys})
    return entity_keys(plan, typed)


def typed_request(plan: FeaturePlan, request: Sequence[Any] | None) -> list[dict[str, Any]] | None:
    """Return request inputs that came as JSON in their data types; what lacks is the core's to say.

    Raises
    ------
    SpineError
        An entry is no object, or a value cannot be read as its type.
    """
    if request is None:
        return None
    typed = []
    for number, given in enumerate(request):
        if not isinstance(given, Mapping):
            raise SpineError(f"request {number} is not an object of request inputs")
        where = f"request {number}, input"
        read = {
            name: from_json(given[name], dtype, f"{where} {name!r}")
            for name, dtype in plan.request.items()
            if name in given
        }
        typed.append({**given, **read})
    return typed


def asked_for(service: str | None, features: Sequence[str] | None) -> Asked:
    """Return what a request asks for, from its two arguments of which one must be given.

    Raises
    ------
    SpineError, NotFoundError
        Both are given, or none; the service's name is a reference.
    """
    if (service is None) == (features is None):
        raise SpineError("give either service: or features:, and not both")
    if service is None:
        return tuple(features or ())
    if ":" in service:
        raise NotFoundError(f"{service!r} is not a service's name; pass it in features: [...]")
    return service
