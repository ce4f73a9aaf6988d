"""What a hunt for wrong answers in the registry found. None of these may be removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import virtualfs as vfs
from tests.registry.conftest import AIRPORT, at_once
from virtualfs import _
from virtualfs.registry.database import Database
from virtualfs.registry.indexing import Index
from virtualfs.registry.state import Write

KEY = [{"origin": "JFK"}]


def impacts(plan: vfs.Plan) -> dict[str, str]:
    return {change.name: change.impact for change in plan.changes if "view" in change.kind}


@pytest.fixture
def shop(make_store: Callable[..., Any], connection: Any) -> vfs.FeatureStore:
    connection.raw_sql(
        "CREATE TABLE weather AS SELECT 'JFK' AS origin, 'LAX' AS dest, TIMESTAMP '2020-01-01' AS "
        "seen, TIMESTAMP '2019-01-01' AS seen2, 1 AS temp, 2 AS hum, true AS wet"
    )
    store: vfs.FeatureStore = make_store()
    return store


def view(name: str, *features: Any, columns: Any = None, **fields: Any) -> vfs.FeatureView:
    source = vfs.Source(name, table="weather", event_timestamp="seen", columns=columns or {})
    return vfs.FeatureView(name, source=source, entities=[AIRPORT], features=features, **fields)


@pytest.mark.parametrize(
    "columns",
    [{"temp": "hum", "hum": "temp"}, {"dest": "origin", "origin": "x"},
     {"seen2": "seen", "seen": "s"}],
)  # fmt: skip
def test_columns_that_change_places_break(shop: Any, columns: dict[str, str]) -> None:
    shop.apply([vfs.FeatureService("m", [view("v", "temp")])])
    changed = view("v", "temp", columns=columns)
    assert impacts(shop.plan([changed])) == {"v": "breaking"}
    with pytest.raises(vfs.BreakingChangeError):
        shop.apply([changed], allow_breaking=False)


def test_an_input_that_is_another_view_breaks(shop: Any) -> None:
    views = [view("a", "temp"), view("b", vfs.Feature("temp", "hum * 100"))]

    def twice(*inputs: Any) -> Any:
        features = [vfs.Feature("x", _.temp * 2)]
        return vfs.OnDemandFeatureView("od", inputs=inputs, features=features)

    shop.apply([*views, vfs.FeatureService("m", [twice(views[0])])])
    assert impacts(shop.plan([twice(views[1])])) == {"od": "breaking"}


def test_inputs_that_swap_names_break(shop: Any) -> None:
    views = [view("a", "temp"), view("b", "temp")]

    def ratio(first: str, second: str) -> Any:
        inputs = [views[0].with_name(first), views[1].with_name(second)]
        features = [vfs.Feature("x", _.p__temp / _.q__temp)]
        return vfs.OnDemandFeatureView("od", inputs=inputs, features=features)

    shop.apply([ratio("p", "q")])
    assert impacts(shop.plan([ratio("q", "p")])) == {"od": "breaking"}


def test_an_output_that_gets_a_longer_name_breaks_its_service(shop: Any) -> None:
    shop.apply([vfs.FeatureService("m", [view("a", "temp"), view("b", "hum")])])
    plan = shop.plan([view("b", "hum", "temp")])
    assert {change.name: change.impact for change in plan.changes} == {
        "b": "compatible", "m": "breaking",
    }  # fmt: skip


def test_a_name_keeps_its_kind_of_view(shop: Any) -> None:
    shop.apply([vfs.FeatureService("m", [view("x", "hum")])], prune=True)
    base = view("base", "temp")
    other = vfs.OnDemandFeatureView("x", inputs=[base], features=[vfs.Feature("hum", _.temp)])
    with pytest.raises(vfs.DefinitionError, match=r"a feature view has the same name|choose anoth"):
        shop.apply([base, other])


def test_a_mark_may_get_another_message_and_be_taken_away(shop: Any) -> None:
    shop.apply([view("v", "temp")])
    shop.deprecate("v@1", "a")
    plan = shop.deprecate("v@1", "b").plan
    assert [change.impact for change in plan.changes] == ["metadata"]
    shop.promote("default", "dev")
    shop.deprecate("v@1", "c")
    assert "message: c" in str(shop.diff("dev", "default"))
    assert "breaking" not in str(shop.deprecate("v@1", "").plan)
    shop.rollback(2)


def test_a_removed_services_version_can_be_marked(shop: Any) -> None:
    shop.apply([vfs.FeatureService("m", [view("v", "temp")])])
    shop.registry.write([Write(("feature_service", "m"), None)], 1, "x", [], Index())
    shop.deprecate("m@1", "train again")
    with pytest.warns(vfs.FeatureDeprecationWarning, match="m@1"):
        shop.get_online_features("m@1", KEY)


def test_drift_that_changes_no_meaning_is_remembered(shop: Any) -> None:
    counted = view("v", vfs.Aggregate("hum", "count", "1d"))
    shop.apply([counted])
    shop.warehouse().connection.raw_sql("ALTER TABLE weather ALTER hum TYPE BIGINT")
    plan = shop.plan([counted])
    assert plan.drift
    assert impacts(plan) == {"v": "metadata"}
    assert "~ column hum of the source: int32 -> int64" in str(plan)
    shop.apply(plan)
    assert not shop.plan([counted]).drift
    assert not shop.check().drift
    assert shop.state().objects["feature_view", "v"].version == 1


def test_a_name_in_another_case_is_no_drift_where_case_is_folded(shop: Any) -> None:
    shop.apply([view("v", "temp")])
    shop.warehouse().connection.raw_sql("ALTER TABLE weather RENAME temp TO TEMP2")
    shop.warehouse().connection.raw_sql("ALTER TABLE weather RENAME TEMP2 TO TEMP")
    assert not shop.plan([view("v", "temp")]).drift


def test_a_condition_in_front_of_another_breaks_nothing(shop: Any) -> None:
    def sums(*conditions: str) -> vfs.FeatureView:
        return view("v", *(vfs.Aggregate("hum", "sum", "1d", where=c, name=f"n{len(c)}")
                           for c in conditions))  # fmt: skip

    shop.apply([sums("wet")])
    assert impacts(shop.plan([sums("NOT wet", "wet")])) == {"v": "compatible"}


def test_a_rollback_says_what_the_warehouse_no_longer_has(shop: Any) -> None:
    shop.apply([view("v", "temp")])
    shop.apply([view("v", "hum")])
    shop.warehouse().connection.raw_sql("ALTER TABLE weather DROP temp")
    assert "column temp (int32) is gone" in str(shop.rollback(1, dry_run=True).plan)


def test_lineage_looks_at_the_tables_as_they_are(shop: Any) -> None:
    def query(name: str, feature: str) -> vfs.FeatureView:
        source = vfs.Source(name, query="SELECT * FROM weather WHERE wet", event_timestamp="seen")
        return vfs.FeatureView(name, source=source, entities=[AIRPORT], features=[feature])

    shop.apply([query("a", "temp")])
    shop.warehouse().connection.raw_sql("ALTER TABLE weather ADD extra INTEGER")
    shop.apply([query("b", "extra")])
    assert "column weather.extra" in str(shop.lineage("b:extra"))


def test_a_renamed_column_in_another_case_is_found(shop: Any) -> None:
    shop.apply([view("v", vfs.Feature("x", "HUMID + 1"), columns={"hum": "humid"})])
    assert "v@1:x" in str(shop.lineage("weather.hum", "downstream"))


@pytest.mark.parametrize("asked", ["weather.temp", "main.weather.temp", "WEATHER.TEMP"])
def test_a_table_is_found_by_more_or_less_of_its_name(shop: Any, asked: str) -> None:
    whole = vfs.FeatureView(
        "w", source=vfs.Source("w", table="main.weather", event_timestamp="seen"),
        entities=[AIRPORT], features=["temp"],
    )  # fmt: skip
    shop.apply([view("v", "temp"), whole])
    text = str(shop.lineage(asked, "downstream"))
    assert "v@1:temp" in text
    assert "w@1:temp" in text


def test_a_service_and_a_view_of_one_name_are_told_apart(shop: Any) -> None:
    shop.apply([vfs.FeatureService("same", [view("same", "temp")])])
    assert "feature service same@1" in str(shop.lineage("weather.temp", "downstream"))
    assert "same@1:temp" in str(shop.lineage("same", "upstream"))
    with pytest.raises(vfs.NotFoundError, match="a view's and a service's"):
        shop.deprecate("same@1", "x")


def test_search_knows_tables_and_columns_of_queries_and_keys(shop: Any) -> None:
    source = vfs.Source(
        "q", query="SELECT origin, seen, hum AS gust FROM weather", event_timestamp="seen"
    )
    shop.apply([vfs.FeatureView("q", source=source, entities=[AIRPORT], features=["gust"])])
    assert "q" in [found.name for found in shop.search("hum")]
    assert "q:gust" in [found.name for found in shop.search("airport gust")]


def test_two_that_index_at_once_do_no_harm(shop: Any) -> None:
    shop.apply([view("v", "temp")])
    engine = shop.registry.database.open()
    with engine.begin() as connection:
        for table in ("edges", "documents"):
            connection.exec_driver_sql(f"DELETE FROM virtualfs_{table}")
    found: list[int] = []
    assert not at_once([lambda: found.append(len(shop.search("temp")))] * 3)
    assert len(found) == 3
    assert all(count > 0 for count in found)


def test_secrets_in_a_urls_settings_are_masked() -> None:
    database = Database("postgresql://u@h/db?password=s3cret&sslpassword=s3cret&sslmode=require")
    assert "s3cret" not in repr(database) + database.location
    assert "sslmode=require" in database.location


@pytest.mark.parametrize("version", ["9999", "base", "", "head", "-1"])
def test_only_a_known_older_form_can_be_gone_back_to(shop: Any, version: str) -> None:
    shop.apply([view("v", "temp")])
    with pytest.raises(vfs.RegistryError, match="cannot be taken back"):
        shop.registry.database.downgrade(version)
    assert shop.state().revision == 1


@pytest.mark.parametrize("expression", [_.temp.coalesce(0), (_.temp > 1).ifelse(1, 0)])
def test_every_on_demand_expression_can_be_exported(
    shop: Any, make_store: Callable[..., Any], tmp_path: Any, expression: Any
) -> None:
    feature = vfs.Feature("z", expression)
    shop.apply([vfs.OnDemandFeatureView("od", inputs=[view("v", "temp")], features=[feature])])
    (tmp_path / "f.yaml").write_text(shop.export())
    other = make_store(project="other", definitions=("f.yaml",))
    other.apply()
    assert (
        other.state().objects["on_demand_feature_view", "od"].resolved["features"]
        == (shop.state().objects["on_demand_feature_view", "od"].resolved["features"])
    )


def test_what_was_made_of_an_expression_cannot_be_edited_apart(
    shop: Any, make_store: Callable[..., Any], tmp_path: Any
) -> None:
    shop.apply([view("v", vfs.Feature("x", _.temp * 2))])
    text = shop.export()
    assert '"temp" * 2' in text
    (tmp_path / "f.yaml").write_text(text.replace('"temp" * 2', '"temp" * 1000'))
    with pytest.raises(vfs.DefinitionError, match="edited"):
        make_store(project="other", definitions=("f.yaml",)).plan()
