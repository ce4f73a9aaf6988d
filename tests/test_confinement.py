"""A stored definition can do nothing but read in its own warehouse: attacks on that.

Most are made by rules from what an engine's own catalog lists, so that a release of an engine that
brings new functions brings new attacks.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import ibis
import pytest

import virtualfs as vfs
from virtualfs import Config, FeatureStore
from virtualfs.provider import SilentCatalog

Judge = Callable[[str, Any], None]
QUERIES = {
    "duckdb": [
        "SELECT 1; DROP TABLE t",
        "DROP TABLE t",
        "INSERT INTO t VALUES (1)",
        "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM \"read_csv\"('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM 'x.parquet'",
        'SELECT * FROM "x.parquet"',
        "FROM read_text('/etc/passwd')",
        "SELECT getenv('HOME')",
        "ATTACH 'x.db'",
        "INSTALL httpfs",
        "PRAGMA database_list",
        "SET x=1",
        "COPY t TO 'x'",
        "EXPORT DATABASE 'x'",
        "SELECT * FROM glob('*')",
        "CALL pragma_version()",
        "SELECT * FROM query('DROP TABLE t')",
        "SELECT * FROM query_table('t')",
        "DESCRIBE t",
        "SELECT * FROM duckdb_secrets()",
        "SELECT * FROM postgres_scan('a','b','c')",
        "SELECT * FROM sqlite_scan('a','b')",
        "SELECT /* x */ 1 --\n; DELETE FROM t",
        "EXPLAIN ANALYZE DELETE FROM t",
        "SELECT * FROM main.read_csv('/etc/passwd')",
        "SELECT * FROM system.main.read_blob('/etc/passwd')",
        "SELECT read_text.content FROM read_text('/etc/passwd')",
        "SELECT * FROM t, LATERAL (SELECT * FROM read_json('x'))",
        "SELECT (SELECT content FROM read_text('x'))",
        "CREATE TABLE a AS SELECT 1",
        "SELECT * INTO x FROM t",
        "SELECT * FROM parquet_metadata('x')",
        "SELECT * FROM delta_scan('x')",
        "SELECT * FROM st_read('x')",
        "SELECT * FROM read_xlsx('x')",
        "SELECT * FROM iceberg_scan('x')",
        "SELECT * FROM sniff_csv('x')",
        "SELECT * FROM read_duckdb('x')",
        "SELECT * FROM shellfs('x')",
        "SELECT * FROM duckdb_settings()",
        "SELECT * FROM pragma_storage_info('t')",
        "SELECT * FROM mysql_query('a','b')",
        "SELECT * FROM postgres_query('a','b')",
        "SELECT * FROM http_get('x')",
        "SELECT current_setting('x')",
        "SELECT * FROM which_secret('a','b')",
        "SELECT write_log('x')",
        "SELECT * FROM force_checkpoint()",
        "SELECT * FROM checkpoint()",
        "SELECT * FROM postgres_execute('a','b')",
        "SELECT * FROM read_ndjson_objects('x')",
        "SELECT * FROM ST_Read_Meta('x')",
        "SELECT * FROM url('x')",
        "SELECT * FROM load_aws_credentials()",
        "SELECT * FROM sql_auto_complete('x')",
        "SELECT * FROM add_parquet_key('a','b')",
        "SELECT pg_sleep(1)",
        "SELECT sleep_ms(1000)",
    ],
    "postgres": [
        "WITH x AS (UPDATE t SET a=1 RETURNING *) SELECT * FROM x",
        "WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_catalog.pg_read_file('/etc/passwd')",
        "SELECT * FROM t FOR UPDATE",
        "SELECT * FROM t FOR SHARE",
        "SELECT nextval('s')",
        "SELECT lo_import('x')",
        "SELECT * FROM dblink('a','b') AS t(a int)",
        "SELECT pg_terminate_backend(1)",
        "SELECT set_config('a','b',true)",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_sleep(10)",
        "COPY t TO PROGRAM 'x'",
        "SELECT pg_notify('a','b')",
        "DO $$ BEGIN END $$",
        "SELECT query_to_xml('DELETE FROM t',true,true,'')",
        "SELECT database_to_xml(true,true,'')",
        "SELECT cursor_to_xml('c',1,true,true,'')",
        "SELECT pg_ls_dir('/')",
        "SELECT pg_reload_conf()",
        "SELECT txid_current()",
        "SELECT pg_export_snapshot()",
        "SELECT pg_create_restore_point('x')",
        "SELECT pg_switch_wal()",
        "SELECT lo_export(1,'x')",
        "SELECT pg_file_write('a','b',true)",
        "SELECT ts_stat('SELECT 1')",
        "SELECT pg_logical_emit_message(true,'a','b')",
        "SELECT crosstab('DELETE FROM t')",
        "SELECT table_to_xml('t',true,true,'')",
        "SELECT \"pg_read_file\"('x')",
        "SELECT pg_cancel_backend(1)",
        "SELECT pg_rotate_logfile()",
        "SELECT current_setting('x')",
        "SELECT pg_stat_reset()",
        "SELECT setval('s',1)",
        "SELECT pg_drop_replication_slot('x')",
        "SELECT pg_create_physical_replication_slot('x')",
        "SELECT pg_promote()",
        "SELECT pg_wal_replay_pause()",
    ],
    "spark": [
        "SELECT reflect('java.lang.System','exit',1)",
        "SELECT java_method('java.lang.System','exit',1)",
        "SELECT try_reflect('a','b')",
    ],
    "snowflake": [
        "SELECT SYSTEM$CANCEL_QUERY('x')",
        "SELECT system$wait(9)",
    ],
    "bigquery": [
        "SELECT * FROM EXTERNAL_QUERY('c','DELETE FROM t')",
    ],
}
EXPRESSIONS = [
    "1; DROP TABLE t", "(SELECT 1)", "a FROM t", "1) FROM t; --", "1) , (2", "/* a", "'a",
    "now()", "random()", "sum(a)", "sum(a) OVER ()", "a, a", "$1", "?", "", ";", "a AS b",
    "CASE WHEN true THEN (SELECT 1) END", "a IN (SELECT 1)", "EXISTS (SELECT 1)",
    "count(*) FILTER (WHERE true)", "current_date", "a ORDER BY a", "\"__virtualfs_rows\"",
]  # fmt: skip
SHAPES = (
    "SELECT {call} AS x FROM t",
    "SELECT * FROM (SELECT {call} AS x) AS y",
    "WITH y AS (SELECT {call} AS x) SELECT * FROM y",
    "SELECT a FROM t WHERE ({call}) IS NULL",
    "SELECT a FROM t ORDER BY {call}",
    "SELECT a FROM t UNION ALL SELECT {call} FROM t",
    "SELECT CASE WHEN a = 1 THEN {call} END FROM t",
    "SELECT (SELECT {call}) FROM t",
)
IN_FROM = (
    "SELECT * FROM {call} AS y",
    "SELECT * FROM t, {call} AS y",
    "SELECT * FROM t, LATERAL {call} AS y",
    "SELECT * FROM t JOIN {call} AS y ON true",
    "SELECT (SELECT count(*) FROM {call} AS y) FROM t",
    "WITH y AS (SELECT * FROM {call} AS z) SELECT * FROM y",
)


def refused(judge: Judge, attacks: list[str], use: str = "query") -> list[str]:
    """Return the attacks that got through."""
    through = []
    for attack in attacks:
        try:
            judge(attack, use)
        except vfs.DefinitionError:
            continue
        through.append(attack)
    return through


@pytest.fixture(scope="module")
def duckdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    con = ibis.duckdb.connect()
    folder = tmp_path_factory.mktemp("files")
    (folder / "secret.csv").write_text("a,b\n1,hunter2\n")
    con.con.execute(
        """CREATE TABLE t AS SELECT 1 AS a; ATTACH ':memory:' AS other;
        CREATE TABLE other.secrets AS SELECT 'hunter2' AS b;
        CREATE MACRO peek(p) AS TABLE SELECT * FROM read_csv(p);
        CREATE MACRO count_of(p) AS (SELECT count(*) FROM read_text(p));
        CREATE MACRO twice_meant(p) AS (SELECT content FROM read_text(p)), (p, q) AS p + q;
        CREATE MACRO plus_one(x) AS x + 1"""
    )
    warehouse = import_module("virtualfs_providers.duckdb").PROVIDER.adopt("default", con)
    warehouse.folder = folder
    return warehouse


@pytest.fixture(scope="module")
def postgresql(postgres: str) -> Iterator[Any]:
    con = ibis.connect(postgres)
    with con.con.cursor() as cursor:
        cursor.execute(
            """DROP TABLE IF EXISTS t; CREATE TABLE t (a int, s text);
            CREATE OR REPLACE FUNCTION wr(i text) RETURNS text LANGUAGE sql VOLATILE
            AS $$ SELECT 'x' $$;
            CREATE OR REPLACE FUNCTION wr_row(r t) RETURNS text LANGUAGE sql VOLATILE
            AS $$ SELECT 'x' $$;
            CREATE OR REPLACE FUNCTION wr_op(a t, b int) RETURNS int LANGUAGE sql VOLATILE
            AS $$ SELECT 1 $$;
            DROP OPERATOR IF EXISTS |!| (t, int);
            CREATE OPERATOR |!| (LEFTARG = t, RIGHTARG = int, FUNCTION = wr_op)"""
        )
        con.con.commit()
    yield import_module("virtualfs_providers.postgres").PROVIDER.adopt("default", con)
    con.disconnect()


@pytest.fixture(scope="module")
def sqlite() -> Any:
    con = ibis.sqlite.connect()
    con.con.execute("CREATE TABLE t (a INTEGER, s TEXT)")
    return import_module("virtualfs_providers.sqlite").PROVIDER.adopt("default", con)


def listed(engine: str) -> SilentCatalog:
    warehouse = SilentCatalog()
    warehouse.capabilities = import_module(f"virtualfs_providers.{engine}").CAPABILITIES
    return warehouse


def duckdb_attacks(warehouse: Any) -> Iterator[str]:
    con, folder = warehouse.connection.con, warehouse.folder
    rows_made = {"generate_series", "range", "unnest", "json_each", "json_tree"}
    rows = con.execute(
        "SELECT DISTINCT function_name, function_type, stability, len(parameters) "
        "FROM duckdb_functions() ORDER BY ALL"
    ).fetchall()
    for number, (name, kind, stability, count) in enumerate(rows):
        arguments = ", ".join([f"'{folder}/secret.csv'"] * count)
        call = f'"{name}"({arguments})'
        if kind in ("table", "table_macro", "pragma") and name not in rows_made:
            yield IN_FROM[number % len(IN_FROM)].format(call=call)
            yield IN_FROM[(number + 1) % len(IN_FROM)].format(call=f"main.{name}({arguments})")
        elif stability == "VOLATILE" or name.startswith(("pg_sleep", "inet_", "has_")):
            yield SHAPES[number % len(SHAPES)].format(call=call)
    views = con.execute(
        "SELECT schema_name, view_name FROM duckdb_views() WHERE internal ORDER BY ALL"
    ).fetchall()
    for number, (schema, name) in enumerate(views):
        yield IN_FROM[number % len(IN_FROM)].format(call=f"{schema}.{name}")
        yield IN_FROM[(number + 3) % len(IN_FROM)].format(call=name)
    for place in (f"{folder}/secret.csv", f"{folder}/*.csv", f"{folder}/SECRET.CSV", "a.csv?bak",
                  "file:///etc/passwd", "s3://bucket/x.parquet", "https://example.org/x.csv",
                  "x.parquet", "a.b.json.gz", "..", "secret.csv"):  # fmt: skip
        for shape in IN_FROM:
            yield shape.format(call=f"'{place}'")
            yield shape.format(call=f'"{place}"')
    for text in ("other.secrets", "other.main.secrets", "memory.information_schema.tables",
                 "peek('x')", "system.main.duckdb_settings()"):  # fmt: skip
        yield from (shape.format(call=text) for shape in IN_FROM)
    yield f"SELECT count_of('{folder}/secret.csv')"
    yield f"""WITH RECURSIVE "{folder}/secret.csv" AS (SELECT a FROM "{folder}/secret.csv"
        UNION ALL SELECT a FROM "{folder}/secret.csv" WHERE false)
        SELECT * FROM "{folder}/secret.csv\""""
    yield "SELECT a FROM t AT (VERSION => error(current_setting('secret_directory')))"
    yield "SELECT twice_meant('/etc/passwd')"
    for verb in ("SUMMARIZE", "DESCRIBE", "SHOW"):
        yield f"SELECT * FROM ({verb} '{folder}/secret.csv')"
        yield f"SELECT * FROM t, ({verb} t)"
        yield f"{verb} t"
    name = f"{folder}/secret.csv"
    yield f'WITH "{name}" AS (FROM "{name}") FROM "{name}"'
    yield f'FROM (WITH "{name}" AS (SELECT 1) FROM "{name}") AS x, "{name}"'
    yield f'SELECT * FROM (WITH t AS (FROM "{name}") FROM t)'


