"""However much one document asks for: one trip to a real cache, one query a view."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import httpx
import pytest
import redis

import virtualfs as vfs
from tests.graphql_api.conftest import ROWS, definitions
from virtualfs.config import Config
from virtualfs_graphql.app import SERVER

QUERY = """query($k: [AirportKey!]!) {
  a: airport(origin: "JFK") { airportWeather { temp } routeFacts(carrierId: 1) { flights } }
  b: airport(origin: "JFK") { airportWeather { freezing } }
  airports(keys: $k) { airportWeather { temp _meta { cacheHit } } }
  worldFacts { fuelPrice }
  scoring(origin: "EWR", carrierId: 1) { temp flights }
  onlineFeatures(service: "scoring", entities: [{origin: "OLD", carrier_id: 1}]) { values }
  flight_leg(origin: "JFK", carrierId: 1) { legFacts { flights } }
  %s
}"""


class Counted:
    """Counts what reaches the server of the cache, and the warehouse."""

    def __init__(self, url: str, store: vfs.FeatureStore) -> None:
        self._server = redis.Redis.from_url(url)
        self._store = store
        self.queries: list[str] = []

    def read(self, *_told: object) -> None: ...

    def queried(self, view: str, *_told: object) -> None:
        self.queries.append(view)

    def trips(self) -> int:
        return int(self._server.info("commandstats").get("cmdstat_mget", {"calls": 0})["calls"])

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def store(tmp_path, valkey):
    import ibis

    connection = ibis.duckdb.connect()
    connection.con.execute(ROWS)
    config = Config(
        project=f"p{uuid4().hex}", registry=f"sqlite:///{tmp_path}/registry.db", folder=tmp_path,
        clock="2024-01-01T12:00:00Z", cache={"url": valkey, "near": "0s"},
    )  # fmt: skip
    with vfs.FeatureStore(config, connections={"default": connection}) as opened:
        opened.apply(definitions())
        yield opened
    connection.disconnect()


@pytest.mark.parametrize("extra", ["", "project { name }"], ids=["compiled", "general"])
def test_one_trip_and_one_query_for_each_view(store, valkey, extra):
    app = SERVER.asgi(store)
    counted = Counted(valkey, store)
    store.online.reader.observer = counted
    body = {"query": QUERY % extra, "variables": {"k": [{"origin": f"K{n}"} for n in range(40)]}}

    async def main():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            found = []
            for _ in range(2):
                before, queries = counted.trips(), len(counted.queries)
                answer = (await client.post("/graphql", json=body)).json()
                assert "errors" not in answer, answer["errors"][:1]
                # The rows that were missed are on their way into the cache, which is no read.
                for _ in range(100):
                    if not store.online.reader.flights._flying:
                        break
                    await asyncio.sleep(0.01)
                found.append((counted.trips() - before, sorted(counted.queries[queries:])))
                await asyncio.sleep(0.3)
            return found

    cold, hot = asyncio.run(main())
    counted.close()
    # Writing back reads what is there, in the script that writes: one for each view.
    assert cold[1] == ["airport_weather", "leg_facts", "route_facts", "world_facts"]
    assert hot == (1, [])


def test_requests_in_flight_together_share_trips(store, valkey):
    app = SERVER.asgi(store)
    counted = Counted(valkey, store)
    query = "query($k: String!) { airport(origin: $k) { airportWeather { temp } } }"

    async def main():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

            async def ask(number):
                body = {"query": query, "variables": {"k": f"K{number}"}}
                return (await client.post("/graphql", json=body)).json()

            await asyncio.gather(*(ask(number) for number in range(60)))
            await asyncio.sleep(0.5)
            before = counted.trips()
            answers = await asyncio.gather(*(ask(number) for number in range(60)))
            return counted.trips() - before, answers

    trips, answers = asyncio.run(main())
    counted.close()
    assert all("errors" not in answer for answer in answers)
    assert trips <= 20
