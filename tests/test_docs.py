"""The documentation: every example runs, every setting and command exists."""

from __future__ import annotations

import asyncio
import doctest
import importlib
import pkgutil
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import virtualfs
from virtualfs import FeatureStore
from virtualfs.cli.demo import _make_project
from virtualfs.definitions.project import Project, load_definitions

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()


def block(text: str, name: str) -> str:
    """Return the code block that is marked with a name."""
    found = re.search(rf"<!-- test: {name} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert found, f"no block marked {name}"
    return found[1]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demonstration has been run."""
    folder = tmp_path_factory.mktemp("readme")
    _make_project(folder / "virtualfs-demo")
    with FeatureStore(folder / "virtualfs-demo") as store:
        store.apply()
    return folder


@pytest.fixture
def own_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a project of the demonstration that a test may change."""
    _make_project(tmp_path / "virtualfs-demo")
    with FeatureStore(tmp_path / "virtualfs-demo") as store:
        store.apply()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_python_block_is_marked() -> None:
    blocks = re.findall(r"(.*)\n```python", README)
    assert blocks
    assert all(line.startswith("<!-- test: ") for line in blocks)


def test_the_notebook_example(
    demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(demo)
    names: dict[str, object] = {}
    exec(block(README, "notebook"), names)
    assert "freezing" in capsys.readouterr().out
    training = names["training"]
    assert isinstance(training, virtualfs.TrainingDataset)
    assert training.to_pyarrow().num_rows == 336_776


def test_the_definitions_example(demo: Path, tmp_path: Path) -> None:
    (tmp_path / "features.py").write_text(block(README, "definitions"))
    definitions = load_definitions(tmp_path / "features.py")
    assert Project.of(definitions).services
    with FeatureStore(demo / "virtualfs-demo") as store:
        assert store.plan(definitions)


def test_the_graphql_example(demo: Path) -> None:
    import httpx

    from virtualfs_graphql.app import SERVER

    async def ask(store: FeatureStore) -> httpx.Response:
        transport = httpx.ASGITransport(SERVER.asgi(store))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/graphql", json={"query": block(README, "graphql")})

    with FeatureStore(demo / "virtualfs-demo") as store:
        answer = asyncio.run(ask(store)).json()
    assert "errors" not in answer
    assert answer["data"]["airport"]["airportWeather"]["_meta"]["status"] == "PRESENT"


def test_the_graphql_guide(demo: Path, tmp_path: Path) -> None:
    import httpx

    from virtualfs_graphql.app import SERVER

    guide = (ROOT / "docs" / "graphql.md").read_text()

    async def ask(store: FeatureStore) -> httpx.Response:
        transport = httpx.ASGITransport(SERVER.asgi(store))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/graphql", json={"query": block(guide, "graphql-guide")})

    with FeatureStore(demo / "virtualfs-demo") as store:
        answer = asyncio.run(ask(store)).json()
    assert "errors" not in answer
    assert answer["data"]["yesterday"]["airportWeather"]["temp"] is not None
    (settings,) = re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)
    (tmp_path / "virtualfs.toml").write_text('project = "p"\n' + settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIRTUALFS_TOKEN", "x")
        assert virtualfs.load_config(tmp_path).server.limits.depth == 8


def test_the_shell_examples(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from virtualfs.cli import cli

    monkeypatch.chdir(demo / "virtualfs-demo")
    found = re.search(r"```sh\n(.*?)```", README, re.DOTALL)
    assert found
    for line in found[1].strip().splitlines():
        result = CliRunner().invoke(cli, shlex.split(line)[1:], standalone_mode=False)
        assert result.exception is None, (line, result.output, result.exception)


def run_lines(text: str, monkeypatch: pytest.MonkeyPatch, **replace: str) -> str:
    """Run the lines of a shell block, but for what serves until it is stopped."""
    from click.testing import CliRunner

    from virtualfs.cli import cli

    shown = []
    for line in text.strip().splitlines():
        words = [replace.get(word, word) for word in shlex.split(line)[1:]]
        if words[0] == "serve":
            continue
        result = CliRunner().invoke(cli, words, standalone_mode=False)
        assert result.exception is None, (line, result.output, result.exception)
        shown.append(result.output)
    return "\n".join(shown)


@pytest.fixture
def flights(tmp_path: Path, flights_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the flights' database and nothing else, entered."""
    (tmp_path / "data").mkdir()
    shutil.copyfile(flights_database, tmp_path / "data" / "flights.duckdb")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_example_of_aggregates(flights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "aggregates.md").read_text()
    names: dict[str, object] = {}
    exec(block(page, "aggregates"), names)
    training = names["training"]
    assert isinstance(training, virtualfs.TrainingDataset)
    assert training.to_pyarrow().num_rows == 1000
    assert "dest_last_5_1d" in capsys.readouterr().out


def test_the_example_of_on_demand_features(
    flights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "on-demand.md").read_text()
    names: dict[str, object] = {}
    exec(block(page, "on-demand"), names)
    training = names["training"] = names["store"].get_historical_features(  # type: ignore[attr-defined]
        names["spine"], [names["trip"]]
    )
    assert training.to_pyarrow().num_rows == 5000
    assert "'long_haul': True" in capsys.readouterr().out


def test_the_examples_of_existing_tables(flights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "existing-tables.md").read_text()
    assert "PRESENT" in run_lines(block(page, "scan"), monkeypatch)
    assert "boundary" in (flights / "features.py").read_text()
    (flights / "features.py").write_text("")
    run_lines("virtualfs apply --yes", monkeypatch)  # make room for the entity below
    assert "feature view hourly" in run_lines(block(page, "register"), monkeypatch)


def test_the_ibis_example(flights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(block((ROOT / "docs" / "notebooks.md").read_text(), "ibis"), {})
    out = capsys.readouterr().out
    assert "feature view windy_hours (v1)" in out
    assert "Because the row of" in out


def test_the_example_of_the_registry(own_demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    exec(block((ROOT / "docs" / "registry.md").read_text(), "registry"), names)
    for name in ("store", "dev"):
        names[name].close()  # type: ignore[attr-defined]
    shown = capsys.readouterr().out
    assert "Revision(number=2" in shown
    assert "~ feature view airport_weather (v1 -> v2) breaking" in shown
    assert "[3.9" in shown
    assert "[39.02]" in shown
    assert "revision 3" in shown
    assert "feature airport_weather@1:freezing" in shown


def test_the_boundary_example() -> None:
    names: dict[str, object] = {}
    exec(block((ROOT / "docs" / "point-in-time.md").read_text(), "boundary"), names)
    assert isinstance(names["last_order"], virtualfs.FeatureView)


def test_the_tutorial(
    postgres: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import psycopg

    page = (ROOT / "docs" / "tutorial.md").read_text()
    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS shop")
        admin.execute("CREATE DATABASE shop")
        admin.execute("DROP ROLE IF EXISTS shop_reader")
        admin.execute("CREATE ROLE shop_reader LOGIN")
    url = postgres.replace("/postgres?", "/shop?")
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute((ROOT / "examples" / "shop" / "shop.sql").read_text())
        owner.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO shop_reader")
    monkeypatch.chdir(tmp_path)
    reader = url.replace("postgres:@", "shop_reader:@")
    shown = run_lines(
        block(page, "tutorial-scan"), monkeypatch,
        **{"postgresql://reader@localhost/shop": reader},
    )  # fmt: skip
    printed = re.search(r"```text\n(.*?)```", page, re.DOTALL)
    assert printed
    told, seen = (" ".join(text.replace("─", "").split()) for text in (printed[1], shown))
    assert told in seen, shown
    proposed = (tmp_path / "features.py").read_text()
    start = proposed.index("orders = vfs.FeatureView(")
    end = proposed.index("\n)\n", start) + 3
    edited = proposed[:start] + block(page, "tutorial-orders") + proposed[end:]
    (tmp_path / "features.py").write_text(edited + "\n\n" + block(page, "tutorial-service"))
    assert "Applied as revision 1" in run_lines(
        block(page, "tutorial-apply").splitlines()[0], monkeypatch
    )
    exec(block(page, "tutorial-train"), {})
    score = re.search(r"AUC on the months after: (0\.\d\d)", capsys.readouterr().out)
    assert score
    assert 0.6 < float(score[1]) < 0.9
    assert "severity" in run_lines(block(page, "tutorial-online"), monkeypatch)
    _second_warehouse(page, tmp_path, monkeypatch, capsys)


def _second_warehouse(
    page: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tutorial's last parts: a lake beside the database, and a model served from both."""
    visits = runpy.run_path(str(ROOT / "examples" / "shop" / "visits.py"))
    visits["main"](folder / "visits")
    settings = folder / "virtualfs.toml"
    settings.write_text(
        block(page, "tutorial-clock") + settings.read_text() + "\n" + block(page, "tutorial-lake")
    )
    definitions = folder / "features.py"
    definitions.write_text(definitions.read_text() + "\n\n" + block(page, "tutorial-visits"))
    shown = run_lines(block(page, "tutorial-check"), monkeypatch)
    assert "LEAK   orders@1: rows that decide it" in shown
    names: dict[str, object] = {}
    capsys.readouterr()
    exec(block(page, "tutorial-save"), names)
    told = capsys.readouterr().out
    assert "Warehouse 'lake' (DuckDB)" in told
    assert "Training set risk@1" in told
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from virtualfs.cli import main; main()", "serve", "--port"]
    with subprocess.Popen([*command, str(port)], cwd=folder, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout
            server.stdout.readline()
            exec(block(page, "tutorial-serve").replace(":8000", f":{port}"), names)
        finally:
            server.terminate()
    assert re.fullmatch(r"7 \d+%\n8 \d+%\n9 \d+%\n", capsys.readouterr().out)
    names["store"].close()  # type: ignore[attr-defined]
    assert "orders@1:total" in run_lines("virtualfs lineage training_set:risk@1", monkeypatch)


def test_the_example_of_saved_training_sets(
    own_demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "training-sets.md").read_text()
    monkeypatch.chdir(own_demo / "virtualfs-demo")
    names: dict[str, object] = {}
    exec(block(page, "saved"), names)
    exec(block(page, "saved-again"), names)
    assert "windy" in capsys.readouterr().out
    later = names["later"].to_pyarrow()  # type: ignore[attr-defined]
    assert later.num_rows == 328_521
    assert later.equals(names["again"].to_pyarrow())  # type: ignore[attr-defined]
    names["store"].close()  # type: ignore[attr-defined]


def test_the_example_of_the_leakage_check(flights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copyfile(ROOT / "examples" / "flights" / "features.py", flights / "features.py")
    shutil.copyfile(ROOT / "examples" / "flights" / "virtualfs.toml", flights / "virtualfs.toml")
    with (flights / "features.py").open("a") as file:  # the page's has thirty windows
        file.write(
            'few = vfs.FeatureService("few", [vfs.FeatureView("carrier_few", source=flights, '
            'entities=[carrier], features=[vfs.Aggregate("dep_delay", "mean", "1d")])])\n'
        )
    run_lines("virtualfs apply --yes", monkeypatch)
    command = block((ROOT / "docs" / "leakage.md").read_text(), "leakage")
    shown = run_lines(command.replace("delay_history", "few"), monkeypatch)
    assert "LEAK   carrier_few" in shown
    assert "were written after the instant" in shown


def test_the_aggregates_in_yaml(tmp_path: Path) -> None:
    text = block((ROOT / "docs" / "aggregates.md").read_text(), "aggregates-yaml")
    (tmp_path / "f.yaml").write_text(text)
    (view,) = load_definitions(tmp_path / "f.yaml")
    assert view.features[1].name == "cancelled_7d"  # type: ignore[attr-defined]


def test_the_settings_of_several_warehouses(tmp_path: Path) -> None:
    (settings,) = re.findall(
        r"```toml\n(.*?)```", (ROOT / "docs" / "warehouses.md").read_text(), re.DOTALL
    )
    (tmp_path / "virtualfs.toml").write_text('project = "p"\n' + settings)
    assert set(virtualfs.load_config(tmp_path).warehouses) == {"default", "ledger", "lake"}


def test_the_sources_of_lakes() -> None:
    page = (ROOT / "docs" / "lakes.md").read_text()
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(code, {"vfs": virtualfs})


@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java 17, and there is none")
def test_the_spark_example(demo: Path) -> None:
    # In a process of its own, as Spark is one to a process.
    code = block((ROOT / "docs" / "scaling.md").read_text(), "spark")
    code += "print('temp', spark.sql('SELECT sum(temp) FROM training').first()[0])\n"
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=demo, capture_output=True, text=True, check=True, timeout=240,
    ).stdout  # fmt: skip
    assert "336776" in out
    spine = "SELECT origin, dep_delay, time_hour AS event_timestamp FROM flights"
    with FeatureStore(demo / "virtualfs-demo") as store:
        native = store.get_historical_features(spine, ["airport_weather:temp"]).to_pandas()
    assert float(out.split("temp ")[-1]) == pytest.approx(native["temp"].sum(), rel=1e-12)


def test_the_online_example(own_demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    names: dict[str, object] = {}
    exec(block((ROOT / "docs" / "online.md").read_text(), "online"), names)
    shown = capsys.readouterr().out.splitlines()
    assert shown[1] == "3"
    assert "written=1" in shown[2]
    assert "'temp': 99.0" in shown[3]
    assert shown[4] == "1"
    assert 0 <= float(shown[5]) <= 1
    names["store"].close()  # type: ignore[attr-defined]


def test_the_configuration_example(tmp_path: Path) -> None:
    text = block(CONFIGURATION, "config")
    (tmp_path / "virtualfs.toml").write_text(text)
    config = virtualfs.load_config(tmp_path)
    said = tomllib.loads(text)
    fields = set(type(config).model_fields) - {"folder"}
    assert set(said) == fields
    for section in ("cache", "server", "python"):
        known = set(type(getattr(config, section)).model_fields)
        assert known - set(said[section]) <= {"token"}
    assert set(said["server"]["limits"]) == set(type(config.server.limits).model_fields)


def test_every_command_is_documented() -> None:
    from virtualfs.cli import _COMMANDS, _HELP

    documented = set(re.findall(r"\| `virtualfs (\w+)", CONFIGURATION))
    assert documented == set(_COMMANDS) == set(_HELP)


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")]:
        for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), (page, link)


MODULES = [
    module.name
    for package in ("virtualfs",)
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
    if ".examples" not in module.name
]


@pytest.mark.parametrize("name", ["virtualfs", *MODULES])
def test_doctests(name: str) -> None:
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert failed == 0
