"""Column lineage of one SELECT: which columns of which tables each output comes from.

Unlike what sqlglot offers, this also tells the columns that decide which rows there are (WHERE,
JOIN, GROUP BY and the like), without which "what breaks if this column goes?" has no answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, build_scope, traverse_scope

__all__ = [
    "ANY_COLUMN",
    "SelectLineage",
    "select_lineage",
    "table_name",
    "tables_of",
]

ANY_COLUMN = "*"
"""Stands for all columns of a table where they cannot be told apart."""

Column = tuple[str, str]
"""Table, dotted as it is written, and column."""


@dataclass
class SelectLineage:
    """Where the outputs of a SELECT come from, in order, and what decides about its rows.

    Outputs are named as the engine folds them.
    """

    outputs: dict[str, set[Column]] = field(default_factory=dict)
    rows: set[Column] = field(default_factory=set)

    def everything(self) -> set[Column]:
        """Return all columns that take part."""
        return self.rows.union(*self.outputs.values())


def select_lineage(
    select: exp.Expr, dialect: str, columns_of: Callable[[exp.Table], list[str]]
) -> SelectLineage | None:
    """Trace the outputs of a SELECT to the columns of the tables that it reads.

    Parameters
    ----------
    columns_of
        Returns the columns of a table, for stars and for names without their table.

    Returns
    -------
    SelectLineage or None
        None where the columns cannot be told; then every output may come from every table.
    """
    tree = select.copy()
    schema: dict[str, Any] = {}
    written: dict[str, tuple[str, dict[str, str]]] = {}
    try:
        for number, table in enumerate(tables_of(tree)):
            # Tables get names of one part, so that dotted and plain ones go into one schema.
            stand_in = f"table_{number}"
            columns = columns_of(table)
            # Engines that fold case lose how names are written.
            written[stand_in] = table_name(table), {name.lower(): name for name in columns}
            schema[stand_in] = dict.fromkeys(columns, "unknown")
            kept = ("joins", "laterals", "sample", "pivots")
            named = exp.Table(
                this=exp.to_identifier(stand_in),
                alias=exp.TableAlias(
                    this=exp.to_identifier(table.alias or table.name, quoted=True)
                ),
                **{name: table.args.get(name) for name in kept},
            )
            table.replace(named)
        tree = qualify(
            tree, dialect=dialect, schema=schema, validate_qualify_columns=False, identify=False,
            quote_identifiers=False,
        )  # fmt: skip
        scope = build_scope(tree)
        if scope is None:
            return None
        traced = _Tracer(written).trace(scope)
    except (SqlglotError, KeyError, RecursionError):
        return None
    reached = {table for table, _ in traced.everything()}
    # A table that decides about nothing but how many rows there are, or was not understood.
    traced.rows |= {(name, ANY_COLUMN) for name, _ in written.values() if name not in reached}
    return traced


def tables_of(tree: exp.Expr) -> list[exp.Table]:
    """Return the tables that a SELECT reads: not the names of its CTEs where these hold."""
    found: dict[int, exp.Table] = {}
    for scope in traverse_scope(tree):
        for source in scope.sources.values():
            if isinstance(source, exp.Table) and isinstance(source.this, exp.Identifier):
                found[id(source)] = source
    return list(found.values())


def table_name(table: exp.Table) -> str:
    """Return a table's name, dotted as it is written."""
    return ".".join(part.name for part in table.parts)


_ROWS = ("where", "group", "having", "qualify", "order", "distinct", "limit", "offset", "windows")


