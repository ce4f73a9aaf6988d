"""Sources of files: Parquet and CSV in folders, Delta tables, object storage."""

from __future__ import annotations

import logging
import os
import threading
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import virtualfs as vfs
from virtualfs.compiler.time_range import bind_range
from virtualfs.testing import oracle

DAY = timedelta(days=1)
START = datetime(2024, 1, 1)
DeltaSchema = pa.schema(
    [("k", pa.string()), ("at", pa.timestamp("us")), ("x", pa.float64()), ("day", pa.string()),
     ("late", pa.int64())]
)  # fmt: skip
ENTITY = vfs.Entity("e", {"k": "string"})
LAKE = {"roots": [".", "s3://lake"]}


def day_rows(day: int) -> pa.Table:
    """Two keys, four rows of one day."""
    at = [START + day * DAY + timedelta(hours=6 * n) for n in range(4)]
    return pa.table(
        {"k": ["a", "b", "a", "b"], "at": at, "x": [float(day * 10 + n) for n in range(4)]}
    )


def write(folder: Path, days: range, layout: str = "day={day:%Y-%m-%d}") -> None:
    for day in days:
        moment = START + day * DAY
        place = folder / layout.format(day=moment)
        place.mkdir(parents=True, exist_ok=True)
        pq.write_table(day_rows(day), place / f"part{day}.parquet")


def spoil(folder: Path, *days: int) -> None:
    """Make the files of some days unreadable, so that whoever reads them fails."""
    for day in days:
        (found,) = folder.rglob(f"part{day}.parquet")
        found.write_bytes(b"nothing of use")


def view_of(source: vfs.Source, *features: Any, **more: Any) -> vfs.FeatureView:
    return vfs.FeatureView("v", source=source, entities=[ENTITY], features=list(features or ("x",)),
                           **more)  # fmt: skip


def spine(*days: float, key: str = "a") -> pa.Table:
    times = [START + day * DAY for day in days]
    return pa.table({"k": [key] * len(days), "event_timestamp": times})


def trained(store: vfs.FeatureStore, view: vfs.FeatureView, asked: pa.Table) -> list[Any]:
    table = store.get_historical_features(asked, [view]).to_pyarrow()
    return table.column(table.num_columns - 1).to_pylist()


LAYOUTS = {
    "date": ("day={day:%Y-%m-%d}", {"day": "date"}),
    "parts": ("year={day:%Y}/month={day:%m}/d={day:%d}",
              {"year": "year", "month": "month", "d": "day"}),
    "unpadded": ("year={day.year}/month={day.month}/d={day.day}",
                 {"year": "year", "month": "month", "d": "day"}),
    "months": ("y={day:%Y}/m={day:%m}", {"y": "year", "m": "month"}),
}  # fmt: skip


# -- Hive partitions


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_the_days_that_a_spine_can_need_are_read(make_store, tmp_path, layout):
    pattern, units = LAYOUTS[layout]
    days = range(0, 300, 20)
    write(tmp_path / "lake", days, pattern)
    store = make_store()
    source = vfs.Source("s", path="lake/**/*.parquet", event_timestamp="at", partitions=units)
    view = view_of(source, ttl="30d")
    asked = spine(101, 125.5, 130)
    store.plan([view])  # reads a schema
    before = trained(store, view, asked)
    assert before == [102.0 * 10 - 18, 1202.0, 1202.0]
    # What lies beyond the TTL before the first instant, or after the last, could as well be broken;
    # a month in part is read whole.
    outside = [day for day in days if (START + day * DAY).month not in (3, 4, 5)]
    spoil(tmp_path / "lake", *(day for day in outside if day != 0))  # a schema is read of the first
    assert trained(store, view, asked) == before
    everything = view.model_copy(update={"ttl": None})
    with pytest.raises(vfs.WarehouseError, match="part"):
        trained(store, everything, asked)  # otherwise the test would show nothing