def postgres_attacks(warehouse: Any) -> Iterator[str]:
    with warehouse.connection.con.cursor() as cursor:
        cursor.execute(
            """SELECT p.oid::regproc::text, p.proname, p.provolatile, p.pronargs, p.proretset,
                      array(SELECT format_type(a, NULL) FROM unnest(p.proargtypes) AS a)
            FROM pg_proc p JOIN pg_type r ON r.oid = p.prorettype
            WHERE p.prokind = 'f' AND r.typname NOT IN ('trigger', 'event_trigger', 'internal')
              AND (p.provolatile = 'v' OR p.proname ~ '^(pg_(stat|ls|read|show)_|lo_|.*_to_xml)')
              AND NOT EXISTS (SELECT FROM unnest(p.proargtypes) AS a
                              WHERE a IN ('internal'::regtype, 'cstring'::regtype))
            ORDER BY p.proname, p.pronargs"""
        )
        functions = cursor.fetchall()
        cursor.execute(
            """SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n
            ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'v')
            AND n.nspname IN ('pg_catalog', 'information_schema') ORDER BY 1, 2"""
        )
        relations = cursor.fetchall()
        warehouse.connection.con.commit()
    for number, (_, name, _, count, _, types) in enumerate(functions):
        call = f"{name}({', '.join(f'NULL::{kind}' for kind in types)})"
        shape = SHAPES[number % len(SHAPES)]
        yield shape.format(call=call)
        yield shape.format(
            call=f"pg_catalog.{call}" if number % 2 else f'"{name}"' + call[len(name) :]
        )
        yield IN_FROM[number % len(IN_FROM)].format(call=call)
        if count == 1:
            yield shape.format(call=f"(NULL::{types[0]}).{name}")
            yield shape.format(call=f"(ARRAY[NULL::{types[0]}])[1].{name}")
            yield shape.format(call=f'(NULL::{types[0]}) . /* x */ "{name}"')
    for number, (schema, name) in enumerate(relations):
        place = f"{schema}.{name}"
        yield IN_FROM[number % len(IN_FROM)].format(call=place)
        yield f"TABLE {place}"
        if schema == "pg_catalog":
            yield IN_FROM[(number + 1) % len(IN_FROM)].format(call=name)
            yield f'SELECT * FROM "{name}"'
    for call in ("wr('a')", "public.wr('a')", "('a'::text).wr", "t.wr_row", "(t).wr_row",
                 "t |!| 1", "t OPERATOR(public.|!|) 1", "U&\"p\\0067_sleep\"(1)",
                 "current_user", "session_user", "user", "current_catalog"):  # fmt: skip
        yield from (shape.format(call=call) for shape in SHAPES)
    for verb in ("INSERT INTO t VALUES (1)", "DELETE FROM t", "UPDATE t SET a = 1",
                 "MERGE INTO t USING t AS s ON true WHEN MATCHED THEN DELETE"):  # fmt: skip
        yield verb
        yield f"WITH x AS ({verb} RETURNING *) SELECT * FROM x"
        yield f"WITH x AS MATERIALIZED ({verb} RETURNING 1) SELECT 1"
        yield f"SELECT 1; {verb}"
    # What PostgreSQL divides into tokens otherwise than it seems.
    for space in "\u00a0\u0085\u3000":
        yield f"SELECT 1 AS a{space}$$, pg_read_file('/etc/passwd') AS x, 2 AS b{space}$$"
    yield "SELECT 1 AS \u0663$$, pg_sleep(1) AS x, 2 AS \u0663$$"
    yield "WITH x AS (SELECT 1) DELETE FROM t RETURNING *"
    yield "SELECT 'a' -- '\r|| pg_sleep(1)::text || ''"
    yield "SELECT E'a'\n'b\\'' || pg_sleep(1)::text || ''"
    yield "SELECT E'\\'' || pg_sleep(1)::text || ''"
    yield "SELECT $a$ $$ $a$ || pg_sleep(1)::text || $$ $$"
    yield "SELECT 1 /* /* */ ' */ + pg_sleep(1) -- '"
    yield "SELECT t|!|1, t|!|-1, 1 FROM t"
    yield "SELECT a INTO x FROM t"
    for lock in ("UPDATE", "SHARE", "NO KEY UPDATE", "KEY SHARE"):
        yield f"SELECT * FROM t FOR {lock}"


