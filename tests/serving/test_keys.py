"""Keys that the warehouse calls equal have one place in the cache, and deployments their own."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import ibis
import psycopg
import pyarrow as pa
import pytest

import virtualfs as vfs

CLOCK = "2024-01-02T00:00:00Z"


def view(dtype: str, table: str = "t", **fields: Any) -> vfs.FeatureView:
    source = vfs.Source("t", table=table, event_timestamp="seen")
    entity = vfs.Entity("e", {"k": dtype})
    return vfs.FeatureView("v", source=source, entities=[entity], features=["x"], **fields)


def online(store: vfs.FeatureStore, *keys: Any) -> list[Any]:
    return store.get_online_features(["v:x"], {"k": list(keys)}).to_dict()["x"]


@pytest.fixture
def duck(tmp_path: Path, cache: dict[str, Any]) -> Iterator[Callable[..., vfs.FeatureStore]]:
    opened: list[Any] = []

    def make(dtype: str, *statements: str, **fields: Any) -> vfs.FeatureStore:
        connection = ibis.duckdb.connect()
        for statement in statements:
            connection.con.execute(statement)
        config = vfs.Config(project=f"k{uuid4().hex}", folder=tmp_path, clock=CLOCK, cache=cache)
        store = vfs.FeatureStore(config, connections={"default": connection})
        opened.append((store, connection))
        store.apply([view(dtype, **fields)])
        return store

    yield make
    for store, connection in opened:
        store.close()
        connection.disconnect()


def renewed(store: vfs.FeatureStore, run: Callable[[str], Any], *keys: Any) -> list[Any]:
    """Materialize, read, change, materialize, and return what is read then."""
    store.materialize(["v"])
    assert online(store, *keys) == [1] * len(keys)
    run("UPDATE t SET x = 5")
    store.materialize(["v"])
    return online(store, *keys)


@pytest.mark.parametrize(
    ("column", "keys"),
    [
        ("VARCHAR COLLATE NOCASE", ["AB", "ab", "Ab"]),
        ("VARCHAR", ["AB"]),
    ],
)
def test_strings_of_duckdb(duck: Any, column: str, keys: list[str]) -> None:
    store = duck(
        "string",
        f"CREATE TABLE t (k {column}, x INTEGER, seen TIMESTAMP)",
        "INSERT INTO t VALUES ('AB', 1, '2024-01-01')",
    )
    run = store.warehouse().connection.con.execute
    assert renewed(store, run, *keys) == [5] * len(keys)
    spine = pa.table({"k": keys, "event_timestamp": [datetime(2024, 1, 2)] * len(keys)})
    found = store.get_historical_features(spine, ["v:x"]).to_pyarrow()
    assert found["x"].to_pylist() == [5] * len(keys)
    if column != "VARCHAR":
        store.push("v", [{"k": "aB", "x": 9, "seen": datetime(2024, 1, 1, 12)}])
        assert online(store, *keys) == [9] * len(keys)
        assert store.invalidate("v", [{"k": "AB"}]) == 1
        assert online(store, *keys) == [5] * len(keys)
    else:
        assert online(store, "ab") == [None]


def test_folding_beyond_ascii(duck: Any) -> None:
    store = duck(
        "string",
        "CREATE TABLE t (k VARCHAR COLLATE NOCASE, x INTEGER, seen TIMESTAMP)",
        "INSERT INTO t VALUES ('STRASSE ÄÖ ΣΊΣΥΦΟΣ', 1, '2024-01-01')",
    )
    keys = ["strasse äö σίσυφοσ", "STRASSE ÄÖ ΣΊΣΥΦΟΣ"]
    assert renewed(store, store.warehouse().connection.con.execute, *keys) == [5, 5]


def test_a_collation_without_a_form_goes_past_the_cache(duck: Any, asked: list[int]) -> None:
    store = duck(
        "string",
        "CREATE TABLE t (k VARCHAR COLLATE NOACCENT, x INTEGER, seen TIMESTAMP)",
        "INSERT INTO t VALUES ('Zoé', 1, '2024-01-01')",
        freshness="1h",
    )
    plan = store.plan([view("string", freshness="2h")])
    assert "feature view v goes past the cache" in str(plan)
    assert online(store, "Zoe", "Zoé") == [1, 1]
    store.warehouse().connection.con.execute("UPDATE t SET x = 5")
    assert online(store, "Zoe", "Zoé") == [5, 5]
    assert store.materialize(["v"]).written == 0
    with pytest.raises(vfs.NotFoundError, match="goes past the cache"):
        store.push("v", [{"k": "Zoe", "x": 9, "seen": datetime(2024, 1, 1, 12)}])
    assert len(asked) == 2


FLOAT = struct.unpack("f", struct.pack("f", 0.1))[0]


@pytest.mark.parametrize(
    ("dtype", "column", "stored", "keys"),
    [
        ("decimal(12, 4)", "DECIMAL(12, 4)", "1.5", [Decimal("1.5"), Decimal("1.5000")]),
        ("decimal(38, 9)", "DECIMAL(10, 2)", "100", [Decimal(100), Decimal("1E+2")]),
        ("float64", "DOUBLE", "-0.0", [0.0, -0.0]),
        ("float32", "REAL", "0.1", [0.1, FLOAT]),
        ("timestamp(6)", "TIMESTAMP", "'2024-01-01'", [datetime(2024, 1, 1)]),
        ("date", "DATE", "'2024-01-01'", [datetime(2024, 1, 1).date()]),
        ("int64", "INTEGER", "7", [7]),
        ("uuid", "UUID", "'6f1b7d9e-0000-4000-8000-000000000001'",
         ["6F1B7D9E-0000-4000-8000-000000000001", "6f1b7d9e-0000-4000-8000-000000000001"]),
    ],
)  # fmt: skip
def test_keys_of_other_types(
    duck: Any, dtype: str, column: str, stored: str, keys: list[Any], asked: list[int]
) -> None:
    store = duck(
        dtype,
        f"CREATE TABLE t (k {column}, x INTEGER, seen TIMESTAMP)",
        f"INSERT INTO t VALUES ({stored}, 1, '2024-01-01')",
    )
    assert renewed(store, store.warehouse().connection.con.execute, *keys) == [5] * len(keys)
    assert asked == []


@pytest.mark.parametrize("column", ["char(5)", "varchar(5)", "text"])
def test_strings_of_postgres(
    postgres: str, tmp_path: Path, cache: dict[str, Any], column: str
) -> None:
    table = f"t_{uuid4().hex}"
    config = vfs.Config(
        project=table, folder=tmp_path, clock=CLOCK, cache=cache,
        warehouses={"default": {"url": postgres}},
    )  # fmt: skip
    with psycopg.connect(postgres, autocommit=True) as admin, vfs.FeatureStore(config) as store:
        admin.execute(f"CREATE TABLE {table} (k {column}, x int, seen timestamp)")
        admin.execute(f"INSERT INTO {table} VALUES ('AB', 1, '2024-01-01')")
        store.apply([view("string", table)])

        def run(statement: str) -> None:
            admin.execute(statement.replace(" t ", f" {table} "))

        assert renewed(store, run, "AB") == [5]
        admin.execute(f"DROP TABLE {table}")


def test_sqlite_tables_with_a_collation_go_past_the_cache(
    tmp_path: Path, cache: dict[str, Any]
) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "w.db") as connection:
        connection.execute("CREATE TABLE t (k TEXT COLLATE NOCASE, x INTEGER, seen TIMESTAMP)")
        connection.execute("INSERT INTO t VALUES ('AB', 1, '2024-01-01 00:00:00')")
    config = vfs.Config(
        project=f"k{uuid4().hex}", folder=tmp_path, clock=CLOCK, cache=cache,
        warehouses={"default": {"url": "sqlite://w.db"}},
    )  # fmt: skip
    with vfs.FeatureStore(config) as store:
        plan = store.plan([view("string")])
        assert "feature view v goes past the cache" in str(plan)
        store.apply(plan)
        assert online(store, "AB") == [1]
        with sqlite3.connect(tmp_path / "w.db") as connection:
            connection.execute("UPDATE t SET x = 5")
        assert online(store, "AB") == [5]


@pytest.fixture
def deployment(tmp_path: Path, valkey: str) -> Iterator[Callable[..., vfs.FeatureStore]]:
    """Open deployments of one project name on one cache."""
    project, opened = f"d{uuid4().hex}", []

    def make(folder: str, value: int, **fields: Any) -> vfs.FeatureStore:
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        file = fields.pop("file", f"w{value}.duckdb")
        if not (place / file).exists():
            with duckdb.connect(str(place / file)) as connection:
                connection.execute(
                    f"CREATE TABLE t AS SELECT 1::BIGINT AS k, {value} AS x, "
                    "TIMESTAMP '2024-01-01' AS seen"
                )
        config = vfs.Config(
            project=project, folder=place, clock=CLOCK, cache={"url": valkey, "near": "1s"},
            warehouses={"default": {"url": f"duckdb://{file}"}}, **fields,
        )  # fmt: skip
        store = vfs.FeatureStore(config)
        opened.append(store)
        store.apply([view("int64", freshness="1h")])
        return store

    yield make
    for store in opened:
        store.close()


def test_deployments_do_not_read_each_others_rows(deployment: Any) -> None:
    one, other = deployment("one", 111), deployment("other", 999)
    for _ in range(2):
        assert online(one, 1) == [111]
        assert online(other, 1) == [999]
    one.push("v", [{"k": 1, "x": 5, "seen": datetime(2024, 1, 1, 12)}])
    assert online(other, 1) == [999]
    assert other.invalidate("v") == 1
    assert online(one, 1) == [5]
    assert [item.keys for item in one.hot(["v"]).views] == [1]


def test_environments_and_warehouses_of_one_registry_have_rows_of_their_own(
    deployment: Any,
) -> None:
    registry = {"registry": "sqlite:///registry.db"}
    prod = deployment("one", 111, **registry)
    dev = deployment("one", 111, environment="dev", **registry)
    assert online(prod, 1) == [111]
    dev.push("v", [{"k": 1, "x": 5, "seen": datetime(2024, 1, 1, 12)}])
    assert (online(dev, 1), online(prod, 1)) == ([5], [111])
    moved = deployment("one", 222, **registry)  # the same catalog on another database
    assert (online(moved, 1), online(prod, 1)) == ([222], [111])


def test_processes_of_one_deployment_share_their_rows(deployment: Any, asked: list[int]) -> None:
    one, again = deployment("one", 111), deployment("one", 111)
    assert online(one, 1) == [111]
    assert online(again, 1) == [111]
    assert asked == [1]
