"""Lineage to the column, against cases worked by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import sqlglot
from sqlglot import exp

import virtualfs as vfs
from virtualfs import _
from virtualfs.compiler.lineage import select_lineage, table_name

TABLES = {
    "orders": ["id", "cust", "total", "at"],
    "sales.items": ["order_id", "sku", "qty"],
    "people": ["cust", "name", "boss"],
}


def columns_of(table: exp.Table) -> list[str]:
    return TABLES.get(table_name(table), [])


def c(*names: str) -> set[tuple[str, str]]:
    """Return columns named as o.total, i.qty, p.name."""
    tables = {"o": "orders", "i": "sales.items", "p": "people"}
    return {(tables[name[0]], name[2:]) for name in names}


CASES: dict[str, tuple[str, dict[str, set[tuple[str, str]]], set[tuple[str, str]]]] = {
    "star": (
        "SELECT * FROM people",
        {"cust": c("p.cust"), "name": c("p.name"), "boss": c("p.boss")},
        set(),
    ),
    "expression and filter": (
        "SELECT cust, total * 2 AS x FROM orders WHERE at > '2020-01-01'",
        {"cust": c("o.cust"), "x": c("o.total")},
        c("o.at"),
    ),
    "CTEs, a star over one, a join by USING": (
        "WITH a AS (SELECT cust, sum(total) AS s FROM orders GROUP BY cust), b AS (SELECT * FROM a)"
        " SELECT b.s / 2 AS h, name FROM b JOIN people USING (cust)",
        {"h": c("o.total"), "name": c("p.name")},
        c("o.cust", "p.cust"),
    ),
    "window functions": (
        "SELECT cust, row_number() OVER (PARTITION BY cust ORDER BY at) AS r, "
        "lag(total) OVER w AS before FROM orders WINDOW w AS (PARTITION BY id ORDER BY at)",
        {"cust": c("o.cust"), "r": c("o.cust", "o.at"), "before": c("o.total")},
        c("o.id", "o.at"),
    ),
    "QUALIFY": (
        "SELECT cust FROM orders QUALIFY row_number() OVER (PARTITION BY id ORDER BY at DESC) = 1",
        {"cust": c("o.cust")},
        c("o.id", "o.at"),
    ),
    "UNION ALL by position": (
        "SELECT cust AS k, total AS v FROM orders UNION ALL SELECT name, qty "
        "FROM people JOIN sales.items ON sku = boss",
        {"k": c("o.cust", "p.name"), "v": c("o.total", "i.qty")},
        c("i.sku", "p.boss"),
    ),
    "UNION merges what is equal": (
        "SELECT cust AS k FROM orders UNION SELECT name FROM people",
        {"k": c("o.cust", "p.name")},
        c("o.cust", "p.name"),
    ),
    "three parts of a union": (
        "SELECT id AS k FROM orders UNION ALL SELECT qty FROM sales.items UNION ALL "
        "SELECT total FROM orders WHERE cust > 1",
        {"k": c("o.id", "i.qty", "o.total")},
        c("o.cust"),
    ),
    "a query inside": (
        "SELECT t.total FROM (SELECT * FROM orders WHERE id > 1) AS t ORDER BY t.at LIMIT 5",
        {"total": c("o.total")},
        c("o.id", "o.at"),
    ),
    "IN and EXISTS": (
        "SELECT cust FROM orders AS o WHERE id IN (SELECT order_id FROM sales.items WHERE qty > 1)"
        " AND EXISTS (SELECT 1 FROM people AS p WHERE p.boss = o.cust)",
        {"cust": c("o.cust")},
        c("o.id", "i.order_id", "i.qty", "p.boss", "o.cust"),
    ),
    "a correlated value": (
        "SELECT o.cust, (SELECT max(i.qty) FROM sales.items AS i WHERE i.order_id = o.id) AS m "
        "FROM orders AS o",
        {"cust": c("o.cust"), "m": c("i.qty", "i.order_id", "o.id")},
        set(),
    ),
    "recursion": (
        "WITH RECURSIVE r AS (SELECT cust, boss FROM people UNION ALL SELECT p.cust, p.boss FROM "
        "people AS p JOIN r ON p.boss = r.cust) SELECT cust FROM r",
        {"cust": c("p.cust")},
        c("p.boss", "p.cust"),
    ),
    "some of a star, and quoted names": (
        'SELECT o.* EXCLUDE (total, at), "i"."sku" AS "The SKU" FROM orders AS o '
        "LEFT JOIN sales.items AS i ON i.order_id = o.id",
        {"id": c("o.id"), "cust": c("o.cust"), "the sku": c("i.sku")},
        c("o.id", "i.order_id"),
    ),
    "a self join": (
        "SELECT a.name, b.name AS chief FROM people AS a JOIN people AS b ON a.boss = b.cust",
        {"name": c("p.name"), "chief": c("p.name")},
        c("p.boss", "p.cust"),
    ),
    "a filtered aggregate, HAVING": (
        "SELECT cust, sum(CASE WHEN total > 1 THEN 1 END) FILTER (WHERE id > 2) AS n FROM orders "
        "GROUP BY 1 HAVING max(at) > '2020-01-01'",
        {"cust": c("o.cust"), "n": c("o.total", "o.id")},
        c("o.cust", "o.at"),
    ),
    "unnesting": (
        "SELECT cust, u.x FROM orders, UNNEST([total, id]) AS u(x)",
        {"cust": c("o.cust"), "x": c("o.total", "o.id")},
        c("o.total", "o.id"),
    ),
    "nothing but literals and counts": (
        "SELECT 1 AS one, count(*) AS n FROM orders",
        {"one": set(), "n": set()},
        {("orders", "*")},
    ),
    "a CTE that hides the table that it reads": (
        "WITH people AS (SELECT * FROM people WHERE boss > 1) SELECT name FROM people",
        {"name": c("p.name")},
        c("p.boss"),
    ),
    "a CTE inside, called as a table outside": (
        "WITH a AS (WITH people AS (SELECT 1 AS name) SELECT * FROM people) "
        "SELECT p.name, a.name AS other FROM people AS p CROSS JOIN a",
        {"name": c("p.name"), "other": set()},
        set(),
    ),
    "LATERAL": (
        "SELECT o.cust, l.n FROM orders AS o, LATERAL (SELECT max(i.qty) AS n FROM sales.items AS i"
        " WHERE i.order_id = o.id) AS l",
        {"cust": c("o.cust"), "n": c("i.qty")},
        c("i.order_id", "o.id"),
    ),
    "UNION by name": (
        "SELECT cust, total FROM orders UNION ALL BY NAME SELECT qty AS total, sku AS cust "
        "FROM sales.items",
        {"cust": c("o.cust", "i.sku"), "total": c("o.total", "i.qty")},
        set(),
    ),
    "columns by a pattern": (
        "SELECT cust, COLUMNS('t.*') FROM orders",
        {"cust": c("o.cust"), "*": {("orders", "*")}},
        set(),
    ),
    "PIVOT": (
        "SELECT cust FROM orders PIVOT (sum(total) FOR id IN (1, 2))",
        {"cust": {("orders", "*")}},
        set(),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_select_is_traced_to_its_columns(case: str) -> None:
    text, outputs, rows = CASES[case]
    found = select_lineage(sqlglot.parse_one(text, dialect="duckdb"), "duckdb", columns_of)
    assert found is not None
    assert found.outputs == outputs
    assert found.rows == rows


def test_what_cannot_be_traced_is_not_guessed() -> None:
    tree = sqlglot.parse_one("PIVOT orders ON cust USING sum(total)", dialect="duckdb")
    assert select_lineage(tree, "duckdb", columns_of) is None
    found = select_lineage(sqlglot.parse_one("SELECT * FROM missing"), "duckdb", columns_of)
    assert found is None or found.outputs["*"] == {("missing", "*")}


@pytest.fixture
def shop(make_store: Callable[..., vfs.FeatureStore], connection: Any) -> vfs.FeatureStore:
    """A store whose features come from a table, a query, aggregates and other features."""
    connection.raw_sql("CREATE TABLE people (cust BIGINT, name TEXT, age INTEGER, seen TIMESTAMP)")
    connection.raw_sql("CREATE SCHEMA sales")
    connection.raw_sql(
        "CREATE TABLE sales.orders "
        "(id BIGINT, cust BIGINT, total DOUBLE, paid BOOLEAN, ts TIMESTAMP)"
    )
    customer = vfs.Entity("customer", {"cust": "int64"})
    people = vfs.FeatureView(
        "people", source=vfs.Source("people", table="people", event_timestamp="seen",
                                    columns={"name": "called"}),
        entities=[customer],
        features=["age", vfs.Feature("adult", _.age >= 18), vfs.Feature("tag", "called || age")],
    )  # fmt: skip
    orders = vfs.FeatureView(
        "orders",
        source=vfs.Source(
            "orders", event_timestamp="ts",
            query="WITH paid AS (SELECT * FROM sales.orders WHERE paid) "
                  "SELECT cust, ts, total / 100 AS euros FROM paid",
        ),
        entities=[customer],
        features=[vfs.Aggregate("euros", "mean", "7d"), vfs.Aggregate("*", "count", "7d"),
                  vfs.Aggregate("euros", "max", "7d", where="cust > 1", name="most")],
    )  # fmt: skip
    share = vfs.OnDemandFeatureView(
        "share", inputs=[orders], request={"amount": "float64"},
        features=[vfs.Feature("of_mean", _.amount / _.euros_mean_7d)],
    )  # fmt: skip
    store = make_store()
    store.apply([vfs.FeatureService("fraud", [people[["adult"]], share]), people, orders])
    return store


PEOPLE = {("people.cust", "key"), ("people.seen", "time")}


def ends(lineage: Any, *, upstream: bool) -> set[tuple[str, str]]:
    """Return the names at one end, with the role of the last step."""
    return {
        (link.source.name if upstream else link.target.name, link.role) for link in lineage.links
    }


@pytest.mark.parametrize(
    ("reference", "above"),
    [
        ("people:age", {("people.age", "value"), *PEOPLE}),
        ("people:adult", {("people.age", "value"), *PEOPLE}),
        ("people:tag", {("people.name", "value"), ("people.age", "value"), *PEOPLE}),
        ("orders:euros_mean_7d", {("sales.orders.total", "value"), ("sales.orders.cust", "key"),
                                  ("sales.orders.ts", "time"), ("sales.orders.paid", "filter")}),
        ("orders:count_7d", {("sales.orders.cust", "key"), ("sales.orders.ts", "time"),
                             ("sales.orders.paid", "filter")}),
        ("orders:most", {("sales.orders.total", "value"), ("sales.orders.cust", "value"),
                         ("sales.orders.cust", "key"), ("sales.orders.ts", "time"),
                         ("sales.orders.paid", "filter")}),
    ],
)  # fmt: skip
def test_a_feature_is_traced_to_tables(shop: Any, reference: str, above: Any) -> None:
    assert ends(shop.lineage(reference, "upstream"), upstream=True) == above


def test_a_service_is_traced_through_on_demand_features(shop: Any) -> None:
    found = shop.lineage("fraud", "upstream")
    values = {(link.source.name, link.target.name) for link in found.links if link.role == "value"}
    assert values == {
        ("people@1:adult", "fraud@1"),
        ("share@1:of_mean", "fraud@1"),
        ("people.age", "people@1:adult"),
        ("amount", "share@1:of_mean"),
        ("orders@1:euros_mean_7d", "share@1:of_mean"),
        ("sales.orders.total", "orders@1:euros_mean_7d"),
    }
    assert {node.kind for node in found.nodes} == {
        "column", "feature", "on_demand_feature", "request", "feature_service",
    }  # fmt: skip
    assert len(shop.lineage("fraud", "upstream", depth=1).links) == 2


@pytest.mark.parametrize(
    ("column", "broken"),
    [
        ("people.name", {("people@1:tag", "value")}),
        ("people.age", {("people@1:age", "value"), ("people@1:adult", "value"),
                        ("people@1:tag", "value"), ("fraud@1", "value")}),
        ("sales.orders.total", {("orders@1:euros_mean_7d", "value"), ("orders@1:most", "value"),
                                ("share@1:of_mean", "value"), ("fraud@1", "value")}),
        ("orders.total", {("orders@1:euros_mean_7d", "value"), ("orders@1:most", "value"),
                          ("share@1:of_mean", "value"), ("fraud@1", "value")}),
        ("orders.paid", {("orders@1:euros_mean_7d", "filter"), ("orders@1:most", "filter"),
                         ("orders@1:count_7d", "filter"), ("share@1:of_mean", "value"),
                         ("fraud@1", "value")}),
        ("PEOPLE.seen", {("people@1:age", "time"), ("people@1:adult", "time"),
                         ("people@1:tag", "time"), ("fraud@1", "value")}),
    ],
)  # fmt: skip
def test_what_breaks_when_a_column_goes(shop: Any, column: str, broken: Any) -> None:
    assert ends(shop.lineage(column, "downstream"), upstream=False) == broken


def test_it_is_a_tree_a_diagram_and_plain_data(shop: Any) -> None:
    found = shop.lineage("share:of_mean")
    text = str(found)
    assert "made of" in text
    assert (
        "│   ├── column sales.orders.cust  [key]" in text or "├── column sales.orders.cust" in text
    )
    assert "└── feature service fraud@1" in text
    chart = found.to_mermaid()
    assert chart.startswith("flowchart LR")
    assert '["sales.orders.total<br>column"]' in chart
    assert "-. filter .->" in chart
    data = json.loads(json.dumps(found.to_dict()))
    kinds = {node["name"]: node["kind"] for node in data["nodes"]}
    assert kinds["sales.orders.total"] == "column"
    assert data["roots"] == ["share@1:of_mean"]
    assert all(link["source"] < len(data["nodes"]) for link in data["links"])


def test_lineage_follows_the_revision(shop: Any) -> None:
    adult = vfs.Feature("adult", "called = 'a'")
    changed = vfs.FeatureView("people", source="people", entities=["customer"], features=[adult])
    shop.apply([changed])
    assert ("people.age", "value") not in ends(shop.lineage("people:adult"), upstream=True)
    assert ("people.name", "value") in ends(shop.lineage("people:adult"), upstream=True)
    with pytest.raises(vfs.NotFoundError, match="knows nothing"):
        shop.lineage("people.age")
    with pytest.raises(vfs.NotFoundError, match="at version 2"):
        shop.lineage("people@1:adult")
    with vfs.FeatureStore(
        shop.config, connections={"default": shop.warehouse().connection}, revision=1
    ) as old:
        assert ("people.age", "value") in ends(old.lineage("people:adult"), upstream=True)


@pytest.mark.parametrize(
    ("reference", "words"),
    [("peple:age", "Did you mean 'people'"), ("people:agee", "Did you mean 'age'"),
     ("people.nothing", "knows nothing called")],
)  # fmt: skip
def test_unknown_names_are_met_with_near_ones(shop: Any, reference: str, words: str) -> None:
    with pytest.raises(vfs.NotFoundError, match=words):
        shop.lineage(reference)


def test_a_column_that_nothing_uses_any_more_is_unknown(shop: Any) -> None:
    with pytest.raises(vfs.NotFoundError):
        shop.lineage("sales.orders.id")


def test_use_is_counted(shop: Any) -> None:
    used = {item.feature: (item.services, item.on_demand) for item in shop.usage()}
    assert used["people:adult"] == (("fraud",), ())
    assert used["orders:euros_mean_7d"] == ((), ("share",))
    assert used["people:age"] == ((), ())
    assert [item.feature for item in shop.usage()][:2] == ["people:adult", "share:of_mean"]


# -- search


def test_the_best_match_comes_first(
    make_store: Callable[..., vfs.FeatureStore], connection: Any
) -> None:
    connection.raw_sql("CREATE TABLE flights (carrier TEXT, ts TIMESTAMP, dep_delay DOUBLE, x INT)")
    carrier = vfs.Entity("carrier", {"carrier": "string"}, description="An airline")

    def view(name: str, *features: Any, **fields: Any) -> vfs.FeatureView:
        source = vfs.Source(name, table="flights", event_timestamp="ts")
        return vfs.FeatureView(name, source=source, entities=[carrier], features=features, **fields)

    store = make_store()
    store.apply([
        view("delays", vfs.Feature("delay", "dep_delay"),
             vfs.Feature("late", "dep_delay > 15", description="whether the delay is long"),
             vfs.Feature("Größe", "x", description="Straße")),
        view("other", vfs.Feature("undelayed", "dep_delay <= 0"), vfs.Feature("x"),
             owner="Ann", tags={"team": "punctuality"}),
        vfs.FeatureService("delay_model", ["delays"], description="100% of 'it'"),
    ])  # fmt: skip

    def found(text: str) -> list[str]:
        return [item.name for item in store.search(text)]

    assert found("delay")[0] == "delays:delay"
    assert found("delay").index("delays:late") < found("delay").index("other:undelayed")
    assert set(found("delay")) > {"delay_model", "delays", "delays:late", "other:undelayed"}
    assert found("DELAY MODEL")[0] == "delay_model"
    assert found("punctuality") == ["other"]
    assert found("ann") == ["other"]
    assert "carrier" in found("airline")
    assert found("größe") == ["delays:Größe"]
    assert found("STRASSE") == []
    assert found("straße") == ["delays:Größe"]
    assert "other:x" in found("x")
    assert found("100%") == ["delay_model"]
    for nothing in ("zebra", "", "'", "delay zebra", "%", "_"):
        assert found(nothing) == []
    assert len(store.search("delay", limit=2)) == 2
    store.apply([view("delays", vfs.Feature("lateness", "dep_delay"))])
    assert "delays:delay" not in found("delay")
    assert found("lateness") == ["delays:lateness"]
