"""The house itself: import names, public names, start-up cost, and what the repo may hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import virtualfs

ROOT = Path(__file__).parent.parent


def test_the_graphql_folder_never_shadows_graphql_core() -> None:
    assert not (ROOT / "graphql" / "__init__.py").exists()
    assert not (ROOT / "tests" / "graphql").exists()
    code = "import graphql, strawberry; print(graphql.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "site-packages" in found.stdout


@pytest.mark.parametrize("folder", ["graphql", "migrations", "providers"])
def test_each_folder_holds_one_prefixed_package(folder: str) -> None:
    packages = [path.parent.name for path in (ROOT / folder).glob("*/__init__.py")]
    assert packages == [f"virtualfs_{folder}"]
    assert (ROOT / folder / f"virtualfs_{folder}" / "py.typed").exists()


def test_public_names_are_those_that_can_be_imported() -> None:
    assert sorted(virtualfs.__all__) == sorted(virtualfs._HOMES)
    for name in virtualfs.__all__:
        assert getattr(virtualfs, name) is not None


def test_every_entry_point_loads() -> None:
    from importlib.metadata import entry_points

    for group in ("virtualfs.providers", "virtualfs.server", "virtualfs.migrations"):
        found = entry_points(group=group)
        assert found, group
        for entry in found:
            assert entry.load() is not None


@pytest.mark.parametrize("code", ["import virtualfs", "import virtualfs.cli"])
def test_starting_loads_nothing_heavy(code: str) -> None:
    heavy = "{'ibis', 'pandas', 'pyarrow', 'duckdb', 'sqlalchemy', 'pydantic', 'strawberry'}"
    check = f"import sys; {code}; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_compiling_needs_no_driver() -> None:
    code = (
        "import sys, virtualfs_providers.duckdb as p, ibis\n"
        "from virtualfs.compiler import sql\n"
        "table = ibis.table({'a': 'timestamp(6)'}, name='t')\n"
        "value = p.instant(table.a, 'America/New_York', 'up').name('x')\n"
        "sql.text(sql.render(table.select(value), p.CAPABILITIES), 'duckdb')\n"
        "print('duckdb' in sys.modules)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_the_migrations_head_is_the_newest_script() -> None:
    from alembic.script import ScriptDirectory

    from virtualfs_migrations import MIGRATIONS

    assert ScriptDirectory.from_config(MIGRATIONS.config()).get_current_head() == MIGRATIONS.head


def test_the_tables_are_those_that_migrations_make(tmp_path: Path) -> None:
    import sqlalchemy as sa

    from virtualfs.registry.database import Database
    from virtualfs.registry.tables import metadata

    Database(f"sqlite:///{tmp_path / 'r.db'}").upgrade()
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'r.db'}", poolclass=sa.NullPool)
    made = sa.inspect(engine)
    for table in metadata.tables.values():
        columns = {column["name"]: column["nullable"] for column in made.get_columns(table.name)}
        assert columns == {column.name: column.nullable for column in table.columns}
        indexes = {index["name"] for index in made.get_indexes(table.name)}
        assert indexes == {index.name for index in table.indexes}
