"""Saved training sets, and which features they hold."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0003"
down_revision = "0002"


def _of_set() -> list[sa.Column[object]]:
    return [
        sa.Column("project", sa.String(255), primary_key=True),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    ]


def upgrade() -> None:
    """Make the tables."""
    schema = context.config.attributes.get("schema")
    op.create_table(
        "virtualfs_training_sets",
        *_of_set(),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(255), nullable=False),
        sa.Column("content_hash", sa.String(80), nullable=False),
        sa.Column("record", sa.JSON, nullable=False),
        schema=schema,
    )
    op.create_table(
        "virtualfs_training_set_features",
        *_of_set(),
        sa.Column("view", sa.String(300), primary_key=True),
        sa.Column("feature", sa.String(255), primary_key=True),
        schema=schema,
    )
    op.create_index(
        "ix_virtualfs_training_set_features_view",
        "virtualfs_training_set_features",
        ["project", "view"],
        schema=schema,
    )


def downgrade() -> None:
    """Drop the tables, if no training set would be forgotten."""
    schema = context.config.attributes.get("schema")
    of = f'"{schema}".' if schema else ""
    if not context.is_offline_mode():
        kept = op.get_bind().exec_driver_sql(f"SELECT count(*) FROM {of}virtualfs_training_sets")
        if kept.scalar():
            raise RuntimeError(
                "this registry remembers training sets, which schema 0002 cannot hold; nothing "
                "was changed"
            )
    op.drop_table("virtualfs_training_set_features", schema=schema)
    op.drop_table("virtualfs_training_sets", schema=schema)
