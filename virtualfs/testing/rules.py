"""DESIGN's rules of meaning by number, each with its edges, for any warehouse."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from virtualfs.definitions.entity import Entity
from virtualfs.definitions.feature_view import FeatureView
from virtualfs.definitions.source import Source
from virtualfs.errors import DefinitionError, SpineError
from virtualfs.testing.house import (
    DAY,
    HOUR,
    NOON,
    OUTPUTS,
    PLAIN,
    SPINES,
    TICK,
    as_output,
    as_spine,
    ask,
    judge,
    make,
    rows_of,
    values,
)

__all__ = ["Rules"]


class Rules:
    """Named cases; see :mod:`virtualfs.testing.conformance`."""

    @pytest.mark.parametrize(
        ("boundary", "expected"), [(None, [None, 1, 1]), ("inclusive", [None, 1, 1]),
                                   ("exclusive", [None, None, 1])]
    )  # fmt: skip
    def test_rule_2_boundary(self, house, boundary, expected):
        view = make(house, [{"k": "a", "at": NOON, "x": 1}], boundary=boundary)
        assert values(house, view, [NOON - TICK, NOON, NOON + TICK]) == expected

    @pytest.mark.parametrize(
        ("boundary", "expected"), [("inclusive", [None, 1, 1]), ("exclusive", [None, None, 1])]
    )
    def test_rule_2_delay_moves_the_boundary(self, house, boundary, expected):
        view = make(
            house, [{"k": "a", "at": NOON, "x": 1}], boundary=boundary, availability_delay="1d"
        )
        times = [NOON + DAY - TICK, NOON + DAY, NOON + DAY + TICK]
        assert values(house, view, times) == expected

    def test_rule_3_latest_event_then_latest_created_null_lowest(self, house):
        rows = [
            {"k": "a", "at": NOON - DAY, "made": NOON + 9 * DAY, "x": 1},
            {"k": "a", "at": NOON, "made": None, "x": 2},
            {"k": "a", "at": NOON, "made": NOON, "x": 3},
            {"k": "a", "at": NOON, "made": NOON - TICK, "x": 4},
        ]
        view = make(house, rows, created_timestamp="made")
        assert values(house, view, [NOON - TICK, NOON]) == [1, 3]
        view = make(house, rows[:2], created_timestamp="made")
        assert values(house, view, [NOON]) == [2]

    def test_rule_3_full_ties_give_one_whole_row_always_the_same(self, house):
        rows = [{"k": "a", "at": NOON, "x": n, "y": -n, "z": str(n)} for n in range(50)]
        seen = set()
        for seed in range(5):
            random.Random(seed).shuffle(rows)  # noqa: S311 - order, not secrets
            view = make(house, rows, features=("x", "y", "z"))
            answers = [values(house, view, [NOON], features=name) for name in "xyz"]
            (x,), (y,), (z,) = answers
            assert (y, z) == (-x, str(x))
            online = house.store.get_features([view], [{"k": "a"}], as_of=NOON).to_list()
            table = house.store.table(view, as_of=NOON).to_pyarrow().to_pylist()
            assert online == [{"k": "a", "x": x, "y": y, "z": z}]
            assert [row["x"] for row in table] == [x]
            seen.add(x)
        assert len(seen) == 1

    def test_rule_3_identical_rows_do_not_fan_out(self, house):
        view = make(house, [{"k": "a", "at": NOON, "x": 1}] * 5)
        assert values(house, view, [NOON, NOON]) == [1, 1]
        assert house.store.table(view, as_of=NOON).count().to_pyarrow().as_py() == 1

    @pytest.mark.parametrize("delay", [None, "1h"])
    def test_rule_4_ttl_edges_count_from_the_event(self, house, delay):
        view = make(house, [{"k": "a", "at": NOON, "x": 1}], ttl="1d", availability_delay=delay)
        assert values(house, view, [NOON + DAY - TICK, NOON + DAY, NOON + DAY + TICK]) == [
            1,
            1,
            None,
        ]

    def test_rule_4_ttl_never_reveals_an_older_row_nor_skips_nulls(self, house):
        rows = [{"k": "a", "at": NOON, "x": 1}, {"k": "a", "at": NOON + TICK, "x": None}]
        view = make(house, rows, ttl="1d")
        assert values(house, view, [NOON, NOON + TICK, NOON + DAY]) == [1, None, None]

    def test_rule_4_ttl_must_exceed_the_delay_and_is_refused_on_static_views(self, house):
        rows = [{"k": "a", "at": NOON, "x": 1}]
        with pytest.raises(DefinitionError, match="availability_delay"):
            make(house, rows, ttl="1d", availability_delay="1d")
        with pytest.raises(DefinitionError, match="event_timestamp"):
            make(house, rows, ttl="1d", event_timestamp=None)

    def test_rule_5_the_latest_row_is_taken_whole(self, house):
        rows = [
            {"k": "a", "at": NOON - DAY, "x": 1, "y": 1},
            {"k": "a", "at": NOON, "x": None, "y": 2},
        ]
        view = make(house, rows, features=("x", "y"))
        assert values(house, view, [NOON]) == [None]
        assert values(house, view, [NOON], features="y") == [2]

    def test_rule_8_nulls_match_nothing(self, house):

        kinds = pa.schema([("k", pa.string()), ("at", pa.timestamp("us")), ("x", pa.int64())])
        rows = [{"k": None, "at": NOON, "x": 1}, {"k": "a", "at": None, "x": 2}]
        view = make(house, pa.Table.from_pylist(rows, kinds))
        assert values(house, view, [NOON, None], k="a") == [None, None]
        assert values(house, view, [NOON, None], k=None) == [None, None]
        online = house.store.get_features([view], [{"k": None}, {"k": "a"}], as_of=NOON)
        assert online.statuses == {"x": ["NOT_FOUND", "NOT_FOUND"]}

    @pytest.mark.parametrize("created", [None, "made"])
    @pytest.mark.parametrize("others", [[], [NOON], [NOON - DAY]])
    def test_rule_8_a_null_spine_timestamp_matches_nothing(self, house, created, others):
        # A NULL struct sorts highest in an ASOF join, like NULL fields do.
        view = make(
            house, [{"k": "a", "at": NOON, "made": NOON, "x": 1}], created_timestamp=created
        )
        expected = [1 if at == NOON else None for at in others]

        times = pa.array([None, *others], pa.timestamp("us"))
        spine = pa.table({"k": ["a"] * len(times), "event_timestamp": times})
        for form in SPINES:
            ds = house.store.get_historical_features(as_spine(house, spine, form), [view])
            assert ds.to_pyarrow()["x"].to_pylist() == [None, *expected]

    def test_rule_8_a_spine_of_nothing_but_nulls_keeps_its_rows(self, house):
        import pandas as pd

        view = make(house, [{"k": "a", "at": NOON, "x": 1}])
        spine = pa.table({"k": pa.nulls(2), "event_timestamp": pa.nulls(2)})
        assert house.store.get_historical_features(spine, [view]).to_pyarrow()["x"].to_pylist() == [
            None,
            None,
        ]
        frame = pd.DataFrame({"k": [None, None], "event_timestamp": [pd.NaT, pd.NaT]})
        out = house.store.get_historical_features(frame, [view]).to_pandas()
        assert out["x"].isna().tolist() == [True, True]

    def test_rule_9_nanoseconds_round_up_for_features_and_down_for_spines(self, house):

        whole = 1_714_564_800_000_000_000
        table = pa.table(
            {
                "k": ["a", "a"],
                "at": pa.array([whole, whole + 1], pa.int64()).cast(pa.timestamp("ns")),
                "x": [0, 1],
            }
        )
        view = make(house, table)
        # At whole+1 the second row is not yet surely known: it counts as whole+1000.
        times = [whole - 1, whole, whole + 1, whole + 999, whole + 1000]
        assert values(house, view, times) == [None, 0, 0, 0, 1]

    def test_rule_9_nanoseconds_before_1970(self, house):

        at = pa.array([-1_000_000_001], pa.int64()).cast(pa.timestamp("ns"))
        view = make(house, pa.table({"k": ["a"], "at": at, "x": [1]}))
        times = [-1_000_001_000, -1_000_000_001, -1_000_000_000]
        assert values(house, view, times) == [None, None, 1]

    def test_rule_9_sub_microsecond_created_timestamps_tie_alike_everywhere(self, house):

        made = pa.array(range(1, 21), pa.int64()).cast(pa.timestamp("ns"))
        table = pa.table({"k": ["a"] * 20, "at": [NOON] * 20, "made": made, "x": range(20)})
        view = make(house, table, created_timestamp="made")
        (trained,) = values(house, view, [NOON])
        online = house.store.get_features([view], [{"k": "a"}], as_of=NOON).to_list()
        assert online == [{"k": "a", "x": trained}]
        assert house.store.table(view, as_of=NOON).to_pyarrow()["x"].to_pylist() == [trained]

    def test_rule_9_zones_are_converted(self, house):
        from zoneinfo import ZoneInfo

        view = make(house, [{"k": "a", "at": NOON.replace(tzinfo=UTC), "x": 1}])
        kolkata = datetime(2024, 5, 1, 17, 30, tzinfo=ZoneInfo("Asia/Kolkata"))
        assert values(house, view, [kolkata - TICK, kolkata]) == [None, 1]
        assert values(house, view, [NOON - TICK, NOON]) == [None, 1]

    def test_rule_9_naive_source_times_mean_the_sources_zone(self, house):
        rows = [{"k": "a", "at": datetime(2024, 7, 1, 8), "x": 1}]
        view = make(house, rows, timezone="America/New_York")
        assert values(house, view, [NOON.replace(month=7) - TICK, NOON.replace(month=7)]) == [
            None,
            1,
        ]

    def test_rule_9_durations_are_hours_across_daylight_saving(self, house):
        # 2024-03-10 has 23 hours in New York; a TTL of 1 d is 24 h, a delay likewise.
        rows = [{"k": "a", "at": datetime(2024, 3, 9, 12), "x": 1}]  # 17:00 UTC
        edge = datetime(2024, 3, 10, 17)
        view = make(house, rows, timezone="America/New_York", ttl="1d")
        assert values(house, view, [edge, edge + TICK]) == [1, None]
        view = make(house, rows, timezone="America/New_York", availability_delay="1d")
        assert values(house, view, [edge - TICK, edge]) == [None, 1]

    def test_rule_9_wall_times_that_occur_twice_or_never_are_read_as_the_later(self, house):
        rows = [
            {"k": "a", "at": datetime(2024, 11, 3, 1, 30), "x": 1},  # 05:30 or 06:30 UTC
            {"k": "a", "at": datetime(2024, 3, 10, 2, 30), "x": 0},  # skipped: 07:30 UTC
        ]
        view = make(house, rows, timezone="America/New_York")
        times = [datetime(2024, 3, 10, 7, 29), datetime(2024, 3, 10, 7, 30),
                 datetime(2024, 11, 3, 6, 29), datetime(2024, 11, 3, 6, 30)]  # fmt: skip
        assert values(house, view, times) == [None, 0, 0, 1]

    @pytest.mark.parametrize(("timezone", "hour"), [("UTC", 0), ("America/New_York", 4)])
    def test_rule_9_dates_are_midnight(self, house, timezone, hour):
        view = make(house, [{"k": "a", "at": date(2024, 5, 1), "x": 1}], timezone=timezone)
        edge = datetime(2024, 5, 1, hour)
        assert values(house, view, [edge - TICK, edge]) == [None, 1]
        assert values(house, view, [date(2024, 5, 1), date(2024, 5, 2)])[1] == 1

    def test_rule_9_coarser_units_are_instants_too(self, house):

        for unit in ("s", "ms"):
            at = pa.array([NOON], pa.timestamp(unit))
            view = make(house, pa.table({"k": ["a"], "at": at, "x": [1]}))
            spine = pa.table({"k": ["a"], "event_timestamp": at})
            assert (
                house.store.get_historical_features(spine, [view]).to_pyarrow()["x"][0].as_py() == 1
            )

    def test_an_entityless_view_answers_every_row(self, house):
        rows = [{"at": NOON - DAY, "x": 1}, {"at": NOON, "x": 2}]
        view = make(house, rows, entities=())
        assert values(house, view, [NOON - 2 * DAY, NOON - DAY, NOON, None]) == [None, 1, 2, None]
        assert house.store.get_features([view], [{}], as_of=NOON).to_dict() == {"x": [2]}

    def test_an_entityless_view_as_a_table_at_an_instant(self, house):
        rows = [{"at": NOON - DAY, "x": 1}, {"at": NOON, "x": 2}]
        view = make(house, rows, entities=())
        assert house.store.table(view, as_of=NOON).to_pyarrow()["x"].to_pylist() == [2]

    @pytest.mark.parametrize("form", SPINES)
    def test_a_static_entityless_view_without_rows_keeps_the_spines_rows(self, house, form):

        view = make(
            house, pa.table({"x": pa.array([], pa.int64())}), entities=(), event_timestamp=None
        )
        spine = as_spine(house, pa.table({"label": [1, 2]}), form)
        ds = house.store.get_historical_features(spine, [view])
        for output in [form for form in OUTPUTS if form not in house.gaps]:
            out = as_output(house, ds, output)
            assert rows_of(out.select(["label", "x"])) == [(1, None), (2, None)]

    def test_a_static_view_needs_no_timestamp(self, house):

        view = make(house, [{"k": "a", "at": NOON, "x": 1}], event_timestamp=None)
        spine = pa.table({"k": ["a", "b", None, "a"]})
        ds = house.store.get_historical_features(spine, [view])
        assert ds.to_pyarrow()["x"].to_pylist() == [1, None, None, 1]
        assert "no point-in-time guarantee" in ds.explain()

    def test_large_integers_stay_whole_beside_nulls_in_pandas(self, house):
        import pandas as pd

        view = make(house, [{"k": "a", "at": NOON, "x": 2**53 + 1}])
        spine = pd.DataFrame({"k": ["a", "b"], "event_timestamp": [NOON, NOON]})
        out = house.store.get_historical_features(spine, [view]).to_pandas()
        assert out["x"].dtype == pd.Int64Dtype()
        assert out["x"][0] == 2**53 + 1
        assert out["x"][1] is pd.NA
        table = pa.table({"k": ["a", "b"], "event_timestamp": [NOON, NOON]})
        query = as_spine(house, table, "sql")
        out = house.store.get_historical_features(query, [view]).to_pandas()
        assert out["x"].tolist() == [2**53 + 1, pd.NA]

    def test_names_that_collide_are_prefixed_for_every_holder(self, house):

        one = make(
            house, [{"k": "a", "at": NOON, "x": 1, "y": 10}], name="one", features=("x", "y")
        )
        two = make(house, [{"k": "a", "at": NOON, "x": 2}], name="two")
        spine = pa.table({"k": ["a"], "event_timestamp": [NOON], "y": [99]})
        ds = house.store.get_historical_features(spine, [two, one])
        assert ds.to_pyarrow().to_pylist() == [
            {"k": "a", "event_timestamp": NOON, "y": 99,
             "two_view__x": 2, "one_view__x": 1, "one_view__y": 10}
        ]  # fmt: skip
        clash = spine.append_column("one_view__y", pa.array([0]))
        with pytest.raises(SpineError, match="one_view__y"):
            house.store.get_historical_features(clash, [two, one])
        with pytest.raises(SpineError, match="x"):
            house.store.get_historical_features(spine, [one[["x"]], one[["x"]]])
        full = house.store.get_historical_features(
            spine.drop(["y"]), [one], full_feature_names=True
        )
        assert full.to_pyarrow().column_names[2:] == ["one_view__x", "one_view__y"]

    def test_features_come_in_the_order_asked(self, house):

        one = make(
            house,
            [{"k": "a", "at": NOON, "c": 3, "a": 1, "b": 2}],
            name="one",
            features=tuple("abc"),
        )
        two = make(house, [{"k": "a", "at": NOON, "d": 4}], name="two", features=("d",))
        spine = pa.table({"k": ["a"], "event_timestamp": [NOON]})
        asked = [one[["c"]], two, one[["b", "a"]]]
        ds = house.store.get_historical_features(spine, asked)
        for output in [form for form in OUTPUTS if form not in house.gaps]:
            out = as_output(house, ds, output)
            assert out.select(list("cdba")).to_pylist() == [{"c": 3, "d": 4, "b": 2, "a": 1}]
            assert out.column_names == ["k", "event_timestamp", *"cdba"]

    def test_one_view_twice_by_name_and_join_keys(self, house):

        rows = [{"k": "a", "at": NOON, "x": 1}, {"k": "b", "at": NOON, "x": 2}]
        view = make(house, rows)
        other = view.with_name("dest").with_join_keys({"k": "dest"})
        spine = pa.table({"k": ["a", "b"], "dest": ["b", None], "event_timestamp": [NOON, NOON]})
        for form in SPINES:
            ds = house.store.get_historical_features(as_spine(house, spine, form), [other, view])
            out = ds.to_pyarrow()
            assert out["dest__x"].to_pylist() == [2, None]
            assert out["source_view__x"].to_pylist() == [1, 2]
        keys = [{"k": "a", "dest": "b"}]
        online = house.store.get_features([other, view], keys, as_of=NOON)
        assert online.to_list() == [{"dest": "b", "k": "a", "dest__x": 2, "source_view__x": 1}]

    def test_one_spine_column_cannot_serve_keys_of_two_types(self, house):

        text = make(house, [{"k": "1", "at": NOON, "x": 1}], name="texts")
        house.put("numbers", pa.table({"k": [1], "at": [NOON], "y": [2]}))
        number = FeatureView(
            "numbers_view",
            source=Source("numbers", table="numbers", event_timestamp="at"),
            entities=[Entity("numbered", {"k": "int64"})],
            features=["y"],
        )
        spine = pa.table({"k": ["1"], "event_timestamp": [NOON]})
        for views in ([text, number], [number, text]):
            with pytest.raises(SpineError, match="k"):
                house.store.get_historical_features(spine, views).to_pyarrow()

    @pytest.mark.parametrize("form", SPINES)
    def test_an_empty_spine_gives_an_empty_result_with_all_columns(self, house, form):

        case = replace(PLAIN, spine_rows=())
        ds = ask(house, case, as_spine(house, case.spine_table(), form))
        out = ds.to_pyarrow()
        assert out.num_rows == 0
        assert out.schema.field("id").type == pa.int64()
        judge(case, out)

    @pytest.mark.parametrize("boundary", ["inclusive", "exclusive"])
    def test_rule_7_what_was_truly_known(self, house, boundary):
        rows = [
            {"k": "a", "at": NOON - DAY, "made": NOON - DAY, "x": 1},
            {"k": "a", "at": NOON - HOUR, "made": NOON + HOUR, "x": 2},  # late
            {"k": "a", "at": NOON - HOUR, "made": None, "x": 3},  # nobody knows when
        ]
        view = make(house, rows, created_timestamp="made", boundary=boundary)
        times = [NOON, NOON + HOUR - TICK, NOON + HOUR, NOON + DAY]
        assert values(house, view, times, late_data="exclude") == [1, 1, 2, 2]
        assert values(house, view, times) == [2, 2, 2, 2]

    def test_rule_7_a_late_older_row_never_hides_a_newer_one(self, house):
        rows = [
            {"k": "a", "at": NOON, "made": NOON, "x": 1},
            {"k": "a", "at": NOON - DAY, "made": NOON + HOUR, "x": 2},
            {"k": "a", "at": NOON, "made": NOON + 2 * HOUR, "x": 3},  # a correction
        ]
        view = make(house, rows, created_timestamp="made")
        times = [NOON - TICK, NOON, NOON + HOUR, NOON + 2 * HOUR]
        assert values(house, view, times, late_data="exclude") == [None, 1, 1, 3]

    def test_rule_7_without_created_timestamps_it_is_said(self, house):

        view = make(house, [{"k": "a", "at": NOON, "x": 1}])
        spine = pa.table({"k": ["a"], "event_timestamp": [NOON]})
        ds = house.store.get_historical_features(spine, [view], late_data="exclude")
        assert "judged by event time alone" in ds.explain(engine=False)
        assert ds.metadata["judged_by_event_time_alone"] == ["source_view"]
        assert ds.to_pyarrow()["x"].to_pylist() == [1]

    def test_rule_10_rows_hold_from_until(self, house):
        rows = [
            {"k": "a", "start": NOON, "end": NOON + HOUR, "x": 1},
            {"k": "a", "start": NOON + HOUR, "end": None, "x": 2},
            {"k": "a", "start": None, "end": NOON + DAY, "x": 3},
        ]
        view = make(house, rows, valid_from="start", valid_to="end")
        times = [NOON - TICK, NOON, NOON + HOUR - TICK, NOON + HOUR, NOON + 999 * DAY]
        assert values(house, view, times) == [None, 1, 1, 2, 2]

    def test_rule_10_a_gap_shows_nothing_and_of_overlapping_rows_the_later_wins(self, house):
        rows = [
            {"k": "a", "start": NOON, "end": NOON + 9 * HOUR, "x": 1},
            {"k": "a", "start": NOON + HOUR, "end": NOON + 2 * HOUR, "x": 2},
            {"k": "b", "start": NOON, "end": NOON + HOUR, "x": 3},
            {"k": "b", "start": NOON + 3 * HOUR, "end": None, "x": 4},
        ]
        view = make(house, rows, valid_from="start", valid_to="end")
        times = [NOON + n * HOUR for n in range(5)]
        assert values(house, view, times) == [1, 2, 1, 1, 1]
        assert values(house, view, times, k="b") == [3, None, None, 4, 4]

    def test_rule_10_the_delay_moves_both_ends(self, house):
        rows = [{"k": "a", "start": NOON, "end": NOON + HOUR, "x": 1}]
        view = make(house, rows, valid_from="start", valid_to="end", availability_delay="1d")
        times = [NOON + DAY - TICK, NOON + DAY, NOON + DAY + HOUR - TICK, NOON + DAY + HOUR]
        assert values(house, view, times) == [None, 1, 1, None]

    def test_rule_10_ttl_and_boundary_are_refused(self, house):
        rows = [{"k": "a", "start": NOON, "end": NOON + HOUR, "x": 1}]
        for more in ({"ttl": "1d"}, {"boundary": "exclusive"}):
            with pytest.raises(DefinitionError, match="valid_from"):
                make(house, rows, valid_from="start", valid_to="end", **more)

    @pytest.mark.parametrize("form", ["pyarrow", "sql"])
    def test_odd_names_are_taken_literally(self, house, form):

        odd = ["select", "a__right", "ünïcode", "x_y", "order by"]
        rows = [{"k": "a", "at": NOON, "x__right": 1, "group by": 2}]
        view = make(house, rows, features=("x__right", "group by"))
        columns = {name: [number] for number, name in enumerate(odd)}
        spine = pa.table({"k": ["a"], **columns, "event_timestamp": [NOON]})
        ds = house.store.get_historical_features(as_spine(house, spine, form), [view])
        out = ds.to_pyarrow()
        assert out.column_names == [*spine.column_names, "x__right", "group by"]
        assert rows_of(out.select([*odd, "x__right", "group by"])) == [(0, 1, 2, 3, 4, 1, 2)]

    def test_nothing_is_left_behind(self, house):
        before = sorted(house.store.warehouse().table_names())
        ds = ask(house, PLAIN)
        ds.to_pyarrow()
        stream = ds.to_pyarrow_batches(1)
        stream.read_next_batch()
        del stream
        ask(house, PLAIN, as_spine(house, PLAIN.spine_table(), "sql")).to_pyarrow()
        after = set(house.store.warehouse().table_names()) - {"spine", "source"}
        assert after <= set(before)

    def test_explain_shows_the_engines_own_plan(self, house):
        for form in ("pyarrow", "sql"):
            ds = ask(house, PLAIN, as_spine(house, PLAIN.spine_table(), form))
            text = ds.explain()
            assert "source rows" in text
            assert len(text.splitlines()) > 6
