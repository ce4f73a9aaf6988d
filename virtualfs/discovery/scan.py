"""What each table of a warehouse is, and the definitions that a person would write for it.

The steps, each a function: which columns name a row (`_identity`), which name rows of other tables
(`_references`), what the table is (`_classify`), and how entities are called (`_Entities`). All
that is guessed is said as a note, and no note is left out of what is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import cached_property
from typing import Any, Literal

from virtualfs.catalog import CatalogColumn, CatalogTable
from virtualfs.definitions.entity import Entity
from virtualfs.definitions.feature_view import Feature, FeatureView
from virtualfs.definitions.source import Source
from virtualfs.discovery import names
from virtualfs.discovery.profile import Profile, key_columns
from virtualfs.display import Block, Grid, Note, Shown, shown_text

__all__ = ["KINDS", "Finding", "Kind", "Scan", "scan_tables"]

Kind = Literal["event log", "SCD2", "current state", "dimension", "left out"]
KINDS: dict[Kind, str] = {
    "event log": "rows that happened, each dated",
    "SCD2": "rows that were true from one instant until another",
    "current state": "rows that are written over: there is no history to train on, and a training "
    "set gets today's values at every instant",
    "dimension": "facts without times: a training set gets them at every instant",
    "left out": "no view is proposed",
}
_ALMOST = 0.98
"""Share of sampled rows that keys and a time must tell apart to be taken for a key."""


@dataclass(frozen=True)
class Reference:
    """Columns that name rows of another table, and how that is known."""

    columns: tuple[str, ...]
    place: tuple[str, str]
    referenced: tuple[str, ...]
    why: str = ""


@dataclass(frozen=True)
class _Identity:
    """The columns that name a row; with `time`, together with it."""

    columns: tuple[str, ...]
    time: str | None = None
    note: str = ""


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
                (len(finding.notes) + bool(finding.naive_times)) or None,
            )
            for finding in self.findings
        ]
        shown: list[Block] = [Grid(heads, rows)]
        without = [finding.table.label for finding in self.findings if _has_no_history(finding)]
        if without:
            said = f"A current state table has {KINDS['current state']}."
            shown.append(Note(f"No history: {', '.join(without)}. {said}"))
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
            table=_dotted(finding.table),
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
                    description=_one_line(table.column(column).comment),
                    tags=table.column(column).tags,
                )
                for column, name in finding.features.items()
            ],
            description=_one_line(table.comment),
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


def _has_no_history(finding: Finding) -> bool:
    return finding.kind == "current state"


def scan_tables(
    tables: Sequence[CatalogTable], profiles: Mapping[tuple[str, str], Profile], warehouse: str
) -> Scan:
    """Classify tables and propose definitions for them. Pure.

    Parameters
    ----------
    profiles
        By schema and name; a table without one could not be sampled.
    """
    known = {_place(table): table for table in tables}
    samples = {place: profiles.get(place, Profile()) for place in known}
    identities = {place: _identity(table, samples[place]) for place, table in known.items()}
    references = {
        place: _references(table, known, identities, samples) for place, table in known.items()
    }
    for place, identity in identities.items():
        # Of a key that only a sample shows and a column that names rows elsewhere, the latter is
        # surer.
        if identity and identity.note and identity.time and references[place]:
            identities[place] = None
    referenced = {ref.place for refs in references.values() for ref in refs}
    drafts = {
        place: _classify(
            table, identities[place], references[place], samples[place], place in referenced
        )
        for place, table in known.items()
    }
    entities = _Entities(known, identities, references)
    view_names: set[str] = set()
    findings = []
    for place, draft in drafts.items():
        name = names.slug(draft.table.name)
        if name in view_names:
            name = names.slug(f"{draft.table.schema}_{draft.table.name}")
        name = names.unused(name, view_names)
        view_names.add(name)
        finding = _complete(
            replace(draft, name=name),
            entities,
            references[place],
            identities[place],
            known,
            samples[place],
        )
        findings.append(finding)
    findings = [_with_shared_keys(finding, findings) for finding in findings]
    used = {name for finding in findings for name in finding.entities}
    made = {name: entity for name, entity in entities.made.items() if name in used}
    return Scan(warehouse, made, tuple(findings))


def _place(table: CatalogTable) -> tuple[str, str]:
    return table.schema, table.name


def _dotted(table: CatalogTable) -> str:
    """Return the table's name as sources are given it, quoted where it must be."""
    parts = [table.name] if table.searched else [table.schema, table.name]
    parts = [*filter(None, [table.database]), *parts]
    plain = all(part.replace("_", "a").isalnum() and part == part.lower() for part in parts)
    return ".".join(parts) if plain else ".".join('"' + p.replace('"', '""') + '"' for p in parts)


