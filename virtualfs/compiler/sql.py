"""The one door between Ibis, sqlglot and text: rendering, parsing, and what stored SQL may say.

Ibis's compilers are used without their backends, so that no driver is needed to compile.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlglot
from sqlglot import exp

from virtualfs.capabilities import Capabilities
from virtualfs.errors import DefinitionError, did_you_mean

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
    "parse_expression",
    "parse_select",
    "quoted",
    "render",
    "render_rowwise",
    "rowwise_tree",
    "select_all",
    "subquery",
    "table_reference",
    "text",
    "type_text",
]

SPINE = "__virtualfs_spine"
"""Stands in compiled SQL for the spine's table, whose name is chosen for each run."""
_FILE_NAME = re.compile(
    r"(://|/|\\|\*|\.(parquet|csv|tsv|json|jsonl|ndjson|xlsx|db|duckdb)(\.\w+)?$)"
)
# Functions that reach outside the warehouse, change something, or wait. Engines know more of them
# than sqlglot has classes for, so they are refused by name.
_OUTSIDE = re.compile(
    r"^(read_\w+|scan_\w+|\w+_scan|\w+_scan_pushdown|glob|getenv|sniff_csv|parquet_\w+|query|"
    r"query_table|(?!pg_typeof$)pg_\w+|\w+_to_xml\w*|crosstab\w*|ts_stat|txid_\w+|dblink\w*|lo_\w+|"
    r"nextval|setval|set_config|current_setting|sleep_ms|"
    r"load_extension|json_execute_\w+|write_log|which_secret|"
    r"copy_\w+|http_\w+|shellfs|edit|writefile|readfile|fsdir|"
    r"java_method|(try_)?reflect|system\$\w+|external_query)$",
    re.IGNORECASE,
)
_UNSTEADY = re.compile(
    r"^(now|random|rand|randn|uuid|gen_random_uuid|uuidv\d|current_\w+|localtime\w*|today|"
    r"getdate|getvariable|age|stats|in_search_path|sleep_ms|"
    r"transaction_timestamp|statement_timestamp|clock_timestamp|"
    r"get_current_\w+|setseed|txid_current)$",
    re.IGNORECASE,
)


@cache
def _ibis_compiler(dialect: str) -> Any:
    import ibis.backends.sql.compilers as compilers

    return getattr(compilers, dialect).compiler


def render(expression: ir.Table, capabilities: Capabilities) -> exp.Select:
    """Return the sqlglot tree of an Ibis table expression."""
    compiler = _ibis_compiler(capabilities.compiler or capabilities.dialect)
    tree: exp.Select = compiler.to_sqlglot(expression)
    return tree


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
    """Return a query as something to select from."""
    return exp.Subquery(this=tree, alias=exp.TableAlias(this=identifier(alias)))


def text(tree: exp.Expr, dialect: str, *, pretty: bool = True) -> str:
    """Return a tree as SQL text of one dialect."""
    return tree.sql(dialect=dialect, pretty=pretty, unsupported_level=sqlglot.ErrorLevel.RAISE)


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


def parse_select(sql: str, dialect: str, where: str) -> exp.Expr:
    """Parse stored SQL that may do one thing only: read with one SELECT.

    Raises
    ------
    DefinitionError
        It is not SQL, not exactly one SELECT, or it reads files, the network or settings.
    """
    try:
        trees = [tree for tree in sqlglot.parse(sql, dialect=dialect) if tree is not None]
    except sqlglot.errors.SqlglotError as error:
        raise DefinitionError(f"{where}: not SQL: {_first_finding(error)}") from None
    if len(trees) != 1 or not isinstance(trees[0], exp.Query):
        raise DefinitionError(f"{where}: expected exactly one SELECT")
    _refuse_outside(trees[0], where)
    return trees[0]


