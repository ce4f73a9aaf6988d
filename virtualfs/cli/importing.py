"""Taking over what other tools know: import dbt, import feast."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import click

from virtualfs.cli.output import coloured, echo, echo_json, echo_marked, json_option, open_store
from virtualfs.definitions.base import Definition
from virtualfs.definitions.project import KINDS, kind_in_words
from virtualfs.discovery.feast import feast_text, functions_text, import_feast, read_feast
from virtualfs.files import write_text


@click.group("import")
def import_command() -> None:
    """Take over what another tool knows of features and of the warehouse's tables."""


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
        echo(f"Applied as revision {number}.")


@import_command.command("feast")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), default=Path("features.py"),
    show_default=True, help="File to write.",
)  # fmt: skip
@click.option("--python", metavar="PATH", help="A Python that has Feast; this one when absent.")
def feast_command(path: Path, output: Path, python: str | None) -> None:
    """Write features.py for what a Feast repository defines.

    PATH is the folder with its feature_store.yaml, whose Python files are run, or the JSON of
    `feast registry-dump`. Functions of on-demand views go to feast_functions.py beside it. What
    could not be carried over is listed, here and at the end of the file.
    """
    functions = output.with_name("feast_functions.py")
    for file in (output, functions):
        if file.exists():
            raise click.ClickException(f"{file} exists; choose another --output")
    folder = path if path.is_dir() else Path()
    here = os.path.relpath(folder.resolve(), output.resolve().parent)
    found = import_feast(read_feast(path, python), here)
    write_text(output, feast_text(found, path.name))
    counts = Counter(_kind(item) for item in found.definitions)
    said = ", ".join(f"{kind}: {count}" for kind, count in counts.items())
    echo(f"Wrote {output} ({said}).")
    if found.functions:
        write_text(functions, functions_text(found))
        echo(f"Wrote {functions}: functions that on-demand views call; read them.")
    if found.left_out:
        echo("\nNot carried over:")
        for line in found.left_out:
            echo_marked("  -", line)
    modules = '\n  [python]\n  modules = ["feast_functions"]' if found.functions else ""
    echo(
        f"\nNext, in virtualfs.toml:\n  definitions = [{str(output)!r}]\n  [warehouses.default]\n"
        f'  url = "..."    # where the tables lie; duckdb:// for files{modules}\n'
        "then `virtualfs plan` and `virtualfs apply`."
    )


def _kind(item: Definition) -> str:
    return next(kind_in_words(kind) for kind, of in KINDS.items() if type(item) is of)
