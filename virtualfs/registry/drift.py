"""Drift: what a warehouse no longer has as the registry knows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from virtualfs.errors import WarehouseError, WarehouseUnavailableError, printable

__all__ = ["Drift", "find_drift"]


@dataclass(frozen=True)
class Drift:
    """One column of a view's source that is gone or has another type.

    Parameters
    ----------
    found
        The type that it has now; None where it is gone.
    reason
        Why the source as a whole cannot be read; then there is no column.
    """

    view: str
    source: str
    column: str = ""
    known: str = ""
    found: str | None = None
    reason: str = ""

    @property
    def breaks(self) -> bool:
        """Whether the view cannot be answered any more."""
        return self.found is None

    def __str__(self) -> str:
        where = f"source {self.source} of feature view {self.view}"
        if self.reason:
            return printable(f"{where}: cannot be read: {self.reason}")
        if self.found is None:
            return printable(f"{where}: column {self.column} ({self.known}) is gone")
        return printable(f"{where}: column {self.column} was {self.known} and is now {self.found}")


def find_drift(
    view: str, source: str, known: Mapping[str, str], columns: Callable[[], Mapping[str, str]]
) -> list[Drift]:
    """Return how a source's columns differ from those that a view was applied with.

    Parameters
    ----------
    known
        Columns and their types as the view was applied with them.
    columns
        Returns those that the source has now; in lower case too where the engine folds case.

    Raises
    ------
    WarehouseUnavailableError
        The warehouse is out of reach, which is no drift.
    """
    try:
        found = columns()
    except WarehouseUnavailableError:
        raise
    except WarehouseError as error:
        return [Drift(view, source, reason=str(error))]
    now = {name: found.get(name, found.get(name.lower())) for name in known}
    return [
        Drift(view, source, name, dtype, now[name])
        for name, dtype in known.items()
        if now[name] != dtype
    ]
