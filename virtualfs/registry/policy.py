"""What a team wants of its catalog, checked before anything is planned."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from virtualfs.config import Policy
from virtualfs.definitions.base import Definition
from virtualfs.definitions.project import VIEW_KINDS, kind_in_words
from virtualfs.errors import DefinitionError

__all__ = ["check_policy"]


def check_policy(policy: Policy, definitions: Mapping[str, Mapping[str, Definition]]) -> None:
    """Refuse definitions that a policy does not allow; all findings at once.

    Parameters
    ----------
    definitions
        By kind and name.

    Raises
    ------
    DefinitionError
        Something lacks what the policy requires, or has a name that it does not allow.
    """
    found = list(_findings(policy, definitions))
    if found:
        raise DefinitionError("[policy] of the configuration refuses:\n  " + "\n  ".join(found))


def _findings(policy: Policy, definitions: Mapping[str, Mapping[str, Definition]]) -> Iterator[str]:
    for kind, items in definitions.items():
        for name, item in items.items():
            where = f"{kind_in_words(kind)} {name!r}"
            yield from _name(policy.names, kind, name, where)
            if kind != "source":  # a source is a part of its views
                yield from _lacking(policy.require, item, where)
            if kind in VIEW_KINDS:
                for feature in item.features:  # type: ignore[attr-defined]
                    inside = f"feature '{name}:{feature.name}'"
                    yield from _name(policy.names, "feature", feature.name, inside)
                    yield from _lacking(policy.require_features, feature, inside)


def _lacking(required: tuple[str, ...], item: Any, where: str) -> Iterator[str]:
    for wanted in required:
        field, _, tag = wanted.partition(".")
        value = getattr(item, field)
        if not (value.get(tag) if tag else value):
            yield f"{where} needs {'the tag ' + repr(tag) if tag else f'{field}='}"


def _name(patterns: Mapping[Any, str], kind: str, name: str, where: str) -> Iterator[str]:
    pattern = patterns.get(kind)
    if pattern is not None and not re.fullmatch(pattern, name):
        yield f"{where} has a name that does not match {pattern}"
