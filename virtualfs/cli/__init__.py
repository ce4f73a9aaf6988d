"""The command line, ``virtualfs``. Commands are imported when called, so that help is instant."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import click

__all__ = ["main"]

_COMMANDS = {
    "init": "project",
    "demo": "demo",
    "scan": "scan",
    "import": "importing",
    "register": "project",
    "plan": "changes",
    "apply": "changes",
    "rollback": "changes",
    "deprecate": "changes",
    "diff": "changes",
    "promote": "changes",
    "export": "changes",
    "list": "catalog",
    "show": "catalog",
    "search": "looking",
    "lineage": "looking",
    "impact": "looking",
    "history": "looking",
    "check": "catalog",
    "historical": "features",
    "online": "features",
    "materialize": "cache",
    "invalidate": "cache",
    "hot": "cache",
    "serve": "server",
    "schema": "server",
    "token": "server",
    "registry": "registry",
    "doctor": "registry",
}
_HELP = {
    "init": "Make a new project that works.",
    "demo": "See the main job done on real flights.",
    "scan": "Write definitions for the tables of a warehouse.",
    "import": "Take over what another tool knows: dbt, Feast.",
    "register": "Register an existing table as a feature view.",
    "plan": "Show what apply would change.",
    "apply": "Write the definitions to the registry.",
    "rollback": "Bring back the state of an older revision.",
    "deprecate": "Warn who asks for an old version.",
    "diff": "Show how two environments differ.",
    "promote": "Let an environment point where another does.",
    "export": "Write all definitions as YAML.",
    "list": "List features, views, entities, services, sources or environments.",
    "show": "Show one view, service, entity or source.",
    "search": "Find features and the like by words.",
    "lineage": "Show what something is made of, and what is made of it.",
    "impact": "Show what breaks if a column goes.",
    "history": "Show who changed what and when.",
    "check": "Look for data that breaks what views assume of it.",
    "historical": "Build a point-in-time training set.",
    "online": "Read feature values as of now.",
    "materialize": "Fill the cache.",
    "invalidate": "Forget what the cache holds of a view.",
    "hot": "Show how the cache is used.",
    "serve": "Serve the GraphQL API.",
    "schema": "Print the live GraphQL schema.",
    "token": "Make a token for the GraphQL API.",
    "registry": "Look after the registry's tables.",
    "doctor": "Check configuration, registry, cache and warehouses.",
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"virtualfs.cli.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            from virtualfs.errors import did_you_mean

            ctx.fail(f"there is no command {args[0]!r}. {did_you_mean(args[0], _COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(_HELP.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "-c", metavar="PATH", help="virtualfs.toml or its folder; found upward.")
@click.option("--env", "environment", metavar="NAME", help="Environment to read and change.")
@click.option("--revision", type=int, metavar="N", help="Read the registry as it was then.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.version_option(package_name="virtualfs")
@click.pass_context
def cli(
    ctx: click.Context,
    config: str | None,
    environment: str | None,
    revision: int | None,
    debug: bool,
) -> None:
    """VirtualFS, a virtual feature store over the SQL warehouses you already have.

    New here? Run `virtualfs demo`, or `virtualfs init` in an empty folder.
    """
    ctx.obj = {
        "config": config,
        "environment": environment,
        "revision": revision,
        "debug": debug,
    }


def main() -> None:
    """Run the command line.

    Exits 0 when done, 1 when it failed, 2 on wrong usage, 3 when `plan --check` found changes.
    """
    from virtualfs.errors import ConfigError, VirtualFSError, printable, without_secrets

    debug = "--debug" in sys.argv
    try:
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2 if isinstance(error, click.UsageError) else 1)
    except (KeyboardInterrupt, click.Abort):
        click.echo("Stopped.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader (head, a pager) has gone; Python must not complain when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (VirtualFSError, OSError) as error:
        if debug:
            raise
        kind = type(error).__name__
        text = printable(without_secrets(str(error)))
        click.echo(f"{click.style('Error', fg='red', bold=True)} ({kind}): {text}", err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
