from datetime import datetime
from typing import Optional

from pydantic import Field

from .base_model import BaseModel
from .enums import FeatureStatus


class AirportNow(BaseModel):
    airport: Optional["AirportNowAirport"]
    earlier: Optional["AirportNowEarlier"]
    airports: list[Optional["AirportNowAirports"]]


class AirportNowAirport(BaseModel):
    origin: str
    airport_weather: Optional["AirportNowAirportAirportWeather"] = Field(
        alias="airportWeather"
    )


class AirportNowAirportAirportWeather(BaseModel):
    temp: Optional[float]
    wind_speed: Optional[float] = Field(alias="windSpeed")
    freezing: Optional[bool]
    meta: "AirportNowAirportAirportWeatherMeta" = Field(alias="_meta")


class AirportNowAirportAirportWeatherMeta(BaseModel):
    status: FeatureStatus
    event_timestamp: Optional[datetime] = Field(alias="eventTimestamp")
    version: int
    cache_hit: bool = Field(alias="cacheHit")


class AirportNowEarlier(BaseModel):
    airport_weather: Optional["AirportNowEarlierAirportWeather"] = Field(
        alias="airportWeather"
    )


class AirportNowEarlierAirportWeather(BaseModel):
    temp: Optional[float]


class AirportNowAirports(BaseModel):
    origin: str
    airport_weather: Optional["AirportNowAirportsAirportWeather"] = Field(
        alias="airportWeather"
    )


class AirportNowAirportsAirportWeather(BaseModel):
    temp: Optional[float]
    poor_visibility: Optional[bool] = Field(alias="poorVisibility")


AirportNow.model_rebuild()
AirportNowAirport.model_rebuild()
AirportNowAirportAirportWeather.model_rebuild()
AirportNowEarlier.model_rebuild()
AirportNowAirports.model_rebuild()
