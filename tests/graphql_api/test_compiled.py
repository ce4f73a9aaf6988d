"""Compiled documents mean what the general executor says: equal bytes, for whatever is asked."""

import asyncio
import json
from dataclasses import dataclass, field
from itertools import count

import msgspec
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import virtualfs as vfs
from graphql import get_named_type, is_list_type, is_non_null_type
from tests.graphql_api.conftest import ROWS, Client, definitions, landed
from virtualfs.config import Config
from virtualfs.serving.codec import Row
from virtualfs.serving.online import Reading
from virtualfs_graphql import documents
from virtualfs_graphql.app import SERVER
from virtualfs_graphql.catalog import CatalogSchema
from virtualfs_graphql.compiled import CompiledQuery
from virtualfs_graphql.request import Snapshot

MORE_ROWS = """
CREATE TABLE typed AS SELECT * FROM (VALUES
    (1::BIGINT, TIMESTAMP '2024-01-01 09:00:00', 1::TINYINT, 2::UINTEGER, 18446744073709551615::UBIGINT,
     ['1.5', NULL, 'nan']::DOUBLE[], [[9007199254740993]]::BIGINT[][], {'a': 1.25::DECIMAL(5, 2)},
     TIME '10:11:12', uuid '00000000-0000-0000-0000-000000000001', 'inf'::FLOAT,
     TIMESTAMPTZ '2024-01-01 00:00:00+02', 'ü "quoted" \n'),
    (2::BIGINT, TIMESTAMP '2024-01-01 09:00:00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)
) t(id, seen_at, tiny, wide, huge, doubles, nested, pair, clock, ident, single, zoned, word);
CREATE TABLE broken AS SELECT 'JFK' AS origin, TIMESTAMP '2024-01-01 09:00:00' AS seen_at, 1::INTEGER AS lost;
CREATE TABLE trips AS SELECT * FROM (VALUES
    ('JFK', TIMESTAMP '2024-01-01 10:00:00', 5.0::DOUBLE), ('JFK', TIMESTAMP '2024-01-01 11:00:00', 7.0::DOUBLE)
) t(origin, seen_at, minutes);
"""  # noqa: E501


def more_definitions():
    given = definitions()
    weather = given[0]
    airport = weather.entities[0]
    thing = vfs.Entity("thing", {"id": "int64"})
    at = {"event_timestamp": "seen_at"}
    typed = vfs.FeatureView(
        "typed", source=vfs.Source("typed", table="typed", **at), entities=[thing],
        features=["tiny", "wide", "huge", "doubles", "nested", "pair", "clock", "ident", "single",
                  "zoned", "word"],
    )  # fmt: skip
    broken = vfs.FeatureView(
        "broken", source=vfs.Source("broken", table="broken", **at), entities=[airport],
        features=["lost"],
    )  # fmt: skip
    trips = vfs.FeatureView(
        "trips", source=vfs.Source("trips", table="trips", **at), entities=[airport],
        features=[vfs.Aggregate("minutes", "mean", "1d"), vfs.Aggregate("*", "count", "1d")],
    )  # fmt: skip
    share = vfs.OnDemandFeatureView(
        "share", inputs=[weather[["temp", "big_count"]]], request={"amount": "float64"},
        features=[vfs.Feature("warmth", vfs._.temp + vfs._.amount),
                  vfs.Feature("bigger", vfs._.big_count + 1)],
    )  # fmt: skip
    alone = vfs.OnDemandFeatureView(
        "alone", request={"amount": "float64"}, features=[vfs.Feature("twice", vfs._.amount * 2)]
    )
    priced = vfs.FeatureService("priced", [weather, share, trips])
    return [*given, typed, broken, trips, share, alone, priced]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    import ibis

    folder = tmp_path_factory.mktemp("compiled")
    connection = ibis.duckdb.connect()
    connection.con.execute(ROWS)
    connection.con.execute(MORE_ROWS)
    config = Config(
        project="demo", registry=f"sqlite:///{folder}/registry.db", clock="2024-01-01T12:00:00Z",
        folder=folder,
    )  # fmt: skip
    with vfs.FeatureStore(config, connections={"default": connection}) as opened:
        opened.apply(more_definitions())
        connection.con.execute("DROP TABLE broken")
        yield opened
    connection.disconnect()


