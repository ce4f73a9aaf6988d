from datetime import datetime
from typing import Any, Optional

from pydantic import Field

from .base_model import BaseModel
from .enums import FeatureStatus


class DepartureDelay(BaseModel):
    online_features: "DepartureDelayOnlineFeatures" = Field(alias="onlineFeatures")
    historical_features: list[Any] = Field(alias="historicalFeatures")


class DepartureDelayOnlineFeatures(BaseModel):
    names: list[str]
    values: list[list[Optional[Any]]]
    statuses: list[list[FeatureStatus]]
    event_timestamps: list[list[Optional[datetime]]] = Field(alias="eventTimestamps")


DepartureDelay.model_rebuild()
