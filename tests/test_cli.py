"""The command line as people meet it: exit codes, clear errors, nothing half-written."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-c", "from virtualfs.cli import main; main()"]


def run(
    *arguments: str, cwd: Path, code: int = 0, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    found = subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONWARNINGS": "default", **(env or {})},
    )
    assert found.returncode == code, found.stdout + found.stderr
    if code in (1, 2):
        assert "Traceback" not in found.stderr
        assert found.stderr.strip()
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project as `init` makes it, applied."""
    folder = tmp_path_factory.mktemp("project")
    run("init", cwd=folder)
    run("apply", "--yes", cwd=folder)
    return folder


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Path]:
    """A project as `init` makes it, whose registry must stay unwritten."""
    run("init", cwd=tmp_path)
    yield tmp_path
    assert not (tmp_path / ".virtualfs" / "registry.db").exists()


def test_help_names_every_command(tmp_path: Path) -> None:
    text = run("--help", cwd=tmp_path).stdout
    for command in ("init", "demo", "plan", "apply", "historical", "online", "serve", "doctor"):
        assert command in text
        assert run(command, "--help", cwd=tmp_path).stdout.startswith("Usage")


def test_init_makes_a_project_that_works(project: Path) -> None:
    assert run("plan", "--check", cwd=project).stdout.endswith("Nothing to change.\n")
    rows = json.loads(run("list", "--json", cwd=project).stdout)
    assert {row["feature"] for row in rows} >= {"driver_hourly_stats:conv_rate"}
    answer = json.loads(
        run("online", "driver_activity", "driver_id=1001,9", "--json", cwd=project).stdout
    )
    assert answer["rows"][0]["avg_daily_trips"] is not None
    assert answer["statuses"]["conv_rate"] == ["PRESENT", "NOT_FOUND"]
    twice = run("online", "driver_hourly_stats", "driver_id=1001", "driver_id=9", cwd=project)
    assert "driver_id=1001" in twice.stdout
    assert "driver_id=9" in twice.stdout
    assert "driver_hourly_stats@1" in run("show", "driver_hourly_stats", cwd=project).stdout
    assert "revision" in run("registry", "current", cwd=project).stdout
    assert "FAILED" not in run("doctor", cwd=project).stdout


def test_a_training_set_from_the_command_line(project: Path, tmp_path: Path) -> None:
    spine = tmp_path / "spine.csv"
    spine.write_text(
        "driver_id,event_timestamp,label\n"
        "1001,2026-01-05 10:30:00,1\n"
        "1002,2026-01-05 10:30:00,0\n"
        "77,2026-01-05 10:30:00,0\n"
    )
    rows = json.loads(
        run("historical", "driver_activity", "--spine", str(spine), "--json", cwd=project).stdout
    )
    assert [row["label"] for row in rows] == [1, 0, 0]
    assert rows[0]["conv_rate"] is not None
    assert rows[2]["conv_rate"] is None
    out = tmp_path / "out.parquet"
    arguments = ["historical", "driver_activity", "--spine", str(spine), "-o", str(out)]
    run(*arguments, cwd=project)
    assert "--overwrite" in run(*arguments, cwd=project, code=2).stderr
    assert "Parquet" in run(*arguments[:-1], "out.csv", cwd=project, code=2).stderr
    assert "ASOF LEFT JOIN" in run(*arguments[:4], "--sql", cwd=project).stdout


def test_plan_check_exits_3(fresh: Path) -> None:
    assert "to add" in run("plan", "--check", cwd=fresh, code=3).stdout


