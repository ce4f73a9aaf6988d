"""Plans: what would change in the registry, readable as a diff, and what to write to change it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from virtualfs.definitions.project import KINDS, VIEW_KINDS, kind_in_words
from virtualfs.display import Block, Code, Note, Shown
from virtualfs.errors import BreakingChangeError, DefinitionError, printable
from virtualfs.registry.difference import Impact, difference, read_by
from virtualfs.registry.drift import Drift
from virtualfs.registry.records import SIGNS, Record, version_text
from virtualfs.registry.state import DEPRECATION, Key, StoredObject, Write

__all__ = ["Change", "Plan", "Revision", "changes_between"]

Action = Literal["add", "change", "remove"]
_ORDER = [*KINDS, DEPRECATION]


@dataclass(frozen=True)
class Change:
    """One object that the plan adds, changes or removes.

    Parameters
    ----------
    impact
        ``"metadata"``: words only, no new version. ``"compatible"``: something comes in addition.
        ``"breaking"``: something is removed, retyped, rekeyed or computed differently.
    details
        Field by field.
    touches
        What stands on it: views, services, and the versions that go on as they are.
    sql
        How the SQL that reads the rows changes, as a unified diff.
    """

    action: Action
    kind: str
    name: str
    version: int
    old_version: int | None = None
    details: tuple[str, ...] = ()
    impact: Impact = "compatible"
    touches: tuple[str, ...] = ()
    sql: str = ""

    def __str__(self) -> str:
        version = version_text(self.action, self.version, self.old_version)
        if self.impact == "metadata":
            version += ", metadata only"
        head = f"{SIGNS[self.action]} {kind_in_words(self.kind)} {self.name} ({version})"
        is_told = self.action != "add" and self.impact != "metadata"
        lines = [f"{head} {self.impact}" if is_told else head]
        lines += [f"    {line}" for line in self.details]
        if self.touches:
            lines.append(f"    touches: {', '.join(self.touches)}")
        if self.sql:
            lines += ["    SQL:", *(f"      {line}" for line in self.sql.splitlines())]
        return printable("\n".join(lines))

    def record(self) -> Record:
        """Return the change as the registry keeps it."""
        return Record(
            self.action, self.kind, self.name, self.version, self.old_version, self.impact,
            self.details,
        )  # fmt: skip


@dataclass(frozen=True)
class Plan(Shown):
    """What an apply would do, made against one revision of the registry.

    Parameters
    ----------
    drift
        What the warehouse no longer has as the registry knows it.
    pinned
        Breaking changes of views that services pin: the views, and the services of each.
    """

    project: str
    base: int
    changes: tuple[Change, ...]
    warnings: tuple[str, ...] = ()
    drift: tuple[Drift, ...] = ()
    pinned: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    environment: str = "default"
    action: str = "apply"
    revision: int | None = None
    """The revision that the environment will point at, where none is to be written."""
    writes: tuple[Write, ...] = field(default=(), repr=False)

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __str__(self) -> str:
        where = f" in environment {self.environment}" if self.environment != "default" else ""
        lines = [f"Plan for project {self.project}{where}, against revision {self.base}", ""]
        lines += [str(change) for change in self.changes]
        lines += [f"! drift: {item}" for item in self.drift]
        lines += [f"! {warning}" for warning in self.warnings]
        lines += [*([""] if len(lines) > 2 else []), self.summary]
        return printable("\n".join(lines))

    def _blocks(self) -> list[Block]:
        return [Code(str(self))]

    @property
    def summary(self) -> str:
        """The plan in one line."""
        if not self.changes:
            return "Nothing to change."
        counts = [sum(c.action == action for c in self.changes) for action in SIGNS]
        text = "{} to add, {} to change, {} to remove.".format(*counts)
        breaking = sum(change.impact == "breaking" for change in self.changes)
        return f"{text} {breaking} breaking." if breaking else text

    def check(self, *, allow_breaking: bool) -> None:
        """Refuse what must not be applied.

        Raises
        ------
        DefinitionError
            Columns that views need are gone from the warehouse.
        BreakingChangeError
            Views that services pin would break, and that is not allowed.
        """
        gone = [str(item) for item in self.drift if item.breaks]
        if gone and self.changes:
            raise DefinitionError(
                "the warehouse no longer has what views need; change their definitions, or bring "
                "the columns back:\n  " + "\n  ".join(gone)
            )
        if self.pinned and not allow_breaking:
            shown = [f"{view}, pinned by {', '.join(by)}" for view, by in self.pinned.items()]
            raise BreakingChangeError(
                "views that services pin would change for those who read them:\n  "
                + "\n  ".join(shown)
                + "\nPass --allow-breaking (allow_breaking=True) to go on: the services get their "
                "next versions, and the old ones stay answerable. Or give the new meaning another "
                "name, and let the two serve side by side."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return {
            "project": self.project,
            "environment": self.environment,
            "base_revision": self.base,
            "changes": [
                {
                    **vars(change),
                    "details": list(change.details),
                    "touches": list(change.touches),
                }
                for change in self.changes
            ],
            "drift": [str(item) for item in self.drift],
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class Revision(Shown):
    """A state of the registry: its number, and the plan that led to it."""

    number: int
    plan: Plan = field(repr=False)
    doubts: tuple[str, ...] = ()
    """What was guessed of a table that was registered, for a person to settle."""

    def _blocks(self) -> list[Block]:
        doubts = [Note(f"DOUBT: {doubt}.") for doubt in self.doubts]
        return [Note(f"Revision {self.number}", strong=True), *self.plan._blocks(), *doubts]


def changes_between(
    old: Mapping[Key, StoredObject], new: Mapping[Key, StoredObject], keys: Iterable[Key]
) -> tuple[list[Change], dict[str, tuple[str, ...]]]:
    """Compare two states, and return the changes and who pins the views that break.

    Parameters
    ----------
    keys
        The objects that may differ.
    """
    wanted = [key for key in keys if old.get(key) != new.get(key)]
    wanted.sort(key=lambda key: (_ORDER.index(key[0]), key[1]))
    removed = [key for key in reversed(wanted) if key not in new]
    impacts: dict[Key, Impact] = {}
    found, pinned = [], {}
    users: dict[Key, list[StoredObject]] | None = None
    for key in [*(key for key in wanted if key in new), *removed]:
        before, after = old.get(key), new.get(key)
        differs = difference(before, after, old, new, impacts)
        impacts[key] = differs.impact
        touches: tuple[str, ...] = ()
        if before is not None and differs.impact != "metadata":
            users = users if users is not None else _users(old)
            touches = tuple(_touched(key, before, users))
            by = [item for item in users.get(key, ()) if item.kind == "feature_service"]
            if differs.impact == "breaking" and key[0] in VIEW_KINDS and by:
                pinned[f"{key[1]}@{before.version}"] = tuple(
                    f"{item.name}@{item.version}" for item in by
                )
        action: Action = "remove" if after is None else "add" if before is None else "change"
        now = after or before
        assert now is not None
        found.append(
            Change(
                action, *key, now.version, before.version if before else None, differs.details,
                differs.impact, touches, differs.sql,
            )
        )  # fmt: skip
    return found, pinned


def _users(objects: Mapping[Key, StoredObject]) -> dict[Key, list[StoredObject]]:
    """Return, for each object, the objects that stand on it."""
    found: dict[Key, list[StoredObject]] = {}
    for item in objects.values():
        for key in read_by(item):
            found.setdefault(key, []).append(item)
    return found


def _touched(key: Key, old: StoredObject, users: Mapping[Key, list[StoredObject]]) -> Iterable[str]:
    seen: set[Key] = set()
    places = [key]
    while places:
        for item in users.get(places.pop(), ()):
            if item.key in seen:
                continue
            seen.add(item.key)
            places.append(item.key)
            text = f"{kind_in_words(item.kind)} {item.name}"
            if old.kind in VIEW_KINDS and item.pins.get(old.name) == old.version:
                text += f" ({item.name}@{item.version} keeps {old.name}@{old.version})"
            yield text
