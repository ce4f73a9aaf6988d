"""Making a project, and adding tables to it: init, register."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from virtualfs.cli.output import echo, echo_json, echo_marked, json_option, open_store
from virtualfs.errors import ConfigError

__all__ = ["example_folder"]


def example_folder(name: str) -> Path:
    """Return the folder of an example: in the wheel, or beside the package in a checkout."""
    package = Path(__file__).parent.parent
    for candidate in (package / "examples" / name, package.parent / "examples" / name):
        if (candidate / "virtualfs.toml").is_file():
            return candidate
    raise ConfigError(
        f"virtualfs is not installed whole: example {name!r} is missing; reinstall it"
    )


@click.command("init")
@click.argument("folder", type=click.Path(path_type=Path), default=Path())
def init_command(folder: Path) -> None:
    """Make a new project in FOLDER (this one by default), with data, that works at once."""
    source = example_folder("drivers")
    files = [path for path in sorted(source.rglob("*")) if _is_project_file(path)]
    for path in files:
        target = folder / path.relative_to(source)
        if target.exists():
            raise ConfigError(f"{target} exists; choose an empty folder")
    for path in files:
        target = folder / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    where = "" if folder == Path() else f"  cd {folder}\n"
    echo(
        f"Made a project in {folder.resolve()}: virtualfs.toml, features.py, data/\n\n"
        f"Next:\n{where}"
        "  virtualfs apply                                   # write the definitions\n"
        "  virtualfs online driver_activity driver_id=1001   # read features as of now\n"
        "  virtualfs serve                                   # GraphQL\n\n"
        "For your own tables, set the warehouse's url in virtualfs.toml and edit features.py."
    )


def _is_project_file(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts and ".virtualfs" not in path.parts


@click.command("register")
@click.argument("table")
@click.option("--entity", help="Name of the entity that the rows describe; found when absent.")
@click.option("--join-key", "join_keys", multiple=True, help="Key column of it; repeat.")
@click.option("--event-timestamp", help="Column of the instant at which a row became true.")
@click.option("--created-timestamp", help="Column of the instant at which a row was written.")
@click.option("--valid-from", help="Column of the instant from which on an SCD2 row is true.")
@click.option("--valid-to", help="Column of the instant until which it is true.")
@click.option("--timezone", default="UTC", show_default=True, help="Zone of times that say none.")
@click.option("--feature", "features", multiple=True, help="Column to offer; all when absent.")
@click.option("--name", help="Name of the view; the table's own when absent.")
@click.option("--ttl", help="Age beyond which a value counts as missing, such as 3h.")
@click.option("--warehouse", default="default", show_default=True)
@click.option("--dry-run", is_flag=True, help="Only show the plan.")
@json_option
@click.pass_context
def register_command(
    ctx: click.Context,
    table: str,
    entity: str | None,
    join_keys: tuple[str, ...],
    event_timestamp: str | None,
    created_timestamp: str | None,
    valid_from: str | None,
    valid_to: str | None,
    timezone: str,
    features: tuple[str, ...],
    name: str | None,
    ttl: str | None,
    warehouse: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Register an existing TABLE as a feature view, in one call that may be repeated.

    Without --entity its keys, times and features are found by looking at the table.
    """
    store = open_store(ctx)
    revision = store.register_table(
        table,
        entity=entity,
        join_keys=join_keys or None,
        event_timestamp=event_timestamp,
        created_timestamp=created_timestamp,
        valid_from=valid_from,
        valid_to=valid_to,
        timezone=timezone,
        features=features or None,
        name=name,
        ttl=ttl,
        warehouse=warehouse,
        dry_run=dry_run,
    )
    if as_json:
        plan = revision.plan.to_dict()
        echo_json({"revision": revision.number, "plan": plan, "doubts": revision.doubts})
        return
    echo(str(revision.plan))
    if revision.plan:
        for doubt in revision.doubts:
            echo_marked("WARNING:", f"{doubt}.")
    if revision.plan and not dry_run:
        view = next(c.name for c in revision.plan.changes if c.kind == "feature_view")
        keys = " ".join(f"{key}=..." for key in store.input_types(view)[0])
        echo(f"Applied as revision {revision.number}. Next: virtualfs online {view} {keys}")
