from datetime import datetime
from typing import Optional

from pydantic import Field

from .base_model import BaseModel


class Lineage(BaseModel):
    lineage: "LineageLineage"
    feature_view: Optional["LineageFeatureView"] = Field(alias="featureView")
    search: list["LineageSearch"]


class LineageLineage(BaseModel):
    nodes: list["LineageLineageNodes"]
    edges: list["LineageLineageEdges"]


class LineageLineageNodes(BaseModel):
    id: str
    kind: str
    name: str
    detail: str


class LineageLineageEdges(BaseModel):
    source: str
    target: str
    role: str


class LineageFeatureView(BaseModel):
    sql: str
    versions: list["LineageFeatureViewVersions"]


class LineageFeatureViewVersions(BaseModel):
    version: int
    created_at: datetime = Field(alias="createdAt")
    created_by: str = Field(alias="createdBy")
    impact: str
    changes: list[str]


class LineageSearch(BaseModel):
    kind: str
    name: str


Lineage.model_rebuild()
LineageLineage.model_rebuild()
LineageFeatureView.model_rebuild()
