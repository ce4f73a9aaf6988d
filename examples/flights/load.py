"""Load the flights into a DuckDB file, as a warehouse that exists before any feature store.

Run as ``python load.py`` in this folder; makes ``data/flights.duckdb``.
"""

from pathlib import Path

import duckdb


def load(folder: Path) -> Path:
    """Make the warehouse in `folder`/data and return its path; one that stands is replaced."""
    data = folder / "data"
    target, part = data / "flights.duckdb", data / "flights.duckdb.part"
    part.unlink(missing_ok=True)
    with duckdb.connect(str(part)) as connection:
        for table in ("flights", "weather", "planes"):
            path = str(data / f"{table}.parquet").replace("'", "''")
            connection.execute(f"CREATE TABLE {table} AS FROM read_parquet('{path}')")
    part.replace(target)
    return target


if __name__ == "__main__":
    print(load(Path(__file__).parent))
