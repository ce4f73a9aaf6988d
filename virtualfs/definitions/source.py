"""Sources: where the rows of a feature view lie, and which columns hold their times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Self
from zoneinfo import ZoneInfo

from pydantic import Field, PrivateAttr, field_validator, model_validator

from virtualfs.definitions.base import Definition, FeatureName, Model, Name
from virtualfs.definitions.duration import PositiveDuration

__all__ = ["Source"]


class Source(Definition):
    """Rows in a warehouse: a table, a query, an Ibis expression or files.

    Parameters
    ----------
    name
        Name of the source, unique in its project.
    table
        Table or view, dotted where it needs a schema or catalog: ``"sales.orders"``.
    query
        One SQL SELECT in the warehouse's own dialect.
    expr
        Function of an Ibis connection that returns an Ibis table. It is run once, when the
        definition is planned, and stored as SQL.
    path
        Parquet or CSV file or glob, for a warehouse that reads files (DuckDB).
    warehouse
        Name of the warehouse in the configuration.
    columns
        Source column names mapped to the names used in views: ``{"faa": "origin"}``.
    event_timestamp
        Column of the instant at which a row became true. Without it the source is static: it has
        one row per key and carries no point-in-time guarantee.
    created_timestamp
        Column of the instant at which a row was written; of rows with equal keys and event
        timestamps the one created last wins.
    timezone
        Zone in which naive timestamps and dates of this source are meant.
    availability_delay
        How long after its event timestamp a row can be known.
    valid_from, valid_to
        Columns of a slowly changing dimension (SCD2): a row is true from the first instant until
        just before the second; a NULL `valid_to` is open. They take the place of
        `event_timestamp`.

    Raises
    ------
    DefinitionError
        Not exactly one of `table`, `query`, `expr` and `path` is given, or a field is malformed.

    Examples
    --------
    >>> Source("weather", table="weather", event_timestamp="time_hour").is_static
    False
    """

    table: str | None = None
    query: str | None = None
    path: str | None = None
    warehouse: Name = "default"
    columns: dict[str, FeatureName] = {}
    event_timestamp: str | None = None
    created_timestamp: str | None = None
    timezone: str = "UTC"
    availability_delay: PositiveDuration | None = None
    valid_from: str | None = None
    valid_to: str | None = None
    from_expr: bool = Field(default=False, repr=False, exclude=True)
    _expr: Callable[[Any], Any] | None = PrivateAttr(default=None)

    def __init__(
        self,
        name: str,
        *,
        table: str | None = None,
        query: str | None = None,
        expr: Callable[[Any], Any] | None = None,
        path: str | None = None,
        warehouse: str = "default",
        columns: Mapping[str, str] | None = None,
        event_timestamp: str | None = None,
        created_timestamp: str | None = None,
        timezone: str = "UTC",
        availability_delay: str | timedelta | None = None,
        valid_from: str | None = None,
        valid_to: str | None = None,
        description: str = "",
        owner: str = "",
        tags: Mapping[str, str] | None = None,
        **unknown: Any,
    ) -> None:
        if expr is not None:
            unknown["from_expr"] = True
        Model.__init__(
            self,
            name=name,
            table=table,
            query=query,
            path=path,
            warehouse=warehouse,
            columns=columns or {},
            event_timestamp=event_timestamp,
            created_timestamp=created_timestamp,
            timezone=timezone,
            availability_delay=availability_delay,
            valid_from=valid_from,
            valid_to=valid_to,
            description=description,
            owner=owner,
            tags=tags or {},
            **unknown,
        )
        self._expr = expr

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (KeyError, ValueError, OSError):
            raise ValueError(
                f"{zone!r} is not a time zone; write an IANA name such as 'America/New_York'"
            ) from None
        return zone

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        places = sum(place is not None for place in (self.table, self.query, self.path))
        places += self.from_expr
        if places != 1:
            raise ValueError("give exactly one of table=, query=, expr= and path=")
        if bool(self.valid_from) != bool(self.valid_to):
            raise ValueError("valid_from= and valid_to= go together; give both columns")
        if self.valid_from and self.event_timestamp:
            raise ValueError(
                "event_timestamp= and valid_from= say two things about time; give "
                "event_timestamp= for a log of rows, valid_from= and valid_to= for an SCD2 table"
            )
        if self.created_timestamp and self.is_static:
            raise ValueError("created_timestamp= orders rows in time, so it needs event_timestamp=")
        if self.availability_delay and self.is_static:
            raise ValueError("availability_delay= counts from event_timestamp=, which is missing")
        if len(set(self.columns.values())) != len(self.columns):
            raise ValueError("columns= maps two columns to one name")
        return self

    @property
    def is_static(self) -> bool:
        """Whether rows carry no time, so that no point-in-time guarantee is possible."""
        return self.event_time is None

    @property
    def event_time(self) -> str | None:
        """Column of the instant from which a row holds; None for a static source."""
        return self.event_timestamp or self.valid_from

    @property
    def expr(self) -> Callable[[Any], Any] | None:
        """The function that makes the table; None once stored, as it is then a query."""
        return self._expr

    def as_query(self, sql: str) -> Source:
        """Return this source with its Ibis function replaced by the SQL that it made."""
        return Source(**{**self.model_dump(), "query": sql})