@pytest.fixture(scope="module")
def app(store):
    """The server, for which every row of EWR is stale."""
    reader = store.online.reader
    read = reader.read_async

    async def partly_stale(lookups, *arguments, **options):
        found = await read(lookups, *arguments, **options)
        rows = [
            [msgspec.structs.replace(row, stale="EWR" in key) if isinstance(row, Row) else row
             for key, row in zip(look.keys, some, strict=True)]
            for look, some in zip(lookups, found.rows, strict=True)
        ]  # fmt: skip
        return Reading(found.at, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "read_async", partly_stale)
        yield SERVER.asgi(store)


@pytest.fixture(scope="module")
def schema(store):
    return CatalogSchema.of(Snapshot(store)).core


LOOKUPS = ("airport", "airports", "carrier", "carriers", "flight_leg", "flight_legs", "thing",
           "things", "worldFacts", "alone", "scoring", "priced", "onlineFeatures")  # fmt: skip
WORDS = ["nowhere", "JFK", "EWR", "OLD", "", "ü"]
NUMBERS = [1, 2, 9007199254740993, "9007199254740993", -5, 2**70, "1", 1.5, True, "x"]
INSTANTS = ["2024-01-01T10:30:00Z", "2024-01-01T05:30:00-05:00"]


@dataclass
class Made:
    """A document in the making."""

    variables: dict = field(default_factory=dict)
    declared: list = field(default_factory=list)
    fragments: list = field(default_factory=list)


