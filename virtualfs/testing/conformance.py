"""What every warehouse must answer: DESIGN's rules of meaning as tests that any provider can run.

A provider's own suite subclasses :class:`WarehouseConformance` and gives one fixture, ``house``::

    @pytest.fixture(scope="module")
    def my_house(tmp_path_factory):
        with FeatureStore(config, connections={"default": my_connection}) as store:
            yield MyHouse(store, tmp_path_factory.mktemp("house"))


    class TestMine(WarehouseConformance):
        @pytest.fixture
        def house(self, my_house):
            return my_house

A house is a :class:`House`: a store whose clock stands at :data:`NOON`, what its warehouse can
hold, and a way to make a table of Arrow data there. The rules are judged by
:mod:`virtualfs.testing.oracle`, which shares no code with the compiler, in three ways: by
Hypothesis, which shrinks what it finds; by batches of some hundred cases a query; by named cases,
among them the wrong answers that other feature stores and engines are known to give.

Needs pytest and Hypothesis: ``virtualfs[testing]``.
"""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from virtualfs.compiler.plan import LateData
from virtualfs.definitions.source import Source
from virtualfs.testing import oracle
from virtualfs.testing.computed import Computed
from virtualfs.testing.house import (
    ANSWER,
    DAY,
    NOON,
    OUTPUTS,
    PLAIN,
    SPINES,
    House,
    as_output,
    as_spine,
    ask,
    judge,
    quoted,
)
from virtualfs.testing.peers import PeersMistakes
from virtualfs.testing.rules import Rules
from virtualfs.testing.strategies import Domain, batch, cases
from virtualfs.testing.window_cases import ask_windows, judge_windows, window_batch
from virtualfs.testing.windows import Windows

__all__ = ["NOON", "House", "WarehouseConformance"]

FEW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


