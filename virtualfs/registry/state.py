"""What the registry holds at one revision: objects, read when they are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

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
    written: int = field(default=0, compare=False)

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


class Find(Protocol):
    """Returns the revision that wrote each object: of some keys, of a kind, or of all."""

    def __call__(
        self, keys: Sequence[Key] | None = None, kind: str | None = None
    ) -> Mapping[Key, int]: ...


class Objects(Mapping[Key, StoredObject]):
    """Objects by kind and name; both what there is and what it says are read when first wanted.

    Parameters
    ----------
    find
        Tells what there is.
    read
        Returns objects by kind, name and the revision that wrote them.
    """

    def __init__(
        self, find: Find, read: Callable[[Mapping[Key, int]], Iterable[StoredObject]]
    ) -> None:
        self._find = find
        self._read = read
        self._written: dict[Key, int | None] = {}
        self._kinds: set[str] = set()
        self._is_whole = False
        self._known: dict[Key, StoredObject] = {}

    @property
    def held(self) -> dict[Key, StoredObject]:
        """The objects that have been read."""
        return self._known

    def __contains__(self, key: object) -> bool:
        return self.written(key) is not None  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Key]:
        self.find()
        return (key for key, written in self._written.items() if written is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, key: Key) -> StoredObject:
        if key not in self._known:
            self.load([key])
        return self._known[key]

    def load(self, keys: Iterable[Key] | None = None) -> None:
        """Read some objects at once, or all; those that do not exist are passed over."""
        if keys is None:
            self.find()
            wanted = [*self._written]
        else:
            wanted = [key for key in keys if key not in self._known]
            self._look(wanted)
        missing = {
            key: written
            for key in wanted
            if key not in self._known and (written := self._written[key]) is not None
        }
        if missing:
            self._known |= {item.key: item for item in self._read(missing)}

    def written(self, key: Key) -> int | None:
        """Return the revision that wrote an object; None if there is none."""
        self._look([key])
        return self._written[key]

    def names(self, kind: str) -> list[str]:
        """Return the names of a kind, sorted."""
        self.find(kind)
        places = (key for key, written in self._written.items() if written is not None)
        return sorted(name for held, name in places if held == kind)

    def _look(self, keys: Iterable[Key]) -> None:
        unknown = [key for key in keys if key not in self._written]
        if not unknown:
            return
        told = [key for key in unknown if not self._is_whole and key[0] not in self._kinds]
        found = self._find(keys=told) if told else {}
        self._written |= {key: found.get(key) for key in unknown}

    def find(self, kind: str | None = None) -> None:
        """Find out what there is of a kind, or of all; asked once."""
        if self._is_whole or kind in self._kinds:
            return
        self._written |= self._find(kind=kind)
        if kind is None:
            self._is_whole = True
        else:
            self._kinds.add(kind)

    def values(self) -> Any:
        """Return all objects, read at once."""
        self.load()
        return super().values()

    def items(self) -> Any:
        """Return all objects by kind and name, read at once."""
        self.load()
        return super().items()


def no_objects() -> Objects:
    """Return the objects of a state that has none."""
    return Objects(lambda keys=None, kind=None: {}, lambda _: ())  # noqa: ARG005


@dataclass(frozen=True)
class State:
    """All objects of a project at one revision."""

    revision: int
    objects: Objects = field(default_factory=no_objects)
    environment: str = "default"

    def after(self, writes: Iterable[Write]) -> State:
        """Return what the state would be with some objects written."""
        held: dict[Key, StoredObject] = dict(self.objects.items())
        for write in writes:
            held.pop(write.key, None)
            if write.item is not None:
                held[write.key] = write.item

        def find(keys: Sequence[Key] | None = None, kind: str | None = None) -> Mapping[Key, int]:
            wanted = held if keys is None else [key for key in keys if key in held]
            return {key: 0 for key in wanted if kind in (None, key[0])}

        objects = Objects(find, lambda wanted: [held[key] for key in wanted])
        return replace(self, objects=objects)

    def project(self) -> Project:
        """Return the definitions of this state."""
        return Project.of(
            definition_from_fields(item.kind, item.definition)
            for item in self.objects.values()
            if item.kind in KINDS
        )

    def of_kind(self, kind: str) -> dict[str, StoredObject]:
        """Return the objects of one kind by name, sorted."""
        names = self.objects.names(kind)
        self.objects.load((kind, name) for name in names)
        return {name: self.objects[kind, name] for name in names}

    def names(self, kind: str) -> list[str]:
        """Return the names of one kind, sorted, without reading the objects."""
        return self.objects.names(kind)

    def views(self) -> dict[str, StoredObject]:
        """Return the views of both kinds by name."""
        return {name: item for kind in VIEW_KINDS for name, item in self.of_kind(kind).items()}

    def deprecation(self, item: StoredObject) -> str:
        """Return why an object should no longer be used, or nothing."""
        self.objects.find(DEPRECATION)  # there are few, and many objects are asked about
        mark = self.objects.get((DEPRECATION, f"{item.name}@{item.version}"))
        said = item.definition.get("deprecated") if mark is None else mark.definition["message"]
        return str(said or "")


@dataclass(frozen=True)
class Write:
    """One object to be put in a revision; or put back, as it was written; or removed (None)."""

    key: Key
    item: StoredObject | None
