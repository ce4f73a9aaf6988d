"""Redis or Valkey as the online store, single or Cluster: one MGET to read, a script to write.

A failure of the server is an `OnlineStoreError` within `_PATIENCE`; whether that costs an answer is
for the reader to say. Only keys that were asked for are touched.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from virtualfs.errors import ConfigError, OnlineStoreError, without_secrets

__all__ = ["PROVIDER"]

_PATIENCE = 0.5
"""Seconds that connecting, or waiting for the next bytes, may take."""
_PAGE = 500
"""Items in one call of the script, which holds the server up for a millisecond or two."""

# The rule of virtualfs.serving.codec.merged_bytes. ARGV holds a value and its milliseconds (0: for
# ever) for each key; the answer is a letter for each. Bytes are compared one by one, as Lua would
# compare strings by the server's locale. Calls are few, as each costs as much as all the rest.
_MERGE = """
local function compare(a, b)
  for place = 1, math.min(#a, #b) do
    local x, y = string.byte(a, place), string.byte(b, place)
    if x ~= y then return x < y and -1 or 1 end
  end
  return #a == #b and 0 or (#a < #b and -1 or 1)
end
local function later(given, held)
  local a, b = struct.unpack('>I4I4', given)
  local x, y = struct.unpack('>I4I4', held)
  if a ~= x then return a < x and -1 or 1 end
  return b == y and 0 or (b < y and -1 or 1)
end
local stays, plain, all = {}, {}, redis.call('MGET', unpack(KEYS))
for n, key in ipairs(KEYS) do
  local given, milliseconds, held = ARGV[2 * n - 1], ARGV[2 * n], all[n]
  local order = 1
  if held and #held >= 34 then
    local pushed = bit.band(string.byte(given, 18), 2)
    local was_pushed = bit.band(string.byte(held, 18), 2)
    if pushed + was_pushed == 0 then
      order = later(given, held)
    else
      order = compare(string.sub(given, 19, 34), string.sub(held, 19, 34))
      if order == 0 then order = was_pushed - pushed end
      if order == 0 then order = compare(string.sub(given, 35), string.sub(held, 35)) end
      local asked = later(given, held)
      if #held == 35 or #given == 35 then asked = 0 end  -- one that says: invalidated
      if order >= 0 and pushed ~= 0 and asked < 0 then
        given = string.sub(held, 1, 12) .. string.sub(given, 13)
      elseif order < 0 and was_pushed ~= 0 and asked > 0 then
        redis.call('SETRANGE', key, 0, string.sub(given, 1, 12))
      end
    end
  end
  if order >= 0 then
    if milliseconds == '0' then
      plain[#plain + 1] = key
      plain[#plain + 1] = given
    else
      redis.call('SET', key, given, 'PX', milliseconds)
    end
  end
  stays[n] = order >= 0 and '1' or '0'
end
if #plain > 0 then redis.call('MSET', unpack(plain)) end
return table.concat(stays)
"""


# ARGV holds seconds, how many counters to keep, then members and what to add to them. One command
# for each would be as many replies to read.
_COUNT = """
for n = 3, #ARGV, 2 do redis.call('ZINCRBY', KEYS[1], ARGV[n + 1], ARGV[n]) end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[2] - 1)
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""
_SHA = hashlib.sha1(_MERGE.encode(), usedforsecurity=False).hexdigest()
_EVALSHA = b"*%%d\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n$%%d\r\n%%d\r\n" % _SHA.encode()
_Item = tuple[bytes, bytes, float | None]


class RedisStore:
    """An online store on a Redis or Valkey server, or a cluster of them."""

    is_remote = True

    def __init__(self, client: Any, *, clustered: bool) -> None:
        self._client = client
        self._clustered = clustered
        self._count = client.register_script(_COUNT)
        self._idle: list[Any] = []
        self._open = True

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of `keys` in order, None for those not held."""
        with _readable():
            if self._clustered:
                found: list[bytes | None] = self._client.mget_nonatomic(keys)
                return found
            values: list[bytes | None] = self._ask([_mget(keys)])[0]
            return values

    def _keep(self, connection: Any) -> None:
        if self._open and len(self._idle) < _MOST_IDLE:
            self._idle.append(connection)
        else:
            connection.disconnect()

    def _ask(self, commands: Sequence[bytes]) -> list[Any]:
        """Send commands and return the replies, on a connection that no other thread has meanwhile.

        What the client does around each command takes longer than a look-up of one key.
        """
        import redis

        while True:
            fresh = not self._idle
            try:
                connection = self._idle.pop()
            except IndexError:
                fresh, connection = True, self._client.connection_pool.make_connection()
            try:
                if fresh:
                    connection.connect()
                connection.send_packed_command(commands, check_health=False)
                replies = [connection.read_response() for _ in commands]
            except BaseException as error:
                # Whatever is still to come on it would be taken for the next reply.
                connection.disconnect()
                if not fresh and isinstance(error, redis.ConnectionError):
                    continue  # an earlier restart of the server has closed it
                if isinstance(error, redis.TimeoutError):
                    self._drop_idle()  # which may have been dropped on the way without a word
                raise
            self._keep(connection)
            return replies

    def merge_many(self, items: Sequence[_Item]) -> list[bool]:
        """Keep each value unless what is held is newer, atomically; return which of them stay."""
        with _readable():
            if self._clustered:
                return [
                    letter == b"1" for letter in self._with_script(self._merge_one_by_one, items)
                ]
            stays: list[bool] = []
            for start in range(0, len(items), _AT_ONCE):
                pages = list(_pages(items[start : start + _AT_ONCE]))
                stays += [letter == _STAYS for some in self._merge(pages) for letter in some]
            return stays

    def _merge_one_by_one(self, items: Sequence[_Item]) -> list[Any]:
        """Merge items that lie on several nodes, each of which gets its own in one go."""
        pipeline = self._client.pipeline()
        for key, value, seconds in items:
            pipeline.execute_command("EVALSHA", _SHA, 1, key, value, _milliseconds(seconds))
        replies: list[Any] = pipeline.execute()
        return replies

    def _with_script(self, run: Callable[[Any], list[Any]], what: Any) -> list[Any]:
        """Run what needs the script, which a server that was restarted has forgotten."""
        import redis

        try:
            return run(what)
        except redis.exceptions.NoScriptError:
            self._client.script_load(_MERGE)
            return run(what)

    def _merge(self, pages: Sequence[Sequence[_Item]]) -> list[bytes]:
        stays: dict[int, bytes] = {}
        # Where nothing is held yet, a command of the server's own does it in half the time.
        lasting = [
            number
            for number, page in enumerate(pages)
            if all(seconds is None for _, _, seconds in page)
        ]
        if lasting:
            replies = self._ask([_msetnx(pages[number]) for number in lasting])
            for number, reply in zip(lasting, replies, strict=True):
                if reply:
                    stays[number] = b"1" * len(pages[number])
        rest = [number for number in range(len(pages)) if number not in stays]
        if rest:
            commands = [_evalsha(pages[number]) for number in rest]
            replies = self._with_script(self._ask, commands)
            stays |= dict(zip(rest, replies, strict=True))
        return [stays[number] for number in range(len(pages))]

    def put(self, key: bytes, value: bytes, seconds: float | None) -> None:
        """Keep a value, whatever is held."""
        with _readable():
            self._client.set(key, value, px=_milliseconds(seconds) or None)

    def delete_many(self, keys: Sequence[bytes]) -> int:
        """Forget `keys`; return how many were held."""
        with _readable():
            pipeline = self._client.pipeline(transaction=False)
            for key in keys:
                pipeline.unlink(key)
            return sum(pipeline.execute())

    def scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        """Yield the keys that begin with `prefix`, in pages; some may come twice."""
        pattern = re.sub(rb"([*?\[\]^\\])", rb"\\\1", prefix) + b"*"
        page: list[bytes] = []
        with _readable():
            for key in self._client.scan_iter(match=pattern, count=1000):
                page.append(key)
                if len(page) == 1000:
                    yield page
                    page = []
        if page:
            yield page

    def sizes(self, keys: Sequence[bytes]) -> list[int]:
        """Return the bytes that each of `keys` takes; 0 for those not held."""
        with _readable():
            return [self._client.memory_usage(key) or 0 for key in keys]

    def used_memory(self) -> int:
        """Return the bytes that the server uses, or the nodes of a cluster together."""
        with _readable():
            if self._clustered:
                nodes = self._client.info("memory", target_nodes=self._client.PRIMARIES).values()
            else:
                nodes = [self._client.info("memory")]
        return sum(int(node["used_memory"]) for node in nodes)

    def add_counts(self, name: bytes, amounts: Mapping[bytes, int], seconds: float) -> None:
        """Add to the counters kept under a name, for `seconds` from now."""
        with _readable():
            pairs = list(amounts.items())
            for start in range(0, len(pairs), _COUNTED):
                some = [part for pair in pairs[start : start + _COUNTED] for part in pair]
                self._count(keys=[name], args=[int(seconds), _COUNTERS, *some])

    def top_counts(self, name: bytes, limit: int) -> dict[bytes, int]:
        """Return the greatest counters under a name."""
        with _readable():
            found = self._client.zrevrange(name, 0, limit - 1, withscores=True)
        return {member: int(score) for member, score in found}

    def ping(self) -> None:
        """Raise OnlineStoreError unless the server answers."""
        with _readable():
            self._client.ping()

    def close(self) -> None:
        """Close connections."""
        self._open = False
        self._drop_idle()
        self._client.close()

    def _drop_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().disconnect()


class LoopRedisStore(RedisStore):
    """A store that event loops read without a thread.

    Two hops from thread to thread, and back, take longer than the server.
    """

    def __init__(self, client: Any, *, clustered: bool) -> None:
        super().__init__(client, clustered=clustered)
        self._pipes: dict[int, tuple[weakref.ref[asyncio.AbstractEventLoop], _Pipe]] = {}
        """By the identity of their loops, which may be gone, and another may have it."""

    async def get_many_async(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return what `get_many` does; the event loop goes on until the reply has come."""
        command = _mget(keys)
        loop = asyncio.get_running_loop()
        with _readable():
            known, pipe = self._pipes.get(id(loop), (None, None))
            if pipe is not None and pipe.is_open and known is not None and known() is loop:
                try:
                    return await pipe.ask(command, len(keys))
                except ConnectionError:
                    pass  # an earlier restart of the server has closed it
            self._drop_pipes(lambda loop: loop is None or loop.is_closed())
            connection = self._client.connection_pool.make_connection()
            await asyncio.to_thread(connection.connect)
            pipe = _Pipe(connection)
            self._pipes[id(loop)] = weakref.ref(loop), pipe
            return await pipe.ask(command, len(keys))

    def close(self) -> None:
        """Close connections."""
        self._drop_pipes(lambda _: True)
        super().close()

    def _drop_pipes(self, goes: Callable[[asyncio.AbstractEventLoop | None], bool]) -> None:
        for place, (known, pipe) in list(self._pipes.items()):
            loop = known()
            if goes(loop):
                del self._pipes[place]
                pipe.shut(loop_runs=loop is not None and loop.is_running())


class _Pipe:
    """A connection that one event loop reads: replies come in the order of the commands."""

    def __init__(self, connection: Any) -> None:
        import hiredis

        self.is_open = True
        self._connection = connection
        self._sock: Any = connection._sock
        self._sock.setblocking(False)
        self._unsent = bytearray()
        self._reader = hiredis.Reader(notEnoughData=_PARTIAL)
        self._waiting: deque[tuple[asyncio.Future[list[bytes | None]], int]] = deque()
        """Who waits for a reply, and of how many values."""
        self._heard = 0.0
        self._is_watched = False
        asyncio.get_running_loop().add_reader(self._sock, self._take)

    def ask(self, command: bytes, values: int) -> asyncio.Future[list[bytes | None]]:
        """Send a command, and return what will be its reply: so many values.

        Raises
        ------
        OSError
            The connection is gone, or nothing came on it within `_PATIENCE`.
        """
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[bytes | None]] = loop.create_future()
        if not self._waiting:
            self._heard = loop.time()
        self._waiting.append((found, values))
        is_idle = not self._unsent
        self._unsent += command
        if is_idle:
            self._send()
            if self._unsent and self.is_open:
                loop.add_writer(self._sock, self._send)
        if not self._is_watched:
            self._is_watched = True
            loop.call_later(_PATIENCE, self._watch)
        return found

    def _send(self) -> None:
        try:
            sent = self._sock.send(self._unsent)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error)
            return
        del self._unsent[:sent]
        if not self._unsent:
            asyncio.get_running_loop().remove_writer(self._sock)

    def shut(self, *, loop_runs: bool) -> None:
        """Let the connection go, from any thread; a loop that runs hears that it ended."""
        if loop_runs:
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
        else:
            self._connection.disconnect()

    def _watch(self) -> None:
        self._is_watched = False
        if not self._waiting or not self.is_open:
            return
        loop = asyncio.get_running_loop()
        left = self._heard + _PATIENCE - loop.time()
        if left <= 0:
            self._fail(TimeoutError(f"no answer within {_PATIENCE:g} s"))
        else:
            self._is_watched = True
            loop.call_later(left, self._watch)

    def _take(self) -> None:
        import hiredis
        import redis

        try:
            data = self._sock.recv(_PIECE)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _PARTIAL:
                asked, values = self._waiting.popleft()
                is_error = isinstance(reply, hiredis.ReplyError)
                if not is_error and (not isinstance(reply, list) or len(reply) != values):
                    # Whose it is is not known, nor whose the next ones are.
                    self._waiting.appendleft((asked, values))
                    raise ConnectionError("the server sent what was not asked for")
                if asked.done():
                    continue  # whoever asked was cancelled
                if is_error:
                    asked.set_exception(redis.ResponseError(str(reply)))
                else:
                    asked.set_result(reply)
        except BlockingIOError:
            return
        except (OSError, hiredis.ProtocolError, IndexError) as error:
            self._fail(error if isinstance(error, OSError) else ConnectionError(str(error)))
            return
        self._heard = asyncio.get_running_loop().time()

    def _fail(self, error: OSError) -> None:
        if not self.is_open:
            return
        self.is_open = False
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._sock)
        loop.remove_writer(self._sock)
        self._connection.disconnect()
        while self._waiting:
            asked, _ = self._waiting.popleft()
            if not asked.done():
                asked.set_exception(error)


