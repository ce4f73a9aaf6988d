"""What planning refuses: columns that are missing, types that do not fit, SQL that does more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import virtualfs as vfs
from virtualfs import _

AIRPORT = vfs.Entity("airport", {"origin": "string"})


@pytest.fixture
def store(make_store: Callable[..., vfs.FeatureStore], connection: Any) -> vfs.FeatureStore:
    connection.raw_sql(
        "CREATE TABLE weather (origin TEXT, code INTEGER, seen TIMESTAMP, said TEXT, temp BIGINT)"
    )
    return make_store()


def view(feature: Any = "temp", **fields: Any) -> vfs.FeatureView:
    source = {"table": "weather", "event_timestamp": "seen", **fields.pop("source", {})}
    return vfs.FeatureView(
        "weather",
        source=vfs.Source("weather", **source),
        entities=fields.pop("entities", [AIRPORT]),
        features=[feature],
        **fields,
    )


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: view("tmp"), r"no column 'tmp'. Did you mean 'temp'\?"),
        (lambda: view(source={"table": "wether"}), r"no table 'wether'. Did you mean 'weather'\?"),
        (lambda: view(source={"event_timestamp": "sen"}), r"Did you mean 'seen'\?"),
        (lambda: view(source={"event_timestamp": "said"}), "expected a timestamp or date column"),
        (lambda: view(source={"columns": {"nope": "x"}}), "no column 'nope'"),
        (lambda: view(entities=[vfs.Entity("a", {"code": "string"})]), "entity says string"),
        (lambda: view(entities=[vfs.Entity("a", {"faa": "string"})]), "no column 'faa'"),
        (lambda: view(vfs.Feature("x", _.tmp + 1)), r"no column 'tmp'. Did you mean 'temp'\?"),
        (lambda: view(vfs.Feature("x", "tmp + 1")), r"no column 'tmp'. Did you mean 'temp'\?"),
        (lambda: view(vfs.Feature("x", "temp +")), "not SQL"),
        (lambda: view(vfs.Feature("x", "temp, code")), "expected one expression"),
        (lambda: view(vfs.Feature("x", "temp FROM weather")), "expected one expression"),
        (lambda: view(vfs.Feature("x", "sum(temp)")), "an aggregate is not row-wise"),
        (lambda: view(vfs.Feature("x", _.temp.sum())), "not row-wise"),
        (lambda: view(vfs.Feature("x", "lag(temp) OVER ()")), "not row-wise"),
        (lambda: view(vfs.Feature("x", _.temp.lag())), "not row-wise"),
        (lambda: view(vfs.Feature("x", "(SELECT 1)")), "a subquery is not row-wise"),
        (lambda: view(vfs.Feature("x", "now()")), "another answer on each run"),
        (lambda: view(vfs.Feature("x", "current_date")), "another answer on each run"),
        (lambda: view(vfs.Feature("x", "random()")), "another answer on each run"),
        (lambda: view(vfs.Feature("x", "temp", dtype="int32")), "could lose something"),
        (lambda: view(vfs.Feature("x", "temp", dtype="float64")), "could lose something"),
        (lambda: view(vfs.Feature("origin", "said")), "rename it"),
        (lambda: view(vfs.Feature("__x", "temp")), "reserved"),
        (lambda: view(vfs.Feature("x", "getenv('HOME')")), "may call"),
        (lambda: view(source={"table": None, "query": "DROP TABLE weather"}), "exactly one SELECT"),
        (lambda: view(source={"table": None, "query": "SELECT 1; SELECT 2"}), "exactly one SELECT"),
        (
            lambda: view(source={"table": None, "query": "SELECT * FROM read_csv('/etc/passwd')"}),
            "outside the warehouse|names a file",
        ),
        (
            lambda: view(source={"table": None, "query": "SELECT * FROM '/etc/passwd'"}),
            "names a file",
        ),
        (
            lambda: view(source={"table": None, "query": "SELECT * FROM read_text('/etc/passwd')"}),
            "outside the warehouse",
        ),
        (lambda: view(source={"warehouse": "lake"}), "no warehouse 'lake'"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    store: vfs.FeatureStore, build: Any, words: str
) -> None:
    with pytest.raises(vfs.VirtualFSError, match=words):
        store.plan([build()])
    assert store.state().revision == 0


def test_columns_are_renamed_and_types_cast(store: vfs.FeatureStore, connection: Any) -> None:
    made = view(
        vfs.Feature("degrees", "Temp", dtype="decimal(20, 0)"),
        source={"columns": {"code": "origin_code", "temp": "temp"}},
        entities=[vfs.Entity("a", {"origin_code": "int64"})],
    )
    store.apply([made])
    resolved = store.state().objects["feature_view", "weather"].view()
    assert resolved.columns["degrees"] == "decimal(20, 0)"
    connection.raw_sql("INSERT INTO weather VALUES ('JFK', 7, '2020-01-01', '', 12)")
    assert store.table("weather").to_pyarrow().to_pylist()[0]["degrees"] == 12


def test_odd_names_are_taken_literally(store: vfs.FeatureStore, connection: Any) -> None:
    connection.raw_sql('CREATE TABLE "Select ""x""" ("my key" INT, "größe, 1" INT)')
    connection.raw_sql('INSERT INTO "Select ""x""" VALUES (1, 2)')
    made = vfs.FeatureView(
        "odd",
        source=vfs.Source("odd", table='"Select ""x"""'),
        entities=[vfs.Entity("e", {"my key": "int64"})],
        features=["größe, 1", vfs.Feature("twice", _["größe, 1"] * 2)],
    )
    answer = store.get_features([made], [{"my key": 1}])
    assert answer.to_list() == [{"my key": 1, "größe, 1": 2, "twice": 4}]
