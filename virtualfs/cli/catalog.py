"""Looking at what is registered, and at the data under it: list, show, check."""

from __future__ import annotations

import dataclasses

import click

from virtualfs.cli.output import echo_json, echo_table, json_option, open_store
from virtualfs.definitions.project import KINDS, kind_in_words
from virtualfs.display import shown_text
from virtualfs.errors import NotFoundError, did_you_mean

_KINDS = {
    "views": "feature_view",
    "on-demand": "on_demand_feature_view",
    "entities": "entity",
    "services": "feature_service",
    "sources": "source",
}


@click.command("list")
@click.argument("kind", type=click.Choice(["features", *_KINDS]), default="features")
@json_option
@click.pass_context
def list_command(ctx: click.Context, kind: str, as_json: bool) -> None:
    """List features (the default), views, on-demand views, entities, services or sources."""
    store = open_store(ctx)
    if kind == "features":
        rows = store.list_features()
    else:
        rows = [
            {
                "name": item.name,
                "version": item.version,
                "origin": item.origin,
                "description": item.definition.get("description", ""),
            }
            for item in store.state().of_kind(_KINDS[kind]).values()
        ]
    if as_json:
        echo_json(rows)
    elif rows:
        echo_table(list(rows[0]), [list(row.values()) for row in rows])
    else:
        click.echo(f"There are no {kind} yet. `virtualfs apply` writes your definitions.")


@click.command("show")
@click.argument("name")
@json_option
@click.pass_context
def show_command(ctx: click.Context, name: str, as_json: bool) -> None:
    """Show one view, service, entity or source."""
    state = open_store(ctx).state()
    found = [item for item in state.objects.values() if item.name == name.partition(":")[0]]
    if not found:
        hint = did_you_mean(name, {key[1] for key in state.objects})
        raise NotFoundError(f"there is no {name!r} in the registry. {hint}")
    if as_json:
        echo_json(
            [
                {
                    "kind": item.kind,
                    "version": item.version,
                    "origin": item.origin,
                    "definition": item.definition,
                    "resolved": item.resolved,
                }
                for item in found
            ]
        )
        return
    for item in found:
        click.secho(f"{kind_in_words(item.kind)} {item.name}@{item.version}", bold=True)
        if item.kind == "feature_view":
            if item.definition.get("description"):
                click.echo(item.definition["description"])
            view = item.view()
            keys = ", ".join(f"{key} {dtype}" for key, dtype in view.join_keys.items()) or "none"
            click.echo(f"Join keys: {keys}\nRules: {view.rules()}\nRows:\n{view.rows_sql}")
            echo_table(
                ["feature", "dtype", "expression", "description"],
                [[f.name, f.dtype, f.sql, f.description] for f in view.features],
            )
        else:
            click.echo(shown_text(KINDS[item.kind](**item.definition)).partition("\n\n")[2])
            for pinned, version in item.pins.items():
                click.echo(f"Pinned: {pinned}@{version}")


@click.command("check")
@click.argument("views", nargs=-1)
@json_option
@click.pass_context
def check_command(ctx: click.Context, views: tuple[str, ...], as_json: bool) -> int:
    """Look for data that breaks what views assume of it; exit 1 when there is any.

    VIEWS are names of applied views; all of them when none is named. Everything is counted inside
    the warehouse: NULL keys and times, times after now, rows that nothing tells apart, SCD2 rows
    that overlap. Missing indexes are named with the statement that makes them.
    """
    report = open_store(ctx).check(views or None)
    if as_json:
        echo_json(
            {
                "views": report.views,
                "findings": [dataclasses.asdict(finding) for finding in report.findings],
                "advice": report.advice,
            }
        )
    else:
        click.echo(str(report))
    return 1 if report else 0
