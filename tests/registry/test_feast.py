"""Taking over a Feast repository: what its quickstart defines, and what cannot be said here.

``tests/data/feast_quickstart.json`` is what ``feast registry-dump`` prints of the repository that
``feast init`` makes (https://github.com/feast-dev/feast, Apache License 2.0), without its dates.
"""

from __future__ import annotations

import base64
import json
import runpy
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from click.testing import CliRunner

import virtualfs as vfs
from virtualfs.cli import cli
from virtualfs.definitions.project import load_definitions
from virtualfs.discovery.feast import feast_text, functions_text, import_feast

QUICKSTART = Path(__file__).parents[1] / "data" / "feast_quickstart.json"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the quickstart's data, the dump, and a configuration."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    duckdb.sql(
        "SELECT 1001::BIGINT AS driver_id, TIMESTAMPTZ '2026-01-01 10:00:00+00' AS event_timestamp,"
        " TIMESTAMP '2026-01-01 11:00:00' AS created, 0.5::FLOAT AS conv_rate, "
        "0.25::FLOAT AS acc_rate, 7::BIGINT AS avg_daily_trips, '{}' AS driver_config"
    ).write_parquet(str(tmp_path / "data" / "driver_stats.parquet"))
    (tmp_path / "virtualfs.toml").write_text(
        'project = "p"\ndefinitions = ["features.py"]\nclock = "2026-01-01T12:00:00Z"\n'
        '[warehouses.default]\nurl = "duckdb://"\n[python]\nmodules = ["feast_functions"]\n'
    )
    return tmp_path


def test_the_quickstart_is_carried_over_and_answers(folder: Path) -> None:
    done = CliRunner().invoke(cli, ["import", "feast", str(QUICKSTART)], obj={})
    assert done.exit_code == 0, done.output
    for words in (
        "feature driver_hourly_stats:driver_metadata: there is no data type for MAP",
        "label view driver_quality_labels",
        "logging of feature service driver_activity_v1",
        "driver_metadata, driver_profile of driver_hourly_stats are not carried over",
    ):
        assert words in done.output
        assert words.split(":")[0].split(",")[0] in (folder / "features.py").read_text()
    with vfs.FeatureStore(folder) as store:
        store.apply()
        view = store.state().project().views["driver_hourly_stats"]
        assert [feature.name for feature in view.features] == [
            "conv_rate", "acc_rate", "avg_daily_trips", "driver_config",
        ]  # fmt: skip
        assert view.features[2].description == "Average daily trips"
        assert view.tags == {"team": "driver_performance"}
        assert str(view.ttl) == "1 day, 0:00:00"
        answer = store.get_online_features(
            "driver_activity_v1", [{"driver_id": 1001}], {"val_to_add": 1, "val_to_add_2": 2}
        )
        assert answer.to_list() == [
            {"driver_id": 1001, "conv_rate": 0.5, "conv_rate_plus_val1": 1.5,
             "conv_rate_plus_val2": 2.5}
        ]  # fmt: skip


def test_the_file_says_what_was_read(folder: Path) -> None:
    content = json.loads(QUICKSTART.read_text())
    CliRunner().invoke(cli, ["import", "feast", str(QUICKSTART)], obj={})
    read = {(type(item), item.name): item for item in load_definitions(folder / "features.py")}
    meant = {(type(item), item.name): item for item in import_feast(content).definitions}
    assert read == meant


def test_nothing_is_written_over(folder: Path) -> None:
    (folder / "feast_functions.py").write_text("mine = 1\n")
    done = CliRunner().invoke(cli, ["import", "feast", str(QUICKSTART)], obj={})
    assert done.exit_code == 1
    assert "feast_functions.py exists" in done.output
    assert not (folder / "features.py").exists()
    assert runpy.run_path(str(folder / "feast_functions.py"))["mine"] == 1


