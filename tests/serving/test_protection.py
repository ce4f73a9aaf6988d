"""What keeps warehouses safe from online reads."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import psycopg
import pytest

import virtualfs as vfs
from tests.serving.conftest import NOW, Clock, temp, weather
from virtualfs.provider import load_warehouse_provider


@pytest.fixture
def unasked(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> vfs.FeatureStore:
    """A store whose warehouse online reads do not ask."""
    with duckdb.connect(str(tmp_path / "w.duckdb")) as con:
        con.execute(
            "CREATE TABLE weather AS SELECT 'A' AS place, TIMESTAMP '2020-01-01' AS seen, "
            "TIMESTAMP '2020-01-01' AS written, 5 AS temp"
        )
    warehouse = {"url": f"duckdb://{tmp_path / 'w.duckdb'}", "read_through": False}
    store = vfs.FeatureStore(
        vfs.Config(project="p", folder=tmp_path, warehouses={"default": warehouse})
    )
    for holder in (store, store.online, store.online.reader):
        name = "now" if holder is store else "_now"
        monkeypatch.setattr(holder, name, lambda: clock.now)
    return store


def test_without_read_through_only_the_cache_is_asked(
    unasked: vfs.FeatureStore, clock: Clock, asked: list[int]
) -> None:
    with unasked as store:
        store.apply([weather(freshness="1m")])
        with pytest.raises(vfs.WarehouseError, match=r"read_through = false.*materialize the view"):
            temp(store, "A")
        store.materialize()
        assert temp(store, "A") == [(5, "PRESENT")]
        clock.move(seconds=59)
        assert temp(store, "A") == [(5, "PRESENT")]  # and no refresh ahead
        clock.move(seconds=2)
        assert temp(store, "A") == [(5, "STALE")]
        with pytest.raises(vfs.WarehouseError, match="read_through"):
            temp(store, "A", "B")
        clock.move(hours=2)
        with pytest.raises(vfs.WarehouseError, match="read_through"):
            temp(store, "A")
        store.push("weather", [{"place": "B", "seen": NOW, "written": NOW, "temp": 7}])
        assert temp(store, "B") == [(7, "STALE")]  # nobody has asked whether there is a newer one
        assert asked == []


@pytest.mark.parametrize(
    ("scheme", "reads"),
    [("bigquery", False), ("snowflake", False), ("duckdb", True), ("postgres", True)],
)
def test_warehouses_that_are_billed_by_the_query_are_not_read_through(
    scheme: str, reads: bool, tmp_path: Path
) -> None:
    for given, expected in ((None, reads), (True, True), (False, False)):
        warehouse = {"url": f"{scheme}://somewhere", "read_through": given}
        config = vfs.Config(project="p", folder=tmp_path, warehouses={"default": warehouse})
        with vfs.FeatureStore(config) as store:
            assert store.online._may_read_through("default") is expected


def test_queries_carry_a_name(postgres: str, tmp_path: Path) -> None:
    table = f"weather_{uuid4().hex}"
    warehouse = {"url": postgres, "application_name": "checkout model"}
    config = vfs.Config(project="p", folder=tmp_path, warehouses={"default": warehouse})
    with psycopg.connect(postgres, autocommit=True) as admin, vfs.FeatureStore(config) as store:
        admin.execute(
            f"CREATE TABLE {table} AS SELECT 'A' AS place, timestamp '2020-01-01' AS seen, "
            "timestamp '2020-01-01' AS written, 5 AS temp"
        )
        view = weather().model_copy(
            update={"source": vfs.Source("weather", table=table, event_timestamp="seen")}
        )
        store.apply([view])
        assert temp(store, "A") == [(5, "PRESENT")]
        found = admin.execute(
            "SELECT 1 FROM pg_stat_activity WHERE application_name = 'checkout model'"
        ).fetchall()
        assert found
        admin.execute(f"DROP TABLE {table}")


def test_a_look_up_writes_nothing_whatever_a_view_calls(postgres: str, tmp_path: Path) -> None:
    name = f"sneaky_{uuid4().hex}"
    config = vfs.Config(project="p", folder=tmp_path, warehouses={"default": {"url": postgres}})
    with psycopg.connect(postgres, autocommit=True) as admin, vfs.FeatureStore(config) as store:
        admin.execute(
            f"CREATE TABLE {name}_log (n int); "
            f"CREATE FUNCTION {name}() RETURNS int LANGUAGE plpgsql AS "
            f"$$ BEGIN INSERT INTO {name}_log VALUES (1); RETURN 1; END $$; "
            f"CREATE VIEW {name}_view AS SELECT 'A' AS place, timestamp '2020-01-01' AS seen, "
            f"{name}() AS temp"
        )
        source = vfs.Source("weather", table=f"{name}_view", event_timestamp="seen")
        store.apply([weather().model_copy(update={"source": source})])
        with pytest.raises(vfs.WarehouseError, match="read-only transaction"):
            temp(store, "A")
        admin.execute(f"DROP VIEW {name}_view; DROP FUNCTION {name}; DROP TABLE {name}_log")


def test_one_connection_is_too_few() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        vfs.Config(project="p", warehouses={"default": {"url": "duckdb://", "max_connections": 1}})


def test_snowflake_sessions_are_named_and_bounded() -> None:
    """As Snowflake's documentation writes it; the emulator of the suite does not know ALTER."""
    import sqlglot

    from virtualfs.config import Warehouse

    provider: Any = load_warehouse_provider("snowflake", "url")
    settings = Warehouse(
        url="snowflake://x", application_name="scoring", statement_timeout="1500ms"
    )
    statements = provider._prepare(settings)
    assert statements == [
        "ALTER SESSION SET QUERY_TAG = 'scoring'",
        "ALTER SESSION SET STATEMENT_TIMEOUT_IN_SECONDS = 2",
    ]
    for statement in statements:
        assert sqlglot.parse_one(statement, dialect="snowflake").key == "alter"


