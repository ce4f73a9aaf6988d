"""One store in many processes, threads and loops: each answer is its own key's, in every one."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import pickle
import random
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import httpx
import ibis
import psycopg
import pyarrow as pa
import pytest

import virtualfs as vfs
from tests.serving.test_deployments import free_port

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    # Python 3.12 warns of forks with threads, which is what is tested here.
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),
]

KEYS = 500
USER = vfs.Entity("user", {"id": "int64"})
ROWS = "SELECT i AS id, i * 10 AS x, TIMESTAMP '2024-01-01' AS seen FROM range(1, 501) r(i)"


def view(table: str = "t") -> vfs.FeatureView:
    source = vfs.Source("t", table=table, event_timestamp="seen")
    return vfs.FeatureView("v", source=source, entities=[USER], features=["x"], freshness="1h")


@contextmanager
def opened(engine: str, folder: Path, cache: str, postgres: str) -> Iterator[vfs.FeatureStore]:
    """Open a store on a warehouse of 500 keys, of which the value is ten times the key."""
    fields: dict[str, Any] = {
        "project": f"p{uuid4().hex}", "folder": folder, "clock": "2024-01-02T00:00:00Z",
        "cache": {"url": cache},
    }  # fmt: skip
    table, connections = "t", None
    if engine == "postgres":
        table = f"t_{uuid4().hex}"
        with psycopg.connect(postgres, autocommit=True) as admin:
            admin.execute(
                f"CREATE TABLE {table} AS SELECT i::bigint AS id, i * 10 AS x, "
                "TIMESTAMP '2024-01-01' AS seen FROM generate_series(1, 500) i"
            )
        fields["warehouses"] = {"default": {"url": postgres}}
    elif engine == "duckdb":
        with duckdb.connect(str(folder / "w.duckdb")) as connection:
            connection.execute(f"CREATE TABLE t AS {ROWS}")
        fields["warehouses"] = {"default": {"url": "duckdb://w.duckdb"}}
    elif engine == "sqlite":
        import sqlite3

        with sqlite3.connect(folder / "w.db") as connection:
            connection.execute("CREATE TABLE t (id BIGINT, x BIGINT, seen TIMESTAMP)")
            rows = [(i, i * 10, "2024-01-01 00:00:00") for i in range(1, KEYS + 1)]
            connection.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
        fields["warehouses"] = {"default": {"url": "sqlite://w.db"}}
    else:
        connection = ibis.duckdb.connect()
        connection.raw_sql(f"CREATE TABLE t AS {ROWS}")
        connections = {"default": connection}
    with vfs.FeatureStore(vfs.Config(**fields), connections=connections) as store:
        store.apply([view(table)])
        yield store
    if engine == "postgres":
        with psycopg.connect(postgres, autocommit=True) as admin:
            admin.execute(f"DROP TABLE {table}")


def in_child(work: Callable[[], Any], seconds: float = 60) -> Any:
    """Return what work gives in a forked child; raise if it hangs."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            told = work()
        except BaseException as error:  # noqa: BLE001 - the parent is told
            told = f"{type(error).__name__}: {error}"
        os.write(writable, json.dumps(told).encode())
        os._exit(0)
    os.close(writable)
    try:
        if not select.select([readable], [], [], seconds)[0]:
            os.kill(child, signal.SIGKILL)
            return "it hangs"
        return json.loads(os.read(readable, 65_536))
    finally:
        os.close(readable)
        os.waitpid(child, 0)


def wrong_reads(store: vfs.FeatureStore, seed: int, reads: int = 60) -> list[Any]:
    """Return the reads of random keys that gave another value than the key's own."""
    chance, wrong = random.Random(seed), []
    for _ in range(reads):
        keys = [chance.randint(1, KEYS) for _ in range(chance.choice((1, 5)))]
        found = store.get_online_features(["v:x"], {"id": keys}).to_dict()["x"]
        if found != [key * 10 for key in keys]:
            wrong.append((keys, found))
    return wrong


