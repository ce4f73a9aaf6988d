"""The spine of a batch: the keys that views know at an instant, each once, wherever they live."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from virtualfs.compiler.plan import Part
from virtualfs.compiler.program import compile_known_keys
from virtualfs.provider import Warehouse, bounded
from virtualfs.training.spine import StreamedSpine, WarehouseSpine

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["spine_of_known_keys"]

_TIMESTAMP = "event_timestamp"


def spine_of_known_keys(
    parts: Sequence[Part], at: datetime, warehouse: Callable[[str], Warehouse]
) -> Any:
    """Return a spine of what the views know at an instant, and the instant.

    Where they lie in one warehouse it is made there. Otherwise each is asked for its keys, which
    are held in this process.

    Parameters
    ----------
    parts
        Views on the same spine columns.
    at
        The instant, in UTC.
    warehouse
        Returns a warehouse by its name.
    """
    by_warehouse: dict[str, list[Part]] = {}
    for part in parts:
        by_warehouse.setdefault(part.view.warehouse, []).append(part)
    naive = at.replace(tzinfo=None)
    asked = [
        (
            warehouse(name),
            compile_known_keys(items, naive, _TIMESTAMP, warehouse(name).capabilities),
        )
        for name, items in by_warehouse.items()
    ]
    if len(asked) == 1:
        return WarehouseSpine(*asked[0][1])

    import ibis
    import pyarrow as pa

    declared = dict(zip(parts[0].key_columns, parts[0].view.join_keys.values(), strict=True))
    kinds = {name: ibis.dtype(dtype).to_pyarrow() for name, dtype in sorted(declared.items())}
    schema = pa.schema([*kinds.items(), (_TIMESTAMP, pa.timestamp("us", "UTC"))])

    def read() -> pa.RecordBatchReader:
        tables = []
        for place, (select, columns) in asked:
            types = {name: str(dtype).lstrip("!") for name, dtype in columns.items()}
            with place.session() as session, bounded(session):
                found = session.query(select, types)
            tables.append(found.select([*kinds]).cast(pa.schema([*kinds.items()])))
        keys = pa.concat_tables(tables).group_by([*kinds]).aggregate([])
        instants = pa.array([at.astimezone(UTC)] * keys.num_rows, schema.field(_TIMESTAMP).type)
        return (
            keys.append_column(_TIMESTAMP, instants).select(schema.names).cast(schema).to_reader()
        )

    return StreamedSpine(read, schema, None, once=False)
