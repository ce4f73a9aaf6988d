"""Feature services: the features that one model uses, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import field_validator

from virtualfs.definitions.base import ApiName, Definition, Deprecated, Model
from virtualfs.definitions.feature_view import AnyView, FeatureSelection

__all__ = ["FeatureService", "as_selections"]


class FeatureService(Definition):
    """The features that one model uses, in the order in which it takes them.

    Parameters
    ----------
    name
        Name of the service, unique in its project.
    features
        Views (``view``), selections (``view[["a", "b"]]``) or names of views.
    deprecated
        Why it should no longer be used, and what to use instead: callers are warned, and GraphQL
        says so.
    graphql_name
        How it is called in GraphQL; its name in camel case when empty.

    Raises
    ------
    DefinitionError
        There are no features, or an item is something else.
    """

    features: tuple[FeatureSelection, ...]
    deprecated: Deprecated = ""
    graphql_name: ApiName = ""

    def __init__(
        self,
        name: str,
        features: Sequence[AnyView | FeatureSelection | str],
        *,
        description: str = "",
        owner: str = "",
        tags: Mapping[str, str] | None = None,
        deprecated: str = "",
        graphql_name: str = "",
        **unknown: Any,
    ) -> None:
        Model.__init__(
            self,
            name=name,
            features=features,
            description=description,
            owner=owner,
            tags=tags or {},
            deprecated=deprecated,
            graphql_name=graphql_name,
            **unknown,
        )

    @field_validator("features", mode="before")
    @classmethod
    def _selections(cls, features: Any) -> Any:
        if not features:
            raise ValueError("features must be a list with at least one view or selection")
        return as_selections(features, "features")


def as_selections(items: Any, what: str) -> Any:
    """Return views, selections and names of views as selections.

    Raises
    ------
    ValueError
        It is no list.
    """
    if isinstance(items, str) or not isinstance(items, Sequence):
        raise ValueError(f"{what} must be a list of views or selections")
    return tuple({"view": item} if isinstance(item, str | Definition) else item for item in items)
