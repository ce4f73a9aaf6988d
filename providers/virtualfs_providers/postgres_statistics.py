"""What PostgreSQL's planner and catalog know of the one table that a view's rows come from."""

from __future__ import annotations

import math
from typing import Any

from sqlglot import exp

from virtualfs.capabilities import Statistics, round_up
from virtualfs.compiler.plan import ResolvedView
from virtualfs.compiler.user_sql import tree_of_query

__all__ = ["read_statistics", "table_of"]

_DISTINCT = """
SELECT a.attname, s.n_distinct FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname
WHERE c.oid = to_regclass($1)
"""
_INDEXES = """
SELECT array_agg(a.attname::text ORDER BY k.place),
       bool_and(i.indisunique AND NOT (c.relhassubclass AND c.relkind = 'r'))
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k(number, place)
LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
WHERE i.indrelid = to_regclass($1) AND i.indisvalid AND i.indpred IS NULL
  AND k.place <= i.indnkeyatts
GROUP BY i.indexrelid
"""


def read_statistics(cursor: Any, view: ResolvedView, rows: int | None) -> Statistics:
    """Return distinct keys, indexes and constraints of a view's table, beside its rows."""
    place = table_of(view)
    if place is None:
        return Statistics(rows=round_up(rows))
    table, columns = place
    keys = [columns.get(key) for key in view.join_keys]
    event = columns.get(view.event_timestamp or "")
    cursor.execute(_DISTINCT, [table])
    distinct = dict(cursor.fetchall())
    cursor.execute(_INDEXES, [table])
    indexes = cursor.fetchall()
    counts: list[float] = [distinct[key] for key in keys if key in distinct]
    known = None
    if rows is not None and counts and len(counts) == len(keys):
        each = [count if count > 0 else -count * rows for count in counts]
        known = min(math.prod(each), rows)
    return Statistics(
        rows=round_up(rows),
        keys=round_up(known),
        indexed=None not in (event, *keys)
        and any(
            set(names[: len(keys)]) == set(keys) and names[len(keys) : len(keys) + 1] == [event]
            for names, _ in indexes
        ),
        unique=any(
            unique and None not in names and set(names) <= {*keys, event}
            for names, unique in indexes
        ),
    )


def table_of(view: ResolvedView) -> tuple[str, dict[str, str]] | None:
    """Return the one table that a view's rows are picked from, and its columns by view column."""
    tree: Any = tree_of_query(view.rows_sql, "postgres")
    if tree is None:
        return None
    columns = _columns_of(tree)
    source = tree.args.get("from_")
    if source is not None and isinstance(source.this, exp.Subquery):  # columns under other names
        tree = source.this.this
        inner = _columns_of(tree) if isinstance(tree, exp.Select) else {}
        columns = {name: inner[column] for name, column in columns.items() if column in inner}
        source = tree.args.get("from_")
    if source is None or not isinstance(source.this, exp.Table) or tree.args.get("joins"):
        return None
    table = source.this.copy()
    table.set("alias", None)
    return table.sql("postgres"), columns


def _columns_of(select: Any) -> dict[str, str]:
    """Return the columns that a SELECT only picks, by the names that it gives them."""
    return {
        item.alias_or_name: item.unalias().name
        for item in select.selects
        if isinstance(item.unalias(), exp.Column)
    }
