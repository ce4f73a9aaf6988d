"""What the registry holds at one revision: objects, read when they are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from virtualfs.compiler.plan import ResolvedOnDemand, ResolvedView
from virtualfs.definitions.project import KINDS, VIEW_KINDS, Project, definition_from_fields

__all__ = ["DEPRECATION", "Key", "Objects", "State", "StoredObject", "Write"]

Key = tuple[str, str]
"""Kind and name of an object."""
DEPRECATION = "deprecation"
"""Kind of what marks one version of a view or service; it is named ``view@2``."""


@dataclass(frozen=True)
class StoredObject:
    """One object as the registry holds it, written once by revision ``written``."""

    kind: str
    name: str
    version: int
    fingerprint: str
    origin: str
    definition: Mapping[str, Any]
    resolved: Mapping[str, Any] | None = None
    written: int = 0

    @property
    def key(self) -> Key:
        """Kind and name."""
        return self.kind, self.name

    def view(self) -> ResolvedView:
        """Return a feature view ready to compile."""
        return ResolvedView(**{**(self.resolved or {}), "version": self.version})

    def on_demand(self) -> ResolvedOnDemand:
        """Return an on-demand feature view ready to compute."""
        fields = {name: item for name, item in (self.resolved or {}).items() if name != "pins"}
        return ResolvedOnDemand(**{**fields, "version": self.version})

    @property
    def pins(self) -> Mapping[str, int]:
        """The versions of views that a service, or an on-demand view, stands on."""
        pins: Mapping[str, int] = (self.resolved or {}).get("pins") or {}
        return pins

    @property
    def features(self) -> list[Mapping[str, Any]]:
        """The features of a view of either kind, as plain fields."""
        return list((self.resolved or {}).get("features") or ())


class Objects(Mapping[Key, StoredObject]):
    """Objects by kind and name; the names are at hand, each object is read when first wanted.

    Parameters
    ----------
    written
        The revision that wrote each object.
    read
        Returns objects by the same pairs.
    """

    def __init__(
        self,
        written: Mapping[Key, int],
        read: Callable[[Mapping[Key, int]], Iterable[StoredObject]],
    ) -> None:
        self._written = written
        self._read = read
        self._known: dict[Key, StoredObject] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._written

    def __iter__(self) -> Iterator[Key]:
        return iter(self._written)

    def __len__(self) -> int:
        return len(self._written)

    def __getitem__(self, key: Key) -> StoredObject:
        if key not in self._written:
            raise KeyError(key)
        self.load([key])
        return self._known[key]

    def load(self, keys: Iterable[Key] | None = None) -> None:
        """Read some objects at once, or all."""
        wanted = self._written if keys is None else dict.fromkeys(keys)
        missing = {key: self._written[key] for key in wanted if key not in self._known}
        if missing:
            self._known |= {item.key: item for item in self._read(missing)}

    def written(self, key: Key) -> int | None:
        """Return the revision that wrote an object; None if there is none."""
        return self._written.get(key)

    def values(self) -> Any:
        """Return all objects, read at once."""
        self.load()
        return super().values()

    def items(self) -> Any:
        """Return all objects by kind and name, read at once."""
        self.load()
        return super().items()


@dataclass(frozen=True)
class State:
    """All objects of a project at one revision."""

    revision: int
    objects: Objects = field(default_factory=lambda: Objects({}, lambda _: ()))
    environment: str = "default"

    def project(self) -> Project:
        """Return the definitions of this state."""
        return Project.of(
            definition_from_fields(item.kind, item.definition)
            for item in self.objects.values()
            if item.kind in KINDS
        )

    def of_kind(self, kind: str) -> dict[str, StoredObject]:
        """Return the objects of one kind by name, sorted."""
        names = sorted(name for k, name in self.objects if k == kind)
        self.objects.load((kind, name) for name in names)
        return {name: self.objects[kind, name] for name in names}

    def names(self, kind: str) -> list[str]:
        """Return the names of one kind, sorted, without reading the objects."""
        return sorted(name for k, name in self.objects if k == kind)

    def views(self) -> dict[str, StoredObject]:
        """Return the views of both kinds by name."""
        return {name: item for kind in VIEW_KINDS for name, item in self.of_kind(kind).items()}

    def deprecation(self, item: StoredObject) -> str:
        """Return why an object should no longer be used, or nothing."""
        mark = self.objects.get((DEPRECATION, f"{item.name}@{item.version}"))
        text = mark.definition["message"] if mark else item.definition.get("deprecated")
        return text or ""


@dataclass(frozen=True)
class Write:
    """One object to be put in a revision; or put back, as it was written; or removed (None)."""

    key: Key
    item: StoredObject | None
