"""Changing the registry: plan, apply, rollback, deprecate, diff, promote, export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from virtualfs.cli.output import ask, coloured, echo, echo_json, json_option, open_store
from virtualfs.files import write_text
from virtualfs.registry.plan import Plan, Revision

_yes: Callable[[Any], Any] = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
_env: Callable[[Any], Any] = click.option(
    "--env", "environment", metavar="NAME", help="Environment; the configuration's when absent."
)
_breaking: Callable[[Any], Any] = click.option(
    "--allow-breaking", is_flag=True, help="Let views that services pin change for their readers."
)


@click.command("plan")
@click.option("--check", is_flag=True, help="Exit 3 when there is something to apply.")
@_env
@json_option
@click.pass_context
def plan_command(ctx: click.Context, check: bool, environment: str | None, as_json: bool) -> int:
    """Show what apply would change, and what that breaks. Writes nothing."""
    plan = open_store(ctx, environment).plan(prune=True)
    if as_json:
        echo_json(plan.to_dict())
    else:
        click.echo(coloured(str(plan)))
    return 3 if check and (plan or plan.drift) else 0


@click.command("apply")
@_yes
@_breaking
@_env
@json_option
@click.pass_context
def apply_command(
    ctx: click.Context, yes: bool, allow_breaking: bool, environment: str | None, as_json: bool
) -> None:
    """Write the definitions to the registry: all of them or nothing.

    What came from definition files and is no longer there is removed.
    """
    store = open_store(ctx, environment)
    plan = store.plan(prune=True)
    _show(plan, as_json=as_json)
    plan.check(allow_breaking=allow_breaking)
    _ask("Apply?", plan, yes=yes)
    _done(store.apply(plan, allow_breaking=allow_breaking), "Applied as", as_json=as_json)


@click.command("rollback")
@click.argument("revision", type=int)
@_yes
@_env
@json_option
@click.pass_context
def rollback_command(
    ctx: click.Context, revision: int, yes: bool, environment: str | None, as_json: bool
) -> None:
    """Bring back the state of an older REVISION, as a new revision."""
    store = open_store(ctx, environment)
    plan = store.rollback(revision, dry_run=True).plan
    _show(plan, as_json=as_json)
    _ask(f"Roll back to revision {revision}?", plan, yes=yes)
    _done(store.apply(plan), "Rolled back as", as_json=as_json)


@click.command("deprecate")
@click.argument("reference")
@click.argument("message")
@_env
@json_option
@click.pass_context
def deprecate_command(
    ctx: click.Context, reference: str, message: str, environment: str | None, as_json: bool
) -> None:
    """Warn everyone who asks for an old version, such as weather@1 or delay@1.

    MESSAGE says what to use instead; an empty one takes the warning away. What is current is
    better marked where it is defined, by deprecated=.
    """
    _done(open_store(ctx, environment).deprecate(reference, message), "Marked in", as_json=as_json)


@click.command("diff")
@click.argument("old")
@click.argument("new")
@json_option
@click.pass_context
def diff_command(ctx: click.Context, old: str, new: str, as_json: bool) -> None:
    """Show how environment NEW differs from environment OLD."""
    plan = open_store(ctx).diff(old, new)
    if as_json:
        echo_json(plan.to_dict())
    else:
        click.echo(coloured(str(plan)))


@click.command("promote")
@click.argument("source")
@click.argument("target")
@_yes
@_breaking
@json_option
@click.pass_context
def promote_command(
    ctx: click.Context, source: str, target: str, yes: bool, allow_breaking: bool, as_json: bool
) -> None:
    """Let environment TARGET point at the revision that SOURCE points at; it is made if new."""
    store = open_store(ctx)
    plan = store.promote(source, target, dry_run=True).plan
    _show(plan, as_json=as_json)
    plan.check(allow_breaking=allow_breaking)
    _ask(f"Promote {source} to {target}?", plan, yes=yes)
    revision = store.apply(plan, allow_breaking=allow_breaking)
    if as_json:
        echo_json({"revision": revision.number, "plan": revision.plan.to_dict()})
    else:
        echo(f"{target} is at revision {revision.number}, as {source} is.")


@click.command("export")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="File to write; else shown.")
@_env
@click.pass_context
def export_command(ctx: click.Context, output: Path | None, environment: str | None) -> None:
    """Write all definitions of the registry as YAML, which applies to an equal registry."""
    text = open_store(ctx, environment).export()
    if output is None:
        click.echo(text, nl=False)
        return
    if output.exists():
        raise click.ClickException(f"{output} exists; choose another name")
    write_text(output, text)
    echo(f"Wrote {output}.")


def _show(plan: Plan, *, as_json: bool) -> None:
    if not as_json:
        click.echo(coloured(str(plan)))


def _ask(question: str, plan: Plan, *, yes: bool) -> None:
    if plan and not yes:
        ask(f"\n{question}")


def _done(revision: Revision, said: str, *, as_json: bool) -> None:
    if as_json:
        echo_json({"revision": revision.number, "plan": revision.plan.to_dict()})
    elif revision.plan:
        echo(f"{said} revision {revision.number}.")
