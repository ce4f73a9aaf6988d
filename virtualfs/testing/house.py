"""The warehouse under a conformance test, and how the tests talk to it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from virtualfs.definitions.entity import Entity
from virtualfs.definitions.feature_view import FeatureSelection, FeatureView
from virtualfs.definitions.source import Source
from virtualfs.dtypes import nullable_pandas
from virtualfs.store import FeatureStore
from virtualfs.testing.strategies import Case, Domain

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "ANSWER", "DAY", "HOUR", "NOON", "OUTPUTS", "PLAIN", "SPINES", "TICK", "House", "as_output",
    "as_spine", "ask", "judge", "make", "online", "quoted", "rows_of", "train", "values",
]  # fmt: skip

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
TICK = timedelta(microseconds=1)
NOON = datetime(2024, 5, 1, 12)
"""Where the clock of a house's store stands, in UTC."""
SPINES = ("pyarrow", "pandas", "polars", "reader", "parquet", "ibis", "sql")
OUTPUTS = ("pyarrow", "pandas", "polars", "batches", "parquet", "table", "expr")


class House:
    """A store over one warehouse under test.

    Parameters
    ----------
    store
        With the warehouse ``default`` and its clock at :data:`NOON`.
    folder
        Where files may be written.
    domain
        What the warehouse can hold.
    gaps
        What cannot be tried there, by the name of a form of result, with the reason.
    """

    def __init__(
        self, store: FeatureStore, folder: Path, domain: Domain | None = None, *,
        gaps: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.store = store
        self.folder = folder
        self.domain = domain or Domain()
        self.gaps = gaps or {}

    def put(self, name: str, table: pa.Table) -> None:
        """Make a table of Arrow data in the warehouse, in the place of any of that name."""
        raise NotImplementedError

    def read(self, name: str) -> pa.Table:
        """Return a table of the warehouse as Arrow."""
        return self.store.warehouse().connection.table(name).to_pyarrow()

    def check(self, table: pa.Table, timezone: str = "UTC") -> None:
        """Skip a test whose data the warehouse cannot hold."""
        import pyarrow as pa

        engine = self.store.warehouse().capabilities.engine
        if pa.timestamp("ns") in table.schema.types and "nanoseconds" not in self.domain.kinds:
            pytest.skip(f"{engine} holds no nanoseconds")
        if timezone != "UTC" and set(self.domain.zones) == {"UTC"}:
            pytest.skip(f"{engine} knows no time zones")


def quoted(house: House, *names: str) -> str:
    """Return names as the warehouse's SQL quotes them."""
    from virtualfs.compiler import sql

    dialect = house.store.warehouse().capabilities.dialect
    return ", ".join(sql.quoted(name, dialect) for name in names)


def as_spine(house: House, table: pa.Table, form: str) -> Any:
    """Return an Arrow spine in another form."""
    import pyarrow as pa

    if form == "pyarrow":
        return table
    if form == "pandas":
        frame = table.to_pandas(types_mapper=nullable_pandas)
        frame.index = frame.index + 7
        return frame
    if form == "polars":
        import polars as pl

        return pl.from_arrow(table)
    if form == "reader":
        return table.to_reader(max_chunksize=2)
    if form == "parquet":
        import pyarrow.parquet as pq

        path = house.folder / "spine.parquet"
        pq.write_table(table, path)
        return path
    # Stored backwards, so that only ORDER BY can give the order.
    numbered = table.append_column("pos", pa.array(range(table.num_rows), pa.int64()))
    house.put("spine", numbered.sort_by([("pos", "descending")]))
    if form == "ibis":
        return house.store.warehouse().connection.table("spine").order_by("pos").drop("pos")
    names = quoted(house, *table.column_names)
    return f"SELECT {names} FROM spine ORDER BY {quoted(house, 'pos')}"  # noqa: S608


def as_output(house: House, ds: Any, form: str) -> pa.Table:
    """Run a dataset and return what came out, as Arrow."""
    import pyarrow as pa

    if form in house.gaps:
        pytest.skip(house.gaps[form])

    if form == "pyarrow":
        return ds.to_pyarrow()
    if form == "pandas":
        return pa.Table.from_pandas(ds.to_pandas(), preserve_index=False)
    if form == "polars":
        return ds.to_polars().to_arrow()
    if form == "batches":
        return ds.to_pyarrow_batches(3).read_all()
    if form == "parquet":
        import pyarrow.parquet as pq

        return pq.read_table(ds.to_parquet(house.folder / "out.parquet", overwrite=True))
    if form == "table":
        ds.to_table("made", overwrite=True)
        return house.read("made")
    return ds.expr.to_pyarrow()


def rows_of(table: pa.Table) -> list[tuple[Any, ...]]:
    """Return rows as tuples; times as nanoseconds, so that every unit and zone compares."""
    import pyarrow as pa

    columns = []
    for column in table.columns:
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("ns", column.type.tz)).cast(pa.int64())
        columns.append(column.to_pylist())
    return list(zip(*columns, strict=True)) if columns else [()] * table.num_rows


