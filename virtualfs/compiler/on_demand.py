"""From an on-demand view and what it reads to a resolved one, its expressions as trees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from virtualfs.compiler.operations import Node, is_tree, value_of
from virtualfs.compiler.plan import (
    RESERVED,
    ResolvedFeature,
    ResolvedInput,
    ResolvedOnDemand,
    ResolvedView,
)
from virtualfs.compiler.reading import canonical, tree_of
from virtualfs.compiler.small_sql import value_of_sql
from virtualfs.compiler.sql import brief, expression_errors, rowwise_tree
from virtualfs.definitions.base import fingerprint
from virtualfs.definitions.feature_view import Feature, FeatureSelection
from virtualfs.definitions.on_demand import OnDemandFeatureView
from virtualfs.errors import DefinitionError, did_you_mean

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from sqlglot import exp

    from virtualfs.capabilities import Capabilities

__all__ = ["expression_tree", "resolve_on_demand"]


def resolve_on_demand(
    view: OnDemandFeatureView,
    views: Mapping[str, ResolvedView],
    source_hash: str | None,
    kept: Mapping[str, list[list[Any]]],
) -> ResolvedOnDemand:
    """Resolve an on-demand view against the views that it reads.

    Parameters
    ----------
    views
        By name.
    source_hash
        Of the view's function, if it has one.
    kept
        Trees of features read before from the same written form, by feature. Used where the live
        expression is gone, as after a read from the registry.

    Raises
    ------
    DefinitionError
        An input is missing, or an expression says what has no one meaning.
    """
    where = f"on-demand feature view {view.name!r}"
    inputs = [_input(selection, views[selection.view_name], where) for selection in view.inputs]
    columns, dtypes, long_names = _columns(view, inputs, views, where)
    features = []
    for feature in view.features:
        inside = f"{where}, feature {feature.name!r}"
        if feature.expr is None:
            features.append(_resolved(feature, f"{view.function}", feature.dtype or "", None))
            continue
        tree = _tree(feature, dtypes, long_names, kept.get(feature.name), inside)
        if feature.dtype not in (None, tree.dtype):
            raise DefinitionError(
                f"{inside}: the expression is {tree.dtype}, not {feature.dtype}; say in it how it "
                "becomes so, as in .cast('float64'), or leave dtype= out"
            )
        features.append(_resolved(feature, feature.expr.text, tree.dtype, tree.to_json()))
    read = [(views[item.view].fingerprint, item.name, item.join_keys) for item in inputs]
    return ResolvedOnDemand(
        name=view.name,
        fingerprint=fingerprint(
            {
                "on_demand": view.name,
                "inputs": [
                    [*item, selection.features]
                    for item, selection in zip(read, view.inputs, strict=True)
                ],
                "request": view.request,
                "features": [
                    [feature.name, _written(feature), resolved.dtype]
                    for feature, resolved in zip(view.features, features, strict=True)
                ],
                "function": [view.function, view.mode, source_hash] if view.function else None,
            }
        ),
        inputs=tuple(inputs),
        request=view.request,
        columns=columns,
        dtypes=dtypes,
        features=tuple(features),
        function=view.function,
        mode=view.mode,
        source_hash=source_hash,
        online=view.online,
        description=view.description,
        deprecated=view.deprecated,
    )


def _resolved(
    feature: Feature, text: str, dtype: str, tree: list[list[Any]] | None
) -> ResolvedFeature:
    return ResolvedFeature(
        name=feature.name,
        sql=text,
        dtype=dtype,
        description=feature.description,
        tags=feature.tags,
        deprecated=feature.deprecated,
        tree=tree,
    )


def _written(feature: Feature) -> list[str] | None:
    return None if feature.expr is None else [feature.expr.language, feature.expr.text]


def _input(selection: FeatureSelection, view: ResolvedView, where: str) -> ResolvedInput:
    for name in selection.features or ():
        if name not in view.feature_names:
            raise DefinitionError(
                f"{where}: feature view {view.name!r} has no feature {name!r}. "
                f"{did_you_mean(name, view.feature_names)}"
            )
    return ResolvedInput(
        view=view.name,
        name=selection.name or view.name,
        join_keys=selection.join_keys,
        features=selection.features or view.feature_names,
    )


def _columns(
    view: OnDemandFeatureView,
    inputs: Sequence[ResolvedInput],
    views: Mapping[str, ResolvedView],
    where: str,
) -> tuple[dict[str, tuple[int | None, str]], dict[str, str], dict[str, str]]:
    """Return the inputs by name, their types, and the short name of each long one."""
    times = Counter(name for item in inputs for name in item.features)
    times.update(list(view.request))
    columns: dict[str, tuple[int | None, str]] = {}
    dtypes: dict[str, str] = {}
    long_names: dict[str, str] = {}
    for number, item in enumerate(inputs):
        types = {feature.name: feature.dtype for feature in views[item.view].features}
        for name in item.features:
            full = f"{item.name}__{name}"
            short = name if times[name] == 1 else full
            if short in columns:
                raise DefinitionError(
                    f"{where}: two inputs would be called {short!r}; give one selection another "
                    "name by with_name(...)"
                )
            columns[short] = (number, name)
            dtypes[short] = types[name]
            long_names[full] = short
    for name, dtype in view.request.items():
        if name.startswith(RESERVED):
            raise DefinitionError(f"{where}: names that start with '{RESERVED}' are reserved")
        if name in columns:
            raise DefinitionError(f"{where}: the request input {name!r} is also called so; rename")
        columns[name] = (None, name)
        dtypes[name] = dtype
    return columns, dtypes, long_names


def _tree(
    feature: Feature,
    dtypes: Mapping[str, str],
    long_names: Mapping[str, str],
    kept: list[list[Any]] | None,
    where: str,
) -> Node:
    import ibis

    assert feature.expr is not None
    expression = feature.expr
    if expression.language == "ibis" and expression.deferred is None:
        return _kept(expression.text, dtypes, kept or expression.made, where)
    # Typed as they are computed with, so that Ibis promotes as we do. Those that cannot be computed
    # with are there all the same, for the error that says so.
    types = {name: ibis.dtype(canonical(ibis.dtype(text)) or text) for name, text in dtypes.items()}
    types |= {full: types[short] for full, short in long_names.items()}
    table = ibis.table(types, name="inputs")
    if expression.language == "sql":
        value = value_of_sql(expression.text, table, where)
    else:
        value = _bound(expression.deferred, table, where)
    tree = tree_of(value, where)
    return _renamed(tree, {full: short for full, short in long_names.items() if full != short})


def _bound(deferred: Any, table: ir.Table, where: str) -> ir.Value:
    try:
        (value,) = table.bind(deferred)
    except AttributeError as error:
        name = getattr(error, "name", None) or str(error).rsplit(" ", 1)[-1].strip("'")
        short = [column for column in table.columns if "__" not in column]
        raise DefinitionError(
            f"{where}: there is no input {name!r}; the inputs are {', '.join(short)}. "
            f"{did_you_mean(name, table.columns)}"
        ) from None
    except expression_errors() as error:
        raise DefinitionError(f"{where}: {brief(error)}") from None
    return value


def _kept(text: str, dtypes: Mapping[str, str], kept: list[list[Any]] | None, where: str) -> Node:
    import ibis

    if kept is not None:
        if not is_tree(kept):
            raise DefinitionError(f"{where}: its tree is not one that an export wrote")
        tree = Node.from_json(kept)
        now = {name: canonical(ibis.dtype(dtype)) for name, dtype in dtypes.items()}
        if all(item[2] in now and now[item[2]] == item[1] for item in kept if item[0] == "input"):
            return tree
    raise DefinitionError(
        f"{where}: the Ibis expression {text} is known only as text, and what it reads has "
        "changed; apply it again from the Python file that defines it"
    )


def _renamed(tree: Node, names: Mapping[str, str]) -> Node:
    data = tree.to_json()
    for item in data:
        if item[0] == "input":
            item[2] = names.get(item[2], item[2])
    return Node.from_json(data)


def expression_tree(
    tree: Node,
    inputs: Sequence[tuple[str, str]],
    types: Mapping[str, str],
    capabilities: Capabilities,
) -> exp.Expr:
    """Return a tree as one of SQL.

    Parameters
    ----------
    inputs
        Pairs of input and the column that holds it.
    types
        Data types of the columns.
    """
    import ibis

    table = ibis.table({name: ibis.dtype(dtype) for name, dtype in types.items()}, name="inputs")
    values = {name: table[column] for name, column in inputs}
    value = value_of(tree, values, capabilities)
    return rowwise_tree(value, table, capabilities, "on-demand feature")
