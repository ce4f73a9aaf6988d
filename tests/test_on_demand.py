"""On-demand views as definitions, versions and answers; their arithmetic is the conformance's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pyarrow as pa
import pytest

import virtualfs as vfs
from virtualfs import _
from virtualfs.definitions.project import load_definitions
from virtualfs.serving.on_demand import FeatureStatus

NOON = datetime(2024, 5, 1, 12)
CARD = vfs.Entity("card", {"card": "int64"})
SCORE = """
import pyarrow as pa
import pyarrow.compute as pc

WEIGHT = 2.0


def score(table):
    return pa.table({"score": pc.add(pc.multiply(table["amount"], WEIGHT), table["typical"])})


def unused():
    return 1
"""


def spending(connection: Any, **settings: Any) -> vfs.FeatureView:
    """Make a table of what two cards usually spend, and a view of it."""
    connection.raw_sql(
        "CREATE OR REPLACE TABLE spending AS SELECT * FROM (VALUES "
        "(1, TIMESTAMP '2024-05-01 11:00', 10.0::DOUBLE, 3, 'shop'), "
        "(2, TIMESTAMP '2024-05-01 11:00', NULL, 4, 'web'), "
        "(3, TIMESTAMP '2024-01-01 11:00', 8.0, 1, 'web')) t(card, seen, typical, visits, place)"
    )
    given: dict[str, Any] = {"features": ["typical", "visits", "place"], "ttl": "7d", **settings}
    return vfs.FeatureView(
        "spending",
        source=vfs.Source("spending", table="spending", event_timestamp="seen"),
        entities=[CARD],
        **given,
    )


def share(view: vfs.FeatureView, **settings: Any) -> vfs.OnDemandFeatureView:
    given: dict[str, Any] = {
        "features": [
            vfs.Feature("share", _.amount / _.typical, description="Of the usual amount"),
            vfs.Feature("busy", "visits > 3"),
        ],
        **settings,
    }
    return vfs.OnDemandFeatureView("share", inputs=[view], request={"amount": "float64"}, **given)


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    """A module of functions in the project's folder, under a name of its own."""
    path = tmp_path / f"functions_{tmp_path.name.replace('-', '_')}.py"
    path.write_text(SCORE)
    return path


def scored(view: vfs.FeatureView, module: str, name: str = "score") -> vfs.OnDemandFeatureView:
    return vfs.OnDemandFeatureView(
        "scored",
        inputs=[view[["typical"]]],
        request={"amount": "float64"},
        features=[vfs.Feature("score", dtype="float64")],
        function=f"{module}:{name}",
        mode="arrow",
    )


# -- definitions


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"features": []}, "at least one Feature"),
        ({"features": [vfs.Feature("a", "x"), vfs.Feature("a", "y")]}, "twice: a"),
        ({"features": [vfs.Feature("a")]}, "needs expr="),
        ({"features": [vfs.Feature("a", "x")], "function": "m:f"}, "comes from the function"),
        ({"features": [vfs.Feature("a", dtype="int64")], "function": "m.f"}, "import path"),
        (
            {"features": [vfs.Feature("a", dtype="int64")], "function": lambda t: t},
            "top of a module",
        ),
        ({"features": [vfs.Feature("a", "x")], "inputs": []}, "nothing to compute from"),
        ({"features": [vfs.Feature("a", "x")], "requests": {}}, "Did you mean 'request'"),
    ],
)
def test_mistakes_in_definitions(given: dict[str, Any], message: str) -> None:
    with pytest.raises(vfs.DefinitionError, match=message):
        vfs.OnDemandFeatureView("bad", **{"inputs": ["spending"], **given})


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (_.place.upper(), r"Uppercase does not mean the same .*\n?.*Supported are"),
        ("upper(place)", "not among what SQL"),
        ("sum(visits)", "not among what SQL"),
        (_.visits.sum(), "Sum does not mean"),
        (_.place < "a", "the order of strings"),
        (_.typical.cast("int64"), "use floor, ceil or round"),
        (_.typical % 2.0, "% of floats"),
        (_.typcal + 1, "Did you mean 'typical'"),
        ("typcal + 1", "Did you mean 'typical'"),
        ("visits +", "not SQL"),
        ("visits, typical", "expected one expression"),
        ("(select 1)", "not among what SQL"),
        ("now() > at", "not among what SQL"),
        (_.visits + _.place, "StringConcat does not take these types"),
        ("visits + place", "StringConcat does not take these types"),
    ],
)
def test_what_has_no_one_meaning_is_refused_when_planned(
    make_store: Callable[..., Any], connection: Any, expression: Any, message: str
) -> None:
    view = spending(connection)
    bad = share(view, features=[vfs.Feature("bad", expression)])
    with pytest.raises(vfs.DefinitionError, match=message):
        make_store().plan([bad])


