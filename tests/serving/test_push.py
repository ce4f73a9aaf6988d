"""Pushed rows: newer wins, whatever comes when; bad batches are refused whole."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest

import virtualfs as vfs
from tests.serving.conftest import NOW, PLACE, Clock, add, temp, weather


def row(place: str, seen: datetime, value: Any, written: datetime | None = None) -> dict[str, Any]:
    return {"place": place, "seen": seen, "written": written, "temp": value}


def ago(**by: float) -> datetime:
    return NOW - timedelta(**by)


def test_a_push_is_seen_at_once_and_by_every_store(
    open_store: Callable[..., vfs.FeatureStore], cache_url: str, connection: Any
) -> None:
    store = open_store(near="10s")
    store.apply([weather()])
    add(connection, "A", ago(hours=3), 1)
    other = store if cache_url == "memory://" else open_store(near="10s")
    assert temp(other, "A") == [(1, "PRESENT")]
    result = store.push("weather", [row("A", ago(hours=2), 2)])
    assert (result.written, result.dropped) == (1, 0)
    assert temp(store, "A") == [(2, "PRESENT")]
    assert temp(other, "A") == [(2, "PRESENT")]
    found = store.get_online_features(["weather:temp"], [{"place": "A"}])
    assert found.event_timestamps["temp"] == [ago(hours=2)]


def test_older_rows_are_counted_and_dropped(store: vfs.FeatureStore) -> None:
    store.apply([weather()])
    assert store.push("weather", [row("A", ago(hours=2), 2)]).written == 1
    result = store.push("weather", [row("A", ago(hours=3), 1), row("B", ago(hours=3), 3)])
    assert (result.written, result.dropped) == (1, 1)
    assert temp(store, "A", "B") == [(2, "PRESENT"), (3, "PRESENT")]


def test_an_old_push_into_an_empty_cache_hides_nothing(
    store: vfs.FeatureStore, connection: Any
) -> None:
    store.apply([weather()])
    add(connection, "A", ago(hours=1), 5)
    store.push("weather", [row("A", ago(hours=2), 2)])
    assert temp(store, "A") == [(5, "PRESENT")]


def test_a_push_outlives_freshness_until_the_warehouse_has_its_like(
    store: vfs.FeatureStore, connection: Any, clock: Clock, asked: list[int]
) -> None:
    store.apply([weather(freshness="10s")])
    add(connection, "A", ago(hours=3), 1)
    store.push("weather", [row("A", ago(hours=2), 2, ago(hours=2))])
    for _ in range(3):
        clock.move(seconds=30)
        assert temp(store, "A") == [(2, "PRESENT")]
        assert temp(store, "A") == [(2, "PRESENT")]
    assert len(asked) == 3  # compared with the warehouse once in each time of freshness
    add(connection, "A", ago(hours=2), 7, ago(hours=2))  # as new as what was pushed
    clock.move(seconds=30)
    assert temp(store, "A") == [(7, "PRESENT")]


def test_a_materialization_does_not_lower_it(store: vfs.FeatureStore, connection: Any) -> None:
    store.apply([weather()])
    add(connection, "A", ago(hours=3), 1)
    add(connection, "B", ago(hours=3), 1)
    store.push("weather", [row("A", ago(hours=2), 2)])
    (done,) = store.materialize(["weather"]).views
    assert (done.keys, done.written, done.kept) == (2, 1, 1)
    assert temp(store, "A", "B") == [(2, "PRESENT"), (1, "PRESENT")]


def test_it_ends_with_its_ttl(store: vfs.FeatureStore, clock: Clock) -> None:
    store.apply([weather(ttl="1h", freshness="10s")])
    store.push("weather", [row("A", ago(minutes=30), 2)])
    assert temp(store, "A") == [(2, "PRESENT")]
    clock.move(minutes=30)
    assert temp(store, "A") == [(2, "PRESENT")]  # of exactly its TTL
    clock.move(seconds=1)
    assert temp(store, "A") in ([(None, "OUTSIDE_MAX_AGE")], [(None, "NOT_FOUND")])
    assert store.push("weather", [row("A", ago(hours=2), 2)]).dropped == 1


def test_a_view_without_freshness_holds_a_push(
    store: vfs.FeatureStore, connection: Any, clock: Clock
) -> None:
    store.apply([weather(freshness=None)])
    add(connection, "A", ago(hours=3), 1)
    assert temp(store, "A") == [(1, "PRESENT")]
    store.push("weather", [row("A", ago(hours=2), 2)])
    clock.move(days=30)
    assert temp(store, "A") == [(2, "PRESENT")]


def test_views_that_are_never_cached_take_pushes_too(
    store: vfs.FeatureStore, connection: Any
) -> None:
    store.apply([weather(freshness="0s")])
    add(connection, "A", ago(hours=3), 1)
    store.push("weather", [row("A", ago(hours=2), 2)])
    assert temp(store, "A") == [(2, "PRESENT")]
    add(connection, "A", ago(hours=1), 3)
    assert temp(store, "A") == [(3, "PRESENT")]
    assert temp(store, "A", max_age=timedelta(0)) == [(3, "PRESENT")]


def test_the_greatest_stays_under_any_concurrency(store: vfs.FeatureStore) -> None:
    store.apply([weather()])
    moments = [ago(seconds=second) for second in range(1, 201)]

    def push(some: list[datetime]) -> None:
        for seen in some:
            store.push("weather", [row("A", seen, moments.index(seen))])

    threads = [threading.Thread(target=push, args=(moments[start::8],)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert temp(store, "A") == [(0, "PRESENT")]


def test_equal_event_times_go_by_the_created_timestamp(store: vfs.FeatureStore) -> None:
    store.apply([weather()])
    seen = ago(hours=1)
    store.push("weather", [row("A", seen, 2, ago(minutes=5)), row("A", seen, 1, ago(minutes=9))])
    assert temp(store, "A") == [(2, "PRESENT")]
    assert store.push("weather", [row("A", seen, 3, None)]).dropped == 1
    assert store.push("weather", [row("A", seen, 4, ago(minutes=4))]).written == 1
    assert temp(store, "A") == [(4, "PRESENT")]


def test_tables_and_dicts_of_lists(store: vfs.FeatureStore) -> None:
    store.apply([weather()])
    columns = {"place": ["A", "B"], "seen": [ago(hours=1)] * 2, "written": [ago(hours=1)] * 2}
    store.push("weather", {**columns, "temp": [1, 2]})
    assert temp(store, "A", "B") == [(1, "PRESENT"), (2, "PRESENT")]
    frame = pd.DataFrame({**columns, "seen": [ago(minutes=1)] * 2, "temp": [3, None]})
    store.push("weather", frame.astype({"temp": "Int64"}))
    assert temp(store, "A", "B") == [(3, "PRESENT"), (None, "NULL_VALUE")]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"temp": "warm"}, "row 1: temp: expected int32, not 'warm'"),
        ({"temp": 1.5}, "row 1: temp: expected int32"),
        ({"temp": 2**31}, "row 1: temp: 2147483648 is out of the range of int32"),
        ({"place": None}, "row 1: place is NULL"),
        ({"place": 5}, "row 1: place: expected string"),
        ({"seen": None}, "row 1: seen is NULL"),
        ({"seen": "2020-01-01"}, "row 1: seen: expected timestamp"),
        ({"seen": NOW + timedelta(microseconds=1)}, "row 1: event time .* is not visible yet"),
        ({"tmp": 3}, "row 1: has no column 'tmp'. Did you mean 'temp'"),
        ("x", "row 1: is str, expected a dict"),
    ],
)
def test_a_bad_batch_is_refused_whole(store: vfs.FeatureStore, bad: Any, words: str) -> None:
    store.apply([weather()])
    good = row("A", ago(hours=1), 1)
    wrong = {**good, **bad} if isinstance(bad, dict) else bad
    with pytest.raises(vfs.SpineError, match=words) as caught:
        store.push("weather", [good, wrong, good, wrong])
    assert "2 of 4 rows are wrong, and none was pushed" in str(caught.value)
    assert "row 3:" in str(caught.value)
    assert temp(store, "A") == [(None, "NOT_FOUND")]


def test_a_row_is_pushed_whole(store: vfs.FeatureStore) -> None:
    store.apply([weather()])
    with pytest.raises(vfs.SpineError, match="row 0: lacks written, temp; a row is pushed whole"):
        store.push("weather", [{"place": "A", "seen": ago(hours=1)}])
    with pytest.raises(vfs.SpineError, match="rows must be a list"):
        store.push("weather", "A")


def test_the_availability_delay_holds_for_pushes(store: vfs.FeatureStore) -> None:
    store.apply([weather(availability_delay="1h")])
    with pytest.raises(vfs.SpineError, match="its availability_delay is 1h"):
        store.push("weather", [row("A", ago(minutes=59), 1)])
    assert store.push("weather", [row("A", ago(minutes=60), 1)]).written == 1


def test_naive_times_are_in_the_sources_zone(store: vfs.FeatureStore) -> None:
    store.apply([weather(timezone="America/New_York")])
    store.push("weather", [row("A", datetime(2020, 1, 2, 6, 30), 1)])
    found = store.get_online_features(["weather:temp"], [{"place": "A"}])
    assert found.event_timestamps["temp"] == [datetime(2020, 1, 2, 11, 30, tzinfo=UTC)]


def test_kinds_of_views_that_take_none(store: vfs.FeatureStore, connection: Any) -> None:
    source = vfs.Source("weather", table="weather", event_timestamp="seen")
    mean = vfs.Aggregate("temp", "mean", "1h")
    sums = vfs.FeatureView("sums", source=source, entities=[PLACE], features=[mean])
    still = vfs.Source("still", table="weather")
    static = vfs.FeatureView("static", source=still, entities=[PLACE], features=["temp"])
    ranges = vfs.Source("ranges", table="weather", valid_from="seen", valid_to="written")
    scd2 = vfs.FeatureView("scd2", source=ranges, entities=[PLACE], features=["temp"])
    hidden = vfs.FeatureView(
        "hidden", source=source, entities=[PLACE], features=["temp"], online=False
    )
    store.apply([sums, static, scd2, hidden])
    for name, words in (
        ("sums", "holds aggregates"),
        ("static", "is static"),
        ("scd2", "has validity ranges"),
        ("hidden", "not offered online"),
        ("nowhere", "no feature view 'nowhere'"),
    ):
        with pytest.raises(vfs.NotFoundError, match=words):
            store.push(name, [row("A", ago(hours=1), 1)])


def test_every_type_comes_back_as_it_was_pushed(store: vfs.FeatureStore, connection: Any) -> None:
    connection.raw_sql(
        """CREATE TABLE kinds (k BIGINT, j DATE, seen DATE, a BOOLEAN, b UBIGINT, c DOUBLE,
        d DECIMAL(12, 3), e BLOB, f DATE, g TIMESTAMPTZ, h DOUBLE[], i STRUCT(x INTEGER, y TEXT),
        l UUID, m TIME)"""
    )
    names = [*"abcdefghilm"]
    entity = vfs.Entity("thing", {"k": "int64", "j": "date"})
    source = vfs.Source("kinds", table="kinds", event_timestamp="seen")
    store.apply([vfs.FeatureView("kinds", source=source, entities=[entity], features=names)])
    from uuid import UUID

    values = {
        "a": True, "b": 2**64 - 1, "c": 0.1, "d": Decimal("12.340"), "e": b"\0\xff",
        "f": date(2020, 2, 29), "g": datetime(2020, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        "h": [1.5, None], "i": {"x": 1, "y": "é"}, "l": UUID(int=5), "m": None,
    }  # fmt: skip
    keys = {"k": 2**53 + 1, "j": date(2020, 1, 1)}
    store.push("kinds", [{**keys, "seen": date(2020, 1, 1), **values}])
    found = store.get_online_features([f"kinds:{name}" for name in names], [keys])
    assert found.to_list() == [{**keys, **values}]
    assert found.event_timestamps["a"] == [datetime(2020, 1, 1, tzinfo=UTC)]
    with pytest.raises(vfs.SpineError, match="row 0: d: expected decimal"):
        store.push("kinds", [{**keys, "seen": date(2020, 1, 1), **values, "d": "twelve"}])
    with pytest.raises(vfs.SpineError, match="row 0: h: expected array"):
        store.push("kinds", [{**keys, "seen": date(2020, 1, 1), **values, "h": ["x"]}])
