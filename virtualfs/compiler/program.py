"""From a plan to statements: a spine table, one SELECT per view on it, and how they fit together.

Each view is compiled alone against a narrow spine (row id, instant, keys) and answered in the order
of the row id. The answers are laid beside each other without a join; only where the warehouse must
write the result itself are they joined on the row id. So compiling grows linearly with the number
of views, and no view's columns are carried through another view's join. See docs/adr/0001.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import sqlglot
from sqlglot import exp

from virtualfs.capabilities import Capabilities
from virtualfs.compiler import latest, sql
from virtualfs.compiler.plan import FeaturePlan, Part, ResolvedView
from virtualfs.errors import UnsupportedByWarehouseError

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["SPINE", "CompiledPart", "Program", "compile_lookup", "compile_training", "fragment"]

SPINE = "__virtualfs_spine"
"""The spine's temporary table; one session holds one."""
_ROWS = "__virtualfs_rows"


@dataclass(frozen=True)
class CompiledPart:
    """The answer of one view: a SELECT of ``__row`` and its output columns."""

    view: str
    strategy: str
    rules: str
    select: str
    ordered: str
    """The same in the order of the spine's rows, without the row id."""
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Program:
    """The statements of one training set, in the dialect of one warehouse.

    ``spine`` fills the temporary table; None when the spine is sent by the client.
    """

    dialect: str
    spine: str | None
    spine_columns: tuple[str, ...]
    parts: tuple[CompiledPart, ...]
    columns: tuple[str, ...]

    def ordered_spine(self) -> str:
        """Return the SELECT of the spine's own columns in order."""
        columns = [exp.column(sql.identifier(name)) for name in self.spine_columns]
        select = exp.select(*columns).from_(exp.to_table(SPINE, dialect=self.dialect))
        return sql.text(select.order_by(_by_row()), self.dialect)

    def joined(self) -> str:
        """Return the whole result as one SELECT: spine and parts joined on the row id."""
        row = sql.identifier(latest.ROW)
        spine = exp.to_table(SPINE).as_("spine", quoted=True)
        columns = {
            name: exp.column(sql.identifier(name), "spine", quoted=True)
            for name in self.spine_columns
        }
        query = exp.select().from_(spine)
        for number, part in enumerate(self.parts):
            alias = f"answer_{number}"
            tree = sqlglot.parse_one(part.select, dialect=self.dialect)
            on = exp.EQ(
                this=exp.column(row.copy(), "spine", quoted=True),
                expression=exp.column(row.copy(), alias, quoted=True),
            )
            query = query.join(_subquery(tree, alias), on=on, join_type="left")
            for name in part.outputs:
                columns[name] = exp.column(sql.identifier(name), alias, quoted=True)
        order = [*self.spine_columns, *self.columns]
        query = query.select(*(columns[name] for name in order)).order_by(_by_row("spine"))
        return sql.text(query, self.dialect)

    def text(self, *, streamed: bool = False) -> str:
        """Return all statements as they are run, numbered and commented.

        Parameters
        ----------
        streamed
            Whether the parts run as one statement, as for a stream, a file or a table.
        """
        steps = []
        if self.spine is None:
            names = ", ".join((latest.ROW, latest.TIME, *self.spine_columns))
            steps.append(
                f"-- the spine is sent as Arrow into the temporary table {SPINE} ({names})"
            )
        else:
            steps.append(f"-- the spine, evaluated once, with a row id\n{self.spine};")
        heads = [f"-- {part.view} by {part.strategy}: {part.rules}" for part in self.parts]
        if streamed:
            steps.append("\n".join([*heads, f"{self.joined()};"]))
        else:
            steps += [
                f"{head}\n{part.ordered};" for head, part in zip(heads, self.parts, strict=True)
            ]
        return "\n\n".join(f"-- {number}.\n{step}" for number, step in enumerate(steps, 1)) + "\n"


