"""Limits, each tested by attack, and the checks that scanners of GraphQL servers make."""

from __future__ import annotations

import json
import time

import pytest

import virtualfs as vfs
from tests.graphql_api.conftest import Client, landed
from virtualfs.config import Limits, Server
from virtualfs_graphql.app import SERVER

QUERY = '{ airport(origin: "JFK") { airportWeather { temp } } }'


def served(store, **settings) -> Client:
    """Return a client of the store's server with other settings."""
    store.config = store.config.model_copy(update={"server": Server(**settings)})
    return Client(SERVER.asgi(store))


def messages(answer) -> str:
    return " | ".join(error["message"] for error in answer.json()["errors"])


def refused(client, query, variables=None, **options) -> str:
    answer = client.post("/graphql", json={"query": query, "variables": variables}, **options)
    body = answer.json()
    assert "data" not in body, body
    return messages(answer)


FIELDS = " ".join(f'a{n}: airport(origin: "x") {{ origin }}' for n in range(201))
INNER = "entities { featureViews { " * 6 + "name" + " } }" * 6
DEEP = f"{{ featureViews {{ nodes {{ {INNER} }} }} }}"
ATTACKS = {
    "aliases": f"{{ {FIELDS} }}",
    "aliases in a fragment": f"query {{ ...f }} fragment f on Query {{ {FIELDS} }}",
    "fragments spread in fragments": "{ ...f0 } "
    + " ".join(f"fragment f{n} on Query {{ ...f{n + 1} ...f{n + 1} }}" for n in range(30))
    + ' fragment f30 on Query { a: airport(origin: "x") { origin } }',
    "root fields": "{ " + "project { name } " * 201 + "}",
    "depth": DEEP,
    "depth by fragments": "{ featureViews { nodes { ...f0 } } } "
    + " ".join(
        f"fragment f{n} on FeatureView {{ entities {{ featureViews {{ ...f{n + 1} }} }} }}"
        for n in range(6)
    )
    + " fragment f6 on FeatureView { name }",
    "directives": "{ project { name " + "@skip(if: false) " * 60 + "} }",
    "directives of fields": "{ project { "
    + " ".join(f"n{n}: name @skip(if: false)" for n in range(60))
    + " } }",
    "a fragment cycle": "{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }",
    "a fragment of itself": "{ project { ...a } } fragment a on Project { name ...a }",
    "tokens": "{ " + "project { name } " * 4000 + "}",
    "one endless name": "{ " + "a" * 120_000 + " }",
    "comments": "{ project { name } }" + "\n# x" * 6000,
    "comment padding": "{ project { name } } #" + "x" * 120_000,
    "nesting that no parser follows": "{ a" * 2000 + " }" * 2000,
    "list literals": '{ airport(origin: "x", asOf: ' + "[" * 3000 + "]" * 3000 + ") { origin } }",
    "chains of fragments": "{ ...f0 } "
    + " ".join(f"fragment f{n} on Query {{ ...f{n + 1} }}" for n in range(900))
    + " fragment f900 on Query { project { name } }",
    "introspection in circles": "{ __schema { types { fields { type { fields { type { fields "
    "{ type { fields { name } } } } } } } } } }",
    "overlapping fields": "{ project { "
    + " ".join(["name"] * 2400)
    + " } "
    + "project { "
    + " ".join(["name"] * 2400)
    + " } }",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_by_document_are_refused_before_anything_runs(client, store, monkeypatch, name):
    def never(*_, **__):
        raise AssertionError("something was read")

    monkeypatch.setattr(store.online.reader, "read_async", never)
    started = time.monotonic()
    text = refused(client, ATTACKS[name])
    assert "internal" not in text
    # A generous bound: refusing must not be the attack.
    assert time.monotonic() - started < 5


def test_documents_that_are_kept_are_bounded(client, store):
    """Whoever sends ever new documents fills no memory, and pushes none out but his own kind."""
    from virtualfs_graphql import documents
    from virtualfs_graphql.catalog import static_schema

    kept = documents.Documents(static_schema(), Limits(), introspection=True)
    long = "{ project { name } } #" + "x" * 2000
    for number in range(300):
        kept.get(f"{long}{number}")
        kept.get(f"{{ nothing{number} }}")
    texts = list(kept)
    assert sum(map(len, texts)) <= 500_000
    assert not [text for text in texts if "nothing" in text]
    assert kept.get(texts[-1]) is kept.get(texts[-1])


def test_messages_say_what_to_do(client):
    assert "201 aliases, more than the 200" in refused(client, ATTACKS["aliases"])
    assert "[server.limits] depth" in refused(client, DEEP)
    assert "'a' spreads itself" in refused(client, ATTACKS["a fragment cycle"])


def test_what_is_within_the_limits_is_answered(client):
    fields = " ".join(f'a{n}: airport(origin: "JFK") {{ origin }}' for n in range(200))
    answer = client.post("/graphql", json={"query": f"{{ {fields} }}"}).json()
    assert "errors" not in answer
    assert len(answer["data"]) == 200


def test_lists_are_bounded(store):
    client = served(store, limits=Limits(list_size=3))
    many = {"k": [{"origin": "x"}] * 4}
    for query in (
        "query($k: [AirportKey!]!) { airports(keys: $k) { origin } }",
        "query($k: [AirportKey!]!) { airports(keys: $k) { origin } project { name } }",
        'query($k: [JSON!]!) { onlineFeatures(features: ["airport_weather"], entities: $k) '
        "{ names } }",
        'query($k: [JSON!]!) { historicalFeatures(features: ["airport_weather"], spine: $k) }',
    ):
        answer = client.post("/graphql", json={"query": query, "variables": many}).json()
        (error,) = answer["errors"]
        assert error["extensions"]["code"] == "LimitError"
        assert "list_size" in error["message"]
    query = "query($r: [_Any!]!) { _entities(representations: $r) { ... on Airport { origin } } }"
    given = {"r": [{"__typename": "Airport", "origin": "x"}] * 4}
    answer = client.post("/graphql", json={"query": query, "variables": given}).json()
    assert answer["errors"][0]["extensions"]["code"] == "LimitError"


def test_cost_tells_cold_keys_from_hot_ones(store):
    """Ten entities cost 10, their rows 10 from the cache, and 100 from a warehouse."""
    client = served(store, limits=Limits(cost=60))
    query = "query($k: [AirportKey!]!) { airports(keys: $k) { airportWeather { temp } } }"
    keys = [{"origin": f"K{n}"} for n in range(10)]

    def ask(some):
        return client.post("/graphql", json={"query": query, "variables": {"k": some}}).json()

    (error,) = ask(keys)["errors"][:1]
    assert error["extensions"]["code"] == "LimitError"
    assert "([server.limits] cost)" in error["message"]
    for start in range(0, 10, 5):
        assert "errors" not in ask(keys[start : start + 5])
        landed(store)
    assert "errors" not in ask(keys)  # the cache has them now
    past = query.replace("keys: $k", 'keys: $k, asOf: "2024-01-01T11:30:00Z"')
    answer = client.post("/graphql", json={"query": past, "variables": {"k": keys}}).json()
    assert answer["errors"][0]["extensions"]["code"] == "LimitError"


def test_many_small_fields_cost_what_one_large_one_does(store):
    client = served(store, limits=Limits(cost=50))
    fields = " ".join(
        f'a{n}: airport(origin: "C{n}") {{ airportWeather {{ temp }} }}' for n in range(10)
    )
    for query in (f"{{ {fields} }}", f"{{ {fields} project {{ name }} }}"):
        answer = client.post("/graphql", json={"query": query}).json()
        assert answer["errors"][0]["extensions"]["code"] == "LimitError"


def test_bodies_are_bounded(store):
    client = served(store, limits=Limits(body=1000))
    long = json.dumps({"query": QUERY, "variables": {"x": "y" * 1000}})
    head = {"content-type": "application/json"}
    assert client.post("/graphql", content=long, headers=head).status_code == 413

    async def pieces():
        for start in range(0, len(long), 100):
            yield long[start : start + 100].encode()

    answer = client.post("/graphql", content=pieces(), headers=head)
    assert answer.status_code == 413
    assert "[server.limits] body" in messages(answer)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"query": "{ project { name } }", "variables": {"a": NaN}}', 400),
        ('{"query": "{ project { name } }", "variables": {"a": ' + "[" * 5000 + "]" * 5000 + "}}",
         400),
        ('{"query": "{ project { name } }", "variables": {"a": ' + "[" * 60 + "]" * 60 + "}}", 400),
        ('[{"query": "{ project { name } }"}]', 400),
        ('{"query": 5}', 400),
        ("not json", 400),
        ("{}", 400),
        ('{"query": ""}', 400),
        ('"\\ud800"', 400),
        ('{"query": "{ project { name } }", "variables": {"a": 1e999}}', 400),
    ],
)  # fmt: skip
def test_bodies_that_are_no_requests(client, body, status):
    answer = client.post(
        "/graphql", content=body.encode("utf-8"), headers={"content-type": "application/json"}
    )
    assert answer.status_code == status, answer.text
    assert "errors" in answer.json()


