"""SQL of users means what its author wrote: features, conditions, queries, labels.

The right values come from running the same text by hand, through the engine's own driver.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import virtualfs as vfs
from virtualfs import Config, FeatureStore
from virtualfs.capabilities import Lexis
from virtualfs.compiler.tokens import tokens_of
from virtualfs_providers.bigquery import LEXIS as BIGQUERY
from virtualfs_providers.postgres_sql import LEXIS as POSTGRES
from virtualfs_providers.sqlite_sql import LEXIS as SQLITE

TABLE = {
    "duckdb": """CREATE TABLE facts AS SELECT * FROM (VALUES
        (1, TIMESTAMP '2024-11-03 00:30:00', TIMESTAMPTZ '2024-11-03 12:00:00+00', 'ABC def', 2.5,
         12.345::DECIMAL(10, 3), -7, true, '{"a": {"b": 1}, "c": [1, 2]}'::JSON, [3, 1, 2],
         {'lat': 1.5, 'lon': -2.0}, DATE '2024-02-29', 'ann@example.org'),
        (2, TIMESTAMP '2024-03-10 02:30:15.5', TIMESTAMPTZ '2024-07-01 23:59:59+02', '', 0.0,
         NULL, 0, false, '{}'::JSON, []::INT[], NULL, NULL, 'it''s 50% - $1 ? :x {y}'),
        (3, TIMESTAMP '1999-12-31 23:59:59.999999', NULL, NULL, NULL, -0.001, 41, NULL, NULL, NULL,
         {'lat': 0.0, 'lon': 0.0}, DATE '1970-01-01', 'é ü 日本')
        ) AS v(k, seen, tz, s, x, d, n, b, j, l, pos, day, mail)""",
    "postgres": """DROP TABLE IF EXISTS facts; CREATE TABLE facts AS SELECT * FROM (VALUES
        (1::bigint, timestamp '2024-11-03 00:30:00', timestamptz '2024-11-03 12:00:00+00',
         'ABC def'::text, 2.5::float8, 12.345::numeric(10, 3), -7, true,
         '{"a": {"b": 1}, "c": [1, 2]}'::jsonb, array[3, 1, 2], date '2024-02-29',
         'ann@example.org'::text),
        (2, timestamp '2024-03-10 02:30:15.5', timestamptz '2024-07-01 23:59:59+02', '', 0.0,
         NULL, 0, false, '{}'::jsonb, '{}'::int[], NULL, 'it''s 50% - $1 ? :x {y}'),
        (3, timestamp '1999-12-31 23:59:59.999999', NULL, NULL, NULL, -0.001, 41, NULL, NULL, NULL,
         date '1970-01-01', 'é ü 日本')
        ) AS v(k, seen, tz, s, x, d, n, b, j, l, day, mail)""",
    "sqlite": """CREATE TABLE facts (k INTEGER, seen TIMESTAMP, s TEXT, x REAL, n INTEGER,
        b BOOLEAN, j TEXT, mail TEXT);
        INSERT INTO facts VALUES
        (1, '2024-11-03 00:30:00', 'ABC def', 2.5, -7, 1, '{"a": {"b": 1}, "c": [1, 2]}',
         'ann@example.org'),
        (2, '2024-03-10 02:30:15.5', '', 0.0, 0, 0, '{}', 'it''s 50% - $1 ? :x {y}'),
        (3, '1999-12-31 23:59:59.999', NULL, NULL, 41, NULL, NULL, 'é ü 日本')""",
}
EXPRESSIONS = Path(__file__).parent / "data" / "expressions"


def expressions(engine: str) -> list[str]:
    """Return the expressions to try on an engine, one a line of its files."""
    files = (EXPRESSIONS / "every_engine.sql", EXPRESSIONS / f"{engine}.sql")
    return [line for file in files for line in file.read_text().split("\n") if line]


class Engine:
    """One engine, asked by hand and through a store."""

    def __init__(self, name: str, url: str, folder: Path) -> None:
        self.name = name
        if name == "duckdb":
            path = folder / "facts.duckdb"
            con: Any = duckdb.connect(str(path))
            con.execute("SET TimeZone = 'UTC'")
            con.execute(TABLE[name])
            con.close()
            url = f"duckdb://{path}"
        elif name == "postgres":
            with psycopg.connect(url, autocommit=True) as con:
                con.execute(TABLE[name])
        else:
            path = folder / "facts.db"
            with sqlite3.connect(path) as con:
                con.executescript(TABLE[name])
            con.close()
            url = f"sqlite://{path}"
        self.url = url
        self.store = FeatureStore(
            Config(project="facts", folder=folder, warehouses={"default": {"url": url}})
        )

    def by_hand(self, text: str) -> list[tuple[Any, ...]]:
        """Return the rows that the engine's own driver gives for a text."""
        if self.name == "duckdb":
            cursor = self.store.warehouse().connection.con.cursor()
            table = cursor.execute(text).to_arrow_table()
            return list(zip(*(column.to_pylist() for column in table.columns), strict=True))
        if self.name == "postgres":
            with psycopg.connect(self.url) as con:
                con.execute("SET TimeZone = 'UTC'")
                return psycopg.RawCursor(con).execute(text).fetchall()
        with sqlite3.connect(self.url.removeprefix("sqlite://")) as con:
            rows = con.execute(text).fetchall()
        con.close()
        return rows

    def view(self, features: list[vfs.Feature], **source: Any) -> vfs.FeatureView:
        source = {"table": "facts", "event_timestamp": "seen", **source}
        entity = vfs.Entity("thing", join_keys={"k": "int64"})
        return vfs.FeatureView(
            "facts", source=vfs.Source("facts", **source), entities=[entity], features=features
        )


