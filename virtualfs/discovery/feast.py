"""What a Feast repository defines, as definitions of ours and a list of what they cannot say.

Read is the JSON of ``feast registry-dump``: Feast's protocol buffers as JSON, by camelCased names
(https://github.com/feast-dev/feast, ``protos/feast/core``). Of a repository's folder it is made by
a Python that has Feast.
"""

from __future__ import annotations

import ast
import base64
import builtins
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from virtualfs.definitions.aggregate import FUNCTIONS, Aggregate
from virtualfs.definitions.base import Definition
from virtualfs.definitions.entity import Entity
from virtualfs.definitions.feature_service import FeatureService
from virtualfs.definitions.feature_view import Feature, FeatureView
from virtualfs.definitions.on_demand import OnDemandFeatureView
from virtualfs.definitions.source import Source
from virtualfs.discovery import names
from virtualfs.discovery.python_text import commented, definitions_text
from virtualfs.errors import ConfigError, DefinitionError

__all__ = ["FeastProject", "feast_text", "functions_text", "import_feast", "read_feast"]

_TYPES = {
    "BYTES": "binary", "STRING": "string", "INT32": "int32", "INT64": "int64", "DOUBLE": "float64",
    "FLOAT": "float32", "BOOL": "boolean", "UNIX_TIMESTAMP": "timestamp", "JSON": "string",
}  # fmt: skip
_LISTS = {f"{name}_LIST": f"array<{dtype}>" for name, dtype in _TYPES.items()}
_NOBODY = "__dummy"
"""Feast's name of the entity of views that have none."""
_DUMP = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, os.getcwd())
from feast.repo_operations import parse_repo
from google.protobuf.json_format import MessageToDict
found = parse_repo(Path.cwd())._asdict()
names = {"entities": "entities", "feature_views": "featureViews", "label_views": "labelViews",
         "stream_feature_views": "streamFeatureViews", "feature_services": "featureServices",
         "on_demand_feature_views": "onDemandFeatureViews", "permissions": "permissions"}
dump = {new: [MessageToDict(item.to_proto()) for item in found.get(old) or ()]
        for old, new in names.items()}
try:  # the types of join keys are known only to a registry that was applied
    from feast import FeatureStore
    known = {view.name: [MessageToDict(column.to_proto()) for column in view.entity_columns]
             for view in FeatureStore(repo_path=".").list_feature_views()}
except Exception:
    known = {}
for view in dump["featureViews"]:
    view["spec"].setdefault("entityColumns", known.get(view["spec"]["name"], []))
