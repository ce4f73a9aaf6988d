"""Statuses in their order: STALE, NOT_FOUND, OUTSIDE_MAX_AGE, then the value's own."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import ibis
import pytest

import virtualfs as vfs
from virtualfs.provider import Warehouse
from virtualfs.serving.on_demand import FeatureStatus

USER = vfs.Entity("user", {"id": "int64"})
S, N, OLD = FeatureStatus.STALE, FeatureStatus.NOT_FOUND, FeatureStatus.OUTSIDE_MAX_AGE
NULL, PRESENT = FeatureStatus.NULL_VALUE, FeatureStatus.PRESENT


def test_statuses_of_values_and_of_what_is_computed_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = ibis.duckdb.connect()
    connection.con.execute(
        "CREATE TABLE t AS SELECT * FROM (VALUES (1, 5, TIMESTAMP '2024-01-01 12:00'), "
        "(2, NULL, TIMESTAMP '2024-01-01 12:00'), (3, 7, TIMESTAMP '2023-01-01')) "
        "v(id, x, seen)"
    )
    source = vfs.Source("t", table="t", event_timestamp="seen")
    latest = vfs.FeatureView(
        "latest", source=source, entities=[USER], features=["x"], ttl="1d", freshness="1ms"
    )
    counts = vfs.FeatureView(
        "counts", source=source, entities=[USER],
        features=[vfs.Aggregate("*", "count", "1d", name="n")], freshness="1ms",
    )  # fmt: skip
    computed = vfs.OnDemandFeatureView(
        "computed", inputs=[latest, counts],
        features=[
            vfs.Feature("known", "coalesce(x, -1)"), vfs.Feature("twice", "x * 2"),
            vfs.Feature("both", "coalesce(x, 0) + n"),
        ],
    )  # fmt: skip
    clock = datetime.fromisoformat("2024-01-02T00:00:00+00:00")
    config = vfs.Config(project="s", folder=tmp_path, clock=clock)
    with vfs.FeatureStore(config, connections={"default": connection}) as store:
        store.apply([latest, counts, computed])
        asked = ["latest:x", "counts:n", "computed:known", "computed:twice", "computed:both"]

        def read() -> tuple[list[list[Any]], list[list[Any]]]:
            found = store.get_online_features(asked, {"id": [1, 2, 3, 4]})
            rows = [list(row) for row in found.values]
            statuses = [[found.statuses[name][n] for name in found.names] for n in range(4)]
            return rows, statuses

        values = [
            [5, 1, 5, 10, 6], [None, 1, -1, None, 1], [None, 0, -1, None, 0],
            [None, 0, -1, None, 0],
        ]  # fmt: skip
        assert read() == (values, [
            [PRESENT, PRESENT, PRESENT, PRESENT, PRESENT],
            [NULL, PRESENT, PRESENT, NULL, PRESENT],
            # Of the third, whose row is over its TTL, the window of a day holds nothing.
            [OLD, PRESENT, OLD, OLD, OLD],
            [N, N, N, N, N],
        ])  # fmt: skip
        # Later, while the warehouse does not answer.
        later = clock.replace(minute=1)
        for part in (store, store.online, store.online.reader):
            name = "now" if part is store else "_now"
            monkeypatch.setattr(part, name, lambda: later)

        def away(*_given: Any) -> Warehouse:
            raise vfs.WarehouseError("gone")

        monkeypatch.setattr(type(store.warehouse()), "lookup", away)
        assert read() == (values, [[S] * 5] * 4)
    connection.disconnect()