def sqlite_attacks(warehouse: Any) -> Iterator[str]:
    con = warehouse.connection.con
    deterministic = 0x800
    rows = con.execute(
        "SELECT DISTINCT name, narg, flags FROM pragma_function_list WHERE type = 's' ORDER BY 1, 2"
    ).fetchall()
    harmless = {"like", "glob", "current_date", "current_time", "current_timestamp"}
    for number, (name, count, flags) in enumerate(rows):
        if flags & deterministic or name in harmless or not name.isidentifier():
            continue
        call = f'"{name}"({", ".join(["1"] * max(count, 0))})'
        yield from (shape.format(call=call) for shape in SHAPES[number % 4 :])
    for (name,) in con.execute("SELECT name FROM pragma_module_list ORDER BY 1").fetchall():
        if name not in ("json_each", "json_tree"):
            yield from (shape.format(call=name) for shape in IN_FROM[:1] + IN_FROM[3:])
            yield f"SELECT * FROM {name}('t')"
    for (name,) in con.execute("SELECT name FROM pragma_pragma_list ORDER BY 1").fetchall():
        yield f"PRAGMA {name}"
        yield f"SELECT * FROM pragma_{name}"
        yield f"SELECT * FROM t, pragma_{name}('t')"
    for name in ("sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_sequence",
                 "main.sqlite_schema", "temp.sqlite_schema", "sqlite_dbpage"):  # fmt: skip
        yield from (shape.format(call=name) for shape in IN_FROM[:1] + IN_FROM[3:])
    yield from (
        "DROP TABLE t", "DELETE FROM t", "INSERT INTO t VALUES (1, 2)", "ATTACH 'x' AS y",
        "VACUUM INTO 'x'", "EXPLAIN SELECT 1", "REINDEX", "BEGIN", "CREATE TABLE u (a)",
        "SELECT 1; DELETE FROM t",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("engine", "attacks"),
    [("duckdb", duckdb_attacks), ("postgresql", postgres_attacks), ("sqlite", sqlite_attacks)],
)
def test_no_attack_gets_through(engine: str, attacks: Any, request: pytest.FixtureRequest) -> None:
    warehouse = request.getfixturevalue(engine)
    tried = list(dict.fromkeys(attacks(warehouse)))
    assert len(tried) >= 200
    assert refused(warehouse.judge, tried) == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("engine", [*QUERIES, "trino", "databricks", "redshift"])
