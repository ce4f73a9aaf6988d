"""Model-dependent transformations: expressions whose parameters are fitted to a training set.

A transformation is a :class:`Feature` whose expression may hold aggregates over the training set,
as ``(_.temp - _.temp.mean()) / _.temp.std()``. When the set is saved they are computed once, where
it lies, and stand in the expression as numbers from then on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any, Literal

from pydantic import Field

from virtualfs.definitions.base import FeatureName, Model
from virtualfs.definitions.feature_view import Feature
from virtualfs.errors import DefinitionError

__all__ = [
    "Encoding", "Transformation", "impute", "min_max", "one_hot", "ordinal", "standardize",
]  # fmt: skip

_AVERAGES = ("mean", "median", "min", "max", "mode")


class Encoding(Model):
    """A column of categories as numbers; the categories are those of the training set.

    Made by :func:`one_hot` and :func:`ordinal`.
    """

    column: FeatureName
    how: Literal["one_hot", "ordinal"]
    most: int = Field(default=100, ge=1, le=1000)

    def features(self, categories: Sequence[Any]) -> list[Feature]:
        """Return what the column becomes, given its categories in order."""
        from ibis import _

        value = _[self.column]
        if self.how == "ordinal":
            codes = [(value == item).ifelse(n, 0) for n, item in enumerate(categories, 1)]
            known = _balanced([code.fill_null(0) for code in codes])
            return [Feature(self.column, known - 1)]
        names: dict[str, Any] = {}
        seen: set[str] = set()
        for item in categories:
            name = re.sub(r"[:@\x00-\x1f]", "_", f"{self.column}_{item}")
            while name.casefold() in seen:
                name += "_"
            seen.add(name.casefold())
            names[name] = item
        return [
            Feature(name, (value == item).ifelse(1, 0).fill_null(0)) for name, item in names.items()
        ]


Transformation = Feature | Encoding


def _balanced(values: list[Any]) -> Any:
    """Return a sum whose depth is the logarithm of its length."""
    while len(values) > 2:
        values = [reduce(add, values[n : n + 2]) for n in range(0, len(values), 2)]
    return reduce(add, values)


def standardize(column: str, *, name: str = "") -> Feature:
    """Return a number less its mean, in standard deviations of the training set (population).

    A column that never varies becomes 0.

    >>> standardize("temp").name
    'temp'
    """
    from ibis import _

    value = _[column].cast("float64")
    scaled = (value - value.mean()) / value.std(how="pop")
    return Feature(name or column, _unless_constant(value, scaled))


def min_max(column: str, *, name: str = "") -> Feature:
    """Return a number between 0, the training set's least, and 1, its greatest.

    Later values may lie outside; a column that never varies becomes 0.

    >>> min_max("wind_speed").name
    'wind_speed'
    """
    from ibis import _

    value = _[column].cast("float64")
    scaled = (value - value.min()) / (value.max() - value.min())
    return Feature(name or column, _unless_constant(value, scaled))


def _unless_constant(value: Any, scaled: Any) -> Any:
    # A spread that should be 0 is a little more than that where a mean has lost a digit.
    return (value.min() == value.max()).ifelse(value - value, scaled)


def impute(
    column: str,
    how: Literal["mean", "median", "min", "max", "mode"] = "mean",
    *,
    name: str = "",
) -> Feature:
    """Return a column with a value of the training set in the place of NULL.

    Means and medians are floats, and decimals become floats, as in all expressions.

    >>> impute("temp", "median").name
    'temp'
    """
    from ibis import _

    if how not in _AVERAGES:
        raise DefinitionError(f"impute({column!r}): how is one of {', '.join(_AVERAGES)}")
    value = _[column].cast("float64") if how in ("mean", "median") else _[column]
    return Feature(name or column, value.fill_null(getattr(value, how)()))


def one_hot(column: str, *, most: int = 100) -> Encoding:
    """Return a column of 0 and 1 for each category: ``carrier_AA``, ``carrier_B6``, ...

    NULL and categories that the training set has not are 0 in all of them.

    Parameters
    ----------
    most
        How many categories are kept: those that the training set has most often.

    Examples
    --------
    >>> [feature.name for feature in one_hot("carrier").features(["AA", "B6"])]
    ['carrier_AA', 'carrier_B6']
    """
    return Encoding(column=column, how="one_hot", most=most)


def ordinal(column: str, *, most: int = 100) -> Encoding:
    """Return the place of each category in order, from 0; NULL and others are -1.

    Parameters
    ----------
    most
        How many categories are kept: those that the training set has most often.
    """
    return Encoding(column=column, how="ordinal", most=most)
