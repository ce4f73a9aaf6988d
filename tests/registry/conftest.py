"""Stores on one small warehouse, with their registry in SQLite or in a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

import virtualfs as vfs

AIRPORT = vfs.Entity("airport", {"origin": "string"})


def weather(*features: Any, **fields: Any) -> vfs.FeatureView:
    return vfs.FeatureView(
        "weather",
        source=vfs.Source("weather", table="weather", event_timestamp="seen"),
        entities=[AIRPORT],
        features=features or ["temp"],
        **fields,
    )


@pytest.fixture(params=["sqlite", "postgres"])
def registry(request: pytest.FixtureRequest) -> dict[str, str]:
    """Settings of a registry of the test's own."""
    if request.param == "sqlite":
        return {}
    return {"project": f"p{uuid4().hex}", "registry": request.getfixturevalue("postgres")}


@pytest.fixture
def open_store(
    registry: dict[str, str], make_store: Callable[..., vfs.FeatureStore], connection: Any
) -> Callable[..., vfs.FeatureStore]:
    """Open stores of one registry and one warehouse."""
    connection.raw_sql(
        "CREATE TABLE weather (origin TEXT, seen TIMESTAMP, temp INTEGER, wet BOOLEAN)"
    )
    return lambda **settings: make_store(**{**registry, **settings})


@pytest.fixture
def store(open_store: Callable[..., vfs.FeatureStore]) -> vfs.FeatureStore:
    return open_store()
