"""On-demand features online: what computing costs, beside the engines that could do it in process.

Ten expressions over five inputs, for 1, 10, 100 and 1,000 rows. Each way gets Python values and
gives Python values, as a server would. The medians of one run are printed, with the ratio to ours.

Run as ``python benchmarks/on_demand.py``.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from typing import Any

from virtualfs import _
from virtualfs.compiler.evaluate import compiled
from virtualfs.compiler.reading import tree_of

ROUNDS = 30
INPUTS = {
    "amount": "float64", "mean": "float64", "std": "float64", "visits": "int64", "place": "string",
}  # fmt: skip
EXPRESSIONS = {
    "share": _.amount / _.mean,
    "surprise": (_.amount - _.mean) / _.std,
    "log_amount": _.amount.ln(),
    "is_large": _.amount > _.mean + 3 * _.std,
    "visits_left": 10 - _.visits,
    "is_new": _.visits < 2,
    "per_visit": _.amount / _.visits,
    "place_known": _.place.notnull() & (_.place != "unknown"),
    "rounded": _.amount.round(1),
    "capped": (_.amount > 500.0).ifelse(500.0, _.amount),
}
SQL = {
    "share": "amount / nullif(mean, 0)",
    "surprise": "(amount - mean) / nullif(std, 0)",
    "log_amount": "case when amount > 0 then ln(amount) end",
    "is_large": "amount > mean + 3 * std",
    "visits_left": "10 - visits",
    "is_new": "visits < 2",
    "per_visit": "amount / nullif(visits, 0)",
    "place_known": "place is not null and place <> 'unknown'",
    "rounded": "round(amount, 1)",
    "capped": "case when amount > 500 then 500 else amount end",
}


def rows_of(count: int) -> list[tuple[Any, ...]]:
    chance = random.Random(count)
    return [
        (
            chance.choice([None, *[chance.uniform(1, 1000) for _number in range(9)]]),
            chance.uniform(1, 1000),
            chance.uniform(1, 100),
            chance.randrange(0, 20),
            chance.choice([None, "shop", "web", "unknown"]),
        )
        for _row in range(count)
    ]


def ways() -> dict[str, Callable[[list[tuple[Any, ...]]], Any]]:
    import duckdb
    import ibis
    import polars as pl
    import pyarrow as pa

    table = ibis.table(INPUTS, name="inputs")
    trees = tuple(
        (name, tree_of(table.bind(expression)[0], name)) for name, expression in EXPRESSIONS.items()
    )
    ours = compiled(tuple(INPUTS), (), trees)
    types = pa.schema([(name, ibis.dtype(dtype).to_pyarrow()) for name, dtype in INPUTS.items()])
    connection = duckdb.connect()
    query = "SELECT " + ", ".join(f"{sql} AS {name}" for name, sql in SQL.items()) + " FROM given"
    c = pl.col
    polars = [
        (c("amount") / c("mean")).alias("share"),
        ((c("amount") - c("mean")) / c("std")).alias("surprise"),
        c("amount").log().alias("log_amount"),
        (c("amount") > c("mean") + 3 * c("std")).alias("is_large"),
        (10 - c("visits")).alias("visits_left"),
        (c("visits") < 2).alias("is_new"),
        (c("amount") / c("visits")).alias("per_visit"),
        (c("place").is_not_null() & (c("place") != "unknown")).alias("place_known"),
        c("amount").round(1).alias("rounded"),
        pl.when(c("amount") > 500).then(500.0).otherwise(c("amount")).alias("capped"),
    ]

    def arrow(rows: list[tuple[Any, ...]]) -> Any:
        columns = zip(*rows, strict=True)
        arrays = [pa.array(column, kind) for column, kind in zip(columns, types.types, strict=True)]
        return pa.table(arrays, types)

    def by_duckdb(rows: list[tuple[Any, ...]]) -> Any:
        connection.register("given", arrow(rows))
        return connection.execute(query).fetchall()

    def by_polars(rows: list[tuple[Any, ...]]) -> Any:
        return pl.DataFrame(pl.from_arrow(arrow(rows))).select(polars).rows()

    return {"virtualfs": ours, "polars": by_polars, "duckdb": by_duckdb}


def main() -> None:
    found = ways()
    print("ms for ten expressions; in brackets the ratio to virtualfs")
    print(f"{'rows':>6}  " + "  ".join(f"{name:>18}" for name in found))
    for count in (1, 10, 100, 1000):
        rows = rows_of(count)
        times: dict[str, list[float]] = {name: [] for name in found}
        for _round in range(ROUNDS):
            for name, compute in found.items():
                started = time.perf_counter()
                compute(rows)
                times[name].append((time.perf_counter() - started) * 1e3)
        medians = {name: statistics.median(held) for name, held in times.items()}
        cells = [f"{ms:9.4f} ({ms / medians['virtualfs']:6.1f})" for ms in medians.values()]
        print(f"{count:>6}  " + "  ".join(f"{cell:>18}" for cell in cells))


if __name__ == "__main__":
    main()
