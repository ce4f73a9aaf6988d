"""Services and on-demand views as fields, names that are overridden, late data, and the catalog."""

from __future__ import annotations

import pytest

import virtualfs as vfs
from tests.graphql_api.conftest import Client, landed
from virtualfs.definitions.api_names import STATIC_FIELDS
from virtualfs_graphql.app import SERVER, sdl
from virtualfs_graphql.catalog import static_schema


def test_static_names_are_those_of_the_schema():
    fields = set(static_schema().query_type.fields)
    assert fields | {"_entities", "_service"} == STATIC_FIELDS


def test_a_service_is_a_field_in_training_order(ask, store):
    answer = ask(
        '{ scoring(origin: "JFK", carrierId: 1) { flights temp bigCount '
        "_meta { version names statuses eventTimestamps cacheHit } } }"
    )["data"]["scoring"]
    assert [*answer][:3] == ["flights", "temp", "bigCount"]  # as the document asks
    assert (answer["temp"], answer["bigCount"], answer["flights"]) == (None, 7, 3)
    names = answer["_meta"]["names"]
    assert names == ["temp", "big_count", "flights"]
    found = store.get_online_features("scoring", [{"origin": "JFK", "carrier_id": 1}])
    assert answer["_meta"]["statuses"] == [found.statuses[name][0] for name in names]
    text = sdl(store)
    fields = text.split("type Scoring {")[1].split("}")[0]
    assert [word for word in fields.replace(":", " ").split() if word in
            ("temp", "bigCount", "flights")] == ["temp", "bigCount", "flights"]  # fmt: skip


def test_a_service_never_gets_a_newer_view_than_it_was_trained_on(ask, store):
    """A view moves on; the service that pins its old version still answers by that."""
    old = store.state().project()
    weather = old.views["airport_weather"]
    warmer = weather.model_copy(
        update={
            "features": tuple(
                vfs.Feature("temp", "temp + 100") if item.name == "temp" else item
                for item in weather.features
            )
        }
    )
    store.apply([warmer])
    query = """{ airport(origin: "EWR") { airportWeather { temp _meta { version } } }
        new: onlineFeatures(service: "scoring", entities: [{origin: "EWR", carrier_id: 1}]) { values }
        old: onlineFeatures(service: "scoring@1", entities: [{origin: "EWR", carrier_id: 1}]) { values }
        scoring(origin: "EWR", carrierId: 1) { temp _meta { version } } }"""  # noqa: E501
    data = Client(SERVER.asgi(store)).post("/graphql", json={"query": query}).json()["data"]
    assert data["airport"]["airportWeather"] == {"temp": 141.0, "_meta": {"version": 2}}
    # The service moved with the apply, as the plan said, and its first version stays what it was.
    assert data["scoring"] == {"temp": 141.0, "_meta": {"version": 2}}
    assert (data["new"]["values"][0][0], data["old"]["values"][0][0]) == (141.0, 41.0)


def test_as_of_answers_of_services_equal_the_store(ask, store):
    from datetime import UTC, datetime

    answer = ask(
        '{ scoring(origin: "JFK", carrierId: 1, asOf: "2024-01-01T10:30:00Z") { temp bigCount } }'
    )
    found = store.get_features(
        "scoring", [{"origin": "JFK", "carrier_id": 1}],
        as_of=datetime(2024, 1, 1, 10, 30, tzinfo=UTC),
    ).to_list()[0]  # fmt: skip
    assert answer["data"]["scoring"] == {"temp": found["temp"], "bigCount": str(found["big_count"])}