class Writer:
    """Draws documents that are valid by the schema."""

    def __init__(self, draw, schema):
        self.draw = draw
        self.schema = schema
        self.made = Made()
        self.numbers = count()

    def pick(self, items):
        return self.draw(st.sampled_from(list(items)))

    def chance(self, tenths):
        return self.draw(st.integers(0, 9)) < tenths

    def document(self):
        roots = self.draw(
            st.lists(st.sampled_from(LOOKUPS), min_size=1, max_size=3, unique=not self.chance(3))
        )
        fields = [self.field(self.schema.query_type, name) for name in roots]
        if self.chance(2):
            fields.append("__typename")
        if self.chance(1):
            fields.append("project { name revision }")
        body = self.wrapped("Query", fields)
        declared = f"({', '.join(self.made.declared)})" if self.made.declared else ""
        text = f"query Q{declared} {{ {body} }} {' '.join(self.made.fragments)}"
        return text, self.made.variables

    def wrapped(self, kind, fields):
        """Put some fields into fragments."""
        found = []
        for text in fields:
            if self.chance(1):
                name = f"F{len(self.made.fragments)}"
                self.made.fragments.append(f"fragment {name} on {kind} {{ {text} }}")
                text = f"...{name}"
            elif self.chance(1):
                on = self.pick([f" on {kind}", ""])
                text = f"...{on}{self.directive()} {{ {text} }}"
            found.append(text)
        return " ".join(found)

    def field(self, parent, name):
        definition = parent.fields[name]
        alias = f"x{next(self.numbers)}: " if self.chance(5) else ""
        arguments = self.arguments(name, definition)
        kind = get_named_type(definition.type)
        if not hasattr(kind, "fields"):
            return f"{alias}{name}{arguments}{self.directive()}"
        times = 2 if self.chance(1) else 1
        return " ".join(
            f"{alias}{name}{arguments}{self.directive()} {{ {self.selection(kind)} }}"
            for _ in range(times)
        )

    def selection(self, kind):
        names = self.draw(
            st.lists(st.sampled_from(sorted(kind.fields)), min_size=1, max_size=4, unique=True)
        )
        fields = [self.field(kind, name) for name in names]
        if self.chance(2):
            fields.append("__typename")
        return self.wrapped(kind.name, fields)

    def directive(self):
        if not self.chance(1):
            return ""
        word = self.pick(["skip", "include"])
        if self.chance(5):
            return f" @{word}(if: {self.pick(['true', 'false'])})"
        return f" @{word}(if: {self.variable('Boolean!', self.pick([True, False]))})"

    def variable(self, kind, value):
        name = f"v{len(self.made.declared)}"
        default = ""
        if kind.startswith("Boolean") and self.chance(3):
            default = f" = {json.dumps(value)}"
        else:
            self.made.variables[name] = value
        self.made.declared.append(f"${name}: {kind}{default}")
        return f"${name}"

    def arguments(self, name, definition):
        if name == "onlineFeatures":
            return self.online()
        found = []
        for argument, kind in definition.args.items():
            if argument == "lateData" or (argument == "asOf" and not self.chance(1)):
                continue
            if not is_non_null_type(kind.type) and argument != "asOf" and self.chance(3):
                continue
            found.append(f"{argument}: {self.value(kind.type)}")
        return f"({', '.join(found)})" if found else ""

    def value(self, kind):
        drawn = self.plain(kind)
        if self.chance(5):
            return self.variable(str(kind), drawn)
        return self.literal(drawn, kind)

    def plain(self, kind):
        bare = kind.of_type if is_non_null_type(kind) else kind
        if is_list_type(bare):
            return [self.plain(bare.of_type) for _ in range(self.draw(st.integers(0, 4)))]
        if hasattr(bare, "fields"):
            return {name: self.plain(item.type) for name, item in bare.fields.items()}
        if bare.name == "String":
            return self.pick(WORDS)
        if bare.name == "DateTime":
            return self.pick(INSTANTS)
        if bare.name == "Float":
            return self.pick([1, 2.5, -0.0, None] if not is_non_null_type(kind) else [1, 2.5])
        usual = self.pick(NUMBERS[:5])
        return self.pick(NUMBERS) if self.chance(1) else usual

    def literal(self, value, kind):
        """Write a value into the document, or parts of it as variables."""
        bare = kind.of_type if is_non_null_type(kind) else kind
        if isinstance(value, list):
            return f"[{', '.join(self.literal(item, bare.of_type) for item in value)}]"
        if isinstance(value, dict):
            inner = ", ".join(
                f"{name}: {self.literal(item, bare.fields[name].type)}"
                for name, item in value.items()
            )
            return f"{{{inner}}}"
        if self.chance(1):
            return self.variable(str(kind), value)
        return json.dumps(value, ensure_ascii=False)

    def online(self):
        asked, keys = self.pick([
            ('service: "scoring"', {"origin": WORDS, "carrier_id": NUMBERS}),
            ('service: "priced"', {"origin": WORDS}),
            ('features: ["typed:doubles", "typed:ident", "typed:zoned"]', {"id": NUMBERS}),
            ('features: ["airport_weather", "trips:count_1d"]', {"origin": WORDS}),
            ('features: ["airport_weather@1:temp"]', {"origin": WORDS}),
            ('features: ["nothing:here"]', {"origin": WORDS}),
        ])  # fmt: skip
        entities = [
            {name: self.pick(values) for name, values in keys.items()}
            for _ in range(self.draw(st.integers(0, 4)))
        ]
        found = [asked, f"entities: {self.variable('[JSON!]!', entities)}"]
        if "priced" in asked and not self.chance(2):
            amounts = [{"amount": self.pick([1, 2.5, None])}]
            found.append(f"request: {self.variable('[JSON!]', amounts)}")
        return f"({', '.join(found)})"


@st.composite
def requests(draw, schema):
    return Writer(draw, schema).document()


def sent(app, text, variables):
    answer = Client(app).post("/graphql", json={"query": text, "variables": variables})
    # A view that has just failed is not asked again at once, and says so.
    return answer.status_code, answer.content.replace(b" (it is asked again in a moment)", b"")


@settings(
    max_examples=200, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(data=st.data())
def test_equal_bytes_by_both_executors(app, schema, store, data):
    text, variables = data.draw(requests(schema))
    ran = []
    run = CompiledQuery.run

    async def noted(self, context, given):
        found = await run(self, context, given)
        ran.append(found is not None)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CompiledQuery, "run", noted)
        sent(app, text, variables)
        landed(store)  # and the cache holds what is asked for
        compiled = sent(app, text, variables)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents.Operation, "compiled", lambda *_: None)
        general = sent(app, text, variables)
    event("compiled" if any(ran) else "left to the general executor")
    event("errors" if b'"errors"' in general[1] else "no errors")
    assert compiled == general, text


