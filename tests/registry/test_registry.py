"""Plan, apply, versions and revisions, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import virtualfs as vfs
from tests.registry.conftest import AIRPORT, at_once, weather
from virtualfs import _
from virtualfs.registry.database import migrations


def test_apply_writes_one_revision_and_repeating_it_none(store: vfs.FeatureStore) -> None:
    service = vfs.FeatureService("delay", [weather()])
    plan = store.plan([service])
    assert [(c.action, c.kind) for c in plan.changes] == [
        ("add", "entity"),
        ("add", "source"),
        ("add", "feature_view"),
        ("add", "feature_service"),
    ]
    assert store.apply(plan).number == 1
    assert not store.plan([service])
    assert store.apply([service]).number == 1


def test_planning_writes_nothing(store: vfs.FeatureStore, tmp_path: Path) -> None:
    store.plan([weather()])
    assert store.state().revision == 0
    assert not (tmp_path / ".virtualfs").exists()


def test_a_change_of_meaning_makes_a_version_and_metadata_does_not(store: vfs.FeatureStore) -> None:
    store.apply([vfs.FeatureService("delay", [weather()])])
    plan = store.plan([weather(description="of the hour", owner="ann", freshness="5m")])
    assert [(c.name, c.old_version, c.version) for c in plan.changes] == [("weather", 1, 1)]
    assert "metadata only" in str(plan)
    store.apply(plan)

    plan = store.plan([weather("temp", "wet", ttl="1d")])
    assert [(c.name, c.old_version, c.version) for c in plan.changes] == [
        ("weather", 1, 2),
        ("delay", 1, 2),
    ]
    assert "+ wet boolean" in str(plan)
    assert "ttl: none -> 1d" in str(plan)
    assert "weather@1 -> weather@2" in str(plan)
    assert store.apply(plan).number == 3


def test_old_versions_and_pinned_services_stay_answerable(store: vfs.FeatureStore) -> None:
    store.apply([vfs.FeatureService("delay", [weather(vfs.Feature("temp", "temp"))])])
    store.apply([weather(vfs.Feature("temp", "temp * 100"))])
    store.warehouse().connection.raw_sql(
        "INSERT INTO weather VALUES ('JFK', '2020-01-01', 5, true)"
    )
    key = [{"origin": "JFK"}]
    for asked, value in {
        "weather:temp": 500,
        "weather@1:temp": 5,
        "weather@2:temp": 500,
    }.items():
        assert store.get_online_features([asked], key).to_list()[0]["temp"] == value
    assert store.table("weather@1").to_pandas()["temp"].tolist() == [5]
    assert store.table("weather").to_pandas()["temp"].tolist() == [500]
    at = datetime(2020, 1, 2, tzinfo=UTC)
    assert store.get_features("delay@1", key, as_of=at).to_list()[0]["temp"] == 5
    assert store.get_features("delay", key, as_of=at).to_list()[0]["temp"] == 500
    with pytest.raises(vfs.NotFoundError, match="no version 7"):
        store.table("weather@7")


def test_a_revision_can_be_read_again(store: vfs.FeatureStore) -> None:
    store.apply([weather()])
    store.apply([weather("temp", "wet")])
    assert store.registry.state(1).objects["feature_view", "weather"].version == 1
    assert store.registry.state(2).objects["feature_view", "weather"].version == 2
    assert store.registry.state(0).objects == {}
    with pytest.raises(vfs.RegistryError, match="no revision 9"):
        store.registry.state(9)


def test_a_stale_plan_is_refused(store: vfs.FeatureStore) -> None:
    first, second = store.plan([weather()]), store.plan([weather("wet")])
    store.apply(first)
    with pytest.raises(vfs.PlanConflictError, match="plan again"):
        store.apply(second)
    assert store.state().revision == 1
    assert store.list_features()[0]["feature"] == "weather:temp"


def test_of_two_applies_at_once_one_wins(store: vfs.FeatureStore) -> None:
    store.apply([AIRPORT])
    plans = [store.plan([weather(feature)]) for feature in ("temp", "wet")]
    (lost,) = at_once([partial(store.apply, plan) for plan in plans])
    assert isinstance(lost, vfs.PlanConflictError)
    assert store.state().revision == 2


def test_an_ibis_expression_survives_as_sql(store: vfs.FeatureStore) -> None:
    store.apply([weather(vfs.Feature("cold", _.temp < 0))])
    # Another view of the same source is applied later, by someone without the Python file.
    plan = store.plan([weather(vfs.Feature("cold", {"ibis": "(_.temp < 0)"}))])
    assert not plan
    assert store.state().objects["feature_view", "weather"].view().features[0].sql == '"temp" < 0'


def test_an_ibis_source_is_stored_as_a_query(store: vfs.FeatureStore) -> None:
    source = vfs.Source(
        "wet", expr=lambda con: con.table("weather").filter(_.wet), event_timestamp="seen"
    )
    view = vfs.FeatureView("wet", source=source, entities=[AIRPORT], features=["temp"])
    store.apply([view])
    stored = store.state().objects["source", "wet"].definition
    assert "SELECT" in stored["query"]
    assert not store.plan([view])


def test_an_older_or_newer_registry_is_refused_in_words(store: vfs.FeatureStore) -> None:
    store.apply([weather()])
    engine = store.registry.database.open()
    for version, words in {
        "0000": "virtualfs registry upgrade",
        "9999": "upgrade the virtualfs",
    }.items():
        with engine.begin() as connection:
            connection.execute(
                sa.text("UPDATE virtualfs_schema SET version_num = :v"), {"v": version}
            )
        with pytest.raises(vfs.RegistryError, match=words):
            store.state()
    with engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE virtualfs_schema SET version_num = :v"), {"v": migrations().head}
        )


def test_prune_removes_only_what_came_from_files(
    make_store: Callable[..., vfs.FeatureStore], connection: Any, tmp_path: Path
) -> None:
    connection.raw_sql("CREATE TABLE weather (origin TEXT, seen TIMESTAMP, temp INTEGER)")
    connection.raw_sql("CREATE TABLE planes (tailnum TEXT, seats INTEGER)")
    file = tmp_path / "f.yaml"
    file.write_text(
        "entities: [{name: airport, join_keys: {origin: string}}]\n"
        "sources: [{name: weather, table: weather, event_timestamp: seen}]\n"
        "feature_views:\n"
        "  - {name: weather, source: weather, entities: [airport], features: [temp]}\n"
    )
    store = make_store(definitions=("f.yaml",))
    store.apply(prune=True)
    store.register_table("planes", entity="plane", join_keys=["tailnum"])
    file.write_text("entities: [{name: airport, join_keys: {origin: string}}]\n")
    plan = store.plan(prune=True)
    assert [(c.action, c.name) for c in plan.changes] == [
        ("remove", "weather"),
        ("remove", "weather"),
    ]
    store.apply(plan)
    assert [row["feature"] for row in store.list_features()] == ["planes:seats"]
    # The name comes back with the next version, never with an old one's number.
    store.apply([weather()])
    assert store.state().objects["feature_view", "weather"].version == 2


def test_register_table_is_idempotent_and_never_claimed_twice(
    make_store: Callable[..., vfs.FeatureStore], connection: Any, tmp_path: Path
) -> None:
    connection.raw_sql("CREATE TABLE planes (tailnum TEXT, seats INTEGER, made DATE)")
    store = make_store(definitions=("f.yaml",))
    call = {"entity": "plane", "join_keys": ["tailnum"]}
    assert store.register_table("planes", **call, dry_run=True).plan
    assert store.state().revision == 0
    assert store.register_table("planes", **call).number == 1
    assert store.register_table("planes", **call).number == 1
    assert [row["feature"] for row in store.list_features()] == ["planes:seats", "planes:made"]
    with pytest.raises(vfs.DefinitionError, match="Did you mean 'tailnum'"):
        store.register_table("planes", entity="plane", join_keys=["tailnumber"])
    (tmp_path / "f.yaml").write_text("sources: [{name: planes, table: planes}]\n")
    with pytest.raises(vfs.DefinitionError, match="claimed twice"):
        store.plan()
