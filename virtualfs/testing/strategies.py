"""Hypothesis strategies that make small, nasty cases of point-in-time joins.

Domains are tiny on purpose, so that ties, duplicates and edges are the rule: event and created
timestamps repeat, times lie on a boundary, a TTL or a delay give or take one microsecond, keys
look alike when joined as text, and anything may be NULL.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from virtualfs.definitions.entity import Entity
from virtualfs.definitions.feature_view import FeatureSelection, FeatureView
from virtualfs.definitions.source import Source
from virtualfs.testing import oracle

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Case", "TimeKind", "cases"]

TimeKind = Literal["naive", "zoned", "date", "nanoseconds"]

_BASE = datetime(2024, 3, 10, 6, tzinfo=UTC)  # one hour before clocks change in New York
_ANCHORS = [timedelta(0), timedelta(hours=1), timedelta(hours=2), timedelta(days=1)]
_KEYS: dict[str, list[Any]] = {"place": ["1", "12"], "number": [23, 3]}
_TYPES = {"place": "string", "number": "int64"}
_FEATURES = ("id", "amount", "word")


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

    timestamp = "t"
    features = _FEATURES

    def expected(self) -> list[list[tuple[Any, ...]]]:
        """Return, per spine row, the acceptable feature values, each row whole."""
        return [
            [tuple(row[name] if row else None for name in _FEATURES) for row in rows]
            for rows in self.winners(self.spine_rows)
        ]

    def winners(
        self, spine_rows: tuple[dict[str, Any], ...], *, use_ttl: bool = True
    ) -> list[list[oracle.Row | None]]:
        """Return the oracle's answer for some spine rows, perhaps as if there were no TTL."""
        return oracle.latest(
            spine_rows,
            self.source_rows,
            join_keys=self.join_keys,
            event=self.event,
            created=self.created,
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
            event_timestamp=self.event,
            created_timestamp=self.created,
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
            schema[self.event] = _time_type(self.event_kind, "UTC")
        if self.created:
            schema[self.created] = _time_type(self.created_kind, "UTC")
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
        kinds[self.timestamp] = _time_type(self.spine_kind, "Asia/Kolkata")
        order = ["label", *first, self.timestamp, *rest, "weight"]
        return pa.table(
            {name: pa.array([row[name] for row in self.spine_rows], kinds[name]) for name in order}
        )


@st.composite
def cases(draw: st.DrawFn, *, static: bool | None = None) -> Case:
    """Draw a case.

    Parameters
    ----------
    static
        Whether the source has no times; either, when None.

    Returns
    -------
    SearchStrategy of Case
        Up to 8 source rows and 6 spine rows.
    """
    is_static = draw(st.integers(0, 9)) == 0 if static is None else static
    kinds: st.SearchStrategy[TimeKind] = st.sampled_from(
        ("naive", "naive", "zoned", "date", "nanoseconds")
    )
    zones = st.sampled_from(("UTC", "UTC", "America/New_York", "Asia/Kolkata"))
    timezone = "UTC" if is_static else draw(zones)
    hours = st.sampled_from((None, timedelta(hours=1), timedelta(hours=2), timedelta(days=1)))
    delay = (None if is_static else draw(hours)) or timedelta(0)
    ttl = None if is_static else draw(hours)
    if ttl is not None and ttl <= delay:
        ttl = delay + draw(st.sampled_from((timedelta(microseconds=1), timedelta(hours=1))))
    boundaries: st.SearchStrategy[Literal["inclusive", "exclusive"] | None] = st.sampled_from(
        (None, "inclusive", "exclusive")
    )
    boundary = None if is_static else draw(boundaries)
    created = None if is_static else draw(st.sampled_from((None, "written", "written")))
    names = draw(st.sampled_from((("place",), ("place", "number"), ("number",), ())))
    renamed = draw(st.booleans())
    join_keys = {name: f"spine_{name}" if renamed else name for name in names}
    spine_kind, event_kind, created_kind = draw(kinds), draw(kinds), draw(kinds)

    # Edges: a row's event lies on the spine's instant, or a delay or a TTL before it.
    steps = sorted({timedelta(0), delay, ttl or timedelta(0)})
    ticks = st.sampled_from((-1000, -1, 0, 0, 0, 1, 1000))

    def time(kind: TimeKind, zone: str, *back: timedelta) -> Any:
        if draw(st.integers(0, 9)) == 0:
            return None
        anchors = _ANCHORS[:2] if back else _ANCHORS
        moment = _BASE + draw(st.sampled_from(anchors))
        moment -= draw(st.sampled_from([timedelta(0), *back]))
        return _typed(moment, draw(ticks), kind, zone)

    def keys() -> dict[str, Any]:
        return {name: draw(st.sampled_from((None, *_KEYS[name] * 4))) for name in names}

    def nullable(values: list[Any]) -> Any:
        return draw(st.sampled_from([None, *values]))

    source_rows = []
    for number in range(draw(st.integers(0, 8))):
        row = keys()
        if not is_static:
            row["happened"] = time(event_kind, timezone, *steps)
        if created:
            row["written"] = time(created_kind, timezone)
        row |= {"id": 2**53 + 1 + number, "amount": nullable([0.0, 0.1])}
        row["word"] = nullable(["", "x"])
        source_rows.append(row)
    spine_rows: list[dict[str, Any]] = []
    for number in range(draw(st.integers(0, 6))):
        if spine_rows and draw(st.integers(0, 4)) == 0:
            spine_rows.append(dict(draw(st.sampled_from(spine_rows))))
            continue
        columns = {join_keys[name]: value for name, value in keys().items()}
        columns |= {"label": number % 3, "weight": nullable([0.5])}
        spine_rows.append({**columns, "t": time(spine_kind, "UTC")})
    return Case(
        spine_rows=tuple(spine_rows),
        source_rows=tuple(source_rows),
        join_keys=join_keys,
        event=None if is_static else "happened",
        created=created,
        spine_kind=spine_kind,
        event_kind=event_kind,
        created_kind=created_kind,
        ttl=ttl,
        boundary=boundary,
        delay=delay,
        timezone=timezone,
    )


def _typed(moment: datetime, tick: int, kind: TimeKind, zone: str) -> Any:
    """Return an instant as a column of `kind` holds it; a tick is the kind's finest step."""
    wall = moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)
    if kind == "zoned":
        return moment + timedelta(microseconds=tick)
    if kind == "date":
        return wall.date()
    if kind == "naive":
        return wall + timedelta(microseconds=tick)
    return (wall - datetime(1970, 1, 1)) // timedelta(microseconds=1) * 1000 + tick


def _time_type(kind: TimeKind, zone: str) -> pa.DataType:
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
