"""From a plan to statements: a spine table, one SELECT per view on it, and how they fit together.

Each view is compiled alone against a narrow spine (row id, instant, keys) and answered in the order
of the row id. The answers are laid beside each other without a join; only where the warehouse must
write the result itself are they joined on the row id. So compiling grows linearly with the number
of views, and no view's columns are carried through another view's join. See docs/adr/0001.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from sqlglot import exp

from virtualfs.cached import cached_property
from virtualfs.capabilities import Capabilities, Statistics
from virtualfs.compiler import instant, seek, sql
from virtualfs.compiler.on_demand import expression_tree
from virtualfs.compiler.plan import FeaturePlan, LateData, Part, ResolvedView
from virtualfs.compiler.rows import ROW, TIME, outputs_of
from virtualfs.compiler.sql import SPINE
from virtualfs.compiler.strategy import Strategy, choose, fragment, winners
from virtualfs.compiler.template import KeyTypes, Template, open_hash, shape_of
from virtualfs.compiler.time_range import EVER, reach_of, rows_in_range
from virtualfs.compiler.user_sql import tree_of_query
from virtualfs.errors import SpineError, UnsupportedByWarehouseError

if TYPE_CHECKING:
    import ibis.expr.datatypes as dt
    import ibis.expr.types as ir

__all__ = [
    "Answer",
    "CompiledPart",
    "Program",
    "bind_rows",
    "compile_candidates",
    "compile_known_keys",
    "compile_lookup",
    "compile_preview",
    "compile_training",
    "is_plain",
    "on_spine",
    "rows_relation",
    "spine_relation",
    "with_head",
]

# Two names for one relation: what Ibis meets twice under one name it writes as one common table
# expression, which engines keep in memory whole.
_ROWS = "__virtualfs_rows"
_TIMES = "__virtualfs_times"
_SOURCE = "__virtualfs_materialized"


@dataclass(frozen=True)
class CompiledPart:
    """The answer of one view: a SELECT of ``__row`` and its output columns."""

    view: str
    strategy: Strategy
    rules: str
    select: str
    ordered: str
    """The same in the order of the spine's rows, without the row id."""
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """One statement of a training set, in the order of the spine's rows without their ids."""

    view: str
    """Labels of the views that it answers."""
    parts: tuple[int, ...]
    """Their numbers."""
    select: str
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Program:
    """The statements of one training set, in the dialect of one warehouse.

    Parameters
    ----------
    spine
        The SELECT of the spine, evaluated once; None when the client sends it.
    head
        What each statement begins with: the spine itself, where there are no temporary tables.
    """

    dialect: str
    spine: str | None
    head: str
    spine_columns: tuple[str, ...]
    parts: tuple[CompiledPart, ...]
    columns: tuple[str, ...]
    computed: tuple[tuple[str, exp.Expr], ...] = ()
    """On-demand features that are computed in the query: output columns and expressions."""
    read: tuple[str, ...] = ()
    """Columns of the spine that they read."""
    together: tuple[int, ...] = ()
    """Numbers of the parts that they read."""
    sent: tuple[str, ...] = ()
    """Columns of a client's spine that the warehouse needs."""

    @cached_property
    def answers(self) -> tuple[Answer, ...]:
        """The statements that give the features, each in the order of the spine's rows."""
        apart = [
            Answer(part.view, (number,), part.ordered, part.outputs)
            for number, part in enumerate(self.parts)
            if number not in self.together
        ]
        if not self.computed:
            return tuple(apart)
        parts = [self.parts[number] for number in self.together]
        held = [name for part in parts for name in part.outputs]
        outputs = [*held, *(name for name, _ in self.computed)]
        select = self._joined(parts, self.read, outputs)
        views = ", ".join([part.view for part in parts]) or "on demand"
        return (*apart, Answer(views, self.together, select, tuple(outputs)))

    def statement(self, select: str, spine: str) -> str:
        """Return a SELECT ready to run, with the spine's table by its name of this run."""
        if self.head:
            return with_head(self.head, select)
        return on_spine(select, spine, self.dialect)

    @property
    def is_one_statement(self) -> bool:
        """Whether the spine is a query that only one statement may hold, to be evaluated once."""
        return bool(self.head) and self.spine is not None

    def ordered_spine(self) -> str:
        """Return the SELECT of the spine's own columns in order."""
        columns = [sql.column(name) for name in self.spine_columns]
        select = exp.select(*columns).from_(_spine_table())
        return sql.text(select.order_by(_by_row()), self.dialect)

    def count(self) -> str:
        """Return the SELECT of how many rows the spine has."""
        return sql.text(exp.select(exp.Count(this=exp.Star())).from_(_spine_table()), self.dialect)

    def time_range(self) -> str:
        """Return the SELECT of the spine's first and last instant."""
        time = sql.column(TIME)
        ends = [
            exp.alias_(end, name, quoted=True)
            for end, name in ((exp.Min(this=time), "first"), (exp.Max(this=time.copy()), "last"))
        ]
        return sql.text(exp.select(*ends).from_(_spine_table()), self.dialect)

    def slice(self, start: int, stop: int) -> str:
        """Return the SELECT of the spine's rows from `start` up to but not `stop`."""
        row = sql.column(ROW)
        within = exp.and_(row >= start, row < stop)
        return sql.text(exp.select("*").from_(_spine_table()).where(within), self.dialect)

    def joined(self, *, numbered: bool = False) -> str:
        """Return the whole result as one SELECT: spine and parts joined on the row id.

        Parameters
        ----------
        numbered
            Whether the row id is the first column.
        """
        outputs = [*([ROW] if numbered else []), *self.spine_columns, *self.columns]
        return self._joined(self.parts, self.spine_columns, outputs)

    def _joined(
        self, parts: Sequence[CompiledPart], spine_columns: Sequence[str], outputs: Sequence[str]
    ) -> str:
        """Return a SELECT of spine and parts joined on the row id, and what is computed of them."""
        row = sql.identifier(ROW)
        spine = sql.reserved("rows_asked")
        columns = {
            name: exp.column(sql.identifier(name), spine, quoted=True)
            for name in (*spine_columns, ROW)
        }
        query = exp.select().from_(_spine_table().as_(spine, quoted=True))
        for number, part in enumerate(parts):
            answer = sql.subquery(sql.verbatim(part.select), f"answer_{number}")
            on = exp.EQ(
                this=exp.column(row.copy(), spine, quoted=True),
                expression=exp.column(row.copy(), answer.alias, quoted=True),
            )
            query = query.join(answer, on=on, join_type="left")
            for name in part.outputs:
                columns[name] = exp.column(sql.identifier(name), answer.alias, quoted=True)
        if not self.computed:
            query = query.select(*(columns[name] for name in outputs))
            return sql.text(query.order_by(_by_row(spine)), self.dialect)
        inner = query.select(*columns.values())
        trees = {
            name: exp.alias_(tree.copy(), sql.identifier(name), quoted=True)
            for name, tree in self.computed
        }
        outer = exp.Select(expressions=[trees.get(name, sql.column(name)) for name in outputs])
        whole = outer.from_(sql.subquery(inner, "inputs")).order_by(_by_row())
        return sql.text(whole, self.dialect)

    def text(self) -> str:
        """Return all statements as they are run, numbered and commented."""
        heads = [f"-- {part.view} by {part.strategy}: {part.rules}" for part in self.parts]
        if self.computed:
            heads.append(f"-- on demand, of these: {', '.join(name for name, _ in self.computed)}")
        steps = []
        if self.is_one_statement:
            return "\n".join([*heads, f"{with_head(self.head, self.joined())};\n"])
        if self.head:
            steps.append("-- the spine is bound to each statement, column by column")
        elif self.spine is None:
            names = ", ".join((ROW, TIME, *self.sent))
            steps.append(
                f"-- the spine is sent as Arrow into the temporary table {SPINE} ({names})"
            )
        else:
            steps.append(
                f"-- the spine, evaluated once into the temporary table {SPINE}\n{self.spine};"
            )
            steps.append(f"-- its own columns\n{self.ordered_spine()};")
        for answer in self.answers:
            about = [heads[number] for number in answer.parts]
            about += heads[-1:] if answer.parts == self.together and self.computed else []
            steps.append("\n".join([*about, f"{with_head(self.head, answer.select)};"]))
        return "\n\n".join(f"-- {number}.\n{step}" for number, step in enumerate(steps, 1)) + "\n"


