"""What the time range of a spine is worth in a lake: against a query by hand, and without.

``python benchmarks/lakes.py``. A year of Parquet files, a folder a day, 20,000 rows of ten features
in each; the spine has 10,000 rows of one week, the view a TTL of two days. By hand is the same ASOF
join with the days written into the query by a person who knows them; "without" is VirtualFS with no
``partitions=``, which leaves it to the statistics inside the files. Every side says how many files,
and how many bytes of them, it read.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

import virtualfs as vfs

DAYS, ROWS, KEYS, SPINE, TURNS = 365, 20_000, 2_000, 10_000, 5
NAMES = [f"x{number}" for number in range(10)]
START = np.datetime64("2024-01-01", "us")


class Counting(LocalFileSystem):
    """The local files under a scheme of their own, counted as they are read."""

    protocol = "counted"
    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.opened: set[str] = set()
        self.bytes = 0

    def _open(self, path: str, *args: Any, **kwargs: Any) -> Any:
        file, counts = super()._open(path, *args, **kwargs), self
        self.opened.add(path)
        real = file.f.read

        class Read:
            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

            def read(self, size: int = -1) -> bytes:
                found: bytes = real(size)
                counts.bytes += len(found)
                return found

        return Read()


def write(folder: Path) -> None:
    """Write the lake."""
    chance = np.random.default_rng(1)
    for day in range(DAYS):
        at = START + np.timedelta64(day, "D")
        seconds = np.sort(chance.integers(0, 86_400_000_000, ROWS)).astype("timedelta64[us]")
        columns: dict[str, Any] = {"k": chance.integers(0, KEYS, ROWS), "at": at + seconds}
        columns |= {name: chance.random(ROWS) for name in NAMES}
        place = folder / f"day={str(at)[:10]}"
        place.mkdir(parents=True)
        pq.write_table(pa.table(columns), place / "part.parquet")


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
    """Print medians, ratios, files and bytes."""
    folder = Path(tempfile.mkdtemp())
    write(folder / "lake")
    chance = np.random.default_rng(2)
    week = START + np.timedelta64(200, "D")
    moved = chance.integers(0, 7 * 86_400_000_000, SPINE).astype("timedelta64[us]")
    spine = pa.table({"k": chance.integers(0, KEYS, SPINE), "event_timestamp": week + moved})
    first, last = (datetime.fromisoformat(str(week)) + timedelta(days=d) for d in (-2, 7))
    pattern = f"{folder}/lake/*/*.parquet"
    named = ", ".join(NAMES)
    young = 'l."at" >= s.event_timestamp - INTERVAL 48 HOUR'
    values = ", ".join(f"CASE WHEN {young} THEN l.{name} END AS {name}" for name in NAMES)
    by_hand = (
        f"SELECT s.*, {values} FROM spine s ASOF LEFT JOIN "
        f"(SELECT k, \"at\", {named} FROM read_parquet('{{path}}') "
        f"WHERE day BETWEEN DATE '{first:%Y-%m-%d}' AND DATE '{last:%Y-%m-%d}') AS l "
        'ON s.k = l.k AND s.event_timestamp >= l."at"'
    )

    def hand(con: Any, path: str) -> pa.Table:
        con.register("spine_arrow", spine)
        con.execute("CREATE OR REPLACE TEMP TABLE spine AS FROM spine_arrow")
        return con.execute(by_hand.format(path=path)).to_arrow_table()

    def ours(path: str, **more: Any) -> vfs.TrainingDataset:
        source = vfs.Source("s", path=path, event_timestamp="at", **more)
        view = vfs.FeatureView(
            "v", source=source, entities=[vfs.Entity("e", {"k": "int64"})], features=NAMES,
            ttl="2d",
        )  # fmt: skip
        return store.get_historical_features(spine, [view])

    store = vfs.FeatureStore(
        vfs.Config(project="p", folder=folder, warehouses={"default": {"url": "duckdb://"}})
    )
    con = duckdb.connect()
    kinds: dict[str, dict[str, Any]] = {
        "with partitions=": {"partitions": {"day": "date"}},
        "without": {},
    }
    seconds = {"by hand": median(lambda: hand(con, pattern))}
    for name, more in kinds.items():
        ds = ours(pattern, **more)
        seconds[name] = median(ds.to_pyarrow)
    counted = Counting()
    raw = store.warehouse().connection.con
    for connection in (con, raw):
        connection.register_filesystem(counted)
    path = f"counted://{pattern}"
    read = {}
    for name in seconds:
        ds = ours(path, **kinds.get(name, {}))
        ds.sql()  # reads a schema, and asks for sizes
        counted.opened.clear()
        counted.bytes = 0
        if name == "by hand":
            hand(con, path)
        else:
            ds.to_pyarrow()
        read[name] = len(counted.opened), counted.bytes
    total = sum(file.stat().st_size for file in (folder / "lake").rglob("*.parquet"))
    print(f"the lake: {DAYS} files, {total / 1e6:.0f} MB")
    for name, span in seconds.items():
        files, size = read[name]
        print(f"{name}: {span:.3f} s, {files} files, {size / 1e6:.1f} MB; "
              f"ratio to by hand {span / seconds['by hand']:.2f}")  # fmt: skip
    store.close()


if __name__ == "__main__":
    main()
