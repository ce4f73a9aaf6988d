"""What only DuckDB has: types that come back to the last bit, its session's zone, its own traps."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

import virtualfs as vfs
from virtualfs.config import Config
from virtualfs.testing.conformance import NOON, House
from virtualfs.testing.house import (
    OUTPUTS,
    PLAIN,
    SPINES,
    TICK,
    as_output,
    as_spine,
    ask,
    judge,
    make,
    online,
    train,
)
from virtualfs.testing.strategies import batch

# Ibis 12 calls what DuckDB 1.5 has renamed; nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")


class DuckDBHouse(House):
    @property
    def con(self):
        return self.store.warehouse().connection

    def put(self, name, table):
        self.con.con.register("incoming", table)
        self.con.con.execute(f'CREATE OR REPLACE TABLE "{name}" AS FROM incoming')
        self.con.con.unregister("incoming")


@pytest.fixture
def house(tmp_path):
    import ibis

    con = ibis.duckdb.connect()
    config = Config(project="p", folder=tmp_path, clock=NOON.replace(tzinfo=UTC))
    with vfs.FeatureStore(config, connections={"default": con}) as store:
        yield DuckDBHouse(store, tmp_path)
    con.disconnect()


@pytest.mark.parametrize("form", SPINES)
@pytest.mark.parametrize("output", OUTPUTS)
def test_every_form_in_and_every_form_out(house, form, output):
    answer = judge(PLAIN, ask(house, PLAIN).to_pyarrow())
    ds = ask(house, PLAIN, as_spine(house, PLAIN.spine_table(), form))
    assert judge(PLAIN, as_output(house, ds, output)) == answer


@pytest.mark.parametrize("kind", ["naive", "zoned", "date", "nanoseconds"])
def test_rule_1_spine_columns_keep_type_and_order(house, kind):
    import pandas as pd
    import polars as pl

    at = {"naive": NOON, "zoned": NOON.replace(tzinfo=UTC), "date": NOON.date(), "nanoseconds": 999}
    rows = tuple({**row, "t": at[kind] if row["t"] else None} for row in PLAIN.spine_rows)
    case = replace(PLAIN, spine_rows=rows, spine_kind=kind)
    spine = case.spine_table()
    names = spine.column_names
    out = ask(house, case).to_pyarrow()
    assert out.schema.names == [*names, *case.features]
    assert out.select(names).equals(spine)
    assert ask(house, case).to_pyarrow_batches().read_all().select(names).equals(spine)
    frame = as_spine(house, spine, "pandas")
    pd.testing.assert_frame_equal(ask(house, case, frame).to_pandas()[names], frame)
    polar = pl.from_arrow(spine)
    assert ask(house, case, polar).to_polars().select(names).equals(polar)
    query = as_spine(house, spine, "sql")
    own = house.con.con.execute(query).to_arrow_table()
    assert ask(house, case, query).to_pyarrow().select(names).equals(own)


@pytest.mark.parametrize("seed", range(10))
def test_the_portable_sweep_agrees_with_the_native_join(house, seed, monkeypatch):
    from virtualfs_providers.duckdb import DuckDBWarehouse

    case = batch(seed, 100)
    native = judge(case, ask(house, case).to_pyarrow())
    without = replace(DuckDBWarehouse.capabilities, asof_join=False)
    monkeypatch.setattr(DuckDBWarehouse, "capabilities", without)
    ds = ask(house, case)
    assert "ASOF" not in ds.sql()
    assert judge(case, ds.to_pyarrow()) == native


def test_rule_13_what_cannot_be_pushed_down_raises_before_any_query(house, monkeypatch):
    from virtualfs_providers.duckdb import DuckDBSession, DuckDBWarehouse

    view = make(house, [{"k": "a", "at": NOON, "x": 1}], timezone="Asia/Tokyo")
    lacking = replace(DuckDBWarehouse.capabilities, time_zones=False, engine="Toy")
    monkeypatch.setattr(DuckDBWarehouse, "capabilities", lacking)

    def never(*_):
        raise AssertionError("a query ran")

    for name in ("execute", "query", "keep", "load"):
        monkeypatch.setattr(DuckDBSession, name, never)

    spine = pa.table({"k": ["a"], "event_timestamp": [NOON]})
    with pytest.raises(vfs.UnsupportedByWarehouseError, match=r"source_view.*Toy.*Asia/Tokyo"):
        house.store.get_historical_features(spine, [view])


@pytest.mark.parametrize("output", OUTPUTS)
def test_odd_column_names_come_back(house, output):

    names = ['say "hi"', "select", "a__right", "K", "ünïcode", "x_y"]
    rows = [{"k": "a", "at": NOON, "x__right": 1, "order by": 2}]
    view = make(house, rows, features=("x__right", "order by"))
    columns = {name: [number] for number, name in enumerate(names)}
    if output not in ("table", "expr"):
        columns |= {"k": ["a"]}
    else:  # Inside DuckDB no two names may differ in case alone.
        columns = {"k": ["a"], **{name: [1] for name in names if name != "K"}}
    spine = pa.table({**columns, "event_timestamp": [NOON]})
    ds = house.store.get_historical_features(spine, [view])
    out = as_output(house, ds, output)
    assert out.column_names == [*spine.column_names, "x__right", "order by"]
    assert out.select(["x__right", "order by"]).to_pylist() == [{"x__right": 1, "order by": 2}]


@pytest.mark.parametrize("form", ["sql", "ibis", "pyarrow"])
def test_a_large_spine_keeps_its_order(house, form):
    import numpy as np

    n = 200_000
    order = np.random.default_rng(1).permutation(n)
    house.put("big", pa.table({"pos": order, "k": (order % 1000).astype(str)}))
    rows = [{"k": str(k), "at": NOON, "x": k} for k in range(900)]
    view = make(house, rows)
    query = "SELECT pos, k, TIMESTAMP '2024-05-01 12:00' AS event_timestamp FROM big ORDER BY pos"
    spine = query
    if form != "sql":
        spine = house.con.sql(query.removesuffix(" ORDER BY pos")).order_by("pos")
        spine = spine.to_pyarrow() if form == "pyarrow" else spine
    ds = house.store.get_historical_features(spine, [view])
    expected = [k if (k := number % 1000) < 900 else None for number in range(n)]
    for out in (ds.to_pyarrow(), ds.to_pyarrow_batches().read_all()):
        assert out["pos"].to_pylist() == list(range(n))
        assert out["x"].to_pylist() == expected


def test_an_unordered_random_spine_is_evaluated_once(house):
    view = make(house, [{"k": "a", "at": NOON, "x": 1}, {"k": "b", "at": NOON, "x": 2}])
    query = (
        "SELECT r, CASE WHEN r < 0.5 THEN 'a' ELSE 'b' END AS k, "
        "TIMESTAMP '2024-05-01 12:00' AS event_timestamp FROM (SELECT random() r FROM range(5000))"
    )
    out = house.store.get_historical_features(query, [view]).to_pyarrow()
    keys = ["a" if r < 0.5 else "b" for r in out["r"].to_pylist()]
    assert out["k"].to_pylist() == keys
    assert out["x"].to_pylist() == [1 if k == "a" else 2 for k in keys]


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Europe/Berlin"])
def test_trap_10_a_day_is_24_hours_whatever_the_sessions_zone(house, zone):
    house.con.con.execute(f"SET TimeZone = '{zone}'")
    rows = [
        {"k": day, "at": datetime.fromisoformat(f"{day}T17:00:00+00:00"), "x": 1}
        for day in ("2024-03-09", "2024-11-02", "2024-03-30", "2024-10-26")
    ]
    view = make(house, rows, ttl="1d")
    day = timedelta(hours=24)
    spine = [{"k": row["k"], "t": row["at"] + day} for row in rows]
    spine += [{"k": row["k"], "t": row["at"] + day + TICK} for row in rows]
    assert [row["x"] for row in train(house, spine, view)] == [1] * 4 + [None] * 4


def test_trap_10_naive_spine_times_are_utc_whatever_the_sessions_zone(house):
    house.con.con.execute("SET TimeZone = 'America/New_York'")
    view = make(house, [{"k": "a", "at": NOON.replace(tzinfo=UTC), "x": 1}])
    spine = [{"k": "a", "t": NOON - TICK}, {"k": "a", "t": NOON}]
    assert [row["x"] for row in train(house, spine, view)] == [None, 1]
    text = "SELECT 'a' AS k, TIMESTAMP '2024-05-01 11:59:59.999999' AS t"
    assert train(house, text, view)[0]["x"] is None
    assert online(house, view, k="a") == (1, "PRESENT")


def test_a_url_carries_settings_of_the_engine(tmp_path):
    def opened(url: str) -> vfs.FeatureStore:
        warehouses = {"default": {"url": url}}
        return vfs.FeatureStore(vfs.Config(project="p", folder=tmp_path, warehouses=warehouses))

    with opened("duckdb://?memory_limit=100MB&threads=1") as store:
        settings = store.warehouse().connection.con.execute(
            "SELECT current_setting('memory_limit'), current_setting('threads')"
        )
        assert settings.fetchone() == ("95.3 MiB", 1)
    for url, message in [
        ("duckdb://?memory_limt=1GB", "memory_limt"),
        ("duckdb://?memory_limit", "is not a list of settings"),
        ("duckdb://?read_only=false", r"read_only = false in \[warehouses.default\]"),
    ]:
        with opened(url) as store, pytest.raises(vfs.VirtualFSError, match=message):
            store.warehouse()
