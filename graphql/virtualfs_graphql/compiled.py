"""Documents of look-ups, compiled: from variables to keys, one read, and straight to the answer.

A general executor resolves field by field, which for ten entities of ten features takes a hundred
times as long as looking them up. Most documents of an app ask for nothing but features, and mean
the same each time. Such a document is compiled once into what it reads and what it shows.

There is one meaning: a field's is what :mod:`virtualfs_graphql.generated` says of it, and whatever
is out of the ordinary here (a value that does not fit, a view that cannot be read) is left to the
general executor, which has the same rows at hand and words the errors. A property test demands
equal bytes of both.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from graphql.utilities import coerce_input_value

from graphql import (
    BooleanValueNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    ListValueNode,
    ObjectValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    Undefined,
    VariableNode,
    get_named_type,
    type_from_ast,
    value_from_ast,
)
from virtualfs.compiler.plan import FeaturePlan, ResolvedView
from virtualfs.errors import VirtualFSError
from virtualfs.serving.codec import Row, to_micros
from virtualfs.serving.part import Lookup, lookups
from virtualfs_graphql.generated import (
    MEANING,
    EntityField,
    FeatureField,
    KeyField,
    MetaField,
    PlanField,
    ViewField,
)
from virtualfs_graphql.inputs import asked_for, checked_keys, is_plain, plan_inputs
from virtualfs_graphql.request import Context, PlanAnswer, place_of
from virtualfs_graphql.scalars import wire_of
from virtualfs_graphql.shapes import ONLINE, Leaf, Shape

__all__ = ["CompiledQuery", "compiled", "flags_of"]

Variables = Mapping[str, Any]
Key = tuple[Any, ...]
_Where = tuple[Any, slice | list[int]]
Read = Callable[[Variables], Any]
_log = logging.getLogger("virtualfs.graphql")
_ABSENT: Any = object()


class _OutOfTheOrdinaryError(Exception):
    """Left to the general executor."""


# -- what is read


class _Wants:
    """The rows that one request reads, view by view."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._views: dict[Any, tuple[ResolvedView, list[Key]]] = {}
        self._rows: dict[Any, Sequence[Row]] = {}

    def add(self, view: ResolvedView, keys: Sequence[Key]) -> _Where:
        """Ask for rows; return where they will be."""
        self._context.charge(len(keys))
        place = place_of(view)
        held = self._views.get(place)
        if held is None:
            self._views[place] = view, list(keys)
            return place, slice(len(keys))
        # Of a view that is asked for twice, each row is read once.
        known = held[1]
        numbers = {key: number for number, key in enumerate(known)}
        for key in keys:
            if key not in numbers:
                numbers[key] = len(known)
                known.append(key)
        return place, [numbers[key] for key in keys]

    async def read(self, context: Context) -> None:
        """Read everything that was asked for, as one read."""
        if not self._views:
            return
        looks = [Lookup(view, tuple(keys)) for view, keys in self._views.values()]
        rows = await context.read(looks)
        if rows is None:
            raise _OutOfTheOrdinaryError
        self._rows = dict(zip(self._views, rows, strict=True))

    def rows(self, where: _Where) -> list[Row]:
        """Return the rows that were asked for."""
        place, numbers = where
        rows = self._rows[place]
        if isinstance(numbers, slice):
            return list(rows[numbers])
        return [rows[number] for number in numbers]


@dataclass(frozen=True)
class _Entities:
    """Some entities of one kind, join key by join key."""

    count: int
    columns: Mapping[str, list[Any]]

    def with_all(self, keys: Mapping[str, Any]) -> _Entities:
        """Return the entities with other keys, the same for all."""
        if not keys:
            return self
        more = {key: [value] * self.count for key, value in keys.items()}
        return _Entities(self.count, {**self.columns, **more})

    def rows(self) -> list[dict[str, Any]]:
        """Return the keys of each entity."""
        names = tuple(self.columns)
        if not names:
            return [{} for _ in range(self.count)]
        return [
            dict(zip(names, row, strict=True)) for row in zip(*self.columns.values(), strict=True)
        ]


Show = Callable[[_Wants, Context], Awaitable[Any]]
"""Returns the value of a field, once the rows are there."""


