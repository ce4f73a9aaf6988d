"""Saved training sets: immutable, verified, versioned, and transformed by what was fitted."""

from __future__ import annotations

import math
import random
import statistics as plain
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import virtualfs as vfs
from virtualfs import _
from virtualfs.training.content import ContentHash

NOON = datetime(2024, 5, 1, 12)
HOUR = timedelta(hours=1)
ENTITY = vfs.Entity("e", {"k": "string"})


@pytest.fixture
def store(make_store: Any, connection: Any) -> vfs.FeatureStore:
    found = make_store(clock=NOON.replace(tzinfo=UTC))
    connection.raw_sql(
        "CREATE TABLE t AS SELECT 'k' || (i % 5) AS k, TIMESTAMP '2024-05-01 00:00' + to_hours(i) "
        "AS at, (i * 7 % 11)::DOUBLE AS temp, (i % 4)::INTEGER AS sky, "
        "CASE WHEN i % 3 = 0 THEN NULL ELSE ['AA', 'B6', 'DL'][1 + i % 3] END AS carrier, "
        "(i * 1.25)::DECIMAL(10, 2) AS price, 7.0 AS same FROM range(12) t(i)"
    )
    source = vfs.Source("t", table="t", event_timestamp="at")
    weather = vfs.FeatureView(
        "weather", source=source, entities=[ENTITY],
        features=["temp", "sky", "carrier", "price", "same"],
    )  # fmt: skip
    share = vfs.OnDemandFeatureView(
        "share", inputs=[weather[["temp"]]], request={"amount": "float64"},
        features=[vfs.Feature("ratio", _.amount / (_.temp + 1))],
    )  # fmt: skip
    found.apply([weather, share, vfs.FeatureService("delay", features=[weather, share])])
    return found


def spine(rows: int = 40) -> pa.Table:
    chance = random.Random(3)
    return pa.table(
        {
            "label": list(range(rows)),
            "k": [f"k{chance.randrange(6)}" for _n in range(rows)],
            "event_timestamp": [NOON - chance.randrange(14) * HOUR for _n in range(rows)],
            "amount": [chance.random() for _n in range(rows)],
        }
    )


# -- kept, and read back


@pytest.mark.parametrize("to", ["parquet", "table"])
def test_a_training_set_is_read_back_as_it_was_saved(store, to):
    ds = store.get_historical_features(spine(), "delay")
    whole = ds.to_pyarrow()
    saved = ds.save("delays", to=to, description="late flights", tags={"team": "ml"})
    assert (saved.name, saved.version, saved.record.rows) == ("delays", 1, 40)
    again = store.training_set("delays")
    assert again.to_pyarrow().to_pylist() == whole.to_pylist()
    assert again.to_pyarrow().column_names == whole.column_names
    assert again.to_pandas()["sky"].dtype == "Int32"
    assert again.to_polars().shape == (40, whole.num_columns)
    assert again.content_hash == saved.content_hash
    assert again.metadata["service"] == "delay"
    assert again.metadata["views"] == {"weather": 1, "share": 1}
    assert again.metadata["revision"] == 1
    assert again.metadata["sql_sha256"] == ds.metadata["sql_sha256"]
    assert "late flights" in str(again)


@pytest.mark.parametrize("to", ["parquet", "table"])
def test_statistics_are_those_of_the_rows(store, to):
    saved = store.get_historical_features(spine(), "delay").save("delays", to=to)
    rows = saved.to_pyarrow().to_pylist()
    temps = [row["temp"] for row in rows if row["temp"] is not None]
    found = saved.statistics["temp"]
    assert found["nulls"] == 40 - len(temps) > 0
    assert (found["min"], found["max"]) == (min(temps), max(temps))
    assert math.isclose(found["mean"], plain.fmean(temps), rel_tol=1e-12)
    assert math.isclose(found["std"], plain.stdev(temps), rel_tol=1e-12)
    assert saved.statistics["carrier"]["min"] == min(r["carrier"] for r in rows if r["carrier"])
    assert saved.statistics["label"]["max"] == 39


