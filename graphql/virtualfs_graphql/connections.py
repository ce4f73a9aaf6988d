"""HTTP connections with bounds: how long a request may take to arrive, and how many one client has.

uvicorn bounds the time between requests. A request whose head never ends it would wait for.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from virtualfs.config import Limits
from virtualfs.definitions.duration import setting_seconds

__all__ = ["BoundedProtocol"]

_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n"
    b"retry-after: 1\r\nconnection: close\r\n\r\n%b"
)
_TOO_MANY = b"too many connections from this address ([server.limits] connections)\n"


_base: Any = AutoHTTPProtocol


class BoundedProtocol(_base):  # type: ignore[misc]  # which of two it is, is known at run time
    """uvicorn's own protocol, within the bounds of this process's server."""

    _seconds = 30.0
    _connections = 256
    _clients: Counter[str] = Counter()
    _client_address = ""
    _late: asyncio.TimerHandle | None = None

    @classmethod
    def bound(cls, limits: Limits) -> None:
        """Set the bounds of all connections of this process."""
        cls._seconds = setting_seconds(limits.timeout)
        cls._connections = limits.connections

    def connection_made(self, transport: Any) -> None:
        """Begin, unless the client has too many connections."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._client_address = str(peer[0]) if isinstance(peer, tuple) else ""
        self._clients[self._client_address] += 1
        if self._client_address and self._clients[self._client_address] > self._connections:
            transport.write(_REFUSAL % (len(_TOO_MANY), _TOO_MANY))
            transport.close()
            return
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request."""
        super().data_received(data)
        cycle: Any = self.cycle
        if cycle is None or cycle.response_complete:
            self._wait()
        else:  # from here on the application has a deadline of its own
            self._wait_no_more()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._wait_no_more()
        self._clients[self._client_address] -= 1
        if not self._clients[self._client_address]:
            del self._clients[self._client_address]
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._late is None and not self.transport.is_closing():
            loop = asyncio.get_running_loop()
            self._late = loop.call_later(self._seconds, self.transport.close)

    def _wait_no_more(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
