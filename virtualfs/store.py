"""FeatureStore: the one object most users meet. A thin facade; the work is done below it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from virtualfs.catalog import CatalogTable
from virtualfs.compiler.instant import as_of as view_as_of
from virtualfs.compiler.instant import in_utc
from virtualfs.compiler.plan import (
    FeaturePlan,
    LateData,
    OnDemandSelection,
    ResolvedOnDemand,
    ResolvedView,
    plan_features,
)
from virtualfs.compiler.program import compile_known_keys, compile_preview
from virtualfs.config import Config, Warehouse, find_config, load_config
from virtualfs.definitions.project import load_definitions
from virtualfs.discovery.dbt import scan_dbt
from virtualfs.discovery.findings import Scan
from virtualfs.discovery.reader import scan_warehouse
from virtualfs.discovery.register import table_view
from virtualfs.display import Block, Grid, Note, Shown
from virtualfs.dtypes import nullable_pandas
from virtualfs.errors import (
    ConfigError,
    NotFoundError,
    SpineError,
    UnsupportedByWarehouseError,
    did_you_mean,
    warn_deprecated,
)
from virtualfs.functions import PythonFunctions
from virtualfs.monitoring.check import CheckReport, check_views
from virtualfs.provider import OnlineStore, load_provider
from virtualfs.provider import Warehouse as OpenWarehouse
from virtualfs.registry.applier import Applier
from virtualfs.registry.database import Database
from virtualfs.registry.export import to_yaml
from virtualfs.registry.history import FeatureUsage, History, history, usage
from virtualfs.registry.indexing import Indexer
from virtualfs.registry.lineage import Direction, Lineage, trace
from virtualfs.registry.plan import Plan, Revision
from virtualfs.registry.planner import Planner
from virtualfs.registry.recent import Recent
from virtualfs.registry.repository import Environment, Registry
from virtualfs.registry.resolver import Resolver
from virtualfs.registry.search import SearchResult, search
from virtualfs.registry.state import State
from virtualfs.serving.materialize import MaterializeResult, Range
from virtualfs.serving.push import PushResult
from virtualfs.serving.request import entity_keys, plan_online
from virtualfs.serving.response import OnlineResponse
from virtualfs.serving.service import HotReport, OnlineService, utc
from virtualfs.serving.why import Explanation, explain_value
from virtualfs.training.dataset import TrainingDataset
from virtualfs.training.spine import WarehouseSpine, read_spine, zone_doubt

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd

__all__ = ["FeatureStore"]


class FeatureStore(Shown):
    """A project's features: planned, applied, built into training sets, read online.

    Parameters
    ----------
    config
        Path of ``virtualfs.toml`` or of its folder, or a :class:`virtualfs.config.Config`; found
        upward from the current folder if None. With `connections` and no file at all, the project
        is named after the current folder and every setting has its default.
    connections
        Ibis connections of your own, by warehouse name. They stay yours: they are not closed.
    environment
        The environment that is read and applied to; the configuration's when None.
    revision
        Read the registry as it was at this revision, of any environment.

    Raises
    ------
    ConfigError
        There is no configuration, or it is wrong.
    """

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
        self._lock = threading.RLock()
        self._warehouses: dict[str, OpenWarehouse] = {}
        for name, connection in (connections or {}).items():
            provider = load_provider(connection.name, f"connections[{name!r}]")
            self._warehouses[name] = provider.adopt(name, connection)
        self.functions = PythonFunctions(self.config.python.modules, self.config.folder)
        self.resolver = Resolver(self.registry, self.warehouse, self.config.folder, self.functions)
        self._planner = Planner(self.registry, self.resolver, self.config.policy)
        self._recent: Recent[FeaturePlan] = Recent(self.registry, revision)
        self._applier = Applier(self.registry, Indexer(self.warehouse), self._recent.forget)
        engines = {name: connection.name for name, connection in (connections or {}).items()}
        self.online = OnlineService(
            self.config, self.warehouse, engines, self._online_plan, self._known_plan, self.now,
            self.functions,
        )  # fmt: skip

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
        self.online.close()
        for warehouse in self._warehouses.values():
            warehouse.close()
        self.registry.database.close()

    # -- what is defined

    def state(self) -> State:
        """Return the registry's objects, at the store's revision or the newest."""
        return self.registry.state(self._revision)

    def definitions(self) -> list[Any]:
        """Read the project's definition files."""
        return [item for path in self.config.definition_paths() for item in load_definitions(path)]

    def plan(
        self,
        objects: ModuleType | Iterable[Any] | None = None,
        *,
        prune: bool = False,
        origin: str = "api",
    ) -> Plan:
        """Compare definitions with the registry; nothing is written.

        Parameters
        ----------
        objects
            Definitions or a module; None reads the project's definition files.
        prune
            Whether to also remove what came from definition files and is no longer there.

        Raises
        ------
        DefinitionError
            A definition is wrong, does not fit its warehouse, or is refused by the policy.
        """
        self._must_be_newest()
        if objects is None:
            objects, origin = self.definitions(), "files"
        elif isinstance(objects, ModuleType) or not isinstance(objects, Iterable):
            objects = [objects]
        return self._planner.plan(objects, prune=prune, origin=origin)

    def apply(
        self,
        objects_or_plan: Plan | ModuleType | Iterable[Any] | None = None,
        *,
        prune: bool = False,
        allow_breaking: bool = True,
    ) -> Revision:
        """Write definitions, or a plan made before, to the registry: all of it or nothing.

        Parameters
        ----------
        allow_breaking
            Whether views that services pin may change for those who read them. The services get
            their next versions, and the old ones stay answerable. The command line says no unless
            told otherwise.

        Raises
        ------
        PlanConflictError
            The registry has moved since the plan was made.
        BreakingChangeError
            Something would break, and `allow_breaking` is False.
        """
        if isinstance(objects_or_plan, Plan):
            plan = objects_or_plan
        else:
            plan = self.plan(objects_or_plan, prune=prune)
        return self._applier.apply(plan, allow_breaking=allow_breaking)

    def rollback(self, revision: int, *, dry_run: bool = False) -> Revision:
        """Bring back the state of an older revision, as a new revision.

        Parameters
        ----------
        revision
            Any revision of the project, of another environment too.
        dry_run
            Only plan: the revision returned is the current one, with the plan.
        """
        self._must_be_newest()
        base = self.registry.state()
        plan = self._planner.restore(self.registry.state(revision), base, f"rollback to {revision}")
        return Revision(base.revision, plan) if dry_run else self._applier.apply(plan)

    def deprecate(self, reference: str, message: str) -> Revision:
        """Mark one version of a view or service, so that who asks for it is warned.

        Parameters
        ----------
        reference
            ``"weather@1"`` or ``"delay@1"``. What is current is better marked where it is defined,
            by ``deprecated=``.
        message
            Why, and what to use instead; an empty one takes the mark away.

        Raises
        ------
        NotFoundError
            There is no such version.
        """
        self._must_be_newest()
        state = self.registry.state()
        name, version = self.resolver.version_of(reference, state)
        return self._applier.apply(self._planner.mark(state, name, version, message))

    # -- environments

    def environments(self) -> list[Environment]:
        """Return the environments, with the revision that each points at."""
        return self.registry.environments()

    def diff(self, old: str, new: str) -> Plan:
        """Return what is different in another environment, as a plan that reads like a diff."""
        target, base = (self.registry.state(environment=name) for name in (new, old))
        return self._planner.restore(target, base, "diff")

    def promote(
        self, source: str, target: str, *, allow_breaking: bool = True, dry_run: bool = False
    ) -> Revision:
        """Let an environment point at the revision that another points at.

        Parameters
        ----------
        source, target
            Names; a target that does not exist is made.
        allow_breaking
            As for :meth:`apply`.
        dry_run
            Only plan: the revision returned is the one that would be pointed at.

        Raises
        ------
        NotFoundError
            There is no environment `source`.
        BreakingChangeError
            Something would break in the target, and `allow_breaking` is False.
        """
        return self._applier.promote(
            self._planner, source, target, allow_breaking=allow_breaking, dry_run=dry_run
        )

    # -- looking

    def history(self, name: str | None = None) -> History:
        """Return who changed what and when, newest first.

        Parameters
        ----------
        name
            Of an object; all revisions when None.
        """
        return history(self.registry, self.state(), name)

    def search(self, text: str, limit: int = 50) -> SearchResult:
        """Find features, views, services and entities by words, the best match first.

        All words must occur: in names, descriptions, owners, tags, columns or tables.
        """
        return search(self.registry, self._indexed(), text, limit)

    def lineage(
        self, reference: str, direction: Direction = "both", depth: int | None = None
    ) -> Lineage:
        """Return what something is made of, to the column, and what is made of it.

        Parameters
        ----------
        reference
            ``"view:feature"``, a view, a service, or ``"table.column"``.
        direction
            ``"upstream"``, ``"downstream"`` or ``"both"``.
        depth
            How many steps at most; all when None.

        Raises
        ------
        NotFoundError
            The registry knows no such thing.
        """
        return trace(self.registry, self._indexed(), reference, direction, depth)

    def usage(self) -> list[FeatureUsage]:
        """Return every feature with the services that use it, those that nobody uses last."""
        return usage(self.registry, self._indexed())

    def export(self) -> str:
        """Return all definitions of the registry as YAML, which applies to an equal registry.

        Raises
        ------
        DefinitionError
            An expression cannot be written so; the message names it.
        """
        return to_yaml(self.state())

    def _indexed(self) -> State:
        """Return the state, with what is derived from it written where it was not yet."""
        return self._applier.indexed(self.state())

    def _must_be_newest(self) -> None:
        if self._revision is not None:
            raise ConfigError("this store reads an old revision; change it with one opened without")

    def register_table(
        self,
        table: str,
        *,
        entity: str | None = None,
        join_keys: Sequence[str] | None = None,
        event_timestamp: str | None = None,
        created_timestamp: str | None = None,
        valid_from: str | None = None,
        valid_to: str | None = None,
        features: Sequence[str] | None = None,
        name: str | None = None,
        ttl: str | None = None,
        warehouse: str = "default",
        timezone: str = "UTC",
        dry_run: bool = False,
    ) -> Revision:
        """Register one existing table as a feature view, in one call that may be repeated.

        Without an entity its keys, times and features are found as :meth:`scan` finds them.

        Parameters
        ----------
        table
            Table or view in the warehouse.
        entity
            Name of the entity that the rows describe; made if there is none.
        join_keys
            Columns that name the entity; those of an entity that exists when None.
        event_timestamp, created_timestamp, valid_from, valid_to
            Time columns, as of a :class:`Source`.
        features
            Columns to offer; all but keys and times when None.
        name
            Name of the view; the table's own when None.
        dry_run
            Only plan: the revision returned is the current one, with the plan.

        Raises
        ------
        DefinitionError
            A column does not exist or does not fit, or the table's keys cannot be found.
        """
        state = self.state()

        def source_name(view: str) -> str:
            # A source of the definition files may have the table's name already; it stays theirs.
            taken = state.objects.get(("source", view))
            return view if taken is None or taken.origin == "registered" else f"{view}_table"

        view, doubts = table_view(
            self.warehouse(warehouse),
            table,
            state.project().entities,
            source_name,
            entity=entity,
            join_keys=join_keys,
            times={
                "event_timestamp": event_timestamp,
                "created_timestamp": created_timestamp,
                "valid_from": valid_from,
                "valid_to": valid_to,
            },
            features=features,
            name=name,
            ttl=ttl,
            timezone=timezone,
        )
        plan = self.plan([view], origin="registered")
        number = plan.base if dry_run else self.apply(plan).number
        return Revision(number, plan, doubts)

    def scan(
        self,
        warehouse: str = "default",
        *,
        schemas: Sequence[str] = (),
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        progress: Callable[[Sequence[CatalogTable]], Sequence[CatalogTable]] = list,
    ) -> Scan:
        """Read a warehouse's tables, and propose the definitions that a person would write.

        Catalogs and samples are read, for a few seconds a table at most; nothing is written.

        Parameters
        ----------
        schemas
            Schemas to look at; all when empty.
        include, exclude
            Patterns of names such as ``"sales.*"``.
        progress
            Wraps the tables while they are sampled.

        Returns
        -------
        Scan
            ``definitions`` are the views, to be planned or applied; ``to_python()`` is the text of
            a definition file.

        Raises
        ------
        UnsupportedByWarehouseError
            The warehouse's provider reads no catalog.
        """
        return scan_warehouse(
            self.warehouse(warehouse),
            schemas=schemas,
            include=include,
            exclude=exclude,
            progress=progress,
        )

    def scan_dbt(
        self,
        manifest: str | Path,
        warehouse: str = "default",
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
    ) -> Scan:
        """Read a dbt manifest, and propose definitions for the models that were built.

        Parameters
        ----------
        manifest
            Path of ``target/manifest.json``.
        include, exclude
            Patterns of model names.
        """
        opened = self.warehouse(warehouse)
        return scan_dbt(Path(manifest), opened, include=include, exclude=exclude)

    def list_features(self) -> list[dict[str, Any]]:
        """Return every feature of the registry: reference, type, entities, description."""
        state = self.state()
        views = {name: stored.view() for name, stored in state.of_kind("feature_view").items()}
        on_demand = [item.on_demand() for item in state.of_kind("on_demand_feature_view").values()]
        holders: list[ResolvedView | ResolvedOnDemand] = [*views.values(), *on_demand]
        entities = {name: view.entities for name, view in views.items()}
        for computed in on_demand:
            held = (entity for item in computed.inputs for entity in views[item.view].entities)
            entities[computed.name] = tuple(dict.fromkeys(held))
        return [
            {
                "feature": f"{view.name}:{feature.name}",
                "dtype": feature.dtype,
                "entities": list(entities[view.name]),
                "version": view.version,
                "description": feature.description,
            }
            for view in holders
            for feature in view.features
        ]

    # -- training

    def get_historical_features(
        self,
        spine: Any,
        features: Any,
        late_data: LateData = "include",
        timestamp: str = "event_timestamp",
        full_feature_names: bool = False,
    ) -> TrainingDataset:
        """Describe a training dataset: the spine's rows with features as of each row's instant.

        Parameters
        ----------
        spine
            pandas, polars or pyarrow table, record-batch reader, path of a Parquet or CSV file,
            Ibis table, or SQL text.
        features
            Name of a service or view, a list of ``"view:feature"`` references, or views; views
            need not be applied.
        late_data
            ``"include"`` goes by event time alone. ``"exclude"`` also needs a row's created
            timestamp to lie at or before the instant, which is what was truly known then; a
            source without one is judged by event time alone, and ``explain()`` says so.
        timestamp
            The spine's column of instants; naive ones are UTC.
        full_feature_names
            Whether every output column is called ``view__feature``.

        Returns
        -------
        TrainingDataset
            Lazy: nothing has run yet.

        Raises
        ------
        NotFoundError, SpineError
            A feature is not known; the spine does not fit the features.
        """
        state = self.state()
        selections = self.resolver.selections(features, state)
        if not selections:
            raise NotFoundError("no features were asked for; name a service, references or views")
        names = sorted({view.warehouse for item in selections for view in item.views})
        if len(names) > 1:
            raise UnsupportedByWarehouseError(
                f"the features lie in several warehouses ({', '.join(names)}); "
                "ask for those of one warehouse at a time"
            )
        # What is computed from a request alone is computed where the spine would be looked for.
        warehouse = self.warehouse(names[0] if names else "default")
        read = read_spine(spine, warehouse)
        if late_data not in ("include", "exclude"):
            raise SpineError(f"late_data is 'include' or 'exclude', not {late_data!r}")
        plan = plan_features(
            selections, read.columns, full_names=full_feature_names, late_data=late_data
        )
        if plan.deprecated:
            warn_deprecated(plan.deprecated, 2)
        found = read.check(plan, timestamp)
        # A spine of ours is in UTC.
        doubt = zone_doubt(found, plan, timestamp) if read is not spine else None
        context = {
            "project": self.config.project,
            "revision": state.revision,
            "service": features if isinstance(features, str) else None,
            "warehouse": warehouse.name,
            "doubts": [doubt] if doubt else [],
        }
        return TrainingDataset(warehouse, read, plan, timestamp, context, self.functions)

    def get_batch_features(
        self,
        features: Any,
        as_of: datetime | None = None,
        late_data: LateData = "include",
        full_feature_names: bool = False,
    ) -> TrainingDataset:
        """Describe the features of all entities that are known at one instant, to score them all.

        The spine is made in the warehouse: the keys that the views know then, each once, and the
        instant as ``event_timestamp``.

        Parameters
        ----------
        features
            As in :meth:`get_historical_features`. Views that have fewer keys join in; at least one
            must have them all.
        as_of
            The instant; now when None.

        Raises
        ------
        SpineError
            No view has all the keys, so that nothing says which combinations of them exist.
        """
        selections = self.resolver.selections(features, self.state())
        plan = plan_features(selections, (), late_data=late_data)
        if plan.request:
            raise SpineError(
                f"these features need what a request brings ({', '.join(plan.request)}), and a "
                "batch of all entities has none; use get_historical_features with a spine"
            )
        wanted = set(plan.key_columns)
        whole = [part for part in plan.parts if set(part.key_columns) == wanted]
        if not wanted or not whole:
            raise SpineError(
                "no view has all of the join keys "
                f"({', '.join(sorted(wanted)) or 'there are none'}), so nothing says which "
                "entities there are; use get_historical_features with a spine"
            )
        at = self.now() if as_of is None else utc(as_of, "as_of")
        capabilities = self.warehouse(whole[0].view.warehouse).capabilities
        spine = WarehouseSpine(
            *compile_known_keys(whole, at.replace(tzinfo=None), "event_timestamp", capabilities)
        )
        return self.get_historical_features(
            spine, features, late_data, full_feature_names=full_feature_names
        )

    def preview(self, view: Any, rows: int = 10) -> pd.DataFrame:
        """Return some source rows of a view as a pandas frame: keys, times, features.

        Parameters
        ----------
        view
            Name of an applied view, or a view that need not be applied.
        rows
            How many rows at most; which ones is the warehouse's choice.
        """
        resolved = self._view(view, self.state())
        warehouse = self.warehouse(resolved.warehouse)
        text = compile_preview(resolved, warehouse.capabilities, rows)
        with warehouse.session() as session:
            table = session.query(text, resolved.columns)
        frame: pd.DataFrame = table.to_pandas(types_mapper=nullable_pandas)
        return frame

    def why(
        self,
        feature: Any,
        keys: Mapping[str, Any],
        at: datetime | None = None,
        late_data: LateData = "include",
    ) -> Explanation:
        """Return why a feature has its value: the row behind it, and the rows that lost.

        Parameters
        ----------
        feature
            Reference, ``"view:feature"`` or ``"view@2:feature"``; ``view[["feature"]]`` of a view
            that need not be applied.
        keys
            The entity's join keys.
        at
            The instant; now when None. A naive one is UTC.

        Raises
        ------
        NotFoundError, SpineError
            The feature is not known; a key is missing or mistyped.
        """
        selections = self.resolver.selections([feature], self.state())
        names = [name for item in selections for name in item.features]
        (selection,) = selections
        if len(names) != 1:
            raise NotFoundError(
                "why asks of one feature; write 'view:feature', or view[['feature']] of a view "
                "that is not applied"
            )
        if isinstance(selection, OnDemandSelection):
            raise NotFoundError(
                f"{selection.view.label} is computed on demand, from "
                f"{', '.join(selection.view.reads([*names]))}; ask why of these"
            )
        if selection.view.is_aggregate:
            raise NotFoundError(
                f"{selection.view.label} holds aggregates, which stand for many rows, and why "
                "shows the one behind a latest value; look at the source's rows by preview()"
            )
        plan = plan_features(selections, ())
        (checked,) = entity_keys(plan, [dict(keys)])
        return explain_value(
            selection.view,
            names[0],
            checked,
            self.now() if at is None else utc(at, "at"),
            self.warehouse(selection.view.warehouse),
            late_data,
        )

    # -- online

    def get_online_features(
        self,
        features: Any,
        entities: Any,
        request: Any = None,
        max_age: timedelta | None = None,
    ) -> OnlineResponse:
        """Read feature values as of now, from the cache or else the warehouse.

        Parameters
        ----------
        features
            As in :meth:`get_historical_features`.
        entities
            A list of dicts of join keys, a dict of lists, or a table.
        request
            Request inputs of on-demand features: one dict for all entities, or a list with one for
            each, or a dict of lists.
        max_age
            How old a cached value may be, where that is less than its view's freshness; 0 asks the
            warehouse.

        Raises
        ------
        SpineError
            A join key or a request input is missing or mistyped.
        WarehouseError
            The warehouse is needed and cannot be reached.
        """
        return self.online.get(features, entities, request, max_age=max_age)

    async def get_online_features_async(
        self,
        features: Any,
        entities: Any,
        request: Any = None,
        max_age: timedelta | None = None,
    ) -> OnlineResponse:
        """Read feature values as of now without holding up the event loop."""
        return await self.online.get_async(features, entities, request, max_age)

    def get_features(
        self,
        features: Any,
        entities: Any,
        as_of: datetime | None = None,
        request: Any = None,
    ) -> OnlineResponse:
        """Read the features of some entities at one instant: online, or as of back then."""
        at = None if as_of is None else utc(as_of, "as_of")
        return self.online.get(features, entities, request, as_of=at)

    def push(self, view: Any, rows: Any) -> PushResult:
        """Put rows into the cache before the warehouse has them; the newer (event, created) wins.

        Parameters
        ----------
        view
            Name of an applied view of latest values, or the view.
        rows
            A table, a list of dicts or a dict of lists: join keys, the view's times, all features.

        Returns
        -------
        PushResult
            Rows written, and older ones that were dropped. A row stays until the warehouse has one
            at least as new, or its TTL ends.

        Raises
        ------
        SpineError
            Some rows are wrong or lie in the future; the message numbers them, none is pushed.
        NotFoundError
            The view is not known, or of a kind that takes no pushes.
        OnlineStoreError
            The cache does not answer; pushing the same rows again does no harm.
        """
        return self.online.push(self._view(view, self.state()), rows)

    def invalidate(self, view: Any, keys: Any = None) -> int:
        """Forget what the cache holds of a view, pushed rows too, and return how many rows.

        Parameters
        ----------
        view
            Name of an applied view, or the view.
        keys
            Join keys as `entities` of :meth:`get_online_features`; all of the view when None.

        Raises
        ------
        OnlineStoreError
            The cache does not answer, so that nothing is known to be forgotten.
        """
        return self.online.invalidate(self._view(view, self.state()), keys)

    def materialize(
        self,
        features: Any = None,
        entities: Any = None,
        *,
        hottest: int | None = None,
        incremental: bool = False,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> MaterializeResult:
        """Fill the cache with values as of now, with a progress bar on a terminal.

        A run that was killed within the last hour is taken up where it was.

        Parameters
        ----------
        features
            As in :meth:`get_historical_features`; all views that are offered online when None.
        entities
            Only these join keys, as in :meth:`get_online_features`.
        hottest
            Only so many keys of each view, those that were read most in the last 24 hours.
        incremental
            Only keys of which rows were written or became visible since the last run over all
            keys; late ones count. A view without created timestamp, or of aggregates, is read as a
            whole.
        start, end
            Only keys with an event at or after the one and before the other.

        Raises
        ------
        OnlineStoreError
            The cache does not answer, or has no room.
        """
        if features is None:
            features = self._online_views()
        which = None
        if incremental or start is not None or end is not None:
            if incremental and (start is not None or end is not None):
                raise SpineError("give incremental=True, or start= and end=")
            ends = [
                None if value is None else utc(value, name)
                for name, value in (("start", start), ("end", end))
            ]
            which = Range(incremental, *ends)
        return self.online.materialize(features, entities, hottest=hottest, which=which)

    def hot(self, features: Any = None, limit: int = 10) -> HotReport:
        """Return how the cache is used: hit ratio, hottest keys and memory, view by view.

        Parameters
        ----------
        features
            As in :meth:`get_historical_features`; all views that are offered online when None.
        limit
            How many of the hottest keys.
        """
        return self.online.hot(self._online_views() if features is None else features, limit)

    def _online_views(self) -> list[str]:
        found = self.state().of_kind("feature_view")
        return [name for name, stored in found.items() if stored.view().online]

    def _online_plan(self, features: Any, at_hand: bool) -> FeaturePlan:
        """Return the plan of an online read; those of names are kept while the registry stands."""

        def make(state: State) -> FeaturePlan:
            return plan_online(self.resolver.selections(features, state), at_hand=at_hand)

        names = _names(features)
        return make(self.state()) if names is None else self._recent.get((names, at_hand), make)

    def _known_plan(self, features: Any) -> FeaturePlan | None:
        names = _names(features)
        return None if names is None else self._recent.peek((names, True))

    def input_types(self, features: Any) -> tuple[dict[str, str], dict[str, str]]:
        """Return the join keys and the request inputs that features need, with their data types."""
        selections = self.resolver.selections(features, self.state())
        plan = plan_features(selections, ())
        return plan.key_columns, dict(plan.request)

    def now(self) -> datetime:
        """Return the instant of online reads: the configured clock, or the process's."""
        return self.config.clock or datetime.now(UTC)

    def online_store(self) -> OnlineStore:
        """Return where online rows are kept, opening it when first needed.

        Raises
        ------
        OnlineStoreError
            It cannot be reached.
        """
        return self.online.reader.cache.store

    # -- notebooks

    def table(self, view: Any, as_of: datetime | None = None) -> ir.Table:
        """Return a view as an Ibis table of its warehouse's connection.

        Parameters
        ----------
        view
            Name of an applied view (``"weather"``, ``"weather@2"``), or a view.
        as_of
            None gives every source row: keys, times, features. An instant gives one row per key,
            as the features were then.

        Times that the source keeps without a zone, in another than UTC, are given in UTC.
        """
        resolved = self._view(view, self.state())
        if resolved.is_aggregate and as_of is None:
            raise SpineError(
                f"{resolved.label} holds aggregates, which are values at an instant; give as_of=, "
                "or look at its source's rows by preview()"
            )
        warehouse = self.warehouse(resolved.warehouse)
        rows = warehouse.connection.sql(resolved.rows_sql, schema=resolved.columns)
        if as_of is None:
            return in_utc(rows, resolved, warehouse.capabilities)
        instant = utc(as_of, "as_of").replace(tzinfo=None)
        return view_as_of(rows, resolved, instant, warehouse.capabilities)

    # -- what is watched

    def check(self, views: Sequence[Any] | None = None) -> CheckReport:
        """Look for data that breaks what views assume of it, inside the warehouse.

        Parameters
        ----------
        views
            Names of applied views, or views; all applied ones when None.

        Returns
        -------
        CheckReport
            True when something was found: columns that are gone or have another type, NULL keys or
            times, times after now, rows that nothing tells apart, SCD2 rows that overlap; with
            counts and samples, and missing indexes.
        """
        state = self.state()
        if views is None:
            views = list(state.of_kind("feature_view"))
        resolved = [self._view(view, state) for view in views]
        drift = [item for view in resolved for item in self.resolver.drift(view, state)]
        broken = {item.view for item in drift if item.breaks}
        return check_views(
            [(v, self.warehouse(v.warehouse)) for v in resolved if v.label not in broken],
            self.now(),
            [str(item) for item in drift],
        )

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

    # -- what it stands on

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

    def _open(self, name: str, settings: Warehouse) -> OpenWarehouse:
        url = self.config.absolute_url(settings.url.get_secret_value())
        scheme, separator, _ = url.partition("://")
        if not separator:
            raise ConfigError(
                f"warehouses.{name}.url is not a URL; for a DuckDB file write duckdb://PATH"
            )
        opened: OpenWarehouse = load_provider(scheme, f"warehouses.{name}.url").open(
            name, settings, url, self.config.folder
        )
        return opened


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
