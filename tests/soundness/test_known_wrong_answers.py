"""Wrong answers that other feature stores and engines give, or that we once gave: never again.

Each test names the mistake. None of these cases may be removed.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pyarrow as pa
import pytest

import virtualfs as vfs
from virtualfs.config import Config

# Ibis 12 calls what DuckDB 1.5 has renamed; nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")
T = datetime(2024, 5, 1, 12)
HOUR = timedelta(hours=1)
TICK = timedelta(microseconds=1)


@pytest.fixture
def house(tmp_path):
    import ibis

    con = ibis.duckdb.connect()
    config = Config(project="p", folder=tmp_path, clock=T)
    with vfs.FeatureStore(config, connections={"default": con}) as store:
        yield SimpleNamespace(con=con, store=store)


def view_of(house, rows, *, name="v", keys=None, features=("x",), created=None, zone="UTC", **more):
    """Make a table and a view on it."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
    house.con.con.register("incoming", table)
    house.con.con.execute(f"CREATE OR REPLACE TABLE {name}_rows AS FROM incoming")
    house.con.con.unregister("incoming")
    source = vfs.Source(
        f"{name}_source", table=f"{name}_rows", event_timestamp="at", created_timestamp=created,
        timezone=zone,
    )  # fmt: skip
    entity = vfs.Entity(f"{name}_entity", keys or {"k": "string"})
    more.setdefault("freshness", "0s")
    return vfs.FeatureView(name, source=source, entities=[entity], features=list(features), **more)


def train(house, spine, *views, timestamp="t"):
    """Return the training set as dicts."""
    table = spine if isinstance(spine, pa.Table | str) else pa.Table.from_pylist(spine)
    ds = house.store.get_historical_features(table, list(views), timestamp=timestamp)
    return ds.to_pyarrow().to_pylist()


def online(house, view, **keys):
    """Return value and status of x, as of the clock T."""
    answer = house.store.get_online_features([view], [keys])
    return answer.to_list()[0]["x"], str(answer.statuses["x"][0])


# -- peers, training


def test_composite_keys_are_not_joined_as_text(house):
    rows = [{"a": "1", "b": "23", "at": T, "x": 1}, {"a": "12", "b": "3", "at": T, "x": 2}]
    view = view_of(house, rows, keys={"a": "string", "b": "string"})
    spine = [{"a": "12", "b": "3", "t": T}, {"a": "1", "b": "23", "t": T}]
    spine += [{"a": "123", "b": "", "t": T}, {"a": "", "b": "123", "t": T}]
    assert [row["x"] for row in train(house, spine, view)] == [2, 1, None, None]
    assert online(house, view, a="12", b="3") == (2, "PRESENT")
    assert online(house, view, a="123", b="") == (None, "NOT_FOUND")


def test_composite_keys_of_text_and_number(house):
    rows = [{"a": "1", "b": 23, "at": T, "x": 1}, {"a": "12", "b": 3, "at": T, "x": 2}]
    view = view_of(house, rows, keys={"a": "string", "b": "int64"})
    spine = [{"a": "1", "b": 23, "t": T}, {"a": "12", "b": 3, "t": T}, {"a": "1", "b": 3, "t": T}]
    assert [row["x"] for row in train(house, spine, view)] == [1, 2, None]


def test_composite_keys_cached_online_do_not_meet(house):
    rows = [{"a": "1", "b": "23", "at": T, "x": 1}, {"a": "12", "b": "3", "at": T, "x": 2}]
    rows += [{"a": "1:2", "b": "3", "at": T, "x": 3}, {"a": "1", "b": "2:3", "at": T, "x": 4}]
    view = view_of(house, rows, keys={"a": "string", "b": "string"}, freshness="1h")
    for _ in range(2):
        found = [online(house, view, a=row["a"], b=row["b"])[0] for row in rows]
        assert found == [1, 2, 3, 4]


def test_ties_do_not_fan_out(house):
    rows = [{"k": "a", "at": T, "made": T, "x": n} for n in range(4)]
    for created in (None, "made"):
        view = view_of(house, rows, created=created)
        assert len(train(house, [{"k": "a", "t": T}, {"k": "a", "t": T}], view)) == 2


