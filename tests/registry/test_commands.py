"""Commands on the registry, as a person at a terminal or a CI job meets them."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from contextlib import ExitStack, chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import duckdb
import pytest

from virtualfs import FeatureDeprecationWarning, FeatureStore
from virtualfs.cli import main
from virtualfs.definitions.expression import checksum

COMMAND = [sys.executable, "-c", "from virtualfs.cli import main; main()"]
FEATURES = """
import virtualfs as vfs
airport = vfs.Entity("airport", {{"origin": "string"}})
weather = vfs.FeatureView("weather", entities=[airport], features=[{features}], {more}
                          source=vfs.Source("weather", table="weather", event_timestamp="seen"))
service = vfs.FeatureService("delay", [weather])
"""


def run(*arguments: str, cwd: Path, code: int = 0) -> str:
    """Run a command in this process, where there is no terminal; return what it says."""
    out, err = io.StringIO(), io.StringIO()
    with ExitStack() as stack:
        stack.enter_context(chdir(cwd))
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(sys, "argv", ["virtualfs", *arguments])
        patch.setattr(sys, "stdin", io.StringIO())
        stop = stack.enter_context(pytest.raises(SystemExit))
        main()
    assert stop.value.code == code, out.getvalue() + err.getvalue()
    return (out if code in (0, 3) else err).getvalue()


def write(folder: Path, features: str = '"temp"', more: str = "") -> None:
    (folder / "features.py").write_text(FEATURES.format(features=features, more=more))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    with duckdb.connect(str(tmp_path / "w.duckdb")) as made:
        made.execute("CREATE TABLE weather AS SELECT 'JFK' AS origin, TIMESTAMP '2020-01-01' AS "
                     "seen, 5 AS temp, true AS wet")  # fmt: skip
    (tmp_path / "virtualfs.toml").write_text(
        'project = "p"\ndefinitions = ["features.py"]\nclock = "2020-01-02T00:00:00Z"\n'
        '[warehouses.default]\nurl = "duckdb://w.duckdb"\n'
    )
    write(tmp_path)
    return tmp_path


def test_a_change_from_plan_to_rollback(project: Path) -> None:
    assert "4 to add" in run("plan", "--check", cwd=project, code=3)
    assert "no terminal to ask on; pass --yes" in run("apply", cwd=project, code=2)
    assert "Applied as revision 1" in run("apply", "--yes", cwd=project)
    assert "Nothing to change" in run("plan", "--check", cwd=project)
    assert "Nothing to change" in run("apply", cwd=project)  # there is nothing to ask

    write(project, 'vfs.Feature("temp", "temp * 2")')
    plan = run("plan", cwd=project)
    assert "~ feature view weather (v1 -> v2) breaking" in plan
    assert "touches: feature service delay (delay@1 keeps weather@1)" in plan
    assert '+  (temp * 2) AS "temp"' in plan
    told = json.loads(run("plan", "--json", cwd=project))
    assert {change["impact"] for change in told["changes"]} == {"breaking"}
    refused = run("apply", "--yes", cwd=project, code=1)
    assert "BreakingChangeError" in refused
    assert "weather@1, pinned by delay@1" in refused
    assert "revision 2" in run("apply", "--yes", "--allow-breaking", cwd=project)
    assert "delay@2" in run("show", "delay", cwd=project)
    assert "delay@1" in run("show", "delay@1", cwd=project)
    assert "Pinned: weather@1" in run("show", "delay", "--version", "1", cwd=project)
    assert "no version 7 of 'delay'" in run("show", "delay@7", cwd=project, code=1)
    assert "10" in run("online", "delay", "origin=JFK", cwd=project)

    assert "no terminal" in run("rollback", "1", cwd=project, code=2)
    assert "Rolled back as revision 3" in run("rollback", "1", "--yes", cwd=project)
    history = run("history", "weather", cwd=project)
    assert history.index("revision 3") < history.index("revision 2") < history.index("revision 1")
    rows = json.loads(run("history", "--json", cwd=project))
    assert [row["action"] for row in rows] == ["rollback to 1", "apply", "apply"]
    assert "weather@2" not in run("show", "weather", cwd=project)
    assert "weather@2" in run("--revision", "2", "show", "weather", cwd=project)
    assert "temp * 2" in run("--revision", "2", "export", cwd=project)


def test_environments(project: Path) -> None:
    run("apply", "--yes", cwd=project)
    write(project, '"temp", "wet"')
    assert "in environment dev" in run("plan", "--env", "dev", cwd=project)
    assert "revision 2" in run("apply", "--env", "dev", "--yes", cwd=project)
    assert "weather:wet" in run("--env", "dev", "list", cwd=project)
    assert "weather:wet" not in run("list", cwd=project)
    assert "+ wet boolean" in run("diff", "default", "dev", cwd=project)
    assert "no environment 'prod'" in run("--env", "prod", "list", cwd=project, code=1)
    assert "prod is at revision 2" in run("promote", "dev", "prod", "--yes", cwd=project)
    rows = json.loads(run("list", "environments", "--json", cwd=project))
    assert {row["name"]: row["revision"] for row in rows} == {"default": 1, "dev": 2, "prod": 2}
    write(project, 'vfs.Feature("temp", "temp + 1")')
    run("apply", "--env", "dev", "--yes", "--allow-breaking", cwd=project)
    assert "pinned by delay@2" in run("promote", "dev", "prod", "--yes", cwd=project, code=1)
    run("promote", "dev", "prod", "--yes", "--allow-breaking", cwd=project)
    assert "weather" in run("diff", "default", "prod", "--json", cwd=project)


def test_deprecation_is_seen_by_who_asks(project: Path) -> None:
    run("apply", "--yes", cwd=project)
    write(project, '"temp", "wet"')
    run("apply", "--yes", cwd=project)
    assert "Marked in revision 3" in run("deprecate", "delay@1", "train again", cwd=project)
    assert "Deprecated: train again" in run("show", "delay@1", cwd=project)
    with pytest.warns(FeatureDeprecationWarning, match="delay@1 is deprecated: train again"):
        run("online", "delay@1", "origin=JFK", cwd=project)


def test_looking_around(project: Path) -> None:
    write(project, '"temp", vfs.Feature("cold", "temp < 0", description="below freezing")')
    run("apply", "--yes", cwd=project)
    assert "weather:cold" in run("search", "freezing", cwd=project)
    assert json.loads(run("search", "freezing", "--json", cwd=project)) == [
        {"kind": "feature", "name": "weather:cold", "description": "below freezing"}
    ]
    assert "Nothing found for 'zebra'" in run("search", "zebra", cwd=project)
    assert "column weather.temp" in run("lineage", "weather:cold", cwd=project)
    assert run("lineage", "weather:cold", "--mermaid", cwd=project).startswith("flowchart LR")
    gone = run("impact", "weather.temp", cwd=project)
    assert "feature weather@1:cold" in gone
    assert "feature service delay@1" in gone
    assert json.loads(run("impact", "weather.temp", "--json", cwd=project))["roots"] == [
        "weather.temp"
    ]
    assert "knows nothing called 'weather.snow'" in run(
        "impact", "weather.snow", cwd=project, code=1
    )
    rows = json.loads(run("list", "--json", cwd=project))
    assert {row["feature"]: row["services"] for row in rows} == {
        "weather:temp": 1, "weather:cold": 1,
    }  # fmt: skip
    assert json.loads(run("list", "--unused", "--json", cwd=project)) == []


def test_drift_is_told_by_plan_and_check(project: Path) -> None:
    run("apply", "--yes", cwd=project)
    with duckdb.connect(str(project / "w.duckdb")) as made:
        made.execute("ALTER TABLE weather DROP temp")
    assert "! drift: source weather of feature view weather: column temp (int32) is gone" in run(
        "plan", "--check", cwd=project, code=3
    )
    with FeatureStore(project) as store:
        assert "column temp (int32) is gone" in str(store.check())
    run("check", cwd=project, code=1)


def test_a_registry_of_another_version_says_what_to_run(project: Path) -> None:
    assert "CREATE TABLE virtualfs_revisions" in run("registry", "upgrade", "--sql", cwd=project)
    run("apply", "--yes", cwd=project)
    assert "-- The schema is the newest" in run("registry", "upgrade", "--sql", cwd=project)
    assert "no terminal" in run("registry", "downgrade", "0001", cwd=project, code=2)
    assert "0004 -> 0001" in run("registry", "downgrade", "0001", "--yes", cwd=project)
    assert "`virtualfs registry upgrade`" in run("list", cwd=project, code=1)
    assert "0001 -> 0004" in run("registry", "upgrade", cwd=project)
    assert "weather:temp" in run("list", cwd=project)
    assert "weather.temp" in run("lineage", "weather:temp", cwd=project)


def test_a_terminal_is_asked_and_may_say_no(project: Path) -> None:
    for answer, code in (("n\n", 130), ("y\n", 0)):
        primary, secondary = pty.openpty()
        process = subprocess.Popen(
            [*COMMAND, "apply"], cwd=project, stdin=secondary, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        os.write(primary, answer.encode())
        out, error = process.communicate(timeout=60)
        os.close(primary)
        os.close(secondary)
        assert process.returncode == code, out + error
        assert "Apply?" in out + error
    assert "Nothing to change" in run("plan", "--check", cwd=project)


def test_an_export_applies_to_an_equal_registry(project: Path, tmp_path: Path) -> None:
    (project / "features.py").write_text(
        """
