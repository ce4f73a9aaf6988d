"""Queries in flight: one for all who miss the same key, few at a time, and none that is hopeless.

A flight asks the warehouse for keys of one view as of one instant. Who misses a key that is in
flight waits for it, if its instant is one that they may be answered at. A warehouse is asked by at
most so many flights at a time; keys that miss meanwhile gather in the next flight of their view.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from virtualfs.compiler.plan import LateData, ResolvedView
from virtualfs.errors import WarehouseError, WarehouseUnavailableError
from virtualfs.forks import renew_in_child
from virtualfs.serving.breaker import Breaker
from virtualfs.serving.codec import Row

__all__ = ["Flight", "Flights", "Key", "Rows"]

_log = logging.getLogger("virtualfs.online")

Key = tuple[Any, ...]
Rows = dict[Key, Row]

_MOST_KEYS = 10_000
"""Keys in one query."""
_MOST_WAITING = 1_000
"""Flights of one warehouse that may wait for their turn."""
_LINGER = 1.0
"""Seconds for which a flight that has landed is still found, by those who looked into the cache
just before its rows came there."""


@dataclass(eq=False)
class Flight:
    """One query, its keys in order, and the rows that it will bring."""

    place: bytes
    view: ResolvedView
    instant: int
    deadline: float
    """When nobody waits for it any more, on the monotonic clock."""
    shared: bool = True
    """Whether others may join it, and its rows go into the cache."""
    late_data: LateData = "include"
    keys: dict[Key, None] = field(default_factory=dict)
    rows: Future[Rows] = field(default_factory=Future)
    late: bool = False
    """Whether somebody has waited for it in vain."""
    landed: float = float("inf")
    """When its rows had come into the cache, on the monotonic clock."""


class _Lane:
    """The way to one warehouse."""

    def __init__(self, name: str, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self.waiting: OrderedDict[Flight, None] = OrderedDict()
        self.breaker = Breaker()
        self.threads = ThreadPoolExecutor(limit, f"virtualfs-{name}")


class Flights:
    """The flights of one process.

    Parameters
    ----------
    fetch
        Asks the warehouse for a flight's keys; its failures are ``WarehouseError``.
    land
        Called with a flight and its rows after those who wait have them; until it returns, and for
        a moment longer, who misses one of the keys still finds it in flight.
    limit
        Returns how many flights at a time a warehouse takes.
    patience
        Returns for how many seconds anyone waits for a warehouse.
    """

    def __init__(
        self,
        fetch: Callable[[Flight], Rows],
        land: Callable[[Flight, Rows], None],
        limit: Callable[[str], int],
        patience: Callable[[str], float],
    ) -> None:
        self.patience = patience
        self._fetch = fetch
        self._land = land
        self._limit = limit
        self._closed = False
        self._renew()
        renew_in_child(self._renew)

    def _renew(self) -> None:
        """Make what belongs to one process: no thread of a parent's queries is in its child."""
        self.lock = threading.RLock()
        """Held while instants are read and flights are asked for, so that both go in one order."""
        self._lanes: dict[str, _Lane] = {}
        self._flying: dict[bytes, dict[Key, Flight]] = {}
        self._breakers: dict[bytes, Breaker] = {}
        self._landed: deque[Flight] = deque()

    def ask(
        self, place: bytes, view: ResolvedView, keys: Sequence[Key], instant: int, oldest: int,
        *, shared: bool = True, late_data: LateData = "include",
    ) -> dict[Key, Flight]:  # fmt: skip
        """Return the flight that brings each key. The caller holds the lock.

        Parameters
        ----------
        place
            What tells versions of views apart.
        oldest
            The earliest instant whose rows would do; after `instant` if none of others' would.
        shared
            False for what is not about now: nobody joins it, and the cache does not see it.
        late_data
            Only what is not shared may leave out rows that came late.
        """
        self._let_go()
        lane = self._lane(view.warehouse)
        flying = self._flying.setdefault(place, {})
        found: dict[Key, Flight] = {}
        rest = []
        for key in keys:
            flight = flying.get(key)
            if flight is not None and oldest <= flight.instant <= instant:
                found[key] = flight
            else:
                rest.append(key)
        open_flight = None
        if rest and shared and oldest <= instant:
            open_flight = next(
                (
                    flight
                    for flight in lane.waiting
                    if flight.shared
                    and flight.place == place
                    and oldest <= flight.instant <= instant
                ),
                None,
            )
        for key in rest:
            if open_flight is None or len(open_flight.keys) >= _MOST_KEYS:
                until = time.monotonic() + self.patience(view.warehouse)
                open_flight = Flight(place, view, instant, until, shared, late_data)
                open_flight.rows.set_running_or_notify_cancel()  # nobody cancels it for all
                self._start(lane, open_flight)
            open_flight.keys[key] = None
            found[key] = open_flight
            if shared and oldest <= instant and not open_flight.rows.done():
                flying[key] = open_flight
        return found

    def give_up(self, flight: Flight, error: WarehouseUnavailableError) -> None:
        """Count a flight for which somebody waited in vain against its warehouse."""
        with self.lock:
            is_first, flight.late = not flight.late, True
        if is_first:
            self._lane(flight.view.warehouse).breaker.failed(error)

    def forget(self, place: bytes) -> None:
        """Share none of a view's flights any more; those who wait still get their rows."""
        with self.lock:
            self._flying.pop(place, None)

    def close(self) -> None:
        """Let no flight start any more."""
        with self.lock:
            self._closed = True
            for lane in self._lanes.values():
                while lane.waiting:
                    flight, _ = lane.waiting.popitem()
                    flight.rows.set_exception(WarehouseUnavailableError("the store is closed"))
                lane.threads.shutdown(wait=False, cancel_futures=True)
        for lane in self._lanes.values():
            lane.threads.shutdown(wait=True)

    def _lane(self, warehouse: str) -> _Lane:
        if warehouse not in self._lanes:
            self._lanes[warehouse] = _Lane(warehouse, self._limit(warehouse))
        return self._lanes[warehouse]

    def _start(self, lane: _Lane, flight: Flight) -> None:
        breaker = self._breakers.setdefault(flight.place, Breaker())
        if self._closed:
            flight.rows.set_exception(WarehouseUnavailableError("the store is closed"))
            return
        both = (lane.breaker, breaker)
        # One that lets a caller through to try must not be left waiting for the other's sake.
        refuses = next((each for each in both if each.is_open()), None) or next(
            (each for each in both if not each.allows()), None
        )
        if refuses is not None:
            flight.rows.set_exception(
                type(refuses.error)(f"{refuses.error} (it is asked again in a moment)")
                if isinstance(refuses.error, WarehouseError)
                else WarehouseUnavailableError("the warehouse is left alone for a moment")
            )
            return
        if len(lane.waiting) >= _MOST_WAITING:
            flight.rows.set_exception(
                WarehouseUnavailableError(
                    f"{len(lane.waiting)} look-ups already wait for warehouse "
                    f"{flight.view.warehouse!r}, which takes {lane.limit} at a time; raise its "
                    "max_connections, or keep more keys in the cache"
                )
            )
            return
        lane.waiting[flight] = None
        if lane.running < lane.limit:
            lane.running += 1
            lane.threads.submit(self._drain, lane)

    def _drain(self, lane: _Lane) -> None:
        """Fly what waits, until nothing does."""
        while True:
            with self.lock:
                if not lane.waiting:
                    lane.running -= 1
                    return
                flight, _ = lane.waiting.popitem(last=False)
            self._fly(lane, flight)

    def _fly(self, lane: _Lane, flight: Flight) -> None:
        breaker = self._breakers[flight.place]
        try:
            if time.monotonic() > flight.deadline:
                raise WarehouseUnavailableError(
                    f"warehouse {flight.view.warehouse!r} was busy with other look-ups for "
                    f"{self.patience(flight.view.warehouse):g} s"
                )
            rows = self._fetch(flight)
        except BaseException as error:  # noqa: BLE001 - whoever waits is to be told whatever it is
            if isinstance(error, WarehouseUnavailableError):
                if not flight.late:
                    lane.breaker.failed(error)
            elif isinstance(error, WarehouseError):
                lane.breaker.succeeded()  # which did answer
                breaker.failed(error)
            with self.lock:
                self._gone(flight)
            flight.rows.set_exception(error)
            return
        lane.breaker.succeeded()
        breaker.succeeded()
        flight.rows.set_result(rows)
        if not flight.shared:
            return
        try:
            self._land(flight, rows)
        except Exception:  # noqa: BLE001 - those who waited have their answer
            _log.exception("%s: rows could not be kept", flight.view.label)
        with self.lock:
            flight.landed = time.monotonic()
            self._landed.append(flight)

    def _let_go(self) -> None:
        """Find no more what landed a while ago."""
        until = time.monotonic() - _LINGER
        while self._landed and self._landed[0].landed < until:
            self._gone(self._landed.popleft())

    def _gone(self, flight: Flight) -> None:
        flying = self._flying.get(flight.place, {})
        for key in flight.keys:
            if flying.get(key) is flight:
                del flying[key]
