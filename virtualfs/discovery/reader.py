"""Reads a warehouse's catalog and samples its tables, so that they can be classified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from virtualfs.catalog import CatalogTable
from virtualfs.discovery.profile import SAMPLE_ROWS, Profile, profile, sampled_columns
from virtualfs.discovery.scan import Scan, scan_tables
from virtualfs.errors import NotFoundError, WarehouseError, did_you_mean
from virtualfs.provider import Warehouse

__all__ = ["scan_warehouse"]


def scan_warehouse(
    warehouse: Warehouse,
    *,
    schemas: Sequence[str] = (),
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    progress: Callable[[Sequence[CatalogTable]], Sequence[CatalogTable]] = list,
) -> Scan:
    """Read a warehouse's tables and propose definitions for them; nothing is written anywhere.

    Every sample is a read of at most 20,000 rows that is stopped after a few seconds; a table that
    cannot be sampled is classified by its catalog alone.

    Parameters
    ----------
    schemas
        Schemas to look at; all when empty.
    include, exclude
        Patterns of names, with ``*`` and ``?``, of ``table`` or ``schema.table``.
    progress
        Wraps the tables while they are sampled.

    Raises
    ------
    NotFoundError
        A schema is not there, or no table is left.
    UnsupportedByWarehouseError
        The warehouse's provider reads no catalog.
    """
    everything = warehouse.catalog()
    there = sorted({table.schema for table in everything})
    for schema in schemas:
        if schema not in there:
            raise NotFoundError(f"there is no schema {schema!r}. {did_you_mean(schema, there)}")

    def matches(table: CatalogTable, patterns: Sequence[str]) -> bool:
        called = (table.name, f"{table.schema}.{table.name}")
        return any(fnmatchcase(name, pattern) for name in called for pattern in patterns)

    tables = [
        table
        for table in everything
        if (not schemas or table.schema in schemas)
        and (not include or matches(table, include))
        and not matches(table, exclude)
    ]
    if not tables:
        raise NotFoundError(
            f"warehouse {warehouse.name!r} has no table to scan"
            + (f" among {len(everything)}; see --schema, --include and --exclude" if there else "")
        )
    samples = {}
    for table in progress(tables):
        samples[table.schema, table.name] = _sample(warehouse, table)
    return scan_tables(tables, samples, warehouse.name)


def _sample(warehouse: Warehouse, table: CatalogTable) -> Profile:
    columns = sampled_columns(table)
    if not columns or not table.readable:
        return Profile()
    try:
        return profile(table, warehouse.sample(table, columns, SAMPLE_ROWS))
    except WarehouseError:
        return Profile()
