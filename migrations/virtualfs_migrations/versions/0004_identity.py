"""An identity of the registry, which tells its deployment's cached rows from those of others."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import context, op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table, with a new identity in it."""
    schema = context.config.attributes.get("schema")
    table = op.create_table(
        "virtualfs_identity",
        sa.Column("identity", sa.String(36), primary_key=True),
        schema=schema,
    )
    op.bulk_insert(table, [{"identity": str(uuid.uuid4())}])


def downgrade() -> None:
    """Drop the table; a later upgrade makes another identity, and caches begin empty."""
    op.drop_table("virtualfs_identity", schema=context.config.attributes.get("schema"))
