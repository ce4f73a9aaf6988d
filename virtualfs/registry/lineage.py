"""Lineage: from columns of tables through features to services, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from virtualfs.compiler.lineage import ANY_COLUMN
from virtualfs.compiler.training_set import PREFIX
from virtualfs.definitions.project import VIEW_KINDS, kind_in_words
from virtualfs.display import Block, Code, Shown
from virtualfs.errors import NotFoundError, did_you_mean, printable
from virtualfs.registry.indexing import Edge
from virtualfs.registry.repository import Registry
from virtualfs.registry.state import Key, State, StoredObject
from virtualfs.registry.tables import edges as edge_table

__all__ = ["Direction", "Lineage", "Link", "Node", "trace"]

Direction = Literal["upstream", "downstream", "both"]
_REFERENCE = re.compile(r"(?P<name>[^:@]+)(@(?P<version>\d+))?(:(?P<feature>.+))?")


@dataclass(frozen=True, order=True)
class Node:
    """One thing in a lineage.

    Parameters
    ----------
    kind
        ``column``, ``feature``, ``on_demand_feature``, ``request``, ``feature_view``,
        ``on_demand_feature_view``, ``feature_service`` or ``training_set``.
    name
        As references name it: ``weather@2:temp``, ``delay@1``; a column as ``table.column``, with
        its warehouse before a colon unless that is the default one.
    detail
        The expression or aggregate of a feature, its data type.
    """

    kind: str
    name: str
    detail: str = ""
    place: tuple[str, str, str] = ("", "", "")
    """Warehouse, table and name of a column."""

    def __str__(self) -> str:
        text = f"{kind_in_words(self.kind)} {self.name}"
        return printable(f"{text}  ({self.detail})" if self.detail else text)


@dataclass(frozen=True, order=True)
class Link:
    """One step: `target` is made of `source`; role says how."""

    source: Node
    target: Node
    role: str = "value"


@dataclass(frozen=True)
class Lineage(Shown):
    """What something is made of, and what is made of it.

    ``str()`` is a tree, ``to_mermaid()`` a diagram, ``to_dict()`` plain nodes and links.
    """

    roots: tuple[Node, ...]
    links: tuple[Link, ...]
    direction: Direction

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Everything that takes part."""
        ends = (node for link in self.links for node in (link.source, link.target))
        return tuple(sorted({*self.roots, *ends}))

    def _blocks(self) -> list[Block]:
        return [Code(str(self)), Code(self.to_mermaid(), "Mermaid")]

    def __str__(self) -> str:
        lines: list[str] = []
        for root in self.roots:
            lines.append(str(root))
            for direction, title in (("upstream", "made of"), ("downstream", "used by")):
                branches = list(self._branches(root, direction, "", set()))
                if branches:
                    lines += [f"  {title}", *branches]
                elif self.direction in (direction, "both"):
                    lines.append(f"  {title} nothing" + (" registered" * (title == "used by")))
        return printable("\n".join(lines))

    def _branches(self, node: Node, direction: str, indent: str, above: set[Node]) -> Iterator[str]:
        ends = sorted(
            {
                (link.source if direction == "upstream" else link.target, link.role)
                for link in self.links
                if (link.target if direction == "upstream" else link.source) == node
            }
        )
        for number, (end, role) in enumerate(ends):
            is_last = number == len(ends) - 1
            said = "" if role == "value" else f"  [{role}]"
            yield f"  {indent}{'└── ' if is_last else '├── '}{end}{said}"
            if end not in above:
                inner = indent + ("    " if is_last else "│   ")
                yield from self._branches(end, direction, inner, above | {node})

    def to_dict(self) -> dict[str, Any]:
        """Return nodes and links as plain data."""
        numbers = {node: number for number, node in enumerate(self.nodes)}
        return {
            "roots": [node.name for node in self.roots],
            "nodes": [
                {"kind": node.kind, "name": node.name, "detail": node.detail} for node in numbers
            ],
            "links": [
                {
                    "source": numbers[link.source],
                    "target": numbers[link.target],
                    "role": link.role,
                }
                for link in self.links
            ],
        }

    def to_mermaid(self) -> str:
        """Return a Mermaid flow chart."""
        numbers = {node: f"n{number}" for number, node in enumerate(self.nodes)}
        lines = ["flowchart LR"]
        for node, number in numbers.items():
            text = f"{node.name}\n{kind_in_words(node.kind)}".replace('"', "#quot;")
            lines.append(f'    {number}["{text.replace(chr(10), "<br>")}"]')
        for link in self.links:
            arrow = "-->" if link.role == "value" else f"-. {link.role} .->"
            lines.append(f"    {numbers[link.source]} {arrow} {numbers[link.target]}")
        return "\n".join(lines)


