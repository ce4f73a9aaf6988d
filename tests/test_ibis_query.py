"""SQL text as an Ibis table: it runs as it was written, which Ibis itself does not do yet."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import ibis
import pytest

from virtualfs.compiler.ibis_query import query_table

TEXT = "SELECT interval '1.5 hours' AS i, ' a\n  b' AS s -- the end"
WANTED = {"i": timedelta(hours=1, minutes=30), "s": " a\n  b"}


@pytest.fixture
def con() -> Any:
    return ibis.duckdb.connect()


def own(con: Any, text: str) -> list[dict[str, Any]]:
    """Return the rows of a SELECT as DuckDB's own driver gives them."""
    result = con.con.execute(text)
    names = [column[0] for column in result.description]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def test_ibis_still_prints_what_it_parsed(con: Any) -> None:
    """On the day that this fails, ``query_table`` can be Ibis's own ``connection.sql``."""
    text = "SELECT x, interval '1.5 hours' AS i FROM t1"
    con.con.execute("CREATE TABLE t1 AS SELECT 1 AS x")
    table = con.sql(text, schema={"x": "int32", "i": "interval('us')"})
    assert "'1.5 hours'" not in con.compile(table)
    counted = table.group_by("x").agg(n=ibis._.count())
    assert re.search(r'WITH "t\d+" AS', con.compile(counted.join(counted.view(), "x")))


def test_a_text_runs_as_it_was_written(con: Any) -> None:
    table = query_table(con, TEXT, {"i": "interval('us')", "s": "string"})
    assert own(con, con.compile(table)) == [WANTED]
    assert own(con, con.compile(table.mutate(more=1).filter(ibis._.more == 1))) == [
        {**WANTED, "more": 1}
    ]


@pytest.mark.parametrize("number", range(8))
def test_parts_of_a_statement_hide_no_table(con: Any, number: int) -> None:
    con.con.execute(f"CREATE TABLE t{number} AS SELECT 1::BIGINT AS k, 5::BIGINT AS x")
    table = query_table(con, f"SELECT k, x FROM t{number}", {"k": "int64", "x": "int64"})
    doubled = table.group_by("k").agg(x=ibis._.x.sum())
    joined = table.join(doubled, "k").join(doubled.view(), "k", rname="{name}_2")
    assert [row["x"] for row in own(con, con.compile(joined))] == [5]
    both = table.union(table).union(doubled)
    assert sorted(row["x"] for row in own(con, con.compile(both))) == [5, 5, 5]
