"""Fitting transformations: the aggregates in them become numbers, computed where the rows lie."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from virtualfs.capabilities import Capabilities
from virtualfs.compiler import sql
from virtualfs.compiler.operations import Node
from virtualfs.compiler.reading import canonical, tree_of
from virtualfs.definitions.feature_view import Feature
from virtualfs.errors import DefinitionError, did_you_mean

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["Counts", "Fitting", "categories_of", "numbers_of", "over_rows", "rows_table"]

ROWS = "__virtualfs_rows"
_HUGE = 1e150
_MISSING = re.compile(r"(?:Column|'Table' object has no attribute) '(?P<name>[^']+)'")


def over_rows(table: ir.Table, rows_sql: str, capabilities: Capabilities) -> str:
    """Return the SELECT of an expression over the relation that :func:`rows_table` gives."""
    text = sql.text(sql.render(table, capabilities), capabilities.dialect)
    return text.replace(sql.quoted(ROWS, capabilities.dialect), f"(\n{rows_sql}\n)")


def rows_table(dtypes: Mapping[str, str]) -> ir.Table:
    """Return the rows of a training set as an unbound Ibis table."""
    import ibis

    return ibis.table({name: ibis.dtype(dtype) for name, dtype in dtypes.items()}, name=ROWS)


class Counts:
    """Aggregates over the rows of a training set that are asked for together, as one row."""

    def __init__(self, dtypes: Mapping[str, str]) -> None:
        self.rows = rows_table(dtypes)
        self._values: list[ir.Value] = []
        self._about: list[tuple[str, str]] = []

    def __bool__(self) -> bool:
        return bool(self._values)

    def add(self, column: str, what: str, value: ir.Value) -> None:
        """Ask for something of a column."""
        self._values.append(value)
        self._about.append((column, what))

    @property
    def table(self) -> ir.Table:
        """What is asked for."""
        return self.rows.aggregate(**{f"n{n}": value for n, value in enumerate(self._values)})

    def told(self, row: Sequence[Any]) -> dict[str, dict[str, Any]]:
        """Return the answer by column and what it is."""
        found: dict[str, dict[str, Any]] = {}
        for (column, what), value in zip(self._about, row, strict=True):
            found.setdefault(column, {})[what] = value
        return found


def numbers_of(dtypes: Mapping[str, str]) -> Counts:
    """Return what is counted of each column; of those without an order their NULLs alone."""
    import ibis

    counts = Counts(dtypes)
    rows, count = counts.rows, counts.add
    for name, dtype in dtypes.items():
        kind, value = ibis.dtype(dtype), rows[name]
        count(name, "nulls", value.isnull().ifelse(1, 0).sum())
        if kind.is_numeric() or kind.is_string() or kind.is_timestamp() or kind.is_date():
            count(name, "min", value.min())
            count(name, "max", value.max())
        if kind.is_numeric() or kind.is_boolean():
            bare = value.ifelse(1, 0) if kind.is_boolean() else value
            number = bare.cast("float64")
            # Of what is not finite, or whose square is not, there is no mean that says anything.
            finite = number.between(-_HUGE, _HUGE)
            if kind.is_floating():
                count(name, "not_finite", (value.notnull() & ~finite).ifelse(1, 0).sum())
            count(name, "mean", number.mean(where=finite))
            count(name, "std", number.std(how="sample", where=finite))
    return counts


def categories_of(dtypes: Mapping[str, str], column: str, most: int) -> ir.Table:
    """Return the categories of a column and how often each is there, the most frequent first."""
    import ibis

    if column not in dtypes:
        raise DefinitionError(
            f"the training set has no feature {column!r}. {did_you_mean(column, dtypes)}"
        )
    kind = ibis.dtype(dtypes[column])
    if not (kind.is_string() or kind.is_integer() or kind.is_boolean()):
        raise DefinitionError(f"{column!r} is {kind}; categories are strings, integers or booleans")
    rows = rows_table(dtypes)
    held = rows.filter(rows[column].notnull())
    counted = held.group_by(category=held[column]).aggregate(times=held.count())
    return counted.order_by([ibis.desc("times"), "category"]).limit(most)


@dataclass(frozen=True)
class Fitting:
    """Expressions over a training set, and the aggregates in them.

    Parameters
    ----------
    values
        The expression of each feature, as Ibis values.
    parameters
        The aggregates in them, each once, with what each is called.
    """

    values: Mapping[str, ir.Value]
    parameters: Mapping[Any, str]
    dtypes: Mapping[str, str]

    @classmethod
    def of(cls, features: Sequence[Feature], dtypes: Mapping[str, str]) -> Fitting:
        """Read expressions over features of a training set.

        Raises
        ------
        DefinitionError
            One reads what is no feature, or holds a window function.
        """
        import ibis
        import ibis.expr.operations as ops

        typed = {name: canonical(ibis.dtype(dtype)) or dtype for name, dtype in dtypes.items()}
        table = rows_table(typed)
        values: dict[str, ir.Value] = {}
        parameters: dict[Any, str] = {}
        errors: tuple[type[Exception], ...] = (AttributeError, *sql.expression_errors())
        for feature in features:
            where = f"transformation {feature.name!r}"
            if feature.name in values:
                raise DefinitionError(f"{where} is given twice; give one another name")
            if feature.dtype is not None:
                raise DefinitionError(
                    f"{where}: a transformation has the type of its expression; say how it becomes "
                    "another in it, as in .cast('float64'), and leave dtype= out"
                )
            if feature.expr is None or feature.expr.deferred is None:
                raise DefinitionError(
                    f"{where} needs an Ibis expression, such as _.temp - _.temp.mean()"
                )
            try:
                (value,) = table.bind(feature.expr.deferred)
            except errors as error:
                missing = _MISSING.search(str(error))
                if missing is None:
                    raise DefinitionError(f"{where}: {sql.brief(error)}") from None
                raise DefinitionError(
                    f"{where}: the training set has no feature {missing['name']!r}. "
                    f"{did_you_mean(missing['name'], dtypes)}"
                ) from None
            if value.op().find(ops.WindowFunction):
                raise DefinitionError(f"{where}: window functions depend on a row's neighbours")
            values[feature.name] = value
            for found in value.op().find(ops.Reduction):
                if isinstance(found, (ops.First, ops.Last, ops.Arbitrary, ops.ArrayCollect)):
                    raise DefinitionError(
                        f"{where}: {type(found).__name__.lower()} depends on the order of rows, "
                        "and those of a training set have none that means anything"
                    )
                parameters.setdefault(found, _called(found, len(parameters)))
        return cls(values, parameters, typed)

    def aggregates(self) -> ir.Table | None:
        """Return the parameters as one row; None if there are none."""
        if not self.parameters:
            return None
        table = rows_table(self.dtypes)
        named = {f"p{n}": op.to_expr() for n, op in enumerate(self.parameters)}
        return table.aggregate(**named)

    @property
    def kinds(self) -> list[str]:
        """Of each parameter, what kind of value it is."""
        names = []
        for op in self.parameters:
            kind = op.dtype
            plain = "timestamp" if kind.is_timestamp() else str(kind).lstrip("!")
            names.append(plain)
        return names

    @property
    def read(self) -> set[str]:
        """Columns that the expressions read."""
        import ibis.expr.operations as ops

        return {
            field.name for value in self.values.values() for field in value.op().find(ops.Field)
        }

    def named(self, feature: str) -> list[str]:
        """Return the parameters of one feature."""
        import ibis.expr.operations as ops

        return [self.parameters[op] for op in self.values[feature].op().find(ops.Reduction)]

    def trees(self, row: Sequence[Any]) -> dict[str, Node]:
        """Return the expressions with the parameters in the place of aggregates.

        Raises
        ------
        DefinitionError
            A parameter is NULL, as of a column without values.
        """
        import ibis.expr.operations as ops

        literals = {}
        for (op, name), value in zip(self.parameters.items(), row, strict=True):
            if value is None:
                raise DefinitionError(
                    f"{name} is NULL: the training set has no values to fit it to"
                )
            dtype = op.dtype.copy(nullable=False)
            literals[op] = ops.Literal(float(value) if dtype.is_decimal() else value, dtype)
        return {
            name: tree_of(value.op().replace(literals).to_expr(), f"transformation {name!r}")
            for name, value in self.values.items()
        }


def _called(op: Any, number: int) -> str:
    import ibis.expr.operations as ops

    columns = [field.name for field in op.find(ops.Field)]
    plain = op.__class__.__name__.lower()
    return f"{plain}({', '.join(columns)})" if columns else f"{plain} #{number}"