def view(**spec: Any) -> dict[str, Any]:
    source = {"name": "s", "timestampField": "ts", "snowflakeOptions": {"table": "T"}}
    fields = {"name": "v", "entities": ["e"], "batchSource": source, "ttl": "0s",
              "features": [{"name": "f", "valueType": "INT64"}], **spec}  # fmt: skip
    return {"spec": fields}


_CUSTOM = base64.b64encode(b'{"name": "n", "query": "", "table": "public.t"}').decode()


def imported(*views: dict[str, Any], **sections: Any) -> Any:
    entity = {"spec": {"name": "e", "joinKey": "k", "valueType": "INT64"}}
    return import_feast({"entities": [entity], "featureViews": list(views), **sections})


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"snowflakeOptions": {"database": "D", "schema": "S", "table": "T"}}, ("table", "D.S.T")),
        ({"bigqueryOptions": {"table": "p.d.t"}}, ("table", "p.d.t")),
        ({"redshiftOptions": {"query": "SELECT 1"}}, ("query", "SELECT 1")),
        ({"fileOptions": {"uri": "file:///x/y.parquet"}}, ("path", "/x/y.parquet")),
        ({"fileOptions": {"uri": "s3://b/y.parquet"}}, ("path", "s3://b/y.parquet")),
        ({"customOptions": {"configuration": _CUSTOM}}, ("table", "public.t")),
    ],
)  # fmt: skip
def test_sources_of_every_kind(options: dict[str, Any], place: tuple[str, str]) -> None:
    source = {"name": "s", "timestampField": "ts", "createdTimestampColumn": "c",
              "fieldMapping": {"raw": "f"}, **options}  # fmt: skip
    project = imported(view(batchSource=source))
    assert project.left_out == []
    found = project.definitions[1]
    assert getattr(found, place[0]) == place[1]
    assert (found.event_timestamp, found.created_timestamp) == ("ts", "c")
    assert found.columns == {"raw": "f"}
    assert project.definitions[2].ttl is None


def test_aggregations_of_stream_views_are_ours() -> None:
    aggregations = [{"column": "f", "function": "avg", "timeWindow": "3600s"},
                    {"column": "f", "function": "count", "timeWindow": "86400s"}]  # fmt: skip
    project = imported(streamFeatureViews=[view(aggregations=aggregations, ttl="60s")])
    assert [item.name for item in project.definitions[2].features] == ["f_mean_1h", "f_count_1d"]


def test_projections_keep_their_names_and_keys() -> None:
    projection = {"featureViewName": "v", "featureViewNameAlias": "other",
                  "joinKeyMap": {"k": "dest"}, "featureColumns": [{"name": "f"}]}  # fmt: skip
    service = {"spec": {"name": "svc", "features": [projection], "owner": "ann"}}
    (selection,) = imported(view(), featureServices=[service]).definitions[-1].features
    assert (selection.view_name, selection.name) == ("v", "other")
    assert selection.join_keys == {"k": "dest"}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"batchSource": {"name": "s", "type": "BATCH_NEW"}}, "kind that is not known: BATCH_NEW"),
        ({"features": [{"name": "f", "valueType": "MAP"}]}, "no feature is left"),
        ({"entities": ["nobody"]}, "its entity nobody is not in the registry"),
        ({"userDefinedFunction": {"body": "x"}}, "made by a function of Python"),
        ({"aggregations": [{"column": "f", "function": "tdigest"}]}, "tdigest is not known"),
        ({"batchSource": None}, "has no source"),
    ],
)
def test_what_cannot_be_said_is_told(spec: dict[str, Any], words: str) -> None:
    project = imported(view(**spec))
    assert any(words in line for line in project.left_out), project.left_out
    assert not [item for item in project.definitions if isinstance(item, vfs.FeatureView)]


def test_what_is_none_of_feasts_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    (tmp_path / "y.json").write_text("no")
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "feature_store.yaml").write_text("project: p\n")
    for path, words in (
        (tmp_path / "x.json", "it has no views"),
        (tmp_path / "y.json", "is not the JSON of `feast registry-dump`"),
        (tmp_path / "z.json", "No such file"),
        (tmp_path, "has no feature_store.yaml"),
        (tmp_path / "repo", "No module named 'feast'"),
    ):
        done = CliRunner().invoke(cli, ["import", "feast", str(path)], obj={})
        assert words in str(done.exception)
    assert "feast registry-dump" in str(done.exception)


