"""The ASGI application, and the server that runs it: the entry point ``virtualfs.server``."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import signal
import socket
import tempfile
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from strawberry.http.ides import get_graphql_ide_html

from graphql import OperationDefinitionNode, parse, validate
from virtualfs import FeatureStore
from virtualfs.config import LOOPBACK, Server
from virtualfs.definitions.duration import setting_seconds
from virtualfs.errors import (
    ConfigError,
    PermissionDeniedError,
    VirtualFSError,
    without_secrets,
)
from virtualfs.forks import renew_in_child
from virtualfs.registry.plan import Plan
from virtualfs_graphql.catalog import CatalogSchema, static_schema
from virtualfs_graphql.connections import BoundedProtocol
from virtualfs_graphql.documents import Documents, digest, trusted_documents
from virtualfs_graphql.http import PRIVATE, Endpoint, Served
from virtualfs_graphql.logs import configure_logs
from virtualfs_graphql.memory import dismantle, quietly, settle
from virtualfs_graphql.metrics import CONTENT_TYPE, Metrics, shared_folder
from virtualfs_graphql.page import page_policy, query_page, with_fallback
from virtualfs_graphql.request import Snapshot
from virtualfs_graphql.sdl import schema_sdl
from virtualfs_graphql.tokens import Tokens
from virtualfs_graphql.tracing import query_span

__all__ = ["SERVER", "GraphQLServer", "sdl"]

_log = logging.getLogger("virtualfs.graphql")

CHECK_SECONDS = 1.0
"""How often the registry is asked whether the catalog has changed."""

PROBE_SECONDS = 5.0
"""How long a part may take to answer ``/readyz``."""

PROBE_KEPT = 0.5
"""How long its answer is given to others who ask."""

_RETIRE_SECONDS = 30
"""How long a catalog that was replaced is kept for the requests that stand on it."""
_LAST_SECONDS = 2.0
"""Seconds of a shutdown that are for closing, after the requests."""

_WARMED = 100
"""Documents that a new schema prepares before it serves: those asked for last."""
_PLACE = "VIRTUALFS_SERVE"
"""Where a worker finds the configuration, the environment, the revision and the address."""


def _served(store: FeatureStore, introspection: bool, before: Served | None = None) -> Served:
    """Read the catalog and build its schema; blocking."""
    snapshot = Snapshot(store)
    schema = CatalogSchema.of(snapshot)
    documents = Documents(schema.core, store.config.server.limits, introspection=introspection)
    for text in list(before.documents if before is not None else ())[-_WARMED:]:
        time.sleep(0)
        documents.get(text)
    # A first look-up does not wait for a connection, or for a compiler.
    store.online.prepare(snapshot.views.values())
    return Served(snapshot, schema, documents)


class _Live:
    """What is served now, kept up with the registry.

    A thread asks the registry once a second, whether or not requests come. The schema is built in
    that thread and put in place in one assignment, so every request sees one whole catalog.
    """

    def __init__(self, store: FeatureStore, metrics: Metrics, *, introspection: bool) -> None:
        self._store = store
        self._metrics = metrics
        self._introspection = introspection
        self._served = _served(store, introspection)
        self._closed = threading.Event()
        self._is_away = False
        self._renew()
        renew_in_child(self._renew)
        metrics.serves(self._served.snapshot.state.revision)

    def _renew(self) -> None:
        """Make what belongs to one process; a child has none of its parent's requests."""
        self._served.users = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    async def current(self) -> Served:
        """Return what to answer with."""
        if self._thread is None:
            self.follow()
        return self._served

    def follow(self) -> None:
        """Begin to follow the registry."""
        with self._lock:
            if self._thread is None and self._store.pinned_revision is None:
                self._thread = threading.Thread(
                    target=_follow, args=[weakref.ref(self), self._closed],
                    name="virtualfs-catalog", daemon=True,
                )  # fmt: skip
                self._thread.start()

    def refresh(self) -> None:
        """Build the schema anew if the registry has another revision; blocking."""
        try:
            revision = self._store.registry.newest_revision()
            old = self._served
            if revision != old.snapshot.state.revision:
                with quietly():
                    self._served = _served(self._store, self._introspection, old)
                self._metrics.serves(self._served.snapshot.state.revision)
                # In a thread of its own, as the next change may come before the last request ends.
                threading.Thread(target=_retire, args=[old], daemon=True).start()
            self._is_away = False
        except Exception:  # noqa: BLE001 - whatever it is, the old catalog still answers
            # An outage of the registry must not stop what needs no registry; /readyz tells.
            if not self._is_away:
                _log.exception("the catalog could not be read again; the old one is served")
            self._is_away = True

    @property
    def is_over(self) -> bool:
        """Whether its store was closed."""
        return self._store.is_closed

    def close(self) -> None:
        """Build nothing any more."""
        self._closed.set()


