"""PostgreSQL as it is met in companies: roles that may only read, poolers, timeouts, indexes."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import ClassVar

import psycopg
import pyarrow as pa
import pytest

import virtualfs as vfs
from tests.warehouses import config, open_postgres
from virtualfs.testing.conformance import WarehouseConformance
from virtualfs.testing.house import ANSWER, NOON, PLAIN, as_spine, ask, judge, make
from virtualfs.testing.strategies import batch
from virtualfs.testing.window_cases import ask_windows, judge_windows, window_batch


class TestReader(WarehouseConformance):
    """The whole suite again, as the role that may only read: the spine goes in as arrays."""

    seeds: ClassVar[range] = range(6)
    window_seeds: ClassVar[range] = range(3)
    computed_seeds: ClassVar[range] = range(2)

    @pytest.fixture
    def house(self, reader_house):
        no = "a role that may only read makes no tables"
        reader_house.gaps = {"table": no, "expr": "Ibis makes memtables as temporary tables"}
        return reader_house


def test_a_reader_gets_its_spine_in_by_arrays_and_nothing_else(reader_house):
    ds = ask(reader_house, PLAIN)
    assert "unnest($1::BIGINT[]" in ds.sql()
    assert "TEMPORARY" not in ds.sql()
    spine = as_spine(reader_house, PLAIN.spine_table(), "sql")
    assert ask(reader_house, PLAIN, spine).sql().count("FROM spine") == 1  # evaluated once
    with pytest.raises(vfs.UnsupportedByWarehouseError, match="without temporary tables"):
        ds.to_table("mine")


@pytest.mark.parametrize("setting", ["default_transaction_read_only%3Don"])
def test_a_session_that_is_read_only(postgres, tmp_path, setting):
    url = f"{postgres}{'&' if '?' in postgres else '?'}options=-c%20{setting}"
    with open_postgres(tmp_path, url, postgres) as house:
        assert judge(PLAIN, ask(house, PLAIN).to_pyarrow()) == ANSWER
        spine = as_spine(house, PLAIN.spine_table(), "sql")
        assert judge(PLAIN, ask(house, PLAIN, spine).to_pyarrow_batches(2).read_all()) == ANSWER
        answer = house.store.get_features(
            [PLAIN.selection("source")], [{"spine_place": "12", "spine_number": 3}], as_of=NOON
        )
        assert answer.to_list()[0]["word"] == "new"


def test_application_name_and_statement_timeout(postgres, tmp_path):
    settings = {"url": postgres, "statement_timeout": "200ms"}
    with vfs.FeatureStore(config(tmp_path, warehouses={"default": settings})) as store:
        with store.warehouse().session() as session:
            row = session.query(
                "SELECT current_setting('application_name') AS a, "
                "current_setting('statement_timeout') AS t",
                {},
            ).to_pylist()
            assert row == [{"a": "virtualfs", "t": "200ms"}]
        with (
            pytest.raises(vfs.WarehouseError, match="statement_timeout in the warehouse's section"),
            store.warehouse().session() as session,
        ):
            session.query("SELECT pg_sleep(5)::text AS x", {})
        store.warehouse().ping()  # and it goes on


@pytest.mark.parametrize("key", ["k", 'Key "Col" (1)'])
def test_the_index_is_used_where_it_is_worth_it(key, postgres, tmp_path):
    quoted = '"' + key.replace('"', '""') + '"'
    with open_postgres(tmp_path, postgres, postgres) as house:
        house.admin.execute(
            "DROP TABLE IF EXISTS source; CREATE TABLE source AS "
            f"SELECT (n % 500)::text AS {quoted}, "
            "timestamp '2024-01-01' + n * interval '1 minute' AS at, n AS x "
            "FROM generate_series(1, 20000) n; ANALYZE source"
        )
        view = vfs.FeatureView(
            "v", source=vfs.Source("s", table="source", event_timestamp="at"),
            entities=[vfs.Entity("e", {key: "string"})], features=["x"],
        )  # fmt: skip
        spine = pa.table({key: ["7", "8", None], "event_timestamp": [NOON] * 3})
        ds = house.store.get_historical_features(spine, [view])
        swept = ds.to_pyarrow()
        assert "sweep" in ds.explain(engine=False)
        (advice,) = house.store.check([view]).advice
        assert advice == f'CREATE INDEX CONCURRENTLY ON "source" ({quoted}, "at");'
        house.admin.execute(advice)
        house.admin.execute("ANALYZE source")
        house.store.warehouse()._known.clear()
        ds = house.store.get_historical_features(spine, [view])
        text = ds.explain()
        assert "index look-up per spine row" in text
        assert "Index Scan" in text
        assert ds.to_pyarrow().equals(swept)
        assert house.store.check([view]).advice == ()
        wide = pa.table({key: ["7"] * 9000, "event_timestamp": [NOON] * 9000})
        ds = house.store.get_historical_features(wide, [view])
        assert "sweep" in ds.explain(engine=False)
        online = house.store.get_features([view], [{key: "7"}, {key: "x"}], as_of=NOON)
        assert [row["x"] for row in online.to_list()] == [swept["x"][0].as_py(), None]


@pytest.mark.parametrize("seed", range(30))
def test_looking_up_by_index_agrees_with_the_oracle(postgres_house, seed, monkeypatch):
    monkeypatch.setattr("virtualfs.compiler.strategy._few_seeks", lambda _: True)
    case = batch(seed, 60, postgres_house.domain)
    if case.event is None or case.valid_to:
        pytest.skip("no look-ups for static and SCD2 views")
    postgres_house.put("source", case.source_table())
    keys = ", ".join(f'"{key}"' for key in (*case.join_keys, case.event))
    postgres_house.admin.execute(f"CREATE INDEX ON source ({keys}); ANALYZE source")
    view = case.selection("source")
    ds = postgres_house.store.get_historical_features(
        case.spine_table(), [view], late_data=case.late_data, timestamp="t"
    )
    naive_elsewhere = case.timezone != "UTC" and case.event_kind != "zoned"
    assert ("LATERAL" in ds.sql()) != naive_elsewhere
    judge(case, ds.to_pyarrow())


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_windows_with_and_without_an_index_agree_with_the_oracle(
    postgres_house, seed, indexed, monkeypatch
):
    monkeypatch.setattr("virtualfs.compiler.strategy._few_pairs", lambda *_: True)
    monkeypatch.setattr(postgres_house, "indexed", False)
    case = window_batch(seed, 60, postgres_house)
    ds = ask_windows(postgres_house, case)
    if indexed:
        postgres_house.admin.execute('CREATE INDEX ON source ("group", place, happened)')
        postgres_house.store.warehouse()._known.clear()
        ds = postgres_house.store.get_historical_features(
            case.spine_table(), [case.view("source")], case.late_data, timestamp="t"
        )
    naive_elsewhere = case.timezone != "UTC" and case.event_kind != "zoned"
    assert ("LATERAL" in ds.sql()) == (indexed and not naive_elsewhere)
    judge_windows(case, ds.to_pyarrow())


# -- a pooler in transaction mode


class Pooler:
    """A pooler in transaction mode, as PgBouncer is: each transaction gets the next server.

    It speaks just enough of the protocol to see where a transaction ends, and gives the same client
    another server connection after each. What a client left on one is not on the next.
    """

    def __init__(self, url: str, servers: int = 2) -> None:
        with psycopg.connect(url) as probe:
            self._host, self._port = probe.info.host, probe.info.port
        self._servers = servers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.switches = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self, client: socket.socket) -> None:
        startup = read_startup(client)
        servers = [self._connect(startup) for _ in range(self._servers)]
        for data in servers[0][1]:
            client.sendall(data)
        number = 0
        with client, selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ)
            for server, _ in servers:
                selector.register(server, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    current = servers[number][0]
                    data = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                    if not data:
                        for server, _ in servers:
                            server.close()
                        return
                    if key.fileobj is client:
                        current.sendall(data)
                    else:
                        client.sendall(data)
                        # ReadyForQuery, idle: the transaction is over.
                        if data.endswith(b"Z\x00\x00\x00\x05I"):
                            number = (number + 1) % len(servers)
                            self.switches += 1

    def _connect(self, startup: bytes) -> tuple[socket.socket, list[bytes]]:
        if self._host.startswith("/"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{self._host}/.s.PGSQL.{self._port}")
        else:
            server = socket.create_connection((self._host, self._port))
        server.sendall(startup)
        answer = b""
        while not answer.endswith(b"Z\x00\x00\x00\x05I"):
            answer += server.recv(1 << 16)
        return server, [answer]


def read_startup(client: socket.socket) -> bytes:
    while True:
        (length,) = struct.unpack("!i", client.recv(4, socket.MSG_WAITALL))
        body = client.recv(length - 4, socket.MSG_WAITALL)
        (code,) = struct.unpack("!i", body[:4])
        if code in (80877103, 80877104):  # SSL, GSS: no
            client.sendall(b"N")
            continue
        return struct.pack("!i", length) + body


@contextmanager
def pooled(url: str) -> Iterator[tuple[str, Pooler]]:
    pooler = Pooler(url)
    given = psycopg.conninfo.conninfo_to_dict(url)
    try:
        yield f"postgresql://{given['user']}@127.0.0.1:{pooler.port}/{given['dbname']}", pooler
    finally:
        pooler.close()


def test_through_a_pooler_in_transaction_mode(postgres, tmp_path):
    with pooled(postgres) as (url, pooler), open_postgres(tmp_path, url, postgres) as house:
        for seed in range(6):
            case = batch(seed, 40, house.domain)
            judge(case, ask(house, case).to_pyarrow())
        spine = as_spine(house, PLAIN.spine_table(), "sql")
        assert judge(PLAIN, ask(house, PLAIN, spine).to_pyarrow()) == ANSWER
        view = make(house, [{"k": "a", "at": NOON, "x": 1}])
        for _ in range(3):
            online = house.store.get_features([view], [{"k": "a"}], as_of=NOON)
            assert online.to_list() == [{"k": "a", "x": 1}]
        assert pooler.switches > 20


def test_no_state_is_left_on_a_server_connection(postgres, tmp_path):
    with open_postgres(tmp_path, postgres, postgres) as house:
        ask(house, PLAIN).to_pyarrow()
        with house.store.warehouse()._pool.connection() as connection:
            assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (
                0,
            )
            left = connection.execute(
                "SELECT relname FROM pg_class WHERE relpersistence = 't' AND "
                "relnamespace = pg_my_temp_schema()"
            ).fetchall()
            assert left == []
            changed = connection.execute(
                "SELECT name FROM pg_settings WHERE source = 'session' "
                "AND name NOT LIKE 'transaction%'"
            ).fetchall()
            assert changed == []


def test_a_wrong_password_or_host_is_said_at_once(tmp_path):
    settings = {"url": "postgresql://ann:s3cret@127.0.0.1:1/nowhere"}
    with vfs.FeatureStore(config(tmp_path, warehouses={"default": settings})) as store:
        with pytest.raises(vfs.WarehouseError, match="PostgreSQL: ") as caught:
            store.warehouse()
        assert "s3cret" not in str(caught.value)


def test_names_that_postgres_would_cut_off_are_refused(postgres_house):
    view = make(postgres_house, [{"k": "a", "at": NOON, "x": 1}])
    spine = pa.table({"k": ["a"], "event_timestamp": [NOON]})
    named = view.with_name("n" * 70)
    with pytest.raises(vfs.SpineError, match="63 bytes"):
        postgres_house.store.get_historical_features(
            spine, [named], full_feature_names=True
        ).to_pyarrow()


@pytest.mark.parametrize("timezone", ["UTC", "America/New_York"])
def test_a_constraint_spares_the_ranking_only_where_it_says_so(postgres_house, timezone):
    # 02:30 did not exist on that day in New York and is read as 03:30: one instant, two rows.
    rows = [
        {"k": "a", "at": datetime(2024, 3, 10, 2, 30), "x": 1},
        {"k": "a", "at": datetime(2024, 3, 10, 3, 30), "x": 2},
    ]
    view = make(postgres_house, rows, timezone=timezone)
    postgres_house.admin.execute("CREATE UNIQUE INDEX ON source (k, at)")
    postgres_house.store.warehouse()._known.clear()
    spine = pa.table({"k": ["a", "b"], "event_timestamp": [NOON] * 2})
    ds = postgres_house.store.get_historical_features(spine, [view])
    assert ("ROW_NUMBER" not in ds.sql()) == (timezone == "UTC")
    assert "unique" in ds.explain(engine=False)
    out = ds.to_pyarrow()
    assert out.num_rows == 2
    assert out["x"][0].as_py() in ((2,) if timezone == "UTC" else (1, 2))
