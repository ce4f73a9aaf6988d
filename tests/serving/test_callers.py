"""What callers hand over and what they get: frames of every kind, and lists of their own."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import virtualfs as vfs
from virtualfs import Config, FeatureStore

QUERY = (
    "SELECT 1::BIGINT AS k, ['a', 'b'] AS tags, {'x': 1} AS place, 10 AS n, 1.50::DECIMAL(8, 2) "
    "AS price, TIMESTAMP '2024-01-01' AS seen"
)


def store_of(folder: Path, cache: dict[str, Any], **entity: str) -> FeatureStore:
    config = Config(
        project="callers", folder=folder, warehouses={"default": {"url": "duckdb://"}}, cache=cache
    )
    view = vfs.FeatureView(
        "v", source=vfs.Source("s", query=QUERY, event_timestamp="seen"), freshness="1h",
        entities=[vfs.Entity("e", join_keys=entity or {"k": "int64"})],
        features=["tags", "place", "n"],
    )  # fmt: skip
    store = FeatureStore(config)
    store.apply([view])
    return store


def test_changing_an_answer_changes_nobody_elses(tmp_path: Path, valkey: str) -> None:
    with store_of(tmp_path, {"url": valkey, "near": "10s", "prefix": "callers"}) as store:
        for _turn in range(3):
            answer = store.get_online_features(["v:tags", "v:place"], [{"k": 1}])
            (row,) = answer.to_list()
            assert (row["tags"], row["place"]) == (["a", "b"], {"x": 1})
            row["tags"].append("mine")
            row["place"]["x"] = 2
            answer.values[0][0].append("mine")


@pytest.mark.parametrize(
    "frame",
    [pl.DataFrame({"k": [1]}), pd.DataFrame({"k": [1]}), pa.table({"k": [1]}), {"k": [1]},
     [{"k": 1}]],
)  # fmt: skip
def test_entities_may_be_a_frame_of_any_kind(tmp_path: Path, frame: Any) -> None:
    with store_of(tmp_path, {}) as store:
        assert store.get_online_features(["v:n"], frame).to_list() == [{"k": 1, "n": 10}]


def test_rows_to_push_may_be_a_polars_frame(tmp_path: Path) -> None:
    rows = pl.DataFrame({
        "k": [2], "tags": [["c"]], "place": [{"x": 3}], "n": [7],
        "seen": [pd.Timestamp("2024-01-02").to_pydatetime()],
    })  # fmt: skip
    with store_of(tmp_path, {}) as store:
        assert store.push("v", rows).written == 1
        answer = store.get_online_features(["v:tags", "v:n"], [{"k": 2}])
        assert answer.to_list() == [{"k": 2, "tags": ["c"], "n": 7}]


def test_a_key_that_does_not_fit_is_shown_in_the_message(tmp_path: Path) -> None:
    with (
        store_of(tmp_path, {}, price="decimal(8, 2)") as store,
        pytest.raises(vfs.SpineError, match=r"Decimal\('1.505'\) \(Decimal\)"),
    ):
        store.get_online_features(["v:n"], [{"price": Decimal("1.505")}])


NESTED = {
    "struct": "{'d': DATE '2024-01-01', 'm': 1.50::DECIMAL(8, 2), 'n': NULL::INT}",
    "times": "{'t': TIMESTAMP '2024-01-01 01:02:03.5', 'c': TIME '01:02:03'}",
    "structs": "[{'d': DATE '2024-01-01'}, NULL]",
    "lists": "[[1, NULL], NULL, []]",
    "map": "map {'a': 1.5::DECIMAL(4, 1), 'b': NULL}",
    "map_of_lists": "map {DATE '2024-01-01': [1, NULL]}",
    "bytes": "['\\x01'::BLOB]",
    "deep": "{'a': {'b': [{'c': DATE '2024-01-01'}]}}",
}


@pytest.mark.parametrize("kind", NESTED)
def test_nested_values_are_the_same_from_warehouse_and_cache(
    tmp_path: Path, valkey: str, kind: str
) -> None:
    query = f"SELECT 1::BIGINT AS k, {NESTED[kind]} AS x, TIMESTAMP '2024-01-01' AS seen"
    config = Config(
        project=f"nested-{kind}", folder=tmp_path, warehouses={"default": {"url": "duckdb://"}},
        cache={"url": valkey, "near": "0s"},
    )  # fmt: skip
    view = vfs.FeatureView(
        "v", source=vfs.Source("s", query=query, event_timestamp="seen"), freshness="1h",
        entities=[vfs.Entity("e", join_keys={"k": "int64"})], features=["x"],
    )  # fmt: skip
    with FeatureStore(config) as store:
        store.apply([view])
        with store.warehouse().session() as session:
            expected = session.query(query)["x"].to_pylist()[0]
        for _turn in range(3):
            answer = store.get_online_features(["v:x"], [{"k": 1}])
            value = answer.to_list()[0]["x"]
            assert repr(value) == repr(expected)
        store.materialize()
        answer = store.get_online_features(["v:x"], [{"k": 1}])
        assert repr(answer.to_list()[0]["x"]) == repr(expected)
