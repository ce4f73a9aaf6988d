"""The one door between Ibis, sqlglot and text: how statements are rendered.

Ibis's compilers are used without their backends, so that no driver is needed to compile. Every name
that a statement makes is reserved, so that none can hide a table or column that the user's
text inside of it names.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlglot
from sqlglot import exp
from sqlglot.generator import Generator

from virtualfs.capabilities import Capabilities
from virtualfs.errors import DefinitionError

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = [
    "SPINE",
    "brief",
    "builtin",
    "cast",
    "column",
    "expression_errors",
    "identifier",
    "is_there",
    "quoted",
    "rename_parts",
    "render",
    "render_query",
    "render_rowwise",
    "reserved",
    "rowwise_tree",
    "select_all",
    "subquery",
    "table_reference",
    "text",
    "type_text",
    "verbatim",
]

SPINE = "__virtualfs_spine"
"""Stands in compiled SQL for the spine's table, whose name is chosen for each run."""
_FILE_NAME = re.compile(
    r"(://|/|\\|\*|\.(parquet|csv|tsv|json|jsonl|ndjson|xlsx|db|duckdb)(\.\w+)?$)"
)
_GENERATED = re.compile(r"t\d+")
"""Names that Ibis gives to what it selects from."""


@cache
def _ibis_compiler(dialect: str) -> Any:
    import ibis.backends.sql.compilers as compilers

    return getattr(compilers, dialect).compiler


def render(expression: ir.Table, capabilities: Capabilities) -> exp.Select:
    """Return the sqlglot tree of an Ibis expression over unbound tables, its names reserved."""
    compiler = _ibis_compiler(capabilities.compiler or capabilities.dialect)
    tree: exp.Select = compiler.to_sqlglot(expression)
    for node in _nodes(tree):
        for part in _NAMED_PARTS.get(type(node), ()):
            name = node.args.get(part)
            if isinstance(name, exp.Identifier) and _GENERATED.fullmatch(name.this):
                node.set(part, identifier(reserved(name.this)))
    return tree


_NAMED_PARTS: dict[type[exp.Expr], tuple[str, ...]] = {
    exp.CTE: ("alias",),
    exp.Column: ("table",),
    exp.Subquery: ("alias",),
    exp.Table: ("this", "alias"),
    exp.TableAlias: ("this",),
}
"""Where the names of relations stand in nodes of a tree."""


def _nodes(tree: exp.Expr) -> Iterator[exp.Expr]:
    """Yield every node of a tree of Ibis once.

    Ibis puts lists into lists, which sqlglot's own walk passes over, and nodes into several places.
    """
    waiting: list[Any] = [tree]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, list | tuple):
            waiting.extend(node)
        if isinstance(node, exp.Expr) and id(node) not in seen:
            seen.add(id(node))
            yield node
            waiting.extend(node.args.values())


def rename_parts(tree: exp.Select, new_name: Callable[[str, set[str]], str]) -> None:
    """Rename the common table expressions of a tree of Ibis that reads tables of users.

    Parameters
    ----------
    new_name
        Takes a name and the names of all tables.
    """
    parts = [cte for cte in tree.ctes if _GENERATED.fullmatch(cte.alias)]
    names = {cte.alias for cte in parts}
    tables = [node for node in _nodes(tree) if isinstance(node, exp.Table)]
    read = [table for table in tables if table.name in names and not table.db]
    taken = {table.name for table in tables} - {table.name for table in read}
    new = {name: identifier(new_name(name, taken)) for name in names}
    for table in read:
        table.set("this", new[table.name])
    for cte in parts:
        alias = cte.args["alias"]
        if isinstance(alias, exp.TableAlias):
            alias.set("this", new[cte.alias])
        else:
            cte.set("alias", new[cte.alias])


def render_query(expression: ir.Table, capabilities: Capabilities) -> str:
    """Return the text of an Ibis expression over tables of a user, to be kept as a query.

    Ibis calls the parts of a statement ``t0``, ``t1`` and so on, which may be tables too.
    """
    compiler = _ibis_compiler(capabilities.compiler or capabilities.dialect)
    tree: exp.Select = compiler.to_sqlglot(expression)

    def not_taken(name: str, taken: set[str]) -> str:
        while name in taken:
            name += "_"
        return name

    rename_parts(tree, not_taken)
    return text(tree, capabilities.dialect)


def reserved(name: str) -> str:
    """Return a name that the compiler makes, so that no user can have it too.

    >>> reserved("t0")
    '__virtualfs_t0'
    """
    return f"__virtualfs_{name}"


def verbatim(text: str) -> exp.Expr:
    """Return text as a node that is printed as it is, whatever the statement around it.

    Line breaks are kept from indentation, which would change strings that hold some.
    """
    return exp.Var(this=text.replace("\n", Generator.SENTINEL_LINE_BREAK))


@cache
def builtin(name: str, arguments: tuple[str, ...], result: str) -> Any:
    """Return a function of the engine that Ibis does not know, by argument and result types."""
    import ibis

    def function() -> None: ...

    parameters = [
        inspect.Parameter(f"argument_{number}", inspect.Parameter.POSITIONAL_ONLY)
        for number in range(len(arguments))
    ]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    types = tuple(ibis.dtype(argument) for argument in arguments)
    return ibis.udf.scalar.builtin(function, name=name, signature=(types, ibis.dtype(result)))


def type_text(value: ir.Value) -> str:
    """Return a value's data type as text that reads back."""
    return str(value.type()).lstrip("!")


