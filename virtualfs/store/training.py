"""The room of training sets."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from virtualfs.compiler.leakage import with_variants
from virtualfs.compiler.plan import LateData, plan_features
from virtualfs.compiler.training_set import PREFIX
from virtualfs.errors import NotFoundError, SpineError, did_you_mean, warn_deprecated
from virtualfs.monitoring.leakage import (
    LeakageReport,
    holders_of,
    judge_rows,
    judge_static,
    made_of_the_label,
)
from virtualfs.provider import Warehouse
from virtualfs.serving.service import utc
from virtualfs.store.base import StoreBase
from virtualfs.training.dataset import TrainingDataset
from virtualfs.training.known_keys import spine_of_known_keys
from virtualfs.training.relation import rows_of_dataset
from virtualfs.training.saved import TrainingSet
from virtualfs.training.site import sites_of
from virtualfs.training.spine import (
    WarehouseSpine,
    connection_of,
    is_sql,
    read_spine,
)
from virtualfs.training.spine_fit import zone_doubt

__all__ = ["Training"]


class Training(StoreBase):
    """Builds point-in-time training sets."""

    def get_historical_features(
        self,
        spine: Any,
        features: Any,
        late_data: LateData | None = None,
        timestamp: str = "event_timestamp",
        full_feature_names: bool = False,
        warehouse: str | None = None,
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
            ``"include"``, the default, goes by event time alone. ``"exclude"`` also needs a row's
            created timestamp to lie at or before the instant, which is what was truly known then; a
            source without one is judged by event time alone, and ``explain()`` says so. A saved
            training set goes by what it was saved with, unless told otherwise.
        timestamp
            The spine's column of instants; naive ones are UTC.
        full_feature_names
            Whether every output column is called ``view__feature``.
        warehouse
            The warehouse that a spine given as SQL text is meant in. When None that of the
            features, or ``default`` where they lie in several. The spine may live in another
            warehouse than any feature.

        Returns
        -------
        TrainingDataset
            Lazy: nothing has run yet.

        Notes
        -----
        Features of several warehouses are each computed where they live, side by side; only their
        keys and instants are sent there, and the answers meet in this process by row id. What
        expressions make of features of several warehouses is computed where they meet.

        Raises
        ------
        NotFoundError, SpineError
            A feature is not known; the spine does not fit the features.
        """
        state = self.state()
        selections = self.resolver.selections(features, state)
        if not selections:
            raise NotFoundError("no features were asked for; name a service, references or views")
        # What is computed from a request alone is computed where the spine would be looked for.
        names = {view.warehouse for item in selections for view in item.views} or {"default"}
        home = self._home(spine, names, warehouse)
        read = read_spine(spine, home)
        late_data = late_data or self._saved_late_data(features)
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
        sites = sites_of(plan, read, timestamp, home, self.warehouse)
        named = getattr(features, "reference", features)
        context = {
            "project": self.config.project,
            "revision": state.revision,
            "service": named if isinstance(named, str) else None,
            "warehouses": [site.warehouse.name for site in sites if site.has_work],
            "doubts": [doubt] if doubt else [],
        }
        return TrainingDataset(sites, read, plan, timestamp, context, selections, self.shelf)

    def check_leakage(
        self,
        spine: Any,
        features: Any,
        label: str,
        timestamp: str = "event_timestamp",
        late_data: LateData | None = None,
        warehouse: str | None = None,
    ) -> LeakageReport:
        """Look for what leaks into a training set.

        Every feature is computed a second time without the rows that were written after the
        instant, and, where its source holds the label, without the instant's own row; sources
        without times are looked at for changes; and features are compared with the label. All is
        computed in the warehouse; over several, where their answers meet.

        Parameters
        ----------
        spine, features, timestamp, late_data, warehouse
            As in :meth:`get_historical_features`, and as the training set is asked for.
        label
            The spine's column of what is to be predicted.

        Returns
        -------
        LeakageReport
            True when something leaks or may; ``str()`` tells it in words.

        Raises
        ------
        SpineError
            The spine has no such label.
        """
        dataset = self.get_historical_features(
            spine, features, late_data, timestamp, warehouse=warehouse
        )
        columns = dataset.spine.columns
        if label not in columns:
            raise SpineError(f"the spine has no label {label!r}. {did_you_mean(label, columns)}")
        views = {part.view.label: part.view for part in dataset.plan.parts}
        holders = holders_of(label, views.values(), self.warehouse)
        plan, variants = with_variants(dataset.plan, holders)
        read = dataset.spine
        if isinstance(read, WarehouseSpine):
            label_type = read.schema[label]
        else:  # the other columns stay here
            whole = read.whole()
            label_type = whole.dtype(label)
            wanted = {*plan.key_columns, *plan.request, timestamp, label}
            read = whole.only([name for name in columns if name in wanted])
        sites = sites_of(plan, read, timestamp, dataset.sites[0].warehouse, self.warehouse)
        checked = replace(dataset, sites=sites, spine=read, plan=plan)
        dtypes = {label: str(label_type).lstrip("!"), **plan.dtypes()}
        with rows_of_dataset(checked) as held:
            first = held.first(timestamp) if timestamp in read.columns else None
            rows, leaks = judge_rows(
                held.session, held.capabilities, held.select, dtypes, dataset.plan, variants,
                label, holders,
            )  # fmt: skip
        for view in views.values():
            if view.event_timestamp is None:
                leaks += judge_static(view, self.warehouse(view.warehouse), first, rows)
        leaks += made_of_the_label(views.values(), dataset.plan, holders, rows)
        unjudged = [
            f"{view.label}: whether rows arrived late, as its source has no created_timestamp="
            for view in views.values()
            if view.event_timestamp and view.created_timestamp is None
        ]
        if not holders:
            unjudged.append(
                f"which views read the label's table: no source has a column called {label!r}; "
                "call the label as its column is called"
            )
        ordered = sorted(leaks, key=lambda leak: not leak.is_sure)
        return LeakageReport(rows, label, dataset.plan.columns, tuple(ordered), tuple(unjudged))

    def training_set(
        self, name: str, version: int | None = None, *, verify: bool = True
    ) -> TrainingSet:
        """Return a saved training set, its newest version unless one is named.

        Parameters
        ----------
        name
            As it was saved, or with its version: ``"delays@2"``.
        verify
            Whether all of its rows are read and compared with their hash.

        Raises
        ------
        NotFoundError
            There is none.
        TrainingSetDamagedError
            It is not what was saved, or is gone.
        """
        name = name.removeprefix(PREFIX)
        if version is None and "@" in name:
            name, number = self.registry.training_sets.split(name)
            version = number
        found = self.shelf.opened(self.registry.training_sets.get(name, version))
        if verify:
            found.verify()
        return found

    def training_sets(self, name: str | None = None) -> list[TrainingSet]:
        """Return the saved training sets, or the versions of one, the newest first."""
        return [self.shelf.opened(record) for record in self.registry.training_sets.all(name)]

    def _saved_late_data(self, features: Any) -> LateData:
        """Return the lateness that a saved training set was made with; that of others is none."""
        reference = getattr(features, "reference", features)
        if not isinstance(reference, str) or not reference.startswith(PREFIX):
            return "include"
        saved = self.registry.training_sets.referred(reference)
        return "exclude" if saved.metadata.get("late_data") == "exclude" else "include"

    def _home(self, spine: Any, names: set[str], given: str | None) -> Warehouse:
        """Return the warehouse that a spine in SQL or Ibis lives in, or would."""
        if given is not None:
            return self.warehouse(given)
        connection = connection_of(spine)
        known = sorted(self._warehouses.items(), key=lambda item: item[0] not in names)
        for _, opened in known:
            if connection is not None and opened.connection is connection:
                return opened
        if len(names) == 1 or not is_sql(spine):
            return self.warehouse(min(names))
        if "default" in {*self.config.warehouses, *self._warehouses}:
            return self.warehouse()
        raise SpineError(
            f"the features lie in several warehouses ({', '.join(sorted(names))}) of which none is "
            f"called default; say in which the spine's SQL is meant: warehouse={min(names)!r}"
        )

    def get_batch_features(
        self,
        features: Any,
        as_of: datetime | None = None,
        late_data: LateData = "include",
        full_feature_names: bool = False,
    ) -> TrainingDataset:
        """Describe the features of all entities that are known at one instant, to score them all.

        The spine is made in the warehouse: the keys that the views know then, each once, and the
        instant as ``event_timestamp``. Views of several warehouses are asked for their keys, which
        this process then holds.

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
        spine = spine_of_known_keys(whole, at, self.warehouse)
        return self.get_historical_features(
            spine,
            features,
            late_data,
            full_feature_names=full_feature_names,
            warehouse=whole[0].view.warehouse,
        )
