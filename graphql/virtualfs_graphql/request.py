"""What one request stands on: a snapshot of the catalog, one instant, and one read for all fields.

Fields say which rows they want while the document is being walked, before anything is awaited;
the loader then fetches them all together.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Awaitable, Generator, Mapping, MutableMapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from strawberry.dataloader import DataLoader

from graphql import DocumentNode
from virtualfs import FeatureStore
from virtualfs.cached import cached_property
from virtualfs.compiler.plan import FeaturePlan, LateData, ResolvedView
from virtualfs.config import Limits
from virtualfs.definitions.api_names import ApiNames
from virtualfs.definitions.duration import setting_seconds
from virtualfs.definitions.project import KINDS
from virtualfs.errors import (
    LimitError,
    NotFoundError,
    SpineError,
    VirtualFSError,
    WarehouseError,
)
from virtualfs.lookups import Unreadable
from virtualfs.registry.resolver import AnySelection
from virtualfs.registry.state import State, StoredObject
from virtualfs.serving.answer import answer, status_of
from virtualfs.serving.codec import Row, from_micros, to_micros
from virtualfs.serving.fetch import unreadable_value
from virtualfs.serving.on_demand import FeatureStatus
from virtualfs.serving.online import Reading
from virtualfs.serving.part import Lookup, lookups, outlived, ttl_of
from virtualfs.serving.request import plan_online
from virtualfs.serving.response import OnlineResponse
from virtualfs_graphql.memory import Breath

__all__ = [
    "CURRENT",
    "Asked",
    "Context",
    "PlanAnswer",
    "Snapshot",
    "ViewAnswer",
    "Wanted",
    "When",
    "charge",
    "charge_catalog",
    "place_of",
]

Asked = str | tuple[str, ...]
"""A service's name, or references."""

COLD = 10
"""What a row costs that a warehouse is asked for, where one of the cache costs 1."""
STATEMENT = 2_000
"""What a statement of its own in a warehouse costs."""
NO_LIMITS = Limits(list_size=2**31, cost=2**31)
CATALOG = 5
"""What an object of the catalog costs."""
MOST_FEATURES = 1_000
"""References that one request may name."""
MOST_TEXT = 200
"""Characters of a text to search for."""
CURRENT: ContextVar[Context | None] = ContextVar("virtualfs_context", default=None)
"""The context of the request that is executed by the general executor."""
_KEPT = 10_000
"""References of the feature lists that are remembered per snapshot."""


class Snapshot:
    """The catalog at one revision, as all requests of one schema see it.

    Reads the registry when made, so it is made in a thread.

    Parameters
    ----------
    state
        The catalog; the store's when None.
    """

    def __init__(self, store: FeatureStore, state: State | None = None) -> None:
        self.store = store
        self.state = state or store.state()
        self.state.objects.load()
        self._resolver = store.resolver
        breathe = Breath()
        self.views: dict[str, ResolvedView] = {}
        for name in self.state.of_kind("feature_view"):
            self.views[name] = self._resolver.view(name, self.state)
            breathe()
        self.on_demand = {
            name: stored.on_demand()
            for name, stored in self.state.of_kind("on_demand_feature_view").items()
        }
        self.names = ApiNames(
            {key: item.definition for key, item in self.state.objects.items() if key[0] in KINDS}
        )
        self._plans: dict[Asked, FeaturePlan] = {}
        self._kept = 0
        self._kinds: dict[str, Mapping[str, StoredObject]] = {}
        self._views_of: dict[str, list[str]] = {}
        for name, view in self.views.items():
            for entity in view.entities:
                self._views_of.setdefault(entity, []).append(name)
        self._services_of: dict[str, list[str]] = {}
        self._resolved: dict[Asked, list[AnySelection]] = {}
        for service, stored in self.of_kind("feature_service").items():
            for used in dict.fromkeys(item["view"] for item in stored.definition["features"]):
                self._services_of.setdefault(used, []).append(service)
            self.plan_or_none(service)
            breathe()

    def parts(self) -> list[MutableMapping[Any, Any]]:
        """Return what holds most of the snapshot, to be emptied when nobody uses it any more."""
        return [
            self.views,
            self._resolved,
            self._plans,
            self.names.entities,
            self.state.objects.held,
        ]

    def of_kind(self, kind: str) -> Mapping[str, StoredObject]:
        """Return the objects of one kind by name, sorted."""
        if kind not in self._kinds:
            self._kinds[kind] = self.state.of_kind(kind)
        return self._kinds[kind]

    def views_of(self, entity: str) -> Sequence[str]:
        """Return the names of the feature views of an entity."""
        return self._views_of.get(entity, ())

    def services_of(self, view: str) -> Sequence[str]:
        """Return the names of the services that use a view."""
        return self._services_of.get(view, ())

    def selections(self, asked: Asked) -> list[AnySelection]:
        """Return what a service or references mean; may read the registry for old versions."""
        found = self._resolved.get(asked)
        if found is None:
            features = asked if isinstance(asked, str) else list(asked)
            found = self._resolver.selections(features, self.state)
        return found

    def plan(self, asked: Asked) -> FeaturePlan:
        """Return the plan of an online read; may read the registry as `selections` does."""
        found = self._plans.get(asked)
        if found is None:
            selections = self.selections(asked)
            found = plan_online(selections)
            # Kept are those that can be planned, and so many references of all of them together.
            self._kept += len(_parts(asked))
            if self._kept > _KEPT:
                self._plans.clear()
                self._resolved.clear()
                self._kept = len(_parts(asked))
            self._plans[asked], self._resolved[asked] = found, selections
        return found

    def plan_or_none(self, asked: Asked) -> FeaturePlan | None:
        """Return the plan of an online read; None where some view is not offered online."""
        try:
            return self.plan(asked)
        except NotFoundError:
            return None

    def is_at_hand(self, asked: Asked) -> bool:
        """Tell whether `selections` answers without reading the registry."""
        return asked in self._resolved or not any("@" in part for part in _parts(asked))