def test_expressions_that_write_too_much_are_refused(
    make_store: Callable[..., Any], connection: Any
) -> None:
    deep: Any = _.typical
    for _number in range(5):
        deep = deep.round(1) ** 2
    bad = share(spending(connection), features=[vfs.Feature("bad", deep)])
    with pytest.raises(vfs.DefinitionError, match="split it into several"):
        make_store().plan([bad])


def test_a_dtype_must_be_what_the_expression_is(
    make_store: Callable[..., Any], connection: Any
) -> None:
    view = spending(connection)
    fine = share(view, features=[vfs.Feature("s", _.amount / _.typical, dtype="float64")])
    assert make_store().plan([fine])
    bad = share(view, features=[vfs.Feature("s", _.amount / _.typical, dtype="int64")])
    with pytest.raises(vfs.DefinitionError, match="is float64, not int64"):
        make_store().plan([bad])


def test_names_that_collide_are_read_with_their_view(
    make_store: Callable[..., Any], connection: Any
) -> None:
    view = spending(connection)
    sender = view[["typical"]].with_name("sender").with_join_keys({"card": "from_card"})
    receiver = view[["typical"]].with_name("receiver").with_join_keys({"card": "to_card"})
    computed = vfs.OnDemandFeatureView(
        "ratio",
        inputs=[sender, receiver],
        features=[vfs.Feature("ratio", _.sender__typical / _.receiver__typical)],
    )
    spine = pd.DataFrame({"from_card": [1], "to_card": [1], "event_timestamp": [NOON]})
    assert make_store().get_historical_features(spine, [computed]).to_pandas().ratio[0] == 1.0
    bad = computed.model_copy(update={"features": (vfs.Feature("r", _.typical + 1),)})
    with pytest.raises(vfs.DefinitionError, match="sender__typical"):
        make_store().plan([bad])


def test_views_computed_on_demand_are_no_inputs_and_share_names(
    make_store: Callable[..., Any], connection: Any
) -> None:
    view = spending(connection)
    first = share(view)
    second = vfs.OnDemandFeatureView(
        "again", inputs=[first], features=[vfs.Feature("twice", _.share * 2)]
    )
    with pytest.raises(vfs.DefinitionError, match="computed on demand too"):
        make_store().plan([second])
    same_name = share(view).model_copy(update={"name": "spending"})
    with pytest.raises(vfs.DefinitionError, match="same name"):
        make_store().plan([same_name])


def test_yaml_says_the_same(
    make_store: Callable[..., Any], connection: Any, tmp_path: Path
) -> None:
    path = tmp_path / "features.yaml"
    path.write_text(
        "on_demand_feature_views:\n"
        "  - name: share\n"
        "    inputs: [spending, {view: spending, features: [typical], name: other}]\n"
        "    request: {amount: double}\n"
        "    features:\n"
        "      - {name: share, expr: amount / spending__typical}\n"
    )
    (loaded,) = load_definitions(path)
    view = spending(connection)
    written = vfs.OnDemandFeatureView(
        "share",
        inputs=[view, view[["typical"]].with_name("other")],
        request={"amount": "double"},
        features=[vfs.Feature("share", "amount / spending__typical")],
    )
    store = make_store()
    store.apply([view, loaded])
    assert not store.plan([view, written])