def _one_line(text: str) -> str:
    return " ".join(text.split())


# -- which columns name a row


def _identity(table: CatalogTable, sample: Profile) -> _Identity | None:
    for columns in (table.primary_key, *table.unique_keys):
        if columns:
            times = [name for name in columns if table.column(name).is_time]
            rest = tuple(name for name in columns if name not in times)
            if rest:
                return _Identity(rest, times[-1] if times else None)
    if sample.rows < 2:
        return None
    seen = "all rows" if sample.whole else f"{sample.rows:,} sampled rows"
    candidates = [name for name in key_columns(table) if name.lower() not in names.CALENDAR]
    unique = [name for name in candidates if sample.is_unique([name])]
    if unique:
        best = min(unique, key=lambda name: (not _looks_like_key(name, table), unique.index(name)))
        return _Identity((best,), note=f"no key is declared; {best} was unique in {seen}")
    with_time: list[tuple[int, str, str]] = []
    for time in _event_candidates(table):
        for name in candidates:
            groups = sample.groups([name, time])
            repeats = sample.distinct[name] * 2 <= sample.rows
            if repeats and sample.distinct[name] > 1 and groups >= _ALMOST * sample.rows:
                with_time.append((sample.distinct[name], name, time))
    if with_time:
        _, name, time = min(with_time)
        note = f"no key is declared; {name} and {time} together were unique in {seen}"
        return _Identity((name,), time, note)
    return None


def _looks_like_key(name: str, table: CatalogTable) -> bool:
    text = name.lower()
    own = names.singular(names.slug(table.name))
    return text in names.GENERIC_KEYS or text.startswith(own) or text.endswith(("id", "code"))


# -- which columns name rows of other tables


def _references(
    table: CatalogTable,
    known: Mapping[tuple[str, str], CatalogTable],
    identities: Mapping[tuple[str, str], _Identity | None],
    samples: Mapping[tuple[str, str], Profile],
) -> list[Reference]:
    found = [
        Reference(key.columns, (key.schema, key.table), key.referenced)
        for key in table.foreign_keys
        if (key.schema, key.table) in known and (key.schema, key.table) != _place(table)
    ]
    covered = {column for reference in found for column in reference.columns}
    own = identities[_place(table)]
    if own is not None and len(own.columns) == 1 and own.time is None:
        covered.add(own.columns[0])  # it names the row itself
    sample = samples[_place(table)]
    for column in key_columns(table):
        if column in covered or column.lower() in names.GENERIC_KEYS | names.CALENDAR:
            continue
        for place, identity in identities.items():
            if place == _place(table) or identity is None or identity.time is not None:
                continue
            if len(identity.columns) != 1 or known[place].is_view:
                continue
            (key,) = identity.columns
            why = _meant(table, column, known[place], key, sample, samples[place])
            if why:
                found.append(Reference((column,), place, (key,), why))
                break
    return found


def _meant(
    table: CatalogTable, column: str, other: CatalogTable, key: str, here: Profile, there: Profile
) -> str:
    """Return why a column seems to name rows of another table; empty if it does not."""
    own = table.column(column).dtype or ""
    theirs = other.column(key).dtype or ""
    if own.rstrip("0123456789") != theirs.rstrip("0123456789"):
        return ""
    one = names.singular(names.slug(other.name))
    called = {f"{one}_{key.lower()}", f"{one}{key.lower()}", f"{one}_id"}
    if key.lower() not in names.GENERIC_KEYS:
        called.add(key.lower())
    if names.slug(column) in called or column.lower() in called:
        return f"{column} is called like {other.label}'s key"
    comparable = own.startswith(("string", "uuid")) and there.whole and there.rows > 2
    several = comparable and here.distinct.get(column, 0) > 2
    if several and here.share_in(column, there, key) >= _ALMOST:
        return f"the values of {column} are among {other.label}.{key}"
    return ""


# -- what a table is


