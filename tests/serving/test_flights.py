"""Stampedes: one query for all who miss, few at a time, and refreshed before anyone waits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

import virtualfs as vfs
from tests.serving.conftest import NOW, Clock, add, temp, weather
from virtualfs.serving import online
from virtualfs.serving.part import Lookup

HOUR = timedelta(hours=1)


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], list[int]]:
    """Make each query take a while; return how many there are at once, at the start of each."""

    def make(seconds: float) -> list[int]:
        real, at_once, running = online.fetch_rows, [], []

        def fetch(*arguments: Any) -> Any:
            running.append(1)
            at_once.append(len(running))
            time.sleep(seconds)
            try:
                return real(*arguments)
            finally:
                running.pop()

        monkeypatch.setattr(online, "fetch_rows", fetch)
        return at_once

    return make


def test_a_thousand_threads_that_miss_one_key_make_one_query(
    open_store: Callable[..., vfs.FeatureStore], connection: Any, slowly: Any
) -> None:
    store = open_store()
    store.apply([weather()])
    add(connection, "A", NOW - HOUR, 5)
    queries = slowly(0.2)
    gate = threading.Barrier(100)

    def read(_: int) -> Any:
        gate.wait()
        return [temp(store, "A") for _ in range(10)]

    with ThreadPoolExecutor(100) as threads:
        found = list(threads.map(read, range(100)))
    assert found == [[[(5, "PRESENT")]] * 10] * 100
    assert len(queries) == 1


def test_with_the_real_clock_too(
    make_store: Callable[..., vfs.FeatureStore], connection: Any, cache_url: str, slowly: Any
) -> None:
    """Instants differ then, and threads come in another order than they read the clock."""
    from uuid import uuid4

    connection.raw_sql(
        "CREATE TABLE weather (place TEXT, seen TIMESTAMP, written TIMESTAMP, temp INTEGER)"
    )
    store = make_store(project=f"p{uuid4().hex}", cache={"url": cache_url})
    store.apply([weather()])
    add(connection, "A", NOW, 5)
    queries = slowly(0.2)
    with ThreadPoolExecutor(100) as threads:
        found = list(threads.map(lambda _: temp(store, "A"), range(1000)))
    assert found == [[(5, "PRESENT")]] * 1000
    assert len(queries) == 1


def test_a_thousand_tasks_make_one_query_and_do_not_hold_up_hits(
    store: vfs.FeatureStore, connection: Any, slowly: Any
) -> None:
    store.apply([weather()])
    add(connection, "A", NOW - HOUR, 5)
    add(connection, "B", NOW - HOUR, 6)
    temp(store, "B")
    queries = slowly(2.0)

    async def read(place: str) -> Any:
        found = await store.get_online_features_async(["weather:temp"], [{"place": place}])
        return found.to_dict()["temp"], time.monotonic()

    async def all_of_them() -> Any:
        await asyncio.sleep(1.1)  # until the flight of B is no more
        missing = [asyncio.create_task(read("A")) for _ in range(1000)]
        await asyncio.sleep(0)
        hit = await read("B")
        missed = await asyncio.gather(*missing)
        return hit, missed

    hit, missed = asyncio.run(all_of_them())
    assert [values for values, _ in missed] == [[5]] * 1000
    assert hit[0] == [6]
    assert hit[1] < min(when for _, when in missed)
    assert len(queries) == 1


def test_few_queries_at_a_time_and_who_waits_shares_the_next(
    store: vfs.FeatureStore, connection: Any, slowly: Any, asked: list[int]
) -> None:
    store.apply([weather()])
    for number in range(200):
        add(connection, f"P{number}", NOW - HOUR, number)
    at_once = slowly(0.1)
    with ThreadPoolExecutor(200) as threads:
        found = list(threads.map(lambda number: temp(store, f"P{number}"), range(200)))
    assert found == [[(number, "PRESENT")] for number in range(200)]
    assert max(at_once) <= 4  # half of max_connections
    assert len(at_once) < 50


def test_freshness_0_shares_nothing(store: vfs.FeatureStore, connection: Any, slowly: Any) -> None:
    store.apply([weather(freshness="0s")])
    add(connection, "A", NOW - HOUR, 5)
    queries = slowly(0.3)
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda _: temp(store, "A"), range(3)))
    assert found == [[(5, "PRESENT")]] * 3
    assert len(queries) == 3


def test_max_age_tightens_freshness(
    store: vfs.FeatureStore, connection: Any, clock: Clock, asked: list[int]
) -> None:
    store.apply([weather(freshness="1m")])
    add(connection, "A", NOW - HOUR, 5)
    temp(store, "A")
    clock.move(seconds=20)
    temp(store, "A", max_age=timedelta(seconds=20))
    assert len(asked) == 1
    temp(store, "A", max_age=timedelta(seconds=19))
    assert len(asked) == 2
    temp(store, "A", max_age=timedelta(0))
    assert len(asked) == 3
    clock.move(seconds=61)
    temp(store, "A", max_age=timedelta(hours=1))  # cannot loosen it
    assert len(asked) == 4
    with pytest.raises(vfs.SpineError, match=r"max_age=.* is negative"):
        temp(store, "A", max_age=timedelta(seconds=-1))


def test_hot_keys_cost_one_query_in_each_time_of_freshness(
    store: vfs.FeatureStore, connection: Any, clock: Clock, asked: list[int]
) -> None:
    store.apply([weather(freshness="100s")])
    connection.raw_sql(
        "INSERT INTO weather SELECT 'P' || n, '2020-01-01', '2020-01-01', n "
        "FROM range(10000) AS t(n)"
    )
    places = [f"P{number}" for number in range(10_000)]
    ages = []
    for _ in range(50):  # ten times the freshness
        found = store.get_online_features(["weather:temp"], {"place": places})
        assert found.to_dict()["temp"] == [*range(10_000)]
        reader = store.online.reader
        rows = reader.read([Lookup(reader_view(store), (("P7",),))]).rows
        ages.append((clock.now - NOW).total_seconds() - (rows[0][0].chosen_at - micros()) / 1e6)
        settle(store)
        clock.move(seconds=20)
    assert max(ages) <= 100  # never older than it may be
    # The first read misses. From then on they are refreshed ahead, all by one query each time,
    # somewhere in the last fifth of their freshness.
    assert sum(asked) == 10_000 * len(asked)
    assert 10 <= len(asked) <= 13


def micros() -> int:
    from virtualfs.serving.codec import to_micros

    return to_micros(NOW)


def reader_view(store: vfs.FeatureStore) -> Any:
    return store.resolver.view("weather", store.state())


def settle(store: vfs.FeatureStore) -> None:
    """Wait until no query runs."""
    flights = store.online.reader.flights
    deadline = time.monotonic() + 30
    while any(lane.running for lane in flights._lanes.values()):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_nobody_waits_for_a_refresh(
    store: vfs.FeatureStore, connection: Any, clock: Clock, slowly: Any
) -> None:
    store.apply([weather(freshness="100s")])
    add(connection, "A", NOW - HOUR, 5)
    temp(store, "A")
    settle(store)
    queries = slowly(0.3)
    connection.raw_sql("UPDATE weather SET temp = 6")
    clock.move(seconds=96)
    started = time.monotonic()
    assert temp(store, "A") == [(5, "PRESENT")]  # fresh enough, and the refresh has begun
    assert time.monotonic() - started < 0.3
    settle(store)
    assert temp(store, "A") == [(6, "PRESENT")]
    assert len(queries) == 1


def test_many_keys_features_and_strange_ones(
    store: vfs.FeatureStore, connection: Any, asked: list[int]
) -> None:
    names = [f"f{number}" for number in range(500)]
    columns = ", ".join(f"n * {number} AS {name}" for number, name in enumerate(names))
    connection.raw_sql(
        f"CREATE TABLE wide AS SELECT 'schlüssel 🗝 ' || n AS word, n % 3 AS number, "
        f"TIMESTAMP '2020-01-01' AS seen, {columns} FROM range(1000) AS t(n)"
    )
    view = vfs.FeatureView(
        "wide", source=vfs.Source("wide", table="wide", event_timestamp="seen"),
        entities=[vfs.Entity("thing", {"word": "string", "number": "int64"})], features=names,
    )  # fmt: skip
    store.apply([view])
    keys = [{"word": f"schlüssel 🗝 {n}", "number": n % 3} for n in range(1000)]
    wanted = [*keys, {"word": None, "number": 1}, {"word": "schlüssel 🗝 1", "number": 2}]
    for _ in range(2):
        found = store.get_online_features("wide", wanted * 10)
        assert len(found.values) == 10_020
        assert found.values[999] == tuple(999 * number for number in range(500))
        assert found.values[1000] == found.values[1001] == (None,) * 500
        assert found.statuses["f9"][999:1002] == ["PRESENT", "NOT_FOUND", "NOT_FOUND"]
    assert asked == [1001]
