"""Feature views: latest values or aggregates of some columns, per entity and instant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import SerializeAsAny, field_validator, model_validator

from virtualfs.definitions.aggregate import Aggregate
from virtualfs.definitions.base import ApiName, Definition, Deprecated, FeatureName, Model, Name
from virtualfs.definitions.duration import Duration, PositiveDuration
from virtualfs.definitions.entity import Entity
from virtualfs.definitions.expression import Expression
from virtualfs.definitions.source import Source
from virtualfs.dtypes import DTypeName
from virtualfs.errors import DefinitionError, did_you_mean

__all__ = ["AnyView", "Feature", "FeatureSelection", "FeatureView"]

Boundary = Literal["inclusive", "exclusive"]


class Feature(Model):
    """One column of a feature view.

    Parameters
    ----------
    name
        Name of the feature; also the source column it is read from when there is no `expr`.
    expr
        Row-wise expression over the source's columns: an Ibis deferred (``_.temp <= 32``) or SQL
        text (``"temp <= 32"``). Aggregates, windows, subqueries, the clock and chance are refused.
    dtype
        Data type to cast to. A cast that could lose something is refused when planned.
    deprecated
        Why it should no longer be used, and what to use instead: callers are warned, and GraphQL
        says so.
    graphql_name
        How it is called in GraphQL; its name in camel case when empty.

    Examples
    --------
    >>> str(Feature("freezing", "temp <= 32").expr)
    'temp <= 32'
    """

    name: FeatureName
    expr: Expression | None = None
    dtype: DTypeName | None = None
    description: str = ""
    tags: dict[str, str] = {}
    deprecated: Deprecated = ""
    graphql_name: ApiName = ""

    def __init__(
        self,
        name: str,
        expr: Any = None,
        dtype: str | None = None,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        deprecated: str = "",
        graphql_name: str = "",
        **unknown: Any,
    ) -> None:
        Model.__init__(
            self,
            name=name,
            expr=expr,
            dtype=dtype,
            description=description,
            tags=tags or {},
            deprecated=deprecated,
            graphql_name=graphql_name,
            **unknown,
        )


class AnyView(Definition):
    """What views of every kind share: they are selected from, and used under other names."""

    deprecated: Deprecated = ""
    graphql_name: ApiName = ""

    if TYPE_CHECKING:
        features: tuple[Any, ...]

    def __getitem__(self, features: Sequence[str]) -> FeatureSelection:
        names = [features] if isinstance(features, str) else list(features)
        known = [feature.name for feature in self.features]
        for name in names:
            if name not in known:
                raise DefinitionError(
                    f"feature view {self.name!r} has no feature {name!r}. "
                    f"{did_you_mean(name, known)}"
                )
        return FeatureSelection(view=self, features=tuple(names))

    def with_name(self, name: str) -> FeatureSelection:
        """Return the view under another name, so that it can be used twice."""
        return FeatureSelection(view=self).with_name(name)

    def with_join_keys(self, join_keys: Mapping[str, str]) -> FeatureSelection:
        """Return the view matched on other spine columns: ``{"origin": "dest"}``.

        An on-demand view's inputs are.
        """
        return FeatureSelection(view=self).with_join_keys(join_keys)


class FeatureSelection(Model):
    """Some or all features of a view, perhaps under another name or other join keys.

    Made by ``view[["a", "b"]]``, ``view.with_name(...)`` and ``view.with_join_keys(...)``.
    """

    view: SerializeAsAny[AnyView] | Name
    features: tuple[FeatureName, ...] | None = None
    name: Name | None = None
    join_keys: dict[str, str] = {}

    @field_validator("view", mode="before")
    @classmethod
    def _is_view(cls, view: Any) -> Any:
        if not isinstance(view, str | AnyView):
            raise ValueError(f"expected a view or its name, not {type(view).__name__}")
        return view

    @property
    def view_name(self) -> str:
        """Name of the view that is selected from."""
        return self.view if isinstance(self.view, str) else self.view.name

    def with_name(self, name: str) -> FeatureSelection:
        """Return the selection under another name, used as the prefix of its features."""
        return FeatureSelection(**{**self._fields(), "name": name})

    def with_join_keys(self, join_keys: Mapping[str, str]) -> FeatureSelection:
        """Return the selection matched on other spine columns: ``{"origin": "dest"}``."""
        if isinstance(self.view, FeatureView):
            known = [
                key
                for entity in self.view.entities
                if isinstance(entity, Entity)
                for key in entity.join_keys
            ]
            for key in join_keys:
                if known and key not in known:
                    raise DefinitionError(
                        f"feature view {self.view_name!r} has no join key {key!r}. "
                        f"{did_you_mean(key, known)}"
                    )
        return FeatureSelection(**{**self._fields(), "join_keys": dict(join_keys)})

    def __getitem__(self, features: Sequence[str]) -> FeatureSelection:
        return FeatureSelection(**{**self._fields(), "features": tuple(features)})

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields}


class FeatureView(AnyView):
    """Features of one source that share keys, times and rules.

    Parameters
    ----------
    name
        Name of the view, unique in its project.
    source
        The :class:`Source`, or the name of one in the project.
    entities
        The :class:`Entity` objects, or their names; empty for features of the whole world.
    features
        :class:`Feature` objects, of which a plain string is one read from the column of that name,
        for the latest values; or :class:`Aggregate` objects, for windows over time.
    ttl
        Age (``t - event_timestamp``) beyond which a latest value counts as missing. An older row
        is never shown in its place.
    boundary
        Whether a row is visible at the very instant of its event: ``"inclusive"`` (the default of
        latest values) or ``"exclusive"`` (that of aggregates, so that a row which is predicted
        never counts itself).
    online
        Whether the view is offered for online reads.
    freshness
        How old a cached value may be before it is read from the warehouse again; None for ever.
    deprecated
        Why it should no longer be used, and what to use instead: callers are warned, and GraphQL
        says so.
    graphql_name
        How it is called in GraphQL; its name in camel case when empty.

    Raises
    ------
    DefinitionError
        A name stands twice, or the TTL does not fit the source.
    """

    source: Source | Name
    entities: tuple[Entity | Name, ...]
    features: tuple[Feature, ...] | tuple[Aggregate, ...]
    ttl: PositiveDuration | None = None
    boundary: Boundary | None = None
    online: bool = True
    freshness: Duration | None = timedelta(seconds=60)

    def __init__(
        self,
        name: str,
        *,
        source: Source | str,
        entities: Sequence[Entity | str],
        features: Sequence[Feature | Aggregate | str],
        ttl: str | timedelta | None = None,
        boundary: Boundary | None = None,
        online: bool = True,
        freshness: str | timedelta | None = "60s",
        description: str = "",
        owner: str = "",
        tags: Mapping[str, str] | None = None,
        deprecated: str = "",
        graphql_name: str = "",
        **unknown: Any,
    ) -> None:
        Model.__init__(
            self,
            name=name,
            source=source,
            entities=entities,
            features=features,
            ttl=ttl,
            boundary=boundary,
            online=online,
            freshness=freshness,
            description=description,
            owner=owner,
            tags=tags or {},
            deprecated=deprecated,
            graphql_name=graphql_name,
            **unknown,
        )

    @classmethod
    def from_ibis(
        cls,
        expr: Any,
        name: str,
        *,
        entities: Sequence[Entity | str],
        features: Sequence[Feature | str] | None = None,
        event_timestamp: str | None = None,
        created_timestamp: str | None = None,
        valid_from: str | None = None,
        valid_to: str | None = None,
        timezone: str = "UTC",
        availability_delay: str | timedelta | None = None,
        warehouse: str = "default",
        **options: Any,
    ) -> FeatureView:
        """Return a view of what an Ibis expression gives; it is stored as SQL when planned.

        Parameters
        ----------
        expr
            Ibis table of the warehouse's own tables.
        name
            Name of the view, and of its source.
        features
            As for a view; all columns but keys and times when None, for which the entities must be
            given themselves and not by name.
        event_timestamp, created_timestamp, valid_from, valid_to, timezone, availability_delay
            As for a :class:`Source`, with columns of the expression.
        options
            What else a view takes: ``ttl``, ``boundary``, ``online``, ``freshness``,
            ``description``, ``owner``, ``tags``, ``deprecated``.

        Raises
        ------
        DefinitionError
            It is no Ibis table, or the features cannot be told.

        Examples
        --------
        >>> import ibis
        >>> trips = ibis.table({"driver": "int64", "at": "timestamp", "km": "float64"}, "trips")
        >>> driver = Entity("driver", {"driver": "int64"})
        >>> long = trips.filter(trips.km > 100)
        >>> view = FeatureView.from_ibis(long, "long", entities=[driver], event_timestamp="at")
        >>> [feature.name for feature in view.features]
        ['km']
        """
        if not hasattr(expr, "schema") or not hasattr(expr, "op"):
            raise DefinitionError(
                f"FeatureView({name!r}): from_ibis takes an Ibis table, not {type(expr).__name__}"
            )
        keys = [key for entity in entities for key in getattr(entity, "join_keys", ())]
        if features is None:
            if not all(isinstance(entity, Entity) for entity in entities):
                raise DefinitionError(
                    f"FeatureView({name!r}): give features=, or the Entity objects, whose join "
                    "keys tell which columns are features"
                )
            fixed = {*keys, event_timestamp, created_timestamp, valid_from, valid_to}
            features = [column for column in expr.schema() if column not in fixed]
        for column in (*keys, event_timestamp, created_timestamp, valid_from, valid_to):
            if column is not None and column not in expr.schema():
                raise DefinitionError(
                    f"FeatureView({name!r}): the expression has no column {column!r}. "
                    f"{did_you_mean(column, expr.schema())}"
                )
        source = Source(
            name,
            expr=lambda _connection: expr,
            warehouse=warehouse,
            event_timestamp=event_timestamp,
            created_timestamp=created_timestamp,
            valid_from=valid_from,
            valid_to=valid_to,
            timezone=timezone,
            availability_delay=availability_delay,
        )
        return cls(name, source=source, entities=entities, features=features, **options)

    @field_validator("entities", "features", mode="before")
    @classmethod
    def _is_list(cls, value: Any) -> Any:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ValueError(f"this must be a list, not {type(value).__name__}")
        return value

    @field_validator("features", mode="before")
    @classmethod
    def _plain_columns(cls, features: Any) -> Any:
        kinds = {
            isinstance(item, Aggregate) or (isinstance(item, Mapping) and "function" in item)
            for item in features
        }
        if len(kinds) > 1:
            raise ValueError(
                "a view holds latest values or aggregates, not both; make two views of one source"
            )
        kind = Aggregate if True in kinds else Feature
        return tuple(
            kind(**({"name": item} if isinstance(item, str) else item))
            if isinstance(item, str | Mapping)
            else item
            for item in features
        )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.features:
            raise ValueError("a feature view needs at least one feature")
        check_names(
            self.features, "; give one of each a name= of its own" if self.aggregates else ""
        )
        if isinstance(self.source, Source):
            check_times(self, self.source)
        return self

    @property
    def aggregates(self) -> tuple[Aggregate, ...]:
        """The features, if they are aggregates; else nothing."""
        return tuple(item for item in self.features if isinstance(item, Aggregate))

    @property
    def source_name(self) -> str:
        """Name of the source."""
        return self.source if isinstance(self.source, str) else self.source.name

    @property
    def entity_names(self) -> tuple[str, ...]:
        """Names of the entities, in order."""
        return tuple(item if isinstance(item, str) else item.name for item in self.entities)


def check_names(features: Sequence[Any], hint: str = "") -> None:
    """Raise ValueError where two features have one name."""
    names = [feature.name for feature in features]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"features must have different names; twice: {', '.join(twice)}{hint}")


def check_times(view: FeatureView, source: Source) -> None:
    """Raise ValueError where the view's time rules contradict its source (DESIGN rules 2 and 4)."""
    if source.is_static and (view.ttl or view.boundary):
        raise ValueError(
            f"ttl= and boundary= need times, but source {source.name!r} has no event_timestamp="
        )
    if source.valid_from and (view.ttl or view.boundary):
        raise ValueError(
            f"source {source.name!r} says by valid_from= and valid_to= when its rows hold, so ttl= "
            "and boundary= do not apply; leave them out"
        )
    if view.aggregates:
        if source.is_static:
            raise ValueError(
                f"aggregates go by time, but source {source.name!r} has no event_timestamp="
            )
        if source.valid_from:
            raise ValueError(
                f"source {source.name!r} holds versions of rows (valid_from=) and not events, so "
                "there is nothing to aggregate over a window"
            )
        if view.ttl:
            raise ValueError("ttl= is for latest values; an aggregate's window says what counts")
    delay = source.availability_delay
    if view.ttl and delay and view.ttl <= delay:
        raise ValueError(
            "ttl= must be longer than the source's availability_delay=, else no row is ever visible"
        )
