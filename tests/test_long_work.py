"""Results larger than what is held at once, and what a terminal shows while they are made."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

# The peak of getrusage is inherited from the process that started this one; the kernel has its own.
STREAM = """
import re, sys
from pathlib import Path
import pyarrow.parquet
import virtualfs as vfs
from virtualfs.training import dataset

url, spine, query, how, folder = sys.argv[1:]
dataset._CELLS = 1_000_000
store = vfs.FeatureStore(
    vfs.Config(project="p", folder=Path(folder), warehouses={"default": {"url": url}})
)
names = [f"x{number}" for number in range(10)]
view = vfs.FeatureView(
    "v", source=vfs.Source("s", query=query, event_timestamp="at"),
    entities=[vfs.Entity("e", {"k": "int64"})], features=names,
)
ds = store.get_historical_features(spine, [view])

def peak():
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 1e3

store.get_historical_features(f"SELECT * FROM ({spine}) AS s LIMIT 100000", [view]).to_parquet(
    Path(folder) / "first.parquet"
)  # what the libraries take for themselves
before, rows, total = peak(), 0, 0.0
if how == "parquet":
    path = ds.to_parquet(Path(folder) / "out.parquet")
    rows = pyarrow.parquet.ParquetFile(path).metadata.num_rows
elif how == "batches":
    for batch in ds.to_pyarrow_batches():
        rows += batch.num_rows
else:
    rows = ds.to_pyarrow().num_rows
print(rows, round(peak() - before))
"""
# What a stream holds does not grow with these; DuckDB's own share is some 90 megabytes.
ROWS = {"duckdb": 3_000_000, "postgres": 1_500_000}
COLUMNS = ", ".join(f"k * {number}.5 AS x{number}" for number in range(10))
QUERIES = {
    "duckdb": (
        "SELECT i % 997 AS k, TIMESTAMP '2024-02-01' AS event_timestamp "
        f"FROM range({ROWS['duckdb']}) t(i)",
        f"SELECT k, TIMESTAMP '2024-01-01' AS at, {COLUMNS} FROM range(997) t(k)",
    ),
    "postgres": (
        "SELECT i % 997 AS k, timestamp '2024-02-01' AS event_timestamp "
        f"FROM generate_series(1::int8, {ROWS['postgres']}) AS t(i)",
        f"SELECT k, timestamp '2024-01-01' AS at, {COLUMNS.replace('.5', '.5::float8')} "
        "FROM generate_series(0::int8, 996) AS t(k)",
    ),
}


def grown(engine: str, how: str, url: str, folder: object) -> float:
    """Return by how many megabytes a result's making raised the peak of a process of its own."""
    command = [sys.executable, "-W", "ignore", "-c", STREAM, url, *QUERIES[engine], how, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows, megabytes = map(int, done.stdout.split())
    assert rows == ROWS[engine]
    return megabytes


def held(engine: str) -> float:
    """Return how many megabytes a result holds: ten features, a key and a time."""
    return ROWS[engine] * 12 * 8 / 1e6


@pytest.mark.parametrize(
    ("engine", "how"), [("duckdb", "batches"), ("duckdb", "parquet"), ("postgres", "parquet")]
)
def test_a_stream_holds_less_than_its_result(engine, how, postgres, tmp_path):
    # DuckDB lives in this process and keeps the spine; told to, it keeps it on disk.
    url = postgres if engine == "postgres" else "duckdb://?memory_limit=60MB"
    assert grown(engine, how, url, tmp_path) < held(engine) / 2


def test_a_whole_table_is_held_whole(tmp_path):
    # Otherwise the test above could not fail.
    assert grown("duckdb", "table", "duckdb://", tmp_path) > held("duckdb") / 2


SHOW = """
import sys
from pathlib import Path
import virtualfs as vfs
from virtualfs import progress

progress._PATIENCE = 0.05
store = vfs.FeatureStore(
    vfs.Config(project="p", folder=Path(sys.argv[1]), warehouses={"default": {"url": "duckdb://"}})
)
views = [
    vfs.FeatureView(
        f"slow_{number}",
        source=vfs.Source(
            "s", query="SELECT i % 7 AS k, TIMESTAMP '2024-01-01' + to_seconds(i) AS at, "
            "hash(i)::DOUBLE AS x FROM range(2000000) t(i)", event_timestamp="at",
        ),
        entities=[vfs.Entity("e", {"k": "int64"})], features=["x"],
    )
    for number in range(2)
]
spine = "SELECT i % 7 AS k, TIMESTAMP '2024-02-01' AS event_timestamp FROM range(100) t(i)"
store.get_historical_features(spine, views, full_feature_names=True).to_pyarrow()
print("done")
"""


def test_a_terminal_sees_which_view_is_answered(tmp_path):
    theirs, ours = pty.openpty()
    command = [sys.executable, "-W", "ignore", "-c", SHOW, tmp_path]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=ours, env=environment, text=True
    ) as child:
        os.close(ours)
        shown = b""
        while True:
            try:
                piece = os.read(theirs, 4096)
            except OSError:  # what Linux says when the other end is closed
                break
            if not piece:
                break
            shown += piece
        assert child.communicate()[0] == "done\n"
    os.close(theirs)
    text = shown.decode()
    assert "slow_0" in text
    assert "slow_1" in text
    assert "1 views answered" in text
    assert text.rstrip("\r\n").endswith("\x1b[2K")  # it leaves no line behind


def test_a_pipe_sees_nothing(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", SHOW, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("done\n", "")
