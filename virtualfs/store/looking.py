"""The room for looking around: the catalog, its history, lineage, and the data under it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from virtualfs.compiler.instant import as_of as view_as_of
from virtualfs.compiler.instant import in_utc
from virtualfs.compiler.plan import (
    LateData,
    OnDemandSelection,
    ResolvedOnDemand,
    ResolvedView,
    plan_features,
)
from virtualfs.compiler.program import compile_preview
from virtualfs.dtypes import nullable_pandas
from virtualfs.errors import (
    NotFoundError,
    SpineError,
)
from virtualfs.monitoring.check import CheckReport, check_views
from virtualfs.registry.history import FeatureUsage, History, history, usage
from virtualfs.registry.lineage import Direction, Lineage, trace
from virtualfs.registry.search import SearchResult, search
from virtualfs.serving.request import entity_keys
from virtualfs.serving.service import utc
from virtualfs.serving.why import Explanation, explain_value

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd
from virtualfs.lookups import changed_type, check_type, is_same_type
from virtualfs.provider import rows_of
from virtualfs.store.base import StoreBase

__all__ = ["Looking"]


class Looking(StoreBase):
    """Reads what the registry holds, and the data under it."""

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

    def input_types(self, features: Any) -> tuple[dict[str, str], dict[str, str]]:
        """Return the join keys and the request inputs that features need, with their data types."""
        selections = self.resolver.selections(features, self.state())
        plan = plan_features(selections, ())
        return plan.key_columns, dict(plan.request)

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
        for name, dtype in warehouse.describe(resolved.rows_sql).items():
            if name in resolved.columns and not is_same_type(dtype, resolved.columns[name]):
                raise changed_type(name, resolved.columns[name], str(dtype))
        rows = rows_of(warehouse, resolved)
        if as_of is None:
            return in_utc(rows, resolved, warehouse.capabilities)
        instant = utc(as_of, "as_of").replace(tzinfo=None)
        return view_as_of(rows, resolved, instant, warehouse.capabilities)

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
        for name, column in zip(table.column_names, table.columns, strict=True):
            if name in resolved.columns:
                check_type(name, column.type, resolved.columns[name])
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