# -- versions


def test_a_version_is_its_meaning_and_that_of_what_it_reads(
    make_store: Callable[..., Any], connection: Any
) -> None:
    store = make_store()
    view = spending(connection)
    service = vfs.FeatureService("fraud", [share(view)])
    store.apply([view, share(view), service])
    key = ("on_demand_feature_view", "share")
    assert store.state().objects[key].version == 1
    store.apply([share(view, description="Share of the usual amount")])
    assert store.state().objects[key].version == 1
    moved = spending(connection, ttl="14d")
    plan = store.plan([moved])
    assert "~ spending@1 -> spending@2" in str(plan)
    store.apply(plan)
    # The definition was read from the registry, and its Ibis expression is kept as a tree.
    assert store.state().objects[key].version == 2
    assert store.state().objects["feature_service", "fraud"].pins == {"share": 2}
    now = store.get_features("fraud", [{"card": 1}], NOON, {"amount": 5})
    assert now.to_list() == [{"card": 1, "share": 0.5, "busy": False}]
    old = store.get_features(["share@1:share"], [{"card": 1}], NOON, {"amount": 5})
    assert old.to_list() == [{"card": 1, "share": 0.5}]
    with pytest.raises(vfs.NotFoundError, match="no version 7"):
        store.get_features(["share@7:share"], [{"card": 1}], NOON, {"amount": 5})


def test_a_retyped_input_asks_for_the_python_file(
    make_store: Callable[..., Any], connection: Any
) -> None:
    store = make_store()
    store.apply([share(spending(connection))])
    retyped = spending(connection, features=[vfs.Feature("typical", "place"), "visits"])
    with pytest.raises(vfs.DefinitionError, match="apply it again from the Python file"):
        store.plan([retyped])


# -- answers


def test_training_and_online_and_their_statuses(
    make_store: Callable[..., Any], connection: Any
) -> None:
    store = make_store(clock=NOON.isoformat() + "Z")
    store.apply([share(spending(connection))])
    keys = [1, 2, 3, 9]
    spine = pd.DataFrame({"card": keys, "event_timestamp": [NOON] * 4, "amount": [5, 6, 7, 8]})
    ds = store.get_historical_features(spine, ["share", "spending:visits"])
    frame = ds.to_pandas()
    assert list(frame.columns) == [*spine.columns, "share", "busy", "visits"]
    assert frame["share"].tolist()[0] == 0.5
    assert frame["share"].isna().tolist()[1:] == [True] * 3
    assert frame["busy"].tolist()[:2] == [False, True]
    assert '"__given_' in ds.sql()
    assert "share@1: expressions over other features" in ds.explain()
    assert ds.metadata["views"] == {"spending": 1, "share": 1}
    on = store.get_online_features(
        ["share", "spending:visits"], {"card": keys}, {"amount": [5, 6, 7, 8]}
    )
    assert on.to_dict()["share"] == [0.5, None, None, None]
    assert on.statuses["share"] == [
        FeatureStatus.PRESENT, FeatureStatus.NULL_VALUE, FeatureStatus.OUTSIDE_MAX_AGE,
        FeatureStatus.NOT_FOUND,
    ]  # fmt: skip
    assert on.event_timestamps["share"][0] == store.now()
    again = store.get_online_features(["share"], {"card": keys}, {"amount": 5.0})
    assert again.to_dict()["share"] == [0.5, None, None, None]


