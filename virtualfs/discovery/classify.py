"""What a table is: its kind, its times and the columns that its view is keyed by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations

from virtualfs.catalog import CatalogColumn, CatalogTable
from virtualfs.discovery import names
from virtualfs.discovery.findings import Finding, Kind
from virtualfs.discovery.keys import (
    Identity,
    Reference,
    created_column,
    event_candidates,
    looks_like_key,
)
from virtualfs.discovery.profile import Profile, key_columns

__all__ = ["classify", "dates_writing"]

_TRIED = 8
"""Columns of which pairs are tried as keys."""


def classify(
    table: CatalogTable,
    identity: Identity | None,
    references: Sequence[Reference],
    sample: Profile,
    is_referenced: bool,
) -> Finding:
    """Return the finding with its kind, times and key columns; names come later."""
    draft = Finding(table, "left out", "")
    if not table.readable:
        return replace(draft, notes=("this role may not read it",))
    note = (identity.note,) if identity and identity.note else ()
    created = created_column(table)
    times = [column.name for column in table.columns if column.is_time]
    went_on: tuple[str, str] | None = None
    for start, end in names.validity_pairs(times):
        keys = _versioned_key(table, identity, references, sample, (start, end))
        if not names.is_validity(start) and not sample.are_versions(keys, start, end):
            went_on = went_on or (start, end)
        elif keys:
            declared = identity is not None and identity.time is not None and not identity.note
            if not declared and not sample.is_unique([*keys, start]):
                note = (
                    *note,
                    f"no sample shows that {', '.join(keys)} and {start} tell rows apart; of rows "
                    "that hold at once one is picked",
                )
            elif identity is not None and keys == identity.columns and identity.time is None:
                note = (
                    *note,
                    f"{', '.join(keys)} names each row; if rows are versions of something, name "
                    "what by entities=",
                )
            if not names.is_validity(start):
                note = (
                    *note,
                    f"{start} and {end} are taken for when a row was true, and its values for "
                    f"known from {start} on",
                )
            return replace(
                draft, kind="SCD2", keys=dict.fromkeys(keys, ""), valid_from=start, valid_to=end,
                created_timestamp=created if created not in (start, end) else None, notes=note,
            )  # fmt: skip
    if went_on and (references or identity):
        start, end = went_on
        keys, why = _main_key(identity, references, sample, went_on)
        note = (
            *note,
            *why,
            f"{start} to {end} is taken for something that went on and was known once it was over; "
            "if rows are what held in between, say valid_from= and valid_to= instead",
        )
        return _log(draft, keys, end, created, note, [], sample)
    events = event_candidates(table)
    strong = [name for name in events if names.event_rank(name, table.name) is not None]
    if identity is not None and identity.time is not None:
        others = [name for name in events if name != identity.time]
        return _log(draft, identity.columns, identity.time, created, note, others, sample)
    overwritten = _overwritten(table)
    if references:
        # A time that only its type speaks for may lie before a row was written.
        chosen = strong or ([] if is_referenced or created else events)
        if not chosen and created and not is_referenced and not overwritten:
            chosen, created = [created], None
        if chosen:
            keys, why = _main_key(None, references, sample)
            if chosen[0] not in strong:
                why = (*why, f"only its type says that {chosen[0]} dates these rows")
            return _log(draft, keys, chosen[0], created, why, chosen[1:], sample)
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


def dates_writing(column: CatalogColumn) -> bool:
    """Tell whether a column dates the writing of its row, by its name."""
    name = column.name
    return column.is_time and (names.is_update_time(name) or names.created_rank(name) is not None)


def _overwritten(table: CatalogTable) -> list[str]:
    """Return the columns whose names say that rows are written over."""
    return [column.name for column in table.columns if names.is_update_time(column.name)]


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
    grain = sample.grain(event)
    if (draft.table.column(event).dtype or "").startswith("date"):
        grain = "day"
    if grain is not None:
        notes = (
            *notes,
            f"{event} says no more than the {grain}, which counts from its start; rows that sum it "
            f'up are known only when it is over, so say availability_delay="1{grain[0]}" of them',
        )
    changed = _overwritten(draft.table)
    if changed:
        notes = (
            *notes,
            f"{', '.join(changed)} says that rows are written over after their event: what is "
            "changed then is seen too early, so leave such columns out",
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


def _main_key(
    identity: Identity | None,
    references: Sequence[Reference],
    sample: Profile,
    times: Sequence[str] = (),
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what an event's row is about: the key beside its time, else what it names most."""
    if identity is not None and (identity.time in times or not references):
        return identity.columns, ()
    main = max(references, key=lambda ref: _spread(ref, sample))
    return main.columns, (main.why,) if main.why else ()


def _spread(reference: Reference, sample: Profile) -> int:
    return max((sample.distinct.get(column, 0) for column in reference.columns), default=0)


def _versioned_key(
    table: CatalogTable,
    identity: Identity | None,
    references: Sequence[Reference],
    sample: Profile,
    ends: tuple[str, str],
) -> tuple[str, ...]:
    """Return the columns that name what an SCD2 row is a version of.

    They tell all sampled rows apart together with the row's beginning, and do not by themselves.
    """
    if identity is not None and identity.time in ends:
        return identity.columns
    named = [reference.columns for reference in references]
    every = tuple(dict.fromkeys(column for columns in named for column in columns))
    repeated = [
        name
        for name in key_columns(table)
        if sample.rows and 1 < sample.distinct[name] < sample.rows and not sample.nulls[name]
    ]
    repeated = sorted(repeated, key=lambda name: not looks_like_key(name, table))[:_TRIED]
    tried = [*named, every, *((name,) for name in repeated), *combinations(repeated, 2)]
    for columns in tried:
        if columns and sample.is_unique([*columns, ends[0]]):
            return columns
    return every or (identity.columns if identity is not None else ())