def test_what_was_tried_before_is_still_refused(
    engine: str, request: pytest.FixtureRequest
) -> None:
    names = {"duckdb": "duckdb", "postgres": "postgresql"}
    warehouse = request.getfixturevalue(names[engine]) if engine in names else listed(engine)
    attacks = QUERIES.get(engine, QUERIES["duckdb"])
    assert refused(warehouse.judge, attacks) == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "engine",
    ["duckdb", "postgresql", "sqlite", "spark", "databricks", "snowflake", "bigquery", "trino",
     "redshift"],
)  # fmt: skip
def test_an_expression_that_is_not_row_wise_is_refused(
    engine: str, request: pytest.FixtureRequest
) -> None:
    runs_here = engine in ("duckdb", "postgresql", "sqlite")
    warehouse = request.getfixturevalue(engine) if runs_here else listed(engine)
    attacks = list(EXPRESSIONS)
    if engine == "duckdb":
        attacks += ["current_user", "geomean(a)", "generate_subscripts([a], 1)", "median(a)",
                    "regexp_split_to_table('a', ',')", "twice_meant('x')",
                    "__virtualfs_source"]  # fmt: skip
    if engine in ("bigquery", "spark"):
        attacks += ["(FROM secret |> LIMIT 1)", "a IN (FROM secret |> LIMIT 1)", "db.lower(a)",
                    "a IN (VALUES 1, 2)", "current_user", "CURRENT_DATETIME"]  # fmt: skip
    if engine == "postgresql":
        attacks += ["(array[1, 2]).unnest", "(a).sum", "current_user"]
        attacks += ["s::timestamp < 'now'", "timestamp 'today'", "s ? $1", "age(now())", "t.wr_row"]
    if engine == "sqlite":
        attacks += ["a IN other", "a IN main.other", "s IN pragma_user_version"]
        attacks += ["date('now')", "date()", "strftime('%s')", "julianday(' NOW ')", "max(a)"]
    if engine in ("postgresql", "redshift"):
        attacks.remove("?")  # an operator
    if engine == "sqlite":
        attacks.remove("now()")  # which it does not have
    assert refused(warehouse.judge, attacks, "expression") == []


