"""Drift: what a warehouse no longer has as the registry knows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

__all__ = ["Drift", "drift_of"]


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
            return f"{where}: cannot be read: {self.reason}"
        if self.found is None:
            return f"{where}: column {self.column} ({self.known}) is gone"
        return f"{where}: column {self.column} was {self.known} and is now {self.found}"


def drift_of(
    view: str, source: str, known: Mapping[str, str], columns: Mapping[str, str]
) -> Iterator[Drift]:
    """Yield how a source's columns differ from those that a view was applied with."""
    for name, dtype in known.items():
        found = columns.get(name)
        if found != dtype:
            yield Drift(view, source, name, dtype, found)
