"""Values of every type are the same on every read: from the warehouse, the cache, and the API."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import ibis
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import virtualfs as vfs
from virtualfs_graphql.app import SERVER

USER = vfs.Entity("user", {"id": "int64"})
SCALARS = {
    "BOOLEAN": ["true", "false"],
    "TINYINT": ["-128", "7"],
    "INTEGER": ["-2147483648", "5"],
    "BIGINT": ["9007199254740993", "-1"],
    "UBIGINT": ["18446744073709551615"],
    "HUGEINT": ["170141183460469231731687303715884105"],
    "DOUBLE": ["1.5", "'nan'", "'inf'", "-0.0"],
    "REAL": ["0.1"],
    "DECIMAL(9, 3)": ["1.500", "-999999.999"],
    "DECIMAL(38, 10)": ["1234567890123456789.0123456789"],
    "VARCHAR": ["'a'", "'größe 漢'", "''"],
    "BLOB": ["'\\x00\\xFF'"],
    "DATE": ["'2024-02-29'", "'0001-01-01'", "'9999-12-31'"],
    "TIME": ["'23:59:59.999999'"],
    "TIMESTAMP": ["'2024-01-01 00:00:00.000001'", "'1900-01-01'"],
    "TIMESTAMP_S": ["'2024-01-01 00:00:01'"],
    "TIMESTAMP_MS": ["'2024-01-01 00:00:01.001'"],
    "TIMESTAMP_NS": ["'2024-01-01 00:00:01.000000001'", "'2024-01-01'"],
    "TIMESTAMPTZ": ["'2024-07-01 12:00:00+02'"],
    "UUID": ["'6f1b7d9e-0000-4000-8000-000000000001'"],
    "INTERVAL": ["'1 day'", "'14 months 3 days 4.5 seconds'"],
}
POSTGRES = {
    "boolean": ["true"], "smallint": ["-7"], "integer": ["5"], "bigint": ["9007199254740993"],
    "double precision": ["1.5", "'NaN'"], "real": ["0.1"], "numeric(9, 3)": ["1.500"],
    "numeric": ["1.5"], "text": ["'größe'"], "varchar(9)": ["'a'"], "char(5)": ["'ab'"],
    "bytea": [r"'\x00ff'"], "date": ["'2024-02-29'"], "time": ["'23:59:59.999999'"],
    "timestamp": ["'2024-01-01 00:00:00.000001'"], "timestamptz": ["'2024-07-01 12:00:00+02'"],
    "uuid": ["'6f1b7d9e-0000-4000-8000-000000000001'"], "json": ["'{\"a\": [1]}'"],
    "jsonb": ["'{\"a\": [1]}'"], "inet": ["'10.0.0.1/8'"],
}  # fmt: skip


def columns(scalars: dict[str, list[str]], *, nested: bool) -> st.SearchStrategy[tuple[str, str]]:
    """Types of columns with an SQL expression of a value each."""
    plain = st.sampled_from([
        (kind, f"CAST({value} AS {kind})") for kind, values in scalars.items() for value in values
    ])  # fmt: skip
    null = plain.map(lambda item: (item[0], f"CAST(NULL AS {item[0]})"))
    if not nested:
        arrays = plain.map(
            lambda item: (f"{item[0]}[]", f"ARRAY[{item[1]}, CAST(NULL AS {item[0]})]")
        )
        return plain | null | arrays

    def within(inner: st.SearchStrategy[tuple[str, str]]) -> st.SearchStrategy[tuple[str, str]]:
        lists = inner.map(
            lambda item: (f"{item[0]}[]", f"[{item[1]}, CAST(NULL AS {item[0]})]")
        )
        structs = st.tuples(inner, inner).map(
            lambda two: (
                f"STRUCT(a {two[0][0]}, b {two[1][0]})", f"{{'a': {two[0][1]}, 'b': {two[1][1]}}}"
            )
        )  # fmt: skip
        maps = inner.map(lambda item: (f"MAP(VARCHAR, {item[0]})", f"MAP {{'k': {item[1]}}}"))
        return lists | structs | maps

    return st.recursive(plain | null, within, max_leaves=4)


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are alike to the last part, in their classes too; NaN is NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return [*one] == [*other] and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(same(left, right) for left, right in pairs)
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    if isinstance(one, datetime) and (one.utcoffset() != other.utcoffset()):
        return False
    return bool(one == other) and repr(one) == repr(other)


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    from virtualfs.serving import online

    asked: list[int] = []
    real = online.fetch_rows
    monkeypatch.setattr(
        online, "fetch_rows", lambda *given: (asked.append(len(given[2])), real(*given))[1]
    )
    return asked


def ask(app: Any, text: str) -> Any:
    async def sent() -> Any:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return (await client.post("/graphql", json={"query": text})).json()

    return asyncio.run(sent())


def judge(store: vfs.FeatureStore, names: list[str], count: list[int]) -> None:
    """Read a row again and again, by every way, and compare."""

    def read() -> Any:
        answer = store.get_online_features(["v"], [{"id": 1}])
        answer.to_pandas()
        return [answer.to_list()[0][name] for name in names]

    first = read()
    asked = len(count)
    assert same(first, read())
    assert len(count) == asked, "the second read asked the warehouse"
    store.invalidate("v")
    store.materialize(["v"])
    asked = len(count)
    assert same(first, read())
    assert len(count) == asked, "a read after materialize asked the warehouse"
    app = SERVER.asgi(store)
    text = f"{{ user(id: 1) {{ v {{ {' '.join(names)} }} }} }}"
    cached = ask(app, text)
    assert "errors" not in cached
    assert ask(app, text[:-1] + "project { name } }")["data"]["user"] == cached["data"]["user"]
    store.invalidate("v")
    assert ask(app, text) == cached
    json.dumps(cached)


def view_of(table: str, names: list[str]) -> vfs.FeatureView:
    source = vfs.Source("t", table=table, event_timestamp="seen")
    return vfs.FeatureView("v", source=source, entities=[USER], features=names, freshness="1h")


MANY = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@MANY
@given(st.lists(columns(SCALARS, nested=True), min_size=1, max_size=4))
def test_values_of_duckdb(
    cache: dict[str, Any],
    count: list[int],
    tmp_path_factory: pytest.TempPathFactory,
    found: list[tuple[str, str]],
) -> None:
    connection = ibis.duckdb.connect()
    names = [f"c{number}" for number in range(len(found))]
    shown = ", ".join(f"{text} AS {name}" for name, (_, text) in zip(names, found, strict=True))
    connection.con.execute(
        f"CREATE TABLE t AS SELECT 1::BIGINT AS id, {shown}, TIMESTAMP '2024-01-01' AS seen"
    )
    folder = tmp_path_factory.mktemp("types")
    config = vfs.Config(
        project=f"t{uuid4().hex}", folder=folder, clock="2024-01-02T00:00:00Z", cache=cache
    )
    with vfs.FeatureStore(config, connections={"default": connection}) as store:
        store.apply([view_of("t", names)])
        judge(store, names, count)
    connection.disconnect()


@pytest.fixture
def admin(postgres: str) -> Iterator[Any]:
    with psycopg.connect(postgres, autocommit=True) as opened:
        yield opened


@MANY
@given(st.lists(columns(POSTGRES, nested=False), min_size=1, max_size=4))
def test_values_of_postgres(
    cache: dict[str, Any],
    count: list[int],
    admin: Any,
    postgres: str,
    tmp_path_factory: pytest.TempPathFactory,
    found: list[tuple[str, str]],
) -> None:
    table = f"t_{uuid4().hex}"
    names = [f"c{number}" for number in range(len(found))]
    shown = ", ".join(f"{text} AS {name}" for name, (_, text) in zip(names, found, strict=True))
    admin.execute(
        f"CREATE TABLE {table} AS SELECT 1::bigint AS id, {shown}, timestamp '2024-01-01' AS seen"
    )
    config = vfs.Config(
        project=f"t{uuid4().hex}", folder=tmp_path_factory.mktemp("types"),
        clock="2024-01-02T00:00:00Z", cache=cache, warehouses={"default": {"url": postgres}},
    )  # fmt: skip
    try:
        with vfs.FeatureStore(config) as store:
            store.apply([view_of(table, names)])
            judge(store, names, count)
    finally:
        admin.execute(f"DROP TABLE {table}")


def pushed(value: Any) -> dict[str, Any]:
    return {"id": 1, "c": value, "seen": datetime(2024, 1, 1, 12)}


@pytest.mark.parametrize(
    ("kind", "text", "given"),
    [
        ("STRUCT(d DATE, u UUID)", "{'d': DATE '2024-01-01', 'u': uuid()}",
         {"d": "2024-02-01", "u": "6f1b7d9e-0000-4000-8000-000000000001"}),
        ("DECIMAL(9, 3)[]", "[1.5::DECIMAL(9, 3)]", ["2.500", None]),
        ("MAP(VARCHAR, TIMESTAMPTZ)", "MAP {'k': TIMESTAMPTZ '2024-01-01 00:00:00+00'}",
         {"k": "2024-02-01T00:00:00Z"}),
        ("TIME[]", "[TIME '12:00']", ["13:00:00"]),
        ("STRUCT(a STRUCT(n BIGINT)[])", "{'a': [{'n': 1::BIGINT}]}", {"a": [{"n": "7"}]}),
    ],
)  # fmt: skip
def test_nested_values_are_pushed_by_the_api(
    cache: dict[str, Any], tmp_path: Path, kind: str, text: str, given: Any
) -> None:
    connection = ibis.duckdb.connect()
    connection.con.execute(
        f"CREATE TABLE t AS SELECT 1::BIGINT AS id, CAST({text} AS {kind}) AS c, "
        "TIMESTAMP '2024-01-01' AS seen"
    )
    config = vfs.Config(
        project=f"t{uuid4().hex}", folder=tmp_path, clock="2024-01-02T00:00:00Z", cache=cache,
        server={"token": "secret"},
    )  # fmt: skip
    with vfs.FeatureStore(config, connections={"default": connection}) as store:
        store.apply([view_of("t", ["c"])])
        held = store.get_online_features(["v:c"], [{"id": 1}]).to_list()[0]["c"]
        app = SERVER.asgi(store)

        async def push() -> Any:
            query = (
                'mutation($r: [JSON!]!) { push(view: "v", rows: $r) '
                "{ written errors { message } } }"
            )
            rows = [{"id": 1, "c": given, "seen": "2024-01-01T12:00:00"}]
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return (await client.post(
                    "/graphql", json={"query": query, "variables": {"r": rows}},
                    headers={"authorization": "Bearer secret"},
                )).json()  # fmt: skip

        assert asyncio.run(push()) == {"data": {"push": {"written": 1, "errors": []}}}
        found = store.get_online_features(["v:c"], [{"id": 1}]).to_list()[0]["c"]
        assert found != held
        assert kinds(found) == kinds(held)
        # What Python gave back is what it takes.
        later = pushed(found) | {"seen": datetime(2024, 1, 1, 13)}
        assert store.push("v", [later]).written == 1
        again = store.get_online_features(["v:c"], [{"id": 1}]).to_list()[0]["c"]
        assert same(found, again)
        with pytest.raises(vfs.SpineError, match="c: expected"):
            store.push("v", [pushed(object())])


def kinds(value: Any) -> Any:
    """Return the classes that a value is made of."""
    if isinstance(value, dict):
        return {name: kinds(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [kinds(item) for item in value if item is not None]
    return type(value)
