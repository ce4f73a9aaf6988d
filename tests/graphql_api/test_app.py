"""The application: refresh, probes, pages, the server, and the files beside the package."""

import json
import threading
import urllib.request
from pathlib import Path

import pytest

import virtualfs as vfs
from graphql import parse, print_ast, print_schema, validate
from tests.graphql_api.conftest import eventually
from virtualfs.config import Config
from virtualfs.errors import ConfigError, WarehouseError
from virtualfs_graphql import app as application
from virtualfs_graphql.app import SERVER, sdl
from virtualfs_graphql.catalog import CatalogSchema, static_schema
from virtualfs_graphql.request import Snapshot

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "graphql"


def test_catalog_changes_show_without_restart(ask, store, monkeypatch):
    monkeypatch.setattr(application, "CHECK_SECONDS", 0.01)
    query = '{ airport(origin: "EWR") { gates { secret } } }'
    assert "errors" in ask(query)
    source = vfs.Source("hidden", table="hidden")
    gates = vfs.FeatureView("gates", source=source, entities=["airport"], features=["secret"])
    store.apply([gates])
    eventually(lambda: "errors" not in ask(query))
    assert ask(query)["data"] == {"airport": {"gates": {"secret": None}}}
    assert ask("{ project { revision } }")["data"] == {"project": {"revision": 2}}


def test_an_unreadable_registry_leaves_the_old_catalog(ask, store, monkeypatch, caplog):
    monkeypatch.setattr(application, "CHECK_SECONDS", 0.01)

    def broken(*_):
        raise vfs.RegistryError("gone")

    monkeypatch.setattr(store.registry, "newest_revision", broken)
    ask("{ project { name } }")
    eventually(lambda: "gone" in caplog.text)
    answer = ask('{ airport(origin: "EWR") { airportWeather { temp } } }')
    assert answer["data"]["airport"]["airportWeather"] == {"temp": 41.0}
    assert caplog.text.count("the catalog could not be read again") == 1


def test_probes(client, store, monkeypatch):
    monkeypatch.setattr(application, "PROBE_KEPT", 0)
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["checks"] == {
        "registry": {"status": "ok"},
        "cache": {"status": "ok"},
        "warehouse default": {"status": "ok"},
    }

    def refuse():
        raise WarehouseError("cannot reach postgresql://ann:hunter2@db/prod")

    def broken():
        raise OSError("secret=hunter2")

    monkeypatch.setattr(store.warehouse(), "ping", refuse)
    monkeypatch.setattr(store.online_store(), "ping", broken)
    ready = client.get("/readyz")
    assert ready.status_code == 503
    checks = ready.json()["checks"]
    assert checks["registry"] == {"status": "ok"}
    assert "cannot reach" in checks["warehouse default"]["error"]
    assert checks["cache"]["status"] == "failed"
    assert "hunter2" not in ready.text


def test_pages(client, ask):
    home = client.get("/")
    assert (home.status_code, home.headers["location"]) == (307, "/query")
    page = client.get("/query")
    assert page.headers["content-type"].startswith("text/html")
    assert "https://" not in page.text
    assert "http://" not in page.text
    given = page.text.split("const given = ")[1].split(";\n")[0]
    found = {item["title"]: ask(item["query"]) for item in json.loads(given)["examples"]}
    assert not [answer for answer in found.values() if "errors" in answer]
    assert len(found) == 7
    status = found["One airport, now"]["data"]["airport"]["airportWeather"]["_meta"]["status"]
    assert status in ("PRESENT", "OUTSIDE_MAX_AGE")
    service = found["The features of scoring, as the model takes them"]["data"]["scoring"]
    assert service["_meta"] == {"version": 1, "statuses": ["PRESENT"] * 3}
    graphiql = client.get("/graphql", headers={"accept": "text/html"})
    assert graphiql.status_code == 200
    assert graphiql.text.count("onerror='location.replace(\"query\")'") >= 5


def test_example_of_an_empty_catalog_works(tmp_path):
    import ibis

    from .conftest import Client

    con = ibis.duckdb.connect()
    config = Config(project="p", registry=f"sqlite:///{tmp_path}/r.db", folder=tmp_path)
    with vfs.FeatureStore(config, connections={"default": con}) as store:
        client = Client(SERVER.asgi(store))
        given = client.get("/query").text.split("const given = ")[1].split(";\n")[0]
        answer = client.post(
            "/graphql", json={"query": json.loads(given)["examples"][0]["query"]}
        ).json()
    con.disconnect()
    assert answer["data"]["project"] == {"name": "p", "revision": 0}


