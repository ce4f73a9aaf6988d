"""What PostgreSQL's catalog says: tables, keys and types, and what a role may read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from virtualfs.catalog import CatalogColumn, CatalogTable, assembled, share_to_read
from virtualfs.compiler import sql
from virtualfs.dtypes import type_name

if TYPE_CHECKING:
    import ibis.expr.datatypes as dt

__all__ = ["ibis_type", "missing_grants", "read_catalog", "sample_select"]

_OURS = "n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'"
_RELATIONS = f"""
SELECT c.oid, n.nspname, c.relname, c.relkind::text, pg_table_is_visible(c.oid),
       CASE WHEN c.reltuples >= 0 AND c.relkind <> 'v' THEN c.reltuples::int8 END,
       obj_description(c.oid, 'pg_class'),
       has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p') AND NOT c.relispartition AND {_OURS}
ORDER BY n.nspname, c.relname
"""
_ATTRIBUTES = f"""
SELECT a.attrelid, a.attname,
       CASE t.typtype WHEN 'd' THEN format_type(t.typbasetype, t.typtypmod)
                      ELSE format_type(a.atttypid, a.atttypmod) END,
       NOT a.attnotnull, col_description(a.attrelid, a.attnum)
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'v', 'm', 'f', 'p') AND {_OURS}
ORDER BY a.attrelid, a.attnum
"""
_CONSTRAINTS = f"""
SELECT k.conrelid, k.contype::text, k.columns, rn.nspname, r.relname, k.referenced
FROM (
  SELECT conrelid, contype, confrelid, oid,
    (SELECT array_agg(a.attname::text ORDER BY p.place) FROM unnest(conkey) WITH ORDINALITY
     AS p(number, place) JOIN pg_attribute a ON a.attrelid = conrelid AND a.attnum = p.number)
    AS columns,
    (SELECT array_agg(a.attname::text ORDER BY p.place) FROM unnest(confkey) WITH ORDINALITY
     AS p(number, place) JOIN pg_attribute a ON a.attrelid = confrelid AND a.attnum = p.number)
    AS referenced
  FROM pg_constraint WHERE contype IN ('p', 'u', 'f')
) AS k
JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_class r ON r.oid = k.confrelid LEFT JOIN pg_namespace rn ON rn.oid = r.relnamespace
WHERE {_OURS}
ORDER BY k.conrelid, k.oid
"""
_RIGHTS = """
SELECT n.nspname, c.relname, has_schema_privilege(n.oid, 'USAGE'),
       has_table_privilege(c.oid, 'SELECT'), current_user
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = $1 AND CASE WHEN $2::text IS NULL
  THEN n.nspname = ANY (current_schemas(false)) OR n.nspname = 'public' ELSE n.nspname = $2 END
"""


def read_catalog(cursor: Any) -> list[CatalogTable]:
    """Return the tables and views that are not the system's own, readable or not."""
    cursor.execute(_RELATIONS)
    relations = cursor.fetchall()
    cursor.execute(_ATTRIBUTES)
    attributes = cursor.fetchall()
    cursor.execute(_CONSTRAINTS)
    return assembled(
        (
            (
                number,
                CatalogTable(
                    schema,
                    name,
                    (),
                    is_view=kind in ("v", "m"),
                    searched=searched,
                    rows=rows,
                    comment=comment or "",
                    readable=readable,
                ),
            )
            for number, schema, name, kind, searched, rows, comment, readable in relations
        ),
        (
            (
                number,
                CatalogColumn(name, type_name(ibis_type(native)), native, nullable, comment or ""),
            )
            for number, name, native, nullable, comment in attributes
        ),
        cursor.fetchall(),
    )


def sample_select(table: CatalogTable, columns: Sequence[str], rows: int) -> str:
    """Return the SELECT of some rows, of a large table from pages all over it."""
    place = f"{sql.quoted(table.schema, 'postgres')}.{sql.quoted(table.name, 'postgres')}"
    names = ", ".join(_within_reach(table.column(column)) for column in columns)
    share = share_to_read(table, rows)
    some = "" if share is None else f" TABLESAMPLE SYSTEM ({share:.6f}) REPEATABLE (0)"
    return f"SELECT {names} FROM {place}{some} LIMIT {rows}"


def missing_grants(cursor: Any, tables: Sequence[str]) -> list[str]:
    """Return the GRANTs that the cursor's role lacks to read these tables."""
    found = []
    for table in tables:
        parts = [part.name for part in sql.table_reference(table, "postgres").parts]
        cursor.execute(_RIGHTS, [parts[-1], parts[-2] if len(parts) > 1 else None])
        for schema, name, uses, reads, role in cursor.fetchall():
            quoted = [sql.quoted(text, "postgres") for text in (schema, name, role)]
            if not uses:
                found.append(f"GRANT USAGE ON SCHEMA {quoted[0]} TO {quoted[2]};")
            if not reads:
                found.append(f"GRANT SELECT ON {quoted[0]}.{quoted[1]} TO {quoted[2]};")
    return list(dict.fromkeys(found))


# Types that Ibis reads as others, which hold less.
_NARROWED = ("interval", "time with time zone", "timetz", "macaddr", "money")


def ibis_type(native: str) -> dt.DataType:
    """Return a type of PostgreSQL's as Ibis's; unknown where that would hold less."""
    import ibis.expr.datatypes as dt
    from ibis.backends.sql.datatypes import PostgresType

    if native.startswith(_NARROWED):
        return dt.Unknown(native)
    try:
        return PostgresType.from_string(native, nullable=True)
    except Exception:  # noqa: BLE001 - of types that it does not know Ibis raises several kinds
        return dt.Unknown(native)


def _within_reach(column: CatalogColumn) -> str:
    """Return a column as it is sampled: times that Arrow or Python cannot hold as NULL."""
    name = sql.quoted(column.name, "postgres")
    if not column.is_time:
        return name
    return f"CASE WHEN {name} BETWEEN '0001-01-02' AND '9999-12-30' THEN {name} END AS {name}"
