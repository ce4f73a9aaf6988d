"""Reads a warehouse's catalog and samples its tables, so that they can be classified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from virtualfs.catalog import CatalogTable
from virtualfs.compiler import sql
from virtualfs.discovery.findings import Finding, Scan, dotted
from virtualfs.discovery.profile import SAMPLE_ROWS, Profile, profile, sampled_columns
from virtualfs.discovery.scan import scan_tables
from virtualfs.errors import (
    DefinitionError,
    NotFoundError,
    UnsupportedByWarehouseError,
    WarehouseError,
    did_you_mean,
)
from virtualfs.provider import Warehouse

__all__ = ["find_table", "matches", "sample_table", "scan_warehouse", "table_of"]


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

    tables = [
        table
        for table in everything
        if (not schemas or table.schema in schemas)
        and (not include or matches(table.name, table.schema, include))
        and not matches(table.name, table.schema, exclude)
    ]
    if not tables:
        raise NotFoundError(
            f"warehouse {warehouse.name!r} has no table to scan"
            + (f" among {len(everything)}; see --schema, --include and --exclude" if there else "")
        )
    samples = {}
    for table in progress(tables):
        samples[table.schema, table.name] = sample_table(warehouse, table)
    return _with_grants(scan_tables(tables, samples, warehouse.name), warehouse)


def _with_grants(scan: Scan, warehouse: Warehouse) -> Scan:
    """Say of tables that may not be read what their owner has to run."""
    findings = []
    for finding in scan.findings:
        if not finding.table.readable:
            missing = " ".join(warehouse.missing_grants([dotted(finding.table)]))
            if missing:
                note = f"this role may not read it; its owner can run: {missing.rstrip(';')}"
                finding = replace(finding, notes=(note,))
        findings.append(finding)
    return replace(scan, findings=tuple(findings))


def find_table(warehouse: Warehouse, name: str) -> tuple[Scan, Finding]:
    """Return what is found of one table; of the others only the catalog is read.

    Raises
    ------
    NotFoundError
        There is no such table.
    DefinitionError
        Its keys cannot be found; the message says what was looked for.
    """
    tables = warehouse.catalog()
    table = table_of(tables, name, warehouse)
    found = scan_tables(
        tables, {(table.schema, table.name): sample_table(warehouse, table)}, warehouse.name
    )
    finding = next(finding for finding in found.findings if finding.table == table)
    if finding.kind == "left out":
        raise DefinitionError(
            f"table {name!r}: {'; '.join(finding.notes)}; or name its entity= and join_keys="
        )
    return found, finding


def table_of(tables: Sequence[CatalogTable], name: str, warehouse: Warehouse) -> CatalogTable:
    """Return the table of a dotted name.

    Raises
    ------
    NotFoundError
        There is no such table.
    """
    parts = [part.name for part in sql.table_reference(name, warehouse.capabilities.dialect).parts]
    meant = [
        table
        for table in tables
        if table.name == parts[-1]
        and (table.schema == parts[-2] if len(parts) > 1 else table.searched)
    ]
    if not meant:
        labels = [table.label for table in tables]
        raise NotFoundError(f"there is no table {name!r}. {did_you_mean(name, labels)}")
    return meant[0]


def matches(name: str, schema: str, patterns: Sequence[str]) -> bool:
    """Tell whether a table is meant by one of some patterns.

    >>> matches("orders", "sales", ["sales.*"]), matches("orders", "sales", ["order"])
    (True, False)
    """
    called = (name, f"{schema}.{name}")
    return any(fnmatchcase(each, pattern) for each in called for pattern in patterns)


def sample_table(warehouse: Warehouse, table: CatalogTable) -> Profile:
    """Return what a sample of a table says; of one that cannot be sampled, nothing."""
    columns = sampled_columns(table)
    if not columns or not table.readable:
        return Profile()
    try:
        return profile(table, warehouse.sample(table, columns, SAMPLE_ROWS))
    except (WarehouseError, UnsupportedByWarehouseError):
        return Profile()
