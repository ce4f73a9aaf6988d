"""What entities are called: one for each set of columns that name the same things."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from virtualfs.catalog import CatalogTable
from virtualfs.definitions.entity import Entity
from virtualfs.discovery import names
from virtualfs.discovery.findings import legal_name, one_line
from virtualfs.discovery.keys import Reference

__all__ = ["Entities"]


class Entities:
    """Gives each set of key columns its entity, made when first asked for."""

    def __init__(
        self,
        tables: Mapping[tuple[str, str], CatalogTable],
        references: Mapping[tuple[str, str], Sequence[Reference]],
        bases: Mapping[tuple[str, str], tuple[str, str]],
    ) -> None:
        self.made: dict[str, Entity] = {}
        self._by_table: dict[tuple[tuple[str, str], tuple[str, ...]], str] = {}
        self._by_columns: dict[tuple[tuple[str, str], ...], str] = {}
        self._tables = tables
        self._bases = bases
        self._foreign: dict[tuple[tuple[str, str], tuple[str, ...]], Counter[tuple[str, ...]]] = {}
        for refs in references.values():
            for ref in refs:
                called = self._foreign.setdefault((ref.place, ref.referenced), Counter())
                called[ref.columns] += 1

    def of_table(self, place: tuple[str, str], columns: tuple[str, ...]) -> str:
        """Return the entity that a table's own key columns name."""
        place = self._bases.get(place, place)  # a view's rows are its table's
        asked = place, columns
        if asked not in self._by_table:
            table = self._tables[place]
            name = names.unused(names.singular(names.slug(table.name)), self.made)
            self._by_table[asked] = name
            called = self._foreign.get(asked, Counter())
            keys = columns
            if len(called) == 1:
                (keys,) = called
            elif len(columns) == 1 and columns[0].lower() in names.GENERIC_KEYS:
                end = columns[0].lower()
                keys = (name if name.endswith(f"_{end}") else f"{name}_{end}",)
            self._make(name, table, columns, keys, one_line(table.comment))
        return self._by_table[asked]

    def of_columns(self, table: CatalogTable, columns: tuple[str, ...], stem: str) -> str:
        """Return the entity of key columns that name no row of any table."""
        families = tuple(
            (column, (table.column(column).dtype or "").rstrip("0123456789")) for column in columns
        )
        if any(column.lower() in names.GENERIC_KEYS for column in columns):
            families = ((table.schema, table.name), *families)  # another table's id is another id
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