def test_saving_again_is_a_new_version_and_the_old_one_stays(store, connection):
    ds = store.get_historical_features(spine(), "delay")
    first = ds.save("delays")
    connection.raw_sql("UPDATE t SET temp = temp + 100")
    second = store.get_historical_features(spine(), "delay").save("delays")
    assert (first.version, second.version) == (1, 2)
    assert first.content_hash != second.content_hash
    assert store.training_set("delays").version == 2
    assert store.training_set("delays", 1).to_pyarrow() == first.to_pyarrow()
    assert store.training_set("delays@1").content_hash == first.content_hash
    assert [(item.name, item.version) for item in store.training_sets()] == [
        ("delays", 2), ("delays", 1)
    ]  # fmt: skip


def test_the_same_rows_have_the_same_hash_wherever_they_are_kept(store):
    ds = store.get_historical_features(spine(), "delay")
    assert ds.save("a").content_hash == ds.save("b", to="table").content_hash


def test_what_is_not_there_is_said(store):
    store.get_historical_features(spine(), "delay").save("delays")
    with pytest.raises(vfs.NotFoundError, match="Did you mean 'delays'"):
        store.training_set("delay")
    with pytest.raises(vfs.NotFoundError, match="no version 3; it has 1 to 1"):
        store.training_set("delays", 3)
    with pytest.raises(vfs.NotFoundError, match="names no version"):
        store.training_set("delays@new")


# -- damage


def file_of(store: vfs.FeatureStore, saved: vfs.TrainingSet) -> Path:
    return store.config.folder / saved.record.place


@pytest.mark.parametrize("damage", ["value", "order", "type", "row", "gone", "garbage"])
def test_a_file_that_is_not_what_was_saved_is_refused(store, damage):
    saved = store.get_historical_features(spine(), "delay").save("delays")
    path = file_of(store, saved)
    assert path.stat().st_mode & 0o222 == 0  # nobody changes it by mistake
    table = pq.read_table(path)
    path.chmod(0o644)
    if damage == "value":
        values = table.column("temp").to_pylist()
        values[7] = 1e-300
        table = table.set_column(table.column_names.index("temp"), "temp", pa.array(values))
    elif damage == "order":
        table = pa.concat_tables([table.slice(20), table.slice(0, 20)])
    elif damage == "type":
        place = table.column_names.index("sky")
        table = table.set_column(place, "sky", table.column("sky").cast(pa.int64()))
    elif damage == "row":
        table = table.slice(0, 39)
    pq.write_table(table, path)
    if damage == "gone":
        path.unlink()
    elif damage == "garbage":
        path.write_bytes(b"no parquet")
    with pytest.raises(vfs.TrainingSetDamagedError, match="delays@1"):
        store.training_set("delays")
    unread = store.training_set("delays", verify=False)
    with pytest.raises(vfs.TrainingSetDamagedError, match="new version"):
        unread.to_pandas()


@pytest.mark.parametrize(
    "change", ["UPDATE {} SET temp = 3.5 WHERE __row = 4", "DELETE FROM {} WHERE __row = 39",
               "INSERT INTO {0} SELECT * FROM {0} LIMIT 1", "DROP TABLE {}"],
)  # fmt: skip
def test_a_table_that_is_not_what_was_saved_is_refused(store, connection, change):
    saved = store.get_historical_features(spine(), "delay").save("delays", to="table")
    connection.raw_sql(change.format(saved.record.place))
    with pytest.raises(vfs.TrainingSetDamagedError, match="delays@1"):
        store.training_set("delays")


def test_nothing_is_kept_of_what_fails(store, connection, tmp_path):
    ds = store.get_historical_features(spine(), "delay")
    with pytest.raises(vfs.DefinitionError, match="no feature 'tmep'"):
        ds.save("delays", transformations=[vfs.standardize("tmep")])
    empty = store.get_historical_features(spine(0), "delay")
    with pytest.raises(vfs.DefinitionError, match="no values to fit"):
        empty.save("delays", transformations=[vfs.standardize("temp")])
    with pytest.raises(vfs.DefinitionError, match="no values to fit"):
        empty.save("delays", to="table", transformations=[vfs.standardize("temp")])
    assert store.training_sets() == []
    assert not list(tmp_path.rglob("*.parquet*"))
    assert "training_delays" not in str(store.warehouse().table_names())


