"""On-demand expressions written as SQL, read as the Ibis values that mean the same.

The SQL is a small dialect with one meaning, whatever the warehouse: ``/`` is true division, ``//``
rounds down, names may be quoted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import sqlglot
from sqlglot import exp

from virtualfs.compiler.reading import SUPPORTED
from virtualfs.compiler.sql import brief, expression_errors
from virtualfs.errors import DefinitionError, did_you_mean

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["value_of_sql"]

_BINARY: dict[type[exp.Expr], Callable[[Any, Any], Any]] = {
    exp.Add: lambda a, b: a + b,
    exp.Sub: lambda a, b: a - b,
    exp.Mul: lambda a, b: a * b,
    exp.Div: lambda a, b: a / b,
    exp.IntDiv: lambda a, b: a // b,
    exp.Mod: lambda a, b: a % b,
    exp.Pow: lambda a, b: a**b,
    exp.EQ: lambda a, b: a == b,
    exp.NEQ: lambda a, b: a != b,
    exp.LT: lambda a, b: a < b,
    exp.LTE: lambda a, b: a <= b,
    exp.GT: lambda a, b: a > b,
    exp.GTE: lambda a, b: a >= b,
    exp.And: lambda a, b: a & b,
    exp.Or: lambda a, b: a | b,
    exp.DPipe: lambda a, b: a.concat(b),
    exp.Nullif: lambda a, b: a.nullif(b),
    exp.Contains: lambda a, b: a.contains(b),
    exp.StartsWith: lambda a, b: a.startswith(b),
    exp.EndsWith: lambda a, b: a.endswith(b),
}
_ARGUMENTS: dict[type[exp.Expr], set[str]] = {
    exp.Between: {"this", "low", "high"},
    exp.Cast: {"this", "to"},
    exp.Log: {"this", "expression"},
    exp.Round: {"this", "decimals"},
    exp.Substring: {"this", "start", "length"},
}
"""Arguments that are read, of functions that take more than one or two in a row."""
_PARTS = frozenset(("year", "month", "day", "hour", "minute", "second"))
_UNARY: dict[type[exp.Expr], Callable[[Any], Any]] = {
    exp.Paren: lambda a: a,
    exp.Neg: lambda a: -a,
    exp.Not: lambda a: ~a,
    exp.Abs: lambda a: a.abs(),
    exp.Sqrt: lambda a: a.sqrt(),
    exp.Exp: lambda a: a.exp(),
    exp.Ln: lambda a: a.ln(),
    exp.Floor: lambda a: a.floor(),
    exp.Ceil: lambda a: a.ceil(),
    exp.Sign: lambda a: a.sign(),
    exp.Length: lambda a: a.length(),
    exp.IsNan: lambda a: a.isnan(),
    exp.Year: lambda a: a.year(),
    exp.Month: lambda a: a.month(),
    exp.Day: lambda a: a.day(),
    exp.Hour: lambda a: a.hour(),
    exp.Minute: lambda a: a.minute(),
    exp.Second: lambda a: a.second(),
}


def value_of_sql(text: str, table: ir.Table, where: str) -> ir.Value:
    """Return SQL text as an Ibis value over a table.

    Raises
    ------
    DefinitionError
        It is not one expression, names no column, or is beyond the small dialect.
    """
    try:
        select = sqlglot.parse_one(f"SELECT {text}", dialect="duckdb")
    except sqlglot.errors.SqlglotError as error:
        raise DefinitionError(f"{where}: not SQL: {str(error).splitlines()[0]}") from None
    parts = {key for key, value in select.args.items() if value} - {"kind"}
    if not isinstance(select, exp.Select) or parts != {"expressions"} or len(select.selects) != 1:
        raise DefinitionError(f"{where}: expected one expression such as a / b, not {text!r}")
    try:
        return _value(_read(select.selects[0], table, where))
    except DefinitionError:
        raise
    except RecursionError:
        raise DefinitionError(f"{where}: the expression nests too deep; split it") from None
    except expression_errors() as error:
        raise DefinitionError(f"{where}: {brief(error)}") from None


def _read(node: exp.Expr, table: ir.Table, where: str) -> Any:
    import ibis

    def read(child: Any) -> Any:
        return _read(child, table, where)

    kind = type(node)
    _refuse_more_arguments(node, where)
    if kind in _BINARY:
        left, right = read(node.this), read(node.expression)
        return _BINARY[kind](_value(left), right)
    if kind in _UNARY:
        return _UNARY[kind](_value(read(node.this)))
    match node:
        case exp.Column() if not node.table:
            return table[_column(node.name, table, where)]
        case exp.Literal():
            return node.this if node.is_string else float(node.this) if "." in node.this or (
                "e" in node.this.lower()) else int(node.this)  # fmt: skip
        case exp.Boolean():
            return ibis.literal(bool(node.this))
        case exp.Null():
            return ibis.null()
        case exp.Is(expression=exp.Null()):
            return _value(read(node.this)).isnull()
        case exp.Between():
            low, high = read(node.args["low"]), read(node.args["high"])
            return _value(read(node.this)).between(low, high)
        case exp.In() if node.expressions:
            return _value(read(node.this)).isin([read(item) for item in node.expressions])
        case exp.Coalesce():
            return ibis.coalesce(read(node.this), *map(read, node.expressions))
        case exp.Greatest() | exp.Least():
            choose = ibis.greatest if isinstance(node, exp.Greatest) else ibis.least
            return choose(read(node.this), *map(read, node.expressions))
        case exp.Round():
            digits = node.args.get("decimals")
            return _value(read(node.this)).round(*([] if digits is None else [read(digits)]))
        case exp.Log():
            if node.expression is None:
                return _value(read(node.this)).log10()
            return _value(read(node.expression)).log(read(node.this))
        case exp.Case():
            return _case(node, read)
        case exp.If():
            no = node.args.get("false")
            return ibis.ifelse(
                read(node.this), read(node.args["true"]), ibis.null() if no is None else read(no)
            )
        case exp.Substring():
            length = node.args.get("length")
            # SQL counts characters from 1, Ibis from 0.
            start = read(node.args["start"]) - 1
            return _value(read(node.this)).substr(start, None if length is None else read(length))
        case exp.Concat():
            first, *rest = (_value(read(item)) for item in node.expressions)
            return first.concat(*rest)
        case exp.Cast() if not isinstance(node, exp.TryCast):
            return _value(read(node.this)).cast(_dtype(node.to, where))
        case exp.Extract() if node.name.lower() in _PARTS:
            return getattr(_value(read(node.expression)), node.name.lower())()
    raise DefinitionError(
        f"{where}: {node.sql('duckdb')} is not among what SQL of on-demand features can say: "
        f"{SUPPORTED}"
    )


def _refuse_more_arguments(node: exp.Expr, where: str) -> None:
    """Refuse arguments that would not be read, such as the second of ``floor(a, 2)``."""
    kind = type(node)
    known = _ARGUMENTS.get(kind)
    if known is None and kind in (_BINARY | _UNARY):
        known = {"this", "expression"} if kind in _BINARY else {"this"}
    more = [key for key, value in node.args.items() if isinstance(value, exp.Expr)]
    if known is not None and (not known.issuperset(more) or node.args.get("symmetric")):
        raise DefinitionError(
            f"{where}: {node.sql('duckdb')} has more arguments than SQL of on-demand features takes"
        )


def _case(node: exp.Case, read: Callable[[Any], Any]) -> Any:
    import ibis

    given = node.this
    branches = [
        (
            _value(read(given)) == read(item.this) if given else read(item.this),
            read(item.args["true"]),
        )
        for item in node.args["ifs"]
    ]
    default = node.args.get("default")
    return ibis.cases(*branches, else_=ibis.null() if default is None else read(default))


def _value(value: Any) -> Any:
    """Return a literal as an Ibis value, so that it has methods."""
    import ibis

    return value if isinstance(value, ibis.Expr) else ibis.literal(value)


def _column(name: str, table: ir.Table, where: str) -> str:
    columns: Mapping[str, str] = {column.lower(): column for column in table.columns}
    found = name if name in table.columns else columns.get(name.lower())
    if found is None:
        raise DefinitionError(
            f"{where}: there is no input {name!r}. {did_you_mean(name, table.columns)}"
        )
    return found


def _dtype(kind: exp.DataType, where: str) -> Any:
    from ibis.backends.sql.datatypes import DuckDBType

    try:
        return DuckDBType.to_ibis(kind)
    except Exception as error:  # noqa: BLE001 - Ibis raises several kinds for types it lacks
        raise DefinitionError(f"{where}: {kind.sql('duckdb')} is no data type: {error}") from None
