"""Saved training sets through GraphQL: the catalog shows them, and a model is fed by their name."""

from __future__ import annotations

import pyarrow as pa
import pytest

import virtualfs as vfs

LIST = """
{ trainingSets { name version rows contentHash createdBy service revision
    features { name ref written parameters statistics } metadata }
  trainingSet(name: "delays", version: 1) { name place description tags }
  none: trainingSet(name: "nothing") { name } }
"""
ONLINE = """
query ($keys: [JSON!]!) { onlineFeatures(trainingSet: "delays@1", entities: $keys) {
    names rows values statuses } }
"""
HISTORY = """
query ($spine: [JSON!]!) { historicalFeatures(trainingSet: "delays@1", spine: $spine) }
"""
"""Whatever the fields, the general executor and the compiled look-ups answer alike."""


@pytest.fixture
def saved(store):
    spine = pa.table(
        {
            "origin": ["JFK", "LGA", "EWR", "nowhere"],
            "event_timestamp": [store.now()] * 4,
        }
    )
    ds = store.get_historical_features(spine, ["airport_weather:big_count"])
    return ds.save(
        "delays",
        description="late",
        tags={"team": "ml"},
        transformations=[vfs.standardize("big_count")],
    )


def test_the_catalog_shows_saved_training_sets(store, ask, saved):
    found = ask(LIST)["data"]
    (one,) = found["trainingSets"]
    assert (one["name"], one["version"], one["rows"]) == ("delays", 1, 4)
    assert one["contentHash"] == saved.content_hash
    (feature,) = one["features"]
    assert feature["ref"] is None
    assert {"mean(big_count)", "standarddev(big_count)"} <= set(feature["parameters"])
    assert feature["statistics"]["nulls"] >= 1
    assert one["metadata"]["sql_sha256"] == saved.metadata["sql_sha256"]
    assert found["trainingSet"]["tags"] == {"team": "ml"}
    assert found["none"] is None


def test_a_model_is_fed_by_the_name_of_its_training_set(store, ask, saved):
    keys = [{"origin": "JFK"}, {"origin": "nowhere"}]
    found = ask(ONLINE, keys=keys)["data"]["onlineFeatures"]
    expected = store.get_online_features(saved, keys)
    assert found["names"] == ["big_count"]
    assert found["values"] == [[value] for value in expected.to_dict()["big_count"]]
    assert found["values"][0][0] is not None
    assert abs(found["values"][0][0]) < 5  # in standard deviations
    assert [row[0] for row in found["statuses"]] == ["PRESENT", "NOT_FOUND"]
    again = ask(ONLINE, keys=keys)["data"]["onlineFeatures"]
    assert again == found


def test_historical_features_are_transformed_alike(store, ask, saved):
    at = store.now().isoformat()
    spine = [{"origin": "EWR", "event_timestamp": at}]
    (row,) = ask(HISTORY, spine=spine)["data"]["historicalFeatures"]
    assert row["big_count"] == saved.to_pyarrow().column("big_count").to_pylist()[2]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('trainingSet: "delays"', "names no version"),
        ('trainingSet: "delays@7"', "has no version 7"),
        ('trainingSet: "none@1"', "no training set 'none'"),
        ('trainingSet: "delays@1", service: "x"', "one of service:, features: and trainingSet:"),
    ],
)
def test_what_is_not_there_is_said(store, ask, saved, arguments, expected):
    found = ask(f"{{ onlineFeatures({arguments}, entities: []) {{ names }} }}")
    assert expected in found["errors"][0]["message"]


def test_lineage_ends_in_training_sets(store, ask, saved):
    found = ask(
        '{ lineage(ref: "airport_weather:big_count", direction: DOWNSTREAM) '
        "{ nodes { kind name } } }"
    )
    assert {"kind": "training_set", "name": "delays@1"} in found["data"]["lineage"]["nodes"]
