"""No message holds a secret, and no control character from outside reaches a terminal."""

from __future__ import annotations

import logging
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

import virtualfs as vfs
from virtualfs import Config, FeatureStore
from virtualfs.config import Server
from virtualfs.errors import VirtualFSError, printable, warn_deprecated, without_secrets
from virtualfs_graphql.logs import configure_logs

COMMAND = [sys.executable, "-W", "ignore", "-c", "from virtualfs.cli import main; main()"]
SECRET = "ZZ9hunter"
BAD_URLS = [
    "postgresql://u:{0}%@127.0.0.1:1/db", "postgresql://u:a%2{0}@127.0.0.1:1/db",
    "postgresql://u:a@{0}@127.0.0.1:1/db", "postgresql://u:a/{0}@127.0.0.1:1/db",
    "postgresql://u:{0}/a@127.0.0.1:1/db", "postgresql://u:a#{0}@127.0.0.1:1/db",
    "postgresql://u:{0}?a@127.0.0.1:1/db", "postgresql://u:{0}@127.0.0.1:99999/db",
    "postgresql://u:{0}@127.0.0.1:port/db", "postgresql://u:{0}@127.0.0.1:1/db?nope=1",
    "postgresql://u:{0}@127.0.0.1:1/db", "redis://:{0}%@127.0.0.1:1/0",
    "redis://:a@{0}@127.0.0.1:1/0", "redis://:{0}@127.0.0.1:port/0",
    "redis://:{0}@127.0.0.1:1/0?nope=1", "redis://:{0}@127.0.0.1:1/0", "no-scheme-{0}",
    "1nope://u:{0}@h", "nope://u:{0}@127.0.0.1:1/db",
]  # fmt: skip


def as_warehouse(url: str, folder: Path) -> None:
    config = Config(project="p", folder=folder, warehouses={"default": {"url": url}})
    with FeatureStore(config) as store:
        store.warehouse().ping()


def as_registry(url: str, folder: Path) -> None:
    with FeatureStore(Config(project="p", folder=folder, registry=url)) as store:
        store.apply([vfs.Entity("e", {"k": "int64"})])


def as_cache(url: str, folder: Path) -> None:
    warehouses = {"default": {"url": "duckdb://"}}
    config = Config(project="p", folder=folder, warehouses=warehouses, cache={"url": url})
    view = vfs.FeatureView(
        "v", source=vfs.Source("s", query="SELECT 1::BIGINT AS k, 2 AS x"), features=["x"],
        entities=[vfs.Entity("e", {"k": "int64"})],
    )  # fmt: skip
    with FeatureStore(config) as store:
        store.apply([view])
        store.materialize()


@pytest.mark.parametrize("use", [as_warehouse, as_registry, as_cache])
@pytest.mark.parametrize("url", BAD_URLS)
def test_a_url_that_does_not_work_is_refused_without_its_password(
    url: str, use: Callable[[str, Path], None], tmp_path: Path
) -> None:
    with pytest.raises(VirtualFSError) as caught:
        use(url.format(SECRET), tmp_path)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error)
        assert SECRET not in repr(error)
        error = None if error.__suppress_context__ else error.__cause__ or error.__context__


def test_an_unknown_option_of_a_registry_is_named(tmp_path: Path) -> None:
    with pytest.raises(vfs.RegistryError, match=r"no option 'tiemout'. Did you mean 'timeout'"):
        as_registry("sqlite:///r.db?tiemout=1", tmp_path)


def test_a_password_is_masked_up_to_the_last_at_sign() -> None:
    assert SECRET not in without_secrets(f"postgresql+psycopg://u:a@{SECRET}@host/db is down")


TITLE = "\x1b]0;owned\x07\x1b[2J\x9b31m"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    with duckdb.connect(str(tmp_path / "w.duckdb")) as made:
        made.execute(
            "CREATE TABLE weather AS SELECT 'JFK' AS origin, TIMESTAMP '2020-01-01' AS seen, 5 AS "
            f"temp, 'x{TITLE}' AS word; COMMENT ON COLUMN weather.temp IS 'a{TITLE}'"
        )
    (tmp_path / "virtualfs.toml").write_text(
        'project = "p"\ndefinitions = ["features.py"]\nclock = "2020-01-02T00:00:00Z"\n'
        '[warehouses.default]\nurl = "duckdb://w.duckdb"\n'
    )
    (tmp_path / "features.py").write_text(f"""
import virtualfs as vfs
said = {TITLE!r}
airport = vfs.Entity("airport", {{"origin": "string"}}, description=said, owner=said)
weather = vfs.FeatureView("weather", entities=[airport], description="temp " + said, owner=said,
    tags={{"team": said}}, features=["temp", vfs.Feature("word", description=said)],
    source=vfs.Source("weather", table="weather", event_timestamp="seen", description=said))
service = vfs.FeatureService("delay", [weather], description=said)
""")
    return tmp_path


