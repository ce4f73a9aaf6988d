"""The configuration file ``virtualfs.toml``; its secrets are expanded and never shown."""

from __future__ import annotations

import getpass
import os
import re
import tomllib
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from virtualfs.errors import ConfigError, did_you_mean

__all__ = [
    "LOOPBACK", "Cache", "Config", "Files", "Limits", "Policy", "Scope", "Server", "Token",
    "Warehouse", "check_url", "find_config", "load_config",
]  # fmt: skip

FILE_NAME = "virtualfs.toml"
_GLOB = re.compile(r"[*?\[{]")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Warehouse(_Section):
    """``[warehouses.NAME]``: where one warehouse is and how it is opened."""

    url: SecretStr
    read_only: bool = True
    statement_timeout: str | None = Field(default=None, pattern=r"^\d+(ms|s|min|h)$")
    lookup_timeout: str = Field(default="5s", pattern=r"^\d+(ms|s|min)$")
    """How long an online read waits for this warehouse."""
    max_connections: int = Field(default=8, ge=2)
    """Connections that one process opens, of which half at most are for online reads."""
    application_name: str = Field(default="virtualfs", pattern=r"^[\w.\- ]{1,60}$")
    """What the warehouse's own lists of queries call us: PostgreSQL's application_name, Snowflake's
    QUERY_TAG."""
    read_through: bool | None = None
    """Whether online reads ask the warehouse for what the cache lacks; None leaves it to the
    provider: no where queries are billed by the byte."""


class Cache(_Section):
    """``[cache]``: where hot keys are kept."""

    url: SecretStr = SecretStr("memory://")
    max_stale: str = Field(default="1h", pattern=r"^\d+(s|m|h|d)$")
    """How long beyond its freshness a value may be served while its warehouse is out of reach."""
    near: str = Field(default="100ms", pattern=r"^\d+(ms|s)$")
    """How long a process answers from its own memory before it asks a cache elsewhere again."""
    prefix: str = Field(default="virtualfs", pattern=r"^[\w.\-]+$")
    """What all keys in the cache begin with."""
    max_memory: str | None = Field(default=None, pattern=r"^\d+(MB|GB)$")
    """Memory that may be in use: of ``memory://`` by its rows (512MB when None), of a server by
    all that is in it (what its own settings say when None)."""


_DURATION = r"^\d+(ms|s|min)$"


class Limits(_Section):
    """``[server.limits]``: how much one request may ask for."""

    depth: int = Field(default=12, ge=1)
    """Fields within fields, fragments expanded."""
    aliases: int = Field(default=200, ge=0)
    root_fields: int = Field(default=200, ge=1)
    tokens: int = Field(default=5_000, ge=1)
    """Words and signs of a document; comments count by its length alone."""
    document: int = Field(default=100_000, ge=1)
    """Characters of a document."""
    directives: int = Field(default=50, ge=0)
    body: int = Field(default=1_000_000, ge=1)
    """Bytes of a request's body."""
    list_size: int = Field(default=5_000, ge=1)
    """Items of one list: keys, entities, rows."""
    cost: int = Field(default=50_000, ge=1)
    """A row that the cache has costs 1, one that a warehouse is asked for 10, a statement of its
    own in a warehouse 2,000."""
    timeout: str = Field(default="30s", pattern=_DURATION)
    """How long a request may take, its arrival included; then its queries are cancelled."""
    connections: int = Field(default=256, ge=1)
    """Connections of one client address at a time, to one worker."""


Scope = Literal["read", "write", "admin"]
"""What a token allows: reading; filling the cache too; changing the catalog too."""


class Token(_Section):
    """``[server.tokens.NAME]``: a token, of which only the hash is kept."""

    hash: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    scopes: tuple[Scope, ...] = Field(min_length=1)