LISTED = {
    "bigquery": [
        "SELECT r'\\' || ', SESSION_USER() AS x, 'y' -- '", "SELECT d.lower(s) FROM d.t",
        "SELECT AI.IF(s, connection_id => 'us.c') FROM t", "SELECT predict(s) FROM t",
        "SELECT * FROM `region-us`.INFORMATION_SCHEMA.JOBS", "SELECT * FROM d.`__TABLES__`",
    ],
    "redshift": [
        "SELECT 'a\\' || ', x, (SELECT usename FROM pg_user LIMIT 1), 'y' -- '",
        "SELECT * FROM stl_query", "SELECT public.lower(s) FROM t", "SELECT * FROM svv_tables",
    ],
    "snowflake": ["SELECT db.public.lower(s) FROM t", "SELECT $a$, SYSTEM$WAIT(1), $a$",
                  "SELECT snowflake.cortex.translate(s, 'en', 'de') FROM t"],
    "trino": ["SELECT cat.sch.lower(s) FROM t", 'SELECT * FROM "t$snapshots"',
              "SELECT * FROM jmx.current.x"],
    "spark": ["SELECT db.lower(s) FROM t", "SELECT '${env:HOME}'", "SELECT * FROM csv.`/etc/x`"],
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("engine", LISTED)
def test_engines_that_are_judged_by_a_list_refuse_what_is_not_in_it(engine: str) -> None:
    assert refused(listed(engine).judge, LISTED[engine]) == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("engine", "query"),
    [
        ("bigquery", "SELECT * FROM t PIVOT(SUM(x) FOR q IN ('a', 'b'))"),
        ("bigquery", "SELECT ARRAY_AGG(x)[SAFE_OFFSET(0)] FROM t TABLESAMPLE SYSTEM (10 PERCENT)"),
        ("redshift", "SELECT listagg(s, ',') WITHIN GROUP (ORDER BY s) FROM t"),
        ("spark", "SELECT percentile_approx(x, 0.5) FROM t"),
        ("trino", "SELECT map_agg(k, x) FROM t"),
        ("snowflake", "SELECT listagg(s, ',') WITHIN GROUP (ORDER BY s) FROM t"),
    ],
)
def test_engines_that_are_judged_by_a_list_let_their_own_through(engine: str, query: str) -> None:
    listed(engine).judge(query, "query")


