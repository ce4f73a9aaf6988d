"""From a definition and its source's schema to a resolved view, its expressions as SQL."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from virtualfs.capabilities import Capabilities
from virtualfs.compiler import sql
from virtualfs.compiler.allow_list import SqlUse
from virtualfs.compiler.functions import result_type
from virtualfs.compiler.plan import (
    RESERVED,
    Partition,
    ResolvedAggregate,
    ResolvedFeature,
    ResolvedView,
    TimeRange,
)
from virtualfs.compiler.source_sql import (
    ViewExpressions,
    check_source,
    relation,
    renamed,
    source_text,
)
from virtualfs.definitions.aggregate import FUNCTIONS, Aggregate
from virtualfs.definitions.base import fingerprint
from virtualfs.definitions.duration import format_duration
from virtualfs.definitions.expression import Expression
from virtualfs.definitions.feature_view import Feature, FeatureView
from virtualfs.definitions.source import Source
from virtualfs.dtypes import is_lossless, key_family, type_name
from virtualfs.errors import (
    DefinitionError,
    UnsupportedByWarehouseError,
    did_you_mean,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import ibis.expr.datatypes as dt
    import ibis.expr.types as ir

    Schema = Mapping[str, dt.DataType]
    Describe = Callable[[str], Schema]
    Judge = Callable[[str, SqlUse], None]

__all__ = ["column_type", "resolve_view"]

_INPUT = "__input_"
"""Begins the names of columns that aggregates with a condition are over."""


def resolve_view(
    view: FeatureView,
    source: Source,
    join_keys: Mapping[str, str],
    capabilities: Capabilities,
    describe: Describe,
    judge: Judge,
    rendered: Mapping[str, str],
) -> ResolvedView:
    """Resolve a view against its warehouse.

    Parameters
    ----------
    view, source
        The definitions; the view holds names of its source and entities.
    join_keys
        The view's join keys with their declared types.
    capabilities
        Of the warehouse.
    describe
        Returns the columns and types of a SELECT without running it.
    judge
        Refuses SQL that does anything but read its warehouse.
    rendered
        SQL of features rendered before from the same written form, by feature. Used where the
        live expression is gone, as after a read from the registry.

    Raises
    ------
    DefinitionError
        A column is missing, a type does not fit, or an expression is not row-wise.
    """
    where = f"feature view {view.name!r}"
    check_source(source, judge)
    place = relation(source, capabilities)
    described = describe(sql.select_all(place, capabilities))
    for column in source.columns:
        _column(column, described, f"source {source.name!r}, columns=")
    named: dict[str, str] = {}
    for column in described:
        name = source.columns.get(column, column)
        other = named.setdefault(name, column)
        if other != column:
            raise DefinitionError(
                f"source {source.name!r}, columns=: {other!r} and {column!r} would both be called "
                f"{name!r}; give the other one a name too"
            )
    schema = {name: described[column] for name, column in named.items()}

    for key, dtype in join_keys.items():
        _check_key(_column(key, schema, f"{where}, join key"), dtype, f"{where}, join key {key!r}")
    for role in ("event_timestamp", "created_timestamp", "valid_from", "valid_to"):
        column = getattr(source, role)
        if column is not None:
            inside = f"{where}, {role}"
            _check_time(
                _column(column, schema, inside), f"{inside} {column!r}", source, capabilities
            )

    # 1. Every column of a row by name: keys and times first, then features.
    times = (source.event_time, source.created_timestamp, source.valid_to)
    fixed = [*dict.fromkeys([*join_keys, *filter(None, times)])]
    columns: dict[str, exp.Expr] = {name: sql.column(name) for name in fixed}
    features = [feature for feature in view.features if isinstance(feature, Feature)]
    expressions = ViewExpressions(view, schema, capabilities, judge)
    inputs = _aggregate_inputs(view, schema, columns, capabilities, rendered, expressions)
    texts = {}
    for feature in features:
        inside = f"{where}, feature {feature.name!r}"
        text = _feature_sql(feature, schema, capabilities, inside, rendered)
        texts[feature.name] = text
        tree: exp.Expr = sql.column(feature.name)
        if feature.expr is not None:
            tree = expressions.column(text, inside)
        if feature.name in columns and columns[feature.name] != tree:
            raise DefinitionError(
                f"{inside}: the name is that of a key or time column with another value; rename it"
            )
        columns[feature.name] = tree

    names = [*dict.fromkeys([*columns, *(feature.name for feature in view.features)])]
    names = [name for name in names if not name.startswith(_INPUT)]
    _check_names(names, capabilities, where)
    folded: dict[str, str] = {}
    for name in names:
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            raise DefinitionError(
                f"{where}: {other!r} and {name!r} differ only in case; rename one"
            )

    # 2. The warehouse says what types the expressions have; casts must keep every value.
    found = {
        name: schema[tree.name] for name, tree in columns.items() if isinstance(tree, exp.Column)
    }
    read = expressions.read([*fixed, *(tree.name for tree in columns.values())])
    place = renamed(place, named, read)
    rows_sql = _select(columns, place, capabilities)
    if len(found) < len(columns):
        found = dict(expressions.described(rows_sql, describe))
    if list(found) != list(columns):
        raise DefinitionError(f"{where}: expected the columns {list(columns)}, found {list(found)}")
    for feature in features:
        if feature.dtype is None:
            continue
        import ibis

        wanted = ibis.dtype(feature.dtype)
        if not is_lossless(found[feature.name], wanted):
            raise DefinitionError(
                f"{where}, feature {feature.name!r}: a cast from {found[feature.name]} to "
                f"{feature.dtype} could lose something; convert it in expr= where you can say how"
            )
        if feature.name not in fixed and found[feature.name] != wanted:
            columns[feature.name] = sql.cast(columns[feature.name], feature.dtype, capabilities)
    if any(feature.dtype for feature in features):
        rows_sql = _select(columns, place, capabilities)
        found = dict(describe(rows_sql))
    for aggregate, meant in inputs:
        if meant.input is not None and aggregate.column != "*":
            # Some engines lose the type of what a condition leaves.
            found = {**found, meant.input: schema[aggregate.column]}
    types = {}
    for name, dtype in found.items():
        known = type_name(dtype)
        if known is None:
            native = getattr(dtype, "raw_type", None) or dtype
            raise DefinitionError(
                f"{where}, column {name!r}: VirtualFS has no data type for {native}; convert it, "
                "for example to text, in the feature's expr= or a query= source"
            )
        types[name] = known
    resolved = [
        ResolvedFeature(
            name=feature.name,
            sql=texts[feature.name],
            dtype=types[feature.name],
            description=feature.description,
            tags=feature.tags,
            deprecated=feature.deprecated,
        )
        for feature in features
    ]
    for aggregate, meant in inputs:
        taken = found[meant.input] if meant.input else None
        resolved.append(
            ResolvedFeature(
                name=aggregate.name,
                sql=str(aggregate),
                dtype=result_type(aggregate, taken, f"{where}, aggregate {aggregate.name!r}"),
                description=aggregate.description,
                tags=aggregate.tags,
                deprecated=aggregate.deprecated,
                aggregate=meant,
            )
        )
    dtypes = {feature.name: feature.dtype for feature in resolved}
    return ResolvedView(
        name=view.name,
        fingerprint=fingerprint(_meaning(view, source, join_keys, dtypes)),
        warehouse=source.warehouse,
        entities=view.entity_names,
        join_keys=dict(join_keys),
        rows_sql=rows_sql,
        columns=types,
        features=tuple(resolved),
        event_timestamp=source.event_time,
        created_timestamp=source.created_timestamp,
        valid_to=source.valid_to,
        timezone=source.timezone,
        availability_delay=source.availability_delay or "0s",
        ttl=view.ttl,
        boundary=view.boundary or ("exclusive" if view.aggregates else "inclusive"),
        online=view.online,
        freshness=view.freshness,
        description=view.description,
        deprecated=view.deprecated,
        source_columns={
            named[name]: column_type(schema[name]) for name in read if name in schema
        },
        source_sql=source_text(source, capabilities),
        time_range=_time_range(source, named, described, where),
    )


def _time_range(
    source: Source, named: Mapping[str, str], described: Schema, where: str
) -> TimeRange | None:
    """Return by what a source of files tells when its rows happened, if it is one."""
    if source.path is None or source.event_time is None:
        return None
    column = named[source.event_time]
    partitions = []
    for name, unit in source.partitions.items():
        if name not in described:
            raise DefinitionError(
                f"{where}: the source has no partition {name!r}; folders are named by it, as in "
                f"{name}=2024. {did_you_mean(name, described)}"
            )
        found = described[name]
        dtype = "integer" if found.is_integer() else "string" if found.is_string() else "timestamp"
        dtype = "date" if found.is_date() else dtype
        if dtype == "timestamp" and not found.is_timestamp():
            raise DefinitionError(f"{where}: the partition {name!r} is {found}, which says no time")
        if dtype in ("date", "timestamp") and unit != "date":
            raise DefinitionError(
                f"{where}: the partition {name!r} holds whole days, as {found}: say "
                f'partitions={{"{name}": "date"}}'
            )
        partitions.append(Partition(name=name, unit=unit, dtype=dtype))
    dtype = column_type(described[column])
    return TimeRange(column=column, dtype=dtype, partitions=tuple(partitions))


@lru_cache(maxsize=1024)
def column_type(dtype: dt.DataType) -> str:
    """Return a column's type as it is compared with what it was; whether it may be NULL is not."""
    return str(dtype).lstrip("!")


