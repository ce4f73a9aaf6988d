"""What a warehouse's own catalog says of its tables: frozen, and free of any engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["CatalogColumn", "CatalogTable", "ForeignKey", "assembled", "share_to_read"]


@dataclass(frozen=True)
class CatalogColumn:
    """One column of a table.

    Parameters
    ----------
    dtype
        Data type as VirtualFS writes it; None where it has none for the engine's type.
    native
        The type as the engine writes it.
    """

    name: str
    dtype: str | None
    native: str
    nullable: bool = True
    comment: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_time(self) -> bool:
        """Whether the column holds timestamps or dates."""
        return self.dtype is not None and self.dtype.startswith(("timestamp", "date"))

    @property
    def is_naive(self) -> bool:
        """Whether the column holds timestamps that say no zone."""
        return self.dtype is not None and self.dtype.startswith("timestamp") and (
            "'" not in self.dtype
        )  # fmt: skip


@dataclass(frozen=True)
class ForeignKey:
    """Columns that name a row of another table."""

    columns: tuple[str, ...]
    schema: str
    table: str
    referenced: tuple[str, ...]


@dataclass(frozen=True)
class CatalogTable:
    """One table or view.

    Parameters
    ----------
    searched
        Whether the table is found by its name alone, without its schema.
    rows
        Number of rows as the catalog knows it, never counted; None where it does not.
    readable
        Whether the role that asks may read it.
    database
        The database it lies in, where that must be said.
    """

    schema: str
    name: str
    columns: tuple[CatalogColumn, ...]
    is_view: bool = False
    searched: bool = True
    primary_key: tuple[str, ...] = ()
    unique_keys: tuple[tuple[str, ...], ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    comment: str = ""
    rows: int | None = None
    readable: bool = True
    database: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name as a person would say it, with its schema where it needs one."""
        name = self.name if self.searched else f"{self.schema}.{self.name}"
        return "".join(char if char.isprintable() else " " for char in name)

    def column(self, name: str) -> CatalogColumn:
        """Return a column by name."""
        return next(column for column in self.columns if column.name == name)


def assembled(
    tables: Iterable[tuple[Any, CatalogTable]],
    columns: Iterable[tuple[Any, CatalogColumn]],
    constraints: Iterable[tuple[Any, str, Sequence[str], str, str, Sequence[str]]],
) -> list[CatalogTable]:
    """Return tables with their columns and keys, each told by what numbers its table.

    Parameters
    ----------
    tables
        Without columns and keys.
    constraints
        Kind (``"p"`` primary, ``"u"`` unique, ``"f"`` foreign; others are left out), columns, and
        of a foreign key the schema, the table and the columns that it names.
    """
    held: dict[Any, list[CatalogColumn]] = {}
    for number, column in columns:
        held.setdefault(number, []).append(column)
    keys: dict[tuple[Any, str], list[tuple[str, ...]]] = {}
    foreign: dict[Any, list[ForeignKey]] = {}
    for number, kind, names, schema, table, referenced in constraints:
        if kind == "f":
            key = ForeignKey(tuple(names), schema, table, tuple(referenced))
            foreign.setdefault(number, []).append(key)
        else:
            keys.setdefault((number, kind), []).append(tuple(names))
    return [
        replace(
            found,
            columns=tuple(held.get(number, ())),
            primary_key=next(iter(keys.get((number, "p"), ())), ()),
            unique_keys=tuple(keys.get((number, "u"), ())),
            foreign_keys=tuple(foreign.get(number, ())),
        )
        for number, found in tables
    ]


def share_to_read(table: CatalogTable, rows: int) -> float | None:
    """Return the percentage of a large table that holds `rows`; None to read from its start.

    Twice as much as is needed, as engines pick whole pages.
    """
    if not table.rows or table.is_view:
        return None
    share = 100.0 * 2 * rows / table.rows
    return share if share < 50 else None
