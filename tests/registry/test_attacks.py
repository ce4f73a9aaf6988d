"""A stored definition can do nothing but read in its own warehouse: attacks on that."""

from __future__ import annotations

import pytest

import virtualfs as vfs
from virtualfs.compiler.sql import parse_expression, parse_select

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
    "1; DROP TABLE t", "(SELECT 1)", "read_text('x')", "pg_sleep(1)", "a FROM t", "1) FROM t; --",
    "now()", "random()", "sum(a)", "a OVER ()", "pg_terminate_backend(1)", "$1", "?",
    "CASE WHEN true THEN (SELECT 1) END", "query_to_xml('DELETE FROM t', true, true, '')",
    "a IN (SELECT 1)", "EXISTS (SELECT 1)", "unnest([1])", "count(*) FILTER (WHERE true)",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("dialect", "query"), [(dialect, query) for dialect in QUERIES for query in QUERIES[dialect]]
)
def test_a_query_that_does_more_than_read_is_refused(dialect: str, query: str) -> None:
    with pytest.raises(vfs.DefinitionError):
        parse_select(query, dialect, "source 's'")


@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_that_is_not_row_wise_is_refused(dialect: str, expression: str) -> None:
    with pytest.raises(vfs.DefinitionError):
        parse_expression(expression, dialect, {"a": "a"}, "feature 'f'")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT pg_typeof(a), upper(b), count(*) FROM t GROUP BY ALL",
        "WITH x AS (SELECT * FROM s.t) SELECT * FROM x UNION ALL SELECT * FROM s.u",
        "SELECT * FROM t, LATERAL (SELECT max(v) FROM u WHERE u.k = t.k) AS m",
        "SELECT coalesce(a, 0), row_number() OVER (PARTITION BY b ORDER BY c) FROM t",
        "SELECT * FROM generate_series(1, 3) AS g(x)",
    ],
)
def test_what_only_reads_is_let_through(query: str) -> None:
    assert parse_select(query, "postgres", "source 's'")
