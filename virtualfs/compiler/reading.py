"""On-demand expressions of Ibis, read as trees of known operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import cache, reduce
from math import isfinite, log
from typing import TYPE_CHECKING, Any

from virtualfs.compiler.operations import Node
from virtualfs.errors import DefinitionError

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["DEEPEST", "MOST", "SUPPORTED", "canonical", "tree_of"]

DEEPEST = 60
"""How deep expressions may nest."""
MOST = 20_000
"""How many operations one may write."""
SUPPORTED = (
    "+ - * / // % **, abs, round, floor, ceil, sign, sqrt, exp, ln, log, log2, log10, least, "
    "greatest, clip; == != < <= > >=, between, isin, & | ~ ^; isnull, notnull, isnan, coalesce, "
    "fill_null, nullif, ifelse, cases; casts of integers and booleans to float64, of integers to "
    "string, of booleans to int64; of strings + length contains startswith endswith "
    "substr left == !=; of times comparisons, year month day hour minute second "
    "day_of_week.index() epoch_seconds()"
)
"""The operations that mean the same in every warehouse and online, in words."""


def canonical(dtype: Any) -> str | None:
    """Return the data type in which an input is computed with; None for one that cannot be.

    >>> import ibis
    >>> canonical(ibis.dtype("int32")), canonical(ibis.dtype("json"))
    ('int64', None)
    """
    if dtype.is_boolean() or dtype.is_string() or dtype.is_date():
        return str(dtype).lstrip("!")
    if dtype.is_integer():
        return None if dtype.is_unsigned_integer() and dtype.nbytes == 8 else "int64"
    if dtype.is_floating() or dtype.is_decimal():
        return "float64"
    if dtype.is_timestamp():
        return "timestamp" if dtype.timezone is None else "timestamp('UTC')"
    return None


def tree_of(value: ir.Value, where: str) -> Node:
    """Return an Ibis value over one table as a tree of known operations.

    Raises
    ------
    DefinitionError
        It holds an operation that is not known; the message lists those that are.
    """
    try:
        tree = _read(value.op(), where, {})
    except RecursionError:
        raise DefinitionError(
            f"{where}: the expression nests too deep; {DEEPEST} operations on each other are the "
            "most, so split it into several features"
        ) from None
    if tree.depth > DEEPEST or tree.size > MOST:
        raise DefinitionError(
            f"{where}: the expression nests {tree.depth} deep and writes {tree.size:,} operations; "
            f"{DEEPEST} and {MOST:,} are the most, so split it into several features"
        )
    return tree


def _refused(where: str, what: str) -> DefinitionError:
    return DefinitionError(
        f"{where}: {what} does not mean the same in every warehouse and online, so it cannot be "
        "part of an on-demand feature; compute it in the feature view that is read, or give the "
        f"view a Python function=. Supported are {SUPPORTED}"
    )


def _read(op: Any, where: str, known: dict[Any, Node]) -> Node:
    if op in known:
        return known[op]
    reader = _readers().get(type(op))
    if reader is None:
        raise _refused(where, type(op).__name__)
    try:
        found: Node = reader(op, *_arguments(op, where, known))
    except _UnfitError as error:
        raise _refused(where, str(error)) from None
    known[op] = found
    return found


def _arguments(op: Any, where: str, known: dict[Any, Node]) -> list[Any]:
    """Return an operation's own arguments, each read as a tree, lists as lists."""
    import ibis.expr.operations as ops

    if isinstance(op, ops.Field | ops.Literal):
        return []

    def one(value: Any) -> Any:
        if isinstance(value, ops.Value):
            return _read(value, where, known)
        return [one(item) for item in value] if isinstance(value, tuple) else value

    return [one(value) for value in op.args]


class _UnfitError(Exception):
    """An operation on types that it is not known on."""


# -- trees from trees: what is made of simpler operations


def _literal(value: Any) -> Node:
    kind = {bool: "boolean", int: "int64", float: "float64", str: "string"}[type(value)]
    return Node("literal", kind, (), value)


def _number(node: Node) -> Node:
    if node.dtype not in ("int64", "float64"):
        raise _UnfitError(
            f"arithmetic on {node.dtype}" + " (cast it to float64)" * (node.dtype == "boolean")
        )
    return node


def _float(node: Node) -> Node:
    if node.dtype == "float64":
        return node
    if node.operation == "literal" and isinstance(node.value, int):
        return Node("literal", "float64", (), float(node.value))
    if node.dtype == "boolean":
        return _if(node, _literal(1.0), _if(_not(node), _literal(0.0), _null("float64")))
    if node.dtype == "int64":
        return Node("to_float", "float64", (node,))
    raise _UnfitError(f"a cast from {node.dtype} to float64")


