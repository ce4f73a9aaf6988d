"""The query page: a form that needs no internet, with examples that work on the live catalog."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

from sqlglot import exp

from graphql import GraphQLSchema, get_named_type
from virtualfs.compiler import sql
from virtualfs.compiler.plan import FeaturePlan, ResolvedView
from virtualfs_graphql.generated import MEANING, EntityField, PlanField, ViewField
from virtualfs_graphql.request import Snapshot
from virtualfs_graphql.scalars import scalar_of, to_json

__all__ = ["IDE_POLICY", "examples", "page_policy", "query_page", "with_fallback"]

_log = logging.getLogger("virtualfs.graphql")
_CATALOG = """{
  project { name revision }
  featureViews(first: 10) {
    totalCount
    nodes { name version description owner features { name dtype } }
  }
}
"""
_LINEAGE = """{
  lineage(ref: %s, direction: UPSTREAM) {
    nodes { kind name detail }
    edges { source target role }
  }
}
"""
_SHOWN = 8
"""Features that an example asks for."""
_GIVEN: dict[str, Any] = {"Boolean": True, "String": "x", "Int": 1, "BigInt": 1, "Float": 1.5}


IDE_POLICY = (
    b"default-src 'none'; script-src 'unsafe-inline' https://unpkg.com; "
    b"style-src 'unsafe-inline' https://unpkg.com; img-src 'self' data:; font-src data: "
    b"https://unpkg.com; connect-src 'self'; worker-src blob:; base-uri 'none'; "
    b"form-action 'none'; frame-ancestors 'none'"
)
"""What GraphiQL's page may load, which has its scripts from a CDN."""


def page_policy(nonce: str) -> str:
    """Return what the query page may load: its own script, and nothing from elsewhere."""
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; "
        "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


def query_page(snapshot: Snapshot, schema: GraphQLSchema, nonce: str) -> str:
    """Return the page as HTML; reads a few rows of the warehouses.

    Parameters
    ----------
    nonce
        What its script is known by (:func:`page_policy`).
    """
    page = files("virtualfs_graphql").joinpath("page.html").read_text(encoding="utf-8")
    # "</script>" inside a string would end the script, whatever the quotes around it.
    given = {
        "project": snapshot.store.config.project,
        "examples": [
            {"title": title, "query": query} for title, query in examples(snapshot, schema)
        ],
    }
    page = page.replace("<script>", f'<script nonce="{nonce}">', 1)
    return page.replace("/*GIVEN*/null", json.dumps(given).replace("<", "\\u003c"))


def examples(snapshot: Snapshot, schema: GraphQLSchema) -> list[tuple[str, str]]:
    """Return titles and queries that work on a catalog, with keys that exist where they can be had.

    Reads one row for each view that an example is about. Where a warehouse is out of reach, the
    examples that need it are left out.
    """
    found: list[tuple[str, str]] = []
    for write in (_of_entity, _of_service):
        try:
            found += write(snapshot, schema)
        except Exception as error:  # noqa: BLE001 - an example is not worth a page that fails
            _log.info("an example is left out of the query page: %s", error)
    found.append(("What the catalog holds", _CATALOG))
    view = next(iter(snapshot.views.values()), None)
    if view is not None and view.features:
        ref = json.dumps(f"{view.name}:{view.features[0].name}")
        found.append(("What a feature is made of", _LINEAGE % ref))
    return found


def _of_entity(snapshot: Snapshot, schema: GraphQLSchema) -> Iterator[tuple[str, str]]:
    """Yield examples of the first entity that has a view of its own."""
    query: Any = schema.query_type
    for root, field in query.fields.items():
        entity = (field.extensions or {}).get(MEANING)
        if not isinstance(entity, EntityField) or entity.is_many:
            continue
        kind: Any = get_named_type(field.type)
        for shown, inner in kind.fields.items():
            meaning = (inner.extensions or {}).get(MEANING)
            if not isinstance(meaning, ViewField) or meaning.arguments:
                continue
            key = _some_key(snapshot, meaning.view)
            if key is None:
                continue
            given = _written({entity.keys[name]: value for name, value in key.items()})
            view_type: Any = get_named_type(inner.type)
            names = [name for name in view_type.fields if name != "_meta"]
            features = "".join(f"      {name}\n" for name in names[:_SHOWN])
            body = f"    {shown} {{\n{features}      _meta {{ status eventTimestamp cacheHit }}\n"
            yield f"One {root}, now", f"{{\n  {root}({given}) {{\n{body}    }}\n  }}\n}}\n"
            many = next(
                (
                    name
                    for name, other in query.fields.items()
                    if (meaning := (other.extensions or {}).get(MEANING))
                    and isinstance(meaning, EntityField)
                    and meaning.is_many
                    and meaning.type_name == entity.type_name
                ),
                None,
            )
            if many is not None:
                short = f"{shown} {{ {' '.join(names[:3])} }}"
                yield (
                    f"Several {root}s in one trip",
                    f"{{\n  {many}(keys: [{{ {given} }}]) {{\n"
                    f"    {' '.join(entity.keys.values())}\n    {short}\n  }}\n}}\n",
                )
                at = _instant(snapshot)
                yield (
                    f"One {root}, as of then",
                    f'{{\n  {root}({given}, asOf: "{at}") {{\n    {short}\n  }}\n}}\n',
                )
            return


