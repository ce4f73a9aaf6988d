"""Windows on DuckDB, from an Arrow spine to an Arrow table, against SQL by hand.

Three functions over five windows (1 h to 90 d) of float values over a year. The references are the
join on key and range with a filter per window, and prefix sums of doubles in one union sweep, which
is not exact. Every side runs in a process of its own, turn by turn: one call to warm up, then some
that are timed; memory is the peak above what the process held before.

Run as ``python benchmarks/windows.py [--quick]``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from latest import peak_memory, spine_table

SUMS, SPREADS = ("sum", "count", "mean"), ("min", "max", "std", "count_distinct")
POINTS = (  # spine rows, events, keys, functions
    (10_000, 1_000_000, 10_000, SUMS),
    (100_000, 1_000_000, 10_000, SUMS),
    (100_000, 1_000_000, 10_000, SPREADS),
    (100_000, 1_000_000, 10_000, ("std",)),
    (100_000, 1_000_000, 10_000, ("min", "max")),
    (100_000, 1_000_000, 10_000, ("count_distinct",)),
    (100_000, 1_000_000, 1, SUMS),
    (1_000_000, 10_000_000, 100_000, SUMS),
)
QUICK = POINTS[:-1]
ALL = ("1h", "1d", "7d", "30d", "90d")
LENGTHS = {"1h": 3600, "1d": 86_400, "7d": 604_800, "30d": 2_592_000, "90d": 7_776_000,
           "365d": 31_536_000}  # fmt: skip
YEAR = 31_536_000
CURVES = (  # by length of the window, then by events of a key
    *((100_000, 1_000_000, 10_000, f, (w,)) for f in (("sum",), ("max",)) for w in LENGTHS),
    *((10_000, 1_000_000, k, f, ("30d",)) for f in (("sum",), ("max",), ("std",))
      for k in (10_000, 1_000, 100, 10, 1)),
)  # fmt: skip
Point = tuple[int, int, int, tuple[str, ...], tuple[str, ...]]
SQL = {"sum": "sum(x)", "count": "count(x)", "mean": "avg(x)", "min": "min(x)", "max": "max(x)",
       "std": "stddev_samp(x)", "count_distinct": "count(DISTINCT x)"}  # fmt: skip


def database(folder: Path, rows: int, keys: int) -> Path:
    """Make a DuckDB file with one table of events."""
    import duckdb

    path = folder / f"events_{rows}_{keys}.duckdb"
    if not path.exists():
        with duckdb.connect(str(path)) as con:
            con.execute("SELECT setseed(0.5)")
            con.execute(
                f"""CREATE TABLE events AS SELECT (random() * {keys})::BIGINT % {keys} AS k,
                TIMESTAMP '2024-01-01' + to_microseconds((random() * 31536000000000)::BIGINT)
                    AS happened, random() * 20 + 5 AS x FROM range({rows})"""
            )
    return path


def virtualfs(
    path: Path, functions: tuple[str, ...], windows: tuple[str, ...], spine: Any
) -> Callable[[], Any]:
    """Return the call of VirtualFS."""
    import virtualfs as vfs

    settings = {"default": {"url": f"duckdb://{path}"}}
    store = vfs.FeatureStore(vfs.Config(project="bench", folder=path.parent, warehouses=settings))
    view = vfs.FeatureView(
        "windows",
        source=vfs.Source("events", table="events", event_timestamp="happened"),
        entities=[vfs.Entity("key", {"k": "int64"})],
        features=[vfs.Aggregate("x", f, w) for w in windows for f in functions],
    )
    store.get_historical_features(spine, [view]).sql()  # imports are not what is measured
    return lambda: store.get_historical_features(spine, [view]).to_pyarrow()


def by_hand(
    reference: str, path: Path, functions: tuple[str, ...], windows: tuple[str, ...], spine: Any
) -> Callable[[], Any]:
    """Return the call of one reference."""
    import duckdb

    con = duckdb.connect(str(path), read_only=True)
    micros = {name: LENGTHS[name] * 1_000_000 for name in windows}
    ranged = ", ".join(
        f"{SQL[f]} FILTER (WHERE age <= {length}) AS {f}_{name}"
        for name, length in micros.items()
        for f in functions
    )
    join = f"""
        SELECT s.*, a.* EXCLUDE n FROM spine s LEFT JOIN (
            SELECT n, {ranged} FROM (
                SELECT n, x, e - u AS age
                FROM (SELECT n, k, epoch_us(event_timestamp) AS e FROM spine) p
                JOIN (SELECT k, epoch_us(happened) AS u, x FROM events) v USING (k)
                WHERE e - u > 0 AND e - u <= {max(micros.values())}) GROUP BY n) a USING (n)
        ORDER BY n"""
    steps = {"0": 0, **micros}
    boundaries = " UNION ALL ".join(
        f"SELECT k, epoch_us(event_timestamp) - {by}, 0::TINYINT, n, '{name}', 0, 0.0 FROM spine"
        for name, by in steps.items()
    )
    read = ", ".join(
        f"max(c) FILTER (WHERE step = '{name}') AS c_{name}, "
        f"max(t) FILTER (WHERE step = '{name}') AS t_{name}"
        for name in steps
    )
    shown = ", ".join(
        f"c_0 - c_{name} AS count_{name}, "
        f"CASE WHEN c_0 > c_{name} THEN t_0 - t_{name} END AS sum_{name}, "
        f"CASE WHEN c_0 > c_{name} THEN (t_0 - t_{name}) / (c_0 - c_{name}) END AS mean_{name}"
        for name in micros
    )
    sweep = f"""
        SELECT s.*, a.* EXCLUDE n FROM spine s LEFT JOIN (
            SELECT n, {shown} FROM (
                SELECT n, {read} FROM (
                    SELECT n, step, side, sum(c) OVER w AS c, sum(t) OVER w AS t FROM (
                        SELECT k, epoch_us(happened) AS p, 1::TINYINT AS side, NULL::BIGINT AS n,
                            NULL AS step, 1 AS c, x AS t FROM events UNION ALL {boundaries})
                    WINDOW w AS (PARTITION BY k ORDER BY p, side ROWS UNBOUNDED PRECEDING))
                WHERE side = 0 GROUP BY n)) a USING (n)
        ORDER BY n"""
    query = {"join on range": join, "prefix sums of doubles": sweep}[reference]

    def call() -> Any:
        con.register("arrow", spine)
        con.execute(
            "CREATE OR REPLACE TEMP TABLE spine AS SELECT row_number() OVER () n, * FROM arrow"
        )
        return con.execute(query).to_arrow_table()

    return call


def measure(side: str, folder: Path, point: Point) -> None:
    """Run one side and print its seconds and megabytes."""
    spine_rows, rows, keys, functions, windows = point
    path, spine = database(folder, rows, keys), spine_table(spine_rows, keys * 100)
    if side == "virtualfs":
        call = virtualfs(path, functions, windows, spine)
    else:
        call = by_hand(side, path, functions, windows, spine)
    seconds = []
    with peak_memory() as memory:
        call()
        for _ in range(2 if rows > 10**6 else 3):
            started = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - started)
    print(json.dumps({"seconds": seconds, "megabytes": memory[0]}))


def compare(folder: Path, point: Point, rounds: int = 2) -> None:
    """Measure all sides turn by turn and print the ratio."""
    spine_rows, rows, keys, functions, windows = point
    database(folder, rows, keys)
    sides = ["virtualfs"]
    share = min(1, max(LENGTHS[name] for name in windows) / YEAR)
    if spine_rows * rows / keys * share < 10**9:
        sides.append("join on range")
    if set(functions) <= set(SUMS):
        sides.append("prefix sums of doubles")
    found: dict[str, dict[str, Any]] = {}
    for _ in range(rounds):
        for side in sides:
            run = subprocess.run(
                [sys.executable, __file__, "--side", side, "--folder", str(folder),
                 "--point", json.dumps(point)],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            one = json.loads(run.stdout)
            kept = found.setdefault(side, {"seconds": [], "megabytes": []})
            kept["seconds"] += one["seconds"]
            kept["megabytes"].append(one["megabytes"])
    middle = {side: statistics.median(kept["seconds"]) for side, kept in found.items()}
    memory = {side: statistics.median(kept["megabytes"]) for side, kept in found.items()}
    best = min((side for side in sides if side != "virtualfs"), key=lambda side: middle[side])
    print(
        f"{spine_rows:,} x {rows:,}, {keys:,} keys, {'/'.join(functions)}, {'/'.join(windows)}: "
        f"VirtualFS {middle['virtualfs']:.3f} s, {memory['virtualfs']:.0f} MB; "
        f"{best} {middle[best]:.3f} s, {memory[best]:.0f} MB; "
        f"ratio {middle['virtualfs'] / middle[best]:.2f}",
        flush=True,
    )


def main() -> None:
    """Compare at every size, or measure one side."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="all but the largest size")
    parser.add_argument("--large", action="store_true", help="the largest size alone")
    parser.add_argument("--curves", action="store_true", help="by window length, by events a key")
    parser.add_argument("--side")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--point", type=json.loads)
    given = parser.parse_args()
    if given.side:
        point = (*given.point[:3], tuple(given.point[3]), tuple(given.point[4]))
        measure(given.side, given.folder, point)
        return
    with tempfile.TemporaryDirectory() as folder:
        if given.curves:
            for point in CURVES:
                compare(Path(folder), point, rounds=1)
            return
        chosen = QUICK if given.quick else POINTS[-1:] if given.large else POINTS
        for sizes in chosen:
            compare(Path(folder), (*sizes, ALL))


if __name__ == "__main__":
    main()
