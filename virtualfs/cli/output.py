"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import base64
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import click

from virtualfs.display import Shown, shown_text, text_table
from virtualfs.errors import printable

if TYPE_CHECKING:
    from virtualfs.store import FeatureStore

__all__ = [
    "ask", "coloured", "echo", "echo_json", "echo_marked", "echo_shown", "echo_table",
    "json_option", "open_store",
]  # fmt: skip

_C1_CONTROLS = re.compile(r"[\x7f-\x9f]")
"""Control characters that JSON lets stand in strings."""
json_option: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON."
)


def open_store(ctx: click.Context, environment: str | None = None) -> FeatureStore:
    """Open the store that the command line names, and close it when the command ends."""
    from virtualfs.store import FeatureStore

    store: FeatureStore = ctx.with_resource(
        FeatureStore(
            ctx.obj.get("config"),
            environment=environment or ctx.obj.get("environment"),
            revision=ctx.obj.get("revision"),
        )
    )
    return store


def ask(question: str) -> None:
    """Ask on the terminal, and go no further on a no.

    Raises
    ------
    click.UsageError
        There is no terminal.
    """
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask on; pass --yes to go on")
    click.confirm(question, abort=True, err=True)


def echo(text: str = "", *, err: bool = False, nl: bool = True, **style: Any) -> None:
    """Print text, its control characters written out, perhaps in a style of :func:`click.style`."""
    shown = printable(text)
    click.echo(click.style(shown, **style) if style else shown, err=err, nl=nl)


def echo_marked(mark: str, text: str, *, err: bool = False) -> None:
    """Print text behind a mark in yellow."""
    click.echo(f"{click.style(mark, fg='yellow')} {printable(text)}", err=err)


def echo_json(value: Any) -> None:
    """Print a value as JSON: times as RFC 3339, NaN and infinities as null, bytes as base64."""
    text = json.dumps(_plain(value), indent=2, ensure_ascii=False)
    click.echo(_C1_CONTROLS.sub(lambda match: f"\\u{ord(match.group()):04x}", text))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime | date):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)


def echo_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> None:
    """Print rows as a table as wide as the terminal; piped output is never cut."""
    click.echo(text_table(columns, rows, title))


def echo_shown(value: Shown) -> None:
    """Print an object as it shows itself."""
    click.echo(shown_text(value))


_COLOURS = {"+ ": "green", "- ": "red", "~ ": "yellow", "! ": "yellow"}


def coloured(plan: str) -> str:
    """Return a plan's text with its lines in the colours of a diff."""
    return "\n".join(
        click.style(line, fg=_COLOURS[line.lstrip()[:2]]) if line.lstrip()[:2] in _COLOURS else line
        for line in plan.splitlines()
    )
