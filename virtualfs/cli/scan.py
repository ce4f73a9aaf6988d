"""From an existing warehouse to a definition file: scan."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from virtualfs.catalog import CatalogTable
from virtualfs.cli.output import echo, echo_json, json_option
from virtualfs.config import FILE_NAME, Config, Warehouse, find_config, load_config
from virtualfs.definitions.source import Source
from virtualfs.discovery.findings import Scan
from virtualfs.errors import ConfigError
from virtualfs.files import write_text
from virtualfs.store import FeatureStore

_PASSWORD = "WAREHOUSE_PASSWORD"  # noqa: S105 - the name of a variable


@click.command("scan")
@click.argument("url", required=False)
@click.option("--warehouse", default="default", show_default=True, help="Name of the warehouse.")
@click.option("--schema", "schemas", multiple=True, help="Only this schema; repeat.")
@click.option("--include", multiple=True, help="Only tables like this, such as 'sales.*'; repeat.")
@click.option("--exclude", multiple=True, help="No tables like this; repeat.")
@click.option("--timezone", help="Zone of times that say none, such as America/New_York.")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="features.py, or a .yaml file."
)
@click.option("--force", is_flag=True, help="Write over the file, if it stands.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def scan_command(
    ctx: click.Context,
    url: str | None,
    warehouse: str,
    schemas: tuple[str, ...],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    timezone: str | None,
    output: Path | None,
    force: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Read a warehouse's tables and write a definition file for them, to be edited.

    URL, such as duckdb://shop.duckdb or postgresql://reader@host/shop, makes a project in this
    folder when there is none. Only catalogs and samples are read, and nothing in the warehouse is
    written.
    """
    config, new_project = _config(ctx.obj["config"], url, warehouse)
    target = (Path.cwd() / output) if output else config.folder / "features.py"
    if target.suffix not in (".py", ".yaml", ".yml"):
        raise click.UsageError(f"{target.name}: definitions are .py, .yaml or .yml files")
    if timezone is not None:
        _zone(timezone)
    asks = sys.stdin.isatty() and not yes and not as_json
    writes = yes or asks
    if target.exists() and not force and writes:
        raise ConfigError(
            f"{target} exists; scan into another file by -o, or write over it by --force"
        )
    store: FeatureStore = ctx.with_resource(FeatureStore(config))
    found = store.scan(
        warehouse, schemas=schemas, include=include, exclude=exclude, progress=_progress
    )
    if timezone is not None:
        found = found.in_zone(timezone)
    if as_json:
        echo_json({**_as_data(found), "written": str(target) if writes else None})
    else:
        echo(str(found))
    if asks:
        found = _ask(found, timezone, target)
    if not writes:
        if not as_json:
            how = "--yes --force writes over" if target.exists() else "--yes writes"
            echo(f"Nothing was written; {how} {target.name}.")
        return
    if not found.proposed:
        raise ConfigError("no table can be a feature view, so there is nothing to write")
    target.parent.mkdir(parents=True, exist_ok=True)
    text = found.to_python() if target.suffix == ".py" else found.to_yaml()
    write_text(target, text, overwrite=force)
    if new_project:
        _write_config(config, target)
    if not as_json:
        _say_next(found, target, config, new_project=new_project)


def _config(given: str | None, url: str | None, warehouse: str) -> tuple[Config, bool]:
    """Return the project's configuration, or a new one for a URL where there is no project."""
    path = Path(given) if given else find_config()
    if url is None:
        if path is None:
            raise ConfigError(
                f"there is no {FILE_NAME} here or above it; say which warehouse to scan, such as "
                "`virtualfs scan duckdb://shop.duckdb` or `virtualfs scan "
                "postgresql://reader@host/shop`"
            )
        return load_config(given), False
    if path is not None:
        raise ConfigError(
            f"{path} is this project's configuration; put the URL there as "
            f"[warehouses.{warehouse}], and scan without it"
        )
    folder = Path.cwd()
    name = re.sub(r"[^\w.\-]", "_", folder.name).lstrip(".-") or "features"
    return Config(project=name, folder=folder, warehouses={warehouse: Warehouse(url=url)}), True


