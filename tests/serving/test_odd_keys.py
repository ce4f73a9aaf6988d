"""Keys that are rare and right: each gives its own row, harms no other, and opens no breaker."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import ibis
import psycopg
import pyarrow as pa
import pytest

import virtualfs as vfs

CLOCK = "2024-01-02T00:00:00Z"


def view(dtype: str, table: str = "t", features: Any = ("x",)) -> vfs.FeatureView:
    source = vfs.Source("t", table=table, event_timestamp="seen")
    entity = vfs.Entity("e", {"k": dtype})
    return vfs.FeatureView(
        "v", source=source, entities=[entity], features=list(features), freshness="1h"
    )


def online(store: vfs.FeatureStore, *keys: Any) -> list[Any]:
    return store.get_online_features(["v:x"], {"k": list(keys)}).to_dict()["x"]


def agree(store: vfs.FeatureStore, keys: list[Any], expected: list[Any]) -> None:
    """Read keys from the warehouse, from the cache, and after materialize, all and one by one."""
    for _ in range(2):
        assert online(store, *keys) == expected
    store.invalidate("v")
    store.materialize(["v"])
    assert online(store, *keys) == expected
    assert [online(store, key)[0] for key in keys] == expected


Make = Callable[..., vfs.FeatureStore]


@pytest.fixture
def duck(tmp_path: Path, cache: dict[str, Any]) -> Iterator[Make]:
    opened: list[Any] = []

    def make(dtype: str, kind: str, *texts: str) -> vfs.FeatureStore:
        connection = ibis.duckdb.connect()
        connection.con.execute(f"CREATE TABLE t (k {kind}, x INTEGER, seen TIMESTAMP)")
        for number, text in enumerate(texts, 1):
            connection.con.execute(f"INSERT INTO t VALUES ({text}, {number}, '2024-01-01')")
        config = vfs.Config(project=f"k{uuid4().hex}", folder=tmp_path, clock=CLOCK, cache=cache)
        store = vfs.FeatureStore(config, connections={"default": connection})
        opened.append((store, connection))
        store.apply([view(dtype)])
        return store

    yield make
    for store, connection in opened:
        store.close()
        connection.disconnect()


@pytest.mark.parametrize(
    ("dtype", "kind", "keys"),
    [
        (f"int{bits}", kind, [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1])
        for bits, kind in ((8, "TINYINT"), (16, "SMALLINT"), (32, "INTEGER"), (64, "BIGINT"))
    ]
    + [("uint64", "UBIGINT", [0, 2**64 - 1])],
)
def test_the_ends_of_integers(duck: Make, dtype: str, kind: str, keys: list[int]) -> None:
    agree(duck(dtype, kind, *map(str, keys)), keys, [1, 2])


def test_decimals_longer_than_pythons_context(duck: Make) -> None:
    keys = [Decimal("12345678901234567890123456789012345678"), Decimal(f"{'1' * 37}9")]
    agree(duck("decimal(38, 0)", "DECIMAL(38, 0)", *map(str, keys)), keys, [1, 2])


def test_texts_that_look_like_parts_of_statements(duck: Make) -> None:
    keys = [
        "__virtualfs_last", "2024-01-02 00:00:00", "__virtualfs_first - 7d", "delta_scan('')",
        "'; DROP TABLE t; --", "$1", "?", "%s", "", " ", "\u00e9", "漢字" * 200, "\\x00",
        "read_parquet('s3://a/b')", "__virtualfs_spine",
    ]  # fmt: skip
    texts = ["'" + key.replace("'", "''") + "'" for key in keys]
    agree(duck("string", "VARCHAR", *texts), keys, list(range(1, len(keys) + 1)))


def test_times_of_day(duck: Make) -> None:
    agree(duck("time", "TIME", "'10:00'"), [time(10)], [1])


def test_normal_forms_of_unicode_go_past_the_cache(duck: Make) -> None:
    store = duck("string", "VARCHAR COLLATE NFC", "'é'")
    assert store.materialize(["v"]).written == 0
    assert online(store, "\u00e9", "e\u0301") == [1, 1]


@pytest.mark.parametrize(
    "text",
    ["{'i': INTERVAL '1 month'}", "[INTERVAL '1 month']", "MAP {'a': INTERVAL '1 month'}",
     "INTERVAL '1 month'"],
)  # fmt: skip
def test_nested_nulls_beside_intervals(tmp_path: Path, cache: dict[str, Any], text: str) -> None:
    connection = ibis.duckdb.connect()
    connection.con.execute(
        f"CREATE TABLE t AS SELECT 1::BIGINT AS k, {text} AS x, TIMESTAMP '2024-01-01' AS seen "
        "UNION ALL SELECT 2, NULL, TIMESTAMP '2024-01-01'"
    )
    config = vfs.Config(project=f"k{uuid4().hex}", folder=tmp_path, clock=CLOCK, cache=cache)
    with vfs.FeatureStore(config, connections={"default": connection}) as store:
        store.apply([view("int64")])
        first = online(store, 1, 2, 3)
        assert first[1:] == [None, None]
        assert online(store, 1, 2, 3) == first
    connection.disconnect()


@pytest.fixture
def pg(postgres: str, tmp_path: Path, cache: dict[str, Any]) -> Iterator[Make]:
    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute("CREATE EXTENSION IF NOT EXISTS citext")
        opened: list[Any] = []

        def make(dtype: str, kind: str, *texts: str, feature: str = "") -> vfs.FeatureStore:
            table = f"t_{uuid4().hex}"
            x = feature or "int"
            admin.execute(f"CREATE TABLE {table} (k {kind}, x {x}, seen timestamp)")
            for number, text in enumerate(texts, 1):
                key, _, value = text.partition(" => ")
                admin.execute(
                    f"INSERT INTO {table} VALUES ({key}, {value or number}, '2024-01-01')"
                )
            config = vfs.Config(
                project=table, folder=tmp_path, clock=CLOCK, cache=cache,
                warehouses={"default": {"url": postgres}},
            )  # fmt: skip
            store = vfs.FeatureStore(config)
            opened.append((store, table))
            store.apply([view(dtype, table)])
            return store

        yield make
        for store, table in opened:
            store.close()
            admin.execute(f"DROP TABLE {table}")


def test_citext_is_compared_as_in_training(pg: Make) -> None:
    store = pg("string", "citext", "'AbC'", "'low'")
    keys = ["AbC", "abc", "ABC", "low", "LOW"]
    spine = pa.table({"k": keys, "event_timestamp": [datetime(2024, 1, 2)] * len(keys)})
    trained = store.get_historical_features(spine, ["v:x"]).to_pyarrow()["x"].to_pylist()
    agree(store, keys, trained)


def test_citext_values_are_text(pg: Make) -> None:
    agree(pg("int64", "bigint", "1 => 'AbC'", feature="citext"), [1], ["AbC"])


def test_a_nul_character_is_no_key_and_no_outage(pg: Make) -> None:
    store = pg("string", "text", "'a'", "'b'")
    for _ in range(8):
        store.invalidate("v")
        assert online(store, "a", "\0", "b") == [1, None, 2]
    assert online(store, "a") == [1]


@pytest.mark.parametrize(
    ("dtype", "kind", "bad", "good", "key"),
    [
        ("decimal(10, 2)", "numeric(10, 2)", "'NaN'", "1.5", Decimal("1.5")),
        ("date", "date", "'infinity'", "'2024-05-01'", date(2024, 5, 1)),
        ("date", "date", "'-infinity'", "'2024-05-01'", date(2024, 5, 1)),
        ("timestamp", "timestamp", "'infinity'", "'2024-05-01'", datetime(2024, 5, 1)),
    ],
)
def test_keys_that_python_cannot_hold_are_named_and_left_out(
    pg: Make, dtype: str, kind: str, bad: str, good: str, key: Any
) -> None:
    store = pg(dtype, kind, bad, good)
    for _ in range(2):
        found = store.materialize(["v"]).views[0]
        assert (found.keys, found.written, found.kept) == (2, 1, 0)
        (told,) = found.unreadable
        assert "a join key cannot be read" in told
    assert online(store, key) == [2]
    assert [item.keys for item in store.hot(["v"]).views] == [1]


def test_midnight_at_the_end_of_the_day_is_bad_for_its_key_alone(pg: Make) -> None:
    store = pg("int64", "bigint", "1 => '24:00:00'", "2 => '10:00'", feature="time")
    for _ in range(6):
        with pytest.raises(vfs.WarehouseError, match="column 'x' of k=1"):
            online(store, 1)
    assert online(store, 2) == [time(10)]
    assert store.materialize(["v"]).views[0].written == 1


def test_values_of_sqlite_that_do_not_fit_their_column(
    tmp_path: Path, cache: dict[str, Any]
) -> None:
    with sqlite3.connect(tmp_path / "w.db") as connection:
        connection.execute("CREATE TABLE t (k BIGINT, x DATE, y BIGINT, seen TIMESTAMP)")
        connection.executemany(
            "INSERT INTO t VALUES (?, ?, 5, '2024-01-01 00:00:00')",
            [(1, "2024-05-01"), (2, "garbage")],
        )
    config = vfs.Config(
        project=f"k{uuid4().hex}", folder=tmp_path, clock=CLOCK, cache=cache,
        warehouses={"default": {"url": "sqlite://w.db"}},
    )  # fmt: skip
    with vfs.FeatureStore(config) as store:
        store.apply([view("int64", features=("x", "y"))])
        for _ in range(6):
            with pytest.raises(vfs.WarehouseError, match="column 'x' of k=2"):
                online(store, 2)
        assert online(store, 1) == [date(2024, 5, 1)]
        found = store.get_online_features(["v:y"], {"k": [1, 2]})
        assert found.to_dict()["y"] == [5, 5]
        assert store.materialize(["v"]).views[0].written == 1


@pytest.mark.parametrize("kind", ["date", "timestamp", "uuid", "numeric(10, 2)", "time"])
def test_a_run_that_was_killed_goes_on_after_any_key(
    pg: Make, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from virtualfs.serving import materialize

    texts = {
        "date": [f"'2024-05-{day:02}'" for day in range(1, 8)],
        "timestamp": [f"'2024-05-01 00:00:{second:02}'" for second in range(7)],
        "uuid": [f"'6f1b7d9e-0000-4000-8000-00000000000{n}'" for n in range(7)],
        "numeric(10, 2)": [f"{n}.5" for n in range(7)],
        "time": [f"'0{n}:00'" for n in range(7)],
    }[kind]
    dtype = {"numeric(10, 2)": "decimal(10, 2)", "timestamp": "timestamp"}.get(kind, kind)
    store = pg(dtype, kind, *texts)
    monkeypatch.setattr(materialize, "_PIECE", 2)
    write, calls = materialize._write, []

    def killed(*given: Any) -> int:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write(*given)

    with monkeypatch.context() as patch:
        patch.setattr(materialize, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            store.materialize(["v"])
    found = store.materialize(["v"]).views[0]
    assert "resumed after" in found.how
    assert found.keys < 7
    assert [item.keys for item in store.hot(["v"]).views] == [7]
