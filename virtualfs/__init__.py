"""VirtualFS: a virtual feature store over the SQL warehouses you already have.

>>> import virtualfs as vfs
>>> airport = vfs.Entity("airport", join_keys={"origin": "string"})
>>> weather = vfs.FeatureView(
...     "airport_weather",
...     source=vfs.Source("weather", table="weather", event_timestamp="time_hour"),
...     entities=[airport],
...     features=["temp", vfs.Feature("freezing", "temp <= 32")],
...     ttl="3h",
... )

Names are loaded when first used, so that ``import virtualfs`` and the command line start at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ibis import _

    from virtualfs.config import Config, load_config
    from virtualfs.definitions.aggregate import Aggregate
    from virtualfs.definitions.entity import Entity
    from virtualfs.definitions.feature_service import FeatureService
    from virtualfs.definitions.feature_view import Feature, FeatureSelection, FeatureView
    from virtualfs.definitions.on_demand import OnDemandFeatureView
    from virtualfs.definitions.source import Source
    from virtualfs.definitions.transformation import (
        Encoding,
        impute,
        min_max,
        one_hot,
        ordinal,
        standardize,
    )
    from virtualfs.errors import (
        BreakingChangeError,
        ConfigError,
        DefinitionError,
        FeatureDeprecationWarning,
        NotFoundError,
        OnlineStoreError,
        PermissionDeniedError,
        PlanConflictError,
        RegistryError,
        SpineError,
        TrainingSetDamagedError,
        UnsupportedByWarehouseError,
        VirtualFSError,
        WarehouseError,
        WarehouseUnavailableError,
    )
    from virtualfs.registry.plan import Plan, Revision
    from virtualfs.serving.on_demand import FeatureStatus
    from virtualfs.serving.response import OnlineResponse
    from virtualfs.store import FeatureStore
    from virtualfs.training.dataset import TrainingDataset
    from virtualfs.training.saved import TrainingSet

_HOMES = {
    "Aggregate": "virtualfs.definitions.aggregate",
    "BreakingChangeError": "virtualfs.errors",
    "Config": "virtualfs.config",
    "ConfigError": "virtualfs.errors",
    "DefinitionError": "virtualfs.errors",
    "Encoding": "virtualfs.definitions.transformation",
    "Entity": "virtualfs.definitions.entity",
    "Feature": "virtualfs.definitions.feature_view",
    "FeatureDeprecationWarning": "virtualfs.errors",
    "FeatureSelection": "virtualfs.definitions.feature_view",
    "FeatureService": "virtualfs.definitions.feature_service",
    "FeatureStatus": "virtualfs.serving.on_demand",
    "FeatureStore": "virtualfs.store",
    "FeatureView": "virtualfs.definitions.feature_view",
    "NotFoundError": "virtualfs.errors",
    "OnDemandFeatureView": "virtualfs.definitions.on_demand",
    "OnlineResponse": "virtualfs.serving.response",
    "OnlineStoreError": "virtualfs.errors",
    "PermissionDeniedError": "virtualfs.errors",
    "Plan": "virtualfs.registry.plan",
    "PlanConflictError": "virtualfs.errors",
    "RegistryError": "virtualfs.errors",
    "Revision": "virtualfs.registry.plan",
    "Source": "virtualfs.definitions.source",
    "SpineError": "virtualfs.errors",
    "TrainingDataset": "virtualfs.training.dataset",
    "TrainingSet": "virtualfs.training.saved",
    "TrainingSetDamagedError": "virtualfs.errors",
    "UnsupportedByWarehouseError": "virtualfs.errors",
    "VirtualFSError": "virtualfs.errors",
    "WarehouseError": "virtualfs.errors",
    "WarehouseUnavailableError": "virtualfs.errors",
    "_": "ibis",
    "impute": "virtualfs.definitions.transformation",
    "load_config": "virtualfs.config",
    "min_max": "virtualfs.definitions.transformation",
    "one_hot": "virtualfs.definitions.transformation",
    "ordinal": "virtualfs.definitions.transformation",
    "standardize": "virtualfs.definitions.transformation",
}

__version__ = "0.1.0"

__all__ = [
    "Aggregate",
    "BreakingChangeError",
    "Config",
    "ConfigError",
    "DefinitionError",
    "Encoding",
    "Entity",
    "Feature",
    "FeatureDeprecationWarning",
    "FeatureSelection",
    "FeatureService",
    "FeatureStatus",
    "FeatureStore",
    "FeatureView",
    "NotFoundError",
    "OnDemandFeatureView",
    "OnlineResponse",
    "OnlineStoreError",
    "PermissionDeniedError",
    "Plan",
    "PlanConflictError",
    "RegistryError",
    "Revision",
    "Source",
    "SpineError",
    "TrainingDataset",
    "TrainingSet",
    "TrainingSetDamagedError",
    "UnsupportedByWarehouseError",
    "VirtualFSError",
    "WarehouseError",
    "WarehouseUnavailableError",
    "_",
    "impute",
    "load_config",
    "min_max",
    "one_hot",
    "ordinal",
    "standardize",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'virtualfs' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
