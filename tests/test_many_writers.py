"""Several that write, or lose their connections, at once: each succeeds or gets an error."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest

import virtualfs as vfs
from virtualfs import Config, FeatureStore

ENTITY = vfs.Entity("e", join_keys={"k": "int64"})


def test_of_two_that_write_one_file_one_wins_and_the_other_is_told(tmp_path: Path) -> None:
    config = Config(project="p", folder=tmp_path, warehouses={"default": {"url": "duckdb://"}})
    query = "SELECT i AS k, i * 2 AS x, TIMESTAMP '2024-01-01' AS seen FROM range(50000) AS t(i)"
    view = vfs.FeatureView(
        "v", source=vfs.Source("s", query=query, event_timestamp="seen"), entities=[ENTITY],
        features=["x"],
    )  # fmt: skip
    with FeatureStore(config) as store:
        store.apply([view])
        for turn in range(8):
            path = tmp_path / f"{turn}.parquet"
            results: list[Any] = []

            def write(rows: int, path: Path = path, results: list[Any] = results) -> None:
                spine = (
                    "SELECT i AS k, TIMESTAMP '2024-02-01' AS event_timestamp "
                    f"FROM range({rows}) AS t(i)"
                )
                try:
                    store.get_historical_features(spine, ["v:x"]).to_parquet(path)
                    results.append(rows)
                except FileExistsError as error:
                    results.append(str(error))

            threads = [threading.Thread(target=write, args=(rows,)) for rows in (30_000, 10_000)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            won = [result for result in results if isinstance(result, int)]
            assert len(won) == 1, results
            assert pq.read_table(path).num_rows == won[0]
    assert not list(tmp_path.glob("*.part")) + list(tmp_path.glob(".*.part"))


def test_a_table_is_read_again_after_the_server_closed_its_connections(
    tmp_path: Path, postgres: str
) -> None:
    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute("CREATE TABLE IF NOT EXISTS closed_on AS SELECT 1::bigint AS k, 2 AS x")
        config = Config(project="p", folder=tmp_path, warehouses={"default": {"url": postgres}})
        view = vfs.FeatureView(
            "v", source=vfs.Source("s", table="closed_on"), entities=[ENTITY], features=["x"]
        )
        with FeatureStore(config) as store:
            store.apply([view])
            assert store.table("v").to_pyarrow().num_rows == 1
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND application_name = ''"
            )
            with pytest.raises(psycopg.OperationalError):
                store.table("v").to_pyarrow()
            assert store.table("v").to_pyarrow().num_rows == 1


def test_a_dict_is_no_list_of_request_inputs(tmp_path: Path) -> None:
    config = Config(project="p", folder=tmp_path, warehouses={"default": {"url": "duckdb://"}})
    shout = vfs.OnDemandFeatureView(
        "shout", inputs=[], request={"a": "string"}, features=[vfs.Feature("f", "concat(a, '!')")]
    )
    with FeatureStore(config) as store:
        store.apply([shout])
        with pytest.raises(vfs.SpineError, match="request input 'a'"):
            store.get_online_features(["shout:f"], [{}], request={"a": {"z": 1}})