print("\\n" + json.dumps(dump))
"""
_IMPORTS = {"np": "import numpy as np", "pd": "import pandas as pd"}
_NOT_OURS = {
    "labelViews": "label view", "permissions": "permission", "savedDatasets": "saved dataset",
    "validationReferences": "validation reference",
}  # fmt: skip


@dataclass
class FeastProject:
    """What was carried over, and what was not.

    Parameters
    ----------
    definitions
        Ours, in order of dependence.
    functions
        Source text of the functions of on-demand views, by the names that they have in it.
    left_out
        What could not be carried over, in words.
    """

    definitions: list[Definition] = field(default_factory=list)
    functions: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def read_feast(path: Path, python: str | None = None) -> dict[str, Any]:
    """Return a Feast registry as plain data.

    Parameters
    ----------
    path
        The JSON that ``feast registry-dump`` writes, or the folder of a repository, which holds
        ``feature_store.yaml`` and whose Python files are run.
    python
        A Python that has Feast; this one when None.

    Raises
    ------
    ConfigError
        It cannot be read, or is none of Feast's.
    """
    if path.is_dir():
        text = _dumped(path, python or sys.executable)
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror or error}") from None
        except ValueError:
            raise ConfigError(
                f"{path} is not the JSON of `feast registry-dump`: it is no text"
            ) from None
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{path} is not the JSON of `feast registry-dump`: {error}") from None
    if not isinstance(content, dict) or not {"featureViews", "entities"} & content.keys():
        raise ConfigError(f"{path} is not the JSON of `feast registry-dump`: it has no views")
    return content


def _dumped(folder: Path, python: str) -> str:
    if not (folder / "feature_store.yaml").is_file():
        raise ConfigError(f"{folder} has no feature_store.yaml; name the folder that has it")
    try:
        done = subprocess.run(  # noqa: S603 - the Python that the caller names
            [python, "-W", "ignore", "-c", _DUMP], cwd=folder, capture_output=True, text=True,
            env={**os.environ, "FEAST_USAGE": "False"}, check=False,
        )  # fmt: skip
    except OSError as error:
        raise ConfigError(f"cannot run {python}: {error.strerror or error}") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        hint = "name a Python that has Feast by --python, or dump it there by `feast registry-dump`"
        raise ConfigError(
            f"{folder} could not be read as a Feast repository: {reason}. "
            + (hint + " > feast.json and import that file" if "'feast'" in reason else "")
        )
    return done.stdout.strip().splitlines()[-1]


def import_feast(content: Mapping[str, Any], relative_to: str = "") -> FeastProject:
    """Return the definitions that say what a Feast registry says.

    Parameters
    ----------
    relative_to
        Put before relative paths of files.
    """
    reader = _Reader(content, relative_to)
    reader.read()
    return reader.project


def feast_text(project: FeastProject, name: str) -> str:
    """Return the text of a ``features.py`` for what was carried over."""
    shown = "".join(char if char.isalnum() or char in "._- " else "_" for char in name)
    head = f"Features of the Feast repository {shown}. Read it, then `virtualfs plan`."
    lines = [f'"""{head}"""', "", "import virtualfs as vfs", ""]
    lines.append(definitions_text(project.definitions))
    if project.left_out:
        lines += ["", *commented(["Not carried over:", *project.left_out])]
    return "\n".join(lines).rstrip() + "\n"


def functions_text(project: FeastProject) -> str:
    """Return the text of a module with the functions of on-demand views."""
    head = '"""Functions of on-demand feature views, as Feast had them."""'
    body = "\n\n\n".join(project.functions.values())
    used = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    imports = [line for name, line in _IMPORTS.items() if name in used]
    return "\n".join([head, "", *imports, "", "", body]) + "\n"


class _Reader:
    def __init__(self, content: Mapping[str, Any], relative_to: str) -> None:
        self._content = content
        self._relative_to = relative_to
        self.project = FeastProject()
        self._entities: dict[str, Entity] = {}
        self._sources: dict[str, Source] = {}
        self._views: dict[str, FeatureView | OnDemandFeatureView] = {}

    def read(self) -> None:
        """Carry over everything that can be; the rest is told."""
        types = self._key_types()
        for spec in self._specs("entities"):
            if spec["name"] != _NOBODY:
                self._try(f"entity {spec['name']}", self._entity, spec, types)
        for kind in ("featureViews", "streamFeatureViews"):
            for spec in self._specs(kind):
                self._try(f"feature view {spec['name']}", self._view, spec)
        for spec in self._specs("onDemandFeatureViews"):
            self._try(f"on-demand feature view {spec['name']}", self._on_demand, spec)
        self.project.definitions = [
            *self._entities.values(),
            *self._sources.values(),
            *self._views.values(),
        ]
        for spec in self._specs("featureServices"):
            self._try(f"feature service {spec['name']}", self._service, spec)
        for section, what in _NOT_OURS.items():
            for spec in self._specs(section):
                self._leave(f"{what} {spec['name']}", "there is nothing like it here")

    def _specs(self, section: str) -> Iterator[dict[str, Any]]:
        items = self._content.get(section) or ()
        if not isinstance(items, list | tuple):
            self._leave(f"all of {section}", "it is no list")
            items = ()
        for item in items:
            spec = item.get("spec", item) if isinstance(item, dict) else None
            if isinstance(spec, dict) and isinstance(spec.get("name"), str):
                yield spec
            else:
                self._leave(f"something in {section}", "it has no name")

    def _leave(self, what: str, why: str) -> None:
        self.project.left_out.append(f"{what}: {why}")

    def _try(self, what: str, make: Any, *arguments: Any) -> None:
        try:
            make(*arguments)
        except (DefinitionError, _CannotSayError) as error:
            self._leave(what, " ".join(str(error).split()))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self._leave(what, f"it is not of the form that Feast writes ({error!r})")

    def _key_types(self) -> dict[str, list[str]]:
        types: dict[str, list[str]] = {}
        for section in ("featureViews", "streamFeatureViews", "labelViews"):
            for spec in self._specs(section):
                for column in spec.get("entityColumns") or ():
                    if isinstance(column, dict) and "name" in column:
                        kind = column.get("valueType", "STRING")
                        types.setdefault(column["name"], []).append(kind)
        return types

    def _entity(self, spec: Mapping[str, Any], types: Mapping[str, list[str]]) -> None:
        key = spec.get("joinKey") or spec["name"]
        known = [spec.get("valueType", ""), *types.get(key, ())]
        dtype = next((_TYPES[name] for name in known if name in _TYPES), "")
        if not dtype:
            self._leave(f"the type of join key {key}", "it is not known; string is a guess")
            dtype = "string"
        self._entities[spec["name"]] = Entity(
            spec["name"], join_keys={key: dtype}, **_for_people(spec)
        )

    def _source(self, spec: Mapping[str, Any], what: str) -> Source:
        """Return a batch source; that of a push or stream source is the one behind it."""
        while "batchSource" in spec:
            spec = spec["batchSource"]
        name = spec.get("name") or what
        place: dict[str, Any] = _place(spec)
        if "path" in place and "://" not in place["path"]:
            place["path"] = os.path.normpath(Path(self._relative_to) / place["path"])
        source = Source(
            name,
            **place,
            columns=spec.get("fieldMapping") or {},
            event_timestamp=spec.get("timestampField") or None,
            created_timestamp=spec.get("createdTimestampColumn") or None,
            **_for_people(spec),
        )
        if self._sources.get(name, source) != source:
            source = source.model_copy(update={"name": f"{name}_of_{what}"})
        if spec.get("datePartitionColumn") and source.name not in self._sources:
            self._leave(f"source {name}", "its date partition column is not used")
        return self._sources.setdefault(source.name, source)

    def _view(self, spec: Mapping[str, Any]) -> None:
        name = spec["name"]
        place = spec.get("batchSource") or spec.get("streamSource")
        if place is None:
            raise _CannotSayError("it is made of other views, and has no source")
        if spec.get("featureTransformation") or spec.get("userDefinedFunction"):
            raise _CannotSayError("its rows are made by a function of Python; make a table of them")
        features: list[Feature] | list[Aggregate] = []
        if spec.get("aggregations"):
            features = [_aggregate(item) for item in spec["aggregations"]]
        else:
            features = list(self._features(name, spec.get("features") or ()))
        if not features:
            raise _CannotSayError("no feature is left of it")
        ttl = float(str(spec.get("ttl") or "0s").removesuffix("s"))
        is_plain = isinstance(features[0], Feature)
        self._views[name] = FeatureView(
            name,
            source=self._source(place, name),
            entities=self._entities_of(spec),
            features=features,
            ttl=timedelta(seconds=ttl) if ttl and is_plain else None,
            online=bool(spec.get("online")),
            **_for_people(spec),
        )

    def _entities_of(self, spec: Mapping[str, Any]) -> list[Entity]:
        names = [name for name in spec.get("entities") or () if name != _NOBODY]
        unknown = [name for name in names if name not in self._entities]
        if unknown:
            raise _CannotSayError(f"its entity {unknown[0]} is not in the registry")
        return [self._entities[name] for name in names]

    def _features(self, view: str, columns: Sequence[Mapping[str, Any]]) -> Iterator[Feature]:
        for column in columns:
            kind = column.get("valueType", "")
            if kind not in _TYPES and kind not in _LISTS:
                self._leave(
                    f"feature {view}:{column['name']}",
                    f"there is no data type for {kind}; offer its parts by expr=",
                )
                continue
            tags = column.get("tags") or {}
            yield Feature(column["name"], description=column.get("description", ""), tags=tags)

    def _on_demand(self, spec: Mapping[str, Any]) -> None:
        name = spec["name"]
        made = spec.get("featureTransformation") or {}
        function = made.get("userDefinedFunction") or spec.get("userDefinedFunction") or {}
        mode = spec.get("mode") or function.get("mode") or "pandas"
        if mode != "pandas" or not function.get("bodyText"):
            raise _CannotSayError(
                f"its function is of mode {mode!r}; write expressions, or a function over pandas"
            )
        inputs: list[Any] = []
        request: dict[str, str] = {}
        for source in (spec.get("sources") or {}).values():
            if "requestDataSource" in source:
                for column in source["requestDataSource"]["requestDataOptions"]["schema"]:
                    request[column["name"]] = _type(column)
                continue
            projection = source.get("featureViewProjection") or source["featureView"]["spec"]
            inputs.append(self._selection(projection))
        variable = names.variable(name, self.project.functions)
        source_text, unknown = _function(function["bodyText"], variable)
        self._views[name] = OnDemandFeatureView(
            name,
            inputs=inputs,
            request=request,
            features=[
                Feature(
                    column["name"], dtype=_type(column), description=column.get("description", "")
                )
                for column in spec.get("features") or ()
            ],
            function=f"feast_functions:{variable}",
            **_for_people(spec),
        )
        self.project.functions[variable] = source_text
        if unknown:
            self._leave(
                f"what the function of {name} uses",
                f"{', '.join(unknown)} must be imported or defined in feast_functions.py",
            )

    def _selection(self, projection: Mapping[str, Any]) -> Any:
        name = projection.get("featureViewName") or projection.get("name") or ""
        view = self._views.get(name)
        if view is None:
            raise _CannotSayError(f"it reads {name}, which is not carried over")
        known = [feature.name for feature in view.features]
        columns = projection.get("featureColumns") or projection.get("features") or ()
        asked = [column["name"] for column in columns]
        kept = [feature for feature in asked if feature in known]
        if not kept:
            raise _CannotSayError(f"none of the features that it reads of {name} is carried over")
        found: Any = view if kept == known else view[kept]
        alias = projection.get("featureViewNameAlias")
        if alias and alias != name:
            found = found.with_name(alias)
        if projection.get("joinKeyMap"):
            found = found.with_join_keys(projection["joinKeyMap"])
        return found

    def _service(self, spec: Mapping[str, Any]) -> None:
        selections: list[Any] = []
        for projection in spec.get("features") or ():
            try:
                selections.append(self._selection(projection))
            except _CannotSayError as error:
                self._leave(f"a part of feature service {spec['name']}", str(error))
                continue
            asked = {column["name"] for column in projection.get("featureColumns") or ()}
            view = self._views[projection["featureViewName"]]
            lost = sorted(asked - {feature.name for feature in view.features})
            if lost:
                self._leave(
                    f"a part of feature service {spec['name']}",
                    f"{', '.join(lost)} of {view.name} are not carried over",
                )
        if not selections:
            raise _CannotSayError("nothing that it reads is carried over")
        if spec.get("loggingConfig"):
            self._leave(f"logging of feature service {spec['name']}", "requests are not logged")
        self.project.definitions.append(
            FeatureService(spec["name"], selections, **_for_people(spec))
        )


class _CannotSayError(Exception):
    """Something of Feast's that our definitions cannot say."""


