"""The room of definitions: planned, applied, registered, taken back, promoted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from virtualfs.catalog import CatalogTable
from virtualfs.definitions.project import load_definitions
from virtualfs.discovery.dbt import scan_dbt
from virtualfs.discovery.findings import Scan
from virtualfs.discovery.reader import scan_warehouse
from virtualfs.discovery.register import table_view
from virtualfs.errors import BreakingChangeError, PlanConflictError
from virtualfs.provider import load_server
from virtualfs.registry.export import to_yaml
from virtualfs.registry.plan import Plan, Revision
from virtualfs.registry.records import Environment
from virtualfs.store.base import StoreBase

__all__ = ["Defining"]

_TRIES = 5
"""Plans of one apply, while others apply other objects meanwhile."""
_PREPARED = 500
"""Views whose look-ups are compiled when they are applied; others are by their first."""


class Defining(StoreBase):
    """Changes what the registry holds."""

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
        plan = self._planner.plan(objects, prune=prune, origin=origin)
        if not self.config.server.trusted_documents:
            return plan
        broken = load_server().broken_documents(self, plan)
        return replace(plan, warnings=(*plan.warnings, *broken))

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
        if isinstance(objects_or_plan, Iterable):
            objects_or_plan = list(objects_or_plan)
        if isinstance(objects_or_plan, Plan):
            revision = self._applier.apply(objects_or_plan, allow_breaking=allow_breaking)
            return self._applied(revision)
        for _ in range(_TRIES):
            plan = self.plan(objects_or_plan, prune=prune)
            try:
                return self._applied(self._applier.apply(plan, allow_breaking=allow_breaking))
            except BreakingChangeError:
                raise
            except PlanConflictError:
                if not self._is_unrelated(plan):
                    raise
        return self._applied(self._applier.apply(plan, allow_breaking=allow_breaking))

    def _is_unrelated(self, plan: Plan) -> bool:
        """Tell whether what was applied since a plan was made changed none of its objects."""
        if plan.environment != self.registry.environment:
            return False
        before, now = self.registry.state(plan.base).objects, self.registry.state().objects
        return all(before.written(write.key) == now.written(write.key) for write in plan.writes)

    def _applied(self, revision: Revision) -> Revision:
        """Compile the look-ups of views that were applied, so that the next process need not."""
        state = self.state()
        names = [write.key[1] for write in revision.plan.writes if write.key[0] == "feature_view"]
        self.online.prepare(
            self.resolver.view(name, state)
            for name in names[:_PREPARED]
            if ("feature_view", name) in state.objects
        )
        return revision

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
        plan = self._planner.promotion(source, target)
        if dry_run:
            return Revision(plan.revision or 0, plan)
        return self._applier.apply(plan, allow_breaking=allow_breaking)

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

    def export(self) -> str:
        """Return all definitions of the registry as YAML, which applies to an equal registry.

        Raises
        ------
        DefinitionError
            An expression cannot be written so; the message names it.
        """
        return to_yaml(self.state())
