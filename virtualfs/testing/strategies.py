"""Small, nasty cases of point-in-time joins: drawn by Hypothesis, or by the hundred from a seed.

Domains are tiny on purpose, so that ties, duplicates and edges are the rule: event and created
timestamps repeat, times lie on a boundary, a TTL or a delay give or take one microsecond, keys
look alike when joined as text, and anything may be NULL.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from virtualfs.definitions.entity import Entity
from virtualfs.definitions.feature_view import FeatureSelection, FeatureView
from virtualfs.definitions.source import Source
from virtualfs.testing import oracle

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ALL_KINDS", "Case", "Domain", "TimeKind", "batch", "cases", "time_type", "typed"]

TimeKind = Literal["naive", "zoned", "date", "nanoseconds"]
ALL_KINDS: tuple[TimeKind, ...] = ("naive", "zoned", "date", "nanoseconds")

_BASE = datetime(2024, 3, 10, 6, tzinfo=UTC)  # one hour before clocks change in New York
_ANCHORS = (timedelta(0), timedelta(hours=1), timedelta(hours=2), timedelta(days=1))
_KEYS: dict[str, list[Any]] = {"place": ["1", "12"], "number": [23, 3]}
_TYPES = {"place": "string", "number": "int64", "group": "int64"}
_FEATURES = ("id", "amount", "word")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Domain:
    """What a warehouse can hold, and so what cases may ask of it.

    Parameters
    ----------
    kinds
        Types of time columns of sources.
    zones
        Zones in which naive times may be meant.
    values
        Columns that aggregates are tried on: int64, float64, decimal, string and boolean.
    endless
        Whether floats may be NaN and infinite.
    """

    kinds: tuple[TimeKind, ...] = ALL_KINDS
    zones: tuple[str, ...] = ("UTC", "America/New_York", "Asia/Kolkata")
    values: tuple[str, ...] = ("whole", "real", "exact", "word", "truth")
    endless: bool = True


@dataclass(frozen=True)
class Case:
    """One view, its source's rows, a spine, and so one question with one answer.

    Parameters
    ----------
    spine_rows, source_rows
        Rows as dicts, in order. Times are what the oracle takes.
    join_keys
        The view's join keys, mapped to the spine's columns.
    event
        The source's column of event timestamps; None for a static source.
    created
        The source's column of created timestamps, if it has one.
    spine_kind, event_kind, created_kind
        How time columns are typed: naive, with a zone, as dates, or naive nanoseconds.
    ttl, boundary, delay, timezone
        Settings of view and source.
    valid_to
        The source's column of ends, if it is an SCD2 table; of the kind of `event`.
    late_data
        What the training set asks for.
    """

    spine_rows: tuple[dict[str, Any], ...]
    source_rows: tuple[dict[str, Any], ...]
    join_keys: dict[str, str]
    event: str | None
    created: str | None
    spine_kind: TimeKind
    event_kind: TimeKind
    created_kind: TimeKind
    ttl: timedelta | None
    boundary: Literal["inclusive", "exclusive"] | None
    delay: timedelta
    timezone: str
    valid_to: str | None = None
    late_data: Literal["include", "exclude"] = "include"
    timestamp: str = field(default="t", init=False)
    features: tuple[str, ...] = field(default=_FEATURES, init=False)

    def expected(self) -> list[list[tuple[Any, ...]]]:
        """Return, per spine row, the acceptable feature values, each row whole."""
        return [
            [tuple(row[name] if row else None for name in _FEATURES) for row in rows]
            for rows in self.winners(self.spine_rows)
        ]

    def winners(
        self, spine_rows: Sequence[dict[str, Any]], *, use_ttl: bool = True
    ) -> list[list[oracle.Row | None]]:
        """Return the oracle's answer for some spine rows, perhaps as if there were no TTL."""
        if "group" not in self.join_keys:
            return self._winners(spine_rows, self.source_rows, use_ttl=use_ttl)
        # Groups are cases of their own; the oracle's loops are spared what cannot match.
        rows: dict[int, list[dict[str, Any]]] = {}
        for row in self.source_rows:
            rows.setdefault(row["group"], []).append(row)
        return [
            answer
            for row in spine_rows
            for answer in self._winners([row], rows.get(row["group"], []), use_ttl=use_ttl)
        ]

    def _winners(
        self,
        spine_rows: Sequence[dict[str, Any]],
        source_rows: Sequence[dict[str, Any]],
        *,
        use_ttl: bool,
    ) -> list[list[oracle.Row | None]]:
        return oracle.latest(
            spine_rows,
            source_rows,
            join_keys=self.join_keys,
            event=self.event,
            created=self.created,
            valid_to=self.valid_to,
            late_data=self.late_data,
            timestamp=self.timestamp,
            ttl=self.ttl if use_ttl else None,
            boundary=self.boundary or "inclusive",
            delay=self.delay,
            timezone=self.timezone,
        )

    def view(self, table: str) -> FeatureView:
        """Return the feature view over a table that holds :meth:`source_table`."""
        source = Source(
            "case_source",
            table=table,
            event_timestamp=None if self.valid_to else self.event,
            created_timestamp=self.created,
            valid_from=self.event if self.valid_to else None,
            valid_to=self.valid_to,
            timezone=self.timezone,
            availability_delay=self.delay or None,
        )
        keys = {key: _TYPES[key] for key in self.join_keys}
        return FeatureView(
            "case_view",
            source=source,
            entities=[Entity("case_entity", keys)] if keys else [],
            features=list(_FEATURES),
            ttl=self.ttl,
            boundary=self.boundary,
        )

    def selection(self, table: str) -> FeatureSelection:
        """Return the view on the spine's own key columns."""
        return self.view(table).with_join_keys(self.join_keys)

    def source_table(self) -> pa.Table:
        """Return the source's rows as Arrow."""
        import pyarrow as pa

        schema = {key: _arrow(_TYPES[key]) for key in self.join_keys}
        if self.event:
            schema[self.event] = time_type(self.event_kind, "UTC")
        if self.valid_to:
            schema[self.valid_to] = time_type(self.event_kind, "UTC")
        if self.created:
            schema[self.created] = time_type(self.created_kind, "UTC")
        schema |= {"id": pa.int64(), "amount": pa.float64(), "word": pa.string()}
        return pa.table(
            {
                name: pa.array([row[name] for row in self.source_rows], kind)
                for name, kind in schema.items()
            }
        )

    def spine_table(self) -> pa.Table:
        """Return the spine as Arrow: a label, the keys around the timestamp, a value."""
        import pyarrow as pa

        kinds = {column: _arrow(_TYPES[key]) for key, column in self.join_keys.items()}
        first, rest = list(kinds)[:1], list(kinds)[1:]
        kinds |= {"label": pa.int64(), "weight": pa.float64()}
        kinds[self.timestamp] = time_type(self.spine_kind, "Asia/Kolkata")
        order = ["label", *first, self.timestamp, *rest, "weight"]
        return pa.table(
            {name: pa.array([row[name] for row in self.spine_rows], kinds[name]) for name in order}
        )

    def shifted(self, by: timedelta) -> Case:
        """Return the case with every time moved; its answer is the same."""

        def moved(row: dict[str, Any], names: Sequence[str | None]) -> dict[str, Any]:
            return {
                name: _moved(value, by) if name in names else value for name, value in row.items()
            }

        times = (self.event, self.created, self.valid_to)
        return replace(
            self,
            source_rows=tuple(moved(row, times) for row in self.source_rows),
            spine_rows=tuple(moved(row, [self.timestamp]) for row in self.spine_rows),
        )


