"""Scanning warehouses that nobody prepared: what is found, what is written, what is doubted."""

from __future__ import annotations

import json
import os
import pty
import random
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import ibis
import psycopg
import pytest
from click.testing import CliRunner

import virtualfs as vfs
from virtualfs.cli import cli
from virtualfs.definitions.project import collect, load_definitions
from virtualfs.discovery.findings import Scan

SHOP = """
CREATE TABLE countries (code text PRIMARY KEY, name text NOT NULL);
CREATE TABLE customers (
    id bigint PRIMARY KEY, email text, country text REFERENCES countries (code),
    segment text, created_at timestamptz, updated_at timestamptz);
CREATE TABLE products (id int PRIMARY KEY, title text, price numeric(10, 2));
CREATE TABLE orders (
    id bigint PRIMARY KEY, customer_id bigint NOT NULL REFERENCES customers (id),
    ordered_at timestamp NOT NULL, created_at timestamp NOT NULL, shipped_at timestamp,
    total numeric(12, 2), status text);
CREATE TABLE order_items (
    order_id bigint REFERENCES orders (id), line int, product_id int REFERENCES products (id),
    quantity int, PRIMARY KEY (order_id, line));
CREATE TABLE customer_history (
    customer_id bigint REFERENCES customers (id), valid_from timestamptz, valid_to timestamptz,
    segment text, PRIMARY KEY (customer_id, valid_from));
CREATE TABLE product_views (
    product_id int REFERENCES products (id), viewed_at timestamptz, session uuid, seconds real);
CREATE TABLE sensor_readings (
    station text, sensor int, measured_at timestamptz, value double precision,
    PRIMARY KEY (station, sensor, measured_at));
COMMENT ON TABLE orders IS 'Every order, as it was placed.';
COMMENT ON COLUMN orders.total IS 'Sum in euros, with tax.';
CREATE VIEW recent_orders AS SELECT * FROM orders WHERE ordered_at > '2024-01-01';
INSERT INTO countries SELECT 'C' || i, 'Country ' || i FROM generate_series(1, 20) i;
INSERT INTO customers SELECT i, i || '@example.com', 'C' || (i % 20 + 1), 's' || i % 3,
    '2024-01-01', '2024-02-01' FROM generate_series(1, 300) i;
INSERT INTO products SELECT i, 'Product ' || i, i FROM generate_series(1, 50) i;
INSERT INTO orders SELECT i, i % 300 + 1, timestamp '2024-01-01' + i * interval '1 hour',
    timestamp '2024-01-01' + i * interval '61 minutes', NULL, i, 'paid'
    FROM generate_series(1, 2000) i;
INSERT INTO order_items SELECT i, 1, i % 50 + 1, 2 FROM generate_series(1, 2000) i;
INSERT INTO customer_history SELECT i, '2024-01-01', NULL, 'a' FROM generate_series(1, 300) i;
INSERT INTO product_views SELECT i % 50 + 1, timestamptz '2024-01-01' + i * interval '1 minute',
    gen_random_uuid(), 1.5 FROM generate_series(1, 1000) i;
INSERT INTO sensor_readings SELECT 's' || i % 5, i % 3, timestamptz '2024-01-01'
    + i * interval '1 s', i FROM generate_series(1, 1000) i;
ANALYZE;
"""


def project(tmp_path: Path, url: str) -> vfs.FeatureStore:
    warehouses = {"default": {"url": url}}
    return vfs.FeatureStore(vfs.Config(project="p", folder=tmp_path, warehouses=warehouses))


def written(store: vfs.FeatureStore, found: Scan, tmp_path: Path) -> None:
    """Check that both files say what the definitions are, and that the warehouse takes them."""
    for name, text in (("f.py", found.to_python()), ("f.yaml", found.to_yaml())):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        assert collect(load_definitions(path)) == collect(found.definitions), name
        assert all(len(line) <= 100 for line in text.splitlines() if line.startswith("#"))
    plan = store.plan(found.definitions)
    views = [write for write in plan.writes if write.key[0] == "feature_view"]
    assert len(views) == len(found.proposed)
    for write in views:  # types are those of the columns, so nothing is cast
        assert "CAST(" not in write.item.resolved["rows_sql"].upper()


@pytest.fixture
def database(postgres: str) -> str:
    """Return the URL of a database of its own, with the shop in it."""
    name = f"scan_{random.randrange(10**9)}"
    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    url = postgres.replace("/postgres?", f"/{name}?")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(SHOP)
    return url