def _follow(reference: weakref.ref[_Live], closed: threading.Event) -> None:
    """Keep what is served up with the registry, as long as it is there."""
    while not closed.wait(CHECK_SECONDS):
        live = reference()
        if live is None or live.is_over:
            return
        live.refresh()
        del live


def _retire(served: Served) -> None:
    """Let a catalog go once the last request that stands on it is answered."""
    until = time.monotonic() + _RETIRE_SECONDS
    while served.users and time.monotonic() < until:
        time.sleep(0.02)
    if not served.users:
        dismantle(served.schema.core, static_schema(), served.snapshot.parts())


class _Observer:
    """Tells metrics and traces of reads."""

    def __init__(self, metrics: Metrics) -> None:
        self.read = metrics.read
        self._queried = metrics.queried

    def queried(self, view: str, keys: int, started: float, failed: bool) -> None:
        self._queried(view, keys, started, failed)
        query_span(view, keys, started, failed)


class _Application:
    """GraphQL, straight to its endpoint, and everything else by Starlette's routes."""

    def __init__(self, endpoint: Endpoint, others: ASGIApp, hosts: frozenset[str]) -> None:
        self._endpoint = endpoint
        self._others = others
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if self._hosts and _host_of(scope) not in self._hosts:
                response = JSONResponse(
                    {"error": "this host is not served here; add its name to [server] hosts"},
                    status_code=421,
                )
                await response(scope, receive, send)
                return
            path: str = scope["path"]
            if path.removeprefix(scope.get("root_path", "")) == "/graphql":
                await self._endpoint(scope, receive, send)
                return
        await self._others(scope, receive, _private(send))


def _host_of(scope: Scope) -> str:
    """Return the name that a request calls this server by, without a port."""
    header = next((value for name, value in scope["headers"] if name == b"host"), b"")
    return re.sub(r":\d+$", "", header.decode("latin-1")).lower()


def _private(send: Send) -> Send:
    """Return what sends an answer with the headers that all answers have."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *PRIVATE]}
        await send(message)

    return sending


def _application(
    store: FeatureStore, host: str, *, owns_store: bool = False, is_served: bool = False
) -> ASGIApp:
    """Return the application of a store.

    Parameters
    ----------
    host
        The address that is bound.
    owns_store
        Whether the store is closed when the application ends.
    is_served
        Whether this package's server runs it: it then answers to its own names alone.
    """
    settings = store.config.server
    production = settings.is_production(host)
    metrics = Metrics()
    live = _Live(store, metrics, introspection=not production)
    store.online.reader.observer = _Observer(metrics)
    probes = _Probes(store)
    trusted = trusted_documents(settings.trusted_documents, store.config.folder)

    def ide() -> str:
        return with_fallback(get_graphql_ide_html(graphql_ide="graphiql"), "query")

    tokens = Tokens(settings, host)
    # A page shows what is in the catalog, and a key of a warehouse.
    has_pages = not production and tokens.has_open_reads
    endpoint = Endpoint(
        live.current, settings, metrics, ide if has_pages else None, trusted, tokens,
        introspection=not production,
    )  # fmt: skip

    def may_read(request: Request) -> bool:
        try:
            return "read" in tokens.of_request(request.scope)
        except PermissionDeniedError:
            return False

    def unauthorized() -> Response:
        return Response(status_code=401, headers={"www-authenticate": "Bearer"})

    async def home(request: Request) -> Response:
        return RedirectResponse(f"{request.scope.get('root_path', '')}/query")

    async def page(request: Request) -> Response:
        if not may_read(request):
            return unauthorized()
        nonce = secrets.token_urlsafe(16)
        served = await live.current()
        with served.held():
            shown = await asyncio.to_thread(query_page, served.snapshot, served.schema.core, nonce)
        return HTMLResponse(shown, headers={"content-security-policy": page_policy(nonce)})

    async def healthy(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(request: Request) -> Response:
        served = await live.current()
        with served.held():
            checks = await probes.checks(served.snapshot)
        content = _readiness(checks)
        if may_read(request):
            content["checks"] = checks
        else:  # names of warehouses are for those who may read
            content = {name: content[name] for name in content.keys() & {"status", "cache"}}
        return JSONResponse(content, status_code=503 if content["status"] == "unavailable" else 200)

    async def measured(request: Request) -> Response:
        if not may_read(request):
            return unauthorized()
        return Response(await asyncio.to_thread(metrics.text), media_type=CONTENT_TYPE)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        live.follow()
        yield
        live.close()
        probes.close()
        if owns_store:
            await asyncio.to_thread(store.close)

    pages = [] if not has_pages else [Route("/", home), Route("/query", page)]
    others = Starlette(
        routes=[
            *pages,
            Route("/healthz", healthy),
            Route("/readyz", ready),
            Route("/metrics", measured),
        ],
        lifespan=lifespan,
    )
    hosts = frozenset(name.lower() for name in settings.hosts)
    if not hosts and is_served and host in LOOPBACK:
        # A page elsewhere whose name is made to mean this machine gets no answer from it.
        hosts = _LOCAL_NAMES
    application: ASGIApp = _Application(endpoint, others, hosts)
    if settings.cors_origins:
        application = CORSMiddleware(
            application,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-request-id"],
            expose_headers=["x-request-id"],
        )
    return application


_LOCAL_NAMES = frozenset(("localhost", "127.0.0.1", "[::1]"))


def _readiness(checks: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Return whether answers can be given, and which part is away.

    Without the registry, or any warehouse, there are none; without the cache they come slower.
    """
    away = [name for name, check in checks.items() if "error" in check]
    warehouses = [name for name in checks if name.startswith("warehouse ")]
    is_down = "registry" in away or (warehouses and all(name in away for name in warehouses))
    status = "unavailable" if is_down else "degraded" if away else "ready"
    return {"status": status, **dict.fromkeys(away, "away")}


