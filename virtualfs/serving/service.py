"""The online side of a store: reads, and what fills, corrects and shows the cache."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from virtualfs.compiler.plan import FeaturePlan, LateData, Part, ResolvedView
from virtualfs.config import Config, check_url
from virtualfs.definitions.duration import parse_duration, setting_seconds
from virtualfs.display import Block, Grid, Note, Shown
from virtualfs.errors import (
    ConfigError,
    OnlineStoreError,
    SpineError,
    VirtualFSError,
    warn_deprecated,
)
from virtualfs.forks import renew_in_child
from virtualfs.functions import PythonFunctions
from virtualfs.progress import Progress
from virtualfs.provider import OnlineStore, Warehouse, load_store_provider, load_warehouse_provider
from virtualfs.serving import push, usage
from virtualfs.serving.answer import answer
from virtualfs.serving.cache import MemoryStore
from virtualfs.serving.codec import Row, to_micros
from virtualfs.serving.materialize import (
    MaterializeResult,
    Range,
    ViewResult,
    materialize_view,
    unreadable_rows,
)
from virtualfs.serving.near import NearCache
from virtualfs.serving.online import MARK_SECONDS, OnlineReader, Reading, ReadSettings
from virtualfs.serving.part import Lookup, lookups
from virtualfs.serving.request import entity_keys, request_rows
from virtualfs.serving.response import OnlineResponse
from virtualfs.serving.row_cache import RowCache
from virtualfs.serving.statements import LookupStatements

__all__ = ["HotReport", "HotView", "OnlineService"]

_KEYS = 10_000
"""Keys of one query when given keys are materialized."""
_SAMPLED = 50
"""Keys whose memory is measured, for each view."""
_MEMORY = 512 * 1024**2
"""Bytes of ``memory://`` by default."""
_near: weakref.WeakValueDictionary[tuple[str, str, float], NearCache] = (
    weakref.WeakValueDictionary()
)
"""Near rows by cache, so that stores of one process see each other's pushes at once."""


@dataclass(frozen=True)
class HotView(Shown):
    """How one view's rows in the cache are used.

    Parameters
    ----------
    reads
        Keys that were read in the last 24 hours.
    hit_ratio
        How many of these the cache had, of 1; None without reads.
    keys
        Keys that the cache holds.
    bytes
        Memory that they take, estimated from some of them.
    hottest
        Join keys that were read most, with counts.
    """

    view: str
    reads: int
    hit_ratio: float | None
    keys: int
    bytes: int
    hottest: tuple[tuple[dict[str, Any], int], ...]

    def _blocks(self) -> list[Block]:
        ratio = "-" if self.hit_ratio is None else f"{self.hit_ratio:.1%}"
        head = f"{self.view}: {self.reads:,} reads, {ratio} from the cache, "
        blocks: list[Block] = [
            Note(head + f"{self.keys:,} keys of {self.bytes / 1e6:,.1f} MB", strong=True)
        ]
        if self.hottest:
            names = list(self.hottest[0][0])
            lines = [(*keys.values(), count) for keys, count in self.hottest]
            blocks.append(Grid((*names, "reads"), lines))
        return blocks


@dataclass(frozen=True)
class HotReport(Shown):
    """How the cache is used, view by view; counts are of the last 24 hours."""

    views: tuple[HotView, ...]
    used_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        views = [
            {**vars(view), "hottest": [{"keys": keys, "reads": n} for keys, n in view.hottest]}
            for view in self.views
        ]
        return {"used_bytes": self.used_bytes, "views": views}

    def _blocks(self) -> list[Block]:
        blocks = [block for view in self.views for block in view._blocks()]
        return [*blocks, Note(f"The cache uses {self.used_bytes / 1e6:,.1f} MB in all.")]


