# ruff: noqa: E501 - queries and answers read best unbroken
"""Static queries: the catalog, features by name online and historical, errors."""

from datetime import UTC, datetime


def test_project_entities_and_services(ask):
    answer = ask(
        "{ project { name revision } entities { name joinKeys { name dtype } featureViews { name } } "
        'entity(name: "carrier") { name } none: entity(name: "x") { name } '
        "featureServices { name } "
        'featureService(name: "scoring") { version names references } }'
    )["data"]
    assert answer["project"] == {"name": "demo", "revision": 1}
    assert [item["name"] for item in answer["entities"]] == [
        "airport",
        "carrier",
        "feature",
        "flight-leg",
    ]
    assert answer["entities"][0]["joinKeys"] == [{"name": "origin", "dtype": "string"}]
    assert answer["entity"] == {"name": "carrier"}
    assert answer["none"] is None
    assert answer["featureServices"] == [{"name": "scoring"}]
    assert answer["featureService"] == {
        "version": 1,
        "names": ["temp", "big_count", "flights"],
        "references": [
            "airport_weather@1:temp",
            "airport_weather@1:big_count",
            "route_facts@1:flights",
        ],
    }


def test_feature_views_are_paged_and_searched(ask):
    query = (
        "query($after: String) { featureViews(first: 3, after: $after) { totalCount "
        "nodes { name } edges { cursor node { name } } pageInfo { hasNextPage endCursor } } }"
    )
    first = ask(query)["data"]["featureViews"]
    rest = ask(query, after=first["pageInfo"]["endCursor"])["data"]["featureViews"]
    names = [node["name"] for page in (first, rest) for node in page["nodes"]]
    assert names == ["airport_weather", "hidden", "leg_facts", "route_facts", "world_facts"]
    assert (first["totalCount"], first["pageInfo"]["hasNextPage"]) == (5, True)
    assert rest["pageInfo"]["hasNextPage"] is False
    for arguments in (
        'search: "HOURLY freez"',
        'tag: "domain"',
        'tag: "domain:weather"',
        'owner: "ann"',
    ):
        found = ask(f"{{ featureViews({arguments}) {{ nodes {{ name }} }} }}")["data"]
        assert found["featureViews"]["nodes"] == [{"name": "airport_weather"}], arguments
    assert ask('{ featureViews(tag: "domain:x") { totalCount } }')["data"] == {
        "featureViews": {"totalCount": 0}
    }


def test_feature_view_and_features(ask):
    answer = ask(
        '{ featureView(name: "airport_weather") { version description owner tags ttl freshness online '
        "source { name warehouse eventTimestamp } entities { name } features { ref dtype } "
        'featureServices { name } } old: featureView(name: "airport_weather", version: 9) { name } '
        'feature(ref: "airport_weather@1:temp") { ref dtype description featureView { name } } '
        'missing: feature(ref: "airport_weather:x") { ref } '
        'features(search: "big") { totalCount nodes { ref } } }'
    )["data"]
    view = answer["featureView"]
    assert (view["version"], view["owner"], view["tags"]) == (1, "ann", {"domain": "weather"})
    assert (view["ttl"], view["freshness"], view["online"]) == ("1d", "1m", True)
    assert view["source"] == {
        "name": "weather",
        "warehouse": "default",
        "eventTimestamp": "seen_at",
    }
    assert view["features"][2] == {"ref": "airport_weather:big_count", "dtype": "int64"}
    assert view["featureServices"] == [{"name": "scoring"}]
    assert answer["old"] is None
    assert answer["missing"] is None
    assert answer["feature"]["description"] == "Degrees"
    assert answer["features"] == {"totalCount": 1, "nodes": [{"ref": "airport_weather:big_count"}]}