def test_forms_and_other_content_types_are_refused(client):
    """A page elsewhere could send these without the browser asking first."""
    form = {"query": "{ project { name } }"}
    assert client.post("/graphql", data=form).status_code == 415
    assert client.post("/graphql", files={"query": ("x", b"y")}).status_code == 415
    text = {"content-type": "text/plain"}
    assert client.post("/graphql", content=json.dumps(form), headers=text).status_code == 415


def test_queries_by_get_and_nothing_else(client):
    answer = client.get("/graphql", params={"query": "{ project { name } }"})
    assert answer.json() == {"data": {"project": {"name": "demo"}}}
    variables = json.dumps({"k": "EWR"})
    found = client.get("/graphql", params={
        "query": "query Q($k: String!) { airport(origin: $k) { origin } }",
        "variables": variables, "operationName": "Q",
    })  # fmt: skip
    assert found.json()["data"] == {"airport": {"origin": "EWR"}}
    mutation = 'mutation { invalidate(view: "airport_weather") }'
    assert client.get("/graphql", params={"query": mutation}).status_code == 405
    assert client.request("PUT", "/graphql").status_code == 405
    assert client.get("/graphql", params={"query": "{ a }", "variables": "[1]"}).status_code == 400


def test_operations_by_name(client):
    text = "query A { project { name } } query B { project { revision } }"

    def ask(**options):
        return client.post("/graphql", json={"query": text, **options})

    assert ask(operationName="B").json()["data"] == {"project": {"revision": 1}}
    assert "say operationName" in messages(ask())
    assert "no operation 'C'" in messages(ask(operationName="C"))


