"""A progress bar on a terminal, for work that takes longer than a moment."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

__all__ = ["Progress"]

_PATIENCE = 1.0
"""Seconds of work before a bar appears."""


class _Step(Protocol):
    @property
    def view(self) -> str: ...


_S = TypeVar("_S", bound=_Step)


class Progress:
    """Shows on standard error which view is being worked on, if that is a terminal.

    The bar appears once the work has taken a moment, also in the middle of one long statement.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bar: Any = None
        self._task: Any = None
        self._now: dict[str, Any] = {"completed": 0, "total": None, "description": "", "steps": ""}
        self._done = 0
        self._timer = threading.Timer(_PATIENCE, self._appear)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        with self._lock:
            if self._bar is not None:
                self._bar.stop()

    def over(self, steps: Sequence[_S]) -> Iterator[_S]:
        """Yield the steps of one piece of work, showing each while it is done."""
        for number, step in enumerate(steps):
            self._show(
                completed=number,
                total=len(steps),
                description=step.view,
                steps=f"{self._done} views answered",
            )
            yield step
            self._done += 1

    def counted(self, view: str, keys: int) -> None:
        """Show how many keys of a view are done, of which nobody knows the number."""
        self._show(completed=0, total=None, description=view, steps=f"{keys:,} keys")

    def _show(self, **now: Any) -> None:
        with self._lock:
            self._now = now
            if self._bar is not None:
                self._bar.update(self._task, **now)

    def _appear(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[steps]}"),
            TimeElapsedColumn(),
        )
        with self._lock:
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(**self._now)
