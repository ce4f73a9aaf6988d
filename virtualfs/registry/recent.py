"""What was made of the registry's objects, kept for as long as the registry stands where it did."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from virtualfs.errors import NotFoundError, RegistryError
from virtualfs.forks import renew_in_child
from virtualfs.registry.repository import Registry
from virtualfs.registry.state import State

__all__ = ["Recent"]

_log = logging.getLogger("virtualfs.registry")
_SECONDS = 1.0
"""How often the registry is asked whether it has moved, by the caller that comes then."""
_MOST = 1000

_T = TypeVar("_T")


class Recent(Generic[_T]):
    """Values made of the registry's state, by key.

    Parameters
    ----------
    revision
        The revision that is read; the newest when None.
    """

    def __init__(self, registry: Registry, revision: int | None) -> None:
        self._registry = registry
        self._revision = revision
        self._renew()
        renew_in_child(self._renew)
        self._known: tuple[State, dict[Hashable, _T]] | None = None
        self._asked = 0.0

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def peek(self, key: Hashable) -> _T | None:
        """Return the value of a key if that is known without asking the registry."""
        known = self._known
        if known is None or time.monotonic() - self._asked >= _SECONDS:
            return None
        return known[1].get(key)

    def get(self, key: Hashable, make: Callable[[State], _T]) -> _T:
        """Return the value of a key, made if there is none of this state."""
        state, made = self._current()
        if key in made:
            return made[key]
        try:
            value = make(state)
        except NotFoundError:
            # It may have been applied within the last moment, by somebody else.
            if self._revision is not None or self._registry.newest_revision() == state.revision:
                raise
            self.forget()
            state, made = self._current()
            value = make(state)
        if len(made) < _MOST:
            made[key] = value
        return value

    def _current(self) -> tuple[State, dict[Hashable, _T]]:
        known = self._known
        if known is not None and time.monotonic() - self._asked < _SECONDS:
            return known
        with self._lock:
            if self._known is None:
                self._known = self._registry.state(self._revision), {}
            elif self._revision is None and time.monotonic() - self._asked >= _SECONDS:
                self._asked = time.monotonic()  # others go on meanwhile
                try:
                    if self._registry.newest_revision() != self._known[0].revision:
                        self._known = self._registry.state(), {}
                except RegistryError:
                    # An outage of the registry must not stop what needs no registry.
                    _log.exception("the registry could not be read again; what was known serves")
            self._asked = time.monotonic()
            return self._known

    def forget(self) -> None:
        """Read the registry anew next time."""
        with self._lock:
            self._known = None
