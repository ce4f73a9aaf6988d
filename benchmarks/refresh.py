"""The catalog of a server that is busy changes, and changes: what requests notice of it.

A server with 1,000 views of 10 features answers look-ups that `wrk` sends over 16 connections;
then the same while its schema is built anew without a pause, which no catalog ever needs. Printed
are how long one build takes, the medians and the 99th percentiles of both, with ratios, and how
much memory the process has after so many builds.

Run as ``python benchmarks/refresh.py``. Needs wrk.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from serving import _LUA, free_port, measured

VIEWS = 1_000


def serve(folder: Path, listen: int, views: int) -> None:
    """Serve, and rebuild without a pause while there is a file called `busy`."""
    import duckdb

    import virtualfs as vfs
    from virtualfs_graphql import app

    path = folder / "w.duckdb"
    columns = ", ".join(f"random() AS f{n}" for n in range(10))
    with duckdb.connect(str(path)) as con:
        con.execute(
            f"CREATE TABLE t AS SELECT range AS k, TIMESTAMP '2024-01-01' AS at, {columns} "
            "FROM range(1000)"
        )
    config = vfs.Config(
        project="p", folder=folder, warehouses={"default": {"url": f"duckdb://{path}"}}
    )
    source = vfs.Source("t", table="t", event_timestamp="at")
    entities = [vfs.Entity(f"e{n}", {"k": "int64"}) for n in range(views // 10)]
    made: list[Any] = [
        vfs.FeatureView(
            f"view_{n}", source=source, entities=[entities[n // 10]], freshness="1h",
            features=[vfs.Feature(f"g{m}_{n}", f"f{m}") for m in range(10)],
        )
        for n in range(views)
    ]  # fmt: skip
    made += [vfs.FeatureService(f"s{n}", made[10 * n : 10 * n + 3]) for n in range(views // 10)]
    with vfs.FeatureStore(config) as store:
        store.apply(made)
        store.materialize(["view_0"])
        newest = store.registry.newest_revision
        build, builds = app._served, []

        def timed(*arguments: Any) -> Any:
            started = time.perf_counter()
            found = build(*arguments)
            builds.append(time.perf_counter() - started)
            memory = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf(
                "SC_PAGESIZE"
            )
            (folder / "builds").write_text(json.dumps([builds, memory]))
            return found

        app._served = timed
        app.CHECK_SECONDS = 0.05
        store.registry.newest_revision = lambda: (  # type: ignore[method-assign]
            -1 if (folder / "busy").exists() else newest()
        )
        app.SERVER.serve(store, "127.0.0.1", listen)


def main(views: int, seconds: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lua, bodies, log = folder / "bodies.lua", folder / "bodies.jsonl", folder / "log"
        lua.write_text(_LUA)
        query = "query($k: [E0Key!]!) { e0s(keys: $k) { view0 { g00 g10 g20 } } }"
        lines = [
            json.dumps({"query": query, "variables": {"k": [{"k": n}, {"k": n + 1}]}})
            for n in range(500)
        ]
        bodies.write_text("\n".join(lines))
        port = free_port()
        command = [sys.executable, "-W", "ignore", __file__, "--serve", "--folder", temporary,
                   "--port", str(port), "--views", str(views)]  # fmt: skip
        with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as server:
            try:
                for _ in range(600):
                    with contextlib.suppress(Exception):
                        measured("typed", port, 4, bodies, 1, lua)
                        break
                    assert server.poll() is None, log.read_text()[-2000:]
                    time.sleep(0.5)
                quiet = measured("typed", port, 16, bodies, seconds, lua)
                (folder / "busy").touch()
                found = []
                memory = []
                for _ in range(3):
                    found.append(measured("typed", port, 16, bodies, seconds, lua))
                    memory.append(json.loads((folder / "builds").read_text())[1])
                builds = json.loads((folder / "builds").read_text())[0]
            finally:
                server.send_signal(signal.SIGTERM)
                server.wait(20)
    busy = [statistics.median(column) for column in zip(*found, strict=True)]
    print(f"{views:,} views x 10: the first build {builds[0]:.2f} s, of {len(builds)} under load "
          f"the median {statistics.median(builds):.2f} s")  # fmt: skip
    for name, (rate, p50, p99) in (("quiet", quiet), ("building", busy)):
        print(f"{name:>9}: {rate:>6.0f} req/s, p50 {p50:6.2f} ms, p99 {p99:6.2f} ms")
    print(f"    ratio: {busy[0] / quiet[0]:6.2f}, p50 {busy[1] / quiet[1]:6.2f}, "
          f"p99 {busy[2] / quiet[2]:6.2f}")  # fmt: skip
    print("memory after each third: " + ", ".join(f"{item / 1e6:,.0f} MB" for item in memory))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--views", type=int, default=VIEWS)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--port", type=int)
    given = parser.parse_args()
    if given.serve:
        serve(given.folder, given.port, given.views)
    else:
        main(given.views, given.seconds)
