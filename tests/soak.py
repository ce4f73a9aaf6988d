"""More than a million generated cases against the oracle: ``make soak``, not part of the suite.

Seeds start at the second of the run, so every run tries others; a failure names its seed, and
``batch(seed, GROUPS, domain)`` makes the same cases again.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from virtualfs.testing.house import ask, judge
from virtualfs.testing.strategies import batch

GROUPS = 200
BLOCK = 50
FIRST = int(time.time()) // 100_000 * 100_000
BLOCKS = {"duckdb": 70, "postgres": 24, "sqlite": 10}


@pytest.mark.parametrize(
    ("engine", "block"),
    [(engine, block) for engine, count in BLOCKS.items() for block in range(count)],
)
def test_batches(engine: str, block: int, request: pytest.FixtureRequest) -> None:
    house: Any = request.getfixturevalue(f"{engine}_house")
    for seed in range(FIRST + block * BLOCK, FIRST + (block + 1) * BLOCK):
        case = batch(seed, GROUPS, house.domain)
        try:
            judge(case, ask(house, case).to_pyarrow())
        except AssertionError as error:
            raise AssertionError(f"batch({seed}, {GROUPS}) on {engine}: {error}") from error