def test_sqlite_reads_no_attached_database() -> None:
    con = ibis.sqlite.connect()
    con.con.execute("ATTACH ':memory:' AS other")
    con.con.executescript("CREATE TABLE t (a); CREATE TABLE other.t (a)")
    warehouse = import_module("virtualfs_providers.sqlite").PROVIDER.adopt("default", con)
    warehouse.judge("SELECT a FROM main.t", "query")
    assert refused(warehouse.judge, ["SELECT a FROM other.t"]) == []


def test_a_user_may_have_macros_over_values(duckdb: Any) -> None:
    duckdb.judge("plus_one(a)", "expression")
    duckdb.judge("SELECT plus_one(a) FROM t", "query")


@pytest.mark.parametrize(
    "query",
    [
        "WITH query(k, x) AS (SELECT 1, 2) SELECT * FROM query",
        "SELECT * FROM t AS random(k, x)",
        "SELECT pg_typeof(a), upper(s), count(*) FROM t GROUP BY 1, 2",
        "WITH x AS (SELECT * FROM t) SELECT * FROM x UNION ALL SELECT * FROM t",
        "SELECT * FROM t, LATERAL (SELECT max(a) FROM t AS u WHERE u.a = t.a) AS m",
        "SELECT coalesce(a, 0), row_number() OVER (PARTITION BY s ORDER BY a) FROM t",
        "SELECT * FROM generate_series(1, 3) AS g(x)",
        "SELECT * FROM (VALUES (1, 'a')) AS v(a, s) WHERE s ? 'a' IS NULL",
        "SELECT now(), current_date, age(now()) FROM t; -- done",
    ],
)
def test_what_only_reads_is_let_through(query: str, postgresql: Any) -> None:
    if "?" in query:
        query = query.replace("s ? 'a'", "to_jsonb(s) ? 'a'")
    postgresql.judge(query, "query")