def _aggregate_inputs(
    view: FeatureView,
    schema: Schema,
    columns: dict[str, exp.Expr],
    capabilities: Capabilities,
    rendered: Mapping[str, str],
    expressions: ViewExpressions,
) -> list[tuple[Aggregate, ResolvedAggregate]]:
    """Return the aggregates with the columns that they are over, which are added to the rows'.

    What a condition leaves out is NULL there, and NULLs count in no aggregate.
    """
    made: dict[tuple[str, str | None], str | None] = {}
    found = []
    for aggregate in view.aggregates:
        where = f"feature view {view.name!r}, aggregate {aggregate.name!r}"
        if aggregate.name in columns:
            raise DefinitionError(f"{where}: the name is that of a key or time column; rename it")
        if aggregate.function not in capabilities.aggregates or (
            aggregate.n is not None and capabilities.collect is None
        ):
            what = f"{aggregate.function} with n=" if aggregate.n else aggregate.function
            able = ", ".join(name for name in FUNCTIONS if name in capabilities.aggregates)
            raise UnsupportedByWarehouseError(
                f"{where}: {capabilities.engine} cannot compute {what} inside a query; it can "
                f"{able}{' and arrays' if capabilities.collect else ''}"
            )
        counts_rows = aggregate.column == "*"
        if not counts_rows:
            _column(aggregate.column, schema, where)
        condition = None
        if aggregate.where is not None:
            condition = _expression_sql(
                aggregate.where, aggregate.name, schema, capabilities, where, rendered
            )
        place = aggregate.column, condition
        if place not in made and condition is None:
            made[place] = None if counts_rows else aggregate.column
            if not counts_rows:
                columns[aggregate.column] = sql.column(aggregate.column)
        elif place not in made:
            value: exp.Expr = exp.Literal.number(1)
            if not counts_rows:
                value = sql.column(aggregate.column)
            test = expressions.column(condition or "", where)
            made[place] = name = f"{_INPUT}{len(made)}"
            columns[name] = exp.Case(ifs=[exp.If(this=test, true=value)])
        meant = ResolvedAggregate(
            function=aggregate.function,
            input=made[place],
            window=aggregate.window,
            offset=aggregate.offset or "0s",
            n=aggregate.n,
            q=aggregate.q,
            where=condition,
        )
        found.append((aggregate, meant))
    return found


