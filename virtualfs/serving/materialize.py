"""Filling the cache from a view: all of its keys, some, or those of a time range.

Rows come in the order of their keys and go into the cache piece by piece, each at once or not at
all. How far a run is stands in the cache beside them, so that one that was killed is taken up.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import msgspec

from virtualfs.compiler.every_key import Wanted, compile_every_key
from virtualfs.compiler.plan import ResolvedView
from virtualfs.compiler.rows import EVENT, key_names
from virtualfs.display import Block, Grid, Note, Shown
from virtualfs.errors import OnlineStoreError
from virtualfs.lookups import Columns, PartlyUnreadable, Unreadable, columns_of
from virtualfs.provider import OnlineStore, Session, Warehouse
from virtualfs.serving.codec import Row, from_micros, to_micros
from virtualfs.serving.fetch import row_schema, rows_of, unreadable_value
from virtualfs.serving.flights import Key
from virtualfs.serving.online import Item, OnlineReader
from virtualfs.serving.row_cache import CLOCK_SKEW

__all__ = ["MaterializeResult", "Range", "ViewResult", "materialize_view", "unreadable_rows"]

_log = logging.getLogger("virtualfs.online")
_PIECE = 10_000
"""Rows that are written at a time; a run that was killed repeats as many at most."""
_SHOWN = 20
"""Keys that a result names because they could not be read."""
_OVERLAP = timedelta(hours=1)
"""How far an incremental run goes back before the last, for rows of transactions that took long."""
_RESUMED_WITHIN = 3_600_000_000
"""Microseconds after its start in which a run that was killed is taken up, not begun anew."""


@dataclass(frozen=True)
class Range:
    """Which keys a run is about; all where nothing is set.

    Parameters
    ----------
    incremental
        Only those that changed since the last run that was finished.
    start, end
        Those with an event at or after the one and before the other, in UTC.
    """

    incremental: bool = False
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True)
class ViewResult:
    """What a run did for one view.

    Parameters
    ----------
    keys
        Keys that were read of the warehouse.
    written
        Those of which the row went into the cache.
    kept
        Those of which the cache had a newer one.
    how
        Which keys these were, in words.
    unreadable
        What is wrong with keys that were left out, because Python cannot hold a value of theirs.
    """

    view: str
    keys: int
    written: int
    kept: int
    seconds: float
    how: str
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True)
class MaterializeResult(Shown):
    """What was put into the cache, view by view."""

    views: tuple[ViewResult, ...]

    @property
    def written(self) -> int:
        """Rows that went into the cache."""
        return sum(view.written for view in self.views)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts by view, as plain data."""
        return {"written": self.written, "views": [vars(view) for view in self.views]}

    def _blocks(self) -> list[Block]:
        rows = [(v.view, v.how, v.keys, v.written, v.kept, f"{v.seconds:.1f}") for v in self.views]
        heads = ("view", "which", "keys", "written", "newer in the cache", "seconds")
        left_out = [text for view in self.views for text in view.unreadable]
        shown = [Note(f"Not materialized: {text}") for text in left_out[:_SHOWN]]
        if len(left_out) > _SHOWN:
            shown.append(Note(f"and {len(left_out) - _SHOWN:,} more"))
        return [Note("Materialized", strong=True), Grid(heads, rows), *shown]


class _Run(msgspec.Struct, frozen=True):
    """How far a run is."""

    at: int
    """The instant that its rows are of."""
    what: tuple[Any, ...]
    """Which keys it is about."""
    after: bytes | None = None
    """The last key that was written, encoded."""
    keys: int = 0


class _Notes(msgspec.Struct, frozen=True):
    """What is remembered of a view's runs."""

    running: _Run | None = None
    finished: int | None = None
    """The instant of the newest run over all keys that was finished."""


def materialize_view(
    reader: OnlineReader,
    view: ResolvedView,
    warehouse: Warehouse,
    now: datetime,
    which: Range,
    progress: Callable[[str, int], None],
) -> ViewResult:
    """Put the rows of a view into the cache, as of now.

    Parameters
    ----------
    progress
        Called with the view's label and the number of keys written so far.

    Raises
    ------
    OnlineStoreError
        The cache does not answer, or its memory is used up; what was written stays, and the next
        run goes on from there.
    """
    started = time.monotonic()
    store = reader.cache.store
    place = reader.codec(view).prefix[:-1] + b"!runs"
    notes = _read_notes(store, place)
    since = reader.cache.ask_since(reader.codec(view).prefix, to_micros(now))
    if notes.finished is not None and notes.finished < since:
        notes = _Notes()  # what these runs wrote counts no more
    elif notes.running is not None and notes.running.at < since:
        notes = msgspec.structs.replace(notes, running=None)
    at = to_micros(now)
    if notes.finished is not None and notes.finished > at + CLOCK_SKEW:
        notes = _Notes()  # of a process whose clock was ahead
    wanted, how, what = _wanted(view, which, notes)
    run, before = _Run(at, what), notes.running
    if before is not None and before.what == what and 0 <= at - before.at < _RESUMED_WITHIN:
        run = before
        with suppress(msgspec.DecodeError):  # of an older version's note
            after = None if run.after is None else reader.codec(view).key(run.after)
            wanted = replace(wanted, after=after)
            how += f", resumed after {run.keys:,}"
    earlier, keys, written = run.keys, run.keys, 0
    unreadable: list[str] = []
    with ThreadPoolExecutor(1, "virtualfs-materialize") as thread:
        pending: Future[int] | None = None
        for rows, bad in _pieces(warehouse, view, at, wanted):
            unreadable += bad
            keys += len(bad)
            if not rows:
                continue
            items = reader.items(view, rows, stored=True)
            if len(items) < len(rows):
                unreadable += unreadable_rows(view, rows)
            if pending is not None:
                written += pending.result()
                _save(store, place, msgspec.structs.replace(notes, running=run))
            keys += len(rows)
            last = reader.codec(view).place(next(reversed(rows)))
            run = msgspec.structs.replace(
                run, after=last[len(reader.codec(view).prefix) :], keys=keys
            )
            # While the server takes a piece, the next is read and encoded.
            pending = thread.submit(_write, reader, items)
            progress(view.label, keys)
        if pending is not None:
            written += pending.result()
    if reader.cache.ask_since(reader.codec(view).prefix, run.at) > run.at:
        _save(store, place, _Notes())
        raise OnlineStoreError(
            f"{view.label} was invalidated while it was materialized, so that what was written "
            "counts no more; materialize it again"
        )
    if which.start is None and which.end is None:
        notes = msgspec.structs.replace(notes, finished=min(run.at, reader.cache.now(run.at)))
    _save(store, place, msgspec.structs.replace(notes, running=None))
    read = keys - earlier
    seconds = time.monotonic() - started
    kept = read - written - len(unreadable)
    return ViewResult(view.label, read, written, kept, seconds, how, tuple(unreadable))


