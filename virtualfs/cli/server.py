"""Serving the GraphQL API: serve, schema, token."""

from __future__ import annotations

import hashlib
import re
import secrets

import click

from virtualfs.cli.output import echo, echo_json, json_option, open_store
from virtualfs.provider import load_server
from virtualfs.store import FeatureStore

__all__ = ["schema_command", "serve", "serve_command", "token_command"]


@click.command("serve")
@click.option("--host", help="Address; only loopback without a token.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port.")
@click.option("--workers", type=click.IntRange(1, 64), help="Processes.")
@click.pass_context
def serve_command(
    ctx: click.Context, host: str | None, port: int | None, workers: int | None
) -> None:
    """Serve the GraphQL API with /healthz, /readyz and /metrics."""
    store = open_store(ctx)
    serve(store, host, port, workers)


def serve(
    store: FeatureStore,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
) -> None:
    """Serve a store's API until stopped, where the configuration says unless told otherwise."""
    settings = store.config.server
    address = host or settings.host
    production = settings.is_production(address)

    def ready(url: str) -> None:
        page = "" if production else f", a query page on {url}/query"
        echo(f"GraphQL on {url}/graphql{page}. Ctrl-C stops.")

    load_server().serve(
        store,
        address,
        settings.port if port is None else port,
        on_ready=ready,
        workers=workers or settings.workers,
    )


@click.command("schema")
@click.pass_context
def schema_command(ctx: click.Context) -> None:
    """Print the live GraphQL schema as SDL."""
    echo(load_server().sdl(open_store(ctx)), nl=False)


@click.command("token")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(["read", "write", "admin"]),
    default=["read"],
    show_default=True,
    help="What it allows; may be given several times.",
)
@json_option
def token_command(name: str, scopes: tuple[str, ...], as_json: bool) -> None:
    """Make a token for the GraphQL API.

    The token is shown this once; virtualfs.toml gets only its hash, by the lines that are shown.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise click.UsageError(f"{name!r} cannot be a token's name; use letters, digits, - and _")
    token = f"vfs_{secrets.token_urlsafe(32)}"
    hashed = "sha256:" + hashlib.sha256(token.encode()).hexdigest()
    if as_json:
        echo_json({"name": name, "token": token, "hash": hashed, "scopes": list(scopes)})
        return
    listed = ", ".join(f'"{scope}"' for scope in scopes)
    echo(
        f"The token, shown this once:\n\n    {token}\n\nIn virtualfs.toml:\n\n"
        f'    [server.tokens.{name}]\n    hash = "{hashed}"\n    scopes = [{listed}]',
    )