def _select(
    columns: Mapping[str, exp.Expr], place: exp.Expr, capabilities: Capabilities
) -> str:
    # Nothing is copied: the trees are only written out, and go into one SELECT after the other.
    items = [exp.Alias(this=tree, alias=sql.identifier(name)) for name, tree in columns.items()]
    return sql.text(
        exp.Select(expressions=items).from_(place, copy=False), capabilities.dialect
    )


def _feature_sql(
    feature: Feature,
    schema: Schema,
    capabilities: Capabilities,
    where: str,
    rendered: Mapping[str, str],
) -> str:
    if feature.expr is None:
        _column(feature.name, schema, where)
        return sql.quoted(feature.name, capabilities.dialect)
    return _expression_sql(feature.expr, feature.name, schema, capabilities, where, rendered)


def _expression_sql(
    expression: Expression,
    feature: str,
    schema: Schema,
    capabilities: Capabilities,
    where: str,
    rendered: Mapping[str, str],
) -> str:
    """Return a feature's or condition's SQL, as it was written or rendered."""
    if expression.language == "sql":
        return expression.text
    if expression.deferred is None:
        if feature in rendered:
            return rendered[feature]
        if isinstance(expression.made, str):
            return expression.made
        raise DefinitionError(
            f"{where}: the Ibis expression {expression.text} is known only as text; "
            "apply it again from the Python file that defines it"
        )
    return _render_deferred(expression.deferred, schema, capabilities, where)