class WarehouseConformance(Rules, PeersMistakes, Windows, Computed):
    """The suite. Give it a fixture ``house``, and run it with pytest.

    Attributes
    ----------
    seeds
        Which batches are tried; each holds `groups` cases and costs one query, or a few.
    groups
        Cases in a batch.
    table_names
        What a user's tables may be called, although a compiler calls parts of statements so.
    """

    seeds: ClassVar[range] = range(12)
    groups: ClassVar[int] = 100
    table_names: ClassVar[tuple[str, ...]] = (
        *(f"t{number}" for number in range(31)),
        "source", "answer", "answer_0", "spine", "rows", "bounds", "inputs", "outer", "renamed",
        "keys", "found", "events", "asked", "part", "cte_0",
    )  # fmt: skip

    # -- against the oracle, in volume

    def test_batches_of_cases_agree_with_the_oracle(self, house):
        for seed in self.seeds:
            case = batch(seed, self.groups, house.domain)
            judge(case, ask(house, case).to_pyarrow())

    @FEW
    @given(data=st.data())
    def test_drawn_cases_agree_with_the_oracle(self, house, data):
        case = data.draw(cases(domain=house.domain))
        judge(case, ask(house, case).to_pyarrow())

    # -- what must change nothing

    def test_rows_in_the_future_change_nothing(self, house):
        for seed in self.seeds:
            case = batch(seed, self.groups, house.domain)
            if case.event is None:
                continue
            before = judge(case, ask(house, case).to_pyarrow())
            later = case.shifted(timedelta(days=4000)).source_rows
            if case.valid_to:
                later = tuple({**row, case.valid_to: None} for row in later)
            more = replace(case, source_rows=(*case.source_rows, *later))
            assert judge(more, ask(house, more).to_pyarrow()) == before

    def test_rows_that_arrive_later_change_nothing_under_exclude(self, house):
        for seed in self.seeds:
            case = batch(seed, self.groups, house.domain)
            if case.created is None:
                continue
            created = case.created
            case = replace(case, late_data="exclude")
            before = judge(case, ask(house, case).to_pyarrow())
            written = case.shifted(timedelta(days=4000)).source_rows
            late = tuple(
                {**row, "word": "late", created: moved[created]}
                for row, moved in zip(case.source_rows, written, strict=True)
                if moved[created] is not None
            )
            more = replace(case, source_rows=(*case.source_rows, *late))
            assert judge(more, ask(house, more).to_pyarrow()) == before

    def test_the_order_of_source_rows_changes_nothing(self, house):
        # Even full ties stay: the hash of the row decides, not its place.
        for seed in self.seeds:
            case = batch(seed, self.groups, house.domain)
            before = judge(case, ask(house, case).to_pyarrow())
            rows = list(case.source_rows)
            random.Random(seed).shuffle(rows)  # noqa: S311 - order, not secrets
            assert judge(case, ask(house, replace(case, source_rows=tuple(rows))).to_pyarrow()) == (
                before
            )

    def test_a_spine_in_two_parts_gives_the_same_rows(self, house):
        for seed in self.seeds:
            case = batch(seed, self.groups, house.domain)
            whole = judge(case, ask(house, case).to_pyarrow())
            cut = len(case.spine_rows) // 3
            parts = []
            for rows in (case.spine_rows[:cut], case.spine_rows[cut:]):
                part = replace(case, spine_rows=rows)
                parts += judge(part, ask(house, part).to_pyarrow())
            assert parts == whole

    def test_shifting_all_times_changes_nothing(self, house):
        for seed in self.seeds:
            case = batch(seed, self.groups, Domain(kinds=house.domain.kinds, zones=("UTC",)))
            before = judge(case, ask(house, case).to_pyarrow())
            # Full ties may fall otherwise: the hash sees the times.
            free = [len(acceptable) > 1 for acceptable in case.expected()]
            after = judge(moved := case.shifted(DAY * 7), ask(house, moved).to_pyarrow())
            for one, two, any_will_do in zip(before, after, free, strict=True):
                assert any_will_do or one == two

    # -- online and training are one

    def test_online_at_t_is_point_in_time_at_t(self, house):
        for number, seed in enumerate(self.seeds):
            late_data: LateData = "exclude" if number % 2 else "include"
            case = replace(batch(seed, 8, house.domain), late_data=late_data)
            trained = judge(case, ask(house, case).to_pyarrow())
            visible = case.winners(case.spine_rows, use_ttl=False)
            wanted: dict[int, list[int]] = {}
            for place, row in enumerate(case.spine_rows):
                at = oracle.instant(row[case.timestamp], "UTC", "down")
                if at is not None:
                    wanted.setdefault(at, []).append(place)
            for at, numbers in sorted(wanted.items())[:3]:
                keys = [
                    {name: case.spine_rows[n][name] for name in case.join_keys.values()}
                    for n in numbers
                ]
                moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)
                answer = house.store.get_features(
                    [case.selection("source")], keys, as_of=moment, late_data=late_data
                )
                found = [tuple(row[name] for name in case.features) for row in answer.to_list()]
                assert found == [trained[n] for n in numbers]
                for n, values, status in zip(numbers, found, answer.statuses["id"], strict=True):
                    if visible[n] == [None]:
                        assert status == "NOT_FOUND"
                    else:
                        assert status == ("OUTSIDE_MAX_AGE" if values[0] is None else "PRESENT")

    def test_a_table_as_of_t_is_point_in_time_at_t(self, house):
        for seed in self.seeds:
            case = replace(batch(seed, 30, house.domain), late_data="include")
            times = {row["t"] for row in case.spine_rows} - {None}
            if case.event is None or case.spine_kind != "naive" or not times:
                continue
            at = min(times)
            case = replace(case, spine_rows=tuple({**row, "t": at} for row in case.spine_rows))
            trained = judge(case, ask(house, case).to_pyarrow())
            table = house.store.table(case.view("source"), as_of=at).to_pyarrow().to_pylist()
            by_key: dict[tuple[Any, ...], tuple[Any, ...]] = {}
            for row in table:
                key = tuple(row[name] for name in case.join_keys)
                assert key not in by_key
                by_key[key] = tuple(row[name] for name in case.features)
            for asked, found in zip(case.spine_rows, trained, strict=True):
                key = tuple(asked[column] for column in case.join_keys.values())
                known = None if None in key else by_key.get(key)
                assert (known or (None,) * 3) == found

    # -- no name that a statement makes hides a table

    def test_tables_may_be_called_as_parts_of_statements_are(self, house):
        for number, name in enumerate(self.table_names):
            seed = self.seeds[number % len(self.seeds)]
            case = batch(seed, 8, house.domain)
            house.put(name, case.source_table())
            plain, view = case.selection(name), case.view(name)
            assert isinstance(view.source, Source)
            query = f"SELECT * FROM {quoted(house, name)}"  # noqa: S608
            source = view.source.model_copy(update={"table": None, "query": query})
            queried = view.model_copy(update={"source": source})
            selections = (plain, queried.with_join_keys(case.join_keys))
            for selection in selections:
                ds = house.store.get_historical_features(
                    case.spine_table(), [selection], case.late_data, timestamp=case.timestamp
                )
                trained = judge(case, ds.to_pyarrow())
            row = case.spine_rows[0]
            at = oracle.instant(row[case.timestamp], "UTC", "down")
            if at is not None:
                moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)
                keys = [{key: row[key] for key in case.join_keys.values()}]
                answer = house.store.get_features(
                    [plain], keys, as_of=moment, late_data=case.late_data
                )
                assert tuple(answer.to_list()[0][name] for name in case.features) == trained[0]
            judge_windows(
                windows := window_batch(seed, 4, house),
                ask_windows(house, windows, name).to_pyarrow(),
            )

    # -- one case in every form

    def test_the_oracle_answers_the_plain_case(self):
        assert PLAIN.expected() == [[row] for row in ANSWER]

    @pytest.mark.parametrize("form", SPINES)
    def test_rule_1_every_form_of_spine(self, house, form):
        spine = as_spine(house, PLAIN.spine_table(), form)
        ds = ask(house, PLAIN, spine)
        assert judge(PLAIN, ds.to_pyarrow()) == ANSWER
        if form not in ("reader",):
            assert judge(PLAIN, ds.to_pyarrow_batches(2).read_all()) == ANSWER

    @pytest.mark.parametrize("output", OUTPUTS)
    @pytest.mark.parametrize("form", ["pyarrow", "sql"])
    def test_rule_1_every_form_of_result(self, house, form, output):
        ds = ask(house, PLAIN, as_spine(house, PLAIN.spine_table(), form))
        assert judge(PLAIN, as_output(house, ds, output)) == ANSWER

    @pytest.mark.parametrize("form", ["pyarrow", "pandas", "parquet", "reader", "sql"])
    def test_rule_1_a_stream_in_pieces(self, house, form, monkeypatch):
        monkeypatch.setattr("virtualfs.training.dataset.BATCH_ROWS", 1)
        monkeypatch.setattr("virtualfs.training.dataset._CELLS", 9)
        ds = ask(house, PLAIN, as_spine(house, PLAIN.spine_table(), form))
        assert judge(PLAIN, ds.to_pyarrow_batches(2).read_all()) == ANSWER
