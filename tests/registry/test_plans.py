"""What a plan says of each change, and what apply refuses."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

import virtualfs as vfs
from tests.registry.conftest import AIRPORT, weather
from virtualfs import _

NOON = datetime(2020, 1, 2, 12, tzinfo=UTC)


def impacts(plan: vfs.Plan) -> dict[str, str]:
    return {f"{change.kind}:{change.name}": change.impact for change in plan.changes}


@pytest.mark.parametrize(
    ("changed", "impact", "line"),
    [
        (weather(description="of the hour"), "metadata", "description: none -> of the hour"),
        (weather(owner="ann"), "metadata", "owner: none -> ann"),
        (weather(tags={"team": "a"}), "metadata", "tags: none -> team a"),
        (weather(freshness="5m"), "metadata", "freshness: 1m -> 5m"),
        (weather(online=False), "metadata", "online: True -> False"),
        (weather(deprecated="gone soon"), "metadata", "deprecated: none -> gone soon"),
        (weather(vfs.Feature("temp", description="F")), "metadata", "temp description: none -> F"),
        (weather("temp", "wet"), "compatible", "+ wet boolean"),
        (weather("wet", "temp"), "compatible", "+ wet boolean"),
        (weather("wet"), "breaking", "- temp"),
        (weather(vfs.Feature("temp", dtype="float64")), "breaking", "~ temp float64"),
        (weather(vfs.Feature("temp", "temp * 2")), "breaking", "~ temp int32 = temp * 2"),
        (weather(vfs.Feature("temp", _.temp * 2)), "breaking", "~ temp int32 ="),
        (weather(ttl="1d"), "breaking", "ttl: none -> 1d"),
        (weather(boundary="exclusive"), "breaking", "boundary: none -> exclusive"),
    ],
)  # fmt: skip
def test_each_change_has_its_class(
    make_store: Callable[..., Any], connection: Any, changed: Any, impact: str, line: str
) -> None:
    connection.raw_sql(
        "CREATE TABLE weather (origin TEXT, seen TIMESTAMP, temp INTEGER, wet BOOLEAN)"
    )
    store = make_store()
    store.apply([weather()])
    plan = store.plan([changed])
    assert impacts(plan) == {"feature_view:weather": impact}
    assert line in str(plan)
    before, after = plan.changes[0].old_version, plan.changes[0].version
    assert (after == before) == (impact == "metadata")
    store.apply(plan)
    assert not store.plan([changed])


@pytest.mark.parametrize(
    ("source", "impact"),
    [
        ({"description": "hourly"}, None),
        ({"columns": {"wet": "rain"}}, "compatible"),
        ({"timezone": "America/New_York"}, "breaking"),
        ({"availability_delay": "1h"}, "breaking"),
        ({"table": None, "query": "SELECT * FROM weather WHERE temp > 0"}, "breaking"),
    ],
)
def test_a_source_breaks_its_views(
    make_store: Callable[..., Any], connection: Any, source: dict[str, Any], impact: str | None
) -> None:
    connection.raw_sql(
        "CREATE TABLE weather (origin TEXT, seen TIMESTAMP, temp INTEGER, wet BOOLEAN)"
    )
    store = make_store()
    store.apply([weather()])
    fields = {"table": "weather", "event_timestamp": "seen", **source}
    plan = store.plan([weather().model_copy(update={"source": vfs.Source("weather", **fields)})])
    assert impacts(plan).get("feature_view:weather") == impact
    assert impacts(plan)["source:weather"] == (impact or "metadata")


def test_a_changed_key_breaks(store: vfs.FeatureStore) -> None:
    store.apply([weather()])
    place = vfs.Entity("airport", {"origin": "string", "wet": "boolean"})
    plan = store.plan([weather().model_copy(update={"entities": (place,)})])
    assert impacts(plan) == {"entity:airport": "breaking", "feature_view:weather": "breaking"}


def test_what_stands_on_a_view_is_told_and_classed_with_it(store: vfs.FeatureStore) -> None:
    view = weather("temp", "wet")
    double = vfs.OnDemandFeatureView(
        "double", inputs=[view], features=[vfs.Feature("twice", _.temp * 2)]
    )
    store.apply([vfs.FeatureService("delay", [view[["temp"]], double])])
    plan = store.plan([weather("temp", "wet", vfs.Feature("cold", "temp < 0"))])
    assert set(impacts(plan).values()) == {"compatible"}
    plan = store.plan([weather("temp", "wet", ttl="1d")])
    assert impacts(plan) == {
        "feature_view:weather": "breaking",
        "on_demand_feature_view:double": "breaking",
        "feature_service:delay": "breaking",
    }
    (change,) = [change for change in plan.changes if change.name == "weather"]
    assert "on-demand feature view double (double@1 keeps weather@1)" in change.touches
    assert "feature service delay (delay@1 keeps weather@1)" in change.touches
    assert "2 breaking" not in str(plan)
    assert str(plan).endswith("0 to add, 3 to change, 0 to remove. 3 breaking.")


def test_a_service_that_changes_what_a_model_sees_breaks(store: vfs.FeatureStore) -> None:
    view = weather("temp", "wet")
    store.apply([vfs.FeatureService("delay", [view[["temp"]]])])
    for names, impact in ((["temp", "wet"], "compatible"), (["wet", "temp"], "breaking")):
        plan = store.plan([vfs.FeatureService("delay", [view[names]])])
        assert impacts(plan) == {"feature_service:delay": impact}
        assert "~ weather: temp -> " in str(plan)


def test_changed_computation_shows_its_sql(store: vfs.FeatureStore) -> None:
    store.apply([weather()])
    plan = store.plan([weather(vfs.Feature("temp", "temp * 100"))])
    lines = [line.strip() for line in plan.changes[0].sql.splitlines()]
    assert lines[:2] == ["--- weather@1", "+++ weather@2"]
    assert any(line.startswith("-") and '"temp" AS "temp"' in line for line in lines)
    assert any(line.startswith("+") and '(temp * 100) AS "temp"' in line for line in lines)
    assert plan.to_dict()["changes"][0]["sql"] == plan.changes[0].sql
    assert '(temp * 100) AS "temp"' in str(plan)


def test_views_that_services_pin_do_not_break_unless_told(store: vfs.FeatureStore) -> None:
    store.apply([vfs.FeatureService("delay", [weather()])])
    changed = weather(vfs.Feature("temp", "temp * 100"))
    with pytest.raises(vfs.BreakingChangeError, match=r"weather@1, pinned by delay@1"):
        store.apply([changed], allow_breaking=False)
    assert store.state().revision == 1
    store.apply([weather("temp", "wet")], allow_breaking=False)  # adds, and breaks nothing
    revision = store.apply([changed], allow_breaking=True)
    assert revision.number == 3
    assert store.state().objects["feature_service", "delay"].version == 3


def test_a_name_that_comes_back_in_the_same_line_gets_a_new_version(store: Any) -> None:
    store.apply([weather()])
    store.apply([weather("wet")])
    store.apply([weather()])
    assert store.state().objects["feature_view", "weather"].version == 3


# -- what the warehouse has meanwhile become


def test_a_retyped_column_is_drift_and_a_new_version(store: vfs.FeatureStore) -> None:
    store.apply([weather()])
    store.warehouse().connection.raw_sql("ALTER TABLE weather ALTER temp TYPE DOUBLE")
    plan = store.plan([weather()])
    assert "! drift: source weather of feature view weather: column temp was int32" in str(plan)
    assert impacts(plan) == {"feature_view:weather": "breaking"}
    assert "is now float64" in str(store.check())
    store.apply(plan)
    assert not store.plan([weather()]).drift
    assert not store.check().drift


def test_a_dropped_column_is_told_and_stops_an_apply(store: vfs.FeatureStore) -> None:
    other = vfs.FeatureView("other", source=weather().source, entities=[AIRPORT], features=["wet"])
    store.apply([weather(), other])
    store.warehouse().connection.raw_sql("ALTER TABLE weather DROP temp")
    plan = store.plan([weather(), other])
    assert not plan.changes
    assert "column temp (int32) is gone" in str(plan)
    assert "column temp (int32) is gone" in str(store.check())
    changed = vfs.FeatureView("other", source=weather().source, entities=[AIRPORT],
                              features=["wet"], ttl="1d")  # fmt: skip
    with pytest.raises(vfs.DefinitionError, match="no longer has what views need"):
        store.apply([weather(), changed])
    store.apply([changed])  # what does not need the column goes on
    store.apply([weather("wet")])  # and so does a definition that no longer asks for it
    assert not store.plan([weather("wet"), changed])


def test_a_dropped_table_is_drift_and_other_views_go_on(store: vfs.FeatureStore) -> None:
    store.apply([weather()])
    store.warehouse().connection.raw_sql("DROP TABLE weather")
    plan = store.plan([weather()])
    assert "cannot be read" in str(plan)
    assert "weather" in str(store.check())


def test_columns_that_come_in_addition_are_no_drift(store: vfs.FeatureStore) -> None:
    store.apply([weather()])
    store.warehouse().connection.raw_sql("ALTER TABLE weather ADD wind DOUBLE")
    store.warehouse().connection.raw_sql("ALTER TABLE weather ALTER wet TYPE INTEGER")
    plan = store.plan([weather()])
    assert not plan
    assert not plan.drift


def test_an_unchanged_view_is_not_rendered_again(
    store: vfs.FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that an upgrade of Ibis or sqlglot makes no new version."""
    from virtualfs.compiler import resolve

    view = weather(vfs.Feature("cold", _.temp < 0), vfs.Feature("hot", "temp > 100"))
    store.apply([view])

    def fails(*args: Any) -> Any:
        raise AssertionError("rendered again")

    monkeypatch.setattr(resolve, "_render_deferred", fails)
    monkeypatch.setattr(resolve, "_select", fails)
    assert not store.plan([view])


