from typing import Optional

from pydantic import Field

from .base_model import BaseModel


class RegisterTableInput(BaseModel):
    """An existing table, to be registered as a feature view."""

    table: str
    entity: str
    join_keys: list[str] = Field(alias="joinKeys")
    event_timestamp: Optional[str] = Field(alias="eventTimestamp", default=None)
    created_timestamp: Optional[str] = Field(alias="createdTimestamp", default=None)
    features: Optional[list[str]] = None
    "All columns but keys and times when null"
    name: Optional[str] = None
    "The table's when null"
    warehouse: str = "default"


class AirportKey(BaseModel):
    origin: str


class CarrierKey(BaseModel):
    carrier: str


class PlaneKey(BaseModel):
    tailnum: str
