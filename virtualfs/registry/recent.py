"""What was made of the registry's objects, kept for as long as the registry stands where it did."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from virtualfs.errors import NotFoundError
from virtualfs.registry.repository import Registry, State

__all__ = ["Recent"]

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
        self._lock = threading.Lock()
        self._state: State | None = None
        self._asked = 0.0
        self._made: dict[Hashable, _T] = {}

    def peek(self, key: Hashable) -> _T | None:
        """Return the value of a key if that is known without asking the registry."""
        if self._state is None or time.monotonic() - self._asked >= _SECONDS:
            return None
        return self._made.get(key)

    def get(self, key: Hashable, make: Callable[[State], _T]) -> _T:
        """Return the value of a key, made if there is none of this state."""
        state = self._current()
        made = self._made
        if key in made:
            return made[key]
        try:
            value = make(state)
        except NotFoundError:
            # It may have been applied within the last moment, by somebody else.
            self.forget()
            value = make(self._current())
            made = self._made
        if len(made) < _MOST:
            made[key] = value
        return value

    def _current(self) -> State:
        state = self._state
        if state is not None and time.monotonic() - self._asked < _SECONDS:
            return state
        with self._lock:
            if self._state is None:
                self._state, self._made = self._registry.state(self._revision), {}
            elif self._revision is None and time.monotonic() - self._asked >= _SECONDS:
                self._asked = time.monotonic()  # others go on meanwhile
                if self._registry.newest_revision() != self._state.revision:
                    self._state, self._made = self._registry.state(), {}
            self._asked = time.monotonic()
            return self._state

    def forget(self) -> None:
        """Read the registry anew next time."""
        with self._lock:
            self._state, self._made = None, {}
