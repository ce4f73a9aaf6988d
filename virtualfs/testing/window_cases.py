"""Cases of aggregates over windows by the hundred, and how the oracle judges them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from virtualfs.definitions.aggregate import FUNCTIONS, Aggregate
from virtualfs.definitions.entity import Entity
from virtualfs.definitions.feature_view import FeatureView
from virtualfs.definitions.source import Source
from virtualfs.testing import oracle
from virtualfs.testing.house import DAY, HOUR, House, rows_of
from virtualfs.testing.strategies import Domain, TimeKind, time_type, typed

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["WindowCase", "ask_windows", "judge_windows", "window_batch"]

_BASE = datetime(2024, 3, 10, 6, tzinfo=UTC)  # one hour before clocks change in New York
_LENGTHS = (None, timedelta(hours=1), timedelta(hours=2), timedelta(days=1))
_NUMBERS = ("count", "sum", "mean", "std", "var", "min", "max", "count_distinct", "quantile",
            "median", "first", "last")  # fmt: skip
_FUNCTIONS = {
    "whole": _NUMBERS,
    "real": _NUMBERS,
    "exact": _NUMBERS,
    "word": ("count", "min", "max", "count_distinct", "first", "last"),
    "truth": ("count", "sum", "mean", "count_distinct", "last"),
}
_VALUES: dict[str, list[Any]] = {
    "whole": [None, 0, 1, -3, 7, 2**40],
    "real": [None, 0.0, 0.1, -2.5, 1e9 + 0.25, 1e9 + 1.5],
    "exact": [None, Decimal("0.10"), Decimal("-7.25"), Decimal("123456.78")],
    "word": [None, "", "a", "b"],
    "truth": [None, True, False],
}


@dataclass(frozen=True)
class WindowCase:
    """Some aggregates, their source's rows, a spine, and so one question with one answer.

    Parameters
    ----------
    counted
        The aggregates, each with what it is over, as a function of a row.
    created
        The source's column of created timestamps, if it has one.
    spine_kind, event_kind
        How time columns are typed.
    """

    counted: tuple[tuple[Aggregate, Callable[[oracle.Row], Any]], ...]
    columns: tuple[str, ...]
    created: str | None
    spine_kind: TimeKind
    event_kind: TimeKind
    boundary: Literal["inclusive", "exclusive"] | None
    delay: timedelta
    timezone: str
    late_data: Literal["include", "exclude"]
    spine_rows: tuple[dict[str, Any], ...] = ()
    source_rows: tuple[dict[str, Any], ...] = ()

    def view(self, table: str) -> FeatureView:
        """Return the feature view over a table that holds :meth:`source_table`."""
        source = Source(
            "window_source",
            table=table,
            event_timestamp="happened",
            created_timestamp=self.created,
            timezone=self.timezone,
            availability_delay=self.delay or None,
        )
        return FeatureView(
            "window_view",
            source=source,
            entities=[Entity("window_entity", {"place": "string", "group": "int64"})],
            features=[aggregate for aggregate, _ in self.counted],
            boundary=self.boundary,
            freshness="0s",
        )

    def source_table(self) -> pa.Table:
        """Return the source's rows as Arrow."""
        import pyarrow as pa

        kinds = {"whole": pa.int64(), "real": pa.float64(), "exact": pa.decimal128(10, 2),
                 "word": pa.string(), "truth": pa.bool_()}  # fmt: skip
        schema = {"place": pa.string(), "group": pa.int64(),
                  "happened": time_type(self.event_kind, "UTC")}  # fmt: skip
        if self.created:
            schema[self.created] = time_type("naive", "UTC")
        schema |= {name: kinds[name] for name in self.columns}
        return pa.table(
            {
                name: pa.array([row[name] for row in self.source_rows], kind)
                for name, kind in schema.items()
            }
        )

    def spine_table(self) -> pa.Table:
        """Return the spine as Arrow."""
        import pyarrow as pa

        kinds = {"label": pa.int64(), "place": pa.string(), "group": pa.int64(),
                 "t": time_type(self.spine_kind, "Asia/Kolkata")}  # fmt: skip
        return pa.table(
            {
                name: pa.array([row[name] for row in self.spine_rows], kind)
                for name, kind in kinds.items()
            }
        )

    def expected(self) -> dict[str, list[list[list[Any]]]]:
        """Return, by aggregate and spine row, the oracle's values in groups of one rank."""
        by_group: dict[int, list[dict[str, Any]]] = {}
        for row in self.source_rows:
            by_group.setdefault(row["group"], []).append(row)
        return {
            aggregate.name: [
                oracle.windowed(
                    [row],
                    by_group.get(row["group"], []),
                    join_keys={"place": "place", "group": "group"},
                    event="happened",
                    value=value,
                    window=aggregate.window,
                    offset=aggregate.offset or timedelta(0),
                    created=self.created,
                    late_data=self.late_data,
                    timestamp="t",
                    boundary=self.boundary or "exclusive",
                    delay=self.delay,
                    timezone=self.timezone,
                )[0]
                for row in self.spine_rows
            ]
            for aggregate, value in self.counted
        }


