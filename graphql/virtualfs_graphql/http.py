"""GraphQL over HTTP: from a request to its answer, in bytes."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count
from typing import Any
from urllib.parse import parse_qs

import msgspec
from starlette.types import Receive, Scope, Send

from graphql import GraphQLError
from virtualfs.config import Server
from virtualfs.definitions.duration import setting_seconds
from virtualfs.errors import LimitError, PermissionDeniedError
from virtualfs.forks import renew_in_child
from virtualfs.provider import statement_deadline
from virtualfs_graphql.catalog import CatalogSchema
from virtualfs_graphql.documents import Document, Documents
from virtualfs_graphql.metrics import Metrics
from virtualfs_graphql.page import IDE_POLICY
from virtualfs_graphql.persisted import PersistedQueries, hash_of
from virtualfs_graphql.request import CURRENT, Context, Snapshot
from virtualfs_graphql.tokens import Tokens
from virtualfs_graphql.tracing import span

__all__ = ["PRIVATE", "REQUEST_ID", "Endpoint", "Served"]

REQUEST_ID: ContextVar[str] = ContextVar("virtualfs_request_id", default="")
_log = logging.getLogger("virtualfs.access")
_SLOW = 1.0
"""Seconds after which a request is logged, whatever it did."""
_JSON = b"application/json"
_RESPONSE = b"application/graphql-response+json"
_DEEPEST = 32
"""Lists and objects within each other, in variables."""
_ID = re.compile(rb"[\w.\-]{1,64}")
_encode = msgspec.json.Encoder().encode
PRIVATE = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
"""Headers of every answer: it is what it says to be, and nobody's to keep."""


class _Request(msgspec.Struct):
    query: str | None = None
    variables: dict[str, Any] | None = None
    operationName: str | None = None  # noqa: N815 - as it is sent
    documentId: str | None = None  # noqa: N815
    extensions: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_Request).decode


@dataclass
class Served:
    """A snapshot with everything made from it; replaced as one."""

    snapshot: Snapshot
    schema: CatalogSchema
    documents: Documents
    users: int = 0
    """Requests that stand on it."""

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let it stand until something is done with it."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes
    kind: str
    errors: int = 0
    operation: str = ""


class _RefusedError(Exception):
    """A request that never comes to be executed."""

    def __init__(self, status: int, message: str, code: str = "BadRequest") -> None:
        super().__init__(message)
        self.answer = _Answer(status, _failure(message, code), "invalid", 1)


