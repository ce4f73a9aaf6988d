"""Filling the cache, emptying it, and what is seen of it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import virtualfs as vfs
from tests.serving.conftest import NOW, PLACE, Clock, add, temp, weather
from virtualfs.serving import materialize


def ago(**by: float) -> datetime:
    return NOW - timedelta(**by)


def test_all_keys_are_read_once_and_then_from_the_cache(
    store: vfs.FeatureStore, connection: Any, asked: list[int]
) -> None:
    store.apply([weather(ttl="6h")])
    for number in range(100):
        add(connection, f"P{number}", ago(hours=2), -1)
        add(connection, f"P{number}", ago(hours=1), number)
    add(connection, "OLD", ago(hours=7), 5)
    add(connection, "LATER", NOW + timedelta(seconds=1), 5)
    connection.raw_sql("INSERT INTO weather VALUES (NULL, '2020-01-01', NULL, 3)")
    (done,) = store.materialize().views
    assert (done.view, done.keys, done.written, done.kept) == ("weather@1", 101, 101, 0)
    assert temp(store, "P7", "OLD") == [(7, "PRESENT"), (None, "OUTSIDE_MAX_AGE")]
    assert asked == []
    assert temp(store, "LATER") == [(None, "NOT_FOUND")]


def test_what_is_cached_equals_what_is_read_through(
    store: vfs.FeatureStore, connection: Any, asked: list[int]
) -> None:
    connection.raw_sql(
        "CREATE TABLE trips AS SELECT (n % 7)::BIGINT AS a, DATE '2020-01-01' + (n % 3)::INT AS b, "
        "TIMESTAMP '2020-01-01' + to_minutes(n % 50) AS at, "
        "TIMESTAMP '2020-01-01' + to_minutes(n % 11) AS made, (n * 0.5)::DECIMAL(9, 2) AS price, "
        "'w' || n AS word FROM range(300) AS t(n)"
    )
    route = vfs.Entity("route", {"a": "int64", "b": "date"})
    source = vfs.Source("trips", table="trips", event_timestamp="at", created_timestamp="made")
    latest = vfs.FeatureView("latest", source=source, entities=[route], features=["price", "word"])
    sums = vfs.FeatureView(
        "sums", source=source, entities=[route],
        features=[vfs.Aggregate("price", "sum", "1d"), vfs.Aggregate("word", "last", None)],
    )  # fmt: skip
    source = vfs.Source("price", query="SELECT max(price) AS top FROM trips")
    world = vfs.FeatureView("world", source=source, entities=[], features=["top"])
    store.apply([latest, sums, world])
    keys = [{"a": a, "b": date(2020, 1, 1) + timedelta(days=b)} for a in range(7) for b in range(3)]
    features = [f"{name}:{one}" for name, view in (("latest", latest), ("sums", sums)) for one in
                ("price", "word", "price_sum_1d", "word_last_lifetime")
                if (name == "sums") == ("_" in one)]  # fmt: skip
    features.append("world:top")
    direct = store.get_online_features(features, keys)
    assert asked == [21, 21, 1]
    assert [v.keys for v in store.materialize().views] == [21, 21, 1]
    cached = store.get_online_features(features, keys)
    assert asked == [21, 21, 1]
    assert cached.to_list() == direct.to_list()
    assert cached.statuses == direct.statuses
    assert cached.event_timestamps == direct.event_timestamps


def test_given_keys_and_the_hottest(
    store: vfs.FeatureStore, connection: Any, asked: list[int]
) -> None:
    store.apply([weather()])
    for place in "ABCDE":
        add(connection, place, ago(hours=1), ord(place))
    (done,) = store.materialize(["weather"], [{"place": "A"}, {"place": "A"}, {"place": "X"}]).views
    assert (done.keys, done.written) == (2, 2)
    assert temp(store, "A", "X") == [(65, "PRESENT"), (None, "NOT_FOUND")]
    for place, times in (("C", 5), ("D", 3), ("B", 1)):
        for _ in range(times):
            temp(store, place)
    store.invalidate("weather")
    (done,) = store.materialize(["weather"], hottest=2).views
    assert done.keys == 2
    asked.clear()
    temp(store, "C", "D")
    assert asked == []
    temp(store, "B")
    assert asked == [1]


def test_only_what_changed_late_rows_too(
    store: vfs.FeatureStore, connection: Any, clock: Clock
) -> None:
    store.apply([weather(freshness=None)])
    for place in "ABC":
        add(connection, place, ago(days=2), 1)
    (first,) = store.materialize(incremental=True).views
    assert (first.keys, first.how) == (3, "all keys (there was no run before)")
    clock.move(days=1)
    add(connection, "A", ago(days=-0.5), 2)
    add(connection, "B", ago(days=1.5), 3, written=ago(days=-0.9))  # of before the first run
    connection.raw_sql("INSERT INTO weather VALUES ('D', '2019-12-31', NULL, 4)")
    (second,) = store.materialize(incremental=True).views
    assert (second.keys, second.written) == (3, 3)
    assert [value for value, _ in temp(store, "A", "B", "C", "D")] == [2, 3, 1, 4]
    clock.move(days=1)
    (third,) = store.materialize(incremental=True).views
    assert third.keys == 1  # D, of which nobody knows when it was written


def test_rows_that_become_visible_without_being_written(
    store: vfs.FeatureStore, connection: Any, clock: Clock
) -> None:
    store.apply([weather(freshness=None)])
    add(connection, "A", ago(hours=3), 1)
    add(connection, "A", ago(hours=-5), 2, written=ago(hours=4))  # a forecast
    store.materialize()
    assert temp(store, "A") == [(1, "PRESENT")]
    clock.move(hours=6)
    assert store.materialize(incremental=True).written == 1
    assert temp(store, "A") == [(2, "PRESENT")]


def test_without_created_timestamp_nothing_is_taken_for_unchanged(
    store: vfs.FeatureStore, connection: Any
) -> None:
    source = vfs.Source("weather", table="weather", event_timestamp="seen")
    view = vfs.FeatureView("weather", source=source, entities=[PLACE], features=["temp"])
    store.apply([view])
    add(connection, "A", ago(days=2), 1)
    store.materialize()
    (again,) = store.materialize(incremental=True).views
    assert again.keys == 1
    assert "without a created timestamp nothing tells which rows came late" in again.how


def test_a_time_range(store: vfs.FeatureStore, connection: Any, asked: list[int]) -> None:
    store.apply([weather()])
    for day, place in enumerate("ABCD"):
        add(connection, place, ago(days=day), day)
    add(connection, "B", ago(hours=1), 9)
    result = store.materialize(["weather"], start=ago(days=2), end=ago(days=0.5))
    assert result.views[0].keys == 2
    assert temp(store, "B", "C") == [(9, "PRESENT"), (2, "PRESENT")]  # as of now, all the same
    assert asked == []
    with pytest.raises(vfs.SpineError, match="give incremental=True, or start= and end="):
        store.materialize(["weather"], incremental=True, start=NOW)
    with pytest.raises(vfs.SpineError, match="takes one of entities="):
        store.materialize(["weather"], [{"place": "A"}], hottest=3)


class KilledError(Exception):
    pass


def test_a_run_that_was_killed_is_taken_up(
    store: vfs.FeatureStore, connection: Any, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    store.apply([weather(freshness=None)])
    for number in range(50):
        add(connection, f"P{number:02}", ago(hours=1), number)
    monkeypatch.setattr(materialize, "_PIECE", 10)
    real, pieces = materialize._write, []

    def write(reader: Any, items: Any) -> int:
        pieces.append(len(items))
        if len(pieces) == 3:
            raise KilledError
        return real(reader, items)

    monkeypatch.setattr(materialize, "_write", write)
    with pytest.raises(KilledError):
        store.materialize()
    clock.move(minutes=5)
    add(connection, "P00", ago(minutes=-1), 99)
    (done,) = store.materialize().views
    assert (done.keys, done.how) == (30, "all keys, resumed after 20")
    # What changed among the keys before is not lost on the next incremental run.
    assert [v for v, _ in temp(store, "P00", "P19", "P20", "P49")] == [0, 19, 20, 49]
    assert store.materialize(incremental=True).written >= 1
    assert temp(store, "P00") == [(99, "PRESENT")]


def test_a_killed_process_is_taken_up(valkey: str, tmp_path: Path) -> None:
    import duckdb

    with duckdb.connect(str(tmp_path / "w.duckdb")) as con:
        con.execute(
            "CREATE TABLE weather AS SELECT 'P' || n AS place, TIMESTAMP '2020-01-01' AS seen, "
            "n AS temp FROM range(200000) AS t(n)"
        )
    (tmp_path / "virtualfs.toml").write_text(
        textwrap.dedent(f"""
        project = "p{uuid4().hex}"
        clock = "2020-01-02T12:00:00Z"
        definitions = ["features.py"]
        [warehouses.default]
        url = "duckdb://w.duckdb"
        [cache]
        url = "{valkey}"
    """)
    )
    (tmp_path / "features.py").write_text(
        textwrap.dedent("""
        import virtualfs as vfs

        weather = vfs.FeatureView(
            "weather", source=vfs.Source("weather", table="weather", event_timestamp="seen"),
            entities=[vfs.Entity("place", {"place": "string"})], features=["temp"], freshness=None,
        )
    """)
    )
    with vfs.FeatureStore(tmp_path) as store:
        store.apply()
        run = [Path(sys.executable).with_name("virtualfs"), "-c", tmp_path, "materialize"]
        child = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        cache = store.online_store()
        prefix = store.online.reader.codec(store.resolver.view("weather", store.state())).prefix
        deadline = time.monotonic() + 60
        while not any(cache.scan(prefix)) and time.monotonic() < deadline:
            time.sleep(0.01)
        child.kill()
        child.wait()
        got = sum(map(len, cache.scan(prefix)))
        assert got > 0
        (done,) = store.materialize().views
        assert done.keys + got >= 200_000
        assert done.how == "all keys" or "resumed after" in done.how
        assert sum(map(len, cache.scan(prefix))) == 200_000
        keys = {"place": [f"P{n}" for n in range(0, 200_000, 1999)]}
        assert store.get_online_features(["weather:temp"], keys).to_dict()["temp"] == [
            *range(0, 200_000, 1999)
        ]


def test_forgetting_some_keys_and_all(
    open_store: Callable[..., vfs.FeatureStore], connection: Any, cache_url: str
) -> None:
    store = open_store(near="10s")
    store.apply([weather(freshness=None), vfs.FeatureView(
        "other", source=vfs.Source("weather", table="weather", event_timestamp="seen",
                                   created_timestamp="written"),
        entities=[PLACE], features=["temp"], freshness=None,
    )])  # fmt: skip
    for place in "ABC":
        add(connection, place, ago(hours=1), 1)
    store.materialize()
    store.push("weather", [{"place": "C", "seen": ago(minutes=9), "written": None, "temp": 8}])
    temp(store, "A", "B", "C")
    connection.raw_sql("UPDATE weather SET temp = 2")
    assert store.invalidate("weather", [{"place": "A"}]) == 1
    assert [value for value, _ in temp(store, "A", "B", "C")] == [2, 1, 8]
    assert store.invalidate("weather") == 3
    assert [value for value, _ in temp(store, "A", "B", "C")] == [2, 2, 2]
    found = store.get_online_features(["other:temp"], [{"place": "A"}])
    assert found.to_dict()["temp"] == [1]
    assert store.invalidate("weather", [{"place": "X"}]) == 0
    with pytest.raises(vfs.SpineError, match="lacks the join key 'place'"):
        store.invalidate("weather", [{"town": "A"}])


@pytest.mark.parametrize("cache_url", ["valkey"], indirect=True)
def test_a_query_that_began_before_does_not_put_back_what_was_invalidated(
    open_store: Callable[..., vfs.FeatureStore], connection: Any, clock: Clock
) -> None:
    """Two stores stand for two processes: one reads slowly while the other invalidates."""
    slow, quick = open_store(), open_store()
    slow.apply([weather(freshness=None)])
    add(connection, "A", ago(hours=1), 1)
    real = slow.online.reader._fetch

    def fetch(flight: Any) -> Any:
        rows = real(flight)
        connection.raw_sql("UPDATE weather SET temp = 2")
        clock.move(seconds=1)
        quick.invalidate("weather")
        return rows

    slow.online.reader.flights._fetch = fetch
    assert temp(slow, "A") == [(1, "PRESENT")]  # it was so when it was asked
    slow.online.reader.flights._fetch = real
    assert temp(quick, "A") == [(2, "PRESENT")]
    assert temp(slow, "A") == [(2, "PRESENT")]


def test_how_the_cache_is_used(store: vfs.FeatureStore, connection: Any) -> None:
    store.apply([weather()])
    for place in "ABC":
        add(connection, place, ago(hours=1), 1)
    for places in ("A", "AB", "ABC", "ABC"):
        temp(store, *places)
    report = store.hot(limit=2)
    (view,) = report.views
    assert (view.view, view.reads, view.keys) == ("weather@1", 9, 3)
    assert view.hit_ratio == pytest.approx(6 / 9)
    assert view.hottest == (({"place": "A"}, 4), ({"place": "B"}, 3))
    assert 100 < view.bytes < 3000
    assert report.used_bytes > 0
    assert "weather@1: 9 reads, 66.7% from the cache, 3 keys" in report._repr_html_()


def test_a_memory_budget_is_kept(
    open_store: Callable[..., vfs.FeatureStore], connection: Any, cache_url: str
) -> None:
    store = open_store(max_memory="1MB")
    store.apply([weather()])
    connection.raw_sql(
        "INSERT INTO weather SELECT 'P' || n, '2020-01-01', '2020-01-01', n "
        "FROM range(30000) AS t(n)"
    )
    cache = store.online_store()
    if cache_url != "memory://":  # of a server all that is in it counts
        assert cache.used_memory() > 1024**2
    with pytest.raises(vfs.OnlineStoreError, match="its max_memory is 1 MB; raise it"):
        store.materialize()
    if cache_url == "memory://":
        assert cache.used_memory() <= 1024**2
    assert temp(store, "P3") == [(3, "PRESENT")]


@pytest.mark.parametrize("engine", ["postgres", "sqlite"])
def test_other_warehouses_fill_the_cache_alike(
    engine: str, request: pytest.FixtureRequest, asked: list[int]
) -> None:
    import pyarrow as pa

    house = request.getfixturevalue(f"{engine}_house")
    rows = range(200)
    seen = [datetime(2024, 1, 1) + timedelta(minutes=n % 50) for n in rows]
    house.put("trips", pa.table({
        "place": [None if n == 3 else f"p{n % 7}" for n in rows],
        "number": pa.array([n % 3 for n in rows], pa.int64()),
        "happened": pa.array(seen, pa.timestamp("us")),
        "made": pa.array([when + timedelta(minutes=n % 11) for n, when in enumerate(seen)]),
        "whole": pa.array([None if n % 5 == 0 else n for n in rows], pa.int64()),
        "word": [f"w{n}" for n in rows],
    }))  # fmt: skip
    entity = vfs.Entity("trip", {"place": "string", "number": "int64"})
    source = vfs.Source(
        "trips", table="trips", event_timestamp="happened", created_timestamp="made"
    )
    latest = vfs.FeatureView(
        "latest", source=source, entities=[entity], features=["whole", "word"], freshness=None
    )
    sums = vfs.FeatureView(
        "sums", source=source, entities=[entity], freshness=None,
        features=[vfs.Aggregate("whole", "sum", "1d"), vfs.Aggregate("*", "count", None)],
    )  # fmt: skip
    store = house.store
    keys = [{"place": f"p{a}", "number": b} for a in range(8) for b in range(3)]
    direct = store.get_online_features([latest, sums], keys, max_age=timedelta(0))
    for view in (latest, sums):
        store.invalidate(view)
    (filled, added) = store.materialize([latest, sums]).views
    assert (filled.keys, added.keys) == (21, 21)
    asked.clear()
    cached = store.get_online_features([latest, sums], keys[:21])
    assert asked == []
    assert cached.to_list() == direct.to_list()[:21]
    assert cached.statuses == {name: some[:21] for name, some in direct.statuses.items()}
    assert store.materialize([latest], incremental=True).views[0].keys == 0  # nothing has changed
    ranged = store.materialize([latest], start=datetime(2024, 1, 1, 0, 49))
    assert ranged.views[0].keys == 4