def trace(
    registry: Registry,
    state: State,
    reference: str,
    direction: Direction = "both",
    depth: int | None = None,
) -> Lineage:
    """Return the lineage of a feature, view, service or column.

    Parameters
    ----------
    reference
        ``"view:feature"``, ``"view"``, ``"service"``, ``"table.column"`` or
        ``"training_set:name@1"``.
    depth
        How many steps at most; all when None.

    Raises
    ------
    NotFoundError
        The registry knows no such thing.
    """
    walk = _Walk(registry, state)
    roots = walk.roots(reference)
    links: dict[Link, None] = {}
    for way, step in (("upstream", walk.up), ("downstream", walk.down)):
        if direction not in (way, "both"):
            continue
        level, seen, taken = roots, {*roots}, 0
        while level and (depth is None or taken < depth):
            found = sorted(step(level))
            links |= dict.fromkeys(found)
            ends = (link.source if way == "upstream" else link.target for link in found)
            level = tuple(dict.fromkeys(node for node in ends if node not in seen))
            seen |= {*level}
            taken += 1
    return Lineage(roots, tuple(links), direction)


class _Walk:
    """Steps along the edges of one state, a level at a time."""

    def __init__(self, registry: Registry, state: State) -> None:
        self._registry = registry
        self._state = state

    def roots(self, reference: str) -> tuple[Node, ...]:
        if reference.startswith(PREFIX):
            found = self._registry.training_sets.referred(reference)
            return (_training_set(found.name, found.version),)
        match = _REFERENCE.fullmatch(reference)
        if match is not None:
            item = self._object(match["name"])
            if item is None and not match["feature"]:
                item = self._state.objects.get(("feature_service", match["name"]))
            if item is not None:
                version = int(match["version"] or item.version)
                if version != item.version:
                    raise NotFoundError(
                        f"lineage is of what stands in a revision, where {item.name!r} is at "
                        f"version {item.version}; open the store at a revision that has {reference}"
                    )
                if not match["feature"] or item.kind not in VIEW_KINDS:
                    return (self._whole(item),)
                names = [feature["name"] for feature in item.features]
                if match["feature"] not in names:
                    raise NotFoundError(
                        f"feature view {item.name!r} has no feature {match['feature']!r}. "
                        f"{did_you_mean(match['feature'], names)}"
                    )
                return (self._feature(item, match["feature"]),)
        columns = self._columns(reference)
        if not columns:
            known = [
                n for kind in (*VIEW_KINDS, "feature_service") for n in self._state.names(kind)
            ]
            raise NotFoundError(
                f"the registry knows nothing called {reference!r}; write view:feature, a view, a "
                f"service, or table.column. {did_you_mean(reference.partition(':')[0], known)}"
            )
        return tuple(columns)

    def _columns(self, reference: str) -> list[Node]:
        """Return the columns that a reference may mean; tables may be named in part or in full."""
        warehouse, separator, rest = reference.partition(":")
        if not separator or rest.startswith("//"):
            warehouse, rest = "", reference
        found: dict[tuple[str, str, str], None] = {}
        for match in re.finditer(r"\.", rest):  # a name may hold dots itself
            table, column = rest[: match.start()], rest[match.end() :].strip('"')
            for edge in self._registry.index.edges(
                self._state, edge_table.c.upstream_kind == "column", _is_column(column)
            ):
                name = edge.upstream_name if edge.upstream_name != ANY_COLUMN else column
                if warehouse in ("", edge.warehouse) and _is_table(table, edge.upstream):
                    found[edge.warehouse, edge.upstream, name] = None
        return [_column(*place) for place in sorted(found)]

    def _object(self, name: str) -> StoredObject | None:
        for kind in VIEW_KINDS:
            item = self._state.objects.get((kind, name))
            if item is not None:
                return item
        return None

    def _whole(self, item: StoredObject) -> Node:
        return Node(item.kind, f"{item.name}@{item.version}")

    def _feature(self, item: StoredObject, name: str) -> Node:
        feature = next(feature for feature in item.features if feature["name"] == name)
        kind = "feature" if item.kind == "feature_view" else "on_demand_feature"
        said = str(feature["sql"])
        is_plain = said.strip('"`') == name
        detail = feature["dtype"] if is_plain else f"{said}: {feature['dtype']}"
        return Node(kind, f"{item.name}@{item.version}:{name}", detail)

    def up(self, nodes: Iterable[Node]) -> Iterator[Link]:
        """Yield what nodes are made of."""
        nodes = tuple(nodes)
        for node in nodes:
            if node.kind == "training_set":
                record = self._registry.training_sets.referred(f"{PREFIX}{node.name}")
                yield from (
                    Link(self._feature_at(view, feature), node)
                    for view, feature in record.features()
                )
        for item, name, node in self._located(nodes):
            edges = self._edges_of(item.key)
            if name is not None:
                yield from (
                    Link(self._upstream(edge), node) for edge in edges if edge.feature == name
                )
                yield from (
                    Link(self._upstream(edge), node, edge.role)
                    for edge in edges
                    if not edge.feature
                )
            elif item.kind == "feature_service":
                yield from (Link(self._upstream(edge), node) for edge in edges)
            else:
                for feature in item.features:
                    yield Link(self._feature(item, feature["name"]), node)

    def down(self, nodes: Iterable[Node]) -> Iterator[Link]:
        """Yield what is made of nodes."""
        for node in nodes:
            if node.kind == "column":
                warehouse, table, column = node.place
                edges = self._registry.index.edges(
                    self._state,
                    edge_table.c.upstream_kind == "column",
                    _is_column(column),
                    edge_table.c.upstream == table,
                    edge_table.c.warehouse == warehouse,
                )
            else:
                edges = list(self._made_of_features([node]))
                yield from self._training_sets_of(node)
            for edge in edges:
                item = self._state.objects[edge.key]
                if edge.feature and item.kind != "feature_service":
                    yield Link(node, self._feature(item, edge.feature), edge.role)
                elif edge.feature:
                    yield Link(node, self._whole(item))
                else:
                    for feature in item.features:
                        yield Link(node, self._feature(item, feature["name"]), edge.role)

    def _training_sets_of(self, node: Node) -> Iterator[Link]:
        for item, name, _ in self._located([node]):
            if item.kind == "feature_service":
                continue
            wanted = [name] if name is not None else [f["name"] for f in item.features]
            made = self._registry.training_sets.made_of(f"{item.name}@{item.version}", wanted)
            for training_set, version in dict.fromkeys((n, v) for n, v, _ in made):
                yield Link(node, _training_set(training_set, version))

    def _made_of_features(self, nodes: Iterable[Node]) -> Iterator[Edge]:
        for item, name, _ in self._located(nodes):
            if item.kind == "feature_service":
                continue
            wanted = [name] if name is not None else [f["name"] for f in item.features]
            yield from self._registry.index.edges(
                self._state,
                edge_table.c.upstream_kind == "feature",
                edge_table.c.upstream_name.in_(wanted),
                edge_table.c.upstream == f"{item.name}@{item.version}",
            )

    def _located(self, nodes: Iterable[Node]) -> Iterator[tuple[StoredObject, str | None, Node]]:
        for node in nodes:
            match = _REFERENCE.fullmatch(node.name)
            if node.kind in ("column", "request", "training_set") or match is None:
                continue
            item = self._object(match["name"])
            if node.kind == "feature_service":
                item = self._state.objects.get((node.kind, match["name"]))
            if item is not None and item.version == int(match["version"] or 0):
                yield item, match["feature"], node

    def _edges_of(self, key: Key) -> list[Edge]:
        kind, name = key
        return self._registry.index.edges(
            self._state, edge_table.c.kind == kind, edge_table.c.name == name
        )

    def _upstream(self, edge: Edge) -> Node:
        if edge.upstream_kind == "column":
            return _column(edge.warehouse, edge.upstream, edge.upstream_name)
        if edge.upstream_kind == "request":
            return Node("request", edge.upstream_name)
        return self._feature_at(edge.upstream, edge.upstream_name)

    def _feature_at(self, view: str, feature: str) -> Node:
        """Return a feature of a view with its version, as ``weather@2``."""
        item = self._object(view.partition("@")[0])
        if item is None or f"{item.name}@{item.version}" != view:
            return Node("feature", f"{view}:{feature}")  # an old version, which is still pinned
        return self._feature(item, feature)


def _is_table(asked: str, known: str) -> bool:
    """Tell whether one of two names is the other, or the end of it."""
    names = [name.lower().replace('"', "").removeprefix("./") for name in (asked, known)]
    longer, shorter = sorted(names, key=len, reverse=True)
    return longer == shorter or longer.endswith((f".{shorter}", f"/{shorter}"))


def _is_column(name: str) -> Any:
    return sa.func.lower(edge_table.c.upstream_name).in_([name.lower(), ANY_COLUMN])


def _training_set(name: str, version: int) -> Node:
    return Node("training_set", f"{name}@{version}")


def _column(warehouse: str, table: str, column: str) -> Node:
    place = table if warehouse == "default" else f"{warehouse}:{table}"
    return Node("column", f"{place}.{column}", place=(warehouse, table, column))