def test_what_a_request_lacks_is_said(make_store: Callable[..., Any], connection: Any) -> None:
    store = make_store()
    store.apply([share(spending(connection))])
    one = [{"card": 1}]
    for request, message in [
        (None, "entity 0 lacks the request input 'amount'"),
        ({"amout": 1.0}, "lacks the request input 'amount'"),
        ({"amount": "much"}, "expected float64, not 'much'"),
        ([{"amount": 1.0}] * 2, "2 entries for 1 entities"),
        (7, "is a dict"),
    ]:
        with pytest.raises(vfs.SpineError, match=message):
            store.get_online_features(["share"], one, request)
    spine = pd.DataFrame({"card": [1], "event_timestamp": [NOON]})
    with pytest.raises(vfs.SpineError, match="lacks the column 'amount'"):
        store.get_historical_features(spine, ["share"])
    with pytest.raises(vfs.SpineError, match="take float64 from it"):
        store.get_historical_features(spine.assign(amount="much"), ["share"])
    with pytest.raises(vfs.SpineError, match="a batch of all entities has none"):
        store.get_batch_features(["share"])
    with pytest.raises(vfs.NotFoundError, match="from typical, amount"):
        store.why("share:share", {"card": 1}, NOON)
    with pytest.raises(vfs.NotFoundError, match="no rows of its own"):
        store.preview("share")


def test_what_needs_no_view_needs_no_key(make_store: Callable[..., Any], connection: Any) -> None:
    store = make_store()
    sums = vfs.OnDemandFeatureView(
        "sums", request={"a": "int64", "b": "int64"}, features=[vfs.Feature("sum", _.a + _.b)]
    )
    store.apply([sums])
    assert store.get_online_features("sums", [{}], {"a": 1, "b": 2}).to_list() == [{"sum": 3}]
    found = store.get_historical_features(pa.table({"a": [1, None], "b": [2, 3]}), "sums")
    assert found.to_pyarrow().column("sum").to_pylist() == [3, None]


# -- Python functions


def test_a_function_computes_the_rest(
    make_store: Callable[..., Any], connection: Any, functions: Path
) -> None:
    store = make_store(python={"modules": [functions.stem]}, clock=NOON.isoformat() + "Z")
    view = spending(connection)
    store.apply([scored(view, functions.stem)])
    spine = pd.DataFrame({"card": [1, 2], "event_timestamp": [NOON] * 2, "amount": [5.0, 6.0]})
    ds = store.get_historical_features(spine, ["scored", "spending:typical"])
    assert ds.to_pandas()["score"].tolist()[0] == 20.0
    assert f"computed in this process by {functions.stem}:score" in ds.explain(engine=False)
    on = store.get_online_features("scored", {"card": [1, 2]}, {"amount": [5.0, 6.0]})
    assert on.to_dict()["score"] == [20.0, None]
    for refused in (lambda: ds.to_table("made"), lambda: ds.expr):
        with pytest.raises(vfs.UnsupportedByWarehouseError, match="no query can hold"):
            refused()
    assert list(ds.to_pyarrow_batches(1).read_all()["score"].to_pylist()) == [20.0, None]


def test_only_allowed_modules_run(
    make_store: Callable[..., Any], connection: Any, functions: Path
) -> None:
    view = spending(connection)
    allowed = make_store(python={"modules": [functions.stem]})
    allowed.apply([scored(view, functions.stem)])
    server = make_store(python={"modules": ["other"]})
    with pytest.raises(vfs.PermissionDeniedError, match=rf'modules = \["{functions.stem}"\]'):
        server.get_features("scored", [{"card": 1}], NOON, {"amount": 1.0})
    with pytest.raises(vfs.PermissionDeniedError):
        server.plan([scored(view, "os", "system")])


