"""Look-up statements, compiled once: kept in memory, and in a folder for the next process.

Compiling needs Ibis, which takes longer to load than a look-up takes. A kept statement is known by
a digest of everything it was made from, the compiler's own code included.
"""

from __future__ import annotations

import json
import sys
import threading
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path

from virtualfs.capabilities import UNKNOWN, Statistics
from virtualfs.compiler.plan import LateData, ResolvedView
from virtualfs.files import write_text
from virtualfs.forks import renew_in_child
from virtualfs.provider import Warehouse

__all__ = ["LookupStatements"]


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
        self._renew()
        renew_in_child(self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def get(
        self, view: ResolvedView, warehouse: Warehouse, late_data: LateData = "include"
    ) -> str:
        """Return the SELECT that reads the rows of some keys of a view."""
        can = warehouse.capabilities.for_lookups
        known = warehouse.statistics(view) if can.lateral_limit else UNKNOWN
        place = (view.name, view.version, view.fingerprint, view.rows_sql, known.indexed, late_data)
        found = self._known.get(place)
        if found is None:
            with self._lock:
                found = self._known.get(place)
                if found is None:
                    found = self._known[place] = self._made(view, warehouse, known, late_data)
        return found

    def _made(
        self, view: ResolvedView, warehouse: Warehouse, known: Statistics, late_data: LateData
    ) -> str:
        file = self._folder / f"{view.name}@{view.version}.json"
        digest = _digest(view, warehouse, known, late_data)
        with suppress(OSError, ValueError, AttributeError):
            kept = json.loads(file.read_text(encoding="utf-8")).get(digest)
            if isinstance(kept, str):
                return kept
        from virtualfs.compiler.program import compile_lookup

        can = warehouse.capabilities.for_lookups
        made = compile_lookup(view, can, known, late_data)
        if view.version and late_data == "include":
            self._keep(file, {digest: made})
        return made

    def _keep(self, file: Path, statements: dict[str, str]) -> None:
        """Write a file whole or not at all; where that cannot be, the next process compiles."""
        if not self._folder.parent.is_dir():
            return
        with suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            write_text(file, json.dumps(statements), overwrite=True)


def _digest(
    view: ResolvedView, warehouse: Warehouse, known: Statistics, late_data: LateData
) -> str:
    can = warehouse.capabilities
    module = sys.modules[type(warehouse).__module__]
    parts = (
        _code(str(module.__file__)),
        f"{can.engine} {can.dialect} {can.temporary_tables} {can.max_identifier}",
        f"{known.indexed} {late_data}",
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