def unreadable_rows(view: ResolvedView, rows: Mapping[Key, Row]) -> list[str]:
    """Return what is wrong with rows that hold a value that Python cannot hold, and log it."""
    found = [
        unreadable_value(view, feature, key, value)
        for key, row in rows.items()
        if row.unreadable
        for feature, value in zip(view.feature_names, row.values, strict=True)
        if isinstance(value, Unreadable)
    ]
    for text in found:
        _log.warning("not materialized: %s", text)
    return found


def _write(reader: OnlineReader, items: Sequence[Item]) -> int:
    """Write a piece; return how many rows the cache took."""
    reader.cache.require_room()
    stays = reader.cache.merge(items)
    reader.cache.forget_near(place for place, _, _ in items)
    return sum(stays)


def _wanted(view: ResolvedView, which: Range, notes: _Notes) -> tuple[Wanted, str, tuple[Any, ...]]:
    """Return which keys to read, in words too, and what tells such runs apart."""
    if which.start is not None or which.end is not None:
        ends = [
            None if end is None else end.replace(tzinfo=None) for end in (which.start, which.end)
        ]
        words = f"events from {which.start or 'ever'} until {which.end or 'now'}"
        what = ("range", *(end and end.isoformat() for end in ends))
        return Wanted(event_from=ends[0], event_until=ends[1]), words, what
    if not which.incremental:
        return Wanted(), "all keys", ("all",)
    if notes.finished is None:
        return Wanted(), "all keys (there was no run before)", ("all",)
    if view.is_aggregate:
        return Wanted(), "all keys (windows move for all of them)", ("all",)
    if view.created_timestamp is None:
        words = "all keys (without a created timestamp nothing tells which rows came late)"
        return Wanted(), words, ("all",)
    last = from_micros(notes.finished)
    since = (last - _OVERLAP).replace(tzinfo=None)
    return Wanted(written_since=since), f"changed since {last}", ("since", notes.finished)


def _pieces(
    warehouse: Warehouse, view: ResolvedView, at: int, wanted: Wanted
) -> Iterator[tuple[dict[Key, Row], list[str]]]:
    """Yield rows by key, in the order of the keys, and what is wrong with keys left out."""
    capabilities = warehouse.capabilities
    instant = from_micros(at).replace(tzinfo=None)
    select, schema = compile_every_key(view, instant, wanted, capabilities)
    names = key_names(view)
    types = dict(zip(names, view.join_keys.values(), strict=True))
    types |= row_schema(view, capabilities.instant_type)
    with warehouse.session() as session:
        for columns in _streamed(session, select, schema, types):
            rows = len(columns[EVENT])
            keys = list(zip(*(columns[name] for name in names), strict=True)) or [()] * rows
            found = dict(zip(keys, rows_of(view, columns, at), strict=True))
            yield found, [] if _are_readable(columns, names) else _leave_out(view, found)


def _are_readable(columns: Columns, names: Sequence[str]) -> bool:
    """Tell whether all keys of a piece can be read."""
    return not isinstance(columns, PartlyUnreadable) or not any(
        isinstance(value, Unreadable) for name in names for value in columns[name]
    )


def _leave_out(view: ResolvedView, rows: dict[Key, Row]) -> list[str]:
    """Take out the rows whose key Python cannot hold; return what is wrong with each."""
    messages = []
    for key in [key for key in rows if any(isinstance(part, Unreadable) for part in key)]:
        del rows[key]
        bad = next(part for part in key if isinstance(part, Unreadable))
        messages.append(f"{view.label}: a join key cannot be read ({bad.reason})")
    for text in messages:
        _log.warning("not materialized: %s", text)
    return messages


def _streamed(
    session: Session, select: str, schema: Mapping[str, str], types: Mapping[str, str]
) -> Iterator[Columns]:
    stream = getattr(session, "stream_columns", None)
    if stream is not None:
        yield from stream(select, types, _PIECE)
        return
    for table in session.stream(select, schema, _PIECE):
        for start in range(0, table.num_rows, _PIECE):
            yield columns_of(table.slice(start, _PIECE), types)


def _read_notes(store: OnlineStore, place: bytes) -> _Notes:
    (data,) = store.get_many([place])
    try:
        return _Notes() if data is None else msgspec.msgpack.decode(data, type=_Notes)
    except msgspec.DecodeError:
        return _Notes()


def _save(store: OnlineStore, place: bytes, notes: _Notes) -> None:
    store.put(place, msgspec.msgpack.encode(notes), None)
