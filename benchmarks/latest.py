"""Latest values on DuckDB, from an Arrow spine to an Arrow table, against SQL written by hand.

Per size (spine x source rows x views of ten features, one row in a hundred tied) the reference is
the fastest of several ways to write the same answer by hand, ties broken by created timestamp and
row hash as in VirtualFS. Each side runs in a process of its own, turn by turn: one call to warm up,
then some that are timed; the peak of the resident set above what the process held before is its
memory. Ratios are VirtualFS over the best reference.

Run as ``python benchmarks/latest.py [--quick]``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

POINTS = (
    (10_000, 1_000_000, 1),
    (10_000, 10_000_000, 1),
    (100_000, 1_000_000, 5),
    (100_000, 1_000_000, 20),
    (1_000_000, 1_000_000, 5),
    (1_000_000, 10_000_000, 1),
)
QUICK = (POINTS[0], POINTS[2])
FEATURES = [f"f{number}" for number in range(10)]
REFERENCES = ("asof_struct", "arg_max", "asof_then_fetch")


def database(folder: Path, rows: int) -> Path:
    """Make a DuckDB file with one table of `rows` rows, a hundred to a key."""
    import duckdb

    path = folder / f"rows_{rows}.duckdb"
    if not path.exists():
        keys = rows // 100
        features = ", ".join(f"random() * 1000 AS {name}" for name in FEATURES)
        with duckdb.connect(str(path)) as con:
            con.execute("SELECT setseed(0.5)")
            con.execute(
                f"""CREATE TABLE source AS
                WITH r AS (SELECT (random() * {keys})::BIGINT % {keys} AS k,
                    TIMESTAMP '2024-01-01' + to_seconds((random() * 31536000)::BIGINT) AS ts
                    FROM range({rows}))
                SELECT k, ts, ts + to_seconds((random() * 3600)::BIGINT) AS created, {features}
                FROM (FROM r UNION ALL (FROM r LIMIT {rows // 100}))"""
            )
    return path


def spine_table(spine: int, rows: int) -> Any:
    """Return the spine as Arrow: keys and instants over the same year."""
    import numpy as np
    import pyarrow as pa

    random = np.random.default_rng(7)
    start = np.datetime64("2024-01-01", "us").astype("int64")
    times = start + random.integers(0, 31_536_000_000_000, spine)
    return pa.table(
        {
            "k": random.integers(0, rows // 100, spine),
            "event_timestamp": pa.array(times).cast(pa.timestamp("us")),
        }
    )


def virtualfs(path: Path, views: int, spine: Any) -> Callable[[], Any]:
    """Return the call of VirtualFS."""
    import virtualfs as vfs

    settings = {"default": {"url": f"duckdb://{path}"}}
    store = vfs.FeatureStore(vfs.Config(project="bench", folder=path.parent, warehouses=settings))
    source = vfs.Source("source", table="source", event_timestamp="ts", created_timestamp="created")
    entity = vfs.Entity("key", {"k": "int64"})
    made = [
        vfs.FeatureView(f"view_{n}", source=source, entities=[entity], features=FEATURES)
        for n in range(views)
    ]

    def call() -> Any:
        return store.get_historical_features(spine, made, full_feature_names=True).to_pyarrow()

    # Imports are not what is measured; they take 100 MB once.
    store.get_historical_features(spine, made, full_feature_names=True).sql()
    return call


def by_hand(reference: str, path: Path, views: int, spine: Any) -> Callable[[], Any]:
    """Return the call of one reference: a temporary spine, then one query per view side by side."""
    import duckdb
    import pyarrow as pa

    con = duckdb.connect(str(path), read_only=True)
    con.execute("SET asof_loop_join_threshold = 0")
    plain, row = ", ".join(FEATURES), ", ".join(f"r.{name}" for name in FEATURES)
    hashed = f"hash(k, ts, created, {plain})"
    packed = ", ".join(f"{name} := {name}" for name in FEATURES)
    queries = {
        "asof_struct": f"""SELECT {row}
            FROM (SELECT n, k, {{'e': event_timestamp, 'c': TIMESTAMP 'infinity',
                'h': 18446744073709551615::UBIGINT}} AS o FROM spine) l
            ASOF LEFT JOIN (SELECT k, {{'e': ts, 'c': created, 'h': {hashed}}} AS o, {plain}
                FROM source) r ON l.k = r.k AND l.o >= r.o ORDER BY n""",
        "arg_max": f"""SELECT m.* EXCLUDE (n) FROM spine s LEFT JOIN (
            SELECT n, unnest(arg_max(struct_pack({packed}),
                {{'e': ts, 'c': created, 'h': {hashed.replace("k,", "r.k,")}}}))
            FROM spine l JOIN source r ON l.k = r.k AND r.ts <= l.event_timestamp GROUP BY n
            ) m USING (n) ORDER BY s.n""",
        "asof_then_fetch": f"""WITH m AS MATERIALIZED (
            SELECT n, l.k, r.ts FROM spine l ASOF LEFT JOIN (SELECT k, ts FROM source SEMI JOIN
                (SELECT DISTINCT k FROM spine) USING (k)) r
            ON l.k = r.k AND l.event_timestamp >= r.ts)
            SELECT {plain} FROM (SELECT n, {row}, row_number() OVER (PARTITION BY n ORDER BY
                r.created DESC, {hashed.replace("(k, ts", "(r.k, r.ts")} DESC) AS rank
            FROM m LEFT JOIN source r ON m.k = r.k AND m.ts = r.ts) WHERE rank = 1 ORDER BY n""",
    }

    def call() -> Any:
        con.register("arrow", spine)
        con.execute(
            "CREATE OR REPLACE TEMP TABLE spine AS SELECT *, row_number() OVER () AS n FROM arrow"
        )
        con.unregister("arrow")
        result = spine
        for view in range(views):
            answer = con.execute(queries[reference]).to_arrow_table()
            for name, column in zip(answer.column_names, answer.columns, strict=True):
                result = result.append_column(f"view_{view}__{name}", column)
        assert isinstance(result, pa.Table)
        return result

    return call


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Watch the resident set; the list's one number is its greatest rise in MB."""

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    before, risen, done = resident(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            risen[0] = max(risen[0], resident() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield risen
    finally:
        done.set()
        thread.join()


def measure(side: str, path: Path, spine: int, rows: int, views: int, calls: int) -> None:
    """Run one side in this process and print seconds and memory as JSON."""
    table = spine_table(spine, rows)
    if side == "virtualfs":
        call = virtualfs(path, views, table)
    else:
        call = by_hand(side, path, views, table)
    with peak_memory() as memory:
        assert call().num_rows == spine
        times = []
        for _ in range(calls):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
    print(json.dumps({"seconds": times, "memory": memory[0]}))


def run(side: str, path: Path, point: tuple[int, int, int], calls: int) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", __file__, "--side", side, "--path", str(path)]
    command += ["--point", *map(str, point), "--calls", str(calls)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side")
    parser.add_argument("--path", type=Path)
    parser.add_argument("--point", type=int, nargs=3)
    parser.add_argument("--calls", type=int, default=3)
    given = parser.parse_args()
    if given.side:
        measure(given.side, given.path, *given.point, given.calls)
        return
    points = [tuple(given.point)] if given.point else list(QUICK if given.quick else POINTS)
    print("spine x rows x views: VirtualFS | best by hand | ratio of time | of memory")
    with tempfile.TemporaryDirectory() as folder:
        for point in points:
            path = database(Path(folder), point[1])
            sides: dict[str, dict[str, list[float]]] = {}
            for _ in range(given.rounds):
                for side in ("virtualfs", *REFERENCES):
                    if side == "arg_max" and point[0] > 10_000:
                        continue  # a hundred pairs per spine row
                    found = run(side, path, point, given.calls)
                    kept = sides.setdefault(side, {"seconds": [], "memory": []})
                    kept["seconds"] += found["seconds"]
                    kept["memory"].append(found["memory"])
            report(point, sides)


def report(point: tuple[int, ...], sides: dict[str, dict[str, list[float]]]) -> None:
    seconds = {side: statistics.median(found["seconds"]) for side, found in sides.items()}
    memory = {side: statistics.median(found["memory"]) for side, found in sides.items()}
    ours, mine = seconds.pop("virtualfs"), memory.pop("virtualfs")
    best = min(seconds, key=seconds.__getitem__)
    others = ", ".join(f"{side} {seconds[side]:.2f} s {memory[side]:.0f} MB" for side in seconds)
    allowed = seconds[best] * 1.1 + 0.015
    print(
        f"{' x '.join(f'{size:.0e}'.replace('e+0', 'e') for size in point[:2])} x {point[2]}: "
        f"{ours:.3f} s {mine:.0f} MB | {best} {seconds[best]:.3f} s {memory[best]:.0f} MB | "
        f"{ours / seconds[best]:.2f} ({'within' if ours <= allowed else 'over'} 1.1x + 15 ms) | "
        f"{mine / memory[best]:.2f}   [{others}]",
        flush=True,
    )


if __name__ == "__main__":
    main()
