"""Wrong answers, and definitions that did more than read, as they were found: each stays fixed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import ibis
import pandas as pd
import pyarrow as pa
import pytest

import virtualfs as vfs
from virtualfs import _

AIRPORT = vfs.Entity("airport", {"origin": "string"})
SPINE = pd.DataFrame(
    {"origin": ["JFK", "LGA", "X"], "event_timestamp": pd.to_datetime(["2021-01-01"] * 3)}
)


@pytest.fixture
def store(make_store: Callable[..., vfs.FeatureStore], connection: Any) -> vfs.FeatureStore:
    connection.raw_sql(
        "CREATE TABLE weather AS SELECT * FROM (VALUES "
        "('JFK', TIMESTAMP '2020-01-01', 5, {'temp': 99}), "
        "('LGA', TIMESTAMP '2020-01-01', 6, {'temp': 98})) t(origin, seen, temp, inner_)"
    )
    return make_store()


def view(*features: Any, **source: Any) -> vfs.FeatureView:
    place = {"table": "weather"} if not {"query", "path", "table"} & set(source) else {}
    return vfs.FeatureView(
        "weather",
        source=vfs.Source("weather", event_timestamp="seen", **place, **source),
        entities=[AIRPORT],
        features=features or ["temp"],
    )


def test_a_connection_with_another_default_order(store: vfs.FeatureStore, connection: Any) -> None:
    connection.raw_sql("SET default_order = 'desc'")
    assert store.get_historical_features(SPINE, [view()]).to_pandas()["temp"].tolist()[:2] == [5, 6]
    spine = "SELECT i, 'JFK' AS origin, now() AS event_timestamp FROM range(9) t(i) ORDER BY i ASC"
    dataset = store.get_historical_features(spine, [view()])
    assert dataset.to_pyarrow()["i"].to_pylist() == list(range(9))
    assert dataset.to_pyarrow_batches().read_all()["i"].to_pylist() == list(range(9))


def test_a_stream_is_whole_when_others_read_meanwhile(store: vfs.FeatureStore) -> None:
    spine = "SELECT 'JFK' AS origin, now() AS event_timestamp FROM range(20000)"
    stream = store.get_historical_features(spine, [view()]).to_pyarrow_batches(1000)
    read = stream.read_next_batch().num_rows
    other = threading.Thread(target=store.get_features, args=([view()], [{"origin": "JFK"}]))
    other.start()
    other.join(30)
    assert not other.is_alive()
    assert read + stream.read_all().num_rows == 20000


def test_a_struct_field_is_not_the_column_of_its_name(store: vfs.FeatureStore) -> None:
    made = view("temp", vfs.Feature("by_sql", "inner_.temp"), vfs.Feature("by_ibis", _.inner_.temp))
    found = store.get_historical_features(SPINE, [made]).to_pandas()
    assert found["by_sql"].tolist()[:2] == found["by_ibis"].tolist()[:2] == [99, 98]
    with pytest.raises(vfs.DefinitionError, match="no column 'other'"):
        store.plan([view(vfs.Feature("x", "other.temp"))])


@pytest.mark.parametrize("text", ["*", "COLUMNS(*)", "COLUMNS('temp|x')", "#4", "weather.*"])
def test_an_expression_names_one_column(store: vfs.FeatureStore, text: str) -> None:
    with pytest.raises(vfs.DefinitionError):
        store.plan([view(vfs.Feature("x", text))])


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
        "SELECT * FROM weather, enable_logging()",
        "SELECT * FROM weather, checkpoint()",
        "SELECT *, write_log('x') AS x FROM weather",
        "SELECT * FROM duckdb_settings()",
        "SELECT * FROM iceberg_metadata('x')",
        "SELECT * FROM 'w.csv'",
        'SELECT * FROM "w.csv"',
    ],
)
def test_a_stored_query_only_reads_the_warehouse(store: vfs.FeatureStore, query: str) -> None:
    with pytest.raises(vfs.DefinitionError, match="source 'weather'"):
        store.plan([view(query=query)])


@pytest.mark.parametrize("table", ["w.csv", '"/tmp/w.csv"', "a/b", '"w', 'w" ; DROP'])
def test_a_table_is_no_file_and_no_statement(store: vfs.FeatureStore, table: str) -> None:
    with pytest.raises(vfs.DefinitionError, match=r"path=|quotes"):
        store.plan([view(table=table)])


def test_a_relative_path_is_meant_from_the_projects_folder(
    make_store: Callable[..., vfs.FeatureStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "w.csv").write_text("origin,seen,temp\nJFK,2020-01-01 00:00:00,5\n")
    (elsewhere / "w.csv").write_text("origin,seen,temp\nJFK,2020-01-01 00:00:00,666\n")
    monkeypatch.chdir(elsewhere)
    store = make_store()
    store.apply([view(path="w.csv")])
    at = datetime(2021, 1, 1, tzinfo=UTC)
    for asked in (["weather:temp"], [view(path="w.csv")]):
        answer = store.get_features(asked, [{"origin": "JFK"}], as_of=at)
        assert answer.to_list()[0]["temp"] == 5
    stored = store.state().objects["feature_view", "weather"].resolved
    assert stored
    assert str(tmp_path) not in stored["rows_sql"]


def test_a_null_in_a_composite_key_matches_no_null(
    store: vfs.FeatureStore, connection: Any
) -> None:
    # DuckDB's ASOF join lets NULL equal NULL when a key's column holds nothing else.
    connection.raw_sql(
        "CREATE TABLE pairs AS SELECT * FROM (VALUES "
        "('1', NULL::BIGINT, TIMESTAMP '2020-01-01', 7), (NULL, NULL, NULL, 1), "
        "(NULL, NULL, NULL, 2), (NULL, NULL, NULL, 3), (NULL, NULL, NULL, 4)) "
        "t(place, number, seen, v)"
    )
    made = vfs.FeatureView(
        "pairs",
        source=vfs.Source("pairs", table="pairs", event_timestamp="seen"),
        entities=[vfs.Entity("pair", {"place": "string", "number": "int64"})],
        features=["v"],
    )
    spine = pa.table(
        {
            "place": ["1"],
            "number": pa.array([None], pa.int64()),
            "event_timestamp": [datetime(2020, 1, 1)],
        }
    )
    dataset = store.get_historical_features(spine, [made])
    assert dataset.to_pyarrow()["v"].to_pylist() == [None]
    assert dataset.expr.to_pyarrow()["v"].to_pylist() == [None]


def test_names_that_differ_only_in_case(store: vfs.FeatureStore) -> None:
    with pytest.raises(vfs.DefinitionError, match="differ only in case"):
        store.plan([view("temp", vfs.Feature("TEMP", "temp + 1"))])


def test_a_uuid_can_be_a_key(store: vfs.FeatureStore, connection: Any) -> None:
    key = UUID("12345678-1234-5678-1234-567812345678")
    connection.raw_sql(f"CREATE TABLE things AS SELECT '{key}'::UUID AS k, 1 AS v")
    made = vfs.FeatureView(
        "things",
        source=vfs.Source("things", table="things"),
        entities=[vfs.Entity("thing", {"k": "uuid"})],
        features=["v"],
    )
    assert store.get_online_features([made], [{"k": key}]).to_list() == [{"k": key, "v": 1}]


@pytest.mark.parametrize("entities", [{"origin": "JFK"}, {"origin": 5}])
def test_a_dict_of_lists_holds_lists(store: vfs.FeatureStore, entities: Any) -> None:
    with pytest.raises(vfs.SpineError, match="expected a list"):
        store.get_online_features([view()], entities)


def test_an_unrelated_table_that_is_gone_stops_no_plan(
    store: vfs.FeatureStore, connection: Any
) -> None:
    store.apply([view()])
    connection.raw_sql("DROP TABLE weather")
    plan = store.plan([vfs.Entity("plane", {"tailnum": "string"})])
    assert [change.name for change in plan.changes] == ["plane"]


def test_a_failed_transaction_does_not_hide_why(store: vfs.FeatureStore, connection: Any) -> None:
    failing = view(vfs.Feature("x", "CAST(origin AS INTEGER)"))
    connection.raw_sql("BEGIN")
    with pytest.raises(vfs.WarehouseError, match="Could not convert"):
        store.get_historical_features(SPINE, [failing]).to_pyarrow()
    connection.raw_sql("ROLLBACK")


def test_the_users_memtables_and_temporary_views_are_seen(
    store: vfs.FeatureStore, connection: Any
) -> None:
    connection.raw_sql("CREATE TEMP VIEW mine AS SELECT * FROM weather")
    spine = ibis.memtable(SPINE)
    found = store.get_historical_features(spine, [view(table="mine")]).to_pandas()
    assert found["temp"].tolist()[:2] == [5, 6]


def test_a_table_of_the_definition_files_can_be_registered_too(
    make_store: Callable[..., vfs.FeatureStore], connection: Any, tmp_path: Path
) -> None:
    connection.raw_sql("CREATE TABLE weather (origin TEXT, seen TIMESTAMP, temp INTEGER)")
    (tmp_path / "f.yaml").write_text(
        "entities: [{name: airport, join_keys: {origin: string}}]\n"
        "sources: [{name: weather, table: weather, event_timestamp: seen}]\n"
        "feature_views:\n"
        "  - {name: hourly, source: weather, entities: [airport], features: [temp]}\n"
    )
    store = make_store(definitions=("f.yaml",))
    store.apply(prune=True)
    store.register_table("weather", entity="airport", join_keys=["origin"], event_timestamp="seen")
    assert not store.plan(prune=True)
    assert [row["feature"] for row in store.list_features()] == ["hourly:temp", "weather:temp"]