def _null(dtype: str) -> Node:
    return Node("literal", dtype)


def _alike(nodes: Sequence[Node], what: str) -> list[Node]:
    """Return nodes of one type, integers beside floats as floats and NULL as whatever it is."""
    kinds = {node.dtype for node in nodes if not _is_null(node)}
    if kinds == {"int64", "float64"}:
        return [_null("float64") if _is_null(node) else _float(node) for node in nodes]
    if len(kinds) > 1:
        raise _UnfitError(f"{what} of {' and '.join(sorted(kinds))}")
    kind = next(iter(kinds), nodes[0].dtype)
    return [_null(kind) if _is_null(node) else node for node in nodes]


def _is_null(node: Node) -> bool:
    return node.operation == "literal" and node.value is None


def _math(name: str) -> Callable[..., Node]:
    def made(_op: Any, *args: Node) -> Node:
        numbers = _alike([_number(arg) for arg in args], name)
        return Node(name, numbers[0].dtype, tuple(numbers))

    return made


def _of_floats(name: str) -> Callable[..., Node]:
    def made(_op: Any, *args: Node) -> Node:
        return Node(name, "float64", tuple(_float(_number(arg)) for arg in args))

    return made


def _compare(name: str) -> Callable[..., Node]:
    def made(_op: Any, left: Node, right: Node) -> Node:
        return _compared(name, left, right)

    return made


def _compared(name: str, left: Node, right: Node) -> Node:
    left, right = _alike([left, right], "a comparison")
    if left.dtype in ("string", "boolean") and name not in ("eq", "ne"):
        raise _UnfitError(f"the order of {left.dtype}s")
    suffix = "_float" if left.dtype == "float64" else ""
    return Node(name + suffix, "boolean", (left, right))


def _logic(name: str) -> Callable[..., Node]:
    def made(_op: Any, *args: Node) -> Node:
        return _joined(name, args)

    return made


def _joined(name: str, args: Sequence[Node]) -> Node:
    boolean = [_null("boolean") if _is_null(arg) else arg for arg in args]
    if any(arg.dtype != "boolean" for arg in boolean):
        raise _UnfitError(f"{name} of {' and '.join(arg.dtype for arg in boolean)}")
    return Node(name, "boolean", tuple(boolean))


def _not(node: Node) -> Node:
    return _joined("not", [node])


def _if(condition: Node, yes: Node, no: Node) -> Node:
    yes, no = _alike([yes, no], "a choice")
    condition = _null("boolean") if _is_null(condition) else condition
    return Node("if", yes.dtype, (condition, yes, no))


def _coalesce(nodes: Sequence[Node]) -> Node:
    alike = _alike(nodes, "coalesce")
    return Node("coalesce", alike[0].dtype, tuple(alike))


def _is_missing(node: Node) -> Node:
    return Node("is_null", "boolean", (node,))


def _extreme(nodes: Sequence[Node], name: str) -> Node:
    """Return the least or greatest of what is not NULL."""
    alike = [_number(node) for node in _alike(nodes, name)]
    return Node(name, alike[0].dtype, tuple(alike))


def _clip(value: Node, lower: Node | None, upper: Node | None) -> Node:
    value = _number(value)
    if lower is not None:
        value = _if(_compared("lt", value, lower), lower, value)
    if upper is not None:
        value = _if(_compared("gt", value, upper), upper, value)
    return value


def _sign(value: Node) -> Node:
    zero = _literal(0)
    return _if(
        _compared("gt", value, zero),
        _literal(1.0),
        _if(
            _compared("lt", value, zero),
            _literal(-1.0),
            _if(_compared("eq", value, zero), _literal(0.0), _null("float64")),
        ),
    )


def _divide(left: Node, right: Node) -> Node:
    return Node("divide", "float64", (_float(_number(left)), _float(_number(right))))


def _negate(value: Node) -> Node:
    if _number(value).operation == "literal" and value.value:
        return _literal(-value.value)
    return Node("negate", value.dtype, (value,))


def _modulo(left: Node, right: Node) -> Node:
    if _number(left).dtype != "int64" or _number(right).dtype != "int64":
        raise _UnfitError("% of floats")
    return Node("modulo", "int64", (left, right))


def _log(value: Node, base: Node | None) -> Node:
    """Return a logarithm as a quotient of natural ones, which engines compute alike."""
    found = Node("ln", "float64", (_float(_number(value)),))
    if base is None:
        return found
    if base.operation != "literal" or not base.value or base.value <= 0 or base.value == 1:
        raise _UnfitError("log to a base that is not a literal above 0")
    return _divide(found, _literal(log(base.value)))


