"""The schema as text, with the keys that a gateway composes by."""

from __future__ import annotations

import re
from dataclasses import replace

from graphql import (
    DefinitionNode,
    DocumentNode,
    GraphQLSchema,
    ObjectTypeDefinitionNode,
    parse,
    print_ast,
    print_schema,
)
from virtualfs_graphql.generated import KEY

__all__ = ["schema_sdl", "subgraph_sdl"]

_LINK = """extend schema @link(
  url: "https://specs.apollo.dev/federation/v2.3", import: ["@key"]
)

"""
_OF_GATEWAYS = {"_Any", "_Entity", "_FieldSet", "_Service", KEY.name}
_GATEWAY_FIELDS = {"_entities", "_service"}


def schema_sdl(schema: GraphQLSchema) -> str:
    """Return the whole schema; the keys of entities stand as directives at their types."""

    def keyed(match: re.Match[str]) -> str:
        fields = _key(schema, match[1])
        return match[0] if fields is None else f'type {match[1]} @key(fields: "{fields}") {{'

    return re.sub(r"^type (\w+) \{$", keyed, print_schema(schema), flags=re.MULTILINE) + "\n"


def subgraph_sdl(schema: GraphQLSchema) -> str:
    """Return the schema as a gateway composes it: without what every subgraph has."""
    kept = tuple(
        _without_gateway_fields(node)
        for node in _with_keys(schema).definitions
        if getattr(getattr(node, "name", None), "value", None) not in _OF_GATEWAYS
    )
    return _LINK + print_ast(DocumentNode(definitions=kept)) + "\n"


def _without_gateway_fields(node: DefinitionNode) -> DefinitionNode:
    if not isinstance(node, ObjectTypeDefinitionNode) or node.name.value != "Query":
        return node
    fields = [item for item in node.fields or () if item.name.value not in _GATEWAY_FIELDS]
    return replace(node, fields=tuple(fields))


def _with_keys(schema: GraphQLSchema) -> DocumentNode:
    document = parse(print_schema(schema), no_location=True)
    return replace(
        document, definitions=tuple(_with_key(node, schema) for node in document.definitions)
    )


def _with_key(node: DefinitionNode, schema: GraphQLSchema) -> DefinitionNode:
    if not isinstance(node, ObjectTypeDefinitionNode):
        return node
    fields = _key(schema, node.name.value)
    if fields is None:
        return node
    (donor,) = parse(f'type T @key(fields: "{fields}") {{ a: Int }}').definitions
    return replace(node, directives=donor.directives)  # type: ignore[attr-defined]


def _key(schema: GraphQLSchema, name: str) -> str | None:
    """Return the fields that name an entity; None for other types."""
    fields: str | None = (schema.type_map[name].extensions or {}).get(KEY.name)
    return fields