def _parts(asked: Asked) -> tuple[str, ...]:
    return (asked,) if isinstance(asked, str) else asked


@dataclass(frozen=True)
class When:
    """The instant that something is asked as of; None is now, through the cache."""

    as_of: datetime | None = None
    late_data: LateData = "include"

    @classmethod
    def of(cls, as_of: datetime | None, late_data: Any) -> When:
        """Return what the arguments of a field say.

        Raises
        ------
        SpineError
            Late data can be left out only as of an instant.
        """
        late: LateData = getattr(late_data, "value", late_data) or "include"
        if as_of is None and late == "exclude":
            raise SpineError("lateData: EXCLUDE needs asOf: what is asked as of now counts it")
        return cls(as_of, late)


NOW = When()


@dataclass(frozen=True)
class Wanted:
    """One row that a field wants."""

    view: ResolvedView
    key: tuple[Any, ...]
    when: When = NOW


Identity = tuple[Any, ...]


def _identity(wanted: Wanted) -> Identity:
    return (*place_of(wanted.view), wanted.key, wanted.when)


def place_of(view: ResolvedView) -> Identity:
    """Return what tells versions of views apart."""
    return view.name, view.version, view.fingerprint


@dataclass(frozen=True)
class ViewAnswer:
    """One view's row for one key, judged at the request's instant."""

    view: ResolvedView
    key: tuple[Any, ...]
    row: Row
    status: FeatureStatus
    is_over: bool
    """Whether it is over its view's TTL, so that its values are not shown."""

    def value(self, position: int) -> Any:
        """Return a feature by its position in the view; what is over its TTL is not shown.

        Raises
        ------
        WarehouseError
            Python cannot hold it.
        """
        if self.is_over:
            return None
        found = self.row.values[position]
        if isinstance(found, Unreadable):
            feature = self.view.feature_names[position]
            raise WarehouseError(unreadable_value(self.view, feature, self.key, found))
        return found

    @property
    def event_timestamp(self) -> datetime | None:
        """The row's event timestamp."""
        return None if self.row.event is None else from_micros(self.row.event)

    @property
    def is_cached(self) -> bool:
        """Whether the row came from the cache."""
        return self.row.cached


@dataclass(frozen=True)
class PlanAnswer:
    """The answer of a plan for some entities, with the rows that it was made of."""

    plan: FeaturePlan
    response: OnlineResponse
    rows: Sequence[Sequence[Row]]

    @property
    def is_cached(self) -> bool:
        """Whether every row came from the cache."""
        return all(row.cached for rows in self.rows for row in rows)