class Endpoint:
    """Answers ``/graphql``.

    Parameters
    ----------
    current
        Returns what is served now.
    ide
        Returns the page for browsers; None where there is none.
    trusted
        The trusted documents by their digests.
    """

    def __init__(
        self,
        current: Callable[[], Awaitable[Served]],
        settings: Server,
        metrics: Metrics,
        ide: Callable[[], str] | None,
        trusted: Mapping[str, str],
        tokens: Tokens,
        *,
        introspection: bool,
    ) -> None:
        self._current = current
        self._settings = settings
        self._limits = settings.limits
        self._introspection = introspection
        self._timeout = setting_seconds(settings.limits.timeout)
        self._metrics = metrics
        self._ide = ide
        self._trusted = trusted
        self._trusted_texts = frozenset(trusted.values())
        self._tokens = tokens
        self._persisted = PersistedQueries()
        self._renew()
        renew_in_child(self._renew)

    def _renew(self) -> None:
        """Let no two processes number requests alike."""
        self._prefix = secrets.token_hex(4)
        self._numbers = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given if _ID.fullmatch(given) else b"%s-%d" % (
            self._prefix.encode(), next(self._numbers),
        )  # fmt: skip
        REQUEST_ID.set(request_id.decode())
        accept = headers.get(b"accept", b"")
        method = scope["method"]
        if method == "GET" and b"text/html" in accept and not scope["query_string"]:
            await self._page(send)
            return
        request = None
        try:
            scopes = self._tokens.of_request(scope)
            # One deadline for all of it, the arrival of its body included.
            async with asyncio.timeout(self._timeout):
                if method == "POST":
                    request = await self._posted(headers, receive)
                elif method == "GET":
                    request = _queried(scope["query_string"])
                else:
                    raise _RefusedError(405, "send GraphQL by POST, or a query by GET")
                answer = await self._answer(
                    request, scopes, is_get=method == "GET", has_token=b"authorization" in headers
                )
        except _RefusedError as refused:
            answer = refused.answer
        except TimeoutError:
            answer = self._late(request)
        except PermissionDeniedError as error:
            _log.warning("refused: %s", error)
            answer = _Answer(401, _failure(str(error), "PermissionDeniedError"), "invalid", 1)
        wants_response = _RESPONSE in accept
        status = answer.status
        if status == 400 and answer.kind == "document" and not wants_response:
            status = 200  # as application/json has always been answered
        head = [
            (b"content-type", (_RESPONSE if wants_response else _JSON) + b"; charset=utf-8"),
            (b"content-length", b"%d" % len(answer.body)),
            (b"x-request-id", request_id),
            *PRIVATE,
        ]
        if status == 408:
            head.append((b"connection", b"close"))  # the rest of its body may still come
        if status == 401:
            head.append((b"www-authenticate", b"Bearer"))
        if status == 405:
            head.append((b"allow", b"GET, POST"))
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": answer.body})
        self._note(answer, status, time.perf_counter() - started)

    def _late(self, request: _Request | None) -> _Answer:
        """Return the answer to a request whose time is over."""
        limit = f"within {self._limits.timeout} ([server.limits] timeout)"
        if request is None:
            told = f"the request did not arrive {limit}"
            return _Answer(408, _failure(told, "TimeoutError"), "invalid", 1)
        name = request.operationName or ""
        return _Answer(504, _failure(f"no answer {limit}", "TimeoutError"), "late", 1, name)

    def _note(self, answer: _Answer, status: int, seconds: float) -> None:
        self._metrics.request(answer.kind, "error" if answer.errors else "ok", seconds)
        is_loud = status >= 500 or seconds > _SLOW or answer.kind == "mutation"
        if is_loud or self._settings.access_log:
            _log.log(
                logging.WARNING if is_loud and answer.kind != "mutation" else logging.INFO,
                "%s %s: %d in %.1f ms, %d errors",
                answer.kind, answer.operation or "(unnamed)", status, seconds * 1e3, answer.errors,
                extra={"operation": answer.operation, "kind": answer.kind, "status": status,
                       "milliseconds": round(seconds * 1e3, 3), "errors": answer.errors},
            )  # fmt: skip

    async def _page(self, send: Send) -> None:
        found = None if self._ide is None else self._ide()
        body = (found or "The pages are off in production; send GraphQL by POST.").encode()
        head = [
            (b"content-type", b"text/html; charset=utf-8" if found else b"text/plain"),
            (b"content-length", b"%d" % len(body)),
            *PRIVATE,
            (b"content-security-policy", IDE_POLICY),
        ]
        status = 200 if found else 404
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": body})

    async def _posted(self, headers: Mapping[bytes, bytes], receive: Receive) -> _Request:
        kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if kind not in (_JSON, _RESPONSE):
            # A form could be sent by any page, without the browser asking us first.
            raise _RefusedError(415, "send JSON, as content-type: application/json")
        body = await self._body(headers, receive)
        try:
            return _decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            if body.lstrip()[:1] == b"[":
                raise _RefusedError(400, "batches are not taken; send one request each") from None
            raise _RefusedError(
                400, f"the body is no GraphQL request: {error}; send "
                '{"query": "...", "variables": {...}}'
            ) from None  # fmt: skip

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        most = self._limits.body
        told = headers.get(b"content-length", b"0")
        if told.isdigit() and int(told) > most:
            raise _RefusedError(413, _too_long(most), "LimitError")
        message = await receive()
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            if len(body) > most:
                raise _RefusedError(413, _too_long(most), "LimitError")
            return body
        pieces, length = [body], len(body)
        while message.get("more_body", False):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _RefusedError(400, "the request was cut short")
            pieces.append(message.get("body", b""))
            length += len(pieces[-1])
            if length > most:
                raise _RefusedError(413, _too_long(most), "LimitError")
        return b"".join(pieces)

    def _text(self, request: _Request) -> str:
        if request.documentId is not None:
            text = self._trusted.get(request.documentId)
            if text is None:
                raise _RefusedError(400, f"{request.documentId!r} is no trusted document")
            return text
        sha256 = hash_of(request.extensions)
        if sha256 is not None and self._settings.only_trusted and not request.query:
            raise _RefusedError(
                200, "PersistedQueryNotSupported", "PERSISTED_QUERY_NOT_SUPPORTED"
            )
        if sha256 is not None and not request.query:
            text = self._persisted.get(sha256)
            if text is None:
                raise _RefusedError(200, "PersistedQueryNotFound", "PERSISTED_QUERY_NOT_FOUND")
            return text
        if not request.query:
            raise _RefusedError(400, "the request has no query")
        if self._settings.only_trusted and request.query not in self._trusted_texts:
            raise _RefusedError(
                403, "only trusted documents are answered here; ask for this one to be added",
                "PermissionDeniedError",
            )  # fmt: skip
        if sha256 is not None and not self._persisted.keep(sha256, request.query):
            raise _RefusedError(400, "extensions.persistedQuery: the hash is not that of the query")
        return request.query

    async def _answer(
        self, request: _Request, scopes: frozenset[Any], *, is_get: bool, has_token: bool
    ) -> _Answer:
        if "read" not in scopes:
            raise PermissionDeniedError(
                "a token with the scope read is needed here: Authorization: Bearer TOKEN"
            )
        text = self._text(request)
        served = await self._current()
        with served.held():
            return await self._answered(
                served, text, request, scopes, is_get=is_get, has_token=has_token
            )

    async def _answered(
        self,
        served: Served,
        text: str,
        request: _Request,
        scopes: frozenset[Any],
        *,
        is_get: bool,
        has_token: bool,
    ) -> _Answer:
        document = served.documents.get(text)
        if document.errors:
            body = _encode({"errors": [_formatted(error) for error in document.errors]})
            return _Answer(400, body, "document", len(document.errors))
        operation = document.operation(request.operationName)
        if operation is None:
            named = request.operationName
            told = (
                "the document has several operations; say operationName"
                if named is None
                else f"the document has no operation {named!r}"
            )
            return _Answer(400, _failure(told, "BadRequest"), "document", 1)
        if is_get and operation.kind != "query":
            raise _RefusedError(405, f"a {operation.kind} is sent by POST")
        variables = request.variables or {}
        context = Context(
            served.snapshot, self._limits, scopes, shows_schema=self._introspection or has_token
        )
        name = request.operationName or operation.label
        try:
            context.check_cost(operation.cost(variables))
        except LimitError as error:
            refusal = {"message": str(error), "extensions": {"code": "LimitError"}}
            body = _encode({"data": None, "errors": [refusal]})
            return _Answer(200, body, operation.kind, 1, name)
        plan = operation.compiled(variables)
        with span("graphql", {"graphql.operation.type": operation.kind,
                              "graphql.operation.name": name}):  # fmt: skip
            if plan is not None:
                data = await plan.run(context, variables)
                if data is not None:
                    return _Answer(200, _encode({"data": data}), "lookup", 0, name)
            return await self._executed(
                served, document, context, variables, operation.kind, name,
                request.operationName,
            )  # fmt: skip

    async def _executed(
        self,
        served: Served,
        document: Document,
        context: Context,
        variables: dict[str, Any],
        kind: str,
        name: str,
        operation_name: str | None,
    ) -> _Answer:
        """Answer by Strawberry's executor."""
        if _depth(variables) > _DEEPEST:
            raise _RefusedError(400, f"variables may hold {_DEEPEST} lists and objects within "
                                "each other", "LimitError")  # fmt: skip
        context.document = document.node
        context.charge_anew()
        CURRENT.set(context)
        with statement_deadline(self._timeout):
            result = await served.schema.execute(
                document.text, variables, context_value=context, operation_name=operation_name
            )
        if not result.errors:
            return _Answer(200, _encode({"data": result.data}), kind, 0, name)
        # In the order of the document, not in that in which they happened to occur.
        errors = sorted((_formatted(error) for error in result.errors), key=_place)
        refused = next((error for error in errors if _code(error) == "LimitError"), None)
        if refused is not None:
            # It would stand at every field that was left.
            body = _encode({"data": None, "errors": [refused]})
            return _Answer(200, body, kind, 1, name)
        if result.data is None and all(error.path is None for error in result.errors):
            # Variables that do not fit: nothing was executed.
            return _Answer(400, _encode({"errors": errors}), "document", len(errors), name)
        body = _encode({"data": result.data, "errors": errors})
        return _Answer(200, body, kind, len(errors), name)