def test_wrong_usage_exits_2(fresh: Path) -> None:
    assert "Did you mean 'apply'" in run("aply", cwd=fresh, code=2).stderr
    assert "virtualfs init" in run("list", cwd=fresh.parent, code=2).stderr


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ('"avg_daily_trips"', '"avg_daly_trips"', 1, "Did you mean 'avg_daily_trips'"),
        ('"driver_id": "int64"', '"driver_id": "string"', 1, "the entity says string"),
        ('{"driver_id": "int64"}', "{}", 1, "at least one join key"),
        ("driver_stats.parquet", "no_such.parquet", 1, "No files found"),
        ("[driver_hourly_stats]", "[driver_hourly_stats, vfs.Feature('x')]", 1, "features.1"),
        ("import virtualfs as vfs", "import virtualfs as vfs; 1 / 0", 1, "ZeroDivisionError"),
    ],
)
def test_bad_definitions(fresh: Path, old: str, new: str, code: int, words: str) -> None:
    file = fresh / "features.py"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    assert words in run("apply", "--yes", cwd=fresh, code=code).stderr


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("definitions", "definitons", 2, "Did you mean 'definitions'"),
        ("2026-01-15T23:30:00Z", "yesterday", 2, "clock"),
        ("duckdb://", "duckdbb://", 2, "no provider is installed for duckdbb:// URLs"),
        ("duckdb://", "duckdb://no/such.duckdb", 1, "there is no DuckDB file"),
        ("duckdb://", "duckdb:///dev/null/x.duckdb", 1, "there is no DuckDB file"),
        ("duckdb://", "duckdb://features.py", 1, "not a valid DuckDB database"),
    ],
)
def test_bad_settings(fresh: Path, old: str, new: str, code: int, words: str) -> None:
    file = fresh / "virtualfs.toml"
    file.write_text(file.read_text().replace(old, new, 1))
    assert words in run("apply", "--yes", cwd=fresh, code=code).stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["online", "driver_activty", "driver_id=1"], "Did you mean 'driver_activity'"),
        (["online", "driver_hourly_stats:conv", "driver_id=1"], "Did you mean 'conv_rate'"),
        (["online", "driver_activity", "--entities", '[{"driver_id": "1"}]'], "expected int64"),
        (["online", "driver_activity", "--entities", '[{"driver": 1}]'], "lacks the join key"),
        (["historical", "driver_activity", "--spine", "SELECT 1 AS driver_id"], "timestamp column"),
        (
            [
                "historical",
                "driver_activity",
                "--spine",
                "SELECT 1 AS driver_id, 'noon' AS event_timestamp",
            ],
            "convert it to timestamps",
        ),
        (
            ["historical", "driver_activity", "--spine", "SELECT now() AS event_timestamp"],
            "lacks the join key 'driver_id'",
        ),
        (
            [
                "historical",
                "driver_activity",
                "--spine",
                "SELECT 'x' AS driver_id, now() AS event_timestamp",
            ],
            "keyed by int64",
        ),
        (["historical", "driver_activity", "--spine", "SELEC 1"], "SQL"),
        (["historical", "driver_activity", "--spine", "missing.csv"], "missing.csv does not exist"),
        (["show", "driver_hourly"], "Did you mean 'driver_hourly_stats'"),
    ],
)
def test_bad_requests(project: Path, arguments: list[str], words: str) -> None:
    assert words in run(*arguments, cwd=project, code=1).stderr


def test_bad_keys_are_wrong_usage(project: Path) -> None:
    text = run("online", "driver_activity", "driver_id=abc", cwd=project, code=2).stderr
    assert "expected int64" in text


def test_a_duckdb_file_that_another_process_writes(fresh: Path) -> None:
    code = (
        "import duckdb, sys, time; c = duckdb.connect('busy.duckdb'); "
        "print('open', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=fresh, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        file = fresh / "virtualfs.toml"
        file.write_text(file.read_text().replace("duckdb://", "duckdb://busy.duckdb", 1))
        assert "Another process" in run("apply", "--yes", cwd=fresh, code=1).stderr
        other.kill()


def test_an_unreachable_registry(fresh: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    file = fresh / "virtualfs.toml"
    url = f"postgresql://ann:s3cret@127.0.0.1:{port}/db"
    file.write_text(file.read_text().replace("sqlite:///.virtualfs/registry.db", url))
    text = run("apply", "--yes", cwd=fresh, code=1).stderr
    assert "registry" in text
    assert "s3cret" not in text


def test_a_folder_that_cannot_be_written(fresh: Path) -> None:
    # Permissions do not hold root back, so a file stands where the folder should be.
    (fresh / ".virtualfs").write_text("")
    assert "cannot make the registry's folder" in run("apply", "--yes", cwd=fresh, code=1).stderr
    (fresh / ".virtualfs").unlink()


def test_init_overwrites_nothing(project: Path) -> None:
    assert "exists" in run("init", cwd=project, code=2).stderr


def test_the_demo_keeps_what_was_changed(tmp_path: Path) -> None:
    run("demo", "--dir", "d", cwd=tmp_path)
    settings = tmp_path / "d" / "virtualfs.toml"
    settings.write_text(settings.read_text() + "\n[server]\nport = 8001\n")
    assert "kept" in run("demo", "--dir", "d", cwd=tmp_path).stdout
    assert "port = 8001" in settings.read_text()
    assert "--serve" in run("demo", "--port", "1", cwd=tmp_path, code=2).stderr


def test_serve_answers_and_refuses_what_is_unsafe(project: Path) -> None:
    import httpx

    assert "loopback" in run("serve", "--host", "0.0.0.0", cwd=project, code=2).stderr
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.listen()
        text = run("serve", "--port", str(port), cwd=project, code=2).stderr
        assert "--port" in text
    server = subprocess.Popen([*COMMAND, "serve", "--port", str(port)], cwd=project)
    try:
        for _ in range(100):
            try:
                ready = httpx.get(f"http://127.0.0.1:{port}/readyz")
                break
            except httpx.ConnectError:
                time.sleep(0.1)
        assert ready.status_code == 200
        query = "{ driver(driverId: 1001) { driverHourlyStats { avgDailyTrips isBusy } } }"
        answer = httpx.post(f"http://127.0.0.1:{port}/graphql", json={"query": query}).json()
        assert answer["data"]["driver"]["driverHourlyStats"]["isBusy"] in (True, False)
    finally:
        server.terminate()
        assert server.wait(10) in (0, -15)
