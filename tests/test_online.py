"""Online reads: cache first, warehouse for the rest, on memory and on a real Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

import virtualfs as vfs

NOW = datetime(2020, 1, 2, 12, tzinfo=UTC)
AIRPORT = vfs.Entity("airport", {"origin": "string"})


def weather(**fields: Any) -> vfs.FeatureView:
    return vfs.FeatureView(
        "weather",
        source=vfs.Source("weather", table="weather", event_timestamp="seen"),
        entities=[AIRPORT],
        features=["temp"],
        **fields,
    )


@pytest.fixture(params=["memory", "valkey"])
def store(
    request: pytest.FixtureRequest, make_store: Callable[..., vfs.FeatureStore], connection: Any
) -> vfs.FeatureStore:
    connection.raw_sql("CREATE TABLE weather (origin TEXT, seen TIMESTAMP, temp INTEGER)")
    connection.raw_sql(
        "INSERT INTO weather VALUES ('JFK', '2020-01-02 11:00', 5), ('LGA', '2020-01-01', 6), "
        "('EWR', '2020-01-02 11:00', NULL), ('JFK', '2020-01-02 12:00:00.000001', 99)"
    )
    url = "memory://" if request.param == "memory" else request.getfixturevalue("valkey")
    name = f"p{uuid4().hex}"  # tests share one server
    return make_store(project=name, clock=NOW, cache={"url": url})


def test_statuses_tell_the_truth(store: vfs.FeatureStore) -> None:
    store.apply([weather(ttl="6h")])
    keys = {"origin": ["JFK", "LGA", "EWR", "XXX", None]}
    for _ in ("from the warehouse", "from the cache"):
        answer = store.get_online_features(["weather:temp"], keys)
        assert answer.to_dict() == {**keys, "temp": [5, None, None, None, None]}
        assert answer.statuses["temp"] == [
            "PRESENT",
            "OUTSIDE_MAX_AGE",
            "NULL_VALUE",
            "NOT_FOUND",
            "NOT_FOUND",
        ]
        assert answer.event_timestamps["temp"][:2] == [
            NOW - timedelta(hours=1),
            datetime(2020, 1, 1, tzinfo=UTC),
        ]


def test_what_is_cached_is_not_asked_again(store: vfs.FeatureStore, asked: list[int]) -> None:
    store.apply([weather()])
    store.get_online_features(["weather:temp"], [{"origin": "JFK"}, {"origin": "JFK"}])
    store.get_online_features(["weather:temp"], [{"origin": "JFK"}, {"origin": "XXX"}])
    store.get_online_features(["weather:temp"], [{"origin": "JFK"}, {"origin": "XXX"}])
    assert asked == [1, 1]


def test_a_cached_value_is_never_older_than_freshness(
    store: vfs.FeatureStore, connection: Any
) -> None:
    store.apply([weather(freshness="0s")])
    key = [{"origin": "JFK"}]
    assert store.get_online_features(["weather:temp"], key).to_dict()["temp"] == [5]
    connection.raw_sql("INSERT INTO weather VALUES ('JFK', '2020-01-02 11:30', 7)")
    assert store.get_online_features(["weather:temp"], key).to_dict()["temp"] == [7]


def test_a_value_cached_at_another_instant_is_not_used(
    store: vfs.FeatureStore, make_store: Callable[..., vfs.FeatureStore]
) -> None:
    store.apply([weather()])
    key = [{"origin": "JFK"}]
    assert store.get_online_features(["weather:temp"], key).to_dict()["temp"] == [5]
    earlier = make_store(
        project=store.config.project,
        clock=NOW - timedelta(days=3),
        cache={"url": store.config.cache.url.get_secret_value()},
    )
    assert earlier.get_online_features(["weather:temp"], key).to_dict()["temp"] == [None]


@pytest.mark.parametrize("freshness", [None, "10s", "1h"])
def test_a_key_is_unknown_for_a_minute_at_most(
    make_store: Callable[..., vfs.FeatureStore], connection: Any, valkey: str, freshness: Any
) -> None:
    connection.raw_sql("CREATE TABLE weather (origin TEXT, seen TIMESTAMP, temp INTEGER)")
    name = f"p{uuid4().hex}"

    def read(seconds: int) -> Any:
        clock = NOW + timedelta(seconds=seconds)
        store = make_store(project=name, clock=clock, cache={"url": valkey})
        store.apply([weather(freshness=freshness)])
        found = store.get_online_features(["weather:temp"], [{"origin": "JFK"}])
        return found.to_dict()["temp"][0]

    held = 10 if freshness == "10s" else 60
    assert read(0) is None
    connection.raw_sql("INSERT INTO weather VALUES ('JFK', '2020-01-02 11:00', 5)")
    assert read(held) is None
    assert read(held + 1) == 5
    connection.raw_sql("INSERT INTO weather VALUES ('JFK', '2020-01-02 11:30', 6)")
    assert read(held + 61) == (6 if freshness == "10s" else 5)


def test_a_new_version_never_reads_the_old_ones_bytes(store: vfs.FeatureStore) -> None:
    store.apply([weather()])
    key = [{"origin": "JFK"}]
    assert store.get_online_features(["weather:temp"], key).to_dict()["temp"] == [5]
    changed = weather().model_copy(update={"features": (vfs.Feature("temp", "temp * 10"),)})
    store.apply([changed])
    assert store.get_online_features(["weather:temp"], key).to_dict()["temp"] == [50]
    assert store.get_online_features(["weather@1:temp"], key).to_dict()["temp"] == [5]


def test_async_and_inside_a_running_loop(store: vfs.FeatureStore) -> None:
    store.apply([weather()])
    key = [{"origin": "JFK"}]

    async def both() -> None:
        first = await store.get_online_features_async(["weather:temp"], key)
        assert first.to_list() == store.get_online_features(["weather:temp"], key).to_list()

    asyncio.run(both())


def test_every_type_comes_back_from_the_cache_as_from_the_warehouse(
    store: vfs.FeatureStore, connection: Any
) -> None:
    connection.raw_sql(
        """CREATE TABLE kinds AS SELECT 1::BIGINT AS k, TIMESTAMP '2020-01-01' AS seen,
        true AS a, 9007199254740993::BIGINT AS b, 18446744073709551615::UBIGINT AS c,
        0.1::DOUBLE AS d, 'nan'::DOUBLE AS e, 12.340::DECIMAL(12, 3) AS f, 'ünï' AS g,
        '\\x00\\xff'::BLOB AS h, DATE '2020-02-29' AS i,
        TIMESTAMP '2020-01-01 00:00:00.000001' AS j,
        TIMESTAMPTZ '2020-01-01 00:00:00+05' AS l, [1.5, NULL]::DOUBLE[] AS m,
        {'x': 1, 'y': 'z'} AS n, '12345678-1234-5678-1234-567812345678'::UUID AS o,
        TIME '12:34:56.789' AS p, NULL::INTEGER AS q"""
    )
    names = [*"abcdefghijlmnopq"]
    view = vfs.FeatureView(
        "kinds",
        source=vfs.Source("kinds", table="kinds", event_timestamp="seen"),
        entities=[vfs.Entity("thing", {"k": "int64"})],
        features=names,
    )
    store.apply([view])
    references = [f"kinds:{name}" for name in names]
    fresh = store.get_online_features(references, [{"k": 1}]).to_list()[0]
    cached = store.get_online_features(references, [{"k": 1}]).to_list()[0]
    assert str(fresh) == str(cached)  # NaN is not equal to itself
    assert fresh["b"] == 9007199254740993
    assert fresh["f"] == Decimal("12.340")
    assert fresh["h"] == b"\x00\xff"
    assert fresh["i"] == date(2020, 2, 29)
    assert fresh["j"] == datetime(2020, 1, 1, 0, 0, 0, 1)
    assert fresh["l"] == datetime(2019, 12, 31, 19, tzinfo=UTC)
    assert fresh["m"] == [1.5, None]
    assert fresh["n"] == {"x": 1, "y": "z"}
    assert fresh["o"] == UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize(
    ("entities", "words"),
    [
        ([{"orign": "JFK"}], "lacks the join key 'origin'; it has orign"),
        ([{"origin": 5}], "expected string"),
        ({"origin": ["a"], "x": []}, "differ in length"),
        ("JFK", "list of dicts"),
        (["JFK"], "expected a dict"),
    ],
)
def test_bad_keys_are_named(store: vfs.FeatureStore, entities: Any, words: str) -> None:
    store.apply([weather()])
    with pytest.raises(vfs.SpineError, match=words):
        store.get_online_features(["weather:temp"], entities)


@pytest.mark.parametrize("cache", ["memory", "valkey"])
def test_a_warehouse_that_cannot_answer_leaves_stale_values_or_an_error(
    cache: str, request: pytest.FixtureRequest, postgres: str, tmp_path: Path
) -> None:
    table = f"weather_{uuid4().hex}"
    url = "memory://" if cache == "memory" else request.getfixturevalue("valkey")
    warehouse = {"url": postgres, "statement_timeout": "500ms"}

    def opened(**settings: Any) -> vfs.FeatureStore:
        return vfs.FeatureStore(vfs.Config(
            project=table, folder=tmp_path, warehouses={"default": warehouse},
            cache={"url": url, **settings},
        ))  # fmt: skip

    def read(store: vfs.FeatureStore, *keys: str) -> vfs.OnlineResponse:
        return store.get_online_features(["weather:temp"], [{"origin": key} for key in keys])

    view = weather(freshness="1ms").model_copy(
        update={"source": vfs.Source("weather", table=table, event_timestamp="seen")}
    )
    with psycopg.connect(postgres) as admin, opened() as store:
        admin.execute(f"CREATE TABLE {table} (origin text, seen timestamp, temp int)")
        admin.execute(f"INSERT INTO {table} VALUES ('JFK', '2020-01-01', 5)")
        admin.execute(f"INSERT INTO {table} VALUES ('EWR', '2020-01-01', NULL)")
        admin.commit()
        store.apply([view])
        told = read(store, "JFK", "EWR", "XXX").statuses["temp"]
        assert told == ["PRESENT", "NULL_VALUE", "NOT_FOUND"]
        admin.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        found = read(store, "JFK", "EWR", "XXX", "JFK")
        assert found.to_dict()["temp"] == [5, None, None, 5]
        assert found.statuses["temp"] == ["STALE", "STALE", "STALE", "STALE"]
        with pytest.raises(vfs.WarehouseError, match="no answer within 0"):
            read(store, "JFK", "LGA")  # of LGA nothing is known
        if cache == "valkey":
            with opened(max_stale="0s") as strict, pytest.raises(vfs.WarehouseError):
                read(strict, "JFK")
        admin.execute(f"UPDATE {table} SET temp = 6")
        admin.commit()
        found = read(store, "JFK")
        assert (found.to_dict()["temp"], found.statuses["temp"]) == ([6], ["PRESENT"])
        admin.execute(f"DROP TABLE {table}")


def test_a_cache_that_is_down_costs_no_answer(
    make_store: Callable[..., vfs.FeatureStore], connection: Any
) -> None:
    connection.raw_sql("CREATE TABLE weather (origin TEXT, seen TIMESTAMP, temp INTEGER)")
    connection.raw_sql("INSERT INTO weather VALUES ('JFK', '2020-01-02 11:00', 5)")
    store = make_store(clock=NOW, cache={"url": "redis://127.0.0.1:1/0"})
    store.apply([weather()])
    answer = store.get_online_features(["weather:temp"], [{"origin": "JFK"}])
    assert answer.to_dict()["temp"] == [5]
