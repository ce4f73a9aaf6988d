# ruff: noqa: E501 - queries and answers read best unbroken
"""Fields generated from the catalog: shapes, types, keys, instants, and one read for all."""

from datetime import UTC, datetime

import pytest

import virtualfs as vfs
from tests.graphql_api.conftest import Client, landed
from virtualfs.definitions.api_names import field_name, type_name
from virtualfs_graphql.app import SERVER, sdl


def test_entity_and_view(ask):
    answer = ask(
        '{ airport(origin: "EWR") { origin airportWeather { temp freezing bigCount price '
        "_meta { status eventTimestamp version cacheHit } } } }"
    )
    assert answer == {
        "data": {
            "airport": {
                "origin": "EWR",
                "airportWeather": {
                    "temp": 41.0,
                    "freezing": False,
                    "bigCount": -5,
                    "price": None,
                    "_meta": {
                        "status": "PRESENT",
                        "eventTimestamp": "2024-01-01T11:30:00Z",
                        "version": 1,
                        "cacheHit": False,
                    },
                },
            }
        }
    }


def test_second_read_is_a_cache_hit(ask, store):
    query = '{ airport(origin: "EWR") { airportWeather { temp _meta { cacheHit } } } }'
    first = ask(query)
    landed(store)
    second = ask(query)
    assert first["data"]["airport"]["airportWeather"]["_meta"]["cacheHit"] is False
    assert second["data"]["airport"]["airportWeather"] == {
        "temp": 41.0,
        "_meta": {"cacheHit": True},
    }


@pytest.mark.parametrize(("key", "status"), [("nowhere", "NOT_FOUND"), ("OLD", "OUTSIDE_MAX_AGE")])
def test_unknown_and_expired_keys_are_objects_with_null_features(ask, key, status):
    answer = ask(
        "query($k: String!) { airport(origin: $k) { origin airportWeather "
        "{ temp freezing bigCount _meta { status } } } }",
        k=key,
    )
    assert answer["data"]["airport"] == {
        "origin": key,
        "airportWeather": {
            "temp": None,
            "freezing": None,
            "bigCount": None,
            "_meta": {"status": status},
        },
    }


def test_nan_is_null_and_present(ask):
    answer = ask('{ airport(origin: "JFK") { airportWeather { temp price _meta { status } } } }')
    assert answer["data"]["airport"]["airportWeather"] == {
        "temp": None,
        "price": "2.25",
        "_meta": {"status": "PRESENT"},
    }


def test_as_of_equals_the_store(ask, store):
    answer = ask(
        '{ airport(origin: "JFK", asOf: "2024-01-01T05:30:00-05:00") '
        "{ airportWeather { temp freezing bigCount price } } }"
    )
    found = store.get_features(
        ["airport_weather"], [{"origin": "JFK"}], as_of=datetime(2024, 1, 1, 10, 30, tzinfo=UTC)
    ).to_list()[0]
    weather = answer["data"]["airport"]["airportWeather"]
    assert weather["temp"] == found["temp"] == 30.5
    assert weather["freezing"] is found["freezing"] is True
    assert weather["bigCount"] == str(found["big_count"]) == "9007199254740993"
    assert weather["price"] == str(found["price"]) == "1.50"


def test_plural_in_order_with_duplicates(ask):
    answer = ask(
        '{ airports(keys: [{origin: "EWR"}, {origin: "x"}, {origin: "EWR"}]) '
        "{ origin airportWeather { temp } } }"
    )
    assert answer["data"]["airports"] == [
        {"origin": "EWR", "airportWeather": {"temp": 41.0}},
        {"origin": "x", "airportWeather": {"temp": None}},
        {"origin": "EWR", "airportWeather": {"temp": 41.0}},
    ]


def test_view_on_several_entities_takes_the_other_keys(ask):
    answer = ask(
        '{ airport(origin: "JFK") { routeFacts(carrierId: 1) '
        "{ flights firstDay firstSeen labels raw } } "
        'carrier(carrierId: "9007199254740993") { carrierId routeFacts(origin: "JFK") { flights } } }'
    )
    assert answer["data"] == {
        "airport": {
            "routeFacts": {
                "flights": 3,
                "firstDay": "2024-01-01",
                "firstSeen": "2024-01-01T08:00:00Z",
                "labels": ["a", "b"],
                "raw": "AQI=",
            }
        },
        "carrier": {"carrierId": "9007199254740993", "routeFacts": {"flights": 4}},
    }


def test_composite_keys(ask):
    answer = ask(
        '{ flight_leg(origin: "JFK", carrierId: 1) { legFacts { flights } } '
        'flight_legs(keys: [{origin: "JFK", carrierId: "9007199254740993"}]) '
        "{ origin carrierId legFacts { flights } } }"
    )
    assert answer["data"] == {
        "flight_leg": {"legFacts": {"flights": 3}},
        "flight_legs": [
            {"origin": "JFK", "carrierId": "9007199254740993", "legFacts": {"flights": 4}}
        ],
    }