def _for_people(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {name: spec[name] for name in ("description", "owner", "tags") if spec.get(name)}


def _type(column: Mapping[str, Any]) -> str:
    kind = column.get("valueType", "")
    if kind not in _TYPES:
        raise _CannotSayError(f"{column['name']} is of type {kind}")
    return _TYPES[kind]


def _place(spec: Mapping[str, Any]) -> dict[str, str]:
    """Return the table, query or path that a source reads."""
    if "fileOptions" in spec:
        return {"path": str(spec["fileOptions"]["uri"]).removeprefix("file://")}
    options: dict[str, Any] = {}
    for key, value in spec.items():
        if key == "customOptions":  # what other packages add to Feast, as JSON in base64
            options |= json.loads(base64.b64decode(value["configuration"]))
        elif key.endswith("Options") and isinstance(value, dict):
            options |= value
    if options.get("query"):
        return {"query": str(options["query"])}
    parts = [options.get(part) for part in ("database", "schema", "table")]
    if options.get("table"):
        return {"table": ".".join(str(part) for part in parts if part)}
    if options.get("path"):
        return {"path": str(options["path"])}
    raise _CannotSayError(f"its source is of a kind that is not known: {spec.get('type')}")


def _aggregate(item: Mapping[str, Any]) -> Aggregate:
    function = {"avg": "mean", "stddev": "std", "variance": "var"}.get(
        item["function"], item["function"]
    )
    if function not in FUNCTIONS:
        raise _CannotSayError(f"its aggregation {item['function']} is not known")
    window = float(str(item.get("timeWindow") or "0s").removesuffix("s"))
    return Aggregate(
        item["column"], function, timedelta(seconds=window) if window else None,
        name=item.get("name", ""),
    )  # fmt: skip


def _function(body: str, name: str) -> tuple[str, list[str]]:
    """Return the source of a function under a name, and what it uses that is not there."""
    try:
        tree = ast.parse(body)
    except SyntaxError:
        raise _CannotSayError("the source of its function cannot be read") from None
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    if len(functions) != 1:
        raise _CannotSayError("its function is not one def")
    function = functions[0]
    function.decorator_list = []
    used = [node for node in ast.walk(function) if isinstance(node, ast.Name)]
    known = {node.id for node in used if not isinstance(node.ctx, ast.Load)}
    known |= {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}
    known |= {*_IMPORTS, *dir(builtins), function.name}
    function.name = name
    return ast.unparse(function), sorted({node.id for node in used} - known)
