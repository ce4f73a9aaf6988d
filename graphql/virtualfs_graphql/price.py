"""What an operation costs at least, by its text and the sizes of its variables.

It is known before a key is looked at, so that what is too expensive is refused at once. Whatever
turns out while the operation runs is charged then (:meth:`.request.Context.charge`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from graphql import (
    BooleanValueNode,
    FieldNode,
    FragmentDefinitionNode,
    GraphQLField,
    GraphQLSchema,
    ListValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_list_type,
)
from virtualfs_graphql.generated import MEANING, EntityField, PlanField, ViewField
from virtualfs_graphql.request import COLD, STATEMENT

__all__ = ["Price"]

_HISTORICAL = "historicalFeatures"
_Condition = tuple[bool | str, bool]
"""A literal or a variable's name, and what it must be."""


@dataclass(frozen=True)
class _Term:
    """What one root field costs."""

    size: int | str | None
    """Items of its list: their number, or the variable that holds them; None without a list."""
    each: int
    """Rows that one item asks for."""
    statements: int
    conditions: tuple[_Condition, ...]

    def cost(self, variables: Mapping[str, Any]) -> int:
        """Return what it costs with some variables."""
        for value, wanted in self.conditions:
            if (variables.get(value) if isinstance(value, str) else value) is not wanted:
                return 0
        items: Any = 1 if self.size is None else self.size
        if isinstance(items, str):
            given = variables.get(items)
            items = len(given) if isinstance(given, list) else 1
        return int(items) * self.each + self.statements * STATEMENT


class Price:
    """The price of one operation of a valid document."""

    def __init__(
        self,
        schema: GraphQLSchema,
        node: OperationDefinitionNode,
        fragments: Mapping[str, FragmentDefinitionNode],
    ) -> None:
        self._schema = schema
        self._fragments = fragments
        root: Any = schema.get_root_type(node.operation)
        self._terms = [
            self._term(root.fields[field.name.value], field, conditions)
            for field, conditions in self._fields(node.selection_set, ())
            if field.name.value in root.fields
        ]

    def cost(self, variables: Mapping[str, Any]) -> int:
        """Return what the operation costs at least."""
        return sum(term.cost(variables) for term in self._terms)

    def _term(
        self, field: GraphQLField, node: FieldNode, conditions: tuple[_Condition, ...]
    ) -> _Term:
        size: int | str | None = None
        is_past = False
        for argument in node.arguments or ():
            name, value = argument.name.value, argument.value
            is_past = is_past or name == "asOf"
            if is_list_type(get_nullable_type(field.args[name].type)) and name != "features":
                literal = len(value.values) if isinstance(value, ListValueNode) else 1
                size = value.name.value if isinstance(value, VariableNode) else literal
        if node.name.value == _HISTORICAL:
            return _Term(size, COLD, 1, conditions)
        meaning = (field.extensions or {}).get(MEANING)
        rows = _rows(meaning)
        if node.selection_set is not None:
            rows += self._rows_below(node.selection_set, get_named_type(field.type))
        if size is not None and meaning is None:  # entities of onlineFeatures and of gateways
            rows = max(1, rows)
        is_counted = isinstance(meaning, EntityField) or size is not None
        return _Term(size, rows + is_counted, rows if is_past else 0, conditions)

    def _rows_below(self, selected: SelectionSetNode, kind: Any) -> int:
        """Return how many rows the fields of one object ask for."""
        total = 0
        for node, _ in self._fields(selected, ()):
            for fields in self._kinds(kind):
                field = fields.get(node.name.value)
                if field is not None:
                    total += _rows((field.extensions or {}).get(MEANING))
                    break
        return total

    def _kinds(self, kind: Any) -> Iterator[Mapping[str, GraphQLField]]:
        types = getattr(kind, "types", None)  # of a union, as of all entities
        for one in types if types is not None else [kind]:
            yield getattr(one, "fields", {})

    def _fields(
        self, selected: SelectionSetNode, conditions: tuple[_Condition, ...]
    ) -> Iterator[tuple[FieldNode, tuple[_Condition, ...]]]:
        """Yield the fields of a selection, its fragments expanded, with when they are asked for."""
        for node in selected.selections:
            own = (*conditions, *_conditions(node))
            if isinstance(node, FieldNode):
                yield node, own
                continue
            inner = getattr(node, "selection_set", None)
            if inner is None:
                inner = self._fragments[node.name.value].selection_set  # type: ignore[attr-defined]
            yield from self._fields(inner, own)


def _rows(meaning: Any) -> int:
    if isinstance(meaning, ViewField):
        return 1
    return max(1, len(meaning.plan.parts)) if isinstance(meaning, PlanField) else 0


def _conditions(node: Any) -> Iterator[_Condition]:
    for directive in node.directives or ():
        if directive.name.value in ("include", "skip"):
            value = directive.arguments[0].value
            wanted = directive.name.value == "include"
            if isinstance(value, BooleanValueNode):
                yield value.value, wanted
            elif isinstance(value, VariableNode):
                yield value.name.value, wanted
