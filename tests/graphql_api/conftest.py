# ruff: noqa: E501 - rows of data stay on one line
"""A real store over DuckDB in memory, with every kind of type and key that the API must carry."""

import asyncio
import runpy
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import virtualfs as vfs
from virtualfs.config import Config
from virtualfs_graphql.app import SERVER

ROOT = Path(__file__).parents[2]
Ask = Callable[..., dict[str, Any]]

ROWS = """
CREATE TABLE weather AS SELECT * FROM (VALUES
    ('JFK', TIMESTAMP '2024-01-01 10:00:00', 30.5::DOUBLE, true, 9007199254740993::BIGINT, 1.50::DECIMAL(8, 2)),
    ('JFK', TIMESTAMP '2024-01-01 11:00:00', 'nan'::DOUBLE, NULL, 7::BIGINT, 2.25::DECIMAL(8, 2)),
    ('EWR', TIMESTAMP '2024-01-01 11:30:00', 41.0::DOUBLE, false, -5::BIGINT, NULL),
    ('OLD', TIMESTAMP '2023-12-01 00:00:00', 10.0::DOUBLE, true, 1::BIGINT, 1.00::DECIMAL(8, 2))
) t(origin, seen_at, temp, freezing, big_count, price);
CREATE TABLE routes AS SELECT * FROM (VALUES
    ('JFK', 1::BIGINT, TIMESTAMP '2024-01-01 09:00:00', 3::INTEGER, DATE '2024-01-01', TIMESTAMP '2024-01-01 08:00:00', ['a', 'b'], '\\x01\\x02'::BLOB),
    ('JFK', 9007199254740993::BIGINT, TIMESTAMP '2024-01-01 09:00:00', 4::INTEGER, NULL, NULL, NULL, NULL)
) t(origin, carrier_id, seen_at, flights, first_day, first_seen, labels, raw);
CREATE TABLE world AS SELECT TIMESTAMP '2024-01-01 09:00:00' AS seen_at, 5.5::DOUBLE AS fuel_price;
CREATE TABLE hidden AS SELECT 'JFK' AS origin, 1::INTEGER AS secret;
"""


def eventually(holds: Callable[[], object], seconds: float = 20) -> None:
    """Wait until something holds."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def definitions() -> list[Any]:
    airport = vfs.Entity("airport", {"origin": "string"}, description="Where planes leave")
    carrier = vfs.Entity("carrier", {"carrier_id": "int64"})
    feature = vfs.Entity("feature", {"origin": "string"})  # collides with a static root field
    leg = vfs.Entity("flight-leg", {"origin": "string", "carrier_id": "int64"})
    weather = vfs.FeatureView(
        "airport_weather",
        source=vfs.Source("weather", table="weather", event_timestamp="seen_at"),
        entities=[airport],
        features=[vfs.Feature("temp", description="Degrees"), "freezing", "big_count", "price"],
        ttl="1d",
        description="Hourly weather",
        owner="ann",
        tags={"domain": "weather"},
    )
    routes_source = vfs.Source("routes", table="routes", event_timestamp="seen_at")
    routes = vfs.FeatureView(
        "route_facts",
        source=routes_source,
        entities=[airport, carrier],
        features=["flights", "first_day", "first_seen", "labels", "raw"],
    )
    legs = vfs.FeatureView("leg_facts", source=routes_source, entities=[leg], features=["flights"])
    world = vfs.FeatureView(
        "world_facts",
        source=vfs.Source("world", table="world", event_timestamp="seen_at"),
        entities=[],
        features=["fuel_price"],
    )
    hidden = vfs.FeatureView(
        "hidden",
        source=vfs.Source("hidden", table="hidden"),
        entities=[feature],
        features=["secret"],
        online=False,
    )
    service = vfs.FeatureService("scoring", [weather[["temp", "big_count"]], routes[["flights"]]])
    return [weather, routes, legs, world, hidden, service]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[vfs.FeatureStore]:
    import ibis

    connection = ibis.duckdb.connect()
    connection.con.execute(ROWS)
    config = Config(
        project="demo",
        registry=f"sqlite:///{tmp_path}/registry.db",
        clock="2024-01-01T12:00:00Z",
        folder=tmp_path,
    )
    with vfs.FeatureStore(config, connections={"default": connection}) as opened:
        opened.apply(definitions())
        yield opened
    connection.disconnect()


class Client:
    """Calls an ASGI application, one event loop a call."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)


def landed(store: vfs.FeatureStore) -> None:
    """Wait until what was read of warehouses has come into the cache, after the answers went out.

    Who asks before is told so from the flight that is landing, which is no hit of the cache.
    """
    flights = store.online.reader.flights
    for _ in range(500):
        flying = [flight for some in flights._flying.values() for flight in some.values()]
        if all(flight.landed < float("inf") for flight in flying):
            return
        time.sleep(0.01)
    raise AssertionError("a flight never landed")


@pytest.fixture
def client(store: vfs.FeatureStore) -> Client:
    return Client(SERVER.asgi(store))


@pytest.fixture
def ask(client: Client) -> Ask:
    def send(query: str, **variables: Any) -> dict[str, Any]:
        response = client.post("/graphql", json={"query": query, "variables": variables})
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    return send


@pytest.fixture
def flights(tmp_path: Path) -> Iterator[vfs.FeatureStore]:
    """The project of the flights example, applied."""
    folder = tmp_path / "flights"
    unwanted = shutil.ignore_patterns(".virtualfs", "*.duckdb", "__pycache__")
    shutil.copytree(ROOT / "examples/flights", folder, ignore=unwanted)
    runpy.run_path(str(folder / "load.py"))["load"](folder)
    with vfs.FeatureStore(folder) as store:
        store.apply()
        yield store


@pytest.fixture
def serve() -> Iterator[Callable[[vfs.FeatureStore], str]]:
    """Serve stores from threads; returns their URLs."""
    import uvicorn

    servers = []

    def start(store: vfs.FeatureStore) -> str:
        config = uvicorn.Config(
            SERVER.asgi(store), "127.0.0.1", 0, log_level="error", lifespan="off"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        servers.append((server, thread))
        while not server.started:
            time.sleep(0.02)
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join(10)
