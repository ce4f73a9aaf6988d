"""Online reads: rows from nearby, from the cache, or by one query per view for all that is missed.

Rule 12: the answer at T is the point-in-time answer over the data as known at some instant in
[T - freshness, T]. T is read once per call; the TTL is judged at T, whenever the row was chosen.

What a read does is written once, as a generator that asks for two things: values of the cache, and
to wait for flights. A thread does them by blocking, an event loop by awaiting.
"""

from __future__ import annotations

import asyncio
import logging
import random
import weakref
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from virtualfs.compiler.plan import FeaturePlan, ResolvedView
from virtualfs.definitions.duration import microseconds
from virtualfs.errors import WarehouseError, WarehouseUnavailableError
from virtualfs.provider import Warehouse
from virtualfs.serving.batches import Batches
from virtualfs.serving.codec import Row, RowCodec, merged, to_micros
from virtualfs.serving.fetch import fetch_rows, no_row
from virtualfs.serving.flights import Flight, Flights, Key, Rows
from virtualfs.serving.row_cache import RowCache
from virtualfs.serving.usage import Usage

__all__ = [
    "MARK_SECONDS",
    "Item",
    "Lookup",
    "OnlineReader",
    "ReadSettings",
    "Reading",
    "held_by",
    "lookups",
]

_log = logging.getLogger("virtualfs.online")
_BRIEFLY = 60_000_000
"""For how long at most a key is believed to be unknown, in microseconds."""
_AHEAD_FROM, _AHEAD_TO = 0.8, 0.95
"""Of a view's freshness: when rows in use are refreshed ahead, at random between, so that of many
processes one is the first."""
_MOST_AHEAD = 10_000
"""Keys that one refresh ahead takes."""
_COMPILING = 2.0
"""Seconds more that the first look-up of a view may take, which connects and compiles."""
MARK_SECONDS = 60.0
"""How long a key that was invalidated is marked: longer than any query runs."""
_LONG = 600.0
"""Seconds that filling the cache with some keys may take."""


@dataclass(frozen=True)
class Lookup:
    """The keys wanted of one view."""

    view: ResolvedView
    keys: tuple[Key, ...]


@dataclass(frozen=True)
class ReadSettings:
    """What the configuration says of online reads.

    Parameters
    ----------
    max_stale
        How long beyond its freshness a row may answer while the warehouse cannot.
    patience
        Returns for how many seconds a read waits for a warehouse.
    limit
        Returns how many queries at a time a warehouse takes.
    reads_through
        Tells whether a warehouse is asked for what the cache lacks.
    """

    max_stale: timedelta
    patience: Callable[[str], float]
    limit: Callable[[str], int]
    reads_through: Callable[[str], bool]


@dataclass(frozen=True)
class Reading:
    """What a read found: the instant T, and a row for every key of every lookup, in order."""

    at: datetime
    rows: list[list[Row]]


Item = tuple[bytes, bytes, float | None]
"""A row for the online store: cache key, value, and the seconds for which it is kept."""


@dataclass(frozen=True)
class _Fetch:
    keys: list[bytes]


@dataclass(frozen=True)
class _Wait:
    flights: set[Flight]
    seconds: float


_Steps = Generator[_Fetch | _Wait, Any, Reading]


