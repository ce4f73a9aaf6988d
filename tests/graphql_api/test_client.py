"""The typed client in examples/client: generated from our operations, and working on the server."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

import pytest

from graphql import parse, print_ast

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "examples" / "client"


@pytest.fixture
def flights_client(monkeypatch):
    monkeypatch.syspath_prepend(str(CLIENT))
    import flights_client

    yield flights_client
    for name in [name for name in sys.modules if name.startswith("flights_client")]:
        del sys.modules[name]


def test_every_operation_answers_with_its_types(flights_client, flights, serve):
    with flights_client.FlightsClient(url=serve(flights) + "/graphql") as client:
        score = client.score(origin="JFK", tailnum="N14228").departure_delay
        assert isinstance(score.temp, float)
        assert {"temp", "freezing", "last_delay"} < set(score.meta.names)
        now = client.airport_now(origin="JFK")
        assert now.airport.airport_weather.meta.status is flights_client.FeatureStatus.PRESENT
        assert isinstance(now.airport.airport_weather.meta.event_timestamp, datetime)
        assert [one.origin for one in now.airports] == ["EWR", "LGA"]
        catalog = client.catalog(search="weather", first=1)
        assert catalog.feature_views.nodes[0].name == "airport_weather"
        # Training order, by every way in.
        assert catalog.feature_service.names == score.meta.names
        lineage = client.lineage(ref="airport_weather:freezing", view="airport_weather")
        assert any(node.kind == "column" for node in lineage.lineage.nodes)
        assert lineage.feature_view.versions[0].version == 1
        delay = client.departure_delay(
            entities=[{"origin": "JFK", "tailnum": "N14228"}],
            spine=[{"origin": "JFK", "tailnum": "N14228", "event_timestamp": "2013-12-01T10:00Z"}],
        )
        assert delay.online_features.names == score.meta.names
        response = client.execute('{ feature(ref: "x") { ref } }')
        # Errors of the server reach the caller as exceptions.
        with pytest.raises(flights_client.GraphQLClientGraphQLMultiError, match="not a reference"):
            client.get_data(response)


def test_the_client_has_not_drifted_from_the_operations():
    text = (CLIENT / "flights_client" / "client.py").read_text()
    held = {print_ast(parse(part.split('"""')[0])) for part in text.split('gql("""')[1:]}
    operations = {
        print_ast(parse(path.read_text()))
        for path in (ROOT / "graphql" / "operations").glob("*.graphql")
    }
    assert held == operations, "generate examples/client again (its README says how)"


def test_the_example(flights_client, flights, serve, monkeypatch, capsys):
    import runpy

    monkeypatch.setattr(sys, "argv", ["score.py", serve(flights) + "/graphql"])
    runpy.run_path(str(CLIENT / "score.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["N14228 at JFK", "N910XJ at EWR"]