def test_windows_read_back_as_far_as_the_longest(make_store, tmp_path):
    write(tmp_path / "lake", range(60))
    store = make_store()
    source = vfs.Source(
        "s", path="lake/**/*.parquet", event_timestamp="at", partitions={"day": "date"}
    )
    sums = [vfs.Aggregate("x", "sum", "3d"), vfs.Aggregate("x", "sum", "2d", offset="10d")]
    asked = spine(40, 42)
    expected = trained(store, view_of(source, *sums), asked)
    spoil(tmp_path / "lake", *range(1, 26), *range(45, 60))
    assert trained(store, view_of(source, *sums), asked) == expected
    # Only the features that are asked for count.
    spoil(tmp_path / "lake", *range(26, 35))
    ds = store.get_historical_features(asked, [view_of(source, *sums)[["x_sum_3d"]]])
    assert ds.to_pyarrow().num_rows == 2
    with pytest.raises(vfs.WarehouseError):
        trained(store, view_of(source, vfs.Aggregate("x", "sum", None)), asked)


def test_the_engines_own_plan_says_how_many_files_it_reads(make_store, tmp_path):
    write(tmp_path / "lake", range(50))
    store = make_store()
    source = vfs.Source(
        "s", path="lake/**/*.parquet", event_timestamp="at", partitions={"day": "date"}
    )
    ds = store.get_historical_features(spine(20, 21), [view_of(source, ttl="2d")])
    assert "Scanning Files: 6/50" in ds.explain()
    assert "CAST('__virtualfs_last' AS TIMESTAMP)" in ds.sql()


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
@pytest.mark.parametrize("typed", ["naive", "zoned", "date", "nanoseconds"])
@pytest.mark.parametrize("boundary", ["inclusive", "exclusive"])
def test_pruning_changes_no_answer(make_store, tmp_path, zone, typed, boundary):
    """Against the oracle, at instants around the edges of days and of the TTL, in far zones."""
    store = make_store()
    rows = []
    for day in range(12):
        for n in (0, 1, 23):
            at: Any = START + day * DAY + timedelta(hours=n)
            if typed == "date":
                at = date(2024, 1, 1) + day * DAY
            elif typed == "zoned":
                at = at.replace(tzinfo=UTC)
            rows.append({"k": "a", "at": at, "x": float(day * 24 + n)})
    kinds = {"naive": pa.timestamp("us"), "zoned": pa.timestamp("us", "UTC"), "date": pa.date32(),
             "nanoseconds": pa.timestamp("ns")}  # fmt: skip
    for day in range(12):
        place = tmp_path / "lake" / f"day=2024-01-{day + 1:02d}"
        place.mkdir(parents=True)
        some = rows[day * 3 : day * 3 + 3]
        pq.write_table(
            pa.table({"k": [r["k"] for r in some], "x": [r["x"] for r in some],
                      "at": pa.array([r["at"] for r in some], kinds[typed])}),
            place / "f.parquet",
        )  # fmt: skip
    source = vfs.Source(
        "s", path="lake/*/*.parquet", event_timestamp="at", timezone=zone,
        partitions={"day": "date"},
    )  # fmt: skip
    view = view_of(source, ttl="36h", boundary=boundary)
    for at in (0.0, 3.0, 3.49, 3.5, 4.04, 6.999, 11.5, 13.1, 40.0):
        (found,) = trained(store, view, spine(at))
        told = [{"k": "a", "event_timestamp": START + at * DAY}]
        (accepted,) = oracle.latest(
            told, rows, join_keys={"k": "k"}, event="at", ttl=timedelta(hours=36),
            boundary=boundary, timezone=zone,
        )  # fmt: skip
        assert found in [row and row["x"] for row in accepted], at


