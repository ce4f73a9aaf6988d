"""Whether a spine fits the features that are asked of it: columns, their types, their instants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from virtualfs.compiler.plan import FeaturePlan
from virtualfs.dtypes import is_lossless, key_family
from virtualfs.errors import SpineError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "check_arrow", "check_types", "distinct", "needed_columns", "request_column", "zone_doubt",
]  # fmt: skip


def needed_columns(plan: FeaturePlan, timestamp: str, columns: Sequence[str]) -> list[str]:
    """Return the spine's columns that a plan needs.

    Raises
    ------
    SpineError
        One is missing.
    """
    for name, dtype in plan.request.items():
        if name not in columns:
            raise SpineError(
                f"the spine lacks the column {name!r} ({dtype}), which on-demand features take "
                f"from a request; it has {', '.join(columns) or 'none'}"
            )
    needed = list(plan.key_columns)
    for name in needed:
        if name not in columns:
            raise SpineError(
                f"the spine lacks the join key {name!r}; it has {', '.join(columns) or 'none'}. "
                "Rename its column, or in Python use view.with_join_keys({...})"
            )
    if plan.needs_time:
        if timestamp not in columns:
            raise SpineError(
                f"the spine has no timestamp column {timestamp!r}; it has "
                f"{', '.join(columns) or 'none'}. Name it with timestamp= (--timestamp)"
            )
        needed.append(timestamp)
    return [*dict.fromkeys([*needed, *plan.request])]


_WHOLE = ". pandas turns integers beside missing values into floats: use .astype('Int64')"


def distinct(names: Sequence[str], what: str = "the spine's columns") -> list[str]:
    """Return names once each, refusing those that a warehouse cannot tell apart."""
    folded: dict[str, str] = {}
    for name in names:
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            raise SpineError(
                f"{what} {other!r} and {name!r} differ only in case, which a warehouse does not "
                "tell apart; rename one"
            )
    return list(folded.values())


def check_arrow(plan: FeaturePlan, timestamp: str, schema: pa.Schema) -> Any:
    """Return the instants' type of rows that a client holds.

    Raises
    ------
    SpineError
        What is needed is missing, or does not fit.
    """
    import ibis

    dtypes = {}
    for name in needed_columns(plan, timestamp, schema.names):
        kind = schema.field(name).type
        kind = getattr(kind, "value_type", kind) if str(kind).startswith("dict") else kind
        try:
            dtypes[name] = ibis.dtype(kind)
        except Exception:  # noqa: BLE001 - Ibis raises several kinds for types it lacks
            raise SpineError(f"the spine's column {name!r} has type {kind}") from None
    return check_types(plan, timestamp, dtypes, written=True)


def check_types(
    plan: FeaturePlan, timestamp: str, dtypes: dict[str, Any], *, written: bool = False
) -> Any:
    """Return the instants' type; raise SpineError unless all types fit.

    Parameters
    ----------
    written
        Whether UUIDs may be given as text, as by clients.
    """
    import ibis

    pairs = [
        pair
        for part in plan.parts
        for pair in zip(part.key_columns, part.view.join_keys.values(), strict=True)
    ]
    for name, declared in pairs:
        found = dtypes[name]
        if written and declared == "uuid" and found.is_string():
            continue
        if not found.is_null() and key_family(found) != key_family(ibis.dtype(declared)):
            raise SpineError(
                f"the spine's join key {name!r} is {found}, but the features are keyed by "
                f"{declared}; convert the column"
                + _WHOLE
                * (found.is_floating() and declared.startswith(("int", "uint")))
            )
    for name, declared in plan.request_columns.items():
        if not _can_become(dtypes[name], ibis.dtype(declared), written=written):
            raise SpineError(
                f"the spine's column {name!r} is {dtypes[name]}, but on-demand features take "
                f"{declared} from it; convert the column"
            )
    if plan.needs_time:
        found = dtypes[timestamp]
        if not (found.is_timestamp() or found.is_date() or found.is_null()):
            raise SpineError(
                f"the spine's timestamp column {timestamp!r} is {found}; convert it to timestamps, "
                "for example with pandas.to_datetime(..., utc=True)"
            )
        return found
    return None


def _can_become(found: Any, declared: Any, *, written: bool) -> bool:
    """Tell whether a spine's column can be a request input of a type, value by value.

    Parameters
    ----------
    written
        Whether the client holds the values, which are then checked one by one.
    """
    if found.is_null() or is_lossless(found, declared):
        return True
    if declared.is_floating():
        return bool(found.is_numeric())
    if declared.is_integer():
        return bool(written and (found.is_integer() or found.is_floating()))
    if declared.is_timestamp() and found.is_timestamp():
        # A warehouse would read a time without zone by that of the session.
        return bool(written or (found.timezone is None) == (declared.timezone is None))
    return False


def request_column(name: str, column: pa.ChunkedArray, dtype: str) -> pa.ChunkedArray:
    """Return a spine's column as a request input; what does not fit its type is refused.

    Raises
    ------
    SpineError
        A value is out of the type's range, or no whole number.
    """
    import ibis
    import pyarrow as pa

    kind = ibis.dtype(dtype).to_pyarrow()
    safe = not (pa.types.is_floating(kind) or pa.types.is_timestamp(kind))
    try:
        return column.cast(kind, safe=safe)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SpineError(f"the spine's column {name!r} does not fit {dtype}: {error}") from None


def zone_doubt(found: Any, plan: FeaturePlan, timestamp: str) -> str | None:
    """Say where a spine's instants say no zone beside views whose times are kept in one.

    Parameters
    ----------
    found
        Type of the spine's instants; None where no view goes by time.
    """
    zones = _naive_zones(plan)
    if not zones or found is None or getattr(found, "timezone", None) or found.is_null():
        return None
    return (
        f"the spine's {timestamp!r} says no zone, so its instants are read as UTC, but {zones}; "
        "give it its zone, in pandas by .dt.tz_localize('UTC') or whichever it is"
    )


def _naive_zones(plan: FeaturePlan) -> str:
    """Return which views' times are kept in another zone than UTC without saying so, in words."""
    zones = {
        part.view.name: part.view.timezone
        for part in plan.parts
        if part.view.timezone != "UTC"
        and part.view.event_timestamp
        and "'" not in part.view.columns[part.view.event_timestamp]
    }
    return ", ".join(f"the times of {name} are in {zone}" for name, zone in zones.items())