def _of_service(snapshot: Snapshot, schema: GraphQLSchema) -> Iterator[tuple[str, str]]:
    """Yield examples of the first service."""
    query: Any = schema.query_type
    for root, field in query.fields.items():
        meaning = (field.extensions or {}).get(MEANING)
        kind: Any = get_named_type(field.type)
        if not isinstance(meaning, PlanField) or kind is None:
            continue
        service = next(
            (name for name, shown in snapshot.names.services.items() if shown == root), None
        )
        if service is None:
            continue
        keys = _keys_of(snapshot, meaning.plan)
        if keys is None:
            continue
        inputs = {
            name: _GIVEN.get(scalar_of(dtype))
            for name, dtype in meaning.plan.request_columns.items()
        }
        arguments = {**meaning.arguments, **meaning.request}
        given = _written({arguments[name]: value for name, value in {**keys, **inputs}.items()})
        names = "".join(f"    {name}\n" for name in kind.fields if name != "_meta")
        yield (
            f"The features of {service}, as the model takes them",
            f"{{\n  {root}({given}) {{\n{names}    _meta {{ version statuses }}\n  }}\n}}\n",
        )
        request = f", request: [{{ {_written(inputs)} }}]" if inputs else ""
        entity = _written({f"{name}": value for name, value in keys.items()})
        if all(name.isidentifier() for name in (*keys, *inputs)):
            yield (
                f"The features of {service}, in columns for many entities",
                f"{{\n  onlineFeatures(\n    service: {json.dumps(service)}\n"
                f"    entities: [{{ {entity} }}]{request}\n  ) {{\n    names\n    values\n"
                "    statuses\n  }\n}\n",
            )
        return


def _keys_of(snapshot: Snapshot, plan: FeaturePlan) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    for part in plan.parts:
        key = _some_key(snapshot, part.view)
        if key is None:
            return None
        for column, value in zip(part.key_columns, key.values(), strict=True):
            found.setdefault(column, value)
    return found


def _instant(snapshot: Snapshot) -> str:
    from datetime import timedelta

    return str(to_json(snapshot.store.now().replace(microsecond=0) - timedelta(days=1)))


def _written(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {_literal(value)}" for name, value in values.items())


def _literal(value: Any) -> str:
    return json.dumps(to_json(value), ensure_ascii=False)


def _some_key(snapshot: Snapshot, view: ResolvedView) -> dict[str, Any] | None:
    """Return the join keys of one of a view's rows; None if it has none."""
    if not view.join_keys:
        return {}
    warehouse = snapshot.store.warehouse(view.warehouse)
    dialect = warehouse.capabilities.dialect
    columns = [exp.column(name, quoted=True) for name in view.join_keys]
    query = exp.select(*columns).from_(sql.subquery(sql.verbatim(view.rows_sql), "rows")).limit(1)
    for column in columns:
        query = query.where(exp.Not(this=exp.Is(this=column.copy(), expression=exp.Null())))
    with warehouse.session() as session:
        found = session.query(sql.text(query, dialect), view.join_keys).to_pylist()
    return dict(found[0]) if found else None


def with_fallback(html: str, page: str) -> str:
    """Return GraphiQL's HTML so that the browser goes to `page` when a script cannot be loaded.

    GraphiQL comes from a CDN; without the internet it would be a blank page.
    """
    leave = f"location.replace({json.dumps(page)})"
    waiting = f"<script>setTimeout(() => window.GraphiQL || {leave}, 8000)</script>"
    html = html.replace("<script\n", f"<script\n      onerror='{leave}'\n")
    return html.replace("<head>", f"<head>\n    {waiting}", 1)
