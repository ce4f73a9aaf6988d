"""Serving the GraphQL API."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, Protocol

import click

from virtualfs.cli.output import open_store
from virtualfs.errors import ConfigError
from virtualfs.store import FeatureStore

__all__ = ["serve"]


class Server(Protocol):
    """What the entry point of the group ``virtualfs.server`` must be."""

    def serve(self, store: FeatureStore, host: str, port: int) -> None:
        """Serve until stopped."""


@click.command("serve")
@click.option("--host", help="Address; only loopback without a token.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port.")
@click.pass_context
def serve_command(ctx: click.Context, host: str | None, port: int | None) -> None:
    """Serve the GraphQL API with /healthz and /readyz."""
    store = open_store(ctx)
    serve(store, host, port)


def serve(store: FeatureStore, host: str | None = None, port: int | None = None) -> None:
    """Serve a store's API until stopped, where the configuration says unless told otherwise."""
    settings = store.config.server
    address = host or settings.host
    if settings.token is None and address not in ("127.0.0.1", "localhost", "::1"):
        raise ConfigError(
            f"without [server] token only loopback may be bound, not {address}; "
            'set token = "${VIRTUALFS_TOKEN}" in virtualfs.toml'
        )
    chosen = settings.port if port is None else port
    _check_free(address, chosen)
    found: Any = None
    for entry in entry_points(group="virtualfs.server"):
        found = entry.load()
    if found is None:
        raise ConfigError("virtualfs is not installed whole: it has no server; reinstall it")
    server: Server = found
    click.echo(
        f"GraphQL on http://{address}:{chosen}/graphql, a query page on "
        f"http://{address}:{chosen}/query. Ctrl-C stops."
    )
    server.serve(store, address, chosen)


def _check_free(host: str, port: int) -> None:
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port"
            ) from None
