from __future__ import annotations

import shutil
from typing import ClassVar

import pytest

from virtualfs.testing.conformance import WarehouseConformance

pytestmark = [
    pytest.mark.skipif(
        shutil.which("java") is None, reason="Spark needs Java 17, and this machine has none"
    ),
    # Ibis makes memtables of Spark by a keyword of pandas that is on its way out.
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
    # PySpark leaves the sockets that it reads results from to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


class TestSpark(WarehouseConformance):
    seeds: ClassVar[range] = range(3)
    computed_seeds: ClassVar[range] = range(1)
    window_seeds: ClassVar[range] = range(2)
    table_names: ClassVar[tuple[str, ...]] = ("t0", "t1", "t3", "t7", "source", "answer")

    @pytest.fixture
    def house(self, spark_house, monkeypatch):
        # Spark's catalog says no sizes, so windows would go the long way for a few rows; the tests
        # of strategies choose for themselves.
        monkeypatch.setattr("virtualfs.compiler.strategy._few_pairs", lambda *_: True)
        return spark_house

    def test_a_nan_is_there(self, house):
        # Ibis calls it null for Spark; is_there() is for that.
        import ibis

        from virtualfs.compiler.sql import is_there

        value = ibis.literal(float("nan"), "float64")
        told = house.store.warehouse().connection.execute
        assert told(value.isnull())
        assert told(is_there(value))
