from __future__ import annotations

import pytest

from virtualfs.testing.conformance import WarehouseConformance


class TestPostgres(WarehouseConformance):
    @pytest.fixture
    def house(self, postgres_house):
        return postgres_house