def _moved(value: Any, by: timedelta) -> Any:
    if value is None:
        return None
    if isinstance(value, int):
        return value + by // timedelta(microseconds=1) * 1000
    return value + by


class _Choice(Protocol):
    """Where a case's accidents come from."""

    def of(self, values: Sequence[_T]) -> _T:
        """Return one of some values."""

    def below(self, stop: int) -> int:
        """Return an integer from 0 up to but not `stop`."""


class _Drawn:
    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def of(self, values: Sequence[_T]) -> _T:
        return self._draw(st.sampled_from(values))

    def below(self, stop: int) -> int:
        return self._draw(st.integers(0, stop - 1))


class _Seeded:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - cases, not secrets

    def of(self, values: Sequence[_T]) -> _T:
        return self._random.choice(values)

    def below(self, stop: int) -> int:
        return self._random.randrange(stop)


@st.composite
def cases(draw: st.DrawFn, *, static: bool | None = None, domain: Domain | None = None) -> Case:
    """Draw a case of up to 8 source rows and 6 spine rows.

    Parameters
    ----------
    static
        Whether the source has no times; either, when None.
    domain
        What the warehouse can hold; everything, when None.
    """
    choice = _Drawn(draw)
    case = _settings(choice, domain or Domain(), static=static)
    source_rows, spine_rows = _rows(choice, case)
    return replace(case, source_rows=source_rows, spine_rows=spine_rows)


def batch(seed: int, groups: int, domain: Domain | None = None) -> Case:
    """Return many cases with the same settings as one, told apart by one more join key.

    One query then answers them all. Equal arguments give equal cases.
    """
    choice = _Seeded(seed)
    case = _settings(choice, domain or Domain(), static=None)
    source_rows: list[dict[str, Any]] = []
    spine_rows: list[dict[str, Any]] = []
    for group in range(groups):
        of_source, of_spine = _rows(choice, case)
        source_rows += [{**row, "group": group} for row in of_source]
        spine_rows += [{**row, "group": group} for row in of_spine]
    return replace(
        case,
        source_rows=tuple(source_rows),
        spine_rows=tuple(spine_rows),
        join_keys={**case.join_keys, "group": "group"},
    )