def test_a_shop_becomes_what_a_person_would_have_written(database, tmp_path):
    with project(tmp_path, database) as store:
        found = store.scan()
        by_name = {finding.name: finding for finding in found.findings}
        assert {name: finding.kind for name, finding in by_name.items()} == {
            "countries": "dimension",
            "customers": "current state",
            "products": "dimension",
            "orders": "event log",
            "order_items": "dimension",
            "customer_history": "SCD2",
            "product_views": "event log",
            "sensor_readings": "event log",
            "recent_orders": "event log",
        }
        assert {name: dict(entity.join_keys) for name, entity in found.entities.items()} == {
            "country": {"country": "string"},
            "customer": {"customer_id": "int64"},
            "product": {"product_id": "int64"},
            "order_item": {"order_id": "int64", "line": "int64"},
            "sensor_reading": {"station": "string", "sensor": "int64"},
        }
        orders = by_name["orders"]
        assert orders.entities == ("customer",)
        assert (orders.event_timestamp, orders.created_timestamp) == ("ordered_at", "created_at")
        assert dict(orders.features) == {"total": "total", "status": "status"}
        assert set(orders.left_out) == {"id", "shipped_at"}
        assert orders.naive_times == ["ordered_at", "created_at"]
        assert orders.table.rows == 2000
        assert str(orders.span[0])[:10] == "2024-01-01"
        assert by_name["customers"].renamed == {"id": "customer_id"}
        assert "email" in by_name["customers"].left_out
        assert by_name["customer_history"].entities == ("customer",)
        assert (by_name["customer_history"].valid_from, by_name["customer_history"].valid_to) == (
            "valid_from",
            "valid_to",
        )
        view = found.view_of(orders)
        assert view.description == "Every order, as it was placed."
        assert view.features[0].description == "Sum in euros, with tax."
        assert "no history to train on" in str(found)
        text = found.to_python()
        assert "no zone is said; read as UTC" in text
        assert 'timezone="Europe/Berlin"' in found.in_zone("Europe/Berlin").to_python()
        written(store, found, tmp_path)
        written(store, found.in_zone("Europe/Berlin"), tmp_path)
        store.apply(found.definitions)
        answer = store.get_online_features(["orders:total", "customer_history:segment"],
                                           [{"customer_id": 7}]).to_list()  # fmt: skip
        assert str(answer[0]["total"]) == "1806.00"


def test_a_hundred_and_more_tables_with_odd_names(postgres, tmp_path):
    name = f"odd_{random.randrange(10**9)}"
    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    url = postgres.replace("/postgres?", f"/{name}?")
    odd = ["Order Items", 'he said "so"', "select", "größe", "MixedCase", "2024", "a.b", "x;--",
           "user", "tab\tname", "naïve café", "日本", "class", "very_" + "long_" * 11]  # fmt: skip
    with psycopg.connect(url, autocommit=True) as connection:
        for schema in ("public", "Sales Data", "ops"):
            quoted = '"' + schema.replace('"', '""') + '"'
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted}")
            for number in range(56):
                connection.execute(
                    f"CREATE TABLE {quoted}.t_{number} (id int PRIMARY KEY, x float8, "
                    "occurred_at timestamptz)"
                )
            for table in odd:
                place = f'{quoted}."' + table.replace('"', '""') + '"'
                connection.execute(
                    f'CREATE TABLE {place} ("Key Col" int, "when" timestamptz, "a:b" text, '
                    '"__x" int, "from" bit(3), "Value" float8, "value" float8, '
                    'PRIMARY KEY ("Key Col", "when"))'
                )
                connection.execute(
                    f"INSERT INTO {place} VALUES (1, '2024-01-01', 'x', 1, B'101', 1.5, 2.5)"
                )
    with project(tmp_path, url) as store:
        found = store.scan()
        assert len(found.findings) == 3 * (56 + len(odd))
        left = {finding.table.name for finding in found.findings if finding.kind == "left out"}
        assert left == {"a.b"}  # what looks like a schema and a table
        written(store, found, tmp_path)
        assert len({finding.name for finding in found.findings}) == len(found.findings)
        store.apply(found.definitions)
        view = next(f for f in found.findings if f.table.name == 'he said "so"').name
        answer = store.get_online_features([f"{view}:a_b"], [{"Key Col": 1}]).to_list()
        assert answer[0]["a_b"] == "x"
        few = store.scan(schemas=["ops"], include=["t_*"], exclude=["t_1*"])
        assert {finding.table.schema for finding in few.findings} == {"ops"}
        assert len(few.findings) == 56 - 11
        with pytest.raises(vfs.NotFoundError, match="Did you mean 'ops'"):
            store.scan(schemas=["opps"])