def compile_training(
    plan: FeaturePlan,
    spine_schema: Mapping[str, str],
    capabilities: Capabilities,
    statistics: Mapping[str, Statistics],
    *,
    spine_sql: str | None,
    spine_columns: Sequence[str],
) -> Program:
    """Compile a plan for one warehouse. Pure: the same input gives the same text.

    Parameters
    ----------
    spine_schema
        Types of the spine's key columns and request inputs as the warehouse holds them.
    statistics
        By fingerprint of a view.
    spine_sql
        The SELECT that makes the spine table; None when the client sends it.
    spine_columns
        The spine's own columns in the spine table.

    Raises
    ------
    SpineError
        A column's name is longer than the engine's names may be.
    """
    limit = capabilities.max_identifier
    for name in (*spine_columns, *plan.columns):
        if limit is not None and len(name.encode()) > limit:
            raise SpineError(
                f"the column {name!r} is longer than {limit} bytes, after which "
                f"{capabilities.engine} cuts names off; use a shorter name, for a view's prefix "
                "with_name(...)"
            )
    if capabilities.folds_case:
        own = {name.casefold(): name for name in spine_columns}
        for name in plan.columns:
            other = own.setdefault(name.casefold(), name)
            if other != name:
                raise SpineError(
                    f"the columns {other!r} and {name!r} differ only in case, which "
                    f"{capabilities.engine} does not tell apart; rename one, a view's by "
                    "with_name(...) and full_feature_names=True"
                )
    head = ""
    if not capabilities.temporary_tables:
        keys = {name: spine_schema[name] for name in (*plan.key_columns, *plan.request_columns)}
        head = _inline(spine_sql or _bound_spine(keys, capabilities), capabilities)
    types = {**spine_schema, **plan.all_dtypes()}
    computed, read = [], set()
    for item in plan.on_demand:
        columns = {column: types[column] for _, column in item.inputs}
        for output, tree in item.trees:
            read |= {*columns}
            computed.append((output, expression_tree(tree, item.inputs, columns, capabilities)))
    return Program(
        dialect=capabilities.dialect,
        spine=spine_sql,
        head=head,
        spine_columns=tuple(spine_columns),
        parts=tuple(
            _compile_part(
                part,
                tuple((column, spine_schema[column]) for column in dict.fromkeys(part.key_columns)),
                capabilities,
                statistics[part.view.fingerprint],
            )
            for part in plan.parts
        ),
        columns=plan.columns,
        computed=tuple(computed),
        read=tuple(name for name in plan.request if name in read),
        sent=tuple(spine_schema),
        together=tuple(
            number
            for number, part in enumerate(plan.parts)
            if read.intersection(output for _, output in part.outputs)
        ),
    )


