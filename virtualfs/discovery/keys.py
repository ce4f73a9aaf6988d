"""Which columns name a row, which name rows of other tables, and which date them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from virtualfs.catalog import CatalogTable
from virtualfs.discovery import names
from virtualfs.discovery.profile import Profile, key_columns

__all__ = [
    "Identity",
    "Reference",
    "created_column",
    "event_candidates",
    "find_identity",
    "find_references",
    "looks_like_key",
    "place_of",
]

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
class Identity:
    """The columns that name a row; with `time`, together with it."""

    columns: tuple[str, ...]
    time: str | None = None
    note: str = ""


def place_of(table: CatalogTable) -> tuple[str, str]:
    """Return a table's schema and name, which tell it from all others."""
    return table.schema, table.name


def find_identity(table: CatalogTable, sample: Profile) -> Identity | None:
    """Return the columns that name a row: as declared, else as a sample shows; None if none do."""
    for columns in (table.primary_key, *table.unique_keys):
        if columns:
            times = [name for name in columns if table.column(name).is_time]
            if any(names.is_attribute_time(name) and not _bounds(name) for name in times):
                continue  # a birth date tells people apart, and dates no event of theirs
            rest = tuple(name for name in columns if name not in times)
            if rest:
                return Identity(rest, times[-1] if times else None)
    if sample.rows < 2:
        return None
    seen = "all rows" if sample.whole else f"{sample.rows:,} sampled rows"
    candidates = [name for name in key_columns(table) if name.lower() not in names.CALENDAR]
    unique = [name for name in candidates if sample.is_unique([name])]
    if unique:
        best = min(unique, key=lambda name: (not looks_like_key(name, table), unique.index(name)))
        return Identity((best,), note=f"no key is declared; {best} was unique in {seen}")
    with_time: list[tuple[int, str, str]] = []
    for time in event_candidates(table):
        for name in candidates:
            groups = sample.groups([name, time])
            repeats = sample.distinct[name] * 2 <= sample.rows
            if repeats and sample.distinct[name] > 1 and groups >= _ALMOST * sample.rows:
                with_time.append((sample.distinct[name], name, time))
    if with_time:
        _, name, time = min(with_time)
        note = f"no key is declared; {name} and {time} together were unique in {seen}"
        return Identity((name,), time, note)
    return None


def _bounds(name: str) -> bool:
    return names.is_validity(name) or "since" in name.lower()


def looks_like_key(name: str, table: CatalogTable) -> bool:
    """Tell whether a column is called as keys are."""
    text = name.lower()
    own = names.singular(names.slug(table.name))
    return text in names.GENERIC_KEYS or text.startswith(own) or text.endswith(("id", "code"))


def find_references(
    table: CatalogTable,
    known: Mapping[tuple[str, str], CatalogTable],
    identities: Mapping[tuple[str, str], Identity | None],
    samples: Mapping[tuple[str, str], Profile],
) -> list[Reference]:
    """Return which columns name rows of other tables, as declared or as names and values show."""
    found = [
        Reference(key.columns, (key.schema, key.table), key.referenced)
        for key in table.foreign_keys
        if (key.schema, key.table) in known and (key.schema, key.table) != place_of(table)
    ]
    covered = {column for reference in found for column in reference.columns}
    own = identities[place_of(table)]
    if own is not None and len(own.columns) == 1 and own.time is None:
        covered.add(own.columns[0])  # it names the row itself
    sample = samples[place_of(table)]
    for column in key_columns(table):
        if column in covered or column.lower() in names.GENERIC_KEYS | names.CALENDAR:
            continue
        for place, identity in identities.items():
            if place == place_of(table) or identity is None or identity.time is not None:
                continue
            if len(identity.columns) != 1 or known[place].is_view:
                continue
            times = [each.name for each in known[place].columns if each.is_time]
            if identity.note and names.validity_pairs(times):
                continue  # what is unique among versions names a version
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


def event_candidates(table: CatalogTable) -> list[str]:
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


def created_column(table: CatalogTable) -> str | None:
    """Return the column that dates the writing of rows, if there is one."""
    ranked = [
        (rank, column.name)
        for column in table.columns
        if column.is_time and (rank := names.created_rank(column.name)) is not None
    ]
    return min(ranked)[1] if ranked else None