def test_flights_without_a_single_key(flights_database, tmp_path):
    with project(tmp_path, f"duckdb://{flights_database}") as store:
        found = store.scan()
        by_name = {finding.name: finding for finding in found.findings}
        assert {name: finding.kind for name, finding in by_name.items()} == {
            "flights": "event log", "planes": "dimension", "weather": "event log",
        }  # fmt: skip
        assert by_name["flights"].entities == ("plane",)
        assert by_name["planes"].keys == {"tailnum": "tailnum"}
        assert by_name["weather"].keys == {"origin": "origin"}
        assert by_name["weather"].event_timestamp == "time_hour"
        notes = " ".join(by_name["weather"].notes)
        assert "no key is declared" in notes
        assert "year" in by_name["weather"].left_out
        written(store, found, tmp_path)


def test_duckdb_keys_comments_and_types(tmp_path):
    path = tmp_path / "shop.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "CREATE TABLE people (id INTEGER PRIMARY KEY, born DATE, kind ENUM ('a', 'b'));"
            "CREATE SCHEMA s;"
            "CREATE TABLE s.visits (person_id INTEGER, visited_at TIMESTAMP_NS, pages UTINYINT,"
            "  raw BLOB, tags VARCHAR[], place STRUCT(x DOUBLE, y DOUBLE), bits BIT);"
            "INSERT INTO people SELECT i, '2000-01-01', 'a' FROM range(100) t(i);"
            "INSERT INTO s.visits SELECT i % 100, TIMESTAMP '2024-01-01' + to_minutes(i), 1, NULL,"
            "  ['x'], {x: 1, y: 2}, NULL FROM range(1000) t(i);"
            "COMMENT ON TABLE people IS 'People';"
        )
    with project(tmp_path, f"duckdb://{path}") as store:
        found = store.scan()
        people, visits = found.findings
        assert (people.kind, people.table.comment) == ("dimension", "People")
        assert visits.entities == ("person",) or visits.entities == ("people",)
        assert set(visits.left_out) == {"raw", "bits"}
        written(store, found, tmp_path)


def test_registering_one_table_finds_its_keys_and_times(database, tmp_path):
    with project(tmp_path, database) as store:
        planned = store.register_table("orders", dry_run=True)
        assert "event_timestamp: ordered_at" in str(planned.plan)
        assert planned.number == 0
        assert store.register_table("orders").number == 1
        assert store.register_table("orders").number == 1
        history = store.register_table("customer_history", ttl=None)
        assert history.number == 2
        assert "valid_from: valid_from" in str(history.plan)
        views = store.state().of_kind("feature_view")
        assert views["customer_history"].view().join_keys == {"customer_id": "int64"}
        assert store.register_table("customers", entity="customer_row", join_keys=["id"])
        with pytest.raises(vfs.NotFoundError, match="Did you mean 'orders'"):
            store.register_table("order")
        with pytest.raises(vfs.DefinitionError, match="there is no entity 'nobody' yet"):
            store.register_table("orders", entity="nobody")
        with pytest.raises(vfs.DefinitionError, match="say by entity="):
            store.register_table("orders", join_keys=["customer_id"])
        with psycopg.connect(database, autocommit=True) as admin:
            admin.execute("CREATE TABLE blob (x float8)")
        with pytest.raises(vfs.DefinitionError, match="or name its entity= and join_keys="):
            store.register_table("blob")


def test_a_versioned_table_is_registered_by_its_ends(database, tmp_path):
    with project(tmp_path, database) as store:
        store.register_table(
            "customer_history", entity="customer", join_keys=["customer_id"],
            valid_from="valid_from", valid_to="valid_to",
        )  # fmt: skip
        view = store.state().of_kind("feature_view")["customer_history"].view()
        assert view.feature_names == ("segment",)
        assert view.valid_to == "valid_to"