def test_status_of_errors_goes_by_what_the_client_accepts(client):
    body = {"query": "{ nothing }"}
    assert client.post("/graphql", json=body).status_code == 200
    modern = {"accept": "application/graphql-response+json"}
    answer = client.post("/graphql", json=body, headers=modern)
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("application/graphql-response+json")
    wrong = {"query": "query($k: Int!) { project { name } }", "variables": {"k": "x"}}
    assert client.post("/graphql", json=wrong, headers=modern).status_code == 400


def test_no_field_is_suggested(client):
    text = refused(client, "{ projct { name } }")
    assert "Did you mean" not in text


def test_production_tells_nothing_of_itself(store):
    client = served(store, production=True)
    assert "introspection" in refused(client, "{ __schema { queryType { name } } }")
    assert "introspection" in refused(client, '{ __type(name: "Query") { name } }')
    html = {"accept": "text/html"}
    assert client.get("/graphql", headers=html).status_code == 404
    assert client.get("/query").status_code == 404
    assert client.get("/").status_code == 404
    ok = client.post("/graphql", json={"query": "{ __typename project { name } }"}).json()
    assert ok["data"]["__typename"] == "Query"


def test_introspection_works_where_it_is_on(client):
    from graphql import get_introspection_query

    answer = client.post("/graphql", json={"query": get_introspection_query()}).json()
    assert "errors" not in answer


SLOW = {
    "duckdb": "SELECT i % 7 AS k, TIMESTAMP '2024-01-01' + to_seconds(i // 9) AS at, "
    "hash(i)::DOUBLE AS x FROM range(400000000) t(i)",
    "postgres": "SELECT i % 7 AS k, timestamp '2024-01-01' + i / 9 * interval '1 second' AS at, "
    "i::float8 AS x FROM generate_series(1, 80000000) AS t(i)",
}


@pytest.mark.parametrize("engine", SLOW)
def test_a_request_that_takes_too_long_is_cancelled_in_the_warehouse(tmp_path, postgres, engine):
    url = postgres if engine == "postgres" else "duckdb://"
    config = vfs.Config(
        project="slow", registry=f"sqlite:///{tmp_path}/r.db", folder=tmp_path,
        warehouses={"default": {"url": url}}, server={"limits": {"timeout": "500ms"}},
    )  # fmt: skip
    view = vfs.FeatureView(
        "slow", source=vfs.Source("slow", query=SLOW[engine], event_timestamp="at"),
        entities=[vfs.Entity("thing", {"k": "int64"})], features=["x"],
    )  # fmt: skip
    with vfs.FeatureStore(config) as store:
        store.apply([view])
        client = Client(SERVER.asgi(store))
        query = """{ historicalFeatures(features: ["slow"], spine: [
            {k: 1, event_timestamp: "2030-01-01T00:00:00Z"}]) }"""
        started = time.monotonic()
        answer = client.post("/graphql", json={"query": query})
        assert answer.status_code == 504
        assert "[server.limits] timeout" in messages(answer)
        # The connection is free again long before the query could have ended.
        store.warehouse().ping()
        assert time.monotonic() - started < 20


def test_trusted_documents(store, tmp_path):
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "weather.graphql").write_text(QUERY)
    client = served(store, trusted_documents=["documents"], only_trusted=True)
    assert "data" in client.post("/graphql", json={"query": QUERY}).json()
    refusal = client.post("/graphql", json={"query": QUERY + " "})
    assert refusal.status_code == 403
    from virtualfs_graphql.documents import digest

    named = client.post("/graphql", json={"documentId": digest(QUERY)}).json()
    assert "data" in named
    assert client.post("/graphql", json={"documentId": "sha256:00"}).status_code == 400
    with pytest.raises(vfs.ConfigError, match="cannot read"):
        served(store, trusted_documents=["nowhere.graphql"])


def test_a_plan_names_the_trusted_documents_that_it_would_break(store, tmp_path):
    (tmp_path / "weather.graphql").write_text(
        'query Weather { airport(origin: "JFK") { airportWeather { temp } } }'
    )
    served(store, trusted_documents=["weather.graphql"])
    weather = store.state().project().views["airport_weather"]
    kept = weather.model_copy(update={"description": "Other words"})
    assert not [text for text in store.plan([kept]).warnings if "trusted" in text]
    without = weather.model_copy(update={"features": weather.features[1:]})
    other = vfs.FeatureService("scoring", [without[["big_count"]]])
    (text,) = [text for text in store.plan([without, other]).warnings if "trusted" in text]
    assert "trusted document Weather would break" in text
    assert "'temp'" in text
