"""Look-up statements, compiled once: kept in memory, and in a folder for the next process.

Compiling needs Ibis, which takes longer to load than a look-up takes. A kept statement is known by
a digest of everything it was made from, the compiler's own code included.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from functools import cache
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

from virtualfs.capabilities import UNKNOWN
from virtualfs.compiler.plan import LateData, ResolvedView
from virtualfs.files import write_text
from virtualfs.forks import renew_in_child
from virtualfs.provider import Warehouse

__all__ = ["LookupStatements"]


_ASKED_SECONDS = 60.0
"""How often a warehouse is asked whether a view's table has an index for look-ups."""


class LookupStatements:
    """The look-up statements of one project.

    Parameters
    ----------
    folder
        Where they are kept for other processes; nowhere if its parent does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[tuple[object, ...], str] = {}
        self._indexed: dict[_View, tuple[bool, float]] = {}
        """Whether the tables of views have an index for look-ups, and when that was asked."""
        self._renew()
        renew_in_child(self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def get(
        self, view: ResolvedView, warehouse: Warehouse, late_data: LateData = "include"
    ) -> str:
        """Return the SELECT that reads the rows of some keys of a view."""
        # Types of times are no part of a view's meaning, and make another statement.
        own = (view.name, view.version, view.fingerprint, view.rows_sql, (*view.columns.items(),))
        indexed = False
        if warehouse.capabilities.lateral_limit:
            indexed = self._is_indexed(own, view, warehouse)
        place = (*own, indexed, late_data)
        found = self._known.get(place)
        if found is None:
            with self._lock:
                found = self._known.get(place)
                if found is None:
                    made = self._made(view, warehouse, late_data, indexed=indexed)
                    found = self._known[place] = made
        return found

    def _is_indexed(self, own: _View, view: ResolvedView, warehouse: Warehouse) -> bool:
        """Tell whether a view's table has an index for look-ups, as of a moment ago.

        A process begins with what the last one knew: to ask for every view takes longer than to
        look it up.
        """
        indexed, until = self._indexed.get(own, (None, 0.0))
        if indexed is None:
            kept = self._read(view)
            indexed = kept.get("indexed") if _digest(view, warehouse) in kept else None
            if isinstance(indexed, bool):
                self._indexed[own] = indexed, time.monotonic() + _ASKED_SECONDS
                return indexed
        elif time.monotonic() < until:
            return indexed
        found = warehouse.statistics(view).indexed
        self._indexed[own] = found, time.monotonic() + _ASKED_SECONDS
        return found

    def _made(
        self, view: ResolvedView, warehouse: Warehouse, late_data: LateData, *, indexed: bool
    ) -> str:
        digest = _digest(view, warehouse)
        kept = self._read(view)
        if late_data == "include" and kept.get("indexed") is indexed and digest in kept:
            return str(kept[digest])
        from virtualfs.compiler.program import compile_lookup

        can = warehouse.capabilities.for_lookups
        made = compile_lookup(view, can, replace(UNKNOWN, indexed=indexed), late_data)
        if view.version and late_data == "include":
            self._keep(view, {digest: made, "indexed": indexed})
        return made

    def _file(self, view: ResolvedView) -> Path:
        return self._folder / f"{view.name}@{view.version}.json"

    def _read(self, view: ResolvedView) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            found = json.loads(self._file(view).read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        return {}

    def _keep(self, view: ResolvedView, content: dict[str, Any]) -> None:
        """Write a file whole or not at all; where that cannot be, the next process compiles."""
        if not self._folder.parent.is_dir():
            return
        with suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            write_text(self._file(view), json.dumps(content), overwrite=True)


_View = tuple[str, int | None, str, str, tuple[tuple[str, str], ...]]


def _digest(view: ResolvedView, warehouse: Warehouse) -> str:
    """Return a digest of all that a view's statement is made from."""
    can = warehouse.capabilities
    module = sys.modules[type(warehouse).__module__]
    parts = (
        _code(str(module.__file__)),
        f"{can.engine} {can.dialect} {can.temporary_tables} {can.max_identifier}",
        view.model_dump_json(),
    )
    return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


@cache
def _code(provider: str) -> str:
    """Return a digest of all code that a statement is written by."""
    import virtualfs.compiler

    folder = Path(str(virtualfs.compiler.__file__)).parent
    found = blake2b(digest_size=16)
    for file in [*sorted(folder.glob("*.py")), Path(provider)]:
        with suppress(OSError):  # in an archive the versions alone tell
            found.update(file.read_bytes())
    for package in ("virtualfs", "ibis-framework", "sqlglot"):
        found.update(version(package).encode())
    return found.hexdigest()
