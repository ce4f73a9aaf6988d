"""What all rooms of a store stand on: configuration, registry, warehouses, the online service."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import SecretStr

from virtualfs.compiler.plan import (
    FeaturePlan,
    OnDemandSelection,
    ResolvedView,
)
from virtualfs.config import Config, Warehouse, check_url, find_config, load_config
from virtualfs.display import Block, Grid, Note, Shown
from virtualfs.errors import (
    ConfigError,
    NotFoundError,
    WarehouseError,
    did_you_mean,
    without_secrets,
)
from virtualfs.forks import renew_in_child
from virtualfs.functions import PythonFunctions
from virtualfs.provider import MEETING_PLACE, connection_identity, load_warehouse_provider
from virtualfs.provider import Warehouse as OpenWarehouse
from virtualfs.registry.applier import Applier
from virtualfs.registry.database import Database
from virtualfs.registry.indexing import Indexer
from virtualfs.registry.planner import Planner
from virtualfs.registry.recent import Recent
from virtualfs.registry.repository import Registry
from virtualfs.registry.resolver import Resolver
from virtualfs.registry.state import State
from virtualfs.serving.request import plan_online
from virtualfs.serving.service import OnlineService
from virtualfs.training.saving import Shelf

__all__ = ["StoreBase"]


class StoreBase(Shown):
    """A store's configuration, and what it opens: registry, warehouses, online service."""

    def __init__(
        self,
        config: str | Path | Config | None = None,
        *,
        connections: Mapping[str, Any] | None = None,
        environment: str | None = None,
        revision: int | None = None,
    ) -> None:
        if isinstance(config, Config):
            self.config = config
        elif config is None and connections and find_config() is None:
            self.config = Config(project=_project_name(Path.cwd()))
        else:
            self.config = load_config(config)
        database = Database(self.config.registry_url(), self.config.registry_schema)
        self.registry = Registry(
            database,
            self.config.project,
            environment or self.config.environment,
            self.config.author(),
        )
        self._revision = revision
        self.is_closed = False
        """Whether :meth:`close` was called."""
        self._renew()
        renew_in_child(self._renew)
        self._warehouses: dict[str, OpenWarehouse] = {}
        self._meeting: OpenWarehouse | None = None
        self._adopted: dict[str, str] = {}
        """Of connections that were passed, which warehouse each is to."""
        for name, connection in (connections or {}).items():
            provider = load_warehouse_provider(connection.name, f"connections[{name!r}]")
            self._warehouses[name] = provider.adopt(name, connection)
            self._adopted[name] = connection_identity(connection)
        self.functions = PythonFunctions(self.config.python.modules, self.config.folder)
        folder, check_path = self.config.folder, self.config.check_path
        self.resolver = Resolver(
            self.registry, self.warehouse, folder, self.functions, check_path
        )
        self.shelf = Shelf(
            self.registry.training_sets, self.config.author(), self.config.folder,
            self.config.training_sets, self.warehouse, self.meeting_place, self.functions,
        )  # fmt: skip
        self._planner = Planner(self.registry, self.resolver, self.config.policy)
        self._recent: Recent[FeaturePlan] = Recent(self.registry, revision)
        self._applier = Applier(self.registry, Indexer(self.warehouse), self._recent.forget)
        engines = {name: connection.name for name, connection in (connections or {}).items()}
        self.online = OnlineService(
            self.config, self.warehouse, engines, self._online_plan, self._known_plan, self.now,
            self.functions, self._owner,
        )  # fmt: skip

    def _renew(self) -> None:
        """Make what belongs to one process; warehouses, registry and cache renew themselves."""
        self._lock = threading.RLock()

    def __reduce__(self) -> Any:
        raise TypeError(
            "a FeatureStore cannot be pickled, because connections belong to one process. Open one "
            f"in the other process: FeatureStore({str(self.config.folder)!r})"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"FeatureStore(project={self.config.project!r})"

    def _blocks(self) -> list[Block]:
        config = self.config
        rows = [
            (f"warehouse {name}", item.url.get_secret_value().partition("://")[0])
            for name, item in config.warehouses.items()
            if name not in self._warehouses
        ]
        rows += [
            (f"warehouse {name}", f"{opened.capabilities.engine}, open")
            for name, opened in self._warehouses.items()
        ]
        return [
            Note(f"Feature store of project {config.project}", strong=True),
            Grid(
                ("", ""),
                [
                    ("folder", config.folder),
                    ("registry", self.registry.database.location),
                    ("environment", self.registry.environment),
                    ("revision", "the newest" if self._revision is None else self._revision),
                    *rows,
                    ("cache", config.cache.url.get_secret_value().partition("://")[0]),
                ],
            ),
        ]

    def close(self) -> None:
        """Close everything that the store itself opened."""
        self.is_closed = True
        self.online.close()
        for warehouse in self._warehouses.values():
            warehouse.close()
        if self._meeting is not None:
            self._meeting.close()
        self.registry.database.close()

    def state(self) -> State:
        """Return the registry's objects, at the store's revision or the newest."""
        return self.registry.state(self._revision)

    @property
    def pinned_revision(self) -> int | None:
        """The revision that the store reads; None for the newest."""
        return self._revision

    def now(self) -> datetime:
        """Return the instant of online reads: the configured clock, or the process's."""
        return self.config.clock or datetime.now(UTC)

    def warehouse(self, name: str = "default") -> OpenWarehouse:
        """Return a warehouse by name, opening it when first needed.

        Raises
        ------
        ConfigError
            The configuration has no such warehouse, or no provider is installed for its URL.
        """
        with self._lock:
            if name not in self._warehouses:
                settings = self.config.warehouses.get(name)
                if settings is None:
                    known = {*self.config.warehouses, *self._warehouses}
                    raise ConfigError(
                        f"there is no warehouse {name!r}; add [warehouses.{name}] with its url to "
                        f"virtualfs.toml, or pass connections=. {did_you_mean(name, known)}"
                    )
                self._warehouses[name] = self._open(name, settings)
            return self._warehouses[name]

    def _owner(self, warehouse: str) -> str:
        """Return what tells this deployment's cached rows of a warehouse from those of others."""
        registry = self.registry
        parts = (registry.deployment(), registry.environment, self._warehouse_identity(warehouse))
        return "\0".join(parts)

    def _warehouse_identity(self, name: str) -> str:
        """Return which warehouse a name means: its place as which user, without secrets."""
        settings = self.config.warehouses.get(name)
        opened = self._adopted.get(name)
        if opened is not None:
            return opened
        if settings is None:
            return name
        return without_secrets(self.config.absolute_url(settings.url.get_secret_value()))

    def meeting_place(self) -> OpenWarehouse:
        """Return the engine in this process where parts of several warehouses meet."""
        with self._lock:
            if self._meeting is None:
                settings = Warehouse(url=SecretStr(MEETING_PLACE))
                self._meeting = self._open("the meeting place", settings)
            return self._meeting

    def _open(self, name: str, settings: Warehouse) -> OpenWarehouse:
        url = self.config.absolute_url(settings.url.get_secret_value())
        check_url(url, f"warehouses.{name}.url", "duckdb://PATH or postgresql://user@host/database")
        scheme = url.partition("://")[0]
        provider = load_warehouse_provider(scheme, f"warehouses.{name}.url")
        try:
            return provider.open(
                name, settings, url, self.config.folder, self.config.readable_roots
            )
        except WarehouseError as error:
            if f"warehouse {name!r}" in str(error):
                raise
            raise type(error)(f"warehouse {name!r}: {error}") from error

    def _view(self, view: Any, state: State) -> ResolvedView:
        if isinstance(view, str) and ("on_demand_feature_view", view) not in state.objects:
            return self.resolver.view(view, state)
        (selection,) = self.resolver.selections([view], state)
        if isinstance(selection, OnDemandSelection):
            raise NotFoundError(
                f"{selection.view.label} is computed on demand and has no rows of its own; look at "
                "the views that it reads"
            )
        return selection.view

    def _must_be_newest(self) -> None:
        if self._revision is not None:
            raise ConfigError("this store reads an old revision; change it with one opened without")

    def _indexed(self) -> State:
        """Return the state, with what is derived from it written where it was not yet."""
        return self._applier.indexed(self.state())

    def _online_plan(self, features: Any, at_hand: bool) -> FeaturePlan:
        """Return the plan of an online read; those of names are kept while the registry stands."""

        def make(state: State) -> FeaturePlan:
            return plan_online(self.resolver.selections(features, state), at_hand=at_hand)

        names = _names(features)
        return make(self.state()) if names is None else self._recent.get((names, at_hand), make)

    def _known_plan(self, features: Any) -> FeaturePlan | None:
        names = _names(features)
        return None if names is None else self._recent.peek((names, True))


def _names(features: Any) -> str | tuple[str, ...] | None:
    """Return features that were asked for by name, None for others."""
    if isinstance(features, str):
        return features
    if isinstance(features, list | tuple) and all(isinstance(item, str) for item in features):
        return tuple(features)
    return None


def _project_name(folder: Path) -> str:
    import re

    return re.sub(r"[^\w.\-]", "_", folder.name) or "default"
