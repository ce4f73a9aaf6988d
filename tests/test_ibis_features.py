"""Features written in Ibis: what is printed for each engine is what Ibis's operation means.

The right values are worked out in Python, row by row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import ibis
import pyarrow as pa
import pytest

import virtualfs as vfs
from tests.warehouses import DuckDBHouse, SQLiteHouse, config, open_postgres
from virtualfs import FeatureStore, _

NAMES = ("k", "n", "m", "x", "s", "t")
ROWS: list[dict[str, Any]] = [
    dict(zip(NAMES, values, strict=True))
    for values in (
        (1, 7, 2, 2.5, "Straße 7", datetime(2024, 2, 29, 23, 59, 58)),
        (2, -7, 2, -0.5, " a'b%_\\ ", datetime(1999, 12, 31, 0, 0, 1)),
        (3, 0, 5, 0.0, "", datetime(2024, 11, 3, 6, 30)),
        (4, None, 3, None, None, datetime(2023, 1, 1, 12)),
    )
]
QUOTED = "it's -- /* 50% $1 ? */"
PATTERN = "^[A-Z].*[0-9]$"
Row = Any
Case = tuple[str, Any, Callable[[Row], Any]]


def floor_division(a: int, b: int) -> int:
    return math.floor(a / b)


def positive(row: Row) -> bool:
    return (row.get("n") or 0) > 0  # of NULL it is not known, so the other branch is taken


# Operation, expression, and what it means for a row whose values it reads are not NULL.
CASES: list[Case] = [
    ("add", _.n + _.m, lambda r: r["n"] + r["m"]),
    ("subtract", _.n - _.m, lambda r: r["n"] - r["m"]),
    ("multiply", _.n * _.m, lambda r: r["n"] * r["m"]),
    ("divide", _.n / _.m, lambda r: r["n"] / r["m"]),
    ("floor_divide", _.n // _.m, lambda r: floor_division(r["n"], r["m"])),
    ("negate", -_.n, lambda r: -r["n"]),
    ("abs", _.n.abs(), lambda r: abs(r["n"])),
    ("sign", _.n.sign(), lambda r: (r["n"] > 0) - (r["n"] < 0)),
    ("float_add", _.x + 0.25, lambda r: r["x"] + 0.25),
    ("nested", (_.n + 1) * (_.m - 3) - _.n, lambda r: (r["n"] + 1) * (r["m"] - 3) - r["n"]),
    ("minus_minus", _.n - (-_.m), lambda r: r["n"] + r["m"]),
    ("minus_of_difference", _.n - (_.m - 1), lambda r: r["n"] - (r["m"] - 1)),
    ("exp", _.x.exp(), lambda r: math.exp(r["x"])),
    ("sqrt", (_.x * _.x).sqrt(), lambda r: math.sqrt(r["x"] ** 2)),
    ("power", _.x**2, lambda r: r["x"] ** 2),
    ("ceil", _.x.ceil(), lambda r: math.ceil(r["x"])),
    ("floor", _.x.floor(), lambda r: math.floor(r["x"])),
    ("ln", (_.x * _.x + 1).ln(), lambda r: math.log(r["x"] ** 2 + 1)),
    ("log10", (_.x * _.x + 1).log10(), lambda r: math.log10(r["x"] ** 2 + 1)),
    ("less", _.n < _.m, lambda r: r["n"] < r["m"]),
    ("less_equal", _.n <= 0, lambda r: r["n"] <= 0),
    ("greater", _.x > 0, lambda r: r["x"] > 0),
    ("equal", _.n == -7, lambda r: r["n"] == -7),
    ("not_equal", _.n != 0, lambda r: r["n"] != 0),
    ("between", _.n.between(-7, 0), lambda r: -7 <= r["n"] <= 0),
    ("is_in", _.n.isin([7, 0]), lambda r: r["n"] in (7, 0)),
    ("not_in", _.n.notin([7, 0]), lambda r: r["n"] not in (7, 0)),
    ("and", (_.n > 0) & (_.x > 0), lambda r: r["n"] > 0 and r["x"] > 0),
    ("or", (_.n > 0) | (_.x < 0), lambda r: r["n"] > 0 or r["x"] < 0),
    ("not", ~(_.n > 0), lambda r: not r["n"] > 0),
    ("xor", (_.n > 0) ^ (_.m > 2), lambda r: (r["n"] > 0) != (r["m"] > 2)),
    ("equal_of_equal", (_.n == 0) == (_.m == 5), lambda r: (r["n"] == 0) == (r["m"] == 5)),
    ("if_else", (_.n > 0).ifelse("up", "down"), lambda r: "up" if positive(r) else "down"),
    ("nullif", _.m.nullif(2), lambda r: None if r["m"] == 2 else r["m"]),
    ("cast_to_text", _.n.cast("string"), lambda r: str(r["n"])),
    ("cast_to_float", _.n.cast("float64") / 4, lambda r: r["n"] / 4),
    ("concat", _.s + "!", lambda r: r["s"] + "!"),
    ("text_with_quote", _.s + QUOTED, lambda r: r["s"] + QUOTED),
    ("text_of_lines", _.s + "a\n  b\\n", lambda r: r["s"] + "a\n  b\\n"),
    ("length", _.s.length(), lambda r: len(r["s"])),
    ("strip", _.s.strip(), lambda r: r["s"].strip(" ")),
    ("lstrip", _.s.lstrip(), lambda r: r["s"].lstrip(" ")),
    ("rstrip", _.s.rstrip(), lambda r: r["s"].rstrip(" ")),
    ("substr", _.s.substr(1, 3), lambda r: r["s"][1:4]),
    ("left", _.s.left(2), lambda r: r["s"][:2]),
    ("replace", _.s.replace("a", "'"), lambda r: r["s"].replace("a", "'")),
    ("contains", _.s.contains("'"), lambda r: "'" in r["s"]),
    ("contains_wildcard", _.s.contains("%_"), lambda r: "%_" in r["s"]),
    ("startswith", _.s.startswith("Str"), lambda r: r["s"].startswith("Str")),
    ("endswith", _.s.endswith("7"), lambda r: r["s"].endswith("7")),
    ("find", _.s.find("a"), lambda r: r["s"].find("a")),
    ("equal_text", _.s == " a'b%_\\ ", lambda r: r["s"] == " a'b%_\\ "),
    ("reverse", _.s.reverse(), lambda r: r["s"][::-1]),
    ("repeat", _.s.repeat(2), lambda r: r["s"] * 2),
    ("re_search", _.s.re_search(PATTERN), lambda r: bool(re.search(PATTERN, r["s"]))),
    ("year", _.t.year(), lambda r: r["t"].year),
    ("month", _.t.month(), lambda r: r["t"].month),
    ("day", _.t.day(), lambda r: r["t"].day),
    ("hour", _.t.hour(), lambda r: r["t"].hour),
    ("minute", _.t.minute(), lambda r: r["t"].minute),
    ("second", _.t.second(), lambda r: r["t"].second),
    ("weekday", _.t.day_of_week.index(), lambda r: r["t"].weekday()),
    ("day_of_year", _.t.day_of_year(), lambda r: r["t"].timetuple().tm_yday),
    ("later", _.t > datetime(2024, 1, 1), lambda r: r["t"] > datetime(2024, 1, 1)),
    ("truncate_day", _.t.truncate("D"), lambda r: r["t"].replace(hour=0, minute=0, second=0)),
    ("truncate_month", _.t.truncate("M"), lambda r: datetime(r["t"].year, r["t"].month, 1)),
    ("plus_hours", _.t + ibis.interval(hours=36), lambda r: r["t"] + timedelta(hours=36)),
    ("minus_days", _.t - ibis.interval(days=29), lambda r: r["t"] - timedelta(days=29)),
    ("plus_parts", _.t + ibis.interval(minutes=90), lambda r: r["t"] + timedelta(minutes=90)),
]  # fmt: skip

REFUSED = {
    "sqlite": {"minus_days", "plus_hours", "plus_parts"},
}
"""Operations that Ibis does not write for an engine: refused, never wrong."""


@pytest.fixture(scope="module", params=["duckdb", "postgres", "sqlite"])
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "postgres":
        url = request.getfixturevalue("postgres")
        with open_postgres(folder, url, url) as opened:
            yield request.param, opened
        return
    kind = DuckDBHouse if request.param == "duckdb" else SQLiteHouse
    connection = ibis.duckdb.connect() if request.param == "duckdb" else ibis.sqlite.connect()
    with FeatureStore(config(folder), connections={"default": connection}) as store:
        yield request.param, kind(store, folder)


class Strict(dict[str, Any]):
    """A row whose NULLs cannot be read."""

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        if value is None:
            raise LookupError
        return value


def meant(function: Callable[[Row], Any], row: Row) -> Any:
    """Return what an operation gives for a row; NULL where it reads one."""
    try:
        return function(Strict(row))
    except LookupError:
        return None


def same(found: Any, wanted: Any) -> bool:
    if found is None or wanted is None:
        return found is None and wanted is None
    if isinstance(found, str) and isinstance(wanted, datetime):  # SQLite's times are text
        found = datetime.fromisoformat(found)
    if isinstance(wanted, float) or isinstance(found, float):
        return math.isclose(float(found), float(wanted), rel_tol=1e-12, abs_tol=1e-12)
    return bool(found == wanted)


def test_every_operation_means_what_it_says(house: tuple[str, Any]) -> None:
    engine, opened = house
    table = pa.table({name: [row[name] for row in ROWS] for name in ROWS[0]})
    table = table.set_column(5, "t", table["t"].cast(pa.timestamp("us")))
    opened.put("operations", table.append_column("at", pa.array([datetime(2024, 1, 1)] * 4)))
    spine = pa.table({"k": [1, 2, 3, 4], "event_timestamp": [datetime(2025, 1, 1)] * 4})
    wrong, refused = [], set()
    for name, expression, function in CASES:
        view = vfs.FeatureView(
            "operations", source=vfs.Source("operations", table="operations", event_timestamp="at"),
            entities=[vfs.Entity("e", {"k": "int64"})], features=[vfs.Feature("f", expression)],
        )  # fmt: skip
        try:
            ds = opened.store.get_historical_features(spine, [view])
            found = ds.to_pyarrow()["f"].to_pylist()
        except vfs.VirtualFSError:
            refused.add(name)
            continue
        wanted = [meant(function, row) for row in ROWS]
        if not all(same(one, other) for one, other in zip(found, wanted, strict=True)):
            wrong.append((name, found, wanted))
    assert wrong == []
    assert refused == REFUSED.get(engine, set())
