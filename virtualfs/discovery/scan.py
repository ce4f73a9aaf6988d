"""From a catalog and samples to a scan: the steps in order, and what is offered of each table.

Keys are found first (``keys``), then what each table is (``classify``) and how entities are called
(``entities``). All that is guessed is said as a note, and no note is left out of what is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from virtualfs.catalog import CatalogTable
from virtualfs.discovery import names
from virtualfs.discovery.classify import classify, dates_writing
from virtualfs.discovery.entities import Entities
from virtualfs.discovery.findings import Finding, Scan, legal_name
from virtualfs.discovery.keys import (
    Identity,
    Reference,
    find_identity,
    find_references,
    place_of,
)
from virtualfs.discovery.profile import Profile

__all__ = ["scan_tables"]

_MANY = 20
"""Rows before what differs in each is taken to name the row."""


def scan_tables(
    tables: Sequence[CatalogTable], profiles: Mapping[tuple[str, str], Profile], warehouse: str
) -> Scan:
    """Classify tables and propose definitions for them. Pure.

    Parameters
    ----------
    profiles
        By schema and name; a table without one could not be sampled.
    """
    tables, bases = _views_like_tables(tables)
    known = {place_of(table): table for table in tables}
    samples = {place: profiles.get(place, Profile()) for place in known}
    identities = {place: find_identity(table, samples[place]) for place, table in known.items()}
    references = {
        place: find_references(table, known, identities, samples) for place, table in known.items()
    }
    for place, identity in identities.items():
        # Of a key that only a sample shows and a column that names rows elsewhere, the latter is
        # surer.
        if identity and identity.note and identity.time and references[place]:
            identities[place] = None
    called: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for refs in references.values():
        for ref in refs:
            called.setdefault(ref.place, []).append(ref.referenced)
    for place, keys in called.items():
        # What others call a table's rows by says more than a number of its own.
        own = identities[place]
        if own is not None and own.time is None and own.columns not in keys:
            identities[place] = Identity(keys[-1])
    drafts = {}
    for place, table in known.items():
        base = bases.get(place, place)
        like = replace(table, name=known[base].name)  # whose name says what times may mean
        draft = classify(like, identities[place], references[place], samples[place], base in called)
        drafts[place] = replace(draft, table=table)
    entities = Entities(known, references, bases)
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


def _views_like_tables(
    tables: Sequence[CatalogTable],
) -> tuple[list[CatalogTable], dict[tuple[str, str], tuple[str, str]]]:
    """Give views that show columns of one table that table's keys and comments.

    Returns the tables, and of each such view the place of its table.
    """
    found, bases = [], {}
    for view in tables:
        shown = {(column.name, column.native) for column in view.columns}
        like = [
            table
            for table in tables
            if not table.is_view
            and table.primary_key
            and set(table.primary_key) <= {name for name, _ in shown}
            and shown <= {(column.name, column.native) for column in table.columns}
        ]
        if view.is_view and len(like) == 1:
            (table,) = like
            there = {name for name, _ in shown}
            bases[place_of(view)] = place_of(table)
            view = replace(
                view,
                primary_key=table.primary_key,
                unique_keys=tuple(key for key in table.unique_keys if there.issuperset(key)),
                foreign_keys=tuple(
                    key for key in table.foreign_keys if there.issuperset(key.columns)
                ),
                columns=tuple(
                    replace(column, comment=column.comment or table.column(column.name).comment)
                    for column in view.columns
                ),
            )
        found.append(view)
    return found, bases


def _complete(
    draft: Finding,
    entities: Entities,
    references: Sequence[Reference],
    identity: Identity | None,
    tables: Mapping[tuple[str, str], CatalogTable],
    sample: Profile,
) -> Finding:
    if draft.kind == "left out":
        return draft
    table, place = draft.table, place_of(draft.table)
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
    own = identity.columns if identity and not identity.note else ()
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
        elif (
            draft.kind == "event log"
            and names.names_a_row(name)
            and sample.rows >= _MANY
            and sample.distinct.get(name) == sample.rows
        ):
            left_out[name] = "another in each row"
        elif draft.times and name.lower() in names.CALENDAR:
            left_out[name] = "part of a time"
        elif draft.kind == "current state" and dates_writing(column):
            left_out[name] = "dates the writing of the row"
        elif draft.kind == "event log" and column.is_time:
            left_out[name] = "another time, perhaps filled in after the event"
        else:
            features[name] = legal_name(name)
            taken.add(features[name].casefold())
    documents = [name for name in features if table.column(name).dtype == "json"]
    if documents:
        notes.append(
            f"{', '.join(documents)}: JSON as it is; a Feature's expr= takes a field of it"
        )
    for name in features:
        unit = sample.epoch_unit(name) if names.is_number_of_time(name) else None
        if unit:
            notes.append(f"{name} may be {unit} since 1970; a query= source can make a time of it")
    later = [name for name in features if names.is_changed_later(name)]
    if draft.kind == "event log" and later:
        notes.append(
            f"{', '.join(later)} may be set after the event, and then would be seen too early; "
            "leave out what is"
        )
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
        distinct=sample.different([*keys]),
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
    entities: Entities,
    references: Sequence[Reference],
    identity: Identity | None,
    place: tuple[str, str],
) -> tuple[list[tuple[str, tuple[str, ...]]], list[Reference]]:
    """Return the entities of key columns, with the columns of each, and the references used."""
    if identity is not None and identity.time is None and identity.columns == columns:
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
