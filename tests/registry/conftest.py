"""Stores on one small warehouse, with their registry in SQLite or in a real PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
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


def at_once(calls: Sequence[Callable[[], Any]]) -> list[Exception]:
    """Make calls at the same moment, each in a thread; return what was raised."""
    barrier = threading.Barrier(len(calls))
    failed: list[Exception] = []

    def run(call: Callable[[], Any]) -> None:
        barrier.wait()
        try:
            call()
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


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