def test_what_is_looked_up_is_compiled(app, monkeypatch):
    """The test above would pass if nothing ever was."""
    ran = []
    run = CompiledQuery.run

    async def noted(self, context, given):
        found = await run(self, context, given)
        ran.append(found is not None)
        return found

    monkeypatch.setattr(CompiledQuery, "run", noted)
    for text in (
        '{ airport(origin: "JFK") { origin airportWeather { temp _meta { status } } } }',
        '{ priced(origin: "JFK", amount: 1.5) { temp warmth count1d _meta { names statuses } } }',
        '{ airport(origin: "EWR") { share(amount: 2) { warmth bigger } routeFacts(carrierId: 1) '
        "{ flights } } worldFacts { fuelPrice } alone(amount: 2) { twice } }",
        '{ onlineFeatures(service: "scoring", entities: [{origin: "JFK", carrier_id: 1}]) '
        "{ rows names values statuses eventTimestamps } }",
    ):
        status, body = sent(app, text, {})
        assert status == 200
        assert b"errors" not in body, body
    assert ran == [True] * 4


@pytest.mark.parametrize("extra", ["", "project { name }"], ids=["compiled", "general"])
def test_counts_of_unknown_keys_and_stale_values_are_shown(app, extra):
    """The rules of a status are those of every other way to read."""
    text = f"""{{ airport(origin: "gone") {{
        trips {{ count1d minutesMean1d _meta {{ status }} }} }} {extra} }}"""
    body = json.loads(sent(app, text, {})[1])
    assert body["data"]["airport"]["trips"] == {
        "count1d": 0, "minutesMean1d": None, "_meta": {"status": "NOT_FOUND"},
    }  # fmt: skip
    text = f"""{{ airport(origin: "EWR") {{
        airportWeather {{ temp _meta {{ status }} }} }} {extra} }}"""
    body = json.loads(sent(app, text, {})[1])
    assert body["data"]["airport"]["airportWeather"] == {
        "temp": 41.0, "_meta": {"status": "STALE"},
    }  # fmt: skip


def test_variables_of_directives_have_plans_of_their_own(app):
    text = (
        "query($t: Boolean!, $u: Boolean = true) { worldFacts { fuelPrice @include(if: $t) "
        "_meta @skip(if: $u) { version } } }"
    )
    answers = [
        json.loads(sent(app, text, variables)[1])["data"]["worldFacts"]
        for variables in ({"t": True}, {"t": False, "u": False}, {"t": False})
    ]
    assert answers == [{"fuelPrice": 5.5}, {"_meta": {"version": 1}}, {}]
    assert sent(app, text, {})[0] == 200
    assert b"errors" in sent(app, text, {})[1]


def test_one_read_where_a_view_fails(app, store, monkeypatch):
    """What was read before the failure is not read again by the general executor."""
    reader = store.online.reader
    calls = []
    read = reader.read_async

    async def counted(lookups, *arguments, **options):
        calls.append(sorted(look.view.name for look in lookups))
        return await read(lookups, *arguments, **options)

    monkeypatch.setattr(reader, "read_async", counted)
    text = '{ airport(origin: "EWR") { airportWeather { temp } broken { lost } } }'
    body = json.loads(sent(app, text, {})[1])
    assert body["data"]["airport"] == {"airportWeather": {"temp": 41.0}, "broken": None}
    assert [error["path"] for error in body["errors"]] == [["airport", "broken"]]
    assert calls == [["airport_weather", "broken"]]


def test_many_requests_at_once_do_not_mix(app):
    import httpx

    async def main():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

            async def one(number):
                key = WORDS[number % 4]
                answer = await client.post("/graphql", json={
                    "query": "query($k: String!) { airport(origin: $k) "
                    "{ origin trips { count1d } } }",
                    "variables": {"k": key},
                })  # fmt: skip
                return key, answer.json()["data"]["airport"]

            return await asyncio.gather(*(one(number) for number in range(40)))

    for key, found in asyncio.run(main()):
        assert found == {"origin": key, "trips": {"count1d": 2 if key == "JFK" else 0}}
