"""Outages in the log: one warning when one begins, one line with all counts when it is over."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from virtualfs.forks import renew_in_child

__all__ = ["Outages"]

_log = logging.getLogger("virtualfs.online")


@dataclass
class _Outage:
    began: float
    reads: int = 0
    rows: int = 0


class Outages:
    """The outages of one process, each under a name."""

    def __init__(self) -> None:
        self._renew()
        renew_in_child(self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, _Outage] = {}

    def note(self, name: str, what: str, rows: int) -> None:
        """Count a read of some rows in an outage; the first is logged, with what is wrong."""
        with self._lock:
            outage = self._open.get(name)
            is_new = outage is None
            if outage is None:
                outage = self._open[name] = _Outage(time.monotonic())
            outage.reads += 1
            outage.rows += rows
        if is_new:
            _log.warning("%s: %s (%d rows in the first read)", name, what, rows)

    def end(self, name: str) -> None:
        """Log that an outage is over, if there was one."""
        if name not in self._open:
            return
        with self._lock:
            outage = self._open.pop(name, None)
        if outage is not None:
            seconds = time.monotonic() - outage.began
            _log.info("%s: over after %.0f s, %d reads of %d rows",
                      name, seconds, outage.reads, outage.rows)  # fmt: skip
