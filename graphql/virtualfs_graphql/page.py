"""The query page: a form that needs no internet, with an example that works on the live catalog."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from sqlglot import exp

from graphql import GraphQLObjectType, GraphQLSchema
from virtualfs.compiler.plan import ResolvedView
from virtualfs.definitions.api_names import field_name
from virtualfs_graphql.request import Snapshot
from virtualfs_graphql.scalars import scalar_of, to_json

__all__ = ["example_query", "query_page", "with_fallback"]

_CATALOG = """{
  project { name revision }
  featureViews { totalCount nodes { name version description features { name dtype } } }
}
"""


def query_page(snapshot: Snapshot, schema: GraphQLSchema) -> str:
    """Return the page as HTML; reads one row of a warehouse."""
    query: Any = schema.query_type
    example, project = example_query(snapshot, query), snapshot.store.config.project
    page = files("virtualfs_graphql").joinpath("page.html").read_text(encoding="utf-8")
    # "</script>" inside a string would end the script, whatever the quotes around it.
    given = json.dumps({"example": example, "project": project}).replace("<", "\\u003c")
    return page.replace("/*GIVEN*/null", given)


def example_query(snapshot: Snapshot, query: GraphQLObjectType) -> str:
    """Return a query that works: one entity of the catalog with a key that exists.

    Reads one row of a warehouse; where that fails, the catalog is asked about instead.

    Parameters
    ----------
    query
        The schema's query type, which says how the catalog's names are called.
    """
    for view in snapshot.views.values():
        if not view.online or len(view.entities) != 1:
            continue
        (entity,) = view.entities
        root = query.fields.get(field_name(entity))
        shown = getattr(getattr(root, "type", None), "fields", {}).get(field_name(view.name))
        if root is None or shown is None:
            continue
        try:
            key = _some_key(snapshot, view)
        except Exception:  # noqa: BLE001 - an example is not worth a page that fails
            break
        if key is None:
            continue
        arguments = [name for name in root.args if name != "asOf"]
        given = ", ".join(
            f"{name}: {_literal(value, dtype)}"
            for name, value, dtype in zip(arguments, key, view.join_keys.values(), strict=True)
        )
        features = [name for name in shown.type.fields if name != "_meta"][:8]
        return (
            f"{{\n  {field_name(entity)}({given}) {{\n    {field_name(view.name)} {{\n"
            + "".join(f"      {name}\n" for name in features)
            + "      _meta { status eventTimestamp cacheHit }\n    }\n  }\n}\n"
        )
    return _CATALOG


def _literal(value: Any, dtype: str) -> str:
    shown = to_json(value)
    if isinstance(value, float) or scalar_of(dtype) in ("Int", "Boolean"):
        return json.dumps(shown)
    return json.dumps(shown, ensure_ascii=False)


def _some_key(snapshot: Snapshot, view: ResolvedView) -> tuple[Any, ...] | None:
    warehouse = snapshot.store.warehouse(view.warehouse)
    dialect = warehouse.capabilities.dialect
    columns = [exp.column(name, quoted=True) for name in view.join_keys]
    rows: Any = exp.maybe_parse(view.rows_sql, dialect=dialect)
    query = exp.select(*columns).from_(rows.subquery("rows")).limit(1)
    for column in columns:
        query = query.where(exp.Not(this=exp.Is(this=column.copy(), expression=exp.Null())))
    with warehouse.session() as session:
        found = session.query(query.sql(dialect=dialect), view.join_keys).to_pylist()
    return tuple(found[0].values()) if found else None


def with_fallback(html: str, page: str) -> str:
    """Return GraphiQL's HTML so that the browser goes to `page` when a script cannot be loaded.

    GraphiQL comes from a CDN; without the internet it would be a blank page.
    """
    leave = f"location.replace({json.dumps(page)})"
    waiting = f"<script>setTimeout(() => window.GraphiQL || {leave}, 8000)</script>"
    html = html.replace("<script\n", f"<script\n      onerror='{leave}'\n")
    return html.replace("<head>", f"<head>\n    {waiting}", 1)