@lru_cache(maxsize=8)
def _table(columns: tuple[tuple[str, dt.DataType], ...]) -> ir.Table:
    """Return the table that a view's expressions are over; a view has several."""
    import ibis

    return ibis.table(dict(columns), name="source")


def _render_deferred(deferred: Any, schema: Schema, capabilities: Capabilities, where: str) -> str:
    import ibis.expr.operations as ops

    table = _table(tuple(schema.items()))
    try:
        (value,) = table.bind(deferred)
        text = sql.render_rowwise(value, table, capabilities, where)
    except AttributeError as error:
        name = getattr(error, "name", None) or str(error).rsplit(" ", 1)[-1].strip("'")
        raise DefinitionError(
            f"{where}: the source has no column {name!r}. {did_you_mean(name, schema)}"
        ) from None
    except sql.expression_errors() as error:
        raise DefinitionError(f"{where}: {sql.brief(error)}") from None
    if value.op().find((ops.Impure, ops.TimestampNow, ops.DateNow)):
        raise DefinitionError(f"{where}: the clock and chance cannot be part of a feature")
    return text


def _column(name: str, schema: Schema, where: str) -> dt.DataType:
    if name not in schema:
        raise DefinitionError(
            f"{where}: the source has no column {name!r}. {did_you_mean(name, schema)}"
        )
    return schema[name]


def _check_key(found: dt.DataType, declared: str, where: str) -> None:
    import ibis

    if key_family(found) != key_family(ibis.dtype(declared)):
        raise DefinitionError(
            f"{where}: the entity says {declared} but the source's column is {found}; "
            "change the entity's join_keys or convert the column in a query= source"
        )


def _check_names(names: list[str], capabilities: Capabilities, where: str) -> None:
    limit = capabilities.max_identifier
    for name in names:
        if any(ord(char) < 32 for char in name):
            raise DefinitionError(
                f"{where}, column {name!r}: names may not hold control characters; rename it with "
                "columns= of the source"
            )
        if name.startswith(RESERVED):
            raise DefinitionError(
                f"{where}, column {name!r}: names that start with '{RESERVED}' are reserved; "
                "rename it with columns= of the source"
            )
        if limit is not None and len(name.encode()) > limit:
            raise DefinitionError(
                f"{where}, column {name!r}: {capabilities.engine} cuts names off after {limit} "
                "bytes; choose a shorter one"
            )


def _check_time(found: dt.DataType, where: str, source: Source, capabilities: Capabilities) -> None:
    naive = found.is_date() or (found.is_timestamp() and found.timezone is None)
    if naive and source.timezone != "UTC" and not capabilities.time_zones:
        raise UnsupportedByWarehouseError(
            f"{where}: {capabilities.engine} knows no time zones, so naive times cannot be read in "
            f"{source.timezone}; store instants in UTC, or with their offset"
        )
    if not (found.is_timestamp() or found.is_date()):
        raise DefinitionError(
            f"{where}: expected a timestamp or date column, found {found}; "
            "convert it in a query= source"
        )


def _meaning(
    view: FeatureView, source: Source, join_keys: Mapping[str, str], types: Mapping[str, str]
) -> dict[str, Any]:
    where_from = ("table", "query", "path", "warehouse", "columns", "timezone")
    times = ("event_timestamp", "created_timestamp")
    delay = source.availability_delay
    files = source.model_dump(mode="json", include={"format", "version", "as_of", "partitions"})
    return {
        "view": view.name,
        "join_keys": list(join_keys.items()),
        "source": {name: getattr(source, name) for name in where_from + times},
        "availability_delay": format_duration(delay) if delay else None,
        "features": [
            {"name": feature.name, **_said(feature), "dtype": types[feature.name]}
            for feature in view.features
        ],
        "ttl": format_duration(view.ttl) if view.ttl else None,
        "boundary": view.boundary or ("exclusive" if view.aggregates else "inclusive"),
        # Written only where it is said, so that older definitions keep their fingerprints.
        **({"valid": [source.valid_from, source.valid_to]} if source.valid_from else {}),
        **({"files": files} if files else {}),
    }


def _said(feature: Feature | Aggregate) -> dict[str, Any]:
    """Return what a feature means, as it was written."""

    def written(expression: Expression | None) -> list[str] | None:
        return None if expression is None else [expression.language, expression.text]

    if isinstance(feature, Feature):
        return {"expr": written(feature.expr)}
    kept = feature.model_dump(
        mode="json",
        exclude={"name", "where", "description", "tags", "deprecated", "graphql_name"},
    )
    return {"aggregate": kept, "where": written(feature.where)}
