"""What leaks: planted in data, found by the check, told in words; and nothing where none is."""

from __future__ import annotations

import json
import random
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner

import virtualfs as vfs
from virtualfs import _
from virtualfs.testing import oracle
from virtualfs.testing.house import House

NOON = datetime(2024, 5, 1, 12)
HOUR = timedelta(hours=1)
ENTITY = vfs.Entity("e", {"k": "string"})
KEYS = ("a", "b", "c", "d")


@pytest.fixture(params=["duckdb", "postgres", "sqlite"])
def house(request: pytest.FixtureRequest) -> House:
    found: House = request.getfixturevalue(f"{request.param}_house")
    return found


def rows_of(hours: int = 60, seed: int = 1) -> list[dict[str, Any]]:
    """Rows by the hour; a third of them arrive two to five hours late."""
    chance = random.Random(seed)
    rows = []
    for key in KEYS:
        for hour in range(hours):
            at = NOON - hour * HOUR
            late = chance.choice([0, 0, chance.randrange(2, 6)])
            rows.append({"k": key, "at": at, "wrote": at + late * HOUR,
                         "x": chance.random(), "y": chance.randrange(2)})  # fmt: skip
    return rows


def spine_of(rows: list[dict[str, Any]], count: int = 200) -> pa.Table:
    chance = random.Random(9)
    picked = [chance.choice(rows) for _n in range(count)]
    return pa.table(
        {
            "k": [row["k"] for row in picked],
            "event_timestamp": [row["at"] for row in picked],
            "label": pa.array([row["y"] for row in picked], pa.int64()),
            "unrelated": ["secret"] * count,
        }
    )


def view_of(name: str, table: str, features: list[Any], **given: Any) -> vfs.FeatureView:
    source = {
        key: given.pop(key) for key in ("event_timestamp", "created_timestamp") if key in given
    }
    return vfs.FeatureView(
        name, source=vfs.Source(name, table=table, **source), entities=[ENTITY],
        features=features, **given,
    )  # fmt: skip


def put(house: House, name: str, rows: list[dict[str, Any]], **drop: Any) -> None:
    kept = [{key: value for key, value in row.items() if key not in drop} for row in rows]
    house.put(name, pa.Table.from_pylist(kept))


def kinds(report: Any) -> dict[tuple[str, str], str]:
    return {(leak.view.partition(" ")[0], leak.feature): leak.kind for leak in report.leaks}


def test_nothing_is_found_where_nothing_leaks(house):
    rows = [{**row, "wrote": row["at"]} for row in rows_of()]
    put(house, "clean", rows)
    view = view_of("clean", "clean", ["x"], event_timestamp="at", created_timestamp="wrote")
    report = house.store.check_leakage(spine_of(rows), [view], "label")
    assert not report
    assert report.rows == 200
    assert "Nothing was found that leaks." in str(report)
    assert [item for item in report.unjudged if "arrived late" in item] == []


def test_rows_that_arrived_late_are_counted(house):
    rows = rows_of()
    put(house, "late", rows)
    view = view_of("late", "late", ["x"], event_timestamp="at", created_timestamp="wrote")
    spine = spine_of(rows)
    report = house.store.check_leakage(spine, [view], "label")
    (leak,) = report.leaks
    given = {"join_keys": {"k": "k"}, "event": "at", "created": "wrote"}
    known, then = (
        oracle.latest(spine.to_pylist(), rows, late_data=late, **given)
        for late in ("include", "exclude")
    )
    expected = sum(one[0]["x"] != (other[0] or {"x": None})["x"]
                   for one, other in zip(known, then, strict=True))  # fmt: skip
    assert (leak.kind, leak.rows, leak.of, leak.is_sure) == ("late_rows", expected, 200, True)
    assert 20 < expected < 180
    assert 'late_data="exclude"' in leak.advice
    assert not house.store.check_leakage(spine, [view], "label", late_data="exclude").leaks
    assert f"{expected} of 200 rows" in str(report)