def _whole(name: str, value: Node) -> Node:
    if _number(value).dtype == "int64":
        return value
    return Node(name, "int64", (value,))


def _round(value: Node, digits: Node | None) -> Node:
    """Return a number rounded half away from zero, to a whole one or to some digits."""
    if digits is not None and (digits.operation != "literal" or digits.dtype != "int64"):
        raise _UnfitError("round to a number of digits that is not a literal")
    places = digits.value if digits is not None else 0
    if _number(value).dtype == "int64":
        if places < 0:
            raise _UnfitError("round of integers to tens")
        return value
    if not -300 <= places <= 300:
        raise _UnfitError("round to so many digits")
    found = Node("round", "float64", (value,), places)
    return found if digits is not None else Node("floor", "int64", (found,))


def _cast(value: Node, to: Any) -> Node:
    wanted = canonical(to)
    if _is_null(value) and wanted is not None:
        return _null(wanted)
    if to.is_decimal():
        raise _UnfitError(f"a cast to {to}")
    if wanted == value.dtype:
        narrow = str(to).lstrip("!") != wanted and not (to.is_timestamp() and to.scale in (None, 6))
        if narrow:
            raise _UnfitError(f"a cast to {to} (numbers are int64 and float64 here)")
        return value
    if (
        value.operation == "literal"
        and value.dtype == "string"
        and (to.is_timestamp() or to.is_date())
    ):
        return _moment(value.value, wanted or "")
    if wanted == "float64":
        return _float(value)
    if wanted == "int64" and value.dtype == "boolean":
        return _if(value, _literal(1), _if(_not(value), _literal(0), _null("int64")))
    if wanted == "string" and value.dtype == "int64":
        return Node("to_text", "string", (value,))
    hint = " (use floor, ceil or round)" if wanted == "int64" and value.dtype == "float64" else ""
    raise _UnfitError(f"a cast from {value.dtype} to {to}{hint}")


def _cases(tests: Sequence[Node], results: Sequence[Node], default: Node) -> Node:
    alike = _alike([*results, default], "cases")
    found = alike[-1]
    for test, result in zip(reversed(tests), reversed(alike[:-1]), strict=True):
        found = _if(test, result, found)
    return found


def _in(value: Node, options: Sequence[Node]) -> Node:
    """Return whether a value is among literals."""
    if any(option.operation != "literal" or option.value is None for option in options):
        raise _UnfitError("isin of anything but literals that are not NULL")
    if not options:
        raise _UnfitError("isin of nothing")
    value, *alike = _alike([value, *options], "isin")
    held = tuple(option.value for option in alike)
    endless = any(isinstance(item, float) and not isfinite(item) for item in held)
    if value.dtype not in ("int64", "float64", "string") or endless:
        raise _UnfitError(f"isin of {value.dtype}")
    return Node("in", "boolean", (value,), held)


def _text(node: Node) -> Node:
    if node.dtype != "string":
        raise _UnfitError(f"an operation of strings on {node.dtype}")
    return node


def _texts(name: str, dtype: str) -> Callable[..., Node]:
    def made(_op: Any, *args: Node) -> Node:
        return Node(name, dtype, tuple(_text(arg) for arg in args))

    return made


def _substring(value: Node, start: Node, length: Node | None) -> Node:
    held = [None if node is None else node.value for node in (start, length)]
    literal = all(node is None or node.operation == "literal" for node in (start, length))
    if not literal or any(item is not None and item < 0 for item in held):
        raise _UnfitError("substr with anything but literals from 0 on")
    return Node("substring", "string", (_text(value),), tuple(held))


def _time(name: str) -> Callable[..., Node]:
    def made(_op: Any, value: Node) -> Node:
        is_date = value.dtype == "date"
        clock = name in ("hour", "minute", "second", "epoch_seconds")
        if not (value.dtype.startswith("timestamp") or is_date) or (is_date and clock):
            raise _UnfitError(f"{name} of {value.dtype}")
        if name != "epoch_seconds" and value.operation != "input":
            raise _UnfitError(f"{name} of what is computed")
        return Node(name, "int64", (value,))

    return made


def _input(op: Any) -> Node:
    dtype = canonical(op.dtype)
    if dtype is None:
        raise _UnfitError(f"the input {op.name!r}, which is {op.dtype},")
    return Node("input", dtype, (), op.name)


def _moment(text: str, dtype: str) -> Node:
    try:
        if dtype == "date":
            return Node("literal", dtype, (), date.fromisoformat(text).isoformat())
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _UnfitError(f"{text!r} as a {dtype}") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    if dtype == "timestamp":
        moment = moment.replace(tzinfo=None)
    return Node("literal", dtype, (), moment.isoformat())