def window_batch(
    seed: int, groups: int, house: House, functions: Sequence[str] = FUNCTIONS
) -> WindowCase:
    """Return many cases with the same aggregates as one, told apart by a join key."""
    chance = random.Random(seed)  # noqa: S311 - cases, not secrets
    domain = house.domain
    can = house.store.warehouse().capabilities
    counted: dict[str, tuple[Aggregate, Callable[[oracle.Row], Any]]] = {}
    while len(counted) < 8:
        aggregate, value = _drawn_aggregate(chance, domain)
        if aggregate.function in {*can.aggregates} & {*functions} and (
            can.collect is not None or aggregate.n is None
        ):
            counted[aggregate.name] = aggregate, value
    case = WindowCase(
        counted=tuple(counted.values()),
        columns=domain.values,
        created=chance.choice((None, "written", "written")),
        spine_kind=chance.choice(("naive", "zoned", "date", "nanoseconds")),
        event_kind=chance.choice(("naive", *domain.kinds)),
        boundary=chance.choice((None, "inclusive", "exclusive")),
        delay=chance.choice((timedelta(0), timedelta(hours=1))),
        timezone=chance.choice(("UTC", *domain.zones)),
        late_data=chance.choice(("include", "exclude")),
    )
    steps = [timedelta(0), timedelta(hours=1), timedelta(hours=2), timedelta(hours=3), DAY]

    def time(kind: TimeKind, zone: str) -> Any:
        if chance.random() < 0.08:
            return None
        moment = _BASE + chance.choice((timedelta(0), HOUR)) - chance.choice(steps)
        return typed(moment, chance.choice((-1000, -1, 0, 0, 0, 1, 1000)), kind, zone)

    source_rows, spine_rows = [], []
    for group in range(groups):
        for _ in range(chance.randrange(10)):
            row = {"place": chance.choice((None, "a", "a", "a", "b")), "group": group}
            row["happened"] = time(case.event_kind, case.timezone)
            if case.created:
                row[case.created] = time("naive", case.timezone)
            row |= {name: chance.choice(_VALUES[name]) for name in case.columns}
            source_rows.append(row)
        spine_rows += [
            {"label": label, "place": chance.choice((None, "a", "a", "b")), "group": group,
             "t": time(case.spine_kind, "UTC")}
            for label in range(chance.randrange(5))
        ]  # fmt: skip
    return replace(case, source_rows=tuple(source_rows), spine_rows=tuple(spine_rows))


def _drawn_aggregate(
    chance: random.Random, domain: Domain
) -> tuple[Aggregate, Callable[[oracle.Row], Any]]:
    window, offset = chance.choice(_LENGTHS), chance.choice((None, None, HOUR))
    where = chance.choice((None, None, "whole > 0"))
    column = chance.choice(domain.values)
    function = chance.choice(_FUNCTIONS[column])
    n = chance.choice((None, 1, 3)) if function in ("first", "last") else None
    q = chance.choice((0.0, 0.25, 0.9)) if function == "quantile" else None
    if chance.random() < 0.15:
        column, function, n, q = "*", "count", None, None

    def value(row: oracle.Row) -> Any:
        if where is not None and not (row["whole"] is not None and row["whole"] > 0):
            return None
        return 1 if column == "*" else row[column]

    plain = Aggregate(column, function, window, offset=offset, n=n, q=q)
    name = plain.name + ("" if where is None else "_where")
    return Aggregate(
        column, function, window, offset=offset, n=n, q=q, where=where, name=name
    ), value


def _check(aggregate: Aggregate, groups: Sequence[Sequence[Any]], found: Any, where: str) -> None:
    """Assert that a value is what the oracle's groups of values say."""
    function = aggregate.function
    if function in ("first", "last"):
        _check_in_order(aggregate, groups, found, where)
        return
    expected = oracle.aggregated(function, groups, aggregate.q)
    if isinstance(expected, float) and found is not None:
        close = 1e-9 if function in ("std", "var") else 1e-12
        spread = max((abs(float(v)) for g in groups for v in g), default=0.0)
        least = spread * 1e-7 if function == "std" else spread * spread * 1e-14
        assert math.isclose(
            found, expected, rel_tol=close, abs_tol=least if function in ("std", "var") else 0
        ), f"{where}: {found} is not {expected}"
    else:
        assert type(found) is type(expected), f"{where}: {found!r} is not {expected!r}"
        assert found == expected, f"{where}: {found!r} is not {expected!r}"


def _check_in_order(
    aggregate: Aggregate, groups: Sequence[Sequence[Any]], found: Any, where: str
) -> None:
    if not groups:
        assert found is None, where
        return
    if aggregate.n is None:
        wanted = groups[0] if aggregate.function == "first" else groups[-1]
        assert found in wanted, f"{where}: {found!r} is none of {wanted!r}"
        return
    # Whole groups in order; of the one that is cut, any of its values.
    ordered = list(groups) if aggregate.function == "first" else list(groups)[::-1]
    rest = list(found) if aggregate.function == "first" else list(found)[::-1]
    assert len(rest) == min(aggregate.n, sum(map(len, groups))), f"{where}: {found!r}"
    for group in ordered:
        head, rest = rest[: len(group)], rest[len(group) :]
        left = list(group)
        for value in head:
            assert value in left, f"{where}: {found!r} is not of {groups!r}"
            left.remove(value)


def ask_windows(house: House, case: WindowCase, table: str = "source") -> Any:
    """Return the dataset of a case over a table of some name."""
    house.put(table, case.source_table())
    return house.store.get_historical_features(
        case.spine_table(), [case.view(table)], case.late_data, timestamp="t"
    )


def judge_windows(case: WindowCase, result: pa.Table) -> None:
    """Assert that a result is exactly what the oracle accepts."""
    own = case.spine_table()
    names = [aggregate.name for aggregate, _ in case.counted]
    assert result.column_names == [*own.column_names, *names]
    assert rows_of(result.select(own.column_names)) == rows_of(own)
    expected = case.expected()
    for aggregate, _ in case.counted:
        found = result.column(aggregate.name).to_pylist()
        for row, (groups, value) in enumerate(zip(expected[aggregate.name], found, strict=True)):
            _check(aggregate, groups, value, f"{aggregate} of spine row {case.spine_rows[row]}")
