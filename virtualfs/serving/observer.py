"""What is told of online reads while they happen, for metrics and traces."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Observer", "Silent"]


class Observer(Protocol):
    """Is told of every read and every query; called from many threads, and must be quick."""

    def read(self, view: str, hits: int, misses: int, stale: int, age: float | None) -> None:
        """Note one read of some keys of a view.

        Parameters
        ----------
        misses
            Keys of which the warehouse was asked.
        stale
            Those that it did not answer, and that were answered by what was cached.
        age
            Seconds since the warehouse was asked for the first row that answers.
        """

    def queried(self, view: str, keys: int, started: float, failed: bool) -> None:
        """Note one query of a warehouse.

        Parameters
        ----------
        started
            When it began, in seconds since 1970.
        """


class Silent:
    """Notes nothing."""

    def read(self, *_told: object) -> None:
        """Note nothing."""

    def queried(self, *_told: object) -> None:
        """Note nothing."""
