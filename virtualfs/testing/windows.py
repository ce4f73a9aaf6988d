"""Aggregates over windows for any warehouse: cases by the hundred, algebra, and named edges."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from virtualfs.compiler import program
from virtualfs.compiler.plan import LateData
from virtualfs.definitions.aggregate import Aggregate
from virtualfs.errors import (
    DefinitionError,
    NotFoundError,
    SpineError,
    UnsupportedByWarehouseError,
    WarehouseError,
)
from virtualfs.testing.house import DAY, HOUR, NOON, TICK, House, make, train, values
from virtualfs.testing.window_cases import ask_windows, judge_windows, window_batch

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Windows"]


class Windows:
    """Cases of windows; see :mod:`virtualfs.testing.conformance`."""

    window_seeds: ClassVar[range] = range(8)

    def test_batches_of_windows_agree_with_the_oracle(self, house: House) -> None:
        """Every function, window, offset, condition, boundary and rule, mixed."""
        for seed in self.window_seeds:
            case = window_batch(seed, 60, house)
            judge_windows(case, ask_windows(house, case).to_pyarrow())

    @pytest.mark.parametrize("late_data", ["include", "exclude"])
    def test_prefix_sums_agree_with_the_oracle(
        self, house: House, late_data: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Counts, sums and means by running sums, where costs would speak for the join."""
        if not house.store.warehouse().capabilities.prefix_sums:
            pytest.skip("the warehouse's running sums are not exact")
        monkeypatch.setattr("virtualfs.compiler.strategy._few_pairs", lambda *_: False)
        for seed in self.window_seeds:
            case = window_batch(seed, 60, house, ("count", "sum", "mean", "std", "var"))
            case = replace(case, late_data=late_data)
            ds = ask_windows(house, case)
            asked = [(a.column, a.function) for a, _ in case.counted]
            floats = any(column == "real" and function != "count" for column, function in asked)
            # Squares of int64 and of floats have no exact running sums.
            squares = any(
                column in ("real", "whole") and function in ("std", "var")
                for column, function in asked
            )
            exact = house.store.warehouse().capabilities.exact is not None
            if not squares and (exact or not floats):
                assert "prefix sums" in ds.explain(engine=False)
            judge_windows(case, ds.to_pyarrow())

    def test_positions_agree_with_the_oracle(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Least, greatest, first and last, with tiles of two rows so that there are many."""
        if not house.store.warehouse().capabilities.prefix_sums:
            pytest.skip("the warehouse's running sums are not exact")
        monkeypatch.setattr("virtualfs.compiler.strategy._few_pairs", lambda *_: False)
        monkeypatch.setattr("virtualfs.compiler.positions._BITS", 1)
        for seed in self.window_seeds[::3]:
            case = window_batch(seed, 60, house, ("count", "min", "max", "sum", "first", "last"))
            case = replace(case, late_data="include")
            ds = ask_windows(house, case)
            if any(a.function in ("min", "max") for a, _ in case.counted):
                assert "by position" in ds.explain(engine=False)
            judge_windows(case, ds.to_pyarrow())

    def test_long_windows_of_one_key_agree_with_plain_loops(
        self, house: House, strategy: str
    ) -> None:
        """Thousands of rows of one key, so that windows hold tiles of tiles, and ties."""
        chance = random.Random(3)  # noqa: S311 - cases, not secrets
        rows = [
            {"k": "a", "at": NOON - chance.randrange(9_000) * TICK * 10**6,
             "x": chance.choice([None, *range(-999, 999)]),
             "y": chance.choice([None, 1e9 + chance.random()])}
            for _ in range(9_000)
        ]  # fmt: skip
        lengths = {"1m": 60, "7m": 420, "2h": 7200, "lifetime": 10**9}
        spreads = "std" in house.store.warehouse().capabilities.aggregates
        view = make(
            house, rows,
            features=[
                Aggregate("x", f, None if w == "lifetime" else w)
                for w in lengths for f in ("min", "max", "count")
            ] + [
                Aggregate("y", "std", None if w == "lifetime" else w) for w in lengths if spreads
            ],
        )  # fmt: skip
        spine = [{"k": "a", "t": NOON - TICK * 10**6 * n} for n in (0, 0, 1, 64, 4095, 4096, 8999)]
        for row in train(house, spine, view):
            for name, seconds in lengths.items():
                since = row["t"] - timedelta(seconds=seconds) if seconds < 10**9 else None
                within = [
                    r for r in rows
                    if r["at"] < row["t"] and (since is None or r["at"] >= since)
                ]  # fmt: skip
                held = [r["x"] for r in within if r["x"] is not None]
                far = [r["y"] for r in within if r["y"] is not None]
                if spreads and len(far) > 1:
                    found = row[f"y_std_{name}"]
                    assert found == pytest.approx(statistics.stdev(far), rel=1e-6)
                assert row[f"x_count_{name}"] == len(held)
                assert row[f"x_min_{name}"] == min(held, default=None), (strategy, name, row)
                assert row[f"x_max_{name}"] == max(held, default=None)

    # -- what must hold of any data

    def test_rows_in_the_future_change_no_window(self, house: House) -> None:
        """Events after every instant are in no window."""
        for seed in self.window_seeds:
            case = window_batch(seed, 30, house)
            later = tuple({**row, "happened": _later(row["happened"])} for row in case.source_rows)
            more = replace(case, source_rows=(*case.source_rows, *later))
            assert more.expected() == case.expected()
            judge_windows(case, ask_windows(house, more).to_pyarrow())

    def test_windows_add_up_and_grow(self, house: House, strategy: str) -> None:
        """count(7d) = count(1d) + count(6d, offset 1d); extremes widen with the window."""
        chance = random.Random(5)  # noqa: S311 - cases, not secrets
        rows = [
            {"k": chance.choice("ab"), "at": NOON - chance.randrange(10**6) * TICK * 10**6,
             "x": chance.choice([None, *range(-9, 9)])}
            for _ in range(300)
        ]  # fmt: skip
        parts = [
            Aggregate("*", "count", "7d"), Aggregate("*", "count", "1d"),
            Aggregate("*", "count", "6d", offset="1d"),
            Aggregate("x", "sum", "7d"), Aggregate("x", "sum", "1d"),
            Aggregate("x", "sum", "6d", offset="1d"), Aggregate("x", "count", None),
        ]  # fmt: skip
        ends = [Aggregate("x", f, w) for f in ("min", "max") for w in ("1h", "1d", "7d", None)]
        spine = [{"k": k, "t": NOON - n * HOUR * 5} for k in "abz" for n in range(60)]
        view = make(house, rows, features=parts)
        for row in train(house, spine, view):
            assert row["count_7d"] == row["count_1d"] + row["count_6d_offset_1d"]
            assert (row["x_sum_7d"] or 0) == (row["x_sum_1d"] or 0) + (
                row["x_sum_6d_offset_1d"] or 0
            )
        if strategy == "range":
            for row in train(house, spine, make(house, rows, features=ends)):
                low = [row[f"x_min_{w}"] for w in ("1h", "1d", "7d", "lifetime")]
                high = [row[f"x_max_{w}"] for w in ("1h", "1d", "7d", "lifetime")]
                low = [value for value in low if value is not None]
                high = [value for value in high if value is not None]
                assert low == sorted(low, reverse=True)
                assert high == sorted(high)

    # -- named edges

    @pytest.fixture(params=["range", "prefix"])
    def strategy(
        self, request: pytest.FixtureRequest, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> str:
        """Answer by the one strategy, then by the other, whatever the costs."""
        if request.param == "prefix" and not house.store.warehouse().capabilities.prefix_sums:
            pytest.skip("the warehouse's running sums are not exact")
        few = request.param == "range"
        monkeypatch.setattr("virtualfs.compiler.strategy._few_pairs", lambda *_: few)
        program._compile_part.cache_clear()
        return str(request.param)

    @pytest.mark.usefixtures("strategy")
    @pytest.mark.parametrize(
        ("boundary", "expected"),
        [(None, [0, 0, 1, 1, 0]), ("exclusive", [0, 0, 1, 1, 0]), ("inclusive", [0, 1, 1, 0, 0])],
    )
    @pytest.mark.parametrize("shift", [{}, {"availability_delay": "1d"}, {"offset": "1d"}])
    def test_rule_6_edges(
        self, house: House, boundary: Any, expected: list[int], shift: dict[str, str]
    ) -> None:
        """[t - w, t) or (t - w, t], on the event with the delay added, shifted by the offset."""
        offset, moved = shift.get("offset"), DAY if shift else timedelta(0)
        delay = {k: v for k, v in shift.items() if k != "offset"}
        count = Aggregate("*", "count", "1h", offset=offset, name="x")
        view = make(
            house, [{"k": "a", "at": NOON, "x": 1}], features=[count], boundary=boundary, **delay
        )
        times = [NOON - TICK, NOON, NOON + TICK, NOON + HOUR, NOON + HOUR + TICK]
        assert values(house, view, [time + moved for time in times]) == expected

    @pytest.mark.usefixtures("strategy")
    def test_rule_6_nothing_in_the_window(self, house: House) -> None:
        """Counts are 0 and all else NULL: for unknown and NULL keys, NULL instants, all NULLs."""
        import pyarrow as pa

        kinds = pa.schema([("k", pa.string()), ("at", pa.timestamp("us")), ("x", pa.int64())])
        rows = [{"k": "a", "at": NOON, "x": None}, {"k": None, "at": NOON, "x": 1},
                {"k": "a", "at": None, "x": 1}]  # fmt: skip
        view = make(
            house, pa.Table.from_pylist(rows, kinds),
            features=[Aggregate("x", "count", "1d"), Aggregate("x", "sum", "1d"),
                      Aggregate("x", "mean", None), Aggregate("*", "count", "1d", name="rows")],
        )  # fmt: skip
        kinds = pa.schema([("k", pa.string()), ("t", pa.timestamp("us"))])
        later = NOON + HOUR
        spine = [{"k": "a", "t": later}, {"k": "b", "t": later}, {"k": None, "t": later},
                 {"k": "a", "t": None}]  # fmt: skip
        found = train(house, pa.Table.from_pylist(spine, kinds), view)
        shown = [(row["x_count_1d"], row["x_sum_1d"], row["x_mean_lifetime"]) for row in found]
        assert shown == [(0, None, None)] * 4
        assert [row["rows"] for row in found] == [1, 0, 0, 0]

    def test_rule_6_nothing_is_lost_to_cancellation(self, house: House, strategy: str) -> None:
        """A value of 1e15 a month ago does not touch this hour; a spread of 1 near 1e9 is kept."""
        rows = [{"k": "a", "at": NOON - 30 * DAY, "x": 1e15}]
        rows += [{"k": "a", "at": NOON - n * TICK, "x": 0.1 + n / 7} for n in range(1, 50)]
        rows += [{"k": "b", "at": NOON - n * TICK, "x": 1e9 + (n % 3) / 3} for n in range(1, 400)]
        means = [Aggregate("x", "mean", "1h"), Aggregate("x", "sum", "90d")]
        spine = [{"k": k, "t": NOON} for k in "ab"]
        one, two = train(house, spine, make(house, rows, features=means))
        exact = math.fsum(0.1 + n / 7 for n in range(1, 50))
        assert math.isclose(one["x_mean_1h"], exact / 49, rel_tol=1e-15)
        assert math.isclose(one["x_sum_90d"], 1e15 + exact, rel_tol=1e-15)
        near = [1e9 + (n % 3) / 3 for n in range(1, 400)]
        assert math.isclose(two["x_mean_1h"], math.fsum(near) / 399, rel_tol=1e-15)
        if strategy == "range" and "std" in house.store.warehouse().capabilities.aggregates:
            spread = make(house, rows, features=[Aggregate("x", "std", "1h")])
            for row, held in zip(
                train(house, spine, spread),
                ([0.1 + n / 7 for n in range(1, 50)], near), strict=True,
            ):  # fmt: skip
                assert math.isclose(row["x_std_1h"], statistics.stdev(held), rel_tol=1e-6)

    @pytest.mark.usefixtures("strategy")
    def test_rule_6_what_is_no_number_touches_only_its_windows(self, house: House) -> None:
        """NaN and infinities follow IEEE; sizes that do not go together are still exact."""
        if "real" not in house.domain.values or not house.domain.endless:
            pytest.skip("the warehouse holds no NaN")
        nan, inf = float("nan"), float("inf")
        held = [nan, inf, -inf, 1e300, 1e-300, -0.0, 2.5]
        rows = [{"k": "a", "at": NOON - n * HOUR, "x": x} for n, x in enumerate(held)]
        rows += [{"k": "b", "at": NOON - n * HOUR, "x": 1.0} for n in range(40)]
        sums = [Aggregate("x", f, w) for f in ("sum", "mean", "count") for w in ("1h", "2h", None)]
        view = make(house, rows, features=sums, boundary="inclusive")
        spine = [{"k": "a", "t": NOON - n * HOUR} for n in range(len(held))]
        for n, row in enumerate(train(house, spine, view)):
            for length, window in ((1, "1h"), (2, "2h"), (len(held), "lifetime")):
                inside = held[n : n + length]
                total = _ieee_sum(inside)
                assert row[f"x_count_{window}"] == len(inside)
                for name, wanted in (("sum", total), ("mean", total / len(inside))):
                    found = row[f"x_{name}_{window}"]
                    same = math.isclose(found, wanted, rel_tol=1e-15)
                    assert same or (math.isnan(found) and math.isnan(wanted)), (n, name, window)

    @pytest.mark.usefixtures("strategy")
    def test_rule_6_spreads_of_what_is_no_number(self, house: House) -> None:
        """A spread over NaN, an infinity or what has no square is NaN, and fails nobody else's."""
        can = house.store.warehouse().capabilities.aggregates
        if "std" not in can or not house.domain.endless:
            pytest.skip("the warehouse computes none, or holds no NaN")
        rows = [{"k": k, "at": NOON - n * TICK, "x": x}
                for k, held in (("a", [1.0, float("nan")]), ("b", [1.0, float("inf")]),
                                ("c", [1.0, 3.0]), ("d", [float("nan")]), ("e", [1e200, -1e9]))
                for n, x in enumerate(held, 1)]  # fmt: skip
        view = make(house, rows, features=[Aggregate("x", "var", "1d")])
        a, b, c, d, e = (
            row["x_var_1d"] for row in train(house, [{"k": k, "t": NOON} for k in "abcde"], view)
        )
        assert all(map(math.isnan, (a, b, e)))
        assert (c, d) == (2.0, None)

    @pytest.mark.usefixtures("strategy")
    def test_rule_6_sums_that_are_no_int64_raise(self, house: House) -> None:
        """A sum of integers is an int64; one that is none is an error, and no other number."""
        rows = [{"k": "b", "at": NOON - n * TICK, "x": 2**62} for n in (1, 2)]
        rows += [{"k": "a", "at": NOON - n * TICK, "x": 2**60} for n in range(1, 8)]
        view = make(house, rows, features=[Aggregate("x", "sum", "1d")])
        (row,) = train(house, [{"k": "a", "t": NOON}], view)
        assert row["x_sum_1d"] == 7 * 2**60
        with pytest.raises(WarehouseError):
            train(house, [{"k": "b", "t": NOON}], view)

    @pytest.mark.usefixtures("strategy")
    def test_rule_7_written_by_the_instant_whatever_the_offset(self, house: House) -> None:
        """Under exclude an event counts once it has happened and been written."""
        rows = [{"k": "a", "at": NOON - DAY, "made": NOON, "x": 1},
                {"k": "a", "at": NOON - DAY, "made": None, "x": 2},
                {"k": "a", "at": NOON - DAY, "made": NOON - DAY, "x": 4}]  # fmt: skip
        sums = [Aggregate("x", "sum", "2d", name="x"),
                Aggregate("x", "sum", "2d", offset="1h", name="y")]  # fmt: skip
        view = make(house, rows, features=sums, created_timestamp="made")
        times = [NOON - TICK, NOON, NOON + DAY, NOON + DAY + TICK]
        assert values(house, view, times, late_data="exclude") == [4, 5, 5, None]
        assert values(house, view, times, late_data="include") == [7, 7, 7, None]
        assert values(house, view, times, late_data="exclude", features="y") == [4, 5, 5, 5]
        totals: dict[LateData, int] = {"exclude": 4, "include": 7}
        for late_data, total in totals.items():
            online = house.store.get_features(
                [view], [{"k": "a"}], as_of=NOON - TICK, late_data=late_data
            )
            assert online.to_list()[0]["x"] == total

    @pytest.mark.usefixtures("strategy")
    def test_composite_keys_and_no_keys(self, house: House) -> None:
        """Keys are compared column by column; any integer fits any; without keys all is one."""
        import pyarrow as pa

        rows = [{"a": "1", "b": 23, "at": NOON, "x": 1}, {"a": "12", "b": 3, "at": NOON, "x": 2}]
        total = [Aggregate("x", "sum", "1d", name="s")]
        view = make(house, rows, entities={"a": "string", "b": "int64"}, features=total)
        spine = [{**row, "t": NOON + TICK} for row in ({"a": "1", "b": 23}, {"a": "12", "b": 3})]
        assert [row["s"] for row in train(house, spine, view)] == [1, 2]
        kinds = pa.schema([("a", pa.int32()), ("at", pa.timestamp("us")), ("x", pa.int64())])
        few = pa.Table.from_pylist([{"a": 7, "at": NOON, "x": 1}], kinds)
        view = make(house, few, entities={"a": "int64"}, features=total)
        narrow = pa.table({"a": pa.array([7, 8], pa.int16()), "t": [NOON + TICK] * 2})
        assert [row["s"] for row in train(house, narrow, view)] == [1, None]
        whole = make(house, rows, entities=(), features=total)
        assert [row["s"] for row in train(house, [{"t": NOON + TICK}], whole)] == [3]
        assert house.store.get_features([whole], [{}], as_of=NOON + TICK).to_dict() == {"s": [3]}

    # -- one meaning at an instant

    def test_online_windows_are_training_windows(self, house: House) -> None:
        """Online at T, a table as of T and a batch as of T say what training says at T."""
        rows = [
            {"k": k, "at": NOON - n * HOUR, "x": n} for k in "ab" for n in range(1, 30) if n % 3
        ]
        rows.append({"k": "later", "at": NOON + HOUR, "x": 1})
        counted = [Aggregate("*", "count", "6h"), Aggregate("x", "sum", "1d"),
                   Aggregate("x", "max", "1d", offset="2h")]  # fmt: skip
        view = make(house, rows, features=counted)
        keys = ["a", "b", "later", "none", None]
        spine = [{"k": k, "t": NOON} for k in keys]
        trained = train(house, spine, view)
        online = house.store.get_online_features([view], [{"k": k} for k in keys])
        for asked, row in zip(trained, online.to_list(), strict=True):
            assert {name: asked[name] for name in row} == row
        assert online.statuses["count_6h"] == ["PRESENT", "PRESENT", *["NOT_FOUND"] * 3]
        assert online.event_timestamps["count_6h"][0] == NOON.replace(tzinfo=UTC)
        assert online.event_timestamps["count_6h"][2] is None
        table = house.store.table(view, as_of=NOON).to_pyarrow().to_pylist()
        wanted = [{k: v for k, v in row.items() if k != "t"} for row in trained[:2]]
        assert sorted(table, key=lambda row: str(row["k"])) == wanted
        batch = house.store.get_batch_features([view], NOON).to_pyarrow()
        assert sorted(batch.column("k").to_pylist()) == ["a", "b"]
        with pytest.raises(SpineError, match="as_of"):
            house.store.table(view)
        assert house.store.preview(view).shape[0] > 1
        with pytest.raises(NotFoundError, match="stand for many rows"):
            house.store.why(view[["count_6h"]], {"k": "a"}, NOON)
        assert not [f for f in house.store.check([view]).findings if "hash" in f.meaning]
        if house.store.warehouse().capabilities.temporary_tables:
            ds = house.store.get_historical_features(_arrow(spine), [view], timestamp="t")
            (found,) = ds.diagnose().to_dict().values()
            assert found["counts"] == {
                "present": 2, "NULL key or instant": 1, "no such key": 1, "only later rows": 1
            }  # fmt: skip

    def test_every_function_has_its_type(self, house: House) -> None:
        """Types of answers are those of the table in the documentation, on every warehouse."""
        can = house.store.warehouse().capabilities
        wanted = {
            ("whole", "sum"): "int64", ("whole", "mean"): "float64", ("whole", "max"): "int64",
            ("real", "sum"): "float64", ("exact", "sum"): "decimal(38, 2)",
            ("exact", "mean"): "float64", ("exact", "min"): "decimal(10, 2)",
            ("word", "count_distinct"): "int64", ("word", "last"): "string",
            ("truth", "sum"): "int64", ("truth", "mean"): "float64",
            ("whole", "median"): "float64", ("whole", "std"): "float64",
        }  # fmt: skip
        rows = window_batch(0, 5, house).source_table().drop(["group"])
        counted = [
            Aggregate(column, function, "1d")
            for column, function in wanted
            if column in house.domain.values and function in can.aggregates
        ]
        view = make(house, rows, entities={"place": "string"}, event_timestamp="happened",
                    features=counted)  # fmt: skip
        ds = house.store.get_historical_features(
            _arrow([{"place": "a", "event_timestamp": NOON}]), [view]
        )
        types = {feature.column: feature.function for feature in counted}
        assert types
        for aggregate in counted:
            dtype = wanted[aggregate.column, aggregate.function]
            assert ds.plan.dtypes()[aggregate.name] == dtype
            found = ds.to_pyarrow().schema.field(aggregate.name).type
            assert found == _arrow_type(dtype), aggregate.name

    def test_what_cannot_be_aggregated_is_refused(self, house: House) -> None:
        """Refused before anything runs, saying what to do."""
        rows = [{"k": "a", "at": NOON, "x": "text", "y": 1}]
        refused = pytest.raises(DefinitionError, match="it takes numbers")
        with refused:
            values(
                house, make(house, rows, features=[Aggregate("x", "sum", "1d", name="x")]), [NOON]
            )
        count = Aggregate("*", "count", "1d")
        with pytest.raises(DefinitionError, match="ttl="):
            make(house, rows, features=[count], ttl="1d")
        with pytest.raises(DefinitionError, match="go by time"):
            make(house, rows, features=[count], event_timestamp=None)
        with pytest.raises(DefinitionError, match="no column 'z'"):
            values(house, make(house, rows, features=[Aggregate("z", "min", "1d")]), [NOON])
        odd = Aggregate("y", "min", "1d", where="y > max(y)")
        with pytest.raises(DefinitionError, match="not row-wise"):
            values(house, make(house, rows, features=[odd]), [NOON])
        can = house.store.warehouse().capabilities.aggregates
        for function in ("quantile", "first"):
            if function not in can:
                lacking = Aggregate("y", function, "1d", q=0.5 if function == "quantile" else None)
                with pytest.raises(UnsupportedByWarehouseError, match=f"compute {function}"):
                    values(house, make(house, rows, features=[lacking]), [NOON])


def _later(time: Any) -> Any:
    """Return a time eleven years later."""
    if time is None:
        return None
    return time + 4000 * 86_400 * 10**9 if isinstance(time, int) else time + timedelta(days=4000)


def _ieee_sum(values: Sequence[float]) -> float:
    """Return a sum as IEEE has it, rounded once."""
    ends = [value for value in values if not math.isfinite(value)]
    return sum(ends) if ends else math.fsum(values)


def _arrow(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Return rows as Arrow."""
    import pyarrow as pa

    return pa.Table.from_pylist(list(rows))


def _arrow_type(dtype: str) -> pa.DataType:
    """Return the Arrow type of a data type."""
    import ibis

    return ibis.dtype(dtype).to_pyarrow()