def test_duplicate_spine_rows_are_kept(house):
    view = view_of(house, [{"k": "a", "at": T, "x": 1}])
    spine = [{"k": "a", "t": T, "label": 0}] * 3
    assert train(house, spine, view) == [{**row, "x": 1} for row in spine]


def test_repeated_label_times_do_not_collapse(house):
    view = view_of(house, [{"k": "a", "at": T, "x": 1}])
    spine = [{"k": "a", "t": T, "label": n} for n in (2, 0, 1)]
    assert [row["label"] for row in train(house, spine, view)] == [2, 0, 1]


def test_a_spine_row_stays_when_its_only_rows_are_outside_the_ttl(house):
    view = view_of(house, [{"k": "a", "at": T - 2 * HOUR, "x": 1}], ttl="1h")
    spine = [{"k": "a", "t": T}, {"k": "a", "t": T - HOUR}]
    assert [row["x"] for row in train(house, spine, view)] == [None, 1]


def test_two_views_are_matched_on_their_own_keys(house):
    one = view_of(house, [{"k": "a", "at": T, "x": 1}, {"k": "b", "at": T, "x": 2}], name="one")
    rows = [{"place": "b", "at": T, "y": 3}, {"place": "a", "at": T, "y": 4}]
    two = view_of(house, rows, name="two", keys={"place": "string"}, features=("y",))
    spine = [{"k": "a", "place": "b", "t": T}, {"k": "b", "place": "none", "t": T}]
    for views in ((one, two), (two, one)):
        out = train(house, spine, *views)
        assert [(row["x"], row["y"]) for row in out] == [(1, 3), (2, None)]


def test_a_null_created_timestamp_does_not_hide_the_newest_row(house):
    rows = [
        {"k": "a", "at": T - HOUR, "made": T, "x": 1},
        {"k": "a", "at": T, "made": None, "x": 2},
    ]
    view = view_of(house, rows, created="made")
    assert train(house, [{"k": "a", "t": T}], view)[0]["x"] == 2
    assert online(house, view, k="a") == (2, "PRESENT")


def test_a_feature_named_like_a_spine_column_neither_wins_nor_loses(house):
    view = view_of(house, [{"k": "a", "at": T, "x": 1}])
    out = train(house, [{"k": "a", "t": T, "x": 99}], view)
    assert out == [{"k": "a", "t": T, "x": 99, "v__x": 1}]


@pytest.mark.parametrize("name", ["x_y", "x_x", "x_right", "x__right", "x__", "X"])
def test_features_with_a_joins_own_endings(house, name):
    view = view_of(house, [{"k": "a", "at": T, name: 1}], features=(name,))
    spine = pa.table({"k": ["a"], "t": [T]})
    ds = house.store.get_historical_features(spine, [view], timestamp="t")
    expected = [{"k": "a", "t": T, name: 1}]
    assert ds.to_pyarrow().to_pylist() == expected
    assert ds.expr.to_pyarrow().to_pylist() == expected


@pytest.mark.parametrize("name", ["x_y", "x_right", "x__right"])
def test_spine_columns_with_a_joins_own_endings(house, name):
    view = view_of(house, [{"k": "a", "at": T, "x": 1}])
    ds = house.store.get_historical_features(
        pa.table({"k": ["a"], "t": [T], name: [5]}), [view], timestamp="t"
    )
    expected = [{"k": "a", "t": T, name: 5, "x": 1}]
    assert ds.to_pyarrow().to_pylist() == expected
    assert ds.expr.to_pyarrow().to_pylist() == expected


def test_the_spines_order_is_kept(house):
    view = view_of(house, [{"k": str(n), "at": T, "x": n} for n in range(100)])
    order = [(n * 37) % 100 for n in range(100)]
    spine = [{"k": str(n), "t": T - (n % 3 - 1) * HOUR, "n": n} for n in order]
    assert [row["n"] for row in train(house, spine, view)] == order
    text = "SELECT k, TIMESTAMP '2024-05-01 12:00' AS t FROM v_rows ORDER BY x DESC"
    assert [row["x"] for row in train(house, text, view)] == list(range(99, -1, -1))