def on_a_terminal(folder: Path, *arguments: str) -> str:
    """Run a command on a terminal and return what reaches it."""
    master, end = pty.openpty()
    with subprocess.Popen([*COMMAND, *arguments], cwd=folder, stdin=end, stdout=end, stderr=end):
        os.close(end)
        parts: list[bytes] = []
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:
                break
            if not part:
                break
            parts.append(part)
    os.close(master)
    return b"".join(parts).decode()


def test_no_escape_sequence_of_a_definition_reaches_a_terminal(project: Path) -> None:
    commands: list[tuple[str, ...]] = [
        ("plan",), ("apply", "--yes"), ("list", "views"), ("list", "entities"),
        ("show", "weather"), ("show", "airport"), ("search", "temp"), ("lineage", "weather:temp"),
        ("history",), ("check",), ("online", "weather", "origin=JFK"), ("show", "nope" + TITLE),
        ("search", "temp", "--json"), ("show", "weather", "--json"), ("export",),
        ("deprecate", "weather", "gone " + TITLE), ("show", "weather"), ("plan",),
    ]  # fmt: skip
    for command in commands:
        shown = on_a_terminal(project, *command)
        assert shown.strip(), command
        assert "Traceback" not in shown, shown
        own = re.sub(r"\x1b\[[0-9;?]*[mlhKA]", "", shown)  # colours, a bar's cursor
        assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", own), (command, own)
        assert "\x1b[2J" not in shown


def test_objects_show_themselves_without_control_characters(project: Path) -> None:
    with FeatureStore(Config(**config_of(project))) as store:
        entity = vfs.Entity("airport", {"origin": "string"}, description=TITLE)
        view = vfs.FeatureView(
            "weather", entities=[entity], features=["temp"], description=TITLE, owner=TITLE,
            source=vfs.Source("weather", table="weather", event_timestamp="seen"),
        )  # fmt: skip
        plan = store.plan([view])
        shown = [str(plan), str(store.apply(plan).plan), str(store.history()), str(store.check()),
                 str(store.lineage("weather:temp"))]  # fmt: skip
        with pytest.raises(VirtualFSError) as caught:
            store.table(f"nope{TITLE}")
        assert not re.search("[\x1b\x07\x9b]", "".join([*shown, str(caught.value)]))


def config_of(folder: Path) -> dict[str, Any]:
    url = f"duckdb://{folder}/w.duckdb"
    return {"project": "p", "folder": folder, "warehouses": {"default": {"url": url}}}


def test_warnings_and_logs_hold_no_control_characters() -> None:
    with pytest.warns(vfs.FeatureDeprecationWarning) as caught:
        warn_deprecated([f"gone {TITLE}"], 1)
    assert "\x1b" not in str(caught[0].message)
    logger = logging.getLogger("virtualfs")
    handlers, level = logger.handlers, logger.level
    configure_logs(Server(), "info")
    (handler,) = logger.handlers
    logger.handlers, logger.level = handlers, level
    record = logging.LogRecord("virtualfs", logging.INFO, "", 0, "of %s", (TITLE,), None)
    assert not re.search("[\x1b\x07\x9b]", handler.format(record))


def test_printable_keeps_lines_and_tabs() -> None:
    assert printable("a\n\tb\x1b[2J\x00\x9b") == "a\n\tb\\x1b[2J\\x00\\x9b"


def test_errors_of_files_say_why_and_never_what_is_in_them(tmp_path: Path) -> None:
    rows = "".join(f"{number},2024-01-01,{number}\n" for number in range(30_000))
    (tmp_path / "late.csv").write_text(f"k,seen,v\n{rows}1,2024-01-01,{SECRET}\n")
    (tmp_path / "latin.csv").write_bytes(f"k,seen,v\n1,2024-01-01,{SECRET}\xe9\n".encode("latin-1"))
    (tmp_path / "broken.parquet").write_text(SECRET * 9)
    config = Config(project="p", folder=tmp_path, warehouses={"default": {"url": "duckdb://"}})
    spine = pa.table({"k": [1], "event_timestamp": [datetime(2025, 1, 1)]})
    with FeatureStore(config) as store:
        for path, cause in (
            ("late.csv", "30002.*convert.*BIGINT"), ("latin.csv", "utf-8"),
            ("broken.parquet", "magic"),
        ):  # fmt: skip
            view = vfs.FeatureView(
                "v", source=vfs.Source("s", path=path, event_timestamp="seen"), features=["v"],
                entities=[vfs.Entity("e", {"k": "int64"})],
            )  # fmt: skip
            with pytest.raises(VirtualFSError, match=cause) as caught:
                store.get_historical_features(spine, [view]).to_pyarrow()
            assert SECRET not in str(caught.value)
            assert path in str(caught.value)
