"""Aggregates: functions over the events of a time window that ends at any instant."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from virtualfs.definitions.base import ApiName, Deprecated, FeatureName, Model, check_feature_name
from virtualfs.definitions.duration import PositiveDuration, format_in_one_unit
from virtualfs.definitions.expression import Expression

__all__ = ["COUNTS", "FUNCTIONS", "Aggregate", "Function"]

Function = Literal[
    "count", "sum", "mean", "min", "max", "std", "var", "count_distinct", "first", "last",
    "quantile", "median", "approx_count_distinct",
]  # fmt: skip
FUNCTIONS: tuple[Function, ...] = get_args(Function)
"""The functions that an aggregate may have, all but ``approx_*`` exact."""
COUNTS: frozenset[Function] = frozenset(("count", "count_distinct", "approx_count_distinct"))
"""The functions that give 0, and not NULL, where there is nothing."""


class Aggregate(Model):
    """One function over a column of the rows in a time window.

    The window ends at the instant that is asked for: ``[t - window, t)``, or ``(t - window, t]`` in
    a view with ``boundary="inclusive"``. NULL values are skipped. With nothing in the window counts
    are 0 and all else is NULL.

    Parameters
    ----------
    column
        Column of the source; ``"*"`` counts rows.
    function
        count, sum, mean, min, max, std, var (of a sample), count_distinct, first, last, quantile,
        median or approx_count_distinct. first and last go by event and created timestamp.
    window
        Length of the window, such as ``"7d"``; None for everything so far.
    name
        Name of the feature; made of the rest when None, such as ``dep_delay_mean_7d``.
    where
        Row-wise condition that rows must meet, an Ibis deferred or SQL text.
    offset
        How long before the instant the window ends.
    n
        With first and last: how many values, as an array, the oldest first.
    q
        With quantile: which, from 0 to 1.
    deprecated
        Why it should no longer be used, and what to use instead: callers are warned, and GraphQL
        says so.
    graphql_name
        How it is called in GraphQL; its name in camel case when empty.

    Examples
    --------
    >>> Aggregate("delay", "mean", "24h").name, Aggregate("*", "count", None, offset="1d").name
    ('delay_mean_1d', 'count_lifetime_offset_1d')
    """

    column: FeatureName
    function: Function
    window: PositiveDuration | None
    name: str = ""
    where: Expression | None = None
    offset: PositiveDuration | None = None
    n: Annotated[int, Field(ge=1, strict=True)] | None = None
    q: Annotated[float, Field(ge=0, le=1)] | None = None
    description: str = ""
    tags: dict[str, str] = {}
    deprecated: Deprecated = ""
    graphql_name: ApiName = ""

    def __init__(
        self,
        column: str,
        function: str,
        window: str | timedelta | None,
        *,
        name: str = "",
        where: Any = None,
        offset: str | timedelta | None = None,
        n: int | None = None,
        q: float | None = None,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        deprecated: str = "",
        graphql_name: str = "",
        **unknown: Any,
    ) -> None:
        Model.__init__(
            self,
            column=column,
            function=function,
            window=window,
            name=name,
            where=where,
            offset=offset,
            n=n,
            q=q,
            description=description,
            tags=tags or {},
            deprecated=deprecated,
            graphql_name=graphql_name,
            **unknown,
        )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.column == "*" and self.function != "count":
            raise ValueError(f'"*" can only be counted; name the column that {self.function} is of')
        if self.n is not None and self.function not in ("first", "last"):
            raise ValueError(f"n= is for first and last, not for {self.function}")
        if (self.q is not None) != (self.function == "quantile"):
            raise ValueError("quantile needs q=, from 0 to 1, and nothing else takes it")
        # Frozen against users, not against its own beginning.
        object.__setattr__(self, "name", check_feature_name(self.name or self._default_name()))
        return self

    def _default_name(self) -> str:
        function = self.function if self.q is None else f"p{self.q * 100:g}".replace(".", "_")
        parts = [] if self.column == "*" else [self.column]
        parts += [function, *([str(self.n)] if self.n else [])]
        parts.append("lifetime" if self.window is None else format_in_one_unit(self.window))
        parts += [f"offset_{format_in_one_unit(self.offset)}"] if self.offset else []
        return "_".join(parts)

    def __str__(self) -> str:
        """Return the aggregate in words, as catalogs show it."""
        what = f"{self.function} of {self.column}" if self.column != "*" else "count of rows"
        what = what if self.n is None else f"{what}, {self.n} values"
        what = what if self.q is None else f"{what}, q={self.q:g}"
        over = "so far" if self.window is None else f"over {format_in_one_unit(self.window)}"
        until = f" until {format_in_one_unit(self.offset)} before" if self.offset else ""
        return f"{what} {over}{until}" + (f" where {self.where}" if self.where else "")
