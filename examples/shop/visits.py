"""Write the shop's visits as a lake of Parquet files, a folder for each day of 2024.

``python visits.py visits``. The numbers are made up, the same at every run.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CUSTOMERS, A_DAY = 1500, 400


def main(folder: Path) -> None:
    """Write the files."""
    chance = np.random.default_rng(2024)
    for number in range(366):
        day = datetime(2024, 1, 1) + timedelta(days=number)
        seconds = np.sort(chance.integers(0, 86_400, A_DAY))
        table = pa.table(
            {
                "customer_id": chance.integers(1, CUSTOMERS + 1, A_DAY),
                "visited_at": pa.array(np.datetime64(day, "us") + seconds.astype("timedelta64[s]")),
                "pages": chance.integers(1, 30, A_DAY),
            }
        )
        place = folder / f"day={day:%Y-%m-%d}"
        place.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, place / "visits.parquet")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
