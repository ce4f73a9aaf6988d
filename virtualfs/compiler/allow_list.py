"""What SQL of a definition may call: an allow-list, made from each engine's own catalog.

A definition reads its own warehouse and does nothing else. Providers list the functions of their
engines. What is not listed cannot be called. What is listed, but acts on files, settings or
sessions, runs text, or gives another answer each time, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from virtualfs.errors import DefinitionError, did_you_mean

__all__ = ["FunctionCatalog", "Kind", "SqlFunction", "SqlUse", "not_rowwise", "refuse_call"]

SqlUse = Literal["query", "expression"]
"""What SQL is used as: a source's query, or a feature's row-wise expression."""
Kind = Literal["scalar", "aggregate", "window", "set"]
"""What a function is over: one row, many, a window; a set gives rows."""
_UNLIMITED = 10**6


@dataclass(frozen=True)
class SqlFunction:
    """One function, or one overload of it, as its engine describes it.

    Parameters
    ----------
    kind
        What it takes and gives: values of one row, of many rows, of a window, or rows (a ``set``).
    stability
        ``pure`` functions always give the same answer, ``clock`` functions the same within one
        statement, ``volatile`` ones another each time they are called.
    least, most
        How many arguments it takes.
    reaches_outside
        Whether it does more than compute a value from its arguments.
    """

    kind: Kind = "scalar"
    stability: Literal["pure", "clock", "volatile"] = "pure"
    least: int = 0
    most: int = _UNLIMITED
    reaches_outside: bool = False

    def takes(self, arguments: int) -> bool:
        """Return whether it can be called with so many arguments."""
        return self.least <= arguments <= self.most


@dataclass(frozen=True)
class FunctionCatalog:
    """The functions of one engine, by their names in lower case.

    Parameters
    ----------
    functions
        All overloads of each.
    is_complete
        Whether these are all functions that the engine has, so that it knows no other name.
    operators
        Operators that may not be used.
    """

    functions: Mapping[str, tuple[SqlFunction, ...]] = field(default_factory=dict)
    is_complete: bool = True
    operators: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        functions: Iterable[tuple[str, SqlFunction]],
        *,
        is_complete: bool = True,
        operators: Iterable[str] = (),
    ) -> FunctionCatalog:
        """Collect overloads by name."""
        found: dict[str, list[SqlFunction]] = {}
        for name, function in functions:
            found.setdefault(name.lower(), []).append(function)
        named = {name: tuple(overloads) for name, overloads in found.items()}
        return cls(named, is_complete, frozenset(operators))

    def overloads(self, name: str, arguments: int) -> tuple[SqlFunction, ...]:
        """Return what a call may mean: the overloads of as many arguments, or else all."""
        known = self.functions.get(name.lower(), ())
        return tuple(each for each in known if each.takes(arguments)) or known


_KINDS = {"aggregate": "an aggregate", "window": "a window function", "set": "unnesting"}


def refuse_call(
    catalog: FunctionCatalog, name: str, arguments: int, use: SqlUse, *, in_from: bool = False
) -> None:
    """Refuse a call that a definition may not make.

    Parameters
    ----------
    in_from
        Whether the call is an item of FROM.

    Raises
    ------
    DefinitionError
        It may not.
    """
    known = catalog.overloads(name, arguments)
    # One name may be a table's and a value's; its place tells which.
    meant = tuple(each for each in known if (each.kind == "set") == in_from) or known
    shown = f"{name.lower()}()"
    if not meant:
        if catalog.is_complete:
            return  # the engine itself says that there is none
        raise DefinitionError(
            f"{shown} is not among the functions that a definition may call. "
            f"{did_you_mean(name.lower(), catalog.functions)}"
        )
    if any(each.reaches_outside for each in meant):
        advice = "use path= for files" if re.search(r"read|scan|csv|parquet|json|glob", name) else (
            "a definition computes values of rows and nothing else"
        )  # fmt: skip
        raise DefinitionError(f"{shown} reads outside the warehouse's tables; {advice}")
    if any(each.stability == "volatile" for each in meant) or (
        use == "expression" and any(each.stability == "clock" for each in meant)
    ):
        raise DefinitionError(
            f"{shown} gives another answer on each run, so it cannot be part of a definition"
        )
    if in_from and not any(each.kind == "set" for each in meant):
        raise DefinitionError(f"{shown} gives no rows, so it cannot stand in FROM")
    if use == "expression" and all(each.kind != "scalar" for each in meant):
        raise DefinitionError(not_rowwise(_KINDS[meant[0].kind]))


def not_rowwise(what: str) -> str:
    """Return why an expression is refused that sees more than one row."""
    return f"{what} is not row-wise. An expression sees one row; put more into a query= source"