def store_on(url: str, folder: Path) -> FeatureStore:
    return FeatureStore(Config(project="p", folder=folder, warehouses={"default": {"url": url}}))


def read(store: FeatureStore, query: str) -> Any:
    source = vfs.Source("s", query=query)
    entity = vfs.Entity("e", join_keys={"k": "int64"})
    view = vfs.FeatureView("v", source=source, entities=[entity], features=["x"])
    return store.table(view).to_pyarrow().to_pylist()


def test_duckdb_itself_opens_no_file_outside_the_roots(tmp_path: Path) -> None:
    outside = Path(tempfile.mkdtemp()) / "secret.csv"
    outside.write_text("k,x\n1,hunter2\n")
    (tmp_path / "own.csv").write_text("k,x\n1,own\n")
    with store_on("duckdb://", tmp_path) as store, store.warehouse().session() as session:
        assert session.query(f"FROM '{tmp_path}/own.csv'").num_rows == 1
        for statement in (
            f"FROM '{outside}'", f"FROM read_csv('{tmp_path}/../{outside.parent.name}/secret.csv')",
            "INSTALL httpfs", f"ATTACH '{outside.parent}/x.duckdb' AS y", "SET threads = 1",
            f"COPY (SELECT 1) TO '{outside.parent}/y.csv'", "SET enable_external_access = true",
        ):  # fmt: skip
            with pytest.raises(vfs.WarehouseError):
                session.query(statement)
    assert [path.name for path in outside.parent.iterdir()] == ["secret.csv"]