def test_no_instants_and_endless_ones_are_ranges_too(make_store, tmp_path, connection):
    write(tmp_path / "lake", range(3))
    store = make_store()
    source = vfs.Source(
        "s", path="lake/*/*.parquet", event_timestamp="at", partitions={"day": "date"}
    )
    view = view_of(source, ttl="9d")
    none = pa.table({"k": ["a"], "event_timestamp": pa.array([None], pa.timestamp("us"))})
    assert trained(store, view, none) == [None]
    assert trained(store, view, none.slice(0, 0)) == []
    endless = "SELECT 'a' AS k, TIMESTAMP 'infinity' AS event_timestamp"
    table = store.get_historical_features(endless, [view_of(source)]).to_pyarrow()
    assert table.column("x").to_pylist() == [22.0]
    assert bind_range("'__virtualfs_last'", None, 2**63 - 1) == "'infinity'"
    assert bind_range("'__virtualfs_first - 1d'", -(2**63), 0) == "'-infinity'"


def test_look_ups_leave_out_what_is_later(make_store, tmp_path):
    write(tmp_path / "lake", range(20))
    store = make_store(clock=datetime(2024, 1, 6, tzinfo=UTC))
    source = vfs.Source(
        "s", path="lake/*/*.parquet", event_timestamp="at", partitions={"day": "date"}
    )
    view = view_of(source, ttl="1d")
    spoil(tmp_path / "lake", *range(8, 20))
    online = store.get_online_features([view], [{"k": "a"}, {"k": "nobody"}])
    assert online.to_dict()["x"] == [50.0, None]
    # What is older than the TTL is told apart from what never was.
    later = store.get_features([view], [{"k": "a"}], as_of=datetime(2024, 1, 6, 12, tzinfo=UTC))
    assert later.statuses["x"] == ["PRESENT"]


def test_rows_in_the_folder_of_those_without_a_value_are_read(make_store, tmp_path):
    write(tmp_path / "lake", range(3))
    write(tmp_path / "lake", range(7, 8), "day=__HIVE_DEFAULT_PARTITION__")
    store = make_store()
    source = vfs.Source(
        "s", path="lake/*/*.parquet", event_timestamp="at", partitions={"day": "date"}
    )
    assert trained(store, view_of(source), spine(8)) == [72.0]


def test_check_finds_rows_in_folders_of_another_time(make_store, tmp_path):
    write(tmp_path / "lake", range(5))
    write(tmp_path / "lake", range(30, 31), "day=2024-01-03")
    store = make_store(clock=datetime(2025, 1, 1, tzinfo=UTC))
    source = vfs.Source(
        "s", path="lake/*/*.parquet", event_timestamp="at", partitions={"day": "date"}
    )
    store.apply([view_of(source)])
    (finding,) = store.check().findings
    assert (finding.kind, finding.rows) == ("misplaced", 4)
    assert "partitions=" in str(finding)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"partitions": {"m": "month"}}, "says the month but not the year"),
        ({"partitions": {"a": "date", "b": "date"}}, "one thing of two columns"),
        ({"partitions": {"a": "week"}}, "partitions"),
        ({"version": 3}, "a Delta table is named by its folder"),
        ({"path": "lake/*.orc"}, "does not say what the files are"),
        ({"path": "lake", "version": 1, "as_of": "2024-01-01"}, "give one"),
        ({"path": "lake", "version": -1}, "counts from 0"),
        ({"event_timestamp": None, "partitions": {"d": "date"}}, "need event_timestamp="),
    ],
)
def test_what_files_cannot_be_is_refused(given, expected):
    fields = {"path": "lake/*.parquet", "event_timestamp": "at", **given}
    with pytest.raises(vfs.DefinitionError, match=expected):
        vfs.Source("s", **fields)


def test_a_partition_that_is_not_there_is_refused(make_store, tmp_path):
    write(tmp_path / "lake", range(2))
    source = vfs.Source(
        "s", path="lake/*/*.parquet", event_timestamp="at", partitions={"dya": "date"}
    )
    with pytest.raises(vfs.DefinitionError, match=r"no partition 'dya'.*Did you mean 'day'"):
        make_store().plan([view_of(source)])


