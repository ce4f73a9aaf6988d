"""The wheel alone: built, installed in an empty folder, and its demonstration run there."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, as an installer would lay it out."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_four_packages_and_the_examples(unpacked: Path) -> None:
    found = {path.name for path in unpacked.iterdir() if path.suffix != ".dist-info"}
    assert found == {
        "virtualfs",
        "virtualfs_graphql",
        "virtualfs_migrations",
        "virtualfs_providers",
    }
    for package in found:
        assert (unpacked / package / "py.typed").is_file()
    files = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*")}
    assert "virtualfs/examples/flights/data/flights.parquet" in files
    assert not [name for name in files if name.endswith((".duckdb", ".db", ".pyc"))]


def test_the_demonstration_runs_from_the_wheel(unpacked: Path, tmp_path: Path) -> None:
    # Isolated from the checkout (-P: no current folder; PYTHONPATH: the wheel first).
    code = "import virtualfs; print(virtualfs.__file__); from virtualfs.cli import main; main()"
    found = subprocess.run(
        [sys.executable, "-P", "-c", code, "demo"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""
    assert str(unpacked) in found.stdout.splitlines()[0]
    assert "336,776 rows" in found.stdout
    assert "both equal the point-in-time answer" in found.stdout
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "virtualfs-demo" / "training.parquet")
    assert table.num_rows == 336_776
    # Independent counts, from the raw files: weather within three hours is there for nearly all.
    assert 0.99 < 1 - table["temp"].null_count / table.num_rows < 1
    assert table["last_delay"].null_count < 0.2 * table.num_rows
    # Running it again replaces its own work and nothing else.
    again = subprocess.run(
        [sys.executable, "-P", "-c", code, "demo"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
    )
    assert "Nothing to change." in again.stdout