def test_postgresql_itself_writes_nothing_while_it_reads(tmp_path: Path, postgres: str) -> None:
    with store_on(postgres, tmp_path) as store, store.warehouse().session() as session:
        session.keep("kept", "SELECT 1 AS a")
        session.query("SELECT a FROM kept", {"a": "int32"})
        session.keep("again", "SELECT a FROM kept")  # tables are made after statements that read
        with pytest.raises(vfs.WarehouseError, match="may only read"):
            session.query("SELECT lo_create(0)", {"lo_create": "int64"})


def test_postgresql_evaluates_a_spine_without_writing(tmp_path: Path, postgres: str) -> None:
    store = store_on(postgres, tmp_path)
    with (
        store,
        pytest.raises(vfs.WarehouseError, match="may only read"),
        store.warehouse().session() as session,
    ):
        session.keep("kept", "SELECT lo_create(0) AS a")


def test_sqlite_itself_does_nothing_but_read(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "w.db").execute("CREATE TABLE t (k INTEGER)").connection.close()
    store = store_on(f"sqlite://{tmp_path}/w.db", tmp_path)
    with store, store.warehouse().session() as session:
        for statement in ("ATTACH 'x' AS y", "PRAGMA user_version", "DELETE FROM t"):
            with pytest.raises(vfs.WarehouseError, match=r"not authorized|prohibited"):
                session.query(statement, {})


@pytest.mark.parametrize("engine", ["sqlite", "duckdb", "postgres"])
def test_planning_ends(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = {"sqlite": "sqlite://", "duckdb": "duckdb://"}.get(engine)
    url = url or request.getfixturevalue("postgres")
    endless = (
        "WITH RECURSIVE r(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM r) "
        "SELECT max(k) AS k, max(k) AS x FROM r"
    )
    with store_on(url, tmp_path) as store:
        view = vfs.FeatureView(
            "v", source=vfs.Source("s", query=endless), features=["x"],
            entities=[vfs.Entity("e", join_keys={"k": "int64"})],
        )  # fmt: skip
        if engine == "sqlite":  # which has to run it to know its types
            with pytest.raises(vfs.VirtualFSError, match="no end within"):
                store.apply([view])
        else:
            store.apply([view])


def test_a_path_stays_below_the_roots(tmp_path: Path) -> None:
    outside = Path(tempfile.mkdtemp())
    (outside / "a.csv").write_text("k,x\n1,2\n")
    entity = vfs.Entity("e", join_keys={"k": "int64"})

    def ask(store: FeatureStore, path: str) -> Any:
        view = vfs.FeatureView(
            "v", source=vfs.Source("s", path=path), entities=[entity], features=["x"]
        )
        return store.table(view).to_pyarrow().to_pylist()

    inside = tmp_path / "data"
    inside.mkdir()
    (inside / "a.csv").write_text("k,x\n1,3\n")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "link.csv").symlink_to(outside / "a.csv")
    warehouses = {"default": {"url": "duckdb://"}}
    base: dict[str, Any] = {"project": "p", "folder": tmp_path, "warehouses": warehouses}
    with FeatureStore(Config(**base)) as store:
        assert ask(store, "data/*.csv")[0]["x"] == 3
        for path in (f"{outside}/a.csv", "../*.csv", f"data/../../{outside.name}/a.csv",
                     "s3://bucket/a.csv", "links/link.csv",
                     ".env.csv"):  # fmt: skip
            with pytest.raises(vfs.VirtualFSError, match=r"roots|configuration"):
                ask(store, path)
    with pytest.raises(vfs.ConfigError, match="configuration files"):
        Config(**base).check_path("virtualfs.*")
    with FeatureStore(Config(**base, files={"roots": [str(outside)]})) as store:
        assert ask(store, f"{outside}/a.csv")[0]["x"] == 2
        with pytest.raises(vfs.VirtualFSError, match="roots"):
            ask(store, "data/a.csv")
    adopted = FeatureStore(Config(**base), connections={"default": ibis.duckdb.connect()})
    with adopted as store, pytest.raises(vfs.VirtualFSError, match="roots"):
        ask(store, f"{outside}/a.csv")