class CompiledQuery:
    """One operation of a document, for one choice of what its directives leave out."""

    def __init__(
        self,
        variables: Callable[[Mapping[str, Any]], Variables],
        roots: Mapping[str, Callable[[Context, _Wants, Variables], Show]],
    ) -> None:
        self._variables = variables
        self._roots = roots

    async def run(self, context: Context, given: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the data of an answer without errors; None leaves it to the general executor."""
        try:
            variables = self._variables(given)
            wants = _Wants(context)
            shows = [(name, ask(context, wants, variables)) for name, ask in self._roots.items()]
            await wants.read(context)
            return {name: await show(wants, context) for name, show in shows}
        except (_OutOfTheOrdinaryError, VirtualFSError):
            return None
        except Exception:  # noqa: BLE001 - the general executor answers, and the log tells
            _log.exception("a compiled document failed; the general executor answers it")
            return None


def compiled(
    schema: GraphQLSchema,
    operation: OperationDefinitionNode,
    fragments: Mapping[str, FragmentDefinitionNode],
    flags: Mapping[str, bool],
) -> CompiledQuery | None:
    """Compile an operation of a valid document; None where something in it is no look-up.

    Parameters
    ----------
    flags
        The variables that directives go by.
    """
    compiler = _Compiler(schema, fragments, flags)
    try:
        return compiler.query(operation)
    except _OutOfTheOrdinaryError:
        return None


def flags_of(nodes: Iterable[Any]) -> frozenset[str]:
    """Return the variables that the directives of selections go by."""
    found: set[str] = set()
    pending = [node.selection_set for node in nodes]
    while pending:
        for node in pending.pop().selections:
            for directive in node.directives or ():
                found |= {
                    argument.value.name.value
                    for argument in directive.arguments or ()
                    if isinstance(argument.value, VariableNode)
                }
            inner = getattr(node, "selection_set", None)
            if inner is not None:
                pending.append(inner)
    return frozenset(found)


class _Compiler:
    def __init__(
        self,
        schema: GraphQLSchema,
        fragments: Mapping[str, FragmentDefinitionNode],
        flags: Mapping[str, bool],
    ) -> None:
        self._schema = schema
        self._fragments = fragments
        self._flags = flags

    def query(self, operation: OperationDefinitionNode) -> CompiledQuery:
        query = self._schema.query_type
        if operation.operation.value != "query" or query is None or operation.directives:
            raise _OutOfTheOrdinaryError
        roots: dict[str, Any] = {}
        for name, nodes in self._fields([operation.selection_set], query).items():
            roots[name] = self._root(query, nodes)
        return CompiledQuery(self._variables(operation), roots)

    # -- fields

    def _fields(
        self, sets: Iterable[SelectionSetNode | None], parent: GraphQLObjectType
    ) -> dict[str, list[FieldNode]]:
        """Return the fields that are selected, by the names of the answer, in its order."""
        found: dict[str, list[FieldNode]] = {}
        seen: set[str] = set()

        def collect(selected: SelectionSetNode) -> None:
            for node in selected.selections:
                if not self._is_included(node):
                    continue
                if isinstance(node, FieldNode):
                    name = node.alias.value if node.alias else node.name.value
                    found.setdefault(name, []).append(node)
                elif isinstance(node, InlineFragmentNode):
                    on = node.type_condition
                    if on is None or self._holds(on.name.value, parent):
                        collect(node.selection_set)
                elif isinstance(node, FragmentSpreadNode) and node.name.value not in seen:
                    seen.add(node.name.value)
                    fragment = self._fragments[node.name.value]
                    if self._holds(fragment.type_condition.name.value, parent):
                        collect(fragment.selection_set)

        for selected in sets:
            if selected is not None:
                collect(selected)
        return found

    def _holds(self, name: str, parent: GraphQLObjectType) -> bool:
        """Tell whether a type condition holds for an object type."""
        if not isinstance(self._schema.type_map[name], GraphQLObjectType):
            raise _OutOfTheOrdinaryError  # a union, of which it may be one
        return name == parent.name

    def _is_included(self, node: Any) -> bool:
        for directive in node.directives or ():
            name = directive.name.value
            if name not in ("skip", "include"):
                raise _OutOfTheOrdinaryError
            (argument,) = directive.arguments
            value = argument.value
            if isinstance(value, VariableNode):
                holds = self._flags[value.name.value]
            elif isinstance(value, BooleanValueNode):
                holds = value.value
            else:
                raise _OutOfTheOrdinaryError
            if holds == (name == "skip"):
                return False
        return True

    def _inner(self, nodes: Sequence[FieldNode], kind: GraphQLObjectType) -> dict[str, list[Any]]:
        return self._fields([node.selection_set for node in nodes], kind)

    def _root(self, query: GraphQLObjectType, nodes: list[FieldNode]) -> Any:
        name = nodes[0].name.value
        if name == "__typename":
            return lambda *_: _shown("Query")
        field = query.fields.get(name)
        if field is None:
            raise _OutOfTheOrdinaryError
        if name == "onlineFeatures":
            return self._online(field, nodes)
        meaning = (field.extensions or {}).get(MEANING)
        given = self._arguments(field, nodes[0])
        if isinstance(meaning, EntityField):
            return self._entity(meaning, field, nodes, given)
        if isinstance(meaning, ViewField | PlanField):
            return self._alone(self._child(meaning, field, nodes))
        raise _OutOfTheOrdinaryError

    def _entity(
        self,
        meaning: EntityField,
        field: GraphQLField,
        nodes: list[FieldNode],
        given: Mapping[str, Read],
    ) -> Any:
        kind: Any = get_named_type(field.type)
        names, children = [], []
        for name, inner in self._inner(nodes, kind).items():
            names.append(name)
            children.append(self._entity_child(kind, inner))
        keys = [*meaning.keys.items()]

        def ask(context: Context, wants: _Wants, variables: Variables) -> Show:
            if meaning.is_many:
                several = given["keys"](variables)
                context.check_list(len(several), "keys")
                columns = {key: [one[shown] for one in several] for key, shown in keys}
                entities = _Entities(len(several), columns)
            else:
                entities = _Entities(1, {key: [given[shown](variables)] for key, shown in keys})
            context.charge(entities.count)
            shows = [child(context, wants, variables, entities) for child in children]

            async def show(wants: _Wants, context: Context) -> Any:
                columns = [await column(wants, context) for column in shows]
                rows = zip(*columns, strict=True) if columns else repeat((), entities.count)
                objects = [dict(zip(names, row, strict=True)) for row in rows]
                return objects if meaning.is_many else objects[0]

            return show

        return ask

    def _entity_child(self, kind: GraphQLObjectType, nodes: list[FieldNode]) -> Any:
        name = nodes[0].name.value
        if name == "__typename":
            return lambda _c, _w, _v, entities: _shown([kind.name] * entities.count)
        field = kind.fields[name]
        meaning = (field.extensions or {}).get(MEANING)
        if isinstance(meaning, KeyField):
            shown = _serialized(field)

            def ask(_c: Context, _w: _Wants, _v: Variables, entities: _Entities) -> Show:
                return _shown([shown(value) for value in entities.columns[meaning.key]])

            return ask
        if isinstance(meaning, ViewField | PlanField):
            return self._child(meaning, field, nodes)
        raise _OutOfTheOrdinaryError

    @staticmethod
    def _alone(child: Any) -> Any:
        """Return a field of entities as one of the query, which gives no keys."""

        def ask(context: Context, wants: _Wants, variables: Variables) -> Show:
            several = child(context, wants, variables, _Entities(1, {}))

            async def show(wants: _Wants, context: Context) -> Any:
                return (await several(wants, context))[0]

            return show

        return ask

    def _child(
        self, meaning: ViewField | PlanField, field: GraphQLField, nodes: list[FieldNode]
    ) -> Any:
        kind: Any = get_named_type(field.type)
        given = self._arguments(field, nodes[0])
        inner = self._inner(nodes, kind)
        shape = Shape({name: self._leaf(kind, some) for name, some in inner.items()})
        if isinstance(meaning, PlanField):
            return _plan_child(meaning, given, shape)
        view = meaning.view
        arguments = [*meaning.arguments.items()]

        def ask(_c: Context, wants: _Wants, variables: Variables, entities: _Entities) -> Show:
            own = {key: given[shown](variables) for key, shown in arguments}
            where = wants.add(view, _keys(view, entities.with_all(own)))

            async def show(wants: _Wants, context: Context) -> Any:
                return shape.of_rows(view, wants.rows(where), to_micros(context.now))

            return show

        return ask

    def _leaf(self, kind: GraphQLObjectType, nodes: list[FieldNode]) -> Leaf:
        name = nodes[0].name.value
        if name == "__typename":
            return Leaf(constant=kind.name)
        meaning = (kind.fields[name].extensions or {}).get(MEANING)
        if isinstance(meaning, FeatureField):
            return Leaf(place=meaning.place, wire=wire_of(meaning.dtype))
        if isinstance(meaning, MetaField):
            meta: Any = get_named_type(kind.fields[name].type)
            inner = self._inner(nodes, meta)
            return Leaf(
                meta=meaning,
                shown={shown: some[0].name.value for shown, some in inner.items()},
                kind=meta.name,
            )
        raise _OutOfTheOrdinaryError

    def _online(self, field: GraphQLField, nodes: list[FieldNode]) -> Any:
        given = self._arguments(field, nodes[0])
        kind: Any = get_named_type(field.type)
        shown = {name: some[0].name.value for name, some in self._inner(nodes, kind).items()}

        def ask(context: Context, wants: _Wants, variables: Variables) -> Show:
            values = {name: read(variables) for name, read in given.items()}
            values = {name: value for name, value in values.items() if value is not _ABSENT}
            features = values.get("features")
            context.check_features(features)
            asked = asked_for(values.get("service"), features, values.get("trainingSet"))
            if not context.snapshot.is_at_hand(asked):
                raise _OutOfTheOrdinaryError
            plan = context.snapshot.plan(asked)
            context.check_list(len(values["entities"]), "entities")
            context.charge(len(values["entities"]))
            keys, request = plan_inputs(plan, values["entities"], values.get("request"))
            answered = _plan_rows(plan, keys, request, wants)

            async def show(wants: _Wants, context: Context) -> Any:
                found = await answered(wants, context)
                return {name: ONLINE[field](found) for name, field in shown.items()}

            return show

        return ask

    # -- arguments and variables

    def _arguments(self, field: GraphQLField, node: FieldNode) -> dict[str, Read]:
        found = {}
        for argument in node.arguments or ():
            name = argument.name.value
            if name in ("asOf", "lateData"):
                raise _OutOfTheOrdinaryError
            found[name] = self._value(argument.value, field.args[name].type)
        for name, argument_type in field.args.items():
            if name not in found and argument_type.default_value is Undefined:
                found[name] = lambda _: _ABSENT
        return found

    def _value(self, node: Any, kind: Any) -> Read:
        """Return what reads a value of the document, variables in it included."""
        if isinstance(node, VariableNode):
            name = node.name.value
            required = isinstance(kind, GraphQLNonNull)

            def read(variables: Variables) -> Any:
                value = variables.get(name, _ABSENT)
                if required and (value is None or value is _ABSENT):
                    raise _OutOfTheOrdinaryError
                return value

            return read
        if not _has_variables(node):
            value = value_from_ast(node, kind)
            if value is Undefined:
                raise _OutOfTheOrdinaryError
            return lambda _: value
        bare = kind.of_type if isinstance(kind, GraphQLNonNull) else kind
        if isinstance(node, ListValueNode) and isinstance(bare, GraphQLList):
            items = [self._value(item, bare.of_type) for item in node.values]
            return lambda variables: [_present(item(variables)) for item in items]
        if isinstance(node, ObjectValueNode) and isinstance(bare, GraphQLInputObjectType):
            fields = {
                item.name.value: self._value(item.value, bare.fields[item.name.value].type)
                for item in node.fields
            }
            return lambda variables: {
                name: _present(item(variables)) for name, item in fields.items()
            }
        raise _OutOfTheOrdinaryError

    def _variables(
        self, operation: OperationDefinitionNode
    ) -> Callable[[Mapping[str, Any]], Variables]:
        readers = []
        for definition in operation.variable_definitions or ():
            kind: Any = type_from_ast(self._schema, definition.type)
            default: Any = _ABSENT
            if definition.default_value is not None:
                default = value_from_ast(definition.default_value, kind)
            readers.append((definition.variable.name.value, kind, _quick(kind), default))

        def read(given: Mapping[str, Any]) -> Variables:
            found = {}
            for name, kind, is_quick, default in readers:
                value = given.get(name, _ABSENT)
                if value is _ABSENT:
                    if default is not _ABSENT:
                        found[name] = default
                    elif isinstance(kind, GraphQLNonNull):
                        raise _OutOfTheOrdinaryError
                elif is_quick(value):
                    found[name] = value
                else:
                    try:
                        found[name] = coerce_input_value(value, kind)
                    except Exception:  # noqa: BLE001 - a scalar's own refusal, of any kind
                        raise _OutOfTheOrdinaryError from None
                    if found[name] is Undefined:
                        raise _OutOfTheOrdinaryError
            return found

        return read


def _present(value: Any) -> Any:
    if value is _ABSENT or value is None:
        raise _OutOfTheOrdinaryError
    return value


def _has_variables(node: Any) -> bool:
    if isinstance(node, VariableNode):
        return True
    if isinstance(node, ListValueNode):
        return any(_has_variables(item) for item in node.values)
    if isinstance(node, ObjectValueNode):
        return any(_has_variables(item.value) for item in node.fields)
    return False


def _quick(kind: Any) -> Callable[[Any], bool]:
    """Return what tells that a variable's value is of its type as it came, without a walk."""
    bare = kind.of_type if isinstance(kind, GraphQLNonNull) else kind
    if isinstance(bare, GraphQLList):
        inner = bare.of_type
        if not isinstance(inner, GraphQLNonNull):
            return lambda _: False
        of_one = _quick(inner)
        return lambda value: type(value) is list and all(map(of_one, value))
    if isinstance(bare, GraphQLInputObjectType):
        kinds = {
            name: _QUICK.get(getattr(field.type.of_type, "name", ""))
            for name, field in bare.fields.items()
            if isinstance(field.type, GraphQLNonNull)
        }
        if len(kinds) < len(bare.fields) or None in kinds.values():
            return lambda _: False
        names = kinds.keys()
        if len(kinds) == 1:
            ((only, wanted),) = kinds.items()
            return lambda value: (
                type(value) is dict and len(value) == 1 and type(value.get(only)) is wanted
            )
        return lambda value: (
            type(value) is dict
            and value.keys() == names
            and all([type(value[name]) is kind for name, kind in kinds.items()])  # noqa: C419 - half the time
        )
    name = getattr(bare, "name", "")
    if isinstance(bare, GraphQLEnumType):
        return lambda _: False
    wanted = _QUICK.get(name)
    if wanted is not None:
        return lambda value: type(value) is wanted
    if name == "JSON":
        return lambda value: value is not None
    return lambda _: False


_QUICK = {"String": str, "BigInt": int, "Boolean": bool}
"""Scalars whose values of one Python type are taken as they come."""


def _keys(view: ResolvedView, entities: _Entities) -> list[Key]:
    """Return the keys of a view's rows, checked."""
    columns = entities.columns
    if all(is_plain(columns[name], dtype) for name, dtype in view.join_keys.items()):
        found: list[Key] = [*zip(*(columns[name] for name in view.join_keys), strict=True)]
        return found or [()] * entities.count
    names = tuple(view.join_keys)
    return [tuple([row[name] for name in names]) for row in checked_keys(view, entities.rows())]


def _shown(value: Any) -> Show:
    """Return what shows a value that is known before anything is read."""

    async def show(_wants: _Wants, _context: Context) -> Any:
        return value

    return show


def _serialized(field: GraphQLField) -> Callable[[Any], Any]:
    kind: Any = field.type
    serialize: Callable[[Any], Any] = get_named_type(kind).serialize
    return serialize


def _plan_child(meaning: PlanField, given: Mapping[str, Read], shape: Shape) -> Any:
    plan = meaning.plan

    def ask(_c: Context, wants: _Wants, variables: Variables, entities: _Entities) -> Show:
        own = {key: given[shown](variables) for key, shown in meaning.arguments.items()}
        inputs = {name: given[shown](variables) for name, shown in meaning.request.items()}
        if _ABSENT in inputs.values():
            raise _OutOfTheOrdinaryError
        answers = [
            _plan_rows(plan, *plan_inputs(plan, [{**entity, **own}], [inputs]), wants)
            for entity in entities.rows()
        ]

        async def show(wants: _Wants, context: Context) -> Any:
            return [shape.of_answer(await one(wants, context)) for one in answers]

        return show

    return ask


def _plan_rows(
    plan: FeaturePlan, keys: list[dict[str, Any]], request: list[dict[str, Any]], wants: _Wants
) -> Callable[[_Wants, Context], Awaitable[PlanAnswer]]:
    """Ask for the rows of a plan; return what makes its answer of them."""
    places = [wants.add(look.view, look.keys) for look in lookups(plan, keys)]

    def answered(wants: _Wants, context: Context) -> Awaitable[PlanAnswer]:
        return context.judged(plan, keys, request, [wants.rows(place) for place in places])

    return answered
