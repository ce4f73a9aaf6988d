"""Looking around in the registry and back in time: search, lineage, impact, history."""

from __future__ import annotations

import click

from virtualfs.cli.output import echo, echo_json, echo_shown, json_option, open_store


@click.command("search")
@click.argument("words", nargs=-1, required=True)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1))
@json_option
@click.pass_context
def search_command(ctx: click.Context, words: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Find features, views, services and entities by WORDS, the best match first.

    All words must occur: in names, descriptions, owners, tags, columns or tables.
    """
    result = open_store(ctx).search(" ".join(words), limit)
    if as_json:
        echo_json([found.to_dict() for found in result])
    else:
        echo_shown(result)


@click.command("lineage")
@click.argument("reference")
@click.option(
    "--direction", type=click.Choice(["upstream", "downstream", "both"]), default="both",
    show_default=True,
)  # fmt: skip
@click.option("--depth", type=click.IntRange(min=1), help="How many steps; all when absent.")
@click.option("--mermaid", is_flag=True, help="Print a Mermaid flow chart.")
@json_option
@click.pass_context
def lineage_command(
    ctx: click.Context,
    reference: str,
    direction: str,
    depth: int | None,
    mermaid: bool,
    as_json: bool,
) -> None:
    """Show what REFERENCE is made of, to the column, and what is made of it.

    REFERENCE is view:feature, a view, a service, or table.column.
    """
    found = open_store(ctx).lineage(reference, direction, depth)  # type: ignore[arg-type]
    if as_json:
        echo_json(found.to_dict())
    else:
        echo(found.to_mermaid() if mermaid else str(found))


@click.command("impact")
@click.argument("column")
@json_option
@click.pass_context
def impact_command(ctx: click.Context, column: str, as_json: bool) -> None:
    """Show what breaks if COLUMN goes, named as table.column."""
    found = open_store(ctx).lineage(column, "downstream")
    if as_json:
        echo_json(found.to_dict())
    else:
        echo(str(found))


@click.command("history")
@click.argument("name", required=False)
@json_option
@click.pass_context
def history_command(ctx: click.Context, name: str | None, as_json: bool) -> None:
    """Show who changed what and when, of NAME or of the whole project."""
    found = open_store(ctx).history(name)
    if as_json:
        echo_json(found.to_list())
    else:
        echo(str(found))
