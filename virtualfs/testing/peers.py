"""Wrong answers that other feature stores and engines give. None of these may be removed."""

from __future__ import annotations

import pyarrow as pa
import pytest

from virtualfs.errors import SpineError
from virtualfs.testing.house import (
    HOUR,
    NOON,
    TICK,
    as_output,
    as_spine,
    make,
    online,
    train,
)

__all__ = ["PeersMistakes"]


class PeersMistakes:
    """Each test names the mistake; see :mod:`virtualfs.testing.conformance`."""

    def test_composite_keys_are_not_joined_as_text(self, house):
        rows = [
            {"a": "1", "b": "23", "at": NOON, "x": 1},
            {"a": "12", "b": "3", "at": NOON, "x": 2},
        ]
        view = make(house, rows, entities={"a": "string", "b": "string"})
        spine = [{"a": "12", "b": "3", "t": NOON}, {"a": "1", "b": "23", "t": NOON}]
        spine += [{"a": "123", "b": "", "t": NOON}, {"a": "", "b": "123", "t": NOON}]
        assert [row["x"] for row in train(house, spine, view)] == [2, 1, None, None]
        assert online(house, view, a="12", b="3") == (2, "PRESENT")
        assert online(house, view, a="123", b="") == (None, "NOT_FOUND")

    def test_composite_keys_of_text_and_number(self, house):
        rows = [{"a": "1", "b": 23, "at": NOON, "x": 1}, {"a": "12", "b": 3, "at": NOON, "x": 2}]
        view = make(house, rows, entities={"a": "string", "b": "int64"})
        spine = [
            {"a": "1", "b": 23, "t": NOON},
            {"a": "12", "b": 3, "t": NOON},
            {"a": "1", "b": 3, "t": NOON},
        ]
        assert [row["x"] for row in train(house, spine, view)] == [1, 2, None]

    def test_composite_keys_cached_online_do_not_meet(self, house):
        rows = [
            {"a": "1", "b": "23", "at": NOON, "x": 1},
            {"a": "12", "b": "3", "at": NOON, "x": 2},
        ]
        rows += [
            {"a": "1:2", "b": "3", "at": NOON, "x": 3},
            {"a": "1", "b": "2:3", "at": NOON, "x": 4},
        ]
        view = make(house, rows, entities={"a": "string", "b": "string"}, freshness="1h")
        for _ in range(2):
            found = [online(house, view, a=row["a"], b=row["b"])[0] for row in rows]
            assert found == [1, 2, 3, 4]

    def test_ties_do_not_fan_out(self, house):
        rows = [{"k": "a", "at": NOON, "made": NOON, "x": n} for n in range(4)]
        for created in (None, "made"):
            view = make(house, rows, created_timestamp=created)
            assert len(train(house, [{"k": "a", "t": NOON}, {"k": "a", "t": NOON}], view)) == 2

    def test_duplicate_spine_rows_are_kept(self, house):
        view = make(house, [{"k": "a", "at": NOON, "x": 1}])
        spine = [{"k": "a", "t": NOON, "label": 0}] * 3
        assert train(house, spine, view) == [{**row, "x": 1} for row in spine]

    def test_repeated_label_times_do_not_collapse(self, house):
        view = make(house, [{"k": "a", "at": NOON, "x": 1}])
        spine = [{"k": "a", "t": NOON, "label": n} for n in (2, 0, 1)]
        assert [row["label"] for row in train(house, spine, view)] == [2, 0, 1]

    def test_a_spine_row_stays_when_its_only_rows_are_outside_the_ttl(self, house):
        view = make(house, [{"k": "a", "at": NOON - 2 * HOUR, "x": 1}], ttl="1h")
        spine = [{"k": "a", "t": NOON}, {"k": "a", "t": NOON - HOUR}]
        assert [row["x"] for row in train(house, spine, view)] == [None, 1]

    def test_two_views_are_matched_on_their_own_keys(self, house):
        one = make(
            house, [{"k": "a", "at": NOON, "x": 1}, {"k": "b", "at": NOON, "x": 2}], name="one"
        )
        rows = [{"place": "b", "at": NOON, "y": 3}, {"place": "a", "at": NOON, "y": 4}]
        two = make(house, rows, name="two", entities={"place": "string"}, features=("y",))
        spine = [{"k": "a", "place": "b", "t": NOON}, {"k": "b", "place": "none", "t": NOON}]
        for views in ((one, two), (two, one)):
            out = train(house, spine, *views)
            assert [(row["x"], row["y"]) for row in out] == [(1, 3), (2, None)]

    def test_a_null_created_timestamp_does_not_hide_the_newest_row(self, house):
        rows = [
            {"k": "a", "at": NOON - HOUR, "made": NOON, "x": 1},
            {"k": "a", "at": NOON, "made": None, "x": 2},
        ]
        view = make(house, rows, created_timestamp="made")
        assert train(house, [{"k": "a", "t": NOON}], view)[0]["x"] == 2
        assert online(house, view, k="a") == (2, "PRESENT")

    def test_a_feature_named_like_a_spine_column_neither_wins_nor_loses(self, house):
        view = make(house, [{"k": "a", "at": NOON, "x": 1}])
        out = train(house, [{"k": "a", "t": NOON, "x": 99}], view)
        assert out == [{"k": "a", "t": NOON, "x": 99, "source_view__x": 1}]

    @pytest.mark.parametrize("name", ["x_y", "x_x", "x_right", "x__right", "x__", "X"])
    def test_features_with_a_joins_own_endings(self, house, name):
        view = make(house, [{"k": "a", "at": NOON, name: 1}], features=(name,))
        spine = pa.table({"k": ["a"], "t": [NOON]})
        ds = house.store.get_historical_features(spine, [view], timestamp="t")
        expected = [{"k": "a", "t": NOON, name: 1}]
        assert ds.to_pyarrow().to_pylist() == expected
        assert as_output(house, ds, "expr").to_pylist() == expected

    @pytest.mark.parametrize("name", ["x_y", "x_right", "x__right"])
    def test_spine_columns_with_a_joins_own_endings(self, house, name):
        view = make(house, [{"k": "a", "at": NOON, "x": 1}])
        ds = house.store.get_historical_features(
            pa.table({"k": ["a"], "t": [NOON], name: [5]}), [view], timestamp="t"
        )
        expected = [{"k": "a", "t": NOON, name: 5, "x": 1}]
        assert ds.to_pyarrow().to_pylist() == expected
        assert as_output(house, ds, "expr").to_pylist() == expected

    def test_the_spines_order_is_kept(self, house):
        view = make(house, [{"k": str(n), "at": NOON, "x": n} for n in range(100)])
        order = [(n * 37) % 100 for n in range(100)]
        spine = [{"k": str(n), "t": NOON - (n % 3 - 1) * HOUR, "n": n} for n in order]
        assert [row["n"] for row in train(house, spine, view)] == order
        ordered = pa.table({"k": [str(n) for n in order], "t": [NOON] * 100})
        out = train(house, as_spine(house, ordered, "sql"), view)
        assert [row["x"] for row in out] == order

    def test_more_than_exact_time_matches_survive(self, house):
        view = make(house, [{"k": "a", "at": NOON, "x": 1}], ttl="2h")
        assert train(house, [{"k": "a", "t": NOON + HOUR}], view)[0]["x"] == 1

    def test_an_event_exactly_a_ttl_ago_does_not_flip(self, house):
        view = make(house, [{"k": "a", "at": NOON - HOUR, "x": 1}], ttl="1h")
        assert train(house, [{"k": "a", "t": NOON}], view)[0]["x"] == 1
        assert online(house, view, k="a") == (1, "PRESENT")

    @pytest.mark.parametrize(("boundary", "x"), [("inclusive", 1), ("exclusive", None)])
    def test_an_event_at_t_counts_alike_in_training_and_online(self, house, boundary, x):
        view = make(house, [{"k": "a", "at": NOON, "x": 1}], boundary=boundary)
        assert train(house, [{"k": "a", "t": NOON}], view)[0]["x"] == x
        assert online(house, view, k="a")[0] == x

    def test_no_plain_query_runs_silently_where_a_group_has_no_time(self, house):
        view = make(house, [{"k": "a", "at": NOON, "x": 1}])
        with pytest.raises(SpineError, match="no timestamp column"):
            train(house, pa.table({"k": ["a"]}), view)

    # -- peers, online

    def test_unknown_keys_and_nulls_are_not_present(self, house):
        view = make(house, [{"k": "a", "at": NOON, "x": None}, {"k": "b", "at": NOON, "x": 1}])
        assert online(house, view, k="a") == (None, "NULL_VALUE")
        assert online(house, view, k="nobody") == (None, "NOT_FOUND")
        assert online(house, view, k=None) == (None, "NOT_FOUND")

    def test_expired_values_are_not_served(self, house):
        view = make(house, [{"k": "a", "at": NOON - HOUR - TICK, "x": 1}], ttl="1h")
        assert online(house, view, k="a") == (None, "OUTSIDE_MAX_AGE")

    def test_a_correction_replaces_what_was_served(self, house):
        row = {"k": "a", "at": NOON - HOUR, "made": NOON - HOUR, "x": 1}
        view = make(house, [row], created_timestamp="made")
        assert online(house, view, k="a") == (1, "PRESENT")
        view = make(house, [row, {**row, "made": NOON, "x": 2}], created_timestamp="made")
        assert online(house, view, k="a") == (2, "PRESENT")
        assert train(house, [{"k": "a", "t": NOON}], view)[0]["x"] == 2

    def test_late_rows_are_served(self, house):
        view = make(house, [{"k": "a", "at": NOON - 5 * HOUR, "x": 1}])
        assert online(house, view, k="a") == (1, "PRESENT")
        rows = [
            {"k": "a", "at": NOON - 5 * HOUR, "x": 1},
            {"k": "a", "at": NOON - 4 * HOUR, "x": 2},
        ]
        assert online(house, make(house, rows), k="a") == (2, "PRESENT")

    def test_values_from_the_future_are_not_served(self, house):
        rows = [{"k": "a", "at": NOON, "x": 1}, {"k": "a", "at": NOON + TICK, "x": 2}]
        view = make(house, rows)
        assert online(house, view, k="a") == (1, "PRESENT")
        assert online(house, make(house, rows[1:]), k="a") == (None, "NOT_FOUND")

    # -- traps of engines

    def test_trap_3_tied_timestamps_give_the_same_sum_on_each_run(self, house):
        rows = [{"k": str(n % 50), "at": NOON, "x": n} for n in range(5000)]
        view = make(house, rows)
        spine = [{"k": str(n), "t": NOON} for n in range(50)]
        runs = {tuple(row["x"] for row in train(house, spine, view)) for _ in range(5)}
        assert len(runs) == 1

    @pytest.mark.parametrize("created", [None, "made"])
    def test_trap_4_null_times_do_not_match_each_other(self, house, created):
        null = pa.nulls(1, pa.timestamp("us"))
        view = make(
            house,
            pa.table({"k": ["a"], "at": null, "made": null, "x": [1]}),
            created_timestamp=created,
        )
        spine = pa.table({"k": ["a"] * 2, "t": pa.array([None, NOON], pa.timestamp("us"))})
        assert [row["x"] for row in train(house, spine, view)] == [None, None]

    @pytest.mark.parametrize("created", [None, "made"])
    def test_trap_4_a_null_spine_time_does_not_sort_highest(self, house, created):
        view = make(
            house, [{"k": "a", "at": NOON, "made": NOON, "x": 1}], created_timestamp=created
        )
        spine = pa.table({"k": ["a"] * 2, "t": pa.array([None, NOON], pa.timestamp("us"))})
        assert [row["x"] for row in train(house, spine, view)] == [None, 1]

    def test_trap_5_an_older_value_does_not_shine_through_a_null(self, house):
        rows = [
            {"k": "a", "at": NOON - HOUR, "x": 1, "y": 1},
            {"k": "a", "at": NOON, "x": None, "y": 2},
        ]
        view = make(house, rows, features=("x", "y"))
        (row,) = train(house, [{"k": "a", "t": NOON}], view)
        assert (row["x"], row["y"]) == (None, 2)
        assert online(house, view, k="a") == (None, "NULL_VALUE")

    def test_trap_11_one_nanosecond_in_the_future_does_not_match(self, house):
        whole = 1_714_564_800_000_000_000  # NOON
        at = pa.array([whole + 1], pa.int64()).cast(pa.timestamp("ns"))
        view = make(house, pa.table({"k": ["a"], "at": at, "x": [1]}))
        times = pa.array([whole, whole + 999, whole + 1000], pa.int64()).cast(pa.timestamp("ns"))
        spine = pa.table({"k": ["a"] * 3, "t": times})
        ds = house.store.get_historical_features(spine, [view], timestamp="t")
        assert ds.to_pyarrow()["x"].to_pylist() == [None, None, 1]
        frame = house.store.get_historical_features(spine.to_pandas(), [view], timestamp="t")
        assert frame.to_pandas()["x"].isna().tolist() == [True, True, False]
        assert online(house, view, k="a") == (None, "NOT_FOUND")

    def test_trap_12_large_integers_stay_whole_beside_a_miss(self, house):
        view = make(house, [{"k": "a", "at": NOON, "x": 2**53 + 1}])
        spine = pa.table({"k": ["a", "b"], "t": [NOON, NOON]})
        for form in (spine, spine.to_pandas()):
            ds = house.store.get_historical_features(form, [view], timestamp="t")
            frame = ds.to_pandas()
            assert str(frame["x"].dtype) == "Int64"
            assert int(frame["x"][0]) == 2**53 + 1
            assert frame["x"].isna().tolist() == [False, True]
        found = house.store.get_online_features([view], [{"k": "a"}, {"k": "b"}]).to_pandas()
        assert int(found["x"][0]) == 2**53 + 1