# -- deprecation


def test_what_is_deprecated_warns_who_asks(store: vfs.FeatureStore) -> None:
    view = weather("temp", vfs.Feature("wet", deprecated="use rain"))
    store.apply([vfs.FeatureService("delay", [view[["temp"]]], deprecated="use delays2"), view])
    key = [{"origin": "JFK"}]
    with pytest.warns(vfs.FeatureDeprecationWarning, match="weather:wet is deprecated: use rain"):
        store.get_online_features(["weather:wet"], key)
    with pytest.warns(vfs.FeatureDeprecationWarning, match="delay@1 is deprecated: use delays2"):
        store.get_features("delay", key, as_of=NOON)
    with pytest.warns(vfs.FeatureDeprecationWarning, match="use rain"):
        store.get_historical_features(
            "SELECT 'JFK' AS origin, TIMESTAMP '2020-01-01' AS event_timestamp", ["weather:wet"]
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.get_online_features(["weather:temp"], key)


def test_an_old_version_can_be_deprecated(store: vfs.FeatureStore) -> None:
    store.apply([vfs.FeatureService("delay", [weather()])])
    store.apply([weather("temp", "wet")])
    key = [{"origin": "JFK"}]
    store.deprecate("weather@1", "use version 2")
    store.deprecate("delay@1", "train again")
    view = "feature view weather@1 is deprecated: use version 2"
    service = "feature service delay@1 is deprecated: train again"
    for asked, said in (("weather@1:temp", [view]), ("delay@1", [service, view])):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            store.get_online_features(asked if ":" not in asked else [asked], key)
        assert [str(item.message) for item in caught] == said
        assert {item.filename for item in caught} == {__file__}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.get_online_features(["weather:temp"], key)
        store.get_online_features("delay", key)
    assert not store.plan([weather("temp", "wet")])  # marks are no definitions
    store.deprecate("weather@1", "")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.get_online_features(["weather@1:temp"], key)
    with pytest.raises(vfs.NotFoundError, match="no version 9"):
        store.deprecate("weather@9", "x")
    with pytest.raises(vfs.NotFoundError, match="names no version"):
        store.deprecate("weather", "x")


# -- policy


def test_a_policy_refuses_all_findings_at_once(open_store: Callable[..., Any]) -> None:
    policy = {
        "require": ["description", "tags.team"],
        "require_features": ["description"],
        "names": {"feature": "[a-z]{5,}", "feature_view": ".*_view"},
    }
    store = open_store(policy=policy)
    with pytest.raises(vfs.DefinitionError) as error:
        store.plan([weather()])
    for words in (
        "entity 'airport' needs description=",
        "feature view 'weather' needs the tag 'team'",
        "feature 'weather:temp' needs description=",
        "feature 'weather:temp' has a name that does not match [a-z]{5,}",
        "feature view 'weather' has a name that does not match .*_view",
    ):
        assert words in str(error.value)
    assert store.state().revision == 0
    told = {"description": "x", "tags": {"team": "a"}}
    view = vfs.FeatureView(
        "weather_view", source=vfs.Source("weather", table="weather", event_timestamp="seen"),
        entities=[vfs.Entity("airport", {"origin": "string"}, **told)],
        features=[vfs.Feature("warmth", "temp", description="of air")], **told,
    )  # fmt: skip
    assert store.apply([view]).number == 1


@pytest.mark.parametrize(
    "policy",
    [{"require": ["colour"]}, {"require_features": ["owner"]}, {"names": {"feature": "["}},
     {"names": {"views": "x"}}],
)  # fmt: skip
def test_a_policy_that_cannot_be_is_refused(policy: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="policy"):
        vfs.Config(project="p", policy=policy)
