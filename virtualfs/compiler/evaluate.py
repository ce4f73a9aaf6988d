"""On-demand expressions compiled to Python: a few machine instructions' worth per row.

A service needs answers for some entities at a time, for which building Arrow columns costs more
than computing. So all expressions of a view become one Python function with one loop, in which
each shared sub-expression is computed once, and what an ``if`` does not choose not at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any

from virtualfs.compiler.operations import OPERATIONS, Node, extreme, power, remainder, rounded
from virtualfs.errors import VirtualFSError

__all__ = ["Compute", "IntegerOverflowError", "compiled"]

Compute = Callable[[Iterable[tuple[Any, ...]]], list[tuple[Any, ...]]]
"""From rows of inputs to rows of features."""


class IntegerOverflowError(VirtualFSError, OverflowError):
    """An integer left the range of int64, as a warehouse would also refuse."""


def _overflowed(feature: str) -> None:
    raise IntegerOverflowError(
        f"on-demand feature {feature!r}: an integer left the range of int64; compute with floats, "
        "for example by casting one side to float64"
    )


def _epoch_seconds(instant: datetime) -> int:
    aware = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)


def _slice_of(place: tuple[int, int | None]) -> slice:
    start, length = place
    return slice(start, None if length is None else start + length)


_NAMES = {
    "sqrt": math.sqrt,
    "log": math.log,
    "exp": math.exp,
    "floor": math.floor,
    "ceil": math.ceil,
    "power": power,
    "remainder": remainder,
    "rounded": rounded,
    "extreme": extreme,
    "epoch_seconds": _epoch_seconds,
    "slice_of": _slice_of,
    "overflowed": _overflowed,
}


@lru_cache(maxsize=1024)
def compiled(
    inputs: tuple[str, ...], decimals: tuple[str, ...], trees: tuple[tuple[str, Node], ...]
) -> Compute:
    """Return what computes features.

    Parameters
    ----------
    inputs
        Names of the inputs, in the order of a row.
    decimals
        Those that are decimals, and are computed with as floats.
    trees
        Name and expression of each feature.
    """
    return _Writer(inputs).function(decimals, trees)


class _Writer:
    """Writes one function. Names in its text are numbers, and values are bound, never written."""

    def __init__(self, inputs: Sequence[str]) -> None:
        self._inputs = {name: f"i{number}" for number, name in enumerate(inputs)}
        self._bound: dict[str, Any] = dict(_NAMES)
        self._lines: list[str] = []
        self._count = 0
        self._feature = ""

    def function(self, decimals: Sequence[str], trees: Sequence[tuple[str, Node]]) -> Compute:
        """Return the function of some trees."""
        for name in decimals:
            held = self._inputs[name]
            self._line(2, f"if {held} is not None: {held} = float({held})")
        known: dict[Node, str] = {}
        results = []
        for name, tree in trees:
            self._feature = self._bind(name)
            results.append(self._write(tree, known, 2))
        row = "".join(f"{name}, " for name in self._inputs.values())
        head = [
            "def compute(rows):",
            "    found = []",
            f"    for {row}in rows:" if row else "    for _ in rows:",
        ]
        tail = [f"        found.append(({', '.join(results)},))", "    return found"]
        exec("\n".join([*head, *self._lines, *tail]), self._bound)  # noqa: S102 - see the class
        made: Compute = self._bound["compute"]
        return made

    def _bind(self, value: Any) -> str:
        name = f"k{len(self._bound)}"
        self._bound[name] = value
        return name

    def _new(self) -> str:
        self._count += 1
        return f"t{self._count}"

    def _line(self, depth: int, text: str) -> None:
        self._lines.append("    " * depth + text)

    def _write(self, node: Node, known: dict[Node, str], depth: int) -> str:
        """Write what computes a node, and return its name. `known` is what has been computed."""
        if node.operation == "input":
            return self._inputs[node.value]
        if node.operation == "literal":
            return "None" if node.value is None else self._bind(_constant(node))
        if node in known:
            return known[node]
        name = self._new()
        if node.operation == "if":
            condition = self._write(node.args[0], known, depth)
            for head, arg in ((f"if {condition}:", node.args[1]), ("else:", node.args[2])):
                self._line(depth, head)
                self._line(depth + 1, f"{name} = {self._write_within(arg, known, depth + 1)}")
        elif node.operation == "coalesce":
            self._line(depth, f"{name} = {self._write(node.args[0], known, depth)}")
            for arg in node.args[1:]:
                self._line(depth, f"if {name} is None:")
                self._line(depth + 1, f"{name} = {self._write_within(arg, known, depth + 1)}")
        else:
            self._line(depth, f"{name} = {self._expression(node, known, depth)}")
            if OPERATIONS[node.operation].is_checked and node.dtype == "int64":
                low, high = self._bind(-(2**63)), self._bind(2**63 - 1)
                self._line(depth, f"if {name} is not None and not {low} <= {name} <= {high}:")
                self._line(depth + 1, f"overflowed({self._feature})")
        known[node] = name
        return name

    def _write_within(self, node: Node, known: dict[Node, str], depth: int) -> str:
        """Write a branch, whose results are not known outside of it."""
        # The text of the branch must follow its head, so what it needs is written first.
        return self._write(node, dict(known), depth)

    def _expression(self, node: Node, known: dict[Node, str], depth: int) -> str:
        operation = OPERATIONS[node.operation]
        args = [self._write(arg, known, depth) for arg in node.args]
        value = "" if node.value is None else self._bind(node.value)
        text = operation.python.format(*args, value=value, all=", ".join(args))
        if not operation.strict:
            return text
        may_lack = [
            arg
            for arg, child in zip(args, node.args, strict=True)
            if child.operation != "literal" or child.value is None
        ]
        lacks = " or ".join(f"{arg} is None" for arg in dict.fromkeys(may_lack))
        return f"None if {lacks} else {text}" if lacks else text


def _constant(node: Node) -> Any:
    if node.dtype == "date":
        return date.fromisoformat(node.value)
    if node.dtype.startswith("timestamp"):
        return datetime.fromisoformat(node.value)  # in UTC, with or without saying so as its type
    return node.value