def _event_candidates(table: CatalogTable) -> list[str]:
    """Return the columns that may date an event, the likeliest first."""
    ranked = []
    for number, column in enumerate(table.columns):
        name = column.name
        if not column.is_time or names.is_update_time(name) or names.created_rank(name) is not None:
            continue
        rank = names.event_rank(name, table.name)
        if rank is None and names.is_attribute_time(name):
            continue
        ranked.append((50 if rank is None else rank, number, name))
    return [name for _, _, name in sorted(ranked)]


def _created(table: CatalogTable) -> str | None:
    ranked = [
        (rank, column.name)
        for column in table.columns
        if column.is_time and (rank := names.created_rank(column.name)) is not None
    ]
    return min(ranked)[1] if ranked else None


def _classify(
    table: CatalogTable,
    identity: _Identity | None,
    references: Sequence[Reference],
    sample: Profile,
    is_referenced: bool,
) -> Finding:
    """Return the finding with its kind, times and key columns; names come later."""
    draft = Finding(table, "left out", "")
    if not table.readable:
        return replace(draft, notes=("this role may not read it; see `virtualfs doctor`",))
    note = (identity.note,) if identity and identity.note else ()
    created = _created(table)
    times = [column.name for column in table.columns if column.is_time]
    for start, end in names.validity_pairs(times):
        keys = _versioned_key(table, identity, references, sample, (start, end))
        if keys:
            return replace(
                draft, kind="SCD2", keys=dict.fromkeys(keys, ""), valid_from=start, valid_to=end,
                created_timestamp=created if created not in (start, end) else None, notes=note,
            )  # fmt: skip
    events = _event_candidates(table)
    strong = [name for name in events if names.event_rank(name, table.name) is not None]
    if identity is not None and identity.time is not None:
        others = [name for name in events if name != identity.time]
        return _log(draft, identity.columns, identity.time, created, note, others, sample)
    overwritten = [column.name for column in table.columns if names.is_update_time(column.name)]
    if references:
        chosen = strong or ([] if is_referenced else events)
        if not chosen and created and not is_referenced and not overwritten:
            chosen, created = [created], None
        if chosen:
            main = max(references, key=lambda ref: _spread(ref, sample))
            why = (main.why,) if main.why else ()
            return _log(draft, main.columns, chosen[0], created, (*note, *why), chosen[1:], sample)
    if identity is None:
        reason = "several rows share every key that was looked for, and no time tells them apart"
        if not key_columns(table):
            reason = "no column could name anything"
        elif sample.rows == 0:
            reason = "no key is declared, and there are no rows to find one by"
        return replace(draft, notes=(reason, "write it by hand, over a query= source if need be"))
    if strong and not overwritten and not is_referenced:
        return _log(draft, identity.columns, strong[0], created, note, strong[1:], sample)
    kind: Kind = "current state" if overwritten or created else "dimension"
    if kind == "current state":
        dated = ", ".join([*overwritten, *filter(None, [created])])
        note = (*note, f"rows are dated by their writing ({dated}), which is no history")
    elif events:
        note = (*note, f"if {', '.join(events)} dates these rows, say so by event_timestamp=")
    for reference in references if kind == "dimension" else ():
        note = (
            *note,
            f"if {reference.place[1]} dates these rows, join the two in a query= source",
        )
    return replace(draft, kind=kind, keys=dict.fromkeys(identity.columns, ""), notes=note)


def _dates_writing(column: CatalogColumn) -> bool:
    name = column.name
    return column.is_time and (names.is_update_time(name) or names.created_rank(name) is not None)


def _log(
    draft: Finding,
    keys: Iterable[str],
    event: str,
    created: str | None,
    notes: tuple[str, ...],
    others: Sequence[str],
    sample: Profile,
) -> Finding:
    if others:
        notes = (*notes, f"event_timestamp could also be {', '.join(others)}")
    notes = (
        *notes,
        "a row counts at its own instant; if the spine is made of this table, say "
        'boundary="exclusive" in the view, else each row finds itself among its features',
    )
    if created is None:
        notes = (
            *notes,
            "no column says when a row was written, so rows that came late cannot be told; if rows "
            "are known only some time after their event, say so by availability_delay=",
        )
    return replace(
        draft, kind="event log", keys=dict.fromkeys(keys, ""), event_timestamp=event,
        created_timestamp=created if created != event else None, notes=notes,
        span=sample.spans.get(event),
    )  # fmt: skip


def _spread(reference: Reference, sample: Profile) -> int:
    return max((sample.distinct.get(column, 0) for column in reference.columns), default=0)