def test_more_than_exact_time_matches_survive(house):
    view = view_of(house, [{"k": "a", "at": T, "x": 1}], ttl="2h")
    assert train(house, [{"k": "a", "t": T + HOUR}], view)[0]["x"] == 1


def test_an_event_exactly_a_ttl_ago_does_not_flip(house):
    view = view_of(house, [{"k": "a", "at": T - HOUR, "x": 1}], ttl="1h")
    assert train(house, [{"k": "a", "t": T}], view)[0]["x"] == 1
    assert online(house, view, k="a") == (1, "PRESENT")


@pytest.mark.parametrize(("boundary", "x"), [("inclusive", 1), ("exclusive", None)])
def test_an_event_at_t_counts_alike_in_training_and_online(house, boundary, x):
    view = view_of(house, [{"k": "a", "at": T, "x": 1}], boundary=boundary)
    assert train(house, [{"k": "a", "t": T}], view)[0]["x"] == x
    assert online(house, view, k="a")[0] == x


def test_no_plain_query_runs_silently_where_a_group_has_no_time(house):
    view = view_of(house, [{"k": "a", "at": T, "x": 1}])
    with pytest.raises(vfs.SpineError, match="no timestamp column"):
        train(house, pa.table({"k": ["a"]}), view)


# -- peers, online


def test_unknown_keys_and_nulls_are_not_present(house):
    view = view_of(house, [{"k": "a", "at": T, "x": None}, {"k": "b", "at": T, "x": 1}])
    assert online(house, view, k="a") == (None, "NULL_VALUE")
    assert online(house, view, k="nobody") == (None, "NOT_FOUND")
    assert online(house, view, k=None) == (None, "NOT_FOUND")


def test_expired_values_are_not_served(house):
    view = view_of(house, [{"k": "a", "at": T - HOUR - TICK, "x": 1}], ttl="1h")
    assert online(house, view, k="a") == (None, "OUTSIDE_MAX_AGE")


def test_a_correction_replaces_what_was_served(house):
    row = {"k": "a", "at": T - HOUR, "made": T - HOUR, "x": 1}
    view = view_of(house, [row], created="made")
    assert online(house, view, k="a") == (1, "PRESENT")
    view = view_of(house, [row, {**row, "made": T, "x": 2}], created="made")
    assert online(house, view, k="a") == (2, "PRESENT")
    assert train(house, [{"k": "a", "t": T}], view)[0]["x"] == 2


def test_late_rows_are_served(house):
    view = view_of(house, [{"k": "a", "at": T - 5 * HOUR, "x": 1}])
    assert online(house, view, k="a") == (1, "PRESENT")
    rows = [{"k": "a", "at": T - 5 * HOUR, "x": 1}, {"k": "a", "at": T - 4 * HOUR, "x": 2}]
    assert online(house, view_of(house, rows), k="a") == (2, "PRESENT")


def test_values_from_the_future_are_not_served(house):
    rows = [{"k": "a", "at": T, "x": 1}, {"k": "a", "at": T + TICK, "x": 2}]
    view = view_of(house, rows)
    assert online(house, view, k="a") == (1, "PRESENT")
    assert online(house, view_of(house, rows[1:]), k="a") == (None, "NOT_FOUND")


# -- traps of engines


def test_trap_3_tied_timestamps_give_the_same_sum_on_each_run(house):
    rows = [{"k": str(n % 50), "at": T, "x": n} for n in range(5000)]
    view = view_of(house, rows)
    spine = [{"k": str(n), "t": T} for n in range(50)]
    runs = {tuple(row["x"] for row in train(house, spine, view)) for _ in range(5)}
    assert len(runs) == 1


@pytest.mark.parametrize("created", [None, "made"])
def test_trap_4_null_times_do_not_match_each_other(house, created):
    null = pa.nulls(1, pa.timestamp("us"))
    view = view_of(
        house, pa.table({"k": ["a"], "at": null, "made": null, "x": [1]}), created=created
    )
    spine = pa.table({"k": ["a"] * 2, "t": pa.array([None, T], pa.timestamp("us"))})
    assert [row["x"] for row in train(house, spine, view)] == [None, None]