def on_demand(name: str, body: str) -> dict[str, Any]:
    source = {"featureViewProjection": {"featureViewName": "v", "featureColumns": [{"name": "f"}]}}
    function = {"userDefinedFunction": {"bodyText": body, "name": "tr"}}
    spec = {"name": name, "mode": "pandas", "sources": {"v": source},
            "featureTransformation": function,
            "features": [{"name": "x", "valueType": "INT64"}]}  # fmt: skip
    return {"spec": spec}


def test_functions_of_one_name_stay_apart_and_say_what_they_lack() -> None:
    bodies = [f"def tr(df):\n    return df[['f']] * {n}\n" for n in (1, 2)]
    odd = "def tr(df):\n    return helper(math.sqrt(df), np.e, len(df))\n"
    views = [on_demand("a-b", bodies[0]), on_demand("a_b", bodies[1]), on_demand("c", odd)]
    project = imported(view(), onDemandFeatureViews=views)
    made: dict[str, Any] = {}
    exec(functions_text(project), made)
    assert [item.function for item in project.definitions[-3:]] == [
        "feast_functions:a_b", "feast_functions:a_b_2", "feast_functions:c",
    ]  # fmt: skip
    assert made["a_b"](pd.DataFrame({"f": [3]})).iloc[0, 0] == 3
    assert made["a_b_2"](pd.DataFrame({"f": [3]})).iloc[0, 0] == 6
    assert any("helper, math must be imported" in line for line in project.left_out)


def test_times_are_kept_whole_and_sources_of_one_name_apart() -> None:
    views = [view(ttl="1.5s"), view(name="w", ttl="0.5s")]
    views[1]["spec"]["batchSource"] = {**views[0]["spec"]["batchSource"],
                                       "snowflakeOptions": {"table": "U"}}  # fmt: skip
    found = [item for item in imported(*views).definitions if isinstance(item, vfs.FeatureView)]
    assert [item.ttl.total_seconds() for item in found if item.ttl] == [1.5, 0.5]
    assert [item.source.table for item in found if isinstance(item.source, vfs.Source)] == [
        "T", "U",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        {"featureViews": [{"spec": {}}, 7]},
        {"featureViews": "x", "entities": {"a": 1}},
        {"featureViews": [view(ttl="abc")]},
        {"featureViews": [view(batchSource={"customOptions": {"configuration": "AAAA"}})]},
        {"featureViews": [view(batchSource={"customOptions": {}})]},
        {"featureViews": [view(batchSource={"fileOptions": {}})]},
        {"featureViews": [view(features=7)]},
        {"featureViews": [view()], "featureServices": [{"spec": {"name": "s", "features": [{}]}}]},
        {"entities": [{"spec": {"name": "my entity"}}], "featureViews": [view(entities=[])]},
        {"featureViews": [], "onDemandFeatureViews": [
            {"spec": {"name": "o", "sources": {"r": {"requestDataSource": {}}}}}]},
    ],
)  # fmt: skip
def test_what_is_of_another_form_is_told_and_stops_nothing(content: dict[str, Any]) -> None:
    assert import_feast(content).left_out


def test_any_name_makes_a_file_that_reads(tmp_path: Path) -> None:
    entity = {"spec": {"name": "e", "joinKey": "k", "valueType": "INT64",
                       "description": 'a """ \\ \n ü'}}  # fmt: skip
    project = import_feast(
        {"entities": [entity], "featureViews": [view(name="class", tags={'"': "'"})]}
    )
    (tmp_path / "f.py").write_text(feast_text(project, 'x""" \\'))
    assert {item.name for item in load_definitions(tmp_path / "f.py")} == {"e", "s", "class"}
