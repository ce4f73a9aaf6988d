"""``cached_property`` without a lock.

Up to Python 3.11 the one of functools holds a lock for all objects of a class, which a child would
find taken for ever if another thread held it when the process forked. Python 3.12 has dropped it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

__all__ = ["cached_property"]

if TYPE_CHECKING or sys.version_info >= (3, 12):
    from functools import cached_property
else:

    class cached_property:  # noqa: N801 - as functools calls it
        """A property that is computed once for each object, and kept in it."""

        def __init__(self, function: Any) -> None:
            self._function = function
            self.__doc__ = function.__doc__

        def __set_name__(self, owner: type, name: str) -> None:
            self._name = name

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            if instance is None:
                return self
            found = instance.__dict__.get(self._name, self)
            if found is self:
                found = instance.__dict__[self._name] = self._function(instance)
            return found