_AT_ONCE = 10_000
"""Items that are sent before the replies are read."""
_STAYS = ord("1")
_MOST_IDLE = 32
"""Connections for reads that are kept open."""
_COUNTED = 1000
"""Counters in one call of the script."""
_COUNTERS = 100_000
"""How many counters are kept under one name, the greatest of them."""


def _mget(keys: Sequence[bytes]) -> bytes:
    return b"".join(
        [b"*%d\r\n$4\r\nMGET\r\n" % (len(keys) + 1)]
        + [b"$%d\r\n%b\r\n" % (len(key), key) for key in keys]
    )


def _reads_in_loops(client: Any) -> bool:
    """Tell whether replies can be read where an event loop says that they are there.

    That needs hiredis, which takes what has come of a reply and says whether it is whole, and a
    socket that is nothing but one: what TLS has read ahead a loop does not see.
    """
    import redis

    try:
        import hiredis  # noqa: F401
    except ImportError:
        return False
    plain = redis.Connection, redis.UnixDomainSocketConnection
    return client.connection_pool.connection_class in plain


_PARTIAL = object()
"""What stands for a reply that has not come whole."""
_PIECE = 262_144
"""Bytes that are read at once."""


def _msetnx(page: Sequence[_Item]) -> bytes:
    pairs = [
        b"$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key, len(value), value) for key, value, _ in page
    ]
    return b"*%d\r\n$6\r\nMSETNX\r\n" % (2 * len(page) + 1) + b"".join(pairs)