def compile_training(
    plan: FeaturePlan,
    spine_schema: Mapping[str, str],
    capabilities: Capabilities,
    spine_sql: str | None,
    spine_columns: Sequence[str],
) -> Program:
    """Compile a plan for one warehouse. Pure: the same input gives the same text.

    Parameters
    ----------
    spine_schema
        Types of the spine's key columns as the warehouse holds them.
    spine_sql
        The statement that makes the spine table; None when the client sends it.
    spine_columns
        The spine's own columns in the spine table.
    """
    return Program(
        dialect=capabilities.dialect,
        spine=spine_sql,
        spine_columns=tuple(spine_columns),
        parts=tuple(
            _compile_part(
                part,
                tuple((column, spine_schema[column]) for column in dict.fromkeys(part.key_columns)),
                capabilities,
            )
            for part in plan.parts
        ),
        columns=plan.columns,
    )


def strategy_of(view: ResolvedView, capabilities: Capabilities) -> str:
    """Name the strategy that answers a view on an engine."""
    if view.event_timestamp is None:
        return "latest row per key"
    if capabilities.asof_join:
        return "native ASOF join"
    raise UnsupportedByWarehouseError(
        f"{capabilities.engine} has no ASOF join, which the point-in-time join of feature view "
        f"{view.name!r} needs; use a DuckDB warehouse for it"
    )


def fragment(spine: ir.Table, rows: ir.Table, part: Part, capabilities: Capabilities) -> ir.Table:
    """Return one view's answer over any spine and rows relations, as an Ibis expression."""
    strategy_of(part.view, capabilities)
    if part.view.event_timestamp is None:
        return latest.latest_per_key(spine, rows, part, capabilities)
    return latest.asof_join(spine, rows, part, capabilities)


@lru_cache(maxsize=1024)
def _compile_part(
    part: Part, key_types: tuple[tuple[str, str], ...], capabilities: Capabilities
) -> CompiledPart:
    import ibis

    spine = ibis.table(
        {latest.ROW: "int64", latest.TIME: "timestamp(6)", **dict(key_types)}, name=SPINE
    )
    answer = fragment(spine, _rows(part.view), part, capabilities)
    outputs = tuple(output for _, output in part.outputs)
    tree = _bind(answer, part.view, capabilities)
    columns = [exp.column(sql.identifier(name)) for name in outputs]
    ordered = exp.select(*columns).from_(_subquery(tree.copy(), "answer"))
    return CompiledPart(
        view=part.view.label,
        strategy=strategy_of(part.view, capabilities),
        rules=part.view.rules(),
        select=sql.text(tree, capabilities.dialect),
        ordered=sql.text(ordered.order_by(_by_row()), capabilities.dialect),
        outputs=outputs,
    )


@lru_cache(maxsize=1024)
def compile_lookup(view: ResolvedView, capabilities: Capabilities) -> str:
    """Return the SELECT that reads the winners of the keys in the spine table (see `lookup`)."""
    import ibis

    keys = ibis.table(
        {latest.ROW: "int64", latest.TIME: "timestamp(6)", **view.join_keys}, name=SPINE
    )
    tree = _bind(latest.lookup(keys, _rows(view), view, capabilities), view, capabilities)
    return sql.text(tree, capabilities.dialect)


def _rows(view: ResolvedView) -> ir.Table:
    import ibis

    return ibis.table(view.columns, name=_ROWS)


def _bind(expression: ir.Table, view: ResolvedView, capabilities: Capabilities) -> exp.Expr:
    """Put the view's rows query in the place of the rows relation."""
    dialect = capabilities.dialect

    def bound(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Table) and node.name == _ROWS:
            return _subquery(sqlglot.parse_one(view.rows_sql, dialect=dialect), node.alias)
        return node

    return sql.render(expression, dialect).transform(bound)


def _by_row(table: str | None = None) -> exp.Ordered:
    # ASC is written out: a connection may have another default order.
    column = exp.column(sql.identifier(latest.ROW), table, quoted=True)
    return exp.Ordered(this=column, desc=False)


def _subquery(tree: exp.Expr, alias: str) -> exp.Subquery:
    return exp.Subquery(this=tree, alias=exp.TableAlias(this=sql.identifier(alias)))
