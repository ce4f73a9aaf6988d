"""Environments, revisions and going back; writers at once; a registry that is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import virtualfs as vfs
from tests.registry.conftest import AIRPORT, at_once, weather

NOON = datetime(2020, 1, 2, 12, tzinfo=UTC)
KEY = [{"origin": "JFK"}]
COLD, WARM = (weather(vfs.Feature("temp", f"temp + {n}")) for n in (1, 2))


def value(store: vfs.FeatureStore, asked: str = "weather:temp") -> Any:
    return store.get_online_features([asked], KEY).to_list()[0]["temp"]


def contents(store: vfs.FeatureStore, **which: Any) -> dict[Any, Any]:
    state = store.registry.state(**which)
    return {key: (item.version, item.definition) for key, item in state.objects.items()}


@pytest.fixture
def data(store: vfs.FeatureStore) -> vfs.FeatureStore:
    store.warehouse().connection.raw_sql(
        "INSERT INTO weather VALUES ('JFK', '2020-01-01', 10, true)"
    )
    return store


def test_an_environment_is_applied_to_compared_and_promoted(
    data: vfs.FeatureStore, open_store: Callable[..., Any]
) -> None:
    data.apply([weather()])
    dev = open_store(environment="dev")
    with pytest.raises(vfs.NotFoundError, match="no environment 'dev'"):
        dev.state()
    assert dev.apply([COLD]).number == 2  # it begins where the default environment stands
    assert (value(data), value(dev)) == (10, 11)
    assert data.state().objects["feature_view", "weather"].version == 1
    assert "~ feature view weather (v1 -> v2) breaking" in str(data.diff("default", "dev"))
    assert "~ feature view weather (v2 -> v1) breaking" in str(data.diff("dev", "default"))
    with pytest.raises(vfs.NotFoundError, match="Did you mean 'dev'"):
        data.diff("default", "devv")
    assert data.promote("dev", "prod").number == 2
    prod = open_store(environment="prod")
    assert value(prod) == 11
    assert {item.name: item.revision for item in data.environments()} == {
        "default": 1, "dev": 2, "prod": 2,
    }  # fmt: skip
    assert not data.diff("dev", "prod")
    assert contents(data) == contents(data, revision=1)


def test_environments_part_and_meet_again(
    data: vfs.FeatureStore, open_store: Callable[..., Any]
) -> None:
    data.apply([vfs.FeatureService("delay", [weather()])])
    dev, prod = open_store(environment="dev"), open_store(environment="prod")
    assert prod.apply([AIRPORT]).number == 1  # nothing changes: it only points there
    assert dev.apply([COLD]).number == 2
    assert prod.apply([WARM]).number == 3  # a fix of production, from revision 1
    assert dev.apply([AIRPORT.model_copy(update={"description": "x"})]).number == 4
    assert [value(store) for store in (data, dev, prod)] == [10, 11, 12]
    versions = [s.state().objects["feature_view", "weather"].version for s in (data, dev, prod)]
    assert versions == [1, 2, 3]
    # The same meaning has the same version, wherever it is applied first.
    assert dev.apply([WARM]).number == 5
    assert dev.state().objects["feature_view", "weather"].version == 3
    assert dev.state().objects["feature_service", "delay"].version == 3
    assert not data.diff("prod", "dev")
    assert prod.promote("dev", "prod").number == 5
    assert contents(prod) == contents(dev)
    prod.apply([weather()])
    assert [value(store) for store in (data, dev, prod)] == [10, 12, 10]
    for revision, expected in enumerate([10, 11, 12, 11, 12, 10], start=1):
        with vfs.FeatureStore(
            data.config, connections={"default": data.warehouse().connection}, revision=revision
        ) as old:
            assert value(old) == expected


def test_promoting_refuses_what_breaks_services_unless_told(
    data: vfs.FeatureStore, open_store: Callable[..., Any]
) -> None:
    data.apply([vfs.FeatureService("delay", [weather()])])
    open_store(environment="dev").apply([COLD])
    with pytest.raises(vfs.BreakingChangeError, match="pinned by delay@1"):
        data.promote("dev", "default", allow_breaking=False)
    assert data.promote("dev", "default", dry_run=True).plan
    assert value(data) == 10
    data.promote("dev", "default")
    assert value(data) == 11


def test_rollback_is_a_new_revision_with_the_old_state(data: vfs.FeatureStore) -> None:
    planes = vfs.FeatureView(
        "planes",
        source=vfs.Source("planes", query="SELECT 'a' AS t, 1 AS n"),
        entities=[vfs.Entity("plane", {"t": "string"})],
        features=["n"],
    )
    data.apply([vfs.FeatureService("delay", [weather()])])
    data.apply([COLD, planes])
    before = contents(data)
    assert "~ feature view weather (v2 -> v1)" in str(data.rollback(1, dry_run=True).plan)
    assert data.rollback(1).number == 3
    assert contents(data) == contents(data, revision=1)
    assert value(data) == 10
    assert value(data, "weather@2:temp") == 11
    assert not data.rollback(1).plan
    assert data.rollback(2).number == 4
    assert contents(data) == before
    data.rollback(1)
    assert data.apply([COLD]).number == 6
    assert data.state().objects["feature_view", "weather"].version == 2
    with pytest.raises(vfs.RegistryError, match="no revision 9"):
        data.rollback(9)


def test_a_store_of_an_old_revision_changes_nothing(data: vfs.FeatureStore) -> None:
    data.apply([weather()])
    connections = {"default": data.warehouse().connection}
    with vfs.FeatureStore(data.config, connections=connections, revision=1) as old:
        for change in (lambda: old.apply([COLD]), lambda: old.rollback(1),
                       lambda: old.deprecate("weather@1", "x")):  # fmt: skip
            with pytest.raises(vfs.ConfigError, match="old revision"):
                change()


def test_history_says_who_when_what_and_from_where(
    data: vfs.FeatureStore, open_store: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(identity="ann").apply([weather()])
    monkeypatch.setenv("VIRTUALFS_IDENTITY", "ci")
    open_store(environment="dev", identity="ann").apply([COLD])
    open_store().rollback(1)
    open_store().promote("dev", "default")
    rows = data.history().to_list()
    assert [(row["number"], row["parent"], row["environment"], row["created_by"], row["action"])
            for row in rows] == [
        (2, 1, "dev", "ci", "apply"), (1, None, "default", "ann", "apply"),
    ]  # fmt: skip
    assert all(abs((datetime.now(UTC) - row["created_at"]).total_seconds()) < 60 for row in rows)
    assert rows[0]["environments"] == ["default", "dev"]
    text = str(data.history("weather"))
    assert "revision 2  [default, dev]" in text
    assert "~ feature view weather (v1 -> v2, breaking)" in text
    assert "~ temp int32 = temp + 1" in text
    moves = data.registry.environments()
    assert {item.name: (item.moved_by, item.reason) for item in moves} == {
        "default": ("ci", "promote dev"),
        "dev": ("ci", "apply: 0 to add, 1 to change, 0 to remove. 1 breaking."),
    }
    with pytest.raises(vfs.NotFoundError, match="Did you mean 'weather'"):
        data.history("wether")


def test_a_plan_is_for_the_environment_that_it_was_made_in(
    data: vfs.FeatureStore, open_store: Callable[..., Any]
) -> None:
    data.apply([weather()])
    dev = open_store(environment="dev")
    plan = dev.plan([COLD])
    with pytest.raises(vfs.PlanConflictError, match="for environment dev"):
        data.apply(plan)
    dev.apply([WARM])
    with pytest.raises(vfs.PlanConflictError, match="dev is at revision 2"):
        dev.apply(plan)


def test_applies_to_two_environments_at_once_both_win(
    data: vfs.FeatureStore, open_store: Callable[..., Any]
) -> None:
    data.apply([weather()])
    names = [f"e{number}" for number in range(4)]
    plans = {
        name: open_store(environment=name).plan([
            vfs.FeatureView(name, source=weather().source, entities=[AIRPORT], features=["temp"])
        ])
        for name in names
    }  # fmt: skip
    stores = {name: open_store(environment=name) for name in names}
    assert not at_once([partial(stores[name].apply, plans[name]) for name in names])
    assert sorted(item.revision for item in data.environments()) == [1, 2, 3, 4, 5]
    for name in names:
        assert open_store(environment=name).state().names("feature_view") == sorted(
            [name, "weather"]
        )


def test_a_version_means_one_thing_in_all_environments(
    data: vfs.FeatureStore, open_store: Callable[..., Any]
) -> None:
    data.apply([weather()])
    dev = open_store(environment="dev")
    here, there = data.plan([COLD]), dev.plan([WARM])
    dev.apply(there)
    with pytest.raises(vfs.PlanConflictError, match="given version 2 of weather to another"):
        data.apply(here)
    data.apply([COLD])
    assert (value(data), value(dev)) == (11, 12)
    assert value(data, "weather@2:temp") == value(dev, "weather@2:temp") == 12
    assert value(data, "weather@3:temp") == 11


def test_an_old_version_is_described_as_its_environment_does(
    data: vfs.FeatureStore, open_store: Callable[..., Any]
) -> None:
    data.apply([weather(description="here")])
    data.apply([COLD])
    data.promote("default", "dev")
    dev = open_store(environment="dev")
    dev.rollback(1)
    dev.apply([weather(description="there", deprecated="dev only")])
    versions = [
        store.registry.version("feature_view", "weather", 1).definition for store in (data, dev)
    ]
    assert [item["description"] for item in versions] == ["here", "there"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert value(data, "weather@1:temp") == 10


def test_an_environment_may_be_the_first_of_all(open_store: Callable[..., Any]) -> None:
    dev = open_store(environment="dev")
    assert dev.apply([weather()]).number == 1
    assert open_store().state().revision == 0
    assert open_store().apply([weather()]).number == 2
    assert open_store().state().objects["feature_view", "weather"].version == 1


def test_names_that_no_store_could_open_are_refused(store: vfs.FeatureStore) -> None:
    store.apply([weather()])
    for name in ("", "a b", "x\n", "é" * 101):
        with pytest.raises(vfs.ConfigError, match="cannot be an environment's name"):
            store.promote("default", name)
    for huge in (10**20, 2**31, -1):
        with pytest.raises(vfs.RegistryError, match="no revision"):
            store.rollback(huge)
        with pytest.raises(vfs.NotFoundError, match=r"no version|not a reference"):
            store.get_online_features([f"weather@{huge}:temp"], KEY)


def test_the_registry_is_never_updated_or_deleted_from(data: vfs.FeatureStore) -> None:
    """All but the ends of placements is only ever added to."""
    seen = []
    engine = data.registry.database.open()
    data.apply([weather()])
    sa.event.listen(
        engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2].split()[:2])
    )
    data.apply([COLD])
    data.rollback(1)
    data.promote("default", "prod")
    data.deprecate("weather@2", "x")
    changed = {tuple(words) for words in seen if words[0].upper() in ("UPDATE", "DELETE")}
    assert changed == {("UPDATE", "virtualfs_placements")}


_KILLED = """
import sys, virtualfs as vfs
from virtualfs.config import Config
config = Config(project=sys.argv[1], registry=sys.argv[2], folder=sys.argv[3],
                warehouses={"default": {"url": "duckdb://w.duckdb"}})
