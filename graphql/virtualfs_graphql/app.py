"""The ASGI application, and the server that runs it: the entry point ``virtualfs.server``."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import strawberry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL

from virtualfs import FeatureStore
from virtualfs.errors import ConfigError, VirtualFSError, without_secrets
from virtualfs_graphql.catalog import build_schema
from virtualfs_graphql.page import example_query, query_page, with_fallback
from virtualfs_graphql.request import Context, Snapshot

__all__ = ["SERVER", "GraphQLServer", "sdl"]

_log = logging.getLogger("virtualfs.graphql")

CHECK_SECONDS = 1.0
"""How often, at most, the registry is asked whether the catalog has changed."""

BUILD_SECONDS = 2.0
"""How long the request that finds a change waits for the new schema; then the old one answers."""

PROBE_SECONDS = 5.0
"""How long a part may take to answer ``/readyz``."""


class _View(GraphQL[Context, None]):
    """Strawberry's ASGI view over one snapshot."""

    def __init__(self, schema: strawberry.Schema, snapshot: Snapshot) -> None:
        super().__init__(schema)
        self._snapshot = snapshot

    async def get_context(
        self,
        request: Request | WebSocket,  # noqa: ARG002 - Strawberry's signature
        response: Response | WebSocket,  # noqa: ARG002
    ) -> Context:
        return Context(self._snapshot)

    @property
    def graphql_ide_html(self) -> str:
        return with_fallback(super().graphql_ide_html, "query")


@dataclass(frozen=True)
class _Served:
    """A snapshot with everything made from it; replaced as one."""

    snapshot: Snapshot
    schema: strawberry.Schema
    view: _View

    @classmethod
    def of(cls, store: FeatureStore) -> _Served:
        """Read the catalog and build its schema; blocking."""
        snapshot = Snapshot(store)
        schema = build_schema(snapshot)
        return cls(snapshot, schema, _View(schema, snapshot))

    @cached_property
    def page(self) -> str:
        """The query page; blocking when first read."""
        query: Any = self.schema._schema.query_type
        example = example_query(self.snapshot, query)
        return query_page(example, self.snapshot.store.config.project)


class _Live:
    """What is served now, kept up with the registry.

    The registry is asked at most once a second, by the request that comes then; the schema is
    built in a thread and put in place in one assignment, so every request sees one whole catalog.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._served = _Served.of(store)
        self._checked = time.monotonic()
        self._refreshing: asyncio.Task[None] | None = None

    async def current(self) -> _Served:
        """Return what to answer with."""
        running = self._refreshing is not None and not self._refreshing.done()
        if not running and time.monotonic() - self._checked >= CHECK_SECONDS:
            self._checked = time.monotonic()
            self._refreshing = asyncio.create_task(self._refresh())
            await asyncio.wait({self._refreshing}, timeout=BUILD_SECONDS)
        return self._served

    async def _refresh(self) -> None:
        try:
            revision = await asyncio.to_thread(self._store.registry.newest_revision)
            if revision != self._served.snapshot.state.revision:
                self._served = await asyncio.to_thread(_Served.of, self._store)
        except Exception:  # noqa: BLE001 - whatever it is, the old catalog still answers
            # An outage of the registry must not stop what needs no registry; /readyz tells.
            _log.exception("the catalog could not be read again; the old one is served")


class _GraphQLRoute:
    """``/graphql``, answered by whatever view is current."""

    def __init__(self, live: _Live) -> None:
        self._live = live

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        served = await self._live.current()
        await served.view(scope, receive, send)


def _application(store: FeatureStore) -> Starlette:
    live = _Live(store)

    async def home(request: Request) -> Response:
        return RedirectResponse(f"{request.scope.get('root_path', '')}/query")

    async def page(_request: Request) -> Response:
        served = await live.current()
        return HTMLResponse(await asyncio.to_thread(lambda: served.page))

    async def healthy(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_request: Request) -> Response:
        checks = await _checks(store, (await live.current()).snapshot)
        failed = any("error" in check for check in checks.values())
        content = {"status": "unavailable" if failed else "ready", "checks": checks}
        return JSONResponse(content, status_code=503 if failed else 200)

    return Starlette(
        routes=[
            Route("/", home),
            Route("/query", page),
            Route("/graphql", _GraphQLRoute(live), methods=["GET", "POST", "OPTIONS"]),
            Route("/healthz", healthy),
            Route("/readyz", ready),
        ]
    )


async def _checks(store: FeatureStore, snapshot: Snapshot) -> dict[str, dict[str, str]]:
    """Return, by part, ``{"status": "ok"}`` or the error that it fails with."""
    names = {*store.config.warehouses, *(view.warehouse for view in snapshot.views.values())}
    probes: dict[str, Callable[[], object]] = {
        "registry": store.state,
        "cache": lambda: store.online_store().ping(),
        **{f"warehouse {name}": _warehouse_probe(store, name) for name in sorted(names)},
    }
    found = await asyncio.gather(*(_check(name, probe) for name, probe in probes.items()))
    return dict(zip(probes, found, strict=True))


def _warehouse_probe(store: FeatureStore, name: str) -> Callable[[], object]:
    return lambda: store.warehouse(name).ping()


async def _check(name: str, probe: Callable[[], object]) -> dict[str, str]:
    try:
        await asyncio.wait_for(asyncio.to_thread(probe), PROBE_SECONDS)
    except TimeoutError:
        return {"status": "failed", "error": f"no answer within {PROBE_SECONDS:g} s"}
    except VirtualFSError as error:
        return {"status": "failed", "error": without_secrets(str(error))}
    except Exception as error:  # noqa: BLE001 - a probe reports every failure
        # Drivers' messages may hold anything; the log may, a probe's answer may not.
        _log.exception("%s is not ready", name)
        return {"status": "failed", "error": f"{type(error).__name__}; the server's log says more"}
    return {"status": "ok"}


class GraphQLServer:
    """What core reaches through the entry point ``virtualfs.server``."""

    def asgi(self, store: FeatureStore) -> ASGIApp:
        """Return the ASGI application of a store; the catalog is read once before it returns.

        Raises
        ------
        RegistryError
            The registry cannot be read.
        """
        return _application(store)

    def serve(
        self,
        store: FeatureStore,
        host: str,
        port: int,
        log_level: str = "warning",
        on_ready: Callable[[str], object] | None = None,
    ) -> None:
        """Serve until interrupted.

        Parameters
        ----------
        port
            0 takes a free one.
        on_ready
            Called with the server's URL once it accepts connections.

        Raises
        ------
        ConfigError
            The host or port cannot be listened on.
        """
        import uvicorn

        application = self.asgi(store)
        listener = _listen(host, port)
        name = f"[{host}]" if ":" in host else host
        url = f"http://{name}:{listener.getsockname()[1]}"

        class Server(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                if self.started and on_ready is not None:
                    on_ready(url)

        with listener:
            settings = uvicorn.Config(application, host, port, log_level=log_level, lifespan="off")
            Server(settings).run(sockets=[listener])

    def sdl(self, store: FeatureStore) -> str:
        """Return the live schema as SDL."""
        return sdl(store)


def _listen(host: str, port: int) -> socket.socket:
    # Bound here, as uvicorn would end the process when the port is taken.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; "
            "choose another with [server] host and port"
        ) from None
    return listener


def sdl(store: FeatureStore) -> str:
    """Return the schema of a store's catalog as SDL."""
    return build_schema(Snapshot(store)).as_str() + "\n"


SERVER = GraphQLServer()
