"""Wrong answers that on-demand features, and windows of hot keys, were once found to give."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import virtualfs as vfs
from virtualfs import _
from virtualfs.compiler import program

NOON = datetime(2024, 5, 1, 12)
THING = vfs.Entity("thing", {"k": "int64"})


def facts(connection: Any, **columns: Any) -> vfs.FeatureView:
    """Make a table of one row for key 1, and a view of it."""
    seen = pa.array([datetime(2024, 5, 1)], pa.timestamp("us"))
    table = pa.table({"k": pa.array([1]), "seen": seen, **columns})
    connection.create_table("facts", table, overwrite=True)
    return vfs.FeatureView(
        "facts",
        source=vfs.Source("facts", table="facts", event_timestamp="seen"),
        entities=[THING],
        features=[name for name in table.column_names if name not in ("k", "seen")],
    )


def both(store: Any, view: Any, request: Any = None) -> tuple[Any, Any]:
    """Return feature c for key 1: trained, and online."""
    columns = {name: [value] for name, value in (request or {}).items()}
    at = pa.array([NOON], pa.timestamp("us"))
    spine = pa.table({"k": [1], "event_timestamp": at, **columns})
    trained = store.get_historical_features(spine, view if isinstance(view, str) else [view])
    online = store.get_features(
        view if isinstance(view, str) else [view], [{"k": 1}], NOON, request
    )
    return trained.to_pyarrow().column("c")[0].as_py(), online.to_list()[0]["c"]


@pytest.mark.parametrize("expression", [_.x < math.inf, "x < 1e400", _.x.nullif(math.nan) < 9.0])
def test_endless_literals_are_kept_by_the_registry(
    make_store: Callable[..., Any], connection: Any, expression: Any
) -> None:
    view = facts(connection, x=[1.0])
    od = vfs.OnDemandFeatureView("od", inputs=[view], features=[vfs.Feature("c", expression)])
    store = make_store()
    store.apply([od])
    assert both(store, "od") == (True, True)
    assert not store.plan([od])


@pytest.mark.parametrize(
    ("base", "exponent", "expected"),
    [(2.0, -math.inf, None), (0.5, 1e19, None), (1.0, 1e19, None), (0.0, math.nan, None),
     (-2.0, -1e19, None), (math.inf, -1.0, 0.0), (math.nan, 0.0, 1.0)],
)  # fmt: skip
def test_powers_at_their_ends(
    make_store: Callable[..., Any], connection: Any, base: float, exponent: float, expected: Any
) -> None:
    view = facts(connection, x=[base], y=[exponent])
    od = vfs.OnDemandFeatureView("od", inputs=[view], features=[vfs.Feature("c", _.x**_.y)])
    assert both(make_store(), od) == (expected, expected)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [("greatest(x)", 2.5), ("'it''s'", "it's"), ("1e3", 1000.0),
     ("coalesce(" + ", ".join(["n"] * 150) + ", 7.0)", 7.0),
     ("m < timestamp '2024-03-01 00:00:00+02:00'", False), ("hour(z)", 5)],
)  # fmt: skip
def test_expressions_that_only_one_side_computed(
    make_store: Callable[..., Any], connection: Any, sql: str, expected: Any
) -> None:
    view = facts(
        connection,
        x=[2.5],
        n=pa.array([None], pa.float64()),
        m=pa.array([datetime(2024, 2, 29, 23, 30)], pa.timestamp("us")),
        z=pa.array([datetime(2024, 2, 29, 5, tzinfo=UTC)], pa.timestamp("us", "UTC")),
    )
    od = vfs.OnDemandFeatureView("od", inputs=[view], features=[vfs.Feature("c", sql)])
    assert both(make_store(), od) == (expected, expected)


@pytest.mark.parametrize("sql", ["extract(visualize from x)", "cast(x as float)"])
def test_what_sql_may_not_say(make_store: Callable[..., Any], connection: Any, sql: str) -> None:
    view = facts(connection, x=[2.5])
    with pytest.raises(vfs.DefinitionError, match=r"Supported|can say"):
        make_store().plan(
            [vfs.OnDemandFeatureView("od", inputs=[view], features=[vfs.Feature("c", sql)])]
        )


def test_nan_of_a_request_is_a_number(make_store: Callable[..., Any], connection: Any) -> None:
    view = facts(connection, x=[2.5])
    od = vfs.OnDemandFeatureView(
        "od", inputs=[view], request={"a": "float64"}, features=[vfs.Feature("c", _.a > _.x)]
    )
    assert both(make_store(), od, {"a": math.nan}) == (True, True)


@pytest.mark.parametrize(
    ("spine", "message"),
    [
        ("1.5::DOUBLE AS a", "take int64"),
        ("TIMESTAMPTZ '2024-01-01 05:00+00' AS t, 1 AS a", "take timestamp"),
    ],
)
def test_a_spine_in_sql_rounds_no_request_input(
    make_store: Callable[..., Any], connection: Any, spine: str, message: str
) -> None:
    view = facts(connection, x=[2.5])
    od = vfs.OnDemandFeatureView(
        "od",
        inputs=[view],
        request={"a": "int64", "t": "timestamp"} if " t," in spine else {"a": "int64"},
        features=[vfs.Feature("c", "a + hour(t)" if " t," in spine else "a + 1")],
    )
    text = f"SELECT 1 AS k, TIMESTAMP '2024-05-01 12:00' AS event_timestamp, {spine}"
    with pytest.raises(vfs.SpineError, match=message):
        make_store().get_historical_features(text, [od])


def test_a_key_and_a_request_input_of_one_name_have_one_type(
    make_store: Callable[..., Any], connection: Any
) -> None:
    view = facts(connection, s=["a"])
    od = vfs.OnDemandFeatureView(
        "od", inputs=[view], request={"k": "string"}, features=[vfs.Feature("c", _.k + _.s)]
    )
    with pytest.raises(vfs.SpineError, match="join key of that name is int64"):
        make_store().get_features([od], [{"k": 1}], NOON)
    with pytest.raises(vfs.DefinitionError, match="a request brings"):
        vfs.OnDemandFeatureView("od", request={"a": "float32"}, features=[vfs.Feature("c", _.a)])


def test_a_module_offers_only_what_it_defines(
    make_store: Callable[..., Any], connection: Any, tmp_path: Path
) -> None:
    (tmp_path / "offering.py").write_text("from subprocess import run\n")
    view = facts(connection, x=[2.5])
    store = make_store(python={"modules": ["offering"]})
    for name in ("run", "__class__", "os.system"):
        od = vfs.OnDemandFeatureView(
            "od", inputs=[view], features=[vfs.Feature("c", dtype="string")],
            function=f"offering:{name}",
        )  # fmt: skip
        with pytest.raises(vfs.DefinitionError, match="defines no function"):
            store.plan([od])


def test_an_edited_function_runs_as_it_is_now(
    make_store: Callable[..., Any], connection: Any, tmp_path: Path
) -> None:
    path = tmp_path / "edited.py"
    view = facts(connection, x=[2.5])
    od = vfs.OnDemandFeatureView(
        "od", inputs=[view], features=[vfs.Feature("c", dtype="float64")], function="edited:f"
    )
    for factor in (2, 30):
        path.write_text(f"def f(table):\n    return (table['x'] * {factor}).to_frame('c')\n")
        store = make_store(python={"modules": ["edited"]})
        store.apply([od])
        assert both(store, "od") == (2.5 * factor, 2.5 * factor)


# -- windows of hot keys


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([Decimal("50000000.00"), Decimal("1.00")], pa.decimal128(12, 2), 35355338.35),
        ([Decimal("9999999.99"), Decimal("1.99")], pa.decimal128(9, 2), 7071066.399),
        ([2**32 - 1, 0], pa.uint32(), 3037000499.27),
        ([2**31 - 1, -(2**31)], pa.int32(), 3037000499.27),
    ],
)
def test_squares_that_do_not_fit_are_not_summed(
    make_store: Callable[..., Any], connection: Any, monkeypatch: pytest.MonkeyPatch,
    values: list[Any], kind: Any, expected: float,
) -> None:  # fmt: skip
    monkeypatch.setattr("virtualfs.compiler.strategy._few_pairs", lambda *_: False)
    program._compile_part.cache_clear()
    seen = pa.array([datetime(2024, 5, 1)] * 2, pa.timestamp("us"))
    table = pa.table({"k": [1, 1], "seen": seen, "x": pa.array(values, kind)})
    connection.create_table("events", table, overwrite=True)
    view = vfs.FeatureView(
        "events",
        source=vfs.Source("events", table="events", event_timestamp="seen"),
        entities=[THING],
        # Named like the spine's column of keys, which once hid it.
        features=[vfs.Aggregate("x", "std", "1d", name="total")],
    )
    spine = pa.table({"total": [1], "event_timestamp": pa.array([NOON], pa.timestamp("us"))})
    found = make_store().get_historical_features(spine, [view.with_join_keys({"k": "total"})])
    assert found.to_pyarrow().column("events__total")[0].as_py() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [(_.x.notnull(), True), (_.x.isnull() == _.y.notnull(), False), (~_.y.isin([1.0]), True)],
)
def test_conditions_of_plain_features_are_still_sql(
    make_store: Callable[..., Any], connection: Any, expression: Any, expected: bool
) -> None:
    """Parentheses about what engines read differently once tore IS NOT NULL apart."""
    view = facts(connection, x=[2.5], y=[3.5])
    view = view.model_copy(update={"features": (vfs.Feature("c", expression),)})
    assert both(make_store(), view) == (expected, expected)
