"""Keys, request inputs and rows that come as JSON, in the data types that they are meant in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import Any

from virtualfs.compiler.plan import FeaturePlan, Part, ResolvedView
from virtualfs.compiler.training_set import PREFIX
from virtualfs.errors import NotFoundError, SpineError
from virtualfs.serving.request import entity_keys, request_rows
from virtualfs_graphql.request import Asked
from virtualfs_graphql.scalars import from_json, wire_of

__all__ = [
    "asked_for",
    "checked_keys",
    "is_plain",
    "plan_inputs",
    "typed_columns",
    "wires_of",
]


def plan_inputs(
    plan: FeaturePlan, entities: Sequence[Any], request: Sequence[Any] | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the join keys and request inputs of entities that came as JSON, checked.

    Parameters
    ----------
    request
        One object for all entities, or one for each.

    Raises
    ------
    SpineError
        A key or an input is missing or mistyped.
    """
    keys = checked_keys(plan, entities)
    typed = typed_request(plan, request)
    given = typed[0] if typed is not None and len(typed) == 1 else typed
    return keys, request_rows(plan, given, keys)


def checked_keys(plan: FeaturePlan | ResolvedView, entities: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the join keys of entities that came as JSON, checked and in canonical types.

    Raises
    ------
    SpineError
        A join key is missing or mistyped; the message says at which entity.
    """
    if isinstance(plan, ResolvedView):
        plan = _key_plan(plan)
    try:
        columns = {name: [entity[name] for entity in entities] for name in plan.key_columns}
        if all(is_plain(columns[name], dtype) for name, dtype in plan.key_columns.items()):
            return entity_keys(plan, entities)
    except (KeyError, TypeError, IndexError):
        pass  # told below, at which entity
    typed = []
    for number, entity in enumerate(entities):
        if not isinstance(entity, Mapping):
            raise SpineError(f"entity {number} is not an object of join keys")
        keys = {
            name: from_json(entity[name], dtype, f"entity {number}, join key {name!r}")
            for name, dtype in plan.key_columns.items()
            if name in entity
        }
        typed.append({**entity, **keys})
    return entity_keys(plan, typed)


@lru_cache(maxsize=4096)
def wires_of(dtypes: tuple[str, ...]) -> Sequence[Callable[[Any], Any] | None]:
    """Return what makes JSON of values of some types, in order; nothing where that is all they are.

    They are of the columns of a plan.
    """
    found = tuple(wire_of(dtype) for dtype in dtypes)
    return found if any(found) else ()


@lru_cache(maxsize=4096)
def _key_plan(view: ResolvedView) -> FeaturePlan:
    return FeaturePlan((Part(view, tuple(view.join_keys), ()),), ())


def is_plain(values: Sequence[Any], dtype: str) -> bool:
    """Tell whether all values of a key are of its type as they came."""
    kind = _PLAIN.get(dtype)
    if kind is None or not set(map(type, values)) <= {kind}:
        return False
    return kind is not int or not values or -(2**63) <= min(values) <= max(values) < 2**63


_PLAIN = {"string": str, "int64": int, "boolean": bool}


def typed_columns(view: ResolvedView, rows: Sequence[Any]) -> list[Any]:
    """Return rows of a view that came as JSON in its data types; the core says what is wrong.

    Naive times stay as they are: they are meant in the source's zone.
    """
    types = {**view.columns, **{feature.name: feature.dtype for feature in view.features}}
    typed: list[Any] = []
    for row in rows:
        if not isinstance(row, Mapping):
            typed.append(row)
            continue
        found = dict(row)
        for name, dtype in types.items():
            value = row.get(name)
            if isinstance(value, str) and dtype.startswith("timestamp"):
                with suppress(ValueError):
                    found[name] = datetime.fromisoformat(value)
            elif value is not None:
                with suppress(SpineError):
                    found[name] = from_json(value, dtype, name)
        typed.append(found)
    return typed


def typed_request(plan: FeaturePlan, request: Sequence[Any] | None) -> list[dict[str, Any]] | None:
    """Return request inputs that came as JSON in their data types; what lacks is the core's to say.

    Raises
    ------
    SpineError
        An entry is no object, or a value cannot be read as its type.
    """
    if request is None:
        return None
    typed = []
    for number, given in enumerate(request):
        if not isinstance(given, Mapping):
            raise SpineError(f"request {number} is not an object of request inputs")
        where = f"request {number}, input"
        read = {
            name: from_json(given[name], dtype, f"{where} {name!r}")
            for name, dtype in plan.request.items()
            if name in given
        }
        typed.append({**given, **read})
    return typed


def asked_for(
    service: str | None, features: Sequence[str] | None, training_set: str | None = None
) -> Asked:
    """Return what a request asks for, from its arguments of which one must be given.

    Raises
    ------
    SpineError, NotFoundError
        Several are given, or none; the service's name is a reference, the training set's none.
    """
    if (service, features, training_set).count(None) != 2:
        raise SpineError("give one of service:, features: and trainingSet:")
    if training_set is not None:
        training_set = training_set.removeprefix(PREFIX)
        if "@" not in training_set:
            raise NotFoundError(
                f"{training_set!r} names no version of a training set; write it as in 'name@1'"
            )
        return f"{PREFIX}{training_set}"
    if service is None:
        return tuple(features or ())
    if ":" in service:
        raise NotFoundError(f"{service!r} is not a service's name; pass it in features: [...]")
    return service
