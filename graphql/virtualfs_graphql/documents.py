"""Documents: parsed, measured against the limits, validated and compiled once, and then kept."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphql import (
    BooleanValueNode,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLSchema,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    SelectionSetNode,
    parse,
    recommended_rules,
    specified_rules,
    validate,
)
from virtualfs.config import Limits
from virtualfs.errors import ConfigError
from virtualfs_graphql.compiled import CompiledQuery, compiled, flags_of
from virtualfs_graphql.price import Price

__all__ = ["Document", "Documents", "Operation", "digest", "trusted_documents"]

_KEPT = 1_000
"""Documents that are kept."""
_KEPT_LENGTH = 500_000
"""Characters of all that are kept: parsed, each takes a hundred bytes and more."""
_KEPT_PLANS = 16
"""Compiled plans of one operation: one for each choice of what its directives leave out."""
_INTROSPECTION_DEPTH = 20
"""What GraphiQL's own query needs."""
_MOST_ERRORS = 10
_LABELLED = 5
_RULES = [*specified_rules, *recommended_rules]
"""Those of the specification, and one against introspection that goes round in circles."""


class Operation:
    """One operation of a valid document."""

    def __init__(
        self,
        schema: GraphQLSchema,
        node: OperationDefinitionNode,
        fragments: Mapping[str, FragmentDefinitionNode],
    ) -> None:
        self.kind: str = node.operation.value
        fields = [item for item in node.selection_set.selections if isinstance(item, FieldNode)]
        self.label = (
            node.name.value
            if node.name
            else ", ".join(dict.fromkeys(item.name.value for item in fields[:_LABELLED]))
        )
        """What logs call it: its name, or its first fields."""
        self._schema = schema
        self._node = node
        self._fragments = fragments
        self._flags = flags_of([node, *fragments.values()])
        self._defaults = {
            item.variable.name.value: item.default_value.value
            for item in node.variable_definitions or ()
            if isinstance(item.default_value, BooleanValueNode)
        }
        self._compiled: dict[tuple[bool, ...], CompiledQuery | None] = {}
        self._price = Price(schema, node, fragments)

    def cost(self, variables: Mapping[str, Any]) -> int:
        """Return what the operation costs at least, before any work is done for it."""
        return self._price.cost({**self._defaults, **variables} if self._defaults else variables)

    def compiled(self, variables: Mapping[str, Any]) -> CompiledQuery | None:
        """Return what the operation was compiled to; None leaves it to the general executor."""
        names = self._flags
        if not names:
            if () not in self._compiled:
                self._compiled[()] = compiled(self._schema, self._node, self._fragments, {})
            return self._compiled[()]
        flags = {name: variables.get(name, self._defaults.get(name)) for name in names}
        if not all(isinstance(value, bool) for value in flags.values()):
            return None
        chosen = tuple(flags[name] for name in sorted(names))
        if chosen not in self._compiled:
            if len(self._compiled) >= _KEPT_PLANS:
                return None
            self._compiled[chosen] = compiled(self._schema, self._node, self._fragments, flags)
        return self._compiled[chosen]


@dataclass(frozen=True)
class Document:
    """A document as all requests that bring it see it: valid, or what is wrong with it."""

    text: str
    node: DocumentNode | None = None
    errors: tuple[GraphQLError, ...] = ()
    operations: Mapping[str, Operation] = field(default_factory=dict)

    def operation(self, name: str | None) -> Operation | None:
        """Return the operation that a request means; None if that is not told."""
        if name is None and len(self.operations) == 1:
            return next(iter(self.operations.values()))
        return self.operations.get(name or "")


class Documents:
    """The documents of one schema.

    Parameters
    ----------
    introspection
        Whether the schema may be asked about itself.
    """

    def __init__(self, schema: GraphQLSchema, limits: Limits, *, introspection: bool) -> None:
        self._schema = schema
        self._limits = limits
        self._introspection = introspection
        self._kept: OrderedDict[str, Document] = OrderedDict()
        self._length = 0

    def __iter__(self) -> Iterator[str]:
        """Yield the texts that are kept, those asked for last at the end."""
        return iter([*self._kept])

    def get(self, text: str) -> Document:
        """Return a document by its text."""
        found = self._kept.get(text)
        if found is not None:
            self._kept.move_to_end(text)
            return found
        found = self._made(text)
        if not found.errors:
            self._kept[text] = found
            self._length += len(text)
            while len(self._kept) > _KEPT or self._length > _KEPT_LENGTH:
                gone, _ = self._kept.popitem(last=False)
                self._length -= len(gone)
        return found

    def _made(self, text: str) -> Document:
        limits = self._limits
        try:
            node = parse(
                text,
                max_lexical_tokens=limits.tokens,
                max_comments=limits.tokens,
                max_source_length=limits.document,
            )
        except GraphQLError as error:
            return Document(text, errors=(_told(error),))
        errors = [*_Measure(node, limits).errors()]
        if not errors:
            errors = validate(
                self._schema,
                node,
                _RULES if self._introspection else [*_RULES, NoSchemaIntrospectionCustomRule],
                max_errors=_MOST_ERRORS,
                hide_suggestions=True,
            )
        if errors:
            return Document(text, errors=tuple(errors))
        fragments = {
            item.name.value: item
            for item in node.definitions
            if isinstance(item, FragmentDefinitionNode)
        }
        operations = {
            item.name.value if item.name else "": Operation(self._schema, item, fragments)
            for item in node.definitions
            if isinstance(item, OperationDefinitionNode)
        }
        return Document(text, node, operations=operations)


