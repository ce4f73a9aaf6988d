"""A view's statement with its columns left open, compiled once for all views of one shape.

Only keys and times decide which row wins; every other column passes through. So Ibis is given one
column in the place of them all, one output in the place of all outputs, and a function without
meaning in the place of the hash that breaks ties. What they stand for is written into the text,
view by view, which costs a tenth of compiling it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from sqlglot import exp

from virtualfs.capabilities import Capabilities
from virtualfs.compiler import sql
from virtualfs.compiler.plan import Part, ResolvedView
from virtualfs.compiler.rows import hashed_columns

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["KeyTypes", "Template", "open_hash", "shape_of"]

KeyTypes = tuple[tuple[str, str], ...]
"""Pairs of a spine's key column and its type."""

# What stands in a template in the place of ...
_PAYLOAD = "virtualfs_payload"  # all columns that pass through
_OUTPUT = "virtualfs_output"  # the names of all outputs
_VALUES = "virtualfs_values"  # the values of all outputs, with their names
_FEATURE = "virtualfs_feature"  # the column that one output shows
_NULL = "virtualfs_null"  # the NULL that it shows beyond the TTL
_HASH = "virtualfs_hash"  # the hash of a row
_TABLE = "virtualfs_table"  # the table that hashed columns are read from


def open_hash(values: Sequence[ir.Value]) -> ir.Value:
    """Stand for the engine's hash of a row, whatever its columns."""
    return sql.builtin(_HASH, (sql.type_text(values[0]),), "int64")(values[0])


def shape_of(part: Part, key_types: KeyTypes) -> tuple[Part, KeyTypes]:
    """Return a part of the same keys, times and rules with nothing of its own left in it."""
    view = part.view
    names = _names(view)
    payload = _payload(view)
    columns = {names[name]: dtype for name, dtype in view.columns.items() if name not in payload}
    if payload:
        columns[_PAYLOAD] = "int64"
    times = ("event_timestamp", "created_timestamp", "valid_to")
    shaped = view.model_copy(
        update={
            **{name: names.get(getattr(view, name) or "") for name in times},
            "name": "",
            "version": None,
            "fingerprint": "",
            "warehouse": "",
            "entities": (),
            "join_keys": {names[key]: dtype for key, dtype in view.join_keys.items()},
            "rows_sql": "",
            "source_sql": None,
            "source_columns": {},
            "columns": columns,
            "features": (),
            "online": True,
            "freshness": None,
            "description": "",
            "key_forms": {},
        }
    )
    spine_names = _spine_names(key_types)
    shape = Part(
        shaped,
        tuple(spine_names[name] for name in part.key_columns),
        ((next(reversed(columns)), _OUTPUT),),
        part.late_data,
    )
    return shape, tuple((spine_names[name], dtype) for name, dtype in key_types)


@dataclass(frozen=True)
class Template:
    """The text of a shape's statement, to be filled with the names of a part of that shape."""

    text: str
    value: str
    """The text of one output's value."""

    @classmethod
    def of(cls, tree: exp.Expr, dialect: str) -> Template:
        """Return the template of a shape's statement, whose tree is used up."""
        place = next(alias for alias in tree.find_all(exp.Alias) if alias.alias == _OUTPUT)
        value = place.this
        shown = value.args["true"] if isinstance(value, exp.If) else value
        shown.set("this", sql.identifier(_FEATURE))
        if shown is not value:  # NULL beyond the TTL, of the feature's own type
            missing = sql.column(_NULL)
            value = exp.Case(ifs=[exp.If(this=value.this, true=shown)], default=missing)
        place.replace(sql.column(_VALUES))
        return cls(sql.text(tree, dialect), sql.text(value, dialect))

    def filled(self, part: Part, key_types: KeyTypes, capabilities: Capabilities) -> str:
        """Return the statement of a part, with its view's rows still to be bound."""
        dialect = capabilities.dialect
        stand_ins = (*_names(part.view).items(), *_spine_names(key_types).items())
        own = {stand_in: name for name, stand_in in stand_ins}
        payload = [sql.quoted(name, dialect) for name in _payload(part.view)]
        outputs = [sql.quoted(output, dialect) for _, output in part.outputs]
        hashed = _hash_text(part.view, capabilities)
        open_table = sql.quoted(_TABLE, dialect)
        pattern = _pattern(dialect)

        def fill(text: str, feature: str = "", null: str = "") -> str:
            def meant(found: re.Match[str]) -> str:
                table, name = found["table"] or "", found["name"]
                line = text[text.rfind("\n", 0, found.start()) + 1 : found.start()]
                margin = "\n" + " " * (len(line) - len(line.lstrip()))
                if found["hash"]:
                    return hashed.replace(f"{open_table}.", table).replace("\n", margin)
                if name == _PAYLOAD:
                    return f",{margin}".join(table + column for column in payload)
                if name == _OUTPUT:
                    return f",{margin}".join(table + output for output in outputs)
                if name == _VALUES:
                    return f",{margin}".join(values).replace("\n", margin)
                if name == _NULL:
                    return null
                return table + (feature if name == _FEATURE else sql.quoted(own[name], dialect))

            return pattern.sub(meant, text)

        def null_of(feature: str) -> str:
            return _null_text(part.view.columns[feature], capabilities)

        values = [
            f"{fill(self.value, sql.quoted(feature, dialect), null_of(feature))} AS {output}"
            for (feature, _), output in zip(part.outputs, outputs, strict=True)
        ]
        return fill(self.text)


@cache
def _null_text(dtype: str, capabilities: Capabilities) -> str:
    return sql.text(sql.cast(exp.null(), dtype, capabilities), capabilities.dialect)


@cache
def _pattern(dialect: str) -> re.Pattern[str]:
    before, after = (re.escape(mark) for mark in sql.quoted("x", dialect).split("x"))
    table = rf"(?P<table>{before}\w+{after}\.)?"
    name = rf"{before}(?P<name>virtualfs_[a-z]+(?:_\d+)?){after}"
    again = rf"(?: AS {before}{_PAYLOAD}{after})?"
    return re.compile(rf"(?P<hash>\b{_HASH}\()?{table}{name}(?(hash)\)|{again})", re.IGNORECASE)


def _names(view: ResolvedView) -> dict[str, str]:
    """Return a view's keys and times, and what stands for them."""
    times = (view.event_timestamp, view.created_timestamp, view.valid_to)
    fixed = [name for name in view.columns if name in view.join_keys or name in times]
    return {name: f"virtualfs_column_{number}" for number, name in enumerate(fixed)}


def _payload(view: ResolvedView) -> list[str]:
    """Return the columns that pass through."""
    fixed = _names(view)
    return [name for name in view.columns if name not in fixed]


def _spine_names(key_types: KeyTypes) -> dict[str, str]:
    return {name: f"virtualfs_key_{number}" for number, (name, _) in enumerate(key_types)}


def _hash_text(view: ResolvedView, capabilities: Capabilities) -> str:
    """Return the hash of a row as text, its columns read from the open table."""
    import ibis

    rows = ibis.table(view.columns, name=_TABLE)
    hashed = capabilities.row_hash([rows[name] for name in hashed_columns(view)])
    tree = sql.render(rows.select(hashed=hashed), capabilities).expressions[0].unalias()
    for column in tree.find_all(exp.Column):
        column.set("table", sql.identifier(_TABLE))
    return sql.text(tree, capabilities.dialect)