def test_a_role_that_may_not_read_is_told_what_to_ask_for(database, tmp_path):
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS scan_reader; CREATE ROLE scan_reader LOGIN")
        admin.execute("GRANT SELECT ON countries TO scan_reader")
    url = database.replace("postgres:@", "scan_reader:@")
    (tmp_path / "features.py").write_text(
        "import virtualfs as vfs\n"
        'country = vfs.Entity("country", {"code": "string"})\n'
        'countries = vfs.FeatureView("countries", source=vfs.Source("c", table="countries"), '
        'entities=[country], features=["name"])\n'
        'orders = vfs.FeatureView("orders", source=vfs.Source("o", table="orders"), '
        'entities=[vfs.Entity("order", {"id": "int64"})], features=["total"])\n'
    )
    (tmp_path / "virtualfs.toml").write_text(
        f'project = "p"\ndefinitions = ["features.py"]\n[warehouses.default]\nurl = "{url}"\n'
    )
    with vfs.FeatureStore(tmp_path) as store:
        found = {finding.name: finding for finding in store.scan().findings}
        assert found["countries"].kind == "dimension"
        assert found["orders"].kind == "left out"
        assert "may not read it" in found["orders"].notes[0]
    result = CliRunner().invoke(
        cli, ["-c", str(tmp_path), "doctor", "--json"], standalone_mode=False
    )
    assert result.return_value == 1
    checks = {row["check"]: row for row in json.loads(result.output)}
    assert checks["warehouse default"]["state"] == "ok"
    assert (
        'GRANT SELECT ON "public"."orders" TO "scan_reader";'
        in (checks["grants in default"]["detail"])
    )
    assert "countries" not in checks["grants in default"]["detail"]


def test_schemas_as_they_are_met(database, tmp_path):
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("""
            CREATE DOMAIN address AS text;
            CREATE TYPE mood AS ENUM ('good', 'bad');
            CREATE TABLE sku (id int PRIMARY KEY, code text UNIQUE NOT NULL, site address, m mood,
                              twice int GENERATED ALWAYS AS (id * 2) STORED);
            INSERT INTO sku (id, code) SELECT i, 'c' || i FROM generate_series(1, 60) i;
            CREATE TABLE sales (id bigserial PRIMARY KEY, sku_code text REFERENCES sku (code),
                                sold_at timestamptz, pieces int);
            CREATE TABLE parts (k int, at timestamptz, x int, PRIMARY KEY (k, at))
                PARTITION BY RANGE (at);
            CREATE TABLE parts_2024 PARTITION OF parts
                FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
            INSERT INTO parts VALUES (1, '2024-05-01', 1);
            CREATE TABLE staff (id int PRIMARY KEY, boss int REFERENCES staff (id), title text);
            CREATE TABLE offers (id int PRIMARY KEY, valid_from timestamptz, valid_to timestamptz,
                                 x int);
            INSERT INTO offers VALUES
                (1, '-infinity', 'infinity', 1), (2, '4713-01-01 BC', NULL, 2);
            CREATE MATERIALIZED VIEW totals AS SELECT sku_code, count(*) AS n FROM sales GROUP BY 1;
        """)
    with project(tmp_path, database) as store:
        found = store.scan(exclude=["c*", "o*s", "p*cts", "p*views", "recent*", "sensor*"])
        by_name = {finding.name: finding for finding in found.findings}
        # What others call its rows by names them here too; a domain is what it is made of.
        assert by_name["sku"].keys == {"code": "sku_code"}
        assert by_name["sku"].features == {"id": "id", "site": "site", "twice": "twice"}
        assert by_name["sales"].entities == by_name["sku"].entities == ("sku",)
        assert by_name["parts"].kind == "event log"
        assert "parts_2024" not in by_name
        assert by_name["staff"].kind == "dimension"
        assert by_name["totals"].table.is_view
        written(store, found, tmp_path)
        offers = store.scan(include=["offers"])
        assert offers.findings[0].kind == "SCD2"
        store.apply(offers.definitions)
        now = store.get_features(
            "offers", [{"offer_id": 1}, {"offer_id": 2}], as_of=datetime(2024, 5, 1)
        )
        assert [row["x"] for row in now.to_list()] == [1, 2]


def test_a_slow_view_is_left_unsampled(database, tmp_path, monkeypatch):
    monkeypatch.setattr("virtualfs_providers.postgres._MOMENT", "200ms")
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("CREATE VIEW slow AS SELECT 1 AS id, pg_sleep(30)::text AS x")
    with project(tmp_path, database) as store:
        (slow,) = store.scan(include=["slow"]).findings
        assert slow.kind == "left out"
        assert store.scan(include=["countries"]).findings[0].kind == "dimension"


