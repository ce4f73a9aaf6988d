"""Data that breaks what a view assumes of it: counted in the warehouse, with samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from virtualfs.compiler import quality
from virtualfs.compiler.plan import ResolvedView
from virtualfs.display import Block, Code, Shown
from virtualfs.errors import printable
from virtualfs.provider import Warehouse

__all__ = ["CheckReport", "Finding", "check_views"]

_SAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """One kind of trouble in one view's source.

    Parameters
    ----------
    kind
        ``null_keys``, ``null_times``, ``future_times``, ``ties``, ``empty_validity``, ``overlaps``,
        ``misplaced``.
    meaning
        What it is and what follows from it, in words.
    rows
        How many source rows it is about.
    samples
        Keys and times of some of them.
    """

    view: str
    kind: str
    meaning: str
    rows: int
    samples: tuple[dict[str, Any], ...]

    def __str__(self) -> str:
        shown = "; ".join(
            ", ".join(f"{name}={value}" for name, value in row.items()) for row in self.samples
        )
        return printable(f"{self.view}: {self.rows:,} {self.meaning}\n    for example {shown}")


@dataclass(frozen=True)
class CheckReport(Shown):
    """What was found, and statements that would make the warehouse faster."""

    views: tuple[str, ...]
    findings: tuple[Finding, ...]
    advice: tuple[str, ...]
    drift: tuple[str, ...] = ()
    """What the warehouse no longer has as the registry knows it, in words."""

    def __bool__(self) -> bool:
        return bool(self.findings or self.drift)

    def _blocks(self) -> list[Block]:
        return [Code(str(self))]

    def __str__(self) -> str:
        if not self.views and not self.drift:
            return "No view is applied yet, so nothing was checked; run `virtualfs apply` first."
        count = len(self.views)
        lines = [f"drift: {item}" for item in self.drift]
        lines += [str(finding) for finding in self.findings]
        if not lines:
            lines = [f"{count} view{'s' * (count != 1)} checked; the data is as they assume."]
        if self.advice:
            lines += ["", "An index would make these views faster:"]
            lines += [f"    {statement}" for statement in self.advice]
        return printable("\n".join(lines))


def check_views(
    views: Iterable[tuple[ResolvedView, Warehouse]], now: datetime, drift: Iterable[str] = ()
) -> CheckReport:
    """Look at the source of each view.

    Parameters
    ----------
    now
        The instant after which a row is of the future.
    drift
        What was found of columns, to be told with the rest.
    """
    names, findings, advice = [], [], []
    naive = now.astimezone(UTC).replace(tzinfo=None)
    for view, warehouse in views:
        names.append(view.label)
        findings += _check(view, warehouse, naive)
        advice += [text for text in warehouse.advice(view) if text not in advice]
    return CheckReport(tuple(names), tuple(findings), tuple(advice), tuple(drift))


def _check(view: ResolvedView, warehouse: Warehouse, now: datetime) -> list[Finding]:
    capabilities = warehouse.capabilities
    found = []
    with warehouse.session() as session:
        for kind, (meaning, rows, read) in quality.broken(view, now, capabilities).items():
            counted = session.query(
                quality.counted(rows, read, capabilities), {quality.COUNT: "int64"}
            )
            count = int(counted.column(0)[0].as_py() or 0)
            if count:
                select = quality.sampled(rows, read, capabilities, _SAMPLES)
                samples = session.query(select, quality.shown_columns(view))
                found.append(Finding(view.label, kind, meaning, count, tuple(samples.to_pylist())))
    return found