@lru_cache(maxsize=4096)
def _compile_part(
    part: Part,
    key_types: KeyTypes,
    capabilities: Capabilities,
    statistics: Statistics,
) -> CompiledPart:
    dialect = capabilities.dialect
    strategy = choose(part, rows_relation(part.view), capabilities, statistics)
    if part.view.is_aggregate:
        spine, source = spine_relation(dict(key_types), capabilities), rows_relation(part.view)
        times = rows_relation(part.view, _TIMES)
        if strategy.kind == "seek":
            tree: exp.Expr = seek.compiled_windows(spine, source, part, capabilities)
        else:
            answer = fragment(spine, source, part, capabilities, strategy, times=times)
            tree = sql.render(answer, capabilities)
        text = sql.text(tree, dialect)
    else:
        template = _compile_shape(
            *shape_of(part, key_types),
            replace(capabilities, row_hash=open_hash),
            replace(strategy, why=""),
        )
        text = template.filled(part, key_types, capabilities)
    rows = rows_in_range(part.view, reach_of(part), capabilities)
    select = bind_rows(text, part.view, capabilities, rows)
    outputs = tuple(output for _, output in part.outputs)
    columns = ",\n  ".join(sql.quoted(name, dialect) for name in outputs)
    named, row = (sql.quoted(name, dialect) for name in (sql.reserved("answer"), ROW))
    return CompiledPart(
        view=part.view.label,
        strategy=strategy,
        rules=part.rules(),
        select=select,
        # ASC is written out: a connection may have another default order.
        ordered=f"SELECT\n  {columns}\nFROM (\n{select}\n) AS {named}\nORDER BY\n  {row} ASC",
        outputs=outputs,
    )