def test_an_empty_training_set_is_kept(store):
    saved = store.get_historical_features(spine(0), "delay").save("delays")
    assert store.training_set("delays").to_pyarrow().schema == saved.to_pyarrow().schema
    assert saved.record.rows == 0
    assert saved.statistics["temp"]["nulls"] == 0


KILLED = """
import sys
from pathlib import Path
import virtualfs as vfs
folder = Path(sys.argv[1])
store = vfs.FeatureStore(vfs.Config(project="test", folder=folder,
                                    warehouses={"default": {"url": "duckdb://"}}))
view = vfs.FeatureView("v", source=vfs.Source("s", event_timestamp="at",
    query="SELECT i % 7 AS k, TIMESTAMP '2024-01-01' AS at, hash(i)::DOUBLE AS x "
    "FROM range(1000) t(i)"),
    entities=[vfs.Entity("n", {"k": "int64"})], features=["x"])
ds = store.get_historical_features(
    "SELECT i % 7 AS k, TIMESTAMP '2024-02-01' AS event_timestamp FROM range(30000000) t(i)",
    [view])
print("running", flush=True)
ds.save("delays")
"""


def test_a_process_that_dies_leaves_no_training_set(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdout
        assert child.stdout.readline() == "running\n"
        for _n in range(200):
            if list(tmp_path.rglob("*.part")):
                break
            threading.Event().wait(0.05)
        child.kill()
        child.communicate()
    assert not list(tmp_path.rglob("*.parquet"))
    config = vfs.Config(project="test", folder=tmp_path)
    with vfs.FeatureStore(config, connections={}) as store:
        assert store.training_sets() == []


def test_two_that_save_at_once_get_a_version_each(make_store, store):
    ds = store.get_historical_features(spine(), "delay")
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(ds.save("delays").version)) for _n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [1, 2, 3, 4, 5, 6]


# -- the hash of contents


KINDS = {
    "whole": (pa.int64(), [1, None, -(2**63)], [1, None, 2**63 - 1]),
    "real": (pa.float64(), [1.5, None, float("nan")], [1.5, None, 0.0]),
    "small": (pa.float32(), [1.5, None, float("inf")], [1.5, None, -float("inf")]),
    "truth": (pa.bool_(), [True, None, False], [True, None, True]),
    "word": (pa.string(), ["ab", None, "c"], ["a", None, "bc"]),
    "bytes": (pa.binary(), [b"ab", None, b"c"], [b"a", None, b"bc"]),
    "exact": (pa.decimal128(10, 2), [Decimal("1.50"), None, Decimal(-2)],
              [Decimal("1.50"), None, Decimal(2)]),
    "day": (pa.date32(), [NOON.date(), None, NOON.date()], [NOON.date(), NOON.date(), None]),
    "time": (pa.timestamp("us"), [NOON, None, NOON],
             [NOON, None, NOON + timedelta(microseconds=1)]),
    "zoned": (pa.timestamp("us", "UTC"), [NOON, None, NOON], [NOON, None, None]),
    "list": (pa.list_(pa.int64()), [[1, 2], None, [3]], [[1], None, [2, 3]]),
    "words": (pa.list_(pa.string()), [["a"], [], [None]], [["a"], [None], []]),
    "parts": (pa.struct([("x", pa.int64())]), [{"x": 1}, None, {"x": None}],
              [{"x": 1}, {"x": None}, None]),
}  # fmt: skip


def hashed(*tables: pa.Table) -> str:
    content = ContentHash()
    for table in tables:
        content.update(table)
    return content.hexdigest()