def select_all(place: exp.Expr, capabilities: Capabilities) -> str:
    """Return the SELECT of everything that a table or subquery has."""
    dialect = capabilities.dialect
    if isinstance(place, exp.Table):  # of which there may be thousands
        name = ".".join(quoted(part.name, dialect) for part in place.parts)
        return f"SELECT * FROM {name}"  # noqa: S608 - every part is quoted
    tree = exp.Select(expressions=[exp.Star()]).from_(place, copy=False)
    return text(tree, dialect, pretty=False)


def subquery(tree: exp.Expr, alias: str) -> exp.Subquery:
    """Return a query as something to select from, under a name that is made reserved."""
    return exp.Subquery(this=tree, alias=exp.TableAlias(this=identifier(reserved(alias))))


def text(tree: exp.Expr, dialect: str, *, pretty: bool = True) -> str:
    """Return a tree as SQL text of one dialect."""
    found = tree.sql(dialect=dialect, pretty=pretty, unsupported_level=sqlglot.ErrorLevel.RAISE)
    return found if pretty else found.replace(Generator.SENTINEL_LINE_BREAK, "\n")


def identifier(name: str) -> exp.Identifier:
    """Return a name as a quoted identifier, so that any name is taken literally."""
    return exp.to_identifier(name, quoted=True)


def column(name: str) -> exp.Column:
    """Return a column by its name, without a table."""
    return exp.Column(this=identifier(name))


@cache
def quoted(name: str, dialect: str) -> str:
    """Return a name as it is quoted in a dialect's text.

    >>> quoted("order", "duckdb")
    '"order"'
    """
    return text(identifier(name), dialect)


def table_reference(name: str, dialect: str) -> exp.Table:
    """Return a table, perhaps dotted, as a reference with every part quoted.

    >>> text(table_reference("sales.orders", "duckdb"), "duckdb")
    '"sales"."orders"'
    """
    try:
        quoted = exp.to_table(name, dialect=dialect).parts if '"' in name else ()
    except sqlglot.errors.SqlglotError:
        raise DefinitionError(f"{name!r} is not a table: its quotes do not match") from None
    parts = [part.name for part in quoted] or name.split(".")
    if _FILE_NAME.search(".".join(parts)):
        raise DefinitionError(f"table {name!r} names a file; use path= for files")
    if not 1 <= len(parts) <= 3 or not all(parts):
        raise DefinitionError(
            f"{name!r} is not a table; write name, schema.name or catalog.schema.name"
        )
    padded = [None] * (3 - len(parts)) + [identifier(part) for part in parts]
    return exp.Table(this=padded[2], db=padded[1], catalog=padded[0])


def render_rowwise(value: ir.Value, table: ir.Table, capabilities: Capabilities, where: str) -> str:
    """Return the SQL of an Ibis value over one table, with its columns unqualified.

    Raises
    ------
    DefinitionError
        The value is not row-wise.
    """
    tree = rowwise_tree(value, table, capabilities, where)
    return text(tree, capabilities.dialect, pretty=False)


def rowwise_tree(
    value: ir.Value, table: ir.Table, capabilities: Capabilities, where: str
) -> exp.Expr:
    """Return the sqlglot tree of an Ibis value over one table, with its columns unqualified.

    Raises
    ------
    DefinitionError
        The value is not row-wise.
    """
    select = render(table.select(value.name("value")), capabilities)
    if not isinstance(select.args["from_"].this, exp.Table) or len(select.expressions) != 1:
        raise DefinitionError(f"{where}: the expression is not row-wise")
    tree = select.expressions[0].unalias()

    def unqualified(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Column):
            return column(node.name)
        return node

    found: exp.Expr = tree.transform(unqualified)  # parts of it are shared, so it is copied
    return _settled(found)


def _settled(tree: exp.Expr) -> exp.Expr:
    """Write out what Ibis leaves to an engine's own way. The innermost comes first."""
    root = exp.Paren(this=tree)
    for node in reversed(list(root.find_all(exp.Anonymous, exp.In, exp.Is, exp.Not, exp.Between))):
        if isinstance(node, exp.Anonymous):
            if node.name.lower() == "mod":  # SQLite's function of that name is one of floats
                left, right = (exp.Paren(this=argument) for argument in node.expressions)
                node.replace(exp.Mod(this=left, expression=right))
        elif isinstance(node.parent, exp.Predicate | exp.Binary) and not (
            isinstance(node, exp.Not) and isinstance(node.parent, exp.Is)  # IS NOT NULL
        ):
            # `(a = b) = c IN (1, 2)` goes by precedence, in which engines differ.
            paren = exp.Paren()
            node.replace(paren)
            paren.set("this", node)
    settled: exp.Expr = root.this
    settled.parent = None
    return settled


def is_there(value: ir.Value) -> ir.Value:
    """Return whether a value is not NULL; NaN is one like any other.

    For Spark, Ibis calls NaN null. It equals itself there, as in all warehouses.
    """
    if value.type().is_floating():
        return (value == value).coalesce(False)
    return value.notnull()


def cast(tree: exp.Expr, dtype: str, capabilities: Capabilities) -> exp.Expr:
    """Return the tree cast to one of VirtualFS's data types."""
    import ibis

    compiler = _ibis_compiler(capabilities.compiler or capabilities.dialect)
    return exp.Cast(this=tree, to=compiler.type_mapper.from_ibis(ibis.dtype(dtype)))


def expression_errors() -> tuple[type[Exception], ...]:
    """Return the errors that Ibis raises for expressions that do not fit."""
    from ibis.common.annotations import ValidationError
    from ibis.common.exceptions import IbisError

    return IbisError, ValidationError, AttributeError, TypeError, ValueError, KeyError


def brief(error: Exception) -> str:
    """Return what Ibis finds wrong with an expression, in one line."""
    first = str(error).splitlines()[0]
    # Ibis shows the whole table that an operation was tried on.
    return f"{first.partition('(')[0]} does not take these types" if ":= " in str(error) else first
