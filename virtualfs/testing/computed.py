"""On-demand features for any warehouse: what its SQL says is what this process computes.

The two sides share no code but the reading of expressions, so each is the other's oracle; what both
could get wrong alike is judged by cases worked by hand.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from virtualfs.definitions.entity import Entity
from virtualfs.definitions.feature_view import Feature, FeatureView
from virtualfs.definitions.on_demand import OnDemandFeatureView
from virtualfs.definitions.source import Source
from virtualfs.errors import VirtualFSError
from virtualfs.testing.house import HOUR, NOON, House, as_output, as_spine, rows_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Computed"]

_ROWS = 80
_NAN, _INF = math.nan, math.inf
_WHOLE = [None, 0, 1, -1, 2, 3, -7, 11]
_REAL = [
    None,
    0.0,
    -0.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    0.1,
    1e-3,
    123.456,
    -1e6,
    3.0,
    0.49999999999999994,
]
_TEXT = [None, "", "a", "ab", "b", "Ä", "日本", "a'b", "%", "\\"]
_TIMES = [
    None,
    datetime(1969, 12, 31, 23, 59, 59, 500_000),
    datetime(2024, 2, 29, 13, 7, 59, 999_999),
    datetime(2000, 1, 1),
    datetime(2038, 1, 19, 3, 14, 8),
]
_DAYS = [None, date(2024, 2, 29), date(1999, 12, 31), date(2024, 3, 3)]


def _column(chance: random.Random, options: list[Any]) -> list[Any]:
    return [chance.choice(options) for _ in range(_ROWS)]


def _table(chance: random.Random, house: House) -> pa.Table:
    """Return one row per key, of every type that expressions take."""
    import pyarrow as pa

    exact: list[Any] = [None, Decimal("0.10"), Decimal("-7.25")]
    if "exact" not in house.domain.values:
        exact = [None, 0.1, -7.25]
    reals = [*_REAL, _NAN, _INF, -_INF] if house.domain.endless else _REAL
    return pa.table(
        {
            "k": pa.array(range(_ROWS), pa.int64()),
            "at": pa.array([NOON - HOUR] * _ROWS, pa.timestamp("us")),
            "i": pa.array(_column(chance, _WHOLE), pa.int32()),
            "j": pa.array(_column(chance, _WHOLE), pa.int64()),
            "x": pa.array(_column(chance, reals), pa.float64()),
            "y": pa.array(_column(chance, reals), pa.float64()),
            "f": pa.array(_column(chance, [None, 0.0, 0.1, -2.5, 1e10]), pa.float32()),
            "d": pa.array(_column(chance, exact)),
            "s": pa.array(_column(chance, _TEXT), pa.string()),
            "u": pa.array(_column(chance, _TEXT), pa.string()),
            "p": pa.array(_column(chance, [None, True, False]), pa.bool_()),
            "m": pa.array(_column(chance, _TIMES), pa.timestamp("us")),
            "n": pa.array(_column(chance, _TIMES), pa.timestamp("us")),
            "e": pa.array(_column(chance, _DAYS), pa.date32()),
        }
    )  # fmt: skip


def _view(house: House, table: pa.Table, name: str = "facts") -> FeatureView:
    house.put(name, table)
    return FeatureView(
        f"{name}_view",
        source=Source(name, table=name, event_timestamp="at"),
        entities=[Entity("thing", {"k": "int64"})],
        features=[column for column in table.column_names if column not in ("k", "at")],
        freshness="0s",
    )


class _Expressions:
    """Makes random expressions of a type, over the columns of :func:`_table` and a request."""

    def __init__(self, seed: int) -> None:
        from ibis import _

        self._chance = random.Random(seed)  # noqa: S311 - cases, not secrets
        self._of = _

    def any(self) -> Any:
        """Return an expression of any type."""
        kinds = [self.whole, self.real, self.real, self.function, self.truth, self.text]
        return self._chance.choice(kinds)(3)

    def function(self, depth: int) -> Any:
        """Return what libraries compute to one unit in the last place, and so comes last."""
        x = self.real(depth - 3).clip(-50.0, 50.0)
        return self._pick(0, [lambda: x.exp(), lambda: x.ln(), lambda: x**2, lambda: x**0.5,
                              lambda: x**-1, lambda: x**0, lambda: x**x], [])  # fmt: skip

    def whole(self, depth: int) -> Any:
        """Return an integer expression."""
        import ibis

        a: Callable[[], Any] = lambda: self.whole(depth - 1)  # noqa: E731
        x: Callable[[], Any] = lambda: self.real(depth - 1)  # noqa: E731
        leaves = [lambda: self._of.i, lambda: self._of.j, lambda: self._of.units,
                  lambda: self._of.i + self._chance.choice([0, 1, 2, -3])]  # fmt: skip
        return self._pick(depth, leaves, [
            lambda: a() + a(), lambda: a() - a(), lambda: a() * a(), lambda: -a(),
            lambda: a().abs(), lambda: a() % a(), lambda: a() // 2, lambda: x().round(),
            lambda: x().floor(), lambda: x().ceil(), lambda: ibis.coalesce(a(), a(), 5),
            lambda: a().fill_null(0), lambda: ibis.greatest(a(), a()),
            lambda: ibis.least(a(), a(), 1), lambda: a().clip(-2, 5), lambda: a().nullif(1),
            lambda: ibis.ifelse(self.truth(depth - 1), a(), a()),
            lambda: ibis.cases((self.truth(depth - 1), a()), (self.truth(depth - 1), a())),
            lambda: self.truth(depth - 1).cast("int64"), lambda: self.text(depth - 1).length(),
            lambda: self._of.m.year(), lambda: self._of.m.month(), lambda: self._of.e.day(),
            lambda: self._of.m.hour(), lambda: self._of.m.minute(), lambda: self._of.m.second(),
            lambda: self._of.m.day_of_week.index(), lambda: self._of.e.day_of_week.index(),
            lambda: self._of.m.epoch_seconds() % 1000 + self._of.n.epoch_seconds() % 7,
        ])  # fmt: skip

    def real(self, depth: int) -> Any:
        """Return a floating-point expression."""
        import ibis

        x: Callable[[], Any] = lambda: self.real(depth - 1)  # noqa: E731
        a: Callable[[], Any] = lambda: self.whole(depth - 1)  # noqa: E731
        leaves = [
            lambda: self._of.x,
            lambda: self._of.y,
            lambda: self._of.f,
            lambda: self._of.amount,
            lambda: self._of.d * 1.0,
        ]
        return self._pick(depth, leaves, [
            lambda: x() + x(), lambda: x() - a(), lambda: x() * x(), lambda: a() / a(),
            lambda: x() / x(), lambda: -x(), lambda: x().abs(), lambda: x().round(2),
            lambda: x().round(-1), lambda: x() * 0.12345678901234567, lambda: x().sign(),
            lambda: x().sqrt(),
            lambda: ibis.coalesce(x(), a()), lambda: ibis.greatest(x(), x(), 0.0),
            lambda: ibis.least(x(), a()), lambda: x().clip(lower=-1.0), lambda: x().nullif(0.5),
            lambda: ibis.ifelse(self.truth(depth - 1), x(), 0.1 + x()),
            lambda: a().cast("float64"),
        ])  # fmt: skip

    def truth(self, depth: int) -> Any:
        """Return a condition."""
        x: Callable[[], Any] = lambda: self.real(depth - 1)  # noqa: E731
        a: Callable[[], Any] = lambda: self.whole(depth - 1)  # noqa: E731
        p: Callable[[], Any] = lambda: self.truth(depth - 1)  # noqa: E731
        t: Callable[[], Any] = lambda: self.text(depth - 1)  # noqa: E731
        return self._pick(depth, [lambda: self._of.p, lambda: self._of.p, lambda: ~self._of.p], [
            lambda: x() < x(), lambda: x() <= a(), lambda: x() > 0.5, lambda: x() >= x(),
            lambda: x() == x(), lambda: x() != x(), lambda: a() < a(), lambda: a() == 1,
            lambda: a().between(0, a()), lambda: x().between(-1.0, 2.0), lambda: a().isin([1, 2]),
            lambda: t().isin(["a", "Ä"]), lambda: p() & p(), lambda: p() | p(), lambda: ~p(),
            lambda: p() ^ p(), lambda: x().isnull(), lambda: t().notnull(), lambda: t() == t(),
            lambda: t() != "a", lambda: t().contains("a"), lambda: t().startswith("a"),
            lambda: t().endswith("b"), lambda: t().contains(self._of.u),
            lambda: self._of.m < self._of.n, lambda: self._of.m == self._of.n,
            lambda: self._of.e >= date(2024, 2, 29), lambda: p() == p(),
        ])  # fmt: skip

    def text(self, depth: int) -> Any:
        """Return a text expression."""
        import ibis

        t: Callable[[], Any] = lambda: self.text(depth - 1)  # noqa: E731
        return self._pick(depth, [lambda: self._of.s, lambda: self._of.u, lambda: self._of.word], [
            lambda: t() + t(), lambda: t().concat("'x", t()), lambda: t().substr(0, 1),
            lambda: t().substr(1), lambda: t().left(2), lambda: ibis.coalesce(t(), "none"),
            lambda: ibis.ifelse(self.truth(depth - 1), t(), "no"), lambda: t().nullif("a"),
            lambda: self.whole(depth - 1).cast("string"),
            lambda: t().cases(("a", "one"), ("b", "two"), else_="many"),
        ])  # fmt: skip

    def _pick(self, depth: int, leaves: list[Any], more: list[Any]) -> Any:
        chosen: Callable[[], Any] = self._chance.choice(leaves if depth <= 0 else more)
        return chosen()


def _same(left: Any, right: Any) -> bool:
    """Tell whether two values are equal: floats to one unit in the last place, NaN to NaN."""
    if isinstance(left, float) and isinstance(right, float):
        if left != left or right != right:
            return left != left and right != right
        return left == right or abs(left - right) <= math.ulp(max(abs(left), abs(right)))
    return type(left) is type(right) and bool(left == right)


_BY_HAND: tuple[tuple[str, dict[str, Any], Any], ...] = (
    ("i + j * 2", {"i": 2, "j": 3}, 8),
    ("i / j", {"i": 1, "j": 2}, 0.5),
    ("i / j", {"i": 1, "j": 0}, None),
    ("x / y", {"x": 0.0, "y": 0.0}, None),
    ("i // j", {"i": -7, "j": 2}, -4),
    ("i % j", {"i": -7, "j": 3}, -1),
    ("i % j", {"i": 7, "j": 0}, None),
    ("round(x)", {"x": 2.5}, 3),
    ("round(x)", {"x": -2.5}, -3),
    ("round(x)", {"x": 0.49999999999999994}, 0),
    ("round(x, 1)", {"x": 0.25}, 0.3),
    ("round(x, -1)", {"x": -15.0}, -20.0),
    ("floor(x) + ceil(x)", {"x": -0.5}, -1),
    ("sqrt(x)", {"x": -1.0}, None),
    ("ln(x)", {"x": 0.0}, None),
    ("exp(x)", {"x": 1000.0}, None),
    ("pow(x, y)", {"x": -2.0, "y": 3.0}, -8.0),
    ("pow(x, y)", {"x": -2.0, "y": 0.5}, None),
    ("pow(x, y)", {"x": 0.0, "y": -1.0}, None),
    ("log(x)", {"x": 1000.0}, 2.9999999999999996),
    ("greatest(i, x, 1)", {"i": None, "x": 2.5}, 2.5),
    ("least(i, j)", {"i": None, "j": None}, None),
    ("coalesce(i, j, 9)", {"i": None, "j": None}, 9),
    ("nullif(i, 2)", {"i": 2}, None),
    ("p and q", {"p": False, "q": None}, False),
    ("p and q", {"p": True, "q": None}, None),
    ("p or q", {"p": True, "q": None}, True),
    ("not p", {"p": None}, None),
    ("i in (1, 2)", {"i": None}, None),
    ("i not in (1, 2)", {"i": 3}, True),
    ("i between 1 and 3", {"i": 3}, True),
    ("i is null", {"i": None}, True),
    ("i is not null", {"i": None}, False),
    ("case when i > 1 then 'big' when i = 1 then 'one' end", {"i": 1}, "one"),
    ("case i when 1 then 0.1 else 0.2 end", {"i": 5}, 0.2),
    ("case when i > 0 then j / i else 0 end", {"i": 0, "j": 5}, 0.0),
    ("s || '!' || u", {"s": "Ä", "u": "日"}, "Ä!日"),
    ("s || u", {"s": "a", "u": None}, None),
    ("length(s)", {"s": "日本"}, 2),
    ("substr(s, 2, 1)", {"s": "日本語"}, "本"),
    ("contains(s, '%')", {"s": "ab"}, False),
    ("starts_with(s, 'a_')", {"s": "ab"}, False),
    ("cast(i as text)", {"i": -5}, "-5"),
    ("cast(p as bigint)", {"p": True}, 1),
    ("0.1 + 0.2", {"i": 1}, 0.30000000000000004),
    ("extract(year from m) * 100 + month(m)", {"m": datetime(2024, 2, 29, 1)}, 202402),
    ("m < timestamp '2024-03-01'", {"m": datetime(2024, 2, 29, 23, 59)}, True),
)
"""Expressions, the columns of a row that they read, and what they are."""


class Computed:
    """Cases of on-demand features; see :mod:`virtualfs.testing.conformance`."""

    computed_seeds: ClassVar[range] = range(5)

    def test_training_computes_what_this_process_computes(self, house: House) -> None:
        """Random expressions of all operations over all types, both ways."""
        for seed in self.computed_seeds:
            chance = random.Random(seed)  # noqa: S311 - cases, not secrets
            view = _view(house, _table(chance, house))
            make = _Expressions(seed)
            features = [Feature(f"c{number}", make.any()) for number in range(25)]
            self._agree(house, view, features, chance)

    def _agree(
        self, house: House, view: FeatureView, features: list[Feature], chance: random.Random
    ) -> None:
        import pyarrow as pa

        request = {"amount": "float64", "units": "int64", "word": "string"}
        computed = OnDemandFeatureView(
            "computed", inputs=[view], request=request, features=features
        )
        brought: dict[str, list[Any]] = {
            "amount": [chance.choice(_REAL) for _ in range(_ROWS)],
            "units": [chance.choice(_WHOLE) for _ in range(_ROWS)],
            "word": [chance.choice(_TEXT) for _ in range(_ROWS)],
        }
        keys = list(range(_ROWS))
        spine = pa.table({"k": keys, "t": pa.array([NOON] * _ROWS, pa.timestamp("us")), **brought})
        ds = house.store.get_historical_features(spine, [computed], timestamp="t")
        trained = ds.to_pyarrow().select([feature.name for feature in features])
        online = house.store.get_features(
            [computed], {"k": keys}, as_of=NOON.replace(tzinfo=UTC), request=brought
        )
        answered = online.to_dict()
        for feature, column in zip(features, trained.columns, strict=True):
            found = answered[feature.name]
            for number, (left, right) in enumerate(zip(column.to_pylist(), found, strict=True)):
                given = {name: values[number] for name, values in brought.items()}
                assert _same(left, right), (
                    f"{feature.expr}: trained {left!r}, online {right!r}; key {number}, {given}"
                )

    def test_worked_by_hand(self, house: House) -> None:
        """One expression, one row, one answer: in training and online."""
        import pyarrow as pa

        types = {"i": pa.int64(), "j": pa.int64(), "x": pa.float64(), "y": pa.float64(),
                 "s": pa.string(), "u": pa.string(), "p": pa.bool_(), "q": pa.bool_(),
                 "m": pa.timestamp("us")}  # fmt: skip
        count = len(_BY_HAND)
        columns = {
            name: pa.array([row.get(name) for _, row, _ in _BY_HAND], kind)
            for name, kind in types.items()
        }
        keys = pa.array(range(count), pa.int64())
        times = pa.array([NOON - HOUR] * count, pa.timestamp("us"))
        view = _view(house, pa.table({"k": keys, "at": times, **columns}))
        features = [Feature(f"c{number}", sql) for number, (sql, _, _) in enumerate(_BY_HAND)]
        computed = OnDemandFeatureView("hand", inputs=[view], features=features)
        spine = pa.table({"k": keys, "t": pa.array([NOON] * count, pa.timestamp("us"))})
        ds = house.store.get_historical_features(spine, [computed], timestamp="t")
        trained = ds.to_pyarrow()
        at = NOON.replace(tzinfo=UTC)
        online = house.store.get_features([computed], {"k": [*range(count)]}, as_of=at).to_dict()
        for number, (sql, row, expected) in enumerate(_BY_HAND):
            found = trained.column(f"c{number}")[number].as_py()
            assert _same(found, expected), (sql, row, found, expected)
            found = online[f"c{number}"][number]
            assert _same(found, expected), (sql, row, "online", found, expected)

    def test_integers_that_overflow_are_an_error_both_ways(self, house: House) -> None:
        """What int64 cannot hold is never wrapped around, nor made a float."""
        import pyarrow as pa
        from ibis import _

        times = pa.array([NOON - HOUR], pa.timestamp("us"))
        view = _view(house, pa.table({"k": [1], "at": times, "i": pa.array([2**62])}))
        computed = OnDemandFeatureView("over", inputs=[view], features=[Feature("c", _.i * 4)])
        spine = pa.table({"k": pa.array([1]), "t": pa.array([NOON], pa.timestamp("us"))})
        with pytest.raises(VirtualFSError):
            house.store.get_historical_features(spine, [computed], timestamp="t").to_pyarrow()
        at = NOON.replace(tzinfo=UTC)
        with pytest.raises(VirtualFSError, match="range of int64"):
            house.store.get_features([computed], [{"k": 1}], as_of=at)

    @pytest.mark.parametrize("form", ["pyarrow", "pandas", "sql", "ibis", "reader", "parquet"])
    def test_every_spine_brings_its_request_inputs(self, house: House, form: str) -> None:
        """Columns of the spine are inputs, wherever the spine lives, and come back unchanged."""
        import pyarrow as pa
        from ibis import _

        if form == "ibis" and "ibis" in house.gaps:
            pytest.skip(house.gaps["ibis"])
        table = _table(random.Random(1), house)  # noqa: S311 - cases, not secrets
        view = _view(house, table)
        computed = OnDemandFeatureView(
            "ratio",
            inputs=[view[["j"]]],
            request={"amount": "float64", "k": "int64"},
            features=[Feature("share", _.j / _.amount), Feature("key", _.k + 1)],
        )
        spine = pa.table(
            {
                "amount": pa.array([2.0, 4.0, None]),
                "k": pa.array([1, 0, 5]),
                "t": pa.array([NOON] * 3, pa.timestamp("us")),
            }
        )
        ds = house.store.get_historical_features(
            as_spine(house, spine, form), [view[["j"]], computed], timestamp="t"
        )
        result = ds.to_pyarrow()
        assert result.column_names == ["amount", "k", "t", "j", "share", "key"]
        held = dict(zip(table["k"].to_pylist(), table["j"].to_pylist(), strict=True))
        expected = [
            (held[k], None if held[k] is None or amount is None else held[k] / amount, k + 1)
            for amount, k in ((2.0, 1), (4.0, 0), (None, 5))
        ]
        assert rows_of(result.select(["j", "share", "key"])) == expected

    @pytest.mark.parametrize("form", ["batches", "table", "expr"])
    def test_every_result_holds_them(self, house: House, form: str) -> None:
        """A table in the warehouse, a stream and an Ibis expression give what to_pyarrow gives."""
        import pyarrow as pa
        from ibis import _

        view = _view(house, _table(random.Random(2), house))  # noqa: S311 - cases, not secrets
        computed = OnDemandFeatureView(
            "sums", inputs=[view], request={"units": "int64"},
            features=[Feature("total", _.j + _.units), Feature("long", _.s.length())],
        )  # fmt: skip
        spine = pa.table(
            {
                "k": pa.array(range(9), pa.int64()),
                "t": pa.array([NOON] * 9, pa.timestamp("us")),
                "units": pa.array(range(9), pa.int64()),
            }
        )
        given = spine if form == "batches" else as_spine(house, spine, "sql")
        ds = house.store.get_historical_features(given, [computed], timestamp="t")
        assert ds.plan.columns == ("total", "long")
        expected = house.store.get_historical_features(spine, [computed], timestamp="t")
        found = as_output(house, ds, form).select(["k", "total", "long"])
        wanted = rows_of(expected.to_pyarrow().select(["k", "total", "long"]))
        assert sorted(map(repr, rows_of(found))) == sorted(map(repr, wanted))
