"""Point-in-time training sets of VirtualFS on DuckDB beside Feast's on its DuckDB offline store.

Both sides get the same rows (Feast as Parquet files, VirtualFS as tables of a DuckDB file), the
same pandas spine, and give an Arrow table. Timed is the call that asks for the training set and
makes that table, nothing before it: a warm-up, then the median of three; one run without a warm-up
at the largest size. Each side is a process of its own, whose peak resident set is printed, imports
and spine included. Rows, NULLs and the sum of all values are compared; what differs is printed.

A view has ten float features and no ttl; events lie within one year, a created timestamp up to an
hour after, and one row in a hundred repeats the key and event timestamp of another and was created
later. Spine rows are drawn over the same keys and year.

Feast's pins conflict with ours, so the first run makes an environment for it (``--env``).

Run as ``python benchmarks/peers.py``; ``--quick`` leaves out all but the two smallest sizes,
``--no-large`` only the largest, and ``--parquet`` has VirtualFS read the Parquet files too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

FEAST = "feast[duckdb]==0.67.*"
FEATURES = [f"f{i}" for i in range(10)]
TIMEOUT = 3600
YEAR_START, YEAR_MICROS = 1_704_067_200_000_000, 365 * 86_400_000_000
HOUR_MICROS = 3_600_000_000


class Size(NamedTuple):
    """One line of the table."""

    spine: int
    rows: int
    views: int
    entities: int = 10_000
    rounds: int = 3


SMALL = [Size(10_000, 1_000_000, 1), Size(100_000, 1_000_000, 1)]
MIDDLE = [Size(100_000, 1_000_000, 5)]
LARGE = [Size(1_000_000, 10_000_000, 1, entities=100_000, rounds=1)]


# -- the data, made in a process of its own so that this one stays small


def make_data(folder: Path, size: Size) -> None:
    import duckdb
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(20240101)

    def times(micros: Any) -> Any:
        return pa.array(micros + YEAR_START).cast(pa.timestamp("us", "UTC"))

    def feature_rows() -> pa.Table:
        tied = size.rows // 100
        first = size.rows - tied
        again = rng.choice(first, tied, replace=False)
        keys, events = (
            rng.integers(size.entities, size=first),
            rng.integers(YEAR_MICROS, size=first),
        )
        created = events + rng.integers(HOUR_MICROS, size=first)
        later = created[again] + rng.integers(1, HOUR_MICROS, size=tied)
        events = np.concatenate([events, events[again]])
        order = np.argsort(events, kind="stable")
        columns = {
            "driver_id": pa.array(np.concatenate([keys, keys[again]])[order]),
            "event_timestamp": times(events[order]),
            "created": times(np.concatenate([created, later])[order]),
        }
        return pa.table(columns | {name: rng.random(size.rows) for name in FEATURES})

    with duckdb.connect(str(folder / "rows.duckdb")) as connection:
        for number in range(size.views):
            path = folder / f"rows_{number}.parquet"
            pq.write_table(feature_rows(), path)
            connection.execute(f"CREATE TABLE rows_{number} AS FROM read_parquet('{path}')")
    spine = {
        "driver_id": rng.integers(size.entities, size=size.spine),
        "event_timestamp": times(rng.integers(YEAR_MICROS, size=size.spine)),
    }
    pq.write_table(pa.table(spine), folder / "spine.parquet")


# -- the two sides, each in a process of its own


def virtualfs_run(folder: Path, size: Size, spine: Any, *, parquet: bool) -> Callable[[], Any]:
    import virtualfs as vfs
    from virtualfs import Config

    url = f"duckdb:///{folder / 'rows.duckdb'}"
    store = vfs.FeatureStore(
        Config(project="bench", folder=folder, warehouses={"default": {"url": url}})
    )
    driver = vfs.Entity("driver", {"driver_id": "int64"})

    def view(number: int) -> vfs.FeatureView:
        path = str(folder / f"rows_{number}.parquet")
        source = vfs.Source(
            f"s{number}",
            **({"path": path} if parquet else {"table": f"rows_{number}"}),
            event_timestamp="event_timestamp",
            created_timestamp="created",
        )
        return vfs.FeatureView(f"v{number}", source=source, entities=[driver], features=FEATURES)

    views = [view(number) for number in range(size.views)]
    return lambda: store.get_historical_features(spine, views, full_feature_names=True).to_pyarrow()


def feast_run(folder: Path, size: Size, spine: Any) -> Callable[[], Any]:
    import feast
    from feast import types

    store = feast.FeatureStore(
        config=feast.RepoConfig(
            project="bench",
            provider="local",
            registry=str(folder / "feast.db"),
            online_store=None,
            offline_store={"type": "duckdb"},
            entity_key_serialization_version=3,
        )
    )
    driver = feast.Entity(name="driver", join_keys=["driver_id"], value_type=feast.ValueType.INT64)

    def view(number: int) -> feast.FeatureView:
        source = feast.FileSource(
            name=f"s{number}",
            path=str(folder / f"rows_{number}.parquet"),
            timestamp_field="event_timestamp",
            created_timestamp_column="created",
        )
        schema = [feast.Field(name=name, dtype=types.Float64) for name in FEATURES]
        return feast.FeatureView(
            name=f"v{number}", entities=[driver], schema=schema, source=source, ttl=timedelta(0)
        )

    views = [view(number) for number in range(size.views)]
    store.apply([driver, *views])
    wanted = [f"v{number}:{name}" for number in range(size.views) for name in FEATURES]
    return lambda: store.get_historical_features(
        entity_df=spine, features=wanted, full_feature_names=True
    ).to_arrow()


def measure(side: str, folder: Path, size: Size, *, parquet: bool) -> dict[str, Any]:
    import pandas as pd
    import pyarrow.compute as pc

    spine = pd.read_parquet(folder / "spine.parquet")
    if side == "feast":
        run = feast_run(folder, size, spine)
    else:
        run = virtualfs_run(folder, size, spine, parquet=parquet)
    times = []
    for _ in range(size.rounds + (size.rounds > 1)):
        table = None  # the last answer is not kept beside the next
        started = time.perf_counter()
        table = run()
        times.append(time.perf_counter() - started)
    peak = peak_megabytes()
    values = [table[name] for name in table.column_names if "__f" in name]
    return {
        "seconds": statistics.median(times[-size.rounds :]),
        "megabytes": peak,
        "rows": table.num_rows,
        "columns": len(values),
        "nulls": sum(column.null_count for column in values),
        "sum": round(sum(pc.sum(column).as_py() or 0.0 for column in values), 3),
    }


def peak_megabytes() -> float:
    """Return this process's peak resident set, which counts in bytes on macOS alone."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def cores() -> int:
    """Return how many cores this process may use, and so its children."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def offer_to_end_first() -> None:
    """Have Linux, if memory runs out, end this process rather than another."""
    score = Path("/proc/self/oom_score_adj")
    if score.exists():
        score.write_text("1000", encoding="ascii")


# -- the process that a person starts


def feast_python(env: Path) -> Path:
    """Return the interpreter of Feast's environment, which is made if there is none."""
    python = env.resolve() / "bin" / "python"
    known = python.exists() and subprocess.run([python, "-c", "import feast"], capture_output=True)
    if not known or known.returncode:
        print(f"installing {FEAST} into {env}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", env], check=True)
        pip = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*pip, FEAST], check=True)
    return python


