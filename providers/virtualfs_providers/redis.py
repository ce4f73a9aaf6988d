"""Redis or Valkey as the online store, single or Cluster: one MGET to read, a script to write.

A failure of the server is an `OnlineStoreError` within `_PATIENCE`; whether that costs an answer is
for the reader to say. Only keys that were asked for are touched.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

from virtualfs.errors import ConfigError, OnlineStoreError, did_you_mean, without_secrets
from virtualfs.forks import abandon, renew_in_child
from virtualfs.provider import instant_bytes

__all__ = ["PROVIDER"]

_PATIENCE = 0.5
"""Seconds that connecting, or waiting for the next bytes, may take."""
_PAGE = 500
"""Items in one call of the script, which holds the server up for a millisecond or two."""

# The rule of virtualfs.serving.codec.merged_bytes. ARGV holds the latest instant (empty: the
# server's own), then a value and its milliseconds (0: for ever) for each key; the answer is a
# letter for each. Bytes are compared one by one, as Lua would
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
local latest = ARGV[1]
if latest == '' then
  local time = redis.pcall('TIME')
  if not time.err then
    local seconds = tonumber(time[1])
    local low = (seconds % 4294967296) * 1000000 + tonumber(time[2])
    local high = math.floor(seconds / 4294967296) * 1000000 + math.floor(low / 4294967296)
    latest = struct.pack('>I4I4', 2147483648 + high, low % 4294967296)
  end
end
local function ahead(held)
  return latest ~= '' and (later(held, latest) > 0 or bit.band(string.byte(held, 18), 2) ~= 0
    and later(string.sub(held, 35, 42), latest) > 0)
end
local stays, plain, all = {}, {}, redis.call('MGET', unpack(KEYS))
for n, key in ipairs(KEYS) do
  local given, milliseconds, held = ARGV[2 * n], ARGV[2 * n + 1], all[n]
  local order = 1
  if held and #held >= 34 and not ahead(held) then
    local pushed = bit.band(string.byte(given, 18), 2)
    local was_pushed = bit.band(string.byte(held, 18), 2)
    if pushed + was_pushed == 0 then
      order = later(given, held)
    else
      order = compare(string.sub(given, 19, 34), string.sub(held, 19, 34))
      if order == 0 then order = was_pushed - pushed end
      if order == 0 then order = compare(string.sub(given, 35), string.sub(held, 35)) end
      local asked = later(given, held)
      if bit.band(bit.bor(string.byte(held, 18), string.byte(given, 18)), 4) ~= 0 then asked = 0 end
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
if #plain > 0 and redis.pcall('MSET', unpack(plain)).err then
  for n = 1, #plain, 2 do redis.call('SET', plain[n], plain[n + 1]) end
end
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

    def __init__(self, make_client: Callable[[], Any], *, clustered: bool) -> None:
        self._make_client = make_client
        self._clustered = clustered
        self._open = True
        self._idle: list[Any] = []
        self._own_client: Any = None
        self._lock = threading.Lock()
        renew_in_child(self._renew)

    def _renew(self) -> None:
        """Leave sockets to the parent process."""
        abandon(self._own_client, self._idle)
        self._own_client, self._idle = None, []
        self._lock = threading.Lock()

    @property
    def _client(self) -> Any:
        """The client of this process."""
        found = self._own_client
        if found is None:
            with self._lock:
                if self._own_client is None:
                    self._own_client = self._make_client()
                found = self._own_client
        return found

    def connect(self) -> None:
        """Make the client, which for a cluster asks for its nodes.

        Raises
        ------
        OnlineStoreError
            No node answers.
        """
        assert self._client is not None

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

    def merge_many(self, items: Sequence[_Item], now: int | None = None) -> list[bool]:
        """Keep each value unless what is held is newer, atomically; return which of them stay."""
        latest = b"" if now is None else instant_bytes(now)
        with _readable():
            if self._clustered:
                merge = partial(self._merge_one_by_one, latest)
                return [letter == b"1" for letter in self._with_script(merge, items)]
            stays: list[bool] = []
            for start in range(0, len(items), _AT_ONCE):
                pages = list(_pages(items[start : start + _AT_ONCE]))
                merged = self._merge(latest, pages)
                stays += [letter == _STAYS for some in merged for letter in some]
            return stays

    def now(self) -> int | None:
        """Return the server's time in microseconds since 1970; None if it does not tell."""
        import redis

        with _readable(), suppress(redis.exceptions.NoPermissionError):
            target = {"target_nodes": redis.RedisCluster.RANDOM} if self._clustered else {}
            found = self._client.execute_command("TIME", **target)
            seconds, micros = next(iter(found.values())) if isinstance(found, dict) else found
            return int(seconds) * 1_000_000 + int(micros)
        return None

    def _merge_one_by_one(self, latest: bytes, items: Sequence[_Item]) -> list[Any]:
        """Merge items that lie on several nodes, each of which gets its own in one go."""
        pipeline = self._client.pipeline()
        for key, value, seconds in items:
            pipeline.execute_command("EVALSHA", _SHA, 1, key, latest, value, _milliseconds(seconds))
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

    def _merge(self, latest: bytes, pages: Sequence[Sequence[_Item]]) -> list[bytes]:
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
            commands = [_evalsha(latest, pages[number]) for number in rest]
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
                count = self._client.register_script(_COUNT)
                count(keys=[name], args=[int(seconds), _COUNTERS, *some])

    def top_counts(self, name: bytes, limit: int) -> dict[bytes, int]:
        """Return the greatest counters under a name."""
        with _readable():
            found = self._client.zrevrange(name, 0, limit - 1, withscores=True)
        return {member: int(score) for member, score in found}

    def ping(self) -> None:
        """Raise OnlineStoreError unless the server answers."""
        import redis

        with _readable(), suppress(redis.exceptions.NoPermissionError):
            self._client.ping()

    def close(self) -> None:
        """Close connections."""
        self._open = False
        self._drop_idle()
        if self._own_client is not None:
            self._own_client.close()

    def _drop_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().disconnect()


