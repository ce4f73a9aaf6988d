"""Wrong answers and crashes that a reviewer found, each kept as a case."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pandas as pd
import pyarrow as pa
import pytest

import virtualfs as vfs
from virtualfs.testing.house import House, make, train, values
from virtualfs.training import dataset

NOON = datetime(2024, 5, 1, 12)
HOUR = timedelta(hours=1)


@pytest.fixture(params=["postgres", "reader"])
def pg_house(request: pytest.FixtureRequest) -> House:
    return request.getfixturevalue(f"{request.param}_house")


def table_view(name: str = "t", **given: object) -> vfs.FeatureView:
    source = {"event_timestamp": given.pop("event_timestamp", "at")}
    keys = given.pop("keys", {"k": "string"})
    return vfs.FeatureView(
        name, source=vfs.Source(name, table=name, **source),
        entities=[vfs.Entity("e", keys)], features=given.pop("features", ["x"]), **given,
    )  # fmt: skip


def test_a_unique_index_on_an_expression_makes_no_column_unique(postgres_house, reader_house):
    for house in (postgres_house, reader_house):
        house.admin.execute(
            "DROP TABLE IF EXISTS t; CREATE TABLE t AS SELECT * FROM (VALUES ('a', 'x'), "
            "('a', 'y'), ('b', 'z')) v(k, x); CREATE UNIQUE INDEX ON t (lower(x)); ANALYZE t; "
            "GRANT SELECT ON t TO PUBLIC"
        )
        view = table_view(event_timestamp=None)
        found = train(house, "SELECT 'a'::text AS k UNION ALL SELECT 'b'", view)
        assert sorted(row["k"] for row in found) == ["a", "b"]


def test_an_index_of_a_parent_table_says_nothing_of_its_children(postgres_house):
    postgres_house.admin.execute(
        "DROP TABLE IF EXISTS t CASCADE; CREATE TABLE t (k text, at timestamp, x int, "
        "UNIQUE (k, at)); CREATE TABLE t_child () INHERITS (t); "
        "INSERT INTO t VALUES ('a', '2024-05-01', 1); "
        "INSERT INTO t_child VALUES ('a', '2024-05-01', 2); ANALYZE t; ANALYZE t_child"
    )
    found = train(postgres_house, [{"k": "a", "t": NOON}], table_view())
    assert len(found) == 1
    postgres_house.admin.execute("DROP TABLE t CASCADE")


@pytest.mark.parametrize("engine", ["duckdb", "postgres"])
def test_a_spine_query_with_a_name_twice_is_refused(engine, request):
    house = request.getfixturevalue(f"{engine}_house")
    view = make(house, [{"k": "a", "at": NOON, "y": 1}], features=("y",))
    columns = "'a' AS k, TIMESTAMP '2024-05-02' AS t"
    with pytest.raises(vfs.SpineError, match="two columns called 'x'"):
        train(house, f"SELECT {columns}, 1 AS x, 2 AS x", view)
    if engine == "duckdb":
        with pytest.raises(vfs.SpineError, match="two columns called 'X'"):
            train(house, f'SELECT {columns}, 1 AS x, 2 AS "X"', view)
    else:
        (row,) = train(house, f'SELECT {columns}, 1 AS x, 2 AS "X"', view)
        assert (row["x"], row["X"]) == (1, 2)


def test_names_that_differ_only_in_case_are_refused_where_they_are_one(duckdb_house):
    view = make(duckdb_house, [{"k": "a", "at": NOON, "x": 1}])
    with pytest.raises(vfs.SpineError, match="differ only in case"):
        train(duckdb_house, [{"k": "a", "t": NOON, "X": 1}], view)


def test_an_empty_list_and_null_are_told_apart_in_a_tie(duckdb_house):
    connection = duckdb_house.store.warehouse().connection.con
    connection.execute(
        "CREATE OR REPLACE TABLE t AS SELECT * FROM (VALUES ('a', TIMESTAMP '2024-05-01', "
        "NULL::INT[]), ('a', TIMESTAMP '2024-05-01', [])) v(k, \"at\", x)"
    )
    view = table_view()
    spine = pa.table({"k": ["a"], "event_timestamp": [NOON]})
    ds = duckdb_house.store.get_historical_features(spine, [view])
    at_once = duckdb_house.store.table(view, as_of=NOON).to_pyarrow()["x"].to_pylist()
    assert ds.to_pyarrow()["x"].to_pylist() == ds.expr.to_pyarrow()["x"].to_pylist() == at_once


def test_minus_infinity_is_before_everything(duckdb_house):
    connection = duckdb_house.store.warehouse().connection.con
    connection.execute(
        "CREATE OR REPLACE TABLE t AS SELECT 'a' AS k, TIMESTAMPTZ '-infinity' AS since, "
        "NULL::TIMESTAMPTZ AS until, 1 AS x"
    )
    view = vfs.FeatureView(
        "v", source=vfs.Source("s", table="t", valid_from="since", valid_to="until"),
        entities=[vfs.Entity("e", {"k": "string"})], features=["x"],
    )  # fmt: skip
    assert values(duckdb_house, view, [NOON]) == [1]


def test_zoned_and_naive_timestamps_are_no_one_key(duckdb_house):
    view = make(duckdb_house, [{"k": NOON, "at": NOON, "x": 1}], entities={"k": "timestamp(6)"})
    with pytest.raises(vfs.SpineError, match="join key 'k' is timestamp"):
        train(duckdb_house, [{"k": NOON.replace(tzinfo=UTC), "t": NOON}], view)


def test_decimals_keep_their_digits_beside_a_ttl(pg_house):
    pg_house.admin.execute(
        "DROP TABLE IF EXISTS t; CREATE TABLE t AS SELECT 'a'::text AS k, timestamp '2024-05-01' "
        "AS at, 123456789012345678901234567890123456::numeric(38, 0) AS x, 1.25::numeric(10, 2) "
        "AS y; GRANT SELECT ON t TO PUBLIC"
    )
    spine = pa.table({"k": ["a"], "event_timestamp": [NOON]})
    for ttl in (None, "5d"):
        view = table_view(features=["x", "y"], ttl=ttl)
        found = pg_house.store.get_historical_features(spine, [view]).to_pyarrow()
        assert str(found["x"][0]) == "123456789012345678901234567890123456"
        assert found["y"].type == pa.decimal128(10, 2)


def test_unsigned_keys_reach_postgres(pg_house):
    view = make(pg_house, [{"k": 7, "at": NOON, "x": 1}], entities={"k": "int64"})
    for kind in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()):
        spine = pa.table({"k": pa.array([7], kind), "t": [NOON]})
        assert train(pg_house, spine, view)[0]["x"] == 1


def test_json_stays_the_text_that_it_is(pg_house):
    pg_house.admin.execute(
        "DROP TABLE IF EXISTS t; CREATE TABLE t AS SELECT n::text AS k, timestamp '2024-05-01' AS "
        "at, x::jsonb AS x, x::json AS y FROM (VALUES (1, 'null'), (2, '\"1\"'), "
        "(3, '0.12345678901234567890')) v(n, x); GRANT SELECT ON t TO PUBLIC"
    )
    spine = pa.table({"k": ["1", "2", "3"], "event_timestamp": [NOON] * 3})
    ds = pg_house.store.get_historical_features(spine, [table_view(features=["x", "y"])])
    wanted = ["null", '"1"', "0.12345678901234567890"]
    assert ds.to_pyarrow()["x"].to_pylist() == ds.to_pyarrow()["y"].to_pylist() == wanted


@pytest.mark.parametrize(
    "written", ["interval '1 month'", "timetz '12:00+02'", "macaddr '08:00:2b:01:02:03'",
                "'a'::mood", "point '(1,2)'", "B'101'", "int4range '[1,3)'"],
)  # fmt: skip
def test_types_without_an_equal_are_refused_by_name(postgres_house, written):
    postgres_house.admin.execute(
        "DROP TABLE IF EXISTS t; DROP TYPE IF EXISTS mood; CREATE TYPE mood AS ENUM ('a', 'b'); "
        f"CREATE TABLE t AS SELECT 'a'::text AS k, timestamp '2024-05-01' AS at, {written} AS x"
    )
    with pytest.raises(vfs.DefinitionError, match="column 'x': VirtualFS has no data type for"):
        train(postgres_house, [{"k": "a", "t": NOON}], table_view())
    postgres_house.admin.execute("DROP TABLE t")


def test_duckdb_types_without_an_equal_are_refused_by_name(duckdb_house):
    connection = duckdb_house.store.warehouse().connection.con
    for written in ("'101'::BIT", "union_value(n := 1)", "1::UHUGEINT", "{'first name': 'x'}"):
        connection.execute(
            f"CREATE OR REPLACE TABLE t AS SELECT 'a' AS k, TIMESTAMP '2024-05-01' AS at, "
            f"{written} AS x"
        )
        with pytest.raises(vfs.DefinitionError, match="column 'x': VirtualFS has no data type"):
            train(duckdb_house, [{"k": "a", "t": NOON}], table_view())


@pytest.mark.parametrize("engine", ["duckdb", "postgres", "reader"])
@pytest.mark.parametrize("as_text", [True, False])
def test_uuids_are_keys(engine, as_text, request):
    house = request.getfixturevalue(f"{engine}_house")
    key = uuid.UUID("6f9619ff-8b86-d011-b42d-00c04fc964ff")
    admin = getattr(house, "admin", None) or house.store.warehouse().connection.con
    admin.execute("DROP TABLE IF EXISTS t")
    admin.execute(
        f"CREATE TABLE t AS SELECT '{key}'::uuid AS k, timestamp '2024-05-01' AS at, 1 AS x"
    )
    if engine == "reader":
        admin.execute("GRANT SELECT ON t TO PUBLIC")
    view = table_view(keys={"k": "uuid"})
    spine = pd.DataFrame({"k": [str(key) if as_text else key, None], "event_timestamp": [NOON] * 2})
    found = house.store.get_historical_features(spine, [view]).to_pandas()
    assert found["x"].tolist()[0] == 1
    assert found["x"].isna().tolist() == [False, True]
    answer = house.store.get_features([view], [{"k": key}], as_of=NOON)
    assert answer.to_list()[0]["x"] == 1
    written = house.store.get_features([view], [{"k": str(key)}], as_of=NOON)
    assert written.to_list() == answer.to_list()
    with pytest.raises(vfs.SpineError, match="is no UUID"):
        house.store.get_features([view], [{"k": "x"}], as_of=NOON)
    if as_text:
        spine["k"] = ["no uuid", None]
        with pytest.raises(vfs.SpineError, match="holds what is no UUID"):
            house.store.get_historical_features(spine, [view]).to_pandas()


def test_pieces_of_a_pandas_spine_have_the_types_of_the_whole(duckdb_house, monkeypatch):
    monkeypatch.setattr(dataset, "BATCH_ROWS", 10)
    monkeypatch.setattr(dataset, "_CELLS", 10)
    view = make(duckdb_house, [{"k": "a", "at": NOON, "x": 1}])
    spine = pd.DataFrame({"k": ["a"] * 30, "t": [NOON] * 30,
                          "note": [None] * 15 + ["late"] * 15})  # fmt: skip
    ds = duckdb_house.store.get_historical_features(spine, [view], timestamp="t")
    found = ds.to_pyarrow_batches().read_all()
    assert found["note"].to_pylist() == [None] * 15 + ["late"] * 15


def test_sql_may_say_what_the_spine_is_called(duckdb_house):
    view = make(duckdb_house, [{"k": "a", "at": NOON, "x": 1}], features=(
        vfs.Feature("x", "'__virtualfs_spine'"),))  # fmt: skip
    assert values(duckdb_house, view, [NOON]) == ["__virtualfs_spine"]


@pytest.mark.parametrize(
    ("text", "hours"),
    [("2024-05-01 12:00:00-0500", 5), ("2024-05-01T12:00Z", 0), ("2024-05-01 12:00+02:00", -2),
     ("2024-05-01 12:00:00+02", -2), ("2024-05-01 12:00:00.5-0030", 0.5), ("2024-05-01", -12)],
)  # fmt: skip
def test_sqlite_reads_every_spelling_of_an_offset(sqlite_house, text, hours):
    connection = sqlite_house.store.warehouse().connection.con
    connection.execute("DROP TABLE IF EXISTS t")
    connection.execute("CREATE TABLE t (k TEXT, at TIMESTAMP, x INTEGER)")
    connection.execute("INSERT INTO t VALUES ('a', ?, 1)", [text])
    connection.commit()
    late = timedelta(milliseconds=500) if ".5" in text else timedelta(0)
    at = NOON + hours * HOUR + late
    assert values(sqlite_house, table_view(), [at - timedelta(microseconds=1), at]) == [None, 1]


def test_sqlite_says_when_an_integer_column_holds_none(sqlite_house):
    connection = sqlite_house.store.warehouse().connection.con
    connection.execute("DROP TABLE IF EXISTS t")
    connection.execute("CREATE TABLE t (k TEXT, at TIMESTAMP, x INTEGER)")
    connection.execute("INSERT INTO t VALUES ('a', '2024-05-01', 1.5)")
    connection.commit()
    with pytest.raises(vfs.WarehouseError, match="holds a value that is no int64"):
        values(sqlite_house, table_view(), [NOON])


def test_what_parquet_cannot_hold_is_said_and_nothing_is_left(duckdb_house, tmp_path):
    connection = duckdb_house.store.warehouse().connection.con
    connection.execute(
        "CREATE OR REPLACE TABLE t AS SELECT 'a' AS k, TIMESTAMP '2024-05-01' AS at, "
        "INTERVAL 1 MONTH AS x"
    )
    spine = pa.table({"k": ["a"], "event_timestamp": [NOON]})
    ds = duckdb_house.store.get_historical_features(spine, [table_view()])
    with pytest.raises(vfs.UnsupportedByWarehouseError, match="Parquet cannot hold"):
        ds.to_parquet(tmp_path / "x.parquet")
    assert list(tmp_path.iterdir()) == []