@pytest.mark.parametrize("name", KINDS)
def test_the_hash_is_of_values_and_not_of_how_they_lie_in_memory(name):
    kind, values, others = KINDS[name]
    whole = pa.table({"c": pa.array(values * 50, kind)})
    expected = hashed(whole)
    pieces = [whole.slice(n, 7) for n in range(0, 150, 7)]
    assert hashed(*pieces) == expected
    assert hashed(pa.concat_tables(pieces)) == expected
    padded = pa.concat_arrays([pa.array(others, kind), pa.array(values * 50, kind)]).slice(3)
    assert hashed(pa.table({"c": padded})) == expected
    assert hashed(pa.table({"c": pa.array(others * 50, kind)})) != expected
    assert hashed(whole.rename_columns(["d"])) != expected
    assert hashed(whole.slice(0, 149)) != expected


def test_the_hash_survives_parquet_and_dictionaries(tmp_path):
    table = pa.table({name: pa.array(values, kind) for name, (kind, values, _o) in KINDS.items()})
    pq.write_table(table, tmp_path / "t.parquet")
    assert hashed(pq.read_table(tmp_path / "t.parquet")) == hashed(table)
    words = pa.table({"w": ["a", "b", None, "a"]})
    encoded = pa.table({"w": words.column("w").dictionary_encode()})
    assert hashed(encoded) == hashed(words)
    assert hashed(words.cast(pa.schema([("w", pa.large_string())]))) == hashed(words)


# -- transformations, judged by plain Python