def _constant(op: Any) -> Node:
    kind, value = op.dtype, op.value
    if value is None:
        return _null(canonical(kind) or "int64")
    if kind.is_boolean() or kind.is_string():
        return _literal(value)
    if kind.is_integer() and -(2**63) <= value < 2**63:
        return _literal(int(value))
    if kind.is_floating() or kind.is_decimal():
        return _literal(float(value))
    if kind.is_timestamp() or kind.is_date():
        text = value.isoformat() if isinstance(value, date | datetime) else str(value)
        return _moment(text, canonical(kind) or "")
    raise _UnfitError(f"the literal {value!r} of {kind}")


@cache
def _readers() -> Mapping[type, Callable[..., Node]]:
    """Return how each operation of Ibis is read: from it and its arguments as trees."""
    import ibis.expr.operations as ops

    return {
        ops.Field: _input,
        ops.Literal: _constant,
        ops.Cast: lambda _op, value, to: _cast(value, to),
        ops.Add: _math("add"),
        ops.Subtract: _math("subtract"),
        ops.Multiply: _math("multiply"),
        ops.Negate: lambda _op, value: _negate(value),
        ops.Abs: _math("abs"),
        ops.Divide: lambda _op, left, right: _divide(left, right),
        ops.FloorDivide: lambda _op, left, right: _whole("floor", _divide(left, right)),
        ops.Modulus: lambda _op, left, right: _modulo(left, right),
        ops.Power: _of_floats("power"),
        ops.Sqrt: _of_floats("sqrt"),
        ops.Exp: _of_floats("exp"),
        ops.Ln: _of_floats("ln"),
        ops.Log: lambda _op, value, to: _log(value, to),
        ops.Log2: lambda _op, value: _log(value, _literal(2.0)),
        ops.Log10: lambda _op, value: _log(value, _literal(10.0)),
        ops.Floor: lambda _op, value: _whole("floor", value),
        ops.Ceil: lambda _op, value: _whole("ceil", value),
        ops.Round: lambda op, value, digits: _round(
            value, None if op.dtype.is_integer() else digits
        ),
        ops.Sign: lambda _op, value: _sign(value),
        ops.Clip: lambda _op, *args: _clip(*args),
        ops.Least: lambda _op, nodes: _extreme(nodes, "least"),
        ops.Greatest: lambda _op, nodes: _extreme(nodes, "greatest"),
        ops.Equals: _compare("eq"),
        ops.NotEquals: _compare("ne"),
        ops.Less: _compare("lt"),
        ops.LessEqual: _compare("le"),
        ops.Greater: _compare("gt"),
        ops.GreaterEqual: _compare("ge"),
        ops.Between: lambda _op, value, low, high: _joined(
            "and", [_compared("ge", value, low), _compared("le", value, high)]
        ),
        ops.InValues: lambda _op, value, options: _in(value, options),
        ops.And: _logic("and"),
        ops.Or: _logic("or"),
        ops.Not: _logic("not"),
        ops.Xor: lambda _op, left, right: _compared(
            "ne", _joined("or", [left, left]), _joined("or", [right, right])
        ),
        ops.IsNull: lambda _op, value: _is_missing(value),
        ops.NotNull: lambda _op, value: _not(_is_missing(value)),
        ops.IsNan: lambda _op, value: Node("is_nan", "boolean", (_float(_number(value)),)),
        ops.Coalesce: lambda _op, nodes: _coalesce(nodes),
        ops.NullIf: lambda _op, value, other: _if(
            _compared("eq", value, other), _null(value.dtype), value
        ),
        ops.IfElse: lambda _op, condition, yes, no: _if(condition, yes, no),
        ops.SearchedCase: lambda _op, tests, results, default: _cases(tests, results, default),
        ops.SimpleCase: lambda _op, value, cases, results, default: _cases(
            [_compared("eq", value, case) for case in cases], results, default
        ),
        ops.StringLength: _texts("length", "int64"),
        ops.StringConcat: lambda _op, nodes: reduce(
            lambda a, b: Node("concat", "string", (_text(a), _text(b))), nodes
        ),
        ops.StringContains: _texts("contains", "boolean"),
        ops.StartsWith: _texts("starts_with", "boolean"),
        ops.EndsWith: _texts("ends_with", "boolean"),
        ops.Substring: lambda _op, *args: _substring(*args),
        ops.ExtractYear: _time("year"),
        ops.ExtractMonth: _time("month"),
        ops.ExtractDay: _time("day"),
        ops.ExtractHour: _time("hour"),
        ops.ExtractMinute: _time("minute"),
        ops.ExtractSecond: _time("second"),
        ops.DayOfWeekIndex: _time("day_of_week"),
        ops.ExtractEpochSeconds: _time("epoch_seconds"),
    }
