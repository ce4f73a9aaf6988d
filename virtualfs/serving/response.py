"""The answer of an online read, as callers hold it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from virtualfs.cached import cached_property
from virtualfs.display import Block, Grid, Note, Shown
from virtualfs.dtypes import nullable_pandas
from virtualfs.lookups import array_of
from virtualfs.serving.on_demand import FeatureStatus

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Judged", "OnlineResponse", "own_statuses"]

Judged = tuple[list[FeatureStatus], list[datetime | None]]
"""Of the rows behind one feature, by entity: statuses, and event timestamps."""

_SHOWN = 100
"""Values that an answer shows of itself."""


@dataclass(frozen=True)
class OnlineResponse(Shown):
    """Feature values per entity, in the order asked for.

    Parameters
    ----------
    names
        Feature columns.
    keys
        One dict of join keys per entity.
    values
        One tuple per entity, each in the order of `names`.
    dtypes
        Data types of keys and features.
    """

    names: tuple[str, ...]
    keys: tuple[dict[str, Any], ...]
    values: tuple[tuple[Any, ...], ...]
    dtypes: Mapping[str, str]
    _judge: Callable[[], Mapping[str, Judged]]

    def __post_init__(self) -> None:
        # Lists and structs may be those of rows that others are answered from.
        if any("<" in self.dtypes[name] for name in self.names):
            object.__setattr__(self, "values", deepcopy(self.values))

    def __repr__(self) -> str:
        return f"OnlineResponse({len(self.values)} entities: {', '.join(self.names)})"

    def _blocks(self) -> list[Block]:
        statuses, events = self.statuses, self.event_timestamps
        lines = (
            (*keys.values(), name, value, statuses[name][number].value, events[name][number])
            for number, (keys, row) in enumerate(zip(self.keys, self.values, strict=True))
            for name, value in zip(self.names, row, strict=True)
        )
        heads = [*(self.keys[0] if self.keys else ()), "feature", "value", "status", "event"]
        shown: list[Block] = [Grid(heads, list(islice(lines, _SHOWN)))]
        more = len(self.names) * len(self.keys) - _SHOWN
        if more > 0:
            shown.append(Note(f"and {more:,} more values"))
        return shown

    def to_list(self) -> list[dict[str, Any]]:
        """Return one dict per entity: keys, then features."""
        return [
            {**keys, **dict(zip(self.names, row, strict=True))}
            for keys, row in zip(self.keys, self.values, strict=True)
        ]

    def to_dict(self) -> dict[str, list[Any]]:
        """Return a dict of lists: keys, then features."""
        own = [name for name in self.dtypes if name not in self.names]
        columns = {name: [keys[name] for keys in self.keys] for name in own}
        return {**columns, **self._by_feature(self.values)}

    @cached_property
    def statuses(self) -> dict[str, list[FeatureStatus]]:
        """Statuses as a dict of lists by feature."""
        return {
            name: own_statuses([row[number] for row in self.values], self._judged[name][0])
            for number, name in enumerate(self.names)
        }

    @cached_property
    def event_timestamps(self) -> dict[str, list[datetime | None]]:
        """Event timestamps (UTC) of the rows behind the values, as a dict of lists by feature."""
        return {name: [*self._judged[name][1]] for name in self.names}

    def to_pandas(self) -> pd.DataFrame:
        """Return a pandas frame; integers and booleans stay whole beside NULLs."""
        import pyarrow as pa

        arrays = {
            name: array_of(values, self.dtypes[name]) for name, values in self.to_dict().items()
        }
        frame: pd.DataFrame = pa.table(arrays).to_pandas(types_mapper=nullable_pandas)
        return frame

    @cached_property
    def _judged(self) -> Mapping[str, Judged]:
        return self._judge()

    def _by_feature(self, rows: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
        return {name: [row[number] for row in rows] for number, name in enumerate(self.names)}


def own_statuses(values: Sequence[Any], statuses: Sequence[FeatureStatus]) -> list[FeatureStatus]:
    """Return the statuses of one feature's values, from those of the rows that they are of."""
    present, null = FeatureStatus.PRESENT, FeatureStatus.NULL_VALUE
    return [
        null if value is None and status is present else status
        for value, status in zip(values, statuses, strict=True)
    ]
