"""Redis or Valkey as the online store: one MGET to read, one pipeline to write.

A cache: when it fails, reads fall through to the warehouse and the failure is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from virtualfs.errors import ConfigError, VirtualFSError, without_secrets

__all__ = ["PROVIDER"]

_log = logging.getLogger("virtualfs.redis")


class RedisStore:
    """An online store on a Redis or Valkey server."""

    def __init__(self, client: Any, failure: type[Exception]) -> None:
        self._client = client
        self._failure = failure

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of `keys` in order, None for those not held or out of reach."""
        try:
            return list(self._client.mget(keys))
        except self._failure as error:
            _log.warning("cache read failed, reading the warehouse: %s", error)
            return [None] * len(keys)

    def set_many(self, items: Mapping[bytes, bytes], seconds: float | None) -> None:
        """Keep `items`, for `seconds` or until replaced; a failure only costs later reads."""
        pipeline = self._client.pipeline(transaction=False)
        milliseconds = None if seconds is None else max(1, int(seconds * 1000))
        for key, value in items.items():
            pipeline.set(key, value, px=milliseconds)
        try:
            pipeline.execute()
        except self._failure as error:
            _log.warning("cache write failed: %s", error)

    def ping(self) -> None:
        """Raise VirtualFSError unless the server answers."""
        try:
            self._client.ping()
        except self._failure as error:
            raise VirtualFSError(f"the cache does not answer: {error}") from None

    def close(self) -> None:
        """Close connections."""
        self._client.close()


class RedisProvider:
    """Opens ``redis://`` and ``rediss://`` URLs."""

    def open_store(self, url: str) -> RedisStore:
        """Prepare a client; it connects when first used.

        Raises
        ------
        ConfigError
            The driver is missing, or the URL is malformed.
        """
        try:
            import redis
        except ModuleNotFoundError:
            raise ConfigError(
                "cache.url: redis:// needs a driver; pip install 'virtualfs[redis]'"
            ) from None
        try:
            client = redis.Redis.from_url(url, socket_timeout=1.0, socket_connect_timeout=1.0)
        except ValueError as error:
            raise ConfigError(f"cache.url {without_secrets(url)!r}: {error}") from None
        return RedisStore(client, redis.RedisError)


PROVIDER = RedisProvider()