@pytest.mark.parametrize("engine", ["duckdb", "handed over", "sqlite", "postgres"])
def test_forked_children_read_their_own_keys(
    engine: str, cache_url: str, tmp_path: Path, postgres: str
) -> None:
    with opened(engine, tmp_path, cache_url, postgres) as store:
        store.materialize(["v"], {"id": [*range(1, 200)]})  # others come from the warehouse
        assert wrong_reads(store, 0) == []
        asyncio.run(store.get_online_features_async(["v:x"], [{"id": 1}]))

        def child(seed: int) -> list[Any]:
            wrong = wrong_reads(store, seed)
            found = asyncio.run(store.get_online_features_async(["v:x"], {"id": [3, 400]}))
            spine = pa.table({"id": [5], "event_timestamp": [datetime(2024, 1, 2)]})
            dataset = store.get_historical_features(spine, ["v:x"])
            return [*wrong, found.to_dict()["x"], *dataset.to_pyarrow()["x"].to_pylist()]

        for seed in (1, 2):
            assert in_child(lambda seed=seed: child(seed)) == [[30, 4000], 50]
        assert in_child(lambda: in_child(lambda: child(3))) == [[30, 4000], 50]
        assert wrong_reads(store, 4) == []  # and the parent goes on


def test_children_of_a_parent_that_reads_meanwhile(
    tmp_path: Path, valkey: str, postgres: str
) -> None:
    with opened("postgres", tmp_path, valkey, postgres) as store:
        store.materialize(["v"], {"id": [*range(1, 300)]})
        over, troubles = threading.Event(), []

        def read(seed: int) -> None:
            while not over.is_set():
                troubles.extend(wrong_reads(store, seed, 5))

        def read_in_loops() -> None:
            async def some() -> None:
                await asyncio.gather(
                    *(store.get_online_features_async(["v:x"], [{"id": n}]) for n in range(1, 20))
                )

            while not over.is_set():
                asyncio.run(some())

        threads = [threading.Thread(target=read, args=[seed]) for seed in range(3)]
        threads.append(threading.Thread(target=read_in_loops))
        for thread in threads:
            thread.start()
        try:
            for seed in range(12):
                assert in_child(lambda seed=seed: wrong_reads(store, seed)) == []
        finally:
            over.set()
            for thread in threads:
                thread.join(30)
        assert troubles == []


def test_a_handed_over_connection_to_a_file_is_refused_in_a_child(tmp_path: Path) -> None:
    connection = ibis.duckdb.connect(tmp_path / "w.duckdb")
    connection.raw_sql(f"CREATE TABLE t AS {ROWS}")
    config = vfs.Config(project="p", folder=tmp_path, clock="2024-01-02T00:00:00Z")
    with vfs.FeatureStore(config, connections={"default": connection}) as store:
        store.apply([view()])
        assert wrong_reads(store, 0, 3) == []
        told = in_child(lambda: wrong_reads(store, 0, 3))
        assert told.startswith("WarehouseError: warehouse 'default': its connection was passed by")
        assert "Open a connection in this process" in told
        assert wrong_reads(store, 0, 3) == []


def test_a_store_is_not_pickled(tmp_path: Path) -> None:
    config = vfs.Config(project="p", folder=tmp_path)
    with (
        vfs.FeatureStore(config) as store,
        pytest.raises(TypeError, match="Open one in the other process: FeatureStore"),
    ):
        pickle.dumps(store)


