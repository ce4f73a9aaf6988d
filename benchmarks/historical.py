"""The training set of all flights against the same ASOF joins written by hand in DuckDB.

Both run in one process on the same file, turn by turn, from SQL spine to Arrow table, and the
ratio of the medians is printed. The reference breaks no ties and keeps no order, so it does less.

Run as ``python benchmarks/historical.py``.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from virtualfs import FeatureStore
from virtualfs.cli.demo import _SPINE, _make_project

ROUNDS = 9
_BY_HAND = f"""
SELECT s.*, w.temp, w.wind_speed, w.precip, w.visib,
       w.temp <= 32 AS freezing, w.visib < 3 AS poor_visibility,
       p.year, p.seats, l.dep_delay AS last_delay, l.origin AS last_origin,
       l.distance AS last_distance
FROM ({_SPINE}) AS s
ASOF LEFT JOIN weather AS w ON s.origin = w.origin AND s.event_timestamp >= w.time_hour
LEFT JOIN planes AS p ON s.tailnum = p.tailnum
ASOF LEFT JOIN (
    SELECT tailnum, origin, distance, dep_delay,
           time_hour + to_minutes(minute) + to_minutes(dep_delay) AS departed_at
    FROM flights WHERE dep_delay IS NOT NULL
) AS l ON s.tailnum = l.tailnum AND s.event_timestamp - INTERVAL 1 HOUR >= l.departed_at
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        _make_project(Path(folder))
        with FeatureStore(folder) as store:
            store.apply()
            dataset = store.get_historical_features(_SPINE, "departure_delay")
            cursor = store.warehouse().connection.con.cursor()
            runs = {
                "by hand": lambda: cursor.execute(_BY_HAND).to_arrow_table(),
                "virtualfs": dataset.to_pyarrow,
            }
            times: dict[str, list[float]] = {name: [] for name in runs}
            for _ in range(ROUNDS + 1):
                for name, run in runs.items():
                    started = time.perf_counter()
                    table = run()
                    times[name].append(time.perf_counter() - started)
                    assert table.num_rows == 336_776
    medians = {name: statistics.median(found[1:]) for name, found in times.items()}
    for name, median in medians.items():
        print(f"{name:10} {median:.3f} s")
    print(f"ratio      {medians['virtualfs'] / medians['by hand']:.2f}")


if __name__ == "__main__":
    main()