def test_versions_go_by_the_source(
    make_store: Callable[..., Any], connection: Any, functions: Path
) -> None:
    view, settings = spending(connection), {"python": {"modules": [functions.stem]}}
    make_store(**settings).apply([scored(view, functions.stem)])

    def changed(old: str, new: str) -> Any:
        functions.write_text(functions.read_text().replace(old, new))
        return make_store(**settings)

    same = changed("WEIGHT = 2.0", "WEIGHT  =  2.0  # doubled")
    assert not same.plan([scored(view, functions.stem)])
    other = changed("WEIGHT  =  2.0", "WEIGHT = 3.0")
    with pytest.raises(vfs.DefinitionError, match="its source has changed"):
        other.get_features("scored", [{"card": 1}], NOON, {"amount": 1.0})
    plan = other.plan([scored(view, functions.stem)])
    assert "(v1 -> v2)" in str(plan)
    assert "the source of" in str(plan)
    other.apply(plan)
    assert other.get_features("scored", [{"card": 1}], NOON, {"amount": 1.0}).to_list() == [
        {"card": 1, "score": 13.0}
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 1 / 0", "failed: ZeroDivisionError"),
        ("return table.select(['typical'])", "must return a table with the columns score"),
        ("return 7", "must return a table with the columns score"),
        ("return None", "and returned NoneType"),
        ("return pa.table({'score': [1.0, 2.0, 3.0]})", "3 rows for 1"),
        ("return pa.table({'score': ['much']})", "does not fit"),
    ],
)
def test_what_a_function_does_wrong_is_said(
    make_store: Callable[..., Any], connection: Any, functions: Path, body: str, message: str
) -> None:
    functions.write_text(f"import pyarrow as pa\n\n\ndef score(table):\n    {body}\n")
    store = make_store(python={"modules": [functions.stem]})
    store.apply([scored(spending(connection), functions.stem)])
    with pytest.raises(vfs.DefinitionError, match=message):
        store.get_features("scored", [{"card": 1}], NOON, {"amount": 1.0})
    with pytest.raises(vfs.DefinitionError, match="defines no function 'scroe'"):
        store.plan([scored(spending(connection), functions.stem, "scroe")])


# -- the API


def test_graphql_takes_a_request_and_lists_them(
    make_store: Callable[..., Any], connection: Any
) -> None:
    from virtualfs_graphql.app import SERVER

    store = make_store(clock=NOON.isoformat() + "Z")
    view = spending(connection)
    store.apply([share(view), vfs.FeatureService("fraud", [view[["visits"]], share(view)])])
    query = """{
        one: onlineFeatures(service: "fraud", entities: [{card: 1}], request: [{amount: 5}]) {
            names values statuses }
        each: onlineFeatures(features: ["share:share"], entities: [{card: 1}, {card: 2}],
            request: [{amount: 5}, {amount: 1}]) { values }
        historicalFeatures(features: ["share:share"],
            spine: [{card: 1, amount: 2.5, event_timestamp: "2024-05-01T12:00:00Z"}])
        onDemandFeatureView(name: "share") { version inputs request { name dtype }
            features { ref sql featureView { name } onDemandFeatureView { name } } }
        feature(ref: "share:busy") { dtype }
        features(search: "usual") { nodes { ref } }
        featureService(name: "fraud") { names references }
    }"""

    async def ask(query: str) -> Any:
        transport = httpx.ASGITransport(SERVER.asgi(store))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return (await client.post("/graphql", json={"query": query})).json()

    answer = asyncio.run(ask(query))
    assert "errors" not in answer, answer
    data = answer["data"]
    assert data["one"] == {
        "names": ["visits", "share", "busy"], "values": [[3, 0.5, False]],
        "statuses": [["PRESENT", "PRESENT", "PRESENT"]],
    }  # fmt: skip
    assert data["each"]["values"] == [[0.5], [None]]
    assert data["historicalFeatures"][0]["share"] == 0.25
    shown = data["onDemandFeatureView"]
    assert shown["inputs"] == ["spending@1:typical", "spending@1:visits", "spending@1:place"]
    assert shown["request"] == [{"name": "amount", "dtype": "float64"}]
    assert shown["features"][0] == {
        "ref": "share:share", "sql": "(_.amount / _.typical)", "featureView": None,
        "onDemandFeatureView": {"name": "share"},
    }  # fmt: skip
    assert data["feature"] == {"dtype": "boolean"}
    assert data["features"]["nodes"] == [{"ref": "share:share"}]
    assert data["featureService"]["references"] == [
        "spending@1:visits", "share@1:share", "share@1:busy"
    ]  # fmt: skip
    lacking = asyncio.run(
        ask('{ onlineFeatures(service: "fraud", entities: [{card: 1}]) { names } }')
    )
    assert "lacks the request input 'amount'" in lacking["errors"][0]["message"]