@lru_cache(maxsize=1024)
def _compile_shape(
    part: Part, key_types: KeyTypes, capabilities: Capabilities, strategy: Strategy
) -> Template:
    spine = spine_relation(dict(key_types), capabilities)
    source = rows_relation(part.view)
    if strategy.kind == "seek":
        tree: exp.Expr = seek.compiled(spine, source, part, capabilities, unique=strategy.unique)
    else:
        found = winners(
            spine, source, part, capabilities, strategy, times=rows_relation(part.view, _TIMES)
        )
        tree = sql.render(outputs_of(found, part, capabilities), capabilities)
    return Template.of(tree, capabilities.dialect)


@lru_cache(maxsize=1024)
def compile_lookup(
    view: ResolvedView,
    capabilities: Capabilities,
    statistics: Statistics,
    late_data: LateData = "include",
) -> str:
    """Return the SELECT that reads the winners of the keys in the spine table (see `lookup`)."""
    part = instant.whole_view(view, late_data)
    if view.is_aggregate:
        keys = spine_relation(view.join_keys, capabilities)
        found = instant.windows(keys, rows_relation(view), part, capabilities)
        text = sql.text(sql.render(found, capabilities), capabilities.dialect)
    else:
        seeks = statistics.indexed and seek.can_seek(rows_relation(view), view, capabilities)
        key_types = tuple(view.join_keys.items())
        template = _lookup_shape(
            *shape_of(part, key_types), replace(capabilities, row_hash=open_hash), seeks=seeks
        )
        text = template.filled(part, key_types, capabilities)
    # However old the newest row is, it tells a key that is out of date from one that never was.
    return _on_keys(text, view, capabilities, rows_in_range(view, EVER, capabilities))


@lru_cache(maxsize=1024)
def _lookup_shape(
    part: Part, key_types: KeyTypes, capabilities: Capabilities, *, seeks: bool
) -> Template:
    keys, rows = spine_relation(dict(key_types), capabilities), rows_relation(part.view)
    if seeks:
        tree: exp.Expr = seek.compiled(keys, rows, part, capabilities, found_only=True)
    else:
        tree = sql.render(instant.lookup(keys, rows, part, capabilities), capabilities)
    return Template.of(tree, capabilities.dialect)


@lru_cache(maxsize=128)
def compile_candidates(
    view: ResolvedView, capabilities: Capabilities, late_data: LateData, count: int
) -> str:
    """Return the SELECT of the rows that could answer the keys in the spine table."""
    keys = spine_relation(view.join_keys, capabilities)
    rows = rows_relation(view)
    found = instant.candidates(keys, rows, view, capabilities, late_data, count)
    text = sql.text(sql.render(found, capabilities), capabilities.dialect)
    return _on_keys(text, view, capabilities)


def compile_preview(view: ResolvedView, capabilities: Capabilities, rows: int) -> str:
    """Return the SELECT of some of a view's rows, whichever the engine finds first."""
    source = rows_relation(view)
    shown = source.select(**instant.within_reach(source, view, capabilities)).limit(rows)
    text = sql.text(sql.render(shown, capabilities), capabilities.dialect)
    return bind_rows(text, view, capabilities)


def _on_keys(
    text: str, view: ResolvedView, capabilities: Capabilities, rows_sql: str | None = None
) -> str:
    """Return a statement on keys that the client sends, its view's rows bound."""
    select = bind_rows(text, view, capabilities, rows_sql)
    if capabilities.temporary_tables:
        return select
    head = _inline(_bound_spine(view.join_keys, capabilities), capabilities)
    return with_head(head, select)


def compile_known_keys(
    parts: Sequence[Part], at: datetime, timestamp: str, capabilities: Capabilities
) -> tuple[str, dict[str, dt.DataType]]:
    """Return a spine and its columns: the keys that views on one set of columns know at an instant.

    Parameters
    ----------
    at
        The instant, naive and in UTC.
    """
    rows = [rows_relation(part.view, f"{_ROWS}_{number}") for number, part in enumerate(parts)]
    found = instant.known_keys(parts, rows, at, timestamp, capabilities)
    text = sql.text(sql.render(found, capabilities), capabilities.dialect)
    for number, part in enumerate(parts):
        place = sql.quoted(f"{_ROWS}_{number}", capabilities.dialect)
        text = text.replace(place, f"(\n{part.view.rows_sql}\n)")
    return text, dict(found.schema())


