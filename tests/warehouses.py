"""The warehouses that the suite runs for real, each as a house of the conformance tests."""

from __future__ import annotations

import gc
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa
import pytest

from virtualfs import Config, FeatureStore
from virtualfs.testing.conformance import NOON, House
from virtualfs.testing.strategies import Domain

MICROSECONDS = ("naive", "zoned", "date")


def config(folder: Path, **more: Any) -> Config:
    return Config(project="conformance", folder=folder, clock=NOON.replace(tzinfo=UTC), **more)


class DuckDBHouse(House):
    def put(self, name: str, table: pa.Table) -> None:
        raw = self.store.warehouse().connection.con
        raw.register("incoming", table)
        raw.execute(f'CREATE OR REPLACE TABLE "{name}" AS FROM incoming')
        raw.unregister("incoming")


class SQLiteHouse(House):
    types = {
        "int32": "INTEGER",
        "int64": "INTEGER",
        "float": "REAL",
        "double": "REAL",
        "bool": "BOOLEAN",
        "string": "TEXT",
        "date32[day]": "DATE",
    }

    def put(self, name: str, table: pa.Table) -> None:
        raw = self.store.warehouse().connection.con
        columns = ", ".join(
            f'"{field.name}" {self.types.get(str(field.type), "TIMESTAMP")}'
            for field in table.schema
        )
        raw.execute(f'DROP TABLE IF EXISTS "{name}"')
        raw.execute(f'CREATE TABLE "{name}" ({columns})')
        marks = ", ".join("?" * table.num_columns)
        rows = zip(*(self.written(column) for column in table.columns), strict=True)
        raw.executemany(f'INSERT INTO "{name}" VALUES ({marks})', rows)

    def written(self, column: pa.ChunkedArray) -> list[Any]:
        """Times as text, in both of the spellings that SQLite's users have."""
        kind = column.type
        if pa.types.is_timestamp(kind) and kind.unit == "ns":
            import pandas as pd

            values = [
                None if v is None else pd.Timestamp(v) for v in column.cast("int64").to_pylist()
            ]
        else:
            values = column.to_pylist()
        if not pa.types.is_temporal(kind):
            return values
        if pa.types.is_date(kind):
            return [value and str(value) for value in values]
        return [value and value.isoformat("T" if value.hour % 2 else " ") for value in values]

    def read(self, name: str) -> pa.Table:
        """As SQLite keeps it: its tables made by a query have no types, and times are text."""
        cursor = self.store.warehouse().connection.con.execute(f'SELECT * FROM "{name}"')
        names = [column[0] for column in cursor.description]
        columns = dict(zip(names, zip(*cursor.fetchall(), strict=True), strict=True))
        times = {"t", "event_timestamp"}
        read = datetime.fromisoformat
        return pa.table(
            {
                name: [value and read(value) for value in values] if name in times else values
                for name, values in columns.items()
            }
        )


class PostgresHouse(House):
    admin: Any = None
    indexed = True

    def put(self, name: str, table: pa.Table) -> None:
        import ibis

        from virtualfs_providers.postgres_arrow import copy_in, sql_type

        columns = ", ".join(
            f'"{column}" {sql_type(dtype)}'
            for column, dtype in ibis.Schema.from_pyarrow(table.schema).items()
        )
        with self.admin.cursor() as cursor:
            cursor.execute(f'DROP TABLE IF EXISTS "{name}"; CREATE TABLE "{name}" ({columns})')
            copy_in(cursor, f'"{name}"', table)
            cursor.execute(f'GRANT SELECT ON "{name}" TO PUBLIC')
            keys = [
                key
                for key in ("place", "number", "group", "k", "a", "b")
                if key in table.column_names
            ]
            event = next((key for key in ("happened", "at") if key in table.column_names), None)
            if self.indexed and event:
                quoted = ", ".join(f'"{key}"' for key in (*keys, event))
                cursor.execute(f'CREATE INDEX ON "{name}" ({quoted})')
            cursor.execute(f'ANALYZE "{name}"')
        self.store.warehouse()._known.clear()  # tables of one name come and go within seconds


