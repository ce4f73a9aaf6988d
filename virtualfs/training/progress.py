"""A progress bar on a terminal, for work that takes longer than a moment."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
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
    """Shows on standard error which view is being answered, if that is a terminal."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        self._done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def over(self, steps: Iterable[_S]) -> Iterator[_S]:
        """Yield the steps of one piece of work, showing each while it is done."""
        total = len(steps) if isinstance(steps, Sized) else None
        for number, step in enumerate(steps):
            self._show(step.view, number, total)
            yield step
            self._done += 1

    def _show(self, view: str, number: int, total: int | None) -> None:
        if self._bar is None:
            if not sys.stderr.isatty() or time.monotonic() - self._started < _PATIENCE:
                return
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[steps]}"),
                TimeElapsedColumn(), console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task("", total=total, steps="")
        steps = f"{self._done} views answered"
        self._bar.update(self._task, completed=number, description=view, steps=steps)