class OnlineService:
    """The online side of one store.

    Parameters
    ----------
    warehouse
        Returns the warehouse of a name, opening it when first needed.
    engines
        Returns the URL schemes of warehouses that were handed over open, by name.
    plan
        Returns the plan of an online read of some features, as of now or of an instant.
    known_plan
        Returns the plan as of now if it is at hand.
    now
        Returns the instant of online reads.
    owner
        Returns what tells this deployment's rows of a warehouse from those of others.
    """

    def __init__(
        self,
        config: Config,
        warehouse: Callable[[str], Warehouse],
        engines: Mapping[str, str],
        plan: Callable[[Any, bool], FeaturePlan],
        known_plan: Callable[[Any], FeaturePlan | None],
        now: Callable[[], datetime],
        functions: PythonFunctions,
        owner: Callable[[str], str],
    ) -> None:
        self._config = config
        self._warehouse = warehouse
        self._engines = engines
        self._plan = plan
        self._known_plan = known_plan
        self._now = now
        self._functions = functions
        self._usage = usage.Usage()
        self._reads_through: dict[str, bool] = {}
        self._renew()
        renew_in_child(self._renew)
        settings = ReadSettings(
            parse_duration(config.cache.max_stale),
            self._patience,
            self._limit,
            self._may_read_through,
        )
        statements = LookupStatements(config.folder / ".virtualfs" / "lookups")
        self.reader = OnlineReader(
            config.project, self._make_cache(), warehouse, settings, now, self._usage, owner,
            statements,
        )  # fmt: skip

    def _renew(self) -> None:
        """Make what belongs to one process."""
        self._gatherer: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    # -- reads

    def get(
        self,
        features: Any,
        entities: Any,
        request: Any,
        as_of: datetime | None = None,
        max_age: timedelta | None = None,
        late_data: LateData = "include",
    ) -> OnlineResponse:
        """Return feature values as of now, or of an instant."""
        plan = self._plan(features, as_of is None)
        if plan.deprecated:
            warn_deprecated(plan.deprecated, 3)
        keys = entity_keys(plan, entities)
        given = request_rows(plan, request, keys)
        found = self.reader.read(
            lookups(plan, keys),
            as_of,
            cached=as_of is None,
            max_age=_age(max_age),
            late_data=late_data,
        )
        return self._answer(plan, keys, found, given)

    async def get_async(
        self, features: Any, entities: Any, request: Any, max_age: timedelta | None = None
    ) -> OnlineResponse:
        """Return feature values as of now without holding up the event loop."""
        plan = self._known_plan(features)
        if plan is None:
            plan = await asyncio.to_thread(self._plan, features, True)
        if plan.deprecated:
            warn_deprecated(plan.deprecated, 3)
        keys = entity_keys(plan, entities)
        given = request_rows(plan, request, keys)
        found = await self.reader.read_async(lookups(plan, keys), max_age=_age(max_age))
        if any(part.view.function is not None for part in plan.on_demand):
            # A Python function may take its time.
            return await asyncio.to_thread(self._answer, plan, keys, found, given)
        return self._answer(plan, keys, found, given)

    def _answer(
        self, plan: FeaturePlan, keys: list[dict[str, Any]], found: Reading, given: Any
    ) -> OnlineResponse:
        if self._usage.is_due():
            self._in_background(lambda: self._gather(usage.MOST))
        return answer(plan, keys, found, given, self._functions)

    # -- what changes the cache

    def push(self, view: ResolvedView, rows: Any) -> push.PushResult:
        """Put rows into the cache where newer wins."""
        push.refuse_push(view)
        now = self._now()
        codec = self.reader.codec(view)
        items = []
        dropped = 0
        for key, row in push.pushed_rows(view, rows, now):
            seconds = push.kept_for(view, row, now)
            if seconds == 0:
                dropped += 1
                continue
            (canonical,) = codec.canonical_keys([key])
            place = codec.place(canonical)
            items.append((place, codec.encode(place, row), seconds))
        stays = self.reader.cache.merge(items) if items else []
        self.reader.cache.forget_near(place for place, _, _ in items)
        return push.count(view, stays, dropped)

    def invalidate(self, view: ResolvedView, keys: Any = None) -> int:
        """Forget what the cache holds of a view, or of some of its keys; return how many rows."""
        cache, codec = self.reader.cache, self.reader.codec(view)
        prefix = codec.prefix
        at = cache.now(to_micros(self._now()))
        if keys is None:
            cache.invalidate(prefix, at)
            self.reader.flights.forget(prefix)
            count = sum(cache.store.delete_many(page) for page in cache.store.scan(prefix))
            cache.forget_near(None)
            return count
        places = codec.places(codec.canonical_keys(_keys_of(view, keys)))
        self.reader.flights.forget(prefix)
        count = cache.store.delete_many(places)
        # A query that began before must not put back what it found.
        gone = Row(at, None, found=False, values=())
        cache.merge(
            [(place, codec.encode(place, gone), MARK_SECONDS) for place in places]
        )
        cache.forget_near(places)
        return count

    def materialize(
        self,
        features: Any = None,
        entities: Any = None,
        *,
        hottest: int | None = None,
        which: Range | None = None,
    ) -> MaterializeResult:
        """Fill the cache: all keys, given ones, the hottest, or those of a range."""
        plan = self._plan(features, True)
        given = sum(item is not None for item in (entities, hottest, which))
        if given > 1:
            raise SpineError(
                "materialize takes one of entities=, hottest=, and incremental= or start= and end="
            )
        with Progress() as progress:
            if entities is not None:
                keys = entity_keys(plan, entities)
                found = [
                    self._fill(look.view, look.keys, "given keys", progress.counted)
                    for look in _once(lookups(plan, keys))
                ]
            elif hottest is not None:
                self._gather()
                found = [
                    self._fill(
                        view, [key for key, _ in self._hottest(view, hottest)], "hottest keys",
                        progress.counted,
                    )
                    for view in self._views(plan)
                ]
            else:
                found = [
                    materialize_view(
                        self.reader, view, self._warehouse(view.warehouse), self._now(),
                        which or Range(), progress.counted,
                    )
                    if view.is_cacheable
                    else ViewResult(view.label, 0, 0, 0, 0.0, push.PAST_CACHE)
                    for view in self._views(plan)
                ]  # fmt: skip
        return MaterializeResult(tuple(found))

    def _fill(
        self,
        view: ResolvedView,
        keys: Sequence[tuple[Any, ...]],
        how: str,
        show: Callable[[str, int], None],
    ) -> ViewResult:
        started = time.monotonic()
        cache = self.reader.cache
        if not view.is_cacheable:
            return ViewResult(view.label, 0, 0, 0, 0.0, push.PAST_CACHE)
        canonical = self.reader.codec(view).canonical_keys(keys)
        wanted = [key for key in dict.fromkeys(canonical) if None not in key]
        written = 0
        unreadable: list[str] = []
        for start in range(0, len(wanted), _KEYS):
            piece = wanted[start : start + _KEYS]
            cache.require_room()
            rows = self.reader.ask(view, piece)
            items = self.reader.items(view, rows)
            if len(items) < len(rows):
                unreadable += unreadable_rows(view, rows)
            written += sum(cache.merge(items))
            cache.forget_near(place for place, _, _ in items)
            show(view.label, start + len(piece))
        seconds = time.monotonic() - started
        kept = len(wanted) - written - len(unreadable)
        return ViewResult(
            view.label, len(wanted), written, kept, seconds, how, tuple(unreadable)
        )

    def prepare(self, views: Iterable[ResolvedView]) -> None:
        """Connect and compile for the first look-ups of views; what is away is left for then."""
        away: set[str] = set()
        for view in views:
            if view.online and view.warehouse not in away:
                try:
                    self.reader.prepare(view)
                except VirtualFSError:
                    away.add(view.warehouse)

    # -- what is seen of it

    def hot(self, features: Any = None, limit: int = 10) -> HotReport:
        """Return how the cache is used, view by view."""
        self._gather()
        store = self.reader.cache.store
        views = []
        for view in self._views(self._plan(features, True)):
            codec = self.reader.codec(view)
            prefix = codec.prefix
            totals = usage.totals(store, prefix)
            reads = sum(totals.values())
            keys, memory = _measured(store, prefix)
            hottest = [
                (dict(zip(view.join_keys, key, strict=True)), count)
                for key, count in self._hottest(view, limit)
            ]
            ratio = (totals[usage.HITS] + totals[usage.STALE]) / reads if reads else None
            views.append(HotView(view.label, reads, ratio, keys, memory, tuple(hottest)))
        return HotReport(tuple(views), store.used_memory())

    def _hottest(self, view: ResolvedView, limit: int) -> list[tuple[tuple[Any, ...], int]]:
        """Return the join keys that were read most, with counts; what is no key is left out."""
        codec = self.reader.codec(view)
        found = []
        for encoded, count in usage.hottest(self.reader.cache.store, codec.prefix, limit):
            with suppress(msgspec.DecodeError):
                found.append((codec.key(encoded), count))
        return found

    def _gather(self, most: int | None = None) -> None:
        self._usage.gather(self.reader.cache.store, most)

    def _in_background(self, work: Callable[[], None]) -> None:
        def quietly() -> None:
            with suppress(OnlineStoreError):  # counts are lost, and nothing else
                work()

        with self._lock:
            if self._gatherer is None:
                self._gatherer = ThreadPoolExecutor(1, "virtualfs-usage")
            self._gatherer.submit(quietly)

    def _views(self, plan: FeaturePlan) -> list[ResolvedView]:
        """Return the views of a plan, each once."""
        return list(
            {self.reader.codec(part.view).prefix: part.view for part in plan.parts}.values()
        )

    # -- what it stands on

    def _make_cache(self) -> RowCache:
        settings = self._config.cache
        url = settings.url.get_secret_value()
        check_url(url, "cache.url", "redis://host:6379/0")
        scheme = url.partition("://")[0]
        budget = None if settings.max_memory is None else _bytes(settings.max_memory)
        if scheme == "memory":
            budget = budget or _MEMORY
            return RowCache(
                lambda: MemoryStore(budget), None, is_remote=False, prefix=settings.prefix,
                max_bytes=budget, clock=self._fixed_now,
            )  # fmt: skip
        seconds = setting_seconds(settings.near)
        near = None
        if seconds:
            near = _near.setdefault((url, settings.prefix, seconds), NearCache(seconds))
        provider = load_store_provider(scheme, "cache.url")

        def open_store() -> OnlineStore:
            found: OnlineStore = provider.open_store(url)
            return found

        return RowCache(
            open_store, near, is_remote=True, prefix=settings.prefix, max_bytes=budget,
            clock=self._fixed_now,
        )  # fmt: skip

    def _fixed_now(self) -> int | None:
        """Return the configured instant of online reads; None where the time is the real one."""
        return None if self._config.clock is None else to_micros(self._now())

    def _limit(self, name: str) -> int:
        settings = self._config.warehouses.get(name)
        return settings.max_connections // 2 if settings is not None else 4

    def _patience(self, name: str) -> float:
        settings = self._config.warehouses.get(name)
        if settings is None:
            return 5.0
        found = [settings.lookup_timeout, settings.statement_timeout]
        return min(setting_seconds(text) for text in found if text is not None)

    def _may_read_through(self, name: str) -> bool:
        if name not in self._reads_through:
            settings = self._config.warehouses.get(name)
            if settings is not None and settings.read_through is not None:
                may = settings.read_through
            elif settings is None and name not in self._engines:
                may = True  # which raises that there is no such warehouse
            else:
                scheme = self._engines.get(name)
                if scheme is None and settings is not None:
                    scheme = settings.url.get_secret_value().partition("://")[0]
                provider = load_warehouse_provider(scheme or "", f"warehouses.{name}.url")
                may = getattr(provider, "read_through", True)
            self._reads_through[name] = may
        return self._reads_through[name]

    def close(self) -> None:
        """Gather the last counts, and close the cache."""
        self.reader.close()
        if self._gatherer is not None:
            self._gatherer.shutdown(wait=True)
        if self.reader.cache.is_open:
            with suppress(OnlineStoreError):
                self._gather()
        self.reader.cache.close()


