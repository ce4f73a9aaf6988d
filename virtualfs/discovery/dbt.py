"""What dbt knows of a warehouse's tables: descriptions, keys by its tests, owners, snapshots.

Format: https://schemas.getdbt.com/dbt/manifest/v12.json; older versions say the same things.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlglot import exp

from virtualfs.catalog import CatalogColumn, CatalogTable, ForeignKey
from virtualfs.compiler import sql
from virtualfs.discovery.findings import Scan
from virtualfs.discovery.profile import Profile
from virtualfs.discovery.reader import matches, sample_table
from virtualfs.discovery.scan import scan_tables
from virtualfs.errors import ConfigError, NotFoundError, VirtualFSError
from virtualfs.provider import Warehouse

__all__ = ["scan_dbt"]

_TABLES = ("model", "snapshot", "seed")


def scan_dbt(
    manifest: Path,
    warehouse: Warehouse,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> Scan:
    """Read a dbt manifest and propose definitions for its models, snapshots and seeds.

    Types come from the warehouse, where the models must have been built.

    Parameters
    ----------
    manifest
        Path of ``target/manifest.json``.
    include, exclude
        Patterns of names, of ``model`` or ``schema.model``.

    Raises
    ------
    ConfigError
        The file is no manifest.
    NotFoundError
        No model is left, or none has been built.
    """
    content = _read(manifest)
    tables: dict[str, CatalogTable] = {}
    samples: dict[tuple[str, str], Profile] = {}
    tests = _tests(content)
    wanted = [
        (key, node)
        for key, node in sorted(content["nodes"].items())
        if node.get("resource_type") in _TABLES
        and node.get("config", {}).get("materialized") != "ephemeral"
        and (not include or matches(_alias(node), node["schema"], include))
        and not matches(_alias(node), node["schema"], exclude)
    ]
    if not wanted:
        raise NotFoundError(f"{manifest} has no model to import; see --include and --exclude")
    missing = []
    for key, node in wanted:
        table = _table(key, node, content, tests.get(key, []), warehouse)
        if table is None:
            missing.append(f"{node['schema']}.{_alias(node)}")
            continue
        tables[key] = table
    if not tables:
        raise NotFoundError(
            f"warehouse {warehouse.name!r} holds none of the models of {manifest}, such as "
            f"{missing[0]}; run `dbt build`, or name another warehouse"
        )
    linked = [
        _with_foreign_keys(table, tests.get(key, []), tables) for key, table in tables.items()
    ]
    for table in linked:
        samples[table.schema, table.name] = sample_table(warehouse, table)
    return scan_tables(linked, samples, warehouse.name)


@dataclass(frozen=True)
class _Test:
    """A test of a model: its name, the columns it is of, and the model that it points to."""

    name: str
    columns: tuple[str, ...]
    to: str = ""
    field: str = ""


def _read(manifest: Path) -> dict[str, Any]:
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read {manifest}: {error.strerror or error}; dbt writes it as "
            "target/manifest.json"
        ) from None
    except ValueError as error:
        raise ConfigError(f"{manifest} is not JSON: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("nodes"), dict):
        raise ConfigError(f"{manifest} is not a manifest of dbt: it has no nodes")
    return content


def _alias(node: Mapping[str, Any]) -> str:
    return str(node.get("alias") or node["name"])


def _tests(content: Mapping[str, Any]) -> dict[str, list[_Test]]:
    """Return the generic tests by the model that they are of."""
    found: dict[str, list[_Test]] = {}
    for node in content["nodes"].values():
        metadata = node.get("test_metadata")
        if node.get("resource_type") != "test" or not metadata:
            continue
        arguments = metadata.get("kwargs", {})
        depends = node.get("depends_on", {}).get("nodes", [])
        model = node.get("attached_node") or (depends[-1] if depends else "")
        columns = arguments.get("combination_of_columns") or filter(None, [node.get("column_name")])
        to = next((other for other in depends if other != model), "")
        test = _Test(metadata["name"], tuple(columns), to, str(arguments.get("field") or ""))
        found.setdefault(model, []).append(test)
    return found


def _table(
    key: str,
    node: Mapping[str, Any],
    content: Mapping[str, Any],
    tests: Sequence[_Test],
    warehouse: Warehouse,
) -> CatalogTable | None:
    """Return a built model as a table; None if the warehouse has none of that name."""
    alias, schema = _alias(node), node["schema"]
    described, database = None, ""
    # Where a warehouse has one database, its name may be another in production.
    for database in ("", node.get("database") or ""):
        table = exp.table_(alias, schema, database or None, quoted=True)
        select = sql.text(exp.select("*").from_(table), warehouse.capabilities.dialect)
        with suppress(VirtualFSError):
            described = warehouse.describe(select)
            break
    if described is None:
        return None
    said = {name.lower(): column for name, column in node.get("columns", {}).items()}
    columns = []
    for name, dtype in described.items():
        column = said.get(name.lower(), {})
        names = [test.name for test in tests if [c.lower() for c in test.columns] == [name.lower()]]
        columns.append(
            CatalogColumn(
                name,
                str(dtype).lstrip("!"),
                str(dtype),
                comment=column.get("description") or "",
                tags={"dbt_tests": ", ".join(sorted(set(names)))} if names else {},
            )
        )
    tags = dict.fromkeys(node.get("tags", []), "")
    return CatalogTable(
        schema=schema,
        name=alias,
        columns=tuple(columns),
        searched=False,
        database=database,
        primary_key=_primary_key(node, described),
        unique_keys=tuple(_unique_keys(tests, described)),
        comment=node.get("description") or "",
        owner=_owner(node, content),
        tags={"dbt": key, **tags},
    )


def _named(names: Sequence[str], columns: Mapping[str, Any]) -> tuple[str, ...]:
    """Return columns as the warehouse spells them; empty if one is missing."""
    spelled = {column.lower(): column for column in columns}
    found = tuple(spelled.get(name.lower(), "") for name in names)
    return found if all(found) else ()


def _primary_key(node: Mapping[str, Any], columns: Mapping[str, Any]) -> tuple[str, ...]:
    if node["resource_type"] == "snapshot":
        key = node["config"].get("unique_key") or []
        names = node["config"].get("snapshot_meta_column_names") or {}
        start = names.get("dbt_valid_from") or "dbt_valid_from"
        return _named([*([key] if isinstance(key, str) else key), start], columns)
    for constraint in node.get("constraints") or []:
        if constraint.get("type") == "primary_key" and constraint.get("columns"):
            return _named(constraint["columns"], columns)
    for name, column in node.get("columns", {}).items():
        if any(item.get("type") == "primary_key" for item in column.get("constraints") or []):
            return _named([name], columns)
    return _named(node.get("primary_key") or [], columns)


def _unique_keys(tests: Sequence[_Test], columns: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for test in tests:
        if test.name in ("unique", "unique_combination_of_columns") and test.columns:
            names = _named(test.columns, columns)
            if names:
                yield names


def _with_foreign_keys(
    table: CatalogTable, tests: Sequence[_Test], tables: Mapping[str, CatalogTable]
) -> CatalogTable:
    keys = []
    own = {column.name: column for column in table.columns}
    for test in tests:
        other = tables.get(test.to)
        if test.name != "relationships" or other is None:
            continue
        columns = _named(test.columns, own)
        referenced = _named([test.field], {column.name: column for column in other.columns})
        if columns and referenced:
            keys.append(ForeignKey(columns, other.schema, other.name, referenced))
    return replace(table, foreign_keys=tuple(dict.fromkeys(keys)))


def _owner(node: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """Return who answers for a model: its meta's owner, or its group's."""
    meta = {**(node.get("meta") or {}), **(node.get("config", {}).get("meta") or {})}
    if isinstance(meta.get("owner"), str):
        return str(meta["owner"])
    for group in content.get("groups", {}).values():
        if group.get("name") == node.get("group"):
            owner = group.get("owner") or {}
            return str(owner.get("email") or owner.get("name") or "")
    return ""
