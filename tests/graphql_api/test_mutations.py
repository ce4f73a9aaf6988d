"""Mutations and tokens: who may change what, and what is told of inputs that are wrong."""

from __future__ import annotations

import hashlib
import logging

import pytest

import virtualfs as vfs
from tests.graphql_api.conftest import Client
from virtualfs.config import Server, Token
from virtualfs_graphql.app import SERVER

TOKENS = {scope: f"token-for-{scope}" for scope in ("read", "write", "admin")}
MUTATIONS = {
    "invalidate": ('mutation { invalidate(view: "airport_weather") }', "write"),
    "materialize": ('mutation { materialize(features: ["world_facts"]) { views { view } } }',
                    "write"),
    "push": ('mutation { push(view: "airport_weather", rows: []) { written } }', "write"),
    "apply": ("mutation { apply(definitions: {}) { applied } }", "admin"),
    "registerTable": ('mutation { registerTable(input: {table: "hidden", entity: "spot", '
                      'joinKeys: ["origin"]}) { applied } }', "admin"),
}  # fmt: skip


@pytest.fixture
def settings():
    tokens = {
        scope: Token(hash="sha256:" + hashlib.sha256(text.encode()).hexdigest(), scopes=[scope])
        for scope, text in TOKENS.items()
    }
    return Server(token="the-one", tokens=tokens)


@pytest.fixture
def client(store, settings):
    store.config = store.config.model_copy(update={"server": settings})
    return Client(SERVER.asgi(store))


@pytest.fixture
def change(client):
    def send(query, token="the-one", **variables):
        head = {"authorization": f"Bearer {token}"} if token else {}
        answer = client.post(
            "/graphql", json={"query": query, "variables": variables}, headers=head
        )
        return answer.json()

    return send


@pytest.mark.parametrize("name", MUTATIONS)
def test_scopes(change, name):
    query, needed = MUTATIONS[name]
    order = ["read", "write", "admin"]
    for scope, token in {None: None, **TOKENS}.items():
        answer = change(query, token)
        may = scope is not None and order.index(scope) >= order.index(needed)
        if may:
            assert "errors" not in answer, (scope, answer)
        else:
            assert answer["errors"][0]["extensions"]["code"] == "PermissionDeniedError", scope
    assert "errors" not in change(query)


def test_without_a_token_mutations_are_refused(store):
    client = Client(SERVER.asgi(store))
    for query, _ in MUTATIONS.values():
        answer = client.post("/graphql", json={"query": query}).json()
        assert answer["errors"][0]["extensions"]["code"] == "PermissionDeniedError"
    anything = {"authorization": "Bearer anything"}
    assert client.post("/graphql", json={"query": "{ a }"}, headers=anything).status_code == 401


@pytest.mark.parametrize("header", ["Bearer wrong", "Bearer ", "Basic dG9rZW4=", "the-one", "ü"])
def test_a_token_that_is_not_known_is_told_and_never_logged(client, caplog, header):
    caplog.set_level(logging.DEBUG)
    answer = client.post(
        "/graphql", json={"query": "{ project { name } }"},
        headers={"authorization": header.encode("latin-1")},
    )  # fmt: skip
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    for secret in (*TOKENS.values(), "the-one", "wrong"):
        assert secret not in caplog.text
        assert secret not in answer.text


def test_reads_may_need_a_token_too(store, settings):
    closed = settings.model_copy(update={"open_reads": False})
    store.config = store.config.model_copy(update={"server": closed})
    client = Client(SERVER.asgi(store))
    query = {"query": "{ project { name } }"}
    assert client.post("/graphql", json=query).status_code == 401
    head = {"authorization": f"Bearer {TOKENS['read']}"}
    assert client.post("/graphql", json=query, headers=head).status_code == 200
    assert client.get("/healthz").status_code == 200


def test_tokens_are_not_shown(store, settings):
    assert "the-one" not in repr(settings)
    assert "the-one" not in str(store.config.display())


def test_push_and_read(change):
    query = (
        'mutation($rows: [JSON!]!) { push(view: "airport_weather", rows: $rows) '
        "{ written dropped errors { message code path } } }"
    )
    row = {"origin": "NEW", "seen_at": "2024-01-01T11:59:00", "temp": 20, "freezing": True,
           "big_count": "9007199254740993", "price": "1.25"}  # fmt: skip
    assert change(query, rows=[row])["data"]["push"] == {"written": 1, "dropped": 0, "errors": []}
    read = '{ airport(origin: "NEW") { airportWeather { temp freezing bigCount price } } }'
    weather = {"temp": 20.0, "freezing": True, "bigCount": "9007199254740993", "price": "1.25"}
    assert change(read)["data"] == {"airport": {"airportWeather": weather}}
    # Once more does no harm, and an older one is dropped.
    older = {**row, "seen_at": "2024-01-01T11:00:00"}
    assert change(query, rows=[row, older])["data"]["push"]["errors"] == []
    assert change(read)["data"] == {"airport": {"airportWeather": weather}}


def test_rows_that_are_wrong_are_told_by_number_and_none_is_pushed(change):
    query = (
        'mutation($rows: [JSON!]!) { push(view: "airport_weather", rows: $rows) '
        "{ written errors { message code path } } }"
    )
    good = {"origin": "NEW", "seen_at": "2024-01-01T11:59:00", "temp": 20.0, "freezing": True,
            "big_count": 1, "price": "1.25"}  # fmt: skip
    rows = [good, {**good, "temp": "warm"}, {**good, "seen_at": "2025-01-01T00:00:00"}, "x"]
    found = change(query, rows=rows)["data"]["push"]
    assert found["written"] == 0
    assert [error["path"] for error in found["errors"]] == [["rows", "1"], ["rows", "2"],
                                                            ["rows", "3"]]  # fmt: skip
    assert {error["code"] for error in found["errors"]} == {"SpineError"}
    assert "temp" in found["errors"][0]["message"]
    read = '{ airport(origin: "NEW") { airportWeather { _meta { status } } } }'
    status = change(read)["data"]["airport"]["airportWeather"]["_meta"]["status"]
    assert status == "NOT_FOUND"
    found = change('mutation { push(view: "nothing", rows: []) { errors { code message } } }')
    assert found["data"]["push"]["errors"][0]["code"] == "NotFoundError"


