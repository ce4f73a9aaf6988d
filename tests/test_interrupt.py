"""Ctrl-C in the middle of a long run: it stops, the query stops, and nothing is left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

CHILD = """
import sys, warnings
from pathlib import Path
import pyarrow as pa
from datetime import datetime
import virtualfs as vfs

url, query, output, folder = sys.argv[1:]
config = vfs.Config(project="p", folder=Path(folder), warehouses={"default": {"url": url}})
store = vfs.FeatureStore(config)
view = vfs.FeatureView(
    "v", source=vfs.Source("s", query=query, event_timestamp="at"),
    entities=[vfs.Entity("e", {"k": "int64"})], features=["x"],
)
spine = pa.table({"k": [1, 2], "event_timestamp": [datetime(2030, 1, 1)] * 2})
ds = store.get_historical_features(spine, [view])
before = sorted(store.warehouse().table_names())
ds.sql()
print("running", flush=True)
try:
    if output == "parquet":
        ds.to_parquet(Path(folder) / "out.parquet")
    else:
        ds.to_pyarrow()
except KeyboardInterrupt:
    store.warehouse().ping()
    assert sorted(store.warehouse().table_names()) == before
    print("stopped", flush=True)
"""
QUERIES = {
    "duckdb": "SELECT i % 7 AS k, TIMESTAMP '2024-01-01' + to_seconds(i // 9) AS at, "
    "hash(i)::DOUBLE AS x FROM range(80000000) t(i)",
    "postgres": "SELECT i % 7 AS k, timestamp '2024-01-01' + i / 9 * interval '1 second' AS at, "
    "i::float8 AS x FROM generate_series(1, 80000000) AS t(i)",
}


@pytest.mark.parametrize("output", ["pyarrow", "parquet"])
@pytest.mark.parametrize("engine", ["duckdb", "postgres"])
def test_an_interrupt_stops_the_query_and_leaves_nothing(engine, output, postgres, tmp_path):
    url = postgres if engine == "postgres" else "duckdb://"
    command = [sys.executable, "-W", "ignore", "-c", CHILD, url, QUERIES[engine], output, tmp_path]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout
        assert child.stdout.readline() == "running\n", child.stderr and child.stderr.read()
        time.sleep(1.5)
        child.send_signal(signal.SIGINT)
        out, error = child.communicate(timeout=120)
        assert out == "stopped\n", error
    assert not list(Path(tmp_path).glob("*.parquet*")) + list(Path(tmp_path).glob(".*.part"))
    if engine == "postgres":
        with psycopg.connect(postgres, autocommit=True) as admin:
            for _ in range(50):
                (active,) = admin.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'virtualfs' "
                    "AND state = 'active'"
                ).fetchone() or (0,)
                if not active:
                    break
                time.sleep(0.1)
            assert active == 0
