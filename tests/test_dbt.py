"""A real manifest of dbt, imported: what is registered is what its authors said."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner

import virtualfs as vfs
from virtualfs.cli import cli

SHOP = Path(__file__).parent / "data" / "dbt_shop"
MANIFEST = SHOP / "manifest.json"


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """Return a warehouse with the models as dbt would have built them."""
    nodes = json.loads(MANIFEST.read_text())["nodes"]
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as connection:
        connection.execute("CREATE SCHEMA analytics; CREATE SCHEMA snapshots")
        for seed in ("raw_customers", "raw_orders"):
            path = SHOP / "seeds" / f"{seed}.csv"
            connection.execute(f"CREATE TABLE analytics.{seed} AS FROM read_csv('{path}')")
        for model in ("customers", "orders"):
            code = nodes[f"model.shop.{model}"]["compiled_code"]
            connection.execute(f"CREATE TABLE analytics.{model} AS {code}")
        connection.execute(
            "CREATE TABLE snapshots.customers_snapshot AS SELECT *, md5(customer_id::text) AS "
            "dbt_scd_id, updated_at AS dbt_updated_at, updated_at AS dbt_valid_from, "
            "NULL::TIMESTAMP AS dbt_valid_to FROM analytics.customers"
        )
    (tmp_path / "virtualfs.toml").write_text(
        'project = "p"\n[warehouses.default]\nurl = "duckdb://shop.duckdb"\n'
    )
    return tmp_path


def test_models_become_views_with_what_dbt_says_of_them(built):
    with vfs.FeatureStore(built) as store:
        found = store.scan_dbt(MANIFEST)
        kinds = {finding.name: finding.kind for finding in found.findings}
        assert kinds == {
            "customers": "current state",
            "orders": "event log",
            "customers_snapshot": "SCD2",
            "raw_customers": "current state",
            "raw_orders": "event log",
        }
        views = {view.name: view for view in found.definitions}
        orders = views["orders"]
        assert orders.description == "Every order, as it was placed."
        assert orders.owner == "sales@example.com"
        assert orders.tags == {"dbt": "model.shop.orders"}
        assert [entity.name for entity in orders.entities] == ["customer"]
        assert orders.source.table == "analytics.orders"
        assert orders.source.event_timestamp == "ordered_at"
        assert orders.source.created_timestamp == "loaded_at"
        amount = next(feature for feature in orders.features if feature.name == "amount")
        assert amount.description == "Amount paid, in euros."
        assert amount.tags == {"dbt_tests": "not_null"}
        assert views["customers"].owner == "crm-team"
        assert views["customers"].tags == {"dbt": "model.shop.customers", "core": ""}
        assert "email" not in [feature.name for feature in views["customers"].features]
        history = views["customers_snapshot"]
        assert (history.source.valid_from, history.source.valid_to) == (
            "dbt_valid_from", "dbt_valid_to",
        )  # fmt: skip
        assert [entity.name for entity in history.entities] == ["customer"]


def test_import_registers_and_an_apply_of_files_leaves_it(built):
    def run(*words: str) -> str:
        result = CliRunner().invoke(cli, ["-c", str(built), *words], obj={})
        assert result.exit_code == 0, result.output + str(result.exception)
        return result.output

    words = ["import", "dbt", str(MANIFEST), "--include", "orders", "--include", "customers*"]
    assert "feature view orders" in run(*words, "--dry-run")
    with vfs.FeatureStore(built) as store:
        assert store.state().revision == 0
    assert "Applied as revision 1" in run(*words)
    assert "Nothing to change." in run(*words)
    assert "Nothing to change." in run("apply", "--yes")
    online = json.loads(run("online", "orders", "customer_id=1", "--json"))
    assert "10.0" in json.dumps(online)


def test_what_cannot_be_imported_says_why(built, tmp_path):
    with vfs.FeatureStore(built) as store:
        with pytest.raises(vfs.ConfigError, match="dbt writes it as"):
            store.scan_dbt(tmp_path / "none.json")
        (tmp_path / "other.json").write_text("{}")
        with pytest.raises(vfs.ConfigError, match="not a manifest of dbt"):
            store.scan_dbt(tmp_path / "other.json")
        with pytest.raises(vfs.NotFoundError, match="no model to import"):
            store.scan_dbt(MANIFEST, include=["mart_*"])
    empty = vfs.Config(project="p", folder=tmp_path, warehouses={"default": {"url": "duckdb://"}})
    with vfs.FeatureStore(empty) as store, pytest.raises(vfs.NotFoundError, match="run `dbt"):
        store.scan_dbt(MANIFEST)
