"""Databricks SQL: Spark's functions behind another door. Compiled in the suite; not run there."""

from __future__ import annotations

from dataclasses import replace

from virtualfs_providers import spark
from virtualfs_providers.cloud import CloudProvider

__all__ = ["CAPABILITIES", "PROVIDER"]

CAPABILITIES = replace(
    spark.CAPABILITIES,
    engine="Databricks",
    dialect="databricks",
    compiler="databricks",
    replace_table=True,
    max_identifier=255,
)
PROVIDER = CloudProvider("databricks", "databricks", CAPABILITIES, kind="TABLE")
