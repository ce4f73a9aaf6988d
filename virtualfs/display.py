"""How objects show themselves: tables and code, as text for terminals and HTML for notebooks.

A class that inherits :class:`Shown` says what is seen as blocks; both forms are made of those. They
never raise: a notebook cell that fails because of how its value looks helps nobody.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any

from virtualfs.errors import printable

__all__ = ["Block", "Code", "Grid", "Note", "Shown", "cell", "shown_text", "text_table"]

_BORDER = "border:1px solid rgba(128,128,128,.35);padding:3px 8px;text-align:left"
COLOURS = {
    "PRESENT": "#1a7f37",
    "NULL_VALUE": "#9a6700",
    "STALE": "#9a6700",
    "NOT_FOUND": "#cf222e",
    "OUTSIDE_MAX_AGE": "#cf222e",
}
"""Colours of the statuses of online values, legible on light and dark pages."""


@dataclass(frozen=True)
class Grid:
    """A table of values."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    title: str = ""

    def text(self) -> str:
        """Return the table as text."""
        return text_table(self.columns, self.rows, self.title)

    def html(self) -> str:
        """Return the table as HTML."""
        heads = self.columns if any(self.columns) else ()
        head = "".join(f'<th style="{_BORDER}">{escape(name)}</th>' for name in heads)
        body = "".join(
            "<tr>" + "".join(_html_cell(value) for value in row) + "</tr>" for row in self.rows
        )
        title = f"<caption style='text-align:left'>{escape(self.title)}</caption>" * bool(
            self.title
        )
        return (
            f'<table style="border-collapse:collapse;margin:4px 0">{title}'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )


@dataclass(frozen=True)
class Code:
    """Text of fixed width, folded away in HTML where it has a title."""

    body: str
    title: str = ""

    def text(self) -> str:
        """Return the text; what would be folded away is left out."""
        return "" if self.title else printable(self.body)

    def html(self) -> str:
        """Return the text as HTML."""
        body = f'<pre style="text-align:left">{escape(self.body)}</pre>'
        if not self.title:
            return body
        return f"<details><summary>{escape(self.title)}</summary>{body}</details>"


@dataclass(frozen=True)
class Note:
    """A line of words."""

    body: str
    strong: bool = False

    def text(self) -> str:
        """Return the line."""
        return printable(self.body)

    def html(self) -> str:
        """Return the line as HTML."""
        words = escape(self.body)
        return f"<div>{f'<b>{words}</b>' if self.strong else words}</div>"


Block = Grid | Code | Note


class Shown:
    """Shows itself in notebooks and at IPython's prompt by the blocks that `_blocks` returns.

    `_blocks` reads what the object already knows: it runs no query.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # IPython looks for it beside __repr__, class by class.
        cls._repr_pretty_ = Shown._repr_pretty_  # type: ignore[method-assign]

    def _blocks(self) -> Iterable[Block]:
        raise NotImplementedError

    def _repr_html_(self) -> str:
        try:
            return f"<div>{''.join(block.html() for block in self._blocks())}</div>"
        except Exception:  # noqa: BLE001 - see the module's docstring
            return f"<pre>{escape(_plain_repr(self))}</pre>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002
        try:
            text = shown_text(self)
        except Exception:  # noqa: BLE001 - see the module's docstring
            text = _plain_repr(self)
        printer.text(text)


def shown_text(value: Shown) -> str:
    """Return how an object shows itself, as text."""
    return "\n\n".join(filter(None, (block.text() for block in value._blocks())))


def _plain_repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - see the module's docstring
        return object.__repr__(value)


def _html_cell(value: Any) -> str:
    text = cell(value)
    colour = COLOURS.get(text)
    style = f"{_BORDER};color:{colour};font-weight:600" if colour else _BORDER
    return f'<td style="{style}">{escape(text)}</td>'


def text_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> str:
    """Return rows as a table as wide as the terminal; where there is none it is never cut."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Notebooks tell Rich to colour and to show things itself; this text is returned.
    terminal = sys.stdout.isatty()
    console = Console(
        highlight=False, force_jupyter=False, force_terminal=terminal,
        width=None if terminal else 10_000,
    )  # fmt: skip
    headed = any(columns)
    table = Table(
        title=title or None,
        title_justify="left",
        box=box.SIMPLE_HEAD if headed else None,
        show_header=headed,
        pad_edge=headed,
    )
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row))
    with console.capture() as capture:
        console.print(table)
    lines = [line.rstrip() for line in capture.get().split("\n")]
    filled = [number for number, line in enumerate(lines) if line]
    return "\n".join(lines[filled[0] : filled[-1] + 1]) if filled else ""


def cell(value: Any) -> str:
    """Return a value as a person reads it: NULL and NaN as ``-``, times to the second.

    >>> cell(None), cell(True), cell(0.1 + 0.2), cell([1, 2])
    ('-', 'yes', '0.3', '1, 2')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        zone = "Z" if value.tzinfo else ""
        return value.replace(tzinfo=None).isoformat(sep=" ", timespec="seconds") + zone
    if isinstance(value, list | tuple):
        return ", ".join(cell(item) for item in value)
    return "".join(char if char.isprintable() else " " for char in str(value))
