"""Files are whole or not there; what killed runs have left is found and removed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import virtualfs as vfs
from tests.registry.test_commands import run
from virtualfs.files import orphans, temporary, write_text


def test_of_many_writers_of_one_new_file_one_wins(tmp_path: Path) -> None:
    target, lost, won = tmp_path / "a.yaml", [], []

    def write(number: int) -> None:
        try:
            write_text(target, f"{number}" * 100_000)
            won.append(number)
        except FileExistsError:
            lost.append(number)

    threads = [threading.Thread(target=write, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    assert target.read_text() == f"{won[0]}" * 100_000
    assert [*tmp_path.iterdir()] == [target]


def left_by_a_killed_run(folder: Path, age: float) -> Path:
    """Return an unfinished file of a process that is gone, last written some seconds ago."""
    code = (
        "import sys; from pathlib import Path; from virtualfs.files import temporary; "
        "print(temporary(Path(sys.argv[1])))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(folder / "set.parquet")], capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    part = Path(ran.stdout.strip())
    part.write_bytes(b"half")
    os.utime(part, (time.time() - age, time.time() - age))
    return part


def test_orphans_are_old_and_of_processes_that_are_gone(tmp_path: Path) -> None:
    deep = tmp_path / "data" / "sets"
    deep.mkdir(parents=True)
    orphan = left_by_a_killed_run(deep, 7_200)
    left_by_a_killed_run(deep, 60)  # which may have a moment to live
    own = temporary(deep / "mine.parquet")
    own.write_bytes(b"half")
    os.utime(own, (0, 0))
    (deep / "set.parquet").write_bytes(b"whole")
    (deep / ".notes.part").write_bytes(b"somebody else's")
    assert [*orphans(tmp_path)] == [orphan]


def test_doctor_finds_and_removes_what_killed_runs_have_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "virtualfs.toml").write_text(
        'project = "p"\n[warehouses.default]\nurl = "duckdb://"\n'
    )
    with vfs.FeatureStore(tmp_path) as store:
        store.apply([vfs.Entity("e", {"k": "int64"})])
    orphan = left_by_a_killed_run(tmp_path, 7_200)
    with monkeypatch.context() as patch:
        shown: list[str] = []
        patch.setattr("virtualfs.cli.registry.echo_json", shown.append)
        run("doctor", "--json", cwd=tmp_path, code=1)
        (found,) = [row for row in shown[0] if row["check"] == "unfinished files"]  # type: ignore[attr-defined]
        assert orphan.name in found["detail"]
        assert "virtualfs doctor --clean" in found["detail"]
        assert orphan.exists()
        run("doctor", "--clean", "--json", cwd=tmp_path)
        assert not orphan.exists()
        run("doctor", "--json", cwd=tmp_path)