class _Part:
    """One lookup while it is being read."""

    def __init__(
        self, view: ResolvedView, codec: RowCodec, keys: Sequence[Key], max_age: int | None
    ) -> None:
        self.view = view
        self.codec = codec
        self.prefix = codec.prefix
        self.keys = keys
        self.places = codec.places(keys)
        self.rows: list[Row | None] = [None] * len(keys)
        self.spare: list[Row | None] = self.rows
        """What may answer as stale where there is no row."""
        held = None if view.freshness is None else microseconds(view.freshness)
        self.held = held if max_age is None or (held is not None and held < max_age) else max_age
        self.held_unknown = _BRIEFLY if self.held is None else min(self.held, _BRIEFLY)
        self.ttl = None if view.ttl is None else microseconds(view.ttl)
        self.flights: dict[Key, Flight] = {}
        self.gone: dict[Key, int] = {}
        """Keys that were declared invalid, and when."""

    def answered(self, at: int, since: int) -> tuple[list[Row | None], dict[Key, Row | None]]:
        """Return the rows that answer at an instant, and the keys that lack one.

        Parameters
        ----------
        since
            What the warehouse said before this instant was declared invalid.

        A key that lacks a row has what is cached of it, which may be too old or not yet compared
        with the warehouse.
        """
        oldest = self.oldest(at, since)
        oldest_unknown = max(at - self.held_unknown, oldest)
        found: list[Row | None] = []
        missing: dict[Key, Row | None] = {}
        for key, row, spare in zip(self.keys, self.rows, self.spare, strict=True):
            if row is not None and row.values and (row.pushed_at is None or row.pushed_at >= since):
                chosen = row.chosen_at
                if chosen is not None and (oldest if row.found else oldest_unknown) <= chosen <= at:
                    found.append(row)
                    continue
            if None in key:
                found.append(no_row(self.view, at))
                continue
            found.append(None)
            missing[key] = None
            if row is not None and not row.values:
                self.gone[key] = row.chosen_at or since
            else:
                cached = row or spare
                if cached is not None and self._counts(cached, at, since):
                    missing[key] = cached
        return found, missing

    def oldest(self, at: int, since: int) -> int:
        """Return the earliest instant whose rows answer at an instant; after it if none does."""
        if self.held == 0:
            return at + 1
        return since if self.held is None else max(at - self.held, since)

    def _counts(self, row: Row, at: int, since: int) -> bool:
        """Tell whether a row that does not answer by itself may still be what is known."""
        if row.pushed_at is not None:
            outlived = self.ttl is not None and row.event is not None and at - row.event > self.ttl
            return since <= row.pushed_at <= at and not outlived
        return row.chosen_at is not None and since <= row.chosen_at <= at