@pytest.fixture
def renamed(store):
    """The catalog with on-demand views and names of their own."""
    weather = store.state().project().views["airport_weather"]
    named = weather.model_copy(
        update={
            "graphql_name": "sky",
            "features": (
                vfs.Feature("temp", graphql_name="warmth", description="Degrees"),
                *weather.features[1:],
            ),
        }
    )
    share = vfs.OnDemandFeatureView(
        "share", inputs=[named[["temp"]]], request={"amount": "float64"},
        features=[vfs.Feature("sum", vfs._.temp + vfs._.amount)],
    )  # fmt: skip
    city = vfs.Entity("airport", {"origin": "string"}, graphql_name="hub", graphql_plural="hubList")
    taken = vfs.Entity("feature", {"origin": "string"}, graphql_name="thing",
                       graphql_plural="things")  # fmt: skip
    plan = store.plan([named, share, city, taken])
    assert not [text for text in plan.warnings if "GraphQL" in text]
    store.apply(plan)
    return Client(SERVER.asgi(store))


def test_names_may_be_said(renamed, store):
    query = """{ hub(origin: "EWR") { sky { warmth freezing } share(amount: 2) { sum _meta {
        status version } } } hubList(keys: [{origin: "x"}]) { origin }
        thing(origin: "y") { origin } }"""
    answer = renamed.post("/graphql", json={"query": query}).json()
    assert answer["data"] == {
        "hub": {
            "sky": {"warmth": 41.0, "freezing": False},
            "share": {"sum": 43.0, "_meta": {"status": "PRESENT", "version": 1}},
        },
        "hubList": [{"origin": "x"}],
        "thing": {"origin": "y"},
    }
    # Saying a name makes no new version.
    assert store.state().of_kind("feature_view")["airport_weather"].version == 1


def test_inputs_of_on_demand_features_must_be_said(renamed):
    def ask(arguments):
        query = f'{{ hub(origin: "EWR") {{ share{arguments} {{ sum }} }} }}'
        return renamed.post("/graphql", json={"query": query}).json()

    assert ask("(amount: null)")["data"]["hub"]["share"] == {"sum": None}
    (error,) = ask("")["errors"]
    assert error["path"] == ["hub", "share"]
    assert "lacks the request input 'amount'" in error["message"]


def test_names_that_are_taken_are_warned_of_by_the_plan(store):
    source = vfs.Source("routes", table="routes", event_timestamp="seen_at")
    view = vfs.FeatureView(
        "a_b", source=source, entities=["airport"],
        features=[vfs.Feature("x_y", "flights"), vfs.Feature("xY", "flights")],
    )  # fmt: skip
    twin = vfs.FeatureView("aB", source=source, entities=["airport"], features=["flights"])
    service = vfs.FeatureService("airports", [view])
    warnings = [text for text in store.plan([view, twin, service]).warnings if "GraphQL" in text]
    assert [text.split(" is left out")[0] for text in warnings] == [
        "feature view 'a_b' of entity 'airport'",
        "feature service 'airports'",
        "feature 'xY' of feature view 'a_b'",
    ]
    assert all("graphql_name=" in text for text in warnings)
    store.apply([view, twin, service])
    text = sdl(store)
    assert "aB: AB" in text
    with pytest.raises(vfs.DefinitionError, match="cannot be a name in GraphQL"):
        vfs.Feature("x", graphql_name="2x")


LATE = """
CREATE TABLE late AS SELECT * FROM (VALUES
    ('JFK', TIMESTAMP '2024-01-01 10:00:00', TIMESTAMP '2024-01-01 10:00:00', 1),
    ('JFK', TIMESTAMP '2024-01-01 10:30:00', TIMESTAMP '2024-01-01 11:30:00', 2)
) t(origin, seen_at, written_at, level);
"""


