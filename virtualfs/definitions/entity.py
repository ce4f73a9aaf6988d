"""Entities: the things that features describe, and the keys that name them."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import field_validator

from virtualfs.definitions.base import ApiName, Definition, FeatureName, Model
from virtualfs.dtypes import DTypeName

__all__ = ["Entity"]


class Entity(Definition):
    """A thing that features describe, such as an airport or a customer.

    Parameters
    ----------
    name
        Name of the entity, unique in its project.
    join_keys
        Column names and data types that together identify one entity, in order.
    description, owner, tags
        For people; they carry no meaning for values and make no new version.
    graphql_name, graphql_plural
        How one and many of it are called in GraphQL; the name in camel case, and that with an s,
        when empty.

    Raises
    ------
    DefinitionError
        There are no join keys, or a name or type is malformed.

    Examples
    --------
    >>> Entity("airport", join_keys={"origin": "string"}).join_keys
    {'origin': 'string'}
    """

    join_keys: dict[FeatureName, DTypeName]
    graphql_name: ApiName = ""
    graphql_plural: ApiName = ""

    def __init__(
        self,
        name: str,
        join_keys: Mapping[str, str],
        *,
        description: str = "",
        owner: str = "",
        tags: Mapping[str, str] | None = None,
        graphql_name: str = "",
        graphql_plural: str = "",
    ) -> None:
        Model.__init__(
            self,
            name=name,
            join_keys=join_keys,
            description=description,
            owner=owner,
            tags=tags or {},
            graphql_name=graphql_name,
            graphql_plural=graphql_plural,
        )

    @field_validator("join_keys")
    @classmethod
    def _some_keys(cls, keys: dict[str, str]) -> dict[str, str]:
        if not keys:
            raise ValueError(
                "an entity needs at least one join key, for example {'origin': 'string'}; "
                "features without a key belong to a view with entities=[]"
            )
        return keys
