"""The SQL for Snowflake, run: on fakesnow, which emulates it over DuckDB. No more than an emulator.

fakesnow stands under a cursor and not under Ibis's backend, so the session here is the test's own;
what is under test is the compiler with Snowflake's capabilities.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pytest

from tests.warehouses import config
from virtualfs import FeatureStore
from virtualfs.capabilities import Statistics
from virtualfs.provider import SilentCatalog
from virtualfs.testing.conformance import House
from virtualfs.testing.house import ANSWER, PLAIN, ask, judge
from virtualfs.testing.strategies import Domain, batch
from virtualfs_providers.snowflake import CAPABILITIES

TYPES = {"int64": "BIGINT", "double": "DOUBLE", "string": "VARCHAR", "date32[day]": "DATE"}
CODES = {0: "int64", 1: "float64", 2: "string", 3: "date", 7: "timestamp('UTC')", 8: "timestamp(9)"}

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


class Emulated(SilentCatalog):
    """A warehouse and its sessions on one fakesnow connection."""

    name = "default"
    capabilities = CAPABILITIES

    def __init__(self, connection: Any) -> None:
        self._cursor = connection.cursor()

    @contextmanager
    def session(self, *, shared: bool = False) -> Iterator[Emulated]:
        yield self

    def load(self, name: str, table: pa.Table) -> None:
        columns = ", ".join(
            f'"{field.name}" {TYPES.get(str(field.type)) or self._time(field.type)}'
            for field in table.schema
        )
        self._cursor.execute(f'CREATE OR REPLACE TABLE "{name}" ({columns})')
        rows = list(zip(*(self._written(column) for column in table.columns), strict=True))
        if rows:
            values = ", ".join(f"({', '.join(row)})" for row in rows)
            self._cursor.execute(f'INSERT INTO "{name}" VALUES {values}')

    def _time(self, kind: pa.DataType) -> str:
        return "TIMESTAMP_NTZ" if kind.tz is None else "TIMESTAMP_TZ"

    def _written(self, column: pa.ChunkedArray) -> list[str]:
        return [
            "NULL" if value is None else str(value) if isinstance(value, int | float)
            else f"'{value}'"
            for value in column.to_pylist()
        ]  # fmt: skip

    def drop(self, name: str) -> None:
        self._cursor.execute(f'DROP TABLE IF EXISTS "{name}"')

    def query(self, statement: str, schema: Any) -> pa.Table:
        import ibis

        rows = self._cursor.execute(statement).fetchall()
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
        return pa.table(
            [
                pa.array(values, ibis.dtype(kind).to_pyarrow())
                for values, kind in zip(columns, schema.values(), strict=True)
            ],
            names=list(schema),
        )

    def describe(self, select: str) -> Any:
        import ibis

        return {
            column.name: ibis.dtype(CODES[column.type_code])
            for column in self._cursor.describe(select)
        }

    def statistics(self, view: Any) -> Statistics:
        return Statistics()

    def close(self) -> None:
        self._cursor.close()


class SnowflakeHouse(House):
    def put(self, name: str, table: pa.Table) -> None:
        self.store.warehouse().load(name, table)


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    folder = tmp_path_factory.mktemp("snowflake")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import fakesnow

        with fakesnow.patch():
            import snowflake.connector

            connection = snowflake.connector.connect(database="db", schema="s")
            store = FeatureStore(config(folder))
            store._warehouses["default"] = Emulated(connection)
            # fakesnow reads naive times and dates; times with an offset it turns into naive ones.
            yield SnowflakeHouse(store, folder, Domain(kinds=("naive", "date")))
            store.close()
            connection.close()


@pytest.mark.parametrize("seed", range(8))
def test_batches_of_cases_agree_with_the_oracle(house, seed):
    case = batch(seed, 40, house.domain)
    judge(case, ask(house, case).to_pyarrow())


def test_the_plain_case(house):
    assert judge(PLAIN, ask(house, PLAIN).to_pyarrow()) == ANSWER