def read_in_process(folder: str, given: Any) -> None:
    """What a process that was started anew does: it opens a store of its own."""
    with vfs.FeatureStore(folder) as store:
        given.put(wrong_reads(store, 1))


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_processes_of_every_kind_open_a_store(method: str, tmp_path: Path, valkey: str) -> None:
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        connection.execute(f"CREATE TABLE t AS {ROWS}")
    (tmp_path / "virtualfs.toml").write_text(
        f'project = "p{uuid4().hex}"\nclock = "2024-01-02T00:00:00Z"\n[warehouses.default]\n'
        f'url = "duckdb://w.duckdb"\n[cache]\nurl = "{valkey}"\n'
    )
    with vfs.FeatureStore(tmp_path) as store:
        store.apply([view()])
        assert wrong_reads(store, 0, 5) == []
        context = multiprocessing.get_context(method)
        told = context.Queue()
        processes = [
            context.Process(target=read_in_process, args=(str(tmp_path), told)) for _ in range(2)
        ]
        for process in processes:
            process.start()
        assert [told.get(timeout=60) for _ in processes] == [[], []]
        for process in processes:
            process.join(20)
            assert process.exitcode == 0


def test_gunicorn_workers_of_a_preloaded_application(
    tmp_path: Path, valkey: str, postgres: str
) -> None:
    with opened("postgres", tmp_path, valkey, postgres) as store:
        store.materialize(["v"], {"id": [*range(1, 300)]})
        config = store.config.model_dump(mode="json", include={"project", "clock"})
        (tmp_path / "served.py").write_text(
            textwrap.dedent(f"""
            import asyncio, os
            from pathlib import Path
            import virtualfs as vfs
            from virtualfs_graphql.app import SERVER

            store = vfs.FeatureStore(vfs.Config(
                **{config!r}, folder=Path({str(tmp_path)!r}), cache={{"url": {valkey!r}}},
                warehouses={{"default": {{"url": {postgres!r}}}}},
            ))
            store.get_online_features(["v:x"], [{{"id": 1}}, {{"id": 499}}])  # before the fork
            asyncio.run(store.get_online_features_async(["v:x"], [{{"id": 2}}]))
            app = SERVER.asgi(store)
            """)
        )
        port = free_port()
        server = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "gunicorn", "--preload", "--workers", "3",
             "--worker-class", "asgi", "--bind", f"127.0.0.1:{port}", "served:app"],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            wrong = asyncio.run(_ask_served(f"http://127.0.0.1:{port}/graphql"))
        finally:
            server.terminate()
            output = server.communicate(timeout=30)[0]
        assert wrong == [], output[-2000:]


async def _ask_served(url: str) -> list[Any]:
    limits = httpx.Limits(max_keepalive_connections=0)  # each request meets another worker
    async with httpx.AsyncClient(trust_env=False, timeout=30, limits=limits) as client:
        deadline = time.monotonic() + 60
        while True:
            with suppress(httpx.HTTPError):
                await client.post(url, json={"query": "{ project { name } }"})
                break
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
        wrong: list[Any] = []

        async def ask(key: int) -> None:
            query = f"{{ user(id: {key}) {{ v {{ x }} }} }}"
            answer = (await client.post(url, json={"query": query})).json()
            if answer != {"data": {"user": {"v": {"x": key * 10}}}}:
                wrong.append((key, answer))

        chance = random.Random(7)
        for _ in range(20):
            await asyncio.gather(*(ask(chance.randint(1, KEYS)) for _ in range(15)))
        return wrong


def test_threads_with_loops_of_their_own(tmp_path: Path, valkey: str, postgres: str) -> None:
    with opened("duckdb", tmp_path, valkey, postgres) as store:
        troubles: list[Any] = []
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)

        def work(seed: int) -> None:
            chance = random.Random(seed)

            async def one() -> None:
                keys = [chance.randint(1, KEYS) for _ in range(3)]
                found = await store.get_online_features_async(["v:x"], {"id": keys})
                if found.to_dict()["x"] != [key * 10 for key in keys]:
                    troubles.append(keys)

            async def some() -> None:
                await asyncio.gather(*(one() for _ in range(4)))

            try:
                for _ in range(15):
                    asyncio.run(some())
            except BaseException as error:  # noqa: BLE001 - told below
                troubles.append(error)

        threads = [threading.Thread(target=work, args=[seed]) for seed in range(12)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(120)
        finally:
            sys.setswitchinterval(before)
        assert troubles == []
