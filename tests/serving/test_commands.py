"""The commands that look after the cache, on a cache that outlives them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pytest
from click.testing import CliRunner, Result

from virtualfs import FeatureStore
from virtualfs.cli import cli


@pytest.fixture
def folder(tmp_path: Path, valkey: str) -> Path:
    with duckdb.connect(str(tmp_path / "w.duckdb")) as con:
        con.execute(
            "CREATE TABLE weather AS SELECT 'P' || n AS place, TIMESTAMP '2020-01-01' + "
            "to_hours(n::INT) AS seen, n::INT AS temp FROM range(50) AS t(n)"
        )
    (tmp_path / "virtualfs.toml").write_text(
        f'project = "p{uuid4().hex}"\nclock = "2020-01-10T00:00:00Z"\n'
        'definitions = ["features.py"]\n[warehouses.default]\nurl = "duckdb://w.duckdb"\n'
        f'[cache]\nurl = "{valkey}"\n'
    )
    (tmp_path / "features.py").write_text(
        "import virtualfs as vfs\n\n"
        'weather = vfs.FeatureView("weather", source=vfs.Source("weather", table="weather", '
        'event_timestamp="seen"), entities=[vfs.Entity("place", {"place": "string"})], '
        'features=["temp"], freshness="1d")\n'
    )
    with FeatureStore(tmp_path) as store:
        store.apply()
    return tmp_path


def run(folder: Path, *arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, ["-c", str(folder), *arguments], standalone_mode=True)
    assert result.exit_code == code, result.output
    return result


def printed(folder: Path, *arguments: str) -> Any:
    return json.loads(run(folder, *arguments, "--json").stdout)


def test_fill_look_and_forget(folder: Path) -> None:
    assert printed(folder, "materialize", "weather", "place=P1,P2")["written"] == 2
    assert printed(folder, "hot")["views"][0]["keys"] == 2
    ranged = printed(folder, "materialize", "--start", "2020-01-01T10:00:00", "--end", "2020-01-02")
    assert ranged["views"][0]["keys"] == 14
    assert "50" in run(folder, "materialize").stdout
    assert "P3" in run(folder, "online", "weather", "place=P3").stdout
    shown = run(folder, "hot", "weather").stdout
    assert "weather@1: 1 reads, 100.0% from the cache, 50 keys" in shown
    assert "P3" in shown
    assert printed(folder, "materialize", "--hottest", "1")["views"][0]["keys"] == 1
    assert run(folder, "invalidate", "weather", "place=P3,P4").stdout == (
        "Forgot 2 rows of weather.\n"
    )
    assert printed(folder, "invalidate", "weather")["rows"] >= 48


def test_wrong_usage_is_named(folder: Path) -> None:
    assert "name a service or features before the keys" in run(
        folder, "materialize", "place=P1", code=2
    ).output  # fmt: skip
    assert "P1: keys are written name=value" in run(
        folder, "invalidate", "weather", "P1", code=2
    ).output  # fmt: skip
    assert "does not match the formats" in run(
        folder, "materialize", "--start", "yesterday", code=2
    ).output  # fmt: skip


def test_a_cache_in_memory_is_said_to_go(folder: Path) -> None:
    text = (folder / "virtualfs.toml").read_text()
    (folder / "virtualfs.toml").write_text(text[: text.index("[cache]")])
    assert "the cache is memory://" in run(folder, "materialize").output
