"""Why values of a training set are missing: counted in the warehouse, with sample rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from virtualfs.display import Block, Code, Shown
from virtualfs.errors import printable

__all__ = ["Diagnosis", "ViewDiagnosis"]


@dataclass(frozen=True)
class ViewDiagnosis:
    """One view's part.

    Parameters
    ----------
    counts
        Spine rows by reason: ``present``, ``NULL key or instant``, ``no such key``,
        ``only later rows``, ``not yet known``, ``not valid then``, ``over the TTL``.
    nulls
        NULLs in rows that are present, by output column.
    samples
        Some spine rows of each reason but ``present``.
    """

    view: str
    counts: dict[str, int]
    nulls: dict[str, int]
    samples: dict[str, list[dict[str, Any]]]

    def __str__(self) -> str:
        total = sum(self.counts.values())
        lines = [f"{self.view}: {self.counts.get('present', 0):,} of {total:,} rows have a winner"]
        for reason, count in self.counts.items():
            if reason == "present":
                continue
            rows = "; ".join(
                ", ".join(f"{name}={value}" for name, value in row.items())
                for row in self.samples.get(reason, [])
            )
            example = f", for example {rows}" if rows else ""
            lines.append(f"    {count:,} {reason} ({count / total:.1%}){example}")
        lines += [
            f"    {count:,} NULL in the row: {name}" for name, count in self.nulls.items() if count
        ]
        return printable("\n".join(lines))


@dataclass(frozen=True)
class Diagnosis(Shown):
    """What :meth:`virtualfs.training.dataset.TrainingDataset.diagnose` found, view by view."""

    views: tuple[ViewDiagnosis, ...]

    def __str__(self) -> str:
        return printable("\n".join(str(view) for view in self.views))

    def _blocks(self) -> list[Block]:
        return [Code(str(self))]

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return the findings as plain data, by view."""
        return {
            view.view: {"counts": view.counts, "nulls": view.nulls, "samples": view.samples}
            for view in self.views
        }
