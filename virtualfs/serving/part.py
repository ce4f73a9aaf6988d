"""One view's share of a read: which cached rows answer at an instant, and which keys lack one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from virtualfs.compiler.plan import FeaturePlan, ResolvedView
from virtualfs.definitions.duration import microseconds
from virtualfs.errors import VirtualFSError
from virtualfs.serving.codec import Row, RowCodec
from virtualfs.serving.fetch import no_row
from virtualfs.serving.flights import Flight, Key

__all__ = ["Lookup", "Part", "briefly", "lookups", "outlived", "ttl_of"]

_BRIEFLY = 60_000_000
"""For how long at most a key is believed to be unknown, in microseconds."""


@dataclass(frozen=True)
class Lookup:
    """The keys wanted of one view."""

    view: ResolvedView
    keys: tuple[Key, ...]


def lookups(plan: FeaturePlan, keys: Sequence[Mapping[str, Any]]) -> list[Lookup]:
    """Return what to read for a plan, one lookup per part."""
    found = []
    for part in plan.parts:
        wanted: tuple[Key, ...]
        if len(part.key_columns) == 1:
            (name,) = part.key_columns
            wanted = tuple([(item[name],) for item in keys])
        else:
            wanted = tuple([tuple([item[name] for name in part.key_columns]) for item in keys])
        found.append(Lookup(part.view, wanted))
    return found


def briefly(held: int | None) -> int:
    """Return the microseconds for which it is believed that a key has no row."""
    return _BRIEFLY if held is None else min(held, _BRIEFLY)


def ttl_of(view: ResolvedView) -> int | None:
    """Return a view's TTL in microseconds."""
    return None if view.ttl is None else microseconds(view.ttl)


def outlived(row: Row, ttl: int | None, at: int) -> bool:
    """Tell whether a row is over its TTL at an instant (rule 4)."""
    return ttl is not None and row.found and row.event is not None and at - row.event > ttl


class Part:
    """One lookup while it is being read: what is cached, and which flights bring the rest."""

    def __init__(
        self, view: ResolvedView, codec: RowCodec, keys: Sequence[Key], max_age: int | None
    ) -> None:
        self.view = view
        self.codec = codec
        self.prefix = codec.prefix
        self.keys = codec.canonical_keys(keys)
        self.places = codec.places(self.keys)
        self.rows: list[Row | None] = [None] * len(keys)
        self.spare: list[Row | None] = self.rows
        """What may answer as stale where there is no row."""
        held = self.own_held = codec.held
        self.held = held if max_age is None or (held is not None and held < max_age) else max_age
        self.held_unknown = briefly(self.held)
        self.ttl = ttl_of(view)
        self.found: list[Row | None] = []
        """Rows that answer, in the order of the keys, as last judged."""
        self.missing: dict[Key, Row | None] = {}
        """Keys that lack one, with what is cached of them: it may be too old, or not yet compared
        with the warehouse."""
        self.flights: dict[Key, Flight] = {}
        self.is_partly_unreadable = False
        """Whether the warehouse gave a value that Python cannot hold."""
        self.refused: VirtualFSError | None = None
        """Why its warehouse could not even be asked."""
        self.gone: dict[Key, int] = {}
        """Keys that were declared invalid, and when."""

    def judge(self, at: int, since: int) -> None:
        """Find out which rows answer at an instant, and which keys lack one.

        Parameters
        ----------
        since
            What the warehouse said before this instant was declared invalid.
        """
        oldest = self.oldest(at, since)
        for row in self.rows:
            if (
                row is None
                or not row.found
                or row.pushed_at is not None
                or not oldest <= (row.chosen_at or 0) <= at
            ):
                break
        else:  # as nearly always: all of them answer
            self.found, self.missing = self.rows, {}
            return
        oldest_unknown = max(at - self.held_unknown, oldest)
        found: list[Row | None] = []
        missing: dict[Key, Row | None] = {}
        for key, row, spare in zip(self.keys, self.rows, self.spare, strict=True):
            if row is not None and row.values and (row.pushed_at is None or row.pushed_at >= since):
                chosen = row.chosen_at
                if chosen is not None and (oldest if row.found else oldest_unknown) <= chosen <= at:
                    found.append(row)
                    continue
            if None in key:
                found.append(no_row(self.view, at))
                continue
            found.append(None)
            missing[key] = None
            if row is not None and not row.values:
                self.gone[key] = row.chosen_at or since
            else:
                cached = row or spare
                if cached is not None and self._counts(cached, at, since):
                    missing[key] = cached
        self.found, self.missing = found, missing

    def oldest(self, at: int, since: int) -> int:
        """Return the earliest instant whose rows answer at an instant; after it if none does."""
        if self.held == 0:
            return at + 1
        return since if self.held is None else max(at - self.held, since)

    def believed(self, row: Row) -> int | None:
        """Return the microseconds for which a row answers, or that there is none."""
        held = self.own_held
        return held if row.found else briefly(held)

    def _counts(self, row: Row, at: int, since: int) -> bool:
        """Tell whether a row that does not answer by itself may still be what is known."""
        if row.pushed_at is not None:
            return since <= row.pushed_at <= at and not outlived(row, self.ttl, at)
        return row.chosen_at is not None and since <= row.chosen_at <= at