def test_rows_that_are_written_over_after_their_event_are_doubted(tmp_path):
    path = tmp_path / "shop.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "CREATE TABLE customers (id INT PRIMARY KEY, name VARCHAR);"
            "CREATE TABLE orders (id INT PRIMARY KEY, customer_id INT REFERENCES customers (id), "
            "  ordered_at TIMESTAMPTZ, updated_at TIMESTAMPTZ, status VARCHAR);"
            "CREATE TABLE campaigns (id INT PRIMARY KEY, start_date DATE, end_date DATE, x INT);"
        )
    with project(tmp_path, f"duckdb://{path}") as store:
        by_name = {finding.name: finding for finding in store.scan().findings}
        assert by_name["orders"].kind == "event log"
        assert "updated_at" in by_name["orders"].left_out
        assert any("seen too early" in note for note in by_name["orders"].notes)
        assert by_name["campaigns"].kind == "event log"
        # The ids of two tables are not one thing.
        assert len({finding.entities for finding in by_name.values()}) == 2
        assert by_name["campaigns"].event_timestamp == "end_date"


def test_versions_are_keyed_by_what_they_are_versions_of(tmp_path):
    path = tmp_path / "versions.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "CREATE TABLE tenants (id INT PRIMARY KEY, name VARCHAR);"
            "CREATE TABLE staff (id INT PRIMARY KEY, title VARCHAR);"
            "INSERT INTO tenants SELECT i, 't' FROM range(1, 51) t(i);"
            "INSERT INTO staff SELECT i, 's' FROM range(1, 50) t(i);"
            "CREATE TABLE roles (tenant_id INT REFERENCES tenants (id), "
            "  staff_id INT REFERENCES staff (id), valid_from TIMESTAMP, valid_to TIMESTAMP, "
            "  role VARCHAR);"
            "INSERT INTO roles SELECT i % 50 + 1, i % 49 + 1, TIMESTAMP '2024-01-01', NULL, "
            "  'r' || i FROM range(500) t(i);"
            "CREATE TABLE prices (id INT PRIMARY KEY, sku VARCHAR, currency VARCHAR, "
            "  valid_from TIMESTAMP, valid_to TIMESTAMP, price DECIMAL(9, 2));"
            "INSERT INTO prices SELECT i, 'k' || i % 20, 'c' || i % 3, "
            "  TIMESTAMP '2024-01-01' + to_days(i // 60), NULL, i FROM range(600) t(i);"
            "CREATE TABLE lone (id INT PRIMARY KEY, valid_from TIMESTAMP, "
            "  valid_to TIMESTAMP, x INT);"
            "INSERT INTO lone SELECT i, TIMESTAMP '2024-01-01', NULL, i FROM range(9) t(i);"
            "CREATE TABLE amounts (total DECIMAL(9, 2) PRIMARY KEY, x INT);"
            "INSERT INTO amounts VALUES (1, 2);"
        )
    with project(tmp_path, f"duckdb://{path}") as store:
        found = store.scan()
        by_name = {finding.name: finding for finding in found.findings}
        assert list(by_name["roles"].keys) == ["tenant_id", "staff_id"]
        assert by_name["roles"].features == {"role": "role"}
        assert set(by_name["prices"].keys) == {"sku", "currency"}
        assert any("names each row" in note for note in by_name["lone"].notes)
        assert list(by_name["amounts"].keys) == ["total"]
        written(store, found, tmp_path)


def test_engines_without_a_catalog_say_so(tmp_path):
    (tmp_path / "x.db").touch()
    refused = pytest.raises(vfs.UnsupportedByWarehouseError, match="not of SQLite")
    with project(tmp_path, "sqlite://x.db") as store, refused:
        store.scan()


def run(folder: Path, *words: str, **more: object):
    return CliRunner().invoke(cli, ["scan", *words], obj={}, catch_exceptions=False, **more)


