"""What the answers of compiled documents look like: from rows, and from plans' answers, to data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import itemgetter
from typing import Any

from virtualfs.compiler.plan import ResolvedView
from virtualfs.serving.answer import status_of
from virtualfs.serving.codec import Row, from_micros
from virtualfs.serving.part import outlived, ttl_of
from virtualfs_graphql.generated import MetaField
from virtualfs_graphql.inputs import wires_of
from virtualfs_graphql.request import PlanAnswer
from virtualfs_graphql.scalars import rfc3339, to_json

__all__ = ["ONLINE", "Leaf", "Shape"]


@dataclass(frozen=True)
class Leaf:
    """One field of a view or a plan, as the answer has it."""

    place: int | None = None
    wire: Callable[[Any], Any] | None = None
    constant: str | None = None
    meta: MetaField | None = None
    shown: Mapping[str, str] | None = None
    """Of what is known of a row: fields by the names of the answer."""
    kind: str = ""


class Shape:
    """What is shown of each row of a view, or of a plan's answer."""

    def __init__(self, leaves: Mapping[str, Leaf]) -> None:
        self._names = tuple(leaves)
        self._leaves = tuple(leaves.values())
        places = [leaf.place for leaf in self._leaves]
        self._pick: Callable[[Sequence[Any]], Sequence[Any]] | None = None
        if places and all(leaf.place is not None and leaf.wire is None for leaf in self._leaves):
            self._pick = _picker([place for place in places if place is not None])

    def of_rows(self, view: ResolvedView, rows: Sequence[Row], at: int) -> list[dict[str, Any]]:
        """Return what is shown of rows at an instant."""
        ttl = ttl_of(view)
        values: list[Sequence[Any]] = [row.values for row in rows]
        if ttl is not None:
            nothing = (None,) * len(view.features)
            values = [nothing if outlived(row, ttl, at) else row.values for row in rows]
        return self._objects(values, lambda leaf: [_row_meta(leaf, view, row, at) for row in rows])

    def of_answer(self, answer: PlanAnswer) -> dict[str, Any]:
        """Return what is shown of the answer of a plan for one entity."""
        (shown,) = self._objects(answer.response.values, lambda leaf: [_answer_meta(leaf, answer)])
        return shown

    def _objects(
        self, values: Sequence[Sequence[Any]], metas: Callable[[Leaf], list[Any]]
    ) -> list[dict[str, Any]]:
        names = self._names
        if self._pick is not None:
            return [dict(zip(names, row, strict=True)) for row in map(self._pick, values)]
        columns: list[Iterable[Any]] = []
        for leaf in self._leaves:
            place, wire = leaf.place, leaf.wire
            if place is None:
                columns.append(metas(leaf) if leaf.meta else repeat(leaf.constant, len(values)))
            elif wire is None:
                columns.append([row[place] for row in values])
            else:
                columns.append([None if row[place] is None else wire(row[place]) for row in values])
        rows = zip(*columns, strict=True) if columns else repeat((), len(values))
        return [dict(zip(names, row, strict=True)) for row in rows]


def _picker(places: list[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    if len(places) == 1:
        (place,) = places
        return lambda values: (values[place],)
    return itemgetter(*places)


def _row_meta(leaf: Leaf, view: ResolvedView, row: Row, at: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in (leaf.shown or {}).items():
        if field == "status":
            found[name] = status_of(row, view, at).name
        elif field == "eventTimestamp":
            found[name] = None if row.event is None else rfc3339(from_micros(row.event))
        elif field == "version":
            found[name] = view.version or 0
        elif field == "cacheHit":
            found[name] = row.cached
        else:
            found[name] = leaf.kind
    return found


_META: dict[str, Callable[[Any], Any]] = {
    "status": lambda meta: meta.status.name,
    "eventTimestamp": lambda meta: meta.event_timestamp and rfc3339(meta.event_timestamp),
    "version": lambda meta: meta.version,
    "cacheHit": lambda meta: meta.cache_hit,
    "names": lambda meta: meta.names,
    "statuses": lambda meta: [status.name for status in meta.statuses],
    "eventTimestamps": lambda meta: [
        None if event is None else rfc3339(event) for event in meta.event_timestamps
    ],
}


def _answer_meta(leaf: Leaf, answer: PlanAnswer) -> dict[str, Any]:
    meta = leaf.meta.of(answer) if leaf.meta else None
    return {
        name: leaf.kind if field == "__typename" else _META[field](meta)
        for name, field in (leaf.shown or {}).items()
    }


def _online_rows(answer: PlanAnswer) -> list[Any]:
    return [to_json(row) for row in answer.response.to_list()]


def _online_values(answer: PlanAnswer) -> Sequence[Sequence[Any]]:
    dtypes = answer.plan.shown_dtypes
    wires = wires_of(tuple([dtypes[name] for name in answer.plan.columns]))
    if not wires:
        return answer.response.values
    return [
        [
            value if wire is None or value is None else wire(value)
            for wire, value in zip(wires, row, strict=True)
        ]
        for row in answer.response.values
    ]


def _online_statuses(answer: PlanAnswer) -> list[Any]:
    return _by_entity(answer, list(answer.response.statuses.values()))


def _online_events(answer: PlanAnswer) -> list[Any]:
    texts: dict[Any, Any] = {None: None}
    columns = []
    for events in answer.response.event_timestamps.values():
        for event in events:
            if event is not None and event not in texts:
                texts[event] = rfc3339(event)
        columns.append([texts[event] for event in events])
    return _by_entity(answer, columns)


def _by_entity(answer: PlanAnswer, columns: Sequence[Sequence[Any]]) -> list[Any]:
    return [*zip(*columns, strict=True)] if columns else [()] * len(answer.response.values)


ONLINE: dict[str, Callable[[PlanAnswer], Any]] = {
    "names": lambda answer: answer.response.names,
    "rows": _online_rows,
    "values": _online_values,
    "statuses": _online_statuses,
    "eventTimestamps": _online_events,
    "__typename": lambda _: "OnlineFeatures",
}
