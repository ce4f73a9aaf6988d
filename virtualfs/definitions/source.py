"""Sources: where the rows of a feature view lie, and which columns hold their times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import Field, PrivateAttr, field_validator, model_validator

from virtualfs.definitions.base import Definition, FeatureName, Model, Name
from virtualfs.definitions.duration import PositiveDuration

__all__ = ["FileFormat", "PartitionUnit", "Source"]

FileFormat = Literal["parquet", "csv", "delta"]
PartitionUnit = Literal["year", "month", "day", "hour", "date"]
# Written only where it is said, so that definitions of before are as they were.
_SAID = Field(exclude_if=lambda value: value in (None, {}))


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
        Parquet or CSV file or glob (``"lake/**/*.parquet"``), or the folder of a Delta table, for a
        warehouse that reads files (DuckDB). Local, or a URL of object storage: ``s3://``, ``gs://``,
        ``abfss://``, with credentials from the environment.
    format
        ``"parquet"``, ``"csv"`` or ``"delta"``, where the path's name does not end in it; a name
        without an ending is a Delta table.
    version, as_of
        Which state of a Delta table is read; the newest when neither is given.
    partitions
        Columns that folders are named by (``year=2024/month=05``), with what of the event timestamp
        each says: ``"year"``, ``"month"``, ``"day"``, ``"hour"``, or ``"date"`` for a whole day
        (``2024-05-01``). Folders outside of a spine's time range are not read, so they must say
        the truth, which ``virtualfs check`` looks at.
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
    format: Annotated[FileFormat | None, _SAID] = None
    version: Annotated[int | None, _SAID] = None
    as_of: Annotated[datetime | None, _SAID] = None
    partitions: Annotated[dict[str, PartitionUnit], _SAID] = {}
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
        format: FileFormat | None = None,  # noqa: A002 - as it is called in the field
        version: int | None = None,
        as_of: datetime | str | None = None,
        partitions: Mapping[str, PartitionUnit] | None = None,
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
            format=format,
            version=version,
            as_of=as_of,
            partitions=partitions or {},
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

    @field_validator("as_of")
    @classmethod
    def _in_utc(cls, instant: datetime | None) -> datetime | None:
        if instant is None:
            return None
        return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)

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
        self._check_files()
        if len(set(self.columns.values())) != len(self.columns):
            raise ValueError("columns= maps two columns to one name")
        return self

    def _check_files(self) -> None:
        if self.path is None:
            for name in ("format", "version", "as_of", "partitions"):
                if getattr(self, name) not in (None, {}):
                    raise ValueError(f"{name}= is about files: it goes with path=")
            return
        known = self.file_format
        if (self.version, self.as_of) != (None, None) and known != "delta":
            raise ValueError(
                f"version= and as_of= are of tables that keep their history, and {self.path!r} is "
                f"read as {known}; a Delta table is named by its folder"
            )
        if self.version is not None and self.as_of is not None:
            raise ValueError("version= and as_of= both say which state is read; give one")
        if self.version is not None and self.version < 0:
            raise ValueError("version= counts from 0")
        units = list(self.partitions.values())
        if units and self.is_static:
            raise ValueError("partitions= say when rows happened, so they need event_timestamp=")
        if len(set(units)) != len(units):
            raise ValueError("partitions= says one thing of two columns")
        for coarse, fine in pairwise(("year", "month", "day", "hour")):
            if fine in units and not {coarse, "date"} & {*units}:
                raise ValueError(f"partitions= says the {fine} but not the {coarse}; give both")

    @property
    def file_format(self) -> FileFormat | None:
        """What the files at ``path`` are; None where there is none.

        Raises
        ------
        ValueError
            Neither the path's name nor ``format`` says it.
        """
        if self.path is None or self.format is not None:
            return self.format
        name = self.path.rstrip("/").rpartition("/")[2].lower()
        for ending in (".gz", ".zst"):
            name = name.removesuffix(ending)
        if name.endswith((".csv", ".tsv")):
            return "csv"
        if name.endswith(".parquet"):
            return "parquet"
        if "." in name or "*" in name:
            raise ValueError(
                f"path={self.path!r} does not say what the files are: expected a name that ends in "
                ".parquet, .csv or .csv.gz, or the folder of a Delta table; or give format="
            )
        return "delta"

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