import virtualfs as vfs
from virtualfs import _
airport = vfs.Entity("airport", {"origin": "string"}, description="Größe: ä", owner="ann")
weather = vfs.FeatureView(
    "weather", entities=[airport], ttl="1d", tags={"a": "b: c"},
    features=["temp", vfs.Feature("cold", _.temp < 0, description="x"),
              vfs.Feature("hot", "temp > 100", dtype="boolean", deprecated="use cold")],
    source=vfs.Source("weather", table="weather", event_timestamp="seen", columns={"wet": "rain"}))
counts = vfs.FeatureView(
    "counts", entities=[airport],
    features=[vfs.Aggregate("temp", "mean", "7d", where=_.temp > 1),
              vfs.Aggregate("*", "count", "1d"),
              vfs.Aggregate("temp", "quantile", "36h", q=0.9, offset="1h")],
    source=vfs.Source("w2", expr=lambda con: con.table("weather").filter(_.wet),
                      event_timestamp="seen"))
double = vfs.OnDemandFeatureView(
    "double", inputs=[weather[["temp"]].with_name("w")], request={"factor": "float64"},
    features=[vfs.Feature("twice", _.temp * _.factor), vfs.Feature("half", "temp / 2")])
service = vfs.FeatureService(
    "delay", [weather[["cold", "temp"]], double, counts.with_join_keys({"origin": "dest"})])
