"""The operations of on-demand features, each with one meaning: as SQL, and in this process.

An expression is a tree of :class:`Node`, which is plain data and can be stored. Numbers are int64
or float64 and nothing else, so that no engine's promotions matter. What engines answer differently
is settled here, in SQL and in Python alike:

- division and modulo by zero, roots and logarithms of what has none, and whole numbers that an
  int64 cannot hold are NULL; ``%`` has the sign of the dividend;
- an integer sum, difference or product beyond int64 is an error, as it is in warehouses;
- NaN equals itself and is greater than all other numbers, as in warehouses;
- rounding goes half away from zero;
- ``and`` and ``or`` know NULL as unknown.

See docs/adr/0005-on-demand.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from virtualfs.capabilities import Capabilities

__all__ = ["LARGEST", "OPERATIONS", "Node", "Operation", "is_tree", "value_of"]

LARGEST = 9223372036854774784.0
"""The largest float64 below 2^63."""
LARGEST_EXPONENT = 1e15
"""The largest exponent of powers; up to it every float64 says whether it is whole."""
REPEATS = {"power": 10, "round": 10, "floor": 3, "ceil": 3, "exp": 3, "sqrt": 2, "ln": 2,
           "greatest": 3, "least": 3, "epoch_seconds": 3, "is_null": 2}  # fmt: skip
"""About how often the SQL of an operation writes each argument, where more than once."""


@dataclass(frozen=True)
class Node:
    """One operation on others.

    Parameters
    ----------
    operation
        ``"input"`` (named by `value`), ``"literal"`` (which is `value`), or one of
        :data:`OPERATIONS`.
    dtype
        Its data type; decimals are float64 here.
    """

    operation: str
    dtype: str
    args: tuple[Node, ...] = ()
    value: Any = None
    depth: int = field(init=False, compare=False, repr=False)
    """How many operations stand on each other."""
    size: int = field(init=False, compare=False, repr=False)
    """About how many operations its SQL writes, arguments as often as they stand there."""
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        args = self.args
        counted = {
            "depth": 1 + max((arg.depth for arg in args), default=0),
            "size": 1 + REPEATS.get(self.operation, 1) * sum(arg.size for arg in args),
            "_hash": hash((self.operation, self.dtype, args, type(self.value), self.value)),
        }
        for name, value in counted.items():
            object.__setattr__(self, name, value)

    def __hash__(self) -> int:
        return self._hash

    def inputs(self) -> set[str]:
        """Return the names of the inputs that the tree reads."""
        return {item[2] for item in self.to_json() if item[0] == "input"}

    def to_json(self) -> list[list[Any]]:
        """Return the tree as plain data: its nodes, each after those that it stands on."""
        places: dict[int, int] = {}
        written: list[list[Any]] = []

        def place(node: Node) -> int:
            if id(node) not in places:
                args = [place(arg) for arg in node.args]
                value = list(node.value) if isinstance(node.value, tuple) else node.value
                if isinstance(value, float) and not math.isfinite(value):
                    value = repr(value)  # JSON has none of these
                places[id(node)] = len(written)
                written.append([node.operation, node.dtype, value, args])
            return places[id(node)]

        place(self)
        return written

    def with_inputs(self, meant: Mapping[str, Node]) -> Node:
        """Return the tree with others in the place of its inputs."""
        known: dict[Node, Node] = {}

        def replaced(node: Node) -> Node:
            if node not in known:
                args = tuple(replaced(arg) for arg in node.args)
                found = Node(node.operation, node.dtype, args, node.value)
                known[node] = meant[node.value] if node.operation == "input" else found
            return known[node]

        return replaced(self)

    @classmethod
    def from_json(cls, data: Sequence[Sequence[Any]]) -> Node:
        """Return the tree that plain data stand for."""
        nodes: list[Node] = []
        for operation, dtype, value, args in data:
            held = tuple(value) if isinstance(value, list) else value
            if dtype == "float64" and isinstance(held, str) and operation == "literal":
                held = float(held)
            nodes.append(cls(operation, dtype, tuple(nodes[arg] for arg in args), held))
        return nodes[-1]


@dataclass(frozen=True)
class Operation:
    """How one operation is written.

    Parameters
    ----------
    sql
        Makes the Ibis value of the arguments' values and the node's own.
    python
        The Python expression where no argument is NULL; ``{0}`` is the first, ``{all}`` are all,
        ``{value}`` is the node's own value. It may be ``None`` in turn.
    strict
        Whether any NULL argument makes it NULL.
    is_checked
        Whether it may leave int64.
    """

    sql: Callable[..., ir.Value]
    python: str
    strict: bool = True
    is_checked: bool = False


def _null_unless(condition: ir.Value, value: ir.Value) -> ir.Value:
    import ibis

    return ibis.ifelse(condition, value, ibis.null(value.type()))


def _is_null(value: ir.Value) -> ir.Value:
    from virtualfs.compiler.sql import is_there  # sqlglot can wait until something is compiled

    return ~is_there(value)


def _power(base: ir.Value, exponent: ir.Value) -> ir.Value:
    import ibis

    zero, one = ibis.literal(0.0), ibis.literal(1.0)
    exponent = _null_unless(exponent.abs() <= LARGEST_EXPONENT, exponent)
    whole = exponent == exponent.floor().cast("float64")
    # Of the arguments that are left the engine sees none that it would refuse.
    size = _null_unless(base != zero, base).abs().ln() * exponent
    finite = (size <= 709.0) & (size >= -708.0) & ((base > zero) | whole)
    return ibis.cases(
        ((exponent == zero) & (base == base), one),
        ((base == zero) & (exponent > zero), zero),
        ((size < -708.0) & ((base > zero) | whole), zero),
        (finite, base**exponent),
        else_=ibis.null("float64"),
    )


def power(base: float, exponent: float) -> float | None:
    """Return a power; None where there is none, or none that a float64 holds."""
    if not abs(exponent) <= LARGEST_EXPONENT:
        return None
    if exponent == 0:
        return 1.0
    if base == 0:
        return 0.0 if exponent > 0 else None
    if base != base or (base < 0 and exponent != int(exponent)):
        return None
    size = math.log(abs(base)) * exponent
    if size < -708.0:
        return 0.0
    return math.pow(base, exponent) if size <= 709.0 else None


def remainder(dividend: int, divisor: int) -> int | None:
    """Return what is left of a division, with the sign of the dividend; None by zero."""
    if divisor == 0:
        return None
    size = abs(dividend) % abs(divisor)
    return size if dividend >= 0 else -size


def _epoch_seconds(instant: ir.Value) -> ir.Value:
    """Return whole seconds since 1970 of an instant, rounded down."""
    import ibis

    if not instant.type().is_integer():
        return instant.truncate("s").epoch_seconds().cast("int64")
    left = instant % 1_000_000
    down = ibis.ifelse(left < 0, left + 1_000_000, left)
    # What a float loses of such a quotient is far less than the half that rounding forgives.
    return ((instant - down) / 1_000_000).round().cast("int64")


def _with_nan(operation: str) -> str:
    """Return a comparison of floats in which NaN equals itself and is the greatest."""
    return {
        "eq": "({0} == {1} or ({0} != {0} and {1} != {1}))",
        "ne": "({0} != {1} and ({0} == {0} or {1} == {1}))",
        "lt": "({0} < {1} or ({1} != {1} and {0} == {0}))",
        "le": "({0} <= {1} or {1} != {1})",
        "gt": "({0} > {1} or ({0} != {0} and {1} == {1}))",
        "ge": "({0} >= {1} or {0} != {0})",
    }[operation]


def _extreme(name: str) -> Callable[..., ir.Value]:
    def made(*values: ir.Value) -> ir.Value:
        import ibis

        # Some engines skip NULLs and some give NULL: here none meets one unless all are.
        others = [ibis.coalesce(*values[n:], *values[:n]) for n in range(len(values))]
        found: ir.Value = getattr(ibis, name)(*others)
        return found

    return made


def extreme(values: Sequence[float | None], sign: int) -> float | None:
    """Return the greatest value (`sign` 1) or least (-1) that is not None; NaN is the greatest."""
    held = [value for value in values if value is not None]
    numbers = [value for value in held if value == value]
    if len(numbers) < len(held) and (sign > 0 or not numbers):
        return math.nan
    return (max(numbers) if sign > 0 else min(numbers)) if numbers else None


def _round(value: ir.Value, places: int) -> ir.Value:
    import ibis

    scale = 10.0 ** abs(places)
    scaled = (
        value * _literal(scale, "float64") if places > 0 else value / _literal(scale, "float64")
    )
    scaled = scaled if places else value
    size = scaled.abs()
    whole = _null_unless(size < 2.0**52, size).floor().cast("float64")
    nearest = ibis.ifelse(size - whole >= 0.5, whole + 1.0, whole)
    signed = ibis.ifelse(scaled < 0.0, -nearest, nearest)
    back = signed / _literal(scale, "float64") if places > 0 else signed
    back = signed * _literal(scale, "float64") if places < 0 else back
    # From 2^52 on every float is whole already; so are infinities and NaN.
    return ibis.coalesce(back, value)


def rounded(value: float, places: int) -> float:
    """Return a number rounded half away from zero to decimal places."""
    scale = 10.0 ** abs(places)
    scaled = (value * scale if places > 0 else value / scale) if places else value
    size = abs(scaled)
    if not size < 2.0**52:
        return value
    whole = float(math.floor(size))
    nearest = whole + 1.0 if size - whole >= 0.5 else whole
    signed = -nearest if scaled < 0 else nearest
    return signed / scale if places > 0 else signed * scale


_SYMBOLS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}


def _part(name: str) -> Callable[[ir.Value], ir.Value]:
    return lambda value: getattr(value, name)().cast("int64")


OPERATIONS: dict[str, Operation] = {
    "add": Operation(lambda a, b: a + b, "{0} + {1}", is_checked=True),
    "subtract": Operation(lambda a, b: a - b, "{0} - {1}", is_checked=True),
    "multiply": Operation(lambda a, b: a * b, "{0} * {1}", is_checked=True),
    "negate": Operation(lambda a: -a, "-{0}", is_checked=True),
    "abs": Operation(lambda a: a.abs(), "abs({0})", is_checked=True),
    "divide": Operation(lambda a, b: a / b.nullif(0.0), "({0} / {1} if {1} != 0 else None)"),
    "modulo": Operation(lambda a, b: a % b.nullif(0), "remainder({0}, {1})"),
    "power": Operation(_power, "power({0}, {1})"),
    "sqrt": Operation(
        lambda a: _null_unless(a >= 0.0, a).sqrt(),
        "(sqrt({0}) if {0} >= 0 else {0} if {0} != {0} else None)",
    ),
    "ln": Operation(
        lambda a: _null_unless(a > 0.0, a).ln(),
        "(log({0}) if {0} > 0 else {0} if {0} != {0} else None)",
    ),
    # Beyond these engines differ: some raise, some give infinity or zero.
    "exp": Operation(
        lambda a: _null_unless((a <= 709.0) & (a >= -708.0), a).exp(),
        "(exp({0}) if -708.0 <= {0} <= 709.0 else None)",
    ),
    "floor": Operation(
        lambda a: _null_unless((a <= LARGEST) & (a >= -LARGEST), a).floor().cast("int64"),
        f"(floor({{0}}) if {-LARGEST!r} <= {{0}} <= {LARGEST!r} else None)",
    ),
    "ceil": Operation(
        lambda a: _null_unless((a <= LARGEST) & (a >= -LARGEST), a).ceil().cast("int64"),
        f"(ceil({{0}}) if {-LARGEST!r} <= {{0}} <= {LARGEST!r} else None)",
    ),
    "round": Operation(_round, "rounded({0}, {value})"),
    "greatest": Operation(_extreme("greatest"), "extreme(({all},), 1)", strict=False),
    "least": Operation(_extreme("least"), "extreme(({all},), -1)", strict=False),
    "to_float": Operation(lambda a: a.cast("float64"), "float({0})"),
    "to_text": Operation(lambda a: a.cast("string"), "str({0})"),
    "is_nan": Operation(lambda a: a.isnan(), "{0} != {0}"),
    **{
        name: Operation(_COMPARE[name], f"{{0}} {symbol} {{1}}")
        for name, symbol in _SYMBOLS.items()
    },
    **{f"{name}_float": Operation(_COMPARE[name], _with_nan(name)) for name in _SYMBOLS},
    "in": Operation(lambda a, value: a.isin(list(value)), "{0} in {value}"),
    "not": Operation(lambda a: ~a, "not {0}"),
    "and": Operation(
        lambda a, b: a & b,
        "(False if {0} is False or {1} is False else None if {0} is None or {1} is None else True)",
        strict=False,
    ),
    "or": Operation(
        lambda a, b: a | b,
        "(True if {0} is True or {1} is True else None if {0} is None or {1} is None else False)",
        strict=False,
    ),
    "is_null": Operation(_is_null, "{0} is None", strict=False),
    "length": Operation(lambda a: a.length().cast("int64"), "len({0})"),
    "concat": Operation(lambda a, b: a + b, "{0} + {1}"),
    "contains": Operation(lambda a, b: a.find(b) >= 0, "{1} in {0}"),
    # Not by LIKE, as some engines would, in which the needle may hold wildcards.
    "starts_with": Operation(lambda a, b: a.left(b.length()) == b, "{0}.startswith({1})"),
    "ends_with": Operation(lambda a, b: a.right(b.length()) == b, "{0}.endswith({1})"),
    "substring": Operation(
        lambda a, value: a.substr(*(item for item in value if item is not None)),
        "{0}[slice_of({value})]",
    ),
    "year": Operation(_part("year"), "{0}.year"),
    "month": Operation(_part("month"), "{0}.month"),
    "day": Operation(_part("day"), "{0}.day"),
    "hour": Operation(_part("hour"), "{0}.hour"),
    "minute": Operation(_part("minute"), "{0}.minute"),
    "second": Operation(_part("second"), "{0}.second"),
    "day_of_week": Operation(lambda a: a.day_of_week.index().cast("int64"), "{0}.weekday()"),
    "epoch_seconds": Operation(_epoch_seconds, "epoch_seconds({0})"),
}
"""All operations but ``if`` and ``coalesce``, which compute only what they need."""
_PARTS = frozenset(("year", "month", "day", "hour", "minute", "second", "day_of_week"))
"""Operations on the wall clock, which is that of UTC."""
_BY_INSTANT = frozenset({*_SYMBOLS, "epoch_seconds"})
"""Operations that compare times, which some engines keep as text."""


def value_of(node: Node, inputs: Mapping[str, ir.Value], capabilities: Capabilities) -> ir.Value:
    """Return a tree as an Ibis value over the values of its inputs."""
    made: dict[int, ir.Value] = {}

    def value(node: Node) -> ir.Value:
        if id(node) not in made:
            made[id(node)] = _value(node, [value(arg) for arg in node.args], inputs, capabilities)
        return made[id(node)]

    return value(node)


def _value(
    node: Node, args: list[ir.Value], inputs: Mapping[str, ir.Value], capabilities: Capabilities
) -> ir.Value:
    import ibis

    match node.operation:
        case "input":
            return inputs[node.value].cast(node.dtype)
        case "literal":
            return _literal(node.value, node.dtype)
        case "if":
            return ibis.ifelse(*args)
        case "coalesce":
            return ibis.coalesce(*args)
    zoned = bool(args) and node.args[0].dtype == "timestamp('UTC')"
    if node.operation in _PARTS and zoned and capabilities.instant_type != "int64":
        args = [capabilities.instant(arg, "UTC", "down") for arg in args]
    if node.operation in _BY_INSTANT and node.args[0].dtype.startswith(("timestamp", "date")):
        args = [capabilities.instant(arg, "UTC", "down") for arg in args]
    by_number = node.args[1:] and node.args[1].operation == "literal" and node.args[1].value
    if node.operation in ("divide", "modulo") and by_number:
        return args[0] / args[1] if node.operation == "divide" else args[0] % args[1]
    operation = OPERATIONS[node.operation]
    return operation.sql(*args) if node.value is None else operation.sql(*args, node.value)


def _literal(value: Any, dtype: str) -> ir.Value:
    """Return a literal of just this type: engines read 0.1 as a decimal, and 1 as 32 bits."""
    import ibis

    if value is None:
        return ibis.null(dtype)
    if dtype == "float64":
        return ibis.literal(repr(value)).cast(dtype)
    if dtype in ("int64", "date"):
        return ibis.literal(value).cast(dtype)
    return ibis.literal(value, type=dtype)


def is_tree(data: Any) -> bool:
    """Tell whether plain data, as a file may hold them, stand for a tree."""
    if not isinstance(data, list) or not data:
        return False
    for place, item in enumerate(data):
        if not isinstance(item, list) or len(item) != 4:
            return False
        operation, dtype, value, args = item
        values = value if isinstance(value, list) else [value]
        if (
            operation not in {"input", "literal", "if", "coalesce", *OPERATIONS}
            or not isinstance(dtype, str)
            or not isinstance(args, list)
            or not all(type(arg) is int and 0 <= arg < place for arg in args)
            or not all(one is None or isinstance(one, bool | int | float | str) for one in values)
        ):
            return False
    return True