def _versioned_key(
    table: CatalogTable,
    identity: _Identity | None,
    references: Sequence[Reference],
    sample: Profile,
    ends: tuple[str, str],
) -> tuple[str, ...]:
    """Return the columns that name what an SCD2 row is a version of."""
    if identity is not None and identity.time in ends:
        return identity.columns
    for reference in references:
        return reference.columns
    candidates = [
        name
        for name in key_columns(table)
        if sample.rows and 1 < sample.distinct[name] < sample.rows and not sample.nulls[name]
        and sample.is_unique([name, ends[0]])
    ]  # fmt: skip
    if candidates:
        return (min(candidates, key=lambda name: not _looks_like_key(name, table)),)
    return identity.columns if identity is not None else ()


# -- what entities are called


class _Entities:
    """Gives each set of key columns its entity, made when first asked for."""

    def __init__(
        self,
        tables: Mapping[tuple[str, str], CatalogTable],
        identities: Mapping[tuple[str, str], _Identity | None],
        references: Mapping[tuple[str, str], Sequence[Reference]],
    ) -> None:
        self.made: dict[str, Entity] = {}
        self._by_table: dict[tuple[tuple[str, str], tuple[str, ...]], str] = {}
        self._by_columns: dict[tuple[tuple[str, str], ...], str] = {}
        self._tables = tables
        self._identities = identities
        self._foreign: dict[tuple[str, str], Counter[tuple[str, ...]]] = {}
        for refs in references.values():
            for ref in refs:
                self._foreign.setdefault(ref.place, Counter())[ref.columns] += 1

    def of_table(self, place: tuple[str, str], columns: tuple[str, ...]) -> str:
        """Return the entity that a table's own key columns name."""
        asked = place, columns
        if asked not in self._by_table:
            table = self._tables[place]
            name = names.unused(names.singular(names.slug(table.name)), self.made)
            self._by_table[asked] = name
            called = self._foreign.get(place, Counter())
            keys = columns
            if len(called) == 1:
                (keys,) = called
            elif len(columns) == 1 and columns[0].lower() in names.GENERIC_KEYS:
                keys = (f"{name}_{columns[0].lower()}",)
            self._make(name, table, columns, keys, _one_line(table.comment))
        return self._by_table[asked]

    def of_columns(self, table: CatalogTable, columns: tuple[str, ...], stem: str) -> str:
        """Return the entity of key columns that name no row of any table."""
        families = tuple(
            (column, (table.column(column).dtype or "").rstrip("0123456789")) for column in columns
        )
        if families not in self._by_columns:
            name = stem
            if len(columns) == 1:
                name = names.slug(columns[0])
                for end in ("_id", "_code", "_key", "_uuid"):
                    name = name.removesuffix(end) or name
                if name in names.GENERIC_KEYS:
                    name = stem
            name = names.unused(name, self.made)
            self._by_columns[families] = name
            self._make(name, table, columns, columns, "")
        return self._by_columns[families]

    def _make(
        self, name: str, table: CatalogTable, columns: tuple[str, ...], keys: tuple[str, ...],
        description: str,
    ) -> None:  # fmt: skip
        types = [_key_type(table.column(column).dtype or "string") for column in columns]
        self.made[name] = Entity(
            name,
            {legal_name(key): dtype for key, dtype in zip(keys, types, strict=True)},
            description=description,
        )


def _key_type(dtype: str) -> str:
    """Return the type of a join key: any integer matches any other."""
    return "int64" if dtype.startswith(("int", "uint")) else dtype


def legal_name(name: str) -> str:
    """Return a column's name as one that a feature, key or time may have."""
    text = "".join("_" if char in ":@" or ord(char) < 32 else char for char in name).strip()
    return (text.lstrip("_") or "column") if text.startswith("__") or not text else text


# -- the rest of a finding


