"""check and diagnose: counts that were worked out by hand, on every warehouse that runs at once."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa
import pytest

from virtualfs.testing.house import DAY, HOUR, NOON, as_spine, make

ENGINES = ("duckdb", "sqlite", "postgres", "reader")


@pytest.fixture(params=ENGINES)
def house(request):
    return request.getfixturevalue(f"{request.param}_house")


def found(report):
    return {finding.kind: finding.rows for finding in report.findings}


def test_check_counts_what_breaks_the_assumptions(house):
    rows = [
        {"k": "a", "at": NOON, "made": NOON, "x": 1},
        {"k": "a", "at": NOON, "made": NOON, "x": 2},  # tied with the one above
        {"k": "a", "at": NOON, "made": NOON + HOUR, "x": 3},
        {"k": None, "at": NOON, "made": NOON, "x": 4},
        {"k": None, "at": NOON, "made": NOON, "x": 5},  # NULL keys are no ties
        {"k": "b", "at": None, "made": NOON, "x": 6},
        {"k": "c", "at": NOON + DAY, "made": NOON, "x": 7},  # of the future
    ]
    view = make(house, rows, created_timestamp="made")
    report = house.store.check([view])
    assert found(report) == {"null_keys": 2, "null_times": 1, "future_times": 1, "ties": 2}
    (ties,) = [finding for finding in report.findings if finding.kind == "ties"]
    assert {row["k"] for row in ties.samples} == {"a"}
    assert "k=c" in str(report)


def test_check_finds_ties_without_created_timestamps_and_in_static_views(house):
    rows = [{"k": "a", "at": NOON, "x": n} for n in range(3)] + [{"k": "b", "at": NOON, "x": 9}]
    assert found(house.store.check([make(house, rows)])) == {"ties": 3}
    static = make(house, [*rows, rows[0]], event_timestamp=None)
    assert found(house.store.check([static])) == {"ties": 4}


def test_check_finds_validity_that_overlaps_or_is_empty(house):
    rows = [
        {"k": "a", "start": NOON, "end": NOON + 3 * HOUR, "x": 1},
        {"k": "a", "start": NOON + HOUR, "end": NOON + 2 * HOUR, "x": 2},
        {"k": "a", "start": NOON + 5 * HOUR, "end": NOON + 5 * HOUR, "x": 3},
        {"k": "b", "start": NOON, "end": None, "x": 4},
    ]
    view = make(house, rows, valid_from="start", valid_to="end")
    report = found(house.store.check([view]))
    assert (report["overlaps"], report["empty_validity"]) == (1, 1)


def test_check_says_so_when_all_is_well(house):
    view = make(house, [{"k": "a", "at": NOON, "x": 1}, {"k": "b", "at": NOON, "x": 1}])
    report = house.store.check([view])
    assert not report
    assert str(report).startswith("1 view checked")


ROWS = [
    {"k": "old", "at": NOON - 3 * DAY, "made": NOON - 3 * DAY, "x": 1},
    {"k": "null", "at": NOON, "made": NOON, "x": None},
    {"k": "fine", "at": NOON, "made": NOON, "x": 2},
    {"k": "later", "at": NOON + DAY, "made": NOON + DAY, "x": 3},
    {"k": "late", "at": NOON - HOUR, "made": NOON + DAY, "x": 4},
]
KEYS = ["old", "null", "fine", "later", "late", "nobody", None, "fine", "nobody"]


@pytest.mark.parametrize("form", ["pyarrow", "sql"])
def test_diagnose_counts_every_reason(house, form, request):
    if form == "sql" and "reader" in request.node.name:
        pytest.skip("a spine in SQL needs temporary tables to be diagnosed")
    view = make(house, ROWS, created_timestamp="made", ttl="1d")
    times = [NOON] * 7 + [None, NOON]
    spine = pa.table({"k": KEYS, "t": pa.array(times, pa.timestamp("us"))})
    asked = as_spine(house, spine, form)
    ds = house.store.get_historical_features(asked, [view], late_data="exclude", timestamp="t")
    (diagnosis,) = ds.diagnose().views
    assert diagnosis.counts == {
        "present": 2,
        "NULL key or instant": 2,
        "no such key": 2,
        "only later rows": 1,
        "not yet known": 1,
        "over the TTL": 1,
    }
    assert diagnosis.nulls == {"x": 1}
    assert [row["k"] for row in diagnosis.samples["only later rows"]] == ["later"]
    assert [row["k"] for row in diagnosis.samples["no such key"]] == ["nobody", "nobody"]
    # It accounts for every NULL of the result, and no other.
    missing = ds.to_pyarrow()["x"].null_count
    assert missing == sum(diagnosis.counts.values()) - 2 + 1
    assert "not yet known (11.1%), for example k=late" in str(ds.diagnose())


def test_diagnose_static_and_scd2_views(house):
    static = make(house, ROWS, event_timestamp=None)
    spine = pa.table({"k": ["fine", "nobody", None]})
    (one,) = house.store.get_historical_features(spine, [static]).diagnose().views
    assert one.counts == {"present": 1, "NULL key or instant": 1, "no such key": 1}
    rows = [
        {"k": "a", "start": NOON, "end": NOON + HOUR, "x": 1},
        {"k": "a", "start": NOON + 2 * HOUR, "end": None, "x": 2},
    ]
    view = make(house, rows, valid_from="start", valid_to="end")
    spine = pa.table({"k": ["a"] * 3, "event_timestamp": [NOON - HOUR, NOON, NOON + HOUR]})
    (one,) = house.store.get_historical_features(spine, [view]).diagnose().views
    assert one.counts == {"present": 1, "only later rows": 1, "not valid then": 1}


def test_diagnose_a_view_without_entities(house):
    view = make(house, [{"at": NOON, "x": 1}], entities=(), ttl="1h")
    times = [NOON - timedelta(1), NOON, NOON + DAY]
    spine = pa.table({"event_timestamp": times})
    (one,) = house.store.get_historical_features(spine, [view]).diagnose().views
    assert one.counts == {"present": 1, "only later rows": 1, "over the TTL": 1}
