"""Registering what other tools know: import dbt."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from virtualfs.cli.output import coloured, echo_json, json_option, open_store


@click.group("import")
def import_command() -> None:
    """Register what another tool knows of the warehouse's tables."""


@import_command.command("dbt")
@click.argument("manifest", type=click.Path(path_type=Path), default=Path("target/manifest.json"))
@click.option("--warehouse", default="default", show_default=True)
@click.option("--include", multiple=True, help="Only models like this, such as 'mart_*'; repeat.")
@click.option("--exclude", multiple=True, help="No models like this; repeat.")
@click.option("--dry-run", is_flag=True, help="Only show the plan.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def dbt_command(
    ctx: click.Context,
    manifest: Path,
    warehouse: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Register the models of a dbt MANIFEST with their descriptions, tests and owners.

    The models must have been built in the warehouse. What is registered so is not removed by an
    apply of definition files; importing again brings it up to date.
    """
    store = open_store(ctx)
    found = store.scan_dbt(manifest, warehouse, include=include, exclude=exclude)
    plan = store.plan(found.definitions, origin="registered")
    if not as_json:
        click.echo(f"{found}\n\n{coloured(str(plan))}")
    if plan and not dry_run and not yes and sys.stdin.isatty():
        click.confirm("\nApply?", abort=True, err=as_json)
    number = plan.base if dry_run else store.apply(plan).number
    if as_json:
        echo_json({"revision": number, "plan": plan.to_dict()})
    elif plan and not dry_run:
        click.echo(f"Applied as revision {number}.")
