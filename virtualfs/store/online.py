"""The room of online reads, and of what fills the cache."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from virtualfs.compiler.plan import LateData
from virtualfs.errors import (
    SpineError,
)
from virtualfs.provider import OnlineStore
from virtualfs.serving.materialize import MaterializeResult, Range
from virtualfs.serving.push import PushResult
from virtualfs.serving.response import OnlineResponse
from virtualfs.serving.service import HotReport, utc
from virtualfs.store.base import StoreBase

__all__ = ["Online"]


class Online(StoreBase):
    """Reads features as of now, and fills the cache."""

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
        late_data: LateData = "include",
    ) -> OnlineResponse:
        """Read the features of some entities at one instant: online, or as of back then.

        Parameters
        ----------
        late_data
            As in :meth:`get_historical_features`; only with `as_of`.

        Raises
        ------
        SpineError
            Late data can be left out only of what is read from the warehouse as of an instant.
        """
        at = None if as_of is None else utc(as_of, "as_of")
        if at is None and late_data != "include":
            raise SpineError('late_data="exclude" needs as_of=: what is read as of now counts it')
        return self.online.get(features, entities, request, as_of=at, late_data=late_data)

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

    def online_store(self) -> OnlineStore:
        """Return where online rows are kept, opening it when first needed.

        Raises
        ------
        OnlineStoreError
            It cannot be reached.
        """
        return self.online.reader.cache.store