def _evalsha(page: Sequence[_Item]) -> bytes:
    numbers = [b"%d" % _milliseconds(seconds) for _, _, seconds in page]
    return b"".join(
        [_EVALSHA % (3 * len(page) + 3, len(str(len(page))), len(page))]
        + [b"$%d\r\n%b\r\n" % (len(key), key) for key, _, _ in page]
        + [
            b"$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(value), value, len(number), number)
            for (_, value, _), number in zip(page, numbers, strict=True)
        ]
    )


def _pages(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    """Yield items in pages in which no key comes twice."""
    for start in range(0, len(items), _PAGE):
        page = items[start : start + _PAGE]
        if len({key for key, _, _ in page}) == len(page):
            yield page
        else:
            yield from ([item] for item in page)


def _milliseconds(seconds: float | None) -> int:
    return 0 if seconds is None else max(1, int(seconds * 1000))


@contextmanager
def _readable() -> Iterator[None]:
    import redis

    try:
        yield
    except (redis.RedisError, redis.exceptions.RedisClusterException, OSError) as error:
        text = without_secrets(str(error)) or type(error).__name__
        raise OnlineStoreError(f"the cache does not answer as it should: {text}") from None


class RedisProvider:
    """Opens ``redis://``, ``rediss://``, ``unix://`` and ``redis+cluster://`` URLs.

    A cluster's URL names any of its nodes; ``rediss+cluster://`` speaks TLS to them.
    """

    def open_store(self, url: str) -> RedisStore:
        """Prepare a client; it connects when first used.

        Raises
        ------
        ConfigError
            The driver is missing, or the URL is malformed.
        OnlineStoreError
            No node of the cluster answers.
        """
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ModuleNotFoundError:
            raise ConfigError(
                "cache.url: redis:// needs a driver; pip install 'virtualfs[redis]'"
            ) from None
        scheme, _, rest = url.partition("://")
        clustered = scheme.endswith("+cluster")
        options: dict[str, Any] = {
            "socket_timeout": _PATIENCE,
            "socket_connect_timeout": _PATIENCE,
            "client_name": "virtualfs",
            "socket_read_size": 2**17,
            # Replies alone, in the order of the commands: the newer protocol mixes notices in.
            "protocol": 2,
        }
        # One more try, for a connection that an earlier restart of the server has closed.
        options["retry"] = Retry(NoBackoff(), 1, (redis.ConnectionError,))
        try:
            if clustered:
                with _readable():
                    client: Any = redis.RedisCluster.from_url(
                        f"{scheme.removesuffix('+cluster')}://{rest}", **options
                    )
            else:
                client = redis.Redis.from_url(url, **options)
                pool = client.connection_pool
                pool.connection_class(**pool.connection_kwargs)  # refuses options it does not know
        except (ValueError, TypeError) as error:
            raise ConfigError(f"cache.url {without_secrets(url)!r}: {error}") from None
        if clustered or not _reads_in_loops(client):
            return RedisStore(client, clustered=clustered)
        return LoopRedisStore(client, clustered=False)


PROVIDER = RedisProvider()