def test_from_an_unseen_database_to_an_answer_in_four_commands(
    flights_database, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    done = run(tmp_path, f"duckdb://{flights_database}", "--yes")
    assert done.exit_code == 0, done.output
    assert "event log" in done.output
    (hint,) = [line.strip() for line in done.output.splitlines() if "virtualfs online" in line]
    applied = CliRunner().invoke(cli, ["apply", "--yes"], obj={})
    assert "Applied as revision 1" in applied.output
    asked = CliRunner().invoke(cli, [*hint.split()[1:], "--json"], obj={})
    assert asked.exit_code == 0, asked.output
    assert "PRESENT" in asked.output


def test_nothing_is_written_without_a_yes_and_nothing_over_what_stands(
    flights_database, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    url = f"duckdb://{flights_database}"
    assert "Nothing was written" in run(tmp_path, url).output
    assert not list(tmp_path.iterdir()) or [p.name for p in tmp_path.iterdir()] == [".virtualfs"]
    found = json.loads(run(tmp_path, url, "--json").output)
    assert found["written"] is None
    assert {table["kind"] for table in found["tables"]} == {"event log", "dimension"}
    (tmp_path / "features.py").write_text("mine = 1\n")
    with pytest.raises(vfs.ConfigError, match="exists; scan into another file"):
        run(tmp_path, url, "--yes")
    assert (tmp_path / "features.py").read_text() == "mine = 1\n"
    assert run(tmp_path, url, "--yes", "-o", "all.yaml", "--timezone", "UTC").exit_code == 0
    assert collect(load_definitions(tmp_path / "all.yaml"))["feature_view"]


def test_a_password_is_not_written(database, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = database.replace("postgres:@", "postgres:secret@")
    assert run(tmp_path, url, "--yes").exit_code == 0
    text = (tmp_path / "virtualfs.toml").read_text()
    assert "secret" not in text
    assert "postgres:${WAREHOUSE_PASSWORD}@" in text


def test_on_a_terminal_it_shows_asks_and_takes_no_for_an_answer(database, tmp_path):
    def talk(*answers: str) -> tuple[int, str]:
        """Run scan on a terminal of its own, answering each question as it comes."""
        master, slave = pty.openpty()
        command = [sys.executable, "-c", "from virtualfs.cli import main; main()", "scan", database]
        with subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, cwd=tmp_path,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        ) as child:  # fmt: skip
            os.close(slave)
            seen, left = "", list(answers)
            while True:
                try:
                    piece = os.read(master, 4096).decode(errors="replace")
                except OSError:  # what Linux says when the other end is closed
                    break
                if not piece:
                    break
                seen += piece
                if left and seen.rstrip().endswith(left[0].partition("|")[0]):
                    os.write(master, left.pop(0).partition("|")[2].encode() + b"\n")
            code = child.wait()
        os.close(master)
        return code, seen

    code, seen = talk("[UTC]:|Mars/Base", "[UTC]:|Europe/Berlin", "[Y/n]:|n")
    assert code == 130, seen
    assert "is not a time zone" in seen
    assert "event log" in seen
    assert "orders.ordered_at for one" in seen
    assert not (tmp_path / "features.py").exists()
    code, seen = talk("[UTC]:|Europe/Berlin", "[Y/n]:|y")
    assert code == 0, seen
    assert 'timezone="Europe/Berlin"' in (tmp_path / "features.py").read_text()
    assert "virtualfs apply" in seen


def scanned(tmp_path: Path, ddl: str) -> dict[str, Any]:
    path = tmp_path / "w.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(ddl)
    with project(tmp_path, f"duckdb://{path}") as store:
        found = store.scan()
        written(store, found, tmp_path)
        return {finding.name: finding for finding in found.findings}


def test_what_went_on_is_known_when_it_was_over(tmp_path):
    found = scanned(
        tmp_path,
        "CREATE TABLE drivers (id INT PRIMARY KEY, name VARCHAR);"
        "INSERT INTO drivers SELECT i, 'd' FROM range(9) t(i);"
        "CREATE TABLE rides (id INT PRIMARY KEY, driver_id INT REFERENCES drivers (id), "
        "  start_time TIMESTAMPTZ, end_time TIMESTAMPTZ, fare DOUBLE);"
        "INSERT INTO rides SELECT i, i % 9, TIMESTAMPTZ '2024-01-01 00:01:02Z' + to_hours(i), "
        "  TIMESTAMPTZ '2024-01-01 00:20:02Z' + to_hours(i), i FROM range(500) t(i);"
        "CREATE TABLE subs (account VARCHAR, start_date DATE, end_date DATE, why VARCHAR, "
        "  PRIMARY KEY (account, start_date));"
        "INSERT INTO subs SELECT 'a' || i % 50, DATE '2024-01-01' + i::INT, "
        "  DATE '2024-01-20' + i::INT, 'x' FROM range(500) t(i);"
        "CREATE TABLE prices (sku VARCHAR, start_date DATE, end_date DATE, price DOUBLE);"
        "INSERT INTO prices SELECT 'k' || i % 5, DATE '2024-01-01' + (i // 5 * 10)::INT, "
        "  DATE '2024-01-10' + (i // 5 * 10)::INT, i FROM range(100) t(i);",
    )
    rides, subs, prices = found["rides"], found["subs"], found["prices"]
    assert (rides.kind, rides.event_timestamp) == ("event log", "end_time")
    assert rides.entities == ("driver",)
    assert any("known once it was over" in doubt for doubt in rides.doubts)
    assert (subs.kind, subs.event_timestamp, [*subs.keys]) == ("event log", "end_date", ["account"])
    # Versions that follow each other without gap are versions, whatever their times are called.
    assert (prices.kind, prices.valid_from, prices.valid_to) == ("SCD2", "start_date", "end_date")
    assert any("taken for when a row was true" in doubt for doubt in prices.doubts)


def test_a_time_that_only_its_type_speaks_for_does_not_precede_the_writing(tmp_path):
    found = scanned(
        tmp_path,
        "CREATE TABLE accounts (id INT PRIMARY KEY, x INT);"
        "CREATE TABLE invoices (id INT PRIMARY KEY, account_id INT REFERENCES accounts (id), "
        "  period_start DATE, created_at TIMESTAMPTZ, amount DOUBLE);"
        "CREATE TABLE usage (id INT PRIMARY KEY, account_id INT REFERENCES accounts (id), "
        "  period_start DATE, amount DOUBLE);"
        "CREATE TABLE people (email VARCHAR, birth_date DATE, score DOUBLE, "
        "  UNIQUE (email, birth_date));"
        "INSERT INTO people SELECT 'p' || i, DATE '1980-01-01', i FROM range(9) t(i);",
    )
    assert found["invoices"].event_timestamp == "created_at"
    assert "period_start" in found["invoices"].left_out
    assert found["usage"].event_timestamp == "period_start"
    assert any("only its type says" in doubt for doubt in found["usage"].doubts)
    assert any(
        "availability_delay" in doubt and "the day" in doubt for doubt in found["usage"].doubts
    )
    assert found["people"].event_timestamp is None


def test_sums_of_an_hour_and_values_set_later_are_doubted(tmp_path):
    found = scanned(
        tmp_path,
        "CREATE TABLE loads (station VARCHAR, hour_start TIMESTAMPTZ, kwh DOUBLE, status VARCHAR, "
        "  PRIMARY KEY (station, hour_start));"
        "INSERT INTO loads SELECT 's' || i % 3, TIMESTAMPTZ '2024-01-01' + to_hours(i), i, 'ok' "
        "  FROM range(90) t(i);"
        "CREATE TABLE pings (station VARCHAR, ping_at TIMESTAMP, ms DOUBLE, doc JSON, "
        "  PRIMARY KEY (station, ping_at));"
        "INSERT INTO pings SELECT 's1', TIMESTAMP '2024-01-01' + to_seconds(i * 61), i, '{}' "
        "  FROM range(90) t(i);",
    )
    loads, pings = found["loads"].doubts, found["pings"].doubts
    assert any('availability_delay="1h"' in doubt for doubt in loads)
    assert any(doubt.startswith("status may be set after") for doubt in loads)
    assert not any("says no more than" in doubt for doubt in pings)
    assert any("no zone is said" in doubt for doubt in pings)
    assert any(doubt.startswith("doc: JSON as it is") for doubt in pings)


def test_names_cannot_write_into_the_file_or_the_terminal(tmp_path):
    wide = "".join(chr(ord(char) + 0xFEE0) for char in "vfs")  # Python reads it as vfs
    found = scanned(
        tmp_path,
        f'CREATE TABLE "{wide}" (id INT PRIMARY KEY, "red\x1b[31m" DOUBLE);'
        'CREATE TABLE "x\x1b[2J" (id INT PRIMARY KEY, y DOUBLE, "born\x07" BLOB);',
    )
    assert len(found) == 2
    for finding in found.values():
        assert all(name.isprintable() for name in finding.features.values())


def test_a_temporary_table_does_not_hide_the_one_that_was_scanned(tmp_path):
    con = ibis.duckdb.connect(str(tmp_path / "w.duckdb"))
    con.raw_sql("CREATE TABLE t (id INT PRIMARY KEY, x INT); INSERT INTO t VALUES (1, 10)")
    con.raw_sql("CREATE TEMP TABLE t (id INT, x INT); INSERT INTO temp.t VALUES (1, 99)")
    config = vfs.Config(project="p", folder=tmp_path)
    with vfs.FeatureStore(config, connections={"default": con}) as store:
        store.apply(store.scan().definitions)
        assert store.get_features("t", [{"t_id": 1}]).to_list()[0]["x"] == 10
    con.disconnect()


def test_a_table_that_may_not_be_read_says_what_its_owner_can_run(database, tmp_path):
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS peeper")
        admin.execute("CREATE ROLE peeper LOGIN")
    url = re.sub(r"://[^@]*@", "://peeper@", database) if "@" in database else database
    with project(tmp_path, url) as store:
        found = store.scan(include=["orders"])
        assert found.findings[0].kind == "left out"
        assert 'GRANT SELECT ON "public"."orders" TO "peeper"' in str(found)


@pytest.mark.parametrize(
    ("url", "hidden"),
    [
        ("postgresql://u:p@ss/w@host/db", "postgresql://u:${WAREHOUSE_PASSWORD}@host/db"),
        ("postgresql://u@host/db?password=p&x=1",
         "postgresql://u@host/db?password=${WAREHOUSE_PASSWORD}&x=1"),
        ("postgresql://u:secret@host/db", "postgresql://u:${WAREHOUSE_PASSWORD}@host/db"),
        ("postgresql://u@host/db", "postgresql://u@host/db"),
    ],
)  # fmt: skip
def test_passwords_are_found_wherever_they_stand(url, hidden, tmp_path):
    from virtualfs.cli.scan import _write_config

    config = vfs.Config(project="p", folder=tmp_path, warehouses={"default": {"url": url}})
    _write_config(config, tmp_path / "features.py")
    assert f'url = "{hidden}"' in (tmp_path / "virtualfs.toml").read_text()


def test_registering_says_its_doubts_and_keeps_comments(database, tmp_path):
    with project(tmp_path, database) as store:
        found = store.register_table("orders")
        assert any("no zone is said" in doubt for doubt in found.doubts)
        view = store.state().project().views["orders"]
        assert view.description == "Every order, as it was placed."
        store.register_table("orders", name="again", entity="customer",
                             event_timestamp="ordered_at", timezone="UTC")  # fmt: skip
        again = store.state().project().views["again"]
        assert again.description == "Every order, as it was placed."
        assert {f.name: f.description for f in again.features}["total"].startswith("Sum in euros")
        with psycopg.connect(database, autocommit=True) as admin:
            admin.execute('CREATE TABLE "My Buys" (id int, x int)')
        named = store.register_table('"My Buys"', entity="buy", join_keys=["id"])
        assert [c.name for c in named.plan.changes if c.kind == "feature_view"] == ["my_buys"]


def test_a_view_of_a_table_is_about_what_the_table_is_about(tmp_path):
    found = scanned(
        tmp_path,
        "CREATE TABLE members (id INT PRIMARY KEY, plan VARCHAR, updated_at TIMESTAMPTZ);"
        "INSERT INTO members SELECT i, 'p' || i % 2, NULL FROM range(9) t(i);"
        "COMMENT ON COLUMN members.plan IS 'What they pay for';"
        "CREATE TABLE visits (id INT PRIMARY KEY, member_id INT REFERENCES members (id), "
        "  visited_at TIMESTAMPTZ, minutes INT);"
        "CREATE VIEW active_members AS SELECT id, plan FROM members WHERE plan = 'p1';"
        "CREATE VIEW long_visits AS SELECT * FROM visits WHERE minutes > 60;",
    )
    assert {finding.entities for finding in found.values()} == {("member",)}
    assert found["active_members"].table.column("plan").comment == "What they pay for"
    assert found["long_visits"].event_timestamp == "visited_at"


def test_numbers_that_are_times_or_names_are_not_taken_for_values(tmp_path):
    found = scanned(
        tmp_path,
        "CREATE TABLE tariff_codes (code VARCHAR PRIMARY KEY, rate DOUBLE);"
        "INSERT INTO tariff_codes VALUES ('a', 1);"
        "CREATE TABLE payments (card VARCHAR, paid_at TIMESTAMPTZ, payment_id INT, "
        "  settled_ts BIGINT, cents INT, PRIMARY KEY (card, paid_at));"
        "INSERT INTO payments SELECT 'c' || i % 9, TIMESTAMPTZ '2024-01-01' + to_seconds(i * 61), "
        "  i, 1704067200000 + i, i % 7 FROM range(90) t(i);",
    )
    assert found["tariff_codes"].keys == {"code": "tariff_code"}
    payments = found["payments"]
    assert payments.left_out == {"payment_id": "another in each row"}
    assert any(doubt.startswith("settled_ts may be milliseconds") for doubt in payments.doubts)
    assert "cents" in payments.features