class OnlineReader:
    """Reads rows for one project.

    Parameters
    ----------
    cache
        Where rows are kept.
    warehouse
        Returns the warehouse of a name, opening it when first needed.
    now
        Returns the instant of online reads.
    """

    def __init__(
        self,
        project: str,
        cache: RowCache,
        warehouse: Callable[[str], Warehouse],
        settings: ReadSettings,
        now: Callable[[], datetime],
        usage: Usage,
    ) -> None:
        self.cache = cache
        self._project = project
        self._warehouse = warehouse
        self._settings = settings
        self._max_stale = microseconds(settings.max_stale)
        self._now = now
        self._usage = usage
        self._looked_up: set[bytes] = set()
        self._codecs: dict[tuple[str, str], RowCodec] = {}
        self._ahead: dict[bytes, tuple[float, dict[Key, None]]] = {}
        self._batches: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Batches] = (
            weakref.WeakKeyDictionary()
        )
        self.flights = Flights(self._fetch, self._land, settings.limit, settings.patience)

    def codec(self, view: ResolvedView) -> RowCodec:
        """Return what writes and reads the rows of a view."""
        known = (view.name, view.fingerprint)
        found = self._codecs.get(known)
        if found is None:
            found = self._codecs[known] = RowCodec(self.cache.prefix, self._project, view)
        return found

    def read(
        self,
        lookups: Sequence[Lookup],
        at: datetime | None = None,
        *,
        cached: bool = True,
        max_age: timedelta | None = None,
    ) -> Reading:
        """Return a row for every key of every lookup.

        Parameters
        ----------
        at
            The instant T; now when None, read when it is known what the cache lacks, so that
            whoever else asks for the same can be joined.
        cached
            False reads the warehouse alone, as instants other than now must.
        max_age
            How old a row may be, where that is less than its view's freshness.

        Raises
        ------
        WarehouseError
            The warehouse could not answer, and for some key nothing is cached.
        """
        steps = self._steps(lookups, at, cached, max_age)
        reply: Any = None
        try:
            while True:
                step = steps.send(reply)
                if isinstance(step, _Fetch):
                    reply = self.cache.fetch(step.keys)
                else:
                    wait([flight.rows for flight in step.flights], step.seconds)
                    reply = None
        except StopIteration as done:
            found: Reading = done.value
            return found

    async def read_async(
        self,
        lookups: Sequence[Lookup],
        at: datetime | None = None,
        *,
        cached: bool = True,
        max_age: timedelta | None = None,
    ) -> Reading:
        """Return what :meth:`read` does, without holding up the event loop."""
        steps = self._steps(lookups, at, cached, max_age)
        reply: Any = None
        try:
            while True:
                step = steps.send(reply)
                if isinstance(step, _Wait):
                    await _landed(step.flights, step.seconds)
                    reply = None
                elif self.cache.is_remote:
                    reply = await self._batches_of_loop().fetch(step.keys)
                else:
                    reply = self.cache.fetch(step.keys)
        except StopIteration as done:
            found: Reading = done.value
            return found

    def _batches_of_loop(self) -> Batches:
        loop = asyncio.get_running_loop()
        found = self._batches.get(loop)
        if found is None:
            found = self._batches[loop] = Batches(self.cache.fetch)
        return found

    def _steps(
        self,
        lookups: Sequence[Lookup],
        at: datetime | None,
        cached: bool,
        max_age: timedelta | None,
    ) -> _Steps:
        most = None if max_age is None else microseconds(max_age)
        parts = [_Part(look.view, self.codec(look.view), look.keys, most) for look in lookups]
        if cached:
            yield from self._read_cache(parts)
        instant = at or self._now()
        judged = self._judged(parts, instant)
        waited: set[Flight] = set()
        if any(missing for _, missing in judged):
            with self.flights.lock:
                instant = at or self._now()
                judged = self._judged(parts, instant)
                for part, (_, missing) in zip(parts, judged, strict=True):
                    self._ask(part, list(missing), instant, shared=cached)
            flights = {flight for part in parts for flight in part.flights.values()}
            waited.update(flight for flight in flights if not flight.rows.done())
            if waited:
                yield _Wait(waited, max(self._patience(flight.view) for flight in waited))
        found = []
        for part, (rows, missing) in zip(parts, judged, strict=True):
            whole, stale = self._whole(part, rows, missing, to_micros(instant), kept=cached)
            found.append(whole)
            if cached:
                asked = sum(part.flights.get(key) in waited for key in missing)
                self._usage.count(part.prefix, part.places, asked, stale)
        if cached:
            self._refresh_ahead(parts, judged, to_micros(instant))
        return Reading(instant, found)

    def _read_cache(self, parts: Sequence[_Part]) -> Generator[_Fetch, Any, None]:
        """Fill the parts with what is near, and ask the cache for the rest in one go."""
        for part in parts:
            part.rows = self.cache.near_rows(part.places)
        asked = [part for part in parts if None in part.rows]
        if not asked:
            return
        notes = [self.cache.since_key(part.prefix) for part in asked]
        wanted = list(notes)
        for part in asked:
            wanted += [
                place for place, row in zip(part.places, part.rows, strict=True) if row is None
            ]
        data = yield _Fetch(wanted)
        if data is None:  # out of reach: what is near may be older, and still answer
            for part in asked:
                # What was invalidated longer ago elsewhere nobody here has heard of.
                part.rows = self.cache.near_rows(part.places, MARK_SECONDS)
                part.spare = self.cache.near_rows(part.places, float("inf"))
            return
        for note, part in zip(data, asked, strict=False):
            self.cache.note_since(part.prefix, note)
        start = len(notes)
        for part in asked:
            lacking = [number for number, row in enumerate(part.rows) if row is None]
            end = start + len(lacking)
            found = part.codec.decode_many(data[start:end])
            start = end
            if self.cache.keeps_near:
                self.cache.keep_near(
                    (part.places[number], row)
                    for number, row in zip(lacking, found, strict=True)
                    if row is not None
                )
                if part.held is not None and None in found:
                    self._recall(part, lacking, found)
            if len(lacking) == len(part.rows):
                part.rows = found
            else:
                for number, row in zip(lacking, found, strict=True):
                    part.rows[number] = row

    def _recall(self, part: _Part, lacking: Sequence[int], found: list[Row | None]) -> None:
        """Fill in rows that the cache has forgotten, as after a restart, and that are still near.

        They are judged by their freshness like all others. A key that was invalidated has left a
        mark for as long as is looked back here.
        """
        empty = [place for place, row in enumerate(found) if row is None]
        near = self.cache.near_rows([part.places[lacking[place]] for place in empty], MARK_SECONDS)
        for place, row in zip(empty, near, strict=True):
            found[place] = row

    def _judged(
        self, parts: Sequence[_Part], instant: datetime
    ) -> list[tuple[list[Row | None], dict[Key, Row | None]]]:
        at = to_micros(instant)
        return [part.answered(at, self.cache.since(part.prefix)) for part in parts]

    def _ask(self, part: _Part, keys: list[Key], instant: datetime, *, shared: bool) -> None:
        if not keys or not self._settings.reads_through(part.view.warehouse):
            return
        at = to_micros(instant)
        oldest = part.oldest(at, self.cache.since(part.prefix)) if shared else at + 1
        by_oldest: dict[int, list[Key]] = {}
        for key in keys:
            by_oldest.setdefault(max(oldest, part.gone.get(key, oldest)), []).append(key)
        for least, some in by_oldest.items():
            part.flights |= self.flights.ask(part.prefix, part.view, some, at, least, shared=shared)

    def _whole(
        self,
        part: _Part,
        rows: list[Row | None],
        missing: Mapping[Key, Row | None],
        at: int,
        *,
        kept: bool,
    ) -> tuple[list[Row], int]:
        """Return the rows with those that were missed, kept near, and how many are stale."""
        if not missing:
            return rows, 0  # type: ignore[return-value]  # none is None
        stale = 0
        got: dict[Key, Row] = {}
        flights = {part.flights.get(key) for key in missing}
        outcomes = {flight: self._outcome(part, flight) for flight in flights}
        for key, held in missing.items():
            brought, error = outcomes[part.flights.get(key)]
            if error is not None:
                got[key] = self._stale(part, held, at, error)
                stale += 1
            elif held is not None and held.pushed_at is not None:
                got[key] = merged(held, brought[key])
            else:
                got[key] = brought[key]
        if stale:
            _log.warning("%s: %d stale rows answer, as the warehouse does not",
                         part.view.label, stale)  # fmt: skip
        elif kept and part.held != 0 and self.cache.keeps_near:
            self.cache.keep_near((part.codec.place(key), row) for key, row in got.items())
        whole = [got[key] if row is None else row for key, row in zip(part.keys, rows, strict=True)]
        return whole, stale

    def _outcome(self, part: _Part, flight: Flight | None) -> tuple[Rows, BaseException | None]:
        """Return what a flight brought, or why there is nothing."""
        if flight is None:
            return {}, WarehouseError(
                f"{part.view.label}: the cache lacks a key, or holds it for longer than its "
                f"freshness, and warehouse {part.view.warehouse!r} is not asked by online reads "
                "(read_through = false, as it may be billed by the byte); materialize the view, or "
                "set read_through = true in the warehouse's section"
            )
        if not flight.rows.done():
            late = WarehouseUnavailableError(
                f"warehouse {part.view.warehouse!r} gave no answer within "
                f"{self._settings.patience(part.view.warehouse):g} s (lookup_timeout in its "
                "section)"
            )
            self.flights.give_up(flight, late)
            return {}, late
        error = flight.rows.exception()
        return (flight.rows.result(), None) if error is None else ({}, error)

    def _stale(self, part: _Part, row: Row | None, at: int, error: BaseException) -> Row:
        """Return what is cached, marked as stale, or raise why there is nothing better."""
        if row is not None and isinstance(error, WarehouseError):
            known = max(row.chosen_at or 0, row.pushed_at or 0)
            # A pushed row stays as long as its TTL where nobody asks for a newer one.
            unasked = row.pushed_at is not None and not part.flights
            if unasked or at - known <= self._max_stale + (held_by(row.found, part.view) or 0):
                return msgspec.structs.replace(row, stale=True)
        raise error

    def ask(self, view: ResolvedView, keys: Sequence[Key]) -> Rows:
        """Return what the warehouse says now of keys of one view, whatever is cached.

        Raises
        ------
        WarehouseError
            It refuses, or does not answer in time.
        """
        warehouse = self._warehouse(view.warehouse)
        return fetch_rows(warehouse, view, keys, to_micros(self._now()), _LONG)

    def _patience(self, view: ResolvedView) -> float:
        """Return for how many seconds a read waits for rows of a view."""
        compiles = 0.0 if self.codec(view).prefix in self._looked_up else _COMPILING
        return self._settings.patience(view.warehouse) + compiles

    # -- what flights do

    def _fetch(self, flight: Flight) -> Rows:
        warehouse = self._warehouse(flight.view.warehouse)
        seconds = self._settings.patience(flight.view.warehouse)
        rows = fetch_rows(warehouse, flight.view, list(flight.keys), flight.instant, seconds)
        self._looked_up.add(flight.place)
        return rows

    def _land(self, flight: Flight, rows: Rows) -> None:
        if flight.view.freshness != timedelta(0):
            self.cache.write(self.items(flight.view, rows))

    def items(self, view: ResolvedView, rows: Mapping[Key, Row]) -> list[Item]:
        """Return rows that the warehouse gave at one instant, as the online store takes them.

        For how long they are kept differs, so that those written together do not all go at once.
        """
        codec = self.codec(view)
        seconds = [
            None if held is None else (held + self._max_stale) / 1e6
            for held in (held_by(found, view) for found in (False, True))
        ]
        places, values = codec.places(rows), codec.encode_chosen(rows.values())
        if seconds[True] is None and all(row.found for row in rows.values()):
            return [(place, data, None) for place, data in zip(places, values, strict=True)]
        spread = random.random
        return [
            (place, data, None if kept is None else kept * (1.0 + 0.1 * spread()))
            for place, data, kept in zip(
                places,
                values,
                [seconds[row.found] for row in rows.values()],
                strict=True,
            )
        ]

    def _refresh_ahead(
        self,
        parts: Sequence[_Part],
        judged: Sequence[tuple[list[Row | None], dict[Key, Row | None]]],
        at: int,
    ) -> None:
        """Note rows in the later half of their time; when the first is due, refresh them all.

        So keys in use come to share one query per view in each time of freshness, and nobody waits.
        """
        for part, (rows, _) in zip(parts, judged, strict=True):
            held = part.view.freshness and microseconds(part.view.freshness)
            if not held or part.held != held:
                continue
            share, noted = self._ahead.setdefault(part.prefix, (_moment(), {}))
            half, due = at - held // 2, at - int(held * share)
            is_due = False
            for key, row in zip(part.keys, rows, strict=True):
                if row is not None and row.chosen_at is not None and row.chosen_at <= half:
                    if len(noted) < _MOST_AHEAD and None not in key:
                        noted[key] = None
                    is_due = is_due or row.chosen_at <= due
            if is_due and noted and self._settings.reads_through(part.view.warehouse):
                with self.flights.lock:
                    if self._ahead[part.prefix][1] is not noted:
                        continue  # another thread was faster
                    self._ahead[part.prefix] = (_moment(), {})
                    now = to_micros(self._now())
                    # A flight as old as the rows that are due would refresh nothing.
                    recent = now - int(held * (1 - _AHEAD_TO))
                    self.flights.ask(part.prefix, part.view, list(noted), now, recent)

    def close(self) -> None:
        """Let no query start any more, and wait for those that run."""
        self.flights.close()