def _complete(
    draft: Finding,
    entities: _Entities,
    references: Sequence[Reference],
    identity: _Identity | None,
    tables: Mapping[tuple[str, str], CatalogTable],
    sample: Profile,
) -> Finding:
    if draft.kind == "left out":
        return draft
    table, place = draft.table, _place(draft.table)
    if any(char in part for part in (table.schema, table.name) for char in "/\\*") or (
        "." in table.name or "." in table.schema
    ):
        note = "its name looks like a file's or holds a dot; give it a view with a plainer name"
        return replace(draft, kind="left out", notes=(note,))
    columns = tuple(draft.keys)
    found, used = _entities_of(columns, draft, entities, references, identity, place)
    if any(table.column(column).dtype is None for column in columns):
        return replace(draft, kind="left out", notes=("its key has a type that is not known",))
    keys = {
        column: key
        for (name, its_columns) in found
        for column, key in zip(its_columns, entities.made[name].join_keys, strict=True)
    }
    left_out: dict[str, str] = {}
    features: dict[str, str] = {}
    notes = [*draft.notes]
    taken = {name.casefold() for name in (*keys.values(), *map(legal_name, draft.times.values()))}
    own = identity.columns if identity else ()
    for column in table.columns:
        name = column.name
        if name in keys or name in draft.times.values():
            continue
        if name.casefold() in taken:
            left_out[name] = "its name is that of a key, a time or another feature"
            continue
        others = [ref for ref in references if name in ref.columns and ref not in used]
        if column.dtype is None:
            left_out[name] = f"its type {column.native} is not known"
        elif column.dtype.startswith("binary"):
            left_out[name] = "bytes"
        elif names.is_personal(name):
            left_out[name] = "personal data?"
        elif others:
            left_out[name] = f"names a row of {tables[others[0].place].label}"
        elif name in own:
            left_out[name] = "names the row itself"
        elif draft.times and name.lower() in names.CALENDAR:
            left_out[name] = "part of a time"
        elif draft.kind == "current state" and _dates_writing(column):
            left_out[name] = "dates the writing of the row"
        elif draft.kind == "event log" and column.is_time:
            left_out[name] = "a later time, or filled in after the event?"
        else:
            features[name] = legal_name(name)
            taken.add(features[name].casefold())
    others = [ref for ref in references if ref not in used]
    if draft.kind == "event log" and others:
        listed = ", ".join(f"{tables[r.place].label} ({', '.join(r.columns)})" for r in others)
        notes.append(f"rows also name {listed}; copy the view to have features of those")
    if not features:
        notes.append("nothing is left to offer beside keys and times")
        return replace(draft, kind="left out", notes=tuple(notes))
    if sample.rows == 0:
        notes.append("no rows were seen: it is empty, or took too long to sample")
    return replace(
        draft, keys=keys, entities=tuple(name for name, _ in found), features=features,
        left_out=left_out, notes=tuple(notes), example=sample.example(keys),
    )  # fmt: skip


def _with_shared_keys(finding: Finding, findings: Sequence[Finding]) -> Finding:
    """Note the features of an event log that are other views' keys."""
    shared = [
        f"{column} is a key of {other.name}"
        for other in findings
        for column in other.keys
        if finding.kind == "event log" and column in finding.features and len(other.keys) == 1
    ]
    if not shared:
        return finding
    listed = ", ".join(dict.fromkeys(shared))
    note = f"{listed}; copy the view to have features by it"
    return replace(finding, notes=(*finding.notes, note))


def _entities_of(
    columns: tuple[str, ...],
    draft: Finding,
    entities: _Entities,
    references: Sequence[Reference],
    identity: _Identity | None,
    place: tuple[str, str],
) -> tuple[list[tuple[str, tuple[str, ...]]], list[Reference]]:
    """Return the entities of key columns, with the columns of each, and the references used."""
    named = draft.kind in ("dimension", "current state")
    if named and identity is not None and identity.columns == columns:
        parts = [ref for ref in references if set(ref.columns) <= set(columns)]
        if {column for ref in parts for column in ref.columns} != set(columns) or len(parts) < 1:
            return [(entities.of_table(place, columns), columns)], []
    rest = list(columns)
    found: list[tuple[str, tuple[str, ...]]] = []
    used = []
    for reference in references:
        if rest and set(reference.columns) <= set(rest):
            found.append(
                (entities.of_table(reference.place, reference.referenced), reference.columns)
            )
            used.append(reference)
            rest = [column for column in rest if column not in reference.columns]
    if rest:
        stem = names.singular(names.slug(draft.table.name))
        for end in ("_history", "_hist", "_scd2", "_scd", "_snapshot", "_log", "_version"):
            stem = names.singular(stem.removesuffix(end))
        found.append((entities.of_columns(draft.table, tuple(rest), stem), tuple(rest)))
    if len({name for name, _ in found}) != len(found):  # one entity twice, as in from and to
        first = found[0]
        keys = [column for _, its in found for column in its if column not in first[1]]
        found = [first, (entities.of_columns(draft.table, tuple(keys), keys[0]), tuple(keys))]
    return found, used
