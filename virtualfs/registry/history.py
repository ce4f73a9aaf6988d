"""Looking back: who changed what and when; and looking around: which features are used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from virtualfs.definitions.project import KINDS, kind_in_words
from virtualfs.display import Block, Code, Shown
from virtualfs.errors import NotFoundError, did_you_mean, printable
from virtualfs.registry.records import SIGNS, Record, RevisionRow, version_text
from virtualfs.registry.repository import Registry
from virtualfs.registry.state import State
from virtualfs.registry.tables import edges

__all__ = ["FeatureUsage", "History", "history", "usage"]

_USERS = ("feature_service", "on_demand_feature_view")
"""Kinds that use features."""


@dataclass(frozen=True)
class History(Shown):
    """Revisions and what each changed, newest first."""

    revisions: tuple[tuple[RevisionRow, tuple[Record, ...]], ...]
    environments: dict[int, tuple[str, ...]]
    """Environments by the revision that they point at."""
    is_whole: bool

    def __len__(self) -> int:
        return len(self.revisions)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.to_list())

    def _blocks(self) -> list[Block]:
        return [Code(str(self))]

    def __str__(self) -> str:
        lines = []
        for row, records in self.revisions:
            at = self.environments.get(row.number, ())
            where = f"  [{', '.join(at)}]" if at else ""
            said = f"  {row.action}" if row.action != "apply" else ""
            lines.append(
                f"revision {row.number}{where}  {row.created_at:%Y-%m-%d %H:%M:%S}Z  "
                f"{row.created_by}{said}"
            )
            if self.is_whole:
                lines.append(f"    {row.summary}")
                continue
            for record in records:
                version = version_text(record.action, record.version, record.old_version)
                told = "" if record.impact == "unknown" else f", {record.impact}"
                head = f"{kind_in_words(record.kind)} {record.name} ({version}{told})"
                lines.append(f"    {SIGNS[record.action]} {head}")
                lines += [f"        {line}" for line in record.details]
        return printable("\n".join(lines) or "There are no revisions yet.")

    def to_list(self) -> list[dict[str, Any]]:
        """Return the revisions as plain data."""
        return [
            {
                **vars(row),
                "environments": list(self.environments.get(row.number, ())),
                "changes": [
                    {**vars(record), "details": list(record.details)} for record in records
                ],
            }
            for row, records in self.revisions
        ]


def history(registry: Registry, state: State, name: str | None) -> History:
    """Return the history of an object, or of the project.

    Raises
    ------
    NotFoundError
        There never was an object of that name.
    """
    rows = registry.revisions(name)
    if name is not None and not rows:
        hint = did_you_mean(name, {key[1] for key in state.objects if key[0] in KINDS})
        raise NotFoundError(f"there never was a {name!r} in the registry. {hint}")
    at: dict[int, tuple[str, ...]] = defaultdict(tuple)
    for environment in registry.environments():
        at[environment.revision] += (environment.name,)
    found = tuple((row, tuple(records)) for row, records in rows)
    return History(found, dict(at), name is None)


@dataclass(frozen=True)
class FeatureUsage:
    """One feature, and who uses it: services, and on-demand views."""

    feature: str
    services: tuple[str, ...]
    on_demand: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.services or self.on_demand)


def usage(registry: Registry, state: State) -> list[FeatureUsage]:
    """Return every feature with its users, the most used first."""
    users: dict[tuple[str, str, str], dict[str, None]] = defaultdict(dict)
    for edge in registry.index.edges(state, edges.c.upstream_kind == "feature"):
        view = edge.upstream.partition("@")[0]
        users[view, edge.upstream_name, edge.key[0]][edge.key[1]] = None
    found = [
        FeatureUsage(
            f"{name}:{feature['name']}",
            *(tuple(users.get((name, feature["name"], kind), ())) for kind in _USERS),
        )
        for name, item in state.views().items()
        for feature in item.features
    ]
    return sorted(found, key=lambda item: (-len(item.services), -len(item.on_demand)))
