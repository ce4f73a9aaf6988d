"""Stores whose clock the test moves, on a DuckDB in memory and either cache."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

import virtualfs as vfs

NOW = datetime(2020, 1, 2, 12, tzinfo=UTC)
PLACE = vfs.Entity("place", {"place": "string"})


class Clock:
    """The instant of online reads, moved by the test."""

    def __init__(self) -> None:
        self.now = NOW

    def move(self, **by: float) -> None:
        self.now += timedelta(**by)


def weather(**fields: Any) -> vfs.FeatureView:
    source = vfs.Source(
        "weather", table="weather", event_timestamp="seen", created_timestamp="written",
        **{name: fields.pop(name) for name in ("availability_delay", "timezone") if name in fields},
    )  # fmt: skip
    return vfs.FeatureView(
        "weather", source=source, entities=[PLACE], features=["temp"], **fields
    )  # fmt: skip


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "valkey"])
def cache_url(request: pytest.FixtureRequest) -> str:
    return "memory://" if request.param == "memory" else request.getfixturevalue("valkey")


@pytest.fixture
def cache(cache_url: str) -> dict[str, Any]:
    """The configuration of either cache, with nothing kept in the process before Valkey."""
    return {"url": cache_url} if cache_url == "memory://" else {"url": cache_url, "near": "0s"}


@pytest.fixture
def open_store(
    make_store: Callable[..., vfs.FeatureStore],
    connection: Any,
    clock: Clock,
    cache_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., vfs.FeatureStore]:
    """Open stores of one project; each reads the test's clock."""
    connection.raw_sql(
        "CREATE TABLE weather (place TEXT, seen TIMESTAMP, written TIMESTAMP, temp INTEGER)"
    )
    name = f"p{uuid4().hex}"  # tests share one server

    def make(**cache: Any) -> vfs.FeatureStore:
        store = make_store(project=name, clock=NOW, cache={"url": cache_url, "near": "0s", **cache})
        monkeypatch.setattr(store, "now", lambda: clock.now)
        monkeypatch.setattr(store.online, "_now", lambda: clock.now)
        monkeypatch.setattr(store.online.reader, "_now", lambda: clock.now)
        return store

    return make


@pytest.fixture
def store(open_store: Callable[..., vfs.FeatureStore]) -> vfs.FeatureStore:
    return open_store()


def add(connection: Any, place: str, seen: datetime, temp: int | None, written: Any = None) -> None:
    """Write a row to the warehouse."""
    values = [place, seen.replace(tzinfo=None), (written or seen).replace(tzinfo=None), temp]
    connection.con.execute("INSERT INTO weather VALUES (?, ?, ?, ?)", values)


def temp(store: vfs.FeatureStore, *places: str, **options: Any) -> list[Any]:
    """Return values with their statuses."""
    found = store.get_online_features(["weather:temp"], {"place": list(places)}, **options)
    return list(zip(found.to_dict()["temp"], found.statuses["temp"], strict=True))