@pytest.mark.parametrize("created", [None, "made"])
def test_trap_4_a_null_spine_time_does_not_sort_highest(house, created):
    view = view_of(house, [{"k": "a", "at": T, "made": T, "x": 1}], created=created)
    spine = pa.table({"k": ["a"] * 2, "t": pa.array([None, T], pa.timestamp("us"))})
    assert [row["x"] for row in train(house, spine, view)] == [None, 1]


def test_trap_5_an_older_value_does_not_shine_through_a_null(house):
    rows = [{"k": "a", "at": T - HOUR, "x": 1, "y": 1}, {"k": "a", "at": T, "x": None, "y": 2}]
    view = view_of(house, rows, features=("x", "y"))
    (row,) = train(house, [{"k": "a", "t": T}], view)
    assert (row["x"], row["y"]) == (None, 2)
    assert online(house, view, k="a") == (None, "NULL_VALUE")


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Europe/Berlin"])
def test_trap_10_a_day_is_24_hours_whatever_the_sessions_zone(house, zone):
    house.con.con.execute(f"SET TimeZone = '{zone}'")
    rows = [
        {"k": day, "at": datetime.fromisoformat(f"{day}T17:00:00+00:00"), "x": 1}
        for day in ("2024-03-09", "2024-11-02", "2024-03-30", "2024-10-26")
    ]
    view = view_of(house, rows, ttl="1d")
    day = timedelta(hours=24)
    spine = [{"k": row["k"], "t": row["at"] + day} for row in rows]
    spine += [{"k": row["k"], "t": row["at"] + day + TICK} for row in rows]
    assert [row["x"] for row in train(house, spine, view)] == [1] * 4 + [None] * 4


def test_trap_10_naive_spine_times_are_utc_whatever_the_sessions_zone(house):
    house.con.con.execute("SET TimeZone = 'America/New_York'")
    view = view_of(house, [{"k": "a", "at": T.replace(tzinfo=UTC), "x": 1}])
    spine = [{"k": "a", "t": T - TICK}, {"k": "a", "t": T}]
    assert [row["x"] for row in train(house, spine, view)] == [None, 1]
    text = "SELECT 'a' AS k, TIMESTAMP '2024-05-01 11:59:59.999999' AS t"
    assert train(house, text, view)[0]["x"] is None
    assert online(house, view, k="a") == (1, "PRESENT")


def test_trap_11_one_nanosecond_in_the_future_does_not_match(house):
    whole = 1_714_564_800_000_000_000  # T
    at = pa.array([whole + 1], pa.int64()).cast(pa.timestamp("ns"))
    view = view_of(house, pa.table({"k": ["a"], "at": at, "x": [1]}))
    times = pa.array([whole, whole + 999, whole + 1000], pa.int64()).cast(pa.timestamp("ns"))
    spine = pa.table({"k": ["a"] * 3, "t": times})
    ds = house.store.get_historical_features(spine, [view], timestamp="t")
    assert ds.to_pyarrow()["x"].to_pylist() == [None, None, 1]
    frame = house.store.get_historical_features(spine.to_pandas(), [view], timestamp="t")
    assert frame.to_pandas()["x"].isna().tolist() == [True, True, False]
    assert online(house, view, k="a") == (None, "NOT_FOUND")


def test_trap_12_large_integers_stay_whole_beside_a_miss(house):
    view = view_of(house, [{"k": "a", "at": T, "x": 2**53 + 1}])
    spine = pa.table({"k": ["a", "b"], "t": [T, T]})
    for given in (spine, spine.to_pandas()):
        ds = house.store.get_historical_features(given, [view], timestamp="t")
        frame = ds.to_pandas()
        assert str(frame["x"].dtype) == "Int64"
        assert int(frame["x"][0]) == 2**53 + 1
        assert frame["x"].isna().tolist() == [False, True]
    found = house.store.get_online_features([view], [{"k": "a"}, {"k": "b"}]).to_pandas()
    assert int(found["x"][0]) == 2**53 + 1