class Server(_Section):
    """``[server]``: where the GraphQL API listens, and what it lets through."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    token: SecretStr | None = None
    """A token for everything."""
    tokens: dict[str, Token] = {}
    """Tokens for less; `virtualfs token` makes one."""
    open_reads: bool | Literal["loopback"] = "loopback"
    """Whether reads need no token: queries, metrics and pages. ``"loopback"``: where only this
    machine can ask."""
    hosts: tuple[str, ...] = ()
    """Names that requests may give in their Host header; any where another address than loopback is
    bound, and this machine's where none is, if there are none."""
    shutdown_grace: str = Field(default="30s", pattern=_DURATION)
    """How long requests may go on after the server was told to stop."""
    production: bool | None = None
    """Whether introspection and the pages are off; None where only this machine is served."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call the API from a browser; ``"*"`` for all."""
    trusted_documents: tuple[str, ...] = ()
    """Files or folders of documents, from the configuration's folder."""
    only_trusted: bool = False
    """Whether all other documents are refused."""
    workers: int = Field(default=1, ge=1, le=64)
    access_log: bool = False
    """Whether every request is logged, and not only those that fail or are slow."""
    log_format: Literal["text", "json"] = "text"
    limits: Limits = Limits()

    @field_validator("token")
    @classmethod
    def _some_token(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and not token.get_secret_value().strip():
            raise ValueError("the token is empty; is its environment variable set to something?")
        return token

    def is_production(self, host: str) -> bool:
        """Tell whether introspection and the pages are off when serving at an address."""
        return host not in LOOPBACK if self.production is None else self.production


LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Addresses that only this machine reaches."""


class Python(_Section):
    """``[python]``: which Python functions may run here."""

    modules: tuple[str, ...] = ()


_REQUIRED = r"^(description|owner|tags|tags\.[^.]+)$"
_REQUIRED_OF_FEATURES = r"^(description|tags|tags\.[^.]+)$"
_NAMED = Literal[
    "entity",
    "source",
    "feature_view",
    "on_demand_feature_view",
    "feature_service",
    "feature",
]


class Policy(_Section):
    """``[policy]``: what a team wants of everything in its catalog."""

    require: tuple[Annotated[str, Field(pattern=_REQUIRED)], ...] = ()
    """Fields that views, services and entities must have: description, owner, tags, tags.NAME."""
    require_features: tuple[Annotated[str, Field(pattern=_REQUIRED_OF_FEATURES)], ...] = ()
    """Fields that features must have: description, tags, tags.NAME."""
    names: dict[_NAMED, str] = {}
    """Regular expressions that names must match, by kind."""

    @field_validator("names")
    @classmethod
    def _patterns(cls, names: dict[str, str]) -> dict[str, str]:
        for kind, pattern in names.items():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{kind}: {pattern!r} is no regular expression: {error}") from None
        return names


ENVIRONMENT = r"^\w[\w.\-]{0,99}$"
"""What names of environments look like."""


class Files(_Section):
    """``[files]``: where sources with a ``path=`` may read files."""

    roots: tuple[str, ...] = (".",)
    """Folders, from the configuration's folder, and URLs of object storage."""


class Config(_Section):
    """Everything that ``virtualfs.toml`` says.

    Parameters
    ----------
    project
        Name of the project; the only key that is required.
    definitions
        Modules or YAML files, from the configuration file's folder.
    registry
        SQLAlchemy URL of the registry.
    training_sets
        Folder of saved training sets, from the configuration's folder, or a URL of object storage.
    clock
        The "now" of online reads, to replay old data; the process's clock when None.
    registry_schema
        Schema of the registry's tables in PostgreSQL; the connection's own when None.
    environment
        The environment that is read and applied to when none is named.
    identity
        Who is recorded as the author of changes; the user's name when None. The environment
        variable ``VIRTUALFS_IDENTITY`` goes before it.
    folder
        The folder that relative paths are meant from.
    """

    project: str = Field(min_length=1, pattern=r"^\w[\w.\-]*$")
    definitions: tuple[str, ...] = ()
    training_sets: str = Field(default=".virtualfs/training_sets", min_length=1)
    registry: SecretStr = SecretStr("sqlite:///.virtualfs/registry.db")
    registry_schema: str | None = Field(default=None, pattern=r"^[A-Za-z_]\w{0,62}$")
    environment: str = Field(default="default", pattern=ENVIRONMENT)
    identity: str | None = Field(default=None, min_length=1, max_length=255)
    clock: datetime | None = None
    warehouses: dict[str, Warehouse] = {}
    cache: Cache = Cache()
    server: Server = Server()
    files: Files = Files()
    python: Python = Python()
    policy: Policy = Policy()
    folder: Path = Field(default_factory=Path.cwd, exclude=True)

    @field_validator("clock")
    @classmethod
    def _instant(cls, clock: datetime | None) -> datetime | None:
        if clock is not None:
            clock = clock.replace(tzinfo=UTC) if clock.tzinfo is None else clock.astimezone(UTC)
        return clock

    @property
    def file_roots(self) -> tuple[str, ...]:
        """The folders, absolute, and URLs below which ``path=`` may read."""
        roots = self.files.roots
        return tuple(r if "://" in r else str((self.folder / r).resolve()) for r in roots)

    @property
    def readable_roots(self) -> tuple[str, ...]:
        """Those, and where saved training sets are."""
        saved = self.training_sets
        return (*self.file_roots, saved if "://" in saved else str(self.folder / saved))

    def check_path(self, path: str) -> None:
        """Refuse a path of a source that leads out of the roots, or to hidden files.

        Raises
        ------
        ConfigError
            It does.
        """
        roots = self.file_roots
        if "://" in path:
            inside = ".." not in path.split("/") and any(
                path.startswith(f"{root.rstrip('/')}/") for root in roots if "://" in root
            )
        else:
            whole = os.path.normpath(self.folder / path)
            # What is no pattern may be a link; of a pattern, the folder that it begins with.
            fixed = _GLOB.split(whole)[0].rpartition("/")[0] if _GLOB.search(whole) else whole
            places = (Path(whole), Path(os.path.realpath(fixed)))
            inside = all(
                any(place.is_relative_to(root) for root in roots if "://" not in root)
                for place in places
            )
            folder, name = os.path.split(whole)
            hidden = any(part.startswith(".") for part in Path(path).parts if part != "..")
            is_config = Path(folder) == self.folder.resolve() and fnmatch(FILE_NAME, name)
            if inside and (hidden or is_config):
                raise ConfigError(
                    f"path {path!r} leads to hidden or configuration files; move the data into a "
                    "folder of its own"
                )
        if not inside:
            shown = ", ".join(self.files.roots)
            raise ConfigError(
                f"path {path!r} is outside the folders that may be read ({shown}, from "
                f"{self.folder}); add its folder, or its URL, to roots in [files]"
            )

    def definition_paths(self) -> list[Path]:
        """Return the definition files as absolute paths."""
        return [(self.folder / name).resolve() for name in self.definitions]

    def registry_url(self) -> str:
        """Return the registry's SQLAlchemy URL with a relative SQLite path made absolute."""
        return self._absolute(self.registry.get_secret_value(), "sqlite:///")

    def author(self) -> str:
        """Return who is recorded as the author of changes."""
        named = os.environ.get("VIRTUALFS_IDENTITY") or self.identity
        if named:
            return named[:255]
        try:
            return getpass.getuser()
        except (KeyError, OSError):
            return "unknown"

    def absolute_url(self, url: str) -> str:
        """Return a warehouse's URL with a relative file path made absolute."""
        return self._absolute(url, "(?:duckdb|sqlite)://")

    def _absolute(self, url: str, scheme: str) -> str:
        match = re.fullmatch(rf"({scheme})(?!/|:memory:)([^?]+)(\?.*)?", url)
        if match is None:
            return url
        prefix, path, query = match.groups(default="")
        return f"{prefix}{(self.folder / path).resolve()}{query}"

    def display(self) -> dict[str, Any]:
        """Return the configuration as plain data with every secret masked."""
        return self.model_dump(mode="json")


_FILE_SCHEMES = frozenset(("duckdb", "sqlite", "sqlite+pysqlite", "memory", "unix"))
"""Schemes whose URLs name a file, and hold no password."""


def check_url(url: str, setting: str, example: str) -> None:
    """Refuse a URL that drivers would read otherwise than it was meant, and quote in their errors.

    The message never holds a part of the URL that may be of a password.

    Raises
    ------
    ConfigError
        It has no scheme, a password with characters that must be written as %40 and the like, or a
        port that is no number.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][\w+.\-]*", scheme):
        raise ConfigError(f"{setting} is not a URL: it has no scheme; write for example {example}")
    if scheme.lower() in _FILE_SCHEMES:
        return
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path = rest[len(authority) :].partition("?")[0]
    user, _, host = authority.rpartition("@")
    if "@" in user or "@" in path or re.search(r"%(?![0-9A-Fa-f]{2})", user):
        raise ConfigError(
            f"{setting}: the user or password holds characters that must be percent-encoded; write "
            "% as %25, @ as %40, / as %2F, # as %23 and ? as %3F"
        )
    for part in host.split(","):
        port = re.sub(r"^\[[^\]]*\]", "", part).partition(":")[2]
        if port and not (port.isascii() and port.isdigit() and int(port) <= 65535):
            raise ConfigError(
                f"{setting}: the port is not a number from 0 to 65535; write for example {example}"
            )


def find_config(start: Path | None = None) -> Path | None:
    """Return the nearest ``virtualfs.toml`` in `start` or a folder above it."""
    folder = (start or Path.cwd()).resolve()
    for candidate in (folder, *folder.parents):
        if (candidate / FILE_NAME).is_file():
            return candidate / FILE_NAME
    return None


def load_config(path: Path | str | None = None) -> Config:
    """Read and check a configuration file; found upward from here when `path` is None.

    Raises
    ------
    ConfigError
        There is no such file, it is not TOML, or a setting is unknown or malformed.
    """
    if path is None:
        found = find_config()
        if found is None:
            raise ConfigError(
                f"there is no {FILE_NAME} in {Path.cwd()} or above it; "
                "run `virtualfs init` to make a project, or name one (-c PATH; config= in Python)"
            )
        path = found
    file = Path(path)
    if file.is_dir():
        file = file / FILE_NAME
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not TOML: {error}") from None
    try:
        return Config(**_expand(content, file), folder=file.resolve().parent)
    except ValidationError as error:
        raise ConfigError(f"{file}:\n  " + "\n  ".join(_findings(error))) from None
    except TypeError:
        raise ConfigError(f"{file}: 'folder' is not a setting") from None


def _expand(value: Any, file: Path) -> Any:
    if isinstance(value, str):

        def replace(match: re.Match[str]) -> str:
            name = match.group(1)
            if name not in os.environ:
                raise ConfigError(f"{file}: the environment variable {name} is not set")
            return os.environ[name]

        return re.sub(r"\$\{(\w+)\}", replace, value)
    if isinstance(value, dict):
        return {key: _expand(item, file) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, file) for item in value]
    return value


_SECTIONS: dict[str, type[BaseModel]] = {
    "warehouses": Warehouse,
    "cache": Cache,
    "server": Server,
    "python": Python,
    "policy": Policy,
}


def _section(place: tuple[int | str, ...]) -> type[BaseModel]:
    """Return the section that a setting stands in."""
    section, *inner = [str(part) for part in place]
    if section == "server" and len(inner) > 1:
        return Token if inner[0] == "tokens" else Limits
    return _SECTIONS.get(section, Config) if inner else Config


def _findings(error: ValidationError) -> list[str]:
    lines = []
    for finding in error.errors(include_input=False):
        where = ".".join(str(part) for part in finding["loc"])
        if finding["type"] == "extra_forbidden":
            model = _section(finding["loc"])
            known = [name for name in model.model_fields if name != "folder"]
            lines.append(
                f"unknown setting {where!r}. {did_you_mean(str(finding['loc'][-1]), known)}"
            )
        elif finding["type"] == "missing":
            lines.append(f"the setting {where!r} is required")
        else:
            lines.append(f"{where}: {finding['msg'].removeprefix('Value error, ')}")
    return lines