def _bound_spine(key_types: Mapping[str, str], capabilities: Capabilities) -> str:
    if capabilities.inline_spine is None:
        raise UnsupportedByWarehouseError(
            f"{capabilities.engine}: without temporary tables a spine from the client cannot get "
            "in; grant them, or pass the spine as SQL"
        )
    schema = spine_relation(key_types, capabilities).schema()
    return capabilities.inline_spine(dict(schema.items()))


def on_spine(select: str, spine: str, dialect: str) -> str:
    """Return a statement with the spine's table by its name of this run.

    >>> on_spine('SELECT a FROM "__virtualfs_spine"', "spine_1", "duckdb")
    'SELECT a FROM "spine_1"'
    """
    return select.replace(sql.quoted(SPINE, dialect), sql.quoted(spine, dialect))


def with_head(head: str, select: str) -> str:
    """Put common table expressions before a SELECT, which may have some of its own.

    >>> print(with_head("WITH a AS (SELECT 1) ", "WITH b AS (SELECT 2) SELECT 3"))
    WITH a AS (SELECT 1),
    b AS (SELECT 2) SELECT 3
    """
    if head and select.startswith("WITH "):
        return f"{head.rstrip()},\n{select.removeprefix('WITH ')}"
    return head + select


def spine_relation(key_types: Mapping[str, str], capabilities: Capabilities) -> ir.Table:
    """Return the spine as an unbound Ibis table."""
    import ibis

    schema = {ROW: "int64", TIME: capabilities.instant_type, **key_types}
    return ibis.table(schema, name=SPINE)


def rows_relation(view: ResolvedView, name: str = _ROWS) -> ir.Table:
    """Return a view's rows as an unbound Ibis table, to be bound by :func:`bind_rows`."""
    import ibis

    return ibis.table(view.columns, name=name)


def bind_rows(
    text: str, view: ResolvedView, capabilities: Capabilities, rows_sql: str | None = None
) -> str:
    """Put the view's rows query, or that of some of its rows, in the place of the rows relation.

    A query that does more than pick columns of a table is run once where the engine can be told.
    """
    dialect = capabilities.dialect
    rows_sql = rows_sql or view.rows_sql
    places = [sql.quoted(name, dialect) for name in (_ROWS, _TIMES)]
    pattern = "|".join(re.escape(place) for place in places)
    count = len(re.findall(pattern, text))
    heavy = count > 1 and not is_plain(rows_sql, dialect)
    if not (heavy and capabilities.materialized):
        return re.sub(pattern, lambda _: f"(\n{rows_sql}\n)", text)
    source = sql.quoted(_SOURCE, dialect)
    head = f"WITH {source} AS MATERIALIZED (\n{rows_sql}\n)\n"
    return with_head(head, re.sub(pattern, lambda _: source, text))


@lru_cache(maxsize=4096)
def is_plain(query: str, dialect: str) -> bool:
    """Tell whether a query only picks columns of one table, so that reading it twice costs little.

    Of a query that cannot be parsed nothing is known, so it is not.

    >>> is_plain("SELECT a + 1 AS b FROM (SELECT a FROM t WHERE a > 0) AS s", "duckdb")
    True
    >>> is_plain("SELECT a, count(*) FROM t GROUP BY a", "duckdb")
    False
    """
    heavy = (exp.Join, exp.Group, exp.SetOperation, exp.Distinct, exp.Window, exp.AggFunc,
             exp.Limit, exp.Order, exp.With)  # fmt: skip
    tree = tree_of_query(query, dialect)
    return tree is not None and tree.find(*heavy) is None


def _inline(select: str, capabilities: Capabilities) -> str:
    """Return the head of a statement that holds the spine itself."""
    name = sql.quoted(SPINE, capabilities.dialect)
    how = "MATERIALIZED " if capabilities.materialized else ""
    return f"WITH {name} AS {how}(\n{select}\n)\n"


def _spine_table() -> exp.Table:
    return exp.Table(this=sql.identifier(SPINE))


def _by_row(table: str | None = None) -> exp.Ordered:
    # ASC is written out: a connection may have another default order.
    column = exp.column(sql.identifier(ROW), table, quoted=True)
    return exp.Ordered(this=column, desc=False)
