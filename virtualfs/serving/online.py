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
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from virtualfs.compiler.plan import LateData, ResolvedView
from virtualfs.definitions.duration import microseconds
from virtualfs.errors import VirtualFSError, WarehouseError, WarehouseUnavailableError
from virtualfs.forks import renew_in_child
from virtualfs.provider import Warehouse
from virtualfs.serving.ahead import RefreshAhead, refreshed_since
from virtualfs.serving.batches import Batches
from virtualfs.serving.codec import Row, RowCodec, merged, to_micros
from virtualfs.serving.fetch import fetch_rows
from virtualfs.serving.flights import Flight, Flights, Key, Rows
from virtualfs.serving.observer import Observer, Silent
from virtualfs.serving.outages import Outages
from virtualfs.serving.part import Lookup, Part, briefly
from virtualfs.serving.row_cache import RowCache
from virtualfs.serving.statements import LookupStatements
from virtualfs.serving.usage import Usage

__all__ = ["MARK_SECONDS", "Item", "OnlineReader", "ReadSettings", "Reading"]

_log = logging.getLogger("virtualfs.online")
MARK_SECONDS = 60.0
"""How long a key that was invalidated is marked: longer than any query runs."""
_COMPILING = 2.0
"""Seconds more that the first look-up of a view may take, which connects and compiles."""
_LONG = 600.0
"""Seconds that filling the cache with some keys may take."""


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
    has_unreadable: bool = False
    """Whether a row has a value that Python cannot hold."""


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
    owner
        Returns what tells this deployment's rows of a warehouse from those of others.
    """

    def __init__(
        self,
        project: str,
        cache: RowCache,
        warehouse: Callable[[str], Warehouse],
        settings: ReadSettings,
        now: Callable[[], datetime],
        usage: Usage,
        owner: Callable[[str], str],
        statements: LookupStatements,
    ) -> None:
        self.cache = cache
        self._statements = statements
        self._owner = owner
        self._project = project
        self._warehouse = warehouse
        self._settings = settings
        self._max_stale = microseconds(settings.max_stale)
        self._now = now
        self._usage = usage
        self.observer: Observer = Silent()
        self._looked_up: set[bytes] = set()
        self._codecs: dict[tuple[str, str, int | None], RowCodec] = {}
        self._ahead = RefreshAhead()
        self._outages = Outages()
        self._renew()
        renew_in_child(self._renew)
        self.flights = Flights(self._fetch, self._land, settings.limit, settings.patience)

    def _renew(self) -> None:
        """Make what belongs to one process."""
        self._batches: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Batches] = (
            weakref.WeakKeyDictionary()
        )

    def codec(self, view: ResolvedView) -> RowCodec:
        """Return what writes and reads the rows of a view."""
        known = (view.name, view.fingerprint, view.version)
        found = self._codecs.get(known)
        if found is None:
            found = self._codecs[known] = RowCodec(
                self.cache.prefix, self._project, view, self._owner(view.warehouse)
            )
        return found

    def read(
        self,
        lookups: Sequence[Lookup],
        at: datetime | None = None,
        *,
        cached: bool = True,
        max_age: timedelta | None = None,
        late_data: LateData = "include",
        allow: Callable[[int], None] | None = None,
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
        late_data
            ``"exclude"`` only where nothing cached may answer.
        allow
            Called with how many rows the warehouse would be asked for, before it is; may raise.

        Raises
        ------
        WarehouseError
            The warehouse could not answer, and for some key nothing is cached.
        """
        steps = self._steps(lookups, at, cached, max_age, late_data, allow)
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
        late_data: LateData = "include",
        allow: Callable[[int], None] | None = None,
        partial: bool = False,
    ) -> Reading:
        """Return what :meth:`read` does, without holding up the event loop.

        Parameters
        ----------
        partial
            Whether an error stands in the place of each row that cannot be had, instead of being
            raised.
        """
        steps = self._steps(lookups, at, cached, max_age, late_data, allow, partial=partial)
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
            found = self._batches[loop] = Batches(self.cache.fetch_async)
        return found

    def _steps(
        self,
        lookups: Sequence[Lookup],
        at: datetime | None,
        cached: bool,
        max_age: timedelta | None,
        late_data: LateData,
        allow: Callable[[int], None] | None,
        *,
        partial: bool = False,
    ) -> _Steps:
        most = None if max_age is None else microseconds(max_age)
        parts = [Part(look.view, self.codec(look.view), look.keys, most) for look in lookups]
        if cached:
            yield from self._read_cache(parts)
        instant = at or self._now()
        self._judge(parts, to_micros(instant))
        waited: set[Flight] = set()
        if any(part.missing for part in parts):
            if allow is not None:
                allow(sum(len(part.missing) for part in parts))
            with self.flights.lock:
                instant = at or self._now()
                micros = to_micros(instant)
                self._judge(parts, micros)
                for part in parts:
                    try:
                        self._ask(part, micros, shared=cached, late_data=late_data)
                    except VirtualFSError as error:
                        if not partial:
                            raise
                        part.refused = error
            flights = {flight for part in parts for flight in part.flights.values()}
            waited.update(flight for flight in flights if not flight.rows.done())
            if waited:
                yield _Wait(waited, max(self._patience(flight.view) for flight in waited))
        micros = to_micros(instant)
        rows = []
        for part in parts:
            whole, stale = self._whole(part, micros, kept=cached, partial=partial)
            rows.append(whole)
            if cached:
                asked = sum(part.flights.get(key) in waited for key in part.missing)
                self._usage.count(part.prefix, part.places, asked, stale)
                self._observe(part, whole, asked, stale, micros)
                self._refresh_ahead(part, micros)
        return Reading(instant, rows, any(part.is_partly_unreadable for part in parts))

    def _observe(self, part: Part, rows: list[Row], asked: int, stale: int, at: int) -> None:
        chosen = getattr(rows[0], "chosen_at", None) if rows else None
        age = None if chosen is None else max(0, at - chosen) / 1e6
        hits = len(rows) - max(asked, stale)
        self.observer.read(part.view.name, hits, max(0, asked - stale), stale, age)

    def _read_cache(self, parts: Sequence[Part]) -> Generator[_Fetch, Any, None]:
        """Fill the parts with what is near, and ask the cache for the rest in one go."""
        for part in parts:
            part.rows = self.cache.near_rows(part.places)
        asked = [part for part in parts if None in part.rows]
        if not asked:
            return
        notes = [self.cache.since_key(part.prefix) for part in asked]
        wanted = list(notes)
        keeps_near = self.cache.keeps_near
        for part in asked:
            wanted += part.places if not keeps_near else [
                place for place, row in zip(part.places, part.rows, strict=True) if row is None
            ]  # fmt: skip
        data = yield _Fetch(wanted)
        if data is None:  # out of reach: what is near may be older, and still answer
            for part in asked:
                # What was invalidated longer ago elsewhere nobody here has heard of.
                part.rows = self.cache.near_rows(part.places, MARK_SECONDS)
                part.spare = self.cache.near_rows(part.places, float("inf"))
            return
        for note, part in zip(data, asked, strict=False):
            if note is not None:
                self.cache.note_since(part.prefix, note, to_micros(self._now()))
        start = len(notes)
        for part in asked:
            lacking: Sequence[int] = range(len(part.rows))
            if keeps_near:
                lacking = [number for number, row in enumerate(part.rows) if row is None]
            end = start + len(lacking)
            is_whole = len(lacking) == len(part.rows)
            places = part.places if is_whole else [part.places[number] for number in lacking]
            found = part.codec.decode_many(places, data[start:end])
            start = end
            if keeps_near:
                self.cache.keep_near(
                    (place, row)
                    for place, row in zip(places, found, strict=True)
                    if row is not None
                )
                if part.held is not None and None in found:
                    self._recall(part, lacking, found)
            if is_whole:
                part.rows = found
            else:
                for number, row in zip(lacking, found, strict=True):
                    part.rows[number] = row

    def _recall(self, part: Part, lacking: Sequence[int], found: list[Row | None]) -> None:
        """Fill in rows that the cache has forgotten, as after a restart, and that are still near.

        They are judged by their freshness like all others. A key that was invalidated has left a
        mark for as long as is looked back here.
        """
        empty = [place for place, row in enumerate(found) if row is None]
        near = self.cache.near_rows([part.places[lacking[place]] for place in empty], MARK_SECONDS)
        for place, row in zip(empty, near, strict=True):
            found[place] = row

    def _judge(self, parts: Sequence[Part], at: int) -> None:
        for part in parts:
            part.judge(at, self.cache.since(part.prefix, at))

    def _ask(self, part: Part, at: int, *, shared: bool, late_data: LateData) -> None:
        if not part.missing or not self._settings.reads_through(part.view.warehouse):
            return
        oldest = part.oldest(at, self.cache.since(part.prefix, at)) if shared else at + 1
        by_oldest: dict[int, list[Key]] = {}
        for key in part.missing:
            by_oldest.setdefault(max(oldest, part.gone.get(key, oldest)), []).append(key)
        for least, some in by_oldest.items():
            part.flights |= self.flights.ask(
                part.prefix, part.view, some, at, least, shared=shared, late_data=late_data
            )

    def _whole(
        self, part: Part, at: int, *, kept: bool, partial: bool
    ) -> tuple[list[Row], int]:
        """Return the rows with those that were missed, kept near, and how many are stale.

        Where an answer may be partial, an error stands in the place of a row that cannot be had.
        """
        if not part.missing:
            return part.found, 0  # type: ignore[return-value]  # none is None
        stale = 0
        got: dict[Key, Any] = {}
        flights = {part.flights.get(key) for key in part.missing}
        outcomes = {flight: self._outcome(part, flight) for flight in flights}
        for key, held in part.missing.items():
            brought, error = outcomes[part.flights.get(key)]
            if error is not None:
                try:
                    got[key] = self._stale(part, held, at, error)
                except VirtualFSError as lacking:
                    if not partial:
                        raise
                    got[key] = lacking
                stale += 1
            elif held is not None and held.pushed_at is not None:
                got[key] = merged(held, brought[key])
            else:
                got[key] = brought[key]
        if stale:
            what = "stale rows answer, because the warehouse does not"
            self._outages.note(part.view.label, what, stale)
        elif part.flights:
            self._outages.end(part.view.label)
        if not stale and kept and part.held != 0 and self.cache.keeps_near:
            self.cache.keep_near(
                (part.codec.place(key), row) for key, row in got.items() if not row.unreadable
            )
        part.is_partly_unreadable = any(getattr(row, "unreadable", False) for row in got.values())
        found = zip(part.keys, part.found, strict=True)
        whole = [got[key] if row is None else row for key, row in found]
        return whole, stale

    def _outcome(self, part: Part, flight: Flight | None) -> tuple[Rows, BaseException | None]:
        """Return what a flight brought, or why there is nothing."""
        if flight is None and part.refused is not None:
            return {}, part.refused
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

    def _stale(self, part: Part, row: Row | None, at: int, error: BaseException) -> Row:
        """Return what is cached, marked as stale, or raise why there is nothing better."""
        if row is not None and isinstance(error, WarehouseError):
            known = max(row.chosen_at or 0, row.pushed_at or 0)
            # A pushed row stays as long as its TTL where nobody asks for a newer one.
            unasked = row.pushed_at is not None and not part.flights
            if unasked or at - known <= self._max_stale + (part.believed(row) or 0):
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
        select = self._statements.get(view, warehouse)
        return fetch_rows(warehouse, view, keys, select, to_micros(self._now()), _LONG)

    def prepare(self, view: ResolvedView) -> None:
        """Do what the first look-up of a view would have to: connect and compile.

        Raises
        ------
        WarehouseError
            The warehouse is away.
        """
        self.codec(view)
        if self._settings.reads_through(view.warehouse):
            self._statements.get(view, self._warehouse(view.warehouse))
            self._looked_up.add(self.codec(view).prefix)

    def _patience(self, view: ResolvedView) -> float:
        """Return for how many seconds a read waits for rows of a view."""
        compiles = 0.0 if self.codec(view).prefix in self._looked_up else _COMPILING
        return self._settings.patience(view.warehouse) + compiles

    # -- what flights do

    def _fetch(self, flight: Flight) -> Rows:
        warehouse = self._warehouse(flight.view.warehouse)
        select = self._statements.get(flight.view, warehouse, flight.late_data)
        seconds = self._settings.patience(flight.view.warehouse)
        started, failed = time.time(), True
        try:
            rows = fetch_rows(
                warehouse, flight.view, list(flight.keys), select, flight.instant, seconds
            )
            failed = False
        finally:
            self.observer.queried(flight.view.name, len(flight.keys), started, failed)
        self._looked_up.add(flight.place)
        return rows

    def _land(self, flight: Flight, rows: Rows) -> None:
        if self.codec(flight.view).held != 0:
            self.cache.write(self.items(flight.view, rows))

    def items(
        self, view: ResolvedView, rows: Mapping[Key, Row], *, stored: bool = False
    ) -> list[Item]:
        """Return rows that the warehouse gave at one instant, as the online store takes them.

        For how long they are kept differs, so that those written together do not all go at once.

        Parameters
        ----------
        stored
            Whether the keys are as the warehouse's columns have them, and not canonical yet.
        """
        codec = self.codec(view)
        rows = {key: row for key, row in rows.items() if not row.unreadable}
        held = codec.held
        seconds = [
            None if micros is None else (micros + self._max_stale) / 1e6
            for micros in (briefly(held), held)
        ]
        places = codec.places(codec.stored_keys([*rows]) if stored else [*rows])
        values = codec.encode_chosen(places, rows.values())
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

    def _refresh_ahead(self, part: Part, at: int) -> None:
        if not self._settings.reads_through(part.view.warehouse):
            return
        keys = self._ahead.due(part, at)
        if keys:
            with self.flights.lock:
                now = to_micros(self._now())
                # A flight as old as the rows that are due would refresh nothing.
                since = refreshed_since(part, now)
                self.flights.ask(part.prefix, part.view, keys, now, since)

    def close(self) -> None:
        """Let no query start any more, and wait for those that run."""
        self.flights.close()


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
