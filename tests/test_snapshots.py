"""The SQL for every warehouse as text: pure, parsed in its own dialect, the same tomorrow.

A snapshot alone proves nothing; what the suite can run is proved in tests/conformance. Write them
anew with ``pytest tests/test_snapshots.py --write-snapshots`` and read the difference.
"""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import sqlglot
from sqlglot import exp

from virtualfs.capabilities import Statistics
from virtualfs.compiler.plan import FeaturePlan, Part, ResolvedFeature, ResolvedView
from virtualfs.compiler.program import compile_training

FOLDER = Path(__file__).parent / "snapshots"
ENGINES = ("duckdb", "postgres", "sqlite", "spark", "snowflake", "bigquery", "databricks", "trino",
           "redshift")  # fmt: skip
CASES = {
    "latest": {"created_timestamp": "made", "ttl": "1d"},
    "exclusive_delayed": {"boundary": "exclusive", "availability_delay": "1h"},
    "late_data_excluded": {"created_timestamp": "made", "late": True},
    "scd2": {"valid_to": "until", "availability_delay": "1h"},
    "static": {"event_timestamp": None},
    "no_keys": {"join_keys": {}},
    "naive_in_a_zone": {"timezone": "America/New_York", "naive": True},
}
# What no strategy may say to an engine that has no such thing (docs/adr/0002).
LACKS = {
    "postgres": ("ASOF", "QUALIFY"),
    "sqlite": ("ASOF", "LATERAL", "QUALIFY", "INTERVAL"),
    "spark": ("ASOF", "LATERAL", "MATERIALIZED"),
    "snowflake": ("LATERAL", "MATERIALIZED", "INTERVAL"),
    "bigquery": ("ASOF", "LATERAL", "MATERIALIZED", "INTERVAL"),
    "databricks": ("ASOF", "LATERAL", "MATERIALIZED"),
    "trino": ("ASOF", "LATERAL", "MATERIALIZED", "QUALIFY", "INTERVAL"),
    "redshift": ("ASOF", "LATERAL", "MATERIALIZED"),
}


def compiled(engine: str, case: str) -> str:
    capabilities = import_module(f"virtualfs_providers.{engine}").CAPABILITIES
    settings = dict(CASES[case])
    late = settings.pop("late", False)
    naive = settings.pop("naive", False) or engine == "sqlite"
    if engine == "sqlite":
        settings.pop("timezone", None)
    keys = settings.pop("join_keys", {"origin": "string", "number": "int64"})
    settings.setdefault("event_timestamp", "at")
    kind = "timestamp(6)" if naive else "timestamp('UTC', 6)"
    times = dict.fromkeys(("at", "made", "until"), kind)
    columns = {**keys, **times, "temp": "float64"}
    names = ", ".join(columns)
    (rows_sql,) = sqlglot.transpile(
        f"SELECT {names} FROM weather", write=capabilities.dialect, identify=True
    )
    view = ResolvedView(
        name="weather", fingerprint=case, warehouse="default", entities=("airport",),
        join_keys=keys, rows_sql=rows_sql, columns=columns,
        features=(ResolvedFeature(name="temp", sql="temp", dtype="float64"),), **settings,
    )  # fmt: skip
    part = Part(view, tuple(keys), (("temp", "temp"),), "exclude" if late else "include")
    program = compile_training(
        FeaturePlan((part,), ("temp",)), keys, capabilities, {case: Statistics()},
        spine_sql=None, spine_columns=(*keys, "event_timestamp"),
    )  # fmt: skip
    return program.text()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_the_sql_is_what_it_was(engine: str, case: str, request: pytest.FixtureRequest) -> None:
    text = compiled(engine, case)
    path = FOLDER / case / f"{engine}.sql"
    if request.config.getoption("--write-snapshots"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()
    dialect = import_module(f"virtualfs_providers.{engine}").CAPABILITIES.dialect
    statements = sqlglot.parse(text, dialect=dialect, error_level=sqlglot.ErrorLevel.RAISE)
    assert [tree.key for tree in statements if tree is not None] == ["select"]
    made = {alias.name for tree in statements if tree for alias in tree.find_all(exp.TableAlias)}
    assert all(name.startswith("__virtualfs_") for name in made), made
    code = " ".join(line for line in text.splitlines() if not line.startswith("--"))
    for word in LACKS.get(engine, ()):
        assert word not in code.upper().split()


def test_every_process_writes_the_same_text() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_snapshots as t;"
        "print(hash('x') and ''.join(t.compiled(e, c) for e in ('duckdb', 'postgres')"
        " for c in t.CASES))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, str(Path(__file__).parent)],
            capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed, "PATH": ""},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(texts) == 1
