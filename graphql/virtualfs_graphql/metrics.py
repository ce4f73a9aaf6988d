"""What is measured while serving, as Prometheus reads it; keys are never a label."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_AGES = (0.01, 0.1, 1, 10, 60, 600, 3600, 86_400)
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """The metrics of one server; an observer of the reads that it makes."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        # Several workers write into files of one folder, which any of them sums up.
        own: Any = {"registry": None if os.environ.get(_FOLDER) else self._registry}
        self._requests = Histogram(
            "virtualfs_request_seconds",
            "Time of GraphQL requests, by kind of operation (lookup: compiled) and outcome.",
            ("kind", "outcome"), buckets=_SECONDS, **own,
        )  # fmt: skip
        self._rows = Counter(
            "virtualfs_rows", "Rows that answered, by view and where they came from.",
            ("view", "source"), **own,
        )  # fmt: skip
        self._ages = Histogram(
            "virtualfs_row_age_seconds",
            "How long ago the warehouse was asked for the first row of each read.",
            ("view",), buckets=_AGES, **own,
        )  # fmt: skip
        self._queries = Histogram(
            "virtualfs_warehouse_query_seconds",
            "Time of look-ups in a warehouse, by view and outcome.",
            ("view", "outcome"), buckets=_SECONDS, **own,
        )  # fmt: skip
        self._revision = Gauge(
            "virtualfs_catalog_revision", "Revision of the catalog that is served.",
            multiprocess_mode="mostrecent", **own,
        )  # fmt: skip
        self._kept: dict[tuple[str, ...], Any] = {}

    def request(self, kind: str, outcome: str, seconds: float) -> None:
        """Note one request."""
        self._child(self._requests, kind, outcome).observe(seconds)

    def serves(self, revision: int) -> None:
        """Note which catalog is served."""
        self._revision.set(revision)

    def read(self, view: str, hits: int, misses: int, stale: int, age: float | None) -> None:
        """Note one read of some keys of a view."""
        for count, source in ((hits, "cache"), (misses, "warehouse"), (stale, "stale")):
            if count:
                self._child(self._rows, view, source).inc(count)
        if age is not None:
            self._child(self._ages, view).observe(age)

    def queried(self, view: str, keys: int, started: float, failed: bool) -> None:  # noqa: ARG002
        """Note one query of a warehouse."""
        outcome = "error" if failed else "ok"
        self._child(self._queries, view, outcome).observe(time.time() - started)

    def text(self) -> bytes:
        """Return everything as Prometheus reads it."""
        registry = self._registry
        if os.environ.get(_FOLDER):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    def _child(self, metric: Any, *labels: str) -> Any:
        key = (metric._name, *labels)
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = metric.labels(*labels)
        return found


def shared_folder(folder: Path) -> None:
    """Let the processes that are started from now on sum up their metrics in a folder."""
    os.environ[_FOLDER] = str(folder)