def test_online_features_are_columnar(ask):
    answer = ask(
        'query($e: [JSON!]!) { onlineFeatures(service: "scoring", entities: $e) '
        "{ names rows values statuses eventTimestamps } }",
        e=[
            {"origin": "JFK", "carrier_id": "9007199254740993"},
            {"origin": "OLD", "carrier_id": 1},
            {"origin": None, "carrier_id": 5},
        ],
    )
    at = "2024-01-01T11:00:00Z"
    assert answer["data"]["onlineFeatures"] == {
        "names": ["temp", "big_count", "flights"],
        "rows": [
            {
                "origin": "JFK",
                "carrier_id": "9007199254740993",
                "temp": None,
                "big_count": 7,
                "flights": 4,
            },
            {"origin": "OLD", "carrier_id": 1, "temp": None, "big_count": None, "flights": None},
            {"origin": None, "carrier_id": 5, "temp": None, "big_count": None, "flights": None},
        ],
        "values": [[None, 7, 4], [None, None, None], [None, None, None]],
        "statuses": [
            ["PRESENT", "PRESENT", "PRESENT"],
            ["OUTSIDE_MAX_AGE", "OUTSIDE_MAX_AGE", "NOT_FOUND"],
            ["NOT_FOUND", "NOT_FOUND", "NOT_FOUND"],
        ],
        "eventTimestamps": [
            [at, at, "2024-01-01T09:00:00Z"],
            ["2023-12-01T00:00:00Z", "2023-12-01T00:00:00Z", None],
            [None, None, None],
        ],
    }


def test_online_features_by_reference_and_pinned(ask):
    answer = ask(
        '{ onlineFeatures(features: ["airport_weather@1:freezing"], entities: [{origin: "JFK"}]) '
        '{ values statuses } same: onlineFeatures(service: "scoring@1", '
        'entities: [{origin: "EWR", carrier_id: 1}]) { values } }'
    )
    assert answer["data"] == {
        "onlineFeatures": {"values": [[None]], "statuses": [["NULL_VALUE"]]},
        "same": {"values": [[41.0, -5, None]]},
    }


def test_historical_features(ask, store):
    spine = [
        {"origin": "JFK", "note": {"a": 1}, "event_timestamp": "2024-01-01T10:30:00Z"},
        {"origin": "JFK", "note": 2, "event_timestamp": "2024-01-01T06:15:00-05:00"},
        {"origin": "JFK", "event_timestamp": "2024-01-01T10:30:00Z"},
    ]
    answer = ask(
        "query($s: [JSON!]!) { historicalFeatures(features: "
        '["airport_weather:temp", "airport_weather:big_count", "airport_weather:price"], spine: $s) }',
        s=spine,
    )
    rows = answer["data"]["historicalFeatures"]
    early = {"temp": 30.5, "big_count": "9007199254740993", "price": "1.50"}
    assert rows == [
        {**spine[0], **early},
        {**spine[1], "temp": None, "big_count": 7, "price": "2.25"},
        {**spine[2], "note": None, **early},
    ]
    found = store.get_features(
        ["airport_weather:temp"],
        [{"origin": "JFK"}],
        as_of=datetime(2024, 1, 1, 10, 30, tzinfo=UTC),
    )
    assert found.to_dict()["temp"] == [30.5]


def test_errors_carry_the_class_as_code(ask):
    cases = {
        '{ onlineFeatures(service: "scorin", entities: []) { names } }': "NotFoundError",
        "{ onlineFeatures(entities: []) { names } }": "SpineError",
        '{ onlineFeatures(features: ["hidden:secret"], entities: []) { names } }': "NotFoundError",
        '{ onlineFeatures(features: ["airport_weather:temp"], entities: [{orign: "x"}]) { names } }': "SpineError",
        '{ historicalFeatures(service: "scoring", spine: [{origin: "x", carrier_id: 1, '
        'event_timestamp: "x"}]) }': "SpineError",
        '{ featureViews(after: "?") { totalCount } }': "NotFoundError",
    }
    for query, code in cases.items():
        (error,) = ask(query)["errors"]
        assert error["extensions"]["code"] == code, query
    (error,) = ask('{ onlineFeatures(service: "scorin", entities: []) { names } }')["errors"]
    assert "Did you mean 'scoring'?" in error["message"]


def test_other_errors_are_masked_and_logged(ask, store, monkeypatch, caplog):
    def broken(*arguments, **options):
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr(store.online.reader, "read_async", broken)
    (error,) = ask('{ airport(origin: "JFK") { airportWeather { temp } } }')["errors"]
    assert error["message"] == "internal error"
    assert "hunter2" not in str(error)
    assert "RuntimeError" in caplog.text
