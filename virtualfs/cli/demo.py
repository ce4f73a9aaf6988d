"""The demonstration: the product's main job on real flights."""

from __future__ import annotations

import runpy
import shutil
import sys
import time
from pathlib import Path

import click

from virtualfs.cli.output import echo, echo_table
from virtualfs.cli.project import _is_project_file, example_folder
from virtualfs.errors import ConfigError, VirtualFSError

_SPINE = """
SELECT carrier, flight, tailnum, origin, dest, dep_delay,
       time_hour + to_minutes(minute) AS event_timestamp
FROM flights
ORDER BY event_timestamp, origin, carrier, flight
"""
_SHOWN = [
    "event_timestamp",
    "origin",
    "tailnum",
    "dep_delay",
    "temp",
    "wind_speed",
    "freezing",
    "seats",
    "last_delay",
]
_AIRPORTS = [{"origin": "EWR"}, {"origin": "JFK"}, {"origin": "LGA"}]


@click.command("demo")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("virtualfs-demo"),
    show_default=True,
    help="Folder of the demonstration's project.",
)
@click.option("--serve", "with_server", is_flag=True, help="Then serve the GraphQL API.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to serve on.")
def demo_command(folder: Path, with_server: bool, port: int | None) -> None:
    """See the main job done on real data: 336,776 flights that left New York in 2013."""
    from virtualfs.store import FeatureStore

    if port is not None and not with_server:
        raise click.UsageError("--port is for --serve; pass both")
    _head(f"A project in {folder}, over a DuckDB warehouse with three tables")
    _make_project(folder)
    with FeatureStore(folder) as store:
        _head("Plan and apply: definitions are metadata, no data is copied")
        plan = store.plan(prune=True)
        echo(str(plan))
        revision = store.apply(plan)
        echo(f"Registry at revision {revision.number}: {store.registry.database.location}")

        _head("A point-in-time training set: every flight, as known at its scheduled departure")
        dataset = store.get_historical_features(_SPINE, "departure_delay")
        echo(dataset.sql(), dim=True)
        target = folder / "training.parquet"
        started = time.perf_counter()
        dataset.to_parquet(target, overwrite=True)
        seconds = time.perf_counter() - started
        _show_rows(target)
        size = target.stat().st_size / 1e6
        echo(f"{_count(target):,} rows in {seconds:.1f} s, written to {target} ({size:.0f} MB)")

        _head(f"Online, as of {store.now():%Y-%m-%d %H:%M} UTC (the project sets the clock)")
        _online(store)

        if with_server:
            _head("The GraphQL API: try these")
            for query in _QUERIES:
                echo(f"  {query}")
            _next_steps(folder)
            from virtualfs.cli.server import serve

            serve(store, port=port)
            return
    _next_steps(folder)


_QUERIES = (
    '{ airport(origin: "JFK") { airportWeather { temp freezing _meta { status } } } }',
    '{ onlineFeatures(features: ["airport_weather:temp"], entities: [{origin: "LGA"}]) { rows } }',
    "{ featureViews { edges { node { name description features { name dtype } } } } }",
)


def _head(text: str) -> None:
    echo(f"\n== {text}", bold=True)


def _make_project(folder: Path) -> None:
    source = example_folder("flights")
    if folder.exists() and any(folder.iterdir()) and not (folder / "virtualfs.toml").exists():
        raise ConfigError(f"{folder} is not empty; choose another with --dir")
    for path in sorted(source.rglob("*")):
        if _is_project_file(path) and ".duckdb" not in path.name:
            target = folder / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.suffix in (".py", ".toml") and target.exists():
                if target.read_bytes() != path.read_bytes():
                    echo(f"kept {target}, which was changed; delete it to have it as it was")
                continue
            shutil.copyfile(path, target)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        made = runpy.run_path(str(folder / "load.py"))["load"](folder)
    finally:
        sys.dont_write_bytecode = before
    echo(f"Loaded flights, weather and planes into {made} ({made.stat().st_size / 1e6:.0f} MB)")


def _show_rows(path: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=_SHOWN).slice(150_000, 6)
    echo_table(_SHOWN, [list(row.values()) for row in table.to_pylist()])


def _count(path: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.ParquetFile(path).metadata.num_rows)


def _online(store: object) -> None:
    from virtualfs.store import FeatureStore

    assert isinstance(store, FeatureStore)
    features = [f"airport_weather:{name}" for name in ("temp", "wind_speed", "visib", "freezing")]
    answers, times = [], []
    for _ in range(2):
        started = time.perf_counter()
        answers.append(store.get_online_features(features, _AIRPORTS))
        times.append((time.perf_counter() - started) * 1e3)
    first, second = answers
    echo_table(list(first.to_dict()), [list(row.values()) for row in first.to_list()])
    import pyarrow as pa

    spine = pa.Table.from_pylist([{**key, "event_timestamp": store.now()} for key in _AIRPORTS])
    history = store.get_historical_features(spine, features).to_pyarrow()
    expected = history.drop_columns(["event_timestamp"]).to_pylist()
    if not first.to_list() == second.to_list() == expected:
        raise VirtualFSError("the online answers differ from the point-in-time answer; report this")
    echo(
        f"from the warehouse {times[0]:.1f} ms, from the cache {times[1]:.1f} ms; "
        "both equal the point-in-time answer at that instant"
    )


def _next_steps(folder: Path) -> None:
    _head("Next")
    echo(
        f"  cd {folder} && virtualfs list   (look around; features.py is the project)\n"
        "  virtualfs demo --serve   (the same with the GraphQL API)\n\n"
        "For your own warehouse:\n"
        "  virtualfs init my-features && cd my-features\n"
        '  (in virtualfs.toml)  url = "duckdb:///path/to/warehouse.duckdb"\n'
        "  virtualfs register TABLE --entity NAME --join-key COLUMN --event-timestamp COLUMN"
    )
