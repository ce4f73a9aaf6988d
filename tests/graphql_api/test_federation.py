"""An Apollo Federation 2 subgraph, alone and behind a real gateway; and the deployment."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import virtualfs as vfs
from graphql import build_schema, parse
from tests.graphql_api.conftest import Client
from virtualfs_graphql.app import SERVER, sdl

ENTITIES = """query($r: [_Any!]!) { _entities(representations: $r) {
    __typename ... on Airport { origin airportWeather { temp } }
    ... on Flight_leg { origin carrierId legFacts { flights } } } }"""


@pytest.fixture
def reads(store, monkeypatch):
    """Count the reads of rows."""
    calls = []
    read = store.online.reader.read_async

    async def counted(lookups, *arguments, **options):
        calls.append(sum(len(look.keys) for look in lookups))
        return await read(lookups, *arguments, **options)

    monkeypatch.setattr(store.online.reader, "read_async", counted)
    return calls


def test_the_service_tells_its_schema(ask, store):
    text = ask("{ _service { sdl } }")["data"]["_service"]["sdl"]
    document = parse(text)
    types = {node.name.value: node for node in document.definitions if hasattr(node, "name")}
    assert "_entities" not in text
    assert "scalar _Any" not in text
    for name, fields in {"Airport": "origin", "Flight_leg": "origin carrierId"}.items():
        (directive,) = types[name].directives
        assert directive.name.value == "key"
        assert directive.arguments[0].value.value == fields
    assert "specs.apollo.dev/federation/v2" in text
    # What is printed for people and tools stands for itself.
    build_schema(sdl(store))
    assert 'type Airport @key(fields: "origin") {' in sdl(store)


def test_entities_are_one_batch(ask, reads):
    given = [
        {"__typename": "Airport", "origin": "EWR"},
        {"__typename": "Flight_leg", "origin": "JFK", "carrierId": "9007199254740993"},
        {"__typename": "Airport", "origin": "nowhere"},
        {"__typename": "Airport", "origin": "JFK"},
    ]
    answer = ask(ENTITIES, r=given)
    assert answer["data"]["_entities"] == [
        {"__typename": "Airport", "origin": "EWR", "airportWeather": {"temp": 41.0}},
        {"__typename": "Flight_leg", "origin": "JFK", "carrierId": "9007199254740993",
         "legFacts": {"flights": 4}},
        {"__typename": "Airport", "origin": "nowhere", "airportWeather": {"temp": None}},
        {"__typename": "Airport", "origin": "JFK", "airportWeather": {"temp": None}},
    ]  # fmt: skip
    assert reads == [4]


def test_a_wrong_representation_is_told_at_its_place(ask):
    given = [
        {"__typename": "Airport", "origin": "EWR"},
        {"__typename": "Airport"},
        {"__typename": "Nothing", "x": 1},
        {"__typename": "Airport", "origin": 5},
        "x",
    ]
    answer = ask("query($r: [_Any!]!) { _entities(representations: $r) { __typename } }", r=given)
    assert answer["data"]["_entities"] == [{"__typename": "Airport"}, None, None, None, None]
    assert [error["path"] for error in answer["errors"]] == [["_entities", n] for n in range(1, 5)]
    assert {error["extensions"]["code"] for error in answer["errors"]} == {"SpineError"}


GATEWAY = Path(__file__).parent / "gateway"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """Install Apollo's gateway, where there are Node.js and its registry."""
    if shutil.which("npm") is None:
        pytest.skip("there is no npm to install a gateway with")
    folder = tmp_path_factory.mktemp("gateway") / "gateway"
    shutil.copytree(GATEWAY, folder)
    command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
    try:
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
    except subprocess.TimeoutExpired:
        pytest.skip("npm could not install the gateway in time")
    if ran.returncode:
        pytest.skip(f"npm could not install the gateway: {ran.stderr[-300:]}")
    return folder


def test_behind_a_real_gateway(gateway, serve, store, reads):
    queries = [
        "{ hubs { origin city airportWeather { temp } } }",
        '{ airport(origin: "EWR") { origin city airportWeather { temp _meta { status } } } }',
        '{ airports(keys: [{origin: "JFK"}, {origin: "EWR"}]) { city routeFacts(carrierId: 1) '
        '{ flights } } scoring(origin: "JFK", carrierId: 1) { bigCount flights } }',
    ]
    ran = subprocess.run(
        ["node", "gateway.js", serve(store) + "/graphql"], cwd=gateway,
        input=json.dumps(queries), text=True, capture_output=True, timeout=100,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    hubs, one, many = json.loads(ran.stdout.splitlines()[-1])
    assert hubs["data"]["hubs"] == [
        {"origin": "JFK", "city": "New York", "airportWeather": {"temp": None}},
        {"origin": "EWR", "city": "Newark", "airportWeather": {"temp": 41.0}},
        {"origin": "nowhere", "city": None, "airportWeather": {"temp": None}},
    ]
    assert one["data"]["airport"] == {
        "origin": "EWR", "city": "Newark",
        "airportWeather": {"temp": 41.0, "_meta": {"status": "PRESENT"}},
    }  # fmt: skip
    assert many["data"] == {
        "airports": [
            {"city": "New York", "routeFacts": {"flights": 3}},
            {"city": "Newark", "routeFacts": {"flights": None}},
        ],
        "scoring": {"bigCount": 7, "flights": 3},
    }
    # The three hubs were one batch, and one read.
    assert reads == [3, 1, 3]


DEPLOY = Path(__file__).parents[2] / "deploy"


def test_the_deployment_is_linted(gateway):
    bins = gateway / "node_modules" / ".bin"
    for command in (
        [bins / "dclint", DEPLOY / "compose.yaml"],
        [bins / "dockerfile-utils", "lint", DEPLOY / "Dockerfile"],
    ):
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=gateway)
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_deployment_works_without_its_containers(postgres, monkeypatch, tmp_path):
    """What compose.yaml says the server gets, on a real PostgreSQL and Valkey."""
    import psycopg
    import yaml

    from tests.caches import start_valkey

    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    names = set(compose["services"]["server"]["environment"])
    with psycopg.connect(postgres, autocommit=True) as con:
        con.execute("DROP SCHEMA IF EXISTS deployed CASCADE")
        con.execute("CREATE SCHEMA deployed")
        con.execute(
            "CREATE TABLE deployed.orders AS SELECT 7::bigint AS customer_id, "
            "5.5::float8 AS amount, now() - interval '1 day' AS ordered_at"
        )
    server = start_valkey()
    separator = "&" if "?" in postgres else "?"
    url = f"{postgres}{separator}options=-csearch_path%3Ddeployed"
    given = {
        "DATABASE_URL": url,
        "REGISTRY_URL": url.replace("postgresql://", "postgresql+psycopg://"),
        "VALKEY_URL": f"redis://127.0.0.1:{server.port}/0",
        "VIRTUALFS_TOKEN": "secret",
    }
    assert names == set(given)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "project"
    shutil.copytree(DEPLOY / "project", folder)
    try:
        with vfs.FeatureStore(folder) as store:
            store.apply()
            client = Client(SERVER.asgi(store))
            assert client.get("/readyz").status_code == 200
            query = "{ churn(customerId: 7) { orders30d spent30d } }"
            answer = client.post("/graphql", json={"query": query}).json()
            assert answer["data"] == {"churn": {"orders30d": 1, "spent30d": 5.5}}
    finally:
        server.stop()