@pytest.fixture
def shop(postgres: str, tmp_path: Path) -> Any:
    """A store on a table of its own in PostgreSQL, and a connection that may do anything."""
    table = f"weather_{uuid4().hex}"
    config = vfs.Config(project="p", folder=tmp_path, warehouses={"default": {"url": postgres}})
    with psycopg.connect(postgres, autocommit=True) as admin, vfs.FeatureStore(config) as store:
        admin.execute(
            f"CREATE TABLE {table} AS SELECT 'A' AS place, timestamp '2020-01-01' AS seen, "
            "timestamp '2020-01-01' AS written, 5 AS temp"
        )
        source = vfs.Source("weather", table=table, event_timestamp="seen")
        store.apply([weather(freshness="0s").model_copy(update={"source": source})])
        yield store, admin, table
        admin.execute(f"DROP TABLE {table}")


def test_a_pooler_that_loses_prepared_statements_costs_no_answer(shop: Any) -> None:
    store, _, _ = shop
    assert temp(store, "A") == [(5, "PRESENT")]
    (connection,) = store.warehouse()._lookups._idle
    connection.pgconn.exec_(b"DEALLOCATE ALL")  # as if another server process answered
    for _ in range(3):
        assert temp(store, "A") == [(5, "PRESENT")]
    assert store.warehouse()._lookups._prepares is False


def test_a_column_whose_type_changes_needs_no_restart(shop: Any) -> None:
    store, admin, table = shop
    assert temp(store, "A") == [(5, "PRESENT")]
    admin.execute(f"ALTER TABLE {table} ALTER COLUMN temp TYPE bigint")
    for _ in range(3):
        assert temp(store, "A") == [(5, "PRESENT")]
    admin.execute(f"INSERT INTO {table} VALUES ('B', '2020-01-01', '2020-01-01', 3000000000)")
    with pytest.raises(vfs.WarehouseError, match=r"column 'temp' of place=B.*3000000000 is out of"):
        temp(store, "B")
    assert temp(store, "A") == [(5, "PRESENT")]


@pytest.mark.parametrize("other", ["double precision", "numeric", "text"])
def test_a_column_of_another_type_is_an_error_until_it_is_planned(shop: Any, other: str) -> None:
    store, admin, table = shop
    assert temp(store, "A") == [(5, "PRESENT")]
    admin.execute(f"ALTER TABLE {table} ALTER COLUMN temp TYPE {other} USING temp::{other}")
    for _ in range(4):
        with pytest.raises(vfs.WarehouseError, match=r"column 'temp' is .* was int32"):
            temp(store, "A")
    spine = "SELECT 'A' AS place, timestamp '2020-01-02' AS event_timestamp"
    for ask in (
        lambda: store.materialize(["weather"]),
        lambda: store.get_historical_features(spine, ["weather"]).to_pandas(),
        lambda: store.table("weather"),
        lambda: store.preview("weather"),
    ):
        with pytest.raises(vfs.WarehouseError, match="column 'temp' is"):
            ask()
    source = vfs.Source("weather", table=table, event_timestamp="seen")
    store.apply([weather(freshness="0s").model_copy(update={"source": source})])
    deadline = time.monotonic() + 20
    while True:  # the breaker of the old version is not that of the new one
        with suppress(vfs.WarehouseError):
            found = temp(store, "A")
            break
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert found == [({"text": "5", "numeric": 5}.get(other, 5.0), "PRESENT")]


def test_keys_that_are_equal_have_one_place_in_the_cache(
    store: vfs.FeatureStore, connection: Any, asked: list[int]
) -> None:
    from decimal import Decimal

    connection.raw_sql(
        "CREATE TABLE prices AS SELECT 1.50::DECIMAL(6, 2) AS price, 7 AS temp, "
        "TIMESTAMP '2020-01-01' AS seen"
    )
    entity = vfs.Entity("price", {"price": "decimal(6, 2)"})
    source = vfs.Source("prices", table="prices", event_timestamp="seen")
    store.apply([vfs.FeatureView("prices", source=source, entities=[entity], features=["temp"])])
    store.materialize(["prices"])
    for key in (Decimal("1.5"), Decimal("1.50"), Decimal("1.500")):
        found = store.get_online_features(["prices:temp"], [{"price": key}])
        assert found.to_dict()["temp"] == [7]
    assert asked == []
    for wrong in (Decimal("1.505"), Decimal("Infinity"), 1.5):
        with pytest.raises(vfs.SpineError, match="expected decimal"):
            store.get_online_features(["prices:temp"], [{"price": wrong}])