def _settings(choice: _Choice, domain: Domain, *, static: bool | None) -> Case:
    """Return a case without rows."""
    is_static = choice.below(10) == 0 if static is None else static
    is_scd2 = not is_static and choice.below(6) == 0
    kinds: tuple[TimeKind, ...] = ("naive", *ALL_KINDS)
    own = ("naive", *domain.kinds)
    timezone = "UTC" if is_static else choice.of(("UTC", *domain.zones))
    hours = (None, timedelta(hours=1), timedelta(hours=2), timedelta(days=1))
    delay = (None if is_static else choice.of(hours)) or timedelta(0)
    ttl = None if is_static or is_scd2 else choice.of(hours)
    if ttl is not None and ttl <= delay:
        ttl = delay + choice.of((timedelta(microseconds=1), timedelta(hours=1)))
    boundaries: tuple[Literal["inclusive", "exclusive"] | None, ...] = (
        None,
        "inclusive",
        "exclusive",
    )
    late: tuple[Literal["include", "exclude"], ...] = ("include", "include", "exclude")
    names = choice.of((("place",), ("place", "number"), ("number",), ()))
    renamed = choice.of((False, True))
    return Case(
        spine_rows=(),
        source_rows=(),
        join_keys={name: f"spine_{name}" if renamed else name for name in names},
        event=None if is_static else "happened",
        created=None if is_static else choice.of((None, "written", "written")),
        spine_kind=choice.of(kinds),
        event_kind=choice.of(own),
        created_kind=choice.of(own),
        ttl=ttl,
        boundary=None if is_static or is_scd2 else choice.of(boundaries),
        delay=delay,
        timezone=timezone,
        valid_to="ended" if is_scd2 else None,
        late_data=choice.of(late),
    )


def _rows(
    choice: _Choice, case: Case
) -> tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...]]:
    """Return source rows and spine rows for a case's settings."""
    # Edges: a row's event lies on the spine's instant, or a delay or a TTL before it.
    steps = sorted({timedelta(0), case.delay, case.ttl or timedelta(0)})
    ticks = (-1000, -1, 0, 0, 0, 1, 1000)

    def time(kind: TimeKind, zone: str, *back: timedelta) -> Any:
        if choice.below(10) == 0:
            return None
        moment = _BASE + choice.of(_ANCHORS[:2] if back else _ANCHORS)
        moment -= choice.of([timedelta(0), *back])
        return typed(moment, choice.of(ticks), kind, zone)

    def keys() -> dict[str, Any]:
        return {name: choice.of((None, *_KEYS[name] * 4)) for name in case.join_keys}

    source_rows = []
    for number in range(choice.below(9)):
        row = keys()
        if case.event:
            row[case.event] = time(case.event_kind, case.timezone, *steps)
        if case.valid_to:
            row[case.valid_to] = time(case.event_kind, case.timezone)
        if case.created:
            row[case.created] = time(case.created_kind, case.timezone)
        row |= {"id": 2**53 + 1 + number, "amount": choice.of([None, 0.0, 0.1])}
        row["word"] = choice.of([None, "", "x"])
        source_rows.append(row)
    spine_rows: list[dict[str, Any]] = []
    for number in range(choice.below(7)):
        if spine_rows and choice.below(5) == 0:
            spine_rows.append(dict(choice.of(spine_rows)))
            continue
        columns = {case.join_keys[name]: value for name, value in keys().items()}
        columns |= {"label": number % 3, "weight": choice.of([None, 0.5])}
        spine_rows.append({**columns, case.timestamp: time(case.spine_kind, "UTC")})
    return tuple(source_rows), tuple(spine_rows)


def typed(moment: datetime, tick: int, kind: TimeKind, zone: str) -> Any:
    """Return an instant as a column of `kind` holds it; a tick is the kind's finest step."""
    wall = moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)
    if kind == "zoned":
        return moment + timedelta(microseconds=tick)
    if kind == "date":
        return wall.date()
    if kind == "naive":
        return wall + timedelta(microseconds=tick)
    return (wall - datetime(1970, 1, 1)) // timedelta(microseconds=1) * 1000 + tick


def time_type(kind: TimeKind, zone: str) -> pa.DataType:
    """Return the Arrow type of a kind of time column."""
    import pyarrow as pa

    return {
        "naive": pa.timestamp("us"),
        "zoned": pa.timestamp("us", zone),
        "date": pa.date32(),
        "nanoseconds": pa.timestamp("ns"),
    }[kind]


def _arrow(name: str) -> pa.DataType:
    import pyarrow as pa

    return {"string": pa.string(), "int64": pa.int64()}[name]
