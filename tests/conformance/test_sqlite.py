from __future__ import annotations

import pytest

from virtualfs.testing.conformance import WarehouseConformance


class TestSQLite(WarehouseConformance):
    @pytest.fixture
    def house(self, sqlite_house):
        return sqlite_house