def test_late_data_is_left_out_where_asked(store):
    store.warehouse().connection.con.execute(LATE)
    source = vfs.Source(
        "late", table="late", event_timestamp="seen_at", created_timestamp="written_at"
    )
    latest = vfs.FeatureView("level", source=source, entities=["airport"], features=["level"])
    windows = vfs.FeatureView(
        "levels", source=source, entities=["airport"],
        features=[vfs.Aggregate("level", "sum", "1d", name="total")],
    )  # fmt: skip
    store.apply([latest, windows])
    client = Client(SERVER.asgi(store))
    query = """{ a: airport(origin: "JFK", asOf: "2024-01-01T11:00:00Z") { ...f }
        b: airport(origin: "JFK", asOf: "2024-01-01T11:00:00Z", lateData: EXCLUDE) { ...f }
        c: historicalFeatures(features: ["level:level", "levels:total"], lateData: EXCLUDE,
            spine: [{origin: "JFK", event_timestamp: "2024-01-01T11:00:00Z"}]) }
        fragment f on Airport { level { level } levels { total } }"""
    data = client.post("/graphql", json={"query": query}).json()["data"]
    assert data["a"] == {"level": {"level": 2}, "levels": {"total": 3}}
    assert data["b"] == {"level": {"level": 1}, "levels": {"total": 1}}
    (row,) = data["c"]
    assert (row["level"], row["total"]) == (1, 1)
    now = '{ airport(origin: "JFK", lateData: EXCLUDE) { level { level } } }'
    (error,) = client.post("/graphql", json={"query": now}).json()["errors"]
    assert "needs asOf" in error["message"]
    with pytest.raises(vfs.SpineError, match="needs as_of="):
        store.get_features(["level"], [{"origin": "JFK"}], late_data="exclude")


def test_lineage_versions_sql_and_search(ask, store):
    answer = ask("""{
        lineage(ref: "airport_weather:temp", direction: UPSTREAM) {
            roots nodes { id kind name } edges { source target role } mermaid }
        all: lineage(ref: "airport_weather:temp", depth: 1) { nodes { kind } }
        featureView(name: "airport_weather") {
            sql versions { version revision createdBy impact changes } }
        search(text: "weather hourly", first: 3) { kind name score }
        featureViews(entity: "carrier") { nodes { name } pageInfo {
            hasNextPage hasPreviousPage startCursor endCursor } }
    }""")["data"]
    graph = answer["lineage"]
    ids = {node["id"] for node in graph["nodes"]}
    assert set(graph["roots"]) <= ids
    assert all({edge["source"], edge["target"]} <= ids for edge in graph["edges"])
    assert {"column", "feature"} <= {node["kind"] for node in graph["nodes"]}
    assert graph["mermaid"].startswith("flowchart")
    assert any(node["kind"] == "feature_service" for node in answer["all"]["nodes"])
    view = answer["featureView"]
    assert "weather" in view["sql"]
    (version,) = view["versions"]
    assert (version["version"], version["revision"]) == (1, 1)
    assert answer["search"][0]["name"].startswith("airport_weather")
    (node,) = answer["featureViews"]["nodes"]
    assert node == {"name": "route_facts"}
    info = answer["featureViews"]["pageInfo"]
    assert (info["hasNextPage"], info["hasPreviousPage"]) == (False, False)
    assert info["startCursor"] == info["endCursor"]


def test_types_of_arrays_and_small_integers(store):
    text = sdl(store)
    for line in ("labels: [String]", "firstDay: Date", "firstSeen: DateTime", "raw: JSON",
                 "flights: Int", "bigCount: BigInt", "price: Decimal", "temp: Float",
                 "freezing: Boolean"):  # fmt: skip
        assert f"  {line}\n" in text, line


def test_stale_values_are_shown_and_said_to_be(store):
    """The cached row is older than its freshness, and the warehouse does not answer."""
    import json
    from datetime import timedelta

    client = Client(SERVER.asgi(store))
    query = {"query": '{ airport(origin: "EWR") { airportWeather { temp _meta { status } } } }'}
    assert client.post("/graphql", json=query).json()["data"]["airport"]["airportWeather"] == {
        "temp": 41.0, "_meta": {"status": "PRESENT"},
    }  # fmt: skip
    landed(store)
    store.warehouse().connection.con.execute("DROP TABLE weather")
    later = store.config.clock + timedelta(minutes=5)
    store.config = store.config.model_copy(update={"clock": later})
    answer = client.post("/graphql", json=query).json()
    stale = {"temp": 41.0, "_meta": {"status": "STALE"}}
    assert answer == {"data": {"airport": {"airportWeather": stale}}}, json.dumps(answer)
