"""A project: definitions closed over their references and checked once, so later code trusts them.

Definitions are read from Python modules and YAML files; :meth:`Project.of` closes them.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from virtualfs.definitions.base import Definition
from virtualfs.definitions.entity import Entity
from virtualfs.definitions.feature_service import FeatureService
from virtualfs.definitions.feature_view import FeatureSelection, FeatureView, check_times
from virtualfs.definitions.on_demand import OnDemandFeatureView
from virtualfs.definitions.source import Source
from virtualfs.errors import ConfigError, DefinitionError, Problem, did_you_mean

__all__ = [
    "KINDS",
    "VIEW_KINDS",
    "YAML_SECTIONS",
    "Project",
    "collect",
    "definition_from_fields",
    "definitions_from_sections",
    "flatten",
    "kind_in_words",
    "load_definitions",
]

KINDS: dict[str, type[Definition]] = {
    "entity": Entity,
    "source": Source,
    "feature_view": FeatureView,
    "on_demand_feature_view": OnDemandFeatureView,
    "feature_service": FeatureService,
}
"""Each kind of definition by the name it has in the registry, in order of dependence."""


def kind_in_words(kind: str) -> str:
    """Return a kind as messages call it.

    >>> kind_in_words("on_demand_feature_view")
    'on-demand feature view'
    """
    return kind.replace("on_demand", "on-demand").replace("_", " ")


VIEW_KINDS = ("feature_view", "on_demand_feature_view")
"""The kinds that hold features; they share one space of names."""

YAML_SECTIONS = {
    "entities": "entity",
    "sources": "source",
    "feature_views": "feature_view",
    "on_demand_feature_views": "on_demand_feature_view",
    "feature_services": "feature_service",
}


@dataclass(frozen=True)
class Project:
    """Definitions whose references are closed: every name leads to one definition."""

    entities: Mapping[str, Entity] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)
    views: Mapping[str, FeatureView] = field(default_factory=dict)
    on_demand: Mapping[str, OnDemandFeatureView] = field(default_factory=dict)
    services: Mapping[str, FeatureService] = field(default_factory=dict)

    @classmethod
    def of(cls, definitions: Iterable[Any], base: Project | None = None) -> Project:
        """Close `definitions` over their references, reading unknown names from `base`.

        The result holds `base` too, with what `definitions` say again replaced. Views hold names
        in place of the sources and entities they were written with.

        Raises
        ------
        DefinitionError
            A name stands for two different things, or for nothing.
        """
        new = collect(definitions)
        base = base or cls()
        project = cls(
            entities={**base.entities, **new["entity"]},
            sources={**base.sources, **new["source"]},
            views={**base.views, **new["feature_view"]},
            on_demand={**base.on_demand, **new["on_demand_feature_view"]},
            services={**base.services, **new["feature_service"]},
        )
        project._check_references()
        return project

    def by_kind(self) -> dict[str, Mapping[str, Any]]:
        """Return the definitions by kind and name, in order of dependence."""
        return {
            "entity": self.entities,
            "source": self.sources,
            "feature_view": self.views,
            "on_demand_feature_view": self.on_demand,
            "feature_service": self.services,
        }

    def source_of(self, view: FeatureView) -> Source:
        """Return the source that a view of this project reads."""
        return self.sources[view.source_name]

    def join_keys_of(self, view: FeatureView) -> dict[str, str]:
        """Return the join keys, name to data type, of a view of this project."""
        keys: dict[str, str] = {}
        for name in view.entity_names:
            keys.update(self.entities[name].join_keys)
        return keys

    def all_join_keys_of(self, view: FeatureView | OnDemandFeatureView) -> dict[str, str]:
        """Return the join keys of a view, or of all that one is computed from."""
        if isinstance(view, FeatureView):
            return self.join_keys_of(view)
        keys: dict[str, str] = {}
        for selection in view.inputs:
            for key, dtype in self.join_keys_of(self.views[selection.view_name]).items():
                keys[selection.join_keys.get(key, key)] = dtype
        return keys

    def _check_references(self) -> None:
        for view in self.views.values():
            where = f"feature view {view.name!r}"
            _known(view.source_name, self.sources, "source", where)
            total = 0
            for name in view.entity_names:
                _known(name, self.entities, "entity", where)
                total += len(self.entities[name].join_keys)
            if len(self.join_keys_of(view)) != total:
                raise DefinitionError(
                    f"{where}: two of its entities share a join key; rename one in the entity"
                )
            try:
                check_times(view, self.source_of(view))
            except ValueError as error:
                raise DefinitionError(f"{where}: {error}") from None
        for on_demand in self.on_demand.values():
            where = f"on-demand feature view {on_demand.name!r}"
            if on_demand.name in self.views:
                raise DefinitionError(
                    f"{where}: a feature view has the same name, and references could not tell "
                    "them apart; rename one"
                )
            for selection in on_demand.inputs:
                if selection.view_name in self.on_demand:
                    raise DefinitionError(
                        f"{where}: its input {selection.view_name!r} is computed on demand too; "
                        "name the views that it is computed from, and repeat its expressions"
                    )
                self._check_selection(selection, where)
        for service in self.services.values():
            for selection in service.features:
                self._check_selection(selection, f"feature service {service.name!r}")

    def _check_selection(self, selection: FeatureSelection, where: str) -> None:
        name = selection.view_name
        view = self.views.get(name) or self.on_demand.get(name)
        if view is None:
            known = [*self.views, *self.on_demand]
            raise DefinitionError(
                f"{where}: there is no feature view {name!r}. {did_you_mean(name, known)}"
            )
        names = [feature.name for feature in view.features]
        for name in selection.features or ():
            _known(name, names, f"feature of {view.name!r}", where)
        for key in selection.join_keys:
            _known(key, self.all_join_keys_of(view), f"join key of {view.name!r}", where)


def collect(definitions: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """Return, by kind and name, what `definitions` say, with what they bring along.

    Modules and lists are looked into. Views come out with names in place of their sources and
    entities, services with names in place of their views.

    Raises
    ------
    DefinitionError
        A name stands for two different things, or something is no definition.
    """
    found: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}

    def add(kind: str, item: Definition) -> None:
        known = found[kind].setdefault(item.name, item)
        if known != item:
            raise DefinitionError(
                f"two different definitions of {kind_in_words(kind)} {item.name!r}; "
                "give one of them another name"
            )

    for item in flatten(definitions):
        match item:
            case Entity():
                add("entity", item)
            case Source():
                add("source", item)
            case FeatureView() | OnDemandFeatureView() | FeatureSelection():
                _add_view(item, add)
            case FeatureService():
                for selection in item.features:
                    _add_view(selection, add)
                closed = item.model_copy(update={"features": _by_name(item.features)})
                add("feature_service", closed)
            case _:
                raise DefinitionError(
                    f"{item!r} is not a definition; expected an Entity, Source, FeatureView, "
                    "OnDemandFeatureView or FeatureService"
                )
    return found


def _known(name: str, names: Iterable[str], what: str, where: str) -> None:
    if name not in names:
        raise DefinitionError(f"{where}: there is no {what} {name!r}. {did_you_mean(name, names)}")


def flatten(items: Iterable[Any]) -> Iterator[Any]:
    """Yield the definitions in modules and lists, one by one."""
    for item in items:
        if isinstance(item, ModuleType):
            yield from _in_module(item)
        elif isinstance(item, list | tuple):
            yield from flatten(item)
        else:
            yield item


def _in_module(module: ModuleType) -> list[Definition]:
    """Return the definitions of a module, also those that it holds in lists and dictionaries."""
    found: list[Definition] = []
    for value in vars(module).values():
        held = value.values() if isinstance(value, dict) else value
        values = held if isinstance(value, list | tuple | dict) else [value]
        found += [item for item in values if isinstance(item, Definition)]
    return found


def _add_view(view: Any, add: Any) -> None:
    """Add a view with what it brings along; a name of one is defined elsewhere."""
    if isinstance(view, FeatureSelection):
        view = view.view
    if isinstance(view, OnDemandFeatureView):
        for selection in view.inputs:
            _add_view(selection, add)
        closed_inputs = view.model_copy(update={"inputs": _by_name(view.inputs)})
        add("on_demand_feature_view", closed_inputs)
    if not isinstance(view, FeatureView):
        return
    if isinstance(view.source, Source):
        add("source", view.source)
    for entity in view.entities:
        if isinstance(entity, Entity):
            add("entity", entity)
    closed = view.model_copy(update={"source": view.source_name, "entities": view.entity_names})
    add("feature_view", closed)


def _by_name(selections: Iterable[FeatureSelection]) -> tuple[FeatureSelection, ...]:
    return tuple(item.model_copy(update={"view": item.view_name}) for item in selections)


def definition_from_fields(kind: str, fields: Any) -> Definition:
    """Build a definition from plain fields, as YAML and the registry hold them.

    Raises
    ------
    DefinitionError
        A field is unknown, missing or malformed.
    """
    if not isinstance(fields, dict) or not isinstance(fields.get("name"), str):
        raise DefinitionError(f"a {kind_in_words(kind)} needs fields with a name, not {fields!r}")
    definition = KINDS[kind]
    required = [name for name, info in definition.model_fields.items() if info.is_required()]
    missing = [name for name in required if name not in fields]
    where = f"{kind_in_words(kind)} {fields['name']!r}"
    for name in fields:
        if name not in definition.model_fields:
            hint = did_you_mean(str(name), definition.model_fields)
            raise DefinitionError(f"{where}: unknown field {name!r}. {hint}")
    if missing:
        raise DefinitionError(f"{where} lacks {', '.join(missing)}")
    return definition(**fields)


def load_definitions(path: Path) -> list[Definition]:
    """Read the definitions of one Python module or YAML file.

    Raises
    ------
    ConfigError
        The file does not exist, or is neither Python nor YAML.
    DefinitionError
        The file cannot be read as definitions; the message names the file.
    """
    if not path.is_file():
        raise ConfigError(f"definitions file {path} does not exist; see definitions= in the config")
    if path.suffix in {".yaml", ".yml"}:
        return _load_yaml(path)
    if path.suffix == ".py":
        return _load_module(path)
    raise ConfigError(f"{path}: definitions are read from .py, .yaml and .yml files only")


def _load_module(path: Path) -> list[Definition]:
    name = f"_virtualfs_definitions_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # so that a project's modules can import each other
    try:
        spec.loader.exec_module(module)
    except DefinitionError as error:
        raise DefinitionError(f"{path}: {error}") from error
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        place = f"{path}, line {frames[-1].lineno}" if frames else str(path)
        raise DefinitionError(f"{place}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent))
    return _in_module(module)


def _load_yaml(path: Path) -> list[Definition]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise DefinitionError(f"{path} is not YAML: {error}") from None
    try:
        return definitions_from_sections(content)
    except DefinitionError as error:
        raise DefinitionError(f"{path}: {error}") from None


def definitions_from_sections(content: Any) -> list[Definition]:
    """Return definitions that are written as plain data, as in a YAML file.

    Parameters
    ----------
    content
        Lists of fields by section: ``entities``, ``sources`` and so on.

    Raises
    ------
    DefinitionError
        Something is wrong; all of it is told, and where.
    """
    if not isinstance(content, dict):
        raise DefinitionError(f"expected sections {', '.join(YAML_SECTIONS)}")
    found: list[Definition] = []
    problems: list[Problem] = []
    for section, items in content.items():
        if section not in YAML_SECTIONS:
            hint = did_you_mean(str(section), YAML_SECTIONS)
            problems.append(((str(section),), f"unknown section {section!r}. {hint}"))
            continue
        if not isinstance(items, list):
            problems.append(((section,), f"{section} must be a list"))
            continue
        for number, item in enumerate(items):
            try:
                found.append(definition_from_fields(YAML_SECTIONS[section], item))
            except DefinitionError as error:
                problems.append(((section, number), str(error)))
    if problems:
        raise DefinitionError("\n".join(text for _, text in problems), problems=problems)
    return found
