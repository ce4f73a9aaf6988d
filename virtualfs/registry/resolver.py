"""From names and definitions to resolved views: references parsed, drafts resolved."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from virtualfs.compiler import sql
from virtualfs.compiler.on_demand import resolve_on_demand
from virtualfs.compiler.plan import (
    OnDemandSelection,
    ResolvedOnDemand,
    ResolvedView,
    Selection,
    in_folder,
)
from virtualfs.compiler.resolve import column_type, resolve_view
from virtualfs.compiler.source_sql import check_source, relation
from virtualfs.compiler.training_set import PREFIX
from virtualfs.definitions.base import Definition
from virtualfs.definitions.feature_service import FeatureService
from virtualfs.definitions.feature_view import FeatureSelection, FeatureView
from virtualfs.definitions.on_demand import OnDemandFeatureView
from virtualfs.definitions.project import VIEW_KINDS, Project, flatten, kind_in_words
from virtualfs.definitions.source import Source
from virtualfs.errors import (
    ConfigError,
    DefinitionError,
    NotFoundError,
    WarehouseError,
    did_you_mean,
)
from virtualfs.functions import PythonFunctions
from virtualfs.provider import Warehouse
from virtualfs.registry.drift import Drift, find_drift
from virtualfs.registry.repository import Registry
from virtualfs.registry.state import State, StoredObject

__all__ = ["AnySelection", "Resolver"]

_REFERENCE = re.compile(r"(?P<view>[^:@]+)(@(?P<version>\d+))?:(?P<feature>.+)")
_SERVICE = re.compile(r"(?P<service>[^:@]+)(@(?P<version>\d+))?")

AnySelection = Selection | OnDemandSelection
_View = TypeVar("_View", ResolvedView, ResolvedOnDemand)


class Resolver:
    """Answers "which views are meant?" for requests and plans.

    Parameters
    ----------
    warehouse
        Returns the warehouse of a name, opening it when first needed.
    folder
        The folder that relative paths are meant from.
    functions
        The Python functions that may run.
    check_path
        Refuses paths that sources may not read.
    """

    def __init__(
        self,
        registry: Registry,
        warehouse: Callable[[str], Warehouse],
        folder: Path,
        functions: PythonFunctions,
        check_path: Callable[[str], None],
    ) -> None:
        self._check_path = check_path
        self._registry = registry
        self._functions = functions
        self._folder = str(folder.resolve())
        self._warehouse = warehouse

    def resolve(self, project: Project, state: State, name: str) -> ResolvedView:
        """Resolve a view of a project against its warehouse.

        Raises
        ------
        DefinitionError
            It does not fit its source.
        """
        view = project.views[name]
        source = project.source_of(view)
        self._check_files(source)
        warehouse = self._warehouse(source.warehouse)
        stored = state.objects.get(("feature_view", name))
        rendered = {}
        if stored is not None:
            old = {f["name"]: _written(f) for f in stored.definition["features"]}
            new = {f.name: _written(f.model_dump(mode="json")) for f in view.features}
            kept = {
                f["name"]: (f.get("aggregate") or {}).get("where") or f["sql"]
                for f in stored.features
            }
            if (stored.resolved or {}).get("warehouse") == source.warehouse:
                same = (f for f, expr in new.items() if f in kept and old.get(f) == expr)
                rendered = {f: kept[f] for f in same}
        try:
            resolved = resolve_view(
                view,
                source,
                project.join_keys_of(view),
                warehouse.capabilities,
                lambda select: self._describe(warehouse, select),
                warehouse.judge,
                rendered,
            )
            forms = self._key_forms(warehouse, resolved)
        except WarehouseError as error:
            raise DefinitionError(
                f"feature view {name!r}, source {source.name!r}: {error}"
            ) from None
        resolved = resolved.model_copy(update={"key_forms": forms})
        if stored is not None and stored.fingerprint == resolved.fingerprint:
            return resolved.model_copy(update={"version": stored.version})
        return resolved

    def _key_forms(self, warehouse: Warehouse, view: ResolvedView) -> Mapping[str, str]:
        """Return how the warehouse compares the strings of a view's join keys, by column."""
        strings = [name for name, dtype in view.join_keys.items() if dtype == "string"]
        ask = getattr(warehouse, "key_forms", None)
        if not strings or ask is None:
            return {}
        return dict(ask(in_folder(view.rows_sql, self._folder), strings))

    def source_columns(self, source: Source) -> dict[str, str]:
        """Return the columns that a source has in its warehouse now, with their types.

        Raises
        ------
        WarehouseError
            It cannot be read.
        """
        self._check_files(source)
        warehouse = self._warehouse(source.warehouse)
        check_source(source, warehouse.judge)
        select = sql.select_all(relation(source, warehouse.capabilities), warehouse.capabilities)
        described = self._describe(warehouse, select)
        found = {name: column_type(dtype) for name, dtype in described.items()}
        if warehouse.capabilities.folds_case:  # the names may be written otherwise
            found = {**{name.lower(): dtype for name, dtype in found.items()}, **found}
        return found

    def _check_files(self, source: Source) -> None:
        if source.path is not None:
            try:
                self._check_path(source.path)
            except ConfigError as error:
                raise DefinitionError(f"source {source.name!r}: {error}") from None

    def drift(self, view: ResolvedView, state: State) -> list[Drift]:
        """Return how the source of an applied view differs from what it was applied with.

        Of a version that is no longer current, and of a view that is not applied, nothing is known.
        """
        stored = state.objects.get(("feature_view", view.name))
        if stored is None or stored.version != view.version:
            return []
        fields = state.objects["source", stored.definition["source"]].definition
        source = Source(**fields)
        return find_drift(
            view.label, source.name, view.source_columns, lambda: self.source_columns(source)
        )

    def _describe(self, warehouse: Warehouse, select: str) -> Mapping[str, Any]:
        return warehouse.describe(in_folder(select, self._folder))

    def resolve_on_demand(
        self, project: Project, state: State, views: Mapping[str, ResolvedView], name: str
    ) -> ResolvedOnDemand:
        """Resolve an on-demand view of a project against the views that it reads.

        Raises
        ------
        DefinitionError, PermissionDeniedError
            An expression does not fit its inputs; a function is not to be found, or not allowed.
        """
        view = project.on_demand[name]
        stored = state.objects.get(("on_demand_feature_view", name))
        kept = {}
        if stored is not None:
            written = {f["name"]: f["expr"] for f in stored.definition["features"]}
            trees = {f.name: f.tree for f in stored.on_demand().features}
            for feature in view.features:
                tree = trees.get(feature.name)
                if tree and written[feature.name] == feature.model_dump(mode="json")["expr"]:
                    kept[feature.name] = tree
        where = f"on-demand feature view {name!r}"
        source = self._functions.source_hash(view.function, where) if view.function else None
        resolved = resolve_on_demand(view, views, source, kept)
        if stored is not None and stored.fingerprint == resolved.fingerprint:
            return resolved.model_copy(update={"version": stored.version})
        return resolved

    def close_sources(self, definitions: Iterable[Any]) -> list[Any]:
        """Turn sources given as Ibis functions into queries, by running each function once."""

        def closed(item: Any) -> Any:
            if isinstance(item, Source) and item.expr is not None:
                return self._as_query(item)
            if isinstance(item, FeatureView) and isinstance(item.source, Source):
                return item.model_copy(update={"source": closed(item.source)})
            if isinstance(item, FeatureSelection) and not isinstance(item.view, str):
                return item.model_copy(update={"view": closed(item.view)})
            if isinstance(item, OnDemandFeatureView):
                inputs = tuple(closed(selection) for selection in item.inputs)
                return item.model_copy(update={"inputs": inputs})
            if isinstance(item, FeatureService):
                features = tuple(closed(selection) for selection in item.features)
                return item.model_copy(update={"features": features})
            return item

        return [closed(item) for item in flatten(definitions)]

    def _as_query(self, source: Source) -> Source:
        warehouse = self._warehouse(source.warehouse)
        try:
            import ibis.expr.operations as ops

            table = source.expr(warehouse.connection)  # type: ignore[misc]
            if table.op().find(ops.InMemoryTable):
                raise ValueError(
                    "it holds rows of this process (a memtable, pandas), which will be gone; write "
                    "them into a table of the warehouse first"
                )
            capabilities = warehouse.capabilities
            text = sql.render_query(table, capabilities)
        except Exception as error:
            raise DefinitionError(
                f"source {source.name!r}: expr= failed: {type(error).__name__}: {error}"
            ) from error
        return source.as_query(text)

    def selections(self, features: Any, state: State) -> list[AnySelection]:
        """Return what a request's `features` mean: a service, references, views or selections.

        A saved training set, or its reference, means its own features, transformed.

        A single name is a service, or else a view with all its features.

        Raises
        ------
        NotFoundError
            A name is not in the registry.
        """
        reference = getattr(features, "reference", features)
        is_view = ("feature_view", PREFIX.rstrip(":")) in state.objects
        if isinstance(reference, str) and reference.startswith(PREFIX) and not is_view:
            return self._registry.training_sets.referred(reference).selections(self._folder)
        if isinstance(features, str) and ":" not in features:
            return self._service(features, state)
        if isinstance(features, str | Definition | FeatureSelection):
            features = [features]
        if not isinstance(features, Sequence):
            raise NotFoundError(
                "features must be a service's name, a list of 'view:feature' references, or views"
            )
        found: list[AnySelection] = []
        drafts = [item for item in features if not isinstance(item, str)]
        closed = iter(self.close_sources(drafts))
        for item in features:
            if isinstance(item, str):
                found += self._reference(item, state)
            else:
                found += self._draft(next(closed), state)
        return found

    def view(self, name: str, state: State, version: int | None = None) -> ResolvedView:
        """Return an applied view, the current version unless one is named.

        Raises
        ------
        NotFoundError
            There is no such view, or it never had that version.
        """
        if version is None and "@" in name:
            name, _, number = name.partition("@")
            version = int(number) if number.isdigit() else None
        stored = self._stored("feature_view", name, version, state)
        return _marked(stored.view().placed(self._folder), stored, state)

    def version_of(self, reference: str, state: State) -> tuple[str, int]:
        """Return the name and version of ``view@2`` or ``service@2``.

        Raises
        ------
        NotFoundError
            There is no such version.
        """
        name, _, number = reference.partition("@")
        if not number.isdigit():
            raise NotFoundError(f"{reference!r} names no version; write for example {name}@1")
        kinds = (*VIEW_KINDS, "feature_service")
        found = [kind for kind in kinds if self._registry.version(kind, name, int(number))]
        if len(found) > 1:
            raise NotFoundError(
                f"{reference} is a view's and a service's, and cannot tell which; rename one"
            )
        if not found:
            hint = did_you_mean(name, [other for kind in kinds for other in state.names(kind)])
            raise NotFoundError(f"there is no version {number} of {name!r}. {hint}")
        return name, int(number)

    def _view_of(
        self, name: str, version: int | None, state: State
    ) -> tuple[ResolvedView | ResolvedOnDemand, Mapping[str, int]]:
        """Return an applied view of either kind, and the versions that it reads."""
        kind = "on_demand_feature_view"
        is_known = ("feature_view", name) in state.objects
        if (kind, name) not in state.objects and (
            is_known or version is None or self._registry.version(kind, name, version) is None
        ):
            return self.view(name, state, version), {}
        stored = self._stored(kind, name, version, state)
        return _marked(stored.on_demand(), stored, state), stored.pins

    def _stored(self, kind: str, name: str, version: int | None, state: State) -> StoredObject:
        what = kind_in_words(kind)
        current = state.objects.get((kind, name))
        if current is not None and version in (None, current.version):
            return current
        if version is not None:
            old = self._registry.version(kind, name, version)
            if old is not None:
                return old
            if current is not None:
                raise NotFoundError(
                    f"{what} {name!r} has no version {version}; it is at {current.version}"
                )
        known = VIEW_KINDS if kind in VIEW_KINDS else (kind,)
        hint = did_you_mean(name, [other for kind in known for other in state.names(kind)])
        raise NotFoundError(f"there is no {what} {name!r} in the registry. {hint}")

    def _service(self, text: str, state: State) -> list[AnySelection]:
        match = _SERVICE.fullmatch(text)
        if match is None:
            raise NotFoundError(f"{text!r} is not a service's name")
        version = int(match["version"]) if match["version"] else None
        service = match["service"]
        is_service = ("feature_service", service) in state.objects
        if not is_service and any((kind, service) in state.objects for kind in VIEW_KINDS):
            return self._reference(text, state)
        if not is_service and version is None:
            kinds = ("feature_service", *VIEW_KINDS)
            known = [name for kind in kinds for name in state.names(kind)]
            saved = self._registry.training_sets.all(service, 1)
            hint = did_you_mean(service, known)
            if saved:
                hint = f"The saved training set is called {saved[0].reference}."
            raise NotFoundError(
                f"there is no feature service or view {service!r} in the registry. {hint}"
            )
        stored = self._stored("feature_service", service, version, state)
        definition = FeatureService(**stored.definition)
        text = state.deprecation(stored)
        said = (
            (f"feature service {service}@{stored.version} is deprecated: {text}",) if text else ()
        )
        state.objects.load([(kind, name) for kind in VIEW_KINDS for name in stored.pins])
        found = (
            self._applied(item, state, stored.pins[item.view_name]) for item in definition.features
        )
        return [replace(selection, deprecated=said) for selection in found]

    def _reference(self, text: str, state: State) -> list[AnySelection]:
        if text.startswith(PREFIX) and "@" in text:
            raise NotFoundError(
                f"{text} is asked for alone, as one name and not in a list: it is all the columns "
                "of a model"
            )
        match = _REFERENCE.fullmatch(text) or _SERVICE.fullmatch(text)
        name = match and match.group(1)
        is_view = any((kind, name) in state.objects for kind in VIEW_KINDS)
        if match is None or ("feature" not in match.groupdict() and not is_view):
            known = [view for kind in VIEW_KINDS for view in state.names(kind)]
            raise NotFoundError(
                f"{text!r} is not a reference; write 'view:feature', or 'view@2:feature'. "
                f"{did_you_mean(text, known)}"
            )
        feature = match.groupdict().get("feature")
        selection = FeatureSelection(view=str(name), features=(feature,) if feature else None)
        return [
            self._applied(selection, state, int(match["version"]) if match["version"] else None)
        ]

    def _applied(
        self, selection: FeatureSelection, state: State, version: int | None
    ) -> AnySelection:
        """Return a selection of an applied view, with what it reads in the versions it pins."""
        view, pins = self._view_of(selection.view_name, version, state)
        reads = {name: self.view(name, state, pin) for name, pin in pins.items()}
        return self._select(selection, view, reads)

    def _draft(self, item: Any, state: State) -> list[AnySelection]:
        project = Project.of([item], base=state.project())
        if isinstance(item, FeatureService):
            return [one for part in item.features for one in self._draft(part, state)]
        name = item.view_name if isinstance(item, FeatureSelection) else item.name
        selection = item if isinstance(item, FeatureSelection) else FeatureSelection(view=name)
        if name not in project.on_demand:
            return [self._select(selection, self.resolve(project, state, name), {})]
        names = dict.fromkeys(project.on_demand[name].input_names)
        reads = {one: self.resolve(project, state, one) for one in names}
        on_demand = self.resolve_on_demand(project, state, reads, name)
        return [self._select(selection, on_demand, reads)]

    def _select(
        self,
        selection: FeatureSelection,
        view: ResolvedView | ResolvedOnDemand,
        reads: Mapping[str, ResolvedView],
    ) -> AnySelection:
        for feature in selection.features or ():
            if feature not in view.feature_names:
                raise NotFoundError(
                    f"feature view {view.label} has no feature {feature!r}. "
                    f"{did_you_mean(feature, view.feature_names)}"
                )
        features, name = selection.features or view.feature_names, selection.name or view.name
        if isinstance(view, ResolvedView):
            return Selection(view.placed(self._folder), features, name, selection.join_keys)
        inputs = []
        for item in view.inputs:
            read = reads[item.view].placed(self._folder)
            # Both say which spine column holds a key: the input first, then who uses the view.
            keys = {key: item.join_keys.get(key, key) for key in read.join_keys}
            keys = {key: selection.join_keys.get(column, column) for key, column in keys.items()}
            inputs.append(Selection(read, item.features, item.name, keys))
        return OnDemandSelection(view, features, name, tuple(inputs))


def _marked(view: _View, stored: StoredObject, state: State) -> _View:
    """Return a view with what is said against the version that it is."""
    text = state.deprecation(stored)
    return view if text == view.deprecated else view.model_copy(update={"deprecated": text})


def _written(feature: Mapping[str, Any]) -> Any:
    """Return the expression in a feature's fields, or the condition in an aggregate's."""
    return feature.get("expr", feature.get("where"))