class SparkHouse(House):
    @property
    def session(self) -> Any:
        return self.store.warehouse().connection._session

    def put(self, name: str, table: pa.Table) -> None:
        from pyspark.sql.pandas.types import from_arrow_schema

        schema = from_arrow_schema(table.schema, prefer_timestamp_ntz=True)
        self.session.createDataFrame(table, schema).createOrReplaceTempView(name)

    def read(self, name: str) -> pa.Table:
        return self.session.table(name).toArrow()


@pytest.fixture(scope="module")
def duckdb_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    import ibis

    folder = tmp_path_factory.mktemp("duckdb")
    con = ibis.duckdb.connect()
    con.con.execute("SET TimeZone = 'Asia/Tokyo'")  # nothing may depend on the session's own zone
    with FeatureStore(config(folder), connections={"default": con}) as store:
        yield DuckDBHouse(store, folder)
    con.disconnect()


@pytest.fixture(scope="module")
def sqlite_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    import ibis

    folder = tmp_path_factory.mktemp("sqlite")
    raw = sqlite3.connect(folder / "w.db", check_same_thread=False, isolation_level=None)
    raw.execute("PRAGMA synchronous = off")
    con = ibis.sqlite.from_connection(raw)
    with FeatureStore(config(folder), connections={"default": con}) as store:
        gap = (
            "Ibis reads SQLite's integers beside NULLs as floats, and takes no times into memtables"
        )
        yield SQLiteHouse(
            store,
            folder,
            Domain(zones=("UTC",), values=("whole", "real", "word"), endless=False),
            gaps={"expr": gap},
        )
    raw.close()


@pytest.fixture(scope="module")
def postgres_house(tmp_path_factory: pytest.TempPathFactory, postgres: str) -> Iterator[House]:
    with open_postgres(tmp_path_factory.mktemp("postgres"), postgres, postgres) as house:
        yield house


@contextmanager
def open_postgres(folder: Path, url: str, admin_url: str, **more: Any) -> Iterator[PostgresHouse]:
    import psycopg

    with (
        psycopg.connect(admin_url, autocommit=True) as admin,
        FeatureStore(config(folder, warehouses={"default": {"url": url}})) as store,
    ):
        house = PostgresHouse(store, folder, Domain(kinds=MICROSECONDS), **more)
        house.admin = admin
        yield house


@pytest.fixture(scope="module")
def spark_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    import ibis
    from pyspark.sql import SparkSession

    folder = tmp_path_factory.mktemp("spark")
    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.sql.shuffle.partitions", "1")
        .config("spark.sql.adaptive.enabled", "false")
        .config("spark.sql.codegen.wholeStage", "false")
        .config("spark.sql.codegen.factoryMode", "NO_CODEGEN")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.warehouse.dir", str(folder / "warehouse"))
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )
    con = ibis.pyspark.connect(session)
    session.conf.set("spark.sql.session.timeZone", "America/New_York")
    with FeatureStore(config(folder), connections={"default": con}) as store:
        gap = "Ibis reads Spark's integers beside NULLs as floats"
        yield SparkHouse(store, folder, Domain(kinds=MICROSECONDS), gaps={"expr": gap})
    session.stop()
    with warnings.catch_warnings():  # PySpark leaves its sockets to the garbage collector
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def as_user(url: str, user: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{user}@{parts.netloc.rpartition('@')[2]}"))


@pytest.fixture(scope="module")
def reader_url(postgres: str) -> str:
    """URL of a role that may read tables, and nothing else: not even make temporary ones."""
    import psycopg

    with psycopg.connect(postgres, autocommit=True) as admin:
        database = admin.info.dbname
        admin.execute(
            f"DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN; "
            f"REVOKE TEMP ON DATABASE {database} FROM PUBLIC; "
            f"REVOKE CREATE ON SCHEMA public FROM PUBLIC"
        )
    return as_user(postgres, "reader")


@pytest.fixture(scope="module")
def reader_house(reader_url, postgres, tmp_path_factory) -> Iterator[PostgresHouse]:
    folder = tmp_path_factory.mktemp("reader")
    with open_postgres(folder, reader_url, postgres) as house:
        yield house
