"""What people do every day: preview, ask why, score everybody, take an Ibis table as a view."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import ibis
import pandas as pd
import pyarrow as pa
import pytest

import virtualfs as vfs
from virtualfs.testing.house import House, make, values

NOON = datetime(2024, 5, 1, 12)
HOUR = timedelta(hours=1)


@pytest.fixture(params=["duckdb", "postgres", "reader", "sqlite"])
def house(request: pytest.FixtureRequest) -> House:
    found: House = request.getfixturevalue(f"{request.param}_house")
    return found


def row(k: str | None, hours: float | None, x: int | None, made: float | None = None) -> dict:
    at = None if hours is None else NOON + hours * HOUR
    return {"k": k, "at": at, "x": x, **({} if made is None else {"made": NOON + made * HOUR})}


# -- why


def test_why_names_the_winner_and_what_each_other_row_lost_by(house):
    rows = [row("a", -3, 1, -3), row("a", -1, 2, -1), row("a", -1, 3, 0), row("a", 1, 4, 1),
            row("b", -1, 5, -1)]  # fmt: skip
    view = make(house, rows, created_timestamp="made")
    found = house.store.why(view[["x"]], {"k": "a"}, NOON)
    assert found.value == 3
    assert found.row["x"] == 3
    assert [(other["x"], why) for other, why in found.others] == [
        (2, "same time, written earlier"), (1, "earlier"), (4, "after the instant"),
    ]  # fmt: skip
    assert "2024-05-01 11:00" in found.reason
    then = house.store.why(view[["x"]], {"k": "a"}, NOON - HOUR / 2, late_data="exclude")
    assert then.value == 2
    assert ("3", "written after the instant") in [
        (str(other["x"]), why) for other, why in then.others
    ]


@pytest.mark.parametrize(
    ("key", "hours", "reason"),
    [
        ("z", 0, "there is no row with these keys"),
        (None, 0, "a NULL key matches nothing"),
        ("a", -9, "none of the key's rows counts"),
        ("a", 99, "older than the TTL of 1d"),
        ("n", 0, "and it holds NULL"),
    ],
)
def test_why_a_value_is_missing(house, key, hours, reason):
    view = make(house, [row("a", -1, 1), row("n", -1, None)], ttl="1d")
    found = house.store.why(view[["x"]], {"k": key}, NOON + hours * HOUR)
    assert found.value is None
    assert reason in found.reason


def test_why_agrees_with_training(house):
    chance = random.Random(7)
    rows = [
        row(chance.choice("abc"), chance.randrange(-6, 6), number, chance.randrange(-6, 6))
        for number in range(60)
    ]
    table = pa.Table.from_pylist(rows)
    for number, given in enumerate(
        [{}, {"ttl": "3h"}, {"boundary": "exclusive"}, {"availability_delay": "2h"}]
    ):
        view = make(house, table, name=f"rows_{number}", created_timestamp="made", **given)
        for late_data in ("include", "exclude"):
            for hours in (-7, -3, 0, 2, 9):
                at = NOON + hours * HOUR
                (expected,) = values(house, view, [at], k="b", late_data=late_data)
                assert house.store.why(view[["x"]], {"k": "b"}, at, late_data).value == expected


def test_why_reads_naive_times_in_their_zone(postgres_house, duckdb_house):
    # In May Berlin is two hours ahead: written at 13:30 there is 11:30 in UTC.
    rows = [row("a", -1, 1, -1), row("a", 1, 2, 1.5), row("a", 1.5, 3, 3)]
    for house in (postgres_house, duckdb_house):
        view = make(house, rows, created_timestamp="made", timezone="Europe/Berlin")
        found = house.store.why(view[["x"]], {"k": "a"}, NOON, "exclude")
        assert found.value == 2
        assert [(other["x"], why) for other, why in found.others] == [
            (1, "earlier"), (3, "written after the instant"),
        ]  # fmt: skip


def test_times_for_ever_can_be_looked_at(postgres_house, duckdb_house):
    rows = [{"k": "a", "since": NOON, "until": NOON, "x": 1}]
    for house in (postgres_house, duckdb_house):
        view = make(house, rows, name="ever", valid_from="since", valid_to="until")
        admin = getattr(house, "admin", None) or house.store.warehouse().connection.con
        admin.execute("UPDATE ever SET since = '-infinity', until = 'infinity'")
        found = house.store.why(view[["x"]], {"k": "a"}, NOON)
        assert found.value == 1
        assert (found.row["since"].year, found.row["until"].year) == (1, 9999)
        assert "until" in house.store.preview(view)


def test_dates_can_be_looked_at(postgres_house, duckdb_house):
    for house in (postgres_house, duckdb_house):
        view = make(house, [{"k": "a", "at": NOON.date(), "x": 1}], name="days")
        assert house.store.why(view[["x"]], {"k": "a"}, NOON).value == 1
        assert len(house.store.preview(view)) == 1


def test_why_of_scd2_and_static_views(house):
    rows = [{"k": "a", "since": NOON - HOUR, "until": NOON, "x": 1},
            {"k": "a", "since": NOON, "until": None, "x": 2}]  # fmt: skip
    view = make(house, rows, valid_from="since", valid_to="until")
    found = house.store.why(view[["x"]], {"k": "a"}, NOON - HOUR / 2)
    assert (found.value, found.others[0][1]) == (1, "not valid at the instant")
    assert house.store.why(view[["x"]], {"k": "a"}, NOON).value == 2
    facts = make(house, [{"k": "a", "x": 7}], name="facts", event_timestamp=None)
    found = house.store.why(facts[["x"]], {"k": "a"}, NOON)
    assert found.value == 7
    assert "no times" in found.reason


def test_why_asks_for_one_feature_and_for_its_keys(house):
    view = make(house, [row("a", -1, 1, -1)], features=("x", "made"))
    with pytest.raises(vfs.NotFoundError, match="view:feature"):
        house.store.why(view, {"k": "a"})
    with pytest.raises(vfs.SpineError, match="k"):
        house.store.why(view[["x"]], {"q": "a"})


# -- preview and batches


def test_preview_shows_rows_and_keeps_integers_whole(house):
    view = make(house, [row("a", -1, 2**53 + 1), row("b", -1, None)])
    frame = house.store.preview(view)
    assert list(frame.columns) == ["k", "at", "x"]
    assert sorted(frame["x"].dropna().tolist()) == [2**53 + 1]
    assert len(house.store.preview(view, 1)) == 1


def test_a_batch_holds_every_entity_that_is_known_then_once(house):
    view = make(house, [row("a", -2, 1), row("a", -1, 2), row("b", 1, 3), row(None, -1, 4),
                        row("c", -9, 5)], ttl="3h")  # fmt: skip
    ds = house.store.get_batch_features([view], NOON)
    found = ds.to_pyarrow().to_pylist()
    assert sorted((each["k"], each["x"]) for each in found if each["k"] == "a") == [("a", 2)]
    assert {each["k"]: each["x"] for each in found} == {"a": 2, "c": None}
    assert list(found[0]) == ["k", "event_timestamp", "x"]
    later = house.store.get_batch_features([view], (NOON + HOUR).replace(tzinfo=UTC))
    assert {each["k"] for each in later.to_pyarrow().to_pylist()} == {"a", "b", "c"}


def test_a_batch_of_views_with_other_keys(house):
    pairs = make(
        house, [{"k": "a", "q": "u", "at": NOON, "x": 1}, {"k": "b", "q": "v", "at": NOON, "x": 2}],
        name="pairs", entities=("k", "q"),
    )  # fmt: skip
    single = make(house, [row("a", 0, 9), row("z", 0, 8)], name="single")
    ds = house.store.get_batch_features([pairs, single], NOON)
    found = {(r["k"], r["q"]): (r["pairs_view__x"], r["single_view__x"]) for r in
             ds.to_pyarrow().to_pylist()}  # fmt: skip
    assert found == {("a", "u"): (1, 9), ("b", "v"): (2, None)}
    other = single.with_name("other").with_join_keys({"k": "q"})
    with pytest.raises(vfs.SpineError, match="no view has all of the join keys"):
        house.store.get_batch_features([single, other], NOON)


# -- Ibis tables as views


def test_an_ibis_table_becomes_a_view_that_is_stored_as_sql(make_store, connection):
    store = make_store()
    connection.raw_sql(
        "CREATE TABLE trips AS SELECT 'd' || i % 3 AS driver, i AS km, "
        "TIMESTAMP '2024-05-01' + to_hours(i) AS at FROM range(9) t(i)"
    )
    trips = connection.table("trips")
    driver = vfs.Entity("driver", {"driver": "string"})
    long = trips.filter(trips.km > 2).mutate(miles=trips.km / 1.6)
    view = vfs.FeatureView.from_ibis(
        long, "long_trips", entities=[driver], event_timestamp="at", ttl="1d", owner="ops"
    )
    assert [feature.name for feature in view.features] == ["km", "miles"]
    spine = pd.DataFrame({"driver": ["d1"], "event_timestamp": [datetime(2024, 5, 1, 5)]})
    draft = store.get_historical_features(spine, [view])
    assert draft.to_pandas()["km"].tolist() == [4]
    assert store.state().revision == 0  # trying mints nothing
    store.apply([view])
    assert "SELECT" in store.state().project().sources["long_trips"].query
    assert not store.plan([view])
    again = store.get_historical_features(spine, ["long_trips:km"]).to_pandas()
    assert again["km"].tolist() == [4]
    # and what the store gives is Ibis again
    table = store.table("long_trips")
    best = table.group_by("driver").agg(most=table.km.max()).order_by("driver").execute()
    assert best["most"].tolist() == [6, 7, 8]
    mine = ibis.memtable({"driver": ["d1"], "name": ["Ann"]})
    named = draft.expr.join(mine, "driver").execute()
    assert named["name"].tolist() == ["Ann"]


def test_what_cannot_be_stored_is_refused(make_store, connection):
    store = make_store()
    rows = ibis.memtable({"k": ["a"], "x": [1]})
    entity = vfs.Entity("e", {"k": "string"})
    view = vfs.FeatureView.from_ibis(rows, "v", entities=[entity])
    with pytest.raises(vfs.DefinitionError, match="rows of this process"):
        store.plan([view])
    with pytest.raises(vfs.DefinitionError, match="takes an Ibis table, not DataFrame"):
        vfs.FeatureView.from_ibis(pd.DataFrame(), "v", entities=[entity])
    with pytest.raises(vfs.DefinitionError, match="give features="):
        vfs.FeatureView.from_ibis(rows, "v", entities=["e"])


# -- how objects show themselves


def shown(value: Any) -> tuple[str, str]:
    from IPython.lib.pretty import pretty

    return pretty(value), value._repr_html_()


def test_objects_show_themselves_in_text_and_html(make_store, connection):
    store = make_store()
    connection.raw_sql("CREATE TABLE t AS SELECT '<b>' AS k, 1 AS x, TIMESTAMP '2024-05-01' AS at")
    view = vfs.FeatureView(
        "v", source=vfs.Source("t", table="t", event_timestamp="at"),
        entities=[vfs.Entity("e", {"k": "string"})],
        features=[vfs.Feature("x", description="A <number>")], ttl="90d",
    )  # fmt: skip
    service = vfs.FeatureService("s", [view], description="All")
    plan = store.plan([service])
    revision = store.apply(plan)
    spine = pd.DataFrame({"k": ["<b>"], "event_timestamp": [NOON]})
    ds = store.get_historical_features(spine, "s")
    online = store.get_features("s", [{"k": "<b>"}, {"k": "none"}], as_of=NOON)
    wanted = {
        "store": (store, ["project test", "DuckDB"]),
        "plan": (plan, ["feature view v"]),
        "revision": (revision, ["Revision 1"]),
        "view": (view, ["Feature view v", "90d", "number"]),
        "service": (service, ["Feature service s", "All"]),
        "dataset": (ds, ["Spine: 1 rows", "int32", "v@1", "ASOF"]),
        "online": (online, ["PRESENT", "NOT_FOUND"]),
        "why": (store.why("v:x", {"k": "<b>"}, NOON), ["Because the row of"]),
        "check": (store.check(), ["1 view checked"]),
        "diagnosis": (ds.diagnose(), ["1 of 1 rows"]),
        "scan": (store.scan(), ["left out"]),
    }
    for name, (value, words) in wanted.items():
        text, html = shown(value)
        for word in words:
            assert word in text, (name, text)
            assert word.replace("<", "&lt;") in html, (name, html)
        assert "<b>" not in html.replace("<b>Fea", "").replace("<div><b>", ""), name
    assert "SELECT" in ds._repr_html_()  # folded away
    assert "#1a7f37" in online._repr_html_()


def test_showing_runs_no_query_and_never_raises(make_store, connection, monkeypatch):
    store = make_store()
    connection.raw_sql("CREATE TABLE t AS SELECT 'a' AS k, 1 AS x, TIMESTAMP '2024-05-01' AS at")
    view = vfs.FeatureView(
        "v", source=vfs.Source("t", table="t", event_timestamp="at"),
        entities=[vfs.Entity("e", {"k": "string"})], features=["x"],
    )  # fmt: skip
    ds = store.get_historical_features("SELECT 'a' AS k, now() AS event_timestamp", [view])
    asked: list[str] = []
    warehouse = store.warehouse()
    for name in ("session", "describe", "estimate_rows", "statistics", "catalog", "_row"):
        monkeypatch.setattr(warehouse, name, lambda *a, name=name, **k: asked.append(name))
    monkeypatch.setattr(store.registry, "state", lambda *a: asked.append("registry"))
    for value in (store, view, ds):
        shown(value)
    assert asked == []
    monkeypatch.setattr(type(ds.sites[0]), "_compiled", lambda *a: 1 / 0)
    text, html = shown(ds)
    assert text == repr(ds)
    assert "TrainingDataset" in html


# -- times without a zone


def berlin(connection: Any) -> vfs.FeatureView:
    connection.raw_sql(
        "CREATE TABLE pings AS SELECT 'a' AS k, i AS x, "
        "TIMESTAMP '2024-07-01 12:00' + to_hours(i) AS at FROM range(9) t(i)"
    )
    source = vfs.Source("pings", table="pings", event_timestamp="at", timezone="Europe/Berlin")
    entity = vfs.Entity("e", {"k": "string"})
    return vfs.FeatureView("pings", source=source, entities=[entity], features=["x"])


def test_a_spine_without_a_zone_beside_times_in_one_is_doubted(make_store, connection):
    store, view = make_store(), berlin(connection)
    naive = pd.DataFrame({"k": ["a"], "event_timestamp": [datetime(2024, 7, 1, 12)]})
    ds = store.get_historical_features(naive, [view])
    (doubt,) = ds.metadata["doubts"]
    assert "the times of pings are in Europe/Berlin" in doubt
    assert doubt in ds.explain()
    assert doubt in shown(ds)[0]
    assert ds.to_pandas()["x"].tolist() == [2]  # read as UTC, as it says
    zoned = naive.assign(event_timestamp=naive.event_timestamp.dt.tz_localize("Europe/Berlin"))
    sure = store.get_historical_features(zoned, [view])
    assert sure.to_pandas()["x"].tolist() == [0]
    assert sure.metadata["doubts"] == []
    assert store.get_batch_features([view], datetime(2024, 7, 1, 12)).to_pandas()["x"].tolist() == [
        2
    ]


def test_a_view_made_of_a_view_keeps_its_instants(make_store, connection):
    store, view = make_store(), berlin(connection)
    rows = store.table(view)
    assert rows.at.min().execute() == datetime(2024, 7, 1, 10)
    again = vfs.FeatureView.from_ibis(
        rows.filter(rows.x < 5), "again", entities=view.entities, event_timestamp="at"
    )
    at = [{"k": "a"}]
    one, other = (
        store.get_features([v], at, as_of=datetime(2024, 7, 1, 11, 30)) for v in (view, again)
    )
    assert one.to_list()[0]["x"] == other.to_list()[0]["x"] == 1


def test_an_expression_without_the_columns_named_is_refused(make_store, connection):
    view = berlin(connection)
    rows = make_store().table(view)
    with pytest.raises(vfs.DefinitionError, match="no column 'when'"):
        vfs.FeatureView.from_ibis(rows, "v", entities=view.entities, event_timestamp="when")
    with pytest.raises(vfs.DefinitionError, match="no column 'key'"):
        vfs.FeatureView.from_ibis(
            rows, "v", entities=[vfs.Entity("e", {"key": "string"})], event_timestamp="at"
        )


def test_a_batch_as_known_then_holds_no_entity_that_was_written_later(make_store, connection):
    store = make_store()
    connection.raw_sql(
        "CREATE TABLE late AS SELECT * FROM (VALUES "
        "('a', 1, TIMESTAMP '2024-01-01', TIMESTAMP '2024-01-01'), "
        "('b', 2, TIMESTAMP '2024-01-01', TIMESTAMP '2024-03-01')) t(k, x, seen, written)"
    )
    source = vfs.Source("late", table="late", event_timestamp="seen", created_timestamp="written")
    entity = vfs.Entity("e", {"k": "string"})
    view = vfs.FeatureView("late", source=source, entities=[entity], features=["x"])
    at = datetime(2024, 2, 1)
    known = store.get_batch_features([view], at, late_data="exclude").to_pandas()
    assert known["k"].tolist() == ["a"]
    assert sorted(store.get_batch_features([view], at).to_pandas()["k"]) == ["a", "b"]


def test_why_of_a_view_that_is_not_applied_says_how_to_read_its_times(make_store, connection):
    store, view = make_store(), berlin(connection)
    why = store.why(view[["x"]], {"k": "a"}, datetime(2024, 7, 1, 18))
    assert why.value == 8
    assert "in Europe/Berlin" in str(why)
    assert "at most 6 are shown" in str(why)
    with pytest.raises(vfs.NotFoundError, match="why asks of one feature"):
        store.why(berlin_of_two(view), {"k": "a"})


def berlin_of_two(view: vfs.FeatureView) -> vfs.FeatureView:
    return vfs.FeatureView(
        "two",
        source=view.source,
        entities=view.entities,
        features=["x", vfs.Feature("y", expr="x + 1")],
    )
