"""The registry's tables: made by one of two, upgraded and taken back with their data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

import virtualfs as vfs
from tests.registry.conftest import at_once, weather
from virtualfs.registry.database import Database, migrations


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Any) -> str:
    """URL of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/r.db"
    server = request.getfixturevalue("postgres").replace("postgresql://", "postgresql+psycopg://")
    name = f"d{uuid4().hex}"
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return sa.make_url(server).set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def opened() -> Iterator[Callable[[str], Database]]:
    """Open databases, to be closed at the end."""
    made = []

    def open_one(url: str) -> Database:
        made.append(Database(url))
        return made[-1]

    yield open_one
    for database in made:
        database.close()


def dump(url: str) -> dict[str, list[dict[str, Any]]]:
    """Return all tables; the order of rows and columns tells nothing."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return {
            name: sorted(
                map(
                    dict,
                    connection.exec_driver_sql(f"SELECT * FROM {name}").mappings().all(),
                ),
                key=lambda row: repr(sorted(row.items())),
            )
            for name in sa.inspect(connection).get_table_names()
        }


_OLD = Path(__file__).parents[1] / "data" / "registry_0001.sql"


def fill_as_0001(database: Database) -> None:
    """Make the tables of 0001, with data as that version wrote it."""
    from alembic import command

    made: Any = migrations()
    with database.open().execution_options(virtualfs_write=True).begin() as connection:
        config = made.config()
        config.attributes.update(connection=connection, schema=None)
        command.upgrade(config, "0001")
        script = _OLD.read_text()
        for statement in script.split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)


def test_an_upgrade_keeps_every_state_and_a_downgrade_gives_it_back(
    url: str, opened: Any, make_store: Callable[..., vfs.FeatureStore], connection: Any
) -> None:
    database = opened(url)
    fill_as_0001(database)
    before = dump(url)
    connection.raw_sql("CREATE TABLE weather (origin TEXT, seen TIMESTAMP, temp INTEGER)")
    store = make_store(project="p", registry=url)
    with pytest.raises(vfs.RegistryError, match="virtualfs registry upgrade"):
        store.state()
    database.upgrade()
    versions = {
        revision: {
            key: item.version for key, item in store.registry.state(revision).objects.items()
        }
        for revision in (1, 2, 3)
    }
    view, gone = ("feature_view", "weather"), ("entity", "gone")
    assert [states.get(view) for states in versions.values()] == [1, 2, 2]
    assert [gone in states for states in versions.values()] == [True, True, False]
    assert store.state().revision == 3
    assert store.state().objects[view].definition["description"] == "by the hour"
    actions = {
        row.number: {record.name: record.action for record in records}
        for row, records in store.registry.revisions()
    }
    assert actions == {
        1: {"airport": "add", "weather": "add", "gone": "add"},
        2: {"weather": "change"},
        3: {"gone": "remove"},
    }
    assert [row.created_by for row, _ in store.registry.revisions()] == ["bob", "bob", "ann"]
    other = make_store(project="q", registry=url)
    assert list(other.state().objects) == [("entity", "e")]
    # What is derived is made up for when it is first asked for.
    assert [found.name for found in store.search("hour")] == ["weather"]
    assert "weather@2:temp" in str(store.lineage("weather.temp", "downstream"))

    database.downgrade("0001")
    assert dump(url) == before
    database.upgrade()
    store.apply([weather("temp", ttl="1d")])
    assert store.state().revision == 4
    store.rollback(2)
    database.downgrade("0001")
    again = {
        (row["since"], row["until"], row["version"])
        for row in dump(url)["virtualfs_objects"]
        if (row["project"], row["kind"]) == ("p", "feature_view")
    }
    assert again == {(1, 2, 1), (2, 4, 2), (4, 5, 3), (5, None, 2)}


def test_a_downgrade_that_would_lose_environments_is_refused(
    url: str, make_store: Callable[..., vfs.FeatureStore], connection: Any
) -> None:
    connection.raw_sql("CREATE TABLE weather (origin TEXT, seen TIMESTAMP, temp INTEGER)")
    store = make_store(project="p", registry=url)
    store.apply([weather()])
    store.promote("default", "prod")
    before = dump(url)
    with pytest.raises(vfs.RegistryError, match="nothing was changed"):
        store.registry.database.downgrade("0001")
    assert dump(url) == before


def test_of_two_that_make_the_tables_at_once_one_does(url: str, opened: Any) -> None:
    assert not at_once([opened(url).upgrade for _ in range(4)])
    assert opened(url).current_schema() == migrations().head


def test_the_statements_are_those_that_an_upgrade_runs(url: str, opened: Any) -> None:
    database = opened(url)
    whole = database.upgrade_sql()
    assert "CREATE TABLE virtualfs_revisions" in whole
    fill_as_0001(database)
    before = dump(url)
    script = database.upgrade_sql()
    assert "virtualfs_placements" in script
    assert dump(url) == before
    with closing(sa.create_engine(url, poolclass=sa.NullPool).raw_connection()) as raw:
        cursor = raw.cursor()
        cursor.executescript(script) if url.startswith("sqlite") else cursor.execute(script)
        raw.commit()
    by_hand = dump(url)
    assert database.current_schema() == migrations().head
    assert database.upgrade_sql() == ""
    assert len(by_hand["virtualfs_placements"]) == 6


def test_tables_lie_in_a_schema_of_their_own(
    postgres: str, make_store: Callable[..., vfs.FeatureStore], connection: Any
) -> None:
    connection.raw_sql("CREATE TABLE weather (origin TEXT, seen TIMESTAMP, temp INTEGER)")
    schema = f"s{uuid4().hex[:8]}"
    store = make_store(project="p", registry=postgres, registry_schema=schema)
    assert f'CREATE SCHEMA IF NOT EXISTS "{schema}"' in store.registry.database.upgrade_sql()
    store.apply([weather()])
    store.promote("default", "prod")
    engine = store.registry.database.open()
    with engine.connect() as made:
        inspector = sa.inspect(made)
        assert "virtualfs_objects" in inspector.get_table_names(schema=schema)
        assert "virtualfs_schema" in inspector.get_table_names(schema=schema)
    assert make_store(project="p", registry=postgres).state().revision == 0
    assert make_store(project="p", registry=postgres, registry_schema=schema).state().revision == 1
    with pytest.raises(vfs.RegistryError, match="SQLite has no schemas"):
        make_store(registry_schema="x")