def expected_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The transformed columns, written anew from what they should mean."""
    temps = [row["temp"] for row in rows if row["temp"] is not None]
    skies = [row["sky"] for row in rows if row["sky"] is not None]
    prices = sorted(float(row["price"]) for row in rows if row["price"] is not None)
    ratios = [row["ratio"] for row in rows if row["ratio"] is not None]
    known = sorted({row["carrier"] for row in rows} - {None})
    found = []
    for row in rows:
        one: dict[str, Any] = {}
        one["temp"] = (
            None if row["temp"] is None
            else (row["temp"] - plain.fmean(temps)) / plain.pstdev(temps)
        )  # fmt: skip
        one["sky"] = (
            None if row["sky"] is None
            else (row["sky"] - min(skies)) / (max(skies) - min(skies))
        )  # fmt: skip
        for name in known:
            one[f"carrier_{name}"] = int(row["carrier"] == name)
        one["price"] = float(row["price"]) if row["price"] is not None else plain.median(prices)
        one["same"] = None if row["same"] is None else 0.0
        one["ratio"] = row["ratio"]
        one["warm"] = None if row["temp"] is None else row["temp"] > plain.fmean(temps)
        one["ratio_z"] = (
            None if row["ratio"] is None
            else (row["ratio"] - plain.fmean(ratios)) / plain.pstdev(ratios)
        )  # fmt: skip
        found.append(one)
    return found


TRANSFORMATIONS = [
    vfs.standardize("temp"),
    vfs.min_max("sky"),
    vfs.one_hot("carrier"),
    vfs.impute("price", "median"),
    vfs.standardize("same"),
    vfs.Feature("warm", _.temp > _.temp.mean()),
    vfs.standardize("ratio", name="ratio_z"),
]


def assert_close(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert [*one] == [*other]
        for name, value in other.items():
            if isinstance(value, float) and one[name] is not None:
                assert math.isclose(one[name], value, rel_tol=1e-9, abs_tol=1e-12), name
            else:
                assert one[name] == value, name


@pytest.mark.parametrize("to", ["parquet", "table"])
def test_transformations_are_fitted_once_and_are_the_same_everywhere(store, connection, to):
    ds = store.get_historical_features(spine(), "delay")
    raw = ds.to_pyarrow().to_pylist()
    saved = ds.save("delays", to=to, transformations=TRANSFORMATIONS)
    expected = expected_of(raw)
    names = [*expected[0]]
    assert list(saved.features) == names
    # 1. As it is read back, and without transformations as it was.
    table = store.training_set("delays").to_pyarrow()
    assert table.column_names == [*spine().column_names, *names]
    assert_close(table.select(names).to_pylist(), expected)
    assert saved.to_pyarrow(raw=True).to_pylist() == raw
    # 2. In a later training set, after the data has moved: the old parameters hold.
    connection.raw_sql("INSERT INTO t SELECT 'k9', TIMESTAMP '2024-04-01', 1000, 9, 'ZZ', 1, 2")
    later = store.get_historical_features(spine(), saved)
    assert later.to_pyarrow().select(names).to_pylist() == table.select(names).to_pylist()
    new = pa.table({"k": ["k9"], "event_timestamp": [NOON], "amount": [1.0]})
    (row,) = store.get_historical_features(new, saved.reference).to_pyarrow().to_pylist()
    assert [row[name] for name in names if name.startswith("carrier_")] == [0, 0]
    assert row["temp"] > 100
    # 3. Online, equal to training.
    for at in (2, 5, 11):
        moment = NOON - at * HOUR
        asked = pa.table({"k": ["k0", "k3", "k9", "no"], "event_timestamp": [moment] * 4,
                          "amount": [0.5, 1.5, 2.5, 3.5]})  # fmt: skip
        trained = store.get_historical_features(asked, saved).to_pyarrow().select(names)
        online = store.get_features(
            saved, {"k": ["k0", "k3", "k9", "no"]}, as_of=moment.replace(tzinfo=UTC),
            request=[{"amount": value} for value in (0.5, 1.5, 2.5, 3.5)],
        )  # fmt: skip
        assert list(online.names) == names
        assert_close([{n: row[n] for n in names} for row in online.to_list()], trained.to_pylist())
    now = store.get_online_features("training_set:delays@1", [{"k": "k1"}], {"amount": 2.0})
    assert list(now.names) == names


def test_a_later_definition_changes_nothing_of_what_was_saved(store, connection):
    saved = store.get_historical_features(spine(), "delay").save(
        "delays", transformations=[vfs.standardize("temp")]
    )
    before = store.get_historical_features(spine(), saved).to_pyarrow()
    source = vfs.Source("t", table="t", event_timestamp="at")
    changed = vfs.FeatureView(
        "weather", source=source, entities=[ENTITY],
        features=[vfs.Feature("temp", _.temp * 100), "sky", "carrier", "price", "same"],
    )  # fmt: skip
    store.apply([changed])
    assert store.get_historical_features(spine(), saved).to_pyarrow() == before
    online = store.get_online_features(saved, [{"k": "k1"}], {"amount": 1.0}).to_dict()
    assert abs(online["temp"][0]) < 10


def test_parameters_are_shown(store):
    saved = store.get_historical_features(spine(), "delay").save(
        "delays", transformations=[vfs.standardize("temp"), vfs.ordinal("carrier")]
    )
    (temp, carrier) = saved.record.fitted
    assert set(temp.parameters) == {"mean(temp)", "standarddev(temp)", "min(temp)", "max(temp)"}
    assert carrier.parameters == {"categories": ["B6", "DL"]}
    assert "mean(temp) = " in str(saved)
    assert set(saved.to_pyarrow().column("carrier").to_pylist()) == {-1, 0, 1}


def test_many_categories_nest_no_deeper(store, connection):
    connection.raw_sql(
        "CREATE TABLE many AS SELECT 'k1' AS k, TIMESTAMP '2024-04-01' + to_minutes(i) AS at, "
        "'c' || lpad(i::VARCHAR, 3, '0') AS c FROM range(300) t(i)"
    )
    view = vfs.FeatureView(
        "many", source=vfs.Source("many", table="many", event_timestamp="at"), entities=[ENTITY],
        features=["c"],
    )  # fmt: skip
    asked = pa.table({"k": ["k1"] * 300, "event_timestamp": [
        datetime(2024, 4, 1) + timedelta(minutes=n) for n in range(300)]})  # fmt: skip
    saved = store.get_historical_features(asked, [view]).save(
        "many", transformations=[vfs.ordinal("c", most=300)]
    )
    assert saved.to_pyarrow().column("c").to_pylist() == list(range(300))
    found = store.get_features(saved, [{"k": "k1"}], as_of=datetime(2024, 4, 1, 2, 3, tzinfo=UTC))
    assert found.to_dict()["c"] == [123]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (vfs.Feature("z", _.nothing.mean()), "no feature 'nothing'"),
        (vfs.Feature("z", "temp * 2"), "needs an Ibis expression"),
        (vfs.Feature("z", _.carrier.upper()), "does not mean the same"),
        (vfs.Feature("label", _.temp), "has a column 'label'"),
        (vfs.Feature("z", _.temp - _.temp.lag()), "z"),
        (vfs.one_hot("temp"), "categories are strings"),
        (vfs.one_hot("ratio"), "categories are strings"),
        ("temp", "transformations are"),
    ],
)
def test_what_cannot_be_fitted_is_refused(store, given, expected):
    ds = store.get_historical_features(spine(), "delay")
    with pytest.raises(vfs.DefinitionError, match=expected):
        ds.save("delays", transformations=[given])
    assert store.training_sets() == []


def test_names_that_collide_keep_their_names_when_one_is_transformed(store):
    twice = [
        vfs.FeatureSelection(view="weather", features=("temp",)),
        vfs.FeatureSelection(view="weather", features=("temp",)).with_name("other"),
    ]
    asked = pa.table({"k": ["k1", "k2"], "event_timestamp": [NOON] * 2})
    saved = store.get_historical_features(asked, twice).save(
        "two", transformations=[vfs.standardize("other__temp")]
    )
    assert saved.features == ("weather__temp", "other__temp")
    again = store.get_historical_features(asked, saved).to_pyarrow()
    assert again.column_names == ["k", "event_timestamp", "weather__temp", "other__temp"]
    assert again.to_pylist() == saved.to_pyarrow().to_pylist()


def test_drafts_can_be_saved_and_asked_for_again(store, connection):
    view = vfs.FeatureView(
        "draft", source=vfs.Source("d", table="t", event_timestamp="at"), entities=[ENTITY],
        features=["temp"],
    )  # fmt: skip
    asked = pa.table({"k": ["k1"], "event_timestamp": [NOON]})
    saved = store.get_historical_features(asked, [view]).save("drafts")
    assert saved.metadata["views"] == {"draft": "draft"}
    again = store.get_historical_features(asked, store.training_set("drafts"))
    assert again.to_pyarrow() == saved.to_pyarrow()


def test_a_set_saved_without_late_rows_is_asked_for_without_them(store, connection):
    connection.raw_sql(
        "CREATE TABLE late AS SELECT 'k' || (i % 5) AS k, TIMESTAMP '2024-05-01' + to_hours(i) AS "
        "at, TIMESTAMP '2024-05-01' + to_hours(i + i % 4) AS wrote, i AS x FROM range(14) t(i)"
    )
    view = vfs.FeatureView(
        "late", source=vfs.Source("late", table="late", event_timestamp="at",
                                  created_timestamp="wrote"), entities=[ENTITY], features=["x"],
    )  # fmt: skip
    asked = spine().select(["k", "event_timestamp"])
    saved = store.get_historical_features(asked, [view], late_data="exclude").save("late")
    again = store.get_historical_features(asked, saved)
    assert again.metadata["late_data"] == "exclude"
    assert again.metadata["service"] == "training_set:late@1"
    assert again.to_pyarrow() == saved.to_pyarrow()
    assert again.to_pyarrow() != store.get_historical_features(asked, [view]).to_pyarrow()
    told = store.get_historical_features(asked, saved, late_data="include")
    assert told.metadata["late_data"] == "include"


# -- what a reviewer found


def saved_of(store, connection, select, *transformations, **given):
    connection.raw_sql(f"CREATE OR REPLACE TABLE odd AS {select}")
    features = [c for c in connection.table("odd").columns if c not in ("k", "at")]
    view = vfs.FeatureView(
        "odd", source=vfs.Source("odd", table="odd", event_timestamp="at"), entities=[ENTITY],
        features=features,
    )  # fmt: skip
    asked = pa.table({"k": ["k0", "k1", "k2", "no"], "event_timestamp": [NOON] * 4})
    ds = store.get_historical_features(asked, [view])
    return ds.save("odd", transformations=transformations, **given)


ODD = "SELECT 'k' || i AS k, TIMESTAMP '2024-04-01' AS at, {} FROM range(3) t(i)"


@pytest.mark.parametrize("place", ["temp=7", "env=prod"])
def test_a_folder_named_like_a_partition_says_nothing(connection, tmp_path, place):
    folder = tmp_path / place
    folder.mkdir()
    config = vfs.Config(project="p", folder=folder)
    with vfs.FeatureStore(config, connections={"default": connection}) as store:
        saved = saved_of(store, connection, ODD.format("i::DOUBLE AS temp, i AS env"),
                         vfs.standardize("temp"))  # fmt: skip
        assert saved.record.fitted[0].parameters["mean(temp)"] == 1.0
        assert saved.statistics["env"]["max"] == 2


@pytest.mark.parametrize("to", ["parquet", "table"])
def test_values_that_have_no_mean_are_kept_all_the_same(store, connection, to):
    values = "[1e200, 'inf'::DOUBLE, 'nan'::DOUBLE][i + 1] AS x, [1e-200, 0.5, -1e300][i + 1] AS y"
    saved = saved_of(store, connection, ODD.format(values), to=to)
    assert saved.statistics["x"]["not_finite"] == 3
    assert saved.statistics["y"]["mean"] == pytest.approx(0.25)
    assert store.training_set("odd").to_pyarrow().num_rows == 4


def test_scaling_of_what_has_no_spread_or_too_much(store, connection):
    values = "0.1 + i * 0 AS same, [-9e18, 0, 9e18][i + 1]::BIGINT AS wide, i > 0 AS truth"
    saved = saved_of(
        store, connection, ODD.format(values), vfs.standardize("same"), vfs.min_max("wide"),
        vfs.standardize("truth"),
    )  # fmt: skip
    table = saved.to_pyarrow()
    assert table.column("same").to_pylist() == [0.0, 0.0, 0.0, None]
    assert table.column("wide").to_pylist() == pytest.approx([0.0, 0.5, 1.0, None])
    assert table.column("truth").to_pylist()[1] == pytest.approx(math.sqrt(0.5))


def test_categories_that_columns_cannot_be_named_by(store, connection):
    words = "['AA', 'aa', 'a' || chr(10) || ':b'][i + 1] AS c"
    saved = saved_of(store, connection, ODD.format(words), vfs.one_hot("c"))
    assert saved.features == ("c_AA", "c_a__b", "c_aa_")
    assert store.training_set("odd").to_pyarrow().column("c_aa_").to_pylist() == [0, 1, 0, 0]
    assert saved.record.fitted[0].parameters == {"category": "AA"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (vfs.Feature("x2", _.x, dtype="float32"), "leave dtype= out"),
        (vfs.Feature("X", _.x + 1), "differs in case alone"),
        (vfs.Feature("z", _.x - _.x.first()), "depends on the order"),
        (vfs.impute("d"), "d"),
    ],
)
def test_more_that_cannot_be_fitted_is_refused(store, connection, given, expected):
    values = "i AS x, DATE '2024-01-01' AS d"
    with pytest.raises(vfs.DefinitionError, match=expected) as raised:
        saved_of(store, connection, ODD.format(values), given)
    assert "no feature 'mean'" not in str(raised.value)
    assert store.training_sets() == []


def test_columns_that_differ_in_case_are_not_kept(store, connection):
    asked = spine(5).append_column("Label", pa.array(range(5)))
    with pytest.raises(vfs.SpineError, match="differ only in case"):
        store.get_historical_features(asked, "delay").save("cases")


def test_embeddings_are_kept(store, connection):
    saved = saved_of(store, connection, ODD.format("[i, 1, 2]::FLOAT[3] AS e"))
    assert store.training_set("odd").to_pyarrow().column("e").to_pylist()[1] == [1.0, 1.0, 2.0]
    assert saved.content_hash == store.training_set("odd").content_hash


def test_a_reference_says_its_version(store):
    store.get_historical_features(spine(), "delay").save("delays")
    with pytest.raises(vfs.NotFoundError, match="training_set:delays@1"):
        store.get_historical_features(spine(), "training_set:delays")


def test_a_warehouse_out_of_reach_is_no_damage(postgres, tmp_path):
    config = vfs.Config(project="p", folder=tmp_path, warehouses={
        "default": {"url": postgres, "read_only": False}})  # fmt: skip
    with vfs.FeatureStore(config) as store:
        source = vfs.Source(
            "s", query="SELECT 'a' AS k, timestamp '2024-01-01' AS at, "
            "'00000000-0000-0000-0000-000000000001'::uuid AS u, 0.1::float8 AS same",
            event_timestamp="at",
        )  # fmt: skip
        view = vfs.FeatureView("v", source=source, entities=[ENTITY], features=["u", "same"])
        asked = pa.table({"k": ["a"] * 1000, "event_timestamp": [NOON] * 1000})
        saved = store.get_historical_features(asked, [view]).save(
            "kept", to="table", transformations=[vfs.standardize("same")]
        )
        assert set(saved.to_pyarrow().column("same").to_pylist()) == {0.0}
        record = saved.record.model_copy(update={"warehouse": "gone"})
        gone = vfs.Config(project="q", folder=tmp_path, warehouses={
            "gone": {"url": "postgresql://nobody@127.0.0.1:1/none"}})  # fmt: skip
        with vfs.FeatureStore(gone) as other, pytest.raises(vfs.WarehouseError) as raised:
            other.shelf.opened(record).verify()
        assert not isinstance(raised.value, vfs.TrainingSetDamagedError)


# -- where it is known


def test_lineage_knows_which_training_sets_hold_a_feature(store):
    store.get_historical_features(spine(), "delay").save("delays")
    store.get_historical_features(spine(), ["weather:temp"]).save("temps")
    used = str(store.lineage("weather:temp", "downstream"))
    assert "training set delays@1" in used
    assert "training set temps@1" in used
    assert "temps" not in str(store.lineage("weather:sky", "downstream"))
    assert "training set delays@1" in str(store.lineage("t.sky", "downstream"))
    made = store.lineage("training_set:delays@1", "upstream")
    assert {node.name for node in made.nodes} >= {"weather@1:temp", "share@1:ratio", "t.temp"}


def test_a_training_set_over_two_warehouses_is_saved(store, tmp_path):
    import ibis

    second = ibis.duckdb.connect()
    second.raw_sql(
        "CREATE TABLE u AS SELECT 'k' || i AS k, TIMESTAMP '2024-01-01' AS at, "
        "i::DOUBLE AS y FROM range(5) t(i)"
    )
    with vfs.FeatureStore(
        vfs.Config(project="two", folder=tmp_path / "two"),
        connections={"default": store.warehouse().connection, "second": second},
    ) as both:  # fmt: skip
        u = vfs.FeatureView(
            "u", source=vfs.Source("u", table="u", warehouse="second", event_timestamp="at"),
            entities=[ENTITY], features=["y"],
        )  # fmt: skip
        t = vfs.FeatureView(
            "w", source=vfs.Source("t", table="t", event_timestamp="at"), entities=[ENTITY],
            features=["temp"],
        )  # fmt: skip
        both.apply([u, t])
        ds = both.get_historical_features(spine(), ["w:temp", "u:y"])
        saved = ds.save(
            "both", transformations=[vfs.Feature("y", _.y / _.y.max() + _.temp / _.temp.max())]
        )
        rows = ds.to_pyarrow().to_pylist()
        temps = max(row["temp"] for row in rows if row["temp"] is not None)
        tops = max(row["y"] for row in rows if row["y"] is not None)
        expected = [
            None if row["temp"] is None or row["y"] is None
            else row["y"] / tops + row["temp"] / temps
            for row in rows
        ]  # fmt: skip
        assert saved.to_pyarrow().column("y").to_pylist() == pytest.approx(expected)
        later = both.get_historical_features(spine(), saved).to_pyarrow()
        assert later.column("y").to_pylist() == pytest.approx(expected)
        with pytest.raises(vfs.UnsupportedByWarehouseError, match="several warehouses"):
            ds.save("both", to="table")
    second.disconnect()
