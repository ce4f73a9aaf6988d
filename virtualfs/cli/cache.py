"""Looking after the cache: filling it, emptying it, seeing how it is used."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from virtualfs.cli.features import entity_columns, feature_names, names_and_pairs
from virtualfs.cli.output import echo, echo_json, echo_shown, json_option, open_store

if TYPE_CHECKING:
    from virtualfs.store import FeatureStore

_INSTANT = ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S%z")


@click.command("materialize")
@click.argument("features", nargs=-1)
@click.option("--hottest", type=click.IntRange(min=1), help="Only so many keys, the most read.")
@click.option("--incremental", is_flag=True, help="Only keys that changed since the last run.")
@click.option(
    "--start", type=click.DateTime(_INSTANT), help="Only keys with an event from then on."
)
@click.option("--end", type=click.DateTime(_INSTANT), help="Only keys with an event before.")
@json_option
@click.pass_context
def materialize_command(
    ctx: click.Context,
    features: tuple[str, ...],
    hottest: int | None,
    incremental: bool,
    start: datetime | None,
    end: datetime | None,
    as_json: bool,
) -> None:
    """Fill the cache with values as of now.

    FEATURES is a service, a view, or references, and perhaps keys as for `online`: `virtualfs
    materialize airport_weather origin=JFK,LGA`. Without any, all views that are offered online.
    A run that was killed goes on where it was.
    """
    store = _open(ctx)
    asked, keys = _asked(store, features)
    result = store.materialize(
        asked, keys, hottest=hottest, incremental=incremental, start=start, end=end
    )
    if as_json:
        echo_json(result.to_dict())
    else:
        echo_shown(result)


@click.command("invalidate")
@click.argument("view")
@click.argument("keys", nargs=-1)
@json_option
@click.pass_context
def invalidate_command(ctx: click.Context, view: str, keys: tuple[str, ...], as_json: bool) -> None:
    """Forget what the cache holds of a view, or of some keys: `invalidate weather origin=JFK`."""
    store = _open(ctx)
    wrong = next((item for item in keys if "=" not in item), None)
    if wrong is not None:
        raise click.UsageError(f"{wrong}: keys are written name=value")
    given = entity_columns(keys, store.input_types(view)[0]) if keys else None
    count = store.invalidate(view, given)
    if as_json:
        echo_json({"view": view, "rows": count})
    else:
        echo(f"Forgot {count:,} rows of {view}.")


@click.command("hot")
@click.argument("features", nargs=-1)
@click.option("--limit", default=10, show_default=True, help="How many of the hottest keys.")
@json_option
@click.pass_context
def hot_command(ctx: click.Context, features: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Show how the cache is used: hit ratio, hottest keys, memory by view.

    Counts are of the last 24 hours, and of all processes that read through this cache.
    """
    store = _open(ctx)
    report = store.hot(feature_names(features) if features else None, limit)
    if as_json:
        echo_json(report.to_dict())
    else:
        echo_shown(report)


def _open(ctx: click.Context) -> FeatureStore:
    """Open the store, and say so where its cache ends with this command."""
    store = open_store(ctx)
    if store.config.cache.url.get_secret_value().startswith("memory:"):
        note = click.style("NOTE", fg="yellow")
        click.echo(
            f"{note}: the cache is memory://, which each process has to itself and this command "
            "takes with it; [cache] url = \"redis://...\" is one that all share", err=True,
        )  # fmt: skip
    return store


def _asked(store: Any, given: tuple[str, ...]) -> tuple[Any, Any]:
    """Return the features that were named, and the keys."""
    names, pairs = names_and_pairs(given)
    if not names:
        return None, None
    asked = feature_names(names)
    return asked, entity_columns(pairs, store.input_types(asked)[0]) if pairs else None