@pytest.fixture(scope="module", params=["duckdb", "postgres", "sqlite"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    url = request.getfixturevalue("postgres") if request.param == "postgres" else ""
    made = Engine(request.param, url, tmp_path_factory.mktemp("facts"))
    yield made
    made.store.close()


def comparable(value: Any) -> Any:
    """Return a value so that what two drivers make of one value is equal."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value
    if isinstance(value, datetime):
        return value.replace(tzinfo=None)
    if isinstance(value, dict):
        return tuple(comparable(item) for item in value.values())
    if isinstance(value, list | tuple):
        return tuple(comparable(item) for item in value)
    if isinstance(value, memoryview):
        return bytes(value)
    return value


SPINE = pa.table(
    {"k": pa.array([1, 2, 3], pa.int64()), "event_timestamp": [datetime(2025, 1, 1)] * 3}
)


def test_there_are_enough_of_them() -> None:
    assert sum(len(expressions(name)) for name in TABLE) >= 300


def test_features_mean_what_they_say(engine: Engine) -> None:
    """Hundreds of real-looking expressions, each as the engine itself computes it."""
    wrong = []
    for text in expressions(engine.name):
        body = text.rstrip().rstrip(";")
        expected = [row[0] for row in engine.by_hand(f"SELECT {body}\nFROM facts ORDER BY k")]
        try:
            view = engine.view([vfs.Feature("f", text)])
            got = engine.store.get_historical_features(SPINE, [view]).to_pyarrow()["f"].to_pylist()
        except vfs.VirtualFSError as error:
            if "has no data type" in str(error) or "type of column" in str(error):
                continue  # what the engine gives is no feature's type
            wrong.append((text, str(error)))
            continue
        if any(isinstance(value, dict | list) for value in expected):  # psycopg reads JSON
            got = [json.loads(value) if isinstance(value, str) else value for value in got]
        if comparable(got) != comparable(expected):
            wrong.append((text, got, expected))
    assert wrong == []


QUERIES = {
    "every_engine": [
        "SELECT * FROM facts",
        "SELECT k, seen, n AS f FROM facts WHERE n IS NOT NULL",
        "WITH t0 AS (SELECT * FROM facts), t1 AS (SELECT * FROM t0) SELECT k, seen, n AS f FROM t1",
        "SELECT k, seen, sum(n) OVER (ORDER BY k) AS f FROM facts",
        "SELECT k, seen, row_number() OVER (PARTITION BY b ORDER BY seen DESC, k) AS f FROM facts",
        "SELECT k, seen, lag(n, 1, 0) OVER w AS f FROM facts WINDOW w AS (ORDER BY k)",
        "SELECT k, max(seen) AS seen, count(*) AS f FROM facts GROUP BY k HAVING count(*) > 0",
        "SELECT a.k, a.seen, b.n AS f FROM facts AS a JOIN facts AS b ON a.k = b.k AND b.n >= 0",
        "SELECT a.k, a.seen, b.n AS f FROM facts a LEFT JOIN facts b USING (k)",
        "SELECT k, seen, n AS f FROM facts UNION ALL SELECT k + 10, seen, n FROM facts",
        "SELECT DISTINCT k, seen, n % 3 AS f FROM facts",
        "SELECT k, seen, (SELECT max(n) FROM facts AS o WHERE o.k < facts.k) AS f FROM facts",
        "SELECT k, seen, n AS f FROM facts WHERE k IN (SELECT k FROM facts WHERE n > 0)",
        "SELECT k, seen, count(*) FILTER (WHERE n > 0) OVER () AS f FROM facts",
        "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 3) "
        "SELECT k, seen, (SELECT max(i) FROM r) AS f FROM facts",
        "SELECT k, seen, 'a\n   b' || ' -- c' AS f -- why\nFROM facts /* ; */ ;",
        "SELECT k, seen, n AS f FROM facts ORDER BY k LIMIT 2",
    ],
    "duckdb": [
        "FROM facts SELECT k, seen, n AS f",
        "SELECT k, seen, n AS f FROM facts QUALIFY row_number() OVER (PARTITION BY k) = 1",
        "SELECT k, seen, unnest([n, k]) AS f FROM facts",
        "SELECT * EXCLUDE (n), n AS f FROM facts",
        "SELECT a.k, a.seen, b.n AS f FROM facts a ASOF JOIN facts b ON a.seen >= b.seen",
        "SELECT k, seen, n AS f FROM (VALUES (1, TIMESTAMP '2024-01-01', 5)) AS v(k, seen, n)",
        "SELECT k, max(seen) AS seen, mode(n) AS f FROM facts GROUP BY ALL",
        "SELECT k, seen, i AS f FROM facts, range(2) AS r(i)",
    ],
    "postgres": [
        "SELECT DISTINCT ON (b) k, seen, n AS f FROM facts ORDER BY b, k",
        "SELECT facts.k, seen, i AS f FROM facts, generate_series(1, 2) AS g(i)",
        "SELECT f.k, f.seen, x.m AS f FROM facts f, LATERAL (SELECT max(n) m FROM facts o "
        "WHERE o.k <= f.k) AS x",
        "SELECT k, max(seen) AS seen, percentile_cont(0.5) WITHIN GROUP (ORDER BY n) AS f "
        "FROM facts GROUP BY k",
        "SELECT k, max(seen) AS seen, sum(n) AS f FROM facts GROUP BY GROUPING SETS ((k))",
        "SELECT k, seen, n AS f FROM (VALUES (1::bigint, timestamp '2024-01-01', 5)) v(k, seen, n)",
        "SELECT k, seen, x.a AS f FROM facts, jsonb_to_record(j -> 'a') AS x(a int, b int)",
        "SELECT facts.k, seen, e.value AS f FROM facts, unnest(l) WITH ORDINALITY AS e(value, n)",
    ],
    "sqlite": [
        "SELECT k, seen, value AS f FROM facts, json_each('[1, 2]')",
        "SELECT k, max(seen) AS seen, group_concat(s) AS f FROM facts GROUP BY k",
    ],
}


def test_queries_mean_what_they_say(engine: Engine) -> None:
    wrong = []
    for query in QUERIES["every_engine"] + QUERIES[engine.name]:
        if engine.name == "sqlite" and "max(seen)" in query:
            continue  # a time that is computed has no declared type there, so it is text
        name = "n" if query == "SELECT * FROM facts" else "f"
        body = query.rstrip().rstrip(";")
        rows = engine.by_hand(f"SELECT {name} FROM (\n{body}\n) AS q")
        view = engine.view([name], table=None, query=query)
        try:
            got = engine.store.table(view).to_pyarrow()[name].to_pylist()
        except vfs.VirtualFSError as error:
            wrong.append((query, str(error)))
            continue
        found, expected = (
            sorted(map(repr, map(comparable, values))) for values in (got, [row[0] for row in rows])
        )
        if found != expected:
            wrong.append((query, found, expected))
    assert wrong == []


AS_WRITTEN = {
    "duckdb": ["tz + INTERVAL '1.5 hours'", "list_reduce(l, (a, c) -> a + c, 10)",
               "date_add(seen, to_days(n))"],
    "postgres": ["date_trunc('day', tz, 'America/New_York')", "tz + interval '1 day ago'",
                 "regexp_like(s, 'abc', 'i')", "jsonb_contains(j, '{\"c\": [2]}')"],
    "sqlite": ["mod(5.5, 2)", "0x1F", "substr(s, 2, 3)"],
}  # fmt: skip


def test_a_label_in_the_spine_means_what_it_says(engine: Engine) -> None:
    for text in AS_WRITTEN[engine.name]:
        time = "seen" if engine.name == "sqlite" else "timestamp '2025-01-01'"
        spine = (
            f"SELECT k, {text} AS label, {time} AS event_timestamp FROM facts ORDER BY k; -- end"
        )
        ds = engine.store.get_historical_features(spine, [engine.view(["n"])])
        expected = [row[0] for row in engine.by_hand(f"SELECT {text} FROM facts ORDER BY k")]
        assert comparable(ds.to_pyarrow()["label"].to_pylist()) == comparable(expected), text


def test_a_query_means_what_it_says(engine: Engine) -> None:
    for text in AS_WRITTEN[engine.name]:
        query = f"""-- a query; with ' signs
            WITH t0 AS (SELECT * FROM facts), source AS (SELECT * FROM t0)
            SELECT k, seen, {text} AS f /* ; */ FROM source;  -- the end
        """
        view = engine.view(["f"], table=None, query=query)
        got = engine.store.get_historical_features(SPINE, [view]).to_pyarrow()["f"].to_pylist()
        expected = [row[0] for row in engine.by_hand(f"SELECT {text} FROM facts ORDER BY k")]
        assert comparable(got) == comparable(expected), text
        table = engine.store.table(view).order_by("k").to_pyarrow()
        assert comparable(table["f"].to_pylist()) == comparable(expected), text


def test_a_condition_means_what_it_says(engine: Engine) -> None:
    conditions = {
        "duckdb": "regexp_matches(s, 'abc', 'i') AND tz + INTERVAL '1.5 hours' > tz -- end",
        "postgres": "regexp_like(s, 'abc', 'i') AND tz + interval '1 day ago' < tz -- end",
        "sqlite": "mod(5.5, 2) = 1.5 AND s GLOB 'ABC*' -- end",
    }
    aggregate = vfs.Aggregate("n", "count", None, name="c", where=conditions[engine.name])
    view = engine.view([aggregate])
    got = engine.store.get_historical_features(SPINE, [view]).to_pyarrow()["c"].to_pylist()
    assert got == [1, 0, 0]


def test_columns_under_other_names_are_seen_by_their_new_ones(engine: Engine) -> None:
    view = engine.view(
        [vfs.Feature("twice", "amount * 2"), "amount"], columns={"n": "amount", "x": "n"}
    )
    got = engine.store.get_historical_features(SPINE, [view]).to_pyarrow()
    assert got["twice"].to_pylist() == [-14, 0, 82]
    assert got["amount"].to_pylist() == [-7, 0, 41]


def test_features_do_not_see_each_other(engine: Engine) -> None:
    view = engine.view([vfs.Feature("one", "n + 1"), vfs.Feature("two", "one + 1")])
    with pytest.raises(vfs.DefinitionError, match="the source has no column 'one'"):
        engine.store.get_historical_features(SPINE, [view])


def test_a_quoted_name_is_a_column_or_refused(engine: Engine) -> None:
    view = engine.view([vfs.Feature("f", "\"nowhere\" || 'x'")])
    with pytest.raises(vfs.DefinitionError, match="the source has no column 'nowhere'"):
        engine.store.get_historical_features(SPINE, [view])


def test_a_missing_column_is_named_with_those_near_it(engine: Engine) -> None:
    view = engine.view([vfs.Feature("f", "mial || 'x'")])
    with pytest.raises(vfs.DefinitionError, match=r"no column 'mial'. Did you mean 'mail'"):
        engine.store.get_historical_features(SPINE, [view])


def test_case_of_names_is_forgiven(engine: Engine) -> None:
    view = engine.view([vfs.Feature("f", "MAIL"), vfs.Feature("g", "N + n")])
    got = engine.store.get_historical_features(SPINE, [view]).to_pyarrow()
    assert got["g"].to_pylist() == [-14, 0, 82]


def test_names_that_differ_in_case_are_those_of_the_engine(tmp_path: Path, postgres: str) -> None:
    with psycopg.connect(postgres, autocommit=True) as con:
        con.execute("""DROP TABLE IF EXISTS cases; CREATE TABLE cases AS SELECT 1::bigint AS k,
            timestamp '2024-01-01' AS seen, 10 AS a, 20 AS "A" """)
    made = Engine("postgres", postgres, tmp_path)
    with made.store as store:
        for text, wanted in (("A + 1", 11), ("a + 1", 11), ('"A" + 1', 21), ('"a" + 1', 11)):
            view = made.view([vfs.Feature("f", text)], table="cases")
            got = store.get_historical_features(SPINE, [view]).to_pyarrow()["f"].to_pylist()
            assert got[0] == wanted, text


def test_sql_that_only_the_engine_can_parse_is_taken_with_unknown_lineage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("virtualfs.compiler.user_sql.tree_of_query", lambda *_: None)
    monkeypatch.setattr("virtualfs.registry.indexing.tree_of_query", lambda *_: None)
    monkeypatch.setattr("virtualfs.compiler.user_sql._column_places", lambda *_: None)
    made = Engine("duckdb", "", tmp_path)
    with made.store as store:
        query = "FROM facts SELECT k, seen, n AS amount"
        store.apply([made.view([vfs.Feature("f", "amount + 1")], table=None, query=query)])
        got = store.get_historical_features(SPINE, ["facts:f"]).to_pyarrow()["f"].to_pylist()
        assert got == [-6, 1, 42]
        assert "unknown" in str(store.lineage("facts:f"))


@pytest.mark.parametrize(
    ("lexis", "text", "tokens"),
    [
        (POSTGRES, "a->>'b' -- c\n+E'\\'x'", ["a", "->>", "'b'", "-- c", "+", "E'\\'x'"]),
        (POSTGRES, "$a$ $$ $a$ || $$'$$", ["$a$ $$ $a$", "||", "$$'$$"]),
        (POSTGRES, "/* /* */ ' */ x::int", ["/* /* */ ' */", "x", "::", "int"]),
        (SQLITE, '[a b] + `c``d` || "e""f"', ["[a b]", "+", "`c``d`", "||", '"e""f"']),
        (BIGQUERY, "r'd' # c\n+ \"a'\"", ["r'd'", "# c", "+", '"a\'"']),
        (Lexis(), "1.5e-3+.5-1.", ["1.5e-3", "+", ".5", "-", "1."]),
    ],
)
def test_tokens_are_those_of_the_engine(lexis: Lexis, text: str, tokens: list[str]) -> None:
    assert [token.text for token in tokens_of(text, lexis)] == tokens


@pytest.mark.parametrize("text", ["'a", '"a', "/* a", "(a", "a)", "[a)", "$$a", "a\0b"])
def test_text_that_cannot_be_divided_is_refused(text: str) -> None:
    with pytest.raises(vfs.DefinitionError, match="not SQL"):
        tokens_of(text, POSTGRES)


def collect(function: Callable[[], Any]) -> str:
    with pytest.raises(vfs.VirtualFSError) as caught:
        function()
    return str(caught.value)


def test_a_name_that_statements_are_bound_by_is_refused(tmp_path: Path) -> None:
    made = Engine("duckdb", "", tmp_path)
    with made.store as store:
        for text in ('"__virtualfs_spine"', "'a' || '\"__virtualfs_rows\"'", "'__virtualfs_last'"):
            view = made.view([vfs.Feature("f", text)])
            assert "reserved" in collect(lambda view=view: store.table(view))


def test_what_an_earlier_release_stored_keeps_its_meaning(tmp_path: Path) -> None:
    """Its statements were printed from a tree, under names that are not reserved."""
    made = Engine("duckdb", "", tmp_path)
    pq.write_table(
        pa.table({"k": [1], "seen": [datetime(2024, 1, 1)], "n": [5]}), tmp_path / "a.parquet"
    )
    older = {
        "facts": 'SELECT\n  "k" AS "k",\n  "seen" AS "seen",\n  "n" * 3 AS "f"\nFROM "facts"',
        "queried": 'SELECT\n  "k" AS "k",\n  "seen" AS "seen",\n  "n" AS "f"\nFROM (\n'
        '  SELECT\n    k,\n    seen,\n    n * 4 AS n\n  FROM facts\n) AS "source"',
        "files": 'SELECT\n  "k" AS "k",\n  "seen" AS "seen",\n  "n" * 5 AS "f"\nFROM (\n'
        "  SELECT\n    *\n  FROM READ_PARQUET('${project}/a.parquet')\n) AS \"source\"",
    }
    sources: dict[str, dict[str, Any]] = {
        "facts": {}, "queried": {"table": None, "query": "SELECT k, seen, n FROM facts"},
        "files": {"table": None, "path": "a.parquet"},
    }  # fmt: skip
    views = []
    for name, source in sources.items():
        fields = {"table": "facts", "event_timestamp": "seen", **source}
        entity = vfs.Entity("thing", join_keys={"k": "int64"})
        views.append(vfs.FeatureView(
            name, source=vfs.Source(name, **fields), entities=[entity],
            features=[vfs.Feature("f", "n + 0")],
        ))  # fmt: skip
    with made.store as store:
        store.apply(views)
    with sqlite3.connect(tmp_path / ".virtualfs" / "registry.db") as registry:
        rows = registry.execute("SELECT name, resolved FROM virtualfs_objects").fetchall()
        for name, text in rows:
            if name in older and text not in (None, "null"):
                resolved = json.loads(text) | {"rows_sql": older[name]}
                del resolved["source_sql"]
                registry.execute(
                    "UPDATE virtualfs_objects SET resolved = ? "
                    "WHERE kind = 'feature_view' AND name = ?",
                    [json.dumps(resolved), name],
                )
    registry.close()
    config = Config(project="facts", folder=tmp_path, warehouses={"default": {"url": made.url}})
    with FeatureStore(config) as store:
        assert not store.plan(views)
        spine = SPINE.slice(0, 1)
        for name, wanted in (("facts", -21), ("queried", -28), ("files", 25)):
            ds = store.get_historical_features(spine, [f"{name}:f"])
            assert ds.to_pyarrow()["f"].to_pylist() == [wanted]
            assert store.table(name).to_pyarrow()["f"].to_pylist()[0] == wanted
            at = datetime(2025, 1, 1, tzinfo=UTC)
            online = store.get_features([f"{name}:f"], [{"k": 1}], as_of=at)
            assert online.to_list()[0]["f"] == wanted
            labelled = spine.append_column("y", pa.array([1]))
            assert store.check_leakage(labelled, [f"{name}:f"], "y").rows == 1