DEFINITIONS = {
    "entities": [{"name": "gate", "join_keys": {"origin": "string"}}],
    "sources": [{"name": "gates", "table": "hidden"}],
    "feature_views": [
        {"name": "gate_facts", "source": "gates", "entities": ["gate"],
         "features": [{"name": "secret"}]}
    ],
}  # fmt: skip
APPLY = """mutation($d: JSON!, $dry: Boolean) { apply(definitions: $d, dryRun: $dry) {
    applied revision changes { action kind name version impact } warnings
    errors { message code path } } }"""


def test_apply(change, store):
    dry = change(APPLY, d=DEFINITIONS, dry=True)["data"]["apply"]
    assert (dry["applied"], dry["revision"]) == (False, None)
    assert [change["name"] for change in dry["changes"]] == ["gate", "gates", "gate_facts"]
    assert store.state().revision == 1
    done = change(APPLY, d=DEFINITIONS)["data"]["apply"]
    assert (done["applied"], done["revision"], done["errors"]) == (True, 2, [])
    assert any("static" in text for text in done["warnings"])
    again = change(APPLY, d=DEFINITIONS)["data"]["apply"]
    assert (again["applied"], again["revision"], again["changes"]) == (True, None, [])
    assert store.state().revision == 2
    # What is there and is not named stays.
    assert "airport_weather" in store.state().of_kind("feature_view")


@pytest.mark.parametrize(
    ("definitions", "path", "message"),
    [
        ({"entites": []}, ["definitions", "entites"], "entities"),
        ({"entities": {}}, ["definitions", "entities"], "must be a list"),
        ({"entities": [{"name": "x", "join_keys": {"k": "string"}}, {"name": "y"}]},
         ["definitions", "entities", "1"], "join_keys"),
        ({**DEFINITIONS, "sources": [{"name": "gates", "table": "nowhere"}]}, ["definitions"],
         "nowhere"),
        ({**DEFINITIONS, "sources": [{"name": "gates", "path": "/etc/passwd"}]},
         ["definitions", "sources", "gates", "path"], "files are not read"),
        ([], ["definitions"], "expected sections"),
        ("x", ["definitions"], "expected sections"),
    ],
)  # fmt: skip
def test_definitions_that_are_wrong_change_nothing(change, store, definitions, path, message):
    found = change(APPLY, d=definitions)["data"]["apply"]
    assert found["applied"] is False
    assert found["errors"][0]["path"] == path
    assert message in found["errors"][0]["message"]
    assert store.state().revision == 1


def test_register_table(change, store):
    query = """mutation($i: RegisterTableInput!) { registerTable(input: $i) {
        applied revision doubts errors { code message path } } }"""
    given = {"table": "routes", "entity": "leg", "joinKeys": ["origin", "carrier_id"],
             "eventTimestamp": "seen_at", "features": ["flights"], "name": "legs"}  # fmt: skip
    answer = change(query, i=given)
    assert "errors" not in answer, answer
    found = answer["data"]["registerTable"]
    assert found["applied"], found
    assert store.state().of_kind("feature_view")["legs"].version == 1
    wrong = change(query, i={**given, "table": "rotes"})["data"]["registerTable"]
    assert (wrong["applied"], wrong["errors"][0]["path"]) == (False, ["input"])
    assert "routes" in wrong["errors"][0]["message"]


def test_materialize_and_invalidate(change):
    filled = change('mutation { materialize(service: "scoring") '
                    "{ views { view keys written } errors { code } } }")  # fmt: skip
    views = {item["view"]: item for item in filled["data"]["materialize"]["views"]}
    assert views["airport_weather@1"]["written"] == 3
    read = '{ airport(origin: "EWR") { airportWeather { _meta { cacheHit } } } }'
    hit = {"airport": {"airportWeather": {"_meta": {"cacheHit": True}}}}
    assert change(read)["data"] == hit
    one = change('mutation { invalidate(view: "airport_weather", keys: [{origin: "EWR"}]) }')
    assert one["data"] == {"invalidate": 1}
    assert change(read)["data"] != hit
    whole = change('mutation { invalidate(view: "airport_weather") }')["data"]["invalidate"]
    assert whole >= 2
    wrong = change('mutation { materialize(service: "nothing") { errors { code path } } }')
    assert wrong["data"]["materialize"]["errors"] == [
        {"code": "NotFoundError", "path": ["service"]}
    ]


def test_each_mutation_stands_for_itself(change, store):
    """One that fails leaves what another did, and says so at its own place."""
    answer = change("""mutation($d: JSON!) {
        a: apply(definitions: $d) { applied }
        b: invalidate(view: "nothing")
        c: invalidate(view: "airport_weather") }""", d=DEFINITIONS)  # fmt: skip
    assert store.state().revision == 2
    assert answer["errors"][0]["path"] == ["b"]
    assert answer["errors"][0]["extensions"]["code"] == "NotFoundError"


def test_only_loopback_is_bound_without_a_token(store):
    with pytest.raises(vfs.ConfigError, match="only loopback"):
        SERVER.serve(store, "0.0.0.0", 0)
