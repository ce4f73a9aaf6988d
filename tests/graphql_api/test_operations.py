"""Running the server: workers, draining, probes, metrics, logs and spans."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from uuid import uuid4

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

import virtualfs as vfs
from tests.graphql_api.conftest import Client, landed
from virtualfs.config import Server
from virtualfs_graphql.app import SERVER

COMMAND = [sys.executable, "-c", "from virtualfs.cli import main; main()"]
QUERY = "{ driver(driverId: 1001) { driverHourlyStats { avgDailyTrips } } }"


def metrics(text):
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))):
            sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }  # fmt: skip


def test_metrics(client, ask, store):
    read = '{ airport(origin: "EWR") { airportWeather { temp } } }'
    ask(read)
    landed(store)
    for query in (read, "{ project { name } }", "{ nothing }"):
        ask(query)
    text = client.get("/metrics").text
    found = metrics(text)
    count = "virtualfs_request_seconds_count"
    assert found[count, "kind=lookup", "outcome=ok"] == 2
    assert found[count, "kind=query", "outcome=ok"] == 1
    assert found[count, "kind=document", "outcome=error"] == 1
    assert found["virtualfs_rows_total", "source=warehouse", "view=airport_weather"] == 1
    assert found["virtualfs_rows_total", "source=cache", "view=airport_weather"] == 1
    queries = "virtualfs_warehouse_query_seconds_count"
    assert found[queries, "outcome=ok", "view=airport_weather"] == 1
    assert found["virtualfs_row_age_seconds_count", "view=airport_weather"] == 2
    assert found["virtualfs_catalog_revision",] == 1
    assert "EWR" not in text


def test_a_failing_warehouse_is_measured(client, ask, store):
    store.warehouse().connection.con.execute("DROP TABLE world")
    ask("{ worldFacts { fuelPrice } }")
    found = metrics(client.get("/metrics").text)
    assert (
        found["virtualfs_warehouse_query_seconds_count", "outcome=error", "view=world_facts"] == 1
    )
    assert found["virtualfs_request_seconds_count", "kind=query", "outcome=error"] == 1


def test_request_ids(client):
    body = {"query": "{ project { name } }"}
    given = client.post("/graphql", json=body, headers={"x-request-id": "abc-1"})
    assert given.headers["x-request-id"] == "abc-1"
    made = [client.post("/graphql", json=body).headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]
    # What could break a line of the log is not taken over.
    odd = client.post("/graphql", json=body, headers={"x-request-id": "a b"})
    assert odd.headers["x-request-id"] not in ("a b", "")


def test_errors_are_logged_with_their_request(client, store, monkeypatch, capsys):
    import logging

    from virtualfs_graphql.logs import configure_logs

    logger = logging.getLogger("virtualfs")
    before = logger.handlers, logger.level
    try:
        configure_logs(Server(log_format="json"), "warning")
        monkeypatch.setattr(store, "search", lambda *_: 1 / 0)
        client.post(
            "/graphql", json={"query": '{ search(text: "x") { name } }'},
            headers={"x-request-id": "r-7"},
        )  # fmt: skip
    finally:
        logger.handlers, _ = before
        logger.setLevel(before[1])
    (line,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (line["request_id"], line["level"]) == ("r-7", "error")
    assert "ZeroDivisionError" in line["error"]


def test_changes_are_logged_and_so_is_everything_if_asked_for(store, caplog):
    caplog.set_level("INFO")
    token = {"authorization": "Bearer secret"}

    def lines(settings, query):
        caplog.clear()
        store.config = store.config.model_copy(update={"server": settings})
        body = {"query": query, "operationName": "Q"}
        Client(SERVER.asgi(store)).post("/graphql", json=body, headers=token)
        return [r for r in caplog.records if r.name == "virtualfs.access"]

    quiet, loud = Server(token="secret"), Server(token="secret", access_log=True)
    assert lines(quiet, "query Q { project { name } }") == []
    (line,) = lines(loud, "query Q { project { name } }")
    assert (line.operation, line.kind, line.status, line.errors) == ("Q", "query", 200, 0)
    (line,) = lines(quiet, 'mutation Q { invalidate(view: "airport_weather") }')
    assert (line.kind, line.errors) == ("mutation", 0)


def test_spans(ask, monkeypatch):
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from virtualfs_graphql import tracing

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    ask('{ airport(origin: "EWR") { airportWeather { temp } } }')
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert spans["graphql"].attributes["graphql.operation.type"] == "query"
    assert spans["warehouse look-up"].attributes["virtualfs.view"] == "airport_weather"
    assert spans["warehouse look-up"].attributes["virtualfs.keys"] == 1


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "drivers"
    subprocess.run([*COMMAND, "init", str(folder)], check=True, capture_output=True)
    subprocess.run([*COMMAND, "apply", "--yes"], check=True, capture_output=True, cwd=folder)
    return folder


def started(project, *options):
    port = free_port()
    command = [*COMMAND, "serve", "--port", str(port), *options]
    server = subprocess.Popen(
        command,
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return server, url
        except httpx.HTTPError:
            assert server.poll() is None, server.stdout.read()
            time.sleep(0.1)
    raise AssertionError("the server never answered")


def test_several_workers_and_their_metrics(project, valkey):
    share_cache(project, valkey)
    server, url = started(project, "--workers", "2")
    try:
        for _ in range(60):  # over connections of their own, so that both workers get some
            answer = httpx.post(f"{url}/graphql", json={"query": QUERY}).json()
            assert answer["data"]["driver"]["driverHourlyStats"]["avgDailyTrips"] is not None
        counts = {
            metrics(httpx.get(f"{url}/metrics").text)[
                "virtualfs_request_seconds_count", "kind=lookup", "outcome=ok"
            ]
            for _ in range(5)
        }
        # Whichever worker is asked, it knows of the requests of both.
        assert counts == {60.0}
    finally:
        server.terminate()
        assert server.wait(30) in (0, -15)
        server.stdout.close()


def share_cache(project, valkey):
    """Give a project a cache that several workers share."""
    settings = project / "virtualfs.toml"
    text = re.sub(r"\[cache\][^\[]*", "", settings.read_text())
    settings.write_text(f'{text}\n[cache]\nurl = "{valkey}"\nprefix = "{uuid4().hex}"\n')


def test_workers_need_a_cache_that_they_share(project):
    ran = subprocess.run(
        [*COMMAND, "serve", "--workers", "2"], cwd=project, capture_output=True, text=True
    )
    assert ran.returncode == 2
    assert "a row that is pushed into memory:// would be seen by one of them" in ran.stderr


def test_workers_on_a_file_that_is_written_are_refused(project, valkey):
    share_cache(project, valkey)
    settings = project / "virtualfs.toml"
    text = settings.read_text()
    url = re.search(r'url = "(duckdb://[^"]*)"', text)
    assert url, text
    settings.write_text(text.replace(url[0], f"{url[0]}\nread_only = false"))
    ran = subprocess.run(
        [*COMMAND, "serve", "--workers", "2"], cwd=project, capture_output=True, text=True
    )
    assert ran.returncode == 2
    assert "one process at a time" in ran.stderr


def test_requests_under_way_are_answered_before_the_server_ends(project):
    module = project / "features.py"
    assert module.exists()
    server, url = started(project)
    found = []

    def ask():
        with (
            httpx.Client() as client,
            client.stream(
                "POST",
                f"{url}/graphql",
                content=slowly(),
                headers={"content-type": "application/json"},
            ) as answer,
        ):
            found.append(json.loads(answer.read()))

    def slowly():
        body = json.dumps({"query": QUERY}).encode()
        yield body[:10]
        time.sleep(1.5)
        yield body[10:]

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.5)
    server.send_signal(signal.SIGTERM)
    thread.join(20)
    assert server.wait(30) in (0, -15)
    server.stdout.close()
    assert found[0]["data"]["driver"]["driverHourlyStats"]["avgDailyTrips"] is not None


def test_the_command_line_prints_schema_and_token(project):
    schema = subprocess.run([*COMMAND, "schema"], cwd=project, capture_output=True, text=True)
    assert 'type Driver @key(fields: "driverId") {' in schema.stdout
    made = subprocess.run(
        [*COMMAND, "token", "ci", "--scope", "write", "--json"], cwd=project, capture_output=True,
        text=True,
    )  # fmt: skip
    found = json.loads(made.stdout)
    with (project / "virtualfs.toml").open("a") as file:
        file.write(f'\n[server.tokens.ci]\nhash = "{found["hash"]}"\nscopes = ["write"]\n')
    with vfs.FeatureStore(project) as store:
        client = Client(SERVER.asgi(store))
        query = {"query": 'mutation { invalidate(view: "driver_hourly_stats") }'}
        head = {"authorization": f"Bearer {found['token']}"}
        assert "errors" not in client.post("/graphql", json=query, headers=head).json()
    assert found["token"] not in (project / "virtualfs.toml").read_text()


def test_settings_of_the_server_that_are_wrong_are_told(tmp_path):
    def load(text):
        (tmp_path / "virtualfs.toml").write_text(f'project = "p"\n{text}')
        with pytest.raises(vfs.ConfigError) as error:
            vfs.load_config(tmp_path)
        return str(error.value)

    assert "Did you mean 'depth'" in load("[server.limits]\ndepht = 3")
    assert "sha256" in load('[server.tokens.a]\nhash = "x"\nscopes = ["read"]')
    assert "scopes" in load(f'[server.tokens.a]\nhash = "sha256:{"0" * 64}"\nscopes = ["all"]')
    assert os.sep in load("[server]\nworkers = 0")