class LoopRedisStore(RedisStore):
    """A store that event loops read without a thread.

    Two hops from thread to thread, and back, take longer than the server.
    """

    def __init__(self, make_client: Callable[[], Any]) -> None:
        super().__init__(make_client, clustered=False)
        self._pipes: dict[int, tuple[weakref.ref[asyncio.AbstractEventLoop], _Pipe]] = {}
        """By the identity of their loops, which may be gone, and another may have it."""

    def _renew(self) -> None:
        # The selectors of the parent's loops are shared as well, so no reader may be removed.
        abandon(self._pipes)
        self._pipes = {}
        super()._renew()

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
            with self._lock:
                self._pipes[id(loop)] = weakref.ref(loop), pipe
            return await pipe.ask(command, len(keys))

    def close(self) -> None:
        """Close connections."""
        self._drop_pipes(lambda _: True)
        super().close()

    def _drop_pipes(self, goes: Callable[[asyncio.AbstractEventLoop | None], bool]) -> None:
        with self._lock:  # loops of other threads come and go meanwhile
            dropped = [
                (place, known(), pipe)
                for place, (known, pipe) in self._pipes.items()
                if goes(known())
            ]
            for place, _, _ in dropped:
                del self._pipes[place]
        for _, loop, pipe in dropped:
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


def _reads_in_loops(pool: Any) -> bool:
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
    return pool.connection_class in plain


_PARTIAL = object()
"""What stands for a reply that has not come whole."""
_PIECE = 262_144
"""Bytes that are read at once."""


def _msetnx(page: Sequence[_Item]) -> bytes:
    pairs = [
        b"$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key, len(value), value) for key, value, _ in page
    ]
    return b"*%d\r\n$6\r\nMSETNX\r\n" % (2 * len(page) + 1) + b"".join(pairs)


def _evalsha(latest: bytes, page: Sequence[_Item]) -> bytes:
    numbers = [b"%d" % _milliseconds(seconds) for _, _, seconds in page]
    return b"".join(
        [_EVALSHA % (3 * len(page) + 4, len(str(len(page))), len(page))]
        + [b"$%d\r\n%b\r\n" % (len(key), key) for key, _, _ in page]
        + [b"$%d\r\n%b\r\n" % (len(latest), latest)]
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
        moved = (redis.exceptions.MovedError, redis.exceptions.AskError)
        if isinstance(error, moved) or text.startswith(("MOVED", "CROSSSLOT", "Keys in request")):
            raise OnlineStoreError(
                "the cache is a node of a Redis cluster; write redis+cluster:// in cache.url"
            ) from None
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
        except ModuleNotFoundError:
            raise ConfigError(
                "cache.url: redis:// needs a driver; pip install 'virtualfs[redis]'"
            ) from None
        scheme, _, rest = url.partition("://")
        clustered = scheme.endswith("+cluster")
        options = _client_options(url)
        place = f"{scheme.removesuffix('+cluster')}://{rest}"

        def make_client() -> Any:
            if not clustered:
                return redis.Redis.from_url(place, **options)
            with _readable():
                return redis.RedisCluster.from_url(place, **options)

        try:
            if clustered:
                store = RedisStore(make_client, clustered=True)
                store.connect()
                return store
            pool = make_client().connection_pool
            pool.connection_class(**pool.connection_kwargs)  # refuses wrong options
        except (ValueError, TypeError) as error:
            raise ConfigError(f"cache.url {without_secrets(url)!r}: {error}") from None
        if _reads_in_loops(pool):
            return LoopRedisStore(make_client)
        return RedisStore(make_client, clustered=False)


_URL_OPTIONS = frozenset(
    ("client_name", "db", "health_check_interval", "max_connections", "password",
     "socket_connect_timeout", "socket_keepalive", "socket_timeout", "username")
)  # fmt: skip
"""What may follow ``?`` in the URL, besides options that begin with ``ssl_``."""


def _client_options(url: str) -> dict[str, Any]:
    """Return the client's options that the URL does not give.

    Raises
    ------
    ConfigError
        The URL has an option that is unknown, or that would change how rows are read.
    """
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    given = parse_qs(urlsplit(url).query, keep_blank_values=True)
    for option in given:
        if option not in _URL_OPTIONS and not option.startswith("ssl_"):
            known = {*_URL_OPTIONS, "ssl_ca_certs", "ssl_cert_reqs", "ssl_check_hostname"}
            raise ConfigError(
                f"cache.url {without_secrets(url)!r}: {option!r} is no option of it. "
                f"{did_you_mean(option, known)}"
            )
    # A name helps whoever watches the server, and its rules may forbid to give one.
    name = given.get("client_name", ["virtualfs"])[0]

    def connected(connection: Any) -> None:
        connection.client_name = None
        connection.on_connect()
        with suppress(redis.ResponseError):
            connection.send_command("CLIENT", "SETNAME", name)
            connection.read_response()

    return {
        "socket_timeout": _PATIENCE,
        "socket_connect_timeout": _PATIENCE,
        "socket_read_size": 2**17,
        # Replies alone, in the order of the commands: the newer protocol mixes notices in.
        "protocol": 2,
        # One more try, for a connection that an earlier restart of the server has closed.
        "retry": Retry(NoBackoff(), 1, (redis.ConnectionError,)),
        "redis_connect_func": connected,
    }


PROVIDER = RedisProvider()
