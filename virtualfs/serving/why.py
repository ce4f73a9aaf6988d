"""Why a feature has its value: the source row behind it, and the rows that lost, by which rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from virtualfs.compiler.instant import HAPPENED, VISIBLE, YOUNG
from virtualfs.compiler.plan import LateData, ResolvedView
from virtualfs.compiler.program import compile_candidates, on_spine
from virtualfs.compiler.rows import EVENT
from virtualfs.definitions.duration import format_duration
from virtualfs.display import Block, Grid, Note, Shown, cell, shown_text
from virtualfs.lookups import KeySpine
from virtualfs.provider import Warehouse, temporary_name
from virtualfs.serving.codec import to_micros

__all__ = ["Explanation", "explain_value"]

_ROWS = 6
"""Rows to show that count at the instant, and as many that do not."""


@dataclass(frozen=True)
class Explanation(Shown):
    """Why a feature has its value at an instant.

    Parameters
    ----------
    value
        The value, as training and online reads give it.
    reason
        Why it is that, in words.
    row
        The source row that it is read from, keys and times and features; None if there is none.
    others
        Rows of the same keys that lost, the nearest first, each with why.
    notes
        How to read the rows.
    """

    feature: str
    keys: Mapping[str, Any]
    at: datetime
    value: Any
    reason: str
    row: Mapping[str, Any] | None
    others: tuple[tuple[Mapping[str, Any], str], ...]
    notes: tuple[str, ...] = ()

    def _blocks(self) -> list[Block]:
        keys = ", ".join(f"{name}={cell(value)}" for name, value in self.keys.items())
        head = f"{self.feature} of {keys or 'the world'} at {self.at.isoformat(sep=' ')}"
        shown: list[Block] = [
            Note(f"{head}: {cell(self.value)}", strong=True), Note(f"Because {self.reason}.")
        ]  # fmt: skip
        rows = [(self.row, "won")] if self.row is not None else []
        rows += list(self.others)
        if rows:
            names = list(rows[0][0])
            shown.append(Grid(["", *names], [[why, *row.values()] for row, why in rows]))
        shown += [Note(note) for note in self.notes]
        return shown

    def __str__(self) -> str:
        return shown_text(self)


def explain_value(
    view: ResolvedView,
    feature: str,
    keys: Mapping[str, Any],
    at: datetime,
    warehouse: Warehouse,
    late_data: LateData = "include",
) -> Explanation:
    """Ask the warehouse for the rows of one key, and say which of them wins and why.

    Parameters
    ----------
    keys
        One value for each of the view's join keys.
    at
        The instant, with a zone.
    """
    capabilities = warehouse.capabilities
    select = compile_candidates(view, capabilities, late_data, _ROWS)
    spine = KeySpine(view.join_keys, [tuple(keys.values())], to_micros(at))
    schema = {**view.columns, EVENT: capabilities.instant_type, VISIBLE: "boolean"}
    schema |= {HAPPENED: "boolean", YOUNG: "boolean"}
    name = temporary_name()
    with warehouse.session() as session:
        session.load(name, spine.table(capabilities.instant_type))
        found = session.query(on_spine(select, name, capabilities.dialect), schema).to_pylist()
    rows = [{column: row[column] for column in view.columns} for row in found]
    label = f"{view.label.partition(' ')[0]}:{feature}"

    def answer(value: Any, reason: str, winner: int | None) -> Explanation:
        others = tuple(
            (row, _lost(view, found, number)) for number, row in enumerate(rows) if number != winner
        )
        row = None if winner is None else rows[winner]
        notes = []
        if view.timezone != "UTC":
            notes.append(f"Times without a zone are as the source has them, in {view.timezone}.")
        for visible in (True, False):
            if sum(row[VISIBLE] is visible for row in found) == _ROWS:
                which = "count" if visible else "do not"
                notes.append(f"Of rows that {which} at the instant, at most {_ROWS} are shown.")
        return Explanation(label, keys, at.astimezone(UTC), value, reason, row, others, (*notes,))

    if None in keys.values():
        return answer(None, "a NULL key matches nothing", None)
    if not found:
        return answer(None, "there is no row with these keys and a time", None)
    if not found[0][VISIBLE]:
        return answer(None, "none of the key's rows counts at the instant", None)
    if found[0][YOUNG] is False:
        ttl = format_duration(view.ttl) if view.ttl else ""
        return answer(None, f"the latest row is older than the TTL of {ttl}", 0)
    value = rows[0][feature]
    if view.event_timestamp is None:
        why = "the source has no times, and of the key's rows this one is taken at every instant"
    elif view.valid_to:
        why = f"the row was valid from {cell(rows[0][view.event_timestamp])} on"
    else:
        why = f"the row of {cell(rows[0][view.event_timestamp])} is the latest that counts"
    return answer(value, why + (", and it holds NULL" if value is None else ""), 0)


def _lost(view: ResolvedView, found: list[dict[str, Any]], number: int) -> str:
    """Return why a row did not win, by the rules of the data's meaning."""
    row, best = found[number], found[0]
    if not row[VISIBLE]:
        if view.valid_to:
            return "not valid at the instant"
        if not row[HAPPENED]:
            return "after the instant"
        unknown = row[view.created_timestamp or ""] is None
        return "written at an unknown time" if unknown else "written after the instant"
    if row[EVENT] != best[EVENT]:
        return "earlier"
    created = view.created_timestamp
    if created and row[created] != best[created]:
        return "same time, written earlier"
    return "tied in time; its hash is lower"
