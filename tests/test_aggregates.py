"""Aggregates as definitions: names, mistakes, YAML, versions, and the ways they are looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

import virtualfs as vfs
from virtualfs import _
from virtualfs.definitions.project import Project, load_definitions

A = vfs.Aggregate
NOON = datetime(2024, 5, 1, 12)


def rides(connection: Any, **settings: Any) -> vfs.FeatureView:
    """Make a table of rides, one an hour until noon, and a view of them."""
    connection.raw_sql(
        "CREATE OR REPLACE TABLE rides AS SELECT 'd' || i % 2 AS driver, i::INT AS km, "
        "'p' || i AS place, TIMESTAMP '2024-05-01 12:00' - to_hours(i::INT) AS done "
        "FROM range(1, 49) t(i)"
    )
    given: dict[str, Any] = {
        "features": [
            A("*", "count", "6h", description="Rides of late"),
            A("km", "sum", "1d", where=_.km > 10, name="long_km_1d"),
            A("place", "last", "1d", n=2),
        ],
        **settings,
    }
    return vfs.FeatureView(
        "rides",
        source=vfs.Source("rides", table="rides", event_timestamp="done"),
        entities=[vfs.Entity("driver", {"driver": "string"})],
        **given,
    )


@pytest.mark.parametrize(
    ("aggregate", "name"),
    [
        (A("dep_delay", "mean", "7d"), "dep_delay_mean_7d"),
        (A("*", "count", "24h"), "count_1d"),
        (A("*", "count", "36h"), "count_36h"),
        (A("x", "quantile", "1h", q=0.95), "x_p95_1h"),
        (A("x", "quantile", "1h", q=0.999), "x_p99_9_1h"),
        (A("dest", "last", None, n=5), "dest_last_5_lifetime"),
        (A("x", "sum", "6d", offset="1d"), "x_sum_6d_offset_1d"),
        (A("x", "sum", "6d", name="mine"), "mine"),
    ],
)
def test_names(aggregate: vfs.Aggregate, name: str) -> None:
    assert aggregate.name == name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: A("*", "sum", "1d"), "can only be counted"),
        (lambda: A("x", "average", "1d"), "'mean'"),
        (lambda: A("x", "sum", "0s"), "longer than zero"),
        (lambda: A("x", "sum", "1d", n=2), "first and last"),
        (lambda: A("x", "last", "1d", n=0), "greater than or equal to 1"),
        (lambda: A("x", "quantile", "1d"), "needs q="),
        (lambda: A("x", "quantile", "1d", q=95), "less than or equal to 1"),
        (lambda: A("x", "sum", "1d", wher="y"), "Did you mean 'where'"),
    ],
)
def test_mistakes(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(vfs.DefinitionError, match=message):
        make()


def test_two_of_one_name_ask_for_names_and_kinds_are_not_mixed(connection: Any) -> None:
    with pytest.raises(vfs.DefinitionError, match="give one of each a name="):
        rides(connection, features=[A("km", "sum", "1d"), A("km", "sum", "24h", where="km > 1")])
    with pytest.raises(vfs.DefinitionError, match="not both"):
        rides(connection, features=["km", A("km", "sum", "1d")])


def test_yaml_and_python_mean_the_same(tmp_path: Path) -> None:
    (tmp_path / "features.yaml").write_text(
        """
entities: [{name: driver, join_keys: {driver: string}}]
sources: [{name: rides, table: rides, event_timestamp: done}]
feature_views:
  - name: rides
    source: rides
    entities: [driver]
    features:
      - {column: "*", function: count, window: 6h}
      - {column: km, function: sum, window: 24h, where: km > 10, name: long_km}
      - {column: km, function: quantile, window: null, q: 0.5}
"""
    )
    view = vfs.FeatureView(
        "rides", source=vfs.Source("rides", table="rides", event_timestamp="done"),
        entities=[vfs.Entity("driver", {"driver": "string"})],
        features=[A("*", "count", "6h"), A("km", "sum", "1d", where="km > 10", name="long_km"),
                  A("km", "quantile", None, q=0.5)],
    )  # fmt: skip
    assert Project.of(load_definitions(tmp_path / "features.yaml")) == Project.of([view])


def test_a_change_of_meaning_is_a_version_and_nothing_else_is(
    make_store: Callable[..., Any], connection: Any
) -> None:
    store = make_store()
    view = rides(connection)
    store.apply([view])
    assert not store.plan([view])
    # The condition is known as text once it has been stored, and still the same.
    assert not store.plan([store.state().project().views["rides"]])
    store.apply([rides(connection, description="Rides", features=list(view.features))])
    assert store.state().objects["feature_view", "rides"].version == 1
    wider = [A("*", "count", "7h", name="count_6h"), *view.features[1:]]
    assert "~ count_6h" not in str(store.plan([view]))
    plan = store.plan([rides(connection, features=wider)])
    assert "count of rows over 7h" in str(plan)
    store.apply(plan)
    assert store.state().objects["feature_view", "rides"].version == 2
    old = store.get_features(["rides@1:count_6h", "rides:count_6h"][:1], [{"driver": "d0"}], NOON)
    assert old.to_list()[0]["count_6h"] == 3
    inclusive = rides(connection, boundary="inclusive", features=wider)
    assert store.plan([inclusive])


def test_other_keys_and_names(make_store: Callable[..., Any], connection: Any) -> None:
    import pandas as pd

    view = rides(connection)
    spine = pd.DataFrame({"one": ["d0"], "two": ["d1"], "event_timestamp": [NOON]})
    one = view.with_name("one_rides").with_join_keys({"driver": "one"})
    two = view[["count_6h"]].with_name("two_rides").with_join_keys({"driver": "two"})
    found = make_store().get_historical_features(spine, [one, two]).to_pandas()
    row = found.iloc[0]
    assert (row["one_rides__count_6h"], row["two_rides__count_6h"]) == (3, 3)
    assert row["long_km_1d"] == sum(range(12, 25, 2))
    assert list(row["place_last_2_1d"]) == ["p4", "p2"]


def test_graphql_answers_them_and_the_view_shows_itself(
    make_store: Callable[..., Any], connection: Any
) -> None:
    from virtualfs_graphql.app import SERVER

    store = make_store(clock=NOON.isoformat() + "Z")
    view = rides(connection)
    store.apply([view])
    assert "Rides of late" in str(view)
    query = '{ driver(driver: "d0") { rides { count6h longKm1d placeLast21d _meta { status } } } }'

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(SERVER.asgi(store))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/graphql", json={"query": query})

    answer = asyncio.run(ask()).json()
    assert "errors" not in answer, answer
    assert answer["data"]["driver"]["rides"] == {
        "count6h": 3, "longKm1d": sum(range(12, 25, 2)),
        "placeLast21d": ["p4", "p2"], "_meta": {"status": "PRESENT"},
    }  # fmt: skip
    cached = store.get_online_features("rides", [{"driver": "d0"}])
    assert cached.to_list()[0]["place_last_2_1d"] == ["p4", "p2"]