"""
    )
    run("apply", "--yes", cwd=project)
    other = project / "other"
    other.mkdir()
    run("export", "-o", str(other / "features.yaml"), cwd=project)
    assert "exists" in run("export", "-o", str(other / "features.yaml"), cwd=project, code=1)
    (other / "virtualfs.toml").write_text(
        'project = "p"\ndefinitions = ["features.yaml"]\nclock = "2020-01-02T00:00:00Z"\n'
        '[warehouses.default]\nurl = "duckdb://../w.duckdb"\n'
    )
    run("apply", "--yes", cwd=other)

    def held(folder: Path) -> dict[Any, Any]:
        with FeatureStore(folder) as store:
            return {
                key: (item.version, item.fingerprint, item.definition, item.resolved)
                for key, item in store.state().objects.items()
            }

    assert held(project) == held(other)
    assert run("export", cwd=project) == run("export", cwd=other)
    assert "Nothing to change" in run("plan", "--check", cwd=other)
    features = [*("online", "delay", "origin=JFK", "dest=JFK", "factor=3", "--json")]
    assert run(*features, cwd=project) == run(*features, cwd=other)


def test_a_tree_that_no_export_wrote_is_refused(project: Path) -> None:
    (project / "features.yaml").write_text(
        "on_demand_feature_views:\n- name: d\n  request: {x: float64}\n  features:\n"
        "  - {name: f, expr: {ibis: _.x, tree: [[__import__, float64, os, []]], "
        f"check: {checksum('_.x', [['__import__', 'float64', 'os', []]])}}}}}\n"
    )
    toml = project / "virtualfs.toml"
    toml.write_text(toml.read_text().replace("features.py", "features.yaml"))
    assert "not one that an export wrote" in run("plan", cwd=project, code=1)