def test_what_was_defined_before_is_as_it_was(make_store, tmp_path):
    """Settings that are not given are not written, so an upgrade makes no versions."""
    source = vfs.Source("s", path="a.parquet", event_timestamp="at")
    assert not {"format", "version", "as_of", "partitions"} & {*source.model_dump()}
    given = vfs.Source("s", path="a", as_of="2024-01-01", event_timestamp="at")
    assert given.model_dump(mode="json")["as_of"] == "2024-01-01T00:00:00Z"


def test_csv_files_in_folders(make_store, tmp_path):
    for day in range(3):
        place = tmp_path / "lake" / f"day=2024-01-0{day + 1}"
        place.mkdir(parents=True)
        (place / "f.csv").write_text(f"k,at,x\na,2024-01-0{day + 1} 01:00:00,{day}\n")
    store = make_store()
    source = vfs.Source("s", path="lake/*/*.csv", event_timestamp="at", partitions={"day": "date"})
    assert trained(store, view_of(source), spine(0.5, 1.5, 9)) == [0, 1, 2]


# -- Delta tables


def delta(folder: Path | str, day: int, **more: Any) -> None:
    from deltalake import write_deltalake

    write_deltalake(str(folder), day_rows(day), mode="append", **more)


def test_a_delta_table_is_read_as_of_its_newest_version(make_store, tmp_path):
    delta(tmp_path / "t", 0)
    store = make_store()
    view = view_of(vfs.Source("s", path="t", event_timestamp="at"))
    store.apply([view])
    assert trained(store, "v", spine(0.5, 1.5)) == [2.0, 2.0]
    delta(tmp_path / "t", 1)
    assert trained(store, "v", spine(0.5, 1.5)) == [2.0, 12.0]
    assert store.get_features("v", [{"k": "b"}], as_of=START + 2 * DAY).to_dict()["x"] == [13.0]
    assert store.table("v").count().to_pyarrow().as_py() == 8
    assert store.get_historical_features(spine(1.5), "v").expr.to_pyarrow()["x"].to_pylist() == [
        12.0
    ]
    assert store.why("v:x", {"k": "a"}, START + 2 * DAY)
    assert [edge["name"] for edge in store.lineage("v:x").to_dict()["nodes"]]


@pytest.mark.parametrize("how", ["version", "as_of"])
def test_a_delta_table_is_read_as_it_was(make_store, tmp_path, how):
    from deltalake import DeltaTable

    for day in range(3):
        delta(tmp_path / "t", day)
        time.sleep(0.2)  # a commit and its file are a few milliseconds apart
    history = {
        entry["version"]: entry["timestamp"] for entry in DeltaTable(tmp_path / "t").history()
    }
    moment = datetime.fromtimestamp(history[1] / 1000, UTC) + timedelta(milliseconds=100)
    given = {"version": 1} if how == "version" else {"as_of": moment}
    store = make_store()
    view = view_of(vfs.Source("s", path="t", event_timestamp="at", **given))
    assert trained(store, view, spine(9)) == [12.0]
    before = trained(store, view_of(vfs.Source("s", path="t", event_timestamp="at")), spine(9))
    assert before == [22.0]


def test_two_states_of_one_table_stand_side_by_side(make_store, tmp_path):
    for day in range(2):
        delta(tmp_path / "t", day)
    store = make_store()
    old = view_of(vfs.Source("old", path="t", event_timestamp="at", version=0))
    new = view_of(vfs.Source("new", path="t", event_timestamp="at"))
    new = new.model_copy(update={"name": "w"})
    found = store.get_historical_features(spine(9), [old, new]).to_pyarrow().to_pylist()
    assert [(row["v__x"], row["w__x"]) for row in found] == [(2.0, 12.0)]


def test_a_delta_log_says_which_files_are_not_needed(make_store, tmp_path):
    for day in range(30):
        delta(tmp_path / "t", day)
    store = make_store()
    view = view_of(vfs.Source("s", path="t", event_timestamp="at"), ttl="2d")
    before = trained(store, view, spine(20, 21))
    for file in (tmp_path / "t").glob("*.parquet"):
        day = (pq.read_table(file).column("at")[0].as_py() - START).days
        if not 15 < day < 24:
            file.write_bytes(b"nothing of use")
    assert trained(store, view, spine(20, 21)) == before == [200.0, 210.0]
    with pytest.raises(vfs.WarehouseError):
        trained(store, view, spine(2))


