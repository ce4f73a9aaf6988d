"""Getting features: historical, online."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from virtualfs.cli.output import echo, echo_json, echo_marked, echo_table, json_option, open_store
from virtualfs.compiler.training_set import PREFIX
from virtualfs.dtypes import integer_bounds

if TYPE_CHECKING:
    from virtualfs.compiler.plan import LateData


@click.command("historical")
@click.argument("features", nargs=-1, required=True)
@click.option("--spine", required=True, help="Parquet or CSV file, or SQL text.")
@click.option("--timestamp", default="event_timestamp", show_default=True)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Parquet file to write.")
@click.option("--overwrite", is_flag=True, help="Replace the output file.")
@click.option(
    "--late-data",
    type=click.Choice(["include", "exclude"]),
    help="Whether rows written after a spine row's instant count; they do unless excluded, or a "
    "saved training set excluded them.",
)
@click.option("--sql", "show_sql", is_flag=True, help="Print the SQL and run nothing.")
@click.option("--explain", is_flag=True, help="Print strategies and the warehouse's own plan.")
@click.option("--diagnose", is_flag=True, help="Count why values are missing.")
@click.option("--rows", default=10, show_default=True, help="Rows to print.")
@click.option("--save", "name", help="Keep the result under this name, as its next version.")
@click.option("--warehouse", help="The warehouse that a spine given as SQL is meant in.")
@json_option
@click.pass_context
def historical_command(
    ctx: click.Context,
    features: tuple[str, ...],
    spine: str,
    timestamp: str,
    output: Path | None,
    overwrite: bool,
    late_data: LateData | None,
    show_sql: bool,
    explain: bool,
    diagnose: bool,
    rows: int,
    name: str | None,
    warehouse: str | None,
    as_json: bool,
) -> None:
    """Build a point-in-time training set.

    FEATURES is a service, a view, or references such as airport_weather:temp; or a saved training
    set, as training_set:delays@1, for the same features, transformed as there.
    """
    if output is not None and output.suffix != ".parquet":
        raise click.UsageError(f"--output writes Parquet; call the file {output.stem}.parquet")
    if output is not None and output.exists() and not overwrite:
        raise click.UsageError(f"{output} exists; choose another file, or add --overwrite")
    store = open_store(ctx)
    dataset = store.get_historical_features(
        spine, feature_names(features), late_data, timestamp, warehouse=warehouse
    )
    for doubt in dataset.context["doubts"]:
        echo_marked("WARNING:", str(doubt), err=True)
    if show_sql:
        echo(dataset.sql())
        return
    if explain:
        echo(dataset.explain())
        return
    if diagnose:
        found = dataset.diagnose()
        if as_json:
            echo_json(found.to_dict())
        else:
            echo(str(found))
        return
    if name is not None:
        saved = dataset.save(name)
        if as_json:
            echo_json(saved.record.model_dump(mode="json"))
        else:
            echo(f"Saved {saved.name}@{saved.version}: {saved.record.rows:,} rows in "
                       f"{saved.record.place}, {saved.content_hash}")  # fmt: skip
        return
    if output is not None:
        written = dataset.to_parquet(output, overwrite=overwrite)
        if as_json:
            echo_json({"path": str(written), "metadata": dataset.metadata})
        else:
            echo(f"Wrote {written}")
        return
    table = dataset.to_pyarrow()
    if as_json:
        echo_json(table.to_pylist())
        return
    shown = table.slice(0, rows)
    echo_table(table.column_names, [list(row.values()) for row in shown.to_pylist()])
    echo(f"{table.num_rows:,} rows, {min(rows, table.num_rows)} shown")


def names_and_pairs(given: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Return the features among arguments, and what is written ``name=value``."""
    names = tuple(item for item in given if "=" not in item)
    pairs = [item for item in given if "=" in item]
    if pairs and not names:
        raise click.UsageError("name a service or features before the keys")
    return names, pairs


