"""What was found of tables, and the definitions proposed for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any, Literal

from virtualfs.cached import cached_property
from virtualfs.catalog import CatalogTable
from virtualfs.definitions.entity import Entity
from virtualfs.definitions.feature_view import Feature, FeatureView
from virtualfs.definitions.source import Source
from virtualfs.discovery import names
from virtualfs.display import Block, Grid, Note, Shown, shown_text

__all__ = ["KINDS", "Finding", "Kind", "Scan", "dotted", "legal_name", "one_line"]

Kind = Literal["event log", "SCD2", "current state", "dimension", "left out"]
KINDS: dict[Kind, str] = {
    "event log": "rows that happened, each dated",
    "SCD2": "rows that were true from one instant until another",
    "current state": "rows that are written over: there is no history to train on, and a training "
    "set gets today's values at every instant",
    "dimension": "facts without times: a training set gets them at every instant",
    "left out": "no view is proposed",
}


_SHOWN = 12
"""Tables left out to say the reasons of; a file or JSON says all."""


@dataclass(frozen=True)
class Finding:
    """What was found of one table.

    Parameters
    ----------
    keys
        Columns that hold the join keys, mapped to the names of those.
    features
        Columns to offer, mapped to the names of the features.
    left_out
        Columns that are not offered, and why.
    notes
        Doubts, for a person to settle.
    span
        First and last event timestamp in the sample.
    distinct
        How many different keys the sample holds.
    example
        Join keys of a row of the sample.
    """

    table: CatalogTable
    kind: Kind
    name: str
    entities: tuple[str, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict)
    event_timestamp: str | None = None
    created_timestamp: str | None = None
    valid_from: str | None = None
    valid_to: str | None = None
    timezone: str = "UTC"
    features: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    span: tuple[date | datetime, date | datetime] | None = None
    distinct: int | None = None
    example: Mapping[str, Any] = field(default_factory=dict)

    @property
    def times(self) -> dict[str, str]:
        """Time columns by the role that they have in the source."""
        roles = ("event_timestamp", "created_timestamp", "valid_from", "valid_to")
        return {role: getattr(self, role) for role in roles if getattr(self, role)}

    @property
    def naive_times(self) -> list[str]:
        """Time columns in use that say no zone."""
        return [name for name in self.times.values() if self.table.column(name).is_naive]

    @property
    def doubts(self) -> tuple[str, ...]:
        """What a person should settle: times without a zone, and the notes."""
        if not self.naive_times or self.kind == "left out":
            return self.notes
        zone = (
            f"{', '.join(self.naive_times)}: no zone is said; read as {self.timezone}. If that is "
            "wrong, say timezone= in the source"
        )
        if self.timezone != "UTC":
            zone += ". A spine's own times without a zone are UTC all the same: give them one"
        return (zone, *self.notes)

    @property
    def renamed(self) -> dict[str, str]:
        """Source columns that views call otherwise."""
        times = {column: legal_name(column) for column in self.times.values()}
        named = {**times, **self.keys, **self.features}
        renamed = {column: name for column, name in named.items() if column != name}
        taken = {column.name for column in self.table.columns} | {*renamed.values()}
        for name in [*renamed.values()]:  # the column that had the name makes room
            if name in {column.name for column in self.table.columns} and name not in renamed:
                renamed[name] = names.unused(name, taken)
        return renamed


@dataclass(frozen=True, repr=False)
class Scan(Shown):
    """What was found in a warehouse, and the definitions proposed for it."""

    warehouse: str
    entities: Mapping[str, Entity]
    findings: tuple[Finding, ...]

    def _blocks(self) -> list[Block]:
        heads = ("table", "is", "rows", "entity", "times", "features", "doubts")
        rows = [
            (
                finding.table.label,
                finding.kind,
                None if finding.table.rows is None else f"{finding.table.rows:,}",
                finding.entities or None,
                [*finding.times.values()] or None,
                len(finding.features) or None,
                len(finding.doubts) or None,
            )
            for finding in self.findings
        ]
        shown: list[Block] = [Grid(heads, rows)]
        without = [
            finding.table.label for finding in self.findings if finding.kind == "current state"
        ]
        if without:
            said = f"A current state table has {KINDS['current state']}."
            shown.append(Note(f"No history: {', '.join(without)}. {said}"))
        shown += [
            Note(f"Left out: {finding.table.label}: {'; '.join(finding.notes)}.")
            for finding in self.findings
            if finding.kind == "left out"
        ][:_SHOWN]
        return shown

    def __repr__(self) -> str:
        return f"Scan({len(self.findings)} tables, {len(self.proposed)} views proposed)"

    def __str__(self) -> str:
        return shown_text(self)

    @property
    def proposed(self) -> list[Finding]:
        """The findings that a view is proposed for."""
        return [finding for finding in self.findings if finding.kind != "left out"]

    @cached_property
    def definitions(self) -> list[FeatureView]:
        """The feature views proposed, with their sources and entities."""
        return [self.view_of(finding) for finding in self.proposed]

    def source_of(self, finding: Finding) -> Source:
        """Return the source of a finding."""
        times = {role: legal_name(column) for role, column in finding.times.items()}
        return Source(
            finding.name,
            table=dotted(finding.table),
            warehouse=self.warehouse,
            columns=finding.renamed,
            event_timestamp=times.get("event_timestamp"),
            created_timestamp=times.get("created_timestamp"),
            timezone=finding.timezone,
            valid_from=times.get("valid_from"),
            valid_to=times.get("valid_to"),
        )

    def view_of(self, finding: Finding) -> FeatureView:
        """Return the feature view of a finding."""
        table = finding.table
        return FeatureView(
            finding.name,
            source=self.source_of(finding),
            entities=[self.entities[name] for name in finding.entities],
            features=[
                Feature(
                    name,
                    dtype=table.column(column).dtype,
                    description=one_line(table.column(column).comment),
                    tags=table.column(column).tags,
                )
                for column, name in finding.features.items()
            ],
            description=one_line(table.comment),
            owner=table.owner,
            tags=table.tags,
        )

    def to_python(self) -> str:
        """Return the text of a ``features.py``, with doubts as comments."""
        from virtualfs.discovery.write import to_python

        return to_python(self)

    def to_yaml(self) -> str:
        """Return the text of a ``features.yaml``, with doubts as comments."""
        from virtualfs.discovery.write import to_yaml

        return to_yaml(self)

    def in_zone(self, timezone: str) -> Scan:
        """Return the scan with times that say no zone read in `timezone`."""
        findings = tuple(
            replace(finding, timezone=timezone) if finding.naive_times else finding
            for finding in self.findings
        )
        return replace(self, findings=findings)


def dotted(table: CatalogTable) -> str:
    """Return the table's name as sources are given it, quoted where it must be."""
    parts = [table.name] if table.searched else [table.schema, table.name]
    parts = [*filter(None, [table.database]), *parts]
    plain = all(part.replace("_", "a").isalnum() and part == part.lower() for part in parts)
    return ".".join(parts) if plain else ".".join('"' + p.replace('"', '""') + '"' for p in parts)


def one_line(text: str) -> str:
    """Return a comment as one line of text."""
    return " ".join(text.split())


def legal_name(name: str) -> str:
    """Return a column's name as one that a feature, key or time may have."""
    text = "".join("_" if char in ":@" or not char.isprintable() else char for char in name).strip()
    return (text.lstrip("_") or "column") if text.startswith("__") or not text else text
