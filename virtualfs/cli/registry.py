"""Looking after what the store stands on: registry, doctor."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import click

from virtualfs.cli.output import ask, echo, echo_json, echo_table, json_option, open_store
from virtualfs.definitions.project import collect
from virtualfs.errors import ConfigError, VirtualFSError, WarehouseError
from virtualfs.files import orphans
from virtualfs.registry.database import migrations
from virtualfs.store import FeatureStore


@click.group("registry")
def registry_command() -> None:
    """Look after the registry's tables."""


@registry_command.command("current")
@json_option
@click.pass_context
def current(ctx: click.Context, as_json: bool) -> None:
    """Show the registry's place, schema and revision."""
    store = open_store(ctx)
    schema = store.registry.database.current_schema()
    found = {
        "registry": store.registry.database.location,
        "schema": schema,
        "newest_schema": migrations().head,
        "revision": store.state().revision if schema == migrations().head else None,
    }
    if as_json:
        echo_json(found)
    else:
        echo_table(["", ""], [[name.replace("_", " "), value] for name, value in found.items()])


@registry_command.command("upgrade")
@click.option("--sql", is_flag=True, help="Print the statements, for those whose DBAs run them.")
@click.pass_context
def upgrade(ctx: click.Context, sql: bool) -> None:
    """Create the registry's tables or bring them to the newest form."""
    store = open_store(ctx)
    if sql:
        echo(store.registry.database.upgrade_sql() or "-- The schema is the newest.")
        return
    before = store.registry.database.current_schema()
    store.registry.database.upgrade()
    after = store.registry.database.current_schema()
    echo(
        f"Registry schema: {before or 'none'} -> {after}"
        if before != after
        else f"Registry schema {after} is the newest."
    )


@registry_command.command("downgrade")
@click.argument("version")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.pass_context
def downgrade(ctx: click.Context, version: str, yes: bool) -> None:
    """Take the registry's tables back to an older VERSION, for an older virtualfs.

    Back it up before. What the older form does not hold is lost: who promoted what, what changed
    in each revision.
    """
    database = open_store(ctx).registry.database
    if not yes:
        ask(f"Take {database.location} back to schema {version}?")
    before = database.current_schema()
    database.downgrade(version)
    echo(f"Registry schema: {before} -> {database.current_schema()}")


@click.command("doctor")
@click.option("--clean", is_flag=True, help="Remove unfinished files that killed runs have left.")
@json_option
@click.pass_context
def doctor_command(ctx: click.Context, clean: bool, as_json: bool) -> int:
    """Check configuration, registry, cache and warehouses; exit 1 when something is wrong."""
    checks: list[dict[str, str]] = []

    def check(what: str, look: Callable[[], str]) -> None:
        try:
            checks.append({"check": what, "state": "ok", "detail": look()})
        except VirtualFSError as error:
            checks.append({"check": what, "state": "FAILED", "detail": str(error)})

    try:
        store = open_store(ctx)
    except ConfigError as error:
        checks.append({"check": "configuration", "state": "FAILED", "detail": str(error)})
    else:
        check("configuration", lambda: str(store.config.folder / "virtualfs.toml"))
        check(
            "registry",
            lambda: f"{store.registry.database.location}, revision {store.state().revision}",
        )
        check("definitions", lambda: f"{len(store.definitions())} definitions")
        check("cache", lambda: _cache(store))
        check("unfinished files", lambda: _unfinished(store, clean=clean))
        for name in store.config.warehouses:
            check(f"warehouse {name}", partial(_warehouse, store, name))
            check(f"grants in {name}", partial(_grants, store, name))
    if as_json:
        echo_json(checks)
    else:
        echo_table(["check", "state", "detail"], [list(row.values()) for row in checks])
    return 0 if all(row["state"] == "ok" for row in checks) else 1


def _grants(store: FeatureStore, name: str) -> str:
    """Ask whether the role may read what sources name; of an engine that cannot tell, nothing."""
    sources = [*store.state().project().sources.values()]
    with suppress(VirtualFSError):  # broken definition files are another check's finding
        sources += collect(store.definitions())["source"].values()
    wanted = {source.table for source in sources if source.warehouse == name and source.table}
    missing = store.warehouse(name).missing_grants(sorted(wanted))
    if missing:
        raise WarehouseError(
            "this role may not read all sources; run as their owner:\n" + "\n".join(missing)
        )
    return f"tables that sources name: {len(wanted)}"


def _unfinished(store: FeatureStore, *, clean: bool) -> str:
    """Find, and perhaps remove, files that runs which were killed have left."""
    folders = {store.config.folder}
    if "://" not in store.config.training_sets:
        folders.add(store.config.folder / store.config.training_sets)
    found = sorted({path for folder in folders for path in orphans(folder)})
    if not found:
        return "none"
    if clean:
        for path in found:
            path.unlink(missing_ok=True)
        return f"removed: {', '.join(map(str, found))}"
    raise ConfigError(
        f"killed runs have left {', '.join(map(str, found))}; `virtualfs doctor --clean` removes "
        "them"
    )


def _cache(store: FeatureStore) -> str:
    store.online_store().ping()
    return "answers"


def _warehouse(store: FeatureStore, name: str) -> str:
    warehouse = store.warehouse(name)
    warehouse.ping()
    tables = len(warehouse.table_names())
    return f"{warehouse.capabilities.engine} answers; tables and views: {tables}"