def judge(case: Case, result: pa.Table, *, spine: pa.Table | None = None) -> list[tuple[Any, ...]]:
    """Assert that a result is exactly what the oracle accepts, and return its features.

    `spine` is what the spine's columns must be, when the warehouse may have typed them anew.
    """
    own = case.spine_table()
    assert result.column_names == [*own.column_names, *case.features]
    if spine is None:
        assert rows_of(result.select(own.column_names)) == rows_of(own)
    else:
        assert rows_of(result.select(["label", "weight"])) == rows_of(
            own.select(["label", "weight"])
        )
    found = rows_of(result.select(list(case.features)))
    expected = case.expected()
    assert len(found) == len(expected)
    for number, (row, acceptable) in enumerate(zip(found, expected, strict=True)):
        assert row in acceptable, f"spine row {number}: {case.spine_rows[number]}"
    return found


def ask(house: House, case: Case, spine: Any = None) -> Any:
    """Return the dataset of a case."""
    house.put("source", case.source_table())
    spine = case.spine_table() if spine is None else spine
    selection = case.selection("source")
    return house.store.get_historical_features(
        spine, [selection], late_data=case.late_data, timestamp=case.timestamp
    )


def make(
    house: House, rows: Any, *, name: str = "source", entities: Any = ("k",),
    features: Any = ("x",), **given: Any,
) -> FeatureView:  # fmt: skip
    """Make a table and a view on it; settings of Source and FeatureView together.

    `entities` are join keys: names of text, or a dict with their types.
    """
    import pyarrow as pa

    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
    house.check(table, given.get("timezone", "UTC"))
    house.put(name, table)
    of_source = {"event_timestamp", "created_timestamp", "timezone", "availability_delay",
                 "valid_from", "valid_to"}  # fmt: skip
    source = {key: value for key, value in given.items() if key in of_source}
    view = {key: value for key, value in given.items() if key not in of_source}
    if "valid_from" not in source:
        source.setdefault("event_timestamp", "at")
    view.setdefault("freshness", "0s")
    keys = dict(entities) if isinstance(entities, dict) else dict.fromkeys(entities, "string")
    return FeatureView(
        f"{name}_view",
        source=Source(name, table=name, **source),
        entities=[Entity(f"{name}_entity", keys)] if keys else [],
        features=list(features),
        **view,
    )


def values(
    house: House, view: FeatureView | FeatureSelection, times: list[Any], *,
    k: Any = "a", features: str = "x", late_data: Any = "include",
) -> list[Any]:  # fmt: skip
    """Return the feature for one key at some instants."""
    import pyarrow as pa

    kind = pa.int64() if isinstance(times[0], int) else None
    column = pa.array(times, kind)
    spine = pa.table(
        {
            "k": pa.array([k] * len(times), pa.string()),
            "t": column.cast(pa.timestamp("ns")) if kind else column,
        }
    )
    ds = house.store.get_historical_features(spine, [view], late_data=late_data, timestamp="t")
    found: list[Any] = ds.to_pyarrow().column(features).to_pylist()
    return found


def train(house: House, spine: Any, *views: Any, timestamp: str = "t") -> list[dict[str, Any]]:
    """Return the training set as dicts."""
    import pyarrow as pa

    table = spine if isinstance(spine, pa.Table | str) else pa.Table.from_pylist(spine)
    ds = house.store.get_historical_features(table, list(views), timestamp=timestamp)
    rows: list[dict[str, Any]] = ds.to_pyarrow().to_pylist()
    return rows


def online(house: House, view: FeatureView, **keys: Any) -> tuple[Any, str]:
    """Return value and status of x, as of the clock."""
    answer = house.store.get_online_features([view], [keys])
    return answer.to_list()[0]["x"], str(answer.statuses["x"][0])


PLAIN = Case(
    spine_rows=tuple(
        {"spine_place": place, "spine_number": number, "t": at, "label": label, "weight": weight}
        for label, (place, number, at, weight) in enumerate(
            [
                ("12", 3, NOON, 0.5),
                ("12", 3, NOON, 0.5),
                ("1", 23, NOON + DAY, None),
                (None, 23, NOON, 1.0),
                ("1", None, None, 2.0),
                ("12", 3, NOON + 3 * DAY, 0.5),
                ("1", 23, NOON - TICK, 0.5),
                ("nowhere", 1, NOON, 0.5),
            ]
        )
    ),
    source_rows=(
        {"place": "12", "number": 3, "happened": NOON, "written": None, "id": 1,
         "amount": 1.0, "word": "old"},
        {"place": "12", "number": 3, "happened": NOON, "written": NOON, "id": 2**53 + 1,
         "amount": None, "word": "new"},
        {"place": "1", "number": 23, "happened": NOON, "written": NOON, "id": 3,
         "amount": 3.0, "word": None},
        {"place": None, "number": 23, "happened": NOON, "written": NOON, "id": 4,
         "amount": 4.0, "word": "no"},
    ),
    join_keys={"place": "spine_place", "number": "spine_number"},
    event="happened", created="written",
    spine_kind="naive", event_kind="naive", created_kind="naive",
    ttl=DAY, boundary=None, delay=timedelta(0), timezone="UTC",
)  # fmt: skip
ANSWER = [
    (2**53 + 1, None, "new"),
    (2**53 + 1, None, "new"),
    (3, 3.0, None),
    *[(None, None, None)] * 5,
]
