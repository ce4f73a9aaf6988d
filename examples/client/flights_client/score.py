from typing import Optional

from pydantic import Field

from .base_model import BaseModel
from .enums import FeatureStatus


class Score(BaseModel):
    departure_delay: Optional["ScoreDepartureDelay"] = Field(alias="departureDelay")


class ScoreDepartureDelay(BaseModel):
    temp: Optional[float]
    wind_speed: Optional[float] = Field(alias="windSpeed")
    freezing: Optional[bool]
    seats: Optional[int]
    last_delay: Optional[int] = Field(alias="lastDelay")
    meta: "ScoreDepartureDelayMeta" = Field(alias="_meta")


class ScoreDepartureDelayMeta(BaseModel):
    version: int
    names: list[str]
    statuses: list[FeatureStatus]


Score.model_rebuild()
ScoreDepartureDelay.model_rebuild()