def _write_config(config: Config, target: Path) -> None:
    ((name, warehouse),) = config.warehouses.items()
    url = warehouse.url.get_secret_value()
    hidden = re.sub(r"(?<=://)([^:@/]*):[^?]+@", rf"\1:${{{_PASSWORD}}}@", url)
    parameters = r"(?i)([?&][^=&]*(?:password|token|secret|key)[^=&]*=)[^&]+"
    hidden = re.sub(parameters, rf"\1${{{_PASSWORD}}}", hidden)
    lines = [
        f'project = "{config.project}"',
        f'definitions = ["{target.relative_to(config.folder)}"]'
        if target.is_relative_to(config.folder)
        else f'definitions = ["{target}"]',
        "",
        f"[warehouses.{name}]",
        f'url = "{hidden}"' + (f"   # {_PASSWORD} is read from the environment" * (hidden != url)),
    ]
    path = config.folder / FILE_NAME
    write_text(path, "\n".join(lines) + "\n")


def _progress(tables: Sequence[CatalogTable]) -> Any:
    """Show a bar over the tables on a terminal, once it takes longer than a moment."""
    if not sys.stderr.isatty():
        return tables
    from rich.console import Console
    from rich.progress import track

    return track(
        tables, "Sampling tables", console=Console(stderr=True), transient=True,
    )  # fmt: skip


def _ask(found: Scan, timezone: str | None, target: Path) -> Scan:
    naive = sum(len(finding.naive_times) for finding in found.proposed)
    if naive and timezone is None:
        first = next(finding for finding in found.proposed if finding.naive_times)
        example = f"{first.table.label}.{first.naive_times[0]}"
        zone = click.prompt(
            f"\n{naive} time columns say no zone, {example} for one. Which zone are they in?",
            default="UTC",
            value_proc=_zone,
        )
        found = found.in_zone(zone)
    click.confirm(f"\nWrite {len(found.proposed)} views to {target}?", default=True, abort=True)
    return found


def _zone(text: str) -> str:
    from virtualfs.errors import DefinitionError

    try:
        return Source("zone", table="zone", timezone=text).timezone
    except DefinitionError as error:
        raise click.UsageError(str(error).splitlines()[-1].strip()) from None


def _as_data(found: Scan) -> dict[str, Any]:
    return {
        "entities": {name: dict(entity.join_keys) for name, entity in found.entities.items()},
        "tables": [
            {
                "schema": finding.table.schema,
                "table": finding.table.name,
                "kind": finding.kind,
                "rows": finding.table.rows,
                "view": finding.name if finding.kind != "left out" else None,
                "entities": finding.entities,
                "join_keys": dict(finding.keys),
                **finding.times,
                "timezone": finding.timezone if finding.naive_times else None,
                "different_keys": finding.distinct,
                "first": finding.span[0] if finding.span else None,
                "last": finding.span[1] if finding.span else None,
                "features": {
                    name: finding.table.column(column).dtype
                    for column, name in finding.features.items()
                },
                "left_out": dict(finding.left_out),
                "doubts": finding.doubts,
            }
            for finding in found.findings
        ],
    }


def _say_next(found: Scan, target: Path, config: Config, *, new_project: bool) -> None:
    made = f"Wrote {target.name}" + (f" and {FILE_NAME}" * new_project)
    first = found.proposed[0]
    example = " ".join(shlex.quote(f"{key}={value}") for key, value in first.example.items())
    named = target.resolve() in config.definition_paths() or new_project
    hint = "" if named else f'  add "{target.name}" to definitions in {FILE_NAME}\n'
    if new_project and "${" in (config.folder / FILE_NAME).read_text(encoding="utf-8"):
        hint += f"  export {_PASSWORD}=...   # the warehouse's, which is not written down\n"
    echo(
        f"{made}. Its comments are doubts to settle.\n\nNext:\n{hint}"
        f"  virtualfs apply\n  virtualfs online {first.name} {example}"
    )