def parse_expression(sql: str, dialect: str, columns: Mapping[str, str], where: str) -> exp.Expr:
    """Parse one row-wise SQL expression and turn its column names into the source's own.

    Parameters
    ----------
    columns
        Names used in the view, mapped to the columns of the source.

    Raises
    ------
    DefinitionError
        It is not one row-wise expression, or names a column that does not exist.
    """
    try:
        select = sqlglot.parse_one(f"SELECT {sql}", dialect=dialect)
    except sqlglot.errors.SqlglotError as error:
        raise DefinitionError(f"{where}: not SQL: {_first_finding(error)}") from None
    plain = isinstance(select, exp.Select) and len(select.expressions) == 1
    if not plain or any(value for key, value in select.args.items() if key not in _BARE_SELECT):
        raise DefinitionError(f"{where}: expected one expression such as temp <= 32, not {sql!r}")
    tree = select.expressions[0]
    _refuse_outside(tree, where)
    for kind, what in _NOT_ROWWISE:
        if tree.find(kind):
            raise DefinitionError(
                f"{where}: {what} is not row-wise: {sql!r}. An expression sees one row; "
                "put more into a query= source"
            )
    for function in tree.find_all(exp.Func):
        if _UNSTEADY.match(_function_name(function)):
            raise DefinitionError(
                f"{where}: {_function_name(function).lower()}() gives another answer on each run, "
                "so it cannot be part of a feature"
            )
    lower = {name.lower(): name for name in columns}

    def to_source(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Star | exp.Columns | exp.PositionalColumn):
            raise DefinitionError(f"{where}: {node.sql(dialect)} does not name one column")
        if not isinstance(node, exp.Column):
            return node
        if isinstance(node.this, exp.Star) or node.args.get("db"):
            raise DefinitionError(f"{where}: {node.sql()} is not a column of the source")
        if node.table:  # a field of a column that is a struct; sources have no other qualifiers
            return exp.StructExtract(
                this=source_column(node.table), expression=exp.Literal.string(node.name)
            )
        return source_column(node.name)

    def source_column(written: str) -> exp.Column:
        name = written if written in columns else lower.get(written.lower(), written)
        if name not in columns:
            if _UNSTEADY.match(name):
                raise DefinitionError(f"{where}: {name} gives another answer on each run")
            raise DefinitionError(
                f"{where}: the source has no column {written!r}. {did_you_mean(name, columns)}"
            )
        return column(columns[name])

    bound: exp.Expr = tree.transform(to_source)
    return bound


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


_TABLE_FUNCTIONS = frozenset(
    {"exploding_generate_series", "generate_series", "range", "unnest"}  # the first is PostgreSQL's
)
_BARE_SELECT = {"kind", "expressions"}
_NOT_ROWWISE: tuple[tuple[type[exp.Expr], str], ...] = (
    (exp.Query, "a subquery"),
    (exp.AggFunc, "an aggregate"),
    (exp.Window, "a window function"),
    (exp.Explode, "unnesting"),
    (exp.Unnest, "unnesting"),
    (exp.Placeholder, "a parameter"),
    (exp.Parameter, "a parameter"),
)


def _function_name(function: exp.Func) -> str:
    return function.name if isinstance(function, exp.Anonymous) else function.sql_name()


def _refuse_outside(tree: exp.Expr, where: str) -> None:
    for node in tree.walk():
        if isinstance(node, exp.Func) and _OUTSIDE.match(_function_name(node)):
            raise DefinitionError(
                f"{where}: {_function_name(node).lower()}() reads outside the warehouse's tables; "
                "use path= for files"
            )
        if isinstance(node, exp.Table) and isinstance(node.this, exp.Func):
            name = _function_name(node.this).lower()
            if name not in _TABLE_FUNCTIONS:
                raise DefinitionError(
                    f"{where}: {name}() reads outside the warehouse's tables; of functions only "
                    f"{', '.join(sorted(_TABLE_FUNCTIONS))} may stand in FROM"
                )
        if isinstance(node, exp.Table) and (
            isinstance(node.this, exp.Literal) or _FILE_NAME.search(_dotted(node))
        ):
            raise DefinitionError(f"{where}: {node.name!r} names a file; use path= for files")
        if isinstance(node, exp.DDL | exp.DML | exp.Command | exp.Into | exp.Lock):
            raise DefinitionError(f"{where}: stored SQL may only read; found {node.key.upper()}")


def _dotted(table: exp.Table) -> str:
    return ".".join(part.name for part in table.parts)


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


def _first_finding(error: sqlglot.errors.SqlglotError) -> str:
    return re.sub(r"\x1b\[\d+m", "", str(error)).splitlines()[0]