def ask(python: Path | str, side: str, folder: Path, size: Size, *options: str) -> dict[str, Any]:
    """Run a side in a process of its own; return what it measured, or ``{"failed": why}``."""
    command = [python, Path(__file__).resolve(), "--side", side, "--folder", folder]
    try:
        done = subprocess.run(
            [*command, "--size", ",".join(map(str, size)), *options],
            capture_output=True,
            text=True,
            cwd=folder,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer in {TIMEOUT} s"}
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return {"failed": f"ended by {name}" + " (out of memory?)" * (name == "SIGKILL")}
    if done.returncode:
        return {"failed": f"exit code {done.returncode}: {done.stderr.strip()[-200:]}"}
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def versions(python: Path | str, package: str) -> str:
    """Return a side's version and its DuckDB's."""
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    command = [python, "-c", code, package, "duckdb"]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return f"{found[0]} with DuckDB {found[1]}"


def compare(size: Size, python: Path, options: list[str]) -> list[str]:
    """Measure both sides at one size; return the table's line and remarks."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = ask(sys.executable, "data", folder, size)
        if "failed" in made:
            raise SystemExit(f"the data could not be made: {made['failed']}")
        ours = ask(sys.executable, "virtualfs", folder, size, *options)
        theirs = ask(python, "feast", folder, size)
    cells = [f"{size.spine:,}", f"{size.rows:,}", str(size.views)]
    for what, digits in (("seconds", 2), ("megabytes", 0)):
        pair = [side.get(what) for side in (ours, theirs)]
        cells += ["failed" if value is None else f"{value:,.{digits}f}" for value in pair]
        cells.append("-" if None in pair else f"{pair[1] / pair[0]:.1f}")
    return [line(cells), *remarks(ours, theirs)]


def remarks(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    sides = {"VirtualFS": ours, "Feast": theirs}
    failed = [f"  {name}: {side['failed']}" for name, side in sides.items() if "failed" in side]
    if failed:
        return failed
    return [
        f"  {what} differ: VirtualFS {ours[what]:,}, Feast {theirs[what]:,}"
        for what in ("rows", "columns", "nulls", "sum")
        if ours[what] != theirs[what]
    ]


def line(cells: list[str]) -> str:
    widths = (9, 12, 7, 13, 9, 7, 14, 10, 7)
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="only the two smallest sizes")
    parser.add_argument(
        "--large", action=argparse.BooleanOptionalAction, help="the largest size, unless --quick"
    )
    parser.add_argument("--parquet", action="store_true", help="VirtualFS reads the Parquet files")
    parser.add_argument("--env", type=Path, default=Path(__file__).parent / ".peers")
    for name in ("--side", "--folder", "--size"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    return parser.parse_args()


def be_side(given: argparse.Namespace) -> None:
    offer_to_end_first()
    folder, size = Path(given.folder), Size(*map(int, given.size.split(",")))
    answer: dict[str, Any] = {}
    try:
        if given.side == "data":
            make_data(folder, size)
        else:
            answer = measure(given.side, folder, size, parquet=given.parquet)
    except Exception as error:  # noqa: BLE001 - the table says why a side failed, and goes on
        answer["failed"] = f"{type(error).__name__}: {error}".partition("\n")[0]
    print(json.dumps(answer))


def main() -> None:
    given = arguments()
    if given.side:
        be_side(given)
        return
    python = feast_python(given.env)
    large = given.large if given.large is not None else not given.quick
    sizes = SMALL + MIDDLE * (not given.quick) + LARGE * large
    print(f"VirtualFS {versions(sys.executable, 'virtualfs')}; Feast {versions(python, 'feast')}")
    print(f"cores: {cores()}; ratios are Feast / VirtualFS")
    heads = ["spine", "rows", "views", "VirtualFS s", "Feast s", "ratio"]
    print(line([*heads, "VirtualFS MB", "Feast MB", "ratio"]))
    for size in sizes:
        print(*compare(size, python, ["--parquet"] * given.parquet), sep="\n", flush=True)


if __name__ == "__main__":
    main()