def test_view_without_entity_is_a_root_field(ask):
    answer = ask(
        '{ worldFacts { fuelPrice } early: worldFacts(asOf: "2023-01-01T00:00:00Z") '
        "{ fuelPrice _meta { status } } }"
    )
    assert answer["data"] == {
        "worldFacts": {"fuelPrice": 5.5},
        "early": {"fuelPrice": None, "_meta": {"status": "NOT_FOUND"}},
    }


def test_static_names_win_and_offline_views_are_left_out(ask):
    answer = ask(
        '{ __schema { queryType { fields { name } } } feature: __type(name: "Feature") '
        '{ fields { name } } airport: __type(name: "Airport") { description fields { name } } '
        'view: __type(name: "AirportWeather") { description fields { name description } } }'
    )["data"]
    roots = [field["name"] for field in answer["__schema"]["queryType"]["fields"]]
    assert len(roots) == len(set(roots))
    assert "ref" in [field["name"] for field in answer["feature"]["fields"]]
    assert [field["name"] for field in answer["airport"]["fields"]] == [
        "origin",
        "airportWeather",
        "routeFacts",
    ]
    assert answer["airport"]["description"] == "Where planes leave"
    assert answer["view"]["description"] == "Hourly weather"
    assert answer["view"]["fields"][0] == {"name": "temp", "description": "Degrees"}


def test_one_read_per_instant(ask, store, monkeypatch):
    calls = []
    read = store.online.reader.read_async

    async def counted(lookups, at=None, *, cached=True, **options):
        calls.append((at, cached, sum(len(look.keys) for look in lookups)))
        return await read(lookups, at, cached=cached, **options)

    monkeypatch.setattr(store.online.reader, "read_async", counted)
    query = """{
      a: airport(origin: "JFK") { airportWeather { temp } routeFacts(carrierId: 1) { flights } }
      b: airport(origin: "JFK") { airportWeather { freezing } }
      airports(keys: [{origin: "EWR"}, {origin: "JFK"}]) { airportWeather { temp } }
      worldFacts { fuelPrice }
      onlineFeatures(service: "scoring", entities: [{origin: "EWR", carrier_id: 1}]) { values }
      %s
    }"""
    answer = ask(query % "")
    assert "errors" not in answer
    # Two airports' weather, two routes, the world: each row once.
    assert calls == [(None, True, 5)]
    calls.clear()
    past = 'c: airport(origin: "JFK", asOf: "2024-01-01T10:30:00Z") { airportWeather { temp } }'
    assert "errors" not in ask(query % past)
    assert sorted(cached for _, cached, _ in calls) == [False, True]


def test_one_view_out_of_reach_leaves_the_others(ask, store):
    store.warehouse().connection.con.execute("DROP TABLE world")
    answer = ask('{ worldFacts { fuelPrice } airport(origin: "EWR") { airportWeather { temp } } }')
    assert answer["data"] == {
        "worldFacts": None,
        "airport": {"airportWeather": {"temp": 41.0}},
    }
    (error,) = answer["errors"]
    assert error["path"] == ["worldFacts"]
    assert error["extensions"] == {"code": "WarehouseError"}


def test_malformed_instant_is_refused(ask):
    answer = ask('{ airport(origin: "JFK", asOf: "yesterday") { origin } }')
    assert "not an RFC 3339 time" in answer["errors"][0]["message"]


def test_a_view_may_be_called_as_its_entity(store, tmp_path):
    carrier = vfs.Entity("carrier", {"carrier_id": "int64"})
    source = vfs.Source("routes", table="routes", event_timestamp="seen_at")
    store.apply(
        [vfs.FeatureView("carrier", source=source, entities=[carrier], features=["flights"])]
    )
    assert "carrier: Carrier" in sdl(store)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dep_delay_mean_7d", "depDelayMean7d"),
        ("flight-leg", "flight_leg"),
        ("temp", "temp"),
        ("__secret", "_secret"),
        ("7d_mean", "_7dMean"),
        ("größe", "gr__e"),
        ("日本", "_"),
        ("Temp Max", "Temp_Max"),
    ],
)
def test_names(name, expected):
    assert field_name(name) == expected
    assert type_name("airport_weather") == "AirportWeather"


def test_what_is_deprecated_says_so_in_the_schema_and_the_catalog(store):
    weather = store.state().project().views["airport_weather"]
    temp, *others = weather.features
    store.apply([
        weather.model_copy(update={
            "deprecated": "use sky",
            "features": (temp.model_copy(update={"deprecated": "use warmth"}), *others),
        })
    ])  # fmt: skip
    text = sdl(store)
    assert 'temp: Float @deprecated(reason: "use warmth")' in text
    assert 'airportWeather: AirportWeather @deprecated(reason: "use sky")' in text
    query = '{ featureView(name: "airport_weather") { deprecated features { name deprecated } } }'
    answer = Client(SERVER.asgi(store)).post("/graphql", json={"query": query}).json()
    assert answer["data"]["featureView"]["deprecated"] == "use sky"
    assert answer["data"]["featureView"]["features"][:2] == [
        {"name": "temp", "deprecated": "use warmth"},
        {"name": "freezing", "deprecated": None},
    ]
