"""Many views against polars' ``join_asof``, with its extraction from DuckDB counted in.

Both sides start from a DuckDB file and an Arrow spine and end with Arrow. Polars reads each
view's rows out of DuckDB, sorts them by event and created timestamp, and joins; it breaks no ties
beyond that. Each side runs in a process of its own, as in ``latest.py``.

Run as ``python benchmarks/polars_join.py [--spine 100000 --rows 1000000]``.
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

import latest


def by_polars(path: Path, views: int, spine: Any) -> Callable[[], Any]:
    """Return the call: extract, sort and join one view after the other."""
    import duckdb
    import polars as pl

    con = duckdb.connect(str(path), read_only=True)

    def call() -> Any:
        left = pl.from_arrow(spine)
        assert isinstance(left, pl.DataFrame)
        left = left.with_row_index("n").sort("event_timestamp")
        for view in range(views):
            names = ", ".join(f"{name} AS view_{view}__{name}" for name in latest.FEATURES)
            rows = con.execute(f"SELECT k, ts, created, {names} FROM source").to_arrow_table()
            right = pl.from_arrow(rows)
            assert isinstance(right, pl.DataFrame)
            right = right.sort("ts", "created").drop("created")
            left = left.join_asof(
                right, left_on="event_timestamp", right_on="ts", by="k", coalesce=True
            ).drop("ts", strict=False)
        return left.sort("n").drop("n").to_arrow()

    return call


def measure(side: str, path: Path, spine: int, rows: int, views: int) -> None:
    """Run one side in this process and print seconds and memory as JSON."""
    table = latest.spine_table(spine, rows)
    make = latest.virtualfs if side == "virtualfs" else by_polars
    call = make(path, views, table)
    with latest.peak_memory() as memory:
        assert call().num_rows == spine
        times = []
        for _ in range(3):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
    print(json.dumps({"seconds": times, "memory": memory[0]}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spine", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--views", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--side")
    parser.add_argument("--path", type=Path)
    given = parser.parse_args()
    if given.side:
        measure(given.side, given.path, given.spine, given.rows, given.views[0])
        return
    print(f"spine {given.spine:,} x {given.rows:,} rows: VirtualFS | polars | ratio time, memory")
    with tempfile.TemporaryDirectory() as folder:
        path = latest.database(Path(folder), given.rows)
        for views in given.views:
            found: dict[str, dict[str, Any]] = {}
            for side in ("virtualfs", "polars"):
                command = [sys.executable, "-W", "ignore", __file__, "--side", side]
                command += ["--path", str(path), "--views", str(views)]
                command += ["--spine", str(given.spine), "--rows", str(given.rows)]
                out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                found[side] = json.loads(out.splitlines()[-1])
            ours, theirs = (statistics.median(found[side]["seconds"]) for side in found)
            mine, other = (found[side]["memory"] for side in found)
            print(
                f"{views:2} views: {ours:.2f} s {mine:.0f} MB | {theirs:.2f} s {other:.0f} MB | "
                f"{ours / theirs:.2f}, {mine / other:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
