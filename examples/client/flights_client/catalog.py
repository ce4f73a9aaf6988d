from typing import Optional

from pydantic import Field

from .base_model import BaseModel


class Catalog(BaseModel):
    project: "CatalogProject"
    entities: list["CatalogEntities"]
    feature_views: "CatalogFeatureViews" = Field(alias="featureViews")
    feature: Optional["CatalogFeature"]
    feature_service: Optional["CatalogFeatureService"] = Field(alias="featureService")


class CatalogProject(BaseModel):
    name: str
    revision: int


class CatalogEntities(BaseModel):
    name: str
    description: str
    join_keys: list["CatalogEntitiesJoinKeys"] = Field(alias="joinKeys")
    feature_views: list["CatalogEntitiesFeatureViews"] = Field(alias="featureViews")


class CatalogEntitiesJoinKeys(BaseModel):
    name: str
    dtype: str


class CatalogEntitiesFeatureViews(BaseModel):
    name: str


class CatalogFeatureViews(BaseModel):
    total_count: int = Field(alias="totalCount")
    nodes: list["CatalogFeatureViewsNodes"]
    page_info: "CatalogFeatureViewsPageInfo" = Field(alias="pageInfo")


class CatalogFeatureViewsNodes(BaseModel):
    name: str
    version: int
    description: str
    ttl: Optional[str]
    rules: str
    source: Optional["CatalogFeatureViewsNodesSource"]
    features: list["CatalogFeatureViewsNodesFeatures"]


class CatalogFeatureViewsNodesSource(BaseModel):
    name: str
    warehouse: str


class CatalogFeatureViewsNodesFeatures(BaseModel):
    ref: str
    dtype: str


class CatalogFeatureViewsPageInfo(BaseModel):
    has_next_page: bool = Field(alias="hasNextPage")
    end_cursor: Optional[str] = Field(alias="endCursor")


class CatalogFeature(BaseModel):
    description: str
    dtype: str
    sql: str
    feature_view: Optional["CatalogFeatureFeatureView"] = Field(alias="featureView")


class CatalogFeatureFeatureView(BaseModel):
    version: int


class CatalogFeatureService(BaseModel):
    version: int
    names: list[str]
    references: list[str]


Catalog.model_rebuild()
CatalogEntities.model_rebuild()
CatalogFeatureViews.model_rebuild()
CatalogFeatureViewsNodes.model_rebuild()
CatalogFeature.model_rebuild()