def test_serve_tells_when_it_is_ready(store, monkeypatch):
    import uvicorn

    found = {}
    servers = []
    start = uvicorn.Server.__init__

    def remembered(self, *arguments):
        servers.append(self)
        start(self, *arguments)

    monkeypatch.setattr(uvicorn.Server, "__init__", remembered)

    def ready(url):
        def visit():
            with urllib.request.urlopen(f"{url}/healthz", timeout=10) as response:
                found["answer"] = json.load(response)
            servers[0].should_exit = True

        threading.Thread(target=visit).start()

    SERVER.serve(store, "127.0.0.1", 0, on_ready=ready)
    assert found["answer"] == {"status": "ok"}


def test_a_taken_port_is_said_in_words(store):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="cannot listen on"):
            SERVER.serve(store, "127.0.0.1", taken.getsockname()[1])


def _definitions(text):
    return {node.name.value: node for node in parse(text).definitions}


def test_static_part_of_the_exported_schema_has_not_drifted():
    exported = _definitions((ASSETS / "schema.graphql").read_text())
    for name, node in _definitions(print_schema(static_schema())).items():
        if name == "Query":
            fields = {print_ast(field) for field in exported["Query"].fields}
            assert {print_ast(field) for field in node.fields} <= fields
        else:
            assert print_ast(exported[name]) == print_ast(node), (
                f"{name} has drifted; write graphql/schema.graphql again (graphql/README.md)"
            )


def test_sdl_holds_the_catalog(flights):
    fields = {field.name.value for field in _definitions(sdl(flights))["Query"].fields}
    assert {"airport", "airports", "plane", "planes", "onlineFeatures"} <= fields


OPERATIONS = sorted((ASSETS / "operations").glob("*.graphql"))


@pytest.mark.parametrize("path", OPERATIONS, ids=lambda path: path.stem)
def test_example_operations(flights, path):
    from .conftest import Client

    text = path.read_text()
    assert validate(CatalogSchema.of(Snapshot(flights)).core, parse(text)) == []
    answer = Client(SERVER.asgi(flights)).post("/graphql", json={"query": text}).json()
    assert "errors" not in answer
    assert all(value is not None for value in answer["data"].values())


def test_nothing_shadows_graphql_core():
    import graphql

    assert "site-packages" in graphql.__file__
    assert not (ASSETS / "__init__.py").exists()


def test_catalogs_come_and_go_and_leave_nothing(ask, store, monkeypatch):
    """Each schema is taken apart when the next one serves; what they share stays whole."""
    import gc
    import time
    import weakref

    monkeypatch.setattr(application, "CHECK_SECONDS", 0.01)
    made = []
    build = application._served

    def remembered(*arguments):
        found = build(*arguments)
        made.append((weakref.ref(found.schema.core), weakref.ref(found.snapshot)))
        return found

    monkeypatch.setattr(application, "_served", remembered)
    weather = store.state().project().views["airport_weather"]

    ask("{ project { name } }")
    for number in range(4):
        store.apply([weather.model_copy(update={"description": f"Weather {number}"})])
        # What requests leave in circles during a build is frozen with it, so none is sent.
        eventually(lambda number=number: len(made) == number + 1)
        time.sleep(0.2)
        answer = ask(
            '{ airport(origin: "EWR") { airportWeather { temp } } '
            "entities { featureViews { name } } "
            '__type(name: "AirportWeather") { description fields { name } } '
            'scoring(origin: "EWR", carrierId: 1) { temp } }'
        )
        assert "errors" not in answer
        assert answer["data"]["__type"]["description"] == f"Weather {number}"
        assert answer["data"]["airport"]["airportWeather"] == {"temp": 41.0}
    assert len(made) == 4

    def left() -> list[object]:
        # A schema may be referred to a moment longer, as by the last error; nothing is in it.
        schemas = [schema() for schema, _ in made[:-1]]
        return [one for one in schemas if one is not None and vars(one)] + [
            one() for _, one in made[:-1] if one() is not None
        ]

    for _ in range(100):
        gc.collect()
        if not left():
            break
        time.sleep(0.1)
    assert not left()
