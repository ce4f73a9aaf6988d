"""Looking at what is registered, and at the data under it: list, show, check."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from virtualfs.cli.output import echo, echo_json, echo_table, json_option, open_store
from virtualfs.compiler.training_set import PREFIX
from virtualfs.definitions.project import KINDS, kind_in_words
from virtualfs.display import shown_text
from virtualfs.errors import NotFoundError, did_you_mean

if TYPE_CHECKING:
    from virtualfs.compiler.plan import LateData
    from virtualfs.training.saved import TrainingSet

_KINDS = {
    "views": "feature_view",
    "on-demand": "on_demand_feature_view",
    "entities": "entity",
    "services": "feature_service",
    "sources": "source",
}


@click.command("list")
@click.argument(
    "kind",
    type=click.Choice(["features", *_KINDS, "environments", "training-sets"]),
    default="features",
)
@click.option("--unused", is_flag=True, help="Only features that no service and no view uses.")
@json_option
@click.pass_context
def list_command(ctx: click.Context, kind: str, unused: bool, as_json: bool) -> None:
    """List features (the default), views, on-demand views, entities, services, sources ...

    environments or saved training sets. Features come with the number of services that use them.
    """
    store = open_store(ctx)
    if unused and kind != "features":
        raise click.UsageError("--unused is of features")
    rows: list[dict[str, Any]]
    if kind == "features":
        used = {item.feature: item for item in store.usage()}
        rows = [
            {**row, "services": len(used[row["feature"]].services)}
            for row in store.list_features()
            if not (unused and used[row["feature"]])
        ]
    elif kind == "training-sets":
        rows = [_listed(item) for item in store.training_sets()]
    elif kind == "environments":
        rows = [vars(item) for item in store.environments()]
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
        how = "`virtualfs apply` writes your definitions."
        if kind == "training-sets":
            how = "`virtualfs historical ... --save NAME` keeps one."
        echo(f"There are no {kind} yet. {how}")


def _listed(saved: TrainingSet) -> dict[str, Any]:
    record = saved.record
    return {
        "name": record.name,
        "version": record.version,
        "rows": record.rows,
        "saved": f"{record.created_at:%Y-%m-%d %H:%M}",
        "by": record.created_by,
        "kept in": record.place,
        "description": record.description,
    }


@click.command("show")
@click.argument("name")
@click.option("--version", type=int, help="An older version; NAME@2 says the same.")
@json_option
@click.pass_context
def show_command(ctx: click.Context, name: str, version: int | None, as_json: bool) -> None:
    """Show one view, service, entity or source, or a saved training set: training_set:NAME@1."""
    store = open_store(ctx)
    if name.startswith(PREFIX):
        saved = store.training_set(name.removeprefix(PREFIX), version, verify=False)
        if as_json:
            echo_json(saved.record.model_dump(mode="json"))
        else:
            echo(str(saved))
        return
    state = store.state()
    name, _, number = name.partition(":")[0].partition("@")
    if number:
        if not number.isdigit():
            raise click.UsageError(f"{number!r} is no version; write for example {name}@2")
        version = int(number)
    if version is None:
        found = [state.objects[kind, name] for kind in KINDS if (kind, name) in state.objects]
    else:
        versions = (store.registry.version(kind, name, version) for kind in KINDS)
        found = [item for item in versions if item is not None]
    if not found:
        hint = did_you_mean(name, {key[1] for key in state.objects if key[0] in KINDS})
        which = f"no version {version} of {name!r}" if version is not None else f"no {name!r}"
        raise NotFoundError(f"there is {which} in the registry. {hint}")
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
        echo(f"{kind_in_words(item.kind)} {item.name}@{item.version}", bold=True)
        if deprecated := state.deprecation(item):
            echo(f"Deprecated: {deprecated}", fg="yellow")
        if item.kind == "feature_view":
            if item.definition.get("description"):
                echo(item.definition["description"])
            view = item.view()
            keys = ", ".join(f"{key} {dtype}" for key, dtype in view.join_keys.items()) or "none"
            echo(f"Join keys: {keys}\nRules: {view.rules()}\nRows:\n{view.rows_sql}")
            echo_table(
                ["feature", "dtype", "expression", "description"],
                [[f.name, f.dtype, f.sql, f.description] for f in view.features],
            )
        else:
            click.echo(shown_text(KINDS[item.kind](**item.definition)).partition("\n\n")[2])
            for pinned, version in item.pins.items():
                echo(f"Pinned: {pinned}@{version}")


@click.command("check")
@click.argument("views", nargs=-1)
@click.option("--service", help="Look for what leaks into a training set of this service.")
@click.option("--spine", help="The training set's rows: Parquet or CSV file, or SQL text.")
@click.option("--label", help="The spine's column of what is to be predicted.")
@click.option("--timestamp", default="event_timestamp", show_default=True)
@click.option(
    "--late-data",
    type=click.Choice(["include", "exclude"]),
    help="As the training set is asked for; rows written after an instant count unless excluded.",
)
@click.option("--warehouse", help="The warehouse that a spine given as SQL is meant in.")
@json_option
@click.pass_context
def check_command(
    ctx: click.Context,
    views: tuple[str, ...],
    service: str | None,
    spine: str | None,
    label: str | None,
    timestamp: str,
    late_data: LateData | None,
    warehouse: str | None,
    as_json: bool,
) -> int:
    """Look for data that breaks what views assume of it; exit 1 when there is any.

    VIEWS are names of applied views; all of them when none is named. Everything is counted inside
    the warehouse: NULL keys and times, times after now, rows that nothing tells apart, SCD2 rows
    that overlap. Missing indexes are named with the statement that makes them.

    With --service, --spine and --label it looks for what leaks instead: rows that arrived after the
    instant, windows that count the row being predicted, sources without times that change, and
    features that say the label in other words.
    """
    given = (service, spine, label)
    if any(given):
        if views or not all(given):
            raise click.UsageError(
                "a look for leaks takes --service, --spine and --label, and no views"
            )
        found = open_store(ctx).check_leakage(
            spine, service, str(label), timestamp, late_data, warehouse
        )
        if as_json:
            echo_json(found.to_dict())
        else:
            echo(str(found))
        return 1 if found else 0
    report = open_store(ctx).check(views or None)
    if as_json:
        echo_json(
            {
                "views": report.views,
                "drift": report.drift,
                "findings": [dataclasses.asdict(finding) for finding in report.findings],
                "advice": report.advice,
            }
        )
    else:
        echo(str(report))
    return 1 if report else 0