class Context:
    """The context of one request.

    Parameters
    ----------
    snapshot
        The catalog that the request's schema was made from.
    limits
        How much the request may ask for.
    scopes
        What its token allows.
    shows_schema
        Whether it may be told the schema.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        limits: Limits = NO_LIMITS,
        scopes: frozenset[str] = frozenset(),
        *,
        shows_schema: bool = True,
    ) -> None:
        self.snapshot = snapshot
        self.shows_schema = shows_schema
        self.limits = limits
        self.scopes = scopes
        self._cost = 0
        self._until = time.monotonic() + setting_seconds(limits.timeout)
        self._now: datetime | None = None
        self._known: dict[Identity, Any] = {}
        self.document: DocumentNode | None = None

    @cached_property
    def _rows(self) -> DataLoader[Wanted, Row]:
        own = weakref.ref(self)  # no circle, which a collector would have to find

        async def load(wanted: list[Wanted]) -> Sequence[Row | BaseException]:
            context = own()
            assert context is not None
            return await context._load(wanted)

        return DataLoader(load_fn=load, cache_key_fn=_identity)

    @property
    def now(self) -> datetime:
        """The instant that the request is about, set by the read of its rows if there is one."""
        if self._now is None:
            self._now = self.snapshot.store.now()
        return self._now

    def check_list(self, length: int, what: str) -> None:
        """Refuse a list that is too long.

        Raises
        ------
        LimitError
            It is.
        """
        most = self.limits.list_size
        if length > most:
            raise LimitError(
                f"{what} holds {length:,} items, more than the {most:,} that one request may bring "
                "([server.limits] list_size); send several requests"
            )

    def check_text(self, text: str | None, what: str) -> None:
        """Refuse a text to search for that is too long.

        Raises
        ------
        LimitError
            It is.
        """
        if text is not None and len(text) > MOST_TEXT:
            raise LimitError(f"{what} may have {MOST_TEXT} characters, and has {len(text):,}")

    def check_features(self, features: Sequence[str] | None) -> None:
        """Refuse a list of references that is too long.

        Raises
        ------
        LimitError
            It is.
        """
        if features is not None and len(features) > MOST_FEATURES:
            raise LimitError(
                f"features names {len(features):,} references, more than the {MOST_FEATURES:,} "
                "that one request may; ask for a service, or in several requests"
            )

    def charge_anew(self) -> None:
        """Forget what was counted: the request is executed from its beginning."""
        self._cost = 0

    def charge(self, cost: int) -> None:
        """Count against what one request may cost: 1 for a row, 10 for one that is no cache's.

        Raises
        ------
        LimitError
            It is more than is left.
        """
        self._cost += cost
        if time.monotonic() > self._until:
            # What runs on the event loop is not ended by it.
            raise LimitError(f"no answer within {self.limits.timeout} ([server.limits] timeout)")
        self.check_cost(0)

    def check_cost(self, more: int) -> None:
        """Refuse what would cost too much, beside what was counted.

        Raises
        ------
        LimitError
            It would.
        """
        if self._cost + more > self.limits.cost:
            raise LimitError(
                f"the request costs {self._cost + more:,}, more than {self.limits.cost:,} "
                f"([server.limits] cost): a row of the cache counts 1, one of a warehouse {COLD}, "
                f"a statement of its own in a warehouse {STATEMENT:,}; send several requests"
            )

    def row(self, view: ResolvedView, key: tuple[Any, ...], when: When = NOW) -> Awaitable[Row]:
        """Ask for one row. It joins the request's one read if asked before anything is awaited."""
        self.charge(1)
        wanted = Wanted(view, key, when)
        known = self._known.get(_identity(wanted)) if self._known else None
        return self._rows.load(wanted) if known is None else _Settled(known)

    async def view(
        self, view: ResolvedView, key: tuple[Any, ...], row: Awaitable[Row], when: When
    ) -> ViewAnswer:
        """Return a row that was asked for, judged at its instant."""
        found = await row
        at = to_micros(when.as_of or self.now)
        is_over = outlived(found, ttl_of(view), at)
        return ViewAnswer(view, key, found, status_of(found, view, at), is_over)

    def answer(
        self,
        plan: FeaturePlan,
        keys: list[dict[str, Any]],
        request: list[dict[str, Any]],
        when: When = NOW,
    ) -> Awaitable[PlanAnswer]:
        """Ask for the rows of a plan at once; return what waits for them and puts them together.

        Parameters
        ----------
        keys, request
            Join keys and request inputs of each entity, checked.
        """
        self.check_cost(len(keys) * len(plan.parts))
        wanted = [
            [self.row(look.view, key, when) for key in look.keys] for look in lookups(plan, keys)
        ]

        async def finish() -> PlanAnswer:
            rows = [list(await asyncio.gather(*part)) for part in wanted]
            return await self.judged(plan, keys, request, rows, when)

        return finish()

    async def judged(
        self,
        plan: FeaturePlan,
        keys: Sequence[dict[str, Any]],
        request: Sequence[dict[str, Any]],
        rows: list[list[Row]],
        when: When = NOW,
    ) -> PlanAnswer:
        """Return the answer of a plan whose rows have been read."""
        has_unreadable = any(row.unreadable for part in rows for row in part)
        reading = Reading(when.as_of or self.now, rows, has_unreadable)
        given = (plan, keys, reading, request, self.snapshot.store.functions)
        if all(part.view.function is None for part in plan.on_demand):
            return PlanAnswer(plan, answer(*given), rows)
        # A Python function may take its time.
        return PlanAnswer(plan, await asyncio.to_thread(answer, *given), rows)

    async def read(self, lookups: Sequence[Lookup]) -> list[list[Row]] | None:
        """Return the rows of some views as of now, as one read.

        None if some view's cannot be had: what was read is kept for whoever asks by :meth:`row`.
        """
        before = self._cost
        try:
            rows = await self._rows_of(lookups, NOW)
        except VirtualFSError as error:
            self._cost = self._cost if isinstance(error, LimitError) else before
            rows = [[error] * len(look.keys) for look in lookups]
        if all(isinstance(row, Row) and not row.unreadable for some in rows for row in some):
            return rows
        self._known = _by_identity(lookups, rows, NOW)
        return None

    async def _load(self, wanted: list[Wanted]) -> Sequence[Row | BaseException]:
        by_instant: dict[When, list[Wanted]] = {}
        for item in wanted:
            by_instant.setdefault(item.when, []).append(item)
        reads = [self._read(when, group) for when, group in by_instant.items()]
        found: dict[Identity, Row | BaseException] = {}
        for answers in await asyncio.gather(*reads):
            found.update(answers)
        return [found[_identity(item)] for item in wanted]

    async def _read(self, when: When, group: Sequence[Wanted]) -> dict[Identity, Any]:
        by_view: dict[Identity, list[Wanted]] = {}
        for item in group:
            by_view.setdefault(place_of(item.view), []).append(item)
        parts = list(by_view.values())
        lookups = [Lookup(items[0].view, tuple(item.key for item in items)) for items in parts]
        before = self._cost
        try:
            rows = await self._rows_of(lookups, when)
        except VirtualFSError as error:
            self._cost = self._cost if isinstance(error, LimitError) else before
            rows = [[error] * len(look.keys) for look in lookups]
        return _by_identity(lookups, rows, when)

    def _allow(self, cold: int) -> None:
        self.charge(cold * (COLD - 1))  # which were counted once as rows

    async def _rows_of(self, lookups: Sequence[Lookup], when: When) -> list[list[Any]]:
        """Return the rows of some views, an error in the place of each that cannot be had."""
        reader = self.snapshot.store.online.reader
        if when.as_of is not None:
            found = await reader.read_async(
                lookups, when.as_of, cached=False, late_data=when.late_data, allow=self._allow,
                partial=True,
            )  # fmt: skip
            return found.rows
        found = await reader.read_async(lookups, self._now, allow=self._allow, partial=True)
        self._now = self._now or found.at  # all reads of a request are about one instant
        return found.rows


def charge(cost: int) -> None:
    """Count against what the request that is executed may cost."""
    context = CURRENT.get()
    if context is not None:
        context.charge(cost)


def charge_catalog() -> None:
    """Count one object of the catalog, which is shown."""
    charge(CATALOG)


class _Settled:
    """A row, or why there is none, that is known already; to be awaited, or not."""

    def __init__(self, known: Row | BaseException) -> None:
        self._known = known

    def __await__(self) -> Generator[Any, None, Row]:
        if isinstance(self._known, BaseException):
            raise self._known
        return self._known
        yield


def _by_identity(
    lookups: Sequence[Lookup], answers: Sequence[Sequence[Any]], when: When
) -> dict[Identity, Any]:
    return {
        (*place_of(look.view), key, when): row
        for look, rows in zip(lookups, answers, strict=True)
        for key, row in zip(look.keys, rows, strict=True)
    }