def test_windows_over_the_label_that_count_the_row_itself(house):
    rows = rows_of()
    put(house, "outcomes", [{**row, "label": row["y"]} for row in rows], wrote=0, y=0)
    sums = [vfs.Aggregate("x", "sum", "6h"), vfs.Aggregate("label", "mean", "1h")]
    inclusive = view_of("inside", "outcomes", sums, event_timestamp="at", boundary="inclusive")
    exclusive = view_of("before", "outcomes", sums, event_timestamp="at")
    spine = spine_of(rows)
    report = house.store.check_leakage(spine, [inclusive, exclusive], "label")
    found = [(leak.view.partition(" ")[0], leak.feature, leak.rows) for leak in report.leaks
             if leak.kind == "counts_itself"]  # fmt: skip
    assert ("inside", "x_sum_6h", 200) in found
    assert not [leak for leak in found if leak[0] == "before"]
    made = {(leak.view.partition(" ")[0], leak.feature) for leak in report.leaks
            if leak.kind == "made_of_the_label"}  # fmt: skip
    assert made == {("inside", "label_mean_1h"), ("before", "label_mean_1h")}
    # Under another name it cannot be known whose outcome it is, which is said.
    renamed = spine.rename_columns(["k", "event_timestamp", "y2", "unrelated"])
    doubts = house.store.check_leakage(renamed, [inclusive], "y2")
    assert {leak.is_sure for leak in doubts.leaks if leak.kind == "counts_itself"} == {False}
    assert "no source has a column called 'y2'" in str(doubts)
    # The mean of the last hour, the instant's own row included, is the label itself.
    equal = [leak for leak in report.leaks if leak.kind == "like_the_label"]
    assert [(leak.view.partition(" ")[0], leak.feature) for leak in equal] == [
        ("inside", "label_mean_1h")
    ]
    assert "equals it at 100.0%" in str(report)


def test_static_sources_that_change(house):
    rows = rows_of()
    spine = spine_of(rows)
    first = min(spine.column("event_timestamp").to_pylist())
    updated = [first - HOUR, first, first + HOUR, first + 2 * HOUR]
    plans = {"k": list(KEYS), "plan": ["s", "m", "l", "s"], "updated": updated}
    house.put("people", pa.table(plans))
    house.put("places", pa.table({"k": list(KEYS), "zone": ["n", "s", "n", "s"]}))
    changing = view_of("people", "people", ["plan"])
    fixed = view_of("places", "places", ["zone"])
    report = house.store.check_leakage(spine, [changing, fixed], "label")
    by_view = {leak.view.partition(" ")[0]: leak for leak in report.leaks}
    assert (by_view["people"].kind, by_view["people"].rows) == ("static_changes", 2)
    assert (by_view["places"].kind, by_view["places"].is_sure) == ("static", False)
    house.put("people", pa.table({**plans, "updated": [NOON] * 4}))
    (leak,) = house.store.check_leakage(spine, [changing], "label").leaks
    assert (leak.kind, leak.rows) == ("static_changes", 4)
    assert "event_timestamp='updated'" in leak.advice


def alike(values: list[Any], of: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"k": r["k"], "at": r["at"], "f": v} for r, v in zip(of, values, strict=True)]


LIKE = {
    "equal": (lambda y, c: y if c.random() > 0.02 else 1 - y, True),
    "scaled": (lambda y, c: y * 40.0 + c.random() * 0.1, True),
    "separated": (lambda y, c: c.expovariate(1) * 100 if y else -c.expovariate(1) / 100, True),
    "missing": (lambda y, c: None if y else c.random(), True),
    "word": (lambda y, c: "late" if y else "on time", True),
    "weak": (lambda y, c: y * 0.5 + c.random(), False),
    "chance": (lambda y, c: c.random(), False),
    "ids": (lambda y, c: f"id{c.randrange(10**9)}", False),
}


@pytest.mark.parametrize("name", LIKE)
def test_features_that_say_the_label_in_other_words(house, name):
    make, leaks = LIKE[name]
    rows = rows_of()
    chance = random.Random(4)
    put(house, "like", alike([make(row["y"], chance) for row in rows], rows))
    view = view_of("like", "like", ["f"], event_timestamp="at")
    report = house.store.check_leakage(spine_of(rows), [view], "label")
    assert [leak.kind for leak in report.leaks] == ["like_the_label"] * leaks, str(report)


def test_a_label_of_numbers(house):
    rows = rows_of()
    for row in rows:
        row["y"] = round(row["x"] * 1000)
    put(house, "numbers", rows)
    minutes = view_of("numbers", "numbers", ["x"], event_timestamp="at")
    (leak,) = house.store.check_leakage(spine_of(rows), [minutes], "label").leaks
    assert "correlation is 1.000" in leak.detail


def test_over_several_warehouses_it_is_asked_where_the_parts_meet(duckdb_house, postgres, tmp_path):
    rows = rows_of()
    put(duckdb_house, "one", rows)
    chance = random.Random(4)
    import psycopg

    with psycopg.connect(postgres, autocommit=True) as admin, admin.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS two; CREATE TABLE two (k text, at timestamp, f int8)")
        cursor.executemany(
            "INSERT INTO two VALUES (%s, %s, %s)",
            [(row["k"], row["at"], row["y"] * 3 + chance.randrange(2)) for row in rows],
        )
    from tests.warehouses import config

    connection = duckdb_house.store.warehouse().connection
    with vfs.FeatureStore(
        config(tmp_path, warehouses={"second": {"url": postgres}}),
        connections={"default": connection},
    ) as store:
        one = view_of("one", "one", ["x"], event_timestamp="at", created_timestamp="wrote")
        two = vfs.FeatureView(
            "two", source=vfs.Source("two", table="two", warehouse="second", event_timestamp="at"),
            entities=[ENTITY], features=["f"],
        )  # fmt: skip
        both = vfs.OnDemandFeatureView(
            "both", inputs=[one, two], features=[vfs.Feature("z", _.f * 2 + _.x * 0.01)]
        )
        report = store.check_leakage(spine_of(rows), [one, two, both], "label")
    assert kinds(report) == {
        ("one", "x"): "late_rows", ("two", "f"): "like_the_label", ("both", "z"): "like_the_label",
    }  # fmt: skip