def test_a_state_before_the_first_is_refused(make_store, tmp_path):
    delta(tmp_path / "t", 0)
    view = view_of(vfs.Source("s", path="t", event_timestamp="at", as_of="2020-01-01"))
    with pytest.raises(vfs.DefinitionError, match="its first version is of"):
        make_store().plan([view])


def test_a_delta_table_in_folders_with_columns_that_came_later(make_store, tmp_path):
    from deltalake import write_deltalake

    for day in range(4):
        rows = day_rows(day).append_column("day", pa.array([f"2024-01 {day}"] * 4))
        if day > 1:
            rows = rows.append_column("late", pa.array([day] * 4))
        write_deltalake(
            str(tmp_path / "t"), rows, mode="append", partition_by=["day"], schema_mode="merge"
        )
    write_deltalake(
        str(tmp_path / "t"),
        pa.table({"k": ["a"], "at": [START + 9 * DAY], "x": [9.5], "day": [None], "late": [9]},
                 schema=DeltaSchema),
        mode="append", partition_by=["day"],
    )  # fmt: skip
    store = make_store()
    view = view_of(vfs.Source("s", path="t", event_timestamp="at"), "x", "day", "late")
    found = store.get_historical_features(spine(0.9, 3.9, 20), [view]).to_pyarrow().to_pylist()
    assert [(row["x"], row["day"], row["late"]) for row in found] == [
        (2.0, "2024-01 0", None), (32.0, "2024-01 3", 3), (9.5, None, 9)
    ]  # fmt: skip
    young = view_of(vfs.Source("s", path="t", event_timestamp="at"), "x", "day", "late", ttl="1d")
    (row,) = store.get_historical_features(spine(0.9), [young]).to_pyarrow().to_pylist()
    assert (row["x"], row["day"], row["late"]) == (2.0, "2024-01 0", None)