class _Probes:
    """Asks the parts whether they answer: each at most once at a time, in threads of its own.

    Whoever asks while a probe is under way, or within a second after it, gets its answer: however
    often ``/readyz`` is called, it takes no thread that requests need.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._renew()
        renew_in_child(self._renew)

    def _renew(self) -> None:
        """Make what belongs to one process."""
        self._threads = ThreadPoolExecutor(16, "virtualfs-probe")
        self._running: dict[str, tuple[float, Future[dict[str, str]]]] = {}

    async def checks(self, snapshot: Snapshot) -> dict[str, dict[str, str]]:
        """Return, by part, ``{"status": "ok"}`` or the error that it fails with."""
        store = self._store
        views = snapshot.views.values()
        names = {*store.config.warehouses, *(view.warehouse for view in views)}
        probes: dict[str, Callable[[], object]] = {
            "registry": store.state,
            "cache": lambda: store.online_store().ping(),
            **{f"warehouse {name}": _warehouse_probe(store, name) for name in sorted(names)},
        }
        found = await asyncio.gather(*(self._check(name, probe) for name, probe in probes.items()))
        return dict(zip(probes, found, strict=True))

    async def _check(self, name: str, probe: Callable[[], object]) -> dict[str, str]:
        began, running = self._running.get(name, (0.0, None))
        if running is None or (running.done() and time.monotonic() - began > PROBE_KEPT):
            running = self._threads.submit(_probed, name, probe)
            self._running[name] = time.monotonic(), running
        try:
            return await asyncio.wait_for(
                asyncio.shield(asyncio.wrap_future(running)), PROBE_SECONDS
            )
        except TimeoutError:
            return {"status": "failed", "error": f"no answer within {PROBE_SECONDS:g} s"}

    def close(self) -> None:
        """Ask no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _warehouse_probe(store: FeatureStore, name: str) -> Callable[[], object]:
    return lambda: store.warehouse(name).ping()


def _probed(name: str, probe: Callable[[], object]) -> dict[str, str]:
    try:
        probe()
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
        return _application(store, store.config.server.host)

    def serve(
        self,
        store: FeatureStore,
        host: str,
        port: int,
        log_level: str = "warning",
        on_ready: Callable[[str], object] | None = None,
        workers: int = 1,
    ) -> None:
        """Serve until interrupted; requests that are under way are then still answered.

        Parameters
        ----------
        port
            0 takes a free one.
        on_ready
            Called with the server's URL once it accepts connections.
        workers
            Processes; several need a configuration file, which each of them reads.

        Raises
        ------
        ConfigError
            The host or port cannot be listened on, or must not be.
        """
        import uvicorn

        _may_serve(store, host, workers)
        configure_logs(store.config.server, log_level)
        server = store.config.server
        if host not in LOOPBACK and server.open_reads is True:
            _log.warning("%s: whoever reaches this address may read, by open_reads = true", host)
        listener = _listen(host, port)
        name = f"[{host}]" if ":" in host else host
        url = f"http://{name}:{listener.getsockname()[1]}"
        options: dict[str, Any] = {
            "host": host, "port": port, "log_level": log_level, "access_log": False,
            "timeout_graceful_shutdown": _drain_seconds(server), "server_header": False,
            "http": BoundedProtocol,
        }  # fmt: skip

        def ready() -> None:
            if on_ready is not None:
                on_ready(url)

        with listener:
            if workers > 1:
                _run_workers(store, host, workers, listener, options, ready)
                return
            _settle()
            BoundedProtocol.bound(server.limits)
            application = _application(store, host, is_served=True)

            class GracefulServer(uvicorn.Server):
                async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                    await super().startup(sockets)
                    if self.started:
                        _end_within_grace(server)
                        ready()

            GracefulServer(uvicorn.Config(application, **options)).run(sockets=[listener])

    def sdl(self, store: FeatureStore) -> str:
        """Return the live schema as SDL."""
        return sdl(store)

    def broken_documents(self, store: FeatureStore, plan: Plan) -> list[str]:
        """Return the trusted documents that are valid now and would not be after a plan."""
        texts = trusted_documents(store.config.server.trusted_documents, store.config.folder)
        if not texts or not plan:
            return []
        before = CatalogSchema.of(Snapshot(store)).core
        after = CatalogSchema.of(Snapshot(store, store.state().after(plan.writes))).core
        found = []
        for text in texts.values():
            document = parse(text)
            errors = validate(after, document) if not validate(before, document) else []
            if errors:
                names = [
                    node.name.value
                    for node in document.definitions
                    if isinstance(node, OperationDefinitionNode) and node.name
                ]
                called = ", ".join(names) or digest(text)
                found.append(f"trusted document {called} would break: {errors[0].message}")
        return found