@pytest.mark.parametrize("engine", ["duckdb", "postgres"])
def test_sums_of_floats_that_arrived_in_time_are_no_leak(engine, request):
    """The same rows added in another order differ in their last digits."""
    house = request.getfixturevalue(f"{engine}_house")
    chance = random.Random(2)
    rows = [
        {"k": f"k{n % 20}", "at": NOON - n * timedelta(minutes=3),
         "x": chance.random() * 1000 - 3, "tiny": chance.random() * 1e-200, "huge": 1e200}
        for n in range(8000)
    ]  # fmt: skip
    put(house, "sums", [{**row, "wrote": row["at"]} for row in rows])
    functions = [("sum", "7d"), ("mean", "1d"), ("std", "3h"), ("var", None), ("max", "1d")]
    view = view_of(
        "sums", "sums",
        [*(vfs.Aggregate("x", f, w) for f, w in functions), vfs.Aggregate("tiny", "max", "1d"),
         vfs.Aggregate("huge", "last", "1d")],
        event_timestamp="at", created_timestamp="wrote",
    )  # fmt: skip
    picked = [rows[chance.randrange(2000)] for _n in range(500)]
    asked = pa.table({"k": [r["k"] for r in picked], "event_timestamp": [r["at"] for r in picked],
                      "label": [chance.random() for _r in picked]})  # fmt: skip
    report = house.store.check_leakage(asked, [view], "label")
    assert not report, str(report)
    if engine == "postgres":
        return  # its instants for ever are not read out, of any spine
    endless = "SELECT 'k1' AS k, TIMESTAMP 'infinity' AS event_timestamp, 1 AS label"
    assert house.store.check_leakage(endless, [view], "label").rows == 1


def test_what_cannot_be_judged_is_said(duckdb_house):
    rows = rows_of()
    put(duckdb_house, "blind", rows)
    view = view_of("blind", "blind", ["x"], event_timestamp="at")
    report = duckdb_house.store.check_leakage(spine_of(rows), [view], "label")
    assert "no created_timestamp=" in str(report)
    with pytest.raises(vfs.SpineError, match=r"no label 'lable'.*Did you mean 'label'"):
        duckdb_house.store.check_leakage(spine_of(rows), [view], "lable")


def test_the_command(tmp_path, monkeypatch):
    import ibis
    import pyarrow.parquet as pq

    from virtualfs.cli import cli

    rows = rows_of()
    con = ibis.duckdb.connect(tmp_path / "w.duckdb")
    con.con.register("r", pa.Table.from_pylist(rows))
    con.raw_sql("CREATE TABLE r2 AS FROM r")
    con.disconnect()
    (tmp_path / "virtualfs.toml").write_text(
        'project = "p"\ndefinitions = ["f.yaml"]\n[warehouses.default]\nurl = "duckdb://w.duckdb"\n'
    )
    (tmp_path / "f.yaml").write_text(
        "entities: [{name: e, join_keys: {k: string}}]\n"
        "sources: [{name: r, table: r2, event_timestamp: at, created_timestamp: wrote}]\n"
        "feature_views: [{name: v, source: r, entities: [e], features: [{name: x}]}]\n"
        "feature_services: [{name: s, features: [{view: v}]}]\n"
    )
    pq.write_table(spine_of(rows), tmp_path / "spine.parquet")
    monkeypatch.chdir(tmp_path)
    run = CliRunner()
    assert run.invoke(cli, ["apply", "--yes"], standalone_mode=False).return_value in (0, None)
    words = ["check", "--service", "s", "--spine", "spine.parquet", "--label", "label"]
    found = run.invoke(cli, words, standalone_mode=False)
    assert found.return_value == 1, found.output
    assert "LEAK   v@1: rows that decide it were written after" in found.output
    told = json.loads(run.invoke(cli, [*words, "--json"], standalone_mode=False).output)
    assert told["leaks"][0]["kind"] == "late_rows"
    wrong = run.invoke(cli, ["check", "--service", "s"])
    assert wrong.exit_code == 2