@pytest.mark.parametrize("where", ["delta", "s3"])
def test_many_threads_read_a_lake_at_once(make_store, tmp_path, s3, where):
    """What lives in Python beside a query could make two threads wait for each other for ever."""
    client, _asked = s3
    turns, number = (3, 6) if where == "delta" else (1, 3)  # its server runs in this process too
    if where == "delta":
        for day in range(5):
            delta(tmp_path / "t", day)
        source = vfs.Source("s", path="t", event_timestamp="at")
    else:
        write(tmp_path / "lake", range(5))
        upload(client, tmp_path / "lake", "threads")
        source = vfs.Source("s", path="s3://lake/threads/**/*.parquet", event_timestamp="at")
    config = vfs.Config(
        project="p", folder=tmp_path, warehouses={"default": {"url": "duckdb://"}}, files=LAKE
    )
    with vfs.FeatureStore(config) as owned:
        for store in (make_store(files=LAKE), owned):
            view = view_of(source)
            failed: list[Any] = []

            def job(store: Any = store, view: Any = view, failed: list[Any] = failed) -> None:
                try:
                    for _turn in range(turns):
                        assert trained(store, view, spine(0.9, 4.9)) == [2.0, 42.0]
                        at = START + 2 * DAY
                        assert store.get_features([view], [{"k": "b"}], as_of=at).to_list()
                except BaseException as error:  # noqa: BLE001 - told below
                    failed.append(error)

            threads = [threading.Thread(target=job, daemon=True) for _turn in range(number)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(40)
            assert not any(thread.is_alive() for thread in threads)
            assert failed == []


def test_text_that_looks_like_a_place_opens_nothing(make_store, connection, monkeypatch):
    from virtualfs_providers import lake

    monkeypatch.setattr(lake, "_file_system", lambda scheme: 1 / 0)
    connection.raw_sql(
        "CREATE TABLE t AS SELECT 'a' AS k, TIMESTAMP '2024-01-01' AS at, 's3://x' AS u"
    )
    view = view_of(
        vfs.Source("s", table="t", event_timestamp="at"), vfs.Feature("is_x", "u = 's3://x'")
    )
    assert trained(make_store(), view, spine(5)) == [True]


def test_what_is_no_delta_table_is_refused_in_words(make_store, tmp_path):
    write(tmp_path / "lake", range(2))
    store = make_store()
    with pytest.raises(vfs.DefinitionError, match=r"no Delta table at .*lake/\*\*/\*\.parquet"):
        store.plan([view_of(vfs.Source("s", path="lake", event_timestamp="at"))])
    delta(tmp_path / "t", 0)
    with pytest.raises(vfs.DefinitionError, match="in version 7: it has versions 0 to 0"):
        store.plan([view_of(vfs.Source("s", path="t", event_timestamp="at", version=7))])


def test_a_query_may_not_read_files(make_store):
    source = vfs.Source("s", query="SELECT * FROM delta_scan('/etc')", event_timestamp="at")
    with pytest.raises(vfs.DefinitionError, match="may call"):
        make_store().plan([view_of(source)])


# -- object storage


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server that speaks S3, a bucket on it, and what is asked of it."""
    from moto.server import ThreadedMotoServer
    from werkzeug.serving import WSGIRequestHandler

    asked: list[str] = []
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    real = WSGIRequestHandler.log_request
    WSGIRequestHandler.log_request = lambda self, *_: asked.append(f"{self.command} {self.path}")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    given = {
        "AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "hidden-key",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    import boto3

    client = boto3.client("s3")
    client.create_bucket(Bucket="lake")
    yield client, asked
    client.close()
    server.stop()
    WSGIRequestHandler.log_request = real
    for name, value in before.items():
        os.environ.pop(name)
        if value is not None:
            os.environ[name] = value


def upload(client: Any, folder: Path, prefix: str) -> None:
    for file in folder.rglob("*.parquet"):
        key = f"{prefix}/{file.relative_to(folder)}"
        client.put_object(Bucket="lake", Key=key, Body=file.read_bytes())


def test_object_storage_is_read_with_credentials_of_the_environment(make_store, tmp_path, s3):
    client, asked = s3
    write(tmp_path / "lake", range(40))
    upload(client, tmp_path / "lake", "weather")
    store = make_store(files=LAKE)
    source = vfs.Source(
        "s", path="s3://lake/weather/**/*.parquet", event_timestamp="at",
        partitions={"day": "date"},
    )  # fmt: skip
    view = view_of(source, ttl="2d")
    store.apply([view])
    ds = store.get_historical_features(spine(20, 21.5), "v")
    ds.sql()
    asked.clear()
    assert ds.to_pyarrow().column("x").to_pylist() == [200.0, 212.0]
    read = {line.split("day=")[1][:10] for line in asked if "day=" in line and "GET" in line}
    # Of 40 files: the first for its schema, and those of the range with a day's slack.
    assert read <= {"2024-01-01", *(f"2024-01-{day}" for day in range(18, 24))}
    assert len(read) < 9
    assert "hidden-key" not in str(store.plan([view])) + ds.sql() + repr(store)


def test_a_delta_table_in_object_storage(make_store, s3):
    for day in range(3):
        delta("s3://lake/table", day)
    store = make_store(files=LAKE)
    view = view_of(vfs.Source("s", path="s3://lake/table", event_timestamp="at", version=1))
    assert trained(store, view, spine(0.5, 9)) == [2.0, 12.0]


def test_a_bucket_that_is_not_there_is_refused(make_store, s3):
    source = vfs.Source("s", path="s3://nowhere/x/*.parquet", event_timestamp="at")
    with pytest.raises(vfs.DefinitionError, match=r"is outside the folders that may be read"):
        make_store(files=LAKE).plan([view_of(source)])
    with pytest.raises(vfs.DefinitionError, match="nowhere"):
        make_store(files={"roots": ["s3://nowhere"]}).plan([view_of(source)])