def _told(error: GraphQLError) -> GraphQLError:
    """Return what is wrong with a document that cannot be parsed, with a code."""
    if "more than" not in error.message:
        code, message = "SyntaxError", error.message
    else:
        code = "LimitError"
        message = (
            f"{error.message} ([server.limits] tokens, document); bring values as variables, which "
            "are not counted"
        )
    return GraphQLError(
        message, nodes=error.nodes, source=error.source, positions=error.positions,
        extensions={"code": code},
    )  # fmt: skip


@dataclass
class _Size:
    """How much a selection asks for, its fragments expanded."""

    depth: int = 0
    aliases: int = 0
    repeats: int = 0
    """Fields that another of the same selection is called as: validation compares all pairs."""
    directives: int = 0

    def add(self, other: _Size, *, deeper: int = 0) -> None:
        self.depth = max(self.depth, other.depth + deeper)
        self.aliases += other.aliases
        self.repeats += other.repeats
        self.directives += other.directives


class _Measure:
    """Measures a document before it is validated, which itself takes long for what is too large.

    A fragment is measured once, however often it is spread, so this takes as long as the document
    is, whatever it expands to.
    """

    def __init__(self, document: DocumentNode, limits: Limits) -> None:
        self._limits = limits
        self._operations = [
            item for item in document.definitions if isinstance(item, OperationDefinitionNode)
        ]
        self._fragments = {
            item.name.value: item
            for item in document.definitions
            if isinstance(item, FragmentDefinitionNode)
        }
        self._sizes: dict[str, _Size | None] = {}
        self._roots: dict[str, int | None] = {}

    def errors(self) -> Iterator[GraphQLError]:
        """Yield what is too large."""
        for operation in self._operations:
            try:
                size = self._size(operation.selection_set)
                roots = self._root_count(operation.selection_set)
            except _CycleError as error:
                yield GraphQLError(f"the fragment {error} spreads itself", nodes=operation)
                return
            size.directives += len(operation.directives or ())
            limits = self._limits
            deepest = limits.depth
            if self._is_introspection(operation):
                deepest = max(deepest, _INTROSPECTION_DEPTH)
            for found, most, what, setting in (
                (size.depth, deepest, "fields within fields", "depth"),
                (size.aliases, limits.aliases, "aliases", "aliases"),
                (size.repeats, limits.aliases, "fields that repeat others", "aliases"),
                (roots, limits.root_fields, "root fields", "root_fields"),
                (size.directives, limits.directives, "directives", "directives"),
            ):
                if found > most:
                    yield GraphQLError(
                        f"the operation has {found:,} {what}, more than the {most} that are "
                        f"allowed ([server.limits] {setting})",
                        nodes=operation,
                        extensions={"code": "LimitError"},
                    )

    def _is_introspection(self, operation: OperationDefinitionNode) -> bool:
        return all(
            isinstance(node, FieldNode) and node.name.value.startswith("__")
            for node in operation.selection_set.selections
        )

    def _size(self, selected: SelectionSetNode) -> _Size:
        found = _Size()
        names: set[str] = set()
        for node in selected.selections:
            found.directives += len(node.directives or ())
            if isinstance(node, FieldNode):
                name = (node.alias or node.name).value
                found.repeats += name in names
                names.add(name)
                found.aliases += node.alias is not None
                found.depth = max(found.depth, 1)
                if node.selection_set is not None:
                    found.add(self._size(node.selection_set), deeper=1)
            else:
                inner = getattr(node, "selection_set", None)
                if inner is not None:
                    found.add(self._size(inner))
                else:
                    found.add(self._of_fragment(node.name.value))  # type: ignore[attr-defined]
        return found

    def _of_fragment(self, name: str) -> _Size:
        fragment = self._fragments.get(name)
        if fragment is None:
            return _Size()  # which validation refuses
        if name not in self._sizes:
            self._sizes[name] = None
            self._sizes[name] = self._size(fragment.selection_set)
        size = self._sizes[name]
        if size is None:
            raise _CycleError(repr(name))
        return size

    def _root_count(self, selected: SelectionSetNode) -> int:
        count = 0
        for node in selected.selections:
            if isinstance(node, FieldNode):
                count += 1
            elif (inner := getattr(node, "selection_set", None)) is not None:
                count += self._root_count(inner)
            else:
                name = node.name.value  # type: ignore[attr-defined]
                if name not in self._roots and name in self._fragments:
                    self._roots[name] = self._root_count(self._fragments[name].selection_set)
                count += self._roots.get(name) or 0
        return count


class _CycleError(Exception):
    """A fragment spreads itself."""


def digest(text: str) -> str:
    """Return how a trusted document is called: the SHA-256 of its text.

    >>> digest("{ project { name } }")[:20]
    'sha256:a5f13e9bb55b5'
    """
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def trusted_documents(paths: Iterable[str], folder: Path) -> dict[str, str]:
    """Return the texts of trusted documents by their digests.

    Parameters
    ----------
    paths
        Files, or folders of ``.graphql`` files.

    Raises
    ------
    ConfigError
        A path does not exist, or a file is not text.
    """
    found = {}
    for path in paths:
        place = folder / path
        files = sorted(place.rglob("*.graphql")) if place.is_dir() else [place]
        for file in files:
            try:
                text = file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(
                    f"server.trusted_documents: cannot read {file}: {error}"
                ) from None
            found[digest(text)] = text
    return found