def _queried(query_string: bytes) -> _Request:
    given = {name: values[-1] for name, values in parse_qs(query_string.decode("latin-1")).items()}
    try:
        variables = msgspec.json.decode(given.get("variables") or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise _RefusedError(400, f"variables are not a JSON object: {error}") from None
    try:
        extensions = msgspec.json.decode(given.get("extensions") or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise _RefusedError(400, f"extensions are not a JSON object: {error}") from None
    return _Request(
        given.get("query"), variables, given.get("operationName") or None, given.get("documentId"),
        extensions,
    )  # fmt: skip


def _formatted(error: GraphQLError) -> dict[str, Any]:
    found: dict[str, Any] = dict(error.formatted)
    if not found.get("extensions"):
        # What graphql-core itself finds wrong, in documents and variables.
        found["extensions"] = {"code": "ValidationError"}
    return found


def _code(error: Mapping[str, Any]) -> str:
    return str(error["extensions"].get("code", ""))


def _place(error: Mapping[str, Any]) -> tuple[Any, ...]:
    places = [(place["line"], place["column"]) for place in error.get("locations") or ()]
    # Numbers in a path stand for places in a list, and come before names.
    path = [(isinstance(part, str), part) for part in error.get("path") or ()]
    return places, path


def _failure(message: str, code: str) -> bytes:
    return _encode({"errors": [{"message": message, "extensions": {"code": code}}]})


def _too_long(most: int) -> str:
    return f"the body is longer than {most:,} bytes ([server.limits] body)"


def _depth(value: Any) -> int:
    """Return how many lists and objects lie within each other, up to a few too many."""
    depth = 0
    level = [value]
    while level and depth <= _DEEPEST:
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        nested = [item for item in inner if isinstance(item, dict | list)]
        depth += 1
        level = nested
    return depth
