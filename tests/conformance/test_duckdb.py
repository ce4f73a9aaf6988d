from __future__ import annotations

from typing import ClassVar

import pytest

from virtualfs.testing.conformance import WarehouseConformance


class TestDuckDB(WarehouseConformance):
    seeds: ClassVar[range] = range(20)

    @pytest.fixture
    def house(self, duckdb_house):
        return duckdb_house
