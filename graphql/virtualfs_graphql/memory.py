"""What the garbage collector looks through while a server runs, and how old catalogs go.

Looking through all that a process holds stops every request for a tenth of a second, and a
catalog of a thousand views is half a million objects. So what lives long is taken from the
collector's sight (``gc.freeze``), and the schema of an old catalog, whose types refer to each other
in circles, is taken apart by hand, piece by piece; then nothing of it needs to be found.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from graphql import (
    GraphQLInputObjectType,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    is_introspection_type,
)

__all__ = ["Breath", "dismantle", "quietly", "settle"]

_TURN = 0.0005
"""Seconds for which a thread that builds a schema keeps others waiting, about."""
_WORK, _REST = 0.002, 0.001
"""Seconds of work after which such a thread rests, and for how long."""
_is_settled = False


def settle() -> None:
    """Take what is alive from the collector's sight; for a process that does nothing but serve."""
    global _is_settled
    _is_settled = True
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


@contextmanager
def quietly() -> Iterator[None]:
    """Let a thread make a great many objects that will live long, without stopping others."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_TURN)
    if _is_settled:
        gc.collect()  # little, as all that is old is out of its sight
        gc.disable()
    try:
        yield
    finally:
        if _is_settled:
            gc.freeze()
            gc.enable()
        sys.setswitchinterval(before)


class Breath:
    """Rests now and then in long work, so that other threads get their turns."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self) -> None:
        """Rest if it is time to."""
        if time.monotonic() - self._last > _WORK:
            time.sleep(_REST)
            self._last = time.monotonic()


def dismantle(
    schema: GraphQLSchema, static: GraphQLSchema, held: list[MutableMapping[Any, Any]]
) -> None:
    """Take a schema apart that nobody uses any more, and empty what else its catalog held.

    Parameters
    ----------
    static
        The schema whose types others use too.
    """
    breathe, query = Breath(), schema.query_type
    for kind in list(schema.type_map.values()):
        if not isinstance(kind, GraphQLObjectType | GraphQLInputObjectType | GraphQLUnionType):
            continue
        if is_introspection_type(kind) or static.type_map.get(kind.name) is kind:
            continue
        if kind is not query:  # some of whose fields are static
            for field in list(getattr(kind, "fields", {}).values()):
                vars(field).clear()
        vars(kind).clear()
        breathe()
    vars(schema).clear()
    for mapping in held:
        while mapping:
            mapping.popitem()
            breathe()
