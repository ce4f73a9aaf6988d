"""Refreshing ahead of expiry, so that nobody waits for keys in use."""

from __future__ import annotations

import random
import threading

from virtualfs.forks import renew_in_child
from virtualfs.serving.flights import Key
from virtualfs.serving.part import Part

__all__ = ["RefreshAhead", "refreshed_since"]

_AHEAD_FROM, _AHEAD_TO = 0.8, 0.95
"""Of a view's freshness: when rows in use are refreshed ahead, at random between, so that of many
processes one is the first."""
_MOST_AHEAD = 10_000
"""Keys that one refresh ahead takes."""


class RefreshAhead:
    """Notes rows in the later half of their time; when the first is due, all are refreshed.

    So keys in use come to share one query per view in each time of freshness.
    """

    def __init__(self) -> None:
        self._renew()
        renew_in_child(self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._noted: dict[bytes, tuple[float, dict[Key, None]]] = {}

    def due(self, part: Part, at: int) -> list[Key]:
        """Note the rows that a read found; return the keys to refresh, if it is time.

        Of several callers to whom it is, one gets them.
        """
        held = part.own_held
        if not held or part.held != held:
            return []
        share, noted = self._noted.setdefault(part.prefix, (_moment(), {}))
        half, due = at - held // 2, at - int(held * share)
        chosen = [row.chosen_at for row in part.found if row is not None and row.chosen_at]
        if not chosen or min(chosen) > half:
            return []
        is_due = False
        for key, row in zip(part.keys, part.found, strict=True):
            if row is not None and row.chosen_at is not None and row.chosen_at <= half:
                if len(noted) < _MOST_AHEAD and None not in key:
                    noted[key] = None
                is_due = is_due or row.chosen_at <= due
        if not is_due or not noted:
            return []
        with self._lock:
            if self._noted[part.prefix][1] is not noted:
                return []  # another thread was faster
            self._noted[part.prefix] = (_moment(), {})
        return list(noted)


def refreshed_since(part: Part, now: int) -> int:
    """Return the instant since which rows must be chosen to count as refreshed."""
    return now - int((part.held or 0) * (1 - _AHEAD_TO))


def _moment() -> float:
    return random.uniform(_AHEAD_FROM, _AHEAD_TO)  # noqa: S311
