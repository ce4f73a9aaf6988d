"""The notebooks run from start to end in a real kernel, whose event loop runs while we call."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "examples"
NOTEBOOKS = sorted((FOLDER / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the notebooks beside the example that they stand on."""
    folder = tmp_path_factory.mktemp("examples")
    for name in ("flights", "notebooks"):
        shutil.copytree(FOLDER / name, folder / name)
    return folder / "notebooks"


def outputs(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """Return the kinds of output of each code cell."""
    return [
        sorted({kind for output in cell.outputs for kind in output.get("data", {"text": ""})})
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def run(path: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    client = NotebookClient(notebook, timeout=240, kernel_name="python3",
                            resources={"metadata": {"path": str(path.parent)}})  # fmt: skip
    client.execute()
    return notebook


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_the_repository_holds(path: Path, copied: Path) -> None:
    kept = nbformat.read(path, as_version=4)
    assert outputs(run(copied / path.name)) == outputs(kept)
    text = path.read_text()
    assert "/tmp/" not in text
    assert "Traceback" not in text
    assert "image/png" in text


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_calls_work_inside_a_running_loop(copied: Path) -> None:
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [
        nbformat.v4.new_code_cell(source)
        for source in (
            "import asyncio, ibis\nimport virtualfs as vfs\n"
            "assert asyncio.get_running_loop().is_running()",
            "con = ibis.duckdb.connect()\n"
            "con.raw_sql(\"CREATE TABLE t AS SELECT 'a' AS k, 1 AS x, \"\n"
            "            \"TIMESTAMP '2024-01-01' AS at\")\n"
            "store = vfs.FeatureStore(vfs.Config(project='p'), connections={'default': con})\n"
            "store.register_table('t', entity='e', join_keys=['k'], event_timestamp='at')",
            "store.get_online_features('t', {'k': ['a']}).to_list()",
            "spine = \"SELECT 'a' AS k, TIMESTAMP '2024-05-01' AS event_timestamp\"\n"
            "store.get_historical_features(spine, ['t:x']).to_pandas()",
            "print((await store.get_online_features_async('t', {'k': ['a']})).to_list())",
        )
    ]
    NotebookClient(notebook, timeout=120, kernel_name="python3",
                   resources={"metadata": {"path": str(copied)}}).execute()  # fmt: skip
    assert "'x': 1" in notebook.cells[-1].outputs[0]["text"]