def _moment() -> float:
    return random.uniform(_AHEAD_FROM, _AHEAD_TO)  # noqa: S311


def held_by(found: bool, view: ResolvedView) -> int | None:
    """Return the microseconds for which a row answers, or that there is none.

    None is until it is replaced.
    """
    held = None if view.freshness is None else microseconds(view.freshness)
    if found:
        return held
    return _BRIEFLY if held is None else min(held, _BRIEFLY)


async def _landed(flights: Iterable[Flight], seconds: float) -> None:
    """Wait until all flights are done, or the time is over."""
    loop = asyncio.get_running_loop()
    left = {flight.rows for flight in flights}
    over = asyncio.Event()

    def land(future: Future[Rows]) -> None:
        left.discard(future)
        if not left:
            over.set()

    def tell(future: Future[Rows]) -> None:
        with suppress(RuntimeError):  # the loop is closed, and nobody waits
            loop.call_soon_threadsafe(land, future)

    for future in list(left):
        future.add_done_callback(tell)
    with suppress(TimeoutError):
        await asyncio.wait_for(over.wait(), seconds)


def lookups(plan: FeaturePlan, keys: Sequence[Mapping[str, Any]]) -> list[Lookup]:
    """Return what to read for a plan, one lookup per part."""
    found = []
    for part in plan.parts:
        wanted: tuple[Key, ...]
        if len(part.key_columns) == 1:
            (name,) = part.key_columns
            wanted = tuple([(item[name],) for item in keys])
        else:
            wanted = tuple([tuple([item[name] for name in part.key_columns]) for item in keys])
        found.append(Lookup(part.view, wanted))
    return found