def feature_names(names: tuple[str, ...]) -> str | list[str]:
    """Return what was named: one service, view or saved training set, or references."""
    alone = len(names) == 1 and (":" not in names[0] or names[0].startswith(PREFIX))
    return names[0] if alone else list(names)


@click.command("online")
@click.argument("features", nargs=-1, required=True)
@click.option("--entities", help='JSON list of entities: \'[{"origin": "JFK"}]\'.')
@click.option("--request", help="JSON of request inputs, one object or a list: '{\"amount\": 9}'.")
@json_option
@click.pass_context
def online_command(
    ctx: click.Context,
    features: tuple[str, ...],
    entities: str | None,
    request: str | None,
    as_json: bool,
) -> None:
    """Read feature values as of now.

    FEATURES is a service, a view, or references, then keys: `virtualfs online
    airport_weather:temp origin=JFK`. A key's several values, as in origin=JFK,LGA, are several
    entities. What on-demand features take from a request is given like keys: `amount=9.5`.
    """
    store = open_store(ctx)
    names, pairs = names_and_pairs(features)
    asked = feature_names(names)
    keys, inputs = store.input_types(asked)
    named = entity_columns([item for item in pairs if item.partition("=")[0] not in keys], inputs)
    brought = _json(request, "--request") if request is not None else _request(named)
    given: Any = _json(entities, "--entities")
    if entities is None:
        own = [item for item in pairs if item.partition("=")[0] not in named]
        if not own and keys:
            raise click.UsageError(f"name the keys, as in {' '.join(f'{key}=...' for key in keys)}")
        given = entity_columns(own, keys) or [{}]
    answer = store.get_online_features(asked, given, brought)
    if as_json:
        echo_json(
            {
                "rows": answer.to_list(),
                "statuses": answer.statuses,
                "event_timestamps": answer.event_timestamps,
            }
        )
        return
    rows = answer.to_list()
    shown = list(answer.keys[0]) if answer.keys else []
    for number, row in enumerate(rows):
        title = ", ".join(f"{key}={row[key]}" for key in shown)
        echo_table(
            ["feature", "value", "status", "event timestamp"],
            [
                [
                    name,
                    row[name],
                    answer.statuses[name][number].value,
                    answer.event_timestamps[name][number],
                ]
                for name in answer.names
            ],
            title=title,
        )


def _json(text: str | None, option: str) -> Any:
    try:
        return None if text is None else json.loads(text)
    except json.JSONDecodeError as error:
        raise click.UsageError(f"{option} is not JSON: {error}") from None


def _request(columns: dict[str, list[Any]]) -> Any:
    """Return request inputs that were named like keys: single values are for all entities."""
    if all(len(values) == 1 for values in columns.values()):
        return {name: values[0] for name, values in columns.items()}
    return columns


def entity_columns(items: Iterable[str], types: dict[str, str]) -> dict[str, list[Any]]:
    """Return keys written ``name=value`` or ``name=value,value`` as lists by name."""
    keys: dict[str, list[Any]] = {}
    for item in items:
        name, _, values = item.partition("=")
        dtype = types.get(name, "string")
        keys.setdefault(name, []).extend(_typed(value, dtype, name) for value in values.split(","))
    return keys


def _integer(text: str) -> int:
    if re.fullmatch(r"[+-]?[0-9]+", text) is None:  # Python takes 1_000 and other digits too
        raise ValueError
    return int(text)


def _typed(text: str, dtype: str, name: str) -> Any:
    if not dtype.startswith(("int", "uint", "float", "bool", "date", "timestamp")):
        return text
    from datetime import date, datetime

    try:
        if integer_bounds(dtype) is not None:
            return _integer(text)
        if dtype.startswith("float"):
            return float(text)
        if dtype == "date":
            return date.fromisoformat(text)
        if dtype.startswith("timestamp"):
            return datetime.fromisoformat(text)
        return {"true": True, "false": False}[text.lower()]
    except (ValueError, KeyError):
        raise click.UsageError(f"{name}={text}: expected {dtype}") from None
