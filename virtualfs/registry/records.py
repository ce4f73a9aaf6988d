"""What the registry tells of its environments, revisions and changes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

__all__ = ["SIGNS", "Environment", "Record", "RevisionRow", "Versions", "version_text"]

SIGNS = {"add": "+", "change": "~", "remove": "-"}
"""How changes begin where they are listed."""


def version_text(action: str, version: int, old_version: int | None) -> str:
    """Return the version of a change, and the one before where it is another.

    >>> version_text("change", 2, 1)
    'v1 -> v2'
    """
    moved = action == "change" and old_version != version
    return f"v{old_version} -> v{version}" if moved else f"v{version}"


@dataclass(frozen=True)
class Environment:
    """A name, and the revision that it points at."""

    name: str
    revision: int
    moved_at: datetime
    moved_by: str
    reason: str


@dataclass(frozen=True)
class RevisionRow:
    """Who wrote a revision, when, on top of which, and what it did in one line."""

    number: int
    parent: int | None
    environment: str
    action: str
    created_at: datetime
    created_by: str
    summary: str


@dataclass
class Versions:
    """The versions that an object ever had, with their fingerprints, and its last one in a line."""

    fingerprints: dict[int, str]
    last: int = 0

    def of(self, fingerprint: str, current: int | None) -> int:
        """Return the version for a meaning: a later one that was made of it, or the next.

        Later than the current one: such as another environment has, or a rollback has left.
        """
        after = self.last if current is None else current
        made = [
            version
            for version, known in self.fingerprints.items()
            if version > after and known == fingerprint
        ]
        return made[0] if made else max(self.fingerprints, default=0) + 1


@dataclass(frozen=True)
class Record:
    """One change of one object, as a revision recorded it."""

    action: str
    kind: str
    name: str
    version: int
    old_version: int | None
    impact: str
    details: tuple[str, ...] = ()