entity = vfs.Entity("e", {"k": "int64"})
with vfs.FeatureStore(config) as store:
    number = 1000 * store.state().revision
    while True:
        number += 1
        print(number, flush=True)
        store.apply([
            vfs.FeatureView(f"v{view}", source=vfs.Source("s", table="t", event_timestamp="ts"),
                            entities=[entity], features=[vfs.Feature("f", f"f + {number}")])
            for view in range(20)
        ])
"""


def test_a_registry_is_whole_whenever_an_apply_is_killed(
    registry: dict[str, str], tmp_path: Path
) -> None:
    import duckdb

    with duckdb.connect(str(tmp_path / "w.duckdb")) as made:
        made.execute("CREATE TABLE t (k BIGINT, ts TIMESTAMP, f INTEGER)")
    url = registry.get("registry", f"sqlite:///{tmp_path}/r.db")
    project = registry.get("project", "p")
    config = vfs.Config(project=project, registry=url, folder=tmp_path,
                        warehouses={"default": {"url": "duckdb://w.duckdb"}})  # fmt: skip
    draw = random.Random(7)
    last = 0
    for _round in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", _KILLED, project, url, str(tmp_path)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        for _ in range(2):
            process.stdout.readline()  # it has applied at least once
        time.sleep(draw.uniform(0, 0.4))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        with vfs.FeatureStore(config) as store:
            state = store.state()
            assert state.revision > last
            last = state.revision
            # One apply gives all views the same expression, and each its row in every table.
            told = {
                item.definition["features"][0]["expr"]
                for item in state.of_kind("feature_view").values()
            }
            assert len(told) == 1
            assert len(state.of_kind("feature_view")) == 20
            newest, records = store.registry.revisions()[0]
            assert newest.number == state.revision
            assert len([one for one in records if one.kind == "feature_view"]) == 20
            assert not store.registry.index.missing(state)
            assert store.apply([AIRPORT.model_copy(update={"description": str(last)})])
            last = store.state().revision
