"""What a server bounds before it works: time, connections, cost, names, readers, shutdown."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import duckdb
import httpx
import ibis
import pytest

import virtualfs as vfs
from tests.graphql_api.test_operations import COMMAND, free_port
from virtualfs.config import Limits, Server
from virtualfs_graphql import app as application
from virtualfs_graphql.app import SERVER
from virtualfs_graphql.tokens import Tokens

SETTINGS = """
project = "bounds"
[warehouses.default]
url = "duckdb://w.duckdb"
[server]
shutdown_grace = "4s"
[server.limits]
timeout = "2s"
connections = 20
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The port of a real server with tight bounds."""
    folder = tmp_path_factory.mktemp("bounds")
    with duckdb.connect(str(folder / "w.duckdb")) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1::BIGINT AS id, 10 AS x")
    (folder / "virtualfs.toml").write_text(SETTINGS)
    with vfs.FeatureStore(folder) as store:
        store.apply([view()])
    process, port = start(folder)
    yield port
    process.terminate()
    process.wait(20)


def view() -> vfs.FeatureView:
    source = vfs.Source("t", table="t")
    entity = vfs.Entity("user", {"id": "int64"})
    return vfs.FeatureView("v", source=source, entities=[entity], features=["x"])


def start(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    port = free_port()
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", str(port)], cwd=folder,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False)
            return process, port
        except httpx.HTTPError:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.1)


def closed_within(connection: socket.socket, seconds: float, feed: bytes = b"") -> bytes:
    """Return what came until the server closed, feeding it slowly; fail if it does not."""
    connection.settimeout(0.2)
    until, got = time.monotonic() + seconds, b""
    while time.monotonic() < until:
        try:
            if feed:
                connection.sendall(feed)
            piece = connection.recv(4096)
            if not piece:
                return got
            got += piece
        except TimeoutError:
            continue
        except OSError:
            return got
    raise AssertionError(f"still open after {seconds} s, got {got!r}")


HEAD = b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_a_body_that_dribbles_is_answered_and_cut(server: int) -> None:
    with socket.create_connection(("127.0.0.1", server)) as connection:
        connection.sendall(HEAD + b"Content-Length: 900\r\n\r\n{")
        got = closed_within(connection, 8, b" ")
    assert got.startswith(b"HTTP/1.1 408")
    assert b"the request did not arrive within 2s" in got


@pytest.mark.parametrize("first", [b"", b"POST /gra", HEAD])
def test_a_head_that_never_ends_is_cut(server: int, first: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server)) as connection:
        connection.sendall(first)
        assert closed_within(connection, 8) == b""


def test_one_client_has_so_many_connections(server: int) -> None:
    held = [socket.create_connection(("127.0.0.1", server)) for _ in range(20)]
    try:
        time.sleep(0.3)
        with socket.create_connection(("127.0.0.1", server)) as more:
            assert b"503 Service Unavailable" in closed_within(more, 5)
    finally:
        for connection in held:
            connection.close()
    time.sleep(0.3)
    assert ask(server).status_code == 200


def ask(port: int, **headers: str) -> httpx.Response:
    return httpx.post(
        f"http://127.0.0.1:{port}/graphql", json={"query": "{ user(id: 1) { v { x } } }"},
        headers=headers, trust_env=False,
    )  # fmt: skip


def test_names_that_are_not_this_machines_are_refused(server: int) -> None:
    for name in ("evil.example.org", "127.0.0.1.evil.example", f"10.0.0.7:{server}"):
        answer = ask(server, host=name)
        assert answer.status_code == 421
        assert "10" not in answer.json().get("data", "")
    for name in ("localhost", f"localhost:{server}", f"127.0.0.1:{server}", "[::1]:80"):
        assert ask(server, host=name).json() == {"data": {"user": {"v": {"x": 10}}}}


def test_answers_are_nobody_elses_to_keep(server: int) -> None:
    url = f"http://127.0.0.1:{server}"
    for answer in (
        ask(server),
        *(
            httpx.get(f"{url}{path}", trust_env=False)
            for path in ("/healthz", "/readyz", "/metrics", "/query", "/nothing")
        ),
        httpx.get(f"{url}/graphql", headers={"accept": "text/html"}, trust_env=False),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        if "text/html" in answer.headers["content-type"]:
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_a_signal_ends_the_server_in_time(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1::BIGINT AS id, 10 AS x")
    (tmp_path / "virtualfs.toml").write_text(SETTINGS.replace('timeout = "2s"', 'timeout = "5min"'))
    process, port = start(tmp_path)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(HEAD + b"Content-Length: 900\r\n\r\n{")  # which never ends
        time.sleep(0.5)
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(15)
    assert time.monotonic() - started < 6


@pytest.fixture
def make(tmp_path: Path) -> Any:
    opened: list[Any] = []

    def made(**server: Any) -> vfs.FeatureStore:
        connection = ibis.duckdb.connect()
        connection.con.execute("CREATE TABLE t AS SELECT range AS id, range AS x FROM range(9)")
        config = vfs.Config(project="b", folder=tmp_path, server=server)
        store = vfs.FeatureStore(config, connections={"default": connection})
        service = vfs.FeatureService("svc", features=[view()])
        store.apply([view(), service])
        opened.append((store, connection))
        return store

    yield made
    for store, connection in opened:
        store.close()
        connection.disconnect()


def sent(app: Any, body: Any, *, headers: Any = (), base: str = "http://test") -> Any:
    async def main() -> Any:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=base, timeout=60) as client:
            return await client.post("/graphql", json=body, headers=headers)

    return asyncio.run(main())


QUERY = {"query": "{ user(id: 1) { v { x } } }"}


def test_reads_beyond_loopback_need_a_token(make: Any) -> None:
    store = make(token="secret")
    app = SERVER.asgi(store)
    bearer = {"authorization": "Bearer secret"}
    assert sent(app, QUERY, base="http://127.0.0.1:8000").status_code == 200
    for base in ("http://10.1.2.3:8000", "http://[2001:db8::1]:8000"):
        assert sent(app, QUERY, base=base).status_code == 401
        assert sent(app, QUERY, base=base, headers=bearer).status_code == 200
    outside = application._application(store, "0.0.0.0")
    for path in ("/metrics", "/query"):
        async def get(path: str = path) -> int:
            transport = httpx.ASGITransport(outside)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return (await client.get(path)).status_code

        assert asyncio.run(get()) in (401, 404)
    assert sent(outside, QUERY).status_code == 401
    for setting, host, expected in (
        (True, "0.0.0.0", True), (False, "127.0.0.1", False), ("loopback", "::1", True),
        ("loopback", "0.0.0.0", False),
    ):  # fmt: skip
        assert Tokens(Server(open_reads=setting), host).has_open_reads is expected


def test_several_authorization_headers_are_refused(make: Any) -> None:
    app = SERVER.asgi(make(token="secret"))
    twice = [("authorization", "Bearer wrong"), ("authorization", "Bearer secret")]
    for headers in (twice, twice[::-1], [twice[1], twice[1]]):
        answer = sent(app, QUERY, headers=headers)
        assert answer.status_code == 401
        assert "several Authorization headers" in answer.text


def test_automatic_persisted_queries(make: Any) -> None:
    app = SERVER.asgi(make())
    digest = hashlib.sha256(QUERY["query"].encode()).hexdigest()
    asked = {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": digest}}}
    unknown = sent(app, asked)
    (error,) = unknown.json()["errors"]
    assert unknown.status_code == 200
    assert error["message"] == "PersistedQueryNotFound"
    assert error["extensions"]["code"] == "PERSISTED_QUERY_NOT_FOUND"
    expected = {"data": {"user": {"v": {"x": 1}}}}
    assert sent(app, {**asked, **QUERY}).json() == expected
    assert sent(app, asked).json() == expected

    async def by_get() -> Any:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            given = {"extensions": json.dumps(asked["extensions"])}
            return (await client.get("/graphql", params=given)).json()

    assert asyncio.run(by_get()) == expected
    wrong = sent(app, {**asked, "query": "{ project { name } }"})
    assert wrong.status_code == 400
    assert sent(app, asked).json() == expected
    closed = SERVER.asgi(make(only_trusted=True))
    (error,) = sent(closed, asked).json()["errors"]
    assert error["message"] == "PersistedQueryNotSupported"


def test_what_is_kept_of_persisted_queries_is_bounded() -> None:
    from virtualfs_graphql.persisted import PersistedQueries

    kept = PersistedQueries()
    for number in range(2_000):
        text = f"{{ project {{ name }} }} # {number}" + " " * 1_000
        assert kept.keep(hashlib.sha256(text.encode()).hexdigest(), text)
    assert len(kept._kept) < 600
    assert kept._length <= 500_000


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        ("query($r: [_Any!]!) {" + " ".join(
            f"a{n}: _entities(representations: $r) {{ ... on User {{ v {{ x }} }} }}"
            for n in range(20)) + "}",
         {"r": [{"__typename": "User", "id": n} for n in range(5_000)]}),
        ("query($k: [UserKey!]!) {" + " ".join(
            f"a{n}: users(keys: $k) {{ v {{ x }} }}" for n in range(20)) + "}",
         {"k": [{"id": n} for n in range(5_000)]}),
        ("query($k: [UserKey!]!, $no: Boolean!) {" + " ".join(
            f"a{n}: users(keys: $k) @skip(if: $no) {{ v {{ x }} }}" for n in range(20)) + "}",
         {"k": [{"id": n} for n in range(5_000)], "no": False}),
        ("{" + " ".join(
            f'a{n}: historicalFeatures(service: "svc", spine: [{{id: 1}}])' for n in range(60))
         + "}", {}),
        ("{" + " ".join(
            f'a{n}: user(id: {n}, asOf: "2024-01-01T00:00:00Z") {{ v {{ x }} }}'
            for n in range(60)) + "}", {}),
        ("query($e: [JSON!]!) {" + " ".join(
            f'a{n}: onlineFeatures(service: "svc", entities: $e) {{ rows }}' for n in range(60))
         + "}", {"e": [{"id": n} for n in range(5_000)]}),
        ("query($k: [UserKey!]!) { ...F } fragment F on Query {" + " ".join(
            f"a{n}: users(keys: $k) {{ v {{ x }} }}" for n in range(20)) + "}",
         {"k": [{"id": n} for n in range(5_000)]}),
    ],
)  # fmt: skip
def test_what_is_too_dear_is_refused_before_a_key_is_looked_at(
    make: Any, monkeypatch: pytest.MonkeyPatch, query: str, variables: dict[str, Any]
) -> None:
    store = make(limits=Limits(body=10_000_000))
    app = SERVER.asgi(store)

    def never(*_given: Any, **_more: Any) -> Any:
        raise AssertionError("it was looked at")

    for name in ("virtualfs_graphql.http.Context.row", "virtualfs_graphql.http.Context.read"):
        monkeypatch.setattr(name, never)
    monkeypatch.setattr("virtualfs_graphql.schema.historical_rows", never)
    (error,) = sent(app, {"query": query, "variables": variables}).json()["errors"]
    assert error["extensions"]["code"] == "LimitError"
    assert "([server.limits] cost)" in error["message"]


def test_what_is_skipped_costs_nothing(make: Any) -> None:
    app = SERVER.asgi(make())
    text = "query($k: [UserKey!]!, $no: Boolean!) { user(id: 1) { v { x } } " + " ".join(
        f"a{n}: users(keys: $k) @skip(if: $no) {{ v {{ x }} }}" for n in range(20)
    )
    variables = {"k": [{"id": n} for n in range(5_000)], "no": True}
    found = sent(app, {"query": text + "}", "variables": variables}).json()
    assert found == {"data": {"user": {"v": {"x": 1}}}}


def test_readiness_is_about_what_answers_need(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application, "PROBE_KEPT", 0)
    store = make()
    app = SERVER.asgi(store)

    def ready() -> httpx.Response:
        async def main() -> httpx.Response:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.get("/readyz")

        return asyncio.run(main())

    assert (ready().status_code, ready().json()["status"]) == (200, "ready")

    def away() -> None:
        raise vfs.OnlineStoreError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(store.online_store(), "ping", away)
        found = ready()
        assert (found.status_code, found.json()["status"]) == (200, "degraded")
        assert found.json()["cache"] == "away"

    def broken() -> None:
        raise vfs.WarehouseError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(store.warehouse(), "ping", broken)
        assert (ready().status_code, ready().json()["status"]) == (503, "unavailable")

    def lost(*_given: Any) -> None:
        raise vfs.RegistryError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(store, "state", lost)
        assert (ready().status_code, ready().json()["status"]) == (503, "unavailable")


def test_an_idle_worker_follows_the_registry(make: Any) -> None:
    store = make()
    app = SERVER.asgi(store)
    assert sent(app, {"query": "{ project { revision } }"}).json()["data"]["project"] == {
        "revision": 1
    }
    store.apply([vfs.Entity("other", {"k": "int64"})])
    time.sleep(2)  # and nobody asks meanwhile
    assert sent(app, {"query": "{ project { revision } }"}).json()["data"]["project"] == {
        "revision": 2
    }


@pytest.mark.parametrize("number", ["1_000", "\uff11\uff12", " 7", "7.0", "0x10", ""])
def test_integers_are_as_json_writes_them(make: Any, number: str) -> None:
    app = SERVER.asgi(make())
    body = {
        "query": "query($i: BigInt!) { user(id: $i) { v { x } } }", "variables": {"i": number}
    }  # fmt: skip
    assert "errors" in sent(app, body).json()
    online = 'query($i: JSON!) { onlineFeatures(features: ["v:x"], entities: [$i]) { rows } }'
    assert "errors" in sent(app, {"query": online, "variables": {"i": {"id": number}}}).json()
