"""Fork safety: objects that hold sockets, threads or locks renew themselves in a forked child.

A child process inherits memory and open sockets, but only the thread that called fork. A socket is
then shared with the parent, and a lock that another thread held is never released. So an object
that holds such things registers a method that replaces them. It must neither use nor close the old
ones: both would reach the parent.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["abandon", "call_around_fork", "no_fork", "renew_in_child"]

_log = logging.getLogger("virtualfs")
_Methods = list[tuple[Callable[[], Any], Callable[..., None]]]
"""References to objects, weak ones to those that own methods, and what to call with each."""
_before: _Methods = []
_after_in_parent: _Methods = []
_after_in_child: _Methods = []
_abandoned: list[Any] = []
_PRUNED = 256
"""After so many registrations those of objects that are gone are dropped."""


def renew_in_child(method: Callable[[], None]) -> None:
    """Call a function, or a bound method while its object lives, in every forked child.

    Only the forking thread runs then, so it needs no locks.
    """
    _register(_after_in_child, method)


def call_around_fork(
    before: Callable[[], None], in_parent: Callable[[], None], in_child: Callable[[], None]
) -> None:
    """Call bound methods before a fork and after it, in the parent and in the child."""
    _register(_before, before)
    _register(_after_in_parent, in_parent)
    _register(_after_in_child, in_child)


@contextmanager
def no_fork() -> Iterator[None]:
    """Let no other thread fork meanwhile, for a moment at most.

    For calls into libraries that hold locks of their own, which a child could never take.
    """
    _gate.enter()
    try:
        yield
    finally:
        _gate.leave()


class _Gate:
    """Counts the threads that are within :func:`no_fork`, for a fork to wait until none is."""

    def __init__(self) -> None:
        self._own = threading.local()
        self.renew()

    def renew(self) -> None:
        """Begin anew, in a child: of its parent's threads it has one."""
        self._changed = threading.Condition()
        self._running = self._depth
        self._is_forking = False

    @property
    def _depth(self) -> int:
        return getattr(self._own, "depth", 0)

    def enter(self) -> None:
        with self._changed:
            while self._is_forking and not self._depth:
                self._changed.wait()
            self._running += 1
            self._own.depth = self._depth + 1

    def leave(self) -> None:
        with self._changed:
            self._running -= 1
            self._own.depth -= 1
            if self._is_forking:
                self._changed.notify_all()

    def before(self) -> None:
        """Wait until no other thread is within; not for ever, as one may wait for this one."""
        with self._changed:
            self._is_forking = True
            self._changed.wait_for(lambda: self._running == self._depth, _PATIENCE)

    def after(self) -> None:
        with self._changed:
            self._is_forking = False
            self._changed.notify_all()


_PATIENCE = 5.0
"""Seconds that a fork waits for calls of other threads."""


def abandon(*inherited: Any) -> None:
    """Keep inherited objects for good, because their finalizers would reach the parent."""
    _abandoned.extend(item for item in inherited if item is not None)


def _register(methods: _Methods, method: Callable[[], None]) -> None:
    owner = getattr(method, "__self__", None)
    with _lock:
        if owner is None:
            methods.append((lambda: method, lambda function: function()))
            return
        if len(methods) % _PRUNED == _PRUNED - 1:
            methods[:] = [item for item in methods if item[0]() is not None]
        methods.append((weakref.ref(owner), method.__func__))  # type: ignore[attr-defined]


def _call_all(methods: _Methods) -> None:
    for reference, function in list(methods):
        owner = reference()
        try:
            if owner is not None:
                function(owner)
        except Exception:  # noqa: BLE001 - the others still have to be renewed
            _log.exception("an object could not be renewed after a fork")


def _before_fork() -> None:
    _gate.before()
    _call_all(_before)


def _in_parent() -> None:
    _call_all(_after_in_parent)
    _gate.after()


def _in_child() -> None:
    global _lock
    _lock = threading.Lock()
    _gate.renew()
    _call_all(_after_in_child)


_lock = threading.Lock()
_gate = _Gate()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child
    )
