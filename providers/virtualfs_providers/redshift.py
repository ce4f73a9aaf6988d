"""Amazon Redshift: PostgreSQL's times, functions of its own. Compiled in the suite, not run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from virtualfs.capabilities import Capabilities
from virtualfs.compiler import sql
from virtualfs_providers import postgres, postgres_sql
from virtualfs_providers.cloud import CloudProvider

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["CAPABILITIES", "PROVIDER"]


def row_hash(values: Sequence[ir.Value]) -> ir.Value:
    """Hash columns one after the other with FNV, each seeded by the one before; NULL gives 0."""
    first, *rest = values
    hashed = sql.builtin("fnv_hash", (sql.type_text(first),), "int64")(first)
    for value in rest:
        hashed = sql.builtin("fnv_hash", (sql.type_text(value), "int64"), "int64")(value, hashed)
    return hashed


def _connect(url: str) -> Any:
    import ibis

    return ibis.connect(url.replace("redshift://", "postgresql://", 1))


CAPABILITIES = Capabilities(
    engine="Redshift",
    dialect="redshift",
    lexis=replace(postgres_sql.LEXIS, refused=("\\'",)),  # which may end a string, or not
    compiler="postgres",
    instant=postgres.instant,
    row_hash=row_hash,
    max_identifier=127,
)
PROVIDER = CloudProvider("postgres", "redshift", CAPABILITIES, connect=_connect)
