"""What stays in the cache: one rule, whoever writes first, in Python and beside Valkey's data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import permutations
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtualfs.compiler.plan import ResolvedFeature, ResolvedView
from virtualfs.provider import OnlineStore, load_store_provider
from virtualfs.serving.cache import MemoryStore
from virtualfs.serving.codec import Row, RowCodec, merged

moments = st.integers(0, 3)
pushed = st.builds(
    lambda event, created, at, value: Row(None, event, True, (value,), created, at),
    moments, st.none() | moments, moments, st.integers(0, 2),
)  # fmt: skip
warehouse = st.builds(
    lambda chosen, event, created, value: Row(
        chosen, event, event is not None, (value if event is not None else None,), created
    ),
    moments, st.none() | moments, st.none() | moments, st.integers(0, 2),
)  # fmt: skip


def codec(name: str = "weather", owner: str = "") -> RowCodec:
    """What writes and reads rows of a view with one number."""
    feature = ResolvedFeature(name="temp", dtype="int64", sql="temp")
    view = ResolvedView(
        name=name, fingerprint="0" * 64, warehouse="default", entities=("place",),
        join_keys={"place": "string"}, rows_sql="", columns={}, features=(feature,),
    )  # fmt: skip
    return RowCodec("virtualfs", "test", view, owner)


CODEC = codec()


@pytest.fixture(params=["memory", "valkey"])
def store(request: pytest.FixtureRequest) -> Iterator[OnlineStore]:
    if request.param == "memory":
        yield MemoryStore(10_000_000)
        return
    url = request.getfixturevalue("valkey")
    found = load_store_provider("redis", "cache.url").open_store(url)
    yield found
    found.close()


def kept(store: OnlineStore, rows: list[Row]) -> Row | None:
    place = CODEC.place((uuid4().hex,))
    for row in rows:
        store.merge_many([(place, CODEC.encode(place, row), None)])
    (data,) = store.get_many([place])
    return CODEC.decode(place, data) if data is not None else None


def best(rows: list[Row]) -> tuple[Any, ...]:
    """Event, created and value of the winner by DESIGN 4, said anew: without the codec."""
    lowest = -1

    def rank(row: Row) -> tuple[Any, ...]:
        age = (
            lowest if row.event is None else row.event,
            lowest if row.created is None else row.created,
        )
        return (*age, row.pushed_at is None, row.pushed_at or 0, row.values)

    latest = [row for row in rows if row.pushed_at is None]
    if latest:  # of what the warehouse said, only the newest answer counts, and of equal the last
        newest = max(row.chosen_at or 0 for row in latest)
        latest = [[row for row in latest if row.chosen_at == newest][-1]]
    winner = max([row for row in rows if row.pushed_at is not None] + latest, key=rank)
    return winner.event, winner.created, winner.values, winner.pushed_at


@given(st.lists(pushed, min_size=1, max_size=4))
def test_the_newest_push_stays_in_any_order(rows: list[Row]) -> None:
    found = set()
    for order in permutations(rows):
        row = order[0]
        for other in order[1:]:
            row = merged(row, other)
        found.add((row.event, row.created, row.values, row.pushed_at))
    assert found == {best(rows)}


@given(st.lists(pushed, max_size=3), warehouse)
def test_a_push_stays_until_the_warehouse_has_one_as_new(pushes: list[Row], row: Row) -> None:
    rows = [*pushes, row]
    for order in permutations(rows):
        found = order[0]
        for other in order[1:]:
            found = merged(found, other)
        assert (found.event, found.created, found.values, found.pushed_at) == best(rows)
        assert found.chosen_at == row.chosen_at  # whoever won was compared with it


def test_of_two_answers_of_the_warehouse_the_later_stays() -> None:
    early, late = Row(1, 9, True, (1,)), Row(2, 5, True, (2,))
    assert merged(early, late) is late
    assert merged(late, early) is late


@given(st.lists(pushed | warehouse, min_size=1, max_size=5))
def test_the_memory_store_keeps_what_the_rule_says(rows: list[Row]) -> None:
    same_everywhere(MemoryStore(1_000_000), rows)


def same_everywhere(store: OnlineStore, rows: list[Row]) -> None:
    expected = rows[0]
    for row in rows[1:]:
        expected = merged(expected, row)
    found = kept(store, rows)
    assert found is not None
    assert CODEC.encode(PLACE, found) == CODEC.encode(PLACE, expected)


def test_valkey_keeps_what_the_rule_says(valkey: str) -> None:
    store = load_store_provider("redis", "cache.url").open_store(valkey)

    @given(st.lists(pushed | warehouse, min_size=1, max_size=5))
    def check(rows: list[Row]) -> None:
        same_everywhere(store, rows)

    check()
    store.close()


def test_what_stays_is_told(store: OnlineStore) -> None:
    place = CODEC.place((uuid4().hex,))

    def put(row: Row) -> bool:
        return store.merge_many([(place, CODEC.encode(place, row), None)])[0]

    assert put(Row(5, 1, True, (1,)))
    assert not put(Row(4, 2, True, (2,)))  # a slow writer
    assert put(Row(None, 3, True, (3,), None, 6))
    assert not put(Row(None, 2, True, (4,), None, 7))
    assert not put(Row(8, 2, True, (5,)))
    (data,) = store.get_many([place])
    found = CODEC.decode(place, data or b"")
    assert found is not None
    assert (found.values, found.chosen_at) == ((3,), 8)  # the push, known to be newer at 8
    assert put(Row(9, 3, True, (6,)))


def test_time_to_live_follows_the_value_that_stays(store: OnlineStore) -> None:
    place = CODEC.place((uuid4().hex,))
    forever = CODEC.encode(place, Row(None, 3, True, (3,), None, 6))
    brief = CODEC.encode(place, Row(8, 2, True, (5,)))
    store.merge_many([(place, forever, None), (place, brief, 0.01)])
    time.sleep(0.05)
    assert store.get_many([place]) != [None]  # the older one's time is not the newer one's


PLACE = CODEC.place(("JFK",))


@given(st.data(), pushed | warehouse)
def test_any_flipped_bit_is_a_miss(data: st.DataObject, row: Row) -> None:
    whole = bytearray(CODEC.encode(PLACE, row))
    assert CODEC.decode(PLACE, bytes(whole)) is not None
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[bit // 8] ^= 1 << bit % 8
    assert CODEC.decode(PLACE, bytes(whole)) is None


@given(pushed | warehouse, st.integers(0, 40))
def test_what_is_cut_short_or_of_another_view_is_a_miss(row: Row, length: int) -> None:
    whole = CODEC.encode(PLACE, row)
    other = codec("other")
    assert other.decode(other.place(("JFK",)), whole) is None
    if length < len(whole):
        assert CODEC.decode(PLACE, whole[:length]) is None


@given(pushed | warehouse, st.text(max_size=5))
def test_a_row_is_read_under_its_own_key_alone(row: Row, key: str) -> None:
    whole = CODEC.encode(PLACE, row)
    found = CODEC.decode(CODEC.place((key,)), whole)
    assert (found is not None) == (key == "JFK")


@given(pushed | warehouse)
def test_a_row_of_another_deployment_is_a_miss(row: Row) -> None:
    other = codec(owner="another registry")
    assert other.decode(other.place(("JFK",)), CODEC.encode(PLACE, row)) is None


@pytest.mark.parametrize("ahead", [Row(90, 1, True, (1,)), Row(None, 9, True, (1,), None, 90)])
def test_rows_of_a_clock_that_was_ahead_give_way(store: OnlineStore, ahead: Row) -> None:
    place = CODEC.place((uuid4().hex,))
    store.merge_many([(place, CODEC.encode(place, ahead), None)], 90)
    assert store.merge_many([(place, CODEC.encode(place, Row(50, 1, True, (2,))), None)], 60) == [
        True
    ]
    (data,) = store.get_many([place])
    assert (row := CODEC.decode(place, data or b"")) is not None
    assert row.values == (2,)


def test_rows_of_the_future_give_way_by_the_stores_own_time(store: OnlineStore) -> None:
    place = CODEC.place((uuid4().hex,))
    micros = time.time_ns() // 1000
    later, now = (
        CODEC.encode(place, Row(micros + shift, 1, True, (number,)))
        for number, shift in enumerate((3_600_000_000, 0))
    )
    assert store.merge_many([(place, later, None)]) == [True]
    assert store.merge_many([(place, now, None)]) == [True]
    assert store.merge_many([(place, CODEC.encode(place, Row(5, 1, True, (3,))), None)]) == [False]
    told = store.now()
    assert told is not None
    assert abs(told - micros) < 10_000_000