def _once(looks: Sequence[Lookup]) -> Iterator[Lookup]:
    """Yield look-ups with those of one view put together."""
    by_view: dict[tuple[str, str], list[Lookup]] = {}
    for look in looks:
        by_view.setdefault((look.view.name, look.view.fingerprint), []).append(look)
    for some in by_view.values():
        yield Lookup(some[0].view, tuple(key for look in some for key in look.keys))


def _keys_of(view: ResolvedView, keys: Any) -> list[tuple[Any, ...]]:
    plan = FeaturePlan((Part(view, tuple(view.join_keys), ()),), ())
    return [tuple(entity.values()) for entity in entity_keys(plan, keys)]


def _measured(store: OnlineStore, prefix: bytes) -> tuple[int, int]:
    """Return how many keys of a view are held, and about how many bytes they take."""
    sampled: list[bytes] = []
    keys = 0
    for page in store.scan(prefix):
        keys += len(page)
        if len(sampled) < _SAMPLED:
            sampled += page[: _SAMPLED - len(sampled)]
    sizes = [size for size in store.sizes(sampled) if size]
    return keys, int(sum(sizes) / len(sizes) * keys) if sizes else 0


def _age(max_age: timedelta | None) -> timedelta | None:
    if max_age is not None and max_age < timedelta(0):
        raise SpineError(f"max_age={max_age} is negative; 0 asks the warehouse itself")
    return max_age


def _bytes(text: str) -> int:
    number, unit = int(text[:-2]), text[-2:]
    if number == 0:
        raise ConfigError("cache.max_memory must be greater than 0")
    return number * {"MB": 1024**2, "GB": 1024**3}[unit]


def utc(instant: datetime, name: str) -> datetime:
    """Return an instant in UTC; a naive one is in UTC already."""
    if not isinstance(instant, datetime):
        raise SpineError(f"{name} must be a datetime, not {instant!r}")
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