def _may_serve(store: FeatureStore, host: str, workers: int) -> None:
    """Refuse what must not be served."""
    settings = store.config.server
    if host not in LOOPBACK and not list(Tokens(settings, host)):
        raise ConfigError(
            f"without a token only loopback may be bound, not {host}; set "
            'token = "${VIRTUALFS_TOKEN}" in [server], or make one with `virtualfs token`'
        )
    if workers == 1:
        return
    if not (store.config.folder / "virtualfs.toml").is_file():
        raise ConfigError("several workers need a virtualfs.toml, which each of them reads")
    if store.config.cache.url.get_secret_value().startswith("memory:"):
        raise ConfigError(
            f"{workers} workers need a cache that they share: a row that is pushed into memory:// "
            "would be seen by one of them. Set url = \"redis://...\" in [cache], or serve with one "
            "worker"
        )
    for name, warehouse in store.config.warehouses.items():
        scheme = warehouse.url.get_secret_value().partition("://")[0]
        if scheme == "duckdb" and not warehouse.read_only:
            raise ConfigError(
                f"warehouse {name!r} is a DuckDB file opened to write, which one process at a time "
                f"can; serve with one worker, or set read_only = true, not {workers} workers"
            )


def _run_workers(
    store: FeatureStore,
    host: str,
    workers: int,
    listener: socket.socket,
    options: dict[str, Any],
    on_ready: Callable[[], object],
) -> None:
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    config = store.config.folder / "virtualfs.toml"
    revision = "" if store.pinned_revision is None else str(store.pinned_revision)
    os.environ[_PLACE] = "\n".join([str(config), store.registry.environment, revision, host])
    with tempfile.TemporaryDirectory(prefix="virtualfs-metrics-") as folder:
        shared_folder(Path(folder))
        settings = uvicorn.Config(
            "virtualfs_graphql.app:worker", factory=True, workers=workers, **options
        )
        on_ready()
        Multiprocess(settings, sockets=[listener]).run()


def worker() -> ASGIApp:
    """Return the application of one of several processes."""
    config, environment, revision, host = os.environ[_PLACE].split("\n")
    store = FeatureStore(
        config, environment=environment, revision=int(revision) if revision else None
    )
    configure_logs(store.config.server, "warning")
    _settle()
    BoundedProtocol.bound(store.config.server.limits)
    _end_within_grace(store.config.server)
    return _application(store, host, owns_store=True, is_served=True)


def _drain_seconds(settings: Server) -> int:
    """Return for how long requests may go on after the server was told to stop."""
    return max(1, int(setting_seconds(settings.shutdown_grace) - _LAST_SECONDS))


def _end_within_grace(settings: Server) -> None:
    """Let a signal that ends this process end it in time, whatever it waits for."""
    if threading.current_thread() is not threading.main_thread():
        return
    seconds = max(setting_seconds(settings.shutdown_grace), _drain_seconds(settings) + 0.5)
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)

        def ends(given: int, frame: Any, before: Any = before) -> None:
            watch = threading.Timer(seconds, os._exit, [1])
            watch.daemon = True
            watch.start()
            if callable(before):
                before(given, frame)

        signal.signal(number, ends)


def _settle() -> None:
    """Load what the first request would, and take it from the garbage collector's sight."""
    import ibis  # noqa: F401

    static_schema()
    settle()


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
            "choose another with --host and --port, or [server] host and port"
        ) from None
    return listener


def sdl(store: FeatureStore) -> str:
    """Return the schema of a store's catalog as SDL."""
    return schema_sdl(CatalogSchema.of(Snapshot(store)).core)


SERVER = GraphQLServer()
