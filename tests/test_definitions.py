"""Definitions: what may be written, what is refused and in which words."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import ibis
import pytest
from hypothesis import given
from hypothesis import strategies as st

import virtualfs as vfs
from virtualfs import _
from virtualfs.definitions.duration import format_duration, parse_duration
from virtualfs.definitions.expression import Expression, written
from virtualfs.definitions.project import Project, collect, load_definitions

AIRPORT = vfs.Entity("airport", {"origin": "string"})
WEATHER = vfs.Source("weather", table="weather", event_timestamp="time_hour")


def view(**fields: Any) -> vfs.FeatureView:
    defaults = {"source": WEATHER, "entities": [AIRPORT], "features": ["temp"]}
    return vfs.FeatureView("airport_weather", **{**defaults, **fields})


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=10_000)))
def test_durations_are_read_back_as_they_are_written(value: timedelta) -> None:
    assert parse_duration(format_duration(value)) == value


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: vfs.Entity("a", {}), "at least one join key"),
        (lambda: vfs.Entity("a b", {"x": "int64"}), "cannot be a name"),
        (lambda: vfs.Entity("a", {"x": "integr"}), "not a data type"),
        (lambda: vfs.Source("s"), "exactly one of"),
        (lambda: vfs.Source("s", table="t", query="SELECT 1"), "exactly one of"),
        (lambda: vfs.Source("s", table="t", timezone="Mars/Base"), "not a time zone"),
        (lambda: vfs.Source("s", tabel="t"), "Did you mean 'table'?"),
        (lambda: vfs.Source("s", table="t", created_timestamp="c"), "needs event_timestamp="),
        (lambda: view(features=[]), "at least one feature"),
        (lambda: view(features=["a", "a"]), "twice: a"),
        (lambda: view(ttl="5 parsecs"), "not a duration"),
        (lambda: view(ttl="0s"), "longer than zero"),
        (lambda: view(source=vfs.Source("s", table="t"), ttl="1d"), "no event_timestamp"),
        (
            lambda: view(
                source=vfs.Source("s", table="t", event_timestamp="e", availability_delay="2h"),
                ttl="1h",
            ),
            "longer than the source's availability_delay",
        ),
        (lambda: view()[["tmp"]], "Did you mean 'temp'?"),
        (lambda: view().with_join_keys({"orign": "dest"}), "Did you mean 'origin'?"),
        (lambda: vfs.FeatureService("s", []), "at least one view"),
        (lambda: vfs.Feature("a:b"), "cannot be a feature's name"),
        (lambda: vfs.Feature("a", 5), "an expression is SQL text"),
    ],
)
def test_bad_definitions_say_what_to_do(build: Any, words: str) -> None:
    with pytest.raises(vfs.DefinitionError, match=words.replace("?", r"\?")):
        build()


def test_expressions_keep_literals_that_ibis_hides() -> None:
    assert repr(_.a + ibis.literal(2)) == repr(_.a + ibis.literal(3)), "Ibis now shows them"
    assert written(_.a + ibis.literal(2)) != written(_.a + ibis.literal(3))


@pytest.mark.parametrize(
    "pair",
    [
        (_.a + 1, _.a + 2),
        (_.a.upper(), _.a.lower()),
        (_.a.isin([1, 2]), _.a.isin([1, 3])),
        (_.a == "1", _.a == 1),
        (ibis.ifelse(_.a > 1, _.b, None), ibis.ifelse(_.a > 1, None, _.b)),
        (_["a b"], _["a c"]),
        (~_.a, -_.a),
        (_.a.cast("int64"), _.a.cast("int32")),
    ],
)
def test_different_expressions_are_written_differently(pair: tuple[Any, Any]) -> None:
    assert written(pair[0]) != written(pair[1])
    assert Expression.model_validate(pair[0]) == Expression.model_validate(pair[0])
    assert Expression.model_validate(pair[0]) != Expression.model_validate(pair[1])


def test_definitions_are_read_back_as_they_are_dumped() -> None:
    made = view(features=["temp", vfs.Feature("cold", _.temp < 0), vfs.Feature("x", "temp + 1")])
    assert vfs.FeatureView(**made.model_dump(mode="json")) == made


def test_two_definitions_of_one_name_are_refused() -> None:
    with pytest.raises(vfs.DefinitionError, match="two different definitions of feature view"):
        Project.of([view(), view(ttl="1h")])
    assert list(Project.of([view(), view()]).views) == ["airport_weather"]


def test_names_lead_somewhere() -> None:
    with pytest.raises(vfs.DefinitionError, match=r"no source 'wether'. Did you mean 'weather'\?"):
        Project.of([WEATHER, AIRPORT, view(source="wether")])


YAML = """
entities:
  - name: airport
    join_keys: {origin: string}
sources:
  - name: weather
    table: weather
    event_timestamp: time_hour
feature_views:
  - name: airport_weather
    source: weather
    entities: [airport]
    features:
      - temp
      - {name: freezing, expr: temp <= 32}
    ttl: 3h
feature_services:
  - name: delay
    features:
      - airport_weather
      - {view: airport_weather, features: [temp], name: dest, join_keys: {origin: dest}}
"""

PYTHON = """
import virtualfs as vfs

airport = vfs.Entity("airport", {"origin": "string"})
weather = vfs.FeatureView(
    "airport_weather",
    source=vfs.Source("weather", table="weather", event_timestamp="time_hour"),
    entities=[airport],
    features=["temp", vfs.Feature("freezing", "temp <= 32")],
    ttl="3h",
)
delay = vfs.FeatureService(
    "delay", [weather, weather[["temp"]].with_name("dest").with_join_keys({"origin": "dest"})]
)
"""


def test_yaml_and_python_mean_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(YAML)
    (tmp_path / "a.py").write_text(PYTHON)
    assert Project.of(load_definitions(tmp_path / "a.yaml")) == Project.of(
        load_definitions(tmp_path / "a.py")
    )


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.yaml", "entites: []", "Did you mean 'entities'"),
        ("a.yaml", "entities: 5", "must be a list"),
        ("a.yaml", "entities: [{name: a, join_kyes: {}}]", "join_keys"),
        ("a.yaml", "a: [", "not YAML"),
        ("a.py", "import nothing_like_this", "ModuleNotFoundError"),
        ("a.py", "1 +", "SyntaxError"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(vfs.DefinitionError, match=words) as error:
        load_definitions(tmp_path / name)
    assert name in str(error.value)


def test_a_module_may_hold_definitions_in_lists_and_dictionaries(tmp_path: Path) -> None:
    path = tmp_path / "features.py"
    path.write_text(
        "import virtualfs as vfs\n"
        "entities = {n: vfs.Entity(n, {n: 'string'}) for n in 'ab'}\n"
        "views = [vfs.FeatureView(f'v{n}', source=vfs.Source('s', table='t'), "
        "entities=[entities['a']], features=['f']) for n in range(2)]\n"
        "first = views[0]\nnumbers = [1, 2]\n"
    )
    found = collect(load_definitions(path))
    assert sorted(found["entity"]) == ["a", "b"]
    assert sorted(found["feature_view"]) == ["v0", "v1"]
