"""The registry: revisions, and objects as a history."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    schema = context.config.attributes.get("schema")
    of = f"{schema}." if schema else ""
    op.create_table(
        "virtualfs_revisions",
        sa.Column("project", sa.String(255), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(255), nullable=False),
        sa.Column("summary", sa.Text, nullable=False),
        schema=schema,
    )
    op.create_table(
        "virtualfs_objects",
        sa.Column("project", sa.String(255), primary_key=True),
        sa.Column("kind", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("since", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("until", sa.Integer, nullable=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("definition", sa.JSON, nullable=False),
        sa.Column("resolved", sa.JSON, nullable=True),
        sa.ForeignKeyConstraint(
            ["project", "since"],
            [f"{of}virtualfs_revisions.project", f"{of}virtualfs_revisions.number"],
            name="fk_virtualfs_objects_since",
        ),
        schema=schema,
    )
    for name, columns in (
        ("ix_virtualfs_objects_current", ["project", "until"]),
        ("ix_virtualfs_objects_version", ["project", "kind", "name", "version"]),
    ):
        op.create_index(name, "virtualfs_objects", columns, schema=schema)


def downgrade() -> None:
    """Remove the tables."""
    schema = context.config.attributes.get("schema")
    op.drop_table("virtualfs_objects", schema=schema)
    op.drop_table("virtualfs_revisions", schema=schema)