class _Tracer:
    """Walks scopes inwards; each is traced once."""

    def __init__(self, written: Mapping[str, tuple[str, Mapping[str, str]]]) -> None:
        self._written = written
        self._known: dict[int, SelectLineage] = {}

    def trace(self, scope: Scope) -> SelectLineage:
        # By expression, as the name of a recursion stands for another scope of its first part.
        if id(scope.expression) in self._known:
            return self._known[id(scope.expression)]
        found = self._known[id(scope.expression)] = SelectLineage()
        if scope.union_scopes:
            self._union(scope, found)
            return found
        select = scope.expression
        if not isinstance(select, exp.Select):
            if scope.subquery_scopes:  # LATERAL (SELECT ...)
                inner = self.trace(scope.subquery_scopes[0])
                found.outputs |= inner.outputs
                found.rows |= inner.rows
                return found
            # A table function: its arguments decide all that it gives.
            for column in select.find_all(exp.Column):
                found.rows |= self._column(column, scope)
            return found
        for number, projection in enumerate(select.expressions):
            found_here = self._columns(projection, scope)
            if projection.find(exp.Columns, exp.Star) and not projection.find(exp.Count):
                # Names by a pattern, or a star over what has no schema: it may be any column.
                found.outputs[ANY_COLUMN] = found_here | self._everything(scope)
                continue
            found.outputs[projection.alias_or_name or f"_{number}"] = found_here
        for clause in _ROWS:
            part = select.args.get(clause)
            for item in part if isinstance(part, list) else [part] if part else []:
                found.rows |= self._columns(item, scope)
        for join in select.args.get("joins") or ():
            for part in (join.args.get("on"), *(join.args.get("using") or ())):
                found.rows |= self._columns(part, scope)
        for source in scope.sources.values():
            if isinstance(source, Scope):
                found.rows |= self.trace(source).rows
        return found

    def _union(self, scope: Scope, found: SelectLineage) -> None:
        first, second = scope.union_scopes
        left = self.trace(first)
        # The second may be a turn of a recursion, which reads what there is so far.
        found.outputs |= {name: set(columns) for name, columns in left.outputs.items()}
        found.rows |= left.rows
        right = self.trace(second)
        if scope.expression.args.get("by_name"):
            for name, columns in right.outputs.items():
                found.outputs[name] = found.outputs.get(name, set()) | columns
        else:
            for name, columns in zip(left.outputs, right.outputs.values()):  # noqa: B905
                found.outputs[name] |= columns
        found.rows |= right.rows
        if not isinstance(scope.expression, exp.Union) or scope.expression.args.get("distinct"):
            # What is equal in all columns is merged, so all decide about the rows.
            found.rows |= found.everything()

    def _everything(self, scope: Scope) -> set[Column]:
        """Return any column of every table that a scope reads."""
        found: set[Column] = set()
        for source in scope.sources.values():
            if isinstance(source, exp.Table):
                name, _ = self._written[source.name]
                found.add((name, ANY_COLUMN))
            else:
                found |= self.trace(source).everything()
        return found

    def _columns(self, expression: Any, scope: Scope) -> set[Column]:
        """Return the columns of tables that an expression, subqueries included, comes from."""
        if not isinstance(expression, exp.Expr):
            return set()
        found: set[Column] = set()
        inner = {id(part.expression): part for part in scope.subquery_scopes}
        for column in expression.find_all(exp.Column):
            if column.find_ancestor(exp.Query) in (scope.expression, None):
                found |= self._column(column, scope)
        for query in expression.find_all(exp.Query):
            part = inner.get(id(query))
            if part is not None:
                found |= self.trace(part).everything()
        return found

    def _column(self, column: exp.Column, scope: Scope) -> set[Column]:
        source = self._source(column.table, scope)
        if isinstance(source, exp.Table):
            if source.name not in self._written:
                return set()
            name, columns = self._written[source.name]
            return {(name, columns.get(column.name.lower(), column.name))}
        if isinstance(source, Scope):
            traced = self.trace(source)
            outputs = traced.outputs
            if column.name in outputs or ANY_COLUMN in outputs:
                return outputs.get(column.name, outputs.get(ANY_COLUMN, set()))
            if not outputs:
                return set(traced.rows)
        return self._everything(scope)  # it is not known whose it is

    def _source(self, table: str, scope: Scope | None) -> Any:
        # A correlated subquery names tables of the queries around it.
        while scope is not None:
            if table in scope.sources:
                return scope.sources[table]
            scope = scope.parent
        return None
